//! Direct preference optimization, Rafailov et al. 2023.

use data::Wanted;
use keys::{Key, Resume, Settings as _};

use super::{Figure, Method, Usual};
use crate::models::PartName;
use crate::objective::{
    Coupling, ExtraPass, Fold, Metric, MicroOutputs, Objective, Outcome, Share, sequence_logprobs,
    sigmoid, softplus,
};
use crate::step::{StepPlan, Totals};

/// Share of pairs in which the policy prefers the chosen answer more than the reference does.
const ACCURACY: &str = "rewards/accuracies";

const KEYS: &[Key] = &[
    Key::float("objective.beta", 0.0, 1e3)
        .above_min()
        .when("method", &["dpo"])
        .default("0.1")
        .doc("Strength of the pull towards the reference model. Larger values keep the policy closer to it."),
    Key::choice("train.best_by", &["loss", "accuracy"])
        .when("method", &["dpo"])
        .default("loss")
        .on_resume(Resume::Free)
        .doc("Validation figure that selects the best step: the lowest loss, or the highest accuracy, which is the share of pairs whose chosen answer has the higher implicit reward."),
];

pub(super) static METHOD: Method = Method {
    name: "dpo",
    title: "Direct preference optimization",
    records: Wanted::Preferences,
    learns_from: "pairs of a chosen and a rejected answer",
    fewest_sequences: 2,
    learned: "loss on the chosen against the rejected answer, their end-of-turn tokens included",
    keys: KEYS,
    usual: Usual { rates: [1e-5, 1e-6, 1e-6], batch: 32, epochs: 1.0 },
    judged_by: |document| match document.get_str("train.best_by") {
        "accuracy" => Figure { name: ACCURACY, higher_is_better: true },
        _ => Figure::LOSS,
    },
    objective: Some(|document| Box::new(Dpo { beta: document.get_f64("objective.beta") })),
    ..Method::DEFAULT
};

/// `-log σ(β · (policy margin − reference margin))`, eq. 7, averaged over the step's pairs.
///
/// A unit is a pair: the chosen sequence, then the rejected one.
#[derive(Clone, Copy, Debug)]
pub struct Dpo {
    /// How far the policy may move from the reference.
    pub beta: f64,
}

impl Objective for Dpo {
    fn coupling(&self) -> Coupling {
        Coupling::Unit
    }

    fn extra_passes(&self) -> &[ExtraPass] {
        &[ExtraPass { part: PartName::Reference }]
    }

    fn divisor(&self, totals: &Totals) -> f64 {
        totals.units as f64
    }

    fn evaluate(&self, micros: &[MicroOutputs<'_>], plan: &StepPlan) -> Vec<Outcome> {
        micros.iter().map(|micro| self.evaluate_micro(micro, plan)).collect()
    }
}

impl Dpo {
    fn evaluate_micro(&self, micro: &MicroOutputs<'_>, plan: &StepPlan) -> Outcome {
        let (targets, count) = (&micro.batch.targets, plan.sequences.len());
        let policy = sequence_logprobs(targets, &micro.policy.logprob, count);
        let reference = sequence_logprobs(targets, &micro.extra[0].logprob, count);
        let pairs = plan.totals.units as f64;
        let metric = |name| Metric { name, fold: Fold::Mean, shares: Vec::new() };
        let [mut of_chosen, mut of_rejected, mut accuracies, mut margins] =
            ["rewards/chosen", "rewards/rejected", ACCURACY, "rewards/margins"].map(metric);
        let mut outcome = Outcome::default();
        let mut by_sequence = vec![0.0; count];

        for pair in plan.units_of(micro.sequences) {
            assert_eq!(pair.len(), 2, "a unit of preferences is a pair");
            let (chosen, rejected) = (pair.start, pair.start + 1);
            // What the policy is implicitly rewarded for, eq. 5 without the term that both share.
            let reward = |index: usize| self.beta * (policy[index] - reference[index]);
            let logit = self.beta
                * ((policy[chosen] - policy[rejected]) - (reference[chosen] - reference[rejected]));
            let share = |value: f64| Share { sequence: chosen, value };
            outcome.loss.push(share(softplus(-logit) / pairs));
            of_chosen.shares.push(share(reward(chosen)));
            of_rejected.shares.push(share(reward(rejected)));
            accuracies.shares.push(share(f64::from(u8::from(logit > 0.0))));
            margins.shares.push(share(logit));
            // d/dx of -log σ(x) is σ(x) - 1.
            let slope = self.beta * (sigmoid(logit) - 1.0) / pairs;
            by_sequence[chosen] = slope;
            by_sequence[rejected] = -slope;
        }

        let gradient = |target: &text::Target| {
            (by_sequence[target.sequence as usize] * f64::from(target.weight)) as f32
        };
        outcome.gradients.logprob = Some(targets.iter().map(gradient).collect());
        outcome.metrics = vec![of_chosen, of_rejected, accuracies, margins];
        outcome
    }
}
