//! Training steps over made-up rows.

use std::path::Path;
use std::sync::Arc;

use compute::{Optimizer, random};
use data::Place;
use data::Sequence;
use serde_json::{Map, Value, json};
use train::trainer::{Trial, TrialConfig};

use super::clock::{median, profile};
use super::row::Row;
use super::subject::Subject;
use super::{Arguments, Method, OptimizerName, PRECISION};
use crate::context::Context;
use crate::environment::{peak_memory, reset_peak_memory};
use crate::error::Result;
use crate::memory::free_memory;

/// Steps that are measured at least.
const LEAST: usize = 3;

pub(super) fn steps(
    arguments: &Arguments,
    subject: &Subject,
    context: &Context,
) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for sequences in arguments.sequences_or(&[8]) {
        rows.extend(step(arguments, subject, context, sequences)?);
    }
    Ok(rows)
}

fn step(
    arguments: &Arguments,
    subject: &Subject,
    context: &Context,
    sequences: usize,
) -> Result<Vec<Row>> {
    reset_peak_memory();
    let (tokens, shared) = (arguments.tokens_or(256), arguments.shared as usize);
    let rows = made_up(sequences, tokens, shared, subject.base.config.vocab_size);
    let (betas, eps) = ([0.9, 0.999], 1e-8);
    let config = TrialConfig {
        rank: (arguments.method == Method::Lora).then_some(usize::from(arguments.rank)),
        quantization: arguments.quantization.quantization(),
        optimizer: match arguments.optimizer {
            OptimizerName::Adamw => Optimizer::AdamW { betas, eps },
            OptimizerName::Adamw8bit => Optimizer::AdamW8bit { betas, eps },
        },
        micro_batch_tokens: arguments.micro_batch_tokens.max(tokens as u32) as usize,
        recompute: arguments.checkpointing,
        shares_prefixes: !arguments.unshared,
        memory_limit: free_memory(),
    };
    let backend = &mut *context.device(PRECISION)?;
    let mut trial = Trial::new(&subject.base, backend, &config, &rows)?;
    subject.base.release();
    let mut loss = 0.0;
    let seconds = median(arguments.seconds, LEAST, || trial.step(backend).map(|now| loss = now))?;
    let what = match config.rank {
        Some(rank) => format!("LoRA rank {rank}"),
        None => "whole model".to_owned(),
    };
    let memory: Map<String, Value> =
        trial.memory.kinds().iter().map(|&(kind, bytes)| (kind.to_owned(), bytes.into())).collect();
    let behind = if shared > 0 { format!(" behind {shared} shared") } else { String::new() };
    let own = tokens - shared;
    let mut measured = vec![Row {
        name: format!("train {what}, {sequences} x {own} tokens{behind}"),
        seconds,
        tokens: Some(trial.plan.totals.tokens as f64),
        work: Some(trial.flops as f64),
        peak_host_bytes: peak_memory(),
        more: vec![
            ("sequences", sequences.into()),
            ("tokens", tokens.into()),
            ("shared", shared.into()),
            ("rank", json!(config.rank)),
            ("rows_per_s", (sequences as f64 / seconds).into()),
            ("tokens_computed", trial.plan.totals.tokens_computed.into()),
            ("parameters", json!({"total": trial.parameters.0, "trainable": trial.parameters.1})),
            ("memory", memory.into()),
            ("loss", loss.into()),
        ],
        ..Row::default()
    }];
    if arguments.profile {
        measured.extend(profile(backend, |backend| Ok(trial.step(backend).map(drop)?))?);
    }
    Ok(measured)
}

/// Rows of tokens drawn at random; the first `shared` are the same in all of them. All others but the
/// first are learned.
fn made_up(rows: usize, tokens: usize, shared: usize, vocab: usize) -> Vec<Sequence> {
    let file: Arc<Path> = Path::new("made up").into();
    let sequence = |row: usize| {
        let token = |position: usize| {
            let row = if position < shared { 0 } else { row as u64 + 1 };
            (random::key(&[row, position as u64]) % vocab as u64) as u32
        };
        let weight = |position: usize| f32::from(position >= shared.max(1));
        Sequence {
            row: row as u64,
            part: 0,
            role: 0,
            tokens: (0..tokens).map(token).collect(),
            weights: (0..tokens).map(weight).collect(),
            place: Place { file: file.clone(), line: row + 1, element: None },
        }
    };
    (0..rows).map(sequence).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_share_what_they_are_told_to() {
        let rows = made_up(3, 10, 4, 1000);
        assert_eq!(rows[0].tokens[..4], rows[2].tokens[..4]);
        assert_ne!(rows[0].tokens[4..], rows[2].tokens[4..]);
        assert_eq!(rows[1].weights, [0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]);
        assert_eq!(made_up(1, 3, 0, 10)[0].weights, [0.0, 1.0, 1.0]);
    }
}
