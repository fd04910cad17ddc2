//! Direct preference optimization, Rafailov et al. 2023, and the losses that share its shape.

mod loss;

use data::Wanted;
use keys::{Document, Key, Resume, Settings as _};
use model::{HeadRequest, Want};
use text::Target;

use super::{Method, preference};
use crate::models::PartName;
use crate::objective::{
    Answer, Coupling, Dual, ExtraPass, MicroOutputs, Objective, Outcome, Pair, PairLoss,
    TargetWeights, evaluate_pairs,
};
use crate::step::{StepPlan, Totals};
use crate::{Error, Result};

pub use loss::{Divergence, LOSSES, Loss};

const WORDS: &[&str] = &[
    "sigmoid",
    "hinge",
    "ipo",
    "robust",
    "exo_pair",
    "nca_pair",
    "bco_pair",
    "sppo_hard",
    "aot",
    "aot_unpaired",
    "apo_zero",
    "apo_down",
    "discopop",
    "sft",
    "sigmoid_norm",
];

/// Methods with this loss.
const OVER_PAIRS: &[&str] = &["dpo", "online_dpo"];

const KEYS: &[Key] = &[
    Key::float("objective.beta", 0.0, 1e3)
        .above_min()
        .when("method", OVER_PAIRS)
        .default("0.1")
        .doc("Strength of the pull towards the reference model. Larger values keep the policy closer to it."),
    Key::choice("objective.loss", WORDS)
        .when("method", OVER_PAIRS)
        .default("sigmoid")
        .doc("Loss over a pair. sigmoid is that of the DPO paper; docs/methods/dpo.md has the formula and source of each."),
    Key::map("objective.losses")
        .when("method", OVER_PAIRS)
        .excludes(&["objective.loss"])
        .doc("Several losses and their weights, such as {sigmoid: 0.8, bco_pair: 0.2, sft: 1.0}, instead of `objective.loss`."),
    Key::float("objective.label_smoothing", 0.0, 0.5)
        .below_max()
        .when("method", OVER_PAIRS)
        .default("0.0")
        .doc(preference::LABEL_SMOOTHING),
    Key::choice("objective.divergence", &["reverse_kl", "forward_kl", "js", "alpha"])
        .when("method", OVER_PAIRS)
        .default("reverse_kl")
        .doc("Divergence from the reference that the loss bounds (f-DPO)."),
    Key::float("objective.divergence_alpha", 0.0, 10.0)
        .above_min()
        .when("method", OVER_PAIRS)
        .default("0.5")
        .doc("Parameter of the alpha divergence. Values near 1 give the reverse KL."),
    Key::float("objective.ld_alpha", 0.0, 1.0)
        .when("method", OVER_PAIRS)
        .default("1.0")
        .doc("LD-DPO: weight of the tokens of the longer answer beyond the length of the shorter one. 1 counts them in full."),
    Key::float("objective.rpo_alpha", 0.0, 1e3)
        .when("method", OVER_PAIRS)
        .default("0.0")
        .doc("RPO: weight of an added term, the negative log-likelihood per token of the chosen answer."),
    Key::bool("objective.wpo")
        .when("method", OVER_PAIRS)
        .default("false")
        .doc("WPO: weigh each pair by how likely the policy is to write both of its answers."),
    Key::float("objective.discopop_tau", 0.0, 1e3)
        .above_min()
        .when("method", OVER_PAIRS)
        .default("0.05")
        .doc("Temperature of the blend in the discopop loss."),
    Key::choice("train.best_by", &["loss", "accuracy"])
        .when("method", &["dpo"])
        .default("loss")
        .on_resume(Resume::Free)
        .doc(preference::BEST_BY),
];

pub(super) static METHOD: Method = Method {
    name: "dpo",
    title: "Direct preference optimization",
    records: Wanted::Preferences,
    learns_from: preference::LEARNS_FROM,
    fewest_sequences: 2,
    learned: preference::LEARNED,
    keys: KEYS,
    usual: preference::USUAL,
    judged_by: preference::judged_by,
    check,
    objective,
    ..Method::DEFAULT
};

/// The loss that a recipe describes.
pub(super) fn objective(document: &Document) -> Box<dyn Objective> {
    Box::new(Dpo::read(document).expect("the recipe was checked before its data was read"))
}

