//! What the scores of the probes say about a grader.

use serde::Serialize;

use super::answers::{Probe, REWORDINGS};
use super::{Scored, Settings};

/// A bad answer that gets this share of what the reference gets is rewarded.
pub const REWARDED: f64 = 0.25;
/// Another row's reference is rewarded from this share on: partly right answers may have partial scores.
pub const REWARDED_OTHER: f64 = 0.5;
/// A reference that gets less than this share of the best score is missed.
pub const REACHED: f64 = 0.9;
/// A rewording that gets less than this share of what the reference gets is missed.
pub const UNDERSTOOD: f64 = 0.5;

/// Longest piece of an answer that a finding shows, in bytes.
const SHOWN: usize = 80;

/// Something that a grader rewards or misses and should not.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// Stable name, such as `grader-rewards-echo`.
    pub id: &'static str,
    /// What was found, with its numbers.
    pub message: String,
    /// What to do.
    pub hint: &'static str,
    /// An answer that shows it; `None` where no answer got a score.
    pub example: Option<Example>,
}

/// An answer and its score.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Example {
    /// The row, counted from 0 in the rows that were given.
    pub row: usize,
    /// The beginning of the answer.
    pub answer: String,
    /// What it scored.
    pub score: f64,
}

/// Bad answers: id, probes, cure.
const BAD: [(&str, &[Probe], &str); 4] = [
    (
        "grader-rewards-empty",
        &[Probe::Empty],
        "an answer that is missing must score lowest: add a reward that compares with the reference, or a `min` length",
    ),
    (
        "grader-rewards-echo",
        &[Probe::Echo],
        "let the grader read the answer only: set `extract`, or use `exact`, `number` or `choice` instead of `contains` or a loose pattern",
    ),
    (
        "grader-rewards-refusal",
        &[Probe::Refusal],
        "compare the answer with the reference; of a judge, let the rubric give refusals the lowest score",
    ),
    (
        "grader-rewards-number-list",
        &[Probe::Numbers, Probe::NumbersInForm],
        "count one number only: use `number`, or a pattern whose group is compared with the reference",
    ),
];

/// Means by probe, and the scale that they lie on.
pub(super) struct Scale<'a> {
    scored: &'a [Scored],
    low: f64,
    high: f64,
}

impl<'a> Scale<'a> {
    /// Scores lie in the declared range; else from 0, or the lowest score if that is below, to the highest one.
    pub(super) fn new(scored: &'a [Scored], settings: &Settings) -> Self {
        let scores = || scored.iter().flat_map(|probe| &probe.scores).map(|(_, _, score)| *score);
        let [low, high] = settings.range.unwrap_or_else(|| {
            [scores().fold(0.0, f64::min), scores().fold(f64::NEG_INFINITY, f64::max)]
        });
        Self { scored, low, high }
    }

    fn get(&self, probe: Probe) -> Option<(&'a Scored, f64)> {
        let scored = self.scored.iter().find(|scored| scored.probe == probe)?;
        Some((scored, scored.mean()?))
    }

    /// How far a mean lies between the lowest score and `top`.
    fn share(&self, mean: f64, top: f64) -> f64 {
        match top > self.low {
            true => (mean - self.low) / (top - self.low),
            false => f64::from(u8::from(mean > self.low)),
        }
    }

