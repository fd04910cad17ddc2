//! Reading the fields of a row.

use serde_json::{Map, Value};
use text::Message;

use crate::RowError;
use crate::source::Row;

pub(super) type Result<T> = std::result::Result<T, RowError>;

/// A field that must be text.
pub(super) fn text(row: &Row, name: &str) -> Result<String> {
    optional_text(row, name)?
        .ok_or_else(|| RowError::new(&row.place, format!("record has no `{name}` field")))
}

/// A field that may be absent or null.
pub(super) fn optional_text(row: &Row, name: &str) -> Result<Option<String>> {
    match row.value.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(other) => {
            let message = format!("`{name}` is {}, not text", kind(other));
            Err(RowError::new(&row.place, message).with_hint("write it as a string"))
        }
    }
}

/// The system text of a row that has it in a column of its own.
pub(super) fn system(row: &Row) -> Result<Option<Message>> {
    let text = optional_text(row, "system")?.filter(|text| !text.trim().is_empty());
    Ok(text.map(|text| Message::new("system", text)))
}

/// The tools that a row offers: a list, or one as JSON text.
pub(super) fn tools(row: &Row) -> Result<Option<Value>> {
    let wrong = |what: &str| RowError::new(&row.place, format!("`tools` is {what}, not a list"));
    let list = match row.value.get("tools") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) if text.trim().is_empty() => return Ok(None),
        Some(Value::String(text)) => {
            serde_json::from_str(text).map_err(|_| wrong("text that is no JSON"))?
        }
        Some(other) => other.clone(),
    };
    match list {
        Value::Array(list) if list.is_empty() => Ok(None),
        Value::Array(_) => Ok(Some(list)),
        other => Err(wrong(kind(&other))),
    }
}

/// A list of messages, and which of them are marked as (not) to be learned.
pub(super) fn messages(row: &Row, name: &str) -> Result<(Vec<Message>, Vec<Option<bool>>)> {
    let list = match row.value.get(name) {
        Some(Value::Array(list)) => list,
        None | Some(Value::Null) => {
            return Err(RowError::new(&row.place, format!("record has no `{name}` field")));
        }
        Some(other) => {
            let message = format!("`{name}` is {}, not a list of messages", kind(other));
            return Err(RowError::new(&row.place, message));
        }
    };
    let mut result = (Vec::new(), Vec::new());
    for (index, value) in list.iter().enumerate() {
        let at = |message: String| RowError::new(&row.place, format!("message {index}: {message}"));
        let (message, mark) = message(value).map_err(at)?;
        result.0.push(message);
        result.1.push(mark);
    }
    Ok(result)
}

fn message(value: &Value) -> std::result::Result<(Message, Option<bool>), String> {
    let mut value = value.clone();
    let mut mark = None;
    if let Value::Object(fields) = &mut value {
        mark = take_mark(fields)?;
        if let Some(Value::Array(parts)) = fields.get("content") {
            let text = join_parts(parts)?;
            fields.insert("content".into(), text.into());
        }
    }
    Ok((Message::from_value(value)?, mark))
}

/// Whether the message says that it counts in the loss. The mark is removed: it
/// is for the trainer, and a template that served would never see it.
pub(super) fn take_mark(
    fields: &mut Map<String, Value>,
) -> std::result::Result<Option<bool>, String> {
    let mut mark = None;
    for name in ["weight", "loss_weight", "train"] {
        let Some(value) = fields.shift_remove(name) else { continue };
        mark = match (&value, value.as_f64()) {
            (Value::Null, _) => mark,
            (Value::Bool(train), _) => Some(*train),
            (_, Some(0.0)) => Some(false),
            (_, Some(1.0)) => Some(true),
            _ => return Err(format!("`{name}` is {value}, not 0 or 1")),
        };
    }
    Ok(mark)
}

/// Joins content that is a list of text parts.
fn join_parts(parts: &[Value]) -> std::result::Result<String, String> {
    let text = |part: &Value| {
        let kind = part.get("type").and_then(Value::as_str).unwrap_or("text");
        let text = part.as_str().or_else(|| part.get("text").or(part.get("value"))?.as_str());
        match text {
            Some(text) if kind == "text" => Ok(text.to_owned()),
            _ => Err(format!("content part of type `{kind}`; only text is supported")),
        }
    };
    parts.iter().map(text).collect()
}

fn kind(value: &Value) -> &'static str {
    crate::source::kind(value)
}
