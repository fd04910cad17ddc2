//! Which rows each optimizer step takes.

use std::ops::Range;

use crate::random::{key, purpose};

/// How much an optimizer step takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepSize {
    /// This many rows.
    Rows(usize),
    /// Rows of at most this many tokens together, as rendered, but at least one row.
    Tokens(usize),
}

/// When training ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Extent {
    /// After so many passes over the rows; the fraction of a pass counts in rows.
    Epochs(f64),
    /// After so many optimizer steps.
    Steps(u64),
}

/// All that a resumed run needs to know about the data it has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Cursor {
    /// Units taken by the steps so far, over all epochs.
    pub consumed_rows: u64,
}

/// What one optimizer step takes.
#[derive(Clone, Debug, PartialEq)]
pub struct StepRows {
    /// The units in order, each as indices of its sequences. One may stand there twice: a step goes across the
    /// end of an epoch, and may be larger than an epoch.
    pub units: Vec<Range<usize>>,
    /// Where the next step begins.
    pub next: Cursor,
    /// Tokens as rendered.
    pub tokens: usize,
}

impl StepRows {
    /// How many sequences the units have.
    pub fn sequences(&self) -> usize {
        self.units.iter().map(Range::len).sum()
    }
}

/// The units of a whole run as one stream of shuffled epochs, cut into steps.
///
/// The order within an epoch is a function of seed and epoch alone. A step goes
/// across the end of an epoch; only the last step of the run may be short.
#[derive(Clone, Debug)]
pub struct Order {
    units: Units,
    seed: u64,
    size: StepSize,
    extent: Extent,
    /// Units in the whole run; `None` where steps are what is counted.
    total: Option<u64>,
    /// The epoch last asked for, and its order.
    epoch: Option<(u64, Vec<u32>)>,
}

/// The units of a run: runs of sequences of the same row and part. All that an order depends on, 16 bytes each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Units {
    /// Identity of each unit's row, `[units]`.
    rows: Vec<u64>,
    /// Index behind its last sequence, `[units]`.
    ends: Vec<u32>,
    /// `[units]`.
    tokens: Vec<u32>,
    /// Part of the last unit.
    part: u32,
}

impl Units {
    /// None yet, with room for some.
    pub fn with_capacity(units: usize) -> Self {
        let (rows, ends, tokens) =
            (Vec::with_capacity(units), Vec::with_capacity(units), Vec::with_capacity(units));
        Units { rows, ends, tokens, part: 0 }
    }

    /// Adds a sequence, to the last unit where it has the same row and part.
    pub fn push(&mut self, (row, part): (u64, u32), tokens: usize) {
        let end = self.ends.last().map_or(0, |&end| end) + 1;
        let tokens = u32::try_from(tokens).unwrap_or(u32::MAX);
        match (self.rows.last(), self.ends.last_mut(), self.tokens.last_mut()) {
            (Some(&last), Some(last_end), Some(sum)) if (last, self.part) == (row, part) => {
                *last_end = end;
                *sum = sum.saturating_add(tokens);
            }
            _ => {
                self.rows.push(row);
                self.ends.push(end);
                self.tokens.push(tokens);
                self.part = part;
            }
        }
    }

    /// How many units there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Indices of a unit's sequences.
    pub fn sequences(&self, unit: usize) -> Range<usize> {
        let start = unit.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        start..self.ends[unit] as usize
    }
}

impl FromIterator<(u64, usize)> for Units {
    /// Of row and tokens of every sequence.
    fn from_iter<I: IntoIterator<Item = (u64, usize)>>(sequences: I) -> Self {
        let mut units = Units::default();
        sequences.into_iter().for_each(|(row, tokens)| units.push((row, 0), tokens));
        units
    }
}

impl Order {
    /// The order in which a run takes units.
    ///
    /// Panics if there are none, or if a step would be empty.
    pub fn new(units: Units, seed: u64, size: StepSize, extent: Extent) -> Self {
        assert!(!units.is_empty(), "a run has rows");
        let (StepSize::Rows(least) | StepSize::Tokens(least)) = size;
        assert!(least > 0, "a step takes something");
        let total = match extent {
            Extent::Epochs(epochs) => Some((epochs * units.len() as f64).round().max(1.0) as u64),
            Extent::Steps(_) => None,
        };
        Order { units, seed, size, extent, total, epoch: None }
    }

