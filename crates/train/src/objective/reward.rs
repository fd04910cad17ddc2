//! Reward model: a scalar head taught by pairs, Ouyang et al. 2022, eq. 1.

use model::{HeadGradients, HeadRequest, Want};

use super::dpo::{sigmoid, softplus};
use super::{Coupling, MicroOutputs, Objective, Outcome, Share};
use crate::step::StepPlan;

/// `-log σ(r_chosen − r_rejected)`, averaged over the step's pairs.
///
/// A sequence's reward is the scalar head at the read of its last target.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reward;

impl Objective for Reward {
    fn coupling(&self) -> Coupling {
        Coupling::Group
    }

    fn request(&self) -> HeadRequest {
        let want = Want { value: true, ..Want::default() };
        HeadRequest { want, ..HeadRequest::logprobs() }
    }

    fn evaluate(&self, micros: &[MicroOutputs<'_>], plan: &StepPlan) -> Vec<Outcome> {
        micros.iter().map(|micro| evaluate_micro(micro, plan)).collect()
    }
}

fn evaluate_micro(micro: &MicroOutputs<'_>, plan: &StepPlan) -> Outcome {
    let rewards = &micro.policy.value;
    let mut last_read = vec![0; plan.sequences.len()];
    for target in micro.targets {
        last_read[target.sequence as usize] = target.read as usize;
    }
    let pairs = plan.totals.groups as f64;
    let mut by_read = vec![0.0; rewards.len()];
    let mut outcome = Outcome::default();
    for (chosen, rejected) in plan.pairs(micro.targets) {
        let sequence = chosen;
        let (chosen, rejected) = (last_read[chosen], last_read[rejected]);
        let margin = f64::from(rewards[chosen]) - f64::from(rewards[rejected]);
        outcome.loss.push(Share { sequence, value: softplus(-margin) / pairs });
        let slope = ((sigmoid(margin) - 1.0) / pairs) as f32;
        by_read[chosen] += slope;
        by_read[rejected] -= slope;
    }
    outcome.gradients = HeadGradients { value: Some(by_read), ..HeadGradients::default() };
    outcome
}
