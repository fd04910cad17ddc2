//! Texts or dialogues with a class: the rows of a classifier.

use serde_json::{Map, Value};

use super::field::{Fields, Result};
use super::{Labelled, LabelledInput, Record, Shape, Wanted, cell, prompt};

pub(super) const SHAPE: Shape = Shape {
    name: "labelled",
    layout: "`text` (or `prompt`, `messages`) and `label`: text or a whole number",
    columns: &[&["label"], TEXTS, prompt::COLUMNS],
    holds: "labelled texts",
    serves: &[Wanted::Labelled],
    signature,
    read,
    asked: prompt::asked,
};

/// Where a raw text may stand, the first that a row has.
const TEXTS: &[&str] = &["text", "content", "document"];

fn signature(row: &Map<String, Value>) -> Option<&'static str> {
    let has_text = TEXTS.iter().any(|name| row.contains_key(*name));
    let has_input = has_text || (prompt::SHAPE.signature)(row).is_some();
    (row.contains_key("label") && has_input).then_some("`label` beside a text")
}

fn read(fields: &Fields<'_>) -> Result<Record> {
    let label = match fields.wanted {
        // What is scored may have no label.
        Wanted::Unlabelled if !fields.has("label") => None,
        _ => Some(label(fields)?),
    };
    Ok(Record::Labelled(Labelled { place: fields.place.clone(), input: input(fields)?, label }))
}

/// The name of a class. A whole number and its digits are the same class.
fn label(fields: &Fields<'_>) -> Result<String> {
    let value = fields.get("label").ok_or_else(|| fields.missing("label"))?;
    let called = fields.called("label");
    if cell::is_missing(value) {
        let message = format!("`{called}` is {value}, which stands for no label");
        return Err(fields.error(message).with_hint(
            "write the class of the row, remove the row, or give the class another name",
        ));
    }
    match value {
        Value::String(text) => Ok(text.trim().to_owned()),
        Value::Bool(flag) => Ok(flag.to_string()),
        Value::Number(_) => whole(value).ok_or_else(|| {
            fields
                .error(format!("`{called}` is {value}, and a class is text or a whole number"))
                .with_hint("write classes as names; a classifier does not learn measures")
        }),
        other => Err(fields
            .wrong("label", other, "text or a whole number")
            .with_hint("a row has one class: write its name")),
    }
}

/// A whole number in digits. pandas makes 1.0 of 1 where a column has gaps.
fn whole(value: &Value) -> Option<String> {
    match value.as_i64() {
        Some(number) => Some(number.to_string()),
        None => {
            let number = cell::number(value)?;
            (number.fract() == 0.0 && number.abs() < 1e15).then(|| format!("{number:.0}"))
        }
    }
}

fn input(fields: &Fields<'_>) -> Result<LabelledInput> {
    let Some(column) = fields.first_of(TEXTS) else {
        if fields.first_of(prompt::COLUMNS).is_none() {
            return Err(fields.missing("text"));
        }
        let prompt::Asked { messages, tools, .. } = prompt::asked(fields)?;
        return Ok(LabelledInput::Dialogue { messages, tools });
    };
    let mut others = TEXTS.iter().chain(prompt::COLUMNS).filter(|name| **name != column);
    if let Some(other) = others.find(|name| fields.has(name)) {
        let (other, column) = (fields.called(other), fields.called(column));
        let message =
            format!("row has `{other}` beside `{column}`, and a classifier reads one of them");
        return Err(fields.error(message).with_hint("join the two into one column, or drop one"));
    }
    let text = fields.text(column)?;
    if text.trim().is_empty() {
        return Err(fields.error(format!("`{}` is empty", fields.called(column))));
    }
    Ok(LabelledInput::Text(text))
}
