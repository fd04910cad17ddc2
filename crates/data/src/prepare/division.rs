//! Which rows are trained on, which are kept back, and how often each stands in an epoch.

use super::audits::Clusters;
use super::{Config, Division, Made, Validation};
use crate::finding::Kind;
use crate::mixture::{copies, counts};
use crate::random::key;
use crate::sequences::Pick;
use crate::split::{By, Part, by_parts, latest};
use crate::{Error, Findings, Level, Result};

/// The rows of a run.
pub(super) struct Divided {
    pub(super) train: Vec<Pick>,
    pub(super) validation: Vec<Pick>,
    /// For every row of the training files whether it is kept back.
    pub(super) kept_back: Vec<bool>,
    pub(super) split: Option<Division>,
}

pub(super) fn divide(
    made: &Made,
    config: &Config,
    clusters: &Clusters<'_>,
    findings: &mut Findings,
) -> Result<Divided> {
    let rows = &clusters.rows;
    let (kept_back, split) = match &config.validation {
        Validation::Fraction { fraction, by, stratify } => {
            let (kept, parts) = kept_back(config, clusters, *fraction, by, stratify.is_some())?;
            let ids = (0..rows.len()).filter(|&row| kept[row]);
            let mut ids: Vec<String> = ids.map(|row| format!("{:016x}", rows.ids[row])).collect();
            ids.sort_unstable();
            let split = Division { by: by.to_string(), rows: ids.len(), parts, ids };
            if split.rows == 0 && *fraction > 0.0 && rows.len() > 0 {
                findings.add(&NO_VALIDATION, &rows.place(0)?);
            }
            (kept, Some(split))
        }
        Validation::Sources(_) | Validation::None => (vec![false; rows.len()], None),
    };
    let times = times(made, config, clusters, &kept_back, findings)?;
    let (mut train, mut validation) = (Vec::new(), Vec::new());
    let most = times.iter().copied().max().unwrap_or(0);
    for copy in 0..most.max(1) {
        let mut walk = Walk::default();
        for row in 0..rows.len() {
            let (set, in_set) = rows.at(row);
            for sequence in walk.sequences(made, set, in_set) {
                let pick = Pick { set, sequence, copy: copy as u32 };
                if kept_back[row] && copy == 0 {
                    validation.push(pick);
                } else if !kept_back[row] && times[row] > copy {
                    train.push(pick);
                }
            }
        }
    }
    for (set, of) in made.sets_of("validation") {
        let all = 0..of.sequences.len() as u32;
        validation.extend(all.map(|sequence| Pick { set: set as u32, sequence, copy: 0 }));
    }
    Ok(Divided { train, validation, kept_back, split })
}

/// Finds the sequences of rows that come in order.
#[derive(Default)]
struct Walk {
    set: u32,
    next: usize,
}

impl Walk {
    fn sequences(&mut self, made: &Made, set: u32, row: u32) -> std::ops::Range<u32> {
        if self.set != set {
            *self = Walk { set, next: 0 };
        }
        let all = &made.sets[set as usize].sequences;
        while self.next < all.len() && all[self.next].row < row {
            self.next += 1;
        }
        let first = self.next;
        while self.next < all.len() && all[self.next].row == row {
            self.next += 1;
        }
        first as u32..self.next as u32
    }
}

