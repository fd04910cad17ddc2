//! Training steps over made-up rows.

use compute::Optimizer;
use serde_json::{Map, Value, json};
use train::method::Online;
use train::trainer::{Trial, TrialConfig};

use super::clock::{median, profile};
use super::made_up::MadeUp;
use super::passes::passes;
use super::row::Row;
use super::subject::Subject;
use super::{Adapter, Arguments, OptimizerName, PRECISION};
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
    let (tokens, shared) = (arguments.tokens_or(256), arguments.shared_in_training());
    let (method, vocab) = (arguments.method(), subject.base.config.vocab_size);
    // Of the answers that are drawn two are learned from, where pairs are.
    let kind = match method.online {
        Some(Online::Pairs) => MadeUp::Pairs,
        _ => MadeUp::of(method.records, usize::from(arguments.group)),
    };
    let rows = kind.sequences(sequences, tokens, shared, vocab);
    let longest = kind.answers() * tokens;
    let (betas, eps) = ([0.9, 0.999], 1e-8);
    let config = TrialConfig {
        method,
        rank: (arguments.adapter == Adapter::Lora).then_some(usize::from(arguments.rank)),
        quantization: arguments.quantization.quantization(),
        optimizer: match arguments.optimizer {
            OptimizerName::Adamw => Optimizer::AdamW { betas, eps },
            OptimizerName::Adamw8bit => Optimizer::AdamW8bit { betas, eps },
        },
        micro_batch_tokens: longest.max(arguments.micro_batch_tokens as usize),
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
    let rows = match kind.answers() {
        1 => sequences.to_string(),
        answers => format!("{sequences} x {answers}"),
    };
    let named = match method.name {
        "sft" => String::new(),
        name => format!("{name}, "),
    };
    let mut measured = vec![Row {
        name: format!("train {named}{what}, {rows} x {own} tokens{behind}"),
        seconds,
        rows: Some((sequences as f64, kind.called())),
        tokens: Some(trial.plan.totals.tokens as f64),
        work: Some(trial.flops as f64),
        peak_host_bytes: peak_memory(),
        more: vec![
            ("method", arguments.method.as_str().into()),
            ("sequences", sequences.into()),
            ("tokens", tokens.into()),
            ("shared", shared.into()),
            ("rank", json!(config.rank)),
            ("tokens_computed", trial.plan.totals.tokens_computed.into()),
            ("parameters", json!({"total": trial.parameters.0, "trainable": trial.parameters.1})),
            ("memory", memory.into()),
            ("loss", loss.into()),
        ],
        ..Row::default()
    }];
    if method.online.is_some() {
        let mut drawn = 0;
        let seconds = median(arguments.seconds, LEAST, || {
            trial.sample(backend).map(|tokens| drawn = tokens.unwrap_or_default())
        })?;
        measured.push(Row {
            name: format!("  rollout: {rows} answers of {own} tokens"),
            seconds,
            rows: Some(((sequences * kind.answers()) as f64, "answers")),
            tokens: Some(drawn as f64),
            more: vec![("pass", "rollout".into())],
            ..Row::default()
        });
    }
    if arguments.profile {
        measured.extend(passes(backend, &mut trial)?);
        measured.extend(profile(backend, |backend| Ok(trial.step(backend).map(drop)?))?);
    }
    Ok(measured)
}
