//! Which rows are trained on, which are kept back, and how often each stands in an epoch.

use super::audits::Clusters;
use super::{Config, Division, Made, Validation};
use crate::finding::Kind;
use crate::mixture::{Copies, counts};
use crate::random::key;
use crate::sequences::Runs;
use crate::split::{By, Moments, Parts, Strata};
use crate::store::{RowAt, Set};
use crate::{Error, Findings, Level, Result};

/// The rows of a run.
pub(super) struct Divided {
    pub(super) train: Runs,
    pub(super) validation: Runs,
    /// For every row of the training files whether it is kept back.
    pub(super) kept_back: Vec<bool>,
    /// Rows that an epoch does not take, so that sources keep their proportions.
    pub(super) mixed_out: usize,
    pub(super) split: Option<Division>,
}

pub(super) fn divide(
    made: &Made,
    config: &Config,
    clusters: &Clusters,
    findings: &mut Findings,
) -> Result<Divided> {
    let walk = made.walk("train");
    let (kept_back, split) = match &config.validation {
        Validation::Fraction { fraction, by, stratify } => {
            let (kept, split) =
                kept_back(made, config, clusters, *fraction, by, stratify.is_some())?;
            if split.rows == 0 && *fraction > 0.0 && !kept.is_empty() {
                findings.add(&NO_VALIDATION, &walk.place(0)?);
            }
            (kept, Some(split))
        }
        Validation::Sources(_) | Validation::None => (vec![false; walk.len()], None),
    };
    let times = times(made, config, &kept_back);
    let mut idle: Option<(u32, usize)> = None;
    let (mut train, mut validation) = (Runs::default(), Runs::default());
    for copy in 0.. {
        let mut more = false;
        each_row(made, |number, set, row| {
            let sequences = row.sequences.clone();
            if kept_back[number] {
                if copy == 0 {
                    validation.push(set, copy, sequences);
                }
                return Ok(());
            }
            let times = times.of(number as u32, made.purposes[set].1);
            more |= times > copy + 1;
            if times > copy {
                train.push(set, copy, sequences);
            } else if times == 0 {
                let (first, rows) = idle.unwrap_or((number as u32, 0));
                idle = Some((first, rows + 1));
            }
            Ok(())
        })?;
        if !more {
            break;
        }
    }
    if let Some((first, rows)) = idle {
        findings.add_many(&MIXED_OUT, rows, [walk.place(first)?], MIXED_OUT.message.into());
    }
    for (set, of) in made.sets_of("validation") {
        validation.push(set, 0, 0..of.sequences);
    }
    let mixed_out = idle.map_or(0, |(_, rows)| rows);
    Ok(Divided { train, validation, kept_back, mixed_out, split })
}

