//! Attention layouts of forests.

use super::Trial;
use crate::op::AttentionLayout;

/// Segments of a stream: length and parent of each, parents first, trees side by side.
pub(super) type Forest = [(usize, Option<usize>)];

/// A layout as numbers, before it is uploaded.
#[derive(Clone, Debug, Default)]
pub(super) struct Layout {
    pub(super) query_positions: Vec<u32>,
    pub(super) spans: Vec<[u32; 4]>,
    pub(super) runs: Vec<[u32; 2]>,
    pub(super) trees: Vec<u32>,
    pub(super) key_rows: usize,
}

impl Layout {
    /// Every row of the stream is a key; those in `queries`, ascending, are queries too (all without it).
    pub(super) fn of(forest: &Forest, queries: Option<&[usize]>) -> Self {
        let mut layout = Layout::default();
        let mut runs_of: Vec<Vec<[u32; 2]>> = Vec::new();
        for &(len, parent) in forest {
            let mut runs = parent.map_or(Vec::new(), |parent| runs_of[parent].clone());
            let before: u32 = runs.iter().map(|run| run[1]).sum();
            let start = layout.key_rows;
            runs.push([start as u32, len as u32]);
            let read = |row: &usize| queries.is_none_or(|queries| queries.contains(row));
            let rows = (start..start + len).filter(read);
            let positions: Vec<u32> = rows.map(|row| before + (row - start) as u32).collect();
            if parent.is_none() {
                layout.trees.push(layout.spans.len() as u32);
            }
            layout.add_span(&positions, &runs);
            runs_of.push(runs);
            layout.key_rows += len;
        }
        layout.trees.push(layout.spans.len() as u32);
        layout
    }

    /// Adds queries that see the keys of `runs`.
    pub(super) fn add_span(&mut self, positions: &[u32], runs: &[[u32; 2]]) {
        let (first, count) = (self.query_positions.len() as u32, positions.len() as u32);
        self.spans.push([first, count, self.runs.len() as u32, runs.len() as u32]);
        self.query_positions.extend(positions);
        self.runs.extend(runs);
    }

    /// Number of queries.
    pub(super) fn queries(&self) -> usize {
        self.query_positions.len()
    }

    pub(super) fn upload(&self, trial: &mut Trial<'_>) -> AttentionLayout {
        let keys = |span: &[u32; 4]| {
            let runs = &self.runs[span[2] as usize..][..span[3] as usize];
            runs.iter().map(|run| run[1] as usize).sum()
        };
        AttentionLayout {
            query_positions: trial.integers(&self.query_positions),
            spans: trial.integers(self.spans.as_flattened()),
            runs: trial.integers(self.runs.as_flattened()),
            trees: trial.integers(&self.trees),
            keys_max: self.spans.iter().map(keys).max().unwrap_or(0),
        }
    }
}
