//! Records as plain text, for audits.

use text::{Message, integer};

use super::Supervisor;
use super::dialogue::is_system;
use super::options::{Reasoning, strip_reasoning};
use crate::audit::AuditText;
use crate::record::{LabelledInput, Record, calls_tools};

impl Supervisor {
    /// What a record asks and what it answers.
    ///
    /// A dialogue of several turns asks with all turns before the last one that counts. System messages are left
    /// out: many rows share them, which would make all of them alike. Of several answers the best one is taken.
    pub fn texts(&self, record: &Record) -> AuditText {
        match record {
            Record::Conversation(conversation) => {
                self.split_at_last(&conversation.messages, &conversation.supervised)
            }
            Record::Feedback(feedback) => {
                let conversation = &feedback.conversation;
                self.split_at_last(&conversation.messages, &conversation.supervised)
            }
            Record::Text(text) => AuditText { prompt: String::new(), answer: text.text.clone() },
            Record::Tokens(row) => {
                let learned = |wanted: bool| -> String {
                    let first = row.weights.iter().position(|&weight| weight != 0.0);
                    let (context, answer) = row
                        .tokens
                        .split_at(first.unwrap_or(row.tokens.len()).min(row.tokens.len()));
                    let ids = if wanted { answer } else { context };
                    self.tokenizer.decode(ids, true).unwrap_or_default()
                };
                AuditText { prompt: learned(false), answer: learned(true) }
            }
            Record::Preference(pair) => self.audit_text(&pair.prompt, &pair.chosen),
            Record::Ranked(ranked) => {
                let best = ranked.answers.first().map_or(&[][..], |answer| &answer.messages);
                self.audit_text(&ranked.prompt, best)
            }
            Record::Stepwise(stepwise) => {
                let steps: Vec<&str> =
                    stepwise.steps.iter().map(|step| step.text.as_str()).collect();
                AuditText { answer: steps.join("\n"), ..self.audit_text(&stepwise.prompt, &[]) }
            }
            Record::Labelled(labelled) => {
                let label = labelled.label.clone().unwrap_or_default();
                let asked = match &labelled.input {
                    LabelledInput::Text(text) => {
                        AuditText { prompt: text.clone(), ..AuditText::default() }
                    }
                    LabelledInput::Dialogue { messages, .. } => self.audit_text(messages, &[]),
                };
                AuditText { answer: label, ..asked }
            }
            Record::Prompt(prompt) => {
                let reference = prompt.reference.as_ref();
                let answer = reference.map(|value| match value.as_str() {
                    Some(text) => text.to_owned(),
                    None => integer::plain(value.to_string()),
                });
                let answer = answer.unwrap_or_default();
                AuditText { answer, ..self.audit_text(&prompt.messages, &[]) }
            }
        }
    }

    fn split_at_last(&self, messages: &[Message], counts: &[bool]) -> AuditText {
        let last = counts.iter().rposition(|&counts| counts).unwrap_or(messages.len());
        let answer = messages.get(last..last + 1).unwrap_or_default();
        self.audit_text(&messages[..last], answer)
    }

    fn audit_text(&self, prompt: &[Message], answer: &[Message]) -> AuditText {
        let text = |messages: &[Message]| {
            let shown = messages.iter().filter(|message| !is_system(message));
            shown.map(|message| self.plain(message)).collect::<Vec<_>>().join("\n")
        };
        AuditText { prompt: text(prompt), answer: text(answer) }
    }

    /// A message's content; of a turn that only calls tools, the calls as JSON.
    fn plain(&self, message: &Message) -> String {
        if message.content.is_empty() && calls_tools(message) {
            return integer::plain(message.extra["tool_calls"].to_string());
        }
        if self.options.reasoning == Reasoning::Strip && message.role == "assistant" {
            let mut stripped = message.clone();
            strip_reasoning(&mut stripped);
            return stripped.content;
        }
        message.content.clone()
    }
}
