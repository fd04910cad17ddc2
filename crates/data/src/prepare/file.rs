//! The rows of one file, tokenised shard by shard on many threads.

use std::collections::BinaryHeap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex};

use serde_json::{Map, Value};

use super::{Config, Source, Validation, key};
use crate::audit::preferences::{self, Pair};
use crate::audit::{AuditText, quality};
use crate::context::{self, Context};
use crate::overlong::{self, Beginning, Overlong};
use crate::random::{key as hash, purpose};
use crate::record::{self, Conversation, Labelled, LabelledInput, Reader, Reading, Record};
use crate::source::{self, Row, Trouble};
use crate::store::{Draft, Folder, Found, Header, LeftOut, Set, Shard};
use crate::supervision::Supervisor;
use crate::{Error, Findings, Place, Result, RowError, Stop};

/// Most rows of a shard, and most bytes of text after which it takes no more.
const SHARD_ROWS: usize = 1024;
const SHARD_BYTES: usize = 4 << 20;
/// Rows at which a file is looked at to find its shape.
const SAMPLE_ROWS: usize = 1000;

/// What a manifest keeps of a file.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct FileSummary {
    /// The file.
    pub path: PathBuf,
    /// `train`, `validation` or `test`.
    pub purpose: &'static str,
    /// The shape of its records.
    pub format: String,
    /// Why it is taken to be that shape.
    pub why: String,
    /// Rows taken.
    pub rows: usize,
    /// Hash of its bytes, in hex.
    pub sha256: String,
}

impl FileSummary {
    pub(super) fn of(made: &MadeSet, purpose: &'static str) -> Self {
        let Set { file, header, rows, .. } = &made.set;
        FileSummary {
            path: file.to_path_buf(),
            purpose,
            format: header.format.clone(),
            why: header.why.clone(),
            rows: *rows,
            sha256: made.sha256.clone(),
        }
    }
}

/// Reads the conversations of a source into memory, to look at them.
pub fn load_source(
    source: &Source,
    findings: &mut Findings,
) -> Result<(FileSummary, Vec<Conversation>)> {
    let (files, reading) = source.files()?;
    let mut conversations = Vec::new();
    let mut summary = None;
    for path in &files {
        let mut rows = source::read(path)?;
        rows.truncate(source.limit.unwrap_or(usize::MAX).saturating_sub(conversations.len()));
        let (shape, found) = record::conversations(rows, &reading, findings)?;
        conversations.extend(found);
        summary.get_or_insert((
            path.clone(),
            shape.name.to_owned(),
            key::file_hash(path, &Stop::default())?,
        ));
    }
    let (path, format, sha256) = summary.unwrap_or_default();
    let rows = conversations.len();
    let summary = FileSummary { path, purpose: "train", format, why: String::new(), rows, sha256 };
    Ok((summary, conversations))
}

/// Columns that a split looks at.
pub(super) fn columns(config: &Config) -> Vec<&str> {
    let Validation::Fraction { by, stratify, .. } = &config.validation else { return Vec::new() };
    by.column().into_iter().chain(stratify.as_deref()).collect()
}

/// Makes sets of files.
pub(super) struct Maker<'a> {
    pub(super) config: &'a Config,
    pub(super) supervisor: &'a Supervisor,
    pub(super) context: Option<&'a Context>,
    /// What the supervisor makes of a row depends on this and on the row alone.
    pub(super) fingerprint: String,
}

/// A set, and what its file hashes to.
pub(super) struct MadeSet {
    pub(super) set: Set,
    /// Its name in the cache.
    pub(super) key: String,
    /// Files of the cache that were damaged, and were made anew.
    pub(super) damaged: Vec<PathBuf>,
    sha256: String,
}

/// What becomes of one row.
struct MadeRow {
    /// Its text, for audits.
    text: AuditText,
    /// What it says beside tokens.
    side: Map<String, Value>,
    sequences: Vec<crate::Sequence>,
}

