//! Odds ratio preference optimization, Hong et al. 2024.

use data::{Reads, Wanted};
use keys::{Key, Resume, Settings as _};
use text::Target;

use super::{Method, preference};
use crate::objective::{
    Coupling, MicroOutputs, Objective, Outcome, Pair, PairLoss, TargetWeights, evaluate_pairs,
};
use crate::step::{StepPlan, Totals};

const KEYS: &[Key] = &[
    Key::float("objective.beta", 0.0, 1e3)
        .above_min()
        .when("method", &["orpo"])
        .default("0.1")
        .doc("Weight of the odds ratio term (lambda in the paper)."),
    Key::choice("train.best_by", &["loss", "accuracy"])
        .when("method", &["orpo"])
        .default("loss")
        .on_resume(Resume::Free)
        .doc(preference::BEST_BY),
];

pub(super) static METHOD: Method = Method {
    name: "orpo",
    title: "Odds ratio preference optimization",
    records: Wanted::Preferences,
    learns_from: preference::LEARNS_FROM,
    fewest_sequences: 2,
    learned: "loss on the chosen answer and its prompt, and on the chosen against the rejected answer",
    keys: KEYS,
    usual: preference::USUAL,
    judged_by: preference::judged_by,
    objective: |document| Box::new(Orpo { beta: document.get_f64("objective.beta") }),
    ..Method::DEFAULT
};

/// `NLL(prompt and chosen) − β · log σ(log odds ratio)`, eq. 6, averaged over the step's pairs.
///
/// Odds are of the mean log-probability per token, eq. 3 and 4. The first term is the mean per token of the pair, as
/// in eq. 1; TRL takes the mean over all tokens of a device batch, which is the same where a batch is one pair.
#[derive(Clone, Copy, Debug)]
pub struct Orpo {
    /// Weight of the odds ratio term.
    pub beta: f64,
}

impl Objective for Orpo {
    fn coupling(&self) -> Coupling {
        Coupling::Unit
    }

    fn reads(&self) -> Reads {
        Reads::Everything
    }

    fn divisor(&self, totals: &Totals) -> f64 {
        totals.units as f64
    }

    fn evaluate(&self, micros: &[MicroOutputs<'_>], plan: &StepPlan) -> Vec<Outcome> {
        let weigh = |target: &Target, _| TargetWeights {
            answer: target.weight.into(),
            // Of the prompt every token counts once.
            learned: if target.weight == 0.0 { 1.0 } else { target.weight.into() },
        };
        evaluate_pairs(micros, plan, weigh, |pairs| {
            pairs.iter().map(|pair| self.loss(pair)).collect()
        })
    }
}

impl Orpo {
    fn loss(&self, pair: &Pair) -> PairLoss {
        let variables = pair.variables();
        let chosen = variables.chosen * (1.0 / pair.chosen.tokens.max(1.0));
        let rejected = variables.rejected * (1.0 / pair.rejected.tokens.max(1.0));
        // Of a certain answer the odds are infinite; no f32 log-probability is nearer to it.
        let log_odds = |x: crate::objective::Dual<3>| x - x.at_most(-NEAREST).log_one_minus_exp();
        let ratio = log_odds(chosen) - log_odds(rejected);
        let nll = -variables.learned * (1.0 / pair.learned.tokens.max(1.0));
        let rewards = [chosen.value, rejected.value].map(|mean| self.beta * mean);
        PairLoss { loss: nll - ratio.log_sigmoid() * self.beta, rewards }
    }
}

/// A mean log-probability is at least so far from 0.
const NEAREST: f64 = 1e-12;
