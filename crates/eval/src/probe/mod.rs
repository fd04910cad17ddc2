//! Does a grader reward what it should not, or miss what it should reward?
//!
//! A policy finds whatever a reward pays for. So before the first step the grader is given answers that cost nothing:
//! none, the prompt itself, a refusal, all numbers from 0 to 100, another row's reference, and the reference in other
//! words. It works for everything that scores answers: a grader, a program, a judge, or the weighted sum of several.
//!
//! ```
//! use eval::{grader, probe};
//! use serde_json::{Map, json};
//!
//! let (a, b) = (json!("4"), json!("7"));
//! let rows = [
//!     probe::Row { prompt: "What is 2 + 2? Is it 3 or 4?", expected: &a },
//!     probe::Row { prompt: "What is 3 + 4? Is it 7 or 8?", expected: &b },
//! ];
//! let grader = grader::by_name("contains", &Map::new())?;
//! let report = probe::grader(grader.as_ref(), &rows);
//! let ids: Vec<&str> = report.findings.iter().map(|finding| finding.id).collect();
//! assert_eq!(ids, ["grader-rewards-echo", "grader-rewards-number-list"]);
//! # Ok::<(), eval::Error>(())
//! ```

mod answers;
mod findings;
mod text;

use std::convert::Infallible;

use serde::Serialize;
use serde_json::Value;

pub use findings::{Example, Finding, REACHED, REWARDED, REWARDED_OTHER, UNDERSTOOD};

use self::answers::{Form, PROBES, Probe};
use self::findings::Scale;
use crate::grader::Grader;

/// Rows that are tried by default.
pub const ROWS: usize = 32;
/// Rows by which the form of the answers is chosen.
const FORM_ROWS: usize = 8;

/// A row of the data.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// The prompt as text.
    pub prompt: &'a str,
    /// The reference; `null` where there is none.
    pub expected: &'a Value,
}

/// What is known of what is probed.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Whether it compares answers with the reference. Of a score that judges the form alone only
    /// `grader-rewards-empty` is found: other bad answers may well have the right form.
    pub needs_reference: bool,
    /// The lowest and the highest score, where they are known.
    pub range: Option<[f64; 2]>,
    /// How many rows are tried, taken evenly from those given.
    pub rows: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { needs_reference: true, range: None, rows: ROWS }
    }
}

/// What the probes scored.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// How many rows were tried.
    pub rows: usize,
    /// What the reference was written in, with `{}` for the reference: the form that scores best.
    pub form: &'static str,
    /// The mean score of every kind of answer; the reference comes first.
    pub scores: Vec<Score>,
    /// What is wrong; empty for a healthy grader.
    pub findings: Vec<Finding>,
}

/// The score of one kind of answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Score {
    /// Which kind, in words.
    pub answer: &'static str,
    /// Mean over the answers that got a score; `None` where none did.
    pub mean: Option<f64>,
    /// Answers that got one.
    pub scored: usize,
    /// Answers that got none.
    pub failed: usize,
}

/// One kind of answer with the rows, texts and scores of those that got one.
struct Scored {
    probe: Probe,
    scores: Vec<(usize, String, f64)>,
    failed: usize,
}

impl Scored {
    fn mean(&self) -> Option<f64> {
        mean(self.scores.iter().map(|(_, _, score)| *score))
    }
}

fn mean(scores: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = scores.fold((0.0, 0_usize), |(sum, count), score| (sum + score, count + 1));
    (count > 0).then(|| sum / count as f64)
}

