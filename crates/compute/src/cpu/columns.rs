//! Sums over the rows of a matrix, and factors on its columns.

use std::ops::Range;

use super::operand::{LANES, Operand, Shared, load_chunk, store_chunk};
use super::pool::{Pointers, Scratch};
use super::rows::{TASK_ELEMENTS, spread};
use super::simd::{Kernel, Simd, dispatch};
use super::{Isa, Pool, versions};

/// Runs `body` for ranges that together cover `0..cols`, where each column is summed over `rows`
/// in order.
fn spread_columns(
    pool: &Pool,
    rows: usize,
    cols: usize,
    body: &(dyn Fn(Range<usize>, &mut Scratch) + Sync),
) {
    // Some cache lines of a row at least: less would leave memory waiting.
    let width = (TASK_ELEMENTS / rows.max(1)).max(1).next_multiple_of(4 * LANES);
    pool.run(cols.div_ceil(width), &|task, scratch| {
        body(task * width..((task + 1) * width).min(cols), scratch);
    });
}

/// `out[index[i]] += scale * x[i]` by rows of `cols`, `i` ascending; `u32::MAX` is left out.
pub(crate) fn scatter_add(
    pool: &Pool,
    isa: Isa,
    cols: usize,
    x: &[f32],
    index: &[u32],
    scale: f32,
    out: &mut [f32],
) {
    assert_eq!(x.len(), index.len() * cols, "scatter_add: x is [index, cols]");
    let out = Shared::new(out);
    spread_columns(pool, index.len(), cols, &|columns, _| {
        for (x, &row) in x.chunks_exact(cols).zip(index) {
            if row != u32::MAX {
                let start = row as usize * cols;
                // SAFETY: every task has columns of its own.
                let out = unsafe { out.part(start + columns.start..start + columns.end) };
                add_scaled(isa, &x[columns.clone()], scale, out);
            }
        }
    });
}

versions! { fn add_scaled(x: &[f32], scale: f32, out: &mut [f32]) = add_scaled_body; }

#[inline(always)]
fn add_scaled_body(x: &[f32], scale: f32, out: &mut [f32]) {
    for (out, x) in out.iter_mut().zip(x) {
        *out += scale * x;
    }
}

/// What [`column_sums`] adds up: `row_scale * a * b / divisor`.
#[derive(Clone, Copy)]
pub(crate) struct Summands<'a, A, B> {
    pub(crate) cols: usize,
    /// `[rows, cols]`.
    pub(crate) a: &'a [A],
    /// `[rows, cols]`; empty where it is 1.
    pub(crate) b: &'a [B],
    /// `[rows]`; empty where it is 1.
    pub(crate) row_scale: &'a [f32],
    /// `[cols]`; empty where it is 1.
    pub(crate) divisor: &'a [f32],
}

/// Adds the sums over all rows, in order, to `out`.
pub(crate) fn column_sums<A: Operand, B: Operand>(
    pool: &Pool,
    isa: Isa,
    summands: Summands<'_, A, B>,
    out: &mut [f32],
) {
    let Summands { cols, a, b, row_scale, divisor } = summands;
    let rows = a.len() / cols;
    let fits = |len: usize, expected: usize| len == 0 || len == expected;
    let fits = a.len() == rows * cols
        && fits(b.len(), a.len())
        && fits(row_scale.len(), rows)
        && fits(divisor.len(), cols);
    assert!(fits && out.len() == cols, "column_sums: {rows} x {cols}");
    let out = Shared::new(out);
    spread_columns(pool, rows, cols, &|columns, scratch| {
        let inverse = scratch.f32(columns.len());
        inverse.fill(1.0);
        if !divisor.is_empty() {
            inverse.iter_mut().zip(&divisor[columns.clone()]).for_each(|(i, d)| *i = 1.0 / d);
        }
        // SAFETY: every task has columns of its own.
        let out = unsafe { out.part(columns.clone()) };
        sum(isa, summands, columns.start, inverse, out);
    });
}

versions! {
    fn sum<A: Operand, B: Operand>(
        summands: Summands<'_, A, B>, first: usize, inverse: &[f32], out: &mut [f32],
    ) = sum_body;
}

