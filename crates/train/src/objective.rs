//! Losses as pure functions of what the head gives.
//!
//! An objective sees log-probabilities and values at the reads of a batch, never a logit, a hidden state or a
//! device. It says what it must see at once, what is read, and which passes it needs besides the policy's own.

mod dual;
mod judged;
mod pairs;
mod policy_gradient;

use data::{Reads, Unit};
use eval::classification::Classified;
use model::{DivergenceRequest, HeadGradients, HeadOutputs, HeadRequest};
use text::Batch;

use crate::models::PartName;
use crate::step::{StepPlan, Totals};

pub use dual::Dual;
pub use judged::{JudgedAnswer, evaluate_judged, judged_answers};
pub use pairs::{
    ACCURACY, Answer, MARGIN, Pair, PairLoss, PairVariables, TargetWeights, evaluate_pairs,
};
pub use policy_gradient::{
    Average, BinaryDivergence, Correction, KlController, KlEstimator, KlLoss, OwnValues,
    PolicyGradient, RatioLevel, SequenceLoss, Surrogate, Token, ValueLoss,
};

/// What must be seen at once to know a loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coupling {
    /// One sequence.
    Sequence,
    /// A unit: a pair, all answers to one prompt. Its sequences stay in one micro-batch.
    Unit,
    /// The whole step: all outputs are collected first, without gradient. Units stay in one micro-batch too.
    Step,
}

/// A pass without gradient that an objective asks for beside the policy's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtraPass {
    /// The part of the run that the same targets are given to.
    pub part: PartName,
}

/// What the heads gave for one micro-batch.
#[derive(Clone, Copy, Debug)]
pub struct MicroOutputs<'a> {
    /// The micro-batch; its targets are in the order of `policy.logprob`.
    pub batch: &'a Batch,
    /// Which of the step's sequences stand in it, ascending.
    pub sequences: &'a [usize],
    /// Of the model that is trained.
    pub policy: &'a HeadOutputs,
    /// Of every extra pass, in the order of [`Objective::extra_passes`].
    pub extra: &'a [HeadOutputs],
    /// What [`Objective::before`] made of the step's auxiliary sequences.
    pub before: &'a [f64],
}

/// What one sequence adds to a figure of the step.
///
/// Figures are added up in the order of the step's sequences: that of micro-batches would make the sum
/// depend on where these end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share {
    /// Of the step's sequences; of a unit's, the one that stands for it.
    pub sequence: usize,
    /// What is added.
    pub value: f64,
}

/// How the shares of a figure become one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fold {
    /// Their sum.
    Sum,
    /// Their mean.
    Mean,
    /// The largest.
    Max,
    /// The smallest.
    Min,
}

impl Fold {
    /// One number of all shares; NaN of none, for there is no mean over nothing.
    pub fn of(self, mut shares: Vec<Share>) -> f64 {
        if shares.is_empty() {
            return f64::NAN;
        }
        shares.sort_by_key(|share| share.sequence);
        let values = shares.iter().map(|share| share.value);
        match self {
            Fold::Sum => values.sum(),
            Fold::Mean => values.sum::<f64>() / shares.len() as f64,
            Fold::Max => values.fold(f64::NEG_INFINITY, f64::max),
            Fold::Min => values.fold(f64::INFINITY, f64::min),
        }
    }
}

/// A figure of a step beside its loss.
#[derive(Clone, Debug)]
pub struct Metric {
    /// Its name in events, as TRL has it.
    pub name: &'static str,
    /// How its shares become one number.
    pub fold: Fold,
    /// What the sequences give.
    pub shares: Vec<Share>,
}

/// What an objective makes of a micro-batch.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Shares of the step's loss: those of all micro-batches add up to it.
    pub loss: Vec<Share>,
    /// d(step's loss)/d(output).
    pub gradients: HeadGradients,
    /// Further figures of the step; the same ones for every micro-batch.
    pub metrics: Vec<Metric>,
    /// The class of a sequence and the one that the model gives it, by sequence; empty where there are no classes.
    pub classified: Vec<(usize, Classified)>,
    /// What the next step's [`StepPlan::carried`] holds. Given by the first micro-batch of an evaluation of the whole
    /// step; empty where nothing is carried.
    pub carried: Vec<f64>,
}

/// A method's loss.
pub trait Objective {
    /// What it must see at once.
    fn coupling(&self) -> Coupling;

    /// Where hidden states are read.
    fn reads(&self) -> Reads {
        Reads::Targets
    }

    /// What it wants of the head.
    fn request(&self) -> HeadRequest {
        HeadRequest::logprobs()
    }

    /// The divergence from [`PartName::Teacher`] that it wants of the head in place of what [`Objective::request`] asks
    /// for. Its [`Objective::known_gradient`] holds derivatives by the divergence at every target.
    fn divergence(&self) -> Option<DivergenceRequest> {
        None
    }

    /// Passes without gradient that it needs.
    fn extra_passes(&self) -> &[ExtraPass] {
        &[]
    }

    /// Sequences that are no rows of the step and that it needs to know about: the prompt of one row with the answer of
    /// another, say. They are passed through the policy and through every extra pass, without gradient, before the
    /// first micro-batch.
    fn auxiliary(&self, _units: &[Unit]) -> Vec<Unit> {
        Vec::new()
    }

    /// Numbers for [`MicroOutputs::before`], of what the auxiliary sequences gave. `plan` is that of these sequences.
    fn before(&self, _micros: &[MicroOutputs<'_>], _plan: &StepPlan) -> Vec<f64> {
        Vec::new()
    }

    /// What the step's loss is divided by: losses of several steps are a mean weighted by it.
    fn divisor(&self, totals: &Totals) -> f64;

    /// d(step's loss)/d(logprob) of every target, where that is known before the policy's log-probabilities are: then
    /// the head takes one pass. [`MicroOutputs::policy`] is empty.
    fn known_gradient(&self, _micro: &MicroOutputs<'_>, _plan: &StepPlan) -> Option<Vec<f32>> {
        None
    }

    /// What [`StepPlan::carried`] holds at the first step; empty where nothing is carried from step to step.
    fn initially_carried(&self) -> Vec<f64> {
        Vec::new()
    }

    /// Loss and derivatives for the micro-batches that must be seen at once: one of them, or with
    /// [`Coupling::Step`] all of the step's.
    fn evaluate(&self, micros: &[MicroOutputs<'_>], plan: &StepPlan) -> Vec<Outcome>;
}

/// ln(1 + eˣ), without overflow.
pub fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// 1 / (1 + e⁻ˣ).
pub fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_add_up_by_sequence() {
        let share = |sequence, value| Share { sequence, value };
        let shares = vec![share(2, 1.0), share(0, 1e30), share(1, -1e30)];
        // In the order of sequences the large numbers cancel first.
        assert_eq!(Fold::Sum.of(shares.clone()), 1.0);
        assert_eq!(Fold::Mean.of(shares.clone()), 1.0 / 3.0);
        assert_eq!((Fold::Min.of(shares.clone()), Fold::Max.of(shares)), (-1e30, 1e30));
    }

    #[test]
    fn a_figure_of_nothing_is_not_a_number() {
        for fold in [Fold::Sum, Fold::Mean, Fold::Max, Fold::Min] {
            assert!(fold.of(Vec::new()).is_nan());
        }
    }
}
