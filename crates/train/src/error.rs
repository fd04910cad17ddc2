//! What can stop a run.

use std::path::{Path, PathBuf};

/// An error of this crate. `Display` says what and where, [`Error::hint`] the cure.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file of the run folder that cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Something that the user asked for and cannot have.
    #[error("{message}")]
    Refused {
        /// What and where.
        message: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// A file or folder that another process is writing.
    #[error("{}: {holder} is writing it", path.display())]
    Busy {
        /// Which.
        path: PathBuf,
        /// The process, where it runs and since when.
        holder: String,
    },
    /// A write failed after training had begun, on a full disk say.
    #[error("{what}: {source}")]
    Unsaved {
        /// When, or of what.
        what: String,
        /// What could not be written.
        source: Box<Error>,
        /// The checkpoint that is good, and how to go on from it.
        hint: String,
    },
    /// A loss or the gradient is no number any more.
    #[error("step {step}: {what} is {value}{}", .last.map_or(String::new(), |n| format!(" (grad_norm was {n:.2e} at step {})", .step - 1)))]
    NotFinite {
        /// The step that was stopped before its update, or after which was validated.
        step: u64,
        /// `loss`, `grad_norm` or `validation_loss`.
        what: &'static str,
        /// NaN or infinite.
        value: f64,
        /// Norm of the gradient one step before.
        last: Option<f64>,
        /// What to do about it.
        hint: String,
    },
    /// A sampled answer whose reward could not be had.
    #[error("{place}: reward `{reward}`: {message}")]
    Reward {
        /// The row of the prompt.
        place: String,
        /// The name of the reward in the recipe.
        reward: String,
        /// Why.
        message: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// Mistakes in the recipe.
    #[error(transparent)]
    Recipe(#[from] keys::Error),
    /// Records, supervision, splits.
    #[error(transparent)]
    Data(#[from] data::Error),
    /// Model files and adapters.
    #[error(transparent)]
    Model(#[from] model::Error),
    /// The device failed.
    #[error(transparent)]
    Compute(#[from] compute::Error),
}

impl From<session::Error> for Error {
    fn from(error: session::Error) -> Self {
        match error {
            session::Error::Model(error) => Error::Model(error),
            error => Error::Refused { message: error.to_string(), hint: None },
        }
    }
}

impl Error {
    /// What to do about it, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Refused { hint, .. } | Error::Reward { hint, .. } => hint.clone(),
            Error::NotFinite { hint, .. } | Error::Unsaved { hint, .. } => Some(hint.clone()),
            Error::Busy { .. } => {
                Some("wait until it ends, or take another place with `output`".to_owned())
            }
            Error::Recipe(error) => error.hint().map(str::to_owned),
            Error::Data(error) => error.hint().map(str::to_owned),
            Error::Compute(compute::Error::OutOfMemory { .. })
            | Error::Model(model::Error::Compute(compute::Error::OutOfMemory { .. })) => {
                Some("lower `micro_batch_tokens`".to_owned())
            }
            Error::Model(error) => error.hint(),
            Error::Io { .. } | Error::Compute(_) => None,
        }
    }

    /// Whether a file could not be read or written.
    pub(crate) fn is_io(&self) -> bool {
        matches!(self, Error::Io { .. } | Error::Model(model::Error::Io { .. }))
    }

    /// Whether it is no fault: the caller asked to stop before the first step.
    pub fn is_interrupt(&self) -> bool {
        matches!(
            self,
            Error::Data(data::Error::Interrupted) | Error::Model(model::Error::Interrupted)
        )
    }

    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Error::Io { path: path.to_owned(), source }
    }

    pub(crate) fn refused(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Error::Refused { message: message.into(), hint: Some(hint.into()) }
    }
}

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;