/// A loss, or several with weights, over pairs of answers and how policy and reference like them. Averaged over the
/// step's pairs.
///
/// A unit is a pair: the chosen sequence, then the rejected one.
#[derive(Clone, Debug)]
pub struct Dpo {
    /// How far the policy may move from the reference.
    pub beta: f64,
    /// Losses with weights; their sum is minimised.
    pub losses: Vec<(Loss, f64)>,
    /// Probability that chosen and rejected were swapped.
    pub label_smoothing: f64,
    /// Which divergence from the reference is bounded.
    pub divergence: Divergence,
    /// LD-DPO, Liu et al. 2024, eq. 9: weight of an answer's tokens beyond the length of the shorter one.
    pub ld_alpha: f64,
    /// RPO, Pang et al. 2024, eq. 2: weight of the chosen answer's negative log-likelihood per token.
    pub rpo_alpha: f64,
    /// WPO, Zhou et al. 2024, eq. 2: a pair counts by the product of exp(mean(log p - log Σ p²)) of its answers, which
    /// is held fixed in the derivative.
    pub wpo: bool,
    /// Temperature of [`Loss::Discopop`].
    pub discopop_tau: f64,
}

impl Dpo {
    /// The plain loss of the paper.
    pub fn sigmoid(beta: f64) -> Self {
        Dpo {
            beta,
            losses: vec![(Loss::Sigmoid, 1.0)],
            label_smoothing: 0.0,
            divergence: Divergence::ReverseKl,
            ld_alpha: 1.0,
            rpo_alpha: 0.0,
            wpo: false,
            discopop_tau: 0.05,
        }
    }

    /// The settings of a recipe.
    fn read(document: &Document) -> Result<Self> {
        let number = |name: &str| document.get_f64(name);
        Ok(Dpo {
            beta: number("objective.beta"),
            losses: losses(document)?,
            label_smoothing: number("objective.label_smoothing"),
            divergence: match document.get_str("objective.divergence") {
                "forward_kl" => Divergence::ForwardKl,
                "js" => Divergence::JensenShannon,
                "alpha" => Divergence::Alpha(number("objective.divergence_alpha")),
                _ => Divergence::ReverseKl,
            },
            ld_alpha: number("objective.ld_alpha"),
            rpo_alpha: number("objective.rpo_alpha"),
            wpo: document.get_bool("objective.wpo"),
            discopop_tau: number("objective.discopop_tau"),
        })
    }

    fn has(&self, is: impl Fn(Loss) -> bool) -> bool {
        self.losses.iter().any(|(loss, _)| is(*loss))
    }

    /// The loss of every pair.
    fn judge(&self, pairs: &[Pair], settings: &loss::Settings) -> Vec<PairLoss> {
        let mut losses = vec![Dual::constant(0.0); pairs.len()];
        for &(loss, weight) in &self.losses {
            let own = match loss.sorts() {
                true => settings.sorted_losses(loss, pairs),
                false => pairs.iter().map(|pair| settings.loss(loss, pair)).collect(),
            };
            for (sum, own) in losses.iter_mut().zip(own) {
                *sum = *sum + own * weight;
            }
        }
        let complete = |(pair, mut loss): (&Pair, Dual<3>)| {
            if self.wpo {
                loss = loss * pair.on_policy.exp();
            }
            if self.rpo_alpha > 0.0 {
                let nll = -pair.variables().learned * (1.0 / pair.learned.tokens.max(1.0));
                loss = loss + nll * self.rpo_alpha;
            }
            // What the policy is implicitly rewarded for, eq. 5 without the term that both share.
            let reward = |answer: &Answer| self.beta * answer.log_ratio();
            PairLoss { loss, rewards: [reward(&pair.chosen), reward(&pair.rejected)] }
        };
        pairs.iter().zip(losses).map(complete).collect()
    }
}

impl Objective for Dpo {
    fn coupling(&self) -> Coupling {
        if self.has(Loss::sorts) { Coupling::Step } else { Coupling::Unit }
    }

    fn request(&self) -> HeadRequest {
        let plain = HeadRequest::logprobs();
        HeadRequest { want: Want { log_sum_sq_probs: self.wpo, ..plain.want }, ..plain }
    }

    fn extra_passes(&self) -> &[ExtraPass] {
        &[ExtraPass { part: PartName::Reference }]
    }

    fn divisor(&self, totals: &Totals) -> f64 {
        totals.units as f64
    }

