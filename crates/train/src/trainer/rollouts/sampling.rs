//! Many answers at a time: a prompt's neighbours share what is cached of it, and a row that ends makes room.

use std::collections::{BTreeMap, VecDeque};

use compute::Backend;
use model::generate::{Batcher, Finish, Model, Refusal, Request, Room, RowId, Sampling};
use model::{Adapter, Decoder};
use serde::{Deserialize, Serialize};
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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

/// Tokens to be drawn behind others.
#[derive(Clone, Debug)]
pub(super) struct Turn {
    /// What is before them, at least one token.
    pub(super) tokens: Vec<u32>,
    /// How they are drawn.
    pub(super) sampling: Sampling,
    /// How many of its key's draws were made before.
    pub(super) drawn: u64,
    /// Most tokens, at least one.
    pub(super) max_new_tokens: usize,
}

/// Turns that are drawn together; those for which there is no room wait.
pub(super) struct Pool<'a> {
    policy: Policy<'a>,
    batcher: Batcher,
    waiting: VecDeque<(usize, Turn)>,
    running: BTreeMap<RowId, (usize, Drawn)>,
}

impl<'a> Pool<'a> {
    pub(super) fn new(policy: Policy<'a>, backend: &mut dyn Backend, room: Room) -> Result<Self> {
        let batcher = Batcher::new(Self::model(&policy), backend, room)?;
        Ok(Pool { policy, batcher, waiting: VecDeque::new(), running: BTreeMap::new() })
    }

    fn model<'b>(policy: &'b Policy<'a>) -> Model<'b> {
        Model { decoder: policy.decoder, parts: std::slice::from_ref(&policy.adapter) }
    }

    /// Adds a turn under a number of the caller's.
    pub(super) fn add(&mut self, number: usize, turn: Turn) {
        self.waiting.push_back((number, turn));
    }

    /// Whether all that was added is drawn.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty()
    }

    /// Draws a token for every turn that runs. Turns that end come out, and their keys stay cached for those that go on
    /// from them, as long as there is room.
    pub(super) fn step(&mut self, backend: &mut dyn Backend) -> Result<Vec<(usize, Drawn)>> {
        self.fill()?;
        let mut ended = Vec::new();
        for drawn in self.batcher.step(Self::model(&self.policy), backend)? {
            let (_, turn) = self.running.get_mut(&drawn.row).expect("a row that runs");
            turn.tokens.push(drawn.token);
            turn.logprobs.push(drawn.logprob);
            if let Some(finish) = drawn.finish {
                turn.ended = finish == Finish::Stop;
                self.batcher.remove(drawn.row);
                ended.extend(self.running.remove(&drawn.row));
            }
        }
        Ok(ended)
    }

    /// Lets as many run as there is room for.
    fn fill(&mut self) -> Result<()> {
        while let Some((number, turn)) = self.waiting.front() {
            let request = Request {
                tokens: turn.tokens.clone(),
                sampling: turn.sampling,
                drawn: turn.drawn,
                max_new_tokens: turn.max_new_tokens,
                stop_tokens: self.policy.stop_tokens.to_vec(),
                ..Request::default()
            };
            match self.batcher.add(request) {
                Ok(row) => {
                    let nothing = Drawn { tokens: Vec::new(), logprobs: Vec::new(), ended: false };
                    self.running.insert(row, (*number, nothing));
                    self.waiting.pop_front();
                }
                Err(Refusal::Full(_)) => {
                    assert!(!self.running.is_empty(), "there is room for each answer alone");
                    break;
                }
                Err(Refusal::Invalid(error)) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Gives the memory back.
    pub(super) fn close(self, backend: &mut dyn Backend) {
        self.batcher.close(backend);
    }
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
    let room = room(concurrency.min(wanted.len()), longest, policy.max_new_tokens);
    let mut pool = Pool::new(policy, backend, room)?;
    for (number, Wanted { prompt, sampling }) in wanted.iter().enumerate() {
        let (tokens, sampling) = (prompt.clone(), *sampling);
        let max_new_tokens = policy.max_new_tokens;
        pool.add(number, Turn { tokens, sampling, drawn: 0, max_new_tokens });
    }
    let result = run(&mut pool, backend, listen, on_answer);
    pool.close(backend);
    result
}

fn run(
    pool: &mut Pool<'_>,
    backend: &mut dyn Backend,
    listen: &mut dyn FnMut() -> Control,
    on_answer: &mut dyn FnMut(usize, Drawn) -> Result<()>,
) -> Result<bool> {
    while !pool.is_empty() {
        for (index, answer) in pool.step(backend)? {
            on_answer(index, answer)?;
        }
        if listen() == Control::Stop {
            return Ok(false);
        }
    }
    Ok(true)
}
