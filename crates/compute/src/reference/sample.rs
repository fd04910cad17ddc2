//! Drawing tokens.

use super::memory::Memory;
use crate::op::Sample;

pub(super) fn run(memory: &mut Memory, op: &Sample) {
    let rows = op.tokens.len;
    let mut logits = memory.numbers(op.logits, rows * op.vocab);
    if let Some(cap) = op.softcap.map(f64::from) {
        logits.iter_mut().for_each(|logit| *logit = cap * (*logit / cap).tanh());
    }
    let settings = memory.numbers(op.settings, rows * 4);
    let (mut tokens, mut logprobs) = (Vec::new(), Vec::new());
    for (logits, settings) in logits.chunks_exact(op.vocab).zip(settings.chunks_exact(4)) {
        let token = draw(logits, settings);
        let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = logits.iter().map(|logit| (logit - max).exp()).sum();
        tokens.push(token as u32);
        logprobs.push(logits[token] - max - sum.ln());
    }
    memory.write_integers(op.tokens, &tokens);
    memory.write(op.logprobs, &logprobs);
}

/// Probabilities are those among the `top_k` tokens when `top_p` is applied, and those
/// among the tokens that are left when `draw` is.
fn draw(logits: &[f64], settings: &[f64]) -> usize {
    let (temperature, top_k, top_p, draw) =
        (settings[0], settings[1] as usize, settings[2], settings[3]);
    let mut order: Vec<usize> = (0..logits.len()).collect();
    // A stable sort: the lowest token comes first among equals.
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
    if temperature == 0.0 {
        return order[0];
    }
    if top_k > 0 {
        order.truncate(top_k);
    }
    let max = logits[order[0]];
    let masses = order.iter().map(|&token| ((logits[token] - max) / temperature).exp());
    let mut masses: Vec<f64> = masses.collect();
    let kept = 1 + reaching(&masses, top_p * masses.iter().sum::<f64>());
    masses.truncate(kept);
    let share = draw * masses.iter().sum::<f64>();
    let mut sum = 0.0;
    let past = |mass: &f64| {
        sum += mass;
        sum > share
    };
    order[masses.iter().position(past).unwrap_or(masses.len() - 1)]
}

/// Index of the first mass with which the running sum reaches `share`; the last where none does.
fn reaching(masses: &[f64], share: f64) -> usize {
    let mut sum = 0.0;
    let reached = |mass: &f64| {
        sum += mass;
        sum >= share
    };
    masses.iter().position(reached).unwrap_or(masses.len() - 1)
}
