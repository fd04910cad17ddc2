//! JSON Lines: one object a line; blank lines are allowed.

use std::path::Path;
use std::sync::Arc;

use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use super::input::Stream;
use super::lines::Records;
use super::{Item, Row, file_error, json_row, object, utf8};
use crate::{Error, Place, Result, RowError};

/// The rows of a file of lines.
pub(super) struct JsonLines {
    file: Arc<Path>,
    lines: Records,
    begun: bool,
    /// A row that was read to see whether there is one.
    next: Option<Item>,
}

impl JsonLines {
    pub(super) fn new(file: &Arc<Path>, stream: Stream) -> Self {
        let (file, lines) = (file.clone(), Records::new(file, stream));
        JsonLines { file, lines, begun: false, next: None }
    }
}

impl Iterator for JsonLines {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        if let Some(item) = self.next.take() {
            return Some(item);
        }
        let item = self.lines.next(parse)?;
        if !std::mem::replace(&mut self.begun, true)
            && let Ok(Ok(row)) = &item
            && let Some(error) = no_list_of_rows(&self.file, &row.value)
        {
            self.next = self.lines.next(parse);
            if self.next.is_none() {
                return Some(Err(error));
            }
        }
        Some(item)
    }
}

fn parse(place: Place, bytes: &[u8]) -> std::result::Result<Row, RowError> {
    match object::value(utf8(&place, bytes)?) {
        Ok(parsed) => json_row(place, parsed),
        Err(fault) => {
            let message = format!("{}, column {}", fault.message, fault.column);
            Err(RowError::new(&place, message))
        }
    }
}

/// Why an object that is alone in its file is no row, if it is none.
fn no_list_of_rows(file: &Path, object: &Map<String, Value>) -> Option<Error> {
    if let Some(key) = wrapped_list(object) {
        return Some(one_object(file, Some(key)));
    }
    holds_columns(object).then(|| one_object(file, None).hinting(RECORDS))
}

const RECORDS: &str = "write it by rows: `to_json(path, orient=\"records\", lines=True)` in pandas, \
     `to_json(path)` of a `datasets.Dataset`";

/// Whether an object has a whole column under each key: objects with the numbers of rows, as pandas' `to_json`
/// writes them, lists of texts, as a dictionary of columns has them, or pandas' orientations `split` and `index`.
fn holds_columns(object: &Map<String, Value>) -> bool {
    let is_numbered = |value: &Value| {
        let keys = value.as_object().filter(|rows| !rows.is_empty()).map(Map::keys);
        keys.is_some_and(|mut keys| keys.all(|key| key.parse::<u64>().is_ok()))
    };
    let texts = |value: &Value| {
        let list = value.as_array().filter(|list| list.len() > 1)?;
        list.iter().all(Value::is_string).then_some(list.len())
    };
    let mut lengths = object.values().map(texts);
    let first = lengths.next().flatten();
    let is_split = ["columns", "index", "data"]
        .iter()
        .all(|key| object.get(*key).is_some_and(Value::is_array));
    let is_index = !object.is_empty() && object.keys().all(|key| key.parse::<u64>().is_ok());
    is_split
        || is_index
        || (!object.is_empty() && object.values().all(is_numbered))
        || (object.len() > 1 && first.is_some() && lengths.all(|length| length == first))
}

/// Keys under which a file may hide its list of rows.
const WRAPPERS: [&str; 8] =
    ["data", "rows", "train", "examples", "items", "records", "instances", "entries"];

fn wrapped_list(object: &Map<String, Value>) -> Option<&str> {
    let is_list = |value: &Value| {
        value.as_array().is_some_and(|list| list.first().is_some_and(Value::is_object))
    };
    let found =
        object.iter().find(|(key, value)| WRAPPERS.contains(&key.as_str()) && is_list(value));
    found.map(|(key, _)| key.as_str())
}

/// Refuses a file that is one object over several lines, which no line tells.
/// `whole` where the file ends with `head`.
pub(super) fn refuse_one_object(file: &Path, head: &[u8], whole: bool) -> Result<()> {
    let head = String::from_utf8_lossy(head);
    let (head, mut more) = (head.trim_start(), false);
    if let Some((first, rest)) = head.split_once('\n') {
        let goes_on = serde_json::from_str::<IgnoredAny>(first).is_err_and(|error| error.is_eof());
        more = goes_on && !rest.trim().is_empty();
    }
    if !more {
        return Ok(());
    }
    let mut values = serde_json::Deserializer::from_str(head).into_iter::<IgnoredAny>();
    match values.next() {
        Some(Ok(_)) => Err(one_object(file, list_key(head))),
        Some(Err(error)) if error.is_eof() && !whole => Err(one_object(file, list_key(head))),
        _ => Ok(()),
    }
}

/// [`wrapped_list`] of a text that may be cut off.
fn list_key(text: &str) -> Option<&'static str> {
    let is_list = |key: &&str| {
        let after = text.split_once(&format!("\"{key}\"")).map(|(_, after)| after.trim_start());
        let list = after.and_then(|after| after.strip_prefix(':')).map(str::trim_start);
        let first = list.and_then(|list| list.strip_prefix('[')).map(str::trim_start);
        first.is_some_and(|first| first.starts_with('{'))
    };
    WRAPPERS.into_iter().find(is_list)
}

fn one_object(file: &Path, list: Option<&str>) -> Error {
    let error = file_error(file.display(), "file is one JSON object, not a list of rows");
    match list {
        Some(key) => error.hinting(&format!("the rows stand under `{key}`: save that list alone")),
        None => error.hinting("write each row as one line, or all rows as one array"),
    }
}
