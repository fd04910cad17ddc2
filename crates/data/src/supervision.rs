//! Which tokens of a conversation the model learns, proven on the template that
//! will serve it.
//!
//! For an assistant turn `i` let `p` be the messages before it, rendered with
//! the generation prompt, and `f` the messages up to it. Where `p` is a prefix
//! of `f`, a row is `tokens(p) ++ tokens(the rest of f)`: what serving feeds, and
//! what the model must then emit. The mask ends with the end-of-turn token.

mod end_of_turn;
mod findings;
mod turn;

use serde_json::{Map, Value};
use text::{ChatTemplate, Message, Metadata, RenderOptions, Tokenizer};

use crate::record::Conversation;
use crate::{Error, Findings, Result, RowError, Sequence};
use findings as kind;
use turn::{Piece, Turn};

pub(crate) use findings::NO_END_OF_TURN;

/// Turns conversations into sequences for one model.
#[derive(Clone)]
pub struct Supervisor {
    tokenizer: Tokenizer,
    template: ChatTemplate,
    /// Variables for the template, such as `enable_thinking`.
    kwargs: Map<String, Value>,
    /// Ids at which the model stops when it generates.
    eos_token_ids: Vec<u32>,
    /// The special tokens as text.
    special: Vec<String>,
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
        let ids = 0..tokenizer.vocab_size() as u32;
        let special = ids.filter(|&id| tokenizer.is_special(id));
        let special = special.filter_map(|id| tokenizer.token(id)).filter(|t| !t.is_empty());
        Ok(Supervisor {
            special: special.collect(),
            tokenizer: tokenizer.clone(),
            template: template.clone(),
            kwargs,
            eos_token_ids: eos_token_ids.to_vec(),
        })
    }

    /// The sequences of one conversation: one where every turn continues what
    /// the turn before has rendered, else one a turn.
    pub fn supervise(
        &self,
        row: u64,
        conversation: &Conversation,
        findings: &mut Findings,
    ) -> std::result::Result<Vec<Sequence>, RowError> {
        let turns = self.turns(conversation)?;
        self.note_messages(conversation, &turns, findings);
        let rows = if turn::nested(&turns) {
            vec![turn::pieces(&turns)]
        } else {
            findings.add(&kind::TURN_OF_ITS_OWN, &conversation.place);
            turns.iter().map(|turn| self.alone(turn)).collect()
        };
        let sequence = |pieces: Vec<Piece<'_>>| self.sequence(row, conversation, pieces, findings);
        rows.into_iter().map(sequence).collect()
    }

    /// Renders before and after every turn that counts.
    fn turns<'a>(
        &self,
        conversation: &'a Conversation,
    ) -> std::result::Result<Vec<Turn<'a>>, RowError> {
        let render = |until: usize, add_generation_prompt| {
            let tools = conversation.tools.as_ref();
            let options = RenderOptions {
                add_generation_prompt,
                tools,
                kwargs: Some(&self.kwargs),
                ..RenderOptions::default()
            };
            self.template.render(&conversation.messages[..until], &options).map_err(|error| {
                let row_error = RowError::new(&conversation.place, error.to_string());
                RowError { hint: error.hint().map(str::to_owned), ..row_error }
            })
        };
        let mut turns = Vec::new();
        for (index, message) in conversation.messages.iter().enumerate() {
            if conversation.supervised[index] {
                let (prompt, full) = (render(index, true)?, render(index + 1, false)?);
                check_tool_calls(conversation, message, &full)?;
                turns.push(Turn { message, prompt, full });
            }
        }
        Ok(turns)
    }

    /// The pieces of a turn that stands by itself.
    fn alone<'a>(&self, turn: &'a Turn<'a>) -> Vec<Piece<'a>> {
        if turn.full.starts_with(&turn.prompt) {
            return turn::pieces(std::slice::from_ref(turn));
        }
        let mut answer = turn.emission().to_owned();
        let end = self.end_text(turn);
        answer.push_str(&end);
        vec![
            Piece { text: turn.prompt.as_str().into(), learned: None },
            Piece { text: answer.into(), learned: Some(turn.message) },
        ]
    }

    fn sequence(
        &self,
        row: u64,
        conversation: &Conversation,
        pieces: Vec<Piece<'_>>,
        findings: &mut Findings,
    ) -> std::result::Result<Sequence, RowError> {
        let place = &conversation.place;
        let fail = |error: text::Error| RowError::new(place, error.to_string());
        let (mut tokens, mut weights) = (Vec::new(), Vec::new());
        for piece in &pieces {
            let ids = self.tokenizer.encode(&piece.text).map_err(fail)?;
            let learned = match piece.learned {
                None => 0,
                Some(message) => self.learned(&piece.text, &ids, message, place, findings)?,
            };
            weights.extend((0..ids.len()).map(|i| if i < learned { 1.0 } else { 0.0 }));
            tokens.extend(ids);
        }
        if let Some(first) = weights.first_mut() {
            *first = 0.0; // Nothing predicts a first token.
        }
        let whole: String = pieces.iter().map(|piece| piece.text.as_ref()).collect();
        if self.tokenizer.encode(&whole).map_err(fail)? != tokens {
            findings.add(&kind::SPLIT_TOKENS, place);
        }
        if let [first, second, ..] = tokens[..]
            && first == second
            && self.tokenizer.bos() == Some(first)
        {
            findings.add(&kind::DOUBLE_BOS, place);
        }
        let sequence =
            Sequence { row, group: row as u32, role: 0, tokens, weights, place: place.clone() };
        if sequence.supervised() == 0 {
            return Err(RowError::new(place, "no token of the answer is left to learn"));
        }
        Ok(sequence)
    }

    /// How many tokens of an answer are learned: all up to its end-of-turn token.
    fn learned(
        &self,
        text: &str,
        ids: &[u32],
        message: &Message,
        place: &crate::Place,
        findings: &mut Findings,
    ) -> std::result::Result<usize, RowError> {
        let end = self.end_of_turn(text, ids, message);
        let end = end.map_err(|error| RowError::new(place, error.to_string()))?;
        let Some(end) = end else {
            findings.add(&NO_END_OF_TURN, place);
            return Ok(ids.len());
        };
        if !self.eos_token_ids.contains(&ids[end]) {
            let token = self.tokenizer.token(ids[end]).unwrap_or_default();
            let message = format!("turns end with `{token}`, at which the model does not stop");
            findings.add_with(&kind::END_IS_NOT_EOS, place, message);
        }
        Ok(end + 1)
    }

    /// Notes what the template does to messages that the user would not expect.
    fn note_messages(
        &self,
        conversation: &Conversation,
        turns: &[Turn<'_>],
        findings: &mut Findings,
    ) {
        let place = &conversation.place;
        let contents = || conversation.messages.iter().map(|message| message.content.as_str());
        if contents().any(|content| self.special.iter().any(|token| content.contains(token))) {
            findings.add(&kind::SPECIAL_TOKEN_IN_TEXT, place);
        }
        if conversation.tools.is_some() && !self.template.source().contains("tools") {
            findings.add(&kind::TOOLS_IGNORED, place);
        }
        let last = conversation.supervised.iter().rposition(|&counts| counts).unwrap_or(0);
        let full = turns.last().map_or("", |turn| &turn.full);
        let given = conversation.messages[..last].iter().filter(|m| m.role != "assistant");
        if given.map(|message| message.content.trim()).any(|content| !full.contains(content)) {
            findings.add(&kind::MESSAGE_REWRITTEN, place);
        }
    }
}

fn check_tool_calls(
    conversation: &Conversation,
    message: &Message,
    full: &str,
) -> std::result::Result<(), RowError> {
    let calls = message.extra.get("tool_calls").and_then(Value::as_array).into_iter().flatten();
    for call in calls {
        let call = call.get("function").unwrap_or(call);
        let name = call.get("name").and_then(Value::as_str).unwrap_or_default();
        if !full.contains(name) {
            let message = format!("the chat template does not write the call of `{name}`");
            return Err(RowError::new(&conversation.place, message)
                .with_hint("use a model whose template knows `tool_calls`"));
        }
    }
    Ok(())
}
