//! From files to the sequences that a run trains and validates on.

use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::forest::common_prefix;
use crate::overlong::{self, Overlong};
use crate::record::{self, Conversation, Reading};
use crate::split::validation_rows;
use crate::supervision::{NO_END_OF_TURN, Supervisor};
use crate::{Error, Findings, Level, Result, RowError, Sequence, source};

/// A file of records, and how it is taken.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Source {
    /// The file.
    pub path: PathBuf,
    /// How its rows are read.
    pub reading: Reading,
    /// Takes only so many rows, from the first on.
    pub limit: Option<usize>,
    /// How often a row stands in an epoch; 0 is taken as 1. Not for validation.
    pub repeat: usize,
}

/// Where validation rows come from.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Validation {
    /// There are none.
    #[default]
    None,
    /// This share of the training rows, which are then not trained on.
    Fraction(f64),
    /// Files of their own.
    Sources(Vec<Source>),
}

/// What the `data` section of a recipe says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// Files to train on.
    pub train: Vec<Source>,
    /// What to validate on.
    pub validation: Validation,
    /// Most tokens of a row; the longest row where there is no limit.
    pub max_seq_len: Option<usize>,
    /// What happens to longer rows.
    pub overlong: Overlong,
    /// Seed of the split.
    pub seed: u64,
    /// Number of threads that tokenise; 0 is taken as 1.
    pub threads: usize,
}

/// Everything that a run needs of its data.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// To train on, in file order; repeated rows after all others.
    pub train: Vec<Sequence>,
    /// To validate on, in file order.
    pub validation: Vec<Sequence>,
    /// What the user should know.
    pub findings: Findings,
    /// Counts over `train`.
    pub stats: Stats,
    /// The files, training before validation.
    pub files: Vec<FileSummary>,
}

/// Counts over the sequences of one epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Stats {
    /// Rows of the files, repeated ones once.
    pub rows: usize,
    /// Sequences, of which a conversation may give several.
    pub sequences: usize,
    /// Tokens as rendered.
    pub tokens: usize,
    /// Tokens that count in the loss.
    pub supervised_tokens: usize,
    /// Tokens of the longest sequence.
    pub longest: usize,
    /// Tokens with which every sequence begins.
    pub shared_prefix: usize,
}

/// What a manifest keeps of a file.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct FileSummary {
    /// The file.
    pub path: PathBuf,
    /// The shape of its records.
    pub format: &'static str,
    /// Rows taken.
    pub rows: usize,
    /// Hash of its bytes, in hex.
    pub sha256: String,
}

/// Reads, converts, tokenises and splits the data of a run.
///
/// The result does not depend on the number of threads. Every row that cannot
/// be used is named in the error.
pub fn prepare(config: &Config, supervisor: &Supervisor) -> Result<Prepared> {
    let mut findings = Findings::default();
    let mut files = Vec::new();
    let (train, repeats) = load(&config.train, &mut findings, &mut files)?;
    let held_out = match &config.validation {
        Validation::Sources(sources) => load(sources, &mut findings, &mut files)?.0,
        Validation::Fraction(_) | Validation::None => Vec::new(),
    };
    if train.is_empty() {
        return Err(Error::Setting {
            key: "data.train".into(),
            message: "there are no rows to train on".into(),
            hint: None,
        });
    }
    let first_held_out = train.len() as u64;
    let conversations: Vec<Conversation> = train.into_iter().chain(held_out).collect();
    let sequences = supervise(&conversations, supervisor, config.threads.max(1), &mut findings)?;
    if findings.get(NO_END_OF_TURN.id).is_some_and(|found| found.count >= sequences.len()) {
        findings.raise(NO_END_OF_TURN.id, Level::Error);
    }
    let sequences = match config.max_seq_len {
        Some(max) => overlong::limit(sequences, max, config.overlong, &mut findings)?,
        None => sequences,
    };
    let held_out = held_out_rows(config, &sequences, first_held_out, &mut findings)?;
    let (validation, train): (Vec<_>, Vec<_>) = sequences
        .into_iter()
        .partition(|s| s.row >= first_held_out || held_out.binary_search(&s.row).is_ok());
    if train.is_empty() {
        return Err(Error::Setting {
            key: "data.max_seq_len".into(),
            message: "no row is short enough to train on".into(),
            hint: Some("raise it".into()),
        });
    }
    let train = repeat(train, &repeats, conversations.len() as u64);
    let stats = Stats::of(&train, conversations.len() as u64);
    Ok(Prepared { train, validation, findings, stats, files })
}

impl Stats {
    /// Counts sequences; rows from `copies_from` on repeat others.
    fn of(sequences: &[Sequence], copies_from: u64) -> Stats {
        let mut rows: Vec<u64> =
            sequences.iter().map(|s| s.row).filter(|&row| row < copies_from).collect();
        rows.dedup();
        let first = sequences.first().map_or(&[][..], |s| &s.tokens);
        let shared = sequences.iter().map(|s| common_prefix(first, &s.tokens)).min();
        Stats {
            rows: rows.len(),
            sequences: sequences.len(),
            tokens: sequences.iter().map(Sequence::len).sum(),
            supervised_tokens: sequences.iter().map(Sequence::supervised).sum(),
            longest: sequences.iter().map(Sequence::len).max().unwrap_or(0),
            shared_prefix: shared.unwrap_or(0),
        }
    }
}

