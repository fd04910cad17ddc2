//! Kahneman-Tversky optimization, Ethayarajh et al. 2024.

use data::{Sequence, Sequences, Unit, Wanted};
use keys::{Document, Key, Settings as _};

use super::{Method, preference};
use crate::models::PartName;
use crate::objective::{
    Coupling, Dual, ExtraPass, Fold, JudgedAnswer, Metric, MicroOutputs, Objective, Outcome, Share,
    evaluate_judged, judged_answers,
};
use crate::step::{StepPlan, Totals};
use crate::{Error, Result};

const KEYS: &[Key] = &[
    Key::float("objective.beta", 0.0, 1e3)
        .above_min()
        .when("method", &["kto"])
        .default("0.1")
        .doc("Strength of the pull towards the reference model. Larger values keep the policy closer to it."),
    Key::choice("objective.loss", &["kto", "apo_zero_unpaired"])
        .when("method", &["kto"])
        .default("kto")
        .doc("Loss over an answer: kto compares its reward with an estimate of the KL divergence, apo_zero_unpaired with 0."),
    Key::float("objective.desirable_weight", 0.0, 1e3)
        .above_min()
        .when("method", &["kto"])
        .default_by("number of answers")
        .doc("Weight of the loss on desirable answers."),
    Key::float("objective.undesirable_weight", 0.0, 1e3)
        .above_min()
        .when("method", &["kto"])
        .default_by("number of answers")
        .doc("Weight of the loss on undesirable answers."),
    Key::int("objective.kl_max_tokens", 2, 1 << 30)
        .when("method", &["kto"])
        .default_by("longest row")
        .unit("tokens")
        .doc("Maximum length of the sequences that estimate the KL divergence, each a prompt with the answer of another row. Longer ones are cut at their end."),
];

pub(super) static METHOD: Method = Method {
    name: "kto",
    title: "Kahneman-Tversky optimization",
    records: Wanted::Feedback,
    learns_from: "answers marked as wanted or not, or pairs",
    learned: "loss on judged answers, their end-of-turn tokens included",
    keys: KEYS,
    usual: preference::USUAL,
    fewest_rows: 2,
    fill,
    objective: |document| {
        let weight = |name: &str| document.opt_f64(name).unwrap_or(1.0);
        Box::new(Kto {
            beta: document.get_f64("objective.beta"),
            desirable_weight: weight("objective.desirable_weight"),
            undesirable_weight: weight("objective.undesirable_weight"),
            uses_kl: document.get_str("objective.loss") == "kto",
            kl_max_tokens: document.opt_usize("objective.kl_max_tokens").unwrap_or(usize::MAX),
        })
    },
    ..Method::DEFAULT
};

/// `w · (1 − σ(±β (log ratio − z₀)))`, eq. 7, averaged over the step's answers; + for desirable ones.
///
/// z₀ estimates the KL divergence of policy and reference: the mean log-ratio of answers behind prompts that they do
/// not answer, not under 0, without gradient. The answer of row i + 1 stands behind the prompt of row i, in the order
/// of the step, the first behind the last; answers of one row are never put behind their own prompt.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Kto {
    /// How far the policy may move from the reference.
    pub beta: f64,
    /// Weight of desirable answers.
    pub desirable_weight: f64,
    /// Weight of undesirable ones.
    pub undesirable_weight: f64,
    /// Whether rewards are compared with z₀; else with 0 (D'Oosterlinck et al. 2024, eq. 7, for single answers).
    pub uses_kl: bool,
    /// Tokens of a prompt with the answer of another row at most; what is behind them is left out of the estimate.
    pub kl_max_tokens: usize,
}

impl Objective for Kto {
    fn coupling(&self) -> Coupling {
        // Of a pair both answers are seen, so that its margin is known.
        Coupling::Unit
    }

    fn extra_passes(&self) -> &[ExtraPass] {
        &[ExtraPass { part: PartName::Reference }]
    }