/// The columns from `first` on.
#[inline(always)]
fn sum_body<A: Operand, B: Operand>(
    summands: Summands<'_, A, B>,
    first: usize,
    inverse: &[f32],
    out: &mut [f32],
) {
    let Summands { cols, a, b, row_scale, .. } = summands;
    for row in 0..a.len() / cols {
        let scale = if row_scale.is_empty() { 1.0 } else { row_scale[row] };
        let range = row * cols + first..row * cols + first + out.len();
        let a = &a[range.clone()];
        if b.is_empty() {
            for ((out, a), inverse) in out.iter_mut().zip(a).zip(inverse) {
                *out += scale * a.load() * inverse;
            }
        } else {
            for (((out, a), b), inverse) in out.iter_mut().zip(a).zip(&b[range]).zip(inverse) {
                *out += scale * a.load() * b.load() * inverse;
            }
        }
    }
}

/// What [`scale_columns`] does to a row: `scale * (x * factors + bias)`.
#[derive(Clone, Copy)]
pub(crate) struct Scaling<'a> {
    pub(crate) factors: &'a [f32],
    /// Empty where there is none.
    pub(crate) bias: &'a [f32],
    pub(crate) scale: f32,
}

/// `out = base + scale * (x * factors + bias)`; `base` may be null.
///
/// # Safety
/// `x`, `base` and `out` are valid for `rows` rows; `x` and `base` are `out` itself (in its type) or
/// do not overlap it.
pub(crate) unsafe fn scale_columns<X: Operand, O: Operand>(
    pool: &Pool,
    isa: Isa,
    rows: usize,
    scaling: Scaling<'_>,
    (x, base): (*const X, *const f32),
    out: *mut O,
) {
    let cols = scaling.factors.len();
    let bias = scaling.bias.len();
    assert!(bias == 0 || bias == cols, "scale_columns: {bias} numbers of bias for {cols} columns");
    let pointers = Pointers((x, base, out));
    spread(pool, rows, cols, &|rows| {
        let (x, base, out) = { &pointers }.0;
        dispatch(isa, ScaleRows { rows, scaling, x, base, out });
    });
}

struct ScaleRows<'a, X, O> {
    rows: Range<usize>,
    scaling: Scaling<'a>,
    x: *const X,
    base: *const f32,
    out: *mut O,
}

impl<X: Operand, O: Operand> Kernel for ScaleRows<'_, X, O> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Scaling { factors, bias, scale } = self.scaling;
        let (cols, scale) = (factors.len(), simd.splat(scale));
        for row in self.rows {
            for column in (0..cols).step_by(LANES) {
                let (at, len) = (row * cols + column, LANES.min(cols - column));
                // SAFETY: the row exists, and what is read of it is read before it is written.
                let x = unsafe { std::slice::from_raw_parts(self.x.add(at), len) };
                let mut value =
                    simd.mul(load_chunk(simd, x), load_chunk(simd, &factors[column..][..len]));
                if !bias.is_empty() {
                    value = simd.add(value, load_chunk(simd, &bias[column..][..len]));
                }
                value = simd.mul(scale, value);
                if !self.base.is_null() {
                    // SAFETY: as above.
                    let base = unsafe { std::slice::from_raw_parts(self.base.add(at), len) };
                    value = simd.add(load_chunk(simd, base), value);
                }
                // SAFETY: every task has rows of its own.
                let out = unsafe { std::slice::from_raw_parts_mut(self.out.add(at), len) };
                store_chunk(simd, value, out);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testing::normal;

    #[test]
    fn columns_are_covered_once() {
        for (rows, cols) in [(1, 1), (5, 63), (1000, 200), (1, 100_000), (0, 7)] {
            let mut seen = vec![0_u8; cols];
            let shared = Shared::new(&mut seen);
            spread_columns(&Pool::new(2), rows, cols, &|range, _| {
                // SAFETY: under test; an overlap would only miscount.
                unsafe { shared.part(range) }.iter_mut().for_each(|seen| *seen += 1);
            });
            assert!(seen.iter().all(|&seen| seen == 1), "{rows} x {cols}");
        }
    }

    #[test]
    fn sums_are_one_chain_a_column() {
        let (rows, cols) = (300, 75);
        let (a, start) = (normal(1, rows * cols), normal(2, cols));
        let row_scale = normal(3, rows);
        let mut expected = start.clone();
        for row in 0..rows {
            for column in 0..cols {
                expected[column] += row_scale[row] * a[row * cols + column];
            }
        }
        for isa in Isa::available() {
            let mut out = start.clone();
            let (row_scale, none) = (&row_scale[..], &[][..]);
            let summands: Summands<'_, f32, f32> =
                Summands { cols, a: &a, b: none, row_scale, divisor: none };
            column_sums(&Pool::new(2), isa, summands, &mut out);
            assert!(out == expected, "{isa}");
        }
    }
}
