//! The gradient of attention, Dao 2023, algorithm 2: weights are computed again from the kept `lse`.

use std::ops::Range;

use super::forward::masked;
use super::pack::{Rows, store_row, unpack_row};
use super::product::{PANEL, Product, ROWS, STEP};
use super::{Layout, Shape, Span, TILE};
use crate::cpu::operand::{LANES, Operand, Shared, load_chunk};
use crate::cpu::rows::fill;
use crate::cpu::simd::{Kernel, Simd, dispatch};
use crate::cpu::{Isa, Pool, Scratch};

/// What [`attention_backward`] starts from: the operands and results of forward, and `dout`.
#[derive(Clone, Copy)]
pub(crate) struct Gradients<'a, T> {
    pub(crate) q: &'a [T],
    pub(crate) k: &'a [T],
    pub(crate) v: &'a [T],
    pub(crate) out: &'a [T],
    pub(crate) lse: &'a [f32],
    pub(crate) dout: &'a [T],
}

/// See [`crate::op::AttentionBackward`].
///
/// A tree of segments and a head of keys are one task, which goes through spans, tiles and
/// queries in order: so what spans add to the keys of a shared prefix has one order too.
#[allow(clippy::too_many_arguments, reason = "the operands of the operation")]
pub(crate) fn attention_backward<T: Operand>(
    pool: &Pool,
    isa: Isa,
    shape: Shape,
    layout: Layout<'_>,
    inputs: Gradients<'_, T>,
    dq: &mut [f32],
    dk: &mut [f32],
    dv: &mut [f32],
) {
    shape.check(&layout, inputs.q.len(), inputs.k.len(), inputs.v.len());
    let Gradients { q, k, out, lse, dout, .. } = inputs;
    let queries = layout.query_positions.len();
    let fits = [out.len(), dout.len(), dq.len()] == [q.len(); 3]
        && [dk.len(), dv.len()] == [k.len(); 2]
        && lse.len() == queries * shape.heads;
    assert!(fits, "attention_backward: lengths");
    fill(pool, dq, 0.0);
    fill(pool, dk, 0.0);
    fill(pool, dv, 0.0);
    let [dq, dk, dv] = [dq, dk, dv].map(Shared::new);
    let trees = layout.trees.len().saturating_sub(1);
    pool.run(trees * shape.kv_heads, &|task, scratch| {
        let (tree, kv_head) = (task / shape.kv_heads, task % shape.kv_heads);
        let spans = layout.trees[tree] as usize..layout.trees[tree + 1] as usize;
        let outputs = [&dq, &dk, &dv];
        dispatch(isa, Tree { shape, layout, spans, kv_head, inputs, outputs, scratch });
    });
}

/// Words that a task takes, by use. No span has more than `queries` queries.
pub(crate) fn backward_words(shape: Shape, queries: usize) -> [usize; 11] {
    let (group, padded) = (shape.group(), shape.padded());
    let rows = (shape.block() * group).next_multiple_of(ROWS);
    let (rows, scores, tile) = (rows * padded, rows * TILE, TILE * padded);
    [rows, rows, rows, scores, scores, tile, tile, tile, tile, tile, queries * group]
}

/// All spans of a tree, and the heads that share one head of keys.
struct Tree<'a, T> {
    shape: Shape,
    layout: Layout<'a>,
    spans: Range<usize>,
    kv_head: usize,
    inputs: Gradients<'a, T>,
    /// `dq`, `dk`, `dv`.
    outputs: [&'a Shared<'a, f32>; 3],
    scratch: &'a mut Scratch,
}

impl<T: Operand> Kernel for Tree<'_, T> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Tree { shape, layout, spans, kv_head, inputs, outputs, scratch } = self;
        let most = spans.clone().map(|span| layout.span(span).queries).max().unwrap_or(0);
        let [queries, douts, dq, weights, dscores, keys, keys_t, values_t, dk, dv, deltas] =
            scratch.split(backward_words(shape, most));
        let mut pass = Pass {
            shape,
            kv_head,
            inputs,
            outputs,
            block: QueryBlock { queries, douts, dq, weights, dscores },
            tile: KeyTile { keys, keys_t, values_t, dk, dv },
            deltas,
        };
        for span in spans {
            let span = layout.span(span);
            let positions = &layout.query_positions[span.first..][..span.queries];
            if !positions.is_empty() {
                pass.span(simd, span, positions);
            }
        }
    }
}