    fn auxiliary(&self, units: &[Unit]) -> Vec<Unit> {
        if !self.uses_kl || units.len() < 2 {
            return Vec::new();
        }
        let mismatched = |of_prompt: &Sequence, of_answer: &Sequence| {
            let prompt = answer_start(of_prompt);
            let answer = answer_start(of_answer)..of_answer.len();
            let mut tokens = of_prompt.tokens[..prompt].to_vec();
            tokens.extend(&of_answer.tokens[answer.clone()]);
            let mut weights = vec![0.0; prompt];
            weights.extend(&of_answer.weights[answer]);
            tokens.truncate(self.kl_max_tokens);
            weights.truncate(self.kl_max_tokens);
            Sequence { part: 0, role: 0, tokens, weights, ..of_prompt.clone() }
        };
        let next = units.iter().cycle().skip(1);
        let pairs = units
            .iter()
            .zip(next)
            .flat_map(|(unit, next)| unit.sequences.iter().zip(next.sequences.iter().cycle()));
        let sequences = (0..).zip(pairs);
        let sequences =
            sequences.map(|(row, (prompt, answer))| Sequence { row, ..mismatched(prompt, answer) });
        Unit::of_sequences(sequences.collect())
    }

    fn before(&self, micros: &[MicroOutputs<'_>], plan: &StepPlan) -> Vec<f64> {
        let mut ratios = vec![0.0; plan.sequences.len()];
        for micro in micros {
            for (&sequence, answer) in micro.sequences.iter().zip(judged_answers(micro, plan)) {
                ratios[sequence] = answer.answer.log_ratio();
            }
        }
        // In the order of the step: the sum must not depend on where micro-batches end.
        vec![ratios.iter().sum::<f64>() / ratios.len() as f64]
    }

    fn divisor(&self, totals: &Totals) -> f64 {
        totals.sequences as f64
    }

    fn evaluate(&self, micros: &[MicroOutputs<'_>], plan: &StepPlan) -> Vec<Outcome> {
        let kl = micros.first().and_then(|micro| micro.before.first());
        let kl = kl.filter(|_| self.uses_kl).map_or(0.0, |kl| kl.max(0.0));
        let mut outcomes = evaluate_judged(micros, plan, self.beta, |answers| {
            answers.iter().map(|answer| self.loss(answer, kl)).collect()
        });
        if self.uses_kl {
            for (micro, outcome) in micros.iter().zip(&mut outcomes) {
                let share = |&sequence| Share { sequence, value: kl };
                let shares = micro.sequences.iter().map(share).collect();
                outcome.metrics.push(Metric { name: "kl", fold: Fold::Mean, shares });
            }
        }
        outcomes
    }
}

impl Kto {
    fn loss(&self, answer: &JudgedAnswer, kl: f64) -> Dual<1> {
        let advantage = (answer.log_ratio() - kl) * self.beta;
        let (weight, gain) = match answer.is_desirable {
            true => (self.desirable_weight, advantage),
            false => (self.undesirable_weight, -advantage),
        };
        (-gain.sigmoid() + 1.0) * weight
    }
}

/// Index of the first token that is learned.
fn answer_start(row: &Sequence) -> usize {
    row.weights.iter().position(|&weight| weight != 0.0).unwrap_or(row.len())
}

/// Weighs the two kinds so that they count alike in all, which is the
/// lower bound of eq. 8 of the paper. Refuses rows of one kind.
fn fill(document: &mut Document, rows: &Sequences) -> Result<()> {
    let mut counts = [0_usize; 2];
    for chunk in rows.chunks(1024) {
        for sequence in chunk?.iter().flat_map(|unit| &unit.sequences) {
            counts[usize::from(sequence.role != 0)] += 1;
        }
    }
    let [desirable, undesirable] = counts;
    if desirable == 0 || undesirable == 0 {
        let kind = if desirable == 0 { "undesirable" } else { "desirable" };
        let message = format!(
            "all {} answers are marked {kind}: kto learns from both kinds",
            desirable + undesirable
        );
        return Err(Error::refused(message, "add answers of the other kind, or train with `sft`"));
    }
    let ratio = desirable as f64 / undesirable as f64;
    let why = format!("{desirable} desirable and {undesirable} undesirable answers");
    // The kind that is rarer counts more.
    document.fill("objective.desirable_weight", (1.0 / ratio).max(1.0), &why);
    document.fill("objective.undesirable_weight", ratio.max(1.0), &why);
    let longest = rows.longest().map_or(0, |(_, tokens)| tokens).max(2);
    document.fill("objective.kl_max_tokens", longest as i64, "the longest row");
    Ok(())
}
