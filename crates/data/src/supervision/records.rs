//! Sequences of every kind of record.

use serde_json::{Map, Value};
use text::Message;

use super::Supervisor;
use super::assemble::Identity;
use super::dialogue::{Dialogue, is_system};
use super::findings as kind;
use super::options::System;
use super::render::RowResult;
use super::turn::{self, Piece};
use crate::record::{
    Conversation, Feedback, Labelled, LabelledInput, Preference, Prompt, Ranked, Record, Stepwise,
    Text, Tokens,
};
use crate::{Findings, Place, RowError, Sequence};

impl Supervisor {
    /// The sequences of one record.
    ///
    /// | record | sequences | `role` | learned |
    /// |---|---|---|---|
    /// | conversation | one, or one a turn | 0 | the turns that the options name |
    /// | text | one | 0 | all but the first token; ends with EOS |
    /// | tokens | one | 0 | what its weights say |
    /// | preference | two | 0 chosen, 1 rejected | the continuation |
    /// | feedback | one | 0 desirable, 1 undesirable | the last answer |
    /// | ranked | one an answer | its rank, 0 the best | the answer |
    /// | stepwise | one | 0 | the last token of each step: where a reward is read |
    /// | prompt | one | 0 | nothing: it ends where the model is to answer |
    /// | labelled | one | 0 | nothing: its class is read at the last token |
    ///
    /// Sequences of one record share `row`. What a record says beside tokens is [`Supervisor::side`].
    pub fn sequences(
        &self,
        row: u64,
        record: &Record,
        findings: &mut Findings,
    ) -> RowResult<Vec<Sequence>> {
        let identity = Identity { row, role: 0, place: record.place() };
        match record {
            Record::Conversation(conversation) => self.supervise(row, conversation, findings),
            Record::Text(text) => Ok(vec![self.text(identity, text, findings)?]),
            Record::Tokens(tokens) => Ok(vec![self.tokens(identity, tokens, findings)?]),
            Record::Preference(pair) => self.pair(identity, pair, findings),
            Record::Feedback(feedback) => Ok(vec![self.feedback(identity, feedback, findings)?]),
            Record::Ranked(ranked) => self.ranked(identity, ranked, findings),
            Record::Stepwise(stepwise) => Ok(vec![self.stepwise(identity, stepwise, findings)?]),
            Record::Prompt(prompt) => Ok(vec![self.prompt(identity, prompt, findings)?]),
            Record::Labelled(labelled) => Ok(vec![self.labelled(identity, labelled, findings)?]),
        }
    }

    /// What a record says beside tokens: [`Record::side`], and of a prompt also its `messages`, for rewards. System
    /// messages and reasoning are as the options have them, so the messages are those whose tokens are trained on.
    pub fn side(&self, record: &Record) -> RowResult<Map<String, Value>> {
        let mut side = record.side();
        if let Record::Prompt(prompt) = record {
            let messages = Self::shown(prompt, &self.options)?;
            side.insert("messages".to_owned(), messages.iter().map(Message::to_value).collect());
        }
        Ok(side)
    }

    /// A document with what the tokenizer puts in front of a raw text, and EOS after it.
    fn text(
        &self,
        identity: Identity<'_>,
        text: &Text,
        findings: &mut Findings,
    ) -> RowResult<Sequence> {
        let place = identity.place;
        let tokens = self.tokenizer.encode_with_special(&text.text);
        let mut tokens = tokens.map_err(|error| RowError::new(place, error.to_string()))?;
        match self.tokenizer.eos().or(self.eos_token_ids.first().copied()) {
            Some(eos) if tokens.last() != Some(&eos) => tokens.push(eos),
            Some(_) => {}
            None => findings.add(&kind::NO_END_OF_TEXT, place),
        }
        if tokens.len() < 2 {
            return Err(RowError::new(place, "the text has no token to learn"));
        }
        if self.has_special(&text.text) {
            findings.add(&kind::SPECIAL_TOKEN_IN_TEXT, place);
        }
        self.note_tokens(&tokens, place, findings);
        let weights = vec![1.0; tokens.len()];
        Ok(identity.sequence(tokens, weights))
    }

