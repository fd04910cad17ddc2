//! Rows and a tokenizer that are not there, for plans.

use data::{Place, Prepared, Sequence, Sequences};
use model::Base;
use text::{Metadata, SpecialTokens, Tokenizer};

use crate::Result;

/// Rows in the place of those that a recipe names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyntheticRows {
    /// How many.
    pub rows: usize,
    /// Tokens of each.
    pub tokens: usize,
}

impl SyntheticRows {
    /// Rows of so many sequences, which share nothing and are learned from the second token on.
    pub(super) fn rows(&self, vocab_size: usize, sequences: usize) -> Result<Prepared> {
        let place = Place { file: std::path::Path::new("").into(), line: 1, element: None };
        let sequence = |index: usize| {
            let mut tokens = vec![0; self.tokens];
            let mut weights = vec![1.0; self.tokens];
            weights[0] = 0.0;
            // Sequences that begin alike would be computed once.
            tokens[0] = (index % vocab_size) as u32;
            let (row, role) = ((index / sequences) as u64, (index % sequences) as u8);
            Sequence { row, part: 0, role, tokens, weights, place: place.clone() }
        };
        let train: Vec<Sequence> = (0..self.rows * sequences).map(sequence).collect();
        Ok(Prepared { train: Sequences::in_memory(&train)?, ..Prepared::default() })
    }
}

/// Metadata of a model without a tokenizer: one of a single word, to which tokens can be added.
pub(super) fn metadata(base: &Base) -> Result<Metadata> {
    let tokenizer = br#"{"version": "1.0", "added_tokens": [], "normalizer": null,
        "pre_tokenizer": null, "post_processor": null, "decoder": null, "truncation": null,
        "padding": null, "model": {"type": "WordLevel", "vocab": {"?": 0}, "unk_token": "?"}}"#;
    Ok(Metadata {
        config: base.config_json()?,
        tokenizer: Tokenizer::from_bytes(tokenizer).map_err(model::Error::from)?,
        chat_template: None,
        named_templates: Vec::new(),
        special: SpecialTokens::default(),
        eos_token_ids: Vec::new(),
        generation_config: serde_json::json!({}),
    })
}