    /// The order of one epoch, as indices of units.
    ///
    /// Parts of one row stay neighbours.
    pub fn epoch(&mut self, epoch: u64) -> &[u32] {
        if self.epoch.as_ref().is_none_or(|(known, _)| *known != epoch) {
            let rows = &self.units.rows;
            let hash = |row: u64| key(&[purpose::ORDER, self.seed, epoch, row]);
            // Hashed at every comparison: keys that are kept take four times the memory of the order.
            let mut order: Vec<u32> = (0..rows.len() as u32).collect();
            order.sort_unstable_by_key(|&index| (hash(rows[index as usize]), index));
            self.epoch = Some((epoch, order));
        }
        &self.epoch.as_ref().expect("just filled").1
    }

    /// The step that begins at `cursor`, or `None` after the last row.
    ///
    /// With [`Extent::Steps`] the stream has no end: the caller counts steps.
    pub fn step(&mut self, cursor: Cursor) -> Option<StepRows> {
        let mut step = StepRows { units: Vec::new(), next: cursor, tokens: 0 };
        while self.total.is_none_or(|total| step.next.consumed_rows < total) {
            let unit = self.unit(step.next.consumed_rows);
            let len = self.units.tokens[unit] as usize;
            let full = match self.size {
                StepSize::Rows(rows) => step.units.len() == rows,
                StepSize::Tokens(tokens) => !step.units.is_empty() && step.tokens + len > tokens,
            };
            if full {
                break;
            }
            step.units.push(self.units.sequences(unit));
            step.tokens += len;
            step.next.consumed_rows += 1;
        }
        (!step.units.is_empty()).then_some(step)
    }

    /// Number of optimizer steps in the whole run.
    pub fn steps(&mut self) -> u64 {
        match (self.extent, self.size, self.total) {
            (Extent::Steps(steps), ..) => steps,
            (_, StepSize::Rows(rows), Some(total)) => total.div_ceil(rows as u64),
            _ => {
                let (mut cursor, mut steps) = (Cursor::default(), 0);
                while let Some(step) = self.step(cursor) {
                    cursor = step.next;
                    steps += 1;
                }
                steps
            }
        }
    }

    /// How many passes over the rows a cursor stands for.
    pub fn epochs_at(&self, cursor: Cursor) -> f64 {
        cursor.consumed_rows as f64 / self.units.len() as f64
    }

