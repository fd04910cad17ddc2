//! Columns by the names and with the values that the shapes know: `columns: {ours: theirs}`, and text that
//! stands for lists.

use serde_json::{Map, Value};

use super::cell::{self, Change};
use super::detect::{column_names, join};
use super::{Reading, SHAPES};
use crate::source::{Row, Trouble, json_text};
use crate::{Error, Result};

/// The columns of a row as the shapes take them.
pub(super) struct Prepared {
    pub(super) value: Map<String, Value>,
    /// Columns that cannot be read, by our names; they are there in `value`.
    pub(super) troubles: Vec<Trouble>,
    /// Columns that could be text, and whose text was taken for turns.
    pub(super) parsed: Vec<String>,
}

/// Gives the columns of a row our names, and text that stands for a list its list.
pub(super) fn prepared(
    value: Map<String, Value>,
    troubles: &[Trouble],
    reading: &Reading,
) -> Prepared {
    let mut troubles = renamed_troubles(troubles, reading);
    let mut value = if reading.columns.is_empty() { value } else { renamed(value, reading) };
    let mut parsed = Vec::new();
    for (name, value) in &mut value {
        match cell::change(name, value) {
            Change::None => {}
            Change::Value { value: changed, noted } => {
                *value = changed;
                parsed.extend(noted.then(|| name.clone()));
            }
            Change::Trouble(trouble) => troubles.push(trouble),
        }
    }
    Prepared { value, troubles, parsed }
}

/// Troubles of columns that are left, under our names.
fn renamed_troubles(troubles: &[Trouble], reading: &Reading) -> Vec<Trouble> {
    let mut ours = Vec::new();
    for trouble in troubles {
        let of = |theirs: &str| theirs == trouble.column || root(theirs) == trouble.column;
        let named = reading.columns.iter().filter(|(_, theirs)| of(theirs));
        ours.extend(named.map(|(ours, _)| Trouble { column: ours.clone(), ..trouble.clone() }));
        let is_taken = |(ours, theirs): &(String, String)| {
            *ours == trouble.column || *theirs == trouble.column
        };
        if !reading.columns.iter().any(is_taken) {
            ours.push(trouble.clone());
        }
    }
    ours
}

/// Gives columns the names by which the shapes know them.
///
/// `theirs` is a column, or a path into one such as `instances.0.output`. A
/// column that bears our name without being meant is left out.
fn renamed(mut row: Map<String, Value>, reading: &Reading) -> Map<String, Value> {
    let columns = &reading.columns;
    let taken: Vec<_> = columns
        .iter()
        .filter_map(|(ours, theirs)| Some((ours.clone(), find(&row, theirs)?)))
        .collect();
    for (ours, theirs) in columns {
        row.shift_remove(ours);
        row.shift_remove(theirs);
    }
    row.extend(taken);
    row
}

/// The column of that name, or what the path leads to.
fn find(row: &Map<String, Value>, path: &str) -> Option<Value> {
    if let Some(value) = row.get(path) {
        return Some(value.clone());
    }
    let mut steps = path.split('.');
    let first = row.get(steps.next()?)?;
    steps.try_fold(first.clone(), |value, step| match of_text(value) {
        Value::Array(mut list) => {
            let index = step.parse::<usize>().ok().filter(|&index| index < list.len())?;
            Some(list.swap_remove(index))
        }
        Value::Object(mut object) => object.swap_remove(step),
        _ => None,
    })
}

/// The list or object that a text spells out.
fn of_text(value: Value) -> Value {
    match &value {
        Value::String(text) if text.trim_start().starts_with(['[', '{']) => {
            let parsed = json_text(text).or_else(|_| super::literal::parse(text));
            parsed.unwrap_or(value)
        }
        _ => value,
    }
}

fn root(path: &str) -> &str {
    path.split('.').next().unwrap_or(path)
}

/// Checks the names against the shapes and the first rows of the file.
pub(super) fn check(sample: &[Row], reading: &Reading) -> Result<()> {
    let error = |ours: &str, message, hint| Error::Setting {
        key: format!("{}.columns.{ours}", reading.key),
        message,
        hint: Some(hint),
    };
    for (ours, theirs) in &reading.columns {
        if !SHAPES.iter().any(|shape| shape.reads(ours)) {
            let names = join(SHAPES.iter().flat_map(|shape| shape.columns()));
            let message = "no format has such a column".into();
            return Err(error(ours, message, format!("one of {names}")));
        }
        if !sample.iter().any(|row| find(&row.value, theirs).is_some()) {
            let names = join(column_names(sample).into_iter());
            let message = format!("no row has a column `{theirs}`");
            return Err(error(ours, message, format!("the rows have {names}")));
        }
    }
    Ok(())
}

/// Whether a column of the file is looked into by a path.
pub(super) fn is_looked_into(name: &str, reading: &Reading) -> bool {
    reading.columns.iter().any(|(_, theirs)| root(theirs) == name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(row: Value, columns: &[(&str, &str)], expected: Value) {
        let columns = columns.iter().map(|(ours, theirs)| (ours.to_string(), theirs.to_string()));
        let reading = Reading { columns: columns.collect(), ..Reading::default() };
        let Value::Object(row) = row else { panic!("a row is an object") };
        assert_eq!(Value::Object(renamed(row, &reading)), expected);
    }

    #[test]
    fn columns_and_paths_are_renamed() {
        check(json!({"q": 1, "x": 2}), &[("prompt", "q")], json!({"x": 2, "prompt": 1}));
        let swap = [("prompt", "output"), ("output", "prompt")];
        check(json!({"prompt": 1, "output": 2}), &swap, json!({"prompt": 2, "output": 1}));
        check(json!({"tools": 1}), &[("tools", "tools")], json!({"tools": 1}));
        let nested = json!({"a": [{"b": 1}]});
        check(nested, &[("output", "a.0.b")], json!({"a": [{"b": 1}], "output": 1}));
        check(
            json!({"a": "[{'b': 1}]"}),
            &[("output", "a.0.b")],
            json!({"a": "[{'b': 1}]", "output": 1}),
        );
        check(
            json!({"a.b": 1, "a": {"b": 2}}),
            &[("text", "a.b")],
            json!({"a": {"b": 2}, "text": 1}),
        );
    }

    #[test]
    fn a_path_that_leads_nowhere_gives_nothing() {
        for path in ["b", "a.1.b", "a.x", "a.0.b.c", "", "."] {
            let row = json!({"a": [{"b": 1}], "output": 2});
            check(row, &[("output", path)], json!({"a": [{"b": 1}]}));
        }
    }
}
