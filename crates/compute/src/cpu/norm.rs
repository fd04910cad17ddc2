//! Root-mean-square norm, and its gradient with respect to its input.

use super::operand::{LANES, Operand, Shared};
use super::rows::spread;
use super::{Isa, Pool, versions};

/// What normed columns are multiplied by: `offset + weight`.
#[derive(Clone, Copy)]
pub(crate) struct Factors<'a> {
    pub(crate) weight: &'a [f32],
    pub(crate) offset: f32,
}

/// `out = x * rstd * (offset + weight)` with `rstd = 1 / sqrt(mean(x^2) + eps)` per row.
pub(crate) fn rms_norm<T: Operand>(
    pool: &Pool,
    isa: Isa,
    x: &[f32],
    factors: Factors<'_>,
    eps: f32,
    out: &mut [T],
    rstd: &mut [f32],
) {
    let (rows, cols) = (rstd.len(), factors.weight.len());
    assert!(x.len() == rows * cols && out.len() == x.len(), "rms_norm: {rows} x {cols}");
    let (out, rstd) = (Shared::new(out), Shared::new(rstd));
    spread(pool, rows, cols, &|range| {
        let elements = range.start * cols..range.end * cols;
        // SAFETY: ranges are disjoint.
        let (out, rstd) = unsafe { (out.part(elements.clone()), rstd.part(range)) };
        forward(isa, &x[elements], factors, eps, out, rstd);
    });
}

versions! {
    fn forward<T: Operand>(
        x: &[f32], factors: Factors<'_>, eps: f32, out: &mut [T], rstd: &mut [f32],
    ) = forward_body;
}

#[inline(always)]
fn forward_body<T: Operand>(
    x: &[f32],
    factors: Factors<'_>,
    eps: f32,
    out: &mut [T],
    rstd: &mut [f32],
) {
    let Factors { weight, offset } = factors;
    let cols = weight.len();
    let rows = x.chunks_exact(cols).zip(out.chunks_exact_mut(cols));
    for ((x, out), rstd) in rows.zip(rstd) {
        *rstd = 1.0 / (dot(x, |i| x[i]) / cols as f32 + eps).sqrt();
        for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
            *out = T::store(x * *rstd * (offset + weight));
        }
    }
}

/// Adds the gradient with respect to `x` to `dx`:
/// `rstd * (g - x * rstd^2 * mean(g * x))` with `g = dout * (offset + weight)`.
pub(crate) fn rms_norm_backward(
    pool: &Pool,
    isa: Isa,
    dout: &[f32],
    x: &[f32],
    factors: Factors<'_>,
    rstd: &[f32],
    dx: &mut [f32],
) {
    let (rows, cols) = (rstd.len(), factors.weight.len());
    let len = rows * cols;
    let fits = dout.len() == len && x.len() == len && dx.len() == len;
    assert!(fits, "rms_norm_backward: {rows} x {cols}");
    let dx = Shared::new(dx);
    spread(pool, rows, cols, &|range| {
        let elements = range.start * cols..range.end * cols;
        // SAFETY: ranges are disjoint.
        let dx = unsafe { dx.part(elements.clone()) };
        let (dout, x) = (&dout[elements.clone()], &x[elements]);
        backward(isa, dout, x, factors, &rstd[range], dx);
    });
}

versions! {
    fn backward(
        dout: &[f32], x: &[f32], factors: Factors<'_>, rstd: &[f32], dx: &mut [f32],
    ) = backward_body;
}

#[inline(always)]
fn backward_body(dout: &[f32], x: &[f32], factors: Factors<'_>, rstd: &[f32], dx: &mut [f32]) {
    let Factors { weight, offset } = factors;
    let cols = weight.len();
    let rows = dout.chunks_exact(cols).zip(x.chunks_exact(cols)).zip(dx.chunks_exact_mut(cols));
    for (((dout, x), dx), rstd) in rows.zip(rstd) {
        let mean = dot(x, |i| dout[i] * (offset + weight[i])) / cols as f32;
        let along = rstd * rstd * mean;
        for (((dx, dout), x), weight) in dx.iter_mut().zip(dout).zip(x).zip(weight) {
            *dx += rstd * (dout * (offset + weight) - x * along);
        }
    }
}

/// `sum of x[i] * other(i)`: 16 chains, then a tree of halves.
#[inline(always)]
fn dot(x: &[f32], other: impl Fn(usize) -> f32) -> f32 {
    let mut sums = [0.0_f32; LANES];
    let whole = x.len() / LANES * LANES;
    for start in (0..whole).step_by(LANES) {
        for lane in 0..LANES {
            sums[lane] += x[start + lane] * other(start + lane);
        }
    }
    for i in whole..x.len() {
        sums[i - whole] += x[i] * other(i);
    }
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            sums[lane] += sums[lane + half];
        }
        half /= 2;
    }
    sums[0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testing::{assert_close, normal};

    fn check(rows: usize, cols: usize, offset: f32) {
        let (x, dout) = (normal(1, rows * cols), normal(2, rows * cols));
        let (weight, before) = (normal(3, cols), normal(4, rows * cols));
        let eps = 1e-5;
        let factor = |i: usize| f64::from(offset) + f64::from(weight[i]);
        let mut expected = (vec![0.0; rows * cols], vec![0.0; rows * cols]);
        for row in 0..rows {
            let at = |i: usize| f64::from(x[row * cols + i]);
            let scaled = |i: usize| f64::from(dout[row * cols + i]) * factor(i);
            let mean = |f: &dyn Fn(usize) -> f64| (0..cols).map(f).sum::<f64>() / cols as f64;
            let rstd = 1.0 / (mean(&|i| at(i) * at(i)) + f64::from(eps)).sqrt();
            let along = mean(&|i| scaled(i) * at(i)) * rstd * rstd;
            for i in 0..cols {
                expected.0[row * cols + i] = at(i) * rstd * factor(i);
                expected.1[row * cols + i] =
                    f64::from(before[row * cols + i]) + rstd * (scaled(i) - at(i) * along);
            }
        }
        let factors = Factors { weight: &weight, offset };
        for isa in Isa::available() {
            let pool = Pool::new(2);
            let (mut out, mut rstd) = (vec![0.0_f32; rows * cols], vec![0.0; rows]);
            rms_norm(&pool, isa, &x, factors, eps, &mut out, &mut rstd);
            assert_close(&out, &expected.0, 1e-6);
            let mut dx = before.clone();
            rms_norm_backward(&pool, isa, &dout, &x, factors, &rstd, &mut dx);
            assert_close(&dx, &expected.1, 1e-6);
            // The last row alone, from an odd address.
            let (mut alone, from) = (vec![0_u16; cols], (rows - 1) * cols);
            let mut all = vec![0_u16; rows * cols];
            rms_norm(&pool, isa, &x, factors, eps, &mut all, &mut rstd);
            rms_norm(&pool, isa, &x[from..], factors, eps, &mut alone, &mut rstd[..1]);
            assert_eq!(all[from..], alone);
        }
    }

    #[test]
    fn rms_norm_is_close_to_f64() {
        for (rows, cols) in [(1, 1), (3, 7), (5, 64), (67, 577)] {
            check(rows, cols, 0.0);
            check(rows, cols, 1.0);
        }
    }
}
