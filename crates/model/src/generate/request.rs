//! What a batcher is asked, and what it answers.

use crate::Error;

/// Most tokens that [`Request::top_logprobs`] may ask for.
pub const MOST_TOP_LOGPROBS: usize = 20;

/// A sequence that is to be continued.
#[derive(Default)]
pub struct Request {
    /// Its tokens so far, at least one.
    pub tokens: Vec<u32>,
    /// Which of [`Model::parts`](super::Model::parts) continues it.
    pub part: usize,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// How many draws of [`Sampling::key`] were made before: a row that was removed and is added with what it had
    /// drawn goes on as if it had stayed.
    pub drawn: u64,
    /// At most this many are drawn, at least one.
    pub max_new_tokens: usize,
    /// Tokens that end the row; they are its last token.
    pub stop_tokens: Vec<u32>,
    /// Which tokens may come next; all where there is none.
    pub mask: Option<Box<dyn TokenMask>>,
    /// How many of the most likely tokens are told beside each drawn one, at most [`MOST_TOP_LOGPROBS`].
    pub top_logprobs: usize,
}

/// How the next token is chosen, by the rules of [`compute::op::Sample`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// 0 takes the most likely token.
    pub temperature: f32,
    /// Only this many of the most likely tokens; 0 means all.
    pub top_k: usize,
    /// Only the most likely tokens that together reach this probability.
    pub top_p: f32,
    /// Only tokens with at least this share of the most likely one's probability.
    pub min_p: f32,
    /// What the logits of tokens are divided by (multiplied where negative) that the row has already; 1: nothing.
    pub repetition: f32,
    /// Seed of all draws.
    pub seed: u64,
    /// Identity of the row among those of the seed: the key of its draws.
    pub key: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        let (temperature, top_k, top_p) = (0.0, 0, 1.0);
        Sampling { temperature, top_k, top_p, min_p: 0.0, repetition: 1.0, seed: 0, key: 0 }
    }
}

impl Sampling {
    /// What is wrong with it.
    pub(super) fn mistake(&self) -> Option<String> {
        let Sampling { temperature, top_p, min_p, repetition, .. } = *self;
        let is_share = |x: f32| (0.0..=1.0).contains(&x);
        match () {
            () if !(temperature >= 0.0 && temperature.is_finite()) => {
                Some(format!("`temperature` = {temperature} is not a number from 0 on"))
            }
            () if !is_share(top_p) => Some(format!("`top_p` = {top_p} is not between 0 and 1")),
            () if !is_share(min_p) => Some(format!("`min_p` = {min_p} is not between 0 and 1")),
            () if !(repetition > 0.0 && repetition.is_finite()) => {
                Some(format!("`repetition` = {repetition} is not a number above 0"))
            }
            () => None,
        }
    }

    /// A row of [`compute::op::Sample::settings`] for the new token of a number.
    pub(super) fn settings(&self, number: u64) -> [f32; compute::op::Sample::SETTINGS] {
        let Sampling { temperature, top_k, top_p, min_p, repetition, seed, key } = *self;
        let draw = compute::random::key(&[seed, PURPOSE_SAMPLE, key, number]);
        [temperature, top_k as f32, top_p, min_p, repetition, compute::random::uniform(draw)]
    }
}

/// Keeps draws apart from every other use of the seed.
const PURPOSE_SAMPLE: u64 = 0x7361_6d70;

/// Which tokens may come next in a row: a grammar, a schema.
pub trait TokenMask: Send {
    /// Allows tokens behind those that came after the request's own (drawn, or given by
    /// [`extend`](super::Batcher::extend)): bit `t % 32` of word `t / 32` allows token t. All are clear before. Allowing
    /// nothing ends the row.
    fn allow(&mut self, new: &[u32], allowed: &mut [u32]);
}

/// Why a row ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// A stop token, nothing more that the mask allows, or the caller said so.
    Stop,
    /// `max_new_tokens`.
    Length,
    /// The caller ended all of them, see [`Flow::Cancel`](super::Flow::Cancel).
    Cancelled,
}

/// Names a row of a [`Batcher`](super::Batcher), in the order of their adding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowId(pub(super) u64);

/// A token that a step drew.
#[derive(Clone, Debug, PartialEq)]
pub struct Drawn {
    /// For which row.
    pub row: RowId,
    /// What was drawn.
    pub token: u32,
    /// Its log-probability under the model at the row's temperature (1 where that is 0), before top-k, top-p, min-p,
    /// penalty and mask: the number that training computes for the same token.
    pub logprob: f32,
    /// The most likely tokens and their log-probabilities, falling, as many as were asked for.
    pub top: Vec<(u32, f32)>,
    /// Why the row ended with it; none where it goes on.
    pub finish: Option<Finish>,
}

/// Why a row was not taken or extended.
#[derive(Debug)]
pub enum Refusal<T> {
    /// Too many rows run now. What was given comes back, to be tried again when another row has been removed.
    Full(T),
    /// It can never be run.
    Invalid(Error),
}

impl<T> From<Error> for Refusal<T> {
    fn from(error: Error) -> Self {
        Refusal::Invalid(error)
    }
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Request { tokens, part, sampling, max_new_tokens, .. } = self;
        let mut out = f.debug_struct("Request");
        out.field("tokens", tokens).field("part", part).field("sampling", sampling);
        out.field("max_new_tokens", max_new_tokens).finish_non_exhaustive()
    }
}
