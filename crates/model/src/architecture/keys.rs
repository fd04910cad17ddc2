//! A `config.json` read key by key, with errors that name file and key.

use std::path::Path;

use serde_json::Value;

use crate::{Error, Result};

/// One object of a `config.json`. A key whose value is null counts as absent.
#[derive(Clone)]
pub(super) struct Keys<'a> {
    json: &'a Value,
    path: &'a Path,
    /// Where the object stands: empty or `text_config.`.
    place: String,
}

impl<'a> Keys<'a> {
    pub(super) fn new(json: &'a Value, path: &'a Path) -> Self {
        Keys { json, path, place: String::new() }
    }

    /// The object under `key`; one without keys where there is none.
    pub(super) fn object(&self, key: &str) -> Result<Keys<'a>> {
        let json = self.get(key).unwrap_or(&Value::Null);
        if !json.is_null() && !json.is_object() {
            return Err(self.wrong(key, "is not an object"));
        }
        Ok(Keys { json, path: self.path, place: format!("{}{key}.", self.place) })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.json.as_object().is_none_or(|object| object.is_empty())
    }

    /// The value of `key`, unless it is null.
    pub(super) fn get(&self, key: &str) -> Option<&'a Value> {
        self.json.get(key).filter(|value| !value.is_null())
    }

    /// Whether `key` is there with the value null.
    pub(super) fn is_null(&self, key: &str) -> bool {
        self.json.get(key).is_some_and(Value::is_null)
    }

    /// The name of a key with the objects around it.
    pub(super) fn name(&self, key: &str) -> String {
        format!("`{}{key}`", self.place)
    }

    pub(super) fn error(&self, message: impl Into<String>) -> Error {
        Error::file(self.path, message)
    }

    fn missing(&self, key: &str) -> Error {
        self.error(format!("{} is missing", self.name(key)))
    }

    /// `key` = value, and what is wrong with that.
    pub(super) fn wrong(&self, key: &str, why: &str) -> Error {
        let value = self.json.get(key).unwrap_or(&Value::Null);
        self.error(format!("{} = {value} {why}", self.name(key)))
    }

    pub(super) fn size(&self, key: &str) -> Result<usize> {
        self.optional_size(key)?.ok_or_else(|| self.missing(key))
    }

    pub(super) fn size_or(&self, key: &str, default: Option<usize>) -> Result<usize> {
        match (self.get(key), default) {
            (None, Some(default)) => Ok(default),
            _ => self.size(key),
        }
    }

    pub(super) fn optional_size(&self, key: &str) -> Result<Option<usize>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let size = value.as_u64().filter(|v| (1..=1 << 24).contains(v));
        size.map(|v| Some(v as usize)).ok_or_else(|| self.wrong(key, "is not a sensible size"))
    }

    /// As a size, but 0 is possible.
    pub(super) fn count_or(&self, key: &str, default: usize) -> Result<usize> {
        if self.get(key).and_then(Value::as_u64) == Some(0) {
            return Ok(0);
        }
        self.size_or(key, Some(default))
    }

    pub(super) fn float(&self, key: &str) -> Result<f64> {
        self.optional_float(key)?.ok_or_else(|| self.missing(key))
    }

    pub(super) fn float_or(&self, key: &str, default: f64) -> Result<f64> {
        Ok(self.optional_float(key)?.unwrap_or(default))
    }

    pub(super) fn optional_float(&self, key: &str) -> Result<Option<f64>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let float = value.as_f64().filter(|v| *v > 0.0);
        float.map(Some).ok_or_else(|| self.wrong(key, "is not a positive number"))
    }

    pub(super) fn flag_or(&self, key: &str, default: bool) -> Result<bool> {
        let Some(value) = self.get(key) else { return Ok(default) };
        value.as_bool().ok_or_else(|| self.wrong(key, "is neither true nor false"))
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<&'a str>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| self.wrong(key, "is not a string"))
    }

    /// A list of `count` values, each read by `read`.
    pub(super) fn list<T>(
        &self,
        key: &str,
        count: usize,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<Vec<T>>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let Some(values) = value.as_array() else { return Err(self.wrong(key, "is not a list")) };
        if values.len() != count {
            let message = format!("{} has {} values, not {count}", self.name(key), values.len());
            return Err(self.error(message));
        }
        let read = |value| {
            let message =
                || format!("{} holds {value}, which does not belong there", self.name(key));
            read(value).ok_or_else(|| self.error(message()))
        };
        values.iter().map(read).collect::<Result<_>>().map(Some)
    }

    /// Refuses each of these keys where its value is set and neither false nor 0.
    pub(super) fn refuse(&self, keys: &[&str]) -> Result<()> {
        for key in keys {
            let is_off = |v: &Value| v.as_bool() == Some(false) || v.as_f64() == Some(0.0);
            if self.get(key).is_some_and(|value| !is_off(value)) {
                return Err(self.wrong(key, "is not supported"));
            }
        }
        Ok(())
    }

    /// Refuses null where it does not mean absent.
    pub(super) fn refuse_null(&self, key: &str) -> Result<()> {
        let why = "is not possible: leave the key out for its default";
        if self.is_null(key) { Err(self.wrong(key, why)) } else { Ok(()) }
    }

    /// Refuses a top-level `partial_rotary_factor` other than 1.
    pub(super) fn refuse_partial_rotary(&self) -> Result<()> {
        match self.optional_float("partial_rotary_factor")? {
            Some(factor) if factor != 1.0 => {
                Err(self.wrong("partial_rotary_factor", "is not supported for this model"))
            }
            _ => Ok(()),
        }
    }
}
