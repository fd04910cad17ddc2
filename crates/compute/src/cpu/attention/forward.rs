//! Attention with a running softmax, Milakov and Gimelshein 2018, tile by tile of keys.

use super::pack::{Rows, store_row, unpack_row};
use super::product::{PANEL, Product, ROWS, STEP};
use super::{Layout, Shape, Span, TILE};
use crate::cpu::operand::{LANES, Operand, Shared};
use crate::cpu::simd::{Kernel, Simd, dispatch};
use crate::cpu::{Isa, Pool, Scratch};

/// See [`crate::op::Attention`].
#[allow(clippy::too_many_arguments, reason = "the operands of the operation")]
pub(crate) fn attention<T: Operand>(
    pool: &Pool,
    isa: Isa,
    shape: Shape,
    layout: Layout<'_>,
    q: &[T],
    k: &[T],
    v: &[T],
    out: &mut [T],
    lse: &mut [f32],
) {
    shape.check(&layout, q.len(), k.len(), v.len());
    let queries = layout.query_positions.len();
    assert!(out.len() == q.len() && lse.len() == queries * shape.heads, "attention: outputs");
    let blocks = |span: usize| layout.span(span).queries.div_ceil(shape.block());
    let tasks = (0..layout.spans()).map(blocks).sum::<usize>() * shape.kv_heads;
    let (out, lse) = (Shared::new(out), Shared::new(lse));
    pool.run(tasks, &|task, scratch| {
        let (mut block, mut span) = (task / shape.kv_heads, 0);
        while block >= blocks(span) {
            block -= blocks(span);
            span += 1;
        }
        let kv_head = task % shape.kv_heads;
        let span = layout.span(span);
        let first = block * shape.block();
        let queries = shape.block().min(span.queries - first);
        let positions = &layout.query_positions[span.first + first..][..queries];
        let first = span.first + first;
        let inputs = [q, k, v];
        let outputs = (&out, &lse);
        dispatch(isa, Block { shape, span, first, positions, kv_head, inputs, outputs, scratch });
    });
}

/// Consecutive queries of a span and the heads that share one head of keys.
struct Block<'a, T> {
    shape: Shape,
    span: Span<'a>,
    /// Index of the first query.
    first: usize,
    positions: &'a [u32],
    kv_head: usize,
    /// `q`, `k`, `v`.
    inputs: [&'a [T]; 3],
    outputs: (&'a Shared<'a, T>, &'a Shared<'a, f32>),
    scratch: &'a mut Scratch,
}

impl<T: Operand> Kernel for Block<'_, T> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Block { shape, span, first, positions, kv_head, inputs: [q, k, v], .. } = self;
        let Shape { heads, kv_heads, head_dim, .. } = shape;
        let (group, padded) = (shape.group(), shape.padded());
        let rows = positions.len() * group;
        let room = rows.next_multiple_of(ROWS);
        let lens =
            [room * padded, room * padded, STEP * TILE, TILE * padded, TILE * padded, 2 * rows];
        let [queries, sums, scores, keys, values, running] = self.scratch.split(lens);

        // Rows of a query stand next to each other in memory.
        let start = |row: usize| {
            let head = kv_head * group + row % group;
            (first + row / group) * heads + head
        };
        for row in 0..rows {
            let from = &q[start(row) * head_dim..][..head_dim];
            unpack_row(simd, from, &mut queries[row * padded..][..padded]);
        }
        queries[rows * padded..].fill(0.0);
        sums.fill(0.0);
        let (maxima, totals) = running.split_at_mut(rows);
        maxima.fill(f32::NEG_INFINITY);
        totals.fill(0.0);

        let position = |row: usize| positions[row / group] as usize;
        let (low, high) = (position(0), position(rows - 1));
        let from = shape.window.map_or(0, |window| (low + 1).saturating_sub(window as usize));
        let head = |x| Rows { x, step: kv_heads * head_dim, offset: kv_head * head_dim, head_dim };
        let (mut key_rows, mut next_rows) = ([0; TILE], [0; TILE]);
        let mut next = span.tile(from / TILE * TILE, &mut next_rows);
        for tile in (from / TILE * TILE..=high).step_by(TILE) {
            std::mem::swap(&mut key_rows, &mut next_rows);
            let present = &key_rows[..next];
            // What nobody here will see need not be fetched.
            next = if tile + TILE <= high { span.tile(tile + TILE, &mut next_rows) } else { 0 };
            let next_rows = &next_rows[..next];
            head(k).pack_transposed(simd, present, next_rows, padded, keys);
            head(v).pack(simd, present, next_rows, padded, values);
            for row in (0..rows).step_by(STEP) {
                let end = (row + STEP).min(rows);
                let seen = shape.seen(tile, position(row), position(end - 1));
                if seen.is_empty() {
                    continue;
                }
                let panels = seen.start / PANEL * PANEL..seen.end.next_multiple_of(PANEL);
                let product = Product {
                    rows: end - row,
                    cols: panels.len(),
                    k: padded,
                    a: queries[row * padded..].as_ptr(),
                    a_row: padded,
                    a_k: 1,
                    b: keys[panels.start..].as_ptr(),
                    b_k: TILE,
                    c: scores[panels.start..].as_mut_ptr(),
                    c_row: TILE,
                    add: false,
                };
                // SAFETY: `queries` has rows up to a multiple of ROWS, `scores` a STEP of
                // them, and panels lie within a tile.
                unsafe { product.run(simd) };
                for row_of in row..end {
                    let p = position(row_of);
                    let scores = &mut scores[(row_of - row) * TILE..][..TILE];
                    let scores = scores.try_into().expect("a row of a tile");
                    let (max, total) = (&mut maxima[row_of], &mut totals[row_of]);
                    let shrink = softmax(simd, &shape, shape.seen(tile, p, p), scores, max, total);
                    if shrink != 1.0 {
                        scale(simd, &mut sums[row_of * padded..][..padded], shrink);
                    }
                }
                let product = Product {
                    rows: end - row,
                    cols: padded,
                    k: seen.len(),
                    a: scores[seen.start..].as_ptr(),
                    a_row: TILE,
                    a_k: 1,
                    b: values[seen.start * padded..].as_ptr(),
                    b_k: padded,
                    c: sums[row * padded..].as_mut_ptr(),
                    c_row: padded,
                    add: true,
                };
                // SAFETY: as above, with rows of `sums`.
                unsafe { product.run(simd) };
            }
        }

        for row in 0..rows {
            let at = start(row);
            // SAFETY: a query and head belong to one task.
            let (out, lse) = unsafe {
                let (out, lse) = self.outputs;
                (out.part(at * head_dim..(at + 1) * head_dim), lse.part(at..at + 1))
            };
            store_row(simd, &sums[row * padded..][..padded], 1.0 / totals[row], out);
            lse[0] = maxima[row] + totals[row].ln();
        }
    }
}

