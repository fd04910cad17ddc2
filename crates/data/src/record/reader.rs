//! Reads the rows of one file, whose shape is found once.

use std::cell::RefCell;

use super::cell::{self, Spoiled};
use super::columns::{self, Prepared};
use super::detect::{self, Found};
use super::field::Fields;
use super::{Reading, Record, Shape, Wanted, by_name, check, labelled, prompt};
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
        Reader::of(sample, reading, wanted)
    }

    /// The reader of what one row asks, whatever its shape.
    pub(super) fn asking(row: &Row, reading: &Reading) -> Result<Reader> {
        let sample = std::slice::from_ref(row);
        if let Some(name) = &reading.format {
            let is_text = by_name(name).is_some_and(|shape| !shape.has_turns());
            return Reader::of(
                sample,
                reading,
                if is_text { Wanted::Texts } else { Wanted::Prompts },
            );
        }
        let prepared = columns::prepared(row.value.clone(), &row.troubles, reading);
        if prompt::answered(&prepared.value).is_some() {
            let (shape, wanted) = (&prompt::SHAPE, Wanted::Prompts);
            let (reading, why) = (reading.clone(), "the row has turns".to_owned());
            return Ok(Reader { shape, signature: None, why, reading, wanted });
        }
        Reader::of(sample, reading, Wanted::Prompts)
            .or_else(|error| Reader::of(sample, reading, Wanted::Texts).map_err(|_| error))
    }

    /// The reader of rows that are to be classified: labels may be missing.
    pub(super) fn to_classify(sample: &[Row], reading: &Reading) -> Result<Reader> {
        columns::check(sample, reading)?;
        let (shape, reading) = (&labelled::SHAPE, reading.clone());
        let why = "the rows are classified".to_owned();
        Ok(Reader { shape, signature: None, why, reading, wanted: Wanted::Unlabelled })
    }

    fn of(sample: &[Row], reading: &Reading, wanted: Wanted) -> Result<Reader> {
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
        let Prepared { value, troubles, parsed } =
            columns::prepared(row.value, &row.troubles, &self.reading);
        let met = RefCell::new(None);
        let fields = Fields {
            place: &row.place,
            value: &value,
            reading: &self.reading,
            wanted: self.wanted,
            has: &has,
            troubles: &troubles,
            met: &met,
        };
        let read = if self.wanted == Wanted::Prompts { prompt::read } else { self.shape.read };
        let record = read(&fields);
        // What cannot be read was taken for null.
        let record = met.take().map_or(record, Err);
        let record = match (self.mismatch(&fields), record) {
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
        self.note_cells(&fields, &parsed, findings);
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

    /// Notes text that a table or spreadsheet made of something else.
    fn note_cells(&self, fields: &Fields<'_>, parsed: &[String], findings: &mut Findings) {
        if !parsed.is_empty() {
            let names = detect::join(parsed.iter().map(|name| fields.called(name)));
            findings.add_with(
                &PARSED_TEXT,
                fields.place,
                format!("{}: {names}", PARSED_TEXT.message),
            );
        }
        for (name, value) in fields.value.iter().filter(|(name, _)| self.shape.reads(name)) {
            let Some(spoiled) = cell::spoiled(value) else { continue };
            let kind = match spoiled {
                Spoiled::Missing => &MISSING_AS_TEXT,
                Spoiled::Broken => &SPREADSHEET_ERROR,
                Spoiled::Cut => &CUT_BY_SPREADSHEET,
            };
            let called = fields.called(name);
            findings.add_with(kind, fields.place, format!("{}, first in `{called}`", kind.message));
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

const PARSED_TEXT: Kind = Kind {
    id: "turns-as-text",
    level: Level::Note,
    message: "text that spells out messages is read as messages",
    hint: "if the text itself is meant, put a word before it",
};
const MISSING_AS_TEXT: Kind = Kind {
    id: "missing-value-as-text",
    level: Level::Warning,
    message: "the text is a word for a missing value, such as `nan` or `None`, and is trained on as it is",
    hint: "write null or leave the cell empty: `str` and `astype(str)` turn missing values into such words",
};
const SPREADSHEET_ERROR: Kind = Kind {
    id: "spreadsheet-error",
    level: Level::Warning,
    message: "the text is the error of a spreadsheet, such as `#NAME?`",
    hint: "a cell that began with `=`, `+` or `-` was taken for a formula: export the column as text",
};
const CUT_BY_SPREADSHEET: Kind = Kind {
    id: "cut-by-spreadsheet",
    level: Level::Warning,
    message: "the text has 32,767 characters, where Excel cuts a cell",
    hint: "export the rows from where they came, not from the spreadsheet",
};

impl From<detect::Refusal> for Error {
    fn from(refusal: detect::Refusal) -> Error {
        Error::File { place: refusal.place, message: refusal.message, hint: Some(refusal.hint) }
    }
}
