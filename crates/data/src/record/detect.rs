//! Which shape a file has, found by looking at every row.

use serde_json::{Map, Value};

use super::{SHAPES, Shape};
use crate::source::Row;
use crate::{Error, Result, RowError};

/// Finds the shape of a file.
///
/// Rows without a shape are left to the conversion, which says what they lack;
/// rows of two shapes in one file are an error that names the first that differs.
pub fn detect(rows: &[Row]) -> Result<&'static Shape> {
    let mut found: Option<(&'static Shape, &'static str, &Row)> = None;
    for row in rows {
        let Some((shape, signature)) = shape_of(&row.value) else { continue };
        match found {
            None => found = Some((shape, signature, row)),
            Some((_, known, _)) if known == signature => {}
            Some((_, known, first)) => {
                let message = format!("row has {signature} where {} has {known}", first.place);
                let hint = "keep one format a file; `data.train` takes several files";
                let error = RowError::new(&row.place, message).with_hint(hint);
                return Err(Error::Rows { rows: vec![error], hint: None });
            }
        }
    }
    found.map(|(shape, ..)| shape).ok_or_else(|| no_shape(rows))
}

fn shape_of(value: &Map<String, Value>) -> Option<(&'static Shape, &'static str)> {
    SHAPES.into_iter().find_map(|shape| Some((shape, (shape.signature)(value)?)))
}

fn no_shape(rows: &[Row]) -> Error {
    let names = column_names(rows);
    let place = rows.first().map(|row| row.place.file.display().to_string()).unwrap_or_default();
    let known: Vec<String> =
        SHAPES.iter().map(|shape| format!("`{}` ({})", shape.name, shape.layout)).collect();
    let mut hint = format!("known formats: {}", known.join("; "));
    if let Some(nearest) = nearest(&names) {
        hint.push_str(&format!("; nearest is `{}`: name its columns with `columns`", nearest.name));
    }
    if ["chosen", "rejected"].iter().all(|name| names.contains(name)) {
        hint.push_str("; rows with `chosen` and `rejected` are preferences, not for `sft`");
    } else if names.contains(&"text") {
        hint.push_str("; rows of plain `text` are for pretraining, not for `sft`");
    }
    let found = join(names.into_iter());
    Error::File {
        place,
        message: format!("unknown format: the rows have {found}"),
        hint: Some(hint),
    }
}

/// The shape with which the rows have most columns in common.
fn nearest(names: &[&str]) -> Option<&'static Shape> {
    let common = |shape: &Shape| shape.columns.iter().filter(|name| names.contains(name)).count();
    // The first of equals, as where several fit.
    let best = SHAPES.into_iter().rev().max_by_key(|shape| common(shape))?;
    (common(best) > 0).then_some(best)
}

/// The columns of all rows, in order of appearance.
pub(super) fn column_names(rows: &[Row]) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for name in rows.iter().flat_map(|row| row.value.keys()) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    names
}

/// Names in backticks, each once.
pub(super) fn join<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut quoted: Vec<String> = Vec::new();
    for name in names {
        let name = format!("`{name}`");
        if !quoted.contains(&name) {
            quoted.push(name);
        }
    }
    if quoted.is_empty() { "no columns".into() } else { quoted.join(", ") }
}
