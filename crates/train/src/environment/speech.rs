//! What an environment says, as tokens: what the chat template puts behind an answer.

use data::Unit;
use serde_json::{Map, Value};
use text::{ChatTemplate, Message, Metadata, RenderOptions, Tokenizer};

use crate::reward::RewardError;
use crate::{Error, Result};

/// Stands for an answer. The tokens of the answer itself are those that were drawn, which may be no text that the
/// tokenizer would cut the same way.
const STAND_IN: &str = "Qj7standin";

/// The words of a model's chat template around turns.
pub(crate) struct Speech {
    tokenizer: Tokenizer,
    template: ChatTemplate,
    kwargs: Map<String, Value>,
    eos_token_ids: Vec<u32>,
}

type Said = std::result::Result<Vec<u32>, RewardError>;

impl Speech {
    /// That of a model, with the recipe's variables for its template.
    pub(crate) fn new(metadata: &Metadata, kwargs: Map<String, Value>) -> Result<Self> {
        let Some(template) = metadata.chat_template.clone() else {
            let message = "the model has no chat template, so an environment cannot answer it";
            let hint = "take the model's instruct version, or give a template: `model: {id: ..., chat_template: FILE}`";
            return Err(Error::refused(message, hint));
        };
        Ok(Speech {
            tokenizer: metadata.tokenizer.clone(),
            template,
            kwargs,
            eos_token_ids: metadata.eos_token_ids.clone(),
        })
    }

    /// What stands for an answer in a conversation.
    pub(crate) fn stand_in() -> Message {
        Message::new("assistant", STAND_IN)
    }

    /// The tokens of a conversation that the model is to go on with.
    pub(crate) fn opened(&self, messages: &[Message], tools: Option<&Value>) -> Said {
        self.encode(&self.render(messages, tools, true)?)
    }

    /// The tokens behind the end of an answer, up to where the next one begins. `before` are the turns before the
    /// answer, in which [`Speech::stand_in`] stands for earlier ones.
    pub(crate) fn observed(
        &self,
        before: &[Message],
        observation: &[Message],
        tools: Option<&Value>,
    ) -> Said {
        let answered = [before, &[Self::stand_in()]].concat();
        let whole = self.render(&[&answered[..], observation].concat(), tools, true)?;
        let earlier = self.render(before, tools, false)?;
        if !whole.starts_with(&earlier) {
            let roles: Vec<String> =
                observation.iter().map(|turn| format!("`{}`", turn.role)).collect();
            let message = format!(
                "the chat template writes earlier turns in another way when a turn of {} follows",
                roles.join(" and ")
            );
            let hint = "let the environment answer with turns of another `role`, or take another template: `model.chat_template`";
            return Err(RewardError::new(message).with_hint(hint));
        }
        let alone = self.render(&answered, tools, false)?;
        let (rest, closing) = (behind(&whole), behind(&alone));
        let (Some(rest), Some(closing)) = (rest, closing) else {
            return Err(RewardError::new("the chat template does not write the answer as it is"));
        };
        let tokens = self.encode(rest)?;
        let end =
            |tokens: &[u32]| tokens.iter().position(|token| self.eos_token_ids.contains(token));
        // The token that ends the answer, and not one that ends the observation.
        match (end(&tokens), end(&self.encode(closing)?)) {
            (Some(own), Some(alone)) if own == alone => Ok(tokens[own + 1..].to_vec()),
            _ => {
                let message = "the chat template does not end an answer with a token at which the model stops";
                let hint = "take the template that belongs to the model: `model.chat_template`";
                Err(RewardError::new(message).with_hint(hint))
            }
        }
    }

    /// Refuses a template that cannot write what an environment says, neither as user nor as tool.
    pub(crate) fn check(&self, prompt: &Unit) -> Result<()> {
        let (messages, tools) = (messages(&prompt.side), prompt.side.get("tools"));
        let say = |role| self.observed(&messages, &[Message::new(role, "x")], tools);
        match (say("user"), say("tool")) {
            (Err(RewardError { message, hint }), Err(_)) => {
                let place = &prompt.sequences[0].place;
                Err(Error::Refused { message: format!("{place}: `environment`: {message}"), hint })
            }
            _ => Ok(()),
        }
    }

    fn render(
        &self,
        messages: &[Message],
        tools: Option<&Value>,
        add_generation_prompt: bool,
    ) -> std::result::Result<String, RewardError> {
        let kwargs = Some(&self.kwargs);
        let options =
            RenderOptions { add_generation_prompt, tools, kwargs, ..RenderOptions::default() };
        self.template.render(messages, &options).map_err(|error| {
            let hint = error.hint().map(str::to_owned);
            RewardError { message: error.to_string(), hint }
        })
    }

    fn encode(&self, text: &str) -> Said {
        self.tokenizer.encode(text).map_err(|error| RewardError::new(error.to_string()))
    }
}

/// What stands behind the last answer.
fn behind(text: &str) -> Option<&str> {
    text.rfind(STAND_IN).map(|at| &text[at + STAND_IN.len()..])
}

/// The turns of a prompt, as a prepared row keeps them.
pub(crate) fn messages(side: &Map<String, Value>) -> Vec<Message> {
    let turns = side.get("messages").and_then(Value::as_array).into_iter().flatten();
    let turn = |turn: &Value| Message::from_value(turn.clone());
    turns.map(|value| turn(value).expect("messages are kept as they can be read")).collect()
}