/// Packed rows of a block of queries.
struct QueryBlock<'a> {
    /// `[rows, padded]`.
    queries: &'a mut [f32],
    /// `[rows, padded]`.
    douts: &'a mut [f32],
    /// `[rows, padded]`.
    dq: &'a mut [f32],
    /// `[rows, TILE]`: the softmax.
    weights: &'a mut [f32],
    /// `[rows, TILE]`: the gradient of the products of queries and keys.
    dscores: &'a mut [f32],
}

/// A packed tile of keys and values.
struct KeyTile<'a> {
    /// `[TILE, padded]`.
    keys: &'a mut [f32],
    /// `[padded, TILE]`.
    keys_t: &'a mut [f32],
    /// `[padded, TILE]`.
    values_t: &'a mut [f32],
    /// `[TILE, padded]`.
    dk: &'a mut [f32],
    /// `[TILE, padded]`.
    dv: &'a mut [f32],
}

struct Pass<'a, T> {
    shape: Shape,
    kv_head: usize,
    inputs: Gradients<'a, T>,
    outputs: [&'a Shared<'a, f32>; 3],
    block: QueryBlock<'a>,
    tile: KeyTile<'a>,
    /// `sum(dout * out)` of every row of the span.
    deltas: &'a mut [f32],
}

impl<T: Operand> Pass<'_, T> {
    /// The place of a span's row in `[queries, H]`.
    #[inline(always)]
    fn place(&self, span: Span<'_>, row: usize) -> usize {
        let group = self.shape.group();
        (span.first + row / group) * self.shape.heads + self.kv_head * group + row % group
    }

    #[inline(always)]
    fn span<S: Simd>(&mut self, simd: S, span: Span<'_>, positions: &[u32]) {
        let shape = self.shape;
        let (heads_step, head_dim) = (shape.kv_heads * shape.head_dim, shape.head_dim);
        let offset = self.kv_head * head_dim;
        for row in 0..positions.len() * shape.group() {
            let at = self.place(span, row) * head_dim;
            let (out, dout) =
                (&self.inputs.out[at..][..head_dim], &self.inputs.dout[at..][..head_dim]);
            self.deltas[row] = dot(simd, out, dout);
        }
        let (low, high) = (positions[0] as usize, positions[positions.len() - 1] as usize);
        let from = shape.window.map_or(0, |window| (low + 1).saturating_sub(window as usize));
        let padded = shape.padded();
        let mut rows = [0; TILE];
        for start in (from / TILE * TILE..=high).step_by(TILE) {
            let count = span.tile(start, &mut rows);
            let rows = &rows[..count];
            let head = |x| Rows { x, step: heads_step, offset, head_dim };
            head(self.inputs.k).pack(simd, rows, &[], padded, self.tile.keys);
            head(self.inputs.k).pack_transposed(simd, rows, &[], padded, self.tile.keys_t);
            head(self.inputs.v).pack_transposed(simd, rows, &[], padded, self.tile.values_t);
            let place =
                |row: usize| row * heads_step + offset..row * heads_step + offset + head_dim;
            let [_, dk, dv] = self.outputs;
            for (shared, packed) in [(dk, &mut self.tile.dk), (dv, &mut self.tile.dv)] {
                for (&row, packed) in rows.iter().zip(packed.chunks_exact_mut(padded)) {
                    // SAFETY: a tree and a head of keys belong to one task.
                    unpack_row(simd, unsafe { shared.part(place(row)) }, packed);
                }
                // Keys that are not there gather nothing, but NaN must not linger where they would.
                packed[count * padded..].fill(0.0);
            }
            for first in (0..positions.len()).step_by(shape.block()) {
                let end = (first + shape.block()).min(positions.len());
                self.block(simd, span, start, first, &positions[first..end]);
            }
            for (shared, packed) in [(dk, &self.tile.dk), (dv, &self.tile.dv)] {
                for (&row, packed) in rows.iter().zip(packed.chunks_exact(padded)) {
                    // SAFETY: as above.
                    store_row(simd, packed, 1.0, unsafe { shared.part(place(row)) });
                }
            }
        }
    }

    /// Adds what the queries from number `first` of the span on and the keys of the tile from position `start`
    /// on do to each other.
    #[inline(always)]
    fn block<S: Simd>(
        &mut self,
        simd: S,
        span: Span<'_>,
        start: usize,
        first: usize,
        positions: &[u32],
    ) {
        let shape = self.shape;
        let (group, padded) = (shape.group(), shape.padded());
        let rows = positions.len() * group;
        let position = |row: usize| positions[row / group] as usize;
        let all = shape.seen(start, position(0), position(rows - 1));
        if all.is_empty() {
            return;
        }
        self.load_block(simd, span, first * group, rows);
        // Rows that see nothing of the tile stand before (not yet) or behind (no more).
        let mut busy = rows..0;
        for row in (0..rows).step_by(STEP) {
            let end = (row + STEP).min(rows);
            let seen = shape.seen(start, position(row), position(end - 1));
            if seen.is_empty() {
                continue;
            }
            busy = busy.start.min(row)..end;
            self.scores(simd, row..end, &seen);
            for row in row..end {
                let seen = shape.seen(start, position(row), position(row));
                let lse = self.inputs.lse[self.place(span, first * group + row)];
                let delta = self.deltas[first * group + row];
                let QueryBlock { weights, dscores, .. } = &mut self.block;
                let weights = &mut weights[row * TILE..][..TILE];
                let dscores = &mut dscores[row * TILE..][..TILE];
                score_gradients(simd, &shape, &seen, lse, delta, weights, dscores);
            }
            let product = Product {
                rows: end - row,
                cols: padded,
                k: seen.len(),
                a: self.block.dscores[row * TILE + seen.start..].as_ptr(),
                a_row: TILE,
                a_k: 1,
                b: self.tile.keys[seen.start * padded..].as_ptr(),
                b_k: padded,
                c: self.block.dq[row * padded..].as_mut_ptr(),
                c_row: padded,
                add: true,
            };
            // SAFETY: the block has rows up to a multiple of ROWS.
            unsafe { product.run(simd) };
        }
        self.key_gradients(simd, busy, all.end);
        self.store_dq(simd, span, first * group, rows);
    }

    #[inline(always)]
    fn load_block<S: Simd>(&mut self, simd: S, span: Span<'_>, first: usize, rows: usize) {
        let (head_dim, padded) = (self.shape.head_dim, self.shape.padded());
        for row in 0..rows {
            let at = self.place(span, first + row) * head_dim;
            let packed = row * padded..(row + 1) * padded;
            let range = at..at + head_dim;
            unpack_row(
                simd,
                &self.inputs.q[range.clone()],
                &mut self.block.queries[packed.clone()],
            );
            unpack_row(
                simd,
                &self.inputs.dout[range.clone()],
                &mut self.block.douts[packed.clone()],
            );
            // SAFETY: a tree and a head of keys belong to one task.
            let dq = unsafe { self.outputs[0].part(range) };
            unpack_row(simd, dq, &mut self.block.dq[packed]);
        }
    }

    #[inline(always)]
    fn store_dq<S: Simd>(&self, simd: S, span: Span<'_>, first: usize, rows: usize) {
        let (head_dim, padded) = (self.shape.head_dim, self.shape.padded());
        for row in 0..rows {
            let at = self.place(span, first + row) * head_dim;
            // SAFETY: a tree and a head of keys belong to one task.
            let dq = unsafe { self.outputs[0].part(at..at + head_dim) };
            store_row(simd, &self.block.dq[row * padded..][..padded], 1.0, dq);
        }
    }

    /// Products of queries and keys into `weights`, of output gradients and values into `dscores`.
    #[inline(always)]
    fn scores<S: Simd>(&mut self, simd: S, rows: Range<usize>, seen: &Range<usize>) {
        let padded = self.shape.padded();
        let panels = seen.start / PANEL * PANEL..seen.end.next_multiple_of(PANEL);
        let at = rows.start * TILE + panels.start;
        let QueryBlock { queries, douts, weights, dscores, .. } = &mut self.block;
        let KeyTile { keys_t, values_t, .. } = &self.tile;
        for (a, b, c) in [(queries, keys_t, weights), (douts, values_t, dscores)] {
            let product = Product {
                rows: rows.len(),
                cols: panels.len(),
                k: padded,
                a: a[rows.start * padded..].as_ptr(),
                a_row: padded,
                a_k: 1,
                b: b[panels.start..].as_ptr(),
                b_k: TILE,
                c: c[at..].as_mut_ptr(),
                c_row: TILE,
                add: false,
            };
            // SAFETY: the block has rows up to a multiple of ROWS; panels lie within a tile.
            unsafe { product.run(simd) };
        }
    }

    /// `dv += weights^T dout`, `dk += dscores^T queries` over the rows `busy`, for keys below `end`.
    #[inline(always)]
    fn key_gradients<S: Simd>(&mut self, simd: S, busy: Range<usize>, end: usize) {
        let padded = self.shape.padded();
        let QueryBlock { queries, douts, weights, dscores, .. } = &self.block;
        let KeyTile { dk, dv, .. } = &mut self.tile;
        for (a, b, c) in [(weights, douts, dv), (dscores, queries, dk)] {
            let product = Product {
                rows: end,
                cols: padded,
                k: busy.len(),
                a: a[busy.start * TILE..].as_ptr(),
                a_row: 1,
                a_k: TILE,
                b: b[busy.start * padded..].as_ptr(),
                b_k: padded,
                c: c.as_mut_ptr(),
                c_row: padded,
                add: true,
            };
            // SAFETY: TILE is a multiple of ROWS, and rows of the block up to its end are filled.
            unsafe { product.run(simd) };
        }
    }
}

