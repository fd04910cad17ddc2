//! What can be wrong with a user's data.

use std::fmt;
use std::path::PathBuf;

use crate::Place;

/// How many bad rows a message names before it only counts.
const NAMED_ROWS: usize = 20;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is not a list of JSON objects, or not one of a known shape.
    #[error("{place}: {message}")]
    File {
        /// The file, with line and column where they are known.
        place: String,
        /// What is wrong.
        message: String,
        /// What to do.
        hint: Option<String>,
    },
    /// Rows that cannot be used: all of them, in file order.
    #[error("{}", list_rows(rows))]
    Rows {
        /// At least one.
        rows: Vec<RowError>,
        /// What to do.
        hint: Option<String>,
    },
    /// The caller asked to stop; see [`Stop`](crate::Stop).
    #[error("interrupted while rows were prepared")]
    Interrupted,
    /// A setting that does not fit the data or the model.
    #[error("`{key}`: {message}")]
    Setting {
        /// The recipe key.
        key: String,
        /// What is wrong.
        message: String,
        /// What to do.
        hint: Option<String>,
    },
}

impl Error {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Error::Io { .. } | Error::Interrupted => None,
            Error::File { hint, .. } | Error::Setting { hint, .. } => hint.as_deref(),
            Error::Rows { rows, hint } => {
                hint.as_deref().or_else(|| rows.iter().find_map(|row| row.hint.as_deref()))
            }
        }
    }

    /// Bad rows as one error; there is at least one.
    pub(crate) fn rows(rows: impl Iterator<Item = RowError>) -> Error {
        Error::Rows { rows: rows.collect(), hint: None }
    }

    /// Gathers bad rows into one error; `Ok` where there are none.
    pub(crate) fn from_rows(rows: Vec<RowError>) -> Result<()> {
        if rows.is_empty() { Ok(()) } else { Err(Error::Rows { rows, hint: None }) }
    }
}

/// What is wrong with one row.
#[derive(Clone, Debug, PartialEq)]
pub struct RowError {
    /// The row.
    pub place: Place,
    /// What is wrong with it.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

impl RowError {
    /// An error without a hint.
    pub fn new(place: &Place, message: impl Into<String>) -> Self {
        RowError { place: place.clone(), message: message.into(), hint: None }
    }

    /// The same error with a hint.
    pub fn with_hint(self, hint: impl Into<String>) -> Self {
        RowError { hint: Some(hint.into()), ..self }
    }
}

impl fmt::Display for RowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

fn list_rows(rows: &[RowError]) -> String {
    let named = rows.iter().take(NAMED_ROWS).map(ToString::to_string);
    let mut lines: Vec<String> = named.collect();
    if let Some(rest) = rows.len().checked_sub(NAMED_ROWS).filter(|&rest| rest > 0) {
        lines.push(format!("... and {rest} more rows ({} in all)", rows.len()));
    }
    lines.join("\n")
}

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;

#[cfg(test)]
mod tests {
    use super::*;

    fn row(line: usize) -> RowError {
        let place = Place { file: std::path::Path::new("a.jsonl").into(), line, element: None };
        RowError::new(&place, "record has no `output` field").with_hint(format!("hint {line}"))
    }

    #[test]
    fn a_few_bad_rows_are_all_named() {
        let error = Error::from_rows(vec![row(3), row(9)]).unwrap_err();
        let expected = "a.jsonl:3: record has no `output` field\n\
                        a.jsonl:9: record has no `output` field";
        assert_eq!(error.to_string(), expected);
        assert_eq!(error.hint(), Some("hint 3"));
    }

    #[test]
    fn many_bad_rows_are_counted() {
        let error = Error::from_rows((1..=33).map(row).collect()).unwrap_err();
        let text = error.to_string();
        assert_eq!(text.lines().count(), NAMED_ROWS + 1);
        assert!(text.ends_with("\n... and 13 more rows (33 in all)"), "{text}");
    }

    #[test]
    fn no_bad_rows_are_no_error() {
        assert!(Error::from_rows(Vec::new()).is_ok());
    }
}
