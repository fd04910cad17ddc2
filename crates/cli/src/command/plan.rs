//! `tunesmith plan`: what a recipe would take, before anything is loaded.

use clap::Args;
use keys::{Document, Settings as _};
use train::trainer::{Planned, SyntheticRows};

use super::subject::{Recipe, Subject};
use crate::context::{Context, precision_of};
use crate::error::{FAILED, Failure, Result};
use crate::terminal::style::{bytes, count};
use crate::terminal::table::table;

/// What to type, for `--help`.
pub(super) const EXAMPLES: &str = "Examples:
  tunesmith plan recipe.yaml
  tunesmith plan recipe.yaml quantization=nf4 micro_batch_tokens=512
  tunesmith plan recipe.yaml --config config.json --tokens 512 --rows 10000 --memory 24

Config and file headers are read, weights are not. Of a model on the hub only config and tokenizer are
downloaded. The command ends with 1 if the run does not fit into memory.";

/// What `plan` is told.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    recipe: Recipe,

    /// Plan with a config.json alone, without a model
    #[arg(long, value_name = "FILE")]
    config: Option<String>,

    /// Plan with made-up rows of this many tokens, without the data
    #[arg(long, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u32).range(2..=1 << 24))]
    tokens: Option<u32>,

    /// Number of made-up rows
    #[arg(long, value_name = "N", requires = "tokens", default_value_t = 1000)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1 << 24))]
    rows: u32,

    /// Memory to plan for, in GB [default: what is free on this machine]
    #[arg(long, value_name = "GB")]
    memory: Option<f64>,
}

pub(super) fn run(arguments: &Arguments, context: &Context) -> Result<u8> {
    let document = arguments.recipe.document(context)?;
    let subject = match &arguments.config {
        Some(config) => Subject::of_config(&context.environment.path(config), &document)?,
        None => Subject::find(&document, context)?,
    };
    let planned = plan(arguments, document, subject, context)?;
    tell(&planned, context);
    context.terminal.result(serde_json::to_value(&planned).expect("a plan is JSON"));
    Ok(if planned.fits { 0 } else { FAILED })
}

fn plan(
    arguments: &Arguments,
    document: Document,
    subject: Subject,
    context: &Context,
) -> Result<Planned> {
    let device = context.device(precision_of(document.get_str("precision")))?;
    let memory = arguments.memory.map(|gigabytes| (gigabytes * 1e9) as usize);
    let job = subject.job(document, memory, context);
    let rows = arguments.rows as usize;
    let stand_in = arguments.tokens.map(|tokens| SyntheticRows { rows, tokens: tokens as usize });
    let planned = train::trainer::plan(job, &*device, stand_in);
    planned.map_err(|error| {
        Failure::from(error).or_hint(stand_in.is_none().then_some(
            "`--tokens N` plans rows of N tokens where there is no tokenizer or no data yet",
        ))
    })
}

/// The plan in words: figures, memory by kind, and what to change.
fn tell(planned: &Planned, context: &Context) {
    let (terminal, style) = (&context.terminal, context.terminal.style);
    let parameters = planned.parameters;
    let share = 100.0 * parameters.trainable as f64 / parameters.total as f64;
    let lines = [
        format!(
            "model   {} parameters, {} trained ({share:.2} %)",
            count(parameters.total as u64),
            count(parameters.trainable as u64)
        ),
        format!("run     {} steps, {} tokens", count(planned.steps), count(planned.tokens)),
        format!(
            "device  {} tokens at a time, activation checkpointing: {}",
            count(planned.micro_batch_tokens as u64),
            planned.activation_checkpointing
        ),
    ];
    lines.iter().for_each(|line| terminal.say(line));
    terminal.say("");
    let mut rows = vec![vec!["memory".to_owned(), String::new()]];
    let kinds = planned.memory.kinds().into_iter().filter(|(_, size)| *size > 0);
    rows.extend(kinds.map(|(kind, size)| vec![kind.to_owned(), bytes(size as u64)]));
    rows.push(vec!["in all".to_owned(), bytes(planned.memory_bytes as u64)]);
    terminal.say(table(&rows).trim_end());
    let (worst, limit) = (bytes(planned.worst_bytes as u64), bytes(planned.limit_bytes as u64));
    let least = format!("at most {worst} with full micro-batches, of {limit}");
    let verdict = if planned.fits { style.green("fits") } else { style.red("does not fit") };
    terminal.say(&format!("{verdict}: {least}"));
    if !planned.fits {
        terminal.say("what helps most, in this order");
        planned.cures.iter().for_each(|cure| terminal.say(&format!("  {cure}")));
    }
    planned.notes.iter().for_each(|note| terminal.say(&style.dim(&format!("note: {note}"))));
}
