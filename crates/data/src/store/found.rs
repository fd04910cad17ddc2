//! Findings as a shard keeps them: without the file, which may have another name the next time.

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{Finding, Findings, Level, Place};

/// Findings whose places all lie in one file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Found(Vec<One>);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct One {
    id: String,
    level: Level,
    count: usize,
    places: Vec<(usize, Option<usize>)>,
    message: String,
    hint: String,
}

impl From<Findings> for Found {
    fn from(findings: Findings) -> Self {
        let one = |finding: &Finding| One {
            id: finding.id.to_string(),
            level: finding.level,
            count: finding.count,
            places: finding.places.iter().map(|place| (place.line, place.element)).collect(),
            message: finding.message.clone(),
            hint: finding.hint.clone(),
        };
        Found(findings.iter().map(one).collect())
    }
}

impl Found {
    /// The findings, in this file.
    pub(crate) fn at(&self, file: &Arc<Path>) -> Findings {
        let place =
            |&(line, element): &(usize, Option<usize>)| Place { file: file.clone(), line, element };
        let finding = |one: &One| Finding {
            id: one.id.clone().into(),
            level: one.level,
            count: one.count,
            places: one.places.iter().map(place).collect(),
            message: one.message.clone(),
            hint: one.hint.clone(),
        };
        self.0.iter().map(finding).collect()
    }
}
