//! Which rows each optimizer step takes.

use crate::random::{key, purpose};

/// How much an optimizer step takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepSize {
    /// This many rows.
    Rows(usize),
    /// Rows of at most this many tokens together, as rendered, but at least one.
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
    /// Rows taken by the steps so far, over all epochs.
    pub consumed_rows: u64,
}

/// What one optimizer step takes.
#[derive(Clone, Debug, PartialEq)]
pub struct StepRows {
    /// Indices of the sequences.
    pub rows: Vec<usize>,
    /// Where the next step begins.
    pub next: Cursor,
    /// Tokens as rendered.
    pub tokens: usize,
}

/// The rows of a whole run as one stream of shuffled epochs, cut into steps.
///
/// The order within an epoch is a function of seed and epoch alone. A step goes
/// across the end of an epoch; only the last step of the run may be short.
#[derive(Clone, Debug)]
pub struct Order {
    row_tokens: RowTokens,
    seed: u64,
    size: StepSize,
    extent: Extent,
    /// Rows in the whole run; `None` where steps are what is counted.
    total: Option<u64>,
    /// The epoch last asked for, and its order.
    epoch: Option<(u64, Vec<u32>)>,
}

/// Row and tokens of every sequence: all that an order depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RowTokens {
    /// Identity of each sequence's row, `[sequences]`.
    rows: Vec<u64>,
    /// `[sequences]`.
    tokens: Vec<u32>,
}

impl RowTokens {
    /// None yet, with room for some.
    pub fn with_capacity(sequences: usize) -> Self {
        RowTokens { rows: Vec::with_capacity(sequences), tokens: Vec::with_capacity(sequences) }
    }

    /// Adds a sequence.
    pub fn push(&mut self, row: u64, tokens: usize) {
        self.rows.push(row);
        self.tokens.push(u32::try_from(tokens).unwrap_or(u32::MAX));
    }

    /// How many sequences there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

impl FromIterator<(u64, usize)> for RowTokens {
    fn from_iter<I: IntoIterator<Item = (u64, usize)>>(sequences: I) -> Self {
        let mut row_tokens = RowTokens::default();
        sequences.into_iter().for_each(|(row, tokens)| row_tokens.push(row, tokens));
        row_tokens
    }
}

impl Order {
    /// The order in which a run takes sequences.
    ///
    /// Panics if there are none, or if a step would be empty.
    pub fn new(row_tokens: RowTokens, seed: u64, size: StepSize, extent: Extent) -> Self {
        assert!(!row_tokens.is_empty(), "a run has rows");
        let (StepSize::Rows(least) | StepSize::Tokens(least)) = size;
        assert!(least > 0, "a step takes something");
        let total = match extent {
            Extent::Epochs(epochs) => {
                Some((epochs * row_tokens.len() as f64).round().max(1.0) as u64)
            }
            Extent::Steps(_) => None,
        };
        Order { row_tokens, seed, size, extent, total, epoch: None }
    }

    /// The order of one epoch, as indices of sequences.
    ///
    /// Sequences of one row stay neighbours: they share a prefix.
    pub fn epoch(&mut self, epoch: u64) -> &[u32] {
        if self.epoch.as_ref().is_none_or(|(known, _)| *known != epoch) {
            let rows = &self.row_tokens.rows;
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
        let mut step = StepRows { rows: Vec::new(), next: cursor, tokens: 0 };
        while self.total.is_none_or(|total| step.next.consumed_rows < total) {
            let index = self.row(step.next.consumed_rows);
            let len = self.row_tokens.tokens[index] as usize;
            let full = match self.size {
                StepSize::Rows(rows) => step.rows.len() == rows,
                StepSize::Tokens(tokens) => !step.rows.is_empty() && step.tokens + len > tokens,
            };
            if full {
                break;
            }
            step.rows.push(index);
            step.tokens += len;
            step.next.consumed_rows += 1;
        }
        (!step.rows.is_empty()).then_some(step)
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
        cursor.consumed_rows as f64 / self.row_tokens.len() as f64
    }

    /// Number of sequences in an epoch.
    pub fn rows_per_epoch(&self) -> usize {
        self.row_tokens.len()
    }

    fn row(&mut self, consumed: u64) -> usize {
        let per_epoch = self.row_tokens.len() as u64;
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
            steps.push(step.rows);
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
        assert_eq!(order.step(far).unwrap().rows.len(), 2);
    }

    #[test]
    fn sequences_of_one_row_stay_together() {
        let mut rows = sequences(&[4; 12]);
        rows.iter_mut().for_each(|row| row.0 /= 3);
        let mut order = order_of(&rows, 5, StepSize::Rows(3), Extent::Epochs(1.0));
        for step in run(&mut order, Cursor::default()) {
            assert!(step.iter().all(|&index| rows[index].0 == rows[step[0]].0));
        }
    }
}
