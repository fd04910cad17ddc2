//! A step is planned before its first forward: its micro-batches, and the totals
//! that losses divide by.

use std::borrow::Borrow;

use data::{Micro, Packing, Sequence, pack};
use text::Target;

/// What a step's loss may divide by, summed over all of its micro-batches.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Totals {
    /// Sum of the targets' weights.
    pub weight: f64,
    /// Supervised tokens.
    pub targets: usize,
    /// Sequences.
    pub sequences: usize,
    /// Groups (pairs).
    pub groups: usize,
    /// Tokens as rendered.
    pub tokens: usize,
    /// Tokens that are computed, shared prefixes once.
    pub tokens_computed: usize,
}

/// Which group a sequence of the step belongs to, and what it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SequenceInfo {
    /// Group (pair), as the data numbered it.
    pub group: u32,
    /// Role within it.
    pub role: u8,
}

/// One optimizer step, planned.
#[derive(Clone, Debug, PartialEq)]
pub struct StepPlan {
    /// Its micro-batches.
    pub micros: Vec<Micro>,
    /// Its sequences; [`Target::sequence`] points here.
    pub sequences: Vec<SequenceInfo>,
    /// What losses divide by.
    pub totals: Totals,
}

impl StepPlan {
    /// Packs the sequences of one step.
    pub fn new<S: Borrow<Sequence>>(sequences: &[S], packing: &Packing) -> Self {
        let known = || sequences.iter().map(|s| -> &Sequence { s.borrow() });
        let infos = known().map(|s| SequenceInfo { group: s.group, role: s.role }).collect();
        let mut plan = Self::from_micros(pack(sequences, packing), infos);
        plan.totals.tokens = known().map(Sequence::len).sum();
        // In the order of sequences, not of micro-batches: the sum must not depend on where these end.
        let weights = known().flat_map(|sequence| &sequence.weights);
        plan.totals.weight = weights.map(|&weight| f64::from(weight)).sum();
        plan
    }

    /// A plan of micro-batches that were packed elsewhere, counted as if nothing were shared.
    pub fn from_micros(micros: Vec<Micro>, sequences: Vec<SequenceInfo>) -> Self {
        let mut totals = Totals { sequences: sequences.len(), ..Totals::default() };
        for micro in &micros {
            totals.tokens_computed += micro.batch.tokens.len();
            totals.tokens += micro.batch.tokens.len();
            totals.targets += micro.batch.targets.len();
            totals.weight += micro.batch.targets.iter().map(|t| f64::from(t.weight)).sum::<f64>();
        }
        let mut groups: Vec<u32> = sequences.iter().map(|s| s.group).collect();
        groups.sort_unstable();
        groups.dedup();
        totals.groups = groups.len();
        StepPlan { micros, sequences, totals }
    }

    /// The tokens that are computed, micro-batch by micro-batch.
    pub fn tokens(&self) -> impl Iterator<Item = u32> {
        self.micros.iter().flat_map(|micro| micro.batch.tokens.iter().copied())
    }

    /// The (chosen, rejected) sequences of all pairs that `targets` belong to: roles 0 and 1 of a group.
    pub fn pairs(&self, targets: &[Target]) -> Vec<(usize, usize)> {
        let mut present: Vec<usize> = targets.iter().map(|t| t.sequence as usize).collect();
        present.sort_unstable();
        present.dedup();
        let role = |index: usize| self.sequences[index].role;
        let group = |index: usize| self.sequences[index].group;
        let chosen = present.iter().copied().filter(|&index| role(index) == 0);
        chosen
            .filter_map(|chosen| {
                let mut others = present.iter().copied();
                let pair = |&other: &usize| role(other) == 1 && group(other) == group(chosen);
                Some((chosen, others.find(pair)?))
            })
            .collect()
    }
}
