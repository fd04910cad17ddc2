//! How much of the answer repeats what it said before.

use serde_json::Value;
use unicode_segmentation::UnicodeSegmentation as _;

use super::options::Options;
use super::{Grader, Grades};
use crate::Result;

/// Scores how little the answer repeats itself.
///
/// | metric | value |
/// |---|---|
/// | `unrepeated` | 1 if at most the share `allowed` is repeated; from there falling in a line to 0 where all is |
/// | `repeated` | share of the runs of `n` words that stand in the answer before |
///
/// Words are the pieces between the word boundaries of Unicode (UAX 29), so marks count: `!!!!!!` repeats itself. An
/// answer of fewer than `n` words repeats nothing, and so an empty one scores 1: use it beside another reward.
#[derive(Clone, Debug)]
pub struct Repetition {
    n: usize,
    allowed: f64,
}

impl Repetition {
    /// Names of its options.
    pub(super) const OPTIONS: &[&str] = &["n", "allowed"];

    /// Reads its options.
    pub(super) fn new(options: &Options<'_>) -> Result<Self> {
        let n = options.count("n", 1)?.unwrap_or(4);
        let allowed = options.number("allowed", 0.0, 0.0..=1.0)?;
        if allowed == 1.0 {
            let hint = "every answer would score 1: use a share below 1";
            return Err(options.error("`allowed` is 1".to_owned(), hint));
        }
        Ok(Self { n, allowed })
    }
}

/// Share of the runs of `n` words that stand before in the same list; 0 where there is no run. `n` is at least 1.
pub fn repeated_share<T: Ord>(words: &[T], n: usize) -> f64 {
    let mut runs: Vec<&[T]> = words.windows(n).collect();
    let count = runs.len();
    runs.sort_unstable();
    runs.dedup();
    (count - runs.len()) as f64 / count.max(1) as f64
}

impl Grader for Repetition {
    fn grade(&self, answer: &str, _: &Value) -> Grades {
        let pieces = answer.split_word_bounds().filter(|piece| !piece.trim().is_empty());
        let words: Vec<String> = pieces.map(str::to_lowercase).collect();
        let repeated = repeated_share(&words, self.n);
        let beyond = (repeated - self.allowed).max(0.0) / (1.0 - self.allowed);
        let mut grades = Grades::default();
        grades.insert("unrepeated", 1.0 - beyond);
        grades.insert("repeated", repeated);
        grades
    }

    fn primary(&self) -> &'static str {
        "unrepeated"
    }

    fn needs_reference(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{refused, reward};
    use super::*;

    #[track_caller]
    fn check(options: Value, answer: &str, expected: f64) {
        let got = reward("repetition", options, answer, &Value::Null);
        assert!((got - expected).abs() < 1e-12, "{answer:?}: {got}");
    }

    #[test]
    fn repeated_runs_cost() {
        check(json!({}), "", 1.0);
        check(json!({}), "the fox sleeps in the garden", 1.0);
        // Runs of two: a b, b a, a b, b a, of which two are new.
        check(json!({"n": 2}), "a b a B a", 0.5);
        check(json!({"n": 1}), "a a a a", 0.25);
        check(json!({}), "!!!!!!!", 0.25);
        check(json!({"n": 2}), "狐狸狐狸狐", 0.5);
        check(json!({"n": 2, "allowed": 0.5}), "a b a b a", 1.0);
        check(json!({"n": 1, "allowed": 0.5}), "a a a a", 0.5);
    }

    #[test]
    fn bad_options_are_refused() {
        refused("repetition", json!({"n": 0}), "`repetition`: `n` is 0");
        refused("repetition", json!({"allowed": 1}), "`repetition`: `allowed` is 1");
        refused("repetition", json!({"allowed": 1.5}), "`repetition`: `allowed` is 1.5");
    }
}
