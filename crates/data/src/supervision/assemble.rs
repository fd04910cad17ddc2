//! From pieces of text to one sequence, and what must hold of it.

use super::findings as kind;
use super::render::RowResult;
use super::turn::{Piece, Turn};
use super::{NO_END_OF_TURN, Supervisor};
use crate::{Findings, Place, RowError, Sequence};

/// What sequences of one record have in common.
#[derive(Clone, Copy)]
pub(super) struct Identity<'a> {
    pub(super) row: u64,
    pub(super) role: u8,
    pub(super) place: &'a Place,
}

impl Identity<'_> {
    /// A sequence of this record.
    pub(super) fn sequence(self, tokens: Vec<u32>, mut weights: Vec<f32>) -> Sequence {
        if let Some(first) = weights.first_mut() {
            *first = 0.0; // Nothing predicts a first token.
        }
        let (row, role, place) = (self.row, self.role, self.place.clone());
        Sequence { row, part: 0, role, tokens, weights, place }
    }
}

impl Supervisor {
    pub(super) fn encode(&self, text: &str, place: &Place) -> RowResult<Vec<u32>> {
        self.tokenizer.encode(text).map_err(|error| RowError::new(place, error.to_string()))
    }

    /// Tokenises pieces one by one; of an answer everything up to its end-of-turn token is learned.
    pub(super) fn assemble(
        &self,
        identity: Identity<'_>,
        pieces: &[Piece<'_>],
        findings: &mut Findings,
    ) -> RowResult<Sequence> {
        let place = identity.place;
        let (mut tokens, mut weights) = (Vec::new(), Vec::new());
        let mut last_answer = 0;
        let (mut ended, mut open) = (0, 0);
        let mut before = "";
        for piece in pieces {
            let ids = self.encode(&piece.text, place)?;
            let (learned, weight) = match piece.learned {
                None => (0, 0.0),
                Some(turn) => {
                    last_answer = tokens.len();
                    let end = self.end_of_turn(&piece.text, &ids, turn.message);
                    let end = end.map_err(|error| RowError::new(place, error.to_string()))?;
                    *if end.is_some() { &mut ended } else { &mut open } += 1;
                    self.note_end(turn, end.map(|end| ids[end]), place, findings);
                    let learned = end.map_or(ids.len(), |end| end + 1);
                    let text = self.text_of(&piece.text, self.emitted(&ids[..learned], turn));
                    self.prove(turn, before, text, place, findings);
                    (learned, turn.weight)
                }
            };
            before = &piece.text;
            weights.extend((0..ids.len()).map(|i| if i < learned { weight } else { 0.0 }));
            tokens.extend(ids);
        }
        match (ended, open) {
            (_, 0) => {}
            (0, _) => findings.add(&NO_END_OF_TURN, place),
            (_, _) => findings.add(&kind::TURN_WITHOUT_END, place),
        }
        self.note_pieces(pieces, &tokens, last_answer, place, findings)?;
        self.note_tokens(&tokens, place, findings);
        let sequence = identity.sequence(tokens, weights);
        if sequence.supervised() == 0 {
            return Err(RowError::new(place, "no token of the answer is left to learn"));
        }
        Ok(sequence)
    }

    /// The tokens of an answer up to the first at which the model stops: what follows it cannot be
    /// emitted. Where the turn itself has special tokens, which is noted, all count.
    fn emitted<'t>(&self, ids: &'t [u32], turn: &Turn<'_>) -> &'t [u32] {
        let stop = ids.iter().position(|id| self.eos_token_ids.contains(id));
        match stop {
            Some(stop) if !self.has_special(&turn.message.content) => &ids[..=stop],
            _ => ids,
        }
    }

    /// The beginning of a text that these tokens are, the last of which ends a turn.
    fn text_of<'t>(&self, text: &'t str, ids: &[u32]) -> &'t str {
        let Some((last, token)) =
            ids.last().and_then(|last| Some((last, self.tokenizer.token(*last)?)))
        else {
            return text;
        };
        // Special tokens are cut out of a text before all else, so that each of them is found in it.
        let count = ids.iter().filter(|id| *id == last).count();
        match text.match_indices(token.as_str()).nth(count - 1) {
            Some((at, _)) if self.tokenizer.is_special(*last) => &text[..at + token.len()],
            _ => text,
        }
    }

    fn note_end(&self, turn: &Turn<'_>, end: Option<u32>, place: &Place, findings: &mut Findings) {
        let Some(end) = end.filter(|end| !self.eos_token_ids.contains(end)) else { return };
        if turn.message.role == "assistant" {
            let token = self.tokenizer.token(end).unwrap_or_default();
            let message = format!("turns end with `{token}`, at which the model does not stop");
            findings.add_with(&kind::END_IS_NOT_EOS, place, message);
        }
    }
}
