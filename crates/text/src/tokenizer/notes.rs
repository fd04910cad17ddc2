//! What a user should know about the files of a tokenizer.

use tokenizers::{ModelWrapper, Tokenizer as Backend};

/// A remark about the files of a tokenizer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// A stable name.
    pub id: &'static str,
    /// What is so, in one sentence.
    pub message: String,
    /// What to do.
    pub hint: &'static str,
}

impl Note {
    /// Two files say different things.
    pub(super) fn differ(message: String) -> Self {
        let hint = "load and save the tokenizer with transformers, so that its files say the same";
        Note { id: "tokenizer-files-differ", message, hint }
    }
}

/// Switches BPE dropout off: with it, `tokenizers` splits a text differently every time, in training as in generation.
pub(super) fn without_dropout(backend: &mut Backend, notes: &mut Vec<Note>) {
    let ModelWrapper::BPE(bpe) = backend.get_model() else { return };
    let Some(dropout) = bpe.dropout else { return };
    let mut bpe = bpe.clone();
    bpe.dropout = None;
    backend.with_model(ModelWrapper::BPE(bpe));
    if dropout > 0.0 {
        let message = format!(
            "tokenizer.json asks for a BPE dropout of {dropout}: it is switched off, so that a text has the same \
             tokens every time"
        );
        let hint = "set `dropout` in tokenizer.json to null; nothing else changes";
        notes.push(Note { id: "tokenizer-dropout", message, hint });
    }
}