    /// Everything that is wrong.
    pub(super) fn findings(&self, settings: &Settings) -> Vec<Finding> {
        if self.scored.is_empty() {
            return Vec::new();
        }
        let mut all = self.scored.iter().flat_map(|probe| &probe.scores).map(|(_, _, s)| *s);
        let Some(first) = all.next() else {
            return vec![Finding {
                id: "grader-silent",
                message: "no answer got a score".to_owned(),
                hint: "look at the errors of the reward: every answer failed",
                example: None,
            }];
        };
        if !settings.needs_reference {
            return self.bad(BAD[0], self.high, "the best answer").into_iter().collect();
        }
        let Some((reference, top)) = self.get(Probe::Reference) else { return Vec::new() };
        if all.all(|score| score == first) {
            let message = format!("all {} answers score {first}", self.count());
            let hint = "the score must depend on the answer: check its options, and that the reference is what the grader reads";
            let example = reference.extreme(f64::max);
            return vec![Finding { id: "grader-constant", message, hint, example }];
        }
        let reached = self.share(top, self.high);
        let missed = (reached < REACHED).then(|| Finding {
            id: "grader-misses-reference",
            message: format!(
                "the reference scores {top:.2} on average, the best answer {:.2}",
                self.high
            ),
            hint: "look at the example: say where the answer is (`extract`), correct the reference, or choose the grader that fits it",
            example: reference.extreme(f64::min),
        });
        let bad = BAD.into_iter().filter_map(|bad| self.bad(bad, top, "the reference"));
        missed.into_iter().chain(bad).chain(self.other(top)).chain(self.rewordings(top)).collect()
    }

    fn count(&self) -> usize {
        self.scored.iter().map(|probe| probe.scores.len()).sum()
    }

    /// A bad answer that scores as a good one does.
    fn bad(
        &self,
        bad: (&'static str, &[Probe], &'static str),
        top: f64,
        good: &str,
    ) -> Option<Finding> {
        let (id, probes, hint) = bad;
        let means = probes.iter().filter_map(|probe| self.get(*probe));
        let (worst, mean) = means.max_by(|(_, a), (_, b)| a.total_cmp(b))?;
        (self.share(mean, top) >= REWARDED).then(|| Finding {
            id,
            message: format!("{} scores {mean:.2} on average, {good} {top:.2}", worst.probe.name()),
            hint,
            example: worst.extreme(f64::max),
        })
    }

    fn other(&self, top: f64) -> Option<Finding> {
        let (other, mean) = self.get(Probe::Other)?;
        (self.share(mean, top) >= REWARDED_OTHER).then(|| Finding {
            id: "grader-rewards-other-reference",
            message: format!("another row's reference scores {mean:.2} on average, the row's own {top:.2}"),
            hint: "the score must depend on the row's reference: lower `tolerance`, compare a group of the pattern, or ask the judge to compare",
            example: other.extreme(f64::max),
        })
    }

    /// Rewordings that are not understood, where the reference itself is.
    fn rewordings(&self, top: f64) -> Option<Finding> {
        if top <= self.low {
            return None;
        }
        let missed: Vec<(&Scored, f64)> = REWORDINGS
            .into_iter()
            .filter_map(|probe| self.get(probe))
            .filter(|(_, mean)| self.share(*mean, top) < UNDERSTOOD)
            .collect();
        let (worst, _) = missed.iter().copied().min_by(|(_, a), (_, b)| a.total_cmp(b))?;
        let listed: Vec<String> = missed
            .iter()
            .map(|(scored, mean)| format!("{} {mean:.2}", scored.probe.name()))
            .collect();
        Some(Finding {
            id: "grader-misses-rewording",
            message: format!("the reference scores {top:.2} on average, but {}", listed.join(", ")),
            hint: "forgive the form (`ignore_case`, `ignore_punctuation`, `number` for numbers, `extract`), or say in the prompt how to write the answer",
            example: worst.extreme(f64::min),
        })
    }
}

impl Scored {
    /// The answer with the highest or lowest score, the first of equal ones.
    fn extreme(&self, pick: fn(f64, f64) -> f64) -> Option<Example> {
        let best = self.scores.iter().map(|(_, _, score)| *score).reduce(pick)?;
        let (row, answer, score) = self.scores.iter().find(|(_, _, score)| *score == best)?;
        let end = answer.floor_char_boundary(SHOWN);
        let more = if end < answer.len() { ".." } else { "" };
        Some(Example { row: *row, answer: format!("{}{more}", &answer[..end]), score: *score })
    }
}
