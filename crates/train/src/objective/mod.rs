//! Objectives: from log-probabilities to a loss and its derivatives.
//!
//! Every objective is a pure function of what the head gives. It knows nothing of logits,
//! hidden states, batches on disk or devices; one objective is one file here.

mod dpo;
mod reward;
mod sft;

pub use dpo::Dpo;
pub use reward::Reward;
pub use sft::Sft;

use model::{HeadGradients, HeadOutputs, HeadRequest};
use text::Target;

use crate::step::StepPlan;

/// Which part of a step an objective must see at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coupling {
    /// Every token for itself.
    Token,
    /// Whole sequences.
    Sequence,
    /// Whole groups of sequences (pairs, rollouts of one prompt).
    Group,
    /// The whole step: all outputs are collected first, without gradient.
    Step,
}

/// A pass without gradient that an objective asks for beside the policy's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtraPass {
    /// The same targets under the reference model.
    Reference,
}

/// What the head gave for one micro-batch.
#[derive(Clone, Copy, Debug)]
pub struct MicroOutputs<'a> {
    /// The targets, in the order of `policy.logprob`.
    pub targets: &'a [Target],
    /// Of the model that is trained.
    pub policy: &'a HeadOutputs,
    /// Of every extra pass, in the order of [`Objective::extra_passes`].
    pub extra: &'a [HeadOutputs],
}

/// What one sequence adds to a figure of the step.
///
/// Figures are added up in the order of the step's sequences: that of micro-batches would make the sum
/// depend on where these end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share {
    /// Of the step's sequences; of a group's, the one that stands for it.
    pub sequence: usize,
    /// What is added.
    pub value: f64,
}

/// What an objective makes of a micro-batch.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Shares of the step's loss: those of all micro-batches add up to it.
    pub loss: Vec<Share>,
    /// d(step's loss)/d(output).
    pub gradients: HeadGradients,
    /// Shares of further figures of the step, by name.
    pub metrics: Vec<(&'static str, Vec<Share>)>,
}

/// A method's loss.
pub trait Objective {
    /// What it must see at once.
    fn coupling(&self) -> Coupling;

    /// What it wants of the head.
    fn request(&self) -> HeadRequest {
        HeadRequest::logprobs()
    }

    /// Passes without gradient that it needs.
    fn extra_passes(&self) -> &[ExtraPass] {
        &[]
    }

    /// d(step's loss)/d(logprob) of every target, where that does not depend on the
    /// log-probabilities: then the head takes one pass.
    fn linear(&self, _targets: &[Target], _plan: &StepPlan) -> Option<Vec<f32>> {
        None
    }

    /// Loss and derivatives for the micro-batches that must be seen at once: one of them, or with
    /// [`Coupling::Step`] all of the step's.
    fn evaluate(&self, micros: &[MicroOutputs<'_>], plan: &StepPlan) -> Vec<Outcome>;
}

/// The sum of a figure of the step, by sequence and not by micro-batch. Shares are parts of a mean, and the mean
/// over nothing is NaN: a step or a validation set without a supervised token must not look perfect.
pub fn total(mut shares: Vec<Share>) -> f64 {
    if shares.is_empty() {
        return f64::NAN;
    }
    shares.sort_by_key(|share| share.sequence);
    shares.iter().map(|share| share.value).sum()
}

/// Weighted log-probabilities summed by sequence of the step, `[sequences]`.
pub fn sequence_logprobs(targets: &[Target], logprobs: &[f32], sequences: usize) -> Vec<f64> {
    let mut sums = vec![0.0; sequences];
    for (target, &logprob) in targets.iter().zip(logprobs) {
        sums[target.sequence as usize] += f64::from(target.weight) * f64::from(logprob);
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_add_up_by_sequence() {
        let share = |sequence, value| Share { sequence, value };
        // In the order of sequences the large numbers cancel first.
        assert_eq!(total(vec![share(2, 1.0), share(0, 1e30), share(1, -1e30)]), 1.0);
    }

    #[test]
    fn the_mean_over_nothing_is_no_number() {
        assert!(total(Vec::new()).is_nan());
    }
}
