//! Preference optimization without a reference: contrastive (CPO, Xu et al. 2024) and simple (SimPO, Meng et al. 2024).

use data::Wanted;
use keys::{Document, Key, Resume, Settings as _};
use text::Target;

use super::{Method, Usual, preference};
use crate::objective::{
    Coupling, MicroOutputs, Objective, Outcome, Pair, PairLoss, TargetWeights, evaluate_pairs,
};
use crate::step::{StepPlan, Totals};
use crate::{Error, Result};

const CPO_KEYS: &[Key] = &[
    Key::float("objective.beta", 0.0, 1e3)
        .above_min()
        .when("method", &["cpo"])
        .default("0.1")
        .doc("Scale of the difference of log-probabilities."),
    Key::choice("objective.loss", &["sigmoid", "hinge", "ipo"])
        .when("method", &["cpo"])
        .default("sigmoid")
        .doc("Loss over a pair: sigmoid as in the CPO paper, hinge (SLiC), or ipo over means per token."),
    Key::float("objective.label_smoothing", 0.0, 0.5)
        .below_max()
        .when("method", &["cpo"])
        .default("0.0")
        .doc(preference::LABEL_SMOOTHING),
    Key::float("objective.nll_weight", 0.0, 1e3)
        .when("method", &["cpo"])
        .default("1.0")
        .doc("Weight of an added term, the negative log-likelihood per token of the chosen answer."),
    Key::choice("train.best_by", &["loss", "accuracy"])
        .when("method", &["cpo"])
        .default("loss")
        .on_resume(Resume::Free)
        .doc(preference::BEST_BY),
];

const SIMPO_KEYS: &[Key] = &[
    Key::float("objective.beta", 0.0, 1e3)
        .above_min()
        .when("method", &["simpo"])
        .default("2.0")
        .doc("Scale of the difference of log-probabilities per token."),
    Key::float("objective.gamma", 0.0, 1e3)
        .when("method", &["simpo"])
        .default("1.0")
        .doc("Target margin between the rewards of a pair, which are log-probabilities per token times beta."),
    Key::float("objective.gamma_over_beta", 0.0, 1e3)
        .when("method", &["simpo"])
        .excludes(&["objective.gamma"])
        .doc("Target margin divided by beta, as the SimPO repository gives it, instead of `objective.gamma`."),
    Key::float("objective.nll_weight", 0.0, 1e3)
        .when("method", &["simpo"])
        .default("0.0")
        .doc("Weight of an added term, the negative log-likelihood per token of the chosen answer. The paper has none; TRL adds it with weight 1 unless cpo_alpha is 0."),
    Key::choice("train.best_by", &["loss", "accuracy"])
        .when("method", &["simpo"])
        .default("loss")
        .on_resume(Resume::Free)
        .doc(preference::BEST_BY),
];

const DEFAULT: Method = Method {
    records: Wanted::Preferences,
    learns_from: preference::LEARNS_FROM,
    fewest_sequences: 2,
    learned: preference::LEARNED,
    usual: preference::USUAL,
    judged_by: preference::judged_by,
    ..Method::DEFAULT
};

pub(super) static CPO: Method = Method {
    name: "cpo",
    title: "Contrastive preference optimization",
    keys: CPO_KEYS,
    check,
    objective: |document| Box::new(ReferenceFree::of_cpo(document)),
    ..DEFAULT
};

pub(super) static SIMPO: Method = Method {
    name: "simpo",
    title: "Simple preference optimization",
    keys: SIMPO_KEYS,
    usual: Usual { rates: [1e-5, 1e-6, 1e-6], ..preference::USUAL },
    objective: |document| Box::new(ReferenceFree::of_simpo(document)),
    ..DEFAULT
};

