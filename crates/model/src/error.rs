//! What can be wrong with a model, its files or a device.

use std::path::{Path, PathBuf};

/// An error of this crate. `Display` says what and where, [`Error::hint`] the cure.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file that cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file whose content is wrong or not supported.
    #[error("{}: {message}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// A prompt or sequence that the model cannot take.
    #[error("{message}")]
    Input {
        /// What is wrong.
        message: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// An adapter that cannot be laid over a model as it is described.
    #[error("{message}")]
    Coverage {
        /// The field of [`Coverage`](crate::adapter::Coverage) that is wrong.
        field: &'static str,
        /// What is wrong with it.
        message: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// The caller asked to stop; see [`Base::stop_when`](crate::Base::stop_when).
    #[error("interrupted while the model was read")]
    Interrupted,
    /// The device failed.
    #[error(transparent)]
    Compute(#[from] compute::Error),
    /// Tokenizer, template or metadata.
    #[error(transparent)]
    Text(#[from] text::Error),
}

impl Error {
    /// What to do about it, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::File { hint, .. } | Error::Input { hint, .. } | Error::Coverage { hint, .. } => {
                hint.clone()
            }
            Error::Text(error) => error.hint().map(str::to_owned),
            Error::Compute(compute::Error::OutOfMemory { .. }) => {
                Some("compute fewer tokens at a time".into())
            }
            _ => None,
        }
    }

    /// The file that the error is about.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Error::Io { path, .. } | Error::File { path, .. } => Some(path),
            _ => None,
        }
    }

    pub(crate) fn file(path: impl Into<PathBuf>, message: impl Into<String>) -> Self {
        Error::File { path: path.into(), message: message.into(), hint: None }
    }

    pub(crate) fn with_hint(self, text: impl Into<String>) -> Self {
        match self {
            Error::File { path, message, .. } => {
                Error::File { path, message, hint: Some(text.into()) }
            }
            Error::Input { message, .. } => Error::Input { message, hint: Some(text.into()) },
            Error::Coverage { field, message, .. } => {
                Error::Coverage { field, message, hint: Some(text.into()) }
            }
            other => other,
        }
    }

    /// For `map_err` on a file operation.
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Error::Io { path: path.to_owned(), source }
    }
}

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;
