//! How the gradient of attention is cut into tasks whose sums have one order on any number of threads.
//!
//! A task has a *column*: a few tiles of keys that follow each other, with all queries of a tree that see them.
//! What the keys gather is its own. What the queries gather comes from one column after the other, so a task
//! adds to a block of queries when the column before has done so.

use std::sync::atomic::{AtomicU32, Ordering};

use super::{Layout, Shape, TILE};
use crate::cpu::pool::wait_until;

/// Most tiles of a column: a block of queries is packed once for all of them.
pub(super) const MOST_TILES: usize = 4;

/// The numbers of so many tiles' rows, so that they stay in the cache whatever the head's size.
const MOST_NUMBERS: usize = MOST_TILES * 64;

/// The columns of all trees, each before those that wait for it.
pub(super) struct Columns {
    columns: Vec<Column>,
    heads: usize,
    /// Of each column and head: the blocks of queries it is done with.
    done: Vec<AtomicU32>,
}

/// Tiles of keys, and the queries of a tree.
#[derive(Clone, Copy)]
struct Column {
    tree: usize,
    /// First key position, and one past the last.
    start: usize,
    end: usize,
    /// The column before it in the tree.
    before: Option<usize>,
}

/// A column and a head of keys.
pub(super) struct Task<'a> {
    pub(super) tree: usize,
    pub(super) kv_head: usize,
    /// First key position, and one past the last: whole tiles.
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) turns: Turns<'a>,
}

/// When a column may add to a block of queries.
pub(super) struct Turns<'a> {
    before: Option<&'a AtomicU32>,
    own: &'a AtomicU32,
}

impl Columns {
    /// Columns as wide as leaves every thread several.
    ///
    /// # Panics
    /// Where a key row belongs to two trees, or to two positions: tasks would write the same rows.
    pub(super) fn new(shape: &Shape, layout: &Layout<'_>, threads: usize) -> Self {
        layout.check_key_rows();
        let tiles: Vec<usize> = (0..layout.trees())
            .map(|tree| layout.tree(tree).map(|span| layout.tiles(span)).max().unwrap_or(0))
            .collect();
        let all = tiles.iter().sum::<usize>() * shape.kv_heads;
        let widest = (MOST_NUMBERS / shape.padded()).clamp(1, MOST_TILES);
        let width = (all / (4 * threads)).clamp(1, widest);
        let most = tiles.iter().max().map_or(0, |tiles| tiles.div_ceil(width));
        let mut last = vec![None; tiles.len()];
        let mut columns = Vec::new();
        for index in 0..most {
            for (tree, before) in last.iter_mut().enumerate() {
                if index * width < tiles[tree] {
                    let end = ((index + 1) * width).min(tiles[tree]) * TILE;
                    let start = index * width * TILE;
                    columns.push(Column { tree, start, end, before: *before });
                    *before = Some(columns.len() - 1);
                }
            }
        }
        let done = (0..columns.len() * shape.kv_heads).map(|_| AtomicU32::new(0)).collect();
        Columns { columns, heads: shape.kv_heads, done }
    }

    /// How many tasks there are.
    pub(super) fn tasks(&self) -> usize {
        self.done.len()
    }

    /// A task, which waits only for such as come before it.
    pub(super) fn task(&self, index: usize) -> Task<'_> {
        let (column, kv_head) = (self.columns[index / self.heads], index % self.heads);
        let Column { tree, start, end, before } = column;
        let before = before.map(|column| &self.done[column * self.heads + kv_head]);
        Task { tree, kv_head, start, end, turns: Turns { before, own: &self.done[index] } }
    }
}

impl Turns<'_> {
    /// Waits until the column before is done with a block, and sees what it wrote.
    pub(super) fn wait(&self, block: u32) {
        if let Some(before) = self.before {
            wait_until(|| before.load(Ordering::Acquire) > block);
        }
    }

    /// Hands all blocks before this one on.
    pub(super) fn done_before(&self, block: u32) {
        self.own.store(block, Ordering::Release);
    }
}

/// Hands on all that is left, whatever happens: nobody waits for a task that is over.
impl Drop for Turns<'_> {
    fn drop(&mut self) {
        self.own.store(u32::MAX, Ordering::Release);
    }
}

impl Layout<'_> {
    fn trees(&self) -> usize {
        self.trees.len().saturating_sub(1)
    }

    /// The spans of a tree.
    pub(super) fn tree(&self, tree: usize) -> std::ops::Range<usize> {
        self.trees[tree] as usize..self.trees[tree + 1] as usize
    }

    /// Tiles that queries of a span may see, counted from the first position.
    fn tiles(&self, span: usize) -> usize {
        let span = self.span(span);
        let positions = &self.query_positions[span.first..][..span.queries];
        positions.last().map_or(0, |&last| last as usize / TILE + 1)
    }

    /// Panics where a key row belongs to two trees, or to two positions.
    fn check_key_rows(&self) {
        // First row, rows, tree, first row less first position.
        let mut runs = Vec::with_capacity(self.runs.len() / 2);
        for tree in 0..self.trees() {
            for span in self.tree(tree).map(|span| self.span(span)) {
                let mut position = 0;
                for run in span.runs.chunks_exact(2) {
                    let (row, rows) = (run[0] as usize, run[1] as usize);
                    runs.push((row, rows, tree, row.wrapping_sub(position)));
                    position += rows;
                }
            }
        }
        runs.sort_unstable();
        runs.dedup();
        let (mut end, mut owner) = (0, (0, 0));
        for (row, rows, tree, shift) in runs {
            let same = owner == (tree, shift);
            assert!(
                row >= end || rows == 0 || same,
                "attention_backward: key row {row} is two keys"
            );
            if rows > 0 {
                (end, owner) = (end.max(row + rows), (tree, shift));
            }
        }
    }
}
