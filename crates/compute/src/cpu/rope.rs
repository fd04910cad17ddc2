//! Rotary positions: the table of angles, and the rotation.

use super::operand::{Operand, Shared};
use super::rows::spread;
use super::{Isa, Pool, versions};

/// `cos` and `sin` of `position * inv_freq`, times `scale`.
///
/// The angle is reduced in f64: in f32 its error would grow with the position.
pub(crate) fn rope_table(
    pool: &Pool,
    positions: &[u32],
    inv_freq: &[f32],
    scale: f32,
    cos: &mut [f32],
    sin: &mut [f32],
) {
    let half = inv_freq.len();
    let len = positions.len() * half;
    assert!(cos.len() == len && sin.len() == len, "rope_table: {} x {half}", positions.len());
    let (cos, sin) = (Shared::new(cos), Shared::new(sin));
    // An angle costs about as much as 32 elements that are only streamed.
    spread(pool, positions.len(), 32 * half, &|range| {
        let elements = range.start * half..range.end * half;
        // SAFETY: ranges are disjoint.
        let (cos, sin) = unsafe { (cos.part(elements.clone()), sin.part(elements)) };
        let rows = cos.chunks_exact_mut(half).zip(sin.chunks_exact_mut(half));
        for (&position, (cos, sin)) in positions[range].iter().zip(rows) {
            for ((cos, sin), &freq) in cos.iter_mut().zip(sin).zip(inv_freq) {
                let (s, c) = (f64::from(position) * f64::from(freq)).sin_cos();
                *cos = c as f32 * scale;
                *sin = s as f32 * scale;
            }
        }
    });
}

/// What [`rope`] rotates by: rows of `cos` and `sin`, each `rotary_dim / 2` long.
#[derive(Clone, Copy)]
pub(crate) struct Rotation<'a> {
    pub(crate) heads: usize,
    pub(crate) head_dim: usize,
    /// How many of a head's numbers are rotated, from the first on.
    pub(crate) rotary_dim: usize,
    pub(crate) cos: &'a [f32],
    pub(crate) sin: &'a [f32],
    /// Rotates back.
    pub(crate) inverse: bool,
}

/// Rotates each head's pairs `(x[i], x[i + R/2])`; numbers from R on are only rounded.
pub(crate) fn rope<T: Operand>(
    pool: &Pool,
    isa: Isa,
    rotation: Rotation<'_>,
    x: &[f32],
    out: &mut [T],
) {
    let Rotation { heads, head_dim, rotary_dim, cos, sin, .. } = rotation;
    let (cols, half) = (heads * head_dim, rotary_dim / 2);
    let rows = x.len() / cols;
    let fits = rotary_dim.is_multiple_of(2) && rotary_dim <= head_dim;
    assert!(fits, "rope: an even number of {head_dim}, not {rotary_dim}");
    assert!(x.len() == rows * cols && out.len() == x.len(), "rope: {rows} x {heads} x {head_dim}");
    assert!(cos.len() == rows * half && sin.len() == cos.len(), "rope: table of {rows} x {half}");
    let out = Shared::new(out);
    spread(pool, rows, cols, &|range| {
        let elements = range.start * cols..range.end * cols;
        let table = range.start * half..range.end * half;
        // SAFETY: ranges are disjoint.
        let out = unsafe { out.part(elements.clone()) };
        let rotation = Rotation { cos: &cos[table.clone()], sin: &sin[table], ..rotation };
        rotate(isa, rotation, &x[elements], out);
    });
}

versions! {
    fn rotate<T: Operand>(rotation: Rotation<'_>, x: &[f32], out: &mut [T]) = rotate_body;
}

#[inline(always)]
fn rotate_body<T: Operand>(rotation: Rotation<'_>, x: &[f32], out: &mut [T]) {
    let Rotation { heads, head_dim, rotary_dim, cos, sin, inverse } = rotation;
    let half = rotary_dim / 2;
    let direction = if inverse { -1.0 } else { 1.0 };
    let all = x.chunks_exact(head_dim).zip(out.chunks_exact_mut(head_dim));
    for (index, (x, out)) in all.enumerate() {
        let table = index / heads * half..(index / heads + 1) * half;
        let (cos, sin) = (&cos[table.clone()], &sin[table]);
        let ((x, x_rest), (out, out_rest)) = (x.split_at(rotary_dim), out.split_at_mut(rotary_dim));
        let ((x0, x1), (out0, out1)) = (x.split_at(half), out.split_at_mut(half));
        for i in 0..half {
            let sin = direction * sin[i];
            out0[i] = T::store(x0[i] * cos[i] - x1[i] * sin);
            out1[i] = T::store(x1[i] * cos[i] + x0[i] * sin);
        }
        for (out, x) in out_rest.iter_mut().zip(x_rest) {
            *out = T::store(*x);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testing::{assert_close, normal};

    fn check(rows: usize, heads: usize, head_dim: usize, rotary_dim: usize) {
        let pool = Pool::new(2);
        let half = rotary_dim / 2;
        let positions: Vec<u32> = (0..rows as u32).map(|row| row * 1234).collect();
        let inv_freq: Vec<f32> =
            (0..half).map(|i| 10_000_f32.powf(-(i as f32) / half as f32)).collect();
        let (mut cos, mut sin) = (vec![0.0; rows * half], vec![0.0; rows * half]);
        rope_table(&pool, &positions, &inv_freq, 1.25, &mut cos, &mut sin);
        let x = normal(1, rows * heads * head_dim);
        let mut expected: Vec<f64> = x.iter().map(|&x| x.into()).collect();
        for index in 0..rows * heads {
            for i in 0..half {
                let angle = f64::from(positions[index / heads]) * f64::from(inv_freq[i]);
                let (sin, cos) = (1.25 * angle.sin(), 1.25 * angle.cos());
                let at = |i: usize| f64::from(x[index * head_dim + i]);
                expected[index * head_dim + i] = at(i) * cos - at(i + half) * sin;
                expected[index * head_dim + i + half] = at(i + half) * cos + at(i) * sin;
            }
        }
        for isa in Isa::available() {
            let (cos, sin) = (&cos, &sin);
            let forward = Rotation { heads, head_dim, rotary_dim, cos, sin, inverse: false };
            let mut out = vec![0.0; x.len()];
            rope(&pool, isa, forward, &x, &mut out);
            assert_close(&out, &expected, 1e-6);
            let mut back = vec![0.0; x.len()];
            rope(&pool, isa, Rotation { inverse: true, ..forward }, &out, &mut back);
            let factor = |i: usize| if i % head_dim < rotary_dim { 1.25 * 1.25 } else { 1.0 };
            let expected = x.iter().enumerate().map(|(i, &x)| f64::from(x) * factor(i));
            let expected: Vec<f64> = expected.collect();
            assert_close(&back, &expected, 1e-6);
        }
    }

    #[test]
    fn rotation_is_close_to_f64_and_goes_back() {
        let shapes = [(1, 1, 2, 2), (3, 2, 6, 4), (50, 9, 64, 64), (7, 3, 96, 24), (5, 2, 96, 72)];
        for (rows, heads, head_dim, rotary_dim) in shapes {
            check(rows, heads, head_dim, rotary_dim);
        }
    }
}
