//! Does the answer hold the reference, or texts that a recipe names?

use serde_json::Value;

use super::extract::{EXTRACT, Extract};
use super::options::Options;
use super::{Grader, Grades, indicator, reference};
use crate::Result;

/// Looks for texts within the answer.
///
/// | metric | value |
/// |---|---|
/// | `contains` | 1 if the reference is found; with `texts` the share of them that is found |
#[derive(Clone, Debug)]
pub struct Contains {
    extract: Extract,
    texts: Option<Vec<String>>,
    ignore_case: bool,
    whole_words: bool,
}

impl Contains {
    /// Names of its options.
    pub(super) const OPTIONS: &[&str] = &["texts", "ignore_case", "whole_words", EXTRACT];

    /// Reads its options.
    pub(super) fn new(options: &Options<'_>) -> Result<Self> {
        Ok(Self {
            extract: Extract::from_options(options)?,
            texts: options.texts("texts")?,
            ignore_case: options.flag("ignore_case", false)?,
            whole_words: options.flag("whole_words", true)?,
        })
    }

    fn key(&self, text: &str) -> String {
        if self.ignore_case { text.to_lowercase() } else { text.to_owned() }
    }

    /// Whether a text, without space around it, is in the answer. No text is in nothing.
    fn is_in(&self, answer: &str, text: &str) -> bool {
        let text = self.key(text.trim());
        let is_whole = |start: usize| {
            let (before, behind) = (&answer[..start], &answer[start + text.len()..]);
            !(joined(before.chars().next_back(), text.chars().next())
                || joined(text.chars().next_back(), behind.chars().next()))
        };
        let mut places = answer.match_indices(text.as_str());
        !text.is_empty() && places.any(|(start, _)| !self.whole_words || is_whole(start))
    }
}

impl Grader for Contains {
    fn grade(&self, answer: &str, expected: &Value) -> Grades {
        let answer = self.key(self.extract.rest(answer).unwrap_or_default());
        let score = match &self.texts {
            Some(texts) => {
                let found = texts.iter().filter(|text| self.is_in(&answer, text)).count();
                found as f64 / texts.len() as f64
            }
            None => {
                let texts = reference::texts(expected);
                let found = |text: &str| self.is_in(&answer, self.extract.reference(text));
                indicator(texts.iter().any(|text| found(text)))
            }
        };
        let mut grades = Grades::default();
        grades.insert("contains", score);
        grades
    }

    fn primary(&self) -> &'static str {
        "contains"
    }

    fn needs_reference(&self) -> bool {
        self.texts.is_none()
    }
}

/// Whether two neighbours belong to one word or number. Chinese, Japanese and others write words without a space
/// between them, so there letters do not join.
fn joined(left: Option<char>, right: Option<char>) -> bool {
    let joins = |character: char| character.is_alphanumeric() && u32::from(character) < 0x2e80;
    left.is_some_and(joins) && right.is_some_and(joins)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::reward;
    use super::*;

    #[track_caller]
    fn check(options: Value, answer: &str, expected: Value, score: f64) {
        assert_eq!(reward("contains", options, answer, &expected), score, "{answer:?}");
    }

    #[test]
    fn the_reference_is_looked_for() {
        check(json!({}), "It is Paris.", json!("Paris"), 1.0);
        check(json!({}), "It is paris.", json!("Paris"), 0.0);
        check(json!({"ignore_case": true}), "It is paris.", json!("Paris"), 1.0);
        check(json!({}), "It is Lyon.", json!(["Paris", "Lyon"]), 1.0);
        check(json!({}), "", json!("Paris"), 0.0);
        check(json!({}), "anything", json!(""), 0.0);
        check(json!({}), "anything", json!(null), 0.0);
    }

    #[test]
    fn words_are_whole() {
        check(json!({}), "It is 112.", json!("12"), 0.0);
        check(json!({}), "It is 112, not 12.", json!("12"), 1.0);
        check(json!({}), "Parisians", json!("Paris"), 0.0);
        check(json!({"whole_words": false}), "Parisians", json!("Paris"), 1.0);
        check(json!({}), "狐は庭で寝ています。", json!("庭"), 1.0);
        check(json!({}), "C++ it is", json!("C++"), 1.0);
    }

    #[test]
    fn texts_of_the_recipe_need_no_reference() {
        let letter = || json!({"texts": ["Dear", "Sincerely"], "ignore_case": true});
        check(letter(), "dear Ann, ... sincerely, B", json!(null), 1.0);
        check(letter(), "dear Ann", json!(null), 0.5);
        check(json!({"texts": "yes"}), "yes", json!(null), 1.0);
    }

    #[test]
    fn answers_are_extracted() {
        let tag = || json!({"extract": "<answer>"});
        check(tag(), "<think>Paris</think><answer>in Lyon</answer>", json!("Paris"), 0.0);
        check(tag(), "<think>Lyon</think><answer>in Paris</answer>", json!("Paris"), 1.0);
        check(tag(), "Paris", json!("Paris"), 0.0);
    }
}
