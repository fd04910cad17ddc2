//! One turn of a conversation.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

/// A message as templates see it: `role`, `content`, and whatever else the
/// record holds (`tool_calls`, `reasoning_content`, `name`, ...).
///
/// In files the content may also be `null` or absent (an assistant turn that
/// only calls tools) or a list of parts. `content` is then the text of the
/// parts, and `extra["content"]` keeps what stood there, so that a template
/// sees it unchanged for as long as the text is not edited.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Message {
    /// Who speaks: `system`, `user`, `assistant`, `tool`, ...
    pub role: String,
    /// What is said.
    pub content: String,
    /// All other fields, in the order of the file.
    pub extra: Map<String, Value>,
}

impl Message {
    /// A message of plain text.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Message { role: role.into(), content: content.into(), extra: Map::new() }
    }

    /// The message as a JSON object, `role` and `content` first.
    pub fn to_value(&self) -> Value {
        let mut fields = Map::new();
        fields.insert("role".into(), self.role.clone().into());
        let content = match self.extra.get("content") {
            Some(original) if text_of(original).as_ref() == Some(&self.content) => original.clone(),
            _ => self.content.clone().into(),
        };
        fields.insert("content".into(), content);
        let extra = self.extra.iter().filter(|(key, _)| *key != "content" && *key != "role");
        fields.extend(extra.map(|(key, value)| (key.clone(), value.clone())));
        Value::Object(fields)
    }

    /// Reads a message, or says what is wrong with it.
    pub fn from_value(value: Value) -> Result<Self, String> {
        let Value::Object(mut extra) = value else {
            return Err("a message is an object with `role` and `content`".into());
        };
        let role = match extra.shift_remove("role") {
            Some(Value::String(role)) => role,
            Some(_) => return Err("`role` is not a string".into()),
            None => return Err("message has no `role`".into()),
        };
        let content = match extra.get("content") {
            Some(Value::String(_)) => match extra.shift_remove("content") {
                Some(Value::String(content)) => content,
                _ => String::new(),
            },
            // Tables of records make an absent field null, and so do we.
            None => {
                extra.insert("content".into(), Value::Null);
                String::new()
            }
            Some(other) => text_of(other).ok_or(
                "`content` is neither a string, nor null, nor a list of `{type: text, text: ...}`",
            )?,
        };
        Ok(Message { role, content, extra })
    }
}

/// The text of a content that is not a plain string; nothing for what has none.
fn text_of(content: &Value) -> Option<String> {
    match content {
        Value::Null => Some(String::new()),
        Value::Array(parts) => {
            parts.iter().map(|part| part.as_str().or_else(|| part.get("text")?.as_str())).collect()
        }
        _ => None,
    }
}

impl Serialize for Message {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_value().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Message {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Message::from_value(Value::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_message_comes_back_as_it_was() {
        for value in [
            json!({"role": "user", "content": "hi"}),
            json!({"role": "user", "content": "hi", "name": "Ada", "weight": 0}),
            json!({"role": "assistant", "content": null, "tool_calls": [{"id": "1"}]}),
            json!({"role": "user", "content": [{"type": "text", "text": "hi"}]}),
        ] {
            let message: Message = serde_json::from_value(value.clone()).unwrap();
            assert_eq!(message.to_value(), value);
        }
    }

    #[test]
    fn parts_are_joined_and_an_edit_replaces_them() {
        let parts = json!([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]);
        let mut message = Message::from_value(json!({"role": "user", "content": parts})).unwrap();
        assert_eq!(message.content, "ab");
        message.content.push('c');
        assert_eq!(message.to_value()["content"], "abc");
    }

    #[test]
    fn an_absent_content_is_null() {
        let message = Message::from_value(json!({"role": "assistant"})).unwrap();
        assert_eq!(message.to_value(), json!({"role": "assistant", "content": null}));
    }

    #[test]
    fn what_is_no_message_is_refused() {
        for value in [
            json!("hi"),
            json!({"content": "hi"}),
            json!({"role": 1, "content": "hi"}),
            json!({"role": "user", "content": 3}),
            json!({"role": "user", "content": [{"type": "image"}]}),
        ] {
            assert!(Message::from_value(value.clone()).is_err(), "{value}");
        }
    }
}