/// How the difference of a pair becomes its loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Contrast {
    /// -ln σ(β (chosen - rejected)) over sums; with smoothing of both signs. CPO, eq. 3.
    Sigmoid {
        /// Probability that a label is wrong.
        label_smoothing: f64,
    },
    /// max(0, 1 - β (chosen - rejected)) over sums.
    Hinge,
    /// (chosen - rejected - 1/(2β))² over means per token.
    Ipo,
    /// -ln σ(β (chosen - rejected) - γ) over means per token. SimPO, eq. 6.
    Simple {
        /// Target margin γ.
        gamma: f64,
    },
}

/// A loss over the policy's own log-probabilities of a pair, averaged over the step's pairs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ReferenceFree {
    /// Scale of log-probabilities.
    pub beta: f64,
    /// Over what.
    pub contrast: Contrast,
    /// Weight of the chosen answer's negative log-likelihood per token.
    pub nll_weight: f64,
}

impl ReferenceFree {
    fn of_cpo(document: &Document) -> Self {
        let label_smoothing = document.get_f64("objective.label_smoothing");
        let contrast = match document.get_str("objective.loss") {
            "hinge" => Contrast::Hinge,
            "ipo" => Contrast::Ipo,
            _ => Contrast::Sigmoid { label_smoothing },
        };
        let nll_weight = document.get_f64("objective.nll_weight");
        ReferenceFree { beta: document.get_f64("objective.beta"), contrast, nll_weight }
    }

    fn of_simpo(document: &Document) -> Self {
        let beta = document.get_f64("objective.beta");
        let gamma = match document.opt_f64("objective.gamma_over_beta") {
            Some(ratio) => ratio * beta,
            None => document.get_f64("objective.gamma"),
        };
        let nll_weight = document.get_f64("objective.nll_weight");
        ReferenceFree { beta, contrast: Contrast::Simple { gamma }, nll_weight }
    }

    fn loss(&self, pair: &Pair) -> PairLoss {
        let variables = pair.variables();
        let is_mean = matches!(self.contrast, Contrast::Ipo | Contrast::Simple { .. });
        let divisor = |tokens: f64| if is_mean { tokens.max(1.0) } else { 1.0 };
        let chosen = variables.chosen * (1.0 / divisor(pair.chosen.tokens));
        let rejected = variables.rejected * (1.0 / divisor(pair.rejected.tokens));
        let delta = (chosen - rejected) * self.beta;
        let contrast = match self.contrast {
            Contrast::Sigmoid { label_smoothing: wrong } => {
                -delta.log_sigmoid() * (1.0 - wrong) - (-delta).log_sigmoid() * wrong
            }
            Contrast::Hinge => (-delta + 1.0).at_least(0.0),
            Contrast::Ipo => (chosen - rejected - 0.5 / self.beta).square(),
            Contrast::Simple { gamma } => -(delta - gamma).log_sigmoid(),
        };
        let nll = -variables.learned * (self.nll_weight / pair.learned.tokens.max(1.0));
        let rewards = [chosen.value, rejected.value].map(|logprob| self.beta * logprob);
        PairLoss { loss: contrast + nll, rewards }
    }
}

impl Objective for ReferenceFree {
    fn coupling(&self) -> Coupling {
        Coupling::Unit
    }

    fn divisor(&self, totals: &Totals) -> f64 {
        totals.units as f64
    }

    fn evaluate(&self, micros: &[MicroOutputs<'_>], plan: &StepPlan) -> Vec<Outcome> {
        let weigh = |target: &Target, _| TargetWeights::of_row(target);
        evaluate_pairs(micros, plan, weigh, |pairs| {
            pairs.iter().map(|pair| self.loss(pair)).collect()
        })
    }
}

/// Refuses label smoothing that would have no effect.
fn check(document: &Document) -> Result<()> {
    let loss = document.get_str("objective.loss");
    if document.get_f64("objective.label_smoothing") > 0.0 && loss != "sigmoid" {
        let message = format!("`objective.label_smoothing` has no effect on the loss {loss}");
        let hint = "leave it out, or use sigmoid".to_owned();
        let problem = document.problem("objective.label_smoothing", message, Some(hint));
        return Err(Error::Recipe(problem.into()));
    }
    Ok(())
}
