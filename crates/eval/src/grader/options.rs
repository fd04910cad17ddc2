//! The options of a grader, as a recipe gives them.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use crate::{Error, Result};

/// Options by name. Every one that a grader asks for is in its list in `GRADERS`, so an unknown name is refused before
/// the grader is made.
pub(super) struct Options<'a> {
    grader: &'static str,
    known: &'static [&'static str],
    given: &'a Map<String, Value>,
}

impl<'a> Options<'a> {
    /// The options of a grader, or the first one that it does not have.
    pub(super) fn new(
        grader: &'static str,
        known: &'static [&'static str],
        given: &'a Map<String, Value>,
    ) -> Result<Self> {
        let options = Self { grader, known, given };
        let Some(strange) = given.keys().find(|name| !known.contains(&name.as_str())) else {
            return Ok(options);
        };
        let listed: Vec<String> = known.iter().map(|name| format!("`{name}`")).collect();
        let listed = match known {
            [] => "it has no options".to_owned(),
            _ => format!("its options: {}", listed.join(", ")),
        };
        let hint = match keys::nearest(strange, known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`? {listed}"),
            None => listed,
        };
        Err(options.error(format!("unknown option `{strange}`"), hint))
    }

    /// An error about these options.
    pub(super) fn error(&self, problem: String, hint: impl Into<String>) -> Error {
        Error::GraderOption { grader: self.grader, problem, hint: hint.into() }
    }

    /// An option as it is given. `null` is not given.
    pub(super) fn get(&self, name: &'static str) -> Option<&'a Value> {
        assert!(self.known.contains(&name), "`{}` does not list `{name}`", self.grader);
        self.given.get(name).filter(|value| !value.is_null())
    }

    fn wrong(&self, name: &str, value: &Value, must_be: &str) -> Error {
        self.error(format!("`{name}` is {value}"), format!("it must be {must_be}"))
    }

    /// `true` or `false`.
    pub(super) fn flag(&self, name: &'static str, default: bool) -> Result<bool> {
        match self.get(name) {
            None => Ok(default),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(value) => Err(self.wrong(name, value, "`true` or `false`")),
        }
    }

    /// A finite number within a range.
    pub(super) fn number(
        &self,
        name: &'static str,
        default: f64,
        range: RangeInclusive<f64>,
    ) -> Result<f64> {
        let Some(value) = self.get(name) else { return Ok(default) };
        let number = value.as_f64().filter(|n| n.is_finite() && range.contains(n));
        number.ok_or_else(|| {
            let must_be = match *range.end() {
                f64::MAX => format!("a number of at least {}", range.start()),
                end => format!("a number from {} to {end}", range.start()),
            };
            self.wrong(name, value, &must_be)
        })
    }

    /// A whole number of at least `least`.
    pub(super) fn count(&self, name: &'static str, least: usize) -> Result<Option<usize>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let count = value.as_u64().and_then(|count| usize::try_from(count).ok());
        let count = count.filter(|count| *count >= least);
        let wrong = || self.wrong(name, value, &format!("a whole number of at least {least}"));
        count.map(Some).ok_or_else(wrong)
    }

    /// A text that is not empty.
    pub(super) fn text(&self, name: &'static str) -> Result<Option<&'a str>> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) if !text.is_empty() => Ok(Some(text)),
            Some(value) => Err(self.wrong(name, value, "a text in quotes")),
        }
    }

    /// A list of texts, or a single one; none of them is empty.
    pub(super) fn texts(&self, name: &'static str) -> Result<Option<Vec<String>>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let list = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        let texts: Option<Vec<String>> =
            list.iter().map(|text| text.as_str().map(ToOwned::to_owned)).collect();
        let texts = texts.filter(|texts| !texts.is_empty() && !texts.contains(&String::new()));
        texts.map(Some).ok_or_else(|| self.wrong(name, value, "a list of texts in quotes"))
    }

    /// One of several words.
    pub(super) fn word(
        &self,
        name: &'static str,
        words: &[&'static str],
    ) -> Result<Option<&'static str>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let given = value.as_str().unwrap_or_default();
        if let Some(word) = words.iter().find(|word| **word == given) {
            return Ok(Some(word));
        }
        let listed: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
        let mut must_be = format!("one of {}", listed.join(", "));
        if let Some(near) = keys::nearest(given, words.iter().copied()) {
            must_be.push_str(&format!("; did you mean `{near}`?"));
        }
        Err(self.wrong(name, value, &must_be))
    }
}
