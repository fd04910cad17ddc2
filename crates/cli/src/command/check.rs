//! `tunesmith check`: what the data hold and what of them is learned, before anything is trained.

mod chart;
#[cfg(test)]
mod example;
mod page;
mod sample;
mod text;

use std::path::PathBuf;

use clap::Args;
use data::report::Report;
use data::{Finding, Level};
use keys::{Document, Settings as _};
use serde_json::{Value, json};
use train::run::write_atomic;
use train::trainer::Job;

use super::subject::{Recipe, Subject};
use crate::context::Context;
use crate::error::{FAILED, Result};

/// What to type, for `--help`.
pub(super) const EXAMPLES: &str = "Examples:
  tunesmith check recipe.yaml
  tunesmith check recipe.yaml --html report.html data.max_seq_len=1024
  tunesmith check recipe.yaml --json --samples 0

No weights are loaded. The command writes only the page of `--html`, and prepared rows into the cache.
It ends with 1 if the data have an error that `data.accept` does not name.";

/// What `check` is told.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    recipe: Recipe,

    /// Write the report as one self-contained HTML page
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,

    /// Rows to show as the model sees them
    #[arg(long, value_name = "N", default_value_t = 3)]
    #[arg(value_parser = clap::value_parser!(u16).range(0..=1000))]
    samples: u16,
}

pub(super) fn run(arguments: &Arguments, context: &Context) -> Result<u8> {
    let document = arguments.recipe.document(context)?;
    let accepted = accepted(&document);
    let subject = Subject::find(&document, context)?;
    let job = subject.job(document, None, context);
    let report = audit(job, usize::from(arguments.samples))?;
    let checked = Checked { recipe: arguments.recipe.name(), report: &report, accepted: &accepted };
    let terminal = &context.terminal;
    text::lines(&checked, terminal.style).iter().for_each(|line| terminal.say(line));
    if let Some(file) = &arguments.html {
        write_atomic(file, page::page(&checked).as_bytes())?;
        terminal.say(&format!("{} {}", terminal.style.green("wrote"), file.display()));
    }
    terminal.result(checked.to_json());
    Ok(if checked.passes() { 0 } else { FAILED })
}

/// Audits the data of a job, with so many samples in the report.
fn audit(job: Job<'_>, samples: usize) -> Result<Report> {
    Ok(train::trainer::audit(job, samples)?.report)
}

/// The findings that the recipe accepts by name.
fn accepted(document: &Document) -> Vec<String> {
    let names = document.opt_strs("data.accept").unwrap_or_default();
    names.into_iter().map(str::to_owned).collect()
}

/// A report with what the recipe says to it.
struct Checked<'a> {
    /// The recipe, as the user named it.
    recipe: &'a str,
    report: &'a Report,
    /// Findings that do not stop a run.
    accepted: &'a [String],
}

/// Levels in the order in which they are shown.
const LEVELS: [Level; 3] = [Level::Error, Level::Warning, Level::Note];

impl Checked<'_> {
    /// The findings of a level, in the report's order.
    fn findings(&self, level: Level) -> impl Iterator<Item = &Finding> {
        self.report.findings.iter().filter(move |finding| finding.level == level)
    }

    fn is_accepted(&self, finding: &Finding) -> bool {
        self.accepted.iter().any(|name| *name == finding.id)
    }

    /// The errors that stop a run.
    fn errors(&self) -> impl Iterator<Item = &Finding> {
        self.findings(Level::Error).filter(|finding| !self.is_accepted(finding))
    }

    fn passes(&self) -> bool {
        self.errors().next().is_none()
    }

    /// The line of a recipe that accepts a finding beside those that are accepted already.
    fn accept_line(&self, finding: &Finding) -> String {
        let names = self.accepted.iter().map(String::as_str).chain([finding.id.as_ref()]);
        format!("data.accept: [{}]", names.collect::<Vec<_>>().join(", "))
    }

    /// The verdict in a sentence.
    fn verdict(&self) -> String {
        let errors = self.errors().count();
        let warnings = self.findings(Level::Warning).count();
        let of = |number: usize, what: &str| match number {
            0 => format!("no {what}s"),
            1 => format!("1 {what}"),
            _ => format!("{number} {what}s"),
        };
        let found = format!("{}, {}", of(errors, "error"), of(warnings, "warning"));
        match errors {
            0 => format!("{found}: `train` takes these data"),
            _ => format!("{found}: `train` refuses these data"),
        }
    }

    fn to_json(&self) -> Value {
        let mut json = serde_json::to_value(self.report).expect("a report is JSON");
        json["passes"] = self.passes().into();
        json["accepted"] = json!(self.accepted);
        json
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_that_are_accepted_do_not_stop() {
        let report = example::report();
        let check = |accepted: &[&str], verdict: &str| {
            let accepted: Vec<String> = accepted.iter().map(|name| (*name).to_owned()).collect();
            let checked = Checked { recipe: "r.yaml", report: &report, accepted: &accepted };
            assert_eq!(checked.verdict(), verdict);
            assert_eq!(checked.passes(), checked.to_json()["passes"] == true);
        };
        check(&[], "2 errors, 1 warning: `train` refuses these data");
        check(&["double-bos"], "1 error, 1 warning: `train` refuses these data");
        // The name of a warning accepts nothing.
        check(&["near-duplicates"], "2 errors, 1 warning: `train` refuses these data");
        check(&["double-bos", "no-end-of-turn"], "no errors, 1 warning: `train` takes these data");
    }

    #[test]
    fn the_line_to_paste_keeps_what_is_accepted_already() {
        let report = example::report();
        let accepted = ["double-bos".to_owned()];
        let checked = Checked { recipe: "r.yaml", report: &report, accepted: &accepted };
        let finding = checked.errors().next().unwrap();
        assert_eq!(checked.accept_line(finding), "data.accept: [double-bos, no-end-of-turn]");
    }

    #[test]
    fn a_program_gets_the_whole_report() {
        let report = example::report();
        let json = Checked { recipe: "r.yaml", report: &report, accepted: &[] }.to_json();
        assert_eq!((&json["rows_in"], &json["rows_trained"]), (&1000.into(), &880.into()));
        let first = &json["findings"][0];
        assert_eq!(first["where"], json!(["rows.jsonl:4", "rows.jsonl:9"]));
        assert_eq!((&first["id"], &first["level"]), (&"no-end-of-turn".into(), &"error".into()));
        assert_eq!(json["samples"][0]["tokens"][0]["special"], true);
    }
}
