//! Graders: one answer against what was expected, as numbers; shares and verdicts lie between 0 and 1, a reward may be any finite number.

mod extract;
mod latex;
mod options;
mod reference;

mod choice;
mod contains;
mod exact;
mod format_tags;
mod json;
mod language;
mod length;
mod number;
mod regex;
mod repetition;
mod schema;

use serde::ser::{Serialize, SerializeMap as _, Serializer};
use serde_json::{Map, Value};

pub use choice::Choice;
pub use contains::Contains;
pub use exact::Exact;
pub use format_tags::FormatTags;
pub use json::{Json, JsonSchema, Reading, read_object};
pub use language::Language;
pub use length::Length;
pub use number::Number;
pub use regex::Pattern;
pub use repetition::{Repetition, repeated_share};
pub use schema::{Field, Kind, Schema, Violation};

pub(crate) use latex::boxed;
pub(crate) use reference::texts as reference_texts;

use self::options::Options;
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

    /// Whether it compares the answer with a reference. If not, `expected` may be `null`.
    fn needs_reference(&self) -> bool {
        true
    }

    /// Why no answer could be right by this reference; nothing where one could. Only asked of a
    /// grader that needs a reference, to refuse a row before the first answer.
    fn reference_problem(&self, expected: &Value) -> Option<String> {
        reference::missing(expected)
    }
}

/// A grader as recipes know it.
struct Entry {
    name: &'static str,
    options: &'static [&'static str],
    make: fn(&Options<'_>) -> Result<Box<dyn Grader>>,
}

/// A line of [`GRADERS`].
macro_rules! entry {
    ($name:literal, $grader:ty, $make:expr) => {
        Entry {
            name: $name,
            options: <$grader>::OPTIONS,
            make: |options| Ok(Box::new($make(options)?)),
        }
    };
}

/// Every grader by its name in recipes.
const GRADERS: [Entry; 11] = [
    entry!("exact", Exact, Exact::new),
    entry!("contains", Contains, Contains::new),
    entry!("regex", Pattern, Pattern::new),
    entry!("number", Number, Number::new),
    entry!("choice", Choice, Choice::new),
    entry!("json", Json, Json::from_options),
    entry!("json_schema", JsonSchema, JsonSchema::new),
    entry!("format_tags", FormatTags, FormatTags::new),
    entry!("length", Length, Length::new),
    entry!("repetition", Repetition, Repetition::new),
    entry!("language", Language, Language::new),
];

/// The names of all graders.
pub fn names() -> impl Iterator<Item = &'static str> {
    GRADERS.iter().map(|entry| entry.name)
}

/// The grader of that name with options of a recipe. An unknown option, a value of the wrong type and a pattern that
/// cannot be read are errors with a hint.
pub fn by_name(name: &str, options: &Map<String, Value>) -> Result<Box<dyn Grader>> {
    let Some(entry) = GRADERS.iter().find(|entry| entry.name == name) else {
        let known: Vec<_> = names().map(|known| format!("`{known}`")).collect();
        let known = format!("graders: {}", known.join(", "));
        let hint = match keys::nearest(name, names()) {
            Some(near) => format!("did you mean `{near}`? {known}"),
            None => known,
        };
        return Err(Error::UnknownGrader { name: name.to_owned(), hint });
    };
    (entry.make)(&Options::new(entry.name, entry.options, options)?)
}