    fn tokens(
        &self,
        identity: Identity<'_>,
        row: &Tokens,
        findings: &mut Findings,
    ) -> RowResult<Sequence> {
        let error = |message: String| Err(RowError::new(identity.place, message));
        let vocab_size = self.tokenizer.vocab_size();
        if let Some(at) = row.tokens.iter().position(|&id| id as usize >= vocab_size) {
            let message = format!(
                "token {at} has id {}, and the vocabulary ends at {}",
                row.tokens[at],
                vocab_size - 1
            );
            return Err(RowError::new(identity.place, message)
                .with_hint("tokenise the rows with the tokenizer of this model"));
        }
        if row.tokens.len() != row.weights.len() {
            return error(format!(
                "row has {} tokens and {} weights",
                row.tokens.len(),
                row.weights.len()
            ));
        }
        let sequence = identity.sequence(row.tokens.clone(), row.weights.clone());
        if sequence.supervised() == 0 {
            return error("no token of the row is learned".into());
        }
        self.note_tokens(&sequence.tokens, identity.place, findings);
        Ok(sequence)
    }

    fn pair(
        &self,
        identity: Identity<'_>,
        pair: &Preference,
        findings: &mut Findings,
    ) -> RowResult<Vec<Sequence>> {
        let answers = [pair.chosen.as_slice(), &pair.rejected];
        self.answers(identity, &pair.prompt, answers.into_iter(), pair.tools.as_ref(), findings)
    }

    fn ranked(
        &self,
        identity: Identity<'_>,
        ranked: &Ranked,
        findings: &mut Findings,
    ) -> RowResult<Vec<Sequence>> {
        let answers = ranked.answers.iter().map(|answer| answer.messages.as_slice());
        self.answers(identity, &ranked.prompt, answers, ranked.tools.as_ref(), findings)
    }

