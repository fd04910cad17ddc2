//! From files to the sequences that a run trains and validates on.
//!
//! ```text
//! config    where rows come from, and what becomes of them
//! file      rows of one file, tokenised in parallel, shard by shard, into the cache
//! audits    duplicates, contradictions, rows of validation and tests that stand in training
//! division  what is kept back, how often a row stands in an epoch
//! ```

mod audits;
mod config;
mod division;
mod file;
mod key;

use std::sync::Arc;

use crate::context::Context;
use crate::sequences::Sequences;
use crate::store::Set;
use crate::supervision::Supervisor;
use crate::{Error, Findings, Level, Place, Result, RowError};

pub use config::{Config, HubSet, Location, OnError, Source, Validation};
pub use file::{FileSummary, load_source};

/// Everything that a run needs of its data.
#[derive(Clone, Debug, Default)]
pub struct Prepared {
    /// To train on, in the order of the files; repeated rows after all others.
    pub train: Sequences,
    /// To validate on, in the order of the files.
    pub validation: Sequences,
    /// What the user should know, errors first.
    pub findings: Findings,
    /// Counts over `train`.
    pub stats: Stats,
    /// The files: training, validation, tests.
    pub files: Vec<FileSummary>,
    /// Rows that are neither trained nor validated on, and why.
    pub left_out: Vec<RowError>,
    /// How rows were kept back.
    pub split: Option<Division>,
    /// Whether nothing had to be made.
    pub was_cached: bool,
}

/// What was kept back of the training rows.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Division {
    /// What was kept back as a whole.
    pub by: String,
    /// Rows kept back.
    pub rows: usize,
    /// Parts that they came from: clusters, groups.
    pub parts: usize,
    /// Identities of the rows: hashes of their normalised text, in hex, sorted.
    pub ids: Vec<String>,
}

/// Counts over the sequences of one epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Stats {
    /// Rows of the files of `data.train`, after `limit`.
    pub rows_in: usize,
    /// Rows that are trained on, repeated ones once.
    pub rows: usize,
    /// Rows that are validated on.
    pub rows_validation: usize,
    /// Sequences, of which a conversation may give several.
    pub sequences: usize,
    /// Tokens as rendered.
    pub tokens: usize,
    /// Tokens that count in the loss.
    pub supervised_tokens: usize,
    /// Tokens of the longest sequence.
    pub longest: usize,
}

/// Reads, converts, tokenises, audits and splits the data of a run.
///
/// The result does not depend on the number of threads, nor on what the cache held. Every row that cannot be
/// used is named in the error, or listed where the configuration leaves such rows out. Findings of error
/// level do not fail: the caller shows them all, and stops.
pub fn prepare(config: &Config, supervisor: &Supervisor) -> Result<Prepared> {
    let context = match &config.context {
        Some(options) => Some(Context::build(options, config.seed)?),
        None => None,
    };
    let fingerprint = supervisor.fingerprint();
    let maker = file::Maker { config, supervisor, context: context.as_ref(), fingerprint };
    let validation: &[Source] = match &config.validation {
        Validation::Sources(sources) => sources,
        Validation::Fraction { .. } | Validation::None => &[],
    };
    let mut made = Made::default();
    let purposes = ["train", "validation", "test"];
    for (purpose, sources) in
        purposes.into_iter().zip([&config.train[..], validation, &config.test])
    {
        for (index, source) in sources.iter().enumerate() {
            made.add(&maker, source, index, purpose)?;
        }
    }
    let mut prepared = made.finish(config)?;
    for file in context.iter().flat_map(Context::left_out) {
        let place = Place { file: file.as_path().into(), line: 1, element: None };
        prepared.findings.add(&NO_DOCUMENT, &place);
    }
    Ok(prepared)
}

/// Sets of all files, and what they are for.
#[derive(Default)]
struct Made {
    sets: Vec<Set>,
    /// Purpose, and index of the source among those of that purpose.
    purposes: Vec<(&'static str, usize)>,
    files: Vec<FileSummary>,
    all_cached: bool,
    begun: bool,
}

impl Made {
    fn add(
        &mut self,
        maker: &file::Maker<'_>,
        source: &Source,
        index: usize,
        purpose: &'static str,
    ) -> Result<()> {
        let (files, reading) = source.files()?;
        let mut left = source.limit;
        for path in files {
            if left == Some(0) {
                break;
            }
            let (set, was_cached) = maker.set(&path, &reading, left, source.shuffle)?;
            left = left.map(|left| left.saturating_sub(set.rows));
            self.all_cached = was_cached && (self.all_cached || !self.begun);
            self.begun = true;
            self.files.push(FileSummary::of(&set, purpose));
            self.sets.push(set.set);
            self.purposes.push((purpose, index));
        }
        Ok(())
    }

