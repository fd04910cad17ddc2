//! `tunesmith score`: answers in, scores of a reward model out; or texts in, classes of a classifier out.

mod classes;
mod rows;

use std::path::PathBuf;

use clap::Args;
use data::{Place, source};
use eval::interval::{Interval, bootstrap};
use eval::preference::wins;
use serde::Serialize;
use serde_json::{Value, json};
use train::run::write_atomic;

use crate::context::Context;
use crate::error::{Failure, Result};
use crate::served::Served;
use crate::terminal::style::count;
use rows::{Answered, read};

/// What to type, for `--help`.
pub(super) const EXAMPLES: &str = "Examples:
  tunesmith score runs/reward-001 --data pairs.jsonl > scores.jsonl
  tunesmith score runs/reward-001 --data answers.jsonl --output scores.jsonl
  tunesmith score ./adapter --data pairs.parquet --json

A line of the output has `place` (file and line), `scores` in the order of the row's answers (chosen,
then rejected), and for pairs `chosen_wins`: 1, 0, or 0.5 for a tie.

A classifier takes texts, prompts or conversations, with or without a `label`. A line then has `scores`,
the logit of every class by name, the `label` that the model gives, and `correct` where the row has one.";

/// What `score` is told.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// A run folder, adapter folder or hub id of a reward model or a classifier
    #[arg(value_name = "MODEL")]
    model: String,

    /// File, folder or glob of pairs, ranked answers, judged answers or conversations, or of texts for a classifier, in any format of `data.train`
    #[arg(long, value_name = "FILE")]
    data: PathBuf,

    /// Write the scores to this file instead of standard output
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Overwrite an existing output
    #[arg(long, requires = "output")]
    overwrite: bool,

    /// Tokens to compute at the same time; a row is never cut
    #[arg(long, value_name = "N", default_value_t = 1024)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_048_576))]
    batch_tokens: u32,
}

pub(super) fn run(arguments: &Arguments, context: &Context) -> Result<u8> {
    check_output(arguments, context)?;
    let model = context.models().resolve(&arguments.model)?;
    let served = Served::of_model(context, &model)?;
    let mut scorer = served.scorer(context, &model)?;
    if scorer.classes().is_some() {
        return classes::run(arguments, context, &served, scorer);
    }
    let (rows, sequences) = read(&arguments.data, &served, &scorer, context)?;
    let scores = scorer.score(&sequences, arguments.batch_tokens as usize)?;
    let scored = scored(&rows, &scores)?;
    let summary = Summary::of(&scored, &scores);
    tell(arguments, context, &scored, (json!(summary), summary.lines()))?;
    Ok(0)
}

/// Refuses an output that is read from, or that is there, before anything is loaded.
fn check_output(arguments: &Arguments, context: &Context) -> Result<()> {
    let Some(output) = arguments.output.as_ref().filter(|output| output.exists()) else {
        return Ok(());
    };
    let shown = context.environment.show(output);
    let own = output.canonicalize().ok();
    let inputs = source::expand(&arguments.data)?;
    if own.is_some() && inputs.iter().any(|input| input.canonicalize().ok() == own) {
        let message = format!("{shown}: the rows are read from this file");
        return Err(Failure::wrong("refused", message).at(output).hint("name another `--output`"));
    }
    if arguments.overwrite {
        return Ok(());
    }
    let message = format!("{shown}: already exists");
    let hint = "name another `--output`, or replace it with `--overwrite`";
    Err(Failure::wrong("occupied", message).at(output).hint(hint))
}

/// A row with its scores, as the output has it.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Scored {
    /// File and line.
    place: String,
    /// One an answer, in the order of the row.
    scores: Vec<f32>,
    /// Whether the chosen answer of a pair has the higher score: 1, 0, or 0.5 for a tie.
    #[serde(skip_serializing_if = "Option::is_none")]
    chosen_wins: Option<f64>,
}

/// Gives every row its scores.
fn scored(rows: &[Answered], scores: &[f32]) -> Result<Vec<Scored>> {
    let mut rest = scores;
    let mut scored = Vec::with_capacity(rows.len());
    for row in rows {
        let (own, others) = rest.split_at(row.answers);
        rest = others;
        check_finite(&row.place, own)?;
        let chosen_wins = row.is_pair.then(|| wins(f64::from(own[0]) - f64::from(own[1])));
        scored.push(Scored { place: row.place.to_string(), scores: own.to_vec(), chosen_wins });
    }
    Ok(scored)
}

/// All rows together.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Summary {
    rows: usize,
    answers: usize,
    pairs: usize,
    /// Pairs whose answers have the same score.
    ties: usize,
    /// Share of pairs whose chosen answer has the higher score; a tie is half. None without pairs.
    accuracy: Option<Interval>,
    scores: Spread,
}

/// Where the scores lie.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Spread {
    mean: f64,
    min: f64,
    max: f64,
}