    /// A sequence for each continuation of a prompt, numbered by `role`.
    fn answers<'a>(
        &self,
        identity: Identity<'_>,
        prompt: &[Message],
        answers: impl Iterator<Item = &'a [Message]>,
        tools: Option<&Value>,
        findings: &mut Findings,
    ) -> RowResult<Vec<Sequence>> {
        let mut sequences = Vec::new();
        for (index, answer) in answers.enumerate() {
            let role = u8::try_from(index).map_err(|_| {
                RowError::new(identity.place, "row has more than 256 answers")
                    .with_hint("keep the best and the worst of them")
            })?;
            let options = &self.options;
            let dialogue = Dialogue::continued(identity.place, prompt, answer, tools, options)?;
            sequences.push(self.single(Identity { role, ..identity }, dialogue, findings)?);
        }
        Ok(sequences)
    }

    fn feedback(
        &self,
        identity: Identity<'_>,
        feedback: &Feedback,
        findings: &mut Findings,
    ) -> RowResult<Sequence> {
        let Conversation { messages, supervised, tools, .. } = &feedback.conversation;
        let Some(last) = supervised.iter().rposition(|&counts| counts) else {
            return Err(RowError::new(identity.place, "row has no answer that was judged"));
        };
        let (prompt, rest) = messages.split_at(last);
        let (place, options) = (identity.place, &self.options);
        let dialogue = Dialogue::continued(place, prompt, &rest[..1], tools.as_ref(), options)?;
        let identity = Identity { role: u8::from(!feedback.desirable), ..identity };
        self.single(identity, dialogue, findings)
    }

    /// One sequence of a dialogue, which is its last turn's alone where the turns are not nested.
    fn single(
        &self,
        identity: Identity<'_>,
        mut dialogue: Dialogue<'_>,
        findings: &mut Findings,
    ) -> RowResult<Sequence> {
        if !turn::nested(&self.turns(&dialogue)?) {
            dialogue.only_last();
        }
        let turns = self.turns(&dialogue)?;
        self.note_messages(&dialogue, &turns, findings)?;
        match &self.rows(&turns, identity.place, findings)[..] {
            [pieces] => self.assemble(identity, pieces, findings),
            _ => Err(RowError::new(identity.place, "the continuation has no assistant turn")),
        }
    }

    /// The prompt and its steps, joined by line ends. Each step is tokenised by itself, so that its last token is
    /// the same whatever follows; that token has weight 1, all others 0.
    fn stepwise(
        &self,
        identity: Identity<'_>,
        stepwise: &Stepwise,
        findings: &mut Findings,
    ) -> RowResult<Sequence> {
        let place = identity.place;
        let mut tokens = self.opened(place, &stepwise.prompt, None)?;
        let mut weights = vec![0.0; tokens.len()];
        for (index, step) in stepwise.steps.iter().enumerate() {
            if step.text.trim().is_empty() {
                return Err(RowError::new(place, format!("step {index} is empty")));
            }
            let line_end = if index == 0 { "" } else { "\n" };
            tokens.extend(self.encode(&format!("{line_end}{}", step.text), place)?);
            weights.resize(tokens.len(), 0.0);
            if let Some(last) = weights.last_mut() {
                *last = 1.0;
            }
        }
        self.note_tokens(&tokens, place, findings);
        let sequence = identity.sequence(tokens, weights);
        if sequence.supervised() == 0 {
            return Err(RowError::new(place, "row has no steps"));
        }
        Ok(sequence)
    }

    fn prompt(
        &self,
        identity: Identity<'_>,
        prompt: &Prompt,
        findings: &mut Findings,
    ) -> RowResult<Sequence> {
        let tokens = self.opened(identity.place, &prompt.messages, prompt.tools.as_ref())?;
        if tokens.is_empty() {
            return Err(RowError::new(identity.place, "the prompt has no tokens"));
        }
        self.note_tokens(&tokens, identity.place, findings);
        let weights = vec![0.0; tokens.len()];
        Ok(identity.sequence(tokens, weights))
    }

    /// What is classified, without a token that is learned. A text is as the tokenizer gives it, without EOS: so
    /// classifiers of other programs see it. A dialogue ends with its last answer, or where the model is to answer.
    fn labelled(
        &self,
        identity: Identity<'_>,
        labelled: &Labelled,
        findings: &mut Findings,
    ) -> RowResult<Sequence> {
        let place = identity.place;
        let tokens = match &labelled.input {
            LabelledInput::Text(text) => {
                if self.has_special(text) {
                    findings.add(&kind::SPECIAL_TOKEN_IN_TEXT, place);
                }
                let tokens = self.tokenizer.encode_with_special(text);
                let tokens = tokens.map_err(|error| RowError::new(place, error.to_string()))?;
                self.note_tokens(&tokens, place, findings);
                tokens
            }
            LabelledInput::Dialogue { messages, tools } => match messages.split_last() {
                Some((last, before)) if last.role == "assistant" => {
                    let answer = std::slice::from_ref(last);
                    let options = &self.options;
                    let dialogue =
                        Dialogue::continued(place, before, answer, tools.as_ref(), options)?;
                    self.single(identity, dialogue, findings)?.tokens
                }
                _ => {
                    let tokens = self.opened(place, messages, tools.as_ref())?;
                    self.note_tokens(&tokens, place, findings);
                    tokens
                }
            },
        };
        if tokens.is_empty() {
            return Err(RowError::new(place, "the text has no tokens"));
        }
        let weights = vec![0.0; tokens.len()];
        Ok(identity.sequence(tokens, weights))
    }

    /// The tokens that serving feeds for a prompt.
    pub(super) fn opened(
        &self,
        place: &Place,
        prompt: &[Message],
        tools: Option<&serde_json::Value>,
    ) -> RowResult<Vec<u32>> {
        let dialogue = Dialogue::continued(place, prompt, &[], tools, &self.options)?;
        if dialogue.messages.iter().all(is_system) && self.options.system == System::Drop {
            return Err(RowError::new(place, "the prompt has no message but those of the system")
                .with_hint("keep them with `data.system: keep`"));
        }
        let text = self.render(&dialogue, dialogue.messages.len(), true)?;
        self.encode(&text, place)
    }

    /// The pieces of one row as a sequence.
    pub(super) fn assembled(
        &self,
        identity: Identity<'_>,
        rows: &[Vec<Piece<'_>>],
        findings: &mut Findings,
    ) -> RowResult<Vec<Sequence>> {
        rows.iter().map(|pieces| self.assemble(identity, pieces, findings)).collect()
    }
}
