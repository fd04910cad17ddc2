use thiserror::Error;

/// What can be wrong with a task, a schema, a grader's name or options, or a held-out pair.
#[derive(Debug, Error, PartialEq)]
pub enum Error {
    /// A JSON schema says something that the grader cannot check.
    #[error("{place}: {problem}")]
    Schema {
        /// Where in the schema, as a path of keys.
        place: String,
        /// What is wrong there.
        problem: String,
        /// What to write instead.
        hint: Option<String>,
    },
    /// No grader has that name.
    #[error("`{name}` is not a grader")]
    UnknownGrader {
        /// As asked for.
        name: String,
        /// The graders there are.
        hint: String,
    },
    /// A grader cannot take an option.
    #[error("`{grader}`: {problem}")]
    GraderOption {
        /// The grader.
        grader: &'static str,
        /// What is wrong with which option.
        problem: String,
        /// What it takes.
        hint: String,
    },
    /// A task without rows measures nothing.
    #[error("{task}: the task has no rows")]
    EmptyTask {
        /// Name or file of the task.
        task: String,
    },
    /// A row of a task has no expected answer.
    #[error("{place}: {problem}")]
    TaskRow {
        /// File and line.
        place: String,
        /// What is wrong there.
        problem: String,
        /// What the row needs.
        hint: Option<String>,
    },
    /// A held-out pair has numbers that cannot be compared.
    #[error("held-out pair {pair}: {problem}")]
    HeldOutPair {
        /// Which one, from 1.
        pair: usize,
        /// What is wrong with it.
        problem: String,
    },
}

impl Error {
    /// What to do about it, where that is known.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Schema { hint, .. } | Self::TaskRow { hint, .. } => hint.as_deref(),
            Self::UnknownGrader { hint, .. } | Self::GraderOption { hint, .. } => Some(hint),
            Self::HeldOutPair { .. } => Some(
                "the model's numbers are not finite there: train with a lower learning rate, or name an earlier checkpoint",
            ),
            Self::EmptyTask { .. } => Some("add rows, or leave the task out of `evaluate`"),
        }
    }
}

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;
