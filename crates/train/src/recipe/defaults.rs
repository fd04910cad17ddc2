//! Defaults that depend on method, adapter and data: one table, with the reasons that the
//! resolved recipe tells.

use keys::{Document, Settings as _};

use super::trained::{OF_ADAPTERS, optimizer_keys, trains_base};

/// Rows from which on the larger adapter of the practical stack is the default.
const MANY_ROWS: usize = 2000;

/// A run should make at least this many optimizer steps.
const STEPS_MIN: usize = 50;

/// Fills every key that the recipe left open and that depends on what there is to learn from.
pub fn fill_by_data(document: &mut Document, rows: usize, parameters: usize) {
    fill_adapter(document, rows);
    fill_learning_rate(document, parameters);
    fill_optimizer(document);
    let method = document.get_str("method").to_owned();
    if document.opt_usize("train.max_steps").is_none() {
        document.fill("train.epochs", usual(&method).epochs, &method);
    }
    if document.opt_usize("train.tokens_per_step").is_none() {
        let epochs = document.opt_f64("train.epochs").unwrap_or(1.0);
        let (batch, why) = batch_size(rows, epochs, &method);
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
        for key in OF_ADAPTERS {
            document.leave_out(key);
        }
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

/// What a kind of method takes unless told otherwise.
struct Usual {
    /// Learning rate of an adapter, of a whole model, and of a small whole model.
    rates: [f64; 3],
    /// Rows, pairs or prompts of a step.
    batch: usize,
    epochs: f64,
}

fn usual(method: &str) -> Usual {
    match method {
        "dpo" | "kto" | "orpo" | "simpo" | "cpo" => {
            Usual { rates: [1e-5, 1e-6, 1e-6], batch: 32, epochs: 1.0 }
        }
        "reward" => Usual { rates: [1e-4, 1e-5, 1e-5], batch: 32, epochs: 1.0 },
        "ppo" | "grpo" | "rloo" => Usual { rates: [1e-5, 1e-6, 1e-6], batch: 8, epochs: 1.0 },
        "pretrain" => Usual { rates: [2e-4, 1e-5, 5e-5], batch: 16, epochs: 1.0 },
        _ => Usual { rates: [2e-4, 1e-5, 5e-5], batch: 16, epochs: 3.0 },
    }
}

fn fill_learning_rate(document: &mut Document, parameters: usize) {
    let method = document.get_str("method").to_owned();
    let Usual { rates: [adapter, whole, small], .. } = usual(&method);
    let (rate, why) = match trains_base(document) {
        false => (adapter, format!("{method} with an adapter")),
        true if parameters < SMALL_MODEL => (small, format!("{method} of a whole model under 1B")),
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

fn fill_optimizer(document: &mut Document) {
    let kind = document.get_str("train.optimizer.type").to_owned();
    let second = if kind == "lion" { 0.99 } else { 0.999 };
    let betas = vec![keys::Value::from(0.9), keys::Value::from(second)];
    let (momentum, nesterov) = if kind == "muon" { (0.95, true) } else { (0.9, false) };
    for &name in optimizer_keys(&kind) {
        let value = match name {
            "betas" => keys::Value::List(betas.clone()),
            "momentum" => momentum.into(),
            "nesterov" => nesterov.into(),
            _ => 1e-8.into(),
        };
        document.fill(&format!("train.optimizer.{name}"), value, &kind);
    }
}

/// What the method usually takes, or less so that a small set still makes [`STEPS_MIN`] steps.
fn batch_size(rows: usize, epochs: f64, method: &str) -> (usize, String) {
    let usual = usual(method).batch;
    let visits = rows as f64 * epochs;
    let fitting = (visits / STEPS_MIN as f64).floor() as usize;
    if fitting >= usual {
        return (usual, method.into());
    }
    let why = format!("lowered from {usual} so that {rows} rows make about {STEPS_MIN} steps");
    (fitting.max(1), why)
}

fn estimated_steps(document: &Document, rows: usize) -> usize {
    if let Some(steps) = document.opt_usize("train.max_steps") {
        return steps;
    }
    let visits = rows as f64 * document.opt_f64("train.epochs").unwrap_or(1.0);
    let batch = document.opt_usize("train.batch_size").unwrap_or(16);
    (visits / batch as f64).ceil() as usize
}
