//! Prepared rows: written shard by shard, read one at a time.
//!
//! A set is what became of one file: its rows as sequences, their texts and fingerprints for audits, and
//! everything that was found on the way. It lies in a folder of the cache or in memory; either way only
//! what is needed to find a row again is held, 20 bytes a sequence, so a set may be larger than memory.
//!
//! A shard has 1,024 rows or 4 MB and is renamed into place when it is whole, so a kill loses one shard. Its parts and
//! sequences carry a CRC-32. A damaged shard is prepared again when a run begins; damage that appears later is an error.

mod bytes;
mod folder;
mod found;
mod rows;
mod shard;

use std::path::Path;
use std::sync::{Arc, Mutex};

use serde_json::{Map, Value};

use crate::audit::{AuditText, Sketch, preferences, quality};
use crate::{Findings, Place, Result, Sequence};

pub(crate) use folder::{Folder, Header, write_whole};
pub(crate) use found::Found;
pub(crate) use rows::{Rows, Walk};
pub(crate) use shard::{Draft, LeftOut, Shard, Tail};

/// Files that are kept open.
const OPEN_FILES: usize = 64;

/// Where one sequence of a shard lies, and what its order and packing depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SequenceAt {
    offset: u32,
    /// Of its line and its bytes.
    checksum: u32,
    /// Index of its row in the set, rows that were left out counted.
    pub(crate) row: u32,
    /// Tokens.
    pub(crate) len: u32,
    /// Tokens that count in the loss.
    pub(crate) supervised: u32,
    /// Which part of its row it belongs to.
    pub(crate) part: u32,
    /// Where the side data of its row lie, and their bytes; 0 bytes where it has none.
    side: (u32, u32),
}

/// What became of one file.
pub(crate) struct Set {
    /// The file, as the user named it.
    pub(crate) file: Arc<Path>,
    /// Shape, and why.
    pub(crate) header: Header,
    /// Sequences of all rows.
    pub(crate) sequences: u32,
    /// Rows that have sequences.
    pub(crate) kept: u32,
    /// Rows taken from the file, those that were left out among them.
    pub(crate) rows: usize,
    /// Rows that are left out.
    pub(crate) left_out: Vec<LeftOut>,
    /// The highest id, to be held against the model's vocabulary.
    pub(crate) highest_token: u32,
    /// What was found in its rows.
    pub(crate) findings: Findings,
    /// What was counted over them.
    pub(crate) tally: quality::Tally,
    /// The same of preferences.
    pub(crate) preferences: preferences::Tally,
    shards: Vec<Shard>,
    /// What each shard begins with.
    firsts: Vec<First>,
    open: Mutex<Vec<(usize, Arc<std::fs::File>)>>,
}

/// What a shard begins with, all of it counted over the set.
#[derive(Clone, Copy, Debug)]
struct First {
    /// Row, those that were left out counted.
    row: u32,
    /// Row that has sequences.
    kept: u32,
    sequence: u32,
}

/// A row as a split sees it.
pub(crate) struct RowAt<'a> {
    /// Hash of its normalised text.
    pub(crate) id: u64,
    /// Index among the rows that have sequences.
    pub(crate) kept: u32,
    /// Its sequences.
    pub(crate) sequences: std::ops::Range<u32>,
    /// Columns that the split looks at.
    pub(crate) columns: &'a [Option<String>],
}

impl std::fmt::Debug for Set {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Set")
            .field("file", &self.file)
            .field("rows", &self.rows)
            .finish_non_exhaustive()
    }
}

impl Set {
    /// Puts the shards of a file together.
    pub(crate) fn open(file: Arc<Path>, header: Header, shards: Vec<Shard>) -> Result<Set> {
        let mut set = Set {
            file,
            header,
            sequences: 0,
            kept: 0,
            rows: 0,
            left_out: Vec::new(),
            highest_token: 0,
            findings: Findings::default(),
            tally: quality::Tally::default(),
            preferences: preferences::Tally::default(),
            firsts: Vec::with_capacity(shards.len()),
            shards,
            open: Mutex::new(Vec::new()),
        };
        for index in 0..set.shards.len() {
            let opened = set.file(index)?;
            let shard = &set.shards[index];
            let first = First { row: set.rows as u32, kept: set.kept, sequence: set.sequences };
            let tail = shard.tail(opened.as_deref())?;
            set.firsts.push(first);
            set.sequences += shard.sequences() as u32;
            set.kept += shard.kept() as u32;
            set.add(tail);
        }
        Ok(set)
    }