/// Which rows are kept back, and how many parts they make.
fn kept_back(
    config: &Config,
    clusters: &Clusters<'_>,
    fraction: f64,
    by: &By,
    stratify: bool,
) -> Result<(Vec<bool>, usize)> {
    if !(0.0..1.0).contains(&fraction) {
        return Err(Error::Setting {
            key: "data.validation.fraction".into(),
            message: format!("{fraction} is not a share of the rows"),
            hint: Some("write 0.1 for one row in ten".into()),
        });
    }
    let rows = &clusters.rows;
    // Columns are kept in the order in which the configuration names them.
    let stratum = |row: usize| -> Option<String> {
        let columns = rows.columns(row);
        if stratify { columns.last().cloned().flatten() } else { None }
    };
    let id = |row: usize| -> Result<u64> {
        Ok(match by {
            By::Row => rows.ids[row],
            By::Cluster => clusters.ids[row],
            By::Group(column) => text_key(value(clusters, row, column)?),
            By::Time(_) => row as u64,
        })
    };
    let ids: Vec<u64> = (0..rows.len()).map(id).collect::<Result<_>>()?;
    let kept = if let By::Time(column) = by {
        let moments: Vec<&str> =
            (0..rows.len()).map(|row| value(clusters, row, column)).collect::<Result<_>>()?;
        latest(&moments, fraction)
    } else {
        let part = |(row, &id): (usize, &u64)| Part { id, stratum: stratum(row) };
        let parts: Vec<Part> = ids.iter().enumerate().map(part).collect();
        by_parts(&parts, fraction, config.seed, stratify)
    };
    let mut parts: Vec<u64> =
        (0..rows.len()).filter(|&row| kept[row]).map(|row| ids[row]).collect();
    parts.sort_unstable();
    parts.dedup();
    Ok((kept, parts.len()))
}

/// The value of the column that a split looks at; every row must have one.
fn value<'a>(clusters: &Clusters<'a>, row: usize, column: &str) -> Result<&'a str> {
    let value = clusters.rows.columns(row).first().and_then(Option::as_deref);
    match value {
        Some(value) => Ok(value),
        None => Err(Error::Setting {
            key: "data.validation.by".into(),
            message: format!("{}: row has no column `{column}`", clusters.rows.place(row as u32)?),
            hint: Some("every row must have it: it decides on which side the row stands".into()),
        }),
    }
}

fn text_key(text: &str) -> u64 {
    let words = text.as_bytes().chunks(8).map(|chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        u64::from_le_bytes(word)
    });
    key(&words.chain([text.len() as u64]).collect::<Vec<_>>())
}

/// How often each row of the training files stands in an epoch.
fn times(
    made: &Made,
    config: &Config,
    clusters: &Clusters<'_>,
    kept_back: &[bool],
    findings: &mut Findings,
) -> Result<Vec<usize>> {
    let rows = &clusters.rows;
    let source = |row: usize| made.purposes[rows.at(row).0 as usize].1;
    let weights: Vec<Option<f64>> = config.train.iter().map(|source| source.weight).collect();
    if weights.iter().all(Option::is_none) {
        let repeat = |row: usize| config.train[source(row)].repeat.max(1);
        return Ok((0..rows.len()).map(repeat).collect());
    }
    let weights: Vec<f64> = weights.into_iter().map(|weight| weight.unwrap_or(1.0)).collect();
    let mut by_source: Vec<Vec<usize>> = vec![Vec::new(); weights.len()];
    (0..rows.len()).filter(|&row| !kept_back[row]).for_each(|row| by_source[source(row)].push(row));
    let sizes: Vec<usize> = by_source.iter().map(Vec::len).collect();
    let wanted = counts(&sizes, &weights, config.mixture);
    let mut times = vec![0; rows.len()];
    for (of, count) in by_source.iter().zip(wanted) {
        let ids: Vec<u64> = of.iter().map(|&row| row as u64).collect();
        for (&row, copies) in of.iter().zip(copies(&ids, count, config.seed)) {
            times[row] = copies;
        }
    }
    let idle: Vec<u32> = by_source
        .concat()
        .into_iter()
        .filter(|&row| times[row] == 0)
        .map(|row| row as u32)
        .collect();
    if let Some(&first) = idle.first() {
        findings.add_many(&MIXED_OUT, idle.len(), [rows.place(first)?], MIXED_OUT.message.into());
    }
    Ok(times)
}

const NO_VALIDATION: Kind = Kind {
    id: "no-validation",
    level: Level::Warning,
    message: "no row could be kept back for validation",
    hint: "add rows, or name a file under `data.validation.path`",
};
const MIXED_OUT: Kind = Kind {
    id: "mixed-out",
    level: Level::Note,
    message: "rows that an epoch does not take, so that sources stand in the proportions of their weights",
    hint: "`data.mixture: all` takes every row, and repeats those of small sources",
};