/// Turns a row's scores into weights relative to its running maximum, which it brings up to date
/// with the running sum of weights. Returns what everything summed before is to be scaled by.
///
/// Keys outside `seen` get the weight 0. Where it is empty, nothing changes.
#[inline(always)]
fn softmax<S: Simd>(
    simd: S,
    shape: &Shape,
    seen: std::ops::Range<usize>,
    scores: &mut [f32; TILE],
    max: &mut f32,
    total: &mut f32,
) -> f32 {
    const VECTORS: usize = TILE / LANES;
    let (chunks, _) = scores.as_chunks_mut::<LANES>();
    let hidden = simd.splat(f32::NEG_INFINITY);
    let mut v = [hidden; VECTORS];
    for i in 0..VECTORS {
        v[i] = capped(simd, shape, simd.load(&chunks[i]));
        if seen != (0..TILE) {
            v[i] = masked(simd, i, &seen, v[i], hidden);
        }
    }
    let top = simd.max(simd.max(v[0], v[1]), simd.max(v[2], v[3]));
    let top = simd.largest(top);
    let before = *max;
    *max = if top > before { top } else { before };
    // A row that has seen nothing yet: any finite base gives weights of 0.
    let base = if *max == f32::NEG_INFINITY { 0.0 } else { *max };
    for i in 0..VECTORS {
        v[i] = simd.exp(simd.sub(v[i], simd.splat(base)));
        simd.store(v[i], &mut chunks[i]);
    }
    let sum = simd.sum(simd.add(simd.add(v[0], v[1]), simd.add(v[2], v[3])));
    let shrink =
        if *max == before { 1.0 } else { simd.lanes(simd.exp(simd.splat(before - base)))[0] };
    *total = *total * shrink + sum;
    shrink
}

/// Scores from products: scaled, then soft-capped.
#[inline(always)]
fn capped<S: Simd>(simd: S, shape: &Shape, product: S::V) -> S::V {
    let score = simd.mul(product, simd.splat(shape.scale));
    match shape.softcap {
        Some(cap) => simd.mul(simd.tanh(simd.mul(score, simd.splat(1.0 / cap))), simd.splat(cap)),
        None => score,
    }
}

/// Vector `index` of a tile's row, `hidden` outside `seen`.
#[inline(always)]
pub(super) fn masked<S: Simd>(
    simd: S,
    index: usize,
    seen: &std::ops::Range<usize>,
    v: S::V,
    hidden: S::V,
) -> S::V {
    const COLUMNS: [f32; LANES] =
        [0., 1., 2., 3., 4., 5., 6., 7., 8., 9., 10., 11., 12., 13., 14., 15.];
    let first = (index * LANES) as f32;
    let column = simd.load(&COLUMNS);
    let v = simd.if_less(column, simd.splat(seen.end as f32 - first), v, hidden);
    simd.if_less(column, simd.splat(seen.start as f32 - first), hidden, v)
}

#[inline(always)]
fn scale<S: Simd>(simd: S, row: &mut [f32], by: f32) {
    for chunk in row.as_chunks_mut::<LANES>().0 {
        simd.store(simd.mul(simd.load(chunk), simd.splat(by)), chunk);
    }
}
