//! Supervised fine-tuning: the weighted mean negative log-likelihood.

use text::Target;

use super::{Coupling, MicroOutputs, Objective, Outcome};
use crate::step::StepPlan;

/// `- Σ w_t log p(t) / Σ w_t`, both sums over the whole optimizer step.
///
/// The divisor is that of the step, never of a micro-batch or of a row: accumulated and
/// batched steps are the same, and every supervised token counts alike.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sft;

impl Objective for Sft {
    fn coupling(&self) -> Coupling {
        Coupling::Token
    }

    fn linear(&self, targets: &[Target], plan: &StepPlan) -> Option<Vec<f32>> {
        let total = plan.totals.weight;
        Some(targets.iter().map(|target| (-f64::from(target.weight) / total) as f32).collect())
    }

    fn evaluate(&self, micros: &[MicroOutputs<'_>], plan: &StepPlan) -> Vec<Outcome> {
        let outcome = |micro: &MicroOutputs<'_>| {
            let pairs = micro.targets.iter().zip(&micro.policy.logprob);
            let sum: f64 = pairs.map(|(t, &lp)| f64::from(t.weight) * f64::from(lp)).sum();
            let mut outcome = Outcome { loss: -sum / plan.totals.weight, ..Outcome::default() };
            outcome.gradients.logprob = self.linear(micro.targets, plan);
            outcome
        };
        micros.iter().map(outcome).collect()
    }
}