/// Probes a grader.
pub fn grader(grader: &dyn Grader, rows: &[Row<'_>]) -> Report {
    let settings = Settings { needs_reference: grader.needs_reference(), ..Settings::default() };
    let mut score = |answers: &[(usize, String)]| {
        let reward = |(row, answer): &(usize, String)| grader.reward(answer, rows[*row].expected);
        Ok::<Vec<Option<f64>>, Infallible>(
            answers.iter().map(|answer| Some(reward(answer))).collect(),
        )
    };
    match probe(rows, &settings, &mut score) {
        Ok(report) => report,
        Err(never) => match never {},
    }
}

/// Probes anything that scores answers.
///
/// `score` is given pairs of a row's index and an answer, and gives one score for each, in order; `None`, or a score
/// that is not finite, where there is none. It is called twice: with answers to at most 8 rows in 8 forms, by which the
/// form is chosen, and with all others, at most 14 for each of `settings.rows` rows. Its error ends the probe.
#[allow(clippy::type_complexity)]
pub fn probe<E>(
    rows: &[Row<'_>],
    settings: &Settings,
    score: &mut dyn FnMut(&[(usize, String)]) -> Result<Vec<Option<f64>>, E>,
) -> Result<Report, E> {
    let mut score = |answers: &[(usize, String)]| {
        let scores = score(answers)?;
        assert_eq!(scores.len(), answers.len(), "a score for every answer");
        Ok::<_, E>(
            scores.into_iter().map(|score| score.filter(|s| s.is_finite())).collect::<Vec<_>>(),
        )
    };
    let tried = evenly(rows.len(), settings.rows);
    let form = best_form(rows, &tried, &mut score)?;

    let sample: Vec<Row<'_>> = tried.iter().map(|row| rows[*row]).collect();
    let mut asked: Vec<(Probe, usize)> = Vec::new();
    let mut answers: Vec<(usize, String)> = Vec::new();
    for probe in PROBES {
        for (index, row) in tried.iter().enumerate() {
            if let Some(answer) = probe.answer(&sample, index, form) {
                asked.push((probe, *row));
                answers.push((*row, answer));
            }
        }
    }
    let scores = score(&answers)?;

    let mut scored: Vec<Scored> = Vec::new();
    for (((probe, row), (_, answer)), score) in asked.into_iter().zip(answers).zip(scores) {
        if scored.last().is_none_or(|last| last.probe != probe) {
            scored.push(Scored { probe, scores: Vec::new(), failed: 0 });
        }
        let last = scored.last_mut().expect("pushed above");
        match score {
            Some(score) => last.scores.push((row, answer, score)),
            None => last.failed += 1,
        }
    }
    let findings = Scale::new(&scored, settings).findings(settings);
    let scores = scored.iter().map(|scored| Score {
        answer: scored.probe.name(),
        mean: scored.mean(),
        scored: scored.scores.len(),
        failed: scored.failed,
    });
    Ok(Report { rows: tried.len(), form: form.name(), scores: scores.collect(), findings })
}

/// At most `most` of `count` indices, evenly apart: files are often sorted.
fn evenly(count: usize, most: usize) -> Vec<usize> {
    let taken = count.min(most);
    (0..taken).map(|index| index * count / taken).collect()
}

/// The form in which references score best, the plainest of equally good ones.
#[allow(clippy::type_complexity)]
fn best_form<E>(
    rows: &[Row<'_>],
    tried: &[usize],
    score: &mut dyn FnMut(&[(usize, String)]) -> Result<Vec<Option<f64>>, E>,
) -> Result<Form, E> {
    let few = evenly(tried.len(), FORM_ROWS);
    let mut asked = Vec::new();
    let mut answers = Vec::new();
    for form in Form::all() {
        for row in few.iter().map(|index| tried[*index]) {
            if let Some(answer) = form.reference(rows[row]) {
                asked.push(form);
                answers.push((row, answer));
            }
        }
    }
    let scores = score(&answers)?;
    let mut best: Option<(f64, Form)> = None;
    for form in Form::all() {
        let own = asked.iter().zip(&scores).filter(|(asked, _)| **asked == form);
        let mean = mean(own.filter_map(|(_, score)| *score));
        if let Some(mean) = mean
            && best.is_none_or(|(most, _)| mean > most)
        {
            best = Some((mean, form));
        }
    }
    Ok(best.map_or(Form::PLAIN, |(_, form)| form))
}

#[cfg(test)]
mod tests;
