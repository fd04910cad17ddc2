//! Muon: momentum, and what makes it orthogonal.

use crate::optimizer::{NEWTON_SCHULZ, NORM_MIN};

/// Decays the momentum; the gradient becomes what is made orthogonal.
pub(super) fn look_ahead(momentum: f64, nesterov: bool, g: &mut [f64], m: &mut [f64]) {
    for (g, m) in g.iter_mut().zip(m) {
        *m = momentum * *m + (1.0 - momentum) * *g;
        *g = if nesterov { momentum * *m + (1.0 - momentum) * *g } else { *m };
    }
}

/// The factor on the learning rate.
pub(super) fn ratio(rows: usize, cols: usize, match_rms: bool) -> f64 {
    let (rows, cols) = (rows as f64, cols as f64);
    if match_rms { 0.2 * rows.max(cols).sqrt() } else { (rows / cols).max(1.0).sqrt() }
}

/// `X = a X + (b A + c A^2) X`, `A = X X^T`, again and again.
pub(super) fn orthogonal(g: &[f64], (rows, cols): (usize, usize), iterations: u32) -> Vec<f64> {
    let norm = g.iter().map(|g| g * g).sum::<f64>().sqrt().max(NORM_MIN.into());
    let mut x: Vec<f64> = g.iter().map(|g| g / norm).collect();
    let [a, b, c] = NEWTON_SCHULZ.map(f64::from);
    // X is no larger from the left than from the right: (X X^T) X = X (X^T X).
    let left = rows <= cols;
    for _ in 0..iterations {
        let turned = transposed(&x, rows, cols);
        let gram = if left { product(&x, &turned, rows) } else { product(&turned, &x, cols) };
        let side = rows.min(cols);
        let square = product(&gram, &gram, side);
        let polynomial: Vec<f64> =
            gram.iter().zip(&square).map(|(gram, square)| b * gram + c * square).collect();
        let moved =
            if left { product(&polynomial, &x, side) } else { product(&x, &polynomial, rows) };
        x.iter_mut().zip(moved).for_each(|(x, moved)| *x = a * *x + moved);
    }
    x
}

/// The product of two matrices, the first of `rows` rows.
fn product(x: &[f64], y: &[f64], rows: usize) -> Vec<f64> {
    let inner = x.len() / rows;
    let cols = y.len() / inner;
    let mut out = vec![0.0; rows * cols];
    for (out, x) in out.chunks_exact_mut(cols).zip(x.chunks_exact(inner)) {
        for (y, x) in y.chunks_exact(cols).zip(x) {
            out.iter_mut().zip(y).for_each(|(out, y)| *out += x * y);
        }
    }
    out
}

fn transposed(x: &[f64], rows: usize, cols: usize) -> Vec<f64> {
    (0..rows * cols).map(|i| x[i % rows * cols + i / rows]).collect()
}
