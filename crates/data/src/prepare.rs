//! From files to the sequences that a run trains and validates on.
//!
//! ```text
//! config    where rows come from, and what becomes of them
//! file      rows of one file, tokenised in parallel, shard by shard, into the cache
//! audited   what audits found, kept beside the rows
//! audits    duplicates, contradictions, rows of validation and tests that stand in training
//! division  what is kept back, how often a row stands in an epoch
//! ```

mod audited;
mod audits;
mod config;
mod division;
mod file;
mod key;

use std::path::PathBuf;
use std::sync::Arc;

use crate::audit::preferences;
use crate::context::Context;
use crate::record::{Reading, Wanted};
use crate::sequences::Sequences;
use crate::store::{Set, Walk};
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
    /// Counts over the preferences of the training files, rows that are kept back among them.
    pub preferences: preferences::Tally,
    /// The files: training, validation, tests.
    pub files: Vec<FileSummary>,
    /// Rows that are neither trained nor validated on, and why.
    pub left_out: Vec<RowError>,
    /// How rows were kept back.
    pub split: Option<Division>,
    /// A hash of the passages that are put into prompts, where some are.
    pub context: Option<String>,
    /// What the rows are read as.
    pub wanted: Wanted,
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
    /// Identities of the rows: hashes of their normalised text, sorted; written in hex.
    #[serde(serialize_with = "hex")]
    pub ids: Vec<u64>,
}

fn hex<S: serde::Serializer>(ids: &[u64], serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.collect_seq(ids.iter().map(|id| format!("{id:016x}")))
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
    /// Rows that an epoch does not take, so that sources stand in the proportions of their weights.
    pub rows_mixed_out: usize,
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
    // All files are there before the first row is read, and those that are small by custom come first: a
    // mistake in them shows before the training rows are prepared.
    let inputs = |purpose, sources: &[Source]| -> Result<Vec<Input>> {
        let input = |(index, source): (usize, &Source)| {
            let (files, reading) = source.files()?;
            let (limit, shuffle) = (source.limit, source.shuffle);
            Ok(Input { purpose, index, files, reading, limit, shuffle })
        };
        sources.iter().enumerate().map(input).collect()
    };
    let train = inputs("train", &config.train)?;
    let validation = inputs("validation", validation)?;
    let test = inputs("test", &config.test)?;
    let test = Made::of(&maker, &test)?;
    let validation = Made::of(&maker, &validation)?;
    let mut made = Made::of(&maker, &train)?;
    made.append(validation);
    made.append(test);
    config.stop.check()?;
    let mut prepared = made.finish(config)?;
    config.stop.check()?;
    prepared.context = context.as_ref().map(Context::hash);
    for file in context.iter().flat_map(Context::left_out) {
        let place = Place { file: file.as_path().into(), line: 1, element: None };
        prepared.findings.add(&NO_DOCUMENT, &place);
    }
    Ok(prepared)
}

/// Files of one source.
struct Input {
    purpose: &'static str,
    /// Index of the source among those of its purpose.
    index: usize,
    files: Vec<PathBuf>,
    reading: Reading,
    limit: Option<usize>,
    shuffle: bool,
}

/// Sets of all files, and what they are for.
struct Made {
    sets: Vec<Set>,
    /// Purpose, and index of the source among those of that purpose.
    purposes: Vec<(&'static str, usize)>,
    /// Names of the sets in the cache.
    keys: Vec<String>,
    files: Vec<FileSummary>,
    /// Files of the cache that were damaged, and were made anew.
    damaged: Vec<PathBuf>,
    all_cached: bool,
}

impl Made {
    fn of(maker: &file::Maker<'_>, inputs: &[Input]) -> Result<Made> {
        let (sets, purposes, keys, files) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut made = Made { sets, purposes, keys, files, damaged: Vec::new(), all_cached: true };
        for input in inputs {
            let mut left = input.limit;
            for path in &input.files {
                if left == Some(0) {
                    break;
                }
                let (set, was_cached) = maker.set(path, &input.reading, left, input.shuffle)?;
                left = left.map(|left| left.saturating_sub(set.set.rows));
                made.all_cached &= was_cached;
                made.files.push(FileSummary::of(&set, input.purpose));
                made.keys.push(set.key);
                made.damaged.extend(set.damaged);
                made.sets.push(set.set);
                made.purposes.push((input.purpose, input.index));
            }
        }
        Ok(made)
    }

    fn append(&mut self, other: Made) {
        self.sets.extend(other.sets);
        self.purposes.extend(other.purposes);
        self.keys.extend(other.keys);
        self.files.extend(other.files);
        self.damaged.extend(other.damaged);
        self.all_cached &= other.all_cached;
    }

    fn finish(self, config: &Config) -> Result<Prepared> {
        let mut findings = Findings::default();
        for file in &self.damaged {
            findings.add(&DAMAGED, &Place { file: file.as_path().into(), line: 1, element: None });
        }
        let mut left_out = Vec::new();
        let mut bad = Vec::new();
        for set in &self.sets {
            findings.merge(set.findings.clone());
            let (unusable, out): (Vec<_>, Vec<_>) = set.left_out.iter().partition(|row| row.is_bad);
            bad.extend(unusable.into_iter().map(|row| row.error(&set.file)));
            left_out.extend(out.into_iter().map(|row| row.error(&set.file)));
            let file = std::slice::from_ref(&set.file);
            findings.merge(set.header.notes.at(file).unwrap_or_default());
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
        if self.sets_of("train").all(|(_, set)| set.sequences == 0) {
            return Err(nothing_to_train(&left_out));
        }
        let preferences = audits::tallies(&self, &mut findings);
        let clusters = audits::duplicates(&self, config, &mut findings)?;
        audits::size(&self, &mut findings)?;
        let division = division::divide(&self, config, &clusters, &mut findings)?;
        audits::leaks(&self, config, &division.kept_back, &mut findings)?;
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
        let train = Sequences::new(sets.clone(), division.train)?;
        let validation = Sequences::new(sets, division.validation)?;
        let stats = Stats::of(&train, &validation, rows_in, division.mixed_out);
        let was_cached = self.all_cached;
        Ok(Prepared {
            train,
            validation,
            findings,
            stats,
            preferences,
            files,
            left_out,
            split: division.split,
            context: None,
            wanted: config.wanted,
            was_cached,
        })
    }

    /// The rows of one purpose.
    fn walk(&self, purpose: &str) -> Walk<'_> {
        Walk::new(self.sets_of(purpose).map(|(_, set)| set))
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
    fn of(train: &Sequences, validation: &Sequences, rows_in: usize, mixed_out: usize) -> Stats {
        Stats {
            rows_in,
            rows: train.rows(),
            rows_validation: validation.rows(),
            rows_mixed_out: mixed_out,
            sequences: train.len(),
            tokens: train.tokens(),
            supervised_tokens: train.supervised(),
            longest: train.longest().map_or(0, |(_, tokens)| tokens),
        }
    }
}

const NO_DOCUMENT: crate::finding::Kind = crate::finding::Kind {
    id: "not-a-document",
    level: Level::Note,
    message: "files of `data.context.retrieve` that are no documents are not retrieved from",
    hint: "documents are .txt, .md and .jsonl files",
};
const DAMAGED: crate::finding::Kind = crate::finding::Kind {
    id: "damaged-cache",
    level: Level::Warning,
    message: "damaged rows in the cache were prepared again",
    hint: "nothing is wrong with this run; if it comes again, the disk or the memory has a fault",
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
