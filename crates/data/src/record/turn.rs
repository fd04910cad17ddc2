//! Turns as the peers' files and the hosted interfaces write them.

mod calls;
mod part;
mod speaker;
mod tools;

use serde_json::{Map, Value};
use text::Message;

use super::conversation::calls_tools;
use super::field::{Fields, Result};
use crate::source;

use speaker::Speaker;
pub use speaker::Tags;
pub(super) use tools::tools;

/// A list of turns, each with the weight that it says it has.
#[derive(Clone, Default)]
pub(super) struct Dialogue {
    pub(super) messages: Vec<Message>,
    pub(super) weights: Vec<Option<f32>>,
    /// Tools that stand among the turns.
    pub(super) tools: Option<Value>,
    /// Whether the last turn was given as calls alone, so that more of them may follow.
    ends_with_calls: bool,
}

impl Dialogue {
    pub(super) fn push(&mut self, message: Message, weight: Option<f32>) {
        self.messages.push(message);
        self.weights.push(weight);
    }

    /// Puts a message in front, where there is one.
    pub(super) fn put_first(&mut self, message: Option<Message>) {
        if let Some(message) = message {
            self.messages.insert(0, message);
            self.weights.insert(0, None);
        }
    }

    fn add(&mut self, value: &Value, tags: &Tags) -> std::result::Result<(), String> {
        let Value::Object(fields) = value else {
            return Err("a message is an object with `role` and `content`".into());
        };
        let mut fields = fields.clone();
        let weight = take_weight(&mut fields)?;
        if let Some(tools) = part::unfold(&mut fields)? {
            self.tools = Some(tools);
        }
        let Turn { message, is_calls } = turn(fields, tags)?;
        if is_calls && self.continues_with_calls() {
            return self.add_calls(message, weight);
        }
        self.ends_with_calls = is_calls;
        self.push(message, weight);
        Ok(())
    }

    /// Whether calls belong to the last turn: it has none yet, or came as calls itself.
    fn continues_with_calls(&self) -> bool {
        self.messages.last().is_some_and(|last| {
            last.role == "assistant" && (self.ends_with_calls || !calls_tools(last))
        })
    }

    /// Adds calls to the last turn. In files that give calls a turn of their own (ms-swift's
    /// `tool_call`), the text before them and each further call is another turn.
    fn add_calls(
        &mut self,
        calls: Message,
        weight: Option<f32>,
    ) -> std::result::Result<(), String> {
        let Some((last, of_last)) = self.messages.last_mut().zip(self.weights.last()) else {
            return Ok(());
        };
        if *of_last != weight {
            return Err("the call has another weight than the turn that it belongs to".into());
        }
        let more = calls.extra.get("tool_calls").and_then(Value::as_array).cloned();
        match last.extra.get_mut("tool_calls") {
            Some(Value::Array(list)) => list.extend(more.unwrap_or_default()),
            _ => drop(last.extra.insert("tool_calls".into(), more.unwrap_or_default().into())),
        }
        last.content.push_str(&calls.content);
        self.ends_with_calls = true;
        Ok(())
    }
}

impl Fields<'_> {
    /// A list of messages, one message, or a list as JSON text.
    pub(super) fn dialogue(&self, name: &str) -> Result<Dialogue> {
        let value = self.get(name).ok_or_else(|| self.missing(name))?;
        let parsed: Option<Value> = match value {
            Value::String(text) if text.trim_start().starts_with('[') => {
                source::json_text(text).ok()
            }
            _ => None,
        };
        let list = match parsed.as_ref().unwrap_or(value) {
            Value::Array(list) => list,
            one @ Value::Object(_) => std::slice::from_ref(one),
            other => return Err(self.wrong(name, other, "a list of messages")),
        };
        let mut dialogue = Dialogue::default();
        for (index, value) in list.iter().enumerate() {
            dialogue
                .add(value, &self.reading.tags)
                .map_err(|message| self.error(format!("message {index}: {message}")))?;
        }
        Ok(dialogue)
    }
}

/// A turn, and whether it was given as calls alone.
struct Turn {
    message: Message,
    is_calls: bool,
}

/// A turn in one of the two spellings: `role` and `content`, `from` and `value`.
fn turn(mut fields: Map<String, Value>, tags: &Tags) -> std::result::Result<Turn, String> {
    let role_key = tags.role_key(&fields);
    let content_key = tags.content_key(&fields, role_key);
    let role = match fields.shift_remove(role_key) {
        Some(Value::String(role)) => role,
        Some(_) => return Err(format!("`{role_key}` is not a string")),
        None => return Err(format!("message has no `{role_key}`")),
    };
    let content = match fields.shift_remove(content_key) {
        // A table leaves out what is null.
        None if role_key == "from" && !fields.is_empty() => {
            return Err(format!("no `{content_key}`"));
        }
        content => content.unwrap_or(Value::Null),
    };
    // Templates ask whether a field is there, so a null would count as one.
    fields.retain(|_, value| !value.is_null());
    let calls = calls::take(&mut fields)?;
    let speaker = tags.speaker(&role, role_key)?;
    let is_calls = matches!(speaker, Speaker::Calls);
    let (role, content, calls) = match speaker {
        Speaker::Role(role) => (role, content, calls),
        Speaker::Calls if calls.is_some() => {
            return Err(format!("`{role}` has calls as its content and in another field"));
        }
        Speaker::Calls => {
            let (before, calls) = calls::of_content(&content)
                .map_err(|message| format!("{message} (a turn of `{role}`)"))?;
            ("assistant".into(), before.into(), Some(calls))
        }
    };
    let content = match content {
        // As chat interfaces have it: a turn that only calls has no content.
        Value::String(text) if calls.is_some() && text.trim().is_empty() => Value::Null,
        Value::Null if calls.is_none() => "".into(),
        content => content,
    };
    fields.insert("role".into(), role.into());
    fields.insert("content".into(), content);
    if let Some(calls) = calls {
        fields.insert("tool_calls".into(), calls.into());
    }
    Ok(Turn { message: Message::from_value(Value::Object(fields))?, is_calls })
}

/// The weight that a message says it has. It is removed: it is for the trainer,
/// and a template that served would never see it.
fn take_weight(fields: &mut Map<String, Value>) -> std::result::Result<Option<f32>, String> {
    let mut weight = None;
    for name in ["weight", "loss_weight", "train", "loss"] {
        let Some(value) = fields.shift_remove(name) else { continue };
        let number = value.as_f64().map(|number| number as f32);
        weight = match (&value, number) {
            (Value::Null, _) => weight,
            (Value::Bool(train), _) => Some(f32::from(*train)),
            (_, Some(number)) if number.is_finite() && number >= 0.0 => Some(number),
            _ => return Err(format!("`{name}` is {value}, not a number of 0 or more")),
        };
    }
    Ok(weight)
}
