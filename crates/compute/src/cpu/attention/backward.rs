//! The gradient of attention, Dao 2023, algorithm 2: weights are computed again from the kept `lse`.

use std::ops::Range;

use super::element::{Bf16Pairs, Floats, PackedElement, pack_joined, pack_row};
use super::forward::masked;
use super::pack::{Rows, store_row, unpack_row};
use super::product::{PANEL, Product, ROWS, STEP};
use super::tasks::{Columns, MOST_TILES, Task};
use super::{Cursor, Layout, Shape, Span, TILE, dispatch};
use crate::cpu::operand::{LANES, Operand, Shared, load_chunk};
use crate::cpu::rows::fill;
use crate::cpu::simd::{Dot, DotKernel, Kernel, Simd};
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
/// A task has the keys of a column and one head of them, and goes through spans and queries in order; columns add
/// to a query in order too. So every sum has one order, that over a shared prefix among them.
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
    let columns = Columns::new(&shape, &layout, pool.threads());
    pool.run(columns.tasks(), &|task, scratch| {
        let (task, outputs) = (columns.task(task), [&dq, &dk, &dv]);
        dispatch::<T, _>(isa, Work { shape, layout, task, inputs, outputs, scratch });
    });
}

/// Words that a task takes, by use.
pub(crate) fn backward_words(shape: Shape) -> [usize; 15] {
    let (group, padded) = (shape.group(), shape.padded());
    let rows = (shape.block() * group).next_multiple_of(ROWS);
    let (deltas, rows, scores) = (rows, rows * padded, rows * TILE);
    let (half, half_scores, tiles) = (rows / 2, scores / 2, MOST_TILES * TILE * padded);
    [
        rows,
        rows,
        rows,
        scores,
        scores,
        half,
        half,
        half_scores,
        half_scores,
        tiles,
        tiles,
        tiles,
        tiles,
        tiles,
        deltas,
    ]
}

/// A column of a tree, and the heads that share one head of keys.
struct Work<'a, T> {
    shape: Shape,
    layout: Layout<'a>,
    task: Task<'a>,
    inputs: Gradients<'a, T>,
    /// `dq`, `dk`, `dv`.
    outputs: [&'a Shared<'a, f32>; 3],
    scratch: &'a mut Scratch,
}

impl<T: Operand> Kernel for Work<'_, T> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        self.differentiate::<S, Floats>(simd);
    }
}

impl<T: Operand> DotKernel for Work<'_, T> {
    #[inline(always)]
    fn run_pairs<S: Dot>(self, simd: S) {
        self.differentiate::<S, Bf16Pairs>(simd);
    }
}

impl<T: Operand> Work<'_, T> {
    #[inline(always)]
    fn differentiate<S: Simd, W: PackedElement<T, S>>(self, simd: S) {
        let Work { shape, layout, task, inputs, outputs, scratch } = self;
        let [
            queries,
            douts,
            dq,
            weights,
            dscores,
            folded_queries,
            folded_douts,
            folded_weights,
            folded_dscores,
            keys,
            keys_t,
            values_t,
            dk,
            dv,
            deltas,
        ] = scratch.split(backward_words(shape));
        let tile = TILE * shape.padded();
        let mut parts =
            [keys, keys_t, values_t, dk, dv].map(|packed| packed.chunks_exact_mut(tile));
        let tiles = std::array::from_fn(|_| {
            let [keys, keys_t, values_t, dk, dv] =
                parts.each_mut().map(|part| part.next().expect("as many as there are tiles"));
            KeyTile { rows: [0; TILE], count: 0, keys, keys_t, values_t, dk, dv }
        });
        let mut pass = Pass {
            shape,
            kv_head: task.kv_head,
            inputs,
            outputs,
            block: QueryBlock { queries, douts, dq, weights, dscores, deltas },
            folded: Folded {
                queries: folded_queries,
                douts: folded_douts,
                weights: folded_weights,
                dscores: folded_dscores,
            },
            tiles,
        };
        let mut blocks = 0;
        for span in layout.tree(task.tree) {
            let span = layout.span(span);
            let positions = &layout.query_positions[span.first..][..span.queries];
            if !positions.is_empty() {
                pass.span::<S, W>(simd, span, positions, &task, blocks);
            }
            blocks += positions.len().div_ceil(shape.block()) as u32;
            task.turns.done_before(blocks);
        }
        for tile in &mut pass.tiles {
            tile.put_back::<S>(simd, &shape, task.kv_head, outputs);
        }
    }
}

