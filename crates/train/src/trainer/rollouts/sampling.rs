//! Many answers at a time: a prompt's neighbours share what is cached of it, and a row that ends makes room.

use std::collections::BTreeMap;

use compute::Backend;
use model::generate::{Batcher, Finish, Model, Refusal, Request, Room, RowId, Sampling};
use model::{Adapter, Decoder};
use text::Metadata;

use crate::Result;
use crate::models::Models;
use crate::trainer::Control;

/// An answer that is wanted.
#[derive(Clone, Debug)]
pub(in crate::trainer) struct Wanted {
    /// The prompt, at least one token.
    pub(in crate::trainer) prompt: Vec<u32>,
    /// How it is drawn.
    pub(in crate::trainer) sampling: Sampling,
}

/// An answer that was drawn.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::trainer) struct Drawn {
    /// Its tokens, the one that ended it included.
    pub(in crate::trainer) tokens: Vec<u32>,
    /// Log-probability of each at the sampling temperature.
    pub(in crate::trainer) logprobs: Vec<f32>,
    /// Whether the model ended it.
    pub(in crate::trainer) ended: bool,
}

/// Who answers.
#[derive(Clone, Copy)]
pub(in crate::trainer) struct Policy<'a> {
    pub(in crate::trainer) decoder: &'a Decoder,
    pub(in crate::trainer) adapter: Option<&'a Adapter>,
    /// Tokens that end an answer.
    pub(in crate::trainer) stop_tokens: &'a [u32],
    /// Longest answer, in tokens.
    pub(in crate::trainer) max_new_tokens: usize,
}

impl<'a> Policy<'a> {
    /// The policy of a run, whose answers end with the model's end-of-turn tokens.
    pub(super) fn of(models: &'a Models, metadata: &'a Metadata, max_new_tokens: usize) -> Self {
        Policy {
            decoder: &models.decoder,
            adapter: models.policy().adapter.as_deref(),
            stop_tokens: &metadata.eos_token_ids,
            max_new_tokens,
        }
    }
}

/// What so many answers at the same time have room in.
pub(in crate::trainer) fn room(rows: usize, longest_prompt: usize, max_new_tokens: usize) -> Room {
    let row_tokens = longest_prompt + max_new_tokens;
    let blocks = rows * row_tokens.div_ceil(Room::BLOCK);
    let prefill_tokens = model::generate::PREFILL_TOKENS;
    Room { blocks, rows, row_tokens, prefill_tokens, scores: false }
}

/// Draws an answer to each of `wanted`; `on_answer` gets each with its index as soon as it is complete. Says whether all
/// were drawn: `listen` is asked after every token, and may end it.
pub(in crate::trainer) fn sample(
    policy: Policy<'_>,
    backend: &mut dyn Backend,
    wanted: &[Wanted],
    concurrency: usize,
    listen: &mut dyn FnMut() -> Control,
    on_answer: &mut dyn FnMut(usize, Drawn) -> Result<()>,
) -> Result<bool> {
    let Some(longest) = wanted.iter().map(|wanted| wanted.prompt.len()).max() else {
        return Ok(true);
    };
    let model = Model { decoder: policy.decoder, parts: &[policy.adapter] };
    let room = room(concurrency.min(wanted.len()), longest, policy.max_new_tokens);
    let mut batcher = Batcher::new(model, backend, room)?;
    let result = run(&mut batcher, model, backend, policy, wanted, listen, on_answer);
    batcher.close(backend);
    result
}

fn run(
    batcher: &mut Batcher,
    model: Model<'_>,
    backend: &mut dyn Backend,
    policy: Policy<'_>,
    wanted: &[Wanted],
    listen: &mut dyn FnMut() -> Control,
    on_answer: &mut dyn FnMut(usize, Drawn) -> Result<()>,
) -> Result<bool> {
    let mut waiting = wanted.iter().enumerate().peekable();
    let mut running: BTreeMap<RowId, (usize, Drawn)> = BTreeMap::new();
    while waiting.peek().is_some() || !running.is_empty() {
        while let Some((index, wanted)) = waiting.peek() {
            let request = Request {
                tokens: wanted.prompt.clone(),
                sampling: wanted.sampling,
                max_new_tokens: policy.max_new_tokens,
                stop_tokens: policy.stop_tokens.to_vec(),
                ..Request::default()
            };
            match batcher.add(request) {
                Ok(row) => {
                    let nothing = Drawn { tokens: Vec::new(), logprobs: Vec::new(), ended: false };
                    running.insert(row, (*index, nothing));
                    waiting.next();
                }
                Err(Refusal::Full(_)) => {
                    assert!(!running.is_empty(), "there is room for each answer alone");
                    break;
                }
                Err(Refusal::Invalid(error)) => return Err(error.into()),
            }
        }
        for drawn in batcher.step(model, backend)? {
            let (_, answer) = running.get_mut(&drawn.row).expect("a row that runs");
            answer.tokens.push(drawn.token);
            answer.logprobs.push(drawn.logprob);
            if let Some(finish) = drawn.finish {
                answer.ended = finish == Finish::Stop;
                batcher.remove(drawn.row);
                let (index, answer) = running.remove(&drawn.row).expect("a row that runs");
                on_answer(index, answer)?;
            }
        }
        if listen() == Control::Stop {
            return Ok(false);
        }
    }
    Ok(true)
}
