//! Numbers from one type to another.

use super::operand::{LANES, Operand, Shared};
use super::rows::spread;
use super::simd::{Kernel, Simd, dispatch};
use super::{Isa, Pool};

/// `out = scale * x`, rounded where `O` has fewer bits.
pub(crate) fn cast<X: Operand, O: Operand>(
    pool: &Pool,
    isa: Isa,
    x: &[X],
    scale: f32,
    out: &mut [O],
) {
    assert_eq!(x.len(), out.len(), "cast: lengths");
    let len = x.len();
    let out = Shared::new(out);
    spread(pool, len, 1, &|range| {
        // SAFETY: ranges are disjoint.
        let out = unsafe { out.part(range.clone()) };
        dispatch(isa, Cast { x: &x[range], scale, out });
    });
}

struct Cast<'a, X, O> {
    x: &'a [X],
    scale: f32,
    out: &'a mut [O],
}

impl<X: Operand, O: Operand> Kernel for Cast<'_, X, O> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let scale = simd.splat(self.scale);
        let (whole, rest) = self.x.as_chunks::<LANES>();
        let (out_whole, out_rest) = self.out.as_chunks_mut::<LANES>();
        for (x, out) in whole.iter().zip(out_whole) {
            O::store16(simd, simd.mul(scale, X::load16(simd, x)), out);
        }
        for (x, out) in rest.iter().zip(out_rest) {
            *out = O::store(self.scale * x.load());
        }
    }
}
