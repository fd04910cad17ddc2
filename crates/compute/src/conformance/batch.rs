//! A batch and parts of it, whose results must have the same bits.

use std::ops::Range;

use super::Trial;
use crate::Buffer;

/// Rows of a batch, of which parts are run alone.
pub(super) const BATCH: usize = 40;
const PARTS: [Range<usize>; 6] = [0..1, 1..2, 13..14, 39..40, 11..16, 3..37];

/// Buffers of some rows of the batch.
pub(super) struct Part {
    pub(super) rows: Range<usize>,
}

impl Part {
    /// The part's rows of a matrix of the batch.
    pub(super) fn of<'v>(&self, values: &'v [f32]) -> &'v [f32] {
        let cols = values.len() / BATCH;
        &values[self.rows.start * cols..self.rows.end * cols]
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }
}

/// Runs `outputs` on the whole batch and on its parts, and keeps both as pairs.
pub(super) fn parts(t: &mut Trial<'_>, outputs: impl Fn(&mut Trial<'_>, &Part) -> Vec<Buffer>) {
    let whole = outputs(t, &Part { rows: 0..BATCH });
    for rows in PARTS {
        let part = outputs(t, &Part { rows: rows.clone() });
        for (index, (whole, part)) in whole.iter().zip(part).enumerate() {
            let cols = whole.len / BATCH;
            let same = whole.slice(rows.start * cols, rows.len() * cols);
            t.keep(format!("output {index} of {rows:?} in the batch"), same);
            t.keep(format!("output {index} of {rows:?} alone"), part);
        }
    }
}
