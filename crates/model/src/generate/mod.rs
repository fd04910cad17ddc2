//! Generation: prompts in, tokens out, many at a time, with keys and values kept.
//!
//! Every step is an ordinary forward pass, so a token gets the same bits here as in
//! training, alone or among others. [`generate`] answers a list of prompts; a [`Batcher`], which it is a loop
//! over, takes requests while others run.

mod batcher;
mod blocks;
mod demand;
mod pass;
mod request;
mod room;
mod score;

use std::collections::BTreeMap;

use compute::Backend;

use crate::{Adapter, Decoder, Error, Result};
pub use batcher::{Batcher, Model};
pub use demand::{Counted, Demand};
pub use request::{Drawn, Finish, MOST_TOP_LOGPROBS, Refusal, Request, RowId, Sampling, TokenMask};
pub use room::{PREFILL_TOKENS, Room};
pub use score::Scoring;

/// One text to be continued.
#[derive(Clone, Debug, Default)]
pub struct Prompt {
    /// Its tokens, at least one.
    pub tokens: Vec<u32>,
    /// At most this many are added.
    pub max_new_tokens: usize,
    /// Identity of the prompt (and of the completion, if it has several): the key of its draws.
    pub key: u64,
}

/// How tokens are chosen and when generation ends.
#[derive(Clone, Debug)]
pub struct GenerateConfig {
    /// 0 takes the most likely token.
    pub temperature: f32,
    /// Only this many of the most likely tokens; 0 means all.
    pub top_k: usize,
    /// Only the most likely tokens that together reach this probability.
    pub top_p: f32,
    /// Seed of all draws.
    pub seed: u64,
    /// Tokens that end a completion; they are its last token.
    pub stop_tokens: Vec<u32>,
    /// Sequences that run at the same time.
    pub max_active: usize,
}

impl Default for GenerateConfig {
    fn default() -> Self {
        GenerateConfig {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            seed: 0,
            stop_tokens: Vec::new(),
            max_active: 32,
        }
    }
}

/// What was generated for one prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    /// The new tokens, the stop token included.
    pub tokens: Vec<u32>,
    /// Log-probability of each, see [`Drawn::logprob`].
    pub logprobs: Vec<f32>,
    /// Why it ended.
    pub finish: Finish,
}

/// What the caller of [`generate`] wants after a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Go on with this prompt.
    Continue,
    /// End this completion.
    Stop,
    /// End all completions where they stand, those not begun among them: nothing more is computed.
    Cancel,
}

/// Continues every prompt. `on_token` sees each new token as (prompt index, token).
pub fn generate(
    decoder: &Decoder,
    backend: &mut dyn Backend,
    adapter: Option<&Adapter>,
    prompts: &[Prompt],
    config: &GenerateConfig,
    on_token: &mut dyn FnMut(usize, u32) -> Flow,
) -> Result<Vec<Completion>> {
    for (index, prompt) in prompts.iter().enumerate() {
        check(prompt, decoder).map_err(|error| match error {
            Error::Input { message, hint } => {
                Error::Input { message: format!("prompt {index}: {message}"), hint }
            }
            error => error,
        })?;
    }
    let finish = Finish::Length;
    let nothing = Completion { tokens: Vec::new(), logprobs: Vec::new(), finish };
    let mut completions = vec![nothing; prompts.len()];
    if prompts.iter().all(|prompt| prompt.max_new_tokens == 0) {
        return Ok(completions);
    }
    let model = Model { decoder, parts: &[adapter] };
    let room = Room::for_prompts(prompts, config.max_active, &decoder.config);
    let mut batcher = Batcher::new(model, backend, room)?;
    let result = run(&mut batcher, model, backend, (prompts, config), &mut completions, on_token);
    batcher.close(backend);
    result.map(|()| completions)
}

fn check(prompt: &Prompt, decoder: &Decoder) -> Result<()> {
    if prompt.tokens.is_empty() {
        return Err(batcher::input("it has no tokens".into()));
    }
    batcher::check_tokens(&prompt.tokens, decoder.config.vocab_size)?;
    decoder.config.check_length(prompt.tokens.len() + prompt.max_new_tokens)
}

fn run(
    batcher: &mut Batcher,
    model: Model<'_>,
    backend: &mut dyn Backend,
    (prompts, config): (&[Prompt], &GenerateConfig),
    completions: &mut [Completion],
    on_token: &mut dyn FnMut(usize, u32) -> Flow,
) -> Result<()> {
    let wanted = prompts.iter().enumerate().filter(|(_, prompt)| prompt.max_new_tokens > 0);
    let mut waiting = wanted.map(|(index, prompt)| (index, request(prompt, config)));
    let mut running: BTreeMap<RowId, usize> = BTreeMap::new();
    let mut next = waiting.next();
    while next.is_some() || !batcher.is_empty() {
        while let Some((index, request)) = next.take() {
            match batcher.add(request) {
                Ok(row) => {
                    running.insert(row, index);
                    next = waiting.next();
                }
                Err(Refusal::Full(request)) => {
                    assert!(!batcher.is_empty(), "there is room for each prompt alone");
                    next = Some((index, *request));
                    break;
                }
                Err(Refusal::Invalid(error)) => return Err(error),
            }
        }
        for Drawn { row, token, logprob, finish, .. } in batcher.step(model, backend)? {
            let index = running[&row];
            let completion = &mut completions[index];
            completion.tokens.push(token);
            completion.logprobs.push(logprob);
            let flow = on_token(index, token);
            let stopped = (flow == Flow::Stop).then_some(Finish::Stop);
            if let Some(finish) = stopped.or(finish) {
                completion.finish = finish;
                batcher.remove(row);
                running.remove(&row);
            }
            if flow == Flow::Cancel {
                let waiting = next.into_iter().chain(waiting).map(|(index, _)| index);
                for index in running.into_values().chain(waiting) {
                    completions[index].finish = Finish::Cancelled;
                }
                return Ok(());
            }
        }
    }
    Ok(())
}

fn request(prompt: &Prompt, config: &GenerateConfig) -> Request {
    let GenerateConfig { temperature, top_k, top_p, seed, .. } = *config;
    let key = prompt.key;
    Request {
        tokens: prompt.tokens.clone(),
        sampling: Sampling { temperature, top_k, top_p, seed, key, ..Sampling::default() },
        max_new_tokens: prompt.max_new_tokens,
        stop_tokens: config.stop_tokens.clone(),
        ..Request::default()
    }
}
