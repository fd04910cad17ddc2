//! A dialogue, and which of its turns the model should learn.

use serde_json::Value;
use text::Message;

use crate::finding::Kind;
use crate::source::Row;
use crate::{Findings, Level, Place, RowError};

const ROLES: [&str; 5] = ["system", "developer", "user", "assistant", "tool"];

/// A dialogue as the chat template takes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Conversation {
    /// Where it stands.
    pub place: Place,
    /// Its turns.
    pub messages: Vec<Message>,
    /// Which turns count in the loss: assistant turns, at least one.
    pub supervised: Vec<bool>,
    /// Tools offered to the assistant, for the template.
    pub tools: Option<Value>,
}

impl Conversation {
    /// A conversation in which all assistant turns count unless marked otherwise.
    pub(super) fn new(
        row: &Row,
        messages: Vec<Message>,
        marks: &[Option<bool>],
        tools: Option<Value>,
    ) -> Result<Self, RowError> {
        let mut supervised = Vec::with_capacity(messages.len());
        for (index, message) in messages.iter().enumerate() {
            let is_assistant = message.role == "assistant";
            let mark = marks.get(index).copied().flatten();
            if mark == Some(true) && !is_assistant {
                let message = format!("message {index}: only assistant turns can be learned");
                return Err(RowError::new(&row.place, message).with_hint(format!(
                    "remove the weight of the `{}` turn",
                    messages[index].role
                )));
            }
            supervised.push(is_assistant && mark.unwrap_or(true));
        }
        Ok(Conversation { place: row.place.clone(), messages, supervised, tools })
    }

    /// Puts a system message in front.
    pub(super) fn put_first(&mut self, system: Option<Message>) {
        if let Some(system) = system {
            self.messages.insert(0, system);
            self.supervised.insert(0, false);
        }
    }

    /// Puts the default system message in front where there is none.
    pub(super) fn add_system(&mut self, text: Option<&str>) {
        let has_one =
            self.messages.first().is_some_and(|m| m.role == "system" || m.role == "developer");
        if let (Some(text), false) = (text, has_one) {
            self.put_first(Some(Message::new("system", text)));
        }
    }

    /// Checks what holds for every shape.
    pub(super) fn check(&self, findings: &mut Findings) -> Result<(), RowError> {
        let error = |message: String| Err(RowError::new(&self.place, message));
        for (index, message) in self.messages.iter().enumerate() {
            if !ROLES.contains(&message.role.as_str()) {
                return error(format!("message {index}: unknown role `{}`", message.role))
                    .map_err(|error| error.with_hint(format!("roles are {}", ROLES.join(", "))));
            }
            let empty = message.content.trim().is_empty();
            if empty && message.role == "assistant" && !calls_tools(message) {
                return error(format!("message {index}: assistant turn is empty"));
            }
        }
        let Some(last) = self.supervised.iter().rposition(|&counts| counts) else {
            return if self.messages.iter().any(|message| message.role == "assistant") {
                error("every assistant turn has weight 0".into())
            } else {
                error("conversation has no assistant turn".into())
            };
        };
        self.note_oddities(last, findings);
        Ok(())
    }

    fn note_oddities(&self, last: usize, findings: &mut Findings) {
        if last + 1 < self.messages.len() {
            findings.add(&TRAILING_TURNS, &self.place);
        }
        let is = |index: usize, role: &str| self.messages[index].role == role;
        if (1..self.messages.len()).any(|i| is(i, "assistant") && is(i - 1, "assistant")) {
            findings.add(&ASSISTANT_TWICE, &self.place);
        }
        if self.messages.iter().any(|m| m.role == "user" && m.content.trim().is_empty()) {
            findings.add(&EMPTY_USER_TURN, &self.place);
        }
    }
}

/// Whether a turn calls tools, so that it may be without text.
pub(crate) fn calls_tools(message: &Message) -> bool {
    let calls = message.extra.get("tool_calls").and_then(Value::as_array);
    calls.is_some_and(|calls| !calls.is_empty())
}

const TRAILING_TURNS: Kind = Kind {
    id: "trailing-turns",
    level: Level::Warning,
    message: "the conversation goes on after the last assistant turn that counts; the rest is not trained on",
    hint: "end each conversation with the answer that should be learned",
};
const ASSISTANT_TWICE: Kind = Kind {
    id: "assistant-twice",
    level: Level::Warning,
    message: "two assistant turns follow each other",
    hint: "merge them, or check that no user turn was lost",
};
const EMPTY_USER_TURN: Kind = Kind {
    id: "empty-user-turn",
    level: Level::Warning,
    message: "a user turn is empty",
    hint: "check that the prompt was not lost",
};
