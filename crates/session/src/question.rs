//! What a model is asked.

use serde_json::Value;
use text::Message;

/// What a model is asked.
#[derive(Clone, Debug, PartialEq)]
pub enum Question {
    /// A dialogue, whose next turn is the answer.
    Dialogue {
        /// The turns so far.
        messages: Vec<Message>,
        /// Tools that are offered.
        tools: Option<Value>,
        /// Whether the user says what the system message is. Otherwise the recipe of the model's run does.
        own_system: bool,
    },
    /// A text to be continued as it is.
    Text(String),
    /// Ids that somebody else made of a text.
    Tokens(Vec<u32>),
}

impl Question {
    /// A dialogue with its messages as they are.
    pub fn of_messages(messages: Vec<Message>) -> Self {
        Question::Dialogue { messages, tools: None, own_system: true }
    }

    /// What to show of it: the last turn, or the text.
    pub fn last(&self) -> String {
        match self {
            Question::Dialogue { messages, .. } => {
                messages.last().map_or(String::new(), |last| last.content.clone())
            }
            Question::Text(text) => text.clone(),
            Question::Tokens(tokens) => format!("{} tokens", tokens.len()),
        }
    }
}
