//! Stanford Alpaca's `instruction`, `input`, `output`.

use serde_json::{Map, Value};
use text::Message;

use super::field::{self, Result};
use super::{Conversation, Shape};
use crate::RowError;
use crate::source::Row;

pub(super) const SHAPE: Shape = Shape {
    name: "alpaca",
    layout: "`instruction`, `output`, optionally `input`, `system`, `history`",
    columns: &["instruction", "input", "output", "system", "history"],
    signature,
    convert,
};

fn signature(row: &Map<String, Value>) -> Option<&'static str> {
    let fits = row.contains_key("instruction") && row.contains_key("output");
    fits.then_some("`instruction` and `output`")
}

/// The user's turn is the instruction, and the input on a line after it.
fn convert(row: &Row) -> Result<Conversation> {
    let mut messages: Vec<Message> = field::system(row)?.into_iter().collect();
    for (user, assistant) in history(row)? {
        messages.push(Message::new("user", user));
        messages.push(Message::new("assistant", assistant));
    }
    let mut user = field::text(row, "instruction")?;
    let input = field::optional_text(row, "input")?.filter(|input| !input.trim().is_empty());
    if let Some(input) = input {
        if !user.is_empty() {
            user.push('\n');
        }
        user.push_str(&input);
    }
    messages.push(Message::new("user", user));
    messages.push(Message::new("assistant", field::text(row, "output")?));
    Conversation::new(row, messages, &[], None)
}

/// Earlier turns: a list of pairs.
fn history(row: &Row) -> Result<Vec<(String, String)>> {
    let pairs = match row.value.get("history") {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(pairs)) => pairs,
        Some(_) => return Err(wrong_history(row)),
    };
    let pair = |value: &Value| match value.as_array().map(Vec::as_slice) {
        Some([Value::String(user), Value::String(assistant)]) => {
            Ok((user.clone(), assistant.clone()))
        }
        _ => Err(wrong_history(row)),
    };
    pairs.iter().map(pair).collect()
}

fn wrong_history(row: &Row) -> RowError {
    RowError::new(&row.place, "`history` is not a list of [user, assistant] texts")
}
