//! Reading the fields of a row.

use std::cell::RefCell;

use serde_json::{Map, Value};
use text::Message;

use super::cell;
use super::turn::tools;
use super::{Reading, Wanted};
use crate::source::Trouble;
use crate::{Place, RowError};

pub(super) type Result<T> = std::result::Result<T, RowError>;

/// How many columns of a row a message names.
const NAMED_COLUMNS: usize = 12;

/// A row whose columns have the names by which the shapes know them.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a> {
    pub(super) place: &'a Place,
    pub(super) value: &'a Map<String, Value>,
    pub(super) reading: &'a Reading,
    pub(super) wanted: Wanted,
    /// The columns as the file calls them.
    pub(super) has: &'a [String],
    /// Columns that cannot be read, by our names.
    pub(super) troubles: &'a [Trouble],
    /// The first trouble of a column that was read.
    pub(super) met: &'a RefCell<Option<RowError>>,
}

impl<'a> Fields<'a> {
    /// A field that is there and not null.
    pub(super) fn get(&self, name: &str) -> Option<&'a Value> {
        if let Some(trouble) = self.troubles.iter().find(|trouble| trouble.column == name) {
            let error = || trouble.error(self.called(name), self.place);
            self.met.borrow_mut().get_or_insert_with(error);
        }
        self.value.get(name).filter(|value| !value.is_null())
    }

    /// Whether the row has the column, whatever is in it.
    pub(super) fn has(&self, name: &str) -> bool {
        self.value.contains_key(name)
    }

    pub(super) fn error(&self, message: impl Into<String>) -> RowError {
        RowError::new(self.place, message)
    }

    /// Says that a field is absent, what there is instead, and what to do.
    pub(super) fn missing(&self, name: &str) -> RowError {
        let mut has = self.has.iter().take(NAMED_COLUMNS).cloned().collect::<Vec<_>>().join(", ");
        if self.has.len() > NAMED_COLUMNS {
            has.push_str(&format!(", and {} more", self.has.len() - NAMED_COLUMNS));
        }
        let theirs = self.called(name);
        let message = match (self.has(name), has.is_empty()) {
            (true, _) => format!("`{theirs}` is null"),
            (false, true) => format!("record has no `{theirs}` field (has no fields)"),
            (false, false) => format!("record has no `{theirs}` field (has: {has})"),
        };
        self.error(message).with_hint(format!(
            "fill the field in, or name the column that holds it: `columns: {{{name}: ...}}`"
        ))
    }

    /// What the file calls a column.
    pub(super) fn called<'n>(&self, name: &'n str) -> &'n str
    where
        'a: 'n,
    {
        let found = self.reading.columns.iter().find(|(ours, _)| ours == name);
        found.map_or(name, |(_, theirs)| theirs)
    }

    /// A field that must be text.
    pub(super) fn text(&self, name: &str) -> Result<String> {
        self.optional_text(name)?.ok_or_else(|| self.missing(name))
    }

    /// A field that may be absent or null.
    pub(super) fn optional_text(&self, name: &str) -> Result<Option<String>> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(other) => Err(self.wrong(name, other, "text").with_hint("write it as a string")),
        }
    }

    /// A field that must be a list.
    pub(super) fn list(&self, name: &str) -> Result<&'a [Value]> {
        match self.get(name) {
            Some(Value::Array(list)) => Ok(list),
            Some(other) => Err(self.wrong(name, other, "a list")),
            None => Err(self.missing(name)),
        }
    }

    /// A field that may be absent and otherwise is a number.
    pub(super) fn optional_number(&self, name: &str) -> Result<Option<f64>> {
        match self.get(name).filter(|value| !cell::is_missing(value)) {
            None => Ok(None),
            Some(value) => cell::number(value).map(Some).ok_or_else(|| self.no_number(name, value)),
        }
    }

    fn no_number(&self, name: &str, value: &Value) -> RowError {
        match value {
            Value::String(_) => self
                .error(format!("`{}` is {value}, not a number", self.called(name)))
                .with_hint("write digits with a decimal point, such as 0.5"),
            _ => self.wrong(name, value, "a number"),
        }
    }

    /// Says that a field is not what it should be.
    pub(super) fn wrong(&self, name: &str, value: &Value, wanted: &str) -> RowError {
        let found = crate::source::kind(value);
        self.error(format!("`{}` is {found}, not {wanted}", self.called(name)))
    }

    /// The first of these columns that the row has.
    pub(super) fn first_of<'n>(&self, names: &[&'n str]) -> Option<&'n str> {
        names.iter().copied().find(|name| self.get(name).is_some())
    }

    /// The system text of a row that has it in a column of its own.
    pub(super) fn system(&self) -> Result<Option<Message>> {
        let text = self.optional_text("system")?.filter(|text| !text.trim().is_empty());
        Ok(text.map(|text| Message::new("system", text)))
    }

    /// The tools that a row offers: `tools`, or `functions` as OpenAI had it first.
    pub(super) fn tools(&self) -> Result<Option<Value>> {
        let Some(name) = self.first_of(&["tools", "functions"]) else { return Ok(None) };
        let value = self.get(name).unwrap_or(&Value::Null);
        tools(value).map_err(|what| self.error(format!("`{}` is {what}", self.called(name))))
    }
}
