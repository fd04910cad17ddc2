//! A dialogue, and which of its turns the model should learn.

use serde_json::Value;
use text::Message;

use super::check;
use super::field::{Fields, Result};
use super::turn::Dialogue;
use crate::finding::Kind;
use crate::{Findings, Level, Place, RowError};

/// A dialogue as the chat template takes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Conversation {
    /// Where it stands.
    pub place: Place,
    /// Its turns.
    pub messages: Vec<Message>,
    /// Which turns count in the loss: assistant turns, at least one.
    pub supervised: Vec<bool>,
    /// How much each turn counts where it is learned, one a message: 1 unless the row says otherwise.
    pub weights: Vec<f32>,
    /// Tools offered to the assistant, for the template.
    pub tools: Option<Value>,
}

impl Conversation {
    /// A conversation in which all assistant turns count unless marked otherwise.
    pub(super) fn new(fields: &Fields<'_>, dialogue: Dialogue) -> Result<Self> {
        let Dialogue { messages, weights: marks, tools, .. } = dialogue;
        let mut weights = Vec::with_capacity(messages.len());
        let mut supervised = Vec::with_capacity(messages.len());
        for (index, (message, mark)) in messages.iter().zip(marks).enumerate() {
            let is_assistant = message.role == "assistant";
            if mark.is_some_and(|weight| weight > 0.0) && !is_assistant {
                let error = format!("message {index}: only assistant turns can be learned");
                let hint = format!("remove the weight of the `{}` turn", message.role);
                return Err(fields.error(error).with_hint(hint));
            }
            let weight = mark.unwrap_or(1.0);
            supervised.push(is_assistant && weight > 0.0);
            weights.push(weight);
        }
        let tools = fields.tools()?.or(tools);
        Ok(Conversation { place: fields.place.clone(), messages, supervised, weights, tools })
    }

    /// Puts the default system message in front where there is none.
    pub(super) fn add_system(&mut self, text: Option<&str>) {
        if check::add_system(&mut self.messages, text) {
            self.supervised.insert(0, false);
            self.weights.insert(0, 1.0);
        }
    }

    /// Checks what holds for every shape.
    pub(super) fn check(&self, findings: &mut Findings) -> std::result::Result<(), RowError> {
        check::turns(&self.messages, &self.place)?;
        let Some(last) = self.supervised.iter().rposition(|&counts| counts) else {
            let has_answer = self.messages.iter().any(|message| message.role == "assistant");
            let message = if has_answer {
                "every assistant turn has weight 0"
            } else {
                "conversation has no assistant turn"
            };
            return Err(RowError::new(&self.place, message));
        };
        if last + 1 < self.messages.len() {
            findings.add(&TRAILING_TURNS, &self.place);
        }
        check::note_order(&self.messages, &self.place, findings);
        Ok(())
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
    message: "the conversation continues after the last assistant turn that counts; the rest is not trained on",
    hint: "end each conversation with the answer that should be learned",
};
