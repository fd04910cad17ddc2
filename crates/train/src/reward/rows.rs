//! What rows have to hold for the rewards of a recipe.

use data::Sequences;
use keys::Document;
use serde_json::Value;

use super::{RewardKind, RewardSettings, grader};
use crate::{Error, Result};

/// Rows that are read at a time.
const CHUNK: usize = 256;

/// Refuses rows whose reference answer is missing or of no use to a grader that compares answers with it.
pub fn check_rows(document: &Document, train: &Sequences, validation: &Sequences) -> Result<()> {
    let settings = RewardSettings::read(document)?;
    for settings in &settings {
        let RewardKind::Grader { name, options } = &settings.kind else { continue };
        // Reading the recipe has made it once.
        let Ok(grader) = grader::make(name, options) else { continue };
        for rows in [train, validation] {
            let (mut first, mut bad) = (None, 0);
            for units in rows.chunks(CHUNK) {
                for unit in units? {
                    let reference = unit.side.get("reference").unwrap_or(&Value::Null);
                    if let Some(problem) = grader::problem(&*grader, reference) {
                        bad += 1;
                        first.get_or_insert_with(|| (unit.sequences[0].place.clone(), problem));
                    }
                }
            }
            let Some((place, problem)) = first else { continue };
            let of = match bad {
                1 => String::new(),
                _ => format!("; so it is in {bad} of {} rows", rows.units()),
            };
            let message = format!(
                "{place}: the grader `{name}` cannot grade answers to this row: {problem}{of}"
            );
            let hint = "a reference stands in the column `answer`, `solution`, `ground_truth`, `reference` or \
                `target`; one of another name is named below `data.train`: `columns: {answer: NAME}`";
            return Err(Error::refused(message, hint));
        }
    }
    Ok(())
}
