//! What everything before training ends in: tokens, and how much each counts.

use serde_json::{Map, Value};

use crate::Place;

/// One row as the model sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Sequence {
    /// Identity of the row: its index over all sources, in file order. Sequences
    /// made from one conversation share it.
    pub row: u64,
    /// Which part of the row it belongs to: 0 unless `data.overlong: split` made several rows of it.
    pub part: u32,
    /// What the sequence is for (an objective's own numbering).
    pub role: u8,
    /// The row as rendered and tokenised, `[T]`.
    pub tokens: Vec<u32>,
    /// `weights[i]` is the weight of predicting `tokens[i]`, `[T]`. Nothing
    /// predicts the first token: `weights[0]` is 0.
    pub weights: Vec<f32>,
    /// Where the row stands in the user's files.
    pub place: Place,
}

impl Sequence {
    /// Number of tokens, as rendered.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether there are no tokens.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Number of tokens that count in the loss.
    pub fn supervised(&self) -> usize {
        self.weights.iter().filter(|&&weight| weight != 0.0).count()
    }
}

/// What an optimizer step counts as one row: a dialogue, a document, a pair, all answers to one prompt.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Unit {
    /// Its sequences: neighbours of the same row and part.
    pub sequences: Vec<Sequence>,
    /// What the row says beside tokens (a margin, scores, labels, a reference answer, messages and columns for rewards),
    /// as [`Supervisor::side`](crate::Supervisor::side) names it.
    pub side: Map<String, Value>,
}

impl Unit {
    /// Units of sequences that stand in no file, without side data.
    pub fn of_sequences(sequences: Vec<Sequence>) -> Vec<Unit> {
        let mut units: Vec<Unit> = Vec::new();
        for sequence in sequences {
            match units.last_mut() {
                Some(unit) if unit.sequences[0].is_in_unit_of(&sequence) => {
                    unit.sequences.push(sequence);
                }
                _ => units.push(Unit { sequences: vec![sequence], side: Map::new() }),
            }
        }
        units
    }

    /// Tokens of all its sequences, as rendered.
    pub fn tokens(&self) -> usize {
        self.sequences.iter().map(Sequence::len).sum()
    }
}

impl Sequence {
    /// Whether both belong to one unit.
    pub(crate) fn is_in_unit_of(&self, other: &Sequence) -> bool {
        (self.row, self.part) == (other.row, other.part)
    }
}
