//! Packing: sequences become micro-batches in which a prefix that several of
//! them share stands once.
//!
//! The sequences of a step form a trie, which is cut into trees; each of them brings
//! along the prefix that it hangs on. Trees stand in one order, and a micro-batch is a
//! run of them: as many as the budget has room for. Neither trees nor order depend on
//! the budget, so a sum over the rows of a step has one order too, however the step is
//! cut into micro-batches. Only a tree that is larger than the budget is cut again.
//!
//! A tree is a row, or rows behind one beginning. A row is never cut. Rows behind one beginning have at most 1,024
//! tokens, 2,048 behind more than 186 shared tokens, 4,096 behind more than 372, and so on: trees twice as large
//! would save less than a tenth. A smaller budget cuts them, each part computes the beginning again, and the
//! gradient agrees up to rounding (log-probabilities to the bit). Trees stand in the order in which they fill room
//! for 1,024 tokens first-fit, longest first, so the usual budget is filled as well as by first-fit. A weight
//! gradient is one chain over rows in pairs, and no pair crosses a tree.

mod cut;
mod emit;
mod trie;

use std::borrow::Borrow;

use text::Batch;

use crate::Sequence;
use cut::Item;

/// What a micro-batch may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packing {
    /// Most tokens in a micro-batch. A sequence that is longer gets one of its own.
    pub budget_tokens: usize,
    /// Fewest tokens worth sharing; 0 shares nothing.
    pub min_shared: usize,
    /// Whether sequences of one unit must stand in one micro-batch, even if
    /// that takes it over the budget.
    pub keep_units: bool,
    /// Whether the tokens of a sequence behind the last one that is read are left
    /// out. As inputs they change nothing that is read.
    pub drop_unread: bool,
    /// Where hidden states are read.
    pub reads: Reads,
    /// Sequences of more tokens than this (with those that are left out) share nothing with those of
    /// fewer: where a model rotates long sequences by other frequencies, a prefix is not the same in both.
    pub apart_beyond: Option<usize>,
}

impl Packing {
    /// Shares prefixes of this many tokens or more unless told otherwise.
    pub const MIN_SHARED: usize = 16;

    /// Tokens of a tree at most, unless its beginning is long or it is one sequence.
    pub const TREE_TOKENS: usize = 1024;

    /// A budget with the usual sharing, units not kept together, all tokens kept, targets read.
    pub fn new(budget_tokens: usize) -> Self {
        Packing {
            budget_tokens,
            min_shared: Self::MIN_SHARED,
            keep_units: false,
            drop_unread: false,
            reads: Reads::Targets,
            apart_beyond: None,
        }
    }
}

/// Where the hidden states of a sequence are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reads {
    /// Before every supervised token: each becomes a target.
    #[default]
    Targets,
    /// Before every token but the first, up to the last supervised one where the rest is left out: each becomes a
    /// target, those that are not supervised with weight 0.
    Everything,
    /// At the last token alone, for a value of the whole sequence. There are no targets.
    Last,
    /// Before every supervised token and at the last one.
    TargetsAndLast,
    /// At every supervised token itself, for a value of each of them. There are no targets.
    Learned,
}

impl Reads {
    /// Whether supervised tokens become targets.
    pub fn has_targets(self) -> bool {
        !matches!(self, Reads::Last | Reads::Learned)
    }

    /// Whether last tokens are read.
    pub fn has_last(self) -> bool {
        matches!(self, Reads::Last | Reads::TargetsAndLast)
    }

    /// Whether tokens are read for values: last ones or learned ones.
    pub fn has_values(self) -> bool {
        self.has_last() || self == Reads::Learned
    }

    /// How many tokens of a sequence must be computed for what is read of it; at least one.
    fn inputs(self, sequence: &Sequence) -> usize {
        let last = sequence.weights.iter().rposition(|&weight| weight != 0.0);
        match self {
            Reads::Targets | Reads::Everything => last.unwrap_or(1),
            Reads::Learned => last.map_or(1, |last| last + 1),
            Reads::Last | Reads::TargetsAndLast => sequence.len(),
        }
    }
}

/// One micro-batch of an optimizer step.
#[derive(Clone, Debug, PartialEq)]
pub struct Micro {
    /// The forest; [`text::Target::sequence`] is an index into the step's sequences.
    pub batch: Batch,
    /// Which of the step's sequences stand in it, ascending.
    pub sequences: Vec<usize>,
}

/// Packs sequences that have nothing to do with each other, as [`pack_units`] does.
pub fn pack<S: Borrow<Sequence>>(sequences: &[S], packing: &Packing) -> Vec<Micro> {
    let units: Vec<u32> = (0..sequences.len() as u32).collect();
    pack_units(sequences, &units, packing)
}

/// Packs the sequences of one optimizer step into micro-batches. `units[i]` is the unit of the `i`-th
/// sequence; it counts where units are kept together.
///
/// The order of trees is that in which they fill room for [`Packing::TREE_TOKENS`]
/// first-fit, longest first; equal lengths keep their order. Every supervised token `i`
/// of a sequence becomes a target that is read at token `i - 1`.
///
/// Panics if a sequence is empty, if its weights do not fit its tokens, or if
/// its first token has a weight: all are bugs of the caller.
pub fn pack_units<S: Borrow<Sequence>>(
    sequences: &[S],
    units: &[u32],
    packing: &Packing,
) -> Vec<Micro> {
    assert_eq!(sequences.len(), units.len(), "a unit per sequence");
    let sequences: Vec<&Sequence> = sequences.iter().map(Borrow::borrow).collect();
    for sequence in &sequences {
        assert!(!sequence.is_empty(), "a sequence has tokens");
        assert_eq!(sequence.tokens.len(), sequence.weights.len(), "a weight per token");
        assert!(sequence.weights[0] == 0.0, "nothing predicts a first token");
    }
    if sequences.is_empty() {
        return Vec::new();
    }
    let inputs = |sequence: &&Sequence| match packing.drop_unread {
        true => packing.reads.inputs(sequence),
        false => sequence.len(),
    };
    let tokens: Vec<&[u32]> = sequences.iter().map(|s| &s.tokens[..inputs(s)]).collect();
    let is_apart =
        |index: usize| packing.apart_beyond.is_some_and(|limit| sequences[index].len() > limit);
    let forest = trie::build(&tokens, packing.min_shared, &is_apart);
    let trees = cut::arrange(forest, packing.budget_tokens, packing.keep_units.then_some(units));
    let runs = fill(trees, packing.budget_tokens);
    runs.into_iter().map(|run| emit::micro(&run.into_root(), &sequences, packing.reads)).collect()
}

/// Runs of neighbours, each as long as the budget has room for.
fn fill(items: Vec<Item>, budget: usize) -> Vec<Item> {
    let mut runs: Vec<Item> = Vec::new();
    for item in items {
        match runs.last_mut() {
            Some(run) if run.size() + item.size() <= budget => run.absorb(item),
            _ => runs.push(item),
        }
    }
    runs
}
