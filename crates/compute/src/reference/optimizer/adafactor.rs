//! Adafactor: the gradient becomes the update.

/// `g / sqrt(R C / mean(R))` with the decayed means of `g^2 + eps` over rows and columns.
pub(super) fn precondition_matrix(
    beta: f64,
    eps: f64,
    cols: usize,
    g: &mut [f64],
    row_moment: &mut [f64],
    column_moment: &mut [f64],
) {
    let rows = row_moment.len();
    let square = |i: usize, j: usize| g[i * cols + j].powi(2) + eps;
    for (i, moment) in row_moment.iter_mut().enumerate() {
        let mean = (0..cols).map(|j| square(i, j)).sum::<f64>() / cols as f64;
        *moment = beta * *moment + (1.0 - beta) * mean;
    }
    for (j, moment) in column_moment.iter_mut().enumerate() {
        let mean = (0..rows).map(|i| square(i, j)).sum::<f64>() / rows as f64;
        *moment = beta * *moment + (1.0 - beta) * mean;
    }
    let mean = row_moment.iter().sum::<f64>() / rows as f64;
    for (i, g) in g.iter_mut().enumerate() {
        *g /= (row_moment[i / cols] / mean * column_moment[i % cols]).sqrt();
    }
}

/// `g / sqrt(v)` with the decayed squares.
pub(super) fn precondition_vector(beta: f64, eps: f64, g: &mut [f64], v: &mut [f64]) {
    for (g, v) in g.iter_mut().zip(v) {
        *v = beta * *v + (1.0 - beta) * (*g * *g + eps);
        *g /= v.sqrt();
    }
}

/// Cuts the root mean square to the threshold.
pub(super) fn clip(threshold: f64, update: &mut [f64]) {
    let rms = (update.iter().map(|u| u * u).sum::<f64>() / update.len() as f64).sqrt();
    let cut = (rms / threshold).max(1.0);
    update.iter_mut().for_each(|u| *u /= cut);
}
