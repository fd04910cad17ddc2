//! The gated non-linearity of an MLP, `activation(gate) * up`, and its gradient.

use super::operand::{LANES, Operand, Shared, load_chunk, store_chunk};
use super::rows::spread;
use super::simd::{Kernel, Simd, dispatch};
use super::{Isa, Pool};
use crate::op::Activation;

/// `out = activation(gate) * up`.
pub(crate) fn gated<T: Operand>(
    pool: &Pool,
    isa: Isa,
    activation: Activation,
    gate: &[T],
    up: &[T],
    out: &mut [T],
) {
    let len = gate.len();
    assert!(up.len() == len && out.len() == len, "gated: lengths");
    let out = Shared::new(out);
    spread(pool, len, EXPENSE, &|range| {
        // SAFETY: ranges are disjoint.
        let out = unsafe { out.part(range.clone()) };
        let inputs = [&gate[range.clone()], &up[range]];
        dispatch(isa, Forward { activation, inputs, out });
    });
}

/// `dgate = dout * up * activation'(gate)`, `dup = dout * activation(gate)`.
#[allow(clippy::too_many_arguments, reason = "the operands of the operation")]
pub(crate) fn gated_backward<T: Operand>(
    pool: &Pool,
    isa: Isa,
    activation: Activation,
    gate: &[T],
    up: &[T],
    dout: &[T],
    dgate: &mut [T],
    dup: &mut [T],
) {
    let len = gate.len();
    let fits = [up.len(), dout.len(), dgate.len(), dup.len()] == [len; 4];
    assert!(fits, "gated_backward: lengths");
    let (dgate, dup) = (Shared::new(dgate), Shared::new(dup));
    spread(pool, len, EXPENSE, &|range| {
        // SAFETY: ranges are disjoint.
        let (dgate, dup) = unsafe { (dgate.part(range.clone()), dup.part(range.clone())) };
        let inputs = [&gate[range.clone()], &up[range.clone()], &dout[range]];
        dispatch(isa, Backward { activation, inputs, dgate, dup });
    });
}

/// An element costs about as much as 4 that are only streamed.
const EXPENSE: usize = 4;

struct Forward<'a, T> {
    activation: Activation,
    inputs: [&'a [T]; 2],
    out: &'a mut [T],
}

impl<T: Operand> Kernel for Forward<'_, T> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Forward { activation, inputs: [gate, up], out } = self;
        let inputs = gate.chunks(LANES).zip(up.chunks(LANES));
        for ((gate, up), out) in inputs.zip(out.chunks_mut(LANES)) {
            let (x, up) = (load_chunk(simd, gate), load_chunk(simd, up));
            let s = simd.sigmoid(inner(simd, activation, x).0);
            store_chunk(simd, simd.mul(simd.mul(x, s), up), out);
        }
    }
}

struct Backward<'a, T> {
    activation: Activation,
    inputs: [&'a [T]; 3],
    dgate: &'a mut [T],
    dup: &'a mut [T],
}

impl<T: Operand> Kernel for Backward<'_, T> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Backward { activation, inputs: [gate, up, dout], dgate, dup } = self;
        let inputs = gate.chunks(LANES).zip(up.chunks(LANES)).zip(dout.chunks(LANES));
        let outputs = dgate.chunks_mut(LANES).zip(dup.chunks_mut(LANES));
        for (((gate, up), dout), (dgate, dup)) in inputs.zip(outputs) {
            let (x, up) = (load_chunk(simd, gate), load_chunk(simd, up));
            let dout = load_chunk(simd, dout);
            let (u, du) = inner(simd, activation, x);
            let s = simd.sigmoid(u);
            let xs = simd.mul(x, s);
            // s + x s (1 - s) u'
            let slope = simd.fma(simd.mul(xs, simd.sub(simd.splat(1.0), s)), du, s);
            store_chunk(simd, simd.mul(dout, xs), dup);
            store_chunk(simd, simd.mul(simd.mul(dout, up), slope), dgate);
        }
    }
}

/// Both activations are `x * sigmoid(u(x))`: returns u and its derivative. GELU's
/// `(1 + tanh(u / 2)) / 2` is `sigmoid(u)`, which loses nothing for negative x.
#[inline(always)]
fn inner<S: Simd>(simd: S, activation: Activation, x: S::V) -> (S::V, S::V) {
    /// `2 * sqrt(2 / pi)`.
    const A: f32 = 1.595_769;
    const B: f32 = 0.044_715;
    match activation {
        Activation::Silu => (x, simd.splat(1.0)),
        Activation::GeluTanh => {
            let x2 = simd.mul(x, x);
            let u = simd.mul(x, simd.fma(x2, simd.splat(A * B), simd.splat(A)));
            (u, simd.fma(x2, simd.splat(3.0 * A * B), simd.splat(A)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testing::{assert_close, normal};

    fn activate(activation: Activation, x: f64) -> f64 {
        match activation {
            Activation::Silu => x / (1.0 + (-x).exp()),
            Activation::GeluTanh => {
                let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3));
                0.5 * x * (1.0 + u.tanh())
            }
        }
    }

    fn check(activation: Activation, len: usize) {
        let scaled = |seed| normal(seed, len).iter().map(|x| x * 3.0).collect::<Vec<f32>>();
        let (gate, up, dout) = (scaled(1), scaled(2), scaled(3));
        let expected: [Vec<f64>; 3] = [0, 1, 2].map(|which| {
            let inputs = gate.iter().zip(&up).zip(&dout);
            let each = inputs.map(|((&gate, &up), &dout)| {
                let (x, up, dout) = (f64::from(gate), f64::from(up), f64::from(dout));
                let slope = activate(activation, x + 1e-5) - activate(activation, x - 1e-5);
                [
                    activate(activation, x) * up,
                    dout * up * slope / 2e-5,
                    dout * activate(activation, x),
                ][which]
            });
            each.collect()
        });
        for isa in Isa::available() {
            let pool = Pool::new(2);
            let [mut out, mut dgate, mut dup] = [0, 1, 2].map(|_| vec![0.0; len]);
            gated(&pool, isa, activation, &gate, &up, &mut out);
            gated_backward(&pool, isa, activation, &gate, &up, &dout, &mut dgate, &mut dup);
            assert_close(&out, &expected[0], 1e-6);
            assert_close(&dgate, &expected[1], 1e-6);
            assert_close(&dup, &expected[2], 1e-6);
        }
    }

    #[test]
    fn activations_are_close_to_f64() {
        for activation in [Activation::Silu, Activation::GeluTanh] {
            check(activation, 50);
            check(activation, 20_001);
        }
    }

    #[test]
    fn nan_stays() {
        for activation in [Activation::Silu, Activation::GeluTanh] {
            let mut out = [0_u16; 17];
            gated(&Pool::new(1), Isa::detect(), activation, &[0x7FC0; 17], &[0x3F80; 17], &mut out);
            assert!(out.iter().all(|x| x.load().is_nan()));
        }
    }
}
