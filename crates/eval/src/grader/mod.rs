//! Graders: one answer against what was expected, as numbers; shares and verdicts lie between 0 and 1, a reward may be any finite number.

mod json;
mod schema;

use serde::ser::{Serialize, SerializeMap as _, Serializer};
use serde_json::Value;

pub use json::{Json, Reading, read_object};
pub use schema::{Field, Kind, Schema, Violation};

use crate::{Error, Result};

/// Judges answers. Pure: the same answer always has the same grades.
pub trait Grader: Send + Sync {
    /// Grades one answer. Every answer of a task has the same metrics, in the
    /// same order, however bad it is.
    fn grade(&self, answer: &str, expected: &Value) -> Grades;

    /// The metric that stands for all where one number is wanted: as a reward,
    /// or to choose a checkpoint.
    fn primary(&self) -> &'static str;

    /// The primary metric of one answer.
    fn reward(&self, answer: &str, expected: &Value) -> f64 {
        let grades = self.grade(answer, expected);
        grades.get(self.primary()).expect("a grader reports its primary metric")
    }
}

/// Makes a grader without options.
type Make = fn() -> Box<dyn Grader>;

/// Every grader by its name in recipes.
const GRADERS: [(&str, Make); 1] = [("json", || Box::new(Json::untyped()))];

/// The grader of that name, with its defaults.
pub fn by_name(name: &str) -> Result<Box<dyn Grader>> {
    match GRADERS.iter().find(|(known, _)| *known == name) {
        Some((_, make)) => Ok(make()),
        None => {
            let known: Vec<_> = GRADERS.iter().map(|(known, _)| format!("`{known}`")).collect();
            let hint = format!("graders: {}", known.join(", "));
            Err(Error::UnknownGrader { name: name.to_owned(), hint })
        }
    }
}

/// The grades of one answer: metric and value, in the grader's order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Grades(Vec<(String, f64)>);

impl Grades {
    /// Adds a metric, whose value is finite; no name is added twice.
    pub fn insert(&mut self, name: impl Into<String>, value: f64) {
        let name = name.into();
        assert!(value.is_finite(), "{name}: a grade is finite, got {value}");
        assert!(self.get(&name).is_none(), "{name}: graded twice");
        self.0.push((name, value));
    }

    /// The value of a metric.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// Metrics and values in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, f64)> {
        self.0.iter().map(|(name, value)| (name.as_str(), *value))
    }
}

impl Serialize for Grades {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in self.iter() {
            map.serialize_entry(name, &value)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn graders_are_found_by_name() {
        assert_eq!(by_name("json").expect("exists").primary(), "fields_exact");
        let error = by_name("jsn").err().expect("no such grader");
        assert_eq!(error.to_string(), "`jsn` is not a grader");
        assert_eq!(error.hint(), Some("graders: `json`"));
    }

    #[test]
    fn grades_keep_their_order() {
        let mut grades = Grades::default();
        grades.insert("b", 1.0);
        grades.insert("a", 0.5);
        let text = serde_json::to_string(&grades).expect("serialises");
        assert_eq!(text, r#"{"b":1.0,"a":0.5}"#);
    }

    /// Rewards short answers, without bounds.
    struct Brief;

    impl Grader for Brief {
        fn grade(&self, answer: &str, _: &Value) -> Grades {
            let mut grades = Grades::default();
            grades.insert("brief", 2.0 - answer.len() as f64);
            grades
        }

        fn primary(&self) -> &'static str {
            "brief"
        }
    }

    #[test]
    fn a_reward_may_lie_beyond_0_and_1() {
        let reward = |answer: &str| Brief.reward(answer, &Value::Null);
        assert_eq!((reward(""), reward("long")), (2.0, -2.0));
    }

    #[test]
    #[should_panic(expected = "graded twice")]
    fn a_metric_has_one_value() {
        let mut grades = Grades::default();
        grades.insert("a", 1.0);
        grades.insert("a", 0.0);
    }
}
