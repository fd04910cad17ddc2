//! Reads the rows of one file, whose shape is found once.

use super::detect::{self, Found};
use super::field::Fields;
use super::{Reading, Record, Shape, Wanted, by_name, check, columns, prompt};
use crate::finding::Kind;
use crate::source::Row;
use crate::{Error, Findings, Level, Place, Result, RowError};

/// Knows the shape of a file, and reads its rows.
#[derive(Clone, Debug)]
pub struct Reader {
    shape: &'static Shape,
    /// What the rows of the file have, and the first that has it; not where the
    /// recipe names the shape.
    signature: Option<(&'static str, Place)>,
    why: String,
    reading: Reading,
    wanted: Wanted,
}

impl Reader {
    /// Finds the shape of a file by its first rows and what they are wanted for.
    pub fn find(sample: &[Row], reading: &Reading, wanted: Wanted) -> Result<Reader> {
        columns::check(sample, reading)?;
        let reader = |shape, signature, why| Reader {
            shape,
            signature,
            why,
            reading: reading.clone(),
            wanted,
        };
        if let Some(name) = &reading.format {
            let shape = by_name(name).ok_or_else(|| detect::unknown_format(name, reading))?;
            if !shape.fits(wanted) {
                return Err(detect::unfit_format(shape, reading, wanted));
            }
            return Ok(reader(shape, None, format!("the recipe says `format: {name}`")));
        }
        let Found { shape, signature, place, count } = detect::find(sample, reading, wanted)?;
        let why = match count {
            count if count == sample.len() => format!("every row has {signature}"),
            count => format!("{count} of the first {} rows have {signature}", sample.len()),
        };
        Ok(reader(shape, Some((signature, place)), why))
    }

    /// The name of the file's shape.
    pub fn shape(&self) -> &'static str {
        self.shape.name
    }

    /// Why the file is taken to have this shape, in one clause.
    pub fn why(&self) -> &str {
        &self.why
    }

    /// Reads a row; what is odd about it goes into `findings`.
    pub fn read(&self, row: Row, findings: &mut Findings) -> std::result::Result<Record, RowError> {
        let has: Vec<String> = row.value.keys().cloned().collect();
        let value = if self.reading.columns.is_empty() {
            row.value
        } else {
            columns::renamed(row.value, &self.reading)
        };
        let fields = Fields {
            place: &row.place,
            value: &value,
            reading: &self.reading,
            wanted: self.wanted,
            has: &has,
        };
        let read = if self.wanted == Wanted::Prompts { prompt::read } else { self.shape.read };
        let record = match (self.mismatch(&fields), read(&fields)) {
            (None, record) => record?,
            (Some(mismatch), Ok(_)) => {
                return Err(RowError::new(&row.place, mismatch).with_hint(ONE_FORMAT));
            }
            (Some(mismatch), Err(error)) => {
                return Err(error.with_hint(format!("{mismatch}; {ONE_FORMAT}")));
            }
        };
        let record = check::finish(record, self.reading.system.as_deref(), findings)?;
        self.note_unused(&fields, findings);
        Ok(record)
    }

    pub(super) fn found(&self) -> &'static Shape {
        self.shape
    }

    /// How a row differs from the rows of its file.
    fn mismatch(&self, fields: &Fields<'_>) -> Option<String> {
        let (known, first) = self.signature.as_ref()?;
        let (_, signature) = detect::shape_of(fields.value, self.wanted)?;
        (signature != *known).then(|| format!("row has {signature} where {first} has {known}"))
    }

    fn note_unused(&self, fields: &Fields<'_>, findings: &mut Findings) {
        if self.wanted == Wanted::Prompts {
            return;
        }
        let is_unused = |name: &&String| {
            !self.shape.reads(name) && !columns::is_looked_into(name, &self.reading)
        };
        if fields.value.keys().any(|name| is_unused(&name)) {
            let unused = fields.value.keys().filter(is_unused).map(String::as_str);
            let message = format!("columns that are not trained on: {}", detect::join(unused));
            findings.add_with(&UNUSED_COLUMNS, fields.place, message);
        }
    }
}

const ONE_FORMAT: &str = "keep one format a file; `data.train` takes several files";

const UNUSED_COLUMNS: Kind = Kind {
    id: "unused-columns",
    level: Level::Note,
    message: "columns that are not trained on",
    hint: "if one of them is meant, name it with `columns`",
};

impl From<detect::Refusal> for Error {
    fn from(refusal: detect::Refusal) -> Error {
        Error::File { place: refusal.place, message: refusal.message, hint: Some(refusal.hint) }
    }
}
