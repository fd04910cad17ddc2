//! Why a model does not answer.

use std::path::PathBuf;

use model::generate::Demand;

/// The error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The model cannot be read, loaded or run.
    #[error(transparent)]
    Model(#[from] model::Error),
    /// A file beside the weights cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A file beside the weights is not JSON.
    #[error("{}: not JSON: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A dialogue cannot be shown to a model without a chat template.
    #[error("the model has no chat template")]
    NoTemplate,
    /// The chat template refuses a dialogue.
    #[error("{message}")]
    Template {
        /// What is wrong.
        message: String,
        /// What to change.
        hint: Option<String>,
    },
    /// The base is asked to answer by itself, and the adapter replaces tensors of it.
    #[error("the adapter replaces whole tensors of its base, which cannot answer without it")]
    BaseReplaced,
    /// The tokenizer gives a token that the model does not have.
    #[error("token {token} is beyond the model's {vocab_size}")]
    Vocabulary {
        /// The token.
        token: u32,
        /// How many tokens the model has.
        vocab_size: usize,
    },
    /// The prompt has no tokens.
    #[error("the prompt is empty")]
    Empty,
    /// The prompt leaves no room for an answer.
    #[error("the prompt has {tokens} tokens, and the model takes {longest} with the answer")]
    TooLong {
        /// Its tokens.
        tokens: usize,
        /// The tokens that the model takes.
        longest: usize,
    },
    /// A prompt with its answer is longer than the model takes.
    #[error("prompt and answer have {tokens} tokens, and the model takes {longest}")]
    RowTooLong {
        /// Tokens of both.
        tokens: usize,
        /// The tokens that the model takes.
        longest: usize,
    },
    /// The model gives text, not scores.
    #[error("the model has no score head")]
    NoScoreHead,
    /// The scores do not fit into memory.
    #[error("scoring {tokens} tokens at a time does not fit into memory")]
    ScoreRoom {
        /// Tokens that are computed together.
        tokens: usize,
        /// The bytes that it takes, by kind.
        demand: Demand,
        /// The bytes that are free.
        limit: usize,
    },
    /// The answers do not fit into memory.
    #[error("answering {active} prompts at a time does not fit into memory")]
    Room {
        /// Prompts at the same time.
        active: usize,
        /// Tokens of the longest of them with its answer.
        longest: usize,
        /// The bytes that it takes, by kind.
        demand: Demand,
        /// The bytes that are free.
        limit: usize,
        /// A number of prompts at the same time that fits; 0 where none does.
        fits: usize,
    },
}

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl From<text::Error> for Error {
    fn from(error: text::Error) -> Self {
        Error::Model(error.into())
    }
}
