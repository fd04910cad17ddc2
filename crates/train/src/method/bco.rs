//! Binary classifier optimization, Jung et al. 2024.

use data::Wanted;
use keys::{Key, Settings as _};

use super::{Method, preference};
use crate::models::PartName;
use crate::objective::{
    Coupling, Dual, ExtraPass, Fold, JudgedAnswer, Metric, MicroOutputs, Objective, Outcome, Share,
    evaluate_judged,
};
use crate::step::{StepPlan, Totals};

const KEYS: &[Key] = &[Key::float("objective.beta", 0.0, 1e3)
    .above_min()
    .when("method", &["bco"])
    .default("0.1")
    .doc("Strength of the pull towards the reference model. Larger values keep the policy closer to it.")];

pub(super) static METHOD: Method = Method {
    name: "bco",
    title: "Binary classifier optimization",
    records: Wanted::Feedback,
    learns_from: "answers marked as wanted or not, or pairs",
    learned: "loss on judged answers, their end-of-turn tokens included",
    keys: KEYS,
    usual: preference::USUAL,
    objective: |document| Box::new(Bco { beta: document.get_f64("objective.beta") }),
    ..Method::DEFAULT
};

/// `−log σ(±(r − δ))` with the reward `r = β · log ratio`, averaged over the step's answers; + for desirable ones.
///
/// δ is the mean of all rewards of the run so far, those of the step among them; it has no gradient. A validation uses
/// δ as it is. All answers of the step are seen before the first backward pass, so each is computed twice.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bco {
    /// How far the policy may move from the reference.
    pub beta: f64,
}

impl Objective for Bco {
    fn coupling(&self) -> Coupling {
        Coupling::Step
    }

    fn extra_passes(&self) -> &[ExtraPass] {
        &[ExtraPass { part: PartName::Reference }]
    }

    fn divisor(&self, totals: &Totals) -> f64 {
        totals.sequences as f64
    }

    /// How many rewards there were, and their mean.
    fn initially_carried(&self) -> Vec<f64> {
        vec![0.0, 0.0]
    }

    fn evaluate(&self, micros: &[MicroOutputs<'_>], plan: &StepPlan) -> Vec<Outcome> {
        let mut carried = [plan.carried[0], plan.carried[1]];
        let mut outcomes = evaluate_judged(micros, plan, self.beta, |answers| {
            if !plan.is_validation {
                carried = self.updated(carried, micros, answers);
            }
            answers.iter().map(|answer| self.loss(answer, carried[1])).collect()
        });
        for (micro, outcome) in micros.iter().zip(&mut outcomes) {
            let share = |&sequence| Share { sequence, value: carried[1] };
            let shares = micro.sequences.iter().map(share).collect();
            outcome.metrics.push(Metric { name: "delta", fold: Fold::Mean, shares });
            outcome.carried = carried.to_vec();
        }
        outcomes
    }
}

impl Bco {
    /// The running mean with the step's rewards in it. They are added in the order of the step's sequences.
    fn updated(
        &self,
        [count, mean]: [f64; 2],
        micros: &[MicroOutputs<'_>],
        answers: &[JudgedAnswer],
    ) -> [f64; 2] {
        let sequences = micros.iter().flat_map(|micro| micro.sequences);
        let mut rewards: Vec<(usize, f64)> = sequences
            .zip(answers)
            .map(|(&sequence, answer)| (sequence, self.beta * answer.answer.log_ratio()))
            .collect();
        rewards.sort_by_key(|(sequence, _)| *sequence);
        let sum: f64 = rewards.iter().map(|(_, reward)| reward).sum();
        let total = count + rewards.len() as f64;
        [total, (count * mean + sum) / total]
    }

    fn loss(&self, answer: &JudgedAnswer, delta: f64) -> Dual<1> {
        let reward = answer.log_ratio() * self.beta - delta;
        let gain = if answer.is_desirable { reward } else { -reward };
        -gain.log_sigmoid()
    }
}
