//! The user's names for columns: `columns: {ours: theirs}`.

use serde_json::{Map, Value};

use super::detect::{column_names, join};
use super::{Reading, SHAPES};
use crate::source::Row;
use crate::{Error, Result};

/// Gives columns the names by which the shapes know them.
///
/// `theirs` is a column, or a path into one such as `instances.0.output`. A
/// column that bears our name without being meant is left out.
pub(super) fn renamed(mut row: Map<String, Value>, reading: &Reading) -> Map<String, Value> {
    let columns = &reading.columns;
    let taken: Vec<_> = columns
        .iter()
        .filter_map(|(ours, theirs)| Some((ours.clone(), find(&row, theirs)?.clone())))
        .collect();
    for (ours, theirs) in columns {
        row.shift_remove(ours);
        row.shift_remove(theirs);
    }
    row.extend(taken);
    row
}

/// The column of that name, or what the path leads to.
fn find<'a>(row: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    if let Some(value) = row.get(path) {
        return Some(value);
    }
    let mut steps = path.split('.');
    let first = row.get(steps.next()?)?;
    steps.try_fold(first, |value, step| match value {
        Value::Array(list) => list.get(step.parse::<usize>().ok()?),
        Value::Object(object) => object.get(step),
        _ => None,
    })
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
    reading.columns.iter().any(|(_, theirs)| theirs.split('.').next() == Some(name))
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