/// Reads one file of records.
pub fn load_source(
    source: &Source,
    findings: &mut Findings,
) -> Result<(FileSummary, Vec<Conversation>)> {
    let path: &Path = &source.path;
    let bytes = std::fs::read(path).map_err(|source| Error::Io { path: path.into(), source })?;
    let mut rows = source::parse(path, &bytes)?;
    rows.truncate(source.limit.unwrap_or(usize::MAX));
    let (shape, conversations) = record::conversations(rows, &source.reading, findings)?;
    let sha256 = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    let summary =
        FileSummary { path: path.into(), format: shape.name, rows: conversations.len(), sha256 };
    Ok((summary, conversations))
}

/// Reads files one after the other; bad rows of all of them make one error.
/// Returns how often each conversation is repeated beside them.
fn load(
    sources: &[Source],
    findings: &mut Findings,
    files: &mut Vec<FileSummary>,
) -> Result<(Vec<Conversation>, Vec<usize>)> {
    let (mut conversations, mut repeats, mut bad) = (Vec::new(), Vec::new(), Vec::new());
    for source in sources {
        match load_source(source, findings) {
            Ok((summary, loaded)) => {
                repeats.resize(repeats.len() + loaded.len(), source.repeat.max(1));
                conversations.extend(loaded);
                files.push(summary);
            }
            Err(Error::Rows { rows, .. }) => bad.extend(rows),
            Err(other) => return Err(other),
        }
    }
    Error::from_rows(bad)?;
    Ok((conversations, repeats))
}

/// Tokenises conversations in parallel; the order of the result is theirs.
fn supervise(
    conversations: &[Conversation],
    supervisor: &Supervisor,
    threads: usize,
    findings: &mut Findings,
) -> Result<Vec<Sequence>> {
    let chunk = conversations.len().div_ceil(threads).max(1);
    let work = |index: usize, conversations: &[Conversation]| {
        let mut part = (Vec::new(), Vec::new(), Findings::default());
        for (offset, conversation) in conversations.iter().enumerate() {
            let row = (index * chunk + offset) as u64;
            match supervisor.supervise(row, conversation, &mut part.2) {
                Ok(sequences) => part.0.extend(sequences),
                Err(error) => part.1.push(error),
            }
        }
        part
    };
    let parts: Vec<(Vec<Sequence>, Vec<RowError>, Findings)> = std::thread::scope(|scope| {
        let chunks = conversations.chunks(chunk).enumerate();
        let running: Vec<_> =
            chunks.map(|(index, chunk)| scope.spawn(move || work(index, chunk))).collect();
        let join = |handle: std::thread::ScopedJoinHandle<'_, _>| match handle.join() {
            Ok(part) => part,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        running.into_iter().map(join).collect()
    });
    let (mut sequences, mut bad) = (Vec::new(), Vec::new());
    for (more, worse, found) in parts {
        sequences.extend(more);
        bad.extend(worse);
        findings.merge(found);
    }
    Error::from_rows(bad)?;
    Ok(sequences)
}

/// Rows of the training files that are kept back, sorted.
fn held_out_rows(
    config: &Config,
    sequences: &[Sequence],
    first_held_out: u64,
    findings: &mut Findings,
) -> Result<Vec<u64>> {
    let Validation::Fraction(fraction) = config.validation else { return Ok(Vec::new()) };
    if !(0.0..1.0).contains(&fraction) {
        return Err(Error::Setting {
            key: "data.validation.fraction".into(),
            message: format!("{fraction} is not a share of the rows"),
            hint: Some("write 0.1 for one row in ten".into()),
        });
    }
    let mut rows: Vec<u64> =
        sequences.iter().map(|s| s.row).filter(|&row| row < first_held_out).collect();
    rows.dedup();
    let chosen = validation_rows(&rows, fraction, config.seed);
    if let (true, true, Some(first)) = (chosen.is_empty(), fraction > 0.0, sequences.first()) {
        findings.add(&NO_VALIDATION, &first.place);
    }
    Ok(chosen)
}

/// Appends the copies that `repeat` asks for, each as a row of its own.
fn repeat(mut train: Vec<Sequence>, repeats: &[usize], rows: u64) -> Vec<Sequence> {
    let originals = train.len();
    let most = repeats.iter().copied().max().unwrap_or(1);
    for copy in 1..most {
        for index in 0..originals {
            let original = &train[index];
            if repeats[original.row as usize] > copy {
                let row = original.row + copy as u64 * rows;
                train.push(Sequence { row, group: row as u32, ..original.clone() });
            }
        }
    }
    train
}

const NO_VALIDATION: crate::finding::Kind = crate::finding::Kind {
    id: "no-validation",
    level: Level::Warning,
    message: "there are too few rows to keep one back for validation",
    hint: "add rows, or name a file under `data.validation.path`",
};