/// Shows every training row: its number over all files, the index of its set, and the row.
fn each_row(
    made: &Made,
    mut show: impl FnMut(usize, usize, &RowAt<'_>) -> Result<()>,
) -> Result<()> {
    let mut first = 0;
    for (index, set) in made.sets_of("train") {
        set.each_row(|row| show(first + row.kept as usize, index, row))?;
        first += set.kept as usize;
    }
    Ok(())
}

/// Whether a row is kept back, of which the part that it belongs to is known.
type Keeps = dyn Fn(u64, &RowAt<'_>) -> bool;

/// Which rows are kept back.
fn kept_back(
    made: &Made,
    config: &Config,
    clusters: &Clusters,
    fraction: f64,
    by: &By,
    stratify: bool,
) -> Result<(Vec<bool>, Division)> {
    if !(0.0..1.0).contains(&fraction) {
        return Err(Error::Setting {
            key: "data.validation.fraction".into(),
            message: format!("{fraction} is not a share of the rows"),
            hint: Some("write 0.1 for one row in ten".into()),
        });
    }
    let part = |number: usize, set: usize, row: &RowAt<'_>| -> Result<u64> {
        Ok(match by {
            By::Row => row.id,
            By::Cluster => clusters.ids.get(number).copied().unwrap_or(row.id),
            By::Group(column) => text_key(value(&made.sets[set], row, column)?),
            By::Time(_) => number as u64,
        })
    };
    let keeps: Box<Keeps> = if let By::Time(column) = by {
        let mut moments = Moments::default();
        each_row(made, |_, set, row| {
            moments.meet(value(&made.sets[set], row, column)?);
            Ok(())
        })?;
        let mut latest = moments.latest(fraction);
        each_row(made, |_, _, row| {
            latest.meet(first_column(row).unwrap_or_default());
            Ok(())
        })?;
        let kept = latest.choose();
        Box::new(move |_, row| kept(first_column(row).unwrap_or_default()))
    } else if stratify {
        let mut strata = Strata::new(fraction, config.seed);
        each_row(made, |number, set, row| {
            // Columns are kept in the order in which the configuration names them.
            let stratum = row.columns.last().and_then(Option::as_deref);
            strata.meet(part(number, set, row)?, stratum);
            Ok(())
        })?;
        let kept = strata.choose();
        Box::new(move |id, _| kept(id))
    } else {
        let mut parts = Parts::new(fraction, config.seed);
        each_row(made, |number, set, row| {
            parts.meet(part(number, set, row)?);
            Ok(())
        })?;
        let kept = parts.choose();
        Box::new(move |id, _| kept(id))
    };
    let (mut kept, mut ids, mut parts) = (Vec::new(), Vec::new(), Vec::new());
    each_row(made, |number, set, row| {
        let id = part(number, set, row)?;
        let keeps = keeps(id, row);
        kept.push(keeps);
        if keeps {
            ids.push(row.id);
            parts.push(id);
        }
        Ok(())
    })?;
    ids.sort_unstable();
    parts.sort_unstable();
    parts.dedup();
    let split = Division { by: by.to_string(), rows: ids.len(), parts: parts.len(), ids };
    Ok((kept, split))
}

/// The value of the column that a split looks at; every row must have one.
fn value<'a>(set: &Set, row: &'a RowAt<'_>, column: &str) -> Result<&'a str> {
    match first_column(row) {
        Some(value) => Ok(value),
        None => Err(Error::Setting {
            key: "data.validation.by".into(),
            message: format!("{}: row has no column `{column}`", set.text(row.kept)?.1),
            hint: Some("every row must have it: it decides on which side the row stands".into()),
        }),
    }
}

fn first_column<'a>(row: &'a RowAt<'_>) -> Option<&'a str> {
    row.columns.first().and_then(Option::as_deref)
}

fn text_key(text: &str) -> u64 {
    let words = text.as_bytes().chunks(8).map(|chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        u64::from_le_bytes(word)
    });
    key(&words.chain([text.len() as u64]).collect::<Vec<_>>())
}

/// How often rows stand in an epoch.
enum Times {
    /// All rows of a source equally often, `[sources]`.
    Repeated(Vec<usize>),
    /// In the proportions of weights, `[sources]`.
    Mixed(Vec<Copies>),
}

impl Times {
    /// Of a row of a source.
    fn of(&self, number: u32, source: usize) -> usize {
        match self {
            Times::Repeated(times) => times[source],
            Times::Mixed(copies) => copies[source].get(number),
        }
    }
}

fn times(made: &Made, config: &Config, kept_back: &[bool]) -> Times {
    let weights: Vec<Option<f64>> = config.train.iter().map(|source| source.weight).collect();
    if weights.iter().all(Option::is_none) {
        return Times::Repeated(config.train.iter().map(|source| source.repeat.max(1)).collect());
    }
    let weights: Vec<f64> = weights.into_iter().map(|weight| weight.unwrap_or(1.0)).collect();
    // Numbers of the rows of every source, file by file.
    let mut numbers = vec![Vec::new(); weights.len()];
    let mut first = 0;
    for (index, set) in made.sets_of("train") {
        numbers[made.purposes[index].1].push(first..first + set.kept);
        first += set.kept;
    }
    let rows = |source: usize| {
        let all = numbers[source].iter().cloned().flatten();
        all.filter(|&number| !kept_back[number as usize])
    };
    let sizes: Vec<usize> = (0..weights.len()).map(|source| rows(source).count()).collect();
    let wanted = counts(&sizes, &weights, config.mixture);
    let copies = wanted.into_iter().enumerate();
    Times::Mixed(copies.map(|(of, count)| Copies::of(rows(of), count, config.seed)).collect())
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
