//! The rows of several sets as one list, as audits and splits number them.

use super::Set;
use crate::audit::{AuditText, Sketch, Texts};
use crate::{Place, Result};

/// Goes through the rows of some sets, so many at a time.
pub(crate) struct Walk<'a> {
    /// Sets, and the number of the first row of each.
    sets: Vec<(&'a Set, u32)>,
    set: usize,
    shard: usize,
}

impl<'a> Walk<'a> {
    /// From the first row of `sets`. Rows are numbered over all of them, those without sequences not counted.
    pub(crate) fn new(sets: impl Iterator<Item = &'a Set>) -> Self {
        let numbered = sets.scan(0, |next, set| {
            let first = *next;
            *next += set.kept;
            Some((set, first))
        });
        Walk { sets: numbered.collect(), set: 0, shard: 0 }
    }

    /// Number of rows, all of them.
    pub(crate) fn len(&self) -> usize {
        self.sets.last().map_or(0, |(set, first)| (first + set.kept) as usize)
    }

    /// The next rows of those whose number `take` wants: `limit` of them, or a few more, for shards are read
    /// whole. None at the end.
    pub(crate) fn next(&mut self, limit: usize, take: impl Fn(usize) -> bool) -> Result<Rows<'a>> {
        let (mut numbers, mut sketches) = (Vec::new(), Vec::new());
        while numbers.len() < limit
            && let Some(&(set, first)) = self.sets.get(self.set)
        {
            if self.shard == set.shards() {
                (self.set, self.shard) = (self.set + 1, 0);
                continue;
            }
            let (kept, found) = set.sketches(self.shard)?;
            let both = (first + kept..).zip(found).filter(|(number, _)| take(*number as usize));
            for (number, sketch) in both {
                numbers.push(number);
                sketches.push(sketch);
            }
            self.shard += 1;
        }
        Ok(Rows { sets: self.sets.clone(), numbers, sketches })
    }

    /// Where the row with a number stands.
    pub(crate) fn place(&self, number: u32) -> Result<Place> {
        Ok(read(&self.sets, number)?.1)
    }
}

/// Some rows, and their fingerprints.
pub(crate) struct Rows<'a> {
    sets: Vec<(&'a Set, u32)>,
    /// Number of each row, `[rows]`.
    pub(crate) numbers: Vec<u32>,
    /// Fingerprint of each row, `[rows]`.
    pub(crate) sketches: Vec<Sketch>,
}

impl Rows<'_> {
    /// Where a row stands.
    pub(crate) fn place(&self, index: u32) -> Result<Place> {
        Ok(read(&self.sets, self.numbers[index as usize])?.1)
    }
}

impl Texts for Rows<'_> {
    fn text(&self, index: usize) -> Result<AuditText> {
        Ok(read(&self.sets, self.numbers[index])?.0)
    }
}

fn read(sets: &[(&Set, u32)], number: u32) -> Result<(AuditText, Place)> {
    let (set, first) = sets[sets.partition_point(|(_, first)| *first <= number) - 1];
    set.text(number - first)
}
