//! What everything before training ends in: tokens, and how much each counts.

use crate::Place;

/// One row as the model sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Sequence {
    /// Identity of the row: its index over all sources, in file order. Sequences
    /// made from one conversation share it.
    pub row: u64,
    /// Sequences of one group can be kept in one micro-batch.
    pub group: u32,
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
