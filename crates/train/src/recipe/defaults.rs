//! Defaults that depend on method, adapter and data: one table, with the reasons that the
//! resolved recipe tells.

use keys::{Document, Settings as _};

use super::trained::trains_base;
use crate::method;

/// Rows from which on the larger adapter of the practical stack is the default.
const MANY_ROWS: usize = 2000;

/// A run should make at least this many optimizer steps.
const STEPS_MIN: usize = 50;

/// What defaults depend on of the base.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ModelSize {
    /// Numbers of the whole model.
    pub parameters: usize,
    /// Width of a token's hidden state; 0 where that is not known.
    pub hidden: usize,
}

impl From<&model::Config> for ModelSize {
    fn from(config: &model::Config) -> Self {
        ModelSize { parameters: config.parameter_count(), hidden: config.hidden_size }
    }
}

/// Fills every key that the recipe left open and that depends on what there is to learn from.
pub fn fill_by_data(document: &mut Document, rows: usize, model: ModelSize) {
    fill_adapter(document, rows);
    fill_learning_rate(document, model);
    let (fewest, usual) = (method::of(document).fewest_rows, method::of(document).usual);
    let method = method::of(document).name;
    if document.opt_usize("train.max_steps").is_none() {
        document.fill("train.epochs", usual.epochs, method);
    }
    if method::of(document).online.is_some() {
        document.fill("rollout.group_size", usual.group_size as i64, method);
        document.fill("rollout.updates", usual.updates as i64, method);
    }
    if document.opt_usize("train.tokens_per_step").is_none() {
        let epochs = document.opt_f64("train.epochs").unwrap_or(1.0);
        let (batch, why) = batch_size(rows, epochs, usual.batch, fewest, method);
        document.fill("train.batch_size", batch as i64, &why);
    }
    let steps = estimated_steps(document, rows);
    let every = (steps / 10).clamp(1, 50);
    document.fill(
        "train.evaluate_every.steps",
        every as i64,
        "about ten times in the run, every 50 steps at least",
    );
}

fn fill_adapter(document: &mut Document, rows: usize) {
    if trains_base(document) {
        return;
    }
    let (rank, why) = match rows {
        0..MANY_ROWS => (16, format!("{rows} rows: under {MANY_ROWS} a small adapter is enough")),
        _ => (64, format!("{rows} rows: {MANY_ROWS} or more carry a larger adapter")),
    };
    document.fill("adapter.rank", rank as i64, &why);
    let rank = document.get_usize("adapter.rank");
    document.fill("adapter.alpha", 2.0 * rank as f64, "twice the rank");
}

/// A model below this size takes a higher rate when it is trained as a whole.
const SMALL_MODEL: usize = 1_000_000_000;

/// The hidden size that a method's rate of an adapter is for.
const HIDDEN: f64 = 2000.0;

/// By how much a wider model takes less. `hyperparam_utils` of tinker-cookbook, which goes with "LoRA Without Regret"
/// (Schulman and others, 2025), has `5e-4 (2000 / hidden)^p` for SFT, with p = 0.781 for Llama and 0.0775 for Qwen. Ours
/// is that of Llama for every model: of Qwen narrower than 2000 it is up to 2.3 times theirs. For SmolLM2-135M it gives
/// 1.3e-3; a sweep found 1e-3 far better than 3e-4, and 2e-3 and 4e-3 a little better still (docs/experiments.md).
const HIDDEN_EXPONENT: f64 = 0.781;

/// The narrowest model that this was measured on: one that is narrower takes no more.
const NARROWEST: usize = 576;

/// An adapter's rate, to two digits.
fn adapter_rate(rate: f64, hidden: usize) -> f64 {
    let rate = rate * (HIDDEN / hidden.max(NARROWEST) as f64).powf(HIDDEN_EXPONENT);
    format!("{rate:.1e}").parse().expect("a number as it was written")
}

fn fill_learning_rate(document: &mut Document, model: ModelSize) {
    let method = method::of(document);
    let [adapter, whole, small] = method.usual.rates;
    let method = method.name;
    let (rate, why) = match trains_base(document) {
        false if model.hidden > 0 => {
            let rate = adapter_rate(adapter, model.hidden);
            (rate, format!("{method} with an adapter, hidden size {}", model.hidden))
        }
        false => (adapter, format!("{method} with an adapter, hidden size {HIDDEN}")),
        true if model.parameters < SMALL_MODEL => {
            (small, format!("{method} of a whole model under 1B"))
        }
        true => (whole, format!("{method} of a whole model")),
    };
    // Lion's updates have the size of the rate itself, SGD's that of the gradient.
    let (factor, of) = match document.get_str("train.optimizer.type") {
        "lion" => (0.1, ", a tenth with lion"),
        "sgd" => (100.0, ", times 100 with sgd"),
        _ => (1.0, ""),
    };
    document.fill("train.learning_rate", rate * factor, &format!("{why}{of}"));
}

/// What the method usually takes, or less so that a small set still makes [`STEPS_MIN`] steps.
fn batch_size(
    rows: usize,
    epochs: f64,
    usual: usize,
    fewest: usize,
    method: &str,
) -> (usize, String) {
    let visits = rows as f64 * epochs;
    let fitting = (visits / STEPS_MIN as f64).floor() as usize;
    if fitting >= usual {
        return (usual, method.into());
    }
    let why = format!("lowered from {usual} so that {rows} rows make about {STEPS_MIN} steps");
    (fitting.max(fewest), why)
}

fn estimated_steps(document: &Document, rows: usize) -> usize {
    if let Some(steps) = document.opt_usize("train.max_steps") {
        return steps;
    }
    let visits = rows as f64 * document.opt_f64("train.epochs").unwrap_or(1.0);
    let batch = document.opt_usize("train.batch_size").unwrap_or(16);
    (visits / batch as f64).ceil() as usize
}
