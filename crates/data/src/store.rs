//! Prepared rows: written shard by shard, read one at a time.
//!
//! A set is what became of one file: its rows as sequences, their texts and fingerprints for audits, and
//! everything that was found on the way. It lies in a folder of the cache or in memory; either way only
//! what is needed to find a row again is held, so a set may be larger than memory.

mod bytes;
mod folder;
mod found;
mod rows;
mod shard;

use std::path::Path;
use std::sync::{Arc, Mutex};

use crate::audit::{AuditText, Sketch};
use crate::{Place, Result, Sequence};

pub(crate) use folder::{Folder, Header};
pub(crate) use found::Found;
pub(crate) use rows::{Part, Rows};
pub(crate) use shard::{Draft, LeftOut, Shard, Tail};

/// Files that are kept open.
const OPEN_FILES: usize = 64;

/// Where one sequence of a set lies, and what its order and packing depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SequenceAt {
    shard: u32,
    offset: u32,
    /// Index of its row in the set, rows that were left out counted.
    pub(crate) row: u32,
    /// Tokens.
    pub(crate) len: u32,
    /// Tokens that count in the loss.
    pub(crate) supervised: u32,
}

/// What became of one file.
pub(crate) struct Set {
    /// The file, as the user named it.
    pub(crate) file: Arc<Path>,
    /// Shape, and why.
    pub(crate) header: Header,
    /// Rows taken from the file, those that were left out among them.
    pub(crate) rows: usize,
    /// All sequences, by row.
    pub(crate) sequences: Vec<SequenceAt>,
    /// Of every shard what was found in it.
    pub(crate) tails: Vec<Tail>,
    shards: Vec<Shard>,
    /// The row that each shard begins with.
    firsts: Vec<u32>,
    open: Mutex<Vec<(usize, Arc<std::fs::File>)>>,
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
        let (mut sequences, mut tails, mut firsts) = (Vec::new(), Vec::new(), Vec::new());
        let mut rows = 0;
        for (index, shard) in shards.iter().enumerate() {
            let (found, tail) = shard.index(index as u32, rows as u32)?;
            firsts.push(rows as u32);
            rows += tail.rows;
            sequences.extend(found);
            tails.push(tail);
        }
        let open = Mutex::new(Vec::new());
        Ok(Set { file, header, rows, sequences, tails, shards, firsts, open })
    }

    /// A sequence of the set; its row is the index within the file.
    pub(crate) fn sequence(&self, at: SequenceAt) -> Result<Sequence> {
        let shard = &self.shards[at.shard as usize];
        let file = self.file(at.shard as usize)?;
        shard.sequence(file.as_deref(), at, &self.file)
    }

    /// Shows every row that has sequences: its index in the set, and its fingerprint.
    pub(crate) fn each_sketch(&self, mut show: impl FnMut(u32, Sketch)) -> Result<()> {
        for (index, shard) in self.shards.iter().enumerate() {
            let file = self.file(index)?;
            for (row, sketch) in shard.sketches(file.as_deref())? {
                show(self.firsts[index] + row, sketch);
            }
        }
        Ok(())
    }

    /// What was kept of a row's columns for a split.
    pub(crate) fn columns(&self, row: u32) -> &[Option<String>] {
        let (index, local) = self.find(row);
        self.tails[index].columns.get(local).map_or(&[], Vec::as_slice)
    }

    /// The shard of a row, and its index there.
    fn find(&self, row: u32) -> (usize, usize) {
        let index = self.firsts.partition_point(|&first| first <= row) - 1;
        (index, (row - self.firsts[index]) as usize)
    }

    /// The text of a row, and where it stands.
    pub(crate) fn text(&self, row: u32) -> Result<(AuditText, Place)> {
        let (index, local) = self.find(row);
        let file = self.file(index)?;
        self.shards[index].text(file.as_deref(), local as u32, &self.file)
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
