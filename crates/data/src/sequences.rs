//! The sequences of a run, by index, read when they are needed.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::audit::AuditText;
use crate::order::Units;
use crate::store::{Draft, Header, SequenceAt, Set, Shard};
use crate::{Place, Result, Sequence, Unit};

/// The sequences that an epoch takes, or those of a validation.
///
/// They are held as runs of neighbours, a few bytes for each row that the other side of a split took.
#[derive(Clone, Debug, Default)]
pub struct Sequences {
    /// Sets, and the row that each of them begins with.
    sets: Arc<Vec<(Set, u64)>>,
    /// Rows of all sets: what the copies of a row are apart.
    rows: u64,
    runs: Runs,
    totals: Totals,
}

/// What is known of a sequence without reading its tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outline {
    /// Identity of its row: its index over all files, in the order of the recipe; of repetitions more.
    pub row: u64,
    /// Which part of the row it belongs to.
    pub part: u32,
    /// Tokens.
    pub tokens: usize,
    /// Tokens that count in the loss.
    pub supervised: usize,
    /// Whether it repeats another one.
    pub is_copy: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    tokens: usize,
    supervised: usize,
    rows: usize,
    units: usize,
    /// The first of the units with the most tokens.
    longest_unit: Extent,
    /// The first of the units with the fewest sequences.
    smallest_unit: Extent,
    /// Index and tokens of the first of the longest.
    longest: Option<(usize, usize)>,
}

/// A unit, without what is in it.
#[derive(Clone, Copy, Debug, Default)]
struct Extent {
    /// Its first sequence.
    start: usize,
    /// How many sequences it has.
    len: usize,
    tokens: usize,
}

impl Extent {
    fn sequences(self) -> Range<usize> {
        self.start..self.start + self.len
    }
}

impl Totals {
    /// Counts a unit that is complete.
    fn close(&mut self, unit: Extent) {
        if unit.len == 0 {
            return;
        }
        if self.units == 0 || unit.tokens > self.longest_unit.tokens {
            self.longest_unit = unit;
        }
        if self.units == 0 || unit.len < self.smallest_unit.len {
            self.smallest_unit = unit;
        }
        self.units += 1;
    }
}

/// Sequences of several sets in an order of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Runs {
    runs: Vec<Run>,
    len: usize,
}

/// Neighbouring sequences of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    /// How many sequences stand before it.
    before: usize,
    set: u32,
    /// The first of them, as the set counts them.
    sequence: u32,
    /// 0 for the row itself, more for its repetitions.
    copy: u32,
}

impl Runs {
    /// Adds sequences of a set.
    pub(crate) fn push(&mut self, set: usize, copy: usize, sequences: Range<u32>) {
        let (set, copy) = (set as u32, copy as u32);
        if sequences.is_empty() {
            return;
        }
        let follows = self.runs.last().is_some_and(|last| {
            let end = last.sequence + (self.len - last.before) as u32;
            (last.set, last.copy, end) == (set, copy, sequences.start)
        });
        if !follows {
            self.runs.push(Run { before: self.len, set, sequence: sequences.start, copy });
        }
        self.len += sequences.len();
    }

    /// The run that a sequence stands in, and its index in the set.
    fn find(&self, index: usize) -> (Run, u32) {
        let run = self.runs[self.runs.partition_point(|run| run.before <= index) - 1];
        (run, run.sequence + (index - run.before) as u32)
    }

    /// Every run with its sequences.
    fn each(&self) -> impl Iterator<Item = (Run, Range<u32>)> {
        let ends = self.runs.iter().skip(1).map(|run| run.before).chain([self.len]);
        self.runs
            .iter()
            .zip(ends)
            .map(|(run, end)| (*run, run.sequence..run.sequence + (end - run.before) as u32))
    }
}

impl Sequences {
    pub(crate) fn new(sets: Arc<Vec<(Set, u64)>>, runs: Runs) -> Result<Self> {
        let rows = sets.last().map_or(0, |(set, first)| first + set.rows as u64);
        let mut all = Sequences { sets, rows, runs, totals: Totals::default() };
        let (mut totals, mut index, mut last) = (Totals::default(), 0, None);
        let (mut last_unit, mut unit) = (None, Extent::default());
        all.each(|outline| {
            totals.tokens += outline.tokens;
            totals.supervised += outline.supervised;
            if totals.longest.is_none_or(|(_, longest)| outline.tokens > longest) {
                totals.longest = Some((index, outline.tokens));
            }
            totals.rows += usize::from(!outline.is_copy && last != Some(outline.row));
            if last_unit != Some((outline.row, outline.part)) {
                totals.close(unit);
                unit = Extent { start: index, ..Extent::default() };
            }
            unit.len += 1;
            unit.tokens += outline.tokens;
            (index, last) = (index + 1, Some(outline.row));
            last_unit = Some((outline.row, outline.part));
        })?;
        totals.close(unit);
        all.totals = totals;
        Ok(all)
    }

