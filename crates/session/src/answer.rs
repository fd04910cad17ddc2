//! Prompts in, text out: the one loop that all answers come from.

use compute::Backend;
use model::generate::{self, Flow, GenerateConfig, generate};
use model::{Adapter, Decoder};
use text::Metadata;

use crate::Result;
use crate::stream::AnswerStream;

/// A prompt in tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// Its tokens, at least one.
    pub tokens: Vec<u32>,
    /// What its draws depend on beside the seed: the same key draws the same answer, whatever is asked
    /// beside it or before it.
    pub key: u64,
}

/// How answers are drawn, and what ends them.
#[derive(Clone, Debug)]
pub struct Sampling {
    /// Longest answer, in tokens.
    pub max_new_tokens: usize,
    /// 0 takes the most likely token.
    pub temperature: f32,
    /// Only so many of the most likely tokens; 0 means all.
    pub top_k: usize,
    /// Only the most likely tokens that together have this probability.
    pub top_p: f32,
    /// Seed of the draws.
    pub seed: u64,
    /// Texts at which an answer ends, themselves not part of it.
    pub stop: Vec<String>,
    /// Says of the text so far whether the answer is complete.
    pub is_complete: Option<fn(&str) -> bool>,
    /// Prompts that are worked on at the same time.
    pub batch: usize,
}

impl Default for Sampling {
    fn default() -> Self {
        Sampling {
            max_new_tokens: 256,
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            seed: 0,
            stop: Vec::new(),
            is_complete: None,
            batch: 32,
        }
    }
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model ended its turn, a stop text came, or the answer is complete.
    Stop,
    /// It reached `max_new_tokens`.
    Length,
    /// The caller wanted no more of it.
    Interrupted,
}

impl Finish {
    /// As results name it.
    pub fn name(self) -> &'static str {
        match self {
            Finish::Stop => "stop",
            Finish::Length => "length",
            Finish::Interrupted => "interrupted",
        }
    }
}

/// What a model said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The text, without stop text and special tokens.
    pub text: String,
    /// New tokens, the one that ended it included.
    pub tokens: usize,
    /// Why it ended.
    pub finish: Finish,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
}

/// A token that has just been drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token<'a> {
    /// The index of its prompt.
    pub prompt: usize,
    /// The text that has become certain with it, perhaps none.
    pub text: &'a str,
    /// Whether the answer ends with it.
    pub is_last: bool,
}

/// A model on a device with its language.
#[derive(Clone, Copy)]
pub struct Speaker<'a> {
    /// The base.
    pub decoder: &'a Decoder,
    /// What lies over it.
    pub adapter: Option<&'a Adapter>,
    /// Tokenizer, and the tokens that end a turn.
    pub metadata: &'a Metadata,
}

impl Speaker<'_> {
    /// Answers every prompt, in the prompts' order. `on_token` hears of every token, and may end its answer
    /// ([`Flow::Stop`]) or all of them ([`Flow::Cancel`]).
    pub fn answer(
        self,
        backend: &mut dyn Backend,
        prompts: &[Prompt],
        sampling: &Sampling,
        on_token: &mut dyn FnMut(Token<'_>) -> Flow,
    ) -> Result<Vec<Answer>> {
        let asked = asked(prompts, sampling, self.decoder.config.max_position_embeddings);
        let config = GenerateConfig {
            temperature: sampling.temperature,
            top_k: sampling.top_k,
            top_p: sampling.top_p,
            seed: sampling.seed,
            stop_tokens: self.metadata.eos_token_ids.clone(),
            max_active: sampling.batch,
        };
        let stream = |prompt: &generate::Prompt| {
            AnswerStream::new(&self.metadata.tokenizer, sampling, prompt.max_new_tokens)
        };
        let mut streams: Vec<AnswerStream<'_>> = asked.iter().map(stream).collect();
        let mut failed = None;
        let mut hear = |prompt: usize, token: u32| -> Result<Flow> {
            let stream = &mut streams[prompt];
            let text = stream.push(token, config.stop_tokens.contains(&token))?;
            let is_last = stream.finish().is_some();
            let flow = on_token(Token { prompt, text: &text, is_last });
            if flow != Flow::Continue {
                stream.interrupt()?;
            }
            Ok(if is_last && flow == Flow::Continue { Flow::Stop } else { flow })
        };
        let mut hear = |prompt: usize, token: u32| {
            hear(prompt, token).unwrap_or_else(|error| {
                failed = Some(error);
                Flow::Cancel
            })
        };

        let completions =
            generate(self.decoder, backend, self.adapter, &asked, &config, &mut hear)?;
        if let Some(error) = failed {
            return Err(error);
        }
        for (stream, completion) in streams.iter_mut().zip(completions) {
            if completion.finish == generate::Finish::Cancelled {
                stream.interrupt()?;
            }
        }

        let answer = |(stream, prompt): (AnswerStream<'_>, &Prompt)| {
            let finish = stream.finish().unwrap_or(Finish::Length);
            let (text, tokens) = stream.into_text();
            Answer { text, tokens, finish, prompt_tokens: prompt.tokens.len() }
        };
        Ok(streams.into_iter().zip(prompts).map(answer).collect())
    }
}

/// Prompts as generation takes them: no answer goes beyond what the model takes.
pub(crate) fn asked(
    prompts: &[Prompt],
    sampling: &Sampling,
    longest: usize,
) -> Vec<generate::Prompt> {
    let asked = |prompt: &Prompt| generate::Prompt {
        tokens: prompt.tokens.clone(),
        max_new_tokens: sampling.max_new_tokens.min(longest.saturating_sub(prompt.tokens.len())),
        key: prompt.key,
    };
    prompts.iter().map(asked).collect()
}
