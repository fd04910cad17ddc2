//! Several arms on the same rows, and which of them is better beyond doubt.

use serde::Serialize;
use serde_json::Value;

use crate::grader::{Grader, Grades};
use crate::interval::{Interval, paired_difference};
use crate::metric::Metrics;

/// One way of answering a task: a model with its prompt.
#[derive(Clone, Debug, Serialize)]
pub struct Arm {
    /// As results name it.
    pub name: String,
    /// Mean number of tokens that its prompt takes per row.
    pub prompt_tokens: f64,
    /// Its grades, summed up.
    pub metrics: Metrics,
    /// Its answers, one a row.
    #[serde(skip)]
    pub answers: Vec<String>,
    /// Its grades, one a row.
    #[serde(skip)]
    pub grades: Vec<Grades>,
}

impl Arm {
    /// Grades the answers of an arm; `prompt_tokens` and `answers` have one
    /// entry for every expected answer, of which there is at least one.
    pub fn new(
        name: impl Into<String>,
        prompt_tokens: &[usize],
        answers: Vec<String>,
        expected: &[Value],
        grader: &dyn Grader,
        seed: u64,
    ) -> Self {
        assert_eq!(answers.len(), expected.len(), "one answer for every row");
        assert_eq!(prompt_tokens.len(), expected.len(), "one prompt for every row");
        let grades: Vec<Grades> = answers
            .iter()
            .zip(expected)
            .map(|(answer, expected)| grader.grade(answer, expected))
            .collect();
        let metrics = Metrics::of(&grades, seed);
        let tokens: usize = prompt_tokens.iter().sum();
        let prompt_tokens = tokens as f64 / expected.len().max(1) as f64;
        Self { name: name.into(), prompt_tokens, metrics, answers, grades }
    }

    /// How much better than another arm on the same rows, by a metric that every
    /// row has; `None` where one does not.
    pub fn difference(&self, other: &Self, metric: &str, seed: u64) -> Option<Interval> {
        let column = |arm: &Self| -> Option<Vec<f64>> {
            arm.grades.iter().map(|grades| grades.get(metric)).collect()
        };
        let (a, b) = (column(self)?, column(other)?);
        (!a.is_empty()).then(|| paired_difference(&a, &b, seed))
    }
}

/// Arms beside each other and beside the trivial floor.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// The arms in the order they were run.
    pub arms: Vec<Arm>,
    /// What the most common value of every field scores.
    pub floor: Metrics,
    /// How many rows every arm answered.
    pub rows: usize,
}

impl Comparison {
    /// The arm of that name.
    pub fn arm(&self, name: &str) -> Option<&Arm> {
        self.arms.iter().find(|arm| arm.name == name)
    }

    /// Whether an arm's interval lies above that of every other arm and of the
    /// floor. `false` if it, or one of them, lacks the metric.
    pub fn is_clear(&self, name: &str, metric: &str) -> bool {
        let Some(best) = self.arm(name).and_then(|arm| arm.metrics.get(metric)) else {
            return false;
        };
        let others = self.arms.iter().filter(|arm| arm.name != name).map(|arm| &arm.metrics);
        others
            .chain([&self.floor])
            .all(|metrics| metrics.get(metric).is_some_and(|other| best.clear_of(&other)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::grader::Json;

    /// Answers that are right on the first `right` of `rows` rows.
    fn arm(name: &str, right: usize, rows: usize) -> Arm {
        let expected = vec![json!({"a": 1, "b": 2}); rows];
        let answer = |row| if row < right { r#"{"a":1,"b":2}"# } else { r#"{"a":1,"b":3}"# };
        let answers = (0..rows).map(|row| answer(row).to_owned()).collect();
        Arm::new(name, &vec![30; rows], answers, &expected, &Json::untyped(), 1)
    }

    fn comparison(arms: Vec<Arm>) -> Comparison {
        Comparison { floor: arm("floor", 0, 100).metrics, arms, rows: 100 }
    }

    #[test]
    fn a_clear_winner_stands_apart() {
        let clear = comparison(vec![arm("base", 30, 100), arm("tuned", 90, 100)]);
        assert!(clear.is_clear("tuned", "ticket_exact"));
        assert!(!clear.is_clear("base", "ticket_exact"));
        assert!(!clear.is_clear("tuned", "field.a"), "both arms have it right");
        assert!(!clear.is_clear("nobody", "ticket_exact"));
        let close = comparison(vec![arm("base", 60, 100), arm("tuned", 64, 100)]);
        assert!(!close.is_clear("tuned", "ticket_exact"));
    }

    #[test]
    fn differences_are_paired() {
        let (base, tuned) = (arm("base", 60, 100), arm("tuned", 70, 100));
        let difference = tuned.difference(&base, "ticket_exact", 1).expect("graded");
        assert!((difference.mean - 0.1).abs() < 1e-12);
        assert!(difference.low > 0.0, "{difference:?}");
        assert!(tuned.difference(&base, "speed", 1).is_none());
    }

    #[test]
    fn json_has_the_promised_keys() {
        let value =
            serde_json::to_value(comparison(vec![arm("tuned", 9, 100)])).expect("serialises");
        assert_eq!(value["rows"], 100);
        assert_eq!(value["arms"][0]["name"], "tuned");
        assert_eq!(value["arms"][0]["prompt_tokens"], 30.0);
        assert!(value["arms"][0]["metrics"]["ticket_exact"]["low"].is_number());
        assert!(value["floor"]["fields_exact"]["mean"].is_number());
        assert!(value["arms"][0].get("answers").is_none());
    }
}
