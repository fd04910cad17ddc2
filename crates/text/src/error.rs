//! What can be wrong with a model's files, a template or a text.

use std::path::{Path, PathBuf};

/// An error of this crate. All but [`Error::Tokenizer`] name the place first.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file does not hold what it should, or holds what cannot be used.
    #[error("{place}: {message}")]
    Invalid {
        /// File, and key where there is one.
        place: String,
        /// What is wrong.
        message: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// A chat template is not valid Jinja.
    #[error("chat template, line {line}: {message}")]
    TemplateSyntax {
        /// Line of the template, from 1.
        line: usize,
        /// What the parser expected.
        message: String,
    },
    /// A chat template refused the messages with `raise_exception`.
    #[error("chat template: {message}")]
    TemplateRaised {
        /// The template's own words.
        message: String,
    },
    /// A chat template failed while it was rendered.
    #[error("chat template, line {line}: {message}")]
    TemplateRender {
        /// Line of the template, from 1.
        line: usize,
        /// What failed.
        message: String,
    },
    /// A text could not be encoded, or ids could not be decoded.
    #[error("tokenizer: {message}")]
    Tokenizer {
        /// What failed.
        message: String,
    },
}

/// The result of this crate's calls.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// What to do about it, where that can be said.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Error::Invalid { hint, .. } => hint.as_deref(),
            Error::TemplateRaised { .. } => {
                Some("the model's template does not allow this sequence of messages")
            }
            _ => None,
        }
    }

    pub(crate) fn invalid(place: impl Into<String>, message: impl Into<String>) -> Self {
        Error::Invalid { place: place.into(), message: message.into(), hint: None }
    }

    pub(crate) fn file(path: &Path, message: impl Into<String>) -> Self {
        Error::invalid(path.display().to_string(), message)
    }

    pub(crate) fn with_hint(mut self, text: impl Into<String>) -> Self {
        if let Error::Invalid { hint, .. } = &mut self {
            *hint = Some(text.into());
        }
        self
    }
}
