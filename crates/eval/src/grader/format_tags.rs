//! Is the answer written in the tags that were asked for?

use serde_json::Value;

use super::options::Options;
use super::{Grader, Grades, indicator};
use crate::Result;

/// Checks that every tag opens and closes once, in order, with text within: `<think>..</think><answer>..</answer>`.
///
/// | metric | value |
/// |---|---|
/// | `format_tags` | 1 if all tags are there, once, in order, none within another, and nothing outside of them |
/// | `tags_found` | share of the tags that open and close once with text within, wherever they are |
///
/// With `partial` the share is the primary metric.
#[derive(Clone, Debug)]
pub struct FormatTags {
    tags: Vec<String>,
    begun: bool,
    outside: bool,
    partial: bool,
}

impl FormatTags {
    /// Names of its options.
    pub(super) const OPTIONS: &[&str] = &["tags", "begun", "outside", "partial"];

    /// Reads its options.
    pub(super) fn new(options: &Options<'_>) -> Result<Self> {
        let usual = || vec!["think".to_owned(), "answer".to_owned()];
        let tags = options.texts("tags")?.unwrap_or_else(usual);
        let odd = |tag: &&String| tag.contains(|c: char| "<>/".contains(c) || c.is_whitespace());
        if let Some(tag) = tags.iter().find(odd) {
            let hint = "write names only: `tags: [think, answer]`";
            return Err(options.error(format!("`tags`: `{tag}` is no name of a tag"), hint));
        }
        if let Some(tag) = tags.iter().enumerate().find(|(i, tag)| tags[..*i].contains(tag)) {
            let hint = "every tag is there once: name it once";
            return Err(options.error(format!("`tags`: `{}` is named twice", tag.1), hint));
        }
        Ok(Self {
            tags,
            begun: options.flag("begun", false)?,
            outside: options.flag("outside", false)?,
            partial: options.flag("partial", false)?,
        })
    }

    /// Where the opening tag begins and the closing one ends, if both are there once with text between them.
    fn place(text: &str, tag: &str) -> Option<(usize, usize)> {
        let (open, close) = (format!("<{tag}>"), format!("</{tag}>"));
        let once = |mark: &str| {
            let mut places = text.match_indices(mark).map(|(at, _)| at);
            let first = places.next()?;
            places.next().is_none().then_some(first)
        };
        let (start, end) = (once(&open)?, once(&close)?);
        let content = text.get(start + open.len()..end)?;
        (!content.trim().is_empty()).then_some((start, end + close.len()))
    }
}

impl Grader for FormatTags {
    fn grade(&self, answer: &str, _: &Value) -> Grades {
        let mut text = answer.to_owned();
        if self.begun {
            text.insert_str(0, &format!("<{}>", self.tags[0]));
        }
        let places: Vec<_> = self.tags.iter().filter_map(|tag| Self::place(&text, tag)).collect();
        let mut end = 0;
        let in_order = places.len() == self.tags.len()
            && places.iter().all(|(start, next)| {
                let free = *start >= end && (self.outside || text[end..*start].trim().is_empty());
                end = *next;
                free
            });
        let whole = in_order && (self.outside || text[end..].trim().is_empty());
        let mut grades = Grades::default();
        grades.insert("format_tags", indicator(whole));
        grades.insert("tags_found", places.len() as f64 / self.tags.len() as f64);
        grades
    }

    fn primary(&self) -> &'static str {
        if self.partial { "tags_found" } else { "format_tags" }
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
    fn check(options: Value, answer: &str, expected: [f64; 2]) {
        let grades = grade("format_tags", options, answer, &Value::Null);
        let got = ["format_tags", "tags_found"].map(|name| grades.get(name).unwrap());
        assert_eq!(got, expected, "{answer:?}");
    }

    #[test]
    fn tags_are_there_once_and_in_order() {
        let check = |answer: &str, expected| check(json!({}), answer, expected);
        check("<think>a</think><answer>b</answer>", [1.0, 1.0]);
        check("\n<think>a\n</think>\n\n<answer>b</answer> ", [1.0, 1.0]);
        check("<answer>b</answer><think>a</think>", [0.0, 1.0]);
        check("<think>a<answer>b</answer></think>", [0.0, 1.0]);
        check("<think>a<answer></think>b</answer>", [0.0, 1.0]);
        check("<think>a</think>", [0.0, 0.5]);
        check("<think>a</think><answer>b", [0.0, 0.5]);
        check("<think>a</think><answer>b</answer><answer>c</answer>", [0.0, 0.5]);
        check("<think></think><answer> </answer>", [0.0, 0.0]);
        check("</think>a<think><answer>b</answer>", [0.0, 0.5]);
        check("Hm. <think>a</think><answer>b</answer>", [0.0, 1.0]);
        check("<think>a</think> so <answer>b</answer>", [0.0, 1.0]);
        check("<think>a</think><answer>b</answer>!", [0.0, 1.0]);
        check("<THINK>a</THINK><answer>b</answer>", [0.0, 0.5]);
        check("", [0.0, 0.0]);
    }

    #[test]
    fn options_loosen_the_rules() {
        let text = "Hm. <think>a</think> so <answer>b</answer>!";
        check(json!({"outside": true}), text, [1.0, 1.0]);
        check(json!({"tags": ["plan", "code"]}), "<plan>a</plan><code>b</code>", [1.0, 1.0]);
        check(json!({"tags": "answer"}), "<answer>b</answer>", [1.0, 1.0]);
        check(json!({"begun": true}), "a</think><answer>b</answer>", [1.0, 1.0]);
        check(json!({"begun": true}), "<think>a</think><answer>b</answer>", [0.0, 0.5]);
        let partial =
            reward("format_tags", json!({"partial": true}), "<answer>b</answer>", &json!(null));
        assert_eq!(partial, 0.5);
    }

    #[test]
    fn bad_tags_are_refused() {
        refused("format_tags", json!({"tags": []}), "`format_tags`: `tags` is []");
        refused("format_tags", json!({"tags": ["<a>"]}), "`format_tags`: `tags`: `<a>` is no name");
        refused(
            "format_tags",
            json!({"tags": ["a", "a"]}),
            "`format_tags`: `tags`: `a` is named twice",
        );
    }
}
