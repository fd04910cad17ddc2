//! Which sequence runs where: a fixed number of lanes in the cache behind one
//! shared beginning, refilled as sequences end.

use compute::Buffer;

use super::{Completion, Finish, Prompt, SHARED_TOKENS};
use crate::decoder::{CacheView, Inputs, Spans};

/// The sequence in one lane.
struct Active {
    prompt: usize,
    /// Tokens whose keys and values are in the cache, the shared beginning included.
    cached: usize,
    /// Whether those keys have the frequencies of long sequences.
    is_long: bool,
    /// Where generation stands: all tokens known so far.
    tokens: Vec<u32>,
    logprobs: Vec<f32>,
}

pub(super) struct Lanes<'a> {
    prompts: &'a [Prompt],
    /// A sequence of more tokens than this has other rotary frequencies.
    long_beyond: Option<usize>,
    /// Length of the shared beginning, in slots `0..shared`.
    shared: usize,
    shared_cached: usize,
    /// Slots of a lane.
    capacity: usize,
    lanes: Vec<Option<Active>>,
    next_prompt: usize,
    completions: Vec<Option<Completion>>,
}

/// The tokens of one step.
#[derive(Default)]
pub(super) struct Work {
    tokens: Vec<u32>,
    positions: Vec<u32>,
    slots: Vec<u32>,
    reads: Vec<u32>,
    spans: Spans,
    read_spans: Spans,
    /// For every token, the length of its sequence so far.
    lengths: Vec<u32>,
    /// The lane of every read.
    pub(super) lanes: Vec<usize>,
    /// Key of the prompt and number of the new token, of every read.
    pub(super) draws: Vec<(u64, u64)>,
}

impl<'a> Lanes<'a> {
    pub(super) fn new(
        prompts: &'a [Prompt],
        max_active: usize,
        long_beyond: Option<usize>,
    ) -> Self {
        let shared = if agree(prompts, long_beyond) { shared_length(prompts) } else { 0 };
        let needs = prompts.iter().map(|p| p.tokens.len() + p.max_new_tokens - shared);
        let capacity = needs.max().unwrap_or(0);
        let count = prompts.len().min(max_active.max(1));
        Lanes {
            prompts,
            long_beyond,
            shared,
            shared_cached: 0,
            capacity,
            lanes: (0..count).map(|_| None).collect(),
            next_prompt: 0,
            completions: vec![None; prompts.len()],
        }
    }

    pub(super) fn slots(&self) -> usize {
        self.shared + self.lanes.len() * self.capacity
    }

    /// The next step: one token of every lane that generates, and up to `budget` tokens of prompts.
    pub(super) fn next_work(&mut self, budget: usize) -> Option<Work> {
        let mut work = Work::default();
        if self.shared_cached < self.shared {
            let start = self.shared_cached;
            let end = self.shared.min(start + budget);
            let tokens = &self.prompts[0].tokens[start..end];
            let length = self.prompts[0].tokens.len();
            work.push(tokens, (start, length), start as u32, &[(0, end as u32)], None);
            self.shared_cached = end;
            return Some(work.close());
        }
        self.admit();
        let mut left = budget;
        for lane in 0..self.lanes.len() {
            let first_slot = (self.shared + lane * self.capacity) as u32;
            let shared = self.shared;
            let Some(active) = &mut self.lanes[lane] else { continue };
            let length = active.tokens.len();
            let is_long = is_long(self.long_beyond, length);
            if is_long != active.is_long {
                // All keys are computed again, rotated by the other frequencies.
                assert_eq!(shared, 0, "sequences that change their frequencies share nothing");
                (active.cached, active.is_long) = (0, is_long);
            }
            let start = active.cached;
            let pending = active.tokens.len() - start;
            let prompt = &self.prompts[active.prompt];
            // One token of every lane always has room; more of them share the budget.
            let count = if pending > 1 { pending.min(left) } else { pending };
            if count == 0 {
                continue;
            }
            if pending > 1 {
                left -= count;
            }
            let end = start + count;
            let draw = (end == active.tokens.len())
                .then(|| (lane, prompt.key, (end - prompt.tokens.len()) as u64));
            let own = (first_slot, (end - shared) as u32);
            let runs: &[(u32, u32)] = if shared > 0 { &[(0, shared as u32), own] } else { &[own] };
            let slot = first_slot + (start - shared) as u32;
            work.push(&active.tokens[start..end], (start, length), slot, runs, draw);
            active.cached = end;
        }
        (!work.tokens.is_empty()).then(|| work.close())
    }

    /// A step at least as large as any that [`next_work`](Lanes::next_work) makes.
    pub(super) fn largest_work(&self, budget: usize) -> Work {
        let mut work = Work::default();
        let end = self.shared + self.capacity;
        for lane in 0..self.lanes.len() {
            let runs = [(0, self.shared as u32), (0, self.capacity as u32)];
            work.push(&[0], (end - 1, end), 0, &runs, Some((lane, 0, 0)));
        }
        let tokens = vec![0; budget];
        work.push(&tokens, (0, end), 0, &[(0, end as u32)], None);
        work.close()
    }

