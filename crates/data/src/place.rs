//! Where in the user's files something stands.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// A row in a file of the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file, as the user named it.
    pub file: Arc<Path>,
    /// Line where the row begins, from 1.
    pub line: usize,
    /// Index of the row in the file's array, from 0; `None` where a line is a row.
    pub element: Option<usize>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)?;
        match self.element {
            Some(element) => write!(f, " (element {element})"),
            None => Ok(()),
        }
    }
}
