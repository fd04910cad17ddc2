//! A model answers prompts: greedily, many at a time.
//!
//! The prompts of a task begin alike (instructions, a schema, worked examples);
//! that beginning is computed once for all of them.

use compute::Backend;
use model::generate::{Flow, GenerateConfig, Prompt, generate};
use model::{Adapter, Decoder};
use text::{ChatTemplate, DecodeStream, Message, RenderOptions, Tokenizer};

/// Says of an answer so far whether it is complete.
pub type IsComplete<'a> = &'a dyn Fn(&str) -> bool;

/// How prompts are answered.
#[derive(Clone, Copy)]
pub struct Settings<'a> {
    /// Longest answer, in tokens.
    pub max_new_tokens: usize,
    /// Tokens that end an answer, themselves not part of it.
    pub stop_tokens: &'a [u32],
    /// Answers that are worked on at the same time.
    pub max_active: usize,
    /// Ends an answer before the model does. What is compared must be ended by the same rule.
    pub is_complete: Option<IsComplete<'a>>,
}

/// What the model said to one prompt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Its text, special tokens left out.
    pub text: String,
    /// New tokens, the one that ended it included.
    pub tokens: usize,
    /// Tokens of the prompt as rendered.
    pub prompt_tokens: usize,
}

/// How far the answering is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Answers that are complete.
    pub answered: usize,
    /// New tokens of all answers.
    pub tokens: usize,
}

/// What a model is asked with: how messages become tokens, and tokens text.
#[derive(Clone, Copy)]
pub struct Language<'a> {
    /// The tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// The chat template, which opens the assistant's turn.
    pub template: &'a ChatTemplate,
}

impl Language<'_> {
    /// The tokens of a conversation up to the answer.
    pub fn encode(&self, prompt: &[Message]) -> model::Result<Vec<u32>> {
        let options = RenderOptions { add_generation_prompt: true, ..RenderOptions::default() };
        Ok(self.tokenizer.encode(&self.template.render(prompt, &options)?)?)
    }
}

/// Answers every prompt with the most likely tokens; the answers stand in the prompts' order.
///
/// `progress` hears of every new token. If it says [`Flow::Stop`], all answers end where they
/// stand, and those not begun have one token.
pub fn answers(
    decoder: &Decoder,
    backend: &mut dyn Backend,
    adapter: Option<&Adapter>,
    language: Language<'_>,
    prompts: &[Vec<Message>],
    settings: &Settings<'_>,
    progress: &mut dyn FnMut(Progress) -> Flow,
) -> model::Result<Vec<Answer>> {
    let encoded: Vec<Vec<u32>> =
        prompts.iter().map(|prompt| language.encode(prompt)).collect::<model::Result<_>>()?;
    let prompt = |(key, tokens): (usize, &Vec<u32>)| Prompt {
        tokens: tokens.clone(),
        max_new_tokens: settings.max_new_tokens,
        key: key as u64,
    };
    let asked: Vec<Prompt> = encoded.iter().enumerate().map(prompt).collect();
    let config = GenerateConfig {
        stop_tokens: settings.stop_tokens.to_vec(),
        max_active: settings.max_active,
        ..GenerateConfig::default()
    };
    let draft = || Draft::new(language.tokenizer);
    let mut drafts: Vec<Draft<'_>> = prompts.iter().map(|_| draft()).collect();
    let mut so_far = Progress::default();
    let mut failed = None;
    let mut on_token = |prompt: usize, token: u32| {
        let draft = &mut drafts[prompt];
        let mut ends = settings.stop_tokens.contains(&token);
        if !ends {
            ends = draft.push(token, settings.is_complete).unwrap_or_else(|error| {
                failed = Some(error);
                true
            });
        }
        draft.tokens += 1;
        so_far.tokens += 1;
        so_far.answered += usize::from(ends || draft.tokens == settings.max_new_tokens);
        let flow = progress(so_far);
        if ends || failed.is_some() { Flow::Stop } else { flow }
    };
    generate(decoder, backend, adapter, &asked, &config, &mut on_token)?;
    if let Some(error) = failed {
        return Err(error.into());
    }
    let finish = |(draft, prompt): (Draft<'_>, &Vec<u32>)| draft.finish(prompt.len());
    Ok(drafts.into_iter().zip(&encoded).map(finish).collect::<text::Result<_>>()?)
}

/// An answer as it comes into being.
struct Draft<'a> {
    stream: DecodeStream<'a>,
    text: String,
    tokens: usize,
}

impl<'a> Draft<'a> {
    fn new(tokenizer: &'a Tokenizer) -> Self {
        Draft { stream: tokenizer.decode_stream(true), text: String::new(), tokens: 0 }
    }

    /// Adds a token; says whether that makes the answer complete.
    fn push(&mut self, token: u32, is_complete: Option<IsComplete<'_>>) -> text::Result<bool> {
        // A token may be part of a character, and has no text yet.
        let Some(piece) = self.stream.push(token)? else { return Ok(false) };
        self.text.push_str(&piece);
        Ok(is_complete.is_some_and(|is_complete| is_complete(&self.text)))
    }

    fn finish(mut self, prompt_tokens: usize) -> text::Result<Answer> {
        if let Some(rest) = self.stream.flush()? {
            self.text.push_str(&rest);
        }
        Ok(Answer { text: self.text, tokens: self.tokens, prompt_tokens })
    }
}