/// Packed rows of a block of queries.
struct QueryBlock<'a> {
    /// `[rows, padded / NUMBERS]` words.
    queries: &'a mut [f32],
    /// `[rows, padded / NUMBERS]` words.
    douts: &'a mut [f32],
    /// `[rows, padded]`.
    dq: &'a mut [f32],
    /// `[rows, TILE]`: the softmax, as words at the start of each row.
    weights: &'a mut [f32],
    /// `[rows, TILE]`: the gradient of the products of queries and keys, as words at the start of each row.
    dscores: &'a mut [f32],
    /// `sum(dout * out)` of every row.
    deltas: &'a mut [f32],
}

/// The same with two rows in a word, for products along rows. Not used where a word holds one number.
struct Folded<'a> {
    /// `[rows / 2, padded]`.
    queries: &'a mut [f32],
    /// `[rows / 2, padded]`.
    douts: &'a mut [f32],
    /// `[rows / 2, TILE]`.
    weights: &'a mut [f32],
    /// `[rows / 2, TILE]`.
    dscores: &'a mut [f32],
}

/// A packed tile of keys and values.
struct KeyTile<'a> {
    /// Which rows they are.
    rows: [usize; TILE],
    /// How many; none, as long as nothing is packed.
    count: usize,
    /// `[TILE / NUMBERS, padded]` words.
    keys: &'a mut [f32],
    /// `[padded / NUMBERS, TILE]` words.
    keys_t: &'a mut [f32],
    /// `[padded / NUMBERS, TILE]` words.
    values_t: &'a mut [f32],
    /// `[TILE, padded]`.
    dk: &'a mut [f32],
    /// `[TILE, padded]`.
    dv: &'a mut [f32],
}

impl KeyTile<'_> {
    /// Writes back what the rows have gathered.
    #[inline(always)]
    fn put_back<S: Simd>(
        &mut self,
        simd: S,
        shape: &Shape,
        kv_head: usize,
        [_, dk, dv]: [&Shared<'_, f32>; 3],
    ) {
        let padded = shape.padded();
        for (shared, packed) in [(dk, &self.dk), (dv, &self.dv)] {
            for (&row, packed) in self.rows[..self.count].iter().zip(packed.chunks_exact(padded)) {
                // SAFETY: a key row of a head belongs to one task: it has one position, which is in one column.
                let out = unsafe { shared.part(key_place(shape, kv_head, row)) };
                store_row(simd, packed, 1.0, out);
            }
        }
    }
}

struct Pass<'a, T> {
    shape: Shape,
    kv_head: usize,
    inputs: Gradients<'a, T>,
    outputs: [&'a Shared<'a, f32>; 3],
    block: QueryBlock<'a>,
    folded: Folded<'a>,
    tiles: [KeyTile<'a>; MOST_TILES],
}

/// The place of a span's row in `[queries, H]`.
#[inline(always)]
fn place(shape: &Shape, kv_head: usize, span: Span<'_>, row: usize) -> usize {
    let group = shape.group();
    (span.first + row / group) * shape.heads + kv_head * group + row % group
}

/// A row of keys in `[key rows, KV, D]`.
#[inline(always)]
fn key_place(shape: &Shape, kv_head: usize, row: usize) -> Range<usize> {
    let start = (row * shape.kv_heads + kv_head) * shape.head_dim;
    start..start + shape.head_dim
}

