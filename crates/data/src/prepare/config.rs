//! What the `data` section of a recipe says: where rows come from, and what becomes of them.

use std::path::PathBuf;

use crate::context::ContextOptions;
use crate::mixture::Mixture;
use crate::overlong::Overlong;
use crate::record::{self, Reading, Wanted};
use crate::split::By;
use crate::{Error, Result, Stop, source};

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
    /// Ends the preparation early. Shards that were finished stay in the cache.
    pub stop: Stop,
}
