//! Norms of adapted rows, without the adapted matrix.

use super::operand::{LANES, Shared, load_chunk};
use super::simd::{Kernel, Simd, dispatch};
use super::{Isa, Pool};

/// Multiplies and additions that are worth a task of their own, some microseconds.
const TASK_PRODUCTS: usize = 1 << 17;

/// Chains that the registers hold at a time.
const CHAINS: usize = 4;

/// What norms are made of; see [`crate::op::DoraFactors`].
#[derive(Clone, Copy)]
pub(crate) struct Norms<'a> {
    pub(crate) rank: usize,
    /// `[N]`.
    pub(crate) squares: &'a [f32],
    /// `[rank, N]`.
    pub(crate) product: &'a [f32],
    /// `[rank, rank]`.
    pub(crate) gram: &'a [f32],
    /// `[N, rank]`.
    pub(crate) b: &'a [f32],
    pub(crate) scaling: f32,
}

/// `norms[n] = |W_n + scaling * (B A)_n|` and `factors[n] = magnitude[n] / norms[n]`.
pub(crate) fn dora_factors(
    pool: &Pool,
    isa: Isa,
    parts: Norms<'_>,
    magnitude: &[f32],
    factors: &mut [f32],
    norms: &mut [f32],
) {
    let Norms { rank, squares, product, gram, b, .. } = parts;
    let outputs = squares.len();
    let fits = product.len() == rank * outputs && b.len() == product.len();
    let fits = fits && gram.len() == rank * rank && magnitude.len() == outputs;
    let fits = fits && factors.len() == outputs && norms.len() == outputs;
    assert!(fits, "dora_factors: {outputs} outputs, rank {rank}");
    let (factors, norms) = (Shared::new(factors), Shared::new(norms));
    let grain = (TASK_PRODUCTS / (rank * rank).max(1)).max(1).next_multiple_of(LANES);
    pool.run(outputs.div_ceil(grain), &|task, scratch| {
        for first in (task * grain..((task + 1) * grain).min(outputs)).step_by(LANES) {
            let range = first..(first + LANES).min(outputs);
            // SAFETY: ranges are disjoint.
            let (factors, norms) = unsafe { (factors.part(range.clone()), norms.part(range)) };
            let columns = scratch.f32(rank * LANES);
            dispatch(isa, Block { parts, first, columns, norms });
            let rows = factors.iter_mut().zip(&*norms).zip(&magnitude[first..]);
            rows.for_each(|((factor, norm), magnitude)| *factor = magnitude / norm);
        }
    });
}

/// The norms of up to 16 neighbouring rows, one to a lane.
struct Block<'a> {
    parts: Norms<'a>,
    first: usize,
    /// Room for `[rank, 16]`.
    columns: &'a mut [f32],
    norms: &'a mut [f32],
}

impl Kernel for Block<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Block { parts: Norms { rank, squares, product, gram, b, scaling }, first, .. } = self;
        let (outputs, count) = (squares.len(), self.norms.len());
        let (columns, _) = self.columns.as_chunks_mut::<LANES>();
        for (i, column) in columns.iter_mut().enumerate() {
            *column = [0.0; LANES];
            for (lane, column) in column.iter_mut().enumerate().take(count) {
                *column = b[(first + lane) * rank + i];
            }
        }
        let (linear, square) = (simd.splat(2.0 * scaling), simd.splat(scaling * scaling));
        let mut total = load_chunk(simd, &squares[first..][..count]);
        for start in (0..rank).step_by(CHAINS) {
            let mut chains = [simd.zero(); CHAINS];
            for (i, column) in columns.iter().enumerate() {
                let column = simd.load(column);
                for (offset, chain) in chains.iter_mut().enumerate() {
                    // Chains beyond the last row of the matrix repeat it, and are dropped.
                    let row = (start + offset).min(rank - 1);
                    *chain = simd.fma(simd.splat(gram[row * rank + i]), column, *chain);
                }
            }
            for (row, chain) in (start..rank).zip(chains) {
                let product = load_chunk(simd, &product[row * outputs + first..][..count]);
                let factor = simd.fma(square, chain, simd.mul(linear, product));
                total = simd.fma(simd.load(&columns[row]), factor, total);
            }
        }
        for (norm, total) in self.norms.iter_mut().zip(simd.lanes(total)) {
            // Rounding may leave less than nothing of a row that cancels; a NaN stays.
            *norm = if total < 0.0 { 0.0 } else { total.sqrt() };
        }
    }
}