impl<T: Operand> Pass<'_, T> {
    /// All queries of a span, of which the first block has the number `number` in its tree, and the task's keys.
    #[inline(always)]
    fn span<S: Simd, W: PackedElement<T, S>>(
        &mut self,
        simd: S,
        span: Span<'_>,
        positions: &[u32],
        task: &Task<'_>,
        number: u32,
    ) {
        let shape = self.shape;
        let (low, high) = (positions[0] as usize, positions[positions.len() - 1] as usize);
        let from = shape.window.map_or(0, |window| (low + 1).saturating_sub(window as usize));
        let first_tile = (from / TILE * TILE).max(task.start);
        let tiles = || {
            let starts = (first_tile..task.end.min(high + 1)).step_by(TILE);
            starts.map(|start| (start, (start - task.start) / TILE))
        };
        for (start, tile) in tiles() {
            self.load_tile::<S, W>(simd, span, start, tile);
        }
        let mut number = number;
        for positions_before in (0..positions.len()).step_by(shape.block()) {
            let end = (positions_before + shape.block()).min(positions.len());
            let positions = &positions[positions_before..end];
            let (low, high) = (positions[0] as usize, positions[positions.len() - 1] as usize);
            if tiles().any(|(start, _)| !shape.seen(start, low, high).is_empty()) {
                let (first, rows) =
                    (positions_before * shape.group(), positions.len() * shape.group());
                task.turns.wait(number);
                self.load_block::<S, W>(simd, span, first, rows);
                for (start, tile) in tiles() {
                    self.block::<S, W>(simd, span, (start, tile), first, positions);
                }
                self.store_dq(simd, span, first, rows);
            }
            number += 1;
            task.turns.done_before(number);
        }
    }

    /// Packs the keys from position `start` on, unless they are those that are there already.
    #[inline(always)]
    fn load_tile<S: Simd, W: PackedElement<T, S>>(
        &mut self,
        simd: S,
        span: Span<'_>,
        start: usize,
        tile: usize,
    ) {
        let (shape, kv_head, outputs) = (self.shape, self.kv_head, self.outputs);
        let Shape { kv_heads, head_dim, .. } = shape;
        let tile = &mut self.tiles[tile];
        let mut rows = [0; TILE];
        let count = span.tile(start, &mut rows, &mut Cursor::default());
        let rows = &rows[..count];
        if *rows == tile.rows[..tile.count] {
            return;
        }
        tile.put_back(simd, &shape, kv_head, outputs);
        tile.count = count;
        tile.rows[..count].copy_from_slice(rows);
        let padded = shape.padded();
        let head = |x| Rows { x, step: kv_heads * head_dim, offset: kv_head * head_dim, head_dim };
        let (keys, values) = (head(self.inputs.k), head(self.inputs.v));
        keys.pack::<S, W>(simd, rows, &[], padded, tile.keys);
        keys.pack_transposed::<S, W>(simd, rows, &[], padded, tile.keys_t);
        values.pack_transposed::<S, W>(simd, rows, &[], padded, tile.values_t);
        let [_, dk, dv] = outputs;
        for (shared, packed) in [(dk, &mut *tile.dk), (dv, &mut *tile.dv)] {
            for (&row, packed) in rows.iter().zip(packed.chunks_exact_mut(padded)) {
                // SAFETY: as in `put_back`.
                unpack_row(simd, unsafe { shared.part(key_place(&shape, kv_head, row)) }, packed);
            }
            // Keys that are not there gather nothing, but NaN must not linger where they would.
            packed[count * padded..].fill(0.0);
        }
    }

    /// Adds what the loaded queries, from row `first` of the span on, and the keys of the tile from position
    /// `start` on do to each other.
    #[inline(always)]
    fn block<S: Simd, W: PackedElement<T, S>>(
        &mut self,
        simd: S,
        span: Span<'_>,
        (start, tile): (usize, usize),
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
        // Rows that see nothing of the tile stand before (not yet) or behind (no more).
        let mut busy = rows..0;
        for row in (0..rows).step_by(STEP) {
            let end = (row + STEP).min(rows);
            let seen = shape.seen(start, position(row), position(end - 1));
            if seen.is_empty() {
                continue;
            }
            busy = busy.start.min(row)..end;
            self.scores::<S, W>(simd, tile, row..end, &seen);
            for row in row..end {
                let seen = shape.seen(start, position(row), position(row));
                let lse = self.inputs.lse[place(&self.shape, self.kv_head, span, first + row)];
                let QueryBlock { weights, dscores, deltas, .. } = &mut self.block;
                let weights = &mut weights[row * TILE..][..TILE];
                let dscores = &mut dscores[row * TILE..][..TILE];
                score_gradients::<T, S, W>(simd, &shape, &seen, lse, deltas[row], weights, dscores);
            }
            self.fold::<S, W>(simd, row..end);
            let words = seen.start / W::NUMBERS..seen.end.div_ceil(W::NUMBERS);
            let product = Product {
                rows: end - row,
                cols: padded,
                k: words.len(),
                a: self.block.dscores[row * TILE + words.start..].as_ptr(),
                a_row: TILE,
                a_k: 1,
                b: self.tiles[tile].keys[words.start * padded..].as_ptr(),
                b_k: padded,
                c: self.block.dq[row * padded..].as_mut_ptr(),
                c_row: padded,
                add: true,
            };
            // SAFETY: the block has rows up to a multiple of ROWS.
            unsafe { product.run::<T, S, W>(simd) };
        }
        self.key_gradients::<S, W>(simd, tile, busy, all.end);
    }

    /// Packs a block of queries of a span from row `first` on.
    #[inline(always)]
    fn load_block<S: Simd, W: PackedElement<T, S>>(
        &mut self,
        simd: S,
        span: Span<'_>,
        first: usize,
        rows: usize,
    ) {
        let (head_dim, padded) = (self.shape.head_dim, self.shape.padded());
        let width = padded / W::NUMBERS;
        let (shape, kv_head) = (self.shape, self.kv_head);
        let range = |row: usize| {
            let at = place(&shape, kv_head, span, first + row) * head_dim;
            at..at + head_dim
        };
        let Gradients { q, out, dout, .. } = self.inputs;
        for row in 0..rows {
            let (range, words) = (range(row), row * width..(row + 1) * width);
            let QueryBlock { queries, douts, dq, deltas, .. } = &mut self.block;
            deltas[row] = dot(simd, &out[range.clone()], &dout[range.clone()]);
            pack_row::<T, S, W>(simd, &q[range.clone()], &mut queries[words.clone()]);
            pack_row::<T, S, W>(simd, &dout[range.clone()], &mut douts[words]);
            // SAFETY: the rows of a head of keys belong to a column when its turn has come.
            let from = unsafe { self.outputs[0].part(range) };
            unpack_row(simd, from, &mut dq[row * padded..(row + 1) * padded]);
        }
        if W::NUMBERS == 1 {
            return;
        }
        for first in (0..rows).step_by(2) {
            let words = first / 2 * padded..(first / 2 + 1) * padded;
            let second = if first + 1 < rows { range(first + 1) } else { 0..0 };
            let Folded { queries, douts, .. } = &mut self.folded;
            for (x, out) in [(q, queries), (dout, douts)] {
                let rows = [&x[range(first)], &x[second.clone()]];
                pack_joined::<T, S, W>(simd, rows, &mut out[words.clone()]);
            }
        }
    }

    /// Brings what `score_gradients` wrote for these rows, of which the first is even, into words along rows.
    #[inline(always)]
    fn fold<S: Simd, W: PackedElement<T, S>>(&mut self, simd: S, rows: Range<usize>) {
        for first in rows.clone().step_by(2) {
            let (weights, dscores) = (&mut self.folded.weights, &mut self.folded.dscores);
            let pairs = [(&self.block.weights, weights), (&self.block.dscores, dscores)];
            for (x, out) in pairs {
                let row = |row: usize| &x[row * TILE..][..TILE];
                let second = (first + 1 < rows.end).then(|| row(first + 1));
                W::fold(simd, row(first), second, &mut out[first / 2 * TILE..][..TILE]);
            }
        }
    }

    #[inline(always)]
    fn store_dq<S: Simd>(&self, simd: S, span: Span<'_>, first: usize, rows: usize) {
        let (head_dim, padded) = (self.shape.head_dim, self.shape.padded());
        for row in 0..rows {
            let at = place(&self.shape, self.kv_head, span, first + row) * head_dim;
            // SAFETY: as in `load_block`.
            let dq = unsafe { self.outputs[0].part(at..at + head_dim) };
            store_row(simd, &self.block.dq[row * padded..][..padded], 1.0, dq);
        }
    }

    /// Products of queries and keys into `weights`, of output gradients and values into `dscores`.
    #[inline(always)]
    fn scores<S: Simd, W: PackedElement<T, S>>(
        &mut self,
        simd: S,
        tile: usize,
        rows: Range<usize>,
        seen: &Range<usize>,
    ) {
        let width = self.shape.padded() / W::NUMBERS;
        let panels = seen.start / PANEL * PANEL..seen.end.next_multiple_of(PANEL);
        let at = rows.start * TILE + panels.start;
        let QueryBlock { queries, douts, weights, dscores, .. } = &mut self.block;
        let KeyTile { keys_t, values_t, .. } = &self.tiles[tile];
        for (a, b, c) in [(queries, keys_t, weights), (douts, values_t, dscores)] {
            let product = Product {
                rows: rows.len(),
                cols: panels.len(),
                k: width,
                a: a[rows.start * width..].as_ptr(),
                a_row: width,
                a_k: 1,
                b: b[panels.start..].as_ptr(),
                b_k: TILE,
                c: c[at..].as_mut_ptr(),
                c_row: TILE,
                add: false,
            };
            // SAFETY: the block has rows up to a multiple of ROWS; panels lie within a tile.
            unsafe { product.run::<T, S, W>(simd) };
        }
    }

    /// `dv += weights^T dout`, `dk += dscores^T queries` over the rows `busy`, for keys below `end`.
    #[inline(always)]
    fn key_gradients<S: Simd, W: PackedElement<T, S>>(
        &mut self,
        simd: S,
        tile: usize,
        busy: Range<usize>,
        end: usize,
    ) {
        let padded = self.shape.padded();
        let words = busy.start / W::NUMBERS..busy.end.div_ceil(W::NUMBERS);
        let QueryBlock { queries, douts, weights, dscores, .. } = &self.block;
        let folded = &self.folded;
        let products = match W::NUMBERS {
            1 => [(weights, douts), (dscores, queries)],
            _ => [(&folded.weights, &folded.douts), (&folded.dscores, &folded.queries)],
        };
        let KeyTile { dk, dv, .. } = &mut self.tiles[tile];
        for ((a, b), c) in products.into_iter().zip([dv, dk]) {
            let product = Product {
                rows: end,
                cols: padded,
                k: words.len(),
                a: a[words.start * TILE..].as_ptr(),
                a_row: 1,
                a_k: TILE,
                b: b[words.start * padded..].as_ptr(),
                b_k: padded,
                c: c.as_mut_ptr(),
                c_row: padded,
                add: true,
            };
            // SAFETY: TILE is a multiple of ROWS, and rows of the block up to its end are filled.
            unsafe { product.run::<T, S, W>(simd) };
        }
    }
}

