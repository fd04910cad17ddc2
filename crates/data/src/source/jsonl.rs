//! JSON Lines: one object a line; blank lines are allowed.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::{Row, bare_message, file_error, kind, wrapped_list};
use crate::{Error, Place, Result, RowError};

/// Reads every line, and names all that are no objects.
pub(super) fn parse(file: &Arc<Path>, text: &str) -> Result<Vec<Row>> {
    let (mut rows, mut bad) = (Vec::new(), Vec::new());
    for (index, line) in text.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        let place = Place { file: file.clone(), line: index + 1, element: None };
        match serde_json::from_str::<Value>(line) {
            Ok(Value::Object(value)) => rows.push(Row { place, value }),
            Ok(other) => {
                bad.push(RowError::new(&place, format!("not an object but {}", kind(&other))));
            }
            Err(error) => {
                let message =
                    format!("not JSON: {}, column {}", bare_message(&error), error.column());
                bad.push(RowError::new(&place, message));
            }
        }
    }
    match whole_object(&rows, &bad, text) {
        Some(object) => Err(one_object(file, &object)),
        None => Error::from_rows(bad).map(|()| rows),
    }
}

/// The one object that the file is, if it is one that cannot be meant as a row.
fn whole_object(rows: &[Row], bad: &[RowError], text: &str) -> Option<Map<String, Value>> {
    match rows {
        [row] if bad.is_empty() => wrapped_list(&row.value).map(|_| row.value.clone()),
        // Over several lines: one line alone is no JSON, the whole is.
        _ if !bad.is_empty() => serde_json::from_str(text).ok(),
        _ => None,
    }
}

fn one_object(file: &Path, object: &Map<String, Value>) -> Error {
    let error = file_error(file.display(), "file is one JSON object, not a list of rows");
    match wrapped_list(object) {
        Some(key) => error.hinting(&format!("the rows stand under `{key}`: save that list alone")),
        None => error.hinting("write each row as one line, or all rows as one array"),
    }
}
