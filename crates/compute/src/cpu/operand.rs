//! The two element types that kernels read and write: f32, and bf16 as its bits.

use std::marker::PhantomData;
use std::ops::Range;

use super::simd::Simd;

/// Lanes of a vector, whatever the width of the machine's registers.
pub(crate) const LANES: usize = 16;

/// A number in memory that is computed with as f32.
pub(crate) trait Operand: Copy + Default + Send + Sync + 'static {
    /// Widens, exactly.
    fn load(self) -> f32;

    /// Rounds to the nearest, ties to even; NaN stays NaN.
    fn store(x: f32) -> Self;

    /// The bits of numbers that are bf16.
    fn halves(x: &[Self]) -> Option<&[u16]>;

    /// [`load`](Operand::load) of 16 numbers.
    fn load16<S: Simd>(simd: S, x: &[Self; LANES]) -> S::V;

    /// [`store`](Operand::store) of 16 numbers.
    fn store16<S: Simd>(simd: S, v: S::V, out: &mut [Self; LANES]);
}

impl Operand for f32 {
    #[inline(always)]
    fn load(self) -> f32 {
        self
    }

    #[inline(always)]
    fn store(x: f32) -> Self {
        x
    }

    #[inline(always)]
    fn halves(_: &[Self]) -> Option<&[u16]> {
        None
    }

    #[inline(always)]
    fn load16<S: Simd>(simd: S, x: &[Self; LANES]) -> S::V {
        simd.load(x)
    }

    #[inline(always)]
    fn store16<S: Simd>(simd: S, v: S::V, out: &mut [Self; LANES]) {
        simd.store(v, out);
    }
}

/// bf16 as its bits.
impl Operand for u16 {
    #[inline(always)]
    fn load(self) -> f32 {
        f32::from_bits(u32::from(self) << 16)
    }

    #[inline(always)]
    fn store(x: f32) -> Self {
        let bits = x.to_bits();
        // The sum below would carry a NaN's mantissa into its sign.
        let rounded = if x.is_nan() { bits | 0x40_0000 } else { bits + 0x7FFF + (bits >> 16 & 1) };
        (rounded >> 16) as u16
    }

    #[inline(always)]
    fn halves(x: &[Self]) -> Option<&[u16]> {
        Some(x)
    }

    #[inline(always)]
    fn load16<S: Simd>(simd: S, x: &[Self; LANES]) -> S::V {
        simd.load_bf16(x)
    }

    #[inline(always)]
    fn store16<S: Simd>(simd: S, v: S::V, out: &mut [Self; LANES]) {
        simd.store_bf16(v, out);
    }
}

/// Up to 16 numbers, zeros behind them.
#[inline(always)]
pub(crate) fn load_chunk<S: Simd, T: Operand>(simd: S, x: &[T]) -> S::V {
    if let Some(whole) = x.first_chunk() {
        return T::load16(simd, whole);
    }
    let mut padded = [T::default(); LANES];
    padded[..x.len()].copy_from_slice(x);
    T::load16(simd, &padded)
}

/// The first lanes, as many as `out` takes, up to 16.
#[inline(always)]
pub(crate) fn store_chunk<S: Simd, T: Operand>(simd: S, v: S::V, out: &mut [T]) {
    if let Some(whole) = out.first_chunk_mut() {
        return T::store16(simd, v, whole);
    }
    let mut padded = [T::default(); LANES];
    T::store16(simd, v, &mut padded);
    out.copy_from_slice(&padded[..out.len()]);
}

/// An output that tasks write in parts that do not overlap.
pub(crate) struct Shared<'a, T> {
    start: *mut T,
    len: usize,
    borrow: PhantomData<&'a mut [T]>,
}

// SAFETY: access goes through `part`, whose callers promise that parts in use at one time are
// disjoint.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    /// Borrows the whole output for as long as tasks write it.
    pub(crate) fn new(out: &'a mut [T]) -> Self {
        Shared { start: out.as_mut_ptr(), len: out.len(), borrow: PhantomData }
    }

    /// A part of it.
    ///
    /// # Safety
    /// No other part in use at the same time may overlap it.
    #[allow(clippy::mut_from_ref, reason = "disjointness is the caller's promise")]
    #[inline(always)]
    pub(crate) unsafe fn part(&self, range: Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.len, "{range:?} of {}", self.len);
        // SAFETY: the range lies in the borrowed slice; disjointness is the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bf16_rounds_as_half_does() {
        let tricky = [0.0, -0.0, 1.0, 1.003_906_3, 1.011_718_8, f32::MAX, f32::INFINITY, 1e-40];
        for x in tricky.into_iter().chain((0..100_000).map(|i| f32::from_bits(i * 42_949))) {
            let expected = half::bf16::from_f32(x);
            let got = <u16 as Operand>::store(x);
            assert!(expected.is_nan() || got == expected.to_bits(), "{x}");
            assert_eq!(Operand::load(got).is_nan(), x.is_nan(), "{x}");
        }
    }
}