    fn add(&mut self, tail: Tail) {
        self.rows += tail.rows;
        self.left_out.extend(tail.left_out);
        self.highest_token = self.highest_token.max(tail.highest_token);
        let file = std::slice::from_ref(&self.file);
        self.findings.merge(tail.findings.at(file).unwrap_or_default());
        self.tally.merge(tail.tally);
        self.preferences.merge(tail.preferences);
    }

    /// A sequence of the set; its row is the index within the file.
    pub(crate) fn sequence(&self, index: u32) -> Result<Sequence> {
        let shard = self.shard_of_sequence(index);
        let (opened, first) = (self.file(shard)?, self.firsts[shard]);
        let local = (index - first.sequence) as usize;
        let at = self.shards[shard].sequence_line(opened.as_deref(), local, first.row)?;
        self.shards[shard].sequence(opened.as_deref(), at, first.row, &self.file)
    }

    /// What the row of a sequence says beside tokens.
    pub(crate) fn side(&self, index: u32) -> Result<Map<String, Value>> {
        let shard = self.shard_of_sequence(index);
        let (opened, first) = (self.file(shard)?, self.firsts[shard]);
        let local = (index - first.sequence) as usize;
        let at = self.shards[shard].sequence_line(opened.as_deref(), local, first.row)?;
        self.shards[shard].side(opened.as_deref(), at)
    }

    /// The shard that a sequence lies in.
    pub(crate) fn shard_of_sequence(&self, index: u32) -> usize {
        self.firsts.partition_point(|first| first.sequence <= index) - 1
    }

    /// Index of a shard's first sequence, and where all of them lie.
    pub(crate) fn sequences_of_shard(&self, shard: usize) -> Result<(u32, Vec<SequenceAt>)> {
        let (opened, first) = (self.file(shard)?, self.firsts[shard]);
        let lines = self.shards[shard].sequence_lines(opened.as_deref(), first.row)?;
        Ok((first.sequence, lines))
    }

    /// Shows every row that has sequences, in order.
    pub(crate) fn each_row(&self, mut show: impl FnMut(&RowAt<'_>) -> Result<()>) -> Result<()> {
        for (index, shard) in self.shards.iter().enumerate() {
            let (opened, first) = (self.file(index)?, self.firsts[index]);
            let sequences = shard.sequence_lines(opened.as_deref(), first.row)?;
            let columns = shard.columns(opened.as_deref())?;
            let mut next = 0;
            for (number, line) in shard.row_lines(opened.as_deref())?.into_iter().enumerate() {
                let begin = next;
                let row = first.row + line.row;
                next += sequences[begin..].iter().take_while(|at| at.row == row).count();
                show(&RowAt {
                    id: line.id,
                    kept: first.kept + number as u32,
                    sequences: first.sequence + begin as u32..first.sequence + next as u32,
                    columns: columns.get(number).map_or(&[], Vec::as_slice),
                })?;
            }
        }
        Ok(())
    }

    /// Number of shards.
    pub(crate) fn shards(&self) -> usize {
        self.shards.len()
    }

    /// Index of a shard's first row among those that have sequences, and their fingerprints.
    pub(crate) fn sketches(&self, shard: usize) -> Result<(u32, Vec<Sketch>)> {
        let opened = self.file(shard)?;
        Ok((self.firsts[shard].kept, self.shards[shard].sketches(opened.as_deref())?))
    }

    /// The text of a row, by its index among those that have sequences, and where it stands.
    pub(crate) fn text(&self, kept: u32) -> Result<(AuditText, Place)> {
        let shard = self.firsts.partition_point(|first| first.kept <= kept) - 1;
        let (opened, local) = (self.file(shard)?, kept - self.firsts[shard].kept);
        self.shards[shard].text(opened.as_deref(), local as usize, &self.file)
    }

    /// The open file of a shard, where it lies in one.
    fn file(&self, shard: usize) -> Result<Option<Arc<std::fs::File>>> {
        let Some(path) = self.shards[shard].path() else { return Ok(None) };
        let mut open = self.open.lock().expect("nobody panics with the list in hand");
        if let Some((_, file)) = open.iter().find(|(index, _)| *index == shard) {
            return Ok(Some(file.clone()));
        }
        let file = std::fs::File::open(path)
            .map_err(|source| crate::Error::Io { path: path.into(), source })?;
        if open.len() == OPEN_FILES {
            open.remove(0);
        }
        let file = Arc::new(file);
        open.push((shard, file.clone()));
        Ok(Some(file))
    }
}
