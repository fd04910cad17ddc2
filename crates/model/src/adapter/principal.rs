//! The largest singular values of a matrix, and their vectors.

use super::eigen::{dot, largest};
use super::initial::PURPOSE_SKETCH;

/// Up to this many rows or columns all singular values are looked at: work grows with the cube.
const EXACT: usize = 1100;
/// Directions beyond those asked for, and rounds: Halko et al. 2011, sections 4.2 and 4.5.
const OVERSAMPLING: usize = 10;
const ROUNDS: usize = 16;

/// One term `value * left right^T` of a singular value decomposition.
pub(super) struct Term {
    pub(super) value: f64,
    /// `[rows]`, of length 1.
    pub(super) left: Vec<f64>,
    /// `[cols]`, of length 1; zero where the value is.
    pub(super) right: Vec<f64>,
}

/// The `rank` terms of largest value, the largest first. The same matrix gives the same terms.
///
/// `weight` is `[rows, cols]` and has at least `rank` of both.
pub(super) fn principal(weight: &[f32], rows: usize, cols: usize, rank: usize) -> Vec<Term> {
    if rows > cols {
        let terms = of_wide(&Wide::transposed(weight, rows, cols), rank).into_iter();
        return terms
            .map(|Term { value, left, right }| Term { value, left: right, right: left })
            .collect();
    }
    of_wide(&Wide { values: weight.to_vec(), rows, cols }, rank)
}

fn of_wide(matrix: &Wide, rank: usize) -> Vec<Term> {
    if matrix.rows <= EXACT {
        let (_, vectors) = largest(gram(&matrix.values, matrix.cols), matrix.rows, rank);
        return vectors.into_iter().map(|left| matrix.term(left)).collect();
    }
    matrix.sketch(rank)
}

/// A matrix with at least as many columns as rows.
struct Wide {
    values: Vec<f32>,
    rows: usize,
    cols: usize,
}

impl Wide {
    fn transposed(values: &[f32], rows: usize, cols: usize) -> Self {
        let turned = (0..cols).flat_map(|col| (0..rows).map(move |row| values[row * cols + col]));
        Wide { values: turned.collect(), rows: cols, cols: rows }
    }

    /// The term of a left singular vector.
    fn term(&self, left: Vec<f64>) -> Term {
        let mut right = vec![0.0_f64; self.cols];
        for (row, &x) in self.values.chunks_exact(self.cols).zip(&left) {
            right.iter_mut().zip(row).for_each(|(sum, &w)| *sum += x * f64::from(w));
        }
        let value = right.iter().map(|x| x * x).sum::<f64>().sqrt();
        if value > 0.0 {
            right.iter_mut().for_each(|x| *x /= value);
        }
        Term { value, left, right }
    }

    /// Randomised subspace iteration, Halko et al. 2011, algorithm 4.4.
    fn sketch(&self, rank: usize) -> Vec<Term> {
        let count = (rank + OVERSAMPLING).min(self.rows);
        let key = compute::random::key(&[PURPOSE_SKETCH, self.rows as u64, self.cols as u64]);
        let draw = |i| compute::random::uniform(compute::random::mix(key ^ i)) - 0.5;
        let mut basis: Vec<f32> = (0..(count * self.rows) as u64).map(draw).collect();
        orthonormalize(&mut basis, self.rows);
        for _ in 0..ROUNDS {
            let mut image = self.times_left(&basis);
            orthonormalize(&mut image, self.cols);
            basis = self.times_right(&image);
            orthonormalize(&mut basis, self.rows);
        }
        let (_, mixes) = largest(gram(&self.times_left(&basis), self.cols), count, rank);
        let lefts = mixes.iter().map(|mix| {
            let mut left = vec![0.0; self.rows];
            for (row, &x) in basis.chunks_exact(self.rows).zip(mix) {
                left.iter_mut().zip(row).for_each(|(sum, &q)| *sum += x * f64::from(q));
            }
            left
        });
        lefts.map(|left| self.term(left)).collect()
    }

    /// `basis`, `[n, rows]`, times the matrix.
    fn times_left(&self, basis: &[f32]) -> Vec<f32> {
        // A block of columns of all products stays in cache while the matrix passes by.
        const BLOCK: usize = 512;
        let count = basis.len() / self.rows;
        let mut products = vec![0.0; count * self.cols];
        for start in (0..self.cols).step_by(BLOCK) {
            let end = (start + BLOCK).min(self.cols);
            for (index, row) in self.values.chunks_exact(self.cols).enumerate() {
                let row = &row[start..end];
                for (product, q) in
                    products.chunks_exact_mut(self.cols).zip(basis.chunks_exact(self.rows))
                {
                    let x = q[index];
                    product[start..end].iter_mut().zip(row).for_each(|(sum, &w)| *sum += x * w);
                }
            }
        }
        products
    }

    /// `image`, `[n, cols]`, times the transposed matrix.
    fn times_right(&self, image: &[f32]) -> Vec<f32> {
        let count = image.len() / self.cols;
        let mut products = vec![0.0; count * self.rows];
        for (index, row) in self.values.chunks_exact(self.cols).enumerate() {
            for (n, y) in image.chunks_exact(self.cols).enumerate() {
                products[n * self.rows + index] = dot_f32(y, row) as f32;
            }
        }
        products
    }
}