    /// Sequences that stay in memory; `row` counts up from 0.
    pub fn in_memory(sequences: &[Sequence]) -> Result<Self> {
        let mut draft = Draft::default();
        for group in sequences.chunk_by(|a, b| a.row == b.row) {
            let (row, place) = (group[0].row as u32, &group[0].place);
            let side = Map::new();
            draft.push(row, place, &AuditText::default(), Vec::new(), &side, group);
        }
        draft.tail.rows = sequences.last().map_or(0, |last| last.row as usize + 1);
        let shard = Shard::in_memory(draft.into_bytes())?;
        let file = sequences.first().map_or_else(|| Path::new("").into(), |s| s.place.file.clone());
        let set = Set::open(file, Header::default(), vec![shard])?;
        let mut runs = Runs::default();
        runs.push(0, 0, 0..set.sequences);
        Self::new(Arc::new(vec![(set, 0)]), runs)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.runs.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tokens of all of them.
    pub fn tokens(&self) -> usize {
        self.totals.tokens
    }

    /// Tokens of all of them that count in the loss.
    pub fn supervised(&self) -> usize {
        self.totals.supervised
    }

    /// Rows that they are of, repeated ones once.
    pub fn rows(&self) -> usize {
        self.totals.rows
    }

    /// What steps count: rows, repetitions and parts of split rows each for themselves.
    pub fn units(&self) -> usize {
        self.totals.units
    }

    /// Index and tokens of the longest.
    pub fn longest(&self) -> Option<(usize, usize)> {
        self.totals.longest
    }

    /// Shows all of them in order, without reading their tokens.
    ///
    /// Fails where the cache was removed or damaged meanwhile.
    pub fn each(&self, mut show: impl FnMut(Outline)) -> Result<()> {
        // Set, shard, its first sequence, and where all of them lie: neighbouring runs lie in one shard.
        let mut held: Option<(u32, usize, u32, Vec<SequenceAt>)> = None;
        for (run, mut sequences) in self.runs.each() {
            let (set, first_row) = &self.sets[run.set as usize];
            while !sequences.is_empty() {
                let shard = set.shard_of_sequence(sequences.start);
                if held.as_ref().is_none_or(|held| (held.0, held.1) != (run.set, shard)) {
                    let (first, lines) = set.sequences_of_shard(shard)?;
                    held = Some((run.set, shard, first, lines));
                }
                let Some((.., first, lines)) = &held else { continue };
                let begin = (sequences.start - first) as usize;
                let end = lines.len().min(begin + sequences.len());
                for at in &lines[begin..end] {
                    show(Outline {
                        row: self.row(first_row + u64::from(at.row), run.copy),
                        part: at.part,
                        tokens: at.len as usize,
                        supervised: at.supervised as usize,
                        is_copy: run.copy > 0,
                    });
                }
                sequences.start = first + end as u32;
            }
        }
        Ok(())
    }

    /// Their units, as [`crate::Order`] takes them.
    pub fn order_units(&self) -> Result<Units> {
        let mut units = Units::with_capacity(self.units());
        self.each(|outline| units.push((outline.row, outline.part), outline.tokens))?;
        Ok(units)
    }

    /// Sequences and tokens of the longest unit; none of no unit.
    pub fn longest_unit(&self) -> (Range<usize>, usize) {
        let unit = self.totals.longest_unit;
        (unit.sequences(), unit.tokens)
    }

    /// The first of the units with the fewest sequences; none of no unit.
    pub fn smallest_unit(&self) -> Range<usize> {
        self.totals.smallest_unit.sequences()
    }

    /// Reads a unit: its sequences, and what its row says beside them.
    ///
    /// Fails where the cache was removed or damaged meanwhile.
    pub fn unit(&self, sequences: Range<usize>) -> Result<Unit> {
        let side = self.side(sequences.start)?;
        Ok(Unit { sequences: self.get_all(sequences)?, side })
    }

    /// What the row of a sequence says beside tokens.
    fn side(&self, index: usize) -> Result<Map<String, Value>> {
        let (run, sequence) = self.runs.find(index);
        self.sets[run.set as usize].0.side(sequence)
    }

    /// Reads several units.
    pub fn units_at(&self, units: &[Range<usize>]) -> Result<Vec<Unit>> {
        units.iter().map(|unit| self.unit(unit.clone())).collect()
    }

    /// Reads a sequence.
    ///
    /// Fails where the cache was removed or damaged meanwhile.
    pub fn get(&self, index: usize) -> Result<Sequence> {
        let (run, index) = self.runs.find(index);
        let (set, first_row) = &self.sets[run.set as usize];
        let sequence = set.sequence(index)?;
        let row = self.row(first_row + sequence.row, run.copy);
        Ok(Sequence { row, ..sequence })
    }

    /// Reads several.
    pub fn get_all(&self, indices: impl IntoIterator<Item = usize>) -> Result<Vec<Sequence>> {
        indices.into_iter().map(|index| self.get(index)).collect()
    }

    /// Reads all of them unit by unit, so many units at a time.
    pub fn chunks(&self, size: usize) -> impl Iterator<Item = Result<Vec<Unit>>> {
        let mut next = 0;
        std::iter::from_fn(move || {
            (next < self.len()).then(|| {
                let chunk = self.chunk(next, size);
                next = match &chunk {
                    Ok(units) => {
                        next + units.iter().map(|unit| unit.sequences.len()).sum::<usize>()
                    }
                    // What cannot be read now cannot be read again.
                    Err(_) => self.len(),
                };
                chunk
            })
        })
    }

    /// Reads so many units from a sequence on that begins one.
    fn chunk(&self, start: usize, size: usize) -> Result<Vec<Unit>> {
        let mut units: Vec<Unit> = Vec::new();
        for index in start..self.len() {
            let sequence = self.get(index)?;
            let is_full = units.len() == size;
            match units.last_mut() {
                Some(unit) if unit.sequences[0].is_in_unit_of(&sequence) => {
                    unit.sequences.push(sequence);
                }
                _ if is_full => break,
                _ => units.push(Unit { sequences: vec![sequence], side: self.side(index)? }),
            }
        }
        Ok(units)
    }

    /// Where the first sequence stands that has the id `vocab_size` or a higher one, and the id.
    pub fn beyond_vocabulary(&self, vocab_size: usize) -> Result<Option<(Place, u32)>> {
        if self.sets.iter().all(|(set, _)| (set.highest_token as usize) < vocab_size) {
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

    fn row(&self, row: u64, copy: u32) -> u64 {
        row + u64::from(copy) * self.rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_make_one_run() {
        let mut runs = Runs::default();
        for (set, copy, sequences) in
            [(0, 0, 0..2), (0, 0, 2..3), (0, 0, 5..5), (0, 0, 5..6), (1, 0, 6..8), (1, 1, 8..9)]
        {
            runs.push(set, copy, sequences);
        }
        let found: Vec<_> = runs.each().map(|(run, range)| (run.set, run.copy, range)).collect();
        assert_eq!(found, [(0, 0, 0..3), (0, 0, 5..6), (1, 0, 6..8), (1, 1, 8..9)]);
        let all: Vec<u32> = (0..runs.len).map(|index| runs.find(index).1).collect();
        assert_eq!(all, [0, 1, 2, 5, 6, 7, 8]);
    }

    #[test]
    fn units_are_counted_and_read_whole() {
        let sequence = |row: u64, part: u32, role: u8, len: usize| Sequence {
            row,
            part,
            role,
            tokens: vec![1; len],
            weights: [vec![0.0], vec![1.0; len - 1]].concat(),
            place: Place { file: Path::new("a").into(), line: 1, element: None },
        };
        let all =
            [(0, 0, 0, 4), (0, 0, 1, 9), (1, 0, 0, 8), (1, 0, 1, 8), (2, 0, 0, 5), (2, 1, 0, 3)];
        let all = all.map(|(row, part, role, len)| sequence(row, part, role, len));
        let sequences = Sequences::in_memory(&all).unwrap();
        assert_eq!((sequences.units(), sequences.rows()), (4, 3));
        assert_eq!((sequences.longest_unit(), sequences.smallest_unit()), ((2..4, 16), 4..5));
        for size in [1, 2, 3, 9] {
            let chunks: Vec<Vec<Unit>> = sequences.chunks(size).collect::<Result<_>>().unwrap();
            assert!(chunks.iter().all(|chunk| chunk.len() <= size));
            assert_eq!(chunks.concat(), Unit::of_sequences(all.to_vec()), "{size}");
        }
    }
}
