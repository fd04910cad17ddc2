use std::{fmt, path::PathBuf, sync::Arc};

/// Where a key or a value stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A position in a recipe, counted from 1 in lines and in characters.
    Line {
        /// The recipe, as the caller named it.
        file: Arc<str>,
        /// Line.
        line: usize,
        /// Column.
        column: usize,
    },
    /// An argument `key=value` of the command line, the value of a secret key left out.
    Argument(Arc<str>),
    /// The recipe as a whole.
    File(Arc<str>),
    /// A default of a key or a value that the program chose.
    Program,
}

impl Place {
    /// The recipe's name, where the place is in one.
    pub fn file(&self) -> Option<&str> {
        match self {
            Place::Line { file, .. } | Place::File(file) => Some(file),
            Place::Argument(_) | Place::Program => None,
        }
    }

    /// The line, counted from 1.
    pub fn line(&self) -> Option<usize> {
        match self {
            Place::Line { line, .. } => Some(*line),
            _ => None,
        }
    }

    /// The column in characters, counted from 1.
    pub fn column(&self) -> Option<usize> {
        match self {
            Place::Line { column, .. } => Some(*column),
            _ => None,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Line { file, line, column } => write!(f, "{file}:{line}:{column}"),
            Place::Argument(argument) => write!(f, "command line, argument `{argument}`"),
            Place::File(file) => f.write_str(file),
            Place::Program => f.write_str("default"),
        }
    }
}

/// What sort of mistake a [`Problem`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The text is no YAML, or YAML of a form that recipes do not use.
    Syntax,
    /// A key stands twice.
    DuplicateKey,
    /// No such key.
    UnknownKey,
    /// A known key or choice that this version does not support.
    Unsupported,
    /// The value is of the wrong type.
    WrongType,
    /// The value is outside of the key's range.
    OutOfRange,
    /// The value is none of the key's choices.
    UnknownChoice,
    /// A key without which the recipe means nothing.
    MissingKey,
    /// Two keys that exclude each other.
    Conflict,
    /// `${VAR}` or `~` of which the caller knows nothing.
    MissingVariable,
    /// Values that are fine one by one but cannot work; found by the room that reads them.
    Invalid,
}

impl Fault {
    /// The name by which a program recognises the fault.
    pub fn code(self) -> &'static str {
        match self {
            Fault::Syntax => "syntax",
            Fault::DuplicateKey => "duplicate_key",
            Fault::UnknownKey => "unknown_key",
            Fault::Unsupported => "unsupported",
            Fault::WrongType => "wrong_type",
            Fault::OutOfRange => "out_of_range",
            Fault::UnknownChoice => "unknown_choice",
            Fault::MissingKey => "missing_key",
            Fault::Conflict => "conflict",
            Fault::MissingVariable => "missing_variable",
            Fault::Invalid => "invalid",
        }
    }
}

/// One mistake in a recipe or in an override.
///
/// Shown as `place: message`; the hint is the caller's to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What sort of mistake it is.
    pub fault: Fault,
    /// Where it is.
    pub place: Place,
    /// The key as the user would write it in an override, such as `data.train.0.path`.
    pub key: Option<String>,
    /// What is wrong, in lower case and without a full stop.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// Why there is no document.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The recipe's file cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The recipe has mistakes; all of them, in the order of their places.
    #[error("{}", list(.0))]
    Recipe(Vec<Problem>),
}

impl Error {
    /// All mistakes of the recipe; none where the file cannot be read.
    pub fn problems(&self) -> &[Problem] {
        match self {
            Error::Read { .. } => &[],
            Error::Recipe(problems) => problems,
        }
    }

    /// What to do about it, where there is one mistake to speak of.
    pub fn hint(&self) -> Option<&str> {
        match self.problems() {
            [problem] => problem.hint.as_deref(),
            _ => None,
        }
    }
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Error {
        Error::Recipe(vec![problem])
    }
}

/// Every mistake on its line, followed by its hint unless it is the only one.
fn list(problems: &[Problem]) -> String {
    let alone = problems.len() == 1;
    let show = |problem: &Problem| match &problem.hint {
        Some(hint) if !alone => format!("{problem}\n  hint: {hint}"),
        _ => problem.to_string(),
    };
    problems.iter().map(show).collect::<Vec<_>>().join("\n")
}
