//! Which tokens of a conversation the model learns, proven on the template that
//! will serve it.
//!
//! For an assistant turn `i` let `p` be the messages before it, rendered with
//! the generation prompt, and `f` the messages up to it. Where `p` is a prefix
//! of `f`, a row is `tokens(p) ++ tokens(the rest of f)`: what serving feeds, and
//! what the model must then emit. The mask ends with the end-of-turn token.
//!
//! Where `p` is no prefix, or the template leaves out reasoning that the model
//! must emit, the turn is a row of its own: `p`, the content as it is emitted,
//! and the end-of-turn token. A turn of another role has as `p` the messages
//! before it without the generation prompt.
//!
//! What is learned of a turn must then be the turn: its content, its reasoning, the names and the
//! argument values of its calls, each of them and none twice. What a template leaves out is a
//! finding, and an error where it is the answer.

mod assemble;
mod checks;
mod dialogue;
mod end_of_turn;
mod findings;
mod fingerprint;
mod options;
mod proof;
mod records;
mod render;
mod split;
mod texts;
mod turn;

use serde_json::{Map, Value};
use text::{ChatTemplate, Message, Metadata, Tokenizer};

use crate::record::{Conversation, Prompt};
use crate::{Error, Findings, Result, RowError, Sequence};
use dialogue::Dialogue;
use findings as kind;

pub(crate) use findings::NO_END_OF_TURN;
pub use options::{Reasoning, SupervisionOptions, System, TrainOn};

/// Turns records into sequences for one model.
#[derive(Clone)]
pub struct Supervisor {
    tokenizer: Tokenizer,
    /// None of a model that continues raw text only.
    template: Option<ChatTemplate>,
    options: SupervisionOptions,
    /// Variables for the template, such as `enable_thinking`.
    kwargs: Map<String, Value>,
    /// Ids at which the model stops when it generates.
    eos_token_ids: Vec<u32>,
    /// The special tokens as text.
    special: Vec<String>,
    /// The characters with which they begin.
    special_starts: Vec<char>,
    /// Whether the tokenizer puts a beginning-of-sequence token before a raw text.
    adds_bos: bool,
    /// The token for what the tokenizer has no token for, if it ever gives it.
    unknown: Option<u32>,
}

impl Supervisor {
    /// The supervisor of a model that has a chat template.
    pub fn from_metadata(metadata: &Metadata, kwargs: Map<String, Value>) -> Result<Self> {
        let template = metadata.chat_template.as_ref().ok_or_else(|| Error::Setting {
            key: "model".into(),
            message: "the model has no chat template, so its conversations have no form".into(),
            hint: Some(
                "take the model's instruct version, or give a template: \
                 `model: {id: ..., chat_template: FILE}`"
                    .into(),
            ),
        })?;
        Self::new(&metadata.tokenizer, template, &metadata.eos_token_ids, kwargs)
    }

    /// A supervisor from its parts.
    ///
    /// A template whose special tokens the tokenizer would split is an error.
    pub fn new(
        tokenizer: &Tokenizer,
        template: &ChatTemplate,
        eos_token_ids: &[u32],
        kwargs: Map<String, Value>,
    ) -> Result<Self> {
        let missing = template.missing_tokens(tokenizer);
        if !missing.is_empty() {
            return Err(Error::Setting {
                key: "model.chat_template".into(),
                message: format!("the tokenizer has no token {}", missing.join(", ")),
                hint: Some("use the template that belongs to this tokenizer".into()),
            });
        }
        let base = Self::without_template(tokenizer, eos_token_ids);
        Ok(Supervisor { template: Some(template.clone()), kwargs, ..base })
    }

    /// The supervisor of a model without a chat template: it takes [`Record::Text`](crate::record::Record::Text)
    /// and [`Record::Tokens`](crate::record::Record::Tokens), and has an error for any other record.
    pub fn for_text(metadata: &Metadata) -> Self {
        Self::without_template(&metadata.tokenizer, &metadata.eos_token_ids)
    }

    /// A supervisor of prompts alone: a model answers whatever its template makes of special tokens.
    pub fn for_prompts(metadata: &Metadata, kwargs: Map<String, Value>) -> Self {
        let template = metadata.chat_template.clone();
        Supervisor { template, kwargs, ..Self::for_text(metadata) }
    }

    /// The same with system messages as they are.
    pub fn with_own_system(mut self) -> Self {
        self.options.system = System::Keep;
        self
    }

    /// The tokens of a prompt, as they stand before the answer in a row of training.
    pub fn prompt_tokens(&self, prompt: &Prompt) -> std::result::Result<Vec<u32>, RowError> {
        self.opened(&prompt.place, &prompt.messages, prompt.tools.as_ref())
    }

    /// The messages of a prompt, as the options have them.
    pub fn shown(
        prompt: &Prompt,
        options: &SupervisionOptions,
    ) -> std::result::Result<Vec<Message>, RowError> {
        let dialogue = Dialogue::continued(&prompt.place, &prompt.messages, &[], None, options)?;
        Ok(dialogue.messages)
    }

    /// The token with which the tokenizer begins a sequence, if it has one.
    pub(crate) fn bos(&self) -> Option<u32> {
        self.tokenizer.bos()
    }

    /// The same with other options.
    pub fn with(self, options: SupervisionOptions) -> Self {
        Supervisor { options, ..self }
    }

    fn without_template(tokenizer: &Tokenizer, eos_token_ids: &[u32]) -> Self {
        let ids = 0..tokenizer.vocab_size() as u32;
        let special = ids.filter(|&id| tokenizer.is_special(id));
        let special: Vec<String> =
            special.filter_map(|id| tokenizer.token(id)).filter(|t| !t.is_empty()).collect();
        let mut special_starts: Vec<char> =
            special.iter().filter_map(|token| token.chars().next()).collect();
        special_starts.sort_unstable();
        special_starts.dedup();
        let before = tokenizer.encode_with_special("").unwrap_or_default();
        // A character that no vocabulary has: where it is made of bytes, nothing is ever unknown.
        let strange = tokenizer.encode("\u{10fffd}").unwrap_or_default();
        let unknown = tokenizer.special().get("unk_token").and_then(|token| tokenizer.id(token));
        Supervisor {
            template: None,
            options: SupervisionOptions::default(),
            kwargs: Map::new(),
            eos_token_ids: eos_token_ids.to_vec(),
            adds_bos: tokenizer.bos().is_some_and(|bos| before.first() == Some(&bos)),
            unknown: unknown.filter(|id| strange.contains(id)),
            special,
            special_starts,
            tokenizer: tokenizer.clone(),
        }
    }

    /// The sequences of one conversation: one where every turn continues what
    /// the turn before has rendered, else one a turn.
    pub fn supervise(
        &self,
        row: u64,
        conversation: &Conversation,
        findings: &mut Findings,
    ) -> std::result::Result<Vec<Sequence>, RowError> {
        let dialogue = Dialogue::of_conversation(conversation, &self.options)?;
        let mut found = Findings::default();
        let sequences = self.dialogue(row, &dialogue, &mut found)?;
        if sequences.is_empty() {
            let message = "no turn of the conversation is of a role that is learned";
            let hint = format!("learned are turns of {}", self.options.roles.join(", "));
            return Err(RowError::new(&conversation.place, message).with_hint(hint));
        }
        match self.options.split_beyond {
            Some(max) if sequences.iter().any(|sequence| sequence.len() > max) => {
                self.split(row, &dialogue, max, findings)
            }
            _ => {
                findings.merge(found);
                Ok(sequences)
            }
        }
    }
}