/// `X X^T` of `[n, len]`.
fn gram(rows: &[f32], len: usize) -> Vec<f64> {
    // Pairs of blocks of rows stay in cache.
    const BLOCK: usize = 16;
    let count = rows.len() / len;
    let row = |index: usize| &rows[index * len..][..len];
    let mut products = vec![0.0; count * count];
    for i0 in (0..count).step_by(BLOCK) {
        for j0 in (0..=i0).step_by(BLOCK) {
            for i in i0..(i0 + BLOCK).min(count) {
                for j in j0..(j0 + BLOCK).min(i + 1) {
                    let product = dot_f32(row(i), row(j));
                    products[i * count + j] = product;
                    products[j * count + i] = product;
                }
            }
        }
    }
    products
}

/// A scalar product with sums in f64.
fn dot_f32(a: &[f32], b: &[f32]) -> f64 {
    // Several chains of additions: one alone would wait for each addition.
    const LANES: usize = 8;
    let mut sums = [0.0_f64; LANES];
    let (a, b) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest = a.remainder().iter().zip(b.remainder());
    let rest: f64 = rest.map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
    for (a, b) in a.zip(b) {
        for lane in 0..LANES {
            sums[lane] += f64::from(a[lane]) * f64::from(b[lane]);
        }
    }
    sums.iter().sum::<f64>() + rest
}

/// Makes rows orthonormal, in order; one that lies in the span of those before becomes zero.
fn orthonormalize(rows: &mut [f32], len: usize) {
    let mut done: Vec<Vec<f64>> = Vec::new();
    for row in rows.chunks_exact_mut(len) {
        let mut x: Vec<f64> = row.iter().map(|&x| f64::from(x)).collect();
        let before = dot(&x, &x).sqrt();
        // Twice is enough, Kahan in Parlett 1998, section 6.9.
        for _ in 0..2 {
            for q in &done {
                let shadow = dot(&x, q);
                x.iter_mut().zip(q).for_each(|(x, q)| *x -= shadow * q);
            }
        }
        let norm = dot(&x, &x).sqrt();
        let factor = if norm > 1e-12 * before { 1.0 / norm } else { 0.0 };
        x.iter_mut().for_each(|x| *x *= factor);
        row.iter_mut().zip(&x).for_each(|(out, &x)| *out = x as f32);
        done.push(x);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random(seed: u64, len: usize) -> Vec<f32> {
        let draw = |i| compute::random::uniform(compute::random::key(&[seed, i])) - 0.5;
        (0..len as u64).map(draw).collect()
    }

    /// `values[i]` times outer products of orthonormal vectors.
    fn made_of(values: &[f64], rows: usize, cols: usize) -> Vec<f32> {
        let (mut left, mut right) =
            (random(1, values.len() * rows), random(2, values.len() * cols));
        orthonormalize(&mut left, rows);
        orthonormalize(&mut right, cols);
        let mut matrix = vec![0.0_f64; rows * cols];
        for (index, value) in values.iter().enumerate() {
            for row in 0..rows {
                let x = value * f64::from(left[index * rows + row]);
                let right = &right[index * cols..][..cols];
                let out = &mut matrix[row * cols..][..cols];
                out.iter_mut().zip(right).for_each(|(out, &y)| *out += x * f64::from(y));
            }
        }
        matrix.into_iter().map(|x| x as f32).collect()
    }

    /// Values, lengths, and `W right = value * left`.
    #[track_caller]
    fn check(terms: &[Term], weight: &[f32], (rows, cols): (usize, usize), expected: &[f64]) {
        assert_eq!(terms.len(), expected.len());
        for (index, (term, expected)) in terms.iter().zip(expected).enumerate() {
            assert!((term.value - expected).abs() < 1e-5, "{index}: {} for {expected}", term.value);
            assert_eq!((term.left.len(), term.right.len()), (rows, cols));
            for other in &terms[..index] {
                assert!(dot(&term.left, &other.left).abs() < 1e-5, "{index}: left");
                assert!(dot(&term.right, &other.right).abs() < 1e-5, "{index}: right");
            }
            let right: Vec<f32> = term.right.iter().map(|&x| x as f32).collect();
            for (row, left) in weight.chunks_exact(cols).zip(&term.left) {
                let residual = dot_f32(row, &right) - term.value * left;
                assert!(residual.abs() < 1e-5, "{index}: residual {residual:e}");
            }
        }
    }

    #[test]
    fn the_largest_terms_come_first() {
        let values = [3.0, 2.0, 1.9, 1.0, 0.5, 0.25];
        for (rows, cols) in [(6, 6), (13, 40), (40, 13), (6, 9)] {
            let weight = made_of(&values, rows, cols);
            let terms = principal(&weight, rows, cols, 4);
            check(&terms, &weight, (rows, cols), &values[..4]);
        }
    }

    #[test]
    fn equal_values_and_missing_ones_have_vectors() {
        let values = [2.0, 2.0, 2.0, 1.0];
        let weight = made_of(&values, 8, 12);
        let terms = principal(&weight, 8, 12, 6);
        check(&terms[..4], &weight, (8, 12), &values);
        assert!(terms[4..].iter().all(|term| term.value < 1e-6));
        let terms = principal(&[0.0; 12], 3, 4, 2);
        assert!(terms.iter().all(|term| term.value == 0.0));
        assert!(terms.iter().all(|term| (dot(&term.left, &term.left) - 1.0).abs() < 1e-12));
    }

    #[test]
    fn a_sketch_finds_what_the_exact_way_finds() {
        let (rows, cols) = (60, 90);
        let values: Vec<f64> = (0..60).map(|i| 4.0 * 0.93_f64.powi(i)).collect();
        let wide = Wide { values: made_of(&values, rows, cols), rows, cols };
        check(&wide.sketch(8), &wide.values, (rows, cols), &values[..8]);
        check(&of_wide(&wide, 8), &wide.values, (rows, cols), &values[..8]);
    }
}
