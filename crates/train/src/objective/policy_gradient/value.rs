//! What the value head is taught.

use std::collections::BTreeMap;

use model::{HeadGradients, HeadRequest, Want};

use crate::objective::{Coupling, Fold, Metric, MicroOutputs, Objective, Outcome, Share};
use crate::step::{StepPlan, Totals};

/// `coefficient · ½ max((v − R)², (clip(v, v_old ± clip) − R)²)`, a mean over the tokens of the step: PPO as in Ziegler
/// et al. 2019 and TRL. The bound is on the change from the value that the rollout saw.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ValueLoss {
    /// Weight beside the policy's loss.
    pub coefficient: f64,
    /// How far a value may move from the one that the rollout saw; none where it is not bounded.
    pub clip: Option<f64>,
}

impl ValueLoss {
    /// Loss of one value without the coefficient, its slope by the value, and whether the bound decided.
    pub fn loss(&self, value: f64, old: f64, target: f64) -> (f64, f64, bool) {
        let free = value - target;
        let Some(clip) = self.clip else { return (0.5 * free * free, free, false) };
        let bounded = value.clamp(old - clip, old + clip);
        let clipped = bounded - target;
        match clipped * clipped > free * free {
            // Outside the bounds nothing depends on the value.
            true => (0.5 * clipped * clipped, 0.0, true),
            false => (0.5 * free * free, free, false),
        }
    }
}

/// The loss of a value head on a model of its own, [`PartName::Value`](crate::models::PartName::Value). Beside the
/// policy's, the sum of the two is what a shared model is trained on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OwnValues(pub ValueLoss);

/// What an answer adds.
#[derive(Clone, Copy, Default)]
struct Sums {
    loss: f64,
    clipped: f64,
}

impl Objective for OwnValues {
    fn coupling(&self) -> Coupling {
        Coupling::Sequence
    }

    fn request(&self) -> HeadRequest {
        let want = Want { value: true, ..Want::default() };
        HeadRequest { want, ..HeadRequest::logprobs() }
    }

    fn divisor(&self, totals: &Totals) -> f64 {
        totals.weight
    }

    fn evaluate(&self, micros: &[MicroOutputs<'_>], plan: &StepPlan) -> Vec<Outcome> {
        let ValueLoss { coefficient, .. } = self.0;
        let total = plan.totals.weight.max(1.0);
        let outcome = |micro: &MicroOutputs<'_>| {
            let mut slopes = vec![0.0; micro.batch.reads.len()];
            let mut sums: BTreeMap<usize, Sums> = BTreeMap::new();
            for target in &micro.batch.targets {
                let (read, place) = (target.read as usize, target.place as usize);
                let now = f64::from(micro.policy.value[read]);
                // Where the plan does not say what was expected (when memory is counted), it was this.
                let sampled = plan.sampled.as_ref().map(|all| &all[target.sequence as usize]);
                let [old, wanted] = sampled
                    .map_or([now; 2], |own| [f64::from(own.values[place]), own.returns[place]]);
                let (loss, slope, is_clipped) = self.0.loss(now, old, wanted);
                let share = f64::from(target.weight) / total;
                slopes[read] += coefficient * slope * share;
                let sums = sums.entry(target.sequence as usize).or_default();
                sums.loss += loss * share;
                sums.clipped += if is_clipped { share } else { 0.0 };
            }
            let of = |value: fn(&Sums) -> f64| -> Vec<Share> {
                let share = |(&sequence, sums)| Share { sequence, value: value(sums) };
                sums.iter().map(share).collect()
            };
            let mut loss = of(|sums| sums.loss);
            loss.iter_mut().for_each(|share| share.value *= coefficient);
            let metric = |name, shares| Metric { name, fold: Fold::Sum, shares };
            let slopes = slopes.into_iter().map(|slope| slope as f32).collect();
            Outcome {
                loss,
                gradients: HeadGradients { value: Some(slopes), ..HeadGradients::default() },
                metrics: vec![
                    metric("loss/value_avg", of(|sums| sums.loss)),
                    metric("val/clipfrac_avg", of(|sums| sums.clipped)),
                ],
                ..Outcome::default()
            }
        };
        micros.iter().map(outcome).collect()
    }
}
