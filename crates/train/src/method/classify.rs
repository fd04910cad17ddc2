//! Classifier: a head with an output a class, taught by labelled texts.

mod rows;

use data::{Reads, Wanted};
use eval::classification::Classified;
use keys::{Document, Key, Kind, Resume, Settings as _};
use model::{HeadGradients, HeadRequest, Want};
use serde_json::{Map, Value};

use super::{Figure, Method, Usual};
use crate::objective::{Coupling, Fold, Metric, MicroOutputs, Objective, Outcome, Share};
use crate::step::{StepPlan, Totals};

/// Share of rows that are given their class.
const ACCURACY: &str = "accuracy";
const CLASSES: &str = "objective.classes";
const CLASS_WEIGHTS: &str = "objective.class_weights";
const WEIGHTS: &str = "objective.weights";

const WEIGHT: &Kind = &Kind::Float { min: 0.0, max: 1e6, open_min: true, open_max: false };

const KEYS: &[Key] = &[
    Key::list(CLASSES, &Kind::Text)
        .items(2, 100_000)
        .when("method", &["classify"])
        .default_by("the labels of the training rows, sorted")
        .doc("Classes of a classifier, in the order of its outputs. A row with another label is an error."),
    Key::choice(CLASS_WEIGHTS, &["none", "balanced"])
        .when("method", &["classify"])
        .default("none")
        .doc("Weights of the classes in the loss: none counts all rows alike, balanced weighs a class by rows / (classes x rows of the class), so that all classes count alike."),
    Key::list(WEIGHTS, WEIGHT)
        .items(2, 100_000)
        .when("method", &["classify"])
        .default_by("`objective.class_weights`")
        .doc("Weight of each class in the loss, in the order of `objective.classes`."),
    Key::choice("train.best_by", &["loss", "accuracy"])
        .when("method", &["classify"])
        .default("accuracy")
        .on_resume(Resume::Free)
        .doc("Validation figure that selects the best step: the lowest loss, or the highest accuracy, which is the share of rows that are given their class."),
];

pub(super) static METHOD: Method = Method {
    name: "classify",
    title: "Classifier",
    records: Wanted::Labelled,
    learns_from: "texts or dialogues with a label",
    learned: "cross-entropy of the class of every row at its last token",
    keys: KEYS,
    usual: Usual { epochs: 3.0, ..Method::DEFAULT.usual },
    has_scalar_head: true,
    outputs: |document| document.opt_strs(CLASSES).map_or(2, |classes| classes.len()),
    check: rows::check,
    fill: rows::fill,
    check_rows: rows::check_rows,
    judged_by: |document| match document.get_str("train.best_by") {
        "accuracy" => Figure { name: ACCURACY, higher_is_better: true },
        _ => Figure::LOSS,
    },
    objective: |document| Box::new(Classify::of(document)),
    ..Method::DEFAULT
};

/// Softmax cross-entropy of the class logits at the last token, averaged over the rows of the step:
/// `Σ w(y) · (log Σ exp(z) − z(y)) / rows`, with the weight w(y) of the row's class y. Goodfellow et al. 2016, Deep
/// Learning, section 6.2.2.3. The divisor is the number of rows, not the sum of their weights: so a step does not
/// weigh more because its rows are of rare classes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Classify {
    /// The classes, in the order of the head's outputs.
    pub classes: Vec<String>,
    /// A weight a class; empty where all are 1.
    pub weights: Vec<f64>,
}

impl Classify {
    fn of(document: &Document) -> Self {
        let classes = document.opt_strs(CLASSES).unwrap_or_default();
        Classify {
            classes: classes.into_iter().map(str::to_owned).collect(),
            weights: document.opt_f64s(WEIGHTS).unwrap_or_default(),
        }
    }

    /// The index of the row's class; 0 of rows that only stand in for others.
    fn label(&self, side: &Map<String, Value>) -> usize {
        let label = label_of(side);
        self.classes.iter().position(|class| Some(class.as_str()) == label).unwrap_or(0)
    }
}

/// What a row says of its class.
fn label_of(side: &Map<String, Value>) -> Option<&str> {
    side.get("label").and_then(Value::as_str)
}

impl Objective for Classify {
    fn coupling(&self) -> Coupling {
        Coupling::Sequence
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
        micros.iter().map(|micro| self.of_micro(micro, plan)).collect()
    }
}

impl Classify {
    fn of_micro(&self, micro: &MicroOutputs<'_>, plan: &StepPlan) -> Outcome {
        let rows = plan.totals.units as f64;
        let outputs = micro.policy.value.len() / micro.batch.reads.len().max(1);
        let mut slopes = vec![0.0; micro.policy.value.len()];
        let mut accuracies = Metric { name: ACCURACY, fold: Fold::Mean, shares: Vec::new() };
        let mut outcome = Outcome::default();
        for last in &micro.batch.last_reads {
            let sequence = last.sequence as usize;
            let of_read = last.read as usize * outputs..(last.read as usize + 1) * outputs;
            let logits = &micro.policy.value[of_read.clone()];
            let label = self.label(&plan.sides[plan.sequences[sequence].unit as usize]);
            let weight = self.weights.get(label).copied().unwrap_or(1.0);
            let (loss, of_logits) = cross_entropy(logits, label);
            let share = |value: f64| Share { sequence, value };
            outcome.loss.push(share(weight * loss / rows));
            for (slope, of_logit) in slopes[of_read].iter_mut().zip(of_logits) {
                *slope = (weight * of_logit / rows) as f32;
            }
            let predicted = predicted(logits);
            accuracies.shares.push(share(f64::from(u8::from(predicted == label))));
            let classified = Classified { label: label as u32, predicted: predicted as u32 };
            outcome.classified.push((sequence, classified));
        }
        outcome.gradients = HeadGradients { value: Some(slopes), ..HeadGradients::default() };
        outcome.metrics = vec![accuracies];
        outcome
    }
}

/// `log Σ exp(z) − z(label)`, and its derivatives by the logits: softmax(z) − 1 at the label.
fn cross_entropy(logits: &[f32], label: usize) -> (f64, Vec<f64>) {
    let most = logits.iter().copied().map(f64::from).fold(f64::NEG_INFINITY, f64::max);
    let powers: Vec<f64> = logits.iter().map(|&logit| (f64::from(logit) - most).exp()).collect();
    let sum: f64 = powers.iter().sum();
    let mut slopes: Vec<f64> = powers.iter().map(|power| power / sum).collect();
    slopes[label] -= 1.0;
    (most + sum.ln() - f64::from(logits[label]), slopes)
}

/// The class with the largest logit, the first of equals.
fn predicted(logits: &[f32]) -> usize {
    let best = (0..logits.len()).rev().max_by(|&a, &b| logits[a].total_cmp(&logits[b]));
    best.unwrap_or(0)
}
