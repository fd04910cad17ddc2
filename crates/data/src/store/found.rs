//! Findings as the cache keeps them: files are numbered, for they may have other names the next time.

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{Finding, Findings, Level, Place};

/// Findings whose places lie in numbered files.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Found(Vec<One>);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct One {
    id: String,
    level: Level,
    count: usize,
    /// Number of the file, line, element.
    places: Vec<(usize, usize, Option<usize>)>,
    message: String,
    hint: String,
}

impl Found {
    /// Of findings in these files.
    pub(crate) fn of(findings: &Findings, files: &[Arc<Path>]) -> Self {
        let place = |place: &Place| {
            let number = files.iter().position(|file| *file == place.file);
            (number.unwrap_or(0), place.line, place.element)
        };
        let one = |finding: &Finding| One {
            id: finding.id.to_string(),
            level: finding.level,
            count: finding.count,
            places: finding.places.iter().map(place).collect(),
            message: finding.message.clone(),
            hint: finding.hint.clone(),
        };
        Found(findings.iter().map(one).collect())
    }

    /// The findings, in these files. `None` where there are fewer than before.
    pub(crate) fn at(&self, files: &[Arc<Path>]) -> Option<Findings> {
        let place = |&(number, line, element): &(usize, usize, Option<usize>)| {
            Some(Place { file: files.get(number)?.clone(), line, element })
        };
        let finding = |one: &One| {
            Some(Finding {
                id: one.id.clone().into(),
                level: one.level,
                count: one.count,
                places: one.places.iter().map(place).collect::<Option<_>>()?,
                message: one.message.clone(),
                hint: one.hint.clone(),
            })
        };
        self.0.iter().map(finding).collect()
    }
}
