//! Drawing tokens.

use super::memory::Memory;
use crate::op::Sample;

pub(super) fn run(memory: &mut Memory, op: &Sample) {
    let (rows, vocab) = (op.tokens.len, op.vocab);
    let words = vocab.div_ceil(32);
    let mut logits = memory.numbers(op.logits, rows * vocab);
    if let Some(cap) = op.softcap.map(f64::from) {
        logits.iter_mut().for_each(|logit| *logit = cap * (*logit / cap).tanh());
    }
    let settings = memory.numbers(op.settings, rows * Sample::SETTINGS);
    let mut bits = |bits: Option<_>, absent: u32| match bits {
        Some(buffer) => memory.integers(buffer, rows * words),
        None => vec![absent; rows * words],
    };
    let (allowed, seen) = (bits(op.allowed, u32::MAX), bits(op.seen, 0));
    let count = op.top.map_or(0, |top| top.tokens.len / rows.max(1));
    let (mut tokens, mut logprobs) = (Vec::new(), Vec::new());
    let (mut top_tokens, mut top_logprobs) = (Vec::new(), Vec::new());
    for row in 0..rows {
        let logits = &logits[row * vocab..][..vocab];
        let settings = &settings[row * Sample::SETTINGS..][..Sample::SETTINGS];
        let has =
            |bits: &[u32], token: usize| bits[row * words + token / 32] >> (token % 32) & 1 == 1;
        let penalised = |(token, &logit): (usize, &f64)| match settings[4] {
            _ if !has(&allowed, token) => f64::NEG_INFINITY,
            _ if !has(&seen, token) => logit,
            penalty if logit > 0.0 => logit / penalty,
            penalty => logit * penalty,
        };
        let adjusted: Vec<f64> = logits.iter().enumerate().map(penalised).collect();
        let token = draw(&adjusted, settings);
        let temperature = if settings[0] == 0.0 { 1.0 } else { settings[0] };
        let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = logits.iter().map(|logit| ((logit - max) / temperature).exp()).sum();
        let logprob = |token: usize| (logits[token] - max) / temperature - sum.ln();
        tokens.push(token as u32);
        logprobs.push(logprob(token));
        let best = ranked(logits).into_iter().take(count);
        best.for_each(|token| {
            top_tokens.push(token as u32);
            top_logprobs.push(logprob(token));
        });
    }
    memory.write_integers(op.tokens, &tokens);
    memory.write(op.logprobs, &logprobs);
    if let Some(top) = op.top {
        memory.write_integers(top.tokens, &top_tokens);
        memory.write(top.logprobs, &top_logprobs);
    }
}

/// Tokens by falling logit, the lowest first among equals.
fn ranked(logits: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
    order
}

/// Probabilities are those among the `top_k` tokens when `top_p` is applied, and those
/// among the tokens that are left when `draw` is.
fn draw(logits: &[f64], settings: &[f64]) -> usize {
    let &[temperature, top_k, top_p, min_p, _, draw] = settings else { panic!("6 settings") };
    let mut order = ranked(logits);
    order.retain(|&token| logits[token] > f64::NEG_INFINITY);
    if temperature == 0.0 {
        return order[0];
    }
    if top_k > 0.0 {
        order.truncate(top_k as usize);
    }
    let max = logits[order[0]];
    let masses = order.iter().map(|&token| ((logits[token] - max) / temperature).exp());
    let mut masses: Vec<f64> = masses.collect();
    let kept = 1 + reaching(&masses, top_p * masses.iter().sum::<f64>());
    masses.truncate(kept);
    masses.retain(|&mass| mass >= min_p);
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
