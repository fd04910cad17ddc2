//! Reward model: a scalar head taught by pairs, Ouyang et al. 2022, eq. 1.

use std::ops::Range;

use data::{Reads, Wanted};
use keys::{Key, Resume, Settings as _};
use model::{HeadGradients, HeadRequest, Want};
use serde_json::{Map, Value};

use super::{Figure, Method, Usual};
use crate::objective::{
    Coupling, Fold, Metric, MicroOutputs, Objective, Outcome, Share, sigmoid, softplus,
};
use crate::step::{StepPlan, Totals};

/// Share of pairs whose better answer has the higher reward.
const ACCURACY: &str = "accuracy";

const KEYS: &[Key] = &[Key::choice("train.best_by", &["loss", "accuracy"])
    .when("method", &["reward"])
    .default("accuracy")
    .on_resume(Resume::Free)
    .doc("Validation figure that selects the best step: the lowest loss, or the highest accuracy, which is the share of pairs whose better answer has the higher reward.")];

pub(super) static METHOD: Method = Method {
    name: "reward",
    title: "Reward model",
    records: Wanted::Rewards,
    learns_from: "pairs, ranked answers or judged steps",
    fewest_sequences: 2,
    learned: "loss on the score at the last token of every answer, better against worse",
    keys: KEYS,
    usual: Usual { rates: [1e-4, 1e-5, 1e-5], batch: 32, epochs: 1.0 },
    has_scalar_head: true,
    judged_by: |document| match document.get_str("train.best_by") {
        "accuracy" => Figure { name: ACCURACY, higher_is_better: true },
        _ => Figure::LOSS,
    },
    objective: Some(|_| Box::new(Reward)),
};

/// `-log σ(r_better − r_worse − margin)`, averaged over the pairs of every unit and over the step's units.
///
/// A sequence's reward is the scalar head at its last token. A unit has its answers best first: two of them are
/// one pair, K of them K·(K-1)/2, less those that are equally good. The margin (Touvron et al. 2023, eq. 2) is that of the row's side data,
/// 0 where it has none.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reward;

impl Objective for Reward {
    fn coupling(&self) -> Coupling {
        Coupling::Unit
    }

    fn reads(&self) -> Reads {
        Reads::Last
    }

    fn request(&self) -> HeadRequest {
        let want = Want { value: true, logprob: false, ..Want::default() };
        HeadRequest { want, ..HeadRequest::logprobs() }
    }

    fn divisor(&self, totals: &Totals) -> f64 {
        totals.units as f64
    }

    fn evaluate(&self, micros: &[MicroOutputs<'_>], plan: &StepPlan) -> Vec<Outcome> {
        micros.iter().map(|micro| evaluate_micro(micro, plan)).collect()
    }
}

fn evaluate_micro(micro: &MicroOutputs<'_>, plan: &StepPlan) -> Outcome {
    let rewards = &micro.policy.value;
    let mut last_read = vec![0; plan.sequences.len()];
    for last in &micro.batch.last_reads {
        last_read[last.sequence as usize] = last.read as usize;
    }
    let units = plan.totals.units as f64;
    let metric = |name| Metric { name, fold: Fold::Mean, shares: Vec::new() };
    let [mut accuracies, mut margins, mut means] = [ACCURACY, "margin", "mean_reward"].map(metric);
    let mut by_read = vec![0.0; rewards.len()];
    let mut outcome = Outcome::default();

    for unit in plan.units_of(micro.sequences) {
        let side = &plan.sides[plan.sequences[unit.start].unit as usize];
        let apart = side.get("margin").and_then(Value::as_f64).unwrap_or(0.0);
        let pairs = pairs(&unit, side);
        let count = pairs.len() as f64;
        let (mut loss, mut right, mut sum) = (0.0, 0.0, 0.0);
        for (better, worse) in pairs {
            let (better, worse) = (last_read[better], last_read[worse]);
            let margin = f64::from(rewards[better]) - f64::from(rewards[worse]);
            loss += softplus(apart - margin);
            right += f64::from(u8::from(margin > 0.0));
            sum += margin;
            let slope = (sigmoid(margin - apart) - 1.0) / (count * units);
            by_read[better] += slope;
            by_read[worse] -= slope;
        }
        let share = |value: f64| Share { sequence: unit.start, value };
        outcome.loss.push(share(loss / count / units));
        accuracies.shares.push(share(right / count));
        margins.shares.push(share(sum / count));
        let total: f64 = unit.clone().map(|index| f64::from(rewards[last_read[index]])).sum();
        means.shares.push(share(total / unit.len() as f64));
    }

    let value = by_read.into_iter().map(|slope| slope as f32).collect();
    outcome.gradients = HeadGradients { value: Some(value), ..HeadGradients::default() };
    outcome.metrics = vec![accuracies, margins, means];
    outcome
}

/// The better and the worse sequence of every pair of a unit. Answers of the same standing are no pair.
fn pairs(unit: &Range<usize>, side: &Map<String, Value>) -> Vec<(usize, usize)> {
    let standings = side.get("standings").and_then(Value::as_array);
    let standing = |index: usize| match standings {
        Some(standings) => standings[index - unit.start].as_u64(),
        None => Some((index - unit.start) as u64),
    };
    let all =
        unit.clone().flat_map(|better| (better + 1..unit.end).map(move |worse| (better, worse)));
    all.filter(|&(better, worse)| standing(better) != standing(worse)).collect()
}
