//! Attention with a running softmax, Milakov and Gimelshein 2018, tile by tile of keys.

use std::ops::Range;

use super::element::{Bf16Pairs, Floats, PackedElement, pack_row};
use super::pack::{Rows, store_row};
use super::product::{PANEL, Product, ROWS, STEP};
use super::{Cursor, Layout, Shape, TILE, dispatch};
use crate::cpu::operand::{LANES, Operand, Shared};
use crate::cpu::simd::{Dot, DotKernel, Kernel, Simd};
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
    let kin = Kin::new(&shape, pool.threads(), layout.spans());
    let blocks: Vec<Spans> = kin.blocks(&shape, &layout).collect();
    let (out, lse) = (Shared::new(out), Shared::new(lse));
    pool.run(blocks.len() * shape.kv_heads, &|task, scratch| {
        let (spans, kv_head) = (blocks[task / shape.kv_heads].clone(), task % shape.kv_heads);
        let inputs = [q, k, v];
        let outputs = (&out, &lse);
        dispatch::<T, _>(isa, Block { shape, layout, spans, kv_head, inputs, outputs, scratch });
    });
}

/// Which spans are taken together: neighbours that begin with the same keys, whose tiles are then packed
/// once for all of them.
#[derive(Clone, Copy)]
struct Kin {
    /// Most spans of a block.
    most: usize,
}

/// Queries of neighbouring spans; of several, the same number of each.
#[derive(Clone)]
struct Spans {
    /// The spans.
    spans: Range<usize>,
    /// Queries of the first of them that come before.
    skipped: usize,
    /// Queries.
    count: usize,
    /// Key rows that all of them begin with, in whole tiles.
    common: usize,
}

impl Kin {
    /// As many spans as leave every thread some blocks.
    fn new(shape: &Shape, threads: usize, spans: usize) -> Self {
        Kin { most: (spans * shape.kv_heads / (4 * threads)).max(1) }
    }

    /// All queries, block by block.
    fn blocks(self, shape: &Shape, layout: &Layout<'_>) -> impl Iterator<Item = Spans> {
        let (most, block, layout) = (self.most, shape.block(), *layout);
        let (mut next, mut skipped) = (0, 0);
        std::iter::from_fn(move || {
            while next < layout.spans() && layout.span(next).queries == skipped {
                (next, skipped) = (next + 1, 0);
            }
            if next == layout.spans() {
                return None;
            }
            let (first, span) = (next, layout.span(next));
            let mut count = block.min(span.queries - skipped);
            let mut spans = Spans { spans: first..first + 1, skipped, count, common: 0 };
            if skipped + count < span.queries {
                skipped += count;
                return Some(spans);
            }
            (next, skipped) = (first + 1, 0);
            // The whole tiles that a span has in common with the first, and with the one behind it.
            let tiles = |a: usize, b: usize| layout.span(a).common(&layout.span(b)) / TILE * TILE;
            let mut common = 0;
            while next < layout.spans() && next - first < most {
                let other = layout.span(next);
                let behind = other.first == span.first + spans.skipped + count;
                let alike = behind && other.queries == span.queries && spans.skipped == 0;
                if !alike || count + other.queries > block {
                    break;
                }
                let shared = tiles(first, next);
                let is_closer = next + 1 < layout.spans() && tiles(next, next + 1) > shared;
                // Neither those before nor the one itself may lose by it.
                if shared == 0 || shared < common || is_closer {
                    break;
                }
                common = if common == 0 { shared } else { common };
                count += other.queries;
                next += 1;
            }
            if next > first + 1 {
                spans = Spans { spans: first..next, count, common, ..spans };
            }
            Some(spans)
        })
    }
}

/// Where the rows of a block stand: those of each span behind each other, filled up where there are several,
/// so that what products compute beyond the rows of one reaches no other.
#[derive(Clone, Copy)]
struct Places {
    /// Queries of a span.
    queries: usize,
    /// Rows of a query.
    group: usize,
    /// Rows from a span to the next.
    stride: usize,
}

impl Places {
    fn new(spans: &Spans, group: usize) -> Self {
        let queries = spans.count / spans.spans.len();
        let rows = queries * group;
        let stride = if spans.spans.len() > 1 { rows.next_multiple_of(ROWS) } else { rows };
        Places { queries, group, stride }
    }

    /// The query of a row; a row that only fills up has the last one of its span.
    #[inline(always)]
    fn query(&self, row: usize) -> usize {
        let (span, row) = (row / self.stride, row % self.stride);
        span * self.queries + (row / self.group).min(self.queries - 1)
    }