/// From products of a row's query and keys (`weights`), and of its output gradient and values (`dscores`),
/// to the softmax and the gradient of the former; both 0 outside `seen`.
#[inline(always)]
fn score_gradients<S: Simd>(
    simd: S,
    shape: &Shape,
    seen: &Range<usize>,
    lse: f32,
    delta: f32,
    weights: &mut [f32],
    dscores: &mut [f32],
) {
    let (scale, lse, delta) = (simd.splat(shape.scale), simd.splat(lse), simd.splat(delta));
    let chunks = weights.as_chunks_mut::<LANES>().0.iter_mut();
    for (index, (weight, dscore)) in chunks.zip(dscores.as_chunks_mut::<LANES>().0).enumerate() {
        let mut score = simd.mul(simd.load(weight), scale);
        let mut slope = scale;
        if let Some(cap) = shape.softcap {
            let bent = simd.tanh(simd.mul(score, simd.splat(1.0 / cap)));
            score = simd.mul(bent, simd.splat(cap));
            slope = simd.mul(simd.sub(simd.splat(1.0), simd.mul(bent, bent)), scale);
        }
        let mut p = simd.exp(simd.sub(score, lse));
        let mut ds = simd.mul(simd.mul(p, simd.sub(simd.load(dscore), delta)), slope);
        if *seen != (0..TILE) {
            p = masked(simd, index, seen, p, simd.zero());
            ds = masked(simd, index, seen, ds, simd.zero());
        }
        simd.store(p, weight);
        simd.store(ds, dscore);
    }
}

/// `sum(a * b)`: 16 chains, then a tree.
#[inline(always)]
fn dot<S: Simd, T: Operand>(simd: S, a: &[T], b: &[T]) -> f32 {
    let mut sums = simd.zero();
    for (a, b) in a.chunks(LANES).zip(b.chunks(LANES)) {
        sums = simd.fma(load_chunk(simd, a), load_chunk(simd, b), sums);
    }
    simd.sum(sums)
}
