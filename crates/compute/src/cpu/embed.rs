//! Token embeddings: rows of a resident matrix.

use super::Pool;
use super::operand::Shared;
use super::weight::Matrix;

/// `out[t] = scale * matrix[tokens[t]]`.
pub(crate) fn embed(pool: &Pool, matrix: &Matrix, tokens: &[u32], scale: f32, out: &mut [f32]) {
    let cols = matrix.cols;
    assert_eq!(out.len(), tokens.len() * cols, "embed: {} x {cols}", tokens.len());
    let out = Shared::new(out);
    let tasks = tokens.len().div_ceil(8);
    pool.run(tasks, &|task, _| {
        for (index, &token) in tokens.iter().enumerate().skip(task * 8).take(8) {
            // SAFETY: every token has a row of its own.
            let out = unsafe { out.part(index * cols..(index + 1) * cols) };
            matrix.row(token as usize, out);
            out.iter_mut().for_each(|x| *x *= scale);
        }
    });
}
