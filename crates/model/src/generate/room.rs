//! How much a batcher can do at the same time.

use super::Prompt;
use super::blocks::BLOCK;
use crate::Config;

/// Tokens of prompts that one step takes in beside the tokens being drawn, unless a caller says otherwise.
pub const PREFILL_TOKENS: usize = 512;

/// The most that a [`Batcher`](super::Batcher) has to hold, and takes in at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Blocks of [`Room::BLOCK`] positions in the cache.
    pub blocks: usize,
    /// Rows at the same time, at least one.
    pub rows: usize,
    /// Tokens of a row, drawn ones included, at least one.
    pub row_tokens: usize,
    /// Tokens that a step takes in beside the tokens being drawn, at least one.
    pub prefill_tokens: usize,
    /// Whether [`Batcher::score`](super::Batcher::score) is called.
    pub scores: bool,
}

impl Room {
    /// Positions in a block.
    pub const BLOCK: usize = BLOCK;

    /// For `max_active` of these prompts at a time, whichever of them.
    pub fn for_prompts(prompts: &[Prompt], max_active: usize, config: &Config) -> Self {
        let rows = prompts.len().min(max_active.max(1));
        let shared = shared_blocks(prompts, config.long_beyond());
        let length = |prompt: &Prompt| prompt.tokens.len() + prompt.max_new_tokens;
        let mut own: Vec<usize> =
            prompts.iter().map(|prompt| length(prompt).div_ceil(BLOCK) - shared).collect();
        own.sort_unstable();
        let blocks = shared + own.iter().rev().take(rows).sum::<usize>();
        let row_tokens = prompts.iter().map(length).max().unwrap_or(0).max(1);
        Room { blocks, rows, row_tokens, prefill_tokens: PREFILL_TOKENS, scores: false }
    }

    /// Most runs of slots that a row's keys lie in.
    pub(super) fn most_runs(&self) -> usize {
        2 * self.row_tokens.div_ceil(BLOCK)
    }

    /// Blocks that the longest row needs behind its first `len` tokens.
    pub(super) fn blocks_behind(&self, len: usize) -> usize {
        self.row_tokens.saturating_sub(len).div_ceil(BLOCK)
    }
}

/// Whole blocks that all prompts begin with; every prompt keeps at least one token of its own.
fn shared_blocks(prompts: &[Prompt], long_beyond: Option<usize>) -> usize {
    let [first, rest @ ..] = prompts else { return 0 };
    if rest.is_empty() || !agree(prompts, long_beyond) {
        return 0;
    }
    let mut shared = first.tokens.len().saturating_sub(1);
    for prompt in rest {
        let equal = first.tokens.iter().zip(&prompt.tokens).take_while(|(a, b)| a == b).count();
        shared = shared.min(equal).min(prompt.tokens.len().saturating_sub(1));
    }
    shared / BLOCK
}

/// Whether all sequences have the same rotary frequencies from their first step to their last: only then
/// is a common beginning the same for all of them.
fn agree(prompts: &[Prompt], long_beyond: Option<usize>) -> bool {
    let long = |tokens: usize| long_beyond.is_some_and(|limit| tokens > limit);
    prompts.iter().all(|prompt| long(prompt.tokens.len()))
        || !prompts.iter().any(|prompt| long(prompt.tokens.len() + prompt.max_new_tokens))
}