impl Maker<'_> {
    /// The rows of a file, and whether the cache had them all.
    pub(super) fn set(
        &self,
        path: &Path,
        reading: &Reading,
        limit: Option<usize>,
        shuffle: bool,
    ) -> Result<(MadeSet, bool)> {
        let sha256 = key::file_hash(path, &self.config.stop)?;
        let take = (limit, shuffle);
        let key = key::key(self.config, &self.fingerprint, self.context, reading, &sha256, take);
        let folder = match &self.config.cache {
            Some(cache) => Some(Folder::take(cache, &key)?),
            None => None,
        };
        let file: Arc<Path> = path.into();
        let (header, shards, was_cached) = match folder.as_ref().and_then(cached) {
            Some((header, shards)) => (header, shards, true),
            None => {
                let (header, shards) = self.make(path, reading, limit, shuffle, folder.as_ref())?;
                (header, shards, false)
            }
        };
        let set = Set::open(file, header, shards)?;
        let damaged = folder.map_or_else(Vec::new, |folder| folder.damaged());
        Ok((MadeSet { set, key, damaged, sha256 }, was_cached))
    }

    fn make(
        &self,
        path: &Path,
        reading: &Reading,
        limit: Option<usize>,
        shuffle: bool,
        folder: Option<&Folder>,
    ) -> Result<(Header, Vec<Shard>)> {
        let chosen = match limit {
            Some(limit) if shuffle => Some(self.chosen(path, limit)?),
            _ => None,
        };
        let rows = source::open(path)?;
        let container = rows.format().to_owned();
        let mut rows = rows.map(|row| self.config.stop.check().and(row));
        let mut sample = Vec::new();
        let mut begun = Vec::new();
        while sample.len() < SAMPLE_ROWS
            && let Some(row) = rows.next()
        {
            let row = row?;
            sample.extend(row.as_ref().ok().cloned());
            begun.push(row);
        }
        if sample.is_empty() {
            // None of the first rows can be read: there is no shape to find.
            return Err(Error::rows(begun.into_iter().filter_map(std::result::Result::err)));
        }
        let reader = Reader::find(&sample, reading, self.config.wanted)?;
        drop(sample);
        let all = begun.into_iter().map(Ok).chain(rows);
        let taken = Taken { rows: all, index: 0, taken: 0, limit, chosen };
        let shards = self.shards(taken, &reader, folder)?;
        let header = Header {
            container,
            format: reader.shape().to_owned(),
            why: reader.why().to_owned(),
            shards: Some(shards.len()),
            ..Header::default()
        };
        if let Some(folder) = folder {
            folder.finish(&header)?;
        }
        Ok((header, shards))
    }

    /// Which rows a shuffled limit takes, sorted: those with the smallest hashes.
    fn chosen(&self, path: &Path, limit: usize) -> Result<Vec<usize>> {
        let mut smallest = BinaryHeap::new();
        for (index, row) in source::open(path)?.enumerate() {
            self.config.stop.check()?;
            _ = row?;
            smallest.push((hash(&[purpose::LIMIT, self.config.seed, index as u64]), index));
            if smallest.len() > limit {
                smallest.pop();
            }
        }
        let mut chosen: Vec<usize> = smallest.into_iter().map(|(_, index)| index).collect();
        chosen.sort_unstable();
        Ok(chosen)
    }

    /// Cuts rows into shards and makes each of them that is not there yet.
    fn shards(
        &self,
        rows: impl Iterator<Item = Result<std::result::Result<Row, RowError>>>,
        reader: &Reader,
        folder: Option<&Folder>,
    ) -> Result<Vec<Shard>> {
        let threads = self.config.threads.max(1);
        let (to_workers, jobs) = sync_channel::<(usize, Batch)>(1);
        let jobs = Arc::new(Mutex::new(jobs));
        let made = Mutex::new(Vec::new());
        let work = |jobs: Arc<Mutex<Receiver<(usize, Batch)>>>| -> Result<()> {
            loop {
                let job = jobs.lock().expect("a receiver does not panic").recv();
                let Ok((number, batch)) = job else { return Ok(()) };
                let shard = match folder.and_then(|folder| folder.shard(number)) {
                    Some(shard) => shard,
                    None => self.shard(number, batch, reader, folder)?,
                };
                made.lock().expect("a push does not panic").push((number, shard));
            }
        };
        std::thread::scope(|scope| -> Result<()> {
            // The workers alone hold the queue's end: once all have failed, nothing can be sent.
            let start = |jobs| scope.spawn(|| work(jobs));
            let workers: Vec<_> = (0..threads).map(|_| start(jobs.clone())).collect();
            drop(jobs);
            let read = feed(rows, &to_workers);
            drop(to_workers);
            for worker in workers {
                match worker.join() {
                    Ok(result) => result?,
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            read
        })?;
        let mut made = made.into_inner().expect("all workers have ended");
        made.sort_by_key(|(number, _)| *number);
        Ok(made.into_iter().map(|(_, shard)| shard).collect())
    }

    fn shard(
        &self,
        number: usize,
        batch: Batch,
        reader: &Reader,
        folder: Option<&Folder>,
    ) -> Result<Shard> {
        let mut draft = Draft::default();
        let mut findings = Findings::default();
        let columns = columns(self.config);
        for (index, row) in batch.rows.into_iter().enumerate() {
            self.config.stop.check()?;
            let local = index as u32;
            match row {
                Ok(row) => {
                    let values = columns.iter().map(|name| column(&row.value, name)).collect();
                    let place = row.place.clone();
                    let is_split = |trouble: &&Trouble| columns.contains(&trouble.column.as_str());
                    if let Some(trouble) = row.troubles.iter().find(is_split) {
                        draft.tail.left_out.push(unusable(trouble.error(&trouble.column, &place)));
                        draft.tail.rows += 1;
                        continue;
                    }
                    let notes = (&mut findings, &mut draft.tail.preferences);
                    match self.row(batch.first + index, row, reader, notes) {
                        Ok(MadeRow { text, side, sequences }) if !sequences.is_empty() => {
                            quality::look(&text, &place, &mut findings);
                            draft.tail.tally.add(&text);
                            draft.push(local, &place, &text, values, &side, &sequences);
                        }
                        Ok(_) => draft.tail.left_out.push(too_long(&place, self.config)),
                        Err(error) => draft.tail.left_out.push(unusable(error)),
                    }
                }
                Err(error) => draft.tail.left_out.push(unusable(error)),
            }
            draft.tail.rows += 1;
        }
        draft.tail.preferences.row_findings(&mut findings);
        draft.tail.findings = Found::of(&findings, &[]);
        let bytes = draft.into_bytes();
        match folder {
            Some(folder) => folder.put(number, &bytes),
            None => Shard::in_memory(bytes),
        }
    }

    /// Makes one row.
    fn row(
        &self,
        index: usize,
        row: Row,
        reader: &Reader,
        (findings, preferences): (&mut Findings, &mut preferences::Tally),
    ) -> std::result::Result<MadeRow, RowError> {
        let golden = self.context.and_then(|_| context::golden(&row.value)).map(str::to_owned);
        let mut record: Record = reader.read(row, findings)?;
        count_preference(&record, preferences);
        // Before passages are put in: they are no part of what a row says.
        let text = self.supervisor.texts(&record);
        if let Some(context) = self.context {
            context.add(index as u64, &mut record, golden.as_deref());
        }
        let sequences = self.supervisor.sequences(index as u64, &record, findings)?;
        let sequences = match self.config.max_seq_len {
            Some(most) => {
                let is_text =
                    |labelled: &Labelled| matches!(labelled.input, LabelledInput::Text(_));
                let beginning = Beginning {
                    is_prompt: match &record {
                        Record::Text(_) | Record::Stepwise(_) => false,
                        Record::Labelled(labelled) => !is_text(labelled),
                        _ => true,
                    },
                    bos: self.supervisor.bos(),
                };
                overlong::apply(sequences, most, self.config.overlong, beginning, findings)?
            }
            None => sequences,
        };
        Ok(MadeRow { text, side: self.supervisor.side(&record)?, sequences })
    }
}

/// The header and all shards of a folder that is complete.
fn cached(folder: &Folder) -> Option<(Header, Vec<Shard>)> {
    let header = folder.finished()?;
    let shards = (0..header.shards?).map(|number| folder.shard(number)).collect::<Option<_>>()?;
    Some((header, shards))
}

/// Rows that become one shard.
#[derive(Default)]
struct Batch {
    /// Index of the first of them among the rows taken.
    first: usize,
    rows: Vec<std::result::Result<Row, RowError>>,
}

/// Hands rows to the workers in batches that depend on the rows alone.
fn feed(
    rows: impl Iterator<Item = Result<std::result::Result<Row, RowError>>>,
    workers: &std::sync::mpsc::SyncSender<(usize, Batch)>,
) -> Result<()> {
    let (mut batch, mut bytes, mut number) = (Batch::default(), 0, 0);
    for row in rows {
        let row = row?;
        bytes += row.as_ref().map_or(0, |row| size(&row.value));
        batch.rows.push(row);
        if batch.rows.len() == SHARD_ROWS || bytes >= SHARD_BYTES {
            let next = Batch { first: batch.first + batch.rows.len(), rows: Vec::new() };
            // Workers that have failed say so when they are joined.
            if workers.send((number, std::mem::replace(&mut batch, next))).is_err() {
                return Ok(());
            }
            (bytes, number) = (0, number + 1);
        }
    }
    if !batch.rows.is_empty() {
        _ = workers.send((number, batch));
    }
    Ok(())
}

/// Bytes of text in a row, about.
fn size(fields: &Map<String, Value>) -> usize {
    fn of(value: &Value) -> usize {
        match value {
            Value::String(text) => text.len(),
            Value::Array(items) => items.iter().map(of).sum(),
            Value::Object(fields) => size(fields),
            _ => 8,
        }
    }
    fields.iter().map(|(name, value)| name.len() + of(value)).sum()
}

/// Rows that a limit takes.
struct Taken<I> {
    rows: I,
    index: usize,
    taken: usize,
    limit: Option<usize>,
    chosen: Option<Vec<usize>>,
}

impl<I: Iterator<Item = Result<std::result::Result<Row, RowError>>>> Iterator for Taken<I> {
    type Item = I::Item;

    fn next(&mut self) -> Option<Self::Item> {
        while self.limit.is_none_or(|limit| self.taken < limit) {
            let row = self.rows.next()?;
            let index = self.index;
            self.index += 1;
            if self.chosen.as_ref().is_none_or(|chosen| chosen.binary_search(&index).is_ok()) {
                self.taken += 1;
                return Some(row);
            }
        }
        None
    }
}

/// The value of a column as text, `null` where there is none.
fn column(fields: &Map<String, Value>, name: &str) -> Option<String> {
    match fields.get(name)? {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(text::integer::plain(other.to_string())),
    }
}

/// Counts a pair, or the best and the worst of several answers.
fn count_preference(record: &Record, tally: &mut preferences::Tally) {
    let text = |messages: &[text::Message]| {
        messages.iter().map(|message| message.content.as_str()).collect::<Vec<_>>().join("\n")
    };
    let (prompt, chosen, rejected, scores) = match record {
        Record::Preference(pair) => {
            let scores = pair.margin.map(|margin| (margin, 0.0));
            (&pair.prompt, text(&pair.chosen), text(&pair.rejected), scores)
        }
        Record::Ranked(ranked) => {
            let (Some(best), Some(worst)) = (ranked.answers.first(), ranked.answers.last()) else {
                return;
            };
            let scores = best.score.zip(worst.score);
            (&ranked.prompt, text(&best.messages), text(&worst.messages), scores)
        }
        _ => return,
    };
    let pair = Pair { prompt: &text(prompt), chosen: &chosen, rejected: &rejected, scores };
    tally.add(&pair, record.place());
}

fn unusable(error: RowError) -> LeftOut {
    let Place { line, element, .. } = error.place;
    LeftOut { line, element, message: error.message, hint: error.hint, is_bad: true }
}

fn too_long(place: &Place, config: &Config) -> LeftOut {
    let most = config.max_seq_len.unwrap_or(0);
    let message = format!("row has more than {most} tokens");
    let hint = match config.overlong {
        Overlong::CutPrompt => {
            "its answer alone does not fit, or it has no prompt that can be cut; raise `data.max_seq_len` \
             to train on it"
        }
        _ => "raise `data.max_seq_len` to train on it",
    };
    let hint = hint.to_owned();
    LeftOut { line: place.line, element: place.element, message, hint: Some(hint), is_bad: false }
}
