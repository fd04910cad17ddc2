//! The one product that attention is made of: a few rows times a packed panel.

use super::element::PackedElement;
use crate::cpu::operand::{LANES, Operand};
use crate::cpu::simd::Simd;

/// Columns of a product come in multiples of it.
pub(super) const PANEL: usize = 32;

/// Rows may be computed up to the next multiple of it; operands must have room for them.
pub(super) const ROWS: usize = 4;

/// Rows between two looks at the scores: a multiple of every instruction set's block.
pub(super) const STEP: usize = 12;

/// `c[i][j] (+)= sum over k of a[i][k] * b[k][j]`; every element is one chain, k ascending. `a` and `b` are
/// words, `c` is f32.
#[derive(Clone, Copy)]
pub(super) struct Product {
    pub(super) rows: usize,
    /// A multiple of [`PANEL`].
    pub(super) cols: usize,
    /// In words.
    pub(super) k: usize,
    pub(super) a: *const f32,
    /// From `a[i][k]` to `a[i + 1][k]`.
    pub(super) a_row: usize,
    /// From `a[i][k]` to `a[i][k + 1]`.
    pub(super) a_k: usize,
    pub(super) b: *const f32,
    /// From `b[k][j]` to `b[k + 1][j]`.
    pub(super) b_k: usize,
    pub(super) c: *mut f32,
    /// From `c[i][j]` to `c[i + 1][j]`.
    pub(super) c_row: usize,
    /// Whether the chains go on from what is in `c`.
    pub(super) add: bool,
}

impl Product {
    /// Computes it.
    ///
    /// # Safety
    /// The operands hold what the steps and counts reach, rows rounded up to [`ROWS`], and `c`
    /// overlaps neither.
    #[inline(always)]
    pub(super) unsafe fn run<T: Operand, S: Simd, W: PackedElement<T, S>>(self, simd: S) {
        debug_assert!(self.cols.is_multiple_of(PANEL));
        // SAFETY: the caller's promise is that of `panels`.
        unsafe {
            match S::BLOCK {
                (12, 2) => self.panels::<T, S, W, 12, 4, 2>(simd),
                (6, 1) => self.panels::<T, S, W, 6, 2, 1>(simd),
                _ => self.panels::<T, S, W, 2, 2, 1>(simd),
            }
        }
    }

    /// # Safety
    /// As [`run`](Product::run); `ROWS` is a multiple of `SMALL`.
    #[inline(always)]
    unsafe fn panels<
        T: Operand,
        S: Simd,
        W: PackedElement<T, S>,
        const BIG: usize,
        const SMALL: usize,
        const V: usize,
    >(
        self,
        simd: S,
    ) {
        for column in (0..self.cols).step_by(V * LANES) {
            let mut row = 0;
            while row < self.rows {
                let left = self.rows - row;
                // SAFETY: the block lies within the rows, rounded up, and the columns.
                row += unsafe {
                    if left >= BIG {
                        self.block::<T, S, W, BIG, V>(simd, row, column)
                    } else if left > 1 {
                        self.block::<T, S, W, SMALL, V>(simd, row, column)
                    } else {
                        self.block::<T, S, W, 1, V>(simd, row, column)
                    }
                };
            }
        }
    }

    /// Computes `R` rows of `V` vectors in registers; returns `R`.
    ///
    /// # Safety
    /// As [`run`](Product::run), for these rows and columns.
    #[allow(clippy::needless_range_loop, reason = "plain counts are unrolled into registers")]
    #[inline(always)]
    unsafe fn block<T: Operand, S: Simd, W: PackedElement<T, S>, const R: usize, const V: usize>(
        self,
        simd: S,
        row: usize,
        column: usize,
    ) -> usize {
        let mut sums = [[simd.zero(); V]; R];
        // SAFETY: the caller's promise.
        unsafe {
            let mut a = self.a.add(row * self.a_row);
            let mut b = self.b.add(column);
            let c = self.c.add(row * self.c_row + column);
            if self.add {
                for i in 0..R {
                    for v in 0..V {
                        sums[i][v] = simd.load(&*c.add(i * self.c_row + v * LANES).cast());
                    }
                }
            }
            for _ in 0..self.k {
                let mut columns = [simd.zero(); V];
                for v in 0..V {
                    columns[v] = simd.load(&*b.add(v * LANES).cast());
                }
                for i in 0..R {
                    let factor = simd.splat(*a.add(i * self.a_row));
                    for v in 0..V {
                        sums[i][v] = W::multiply(simd, factor, columns[v], sums[i][v]);
                    }
                }
                a = a.add(self.a_k);
                b = b.add(self.b_k);
            }
            for i in 0..R {
                for v in 0..V {
                    simd.store(sums[i][v], &mut *c.add(i * self.c_row + v * LANES).cast());
                }
            }
        }
        R
    }
}