/// From products of a row's query and keys (`weights`), and of its output gradient and values (`dscores`),
/// to the softmax and the gradient of the former; both 0 outside `seen`.
#[inline(always)]
fn score_gradients<T: Operand, S: Simd, W: PackedElement<T, S>>(
    simd: S,
    shape: &Shape,
    seen: &Range<usize>,
    lse: f32,
    delta: f32,
    weights: &mut [f32],
    dscores: &mut [f32],
) {
    let (scale, lse, delta) = (simd.splat(shape.scale), simd.splat(lse), simd.splat(delta));
    for run in 0..TILE / (2 * LANES) {
        let (mut p, mut ds) = ([simd.zero(); 2], [simd.zero(); 2]);
        for half in 0..2 {
            let index = 2 * run + half;
            let mut score = simd.mul(simd.load(&weights.as_chunks().0[index]), scale);
            let gradient = simd.sub(simd.load(&dscores.as_chunks().0[index]), delta);
            let mut slope = scale;
            if let Some(cap) = shape.softcap {
                let bent = simd.tanh(simd.mul(score, simd.splat(1.0 / cap)));
                score = simd.mul(bent, simd.splat(cap));
                slope = simd.mul(simd.sub(simd.splat(1.0), simd.mul(bent, bent)), scale);
            }
            p[half] = simd.exp(simd.sub(score, lse));
            ds[half] = simd.mul(simd.mul(p[half], gradient), slope);
            if *seen != (0..TILE) {
                p[half] = masked(simd, index, seen, p[half], simd.zero());
                ds[half] = masked(simd, index, seen, ds[half], simd.zero());
            }
        }
        W::store(simd, p, weights, run);
        W::store(simd, ds, dscores, run);
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