/// 1 for yes.
fn indicator(yes: bool) -> f64 {
    f64::from(u8::from(yes))
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
    use serde_json::json;

    use super::*;

    /// The grader of that name; `options` is an object.
    fn make(name: &str, options: Value) -> Result<Box<dyn Grader>> {
        by_name(name, options.as_object().expect("options are an object"))
    }

    /// The grades that a grader gives.
    pub(super) fn grade(name: &str, options: Value, answer: &str, expected: &Value) -> Grades {
        make(name, options).expect("good options").grade(answer, expected)
    }

    /// The primary metric that a grader gives.
    pub(super) fn reward(name: &str, options: Value, answer: &str, expected: &Value) -> f64 {
        make(name, options).expect("good options").reward(answer, expected)
    }

    /// The error of bad options, which begins so and has a hint.
    #[track_caller]
    pub(super) fn refused(name: &str, options: Value, begins: &str) -> Error {
        let error = make(name, options).err().expect("bad options");
        assert!(error.to_string().starts_with(begins), "{error}");
        error
    }

    #[test]
    fn graders_are_found_by_name() {
        assert_eq!(make("json", json!({})).expect("exists").primary(), "fields_exact");
        let error = make("jsn", json!({})).err().expect("no such grader");
        assert_eq!(error.to_string(), "`jsn` is not a grader");
        let hint = error.hint().expect("a hint");
        assert!(hint.starts_with("did you mean `json`? graders: `exact`, "), "{hint}");
        let hint = make("quality", json!({})).err().and_then(|e| Some(e.hint()?.to_owned()));
        assert!(hint.expect("a hint").starts_with("graders: "));
    }

    /// Every grader with options that it takes.
    fn all() -> Vec<(&'static str, Value)> {
        let schema = json!({"type": "object", "properties": {"a": {"type": "integer"}}});
        let options = |name: &str| match name {
            "regex" => json!({"pattern": "(a)", "group": 1}),
            "json_schema" => json!({"schema": schema}),
            "length" => json!({"min": 2, "max": 5, "margin": 3}),
            "language" => json!({"language": "en"}),
            _ => json!({}),
        };
        names().map(|name| (name, options(name))).collect()
    }

    #[test]
    fn every_answer_has_the_same_finite_metrics() {
        let long = "9".repeat(400);
        let answers = [
            "",
            " ",
            "a",
            "18",
            &long,
            "1/0",
            "\u{0}",
            "\\boxed{",
            "\\frac{1}{",
            "####",
            "Answer:",
            "(",
            "{\"a\":",
            "<think>",
            "狐狸",
            "e\u{301}",
            "-",
            "1e999",
            "####  \n",
            "\\boxed{\\boxed{1}",
            "answer is",
            "é.5",
            "½½",
            "€-€5",
            "5 × 10^{",
            "5×10^",
            "5e+",
            "(A",
            "**",
            "1,",
            "1\u{a0}",
            "\u{feff}",
        ];
        let expected = [
            json!("18"),
            json!("B"),
            json!({"a": 1}),
            json!(null),
            json!(["a", "18"]),
            json!(1e300),
        ];
        for (name, options) in all() {
            let grader = make(name, options).expect("good options");
            for expected in &expected {
                let names = |grades: &Grades| -> Vec<String> {
                    grades.iter().map(|(name, _)| name.to_owned()).collect()
                };
                let first = names(&grader.grade(answers[0], expected));
                for answer in answers {
                    let grades = grader.grade(answer, expected);
                    assert_eq!(names(&grades), first, "{name}: {answer:?}");
                    let primary = grades.get(grader.primary()).expect("the primary metric");
                    assert!((0.0..=1.0).contains(&primary), "{name}: {answer:?}: {primary}");
                }
            }
        }
    }

    #[test]
    fn a_reference_is_needed_or_not() {
        let needing: Vec<&str> = all()
            .into_iter()
            .filter(|(name, options)| make(name, options.clone()).unwrap().needs_reference())
            .map(|(name, _)| name)
            .collect();
        assert_eq!(needing, ["exact", "contains", "regex", "number", "choice", "json"]);
        for name in needing {
            let options = all().into_iter().find(|(known, _)| *known == name).unwrap().1;
            let problem = make(name, options).unwrap().reference_problem(&Value::Null);
            assert!(problem.is_some(), "{name}");
        }
    }

    #[test]
    fn every_grader_refuses_options_of_others() {
        for (name, mut options) in all() {
            options["patern"] = json!(1);
            let error = refused(name, options, &format!("`{name}`: unknown option `patern`"));
            let hint = error.hint().expect("a hint");
            assert!(hint.contains("its options: "), "{hint}");
        }
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
