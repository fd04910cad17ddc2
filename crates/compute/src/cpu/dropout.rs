//! Dropout whose mask is a hash, so that it needs no memory and no order.

use super::operand::{Operand, Shared};
use super::rows::spread;
use super::{Isa, Pool, versions};
use crate::random;

/// What decides which elements are kept.
#[derive(Clone, Copy)]
pub(crate) struct Mask<'a> {
    pub(crate) cols: usize,
    /// `[rows, 3]`: low and high half of the row's identity, position.
    pub(crate) row_keys: &'a [u32],
    pub(crate) key: u64,
    /// Share of elements that become 0.
    pub(crate) p: f32,
}

/// What the kept elements are added to.
#[derive(Clone, Copy)]
pub(crate) enum Base<'a> {
    Zero,
    /// Another buffer of the output's shape.
    Apart(&'a [f32]),
    /// The output itself.
    Out,
}

/// `out = base + x * kept / (1 - p)`.
pub(crate) fn dropout<X: Operand, O: Operand>(
    pool: &Pool,
    isa: Isa,
    mask: Mask<'_>,
    x: &[X],
    base: Base<'_>,
    out: &mut [O],
) {
    let cols = mask.cols;
    let rows = mask.row_keys.len() / 3;
    assert!(x.len() == rows * cols && out.len() == x.len(), "dropout: {rows} x {cols}");
    let out = Shared::new(out);
    spread(pool, rows, 4 * cols, &|range| {
        let elements = range.start * cols..range.end * cols;
        // SAFETY: ranges are disjoint.
        let out = unsafe { out.part(elements.clone()) };
        let mask = Mask { row_keys: &mask.row_keys[3 * range.start..3 * range.end], ..mask };
        let base = match base {
            Base::Apart(base) => Base::Apart(&base[elements.clone()]),
            same => same,
        };
        rows_of(isa, mask, &x[elements], base, out);
    });
}

versions! {
    fn rows_of<X: Operand, O: Operand>(
        mask: Mask<'_>, x: &[X], base: Base<'_>, out: &mut [O],
    ) = rows_body;
}

#[inline(always)]
fn rows_body<X: Operand, O: Operand>(mask: Mask<'_>, x: &[X], base: Base<'_>, out: &mut [O]) {
    let cols = mask.cols;
    let scale = 1.0 / (1.0 - mask.p);
    for (row, keys) in mask.row_keys.chunks_exact(3).enumerate() {
        let identity = u64::from(keys[0]) | u64::from(keys[1]) << 32;
        let hash = random::key(&[mask.key, identity, u64::from(keys[2])]);
        // A product with 0, not a choice of 0: a NaN is not to be hidden by its mask.
        let kept =
            |i: usize, x: f32| x * if random::keeps(hash, i as u64, mask.p) { scale } else { 0.0 };
        let range = row * cols..(row + 1) * cols;
        let (x, out) = (&x[range.clone()], &mut out[range.clone()]);
        match base {
            Base::Zero => {
                for (i, (out, x)) in out.iter_mut().zip(x).enumerate() {
                    *out = O::store(kept(i, x.load()));
                }
            }
            Base::Apart(base) => {
                for (i, ((out, x), base)) in out.iter_mut().zip(x).zip(&base[range]).enumerate() {
                    *out = O::store(base + kept(i, x.load()));
                }
            }
            Base::Out => {
                for (i, (out, x)) in out.iter_mut().zip(x).enumerate() {
                    *out = O::store(out.load() + kept(i, x.load()));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testing::normal;

    #[test]
    fn kept_elements_are_those_of_the_hash() {
        let (rows, cols, p, key) = (5, 77, 0.25, 99);
        let row_keys: Vec<u32> = (0..rows as u32).flat_map(|row| [row, 7, row * 3]).collect();
        let x = normal(1, rows * cols);
        let base = normal(2, rows * cols);
        let kept = |i: usize| {
            let row = (i / cols) as u64;
            let hash = random::key(&[key, row | 7 << 32, row * 3]);
            random::keeps(hash, (i % cols) as u64, p)
        };
        for isa in Isa::available() {
            let pool = Pool::new(2);
            let mask = Mask { cols, row_keys: &row_keys, key, p };
            let mut out = vec![0.0_f32; rows * cols];
            dropout(&pool, isa, mask, &x, Base::Zero, &mut out);
            let mut apart = vec![0.0_f32; rows * cols];
            dropout(&pool, isa, mask, &x, Base::Apart(&base), &mut apart);
            let mut same = base.clone();
            dropout(&pool, isa, mask, &x, Base::Out, &mut same);
            for i in 0..rows * cols {
                let expected = if kept(i) { x[i] * (1.0 / 0.75) } else { 0.0 };
                assert_eq!(out[i], expected);
                assert_eq!(apart[i], base[i] + expected);
                assert_eq!(same[i], apart[i]);
            }
        }
    }

    #[test]
    fn nan_stays() {
        let mask = Mask { cols: 64, row_keys: &[1, 2, 3], key: 4, p: 0.5 };
        let mut out = [0.0_f32; 64];
        dropout(&Pool::new(1), Isa::detect(), mask, &[f32::NAN; 64], Base::Zero, &mut out);
        assert!(out.iter().all(|x| x.is_nan()));
    }
}
