//! Stanford Alpaca's `instruction`, `input`, `output`.

use serde_json::{Map, Value};
use text::Message;

use super::field::{Fields, Result};
use super::prompt::Asked;
use super::turn::Dialogue;
use super::{Conversation, Record, Shape, Wanted};
use crate::RowError;

pub(super) const SHAPE: Shape = Shape {
    name: "alpaca",
    layout: "`instruction`, `output`, optionally `input`, `system`, `history`",
    columns: &[&[
        "instruction",
        "input",
        "output",
        "system",
        "history",
        "prompt",
        "query",
        "context",
        "response",
        "tools",
    ]],
    holds: "conversations",
    serves: &[Wanted::Conversations],
    signature,
    read: |fields| conversation(fields).map(Record::Conversation),
    asked,
};

/// Columns that stand for instruction, input and output, and how a row with them
/// is described. In all but the first the input is what tells a row from a plain
/// prompt and completion.
const LAYOUTS: [(&str, &str, &str, &str); 4] = [
    ("instruction", "input", "output", "`instruction` and `output`"),
    ("instruction", "input", "response", "`instruction`, `input` and `response`"),
    ("instruction", "context", "response", "`instruction`, `context` and `response`"),
    ("prompt", "query", "response", "`prompt`, `query` and `response`"),
];

fn layout(
    row: &Map<String, Value>,
) -> Option<(&'static str, &'static str, &'static str, &'static str)> {
    let has = |name: &str| row.contains_key(name);
    LAYOUTS.into_iter().enumerate().find_map(|(index, layout)| {
        let (instruction, input, output, _) = layout;
        let fits = has(instruction) && has(output) && (index == 0 || has(input));
        fits.then_some(layout)
    })
}

fn signature(row: &Map<String, Value>) -> Option<&'static str> {
    // A list of two is LLaMA-Factory's pair of a better and a worse answer.
    layout(row).filter(|(.., output, _)| !row[*output].is_array()).map(|layout| layout.3)
}

pub(super) fn conversation(fields: &Fields<'_>) -> Result<Conversation> {
    let (.., output, _) = layout(fields.value).unwrap_or(LAYOUTS[0]);
    let mut dialogue = Dialogue::default();
    for message in asked(fields)?.messages {
        dialogue.push(message, None);
    }
    dialogue.push(Message::new("assistant", fields.text(output)?), None);
    Conversation::new(fields, dialogue)
}

/// The turns before the answer.
fn asked(fields: &Fields<'_>) -> Result<Asked> {
    let (instruction, input, ..) = layout(fields.value).unwrap_or(LAYOUTS[0]);
    let mut messages: Vec<Message> = fields.system()?.into_iter().collect();
    messages.extend(history(fields)?);
    messages.push(Message::new("user", request(fields, instruction, input)?));
    let columns = vec![instruction, input, "system", "history", "tools"];
    Ok(Asked { messages, tools: fields.tools()?, columns })
}

/// The user's turn: the instruction, a blank line, the input.
pub(super) fn request(fields: &Fields<'_>, instruction: &str, input: &str) -> Result<String> {
    let mut request = fields.text(instruction)?;
    let input = fields.optional_text(input)?.filter(|input| !input.trim().is_empty());
    if let Some(input) = input {
        if !request.is_empty() {
            request.push_str("\n\n");
        }
        request.push_str(&input);
    }
    Ok(request)
}

/// Earlier turns: a list of pairs.
pub(super) fn history(fields: &Fields<'_>) -> Result<Vec<Message>> {
    let pairs = match fields.get("history") {
        None => return Ok(Vec::new()),
        Some(Value::Array(pairs)) => pairs,
        Some(_) => return Err(wrong_history(fields)),
    };
    let mut messages = Vec::new();
    for pair in pairs {
        let Some([Value::String(user), Value::String(assistant)]) =
            pair.as_array().map(Vec::as_slice)
        else {
            return Err(wrong_history(fields));
        };
        messages.push(Message::new("user", user.as_str()));
        messages.push(Message::new("assistant", assistant.as_str()));
    }
    Ok(messages)
}

fn wrong_history(fields: &Fields<'_>) -> RowError {
    fields.error("`history` is not a list of [user, assistant] texts")
}