    fn evaluate(&self, micros: &[MicroOutputs<'_>], plan: &StepPlan) -> Vec<Outcome> {
        let settings = loss::Settings {
            beta: self.beta,
            label_smoothing: self.label_smoothing,
            divergence: self.divergence,
            discopop_tau: self.discopop_tau,
            chosen_tokens: if self.has(|loss| loss == Loss::Sft) {
                chosen_tokens(plan)
            } else {
                0.0
            },
            pairs: plan.totals.units as f64,
        };
        let weigh = |target: &Target, shorter: usize| {
            let weights = TargetWeights::of_row(target);
            let is_tail = target.place as usize >= shorter;
            let factor = if is_tail { self.ld_alpha } else { 1.0 };
            TargetWeights { answer: factor * weights.answer, ..weights }
        };
        evaluate_pairs(micros, plan, weigh, |pairs| self.judge(pairs, &settings))
    }
}

/// Weights of all learned tokens of the step's chosen answers.
fn chosen_tokens(plan: &StepPlan) -> f64 {
    let targets = plan.micros.iter().flat_map(|micro| &micro.batch.targets);
    targets.filter(|target| target.role == 0).map(|target| f64::from(target.weight)).sum()
}

/// The losses of a recipe with their weights.
fn losses(document: &Document) -> Result<Vec<(Loss, f64)>> {
    let Some(entries) = document.opt_map("objective.losses") else {
        let word = document.opt_str("objective.loss").unwrap_or("sigmoid");
        return Ok(vec![(Loss::named(word).expect("the key takes names of losses only"), 1.0)]);
    };
    let refuse = |message: String| {
        let hint = format!("write weights over 0 of these: {}", WORDS.join(", "));
        Error::Recipe(document.problem("objective.losses", message, Some(hint)).into())
    };
    if entries.is_empty() {
        return Err(refuse("`objective.losses` names no loss".into()));
    }
    let entry = |(name, value): &(String, keys::Value)| {
        let loss = Loss::named(name).ok_or_else(|| refuse(format!("`{name}` is not a loss")))?;
        let json = value.to_json();
        let weight = json.as_f64().filter(|weight| weight.is_finite() && *weight > 0.0);
        let weight =
            weight.ok_or_else(|| refuse(format!("`{name}` = {json} is not a weight over 0")))?;
        Ok((loss, weight))
    };
    entries.iter().map(entry).collect()
}

/// Refuses settings that contradict each other, and those that would have no effect.
pub(super) fn check(document: &Document) -> Result<()> {
    let dpo = Dpo::read(document)?;
    let words: Vec<&str> = dpo.losses.iter().map(|(loss, _)| loss.name()).collect();
    let words = words.join(", ");
    let refuse = |key: &str, message: String, hint: &str| {
        let problem = document.problem(key, message, Some(hint.to_owned()));
        Err(Error::Recipe(problem.into()))
    };
    let no_effect = |key: &str, hint: &str| {
        refuse(key, format!("`{key}` has no effect on the loss {words}"), hint)
    };
    let smoothing = "objective.label_smoothing";
    if dpo.has(|loss| loss == Loss::ExoPair) && dpo.label_smoothing == 0.0 {
        let message =
            "`exo_pair` compares with labels that are sometimes wrong, and label smoothing is 0"
                .into();
        return refuse(smoothing, message, "set it to 0.001 or more");
    }
    if dpo.label_smoothing > 0.0 && !dpo.has(Loss::takes_smoothing) {
        return no_effect(
            smoothing,
            "leave it out, or use sigmoid, robust, exo_pair, aot or aot_unpaired",
        );
    }
    if dpo.divergence != Divergence::ReverseKl && !dpo.has(Loss::takes_divergence) {
        return no_effect(
            "objective.divergence",
            "leave it out, or use sigmoid, hinge, ipo, robust, exo_pair, discopop or sigmoid_norm",
        );
    }
    let key = "objective.divergence_alpha";
    if document.is_given(key) && !matches!(dpo.divergence, Divergence::Alpha(_)) {
        let message = format!("`{key}` has no effect without the alpha divergence");
        return refuse(key, message, "leave it out, or set `objective.divergence: alpha`");
    }
    if document.is_given("objective.discopop_tau") && !dpo.has(|loss| loss == Loss::Discopop) {
        return no_effect("objective.discopop_tau", "leave it out, or use discopop");
    }
    if dpo.wpo && dpo.has(Loss::sorts) {
        let message = format!("WPO weighs single pairs, and {words} sorts the pairs of a step");
        return refuse("objective.wpo", message, "leave one of the two out");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_loss_can_be_named() {
        assert!(LOSSES.iter().map(|(word, _)| *word).eq(WORDS.iter().copied()));
    }
}
