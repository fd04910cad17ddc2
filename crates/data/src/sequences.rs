//! The sequences of a run, by index, read when they are needed.

use std::path::Path;
use std::sync::Arc;

use crate::audit::AuditText;
use crate::store::{Draft, Header, Set, Shard};
use crate::{Place, Result, Sequence};

/// The sequences that an epoch takes, or those of a validation.
#[derive(Clone, Debug, Default)]
pub struct Sequences {
    /// Sets, and the row that each of them begins with.
    sets: Arc<Vec<(Set, u64)>>,
    /// Rows of all sets: what the copies of a row are apart.
    rows: u64,
    picks: Vec<Pick>,
}

/// One sequence of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pick {
    pub(crate) set: u32,
    /// Index in the set's sequences.
    pub(crate) sequence: u32,
    /// 0 for the row itself, more for its repetitions.
    pub(crate) copy: u32,
}

impl Sequences {
    pub(crate) fn new(sets: Arc<Vec<(Set, u64)>>, picks: Vec<Pick>) -> Self {
        let rows = sets.last().map_or(0, |(set, first)| first + set.rows as u64);
        Sequences { sets, rows, picks }
    }

    /// Sequences that stay in memory; `row` counts up from 0.
    pub fn in_memory(sequences: &[Sequence]) -> Result<Self> {
        let mut draft = Draft::default();
        for group in sequences.chunk_by(|a, b| a.row == b.row) {
            draft.push(group[0].row as u32, &group[0].place, &AuditText::default(), group);
        }
        draft.tail.rows = sequences.last().map_or(0, |last| last.row as usize + 1);
        let shard = Shard::in_memory(draft.into_bytes())?;
        let file = sequences.first().map_or_else(|| Path::new("").into(), |s| s.place.file.clone());
        let set = Set::open(file, Header::default(), vec![shard])?;
        let picks =
            (0..set.sequences.len() as u32).map(|sequence| Pick { set: 0, sequence, copy: 0 });
        let picks = picks.collect();
        Ok(Self::new(Arc::new(vec![(set, 0)]), picks))
    }

    /// Row and tokens of all of them, as [`crate::Order`] takes them.
    pub fn extents(&self) -> Vec<(u64, usize)> {
        (0..self.len()).map(|index| (self.row_of(index), self.tokens_of(index))).collect()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.picks.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.picks.is_empty()
    }

    /// Tokens of a sequence.
    pub fn tokens_of(&self, index: usize) -> usize {
        self.at(index).len as usize
    }

    /// Tokens of a sequence that count in the loss.
    pub fn supervised_of(&self, index: usize) -> usize {
        self.at(index).supervised as usize
    }

    /// Identity of a sequence's row: its index over all files, in the order of the recipe.
    pub fn row_of(&self, index: usize) -> u64 {
        let Pick { set, copy, .. } = self.picks[index];
        self.sets[set as usize].1 + u64::from(self.at(index).row) + u64::from(copy) * self.rows
    }

    /// Whether the sequence repeats another one.
    pub fn is_copy(&self, index: usize) -> bool {
        self.picks[index].copy > 0
    }

    /// Tokens of all of them.
    pub fn tokens(&self) -> usize {
        (0..self.len()).map(|index| self.tokens_of(index)).sum()
    }

    /// Tokens of all of them that count in the loss.
    pub fn supervised(&self) -> usize {
        (0..self.len()).map(|index| self.supervised_of(index)).sum()
    }

    /// Index of the longest.
    pub fn longest(&self) -> Option<usize> {
        // The first of equals.
        (0..self.len()).rev().max_by_key(|&index| self.tokens_of(index))
    }

    /// Reads a sequence.
    ///
    /// Fails where the cache was removed or damaged meanwhile.
    pub fn get(&self, index: usize) -> Result<Sequence> {
        let (set, _) = &self.sets[self.picks[index].set as usize];
        let row = self.row_of(index);
        let sequence = set.sequence(*self.at(index))?;
        Ok(Sequence { row, group: row as u32, ..sequence })
    }

    /// Reads several.
    pub fn get_all(&self, indices: impl IntoIterator<Item = usize>) -> Result<Vec<Sequence>> {
        indices.into_iter().map(|index| self.get(index)).collect()
    }

    /// Reads all of them, so many at a time.
    pub fn chunks(&self, size: usize) -> impl Iterator<Item = Result<Vec<Sequence>>> {
        let starts = (0..self.len()).step_by(size);
        starts.map(move |start| self.get_all(start..(start + size).min(self.len())))
    }

    /// Where the first sequence stands that has the id `vocab_size` or a higher one, and the id.
    pub fn beyond_vocabulary(&self, vocab_size: usize) -> Result<Option<(Place, u32)>> {
        let highest = |set: &Set| set.tails.iter().map(|tail| tail.highest_token).max();
        if self.sets.iter().all(|(set, _)| highest(set).is_none_or(|id| (id as usize) < vocab_size))
        {
            return Ok(None);
        }
        for index in 0..self.len() {
            let sequence = self.get(index)?;
            if let Some(&id) = sequence.tokens.iter().find(|&&id| id as usize >= vocab_size) {
                return Ok(Some((sequence.place, id)));
            }
        }
        Ok(None)
    }

    fn at(&self, index: usize) -> &crate::store::SequenceAt {
        let Pick { set, sequence, .. } = self.picks[index];
        &self.sets[set as usize].0.sequences[sequence as usize]
    }
}
