//! Reward model: a scalar head taught by pairs, ranked answers or judged steps.

use data::{Reads, Sequences, Wanted};
use keys::{Document, Key, Resume, Settings as _};
use model::{HeadGradients, HeadRequest, Want};
use serde_json::{Map, Value};

use super::{Figure, Method, Usual};
use crate::objective::{
    Coupling, Fold, MARGIN, Metric, MicroOutputs, Objective, Outcome, Share, sigmoid, softplus,
};
use crate::step::{StepPlan, Totals};
use crate::{Error, Result};

/// Share of pairs whose better answer has the higher reward, or of steps on the right side of 0.
const ACCURACY: &str = "accuracy";

const KEYS: &[Key] = &[
    Key::choice("objective.loss", &["pairwise", "plackett_luce", "steps"])
        .when("method", &["reward"])
        .default_by("rows")
        .doc("Loss of a reward model. pairwise (Bradley-Terry) compares each answer with every worse one, plackett_luce with all worse ones at once, steps learns judged steps of an answer."),
    Key::float("objective.center", 0.0, 1e3)
        .when("method", &["reward"])
        .default("0.0")
        .doc("Weight of an added term, the square of the sum of a pair's rewards, which draws rewards towards 0. 0.01 is usual."),
    Key::choice("train.best_by", &["loss", "accuracy"])
        .when("method", &["reward"])
        .default("accuracy")
        .on_resume(Resume::Free)
        .doc("Validation figure that selects the best step: the lowest loss, or the highest accuracy, which is the share of pairs whose better answer has the higher reward."),
];

pub(super) static METHOD: Method = Method {
    name: "reward",
    title: "Reward model",
    records: Wanted::Rewards,
    learns_from: "pairs, ranked answers or judged steps",
    learned: "loss on the score at the last token of every answer, better against worse",
    keys: KEYS,
    usual: Usual::of_rows([1e-4, 1e-5, 1e-5], 32),
    has_scalar_head: true,
    judged_by: |document| match document.get_str("train.best_by") {
        "accuracy" => Figure { name: ACCURACY, higher_is_better: true },
        _ => Figure::LOSS,
    },
    check,
    fill,
    objective: |document| {
        let loss = match document.opt_str("objective.loss") {
            Some("plackett_luce") => RewardLoss::PlackettLuce,
            Some("steps") => RewardLoss::Steps,
            _ => RewardLoss::Pairwise,
        };
        Box::new(Reward { loss, center: document.get_f64("objective.center") })
    },
    ..Method::DEFAULT
};

/// What a reward model learns from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RewardLoss {
    /// `-log σ(r_better − r_worse − margin)` (Ouyang et al. 2022, eq. 1), averaged over the pairs of a row: two
    /// answers are one pair, K of them K·(K-1)/2, less those that are equally good. The margin (Touvron et al. 2023,
    /// eq. 2) is that of the row's side data, 0 where it has none.
    #[default]
    Pairwise,
    /// `-Σ log(exp r / (exp r + Σ exp r_worse))` over the answers of a row that have worse ones: the likelihood of the
    /// ranking under Plackett-Luce (Rafailov et al. 2023, appendix A.3). Of two answers it is that of a pair.
    PlackettLuce,
    /// Binary cross-entropy of the reward at the last token of every step, a logit, and the step's label (Lightman et
    /// al. 2023). Averaged over the steps of the optimizer step.
    Steps,
}

/// A scalar head at the last token of every answer, or of every step of an answer. A unit has its answers best first.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reward {
    /// What is learned from.
    pub loss: RewardLoss,
    /// Weight of (r_better + r_worse)², averaged over the pairs of a row (Eisenstein et al. 2023). Rewards are known up
    /// to a constant for each prompt; this fixes it.
    pub center: f64,
}

impl Objective for Reward {
    fn coupling(&self) -> Coupling {
        Coupling::Unit
    }

    fn reads(&self) -> Reads {
        if self.loss == RewardLoss::Steps { Reads::Learned } else { Reads::Last }
    }

    fn request(&self) -> HeadRequest {
        let want = Want { value: true, logprob: false, ..Want::default() };
        HeadRequest { want, ..HeadRequest::logprobs() }
    }

    fn divisor(&self, totals: &Totals) -> f64 {
        match self.loss {
            RewardLoss::Steps => totals.targets as f64,
            _ => totals.units as f64,
        }
    }

