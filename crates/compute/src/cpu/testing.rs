//! Inputs and comparisons for the kernels' tests.

use crate::random;

/// Numbers with about the spread of a standard normal, the same for every seed.
pub(crate) fn normal(seed: u64, len: usize) -> Vec<f32> {
    let uniform = |i: usize, part: u64| random::uniform(random::key(&[seed, i as u64, part]));
    // The sum of 3 uniforms on [-1, 1) has variance 1.
    (0..len).map(|i| 2.0 * (0..3).map(|part| uniform(i, part)).sum::<f32>() - 3.0).collect()
}

/// Asserts `|a - b| <= tolerance * |b|` in the Euclidean norm, where `|b|` counts as at least
/// that of numbers of size 0.1: what cancels to nothing still has rounding errors.
#[track_caller]
pub(crate) fn assert_close(actual: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(actual.len(), expected.len());
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
    let difference = norm(&mut actual.iter().zip(expected).map(|(a, b)| f64::from(*a) - b));
    let size = norm(&mut expected.iter().copied()).max(0.1 * (expected.len() as f64).sqrt());
    let fits = difference <= tolerance * size;
    assert!(fits, "off by {difference:e} of {size:e}, tolerance {tolerance:e}");
}