    fn unit(&mut self, consumed: u64) -> usize {
        let per_epoch = self.units.len() as u64;
        self.epoch(consumed / per_epoch)[(consumed % per_epoch) as usize] as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    fn sequences(lengths: &[usize]) -> Vec<(u64, usize)> {
        lengths.iter().enumerate().map(|(row, &len)| (row as u64, len)).collect()
    }

    fn order_of(rows: &[(u64, usize)], seed: u64, size: StepSize, extent: Extent) -> Order {
        Order::new(rows.iter().copied().collect(), seed, size, extent)
    }

    fn run(order: &mut Order, mut cursor: Cursor) -> Vec<Vec<usize>> {
        let mut steps = Vec::new();
        while let Some(step) = order.step(cursor) {
            cursor = step.next;
            steps.push(step.units.into_iter().map(|unit| unit.start).collect());
        }
        steps
    }

    #[track_caller]
    fn check(rows: usize, batch_size: usize, epochs: f64, sizes: &[usize]) {
        let size = StepSize::Rows(batch_size);
        let mut order = order_of(&sequences(&vec![4; rows]), 7, size, Extent::Epochs(epochs));
        let steps = run(&mut order, Cursor::default());
        assert_eq!(steps.iter().map(Vec::len).collect::<Vec<_>>(), sizes);
        assert_eq!(order.steps(), sizes.len() as u64);
        let stream: Vec<usize> = steps.concat();
        for epoch in stream.chunks_exact(rows) {
            let mut sorted = epoch.to_vec();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..rows).collect::<Vec<_>>(), "an epoch takes every row once");
        }
    }

    #[test]
    fn a_short_step_is_filled_from_the_next_epoch() {
        check(10, 4, 1.0, &[4, 4, 2]);
        check(10, 4, 2.0, &[4, 4, 4, 4, 4]);
        check(3, 8, 3.0, &[8, 1]);
        check(10, 5, 0.5, &[5]);
        check(4, 4, 0.01, &[1]);
    }

    #[test]
    fn epochs_differ_and_repeat_with_the_seed() {
        let rows = sequences(&[4; 40]);
        let mut order = order_of(&rows, 1, StepSize::Rows(8), Extent::Epochs(2.0));
        let first = order.epoch(0).to_vec();
        assert_ne!(first, order.epoch(1));
        assert_eq!(first, order.epoch(0));
        let mut other = order_of(&rows, 2, StepSize::Rows(8), Extent::Epochs(2.0));
        assert_ne!(first, other.epoch(0));
    }

    #[test]
    fn the_cursor_is_all_that_a_resumed_run_needs() {
        let rows = sequences(&[5, 9, 2, 7, 7, 3, 8]);
        for size in [StepSize::Rows(3), StepSize::Tokens(12)] {
            let mut order = order_of(&rows, 3, size, Extent::Epochs(4.0));
            let whole = run(&mut order, Cursor::default());
            let cursor = order.step(Cursor::default()).unwrap().next;
            let mut resumed = order_of(&rows, 3, size, Extent::Epochs(4.0));
            assert_eq!(whole[1..], run(&mut resumed, cursor));
        }
    }

    #[test]
    fn a_token_budget_is_kept_and_a_long_row_goes_alone() {
        let rows = sequences(&[5, 9, 2, 30, 7, 3, 8]);
        let mut order = order_of(&rows, 3, StepSize::Tokens(12), Extent::Epochs(3.0));
        let steps = run(&mut order, Cursor::default());
        assert_eq!(order.steps(), steps.len() as u64);
        for (index, step) in steps.iter().enumerate() {
            let tokens: usize = step.iter().map(|&row| rows[row].1).sum();
            assert!(tokens <= 12 || step.len() == 1, "{step:?}");
            if let Some(next) = steps.get(index + 1) {
                assert!(tokens + rows[next[0]].1 > 12, "the step had room for one more");
            }
        }
    }

    #[test]
    fn steps_without_end() {
        let extent = Extent::Steps(1000);
        let mut order = order_of(&sequences(&[4; 3]), 1, StepSize::Rows(2), extent);
        assert_eq!(order.steps(), 1000);
        let far = Cursor { consumed_rows: 1_000_001 };
        assert_eq!(order.step(far).unwrap().units.len(), 2);
    }

    #[test]
    fn a_step_counts_rows_and_cuts_none() {
        // Four rows of two sequences, each a pair.
        let pairs: Vec<(u64, usize)> = (0..8).map(|index| (index / 2, 4)).collect();
        let mut order = order_of(&pairs, 5, StepSize::Rows(3), Extent::Epochs(2.0));
        assert_eq!(order.steps(), 3);
        let step = order.step(Cursor::default()).unwrap();
        assert_eq!((step.units.len(), step.sequences(), step.tokens), (3, 6, 24));
        for unit in &step.units {
            assert_eq!((unit.len(), unit.start % 2), (2, 0), "a pair is whole: {unit:?}");
        }
        // A step that is larger than the epoch has rows twice.
        let mut order = order_of(&pairs, 5, StepSize::Rows(6), Extent::Epochs(2.0));
        assert_eq!(order.step(Cursor::default()).unwrap().units.len(), 6);
    }

    #[test]
    fn parts_of_a_split_row_are_rows_of_their_own() {
        let mut units = Units::default();
        for (part, tokens) in [(0, 4), (1, 5), (1, 6), (2, 7)] {
            units.push((9, part), tokens);
        }
        units.push((10, 2), 8);
        let found: Vec<_> = (0..units.len()).map(|unit| units.sequences(unit)).collect();
        assert_eq!(found, [0..1, 1..3, 3..4, 4..5]);
        assert_eq!(units.tokens, [4, 11, 7, 8]);
    }
}
