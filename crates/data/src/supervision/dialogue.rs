//! Messages ready for the template, with what each of them counts.

use serde_json::Value;
use text::Message;

use super::options::{self, Reasoning, SupervisionOptions, System, TrainOn};
use crate::record::{Conversation, calls_tools};
use crate::{Place, RowError};

/// A dialogue as it is rendered.
pub(super) struct Dialogue<'a> {
    pub(super) place: &'a Place,
    pub(super) messages: Vec<Message>,
    /// How much each turn counts in the loss; 0 for context.
    pub(super) learn: Vec<f32>,
    pub(super) tools: Option<&'a Value>,
}

impl<'a> Dialogue<'a> {
    /// A conversation as the options have it.
    pub(super) fn of_conversation(
        conversation: &'a Conversation,
        options: &SupervisionOptions,
    ) -> Result<Self, RowError> {
        let (mut messages, mut learn) = (conversation.messages.clone(), Vec::new());
        for (index, message) in messages.iter().enumerate() {
            let weight = conversation.weights.get(index).copied().unwrap_or(1.0);
            if !(weight.is_finite() && weight >= 0.0) {
                let message = format!("message {index}: weight {weight} is not 0 or more");
                return Err(RowError::new(&conversation.place, message));
            }
            let marked = match message.role.as_str() {
                "assistant" => conversation.supervised[index],
                _ => weight != 0.0,
            };
            let counts = marked && options.roles.contains(&message.role);
            learn.push(match options.train_on {
                _ if !counts => 0.0,
                TrainOn::Weighted => weight,
                TrainOn::All | TrainOn::Last => 1.0,
            });
        }
        if let (TrainOn::Last, Some(last)) =
            (options.train_on, learn.iter().rposition(|&w| w != 0.0))
        {
            learn[..last].fill(0.0);
        }
        set_system(&mut messages, &mut learn, &options.system);
        let tools = conversation.tools.as_ref();
        Dialogue { place: &conversation.place, messages, learn, tools }.prepared(options)
    }

    /// A prompt with a continuation, whose assistant turns are learned.
    pub(super) fn continued(
        place: &'a Place,
        prompt: &[Message],
        continuation: &[Message],
        tools: Option<&'a Value>,
        options: &SupervisionOptions,
    ) -> Result<Self, RowError> {
        let counts = continuation.iter().map(|m| if m.role == "assistant" { 1.0 } else { 0.0 });
        let mut learn: Vec<f32> = vec![0.0; prompt.len()];
        learn.extend(counts);
        let mut messages = [prompt, continuation].concat();
        set_system(&mut messages, &mut learn, &options.system);
        Dialogue { place, messages, learn, tools }.prepared(options)
    }

    /// The same without reasoning where the options say so.
    fn prepared(mut self, options: &SupervisionOptions) -> Result<Self, RowError> {
        if options.reasoning == Reasoning::Keep {
            return Ok(self);
        }
        for (index, message) in self.messages.iter_mut().enumerate() {
            if message.role != "assistant" {
                continue;
            }
            options::strip_reasoning(message);
            let empty = message.content.trim().is_empty() && !calls_tools(message);
            if empty && self.learn[index] != 0.0 {
                let message =
                    format!("message {index}: nothing is left of the turn without its reasoning");
                return Err(RowError::new(self.place, message)
                    .with_hint("train on the reasoning with `reasoning: keep`"));
            }
        }
        Ok(self)
    }

    /// The messages before which the dialogue proper begins: those of the system.
    pub(super) fn head(&self) -> usize {
        self.messages.iter().take_while(|message| is_system(message)).count()
    }

    /// The head and the messages `start..end`.
    pub(super) fn part(&self, start: usize, end: usize) -> Dialogue<'a> {
        let head = self.head();
        Dialogue {
            place: self.place,
            messages: [&self.messages[..head], &self.messages[start..end]].concat(),
            learn: [&self.learn[..head], &self.learn[start..end]].concat(),
            tools: self.tools,
        }
    }

    /// Learns nothing but the last turn that counts.
    pub(super) fn only_last(&mut self) {
        if let Some(last) = self.learn.iter().rposition(|&weight| weight != 0.0) {
            self.learn[..last].fill(0.0);
        }
    }
}

pub(super) fn is_system(message: &Message) -> bool {
    message.role == "system" || message.role == "developer"
}

fn set_system(messages: &mut Vec<Message>, learn: &mut Vec<f32>, system: &System) {
    if *system == System::Keep {
        return;
    }
    let first = messages.iter().find(|message| is_system(message));
    let role = first.map_or("system".to_owned(), |message| message.role.clone());
    let mut kept = messages.iter().map(|message| !is_system(message));
    learn.retain(|_| kept.next().unwrap_or(true));
    messages.retain(|message| !is_system(message));
    if let System::Set(text) = system {
        messages.insert(0, Message::new(role, text.as_str()));
        learn.insert(0, 0.0);
    }
}
