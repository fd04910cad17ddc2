//! ShareGPT's `conversations`: a list of `from` and `value`.

use serde_json::{Map, Value, json};
use text::Message;

use super::field::{self, Result};
use super::messages::COLUMNS;
use super::{Conversation, Shape};
use crate::RowError;
use crate::source::Row;

pub(super) const SHAPE: Shape = Shape {
    name: "sharegpt",
    layout: "`conversations`: list of {`from`, `value`}",
    columns: &["conversations", "messages", "conversation", "system", "tools"],
    signature,
    convert,
};

/// Who speaks, by the names in use.
const SPEAKERS: [(&str, &str); 16] = [
    ("human", "user"),
    ("user", "user"),
    ("gpt", "assistant"),
    ("assistant", "assistant"),
    ("model", "assistant"),
    ("bot", "assistant"),
    ("chatgpt", "assistant"),
    ("bing", "assistant"),
    ("bard", "assistant"),
    ("function_call", FUNCTION_CALL),
    ("system", "system"),
    ("developer", "developer"),
    ("tool", "tool"),
    ("observation", "tool"),
    ("function_response", "tool"),
    ("tool_response", "tool"),
];

/// An assistant turn whose value is the JSON of its calls.
const FUNCTION_CALL: &str = "function_call";

fn signature(row: &Map<String, Value>) -> Option<&'static str> {
    let (column, _, signature) = COLUMNS.into_iter().find(|(name, ..)| row.contains_key(*name))?;
    row[column].as_array()?.first()?.get("from").map(|_| signature)
}

fn convert(row: &Row) -> Result<Conversation> {
    let column = COLUMNS.iter().find(|(name, ..)| row.value.contains_key(*name));
    let column = column.map_or("conversations", |(name, ..)| *name);
    let list = row.value.get(column).and_then(Value::as_array).ok_or_else(|| {
        RowError::new(&row.place, format!("record has no list of messages in `{column}`"))
    })?;
    let (mut messages, mut marks) = (Vec::new(), Vec::new());
    for (index, value) in list.iter().enumerate() {
        let (message, mark) = turn(value)
            .map_err(|message| RowError::new(&row.place, format!("message {index}: {message}")))?;
        messages.push(message);
        marks.push(mark);
    }
    let mut conversation = Conversation::new(row, messages, &marks, field::tools(row)?)?;
    conversation.put_first(field::system(row)?);
    Ok(conversation)
}

fn turn(value: &Value) -> std::result::Result<(Message, Option<bool>), String> {
    let Value::Object(fields) = value else {
        return Err("not an object with `from` and `value`".into());
    };
    let mut extra = fields.clone();
    let mark = field::take_mark(&mut extra)?;
    let mut take = |name: &str| match extra.shift_remove(name) {
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(format!("`{name}` is not text")),
        None => Err(format!("no `{name}`")),
    };
    let (from, text) = (take("from")?, take("value")?);
    let speaker = SPEAKERS.iter().find(|(name, _)| *name == from.to_lowercase());
    let message = match speaker {
        Some((_, role)) if *role == FUNCTION_CALL => {
            // As chat APIs have it: a turn that only calls has no content.
            extra.insert("content".into(), Value::Null);
            extra.insert("tool_calls".into(), tool_calls(&text)?);
            Message { role: "assistant".into(), content: String::new(), extra }
        }
        Some((_, role)) => Message { role: (*role).into(), content: text, extra },
        None => {
            let known: Vec<&str> = SPEAKERS.iter().map(|(name, _)| *name).collect();
            return Err(format!("unknown speaker `{from}`; known are {}", known.join(", ")));
        }
    };
    Ok((message, mark))
}

/// Calls in the form that templates take, from `{name, arguments}` or a list of such.
fn tool_calls(text: &str) -> std::result::Result<Value, String> {
    let calls = match serde_json::from_str(text) {
        Ok(Value::Array(calls)) => calls,
        Ok(call @ Value::Object(_)) => vec![call],
        _ => return Err("the value of `function_call` is not JSON".into()),
    };
    let wrap = |call: Value| match call.get("name") {
        Some(Value::String(_)) => Ok(json!({"type": "function", "function": call})),
        _ => Err("a `function_call` has no `name`".into()),
    };
    calls.into_iter().map(wrap).collect()
}
