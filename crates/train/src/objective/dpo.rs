//! Direct preference optimization, Rafailov et al. 2023.

use super::{Coupling, ExtraPass, MicroOutputs, Objective, Outcome, Share, sequence_logprobs};
use crate::step::StepPlan;

/// `-log σ(β · (policy margin − reference margin))`, eq. 7, averaged over the step's pairs.
///
/// A group is a pair: the sequence with role [`Dpo::CHOSEN`] and the one with [`Dpo::REJECTED`].
#[derive(Clone, Copy, Debug)]
pub struct Dpo {
    /// How far the policy may move from the reference.
    pub beta: f64,
}

impl Dpo {
    /// Role of the completion that was preferred.
    pub const CHOSEN: u8 = 0;
    /// Role of the other.
    pub const REJECTED: u8 = 1;
}

impl Objective for Dpo {
    fn coupling(&self) -> Coupling {
        Coupling::Group
    }

    fn extra_passes(&self) -> &[ExtraPass] {
        &[ExtraPass::Reference]
    }

    fn evaluate(&self, micros: &[MicroOutputs<'_>], plan: &StepPlan) -> Vec<Outcome> {
        micros.iter().map(|micro| self.evaluate_micro(micro, plan)).collect()
    }
}

impl Dpo {
    fn evaluate_micro(&self, micro: &MicroOutputs<'_>, plan: &StepPlan) -> Outcome {
        let count = plan.sequences.len();
        let policy = sequence_logprobs(micro.targets, &micro.policy.logprob, count);
        let reference = sequence_logprobs(micro.targets, &micro.extra[0].logprob, count);
        let pairs = plan.totals.groups as f64;
        let mut outcome = Outcome::default();
        let mut by_sequence = vec![0.0; count];
        let mut accuracy = Vec::new();
        for (chosen, rejected) in plan.pairs(micro.targets) {
            let margin = policy[chosen] - policy[rejected];
            let ref_margin = reference[chosen] - reference[rejected];
            let logit = self.beta * (margin - ref_margin);
            let share = |value: f64| Share { sequence: chosen, value: value / pairs };
            outcome.loss.push(share(softplus(-logit)));
            accuracy.push(share(f64::from(u8::from(logit > 0.0))));
            // d/dx of -log σ(x) is σ(x) - 1.
            let slope = self.beta * (sigmoid(logit) - 1.0) / pairs;
            by_sequence[chosen] = slope;
            by_sequence[rejected] = -slope;
        }
        let gradient = |target: &text::Target| {
            (by_sequence[target.sequence as usize] * f64::from(target.weight)) as f32
        };
        outcome.gradients.logprob = Some(micro.targets.iter().map(gradient).collect());
        outcome.metrics.push(("rewards_accuracy", accuracy));
        outcome
    }
}

/// `log(1 + e^x)`, finite for every x.
pub(super) fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

pub(super) fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_huge_margin_stays_finite() {
        assert_eq!(softplus(-1000.0), 0.0);
        assert_eq!(softplus(1000.0), 1000.0);
        assert!((softplus(0.0) - std::f64::consts::LN_2).abs() < 1e-15);
    }
}