    fn admit(&mut self) {
        for lane in &mut self.lanes {
            while lane.is_none() && self.next_prompt < self.prompts.len() {
                let prompt = self.next_prompt;
                self.next_prompt += 1;
                let tokens = self.prompts[prompt].tokens.clone();
                if self.prompts[prompt].max_new_tokens == 0 {
                    let empty =
                        Completion { tokens: vec![], logprobs: vec![], finish: Finish::Length };
                    self.completions[prompt] = Some(empty);
                    continue;
                }
                let cached = self.shared;
                let is_long = is_long(self.long_beyond, tokens.len());
                *lane = Some(Active { prompt, cached, is_long, tokens, logprobs: Vec::new() });
            }
        }
    }

    /// Adds a token to a lane; returns its prompt.
    pub(super) fn push(&mut self, lane: usize, token: u32, logprob: f32) -> usize {
        let active = self.lanes[lane].as_mut().expect("a token was drawn for this lane");
        active.tokens.push(token);
        active.logprobs.push(logprob);
        active.prompt
    }

    pub(super) fn is_full(&self, lane: usize) -> bool {
        self.lanes[lane].as_ref().is_some_and(|active| {
            active.logprobs.len() >= self.prompts[active.prompt].max_new_tokens
        })
    }

    pub(super) fn finish(&mut self, lane: usize, finish: Finish) {
        let Some(active) = self.lanes[lane].take() else { return };
        let prompt_len = self.prompts[active.prompt].tokens.len();
        let tokens = active.tokens[prompt_len..].to_vec();
        self.completions[active.prompt] =
            Some(Completion { tokens, logprobs: active.logprobs, finish });
    }

    pub(super) fn into_completions(self) -> Vec<Completion> {
        self.completions.into_iter().map(|c| c.expect("every prompt ran to its end")).collect()
    }
}

impl Work {
    /// Adds tokens from `position` on of a sequence that has `length` tokens so far.
    fn push(
        &mut self,
        tokens: &[u32],
        (position, length): (usize, usize),
        slot: u32,
        runs: &[(u32, u32)],
        draw: Option<(usize, u64, u64)>,
    ) {
        let first = self.tokens.len();
        let count = tokens.len();
        self.tokens.extend(tokens);
        self.positions.extend((0..count).map(|i| (position + i) as u32));
        self.slots.extend((0..count as u32).map(|i| slot + i));
        self.lengths.resize(first + count, length as u32);
        self.spans.begin_tree();
        self.spans.push(first, count, runs);
        if let Some((lane, key, number)) = draw {
            self.read_spans.begin_tree();
            self.read_spans.push(self.reads.len(), 1, runs);
            self.reads.push((first + count - 1) as u32);
            self.lanes.push(lane);
            self.draws.push((key, number));
        }
    }

    fn close(mut self) -> Self {
        self.spans.begin_tree();
        self.read_spans.begin_tree();
        self
    }

    pub(super) fn inputs(&self, cache: &[(Buffer, Buffer)]) -> Inputs {
        Inputs {
            tokens: self.tokens.clone(),
            positions: self.positions.clone(),
            // Only dropout asks for identities, and nothing drops out here.
            row_keys: vec![0; 3 * self.tokens.len()],
            reads: self.reads.clone(),
            groups: vec![0, self.tokens.len() as u32],
            read_groups: vec![0, self.reads.len() as u32],
            spans: self.spans.clone(),
            read_spans: self.read_spans.clone(),
            lengths: self.lengths.clone(),
            cache: Some(CacheView { slots: self.slots.clone(), layers: cache.to_vec() }),
        }
    }
}

fn is_long(long_beyond: Option<usize>, tokens: usize) -> bool {
    long_beyond.is_some_and(|limit| tokens > limit)
}

/// Whether all sequences have the same rotary frequencies from their first step to their last: only then
/// is a common beginning the same for all of them.
fn agree(prompts: &[Prompt], long_beyond: Option<usize>) -> bool {
    let long = |tokens: usize| is_long(long_beyond, tokens);
    prompts.iter().all(|prompt| long(prompt.tokens.len()))
        || !prompts.iter().any(|prompt| long(prompt.tokens.len() + prompt.max_new_tokens))
}

/// Tokens that all prompts begin with; every prompt keeps at least one of its own.
fn shared_length(prompts: &[Prompt]) -> usize {
    let [first, rest @ ..] = prompts else { return 0 };
    if rest.is_empty() {
        return 0;
    }
    let mut shared = first.tokens.len().saturating_sub(1);
    for prompt in rest {
        let equal = first.tokens.iter().zip(&prompt.tokens).take_while(|(a, b)| a == b).count();
        shared = shared.min(equal).min(prompt.tokens.len().saturating_sub(1));
    }
    if shared >= SHARED_TOKENS { shared } else { 0 }
}
