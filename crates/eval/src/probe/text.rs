//! A report as a person reads it.

use std::fmt::{self, Display, Formatter};

use super::{Example, Finding, Report};

impl Display for Finding {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.id, self.message)?;
        match &self.example {
            Some(Example { row, answer, score }) => {
                write!(f, " (row {}: {answer:?} scores {score:.2})", row + 1)
            }
            None => Ok(()),
        }
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} rows, references written as {:?}", self.rows, self.form)?;
        for score in &self.scores {
            let mean = score.mean.map_or("-".to_owned(), |mean| format!("{mean:.2}"));
            write!(f, "{:<46}{mean:>8}", score.answer)?;
            match score.failed {
                0 => writeln!(f)?,
                failed => writeln!(f, "  {failed} without a score")?,
            }
        }
        for finding in &self.findings {
            writeln!(f, "{finding}\n  {}", finding.hint)?;
        }
        Ok(())
    }
}