    fn evaluate(&self, micros: &[MicroOutputs<'_>], plan: &StepPlan) -> Vec<Outcome> {
        let outcome = |micro| match self.loss {
            RewardLoss::Steps => of_steps(micro, plan),
            _ => self.of_answers(micro, plan),
        };
        micros.iter().map(outcome).collect()
    }
}

/// A row's loss, with its derivatives by the rewards of its answers.
#[derive(Default)]
struct RowLoss {
    value: f64,
    slopes: Vec<f64>,
}

impl Reward {
    fn of_answers(&self, micro: &MicroOutputs<'_>, plan: &StepPlan) -> Outcome {
        let mut read_of = vec![0; plan.sequences.len()];
        for last in &micro.batch.last_reads {
            read_of[last.sequence as usize] = last.read as usize;
        }
        let units = plan.totals.units as f64;
        let metric = |name| Metric { name, fold: Fold::Mean, shares: Vec::new() };
        let [mut accuracies, mut margins, mut means] =
            [ACCURACY, MARGIN, "mean_reward"].map(metric);
        let mut by_read = vec![0.0; micro.policy.value.len()];
        let mut outcome = Outcome::default();

        for unit in plan.units_of(micro.sequences) {
            let side = &plan.sides[plan.sequences[unit.start].unit as usize];
            let rewards: Vec<f64> =
                unit.clone().map(|index| f64::from(micro.policy.value[read_of[index]])).collect();
            let pairs = pairs(unit.len(), side);
            let count = pairs.len() as f64;
            let mut loss = match self.loss {
                RewardLoss::PlackettLuce => plackett_luce(&rewards, &pairs),
                _ => bradley_terry(&rewards, &pairs, side),
            };
            let (mut right, mut apart) = (0.0, 0.0);
            for &(better, worse) in &pairs {
                let (margin, sum) =
                    (rewards[better] - rewards[worse], rewards[better] + rewards[worse]);
                loss.value += self.center * sum * sum / count;
                for answer in [better, worse] {
                    loss.slopes[answer] += 2.0 * self.center * sum / count;
                }
                right += f64::from(u8::from(margin > 0.0));
                apart += margin;
            }
            let share = |value: f64| Share { sequence: unit.start, value };
            outcome.loss.push(share(loss.value / units));
            accuracies.shares.push(share(right / count));
            margins.shares.push(share(apart / count));
            means.shares.push(share(rewards.iter().sum::<f64>() / rewards.len() as f64));
            for (index, slope) in unit.zip(loss.slopes) {
                by_read[read_of[index]] += slope / units;
            }
        }
        outcome.gradients = value_gradients(by_read);
        outcome.metrics = vec![accuracies, margins, means];
        outcome
    }
}

fn value_gradients(by_read: Vec<f64>) -> HeadGradients {
    let value = by_read.into_iter().map(|slope| slope as f32).collect();
    HeadGradients { value: Some(value), ..HeadGradients::default() }
}

fn bradley_terry(rewards: &[f64], pairs: &[(usize, usize)], side: &Map<String, Value>) -> RowLoss {
    let apart = side.get("margin").and_then(Value::as_f64).unwrap_or(0.0);
    let count = pairs.len() as f64;
    let mut loss = RowLoss { value: 0.0, slopes: vec![0.0; rewards.len()] };
    for &(better, worse) in pairs {
        let margin = rewards[better] - rewards[worse] - apart;
        loss.value += softplus(-margin) / count;
        // d/dx of -log σ(x) is σ(x) - 1.
        let slope = (sigmoid(margin) - 1.0) / count;
        loss.slopes[better] += slope;
        loss.slopes[worse] -= slope;
    }
    loss
}

fn plackett_luce(rewards: &[f64], pairs: &[(usize, usize)]) -> RowLoss {
    let mut loss = RowLoss { value: 0.0, slopes: vec![0.0; rewards.len()] };
    for own in pairs.chunk_by(|(a, _), (b, _)| a == b) {
        let better = own[0].0;
        let rest = || std::iter::once(better).chain(own.iter().map(|(_, worse)| *worse));
        let most = rest().map(|index| rewards[index]).fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = rest().map(|index| (rewards[index] - most).exp()).sum();
        loss.value += most + sum.ln() - rewards[better];
        loss.slopes[better] -= 1.0;
        for index in rest() {
            loss.slopes[index] += (rewards[index] - most).exp() / sum;
        }
    }
    loss
}

/// The better and the worse answer of every pair of a row, by the better one. Answers of the same standing are no pair.
fn pairs(answers: usize, side: &Map<String, Value>) -> Vec<(usize, usize)> {
    let standings = side.get("standings").and_then(Value::as_array);
    let standing = |index: usize| match standings {
        Some(standings) => standings[index].as_u64(),
        None => Some(index as u64),
    };
    let all =
        (0..answers).flat_map(|better| (better + 1..answers).map(move |worse| (better, worse)));
    all.filter(|&(better, worse)| standing(better) != standing(worse)).collect()
}

fn of_steps(micro: &MicroOutputs<'_>, plan: &StepPlan) -> Outcome {
    let total = plan.totals.targets as f64;
    let mut reads = vec![Vec::new(); plan.sequences.len()];
    for last in &micro.batch.last_reads {
        reads[last.sequence as usize].push(last.read as usize);
    }
    let metric = |name| Metric { name, fold: Fold::Mean, shares: Vec::new() };
    let [mut accuracies, mut means] = [ACCURACY, "mean_reward"].map(metric);
    let mut by_read = vec![0.0; micro.policy.value.len()];
    let mut outcome = Outcome::default();
    for &sequence in micro.sequences {
        let side = &plan.sides[plan.sequences[sequence].unit as usize];
        let labels = side.get("labels").and_then(Value::as_array);
        let (mut loss, mut right, mut sum) = (0.0, 0.0, 0.0);
        let count = reads[sequence].len() as f64;
        for (step, &read) in reads[sequence].iter().enumerate() {
            let reward = f64::from(micro.policy.value[read]);
            let label = labels.and_then(|labels| labels.get(step)?.as_f64()).unwrap_or(0.0);
            // -y log σ(r) - (1 - y) log σ(-r), by r: σ(r) - y.
            loss += label * softplus(-reward) + (1.0 - label) * softplus(reward);
            by_read[read] += (sigmoid(reward) - label) / total;
            right += f64::from(u8::from((reward > 0.0) == (label > 0.5)));
            sum += reward;
        }
        let share = |value: f64| Share { sequence, value };
        outcome.loss.push(share(loss / total));
        accuracies.shares.push(share(right / count));
        means.shares.push(share(sum / count));
    }
    outcome.gradients = value_gradients(by_read);
    outcome.metrics = vec![accuracies, means];
    outcome
}

/// Refuses a weight that would have no effect.
fn check(document: &Document) -> Result<()> {
    let is_of_steps = document.opt_str("objective.loss") == Some("steps");
    if is_of_steps && document.get_f64("objective.center") > 0.0 {
        let message =
            "`objective.center` draws the rewards of a pair towards 0, and steps are no pairs";
        let problem = document.problem("objective.center", message, Some("leave it out".into()));
        return Err(Error::Recipe(problem.into()));
    }
    Ok(())
}

/// Chooses the loss by what the rows are, and refuses a loss that cannot learn from them.
fn fill(document: &mut Document, rows: &Sequences) -> Result<()> {
    let (mut judged, mut compared) = (None, None);
    for chunk in rows.chunks(1024) {
        for unit in chunk? {
            let place = match unit.side.contains_key("labels") {
                true => &mut judged,
                false => &mut compared,
            };
            place.get_or_insert_with(|| unit.sequences[0].place.clone());
        }
    }
    let refuse = |message: String, hint: &str| Err(Error::refused(message, hint));
    if let (Some(judged), Some(compared)) = (&judged, &compared) {
        let message =
            format!("{judged}: the row has judged steps, but {compared} has answers to compare");
        return refuse(message, "train one reward model on each kind of rows");
    }
    match (judged, document.opt_str("objective.loss")) {
        (None, Some("steps")) => {
            let problem = document.problem(
                "objective.loss",
                "`steps` learns from judged steps, and the rows have none",
                Some("leave it out".into()),
            );
            Err(Error::Recipe(problem.into()))
        }
        (Some(place), Some(loss @ ("pairwise" | "plackett_luce"))) => refuse(
            format!("{place}: `{loss}` compares answers, and the row has judged steps of one"),
            "leave `objective.loss` out, or set it to steps",
        ),
        (Some(_), _) => {
            document.fill("objective.loss", "steps", "the rows have judged steps");
            check(document)
        }
        (None, _) => {
            document.fill("objective.loss", "pairwise", "the rows have answers to compare");
            Ok(())
        }
    }
}