    fn finish(self, config: &Config) -> Result<Prepared> {
        let mut findings = Findings::default();
        let mut left_out = Vec::new();
        let mut bad = Vec::new();
        for set in &self.sets {
            for tail in &set.tails {
                findings.merge(tail.findings.at(&set.file));
                let (unusable, out): (Vec<_>, Vec<_>) =
                    tail.left_out.iter().partition(|row| row.is_bad);
                bad.extend(unusable.into_iter().map(|row| row.error(&set.file)));
                left_out.extend(out.into_iter().map(|row| row.error(&set.file)));
            }
            findings.merge(set.header.notes.at(&set.file));
        }
        match config.on_error {
            OnError::Stop => Error::from_rows(bad)?,
            OnError::Skip | OnError::List => {
                let kind = if config.on_error == OnError::Skip { &SKIPPED } else { &UNUSABLE };
                for row in &bad {
                    findings.add_with(
                        kind,
                        &row.place,
                        format!("{}: {}", kind.message, row.message),
                    );
                }
                left_out.extend(bad);
            }
        }
        let rows_in = self.sets_of("train").map(|(_, set)| set.rows).sum();
        if self.sets_of("train").all(|(_, set)| set.sequences.is_empty()) {
            return Err(nothing_to_train(&left_out));
        }
        audits::tallies(&self, &mut findings);
        let clusters = audits::duplicates(&self, config, &mut findings)?;
        audits::size(&clusters.rows, &mut findings)?;
        let division = division::divide(&self, config, &clusters, &mut findings)?;
        audits::leaks(&self, config, &clusters, &division.kept_back, &mut findings)?;
        findings.accept(&config.accept);
        findings.sort();

        let files = self.files;
        let mut first = 0;
        let mut sets = Vec::with_capacity(self.sets.len());
        for set in self.sets {
            let rows = set.rows as u64;
            sets.push((set, first));
            first += rows;
        }
        let sets = Arc::new(sets);
        let train = Sequences::new(sets.clone(), division.train);
        let validation = Sequences::new(sets, division.validation);
        let stats = Stats::of(&train, &validation, rows_in);
        let was_cached = self.all_cached;
        Ok(Prepared {
            train,
            validation,
            findings,
            stats,
            files,
            left_out,
            split: division.split,
            was_cached,
        })
    }

    /// The sets of one purpose, with their index.
    fn sets_of(&self, purpose: &str) -> impl Iterator<Item = (usize, &Set)> {
        let both = self.sets.iter().zip(&self.purposes).enumerate();
        both.filter(move |(_, (_, of))| of.0 == purpose).map(|(index, (set, _))| (index, set))
    }
}

fn nothing_to_train(left_out: &[RowError]) -> Error {
    Error::Setting {
        key: "data.train".into(),
        message: "there are no rows to train on".into(),
        hint: left_out.first().map(|row| format!("all were left out, the first because: {row}")),
    }
}

impl Stats {
    fn of(train: &Sequences, validation: &Sequences, rows_in: usize) -> Stats {
        let rows = |sequences: &Sequences| {
            let originals = (0..sequences.len()).filter(|&index| !sequences.is_copy(index));
            let mut rows: Vec<u64> = originals.map(|index| sequences.row_of(index)).collect();
            rows.sort_unstable();
            rows.dedup();
            rows.len()
        };
        Stats {
            rows_in,
            rows: rows(train),
            rows_validation: rows(validation),
            sequences: train.len(),
            tokens: train.tokens(),
            supervised_tokens: train.supervised(),
            longest: train.longest().map_or(0, |index| train.tokens_of(index)),
        }
    }
}

const NO_DOCUMENT: crate::finding::Kind = crate::finding::Kind {
    id: "not-a-document",
    level: Level::Note,
    message: "files of `data.context.retrieve` that are no documents are not retrieved from",
    hint: "documents are .txt, .md and .jsonl files",
};
const SKIPPED: crate::finding::Kind = crate::finding::Kind {
    id: "unusable-rows-skipped",
    level: Level::Warning,
    message: "rows that cannot be used are left out, the first because",
    hint: "they are listed with what is wrong with each; mend them to train on them",
};

const UNUSABLE: crate::finding::Kind = crate::finding::Kind {
    id: "unusable-rows",
    level: Level::Error,
    message: "rows that cannot be used, the first because",
    hint: "mend them, or leave them out with `data.on_error: skip`",
};