    /// Whether a row only fills up.
    #[inline(always)]
    fn is_filler(&self, row: usize) -> bool {
        row % self.stride >= self.queries * self.group
    }
}

/// Consecutive queries and the heads that share one head of keys.
struct Block<'a, T> {
    shape: Shape,
    layout: Layout<'a>,
    spans: Spans,
    kv_head: usize,
    /// `q`, `k`, `v`.
    inputs: [&'a [T]; 3],
    outputs: (&'a Shared<'a, T>, &'a Shared<'a, f32>),
    scratch: &'a mut Scratch,
}

impl<T: Operand> Kernel for Block<'_, T> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        self.attend::<S, Floats>(simd);
    }
}

impl<T: Operand> DotKernel for Block<'_, T> {
    #[inline(always)]
    fn run_pairs<S: Dot>(self, simd: S) {
        self.attend::<S, Bf16Pairs>(simd);
    }
}

impl<T: Operand> Block<'_, T> {
    #[inline(always)]
    fn attend<S: Simd, W: PackedElement<T, S>>(self, simd: S) {
        let Block { shape, layout, spans, kv_head, inputs: [q, k, v], .. } = self;
        let Shape { heads, kv_heads, head_dim, .. } = shape;
        let (group, padded) = (shape.group(), shape.padded());
        // Words of a row along its columns.
        let width = padded / W::NUMBERS;
        let first = layout.span(spans.spans.start).first + spans.skipped;
        let positions = &layout.query_positions[first..][..spans.count];
        let places = Places::new(&spans, group);
        let rows = places.stride * spans.spans.len();
        let room = rows.next_multiple_of(ROWS);
        let lens =
            [room * padded, room * padded, STEP * TILE, TILE * padded, TILE * padded, 2 * rows];
        let [queries, sums, scores, keys, values, running] = self.scratch.split(lens);

        // Rows of a query stand next to each other in memory.
        let start = |row: usize| {
            let head = kv_head * group + row % places.stride % group;
            (first + places.query(row)) * heads + head
        };
        queries.fill(0.0);
        for row in (0..rows).filter(|&row| !places.is_filler(row)) {
            let from = &q[start(row) * head_dim..][..head_dim];
            pack_row::<T, S, W>(simd, from, &mut queries[row * width..][..width]);
        }
        sums.fill(0.0);
        let (maxima, totals) = running.split_at_mut(rows);
        maxima.fill(f32::NEG_INFINITY);
        totals.fill(0.0);

        let head = |x| Rows { x, step: kv_heads * head_dim, offset: kv_head * head_dim, head_dim };
        let (mut key_rows, mut next_rows) = ([0; TILE], [0; TILE]);
        let mut state = Running { shape, places, positions, queries, sums, scores, maxima, totals };
        // What all spans begin with, then what each goes on with.
        let parts = [None].into_iter().chain(spans.spans.clone().map(Some));
        for part in parts {
            let span = layout.span(part.unwrap_or(spans.spans.start));
            let (of, rows) = match part {
                None if spans.common == 0 => continue,
                None => (0..spans.count, 0..rows),
                Some(index) => {
                    let index = index - spans.spans.start;
                    let range = |each: usize| index * each..(index + 1) * each;
                    (range(places.queries), range(places.stride))
                }
            };
            let seen_by = &positions[of];
            let low = seen_by.iter().fold(usize::MAX, |low, &p| low.min(p as usize));
            let high = seen_by.iter().fold(0, |high, &p| high.max(p as usize));
            let from = shape.window.map_or(0, |window| (low + 1).saturating_sub(window as usize));
            let (from, end) = match part {
                None => (from / TILE * TILE, spans.common),
                Some(_) => ((from / TILE * TILE).max(spans.common), high + 1),
            };
            if from >= end {
                continue;
            }
            let mut cursor = Cursor::default();
            let mut next = span.tile(from, &mut next_rows, &mut cursor);
            for tile in (from..end).step_by(TILE) {
                std::mem::swap(&mut key_rows, &mut next_rows);
                let present = &key_rows[..next];
                // What nobody here will see need not be fetched.
                let ahead = tile + TILE < end;
                next = if ahead { span.tile(tile + TILE, &mut next_rows, &mut cursor) } else { 0 };
                let next_rows = &next_rows[..next];
                head(k).pack_transposed::<S, W>(simd, present, next_rows, padded, keys);
                head(v).pack::<S, W>(simd, present, next_rows, padded, values);
                state.tile::<T, S, W>(simd, tile, rows.clone(), keys, values);
            }
        }

        let Running { sums, maxima, totals, .. } = state;
        for row in (0..rows).filter(|&row| !places.is_filler(row)) {
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

/// Rows of a block, and what they have gathered so far.
struct Running<'a> {
    shape: Shape,
    places: Places,
    /// Of the block's queries.
    positions: &'a [u32],
    /// `[rows, padded / NUMBERS]` words.
    queries: &'a [f32],
    /// `[rows, padded]`: sums of weighted values.
    sums: &'a mut [f32],
    /// `[STEP, TILE]`; weights are words at the start of each row.
    scores: &'a mut [f32],
    maxima: &'a mut [f32],
    totals: &'a mut [f32],
}

impl Running<'_> {
    /// Adds what some rows see of the tile from position `tile` on.
    #[inline(always)]
    fn tile<T: Operand, S: Simd, W: PackedElement<T, S>>(
        &mut self,
        simd: S,
        tile: usize,
        rows: Range<usize>,
        keys: &[f32],
        values: &[f32],
    ) {
        let Running { shape, places, positions, queries, .. } = *self;
        let (padded, width) = (shape.padded(), shape.padded() / W::NUMBERS);
        let position = |row: usize| positions[places.query(row)] as usize;
        for row in rows.clone().step_by(STEP) {
            let end = (row + STEP).min(rows.end);
            let low = (row..end).fold(usize::MAX, |low, row| low.min(position(row)));
            let high = (row..end).fold(0, |high, row| high.max(position(row)));
            let seen = shape.seen(tile, low, high);
            if seen.is_empty() {
                continue;
            }
            let panels = seen.start / PANEL * PANEL..seen.end.next_multiple_of(PANEL);
            let product = Product {
                rows: end - row,
                cols: panels.len(),
                k: width,
                a: queries[row * width..].as_ptr(),
                a_row: width,
                a_k: 1,
                b: keys[panels.start..].as_ptr(),
                b_k: TILE,
                c: self.scores[panels.start..].as_mut_ptr(),
                c_row: TILE,
                add: false,
            };
            // SAFETY: `queries` has rows up to a multiple of ROWS, `scores` a STEP of
            // them, and panels lie within a tile.
            unsafe { product.run::<T, S, W>(simd) };
            for row_of in row..end {
                let p = position(row_of);
                let scores = &mut self.scores[(row_of - row) * TILE..][..TILE];
                let scores = scores.try_into().expect("a row of a tile");
                let (max, total) = (&mut self.maxima[row_of], &mut self.totals[row_of]);
                let seen = shape.seen(tile, p, p);
                let shrink = softmax::<T, S, W>(simd, &shape, seen, scores, max, total);
                if shrink != 1.0 {
                    scale(simd, &mut self.sums[row_of * padded..][..padded], shrink);
                }
            }
            let words = seen.start / W::NUMBERS..seen.end.div_ceil(W::NUMBERS);
            let product = Product {
                rows: end - row,
                cols: padded,
                k: words.len(),
                a: self.scores[words.start..].as_ptr(),
                a_row: TILE,
                a_k: 1,
                b: values[words.start * padded..].as_ptr(),
                b_k: padded,
                c: self.sums[row * padded..].as_mut_ptr(),
                c_row: padded,
                add: true,
            };
            // SAFETY: as above, with rows of `sums`.
            unsafe { product.run::<T, S, W>(simd) };
        }
    }
}

/// Turns a row's scores into weights relative to its running maximum, which it brings up to date
/// with the running sum of weights (as they are before words round them). Returns what everything summed
/// before is to be scaled by.
///
/// Keys outside `seen` get the weight 0. Where it is empty, nothing changes.
#[inline(always)]
fn softmax<T: Operand, S: Simd, W: PackedElement<T, S>>(
    simd: S,
    shape: &Shape,
    seen: Range<usize>,
    scores: &mut [f32; TILE],
    max: &mut f32,
    total: &mut f32,
) -> f32 {
    const VECTORS: usize = TILE / LANES;
    let (chunks, _) = scores.as_chunks::<LANES>();
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
    for v in &mut v {
        *v = simd.exp(simd.sub(*v, simd.splat(base)));
    }
    W::store(simd, [v[0], v[1]], scores, 0);
    W::store(simd, [v[2], v[3]], scores, 1);
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
    seen: &Range<usize>,
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
