//! The rows of several sets as one list, as audits and splits number them.

use super::Set;
use crate::audit::{AuditText, Sketch, Texts};
use crate::{Place, Result};

/// All rows of some sets that have sequences.
pub(crate) struct Rows<'a> {
    sets: Vec<(u32, &'a Set)>,
    /// Index in `sets` and row in the set, `[rows]`.
    at: Vec<(u32, u32)>,
    /// Hash of each row's normalised text, `[rows]`.
    pub(crate) ids: Vec<u64>,
    /// Fingerprints of the first rows: as many as an audit looks at.
    pub(crate) sketches: Vec<Sketch>,
}

impl<'a> Rows<'a> {
    /// The rows of `sets`, each with its index, and at most `limit` fingerprints.
    pub(crate) fn of(sets: impl Iterator<Item = (usize, &'a Set)>, limit: usize) -> Result<Self> {
        let mut rows =
            Rows { sets: Vec::new(), at: Vec::new(), ids: Vec::new(), sketches: Vec::new() };
        for (index, set) in sets {
            let number = rows.sets.len() as u32;
            rows.sets.push((index as u32, set));
            set.each_sketch(|row, sketch| {
                rows.at.push((number, row));
                rows.ids.push(sketch.row);
                if rows.sketches.len() < limit {
                    rows.sketches.push(sketch);
                }
            })?;
        }
        Ok(rows)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.at.len()
    }

    /// The set's index and the row in it.
    pub(crate) fn at(&self, index: usize) -> (u32, u32) {
        let (set, row) = self.at[index];
        (self.sets[set as usize].0, row)
    }

    /// Where a row stands.
    pub(crate) fn place(&self, index: u32) -> Result<Place> {
        Ok(self.read(index as usize)?.1)
    }

    /// The columns that were kept of a row, for a split.
    pub(crate) fn columns(&self, index: usize) -> &'a [Option<String>] {
        let (set, row) = self.at[index];
        self.sets[set as usize].1.columns(row)
    }

    fn read(&self, index: usize) -> Result<(AuditText, Place)> {
        let (set, row) = self.at[index];
        self.sets[set as usize].1.text(row)
    }
}

impl Texts for Rows<'_> {
    fn text(&self, index: usize) -> Result<AuditText> {
        Ok(self.read(index)?.0)
    }
}

/// Some of the rows that an audit looks at.
pub(crate) struct Part<'a> {
    rows: &'a Rows<'a>,
    /// Indices in `rows`.
    indices: Vec<u32>,
    /// Their fingerprints.
    pub(crate) sketches: Vec<Sketch>,
}

impl<'a> Part<'a> {
    /// Those rows for which `take` is true.
    pub(crate) fn of(rows: &'a Rows<'a>, take: impl Fn(usize) -> bool) -> Self {
        let indices = (0..rows.sketches.len()).filter(|&index| take(index));
        let indices: Vec<u32> = indices.map(|index| index as u32).collect();
        let sketches = indices.iter().map(|&index| rows.sketches[index as usize]).collect();
        Part { rows, indices, sketches }
    }

    /// Where a row stands.
    pub(crate) fn place(&self, index: u32) -> Result<Place> {
        self.rows.place(self.indices[index as usize])
    }
}

impl Texts for Part<'_> {
    fn text(&self, index: usize) -> Result<AuditText> {
        self.rows.text(self.indices[index] as usize)
    }
}
