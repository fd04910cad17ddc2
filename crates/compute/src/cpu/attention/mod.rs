//! Attention over spans of queries and runs of key rows, in blocks of products.
//!
//! A *row* here is one query of one head; the heads that share keys stand next to each other.
//! Keys are taken in tiles of [`TILE`] positions. What a row gets is a chain of its own: within
//! a tile it adds in a fixed order, tiles come in ascending order, and a tile or key that it does
//! not see changes nothing. So its bits depend neither on the other rows nor on runs. Tiles are aligned to positions from
//! the start of the sequence, not of the segment: a shared prefix has the bits of a repeated one.

mod backward;
mod element;
mod forward;
mod pack;
mod product;
mod tasks;
#[cfg(test)]
mod tests;

use crate::cpu::Isa;
use crate::cpu::operand::Operand;
use crate::cpu::simd::{self, DotKernel, Kernel};

pub(crate) use backward::{Gradients, attention_backward, backward_words};
pub(crate) use forward::attention;

/// Positions in a tile of keys.
const TILE: usize = 64;

/// Rows in a block of queries: enough to spread the packing of a tile over, few enough for the cache.
const BLOCK_ROWS: usize = 96;

/// The numbers of [`crate::op::Attention`].
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) scale: f32,
    pub(crate) window: Option<u32>,
    pub(crate) softcap: Option<f32>,
}

impl From<&crate::op::Attention> for Shape {
    fn from(op: &crate::op::Attention) -> Self {
        let &crate::op::Attention { heads, kv_heads, head_dim, scale, window, softcap, .. } = op;
        Shape { heads, kv_heads, head_dim, scale, window, softcap }
    }
}

impl Shape {
    /// Heads that share keys.
    fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// Length of a packed row: D filled up with zeros to whole panels of the product.
    fn padded(&self) -> usize {
        self.head_dim.next_multiple_of(product::PANEL)
    }

    /// Queries in a block.
    fn block(&self) -> usize {
        (BLOCK_ROWS / self.group()).max(1)
    }

    /// The part of the tile from position `start` on that queries at positions `low..=high` see.
    fn seen(&self, start: usize, low: usize, high: usize) -> std::ops::Range<usize> {
        let end = (high + 1).saturating_sub(start).min(TILE);
        let first = self.window.map_or(0, |window| (low + 1).saturating_sub(window as usize));
        first.saturating_sub(start).min(end)..end
    }

    fn check(&self, layout: &Layout<'_>, q: usize, k: usize, v: usize) {
        let Shape { heads, kv_heads, head_dim, .. } = *self;
        let queries = layout.query_positions.len();
        assert!(kv_heads > 0 && heads.is_multiple_of(kv_heads), "attention: {heads}/{kv_heads}");
        assert!(head_dim.is_multiple_of(2), "attention: head size {head_dim} is even");
        assert_eq!(q, queries * heads * head_dim, "attention: q is [queries, H, D]");
        assert!(
            k == v && k.is_multiple_of(kv_heads * head_dim),
            "attention: k, v are [rows, KV, D]"
        );
        for span in 0..layout.spans() {
            let span = layout.span(span);
            let positions = &layout.query_positions[span.first..][..span.queries];
            assert!(positions.is_sorted(), "attention: positions of a span ascend");
            let sees = positions.last().is_none_or(|&last| (last as usize) < span.keys());
            assert!(sees, "attention: a query stands among its keys");
        }
    }
}

/// The buffers of [`crate::op::AttentionLayout`].
#[derive(Clone, Copy)]
pub(crate) struct Layout<'a> {
    pub(crate) query_positions: &'a [u32],
    /// `[spans, 4]`: first query, number of queries, first run, number of runs.
    pub(crate) spans: &'a [u32],
    /// `[runs, 2]`: first key row, number of rows.
    pub(crate) runs: &'a [u32],
    /// `[trees + 1]`.
    pub(crate) trees: &'a [u32],
}

impl<'a> Layout<'a> {
    fn spans(&self) -> usize {
        self.spans.len() / 4
    }

    fn span(&self, index: usize) -> Span<'a> {
        let [first, queries, first_run, runs] =
            [0, 1, 2, 3].map(|i| self.spans[4 * index + i] as usize);
        Span { first, queries, runs: &self.runs[2 * first_run..2 * (first_run + runs)] }
    }
}

/// Runs a kernel over operands of a type: bf16 in pairs where there are products of them.
fn dispatch<T: Operand, K: Kernel + DotKernel>(isa: Isa, kernel: K) {
    if isa.multiplies_pairs() && T::halves(&[]).is_some() {
        simd::dispatch_pairs(kernel);
    } else {
        simd::dispatch(isa, kernel);
    }
}

/// Queries that share a sequence of keys.
#[derive(Clone, Copy)]
struct Span<'a> {
    first: usize,
    queries: usize,
    runs: &'a [u32],
}

impl Span<'_> {
    fn keys(&self) -> usize {
        self.runs.chunks_exact(2).map(|run| run[1] as usize).sum()
    }

    /// The key rows of the tile from position `start` on; returns their number. A cursor serves tiles
    /// that ascend: a sequence of many runs is walked once, and not once a tile.
    fn tile(&self, start: usize, rows: &mut [usize; TILE], cursor: &mut Cursor) -> usize {
        let mut count = 0;
        while let Some(&[row, len]) = self.runs[2 * cursor.run..].first_chunk::<2>() {
            let (row, len) = (row as usize, len as usize);
            let from = (start + count).saturating_sub(cursor.position).min(len);
            let taken = (len - from).min(TILE - count);
            for (place, row) in rows[count..count + taken].iter_mut().zip(row + from..) {
                *place = row;
            }
            count += taken;
            if from + taken < len {
                break;
            }
            cursor.run += 1;
            cursor.position += len;
        }
        count
    }

    /// How many keys two spans begin with in common.
    fn common(&self, other: &Span<'_>) -> usize {
        let mut common = 0;
        for (a, b) in self.runs.chunks_exact(2).zip(other.runs.chunks_exact(2)) {
            if a[0] != b[0] {
                break;
            }
            common += a[1].min(b[1]) as usize;
            if a[1] != b[1] {
                break;
            }
        }
        common
    }
}

/// The first run of a span that the tiles so far have not used up, and the position it begins at.
#[derive(Clone, Copy, Default)]
struct Cursor {
    run: usize,
    position: usize,
}
