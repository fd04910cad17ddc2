//! Turns as the peers' files and the hosted interfaces write them.

mod part;
mod speaker;

use serde_json::{Map, Value};
use text::Message;

use super::field::{Fields, Result};

use part::calls;
use speaker::Speaker;
pub use speaker::Tags;

/// A list of turns, each with the weight that it says it has.
#[derive(Clone, Default)]
pub(super) struct Dialogue {
    pub(super) messages: Vec<Message>,
    pub(super) weights: Vec<Option<f32>>,
    /// Tools that stand among the turns.
    pub(super) tools: Option<Value>,
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
        self.push(message(fields, tags)?, weight);
        Ok(())
    }
}

impl Fields<'_> {
    /// A list of messages, one message, or a list as JSON text.
    pub(super) fn dialogue(&self, name: &str) -> Result<Dialogue> {
        let value = self.get(name).ok_or_else(|| self.missing(name))?;
        let parsed: Option<Value> = match value {
            Value::String(text) if text.trim_start().starts_with('[') => {
                serde_json::from_str(text).ok()
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

/// A turn in one of the two spellings: `role` and `content`, `from` and `value`.
fn message(mut fields: Map<String, Value>, tags: &Tags) -> std::result::Result<Message, String> {
    let role_key = tags.role_key(&fields);
    let content_key = tags.content_key(&fields, role_key);
    let role = match fields.shift_remove(role_key) {
        Some(Value::String(role)) => role,
        Some(_) => return Err(format!("`{role_key}` is not a string")),
        None => return Err(format!("message has no `{role_key}`")),
    };
    match fields.shift_remove(content_key) {
        Some(value) => drop(fields.insert("content".into(), value)),
        None if role_key == "from" => return Err(format!("no `{content_key}`")),
        None => {}
    }
    let role = match tags.speaker(&role, role_key)? {
        Speaker::Role(role) => role,
        Speaker::Calls => {
            let calls = match fields.get("content") {
                Some(Value::String(text)) => calls(text)?,
                _ => return Err(format!("the calls of `{role}` are not text")),
            };
            // As chat interfaces have it: a turn that only calls has no content.
            fields.insert("content".into(), Value::Null);
            fields.insert("tool_calls".into(), calls);
            "assistant".into()
        }
    };
    fields.insert("role".into(), role.into());
    Message::from_value(Value::Object(fields))
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
