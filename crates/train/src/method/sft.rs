//! Supervised fine-tuning: the weighted mean negative log-likelihood.

use std::collections::BTreeMap;

use data::Wanted;
use text::Target;

use super::{Method, Usual};
use crate::objective::{Coupling, MicroOutputs, Objective, Outcome, Share};
use crate::step::{StepPlan, Totals};

pub(super) static METHOD: Method = Method {
    name: "sft",
    title: "Supervised fine-tuning",
    records: Wanted::Conversations,
    learns_from: "whole conversations",
    learned: "loss on the turns that count, their end-of-turn token included",
    usual: Usual { epochs: 3.0, ..Method::DEFAULT.usual },
    objective: |_| Box::new(Sft),
    ..Method::DEFAULT
};

/// `- Σ w_t log p(t) / Σ w_t`, both sums over the whole optimizer step.
///
/// The divisor is that of the step, never of a micro-batch or of a row: accumulated and
/// batched steps are the same, and every supervised token counts alike.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sft;

impl Objective for Sft {
    fn coupling(&self) -> Coupling {
        Coupling::Sequence
    }

    fn divisor(&self, totals: &Totals) -> f64 {
        totals.weight
    }

    fn known_gradient(&self, micro: &MicroOutputs<'_>, plan: &StepPlan) -> Option<Vec<f32>> {
        let total = plan.totals.weight;
        let gradient = |target: &Target| (-f64::from(target.weight) / total) as f32;
        Some(micro.batch.targets.iter().map(gradient).collect())
    }

    fn evaluate(&self, micros: &[MicroOutputs<'_>], plan: &StepPlan) -> Vec<Outcome> {
        let outcome = |micro: &MicroOutputs<'_>| {
            let targets = &micro.batch.targets;
            let mut sums: BTreeMap<usize, f64> = BTreeMap::new();
            for (target, &logprob) in targets.iter().zip(&micro.policy.logprob) {
                let sum = sums.entry(target.sequence as usize).or_default();
                *sum -= f64::from(target.weight) * f64::from(logprob);
            }
            let share = |(sequence, sum)| Share { sequence, value: sum / plan.totals.weight };
            let loss = sums.into_iter().map(share).collect();
            let mut outcome = Outcome { loss, ..Outcome::default() };
            outcome.gradients.logprob = self.known_gradient(micro, plan);
            outcome
        };
        micros.iter().map(outcome).collect()
    }
}
