//! Why a model or a data set is not there, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

/// The error of this crate: a cause, and a cure where there is one.
#[derive(Debug, thiserror::Error)]
#[error("{cause}")]
pub struct Error {
    /// What went wrong.
    #[source]
    pub cause: Cause,
    /// What to do about it.
    pub hint: Option<String>,
}

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// A name, a folder, the hub or the network does not give what was asked for.
    #[error("{message}")]
    Refused {
        /// Stable name for programs.
        code: &'static str,
        /// Place first, in lower case, values in backticks.
        message: String,
        /// The file concerned.
        file: Option<PathBuf>,
        /// Whether the request was wrong, and not the work that followed it.
        is_mistake: bool,
    },
    /// A file that the system does not give or take.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The base of an adapter is not there.
    #[error("{}: its base: {source}", config.display())]
    Base {
        /// The `adapter_config.json` that names it.
        config: PathBuf,
        /// Why it is not there.
        source: Box<Error>,
    },
    /// A file of a model is not as it should be.
    #[error(transparent)]
    Model(#[from] Box<model::Error>),
}

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Work that failed.
    pub(crate) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Cause::Refused { code, message: message.into(), file: None, is_mistake: false }.into()
    }

    /// A request that cannot be met as it was made.
    pub(crate) fn wrong(code: &'static str, message: impl Into<String>) -> Self {
        Cause::Refused { code, message: message.into(), file: None, is_mistake: true }.into()
    }

    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        Cause::Io { path: path.to_owned(), source }.into()
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// With a hint, if there is none yet.
    pub(crate) fn or_hint(mut self, hint: &str) -> Self {
        self.hint.get_or_insert_with(|| hint.to_owned());
        self
    }

    pub(crate) fn at(mut self, path: &Path) -> Self {
        if let Cause::Refused { file, .. } = &mut self.cause {
            *file = Some(path.to_owned());
        }
        self
    }

    /// The stable name for programs, where this crate gives one.
    pub fn code(&self) -> Option<&'static str> {
        match &self.cause {
            Cause::Refused { code, .. } => Some(code),
            Cause::Base { source, .. } => source.code(),
            Cause::Io { .. } | Cause::Model(_) => None,
        }
    }
}

impl From<Cause> for Error {
    fn from(cause: Cause) -> Self {
        Error { cause, hint: None }
    }
}

impl From<model::Error> for Error {
    fn from(error: model::Error) -> Self {
        let hint = error.hint();
        Error { cause: Box::new(error).into(), hint }
    }
}
