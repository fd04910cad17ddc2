//! Records as people have them become conversations.
//!
//! One file a shape. A shape says by which columns it is known, and how one of
//! its rows reads; a new one is a file and a line in [`SHAPES`].

mod alpaca;
mod conversation;
mod detect;
mod field;
mod kinds;
mod messages;
mod prompt_completion;
mod sharegpt;

use serde_json::{Map, Value};

pub use conversation::Conversation;
pub(crate) use conversation::calls_tools;
pub use detect::detect;
pub use kinds::{
    Answer, Feedback, Preference, Prompt, Ranked, Record, Step, Stepwise, Text, Tokens, Wanted,
};

use crate::source::Row;
use crate::{Error, Findings, Level, Result, RowError, finding::Kind};

/// A way to write a conversation as a JSON object.
#[derive(Debug)]
pub struct Shape {
    /// Its name in `format:`.
    pub name: &'static str,
    /// Its columns, for messages.
    pub layout: &'static str,
    /// The columns that it reads.
    pub columns: &'static [&'static str],
    /// By which columns a row is known to be of this shape; rows of one file agree.
    signature: fn(&Map<String, Value>) -> Option<&'static str>,
    convert: fn(&Row) -> std::result::Result<Conversation, RowError>,
}

/// Every known shape. Where several fit a row, the first is meant.
pub const SHAPES: [&Shape; 4] =
    [&messages::SHAPE, &sharegpt::SHAPE, &alpaca::SHAPE, &prompt_completion::SHAPE];

/// The shape of that name.
pub fn by_name(name: &str) -> Option<&'static Shape> {
    SHAPES.into_iter().find(|shape| shape.name == name)
}

/// What the recipe says about a file of records.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// The shape's name; found by looking where there is none.
    pub format: Option<String>,
    /// Pairs of a column as a shape calls it and as the file calls it.
    pub columns: Vec<(String, String)>,
    /// System message of conversations that bring none.
    pub system: Option<String>,
    /// The recipe key of this file, such as `data.train.0`, for messages.
    pub key: String,
}

/// Converts all rows of a file, which are of one shape.
///
/// Every row that cannot be converted is named in the error. Rows are never
/// dropped; what is odd about them goes into `findings`.
pub fn conversations(
    mut rows: Vec<Row>,
    reading: &Reading,
    findings: &mut Findings,
) -> Result<(&'static Shape, Vec<Conversation>)> {
    rename(&mut rows, reading)?;
    let shape = match &reading.format {
        Some(name) => by_name(name).ok_or_else(|| unknown_format(name, reading))?,
        None => detect(&rows)?,
    };
    let (mut conversations, mut bad) = (Vec::with_capacity(rows.len()), Vec::new());
    for row in &rows {
        let converted = (shape.convert)(row).and_then(|mut conversation| {
            conversation.add_system(reading.system.as_deref());
            conversation.check(findings)?;
            Ok(conversation)
        });
        match converted {
            Ok(conversation) => conversations.push(conversation),
            Err(error) => bad.push(error),
        }
    }
    if let Some(first) = bad.first_mut() {
        first.hint = first.hint.take().or_else(|| preference_hint(&rows));
    }
    Error::from_rows(bad)?;
    note_unused_columns(&rows, shape, findings);
    Ok((shape, conversations))
}

fn unknown_format(name: &str, reading: &Reading) -> Error {
    let known: Vec<String> = SHAPES.iter().map(|shape| format!("`{}`", shape.name)).collect();
    Error::Setting {
        key: format!("{}.format", reading.key),
        message: format!("unknown format `{name}`"),
        hint: Some(format!(
            "one of {}; without it the format is found by looking",
            known.join(", ")
        )),
    }
}

/// Gives columns the names by which the shapes know them.
fn rename(rows: &mut [Row], reading: &Reading) -> Result<()> {
    let error = |ours: &str, message, hint| Error::Setting {
        key: format!("{}.columns.{ours}", reading.key),
        message,
        hint: Some(hint),
    };
    for (ours, theirs) in &reading.columns {
        if !SHAPES.iter().any(|shape| shape.columns.contains(&ours.as_str())) {
            let names = detect::join(SHAPES.iter().flat_map(|shape| shape.columns).copied());
            return Err(error(
                ours,
                "no format has such a column".into(),
                format!("one of {names}"),
            ));
        }
        if !rows.iter().any(|row| row.value.contains_key(theirs)) {
            let names = detect::join(detect::column_names(rows).into_iter());
            return Err(error(
                ours,
                format!("no row has a column `{theirs}`"),
                format!("the rows have {names}"),
            ));
        }
    }
    for row in rows {
        let taken: Vec<_> = reading
            .columns
            .iter()
            .filter_map(|(ours, theirs)| Some((ours.clone(), row.value.shift_remove(theirs)?)))
            .collect();
        row.value.extend(taken);
    }
    Ok(())
}

fn preference_hint(rows: &[Row]) -> Option<String> {
    let is_pair =
        |row: &Row| row.value.contains_key("chosen") && row.value.contains_key("rejected");
    rows.first().is_some_and(is_pair).then(|| {
        "rows with `chosen` and `rejected` are preferences; `sft` needs whole conversations".into()
    })
}

fn note_unused_columns(rows: &[Row], shape: &Shape, findings: &mut Findings) {
    const UNUSED: Kind = Kind {
        id: "unused-columns",
        level: Level::Note,
        message: "columns that are not trained on",
        hint: "if one of them is meant, name it with `columns`",
    };
    let names = detect::column_names(rows);
    let unused: Vec<&str> =
        names.into_iter().filter(|name| !shape.columns.contains(name)).collect();
    if let (Some(first), false) = (rows.first(), unused.is_empty()) {
        let message =
            format!("columns that are not trained on: {}", detect::join(unused.into_iter()));
        findings.add_with(&UNUSED, &first.place, message);
    }
}
