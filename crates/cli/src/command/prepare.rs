//! `tunesmith prepare`: the data of a recipe as training takes them, kept for every run that does.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use train::trainer::{Audit, Job};

use super::subject::{Recipe, Subject};
use crate::context::Context;
use crate::error::{Failure, Result};
use crate::terminal::style::{count, duration};

/// What to type, for `--help`.
pub(super) const EXAMPLES: &str = "Examples:
  tunesmith prepare recipe.yaml
  tunesmith prepare recipe.yaml data.max_seq_len=1024 --json

`train` prepares its data by itself. This command does it ahead, for example on another machine.";

/// What `prepare` is told.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    recipe: Recipe,
}

/// What is there after it.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct PreparedSummary {
    /// Where it is kept.
    cache: PathBuf,
    /// Rows that were prepared.
    rows: usize,
    /// Sequences of these rows.
    sequences: usize,
    /// Tokens of these sequences.
    tokens: usize,
    /// Of these, tokens that count in the loss.
    tokens_supervised: usize,
    /// How long it took.
    seconds: f64,
    /// Whether it was there already.
    was_there: bool,
}

pub(super) fn run(arguments: &Arguments, context: &Context) -> Result<u8> {
    let document = arguments.recipe.document(context)?;
    let subject = Subject::find(&document, context)?;
    let cache = context.environment.prepared_cache().ok_or_else(|| {
        Failure::wrong("cache", "there is no folder to keep prepared rows in")
            .hint("set `XDG_CACHE_HOME` or `HOME`")
    })?;
    let summary = prepared(subject.job(document, None, context), cache)?;
    let terminal = &context.terminal;
    tell(&summary, &context.environment.show(&summary.cache))
        .iter()
        .for_each(|line| terminal.say(line));
    terminal.result(serde_json::to_value(&summary).expect("a summary is JSON"));
    Ok(0)
}

/// Prepares the data of a job.
fn prepared(job: Job<'_>, cache: PathBuf) -> Result<PreparedSummary> {
    let Audit { report, prepared } = train::trainer::audit(job, 0)?;
    Ok(PreparedSummary {
        cache,
        rows: report.rows_in,
        sequences: report.sequences,
        tokens: report.tokens,
        tokens_supervised: report.tokens_supervised,
        seconds: report.seconds,
        was_there: prepared.was_cached,
    })
}

fn tell(summary: &PreparedSummary, cache: &str) -> Vec<String> {
    let number = |number: usize| count(number as u64);
    let took = match summary.was_there {
        true => "it was there already".to_owned(),
        false => format!("prepared in {}", duration(summary.seconds)),
    };
    vec![
        format!("rows    {}, {} sequences", number(summary.rows), number(summary.sequences)),
        format!(
            "tokens  {}, {} trained",
            number(summary.tokens),
            number(summary.tokens_supervised)
        ),
        format!("cache   {cache}: {took}"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_there_is_told_from_what_was_done() {
        let summary = PreparedSummary {
            cache: PathBuf::from("/c"),
            rows: 1000,
            sequences: 1010,
            tokens: 64_000,
            tokens_supervised: 16_000,
            seconds: 2.2,
            was_there: false,
        };
        let expected = [
            "rows    1,000, 1,010 sequences",
            "tokens  64,000, 16,000 trained",
            "cache   c: prepared in 2 s",
        ];
        assert_eq!(tell(&summary, "c"), expected);
        let again = PreparedSummary { was_there: true, ..summary };
        assert_eq!(tell(&again, "c")[2], "cache   c: it was there already");
    }
}
