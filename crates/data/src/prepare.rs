//! From files to the sequences that a run trains and validates on.
//!
//! ```text
//! file      rows of one file, tokenised in parallel, shard by shard, into the cache
//! audits    duplicates, contradictions, rows of validation and tests that stand in training
//! division  what is kept back, how often a row stands in an epoch
//! ```

mod audits;
mod division;
mod file;
mod key;

use std::path::PathBuf;
use std::sync::Arc;

use crate::context::{Context, ContextOptions};
use crate::mixture::Mixture;
use crate::overlong::Overlong;
use crate::record::{self, Reading, Wanted};
use crate::sequences::Sequences;
use crate::split::By;
use crate::store::Set;
use crate::supervision::Supervisor;
use crate::{Error, Findings, Level, Place, Result, RowError, source};

pub use file::{FileSummary, load_source};

/// Where rows come from.
#[derive(Clone, Debug, PartialEq)]
pub enum Location {
    /// A file, a folder of files or a glob.
    Path(PathBuf),
    /// An entry of a LLaMA-Factory `dataset_info.json`.
    Entry {
        /// The file.
        path: PathBuf,
        /// The entry.
        name: String,
    },
    /// A data set on the hub.
    Hub(HubSet),
    /// Files that were found already.
    Files(Vec<PathBuf>),
}

impl Default for Location {
    fn default() -> Self {
        Location::Path(PathBuf::new())
    }
}

/// A data set on the hub.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HubSet {
    /// `owner/name`.
    pub id: String,
    /// One of its configurations.
    pub config: Option<String>,
    /// One of its splits.
    pub split: Option<String>,
    /// Branch, tag or commit.
    pub revision: Option<String>,
}

/// Records, and how they are taken.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Source {
    /// Where they are.
    pub location: Location,
    /// How rows are read.
    pub reading: Reading,
    /// Takes only so many rows.
    pub limit: Option<usize>,
    /// Whether `limit` takes rows by the seed, and not the first ones.
    pub shuffle: bool,
    /// How often a row stands in an epoch; 0 is taken as 1. Not for validation.
    pub repeat: usize,
    /// Share of the mixture, in place of `repeat`.
    pub weight: Option<f64>,
}

impl Source {
    /// A file, a folder or a glob, taken whole.
    pub fn of_path(path: impl Into<PathBuf>) -> Source {
        Source { location: Location::Path(path.into()), ..Source::default() }
    }

    fn not_fetched(&self, id: &str) -> Error {
        Error::Setting {
            key: self.reading.key.clone(),
            message: format!("`{id}` is on the hub and not on this machine"),
            hint: Some(format!("write `hub: {id}`")),
        }
    }

    /// The files of a source, and how they are read.
    ///
    /// Fails where there are none, and for a data set on the hub: its files are the caller's to bring.
    pub fn files(&self) -> Result<(Vec<PathBuf>, Reading)> {
        let reading = self.reading.clone();
        match &self.location {
            Location::Path(path) => Ok((source::expand(path)?, reading)),
            Location::Files(files) => Ok((files.clone(), reading)),
            Location::Entry { path, name } => {
                let (found, described, _) = record::dataset_info(path, name)?;
                let reading = Reading { key: reading.key, system: reading.system, ..described };
                match found {
                    record::Location::File(file) => Ok((source::expand(&file)?, reading)),
                    record::Location::Hub { id, .. } => Err(self.not_fetched(&id)),
                }
            }
            Location::Hub(set) => Err(self.not_fetched(&set.id)),
        }
    }
}

/// Where validation rows come from.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Validation {
    /// There are none.
    #[default]
    None,
    /// A share of the training rows, which are then not trained on.
    Fraction {
        /// How large a share.
        fraction: f64,
        /// What is kept back as a whole.
        by: By,
        /// A column of whose every value the share is taken.
        stratify: Option<String>,
    },
    /// Files of their own.
    Sources(Vec<Source>),
}

/// What happens to rows that cannot be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnError {
    /// They are all named, and nothing is trained.
    #[default]
    Stop,
    /// They are left out, counted and listed.
    Skip,
    /// As [`OnError::Skip`], but it is an error: for an audit, which shows everything at once.
    List,
}

/// What the `data` section of a recipe says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// What the method learns from.
    pub wanted: Wanted,
    /// Rows to train on.
    pub train: Vec<Source>,
    /// When an epoch of weighted sources ends.
    pub mixture: Mixture,
    /// What to validate on.
    pub validation: Validation,
    /// Rows that must not be trained on.
    pub test: Vec<Source>,
    /// Passages that are put in front of prompts.
    pub context: Option<ContextOptions>,
    /// Most tokens of a row; the longest row where there is no limit.
    pub max_seq_len: Option<usize>,
    /// What happens to longer rows.
    pub overlong: Overlong,
    /// What happens to rows that cannot be used.
    pub on_error: OnError,
    /// Errors that are taken for warnings.
    pub accept: Vec<String>,
    /// Seed of split, mixture and limits.
    pub seed: u64,
    /// Number of threads that tokenise; 0 is taken as 1.
    pub threads: usize,
    /// Folder that keeps prepared rows; without it they stay in memory.
    pub cache: Option<PathBuf>,
}

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
