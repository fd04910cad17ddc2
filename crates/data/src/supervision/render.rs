//! Turns before and after they are given, as the template renders them.

use serde_json::Value;
use text::{ChatTemplate, Message, RenderOptions};

use super::dialogue::Dialogue;
use super::turn::{self, Piece, Turn};
use super::{Findings, Supervisor, kind};
use crate::record::calls_tools;
use crate::{Place, RowError};

pub(super) type RowResult<T> = std::result::Result<T, RowError>;

impl Supervisor {
    /// The template, which rows of raw text and of tokens do without.
    fn template(&self, place: &Place) -> RowResult<&ChatTemplate> {
        self.template.as_ref().ok_or_else(|| {
            let message =
                "the model has no chat template, so that only texts and tokens have a form";
            RowError::new(place, message).with_hint(
                "take the model's instruct version, or give a template with `model.chat_template`",
            )
        })
    }

    pub(super) fn render(
        &self,
        dialogue: &Dialogue<'_>,
        until: usize,
        add_generation_prompt: bool,
    ) -> RowResult<String> {
        let options = RenderOptions {
            add_generation_prompt,
            tools: dialogue.tools,
            kwargs: Some(&self.kwargs),
            ..RenderOptions::default()
        };
        let template = self.template(dialogue.place)?;
        template.render(&dialogue.messages[..until], &options).map_err(|error| {
            let hint = error.hint().map(str::to_owned);
            RowError { hint, ..RowError::new(dialogue.place, error.to_string()) }
        })
    }

    /// Renders before and after every turn that counts.
    pub(super) fn turns<'a>(&self, dialogue: &'a Dialogue<'_>) -> RowResult<Vec<Turn<'a>>> {
        let mut turns = Vec::new();
        for (index, message) in dialogue.messages.iter().enumerate() {
            let weight = dialogue.learn[index];
            if weight == 0.0 {
                continue;
            }
            let full = self.render(dialogue, index + 1, false)?;
            let is_assistant = message.role == "assistant";
            let prompt = match index {
                // Before the first turn there is nothing, which many templates cannot render.
                0 if !is_assistant => self.render(dialogue, 0, false).unwrap_or_default(),
                _ => self.render(dialogue, index, is_assistant)?,
            };
            let proven = full.starts_with(&prompt);
            let mut turn = Turn { index, message, weight, proven, prompt, full };
            if let Some(calls) = turn.rendered_calls(&self.special) {
                check_tool_calls(dialogue.place, message, calls)?;
            }
            if !turn.proven && !is_assistant {
                let role = &message.role;
                let message = format!(
                    "message {index}: the template renders what is before this `{role}` turn \
                     differently once the turn is there, so that it cannot be learned"
                );
                return Err(RowError::new(dialogue.place, message)
                    .with_hint(format!("leave `{role}` out of the roles that are trained")));
            }
            if is_assistant && turn.loses_reasoning() && self.knows_reasoning(&turn) {
                turn.proven = false;
            }
            turns.push(turn);
        }
        Ok(turns)
    }

    /// Whether reasoning that the template leaves out is still what the model emits: the row writes it as the
    /// model does, or the template speaks of it.
    fn knows_reasoning(&self, turn: &Turn<'_>) -> bool {
        let mentions = |template: &ChatTemplate| template.mentions("think>");
        !calls_tools(turn.message)
            && (turn.message.content.contains("</think>")
                || self.template.as_ref().is_some_and(mentions))
    }

    /// The rows of a dialogue as pieces: one row where every turn continues what the turn before has rendered,
    /// else one a turn.
    pub(super) fn rows<'a>(
        &self,
        turns: &'a [Turn<'a>],
        place: &Place,
        findings: &mut Findings,
    ) -> Vec<Vec<Piece<'a>>> {
        if turn::nested(turns) {
            return vec![turn::pieces(turns)];
        }
        findings.add(&kind::TURN_OF_ITS_OWN, place);
        turns.iter().map(|turn| self.alone(turn)).collect()
    }

    /// The pieces of a turn that stands by itself.
    fn alone<'a>(&self, turn: &'a Turn<'a>) -> Vec<Piece<'a>> {
        if turn.proven {
            return turn::pieces(std::slice::from_ref(turn));
        }
        let answer = match turn.rendered_calls(&self.special) {
            Some(calls) => calls.to_owned(),
            None => turn.emission() + &self.end_text(turn),
        };
        vec![
            Piece { text: turn.prompt.as_str().into(), learned: None },
            Piece { text: answer.into(), learned: Some(turn) },
        ]
    }
}

/// Checks that what the template writes for a turn names the functions that it calls.
fn check_tool_calls(place: &Place, message: &Message, written: &str) -> RowResult<()> {
    let calls = message.extra.get("tool_calls").and_then(Value::as_array).into_iter().flatten();
    for call in calls {
        let call = call.get("function").unwrap_or(call);
        let name = call.get("name").and_then(Value::as_str).unwrap_or_default();
        if !written.contains(name) {
            let message = format!("the chat template does not write the call of `{name}`");
            return Err(RowError::new(place, message)
                .with_hint("use a model whose template knows `tool_calls`"));
        }
    }
    Ok(())
}
