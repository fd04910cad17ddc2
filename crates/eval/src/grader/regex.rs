//! Does the answer match a pattern, or is what a group of it finds the reference?

use regex_lite::{Captures, Regex, RegexBuilder};
use serde_json::Value;

use super::exact::Spelling;
use super::extract::{EXTRACT, Extract};
use super::options::Options;
use super::{Grader, Grades, indicator, reference};
use crate::Result;

/// Looks for a regular expression in the answer.
///
/// | metric | value |
/// |---|---|
/// | `regex` | without `group` 1 if the pattern is found; with `group` 1 if the group of the last match is the reference |
///
/// The pattern is searched for anywhere; write `^` and `$` to match all of the answer. The reference is read by the same
/// pattern where that matches it.
#[derive(Clone, Debug)]
pub struct Pattern {
    regex: Regex,
    group: Option<usize>,
    spelling: Spelling,
    extract: Extract,
}

impl Pattern {
    /// Names of its options.
    pub(super) const OPTIONS: &[&str] = &["pattern", "group", "ignore_case", EXTRACT];

    /// Reads its options.
    pub(super) fn new(options: &Options<'_>) -> Result<Self> {
        let Some(pattern) = options.text("pattern")? else {
            let hint = "give it in single quotes: `options: {pattern: '\\d+ euros'}`";
            return Err(options.error("`pattern` is missing".to_owned(), hint));
        };
        let ignore_case = options.flag("ignore_case", false)?;
        let built = RegexBuilder::new(pattern).case_insensitive(ignore_case).build();
        let regex = built.map_err(|error| {
            let hint = "syntax: that of Rust's regex crate, without look-around, back-references and `\\p{..}`; in YAML \
                        write patterns in single quotes";
            options.error(format!("`pattern` = `{pattern}`: {error}"), hint)
        })?;
        let group = group(options, &regex)?;
        let spelling = Spelling { trim: true, ignore_case, ignore_punctuation: false };
        Ok(Self { regex, group, spelling, extract: Extract::from_options(options)? })
    }

    /// What the group of the last match finds.
    fn found<'a>(&self, text: &'a str, group: usize) -> Option<&'a str> {
        let last: Captures<'a> = self.regex.captures_iter(text).last()?;
        last.get(group).map(|found| found.as_str())
    }

    fn is_right(&self, answer: &str, expected: &Value) -> bool {
        let Some(answer) = self.extract.rest(answer) else { return false };
        let Some(group) = self.group else { return self.regex.is_match(answer) };
        let Some(answer) = self.found(answer, group) else { return false };
        let same = |text: &str| {
            let text = self.found(text, group).unwrap_or(text);
            self.spelling.key(text) == self.spelling.key(answer)
        };
        reference::texts(expected).iter().any(|text| same(text))
    }
}

/// The group that is compared, by number or name.
fn group(options: &Options<'_>, regex: &Regex) -> Result<Option<usize>> {
    let Some(given) = options.get("group") else { return Ok(None) };
    let by_name = |name: &str| regex.capture_names().position(|known| known == Some(name));
    let index = match given {
        Value::String(name) => by_name(name),
        given => given.as_u64().and_then(|index| usize::try_from(index).ok()),
    };
    if let Some(index) = index.filter(|index| *index < regex.captures_len()) {
        return Ok(Some(index));
    }
    let names: Vec<String> =
        regex.capture_names().flatten().map(|name| format!(", `{name}`")).collect();
    let hint = format!(
        "groups of the pattern: 0 (the whole match) to {}{}; a name is given by `(?P<name>..)`",
        regex.captures_len() - 1,
        names.concat()
    );
    Err(options.error(format!("`group` = {given}: the pattern has no such group"), hint))
}

impl Grader for Pattern {
    fn grade(&self, answer: &str, expected: &Value) -> Grades {
        let mut grades = Grades::default();
        grades.insert("regex", indicator(self.is_right(answer, expected)));
        grades
    }

    fn primary(&self) -> &'static str {
        "regex"
    }

    fn needs_reference(&self) -> bool {
        self.group.is_some()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{refused, reward};
    use super::*;

    #[track_caller]
    fn check(options: Value, answer: &str, expected: Value, right: bool) {
        assert_eq!(reward("regex", options, answer, &expected), indicator(right), "{answer:?}");
    }

    #[test]
    fn a_pattern_is_searched_for() {
        let date = || json!({"pattern": r"\b\d{4}-\d\d-\d\d\b"});
        check(date(), "On 2025-03-01.", json!(null), true);
        check(date(), "On 1 March.", json!(null), false);
        check(date(), "", json!(null), false);
        let whole = || json!({"pattern": "^(yes|no)$", "ignore_case": true});
        check(whole(), " Yes\n", json!(null), true);
        check(whole(), "Yes, sure", json!(null), false);
    }

    #[test]
    fn a_group_is_compared() {
        let total = || json!({"pattern": r"total: (\d+)", "group": 1});
        check(total(), "total: 5, no, total: 18", json!("18"), true);
        check(total(), "total: 18, no, total: 5", json!("18"), false);
        check(total(), "total: 18", json!(18), true);
        check(total(), "total: 18", json!("so total: 18"), true);
        check(total(), "18", json!("18"), false);
        check(total(), "total: 18", json!(null), false);
        let named = || json!({"pattern": "city: (?P<city>.+)", "group": "city"});
        check(named(), "city: Paris ", json!(["Lyon", "Paris"]), true);
        let absent = || json!({"pattern": "a(b)?", "group": 1});
        check(absent(), "a", json!("b"), false);
    }

    #[test]
    fn only_a_group_needs_a_reference() {
        let needs = |options: Value| {
            super::super::by_name("regex", options.as_object().unwrap()).unwrap().needs_reference()
        };
        assert!(!needs(json!({"pattern": "a"})));
        assert!(needs(json!({"pattern": "a", "group": 0})));
    }

    #[test]
    fn bad_patterns_are_refused() {
        refused("regex", json!({}), "`regex`: `pattern` is missing");
        refused("regex", json!({"pattern": 5}), "`regex`: `pattern` is 5");
        let error = refused("regex", json!({"pattern": "(a"}), "`regex`: `pattern` = `(a`: ");
        assert!(error.hint().unwrap().contains("single quotes"), "{error:?}");
        let two = json!({"pattern": "(?P<day>a)", "group": 2});
        let error = refused("regex", two, "`regex`: `group` = 2: the pattern has no such group");
        assert!(error.hint().unwrap().contains("0 (the whole match) to 1, `day`;"), "{error:?}");
        refused("regex", json!({"pattern": "a", "group": "day"}), "`regex`: `group` = \"day\"");
    }
}
