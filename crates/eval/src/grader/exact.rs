//! Is the answer the reference, letter for letter?

use serde_json::Value;

use super::extract::{EXTRACT, Extract};
use super::json::equal;
use super::options::Options;
use super::{Grader, Grades, indicator, reference};
use crate::Result;

/// Compares the answer with the reference as texts.
///
/// | metric | value |
/// |---|---|
/// | `exact` | 1 if the texts are equal |
///
/// A reference that is an object or a list (of other things than texts) is compared as JSON.
#[derive(Clone, Debug)]
pub struct Exact {
    extract: Extract,
    spelling: Spelling,
}

impl Exact {
    /// Names of its options.
    pub(super) const OPTIONS: &[&str] = &["trim", "ignore_case", "ignore_punctuation", EXTRACT];

    /// Reads its options.
    pub(super) fn new(options: &Options<'_>) -> Result<Self> {
        let spelling = Spelling {
            trim: options.flag("trim", true)?,
            ignore_case: options.flag("ignore_case", false)?,
            ignore_punctuation: options.flag("ignore_punctuation", false)?,
        };
        Ok(Self { extract: Extract::from_options(options)?, spelling })
    }

    fn is_right(&self, answer: &str, expected: &Value) -> bool {
        let answer = match &self.extract {
            // Space around the whole text counts where `trim` is off.
            Extract::Whole => Some(answer),
            extract => extract.find(answer),
        };
        let Some(answer) = answer else { return false };
        let as_json = || match expected {
            Value::Object(_) | Value::Array(_) => {
                serde_json::from_str(answer).is_ok_and(|answer: Value| equal(&answer, expected))
            }
            _ => false,
        };
        let same = |text: &str| {
            let text = match self.extract {
                Extract::Whole => text,
                _ => self.extract.reference(text),
            };
            self.spelling.key(text) == self.spelling.key(answer)
        };
        reference::texts(expected).iter().any(|text| same(text)) || as_json()
    }
}

impl Grader for Exact {
    fn grade(&self, answer: &str, expected: &Value) -> Grades {
        let mut grades = Grades::default();
        grades.insert("exact", indicator(self.is_right(answer, expected)));
        grades
    }

    fn primary(&self) -> &'static str {
        "exact"
    }
}

/// Which differences between two texts do not count.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spelling {
    pub(super) trim: bool,
    pub(super) ignore_case: bool,
    pub(super) ignore_punctuation: bool,
}

impl Spelling {
    /// A text that is the same for texts that count as equal.
    pub(super) fn key(self, text: &str) -> String {
        let mut key = if self.trim { text.trim().to_owned() } else { text.to_owned() };
        if self.ignore_case {
            key = key.to_lowercase();
        }
        if self.ignore_punctuation {
            key = words_only(&key);
        }
        key
    }
}

/// Letters, digits and single spaces. A mark that belongs to a number (`3.5`, `-3`, `1/2`, `12:30`) stays.
fn words_only(text: &str) -> String {
    let mut out = String::new();
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        let of_number = ".,-\u{2212}/:".contains(character)
            && characters.peek().is_some_and(char::is_ascii_digit);
        if character.is_alphanumeric() || of_number {
            out.push(character);
        } else if character.is_whitespace() && !out.is_empty() && !out.ends_with(' ') {
            out.push(' ');
        }
    }
    out.truncate(out.trim_end().len());
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::reward;
    use super::*;

    #[track_caller]
    fn check(options: Value, answer: &str, expected: Value, right: bool) {
        assert_eq!(reward("exact", options, answer, &expected), indicator(right), "{answer:?}");
    }

    #[test]
    fn texts_are_compared() {
        check(json!({}), "Paris", json!("Paris"), true);
        check(json!({}), " Paris\n", json!("Paris"), true);
        check(json!({"trim": false}), " Paris", json!("Paris"), false);
        check(json!({"trim": false}), " Paris", json!(" Paris"), true);
        check(json!({}), "paris", json!("Paris"), false);
        check(json!({}), "Paris.", json!("Paris"), false);
        check(json!({}), "", json!("Paris"), false);
        check(json!({}), "", json!(null), false);
        check(json!({}), "18", json!(18), true);
        check(json!({}), "Lyon", json!(["Paris", "Lyon"]), true);
        check(json!({}), "Rome", json!(["Paris", "Lyon"]), false);
    }

    #[test]
    fn case_and_punctuation_can_be_ignored() {
        let case = || json!({"ignore_case": true});
        check(case(), "GRÖSSE", json!("größe"), false);
        check(case(), "ÄRGER", json!("ärger"), true);
        let marks = || json!({"ignore_case": true, "ignore_punctuation": true});
        check(marks(), "**Yes**, it is!", json!("yes it is"), true);
        check(marks(), "It's", json!("its"), true);
        check(marks(), "3.5", json!("35"), false);
        check(marks(), "-3", json!("3"), false);
        check(marks(), "1/2.", json!("1/2"), true);
        check(marks(), "...", json!("a"), false);
    }

    #[test]
    fn answers_are_extracted() {
        let tag = || json!({"extract": "<answer>"});
        check(tag(), "<think>Lyon</think><answer>Paris</answer>", json!("Paris"), true);
        check(tag(), "Paris", json!("Paris"), false);
        check(json!({"extract": "Answer:"}), "Hm.\nanswer: Paris", json!("Paris"), true);
        check(json!({"extract": "####"}), "a\n#### 18", json!("b\n#### 18"), true);
    }

    #[test]
    fn structures_are_compared_as_json() {
        check(json!({}), "[1, 2]", json!([1, 2]), true);
        check(json!({}), "[2, 1]", json!([1, 2]), false);
        check(json!({}), r#"["a", "b"]"#, json!(["a", "b"]), true);
        check(json!({}), r#"{"b": 2, "a": 1}"#, json!({"a": 1, "b": 2}), true);
    }
}