impl Summary {
    /// Of rows that have at least one answer.
    fn of(scored: &[Scored], scores: &[f32]) -> Self {
        let won: Vec<f64> = scored.iter().filter_map(|row| row.chosen_wins).collect();
        let values = || scores.iter().copied().map(f64::from);
        Summary {
            rows: scored.len(),
            answers: scores.len(),
            pairs: won.len(),
            ties: won.iter().filter(|&&won| won == 0.5).count(),
            accuracy: (!won.is_empty()).then(|| bootstrap(&won, 0)),
            scores: Spread {
                mean: values().sum::<f64>() / scores.len() as f64,
                min: values().fold(f64::INFINITY, f64::min),
                max: values().fold(f64::NEG_INFINITY, f64::max),
            },
        }
    }

    fn lines(&self) -> Vec<String> {
        let number = |number: usize| count(number as u64);
        let Spread { mean, min, max } = self.scores;
        let mut lines = vec![
            format!("rows      {}, {} answers", number(self.rows), number(self.answers)),
            format!("scores    mean {mean:.4}, from {min:.4} to {max:.4}"),
        ];
        if let Some(Interval { mean, low, high }) = self.accuracy {
            lines.push(format!(
                "accuracy  {mean:.2}, interval {low:.2} to {high:.2}: the chosen answer wins, over {} pairs with {} ties",
                number(self.pairs),
                number(self.ties)
            ));
        }
        lines
    }
}

/// Scores go to the file or to standard output, as lines of JSON; the summary goes where the scores do not.
fn tell(
    arguments: &Arguments,
    context: &Context,
    scored: &[impl Serialize],
    (summary, lines): (Value, Vec<String>),
) -> Result<()> {
    let terminal = &context.terminal;
    let line = |row| serde_json::to_string(row).expect("scores are JSON");
    let mut result = json!({"summary": summary});
    match &arguments.output {
        Some(file) => {
            let text: String = scored.iter().map(|row| line(row) + "\n").collect();
            write_atomic(file, text.as_bytes())?;
            lines.iter().for_each(|line| terminal.say(line));
            terminal.say(&format!("{} {}", terminal.style.green("wrote"), file.display()));
            result["output"] = file.display().to_string().into();
        }
        None if terminal.is_json() => {
            result["results"] = scored.iter().map(|row| json!(row)).collect::<Vec<Value>>().into();
        }
        None => {
            scored.iter().for_each(|row| terminal.say(&line(row)));
            lines.iter().for_each(|line| terminal.note(line));
        }
    }
    terminal.result(result);
    Ok(())
}

/// The first score that is no number, as an error at the row.
fn check_finite(place: &Place, scores: &[f32]) -> Result<()> {
    let Some(score) = scores.iter().find(|score| !score.is_finite()) else { return Ok(()) };
    let message = format!("{place}: the score is {score}");
    let failure = Failure::new("not_finite", message).at(&place.file);
    let hint = "the model's numbers are not finite there: name an earlier checkpoint";
    Err(Failure { line: Some(place.line), ..failure }.hint(hint))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn row(line: usize, answers: usize, is_pair: bool) -> Answered {
        let place = Place { file: Path::new("a.jsonl").into(), line, element: None };
        Answered { place, answers, is_pair }
    }

    #[test]
    fn rows_get_their_scores_in_order() {
        let rows = [row(1, 2, true), row(2, 3, false), row(4, 2, true)];
        let scores = [1.5, -0.25, 3.0, 2.0, 1.0, 0.5, 0.5];
        let scored = scored(&rows, &scores).unwrap();
        assert_eq!(scored[1].scores, [3.0, 2.0, 1.0]);
        let wins: Vec<Option<f64>> = scored.iter().map(|row| row.chosen_wins).collect();
        assert_eq!(wins, [Some(1.0), None, Some(0.5)]);
        let json = serde_json::to_string(&scored[0]).unwrap();
        assert_eq!(json, r#"{"place":"a.jsonl:1","scores":[1.5,-0.25],"chosen_wins":1.0}"#);

        let summary = Summary::of(&scored, &scores);
        assert_eq!((summary.rows, summary.answers, summary.pairs, summary.ties), (3, 7, 2, 1));
        assert_eq!(summary.accuracy.unwrap().mean, 0.75);
        let expected = "scores    mean 1.1786, from -0.2500 to 3.0000";
        assert_eq!(summary.lines()[1], expected);
    }

    #[test]
    fn a_score_that_is_no_number_has_its_place() {
        let failure = scored(&[row(1, 1, false), row(2, 1, false)], &[0.0, f32::NAN]).unwrap_err();
        assert_eq!(failure.message, "a.jsonl:2: the score is NaN");
        assert_eq!((failure.line, failure.hint.is_some()), (Some(2), true));
    }
}
