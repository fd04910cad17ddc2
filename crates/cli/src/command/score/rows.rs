//! Rows with answers, from any file that training reads.

use std::path::Path;

use data::record::{self, Record};
use data::{Findings, Place, RowError, Sequence, source};
use session::Scorer;

use crate::context::Context;
use crate::error::Result;
use crate::served::Served;

/// A row whose answers are to be scored.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Answered {
    /// Where it stands.
    pub(super) place: Place,
    /// How many answers it has.
    pub(super) answers: usize,
    /// Whether these are a chosen and a rejected one.
    pub(super) is_pair: bool,
}

/// Reads all rows as training does, and gives them with the sequences of their answers, row after row. All rows
/// that cannot be scored are named in the error.
pub(super) fn read(
    file: &Path,
    served: &Served,
    scorer: &Scorer,
    context: &Context,
) -> Result<(Vec<Answered>, Vec<Sequence>)> {
    let mut findings = Findings::default();
    let (mut rows, mut sequences, mut bad) = (Vec::new(), Vec::new(), Vec::new());
    for file in source::expand(file)? {
        let read = source::read(&file)?;
        let reading = served.reading(&file, &read);
        for record in record::answered(read, &reading, &mut findings)? {
            match scorer.sequences(rows.len() as u64, &record, &mut findings) {
                Ok(own) => {
                    rows.push(answered(&record, own.len()));
                    sequences.extend(own);
                }
                Err(error) => bad.push(error),
            }
        }
    }
    refuse(bad)?;
    context.warn_of(&findings);
    Ok((rows, sequences))
}

fn answered(record: &Record, answers: usize) -> Answered {
    let is_pair = matches!(record, Record::Preference(_));
    Answered { place: record.place().clone(), answers, is_pair }
}

/// All rows that cannot be scored as one error.
pub(super) fn refuse(rows: Vec<RowError>) -> Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    Err(data::Error::Rows { rows, hint: None }.into())
}
