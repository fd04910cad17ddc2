//! Is the answer as long as it should be?

use serde_json::Value;
use unicode_segmentation::UnicodeSegmentation as _;

use super::options::Options;
use super::{Grader, Grades};
use crate::Result;

/// Scores the length of the answer against a range.
///
/// | metric | value |
/// |---|---|
/// | `length` | 1 within `min` and `max`, both included; beyond them falling to 0 over `margin` units, at once without one |
/// | `words`, `characters` | the length itself, in the unit of the recipe |
///
/// Words are those of Unicode (UAX 29): a Chinese character is one.
#[derive(Clone, Debug)]
pub struct Length {
    min: usize,
    max: usize,
    margin: f64,
    unit: &'static str,
}

impl Length {
    /// Names of its options.
    pub(super) const OPTIONS: &[&str] = &["min", "max", "margin", "unit"];

    /// Reads its options.
    pub(super) fn new(options: &Options<'_>) -> Result<Self> {
        let (min, max) = (options.count("min", 0)?, options.count("max", 1)?);
        if min.is_none() && max.is_none() {
            let hint = "give at least one of them: `options: {min: 20, max: 100}`";
            return Err(options.error("`min` and `max` are missing".to_owned(), hint));
        }
        let (min, max) = (min.unwrap_or(0), max.unwrap_or(usize::MAX));
        if min > max {
            let hint = "no answer has such a length: swap them";
            return Err(options.error(format!("`min` = {min} is above `max` = {max}"), hint));
        }
        let margin = options.number("margin", 0.0, 0.0..=f64::MAX)?;
        let unit = options.word("unit", &["words", "characters"])?.unwrap_or("words");
        Ok(Self { min, max, margin, unit })
    }

    fn score(&self, length: usize) -> f64 {
        let beyond = self.min.saturating_sub(length).max(length.saturating_sub(self.max));
        match beyond {
            0 => 1.0,
            beyond if self.margin > 0.0 => (1.0 - beyond as f64 / self.margin).max(0.0),
            _ => 0.0,
        }
    }
}

impl Grader for Length {
    fn grade(&self, answer: &str, _: &Value) -> Grades {
        let length = match self.unit {
            "characters" => answer.trim().graphemes(true).count(),
            _ => answer.unicode_words().count(),
        };
        let mut grades = Grades::default();
        grades.insert("length", self.score(length));
        grades.insert(self.unit, length as f64);
        grades
    }

    fn primary(&self) -> &'static str {
        "length"
    }

    fn needs_reference(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{grade, refused, reward};
    use super::*;

    #[track_caller]
    fn check(options: Value, answer: &str, expected: f64) {
        assert_eq!(reward("length", options, answer, &Value::Null), expected, "{answer:?}");
    }

    #[test]
    fn a_length_lies_in_its_range() {
        let range = || json!({"min": 2, "max": 3});
        check(range(), "", 0.0);
        check(range(), "one", 0.0);
        check(range(), "one, two!", 1.0);
        check(range(), "one two three", 1.0);
        check(range(), "one two three four", 0.0);
        check(json!({"min": 1}), "a b c d e", 1.0);
        check(json!({"max": 1}), "", 1.0);
        check(json!({"max": 5}), "狐狸在睡觉", 1.0);
        check(json!({"max": 4}), "狐狸在睡觉", 0.0);
        check(json!({"max": 3, "unit": "characters"}), " äöü ", 1.0);
    }

    #[test]
    fn edges_may_be_soft() {
        let soft = || json!({"min": 4, "max": 6, "margin": 4});
        for (words, score) in
            [(0, 0.0), (1, 0.25), (3, 0.75), (4, 1.0), (6, 1.0), (7, 0.75), (10, 0.0), (99, 0.0)]
        {
            check(soft(), &"word ".repeat(words), score);
        }
    }

    #[test]
    fn the_length_itself_is_reported() {
        let grades = grade("length", json!({"max": 1}), "one two", &Value::Null);
        assert_eq!(grades.get("words"), Some(2.0));
    }

    #[test]
    fn ranges_that_nothing_fits_are_refused() {
        refused("length", json!({}), "`length`: `min` and `max` are missing");
        refused("length", json!({"min": 3, "max": 2}), "`length`: `min` = 3 is above `max` = 2");
        refused("length", json!({"max": 0}), "`length`: `max` is 0");
        refused("length", json!({"max": 9, "unit": "tokens"}), "`length`: `unit` is \"tokens\"");
    }
}
