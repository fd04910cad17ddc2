//! A report as a person reads it.

use std::fmt::{self, Display, Formatter};

use super::{LengthFinding, LengthGroup, Report, Verdict};
use crate::interval::Interval;

/// `0.71, interval 0.65 to 0.77`.
fn with_interval(interval: &Interval) -> String {
    let Interval { mean, low, high } = interval;
    format!("{mean:.2}, interval {low:.2} to {high:.2}")
}

impl Display for Verdict {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooFewPairs { pairs, needed } => write!(
                f,
                "too few held-out pairs to compare with trivial rules: {pairs}, at least {needed} are needed"
            ),
            Self::NotClear { rule, difference } => {
                write!(f, "not clear of `{rule}`: difference {}", with_interval(difference))
            }
            Self::Clear { rule, difference } => write!(
                f,
                "clear of all trivial rules; the closest is `{rule}`: difference {}",
                with_interval(difference)
            ),
        }
    }
}

impl Display for LengthFinding {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Meter {
                more_than_before,
                prefers,
                pairs,
                accuracy,
                other_pairs,
                other_accuracy,
            } => {
                write!(
                    f,
                    "length meter: the model prefers the {prefers} answer{}; accuracy {} on {pairs} pairs that have it chosen, \
                 and {} on the other {other_pairs}",
                    if *more_than_before { ", more than before training" } else { "" },
                    with_interval(accuracy),
                    with_interval(other_accuracy)
                )
            }
            Self::CannotTell { chosen, pairs, other_pairs } => write!(
                f,
                "cannot tell the model from a length meter: the {chosen} answer is chosen in {pairs} held-out pairs, and the other {other_pairs} are too few"
            ),
        }
    }
}

impl Display for LengthGroup {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::ChosenShorter => "chosen shorter",
            Self::Similar => "within 10 %",
            Self::ChosenLonger => "chosen longer",
        })
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { pairs, ties, accuracy, margins, calibration, .. } = self;
        writeln!(f, "held-out pairs  {pairs}, {ties} of them tied")?;
        writeln!(f, "accuracy        {}", with_interval(accuracy))?;
        writeln!(
            f,
            "margin          mean {:.3}, quartiles {:.3}, {:.3}, {:.3}",
            margins.mean, margins.lower_quartile, margins.median, margins.upper_quartile
        )?;
        writeln!(
            f,
            "calibration     expected error {:.3}, Brier score {:.3} (one half for every pair: 0.250)",
            calibration.expected_error, calibration.brier
        )?;

        writeln!(f, "\n{:<26}{:>7}  accuracy", "length", "pairs")?;
        for group in &self.by_length {
            let accuracy = group.accuracy.as_ref().map_or("-".to_owned(), with_interval);
            writeln!(f, "{:<26}{:>7}  {accuracy}", group.group, group.pairs)?;
        }

        writeln!(f, "\n{:<26}{:>9}  model less rule", "rule", "accuracy")?;
        for rule in &self.rules {
            let (mean, difference) = (rule.accuracy.mean, with_interval(&rule.difference));
            writeln!(f, "{:<26}{mean:>9.2}  {difference}", rule.name)?;
        }
        for note in self.missing_rules() {
            writeln!(f, "{note}")?;
        }

        write!(f, "\n{}", self.verdict)?;
        match &self.length {
            Some(finding) => write!(f, "\n{finding}"),
            None => Ok(()),
        }
    }
}

impl Report {
    /// What the table lacks, and why.
    fn missing_rules(&self) -> Vec<String> {
        let has = |name: &str| self.rules.iter().any(|rule| rule.name == name);
        let mut notes = Vec::new();
        if !has("base's log-prob") {
            notes.push("the base's log-probs were not computed".to_owned());
        }
        if !has("bag of words") {
            notes.push("no bag of words: the training pairs have no words".to_owned());
        }
        let super::TrainingPairs { all, used } = self.training_pairs;
        if used < all {
            notes.push(format!("the bag of words learned from {used} of {all} training pairs"));
        }
        notes
    }
}
