//! The largest eigenvalues of a symmetric matrix and their vectors: Householder's tridiagonal form, bisection,
//! inverse iteration (Golub and Van Loan 2013, sections 8.3 and 8.4).

use super::initial::PURPOSE_SKETCH;

/// The `count` largest eigenvalues of a symmetric `[n, n]`, descending, and vectors of length 1.
pub(super) fn largest(matrix: Vec<f64>, n: usize, count: usize) -> (Vec<f64>, Vec<Vec<f64>>) {
    assert!(matrix.len() == n * n && count <= n, "{count} of {n}");
    let (form, reflectors) = tridiagonal(matrix, n);
    let values: Vec<f64> = (0..count).map(|index| form.eigenvalue(index)).collect();
    let mut vectors: Vec<Vec<f64>> = Vec::with_capacity(count);
    for (index, &value) in values.iter().enumerate() {
        let vector = form.eigenvector(value, index, &vectors);
        vectors.push(vector);
    }
    for vector in &mut vectors {
        for (index, reflector) in reflectors.iter().enumerate().rev() {
            reflect(reflector, &mut vector[index + 1..]);
        }
    }
    (values, vectors)
}

/// A scalar product.
pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    // Several chains of additions: one alone would wait for each addition.
    const LANES: usize = 8;
    let mut sums = [0.0; LANES];
    let (a, b) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: f64 = a.remainder().iter().zip(b.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a.zip(b) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    sums.iter().sum::<f64>() + rest
}

/// `x += factor * y`.
fn add(x: &mut [f64], factor: f64, y: &[f64]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += factor * y);
}

/// `x - 2 v (v x)` for a `v` of length 1, or 0.
fn reflect(v: &[f64], x: &mut [f64]) {
    let factor = -2.0 * dot(v, x);
    add(x, factor, v);
}

/// A symmetric matrix with nothing beside its diagonal but the two next to it.
struct Tridiagonal {
    diagonal: Vec<f64>,
    /// One less.
    beside: Vec<f64>,
    /// A bound of the eigenvalues' size.
    bound: f64,
}

/// `Q^T matrix Q` in tridiagonal form, and the reflectors that `Q` is made of: the one at `i` acts from
/// `i + 1` on.
fn tridiagonal(mut matrix: Vec<f64>, n: usize) -> (Tridiagonal, Vec<Vec<f64>>) {
    let mut reflectors = Vec::with_capacity(n.saturating_sub(1));
    let mut beside = Vec::with_capacity(n.saturating_sub(1));
    for at in 0..n.saturating_sub(1) {
        let mut v: Vec<f64> = (at + 1..n).map(|row| matrix[row * n + at]).collect();
        let norm = dot(&v, &v).sqrt();
        let image = if v[0] > 0.0 { -norm } else { norm };
        v[0] -= image;
        beside.push(image);
        let len = dot(&v, &v).sqrt();
        if len > 0.0 {
            v.iter_mut().for_each(|x| *x /= len);
            reflect_both_sides(&mut matrix, n, at + 1, &v);
        }
        reflectors.push(v);
    }
    let diagonal: Vec<f64> = (0..n).map(|i| matrix[i * n + i]).collect();
    // Gershgorin's circles.
    let off = |i: usize| beside.get(i).map_or(0.0, |x: &f64| x.abs());
    let before = |i: usize| if i == 0 { 0.0 } else { off(i - 1) };
    let reach = |(i, d): (usize, &f64)| d.abs() + off(i) + before(i);
    let bound = diagonal.iter().enumerate().map(reach).fold(0.0, f64::max);
    (Tridiagonal { diagonal, beside, bound }, reflectors)
}

/// `H M H` for the reflector `v`, over rows and columns from `first` on; only the lower triangle is
/// read and written.
fn reflect_both_sides(matrix: &mut [f64], n: usize, first: usize, v: &[f64]) {
    let m = v.len();
    let row = |i: usize| (first + i) * n + first;
    let mut p = vec![0.0; m];
    for i in 0..m {
        let left = &matrix[row(i)..][..i + 1];
        p[i] += dot(left, &v[..=i]);
        add(&mut p[..i], v[i], &left[..i]);
    }
    // M - v w^T - w v^T with w = 2 p - 2 (v p) v.
    let shadow = dot(v, &p);
    let w: Vec<f64> = p.iter().zip(v).map(|(p, v)| 2.0 * (p - shadow * v)).collect();
    for i in 0..m {
        let left = &mut matrix[row(i)..][..i + 1];
        for ((x, v_j), w_j) in left.iter_mut().zip(v).zip(&w) {
            *x -= v[i] * w_j + w[i] * v_j;
        }
    }
}

impl Tridiagonal {
    /// The size under which a number is rounding.
    fn tiny(&self) -> f64 {
        f64::EPSILON * self.bound.max(1e-100)
    }

    /// How many eigenvalues are above `x`: Sylvester's law of inertia.
    fn count_above(&self, x: f64) -> usize {
        let (mut above, mut pivot) = (0, 1.0);
        for (i, d) in self.diagonal.iter().enumerate() {
            let off = if i == 0 { 0.0 } else { self.beside[i - 1] };
            pivot = d - x - off * off / pivot;
            if pivot == 0.0 {
                pivot = -self.tiny();
            }
            above += usize::from(pivot > 0.0);
        }
        above
    }

    /// The eigenvalue with `index` larger ones.
    fn eigenvalue(&self, index: usize) -> f64 {
        let (mut low, mut high) = (-self.bound, self.bound);
        while high - low > 2.0 * self.tiny() {
            let middle = low + (high - low) / 2.0;
            if middle <= low || middle >= high {
                break;
            }
            if self.count_above(middle) > index {
                low = middle;
            } else {
                high = middle;
            }
        }
        low + (high - low) / 2.0
    }

    /// A vector of `value` that is orthogonal to those `found`.
    fn eigenvector(&self, value: f64, index: usize, found: &[Vec<f64>]) -> Vec<f64> {
        let n = self.diagonal.len();
        let key = compute::random::key(&[PURPOSE_SKETCH, index as u64]);
        let draw = |i| f64::from(compute::random::uniform(compute::random::mix(key ^ i))) - 0.5;
        let mut x: Vec<f64> = (0..n as u64).map(draw).collect();
        let factors = Factors::new(self, value);
        // The first round is nearly always enough; the others are cheap.
        for _ in 0..4 {
            factors.solve(&mut x);
            // What has grown by 1e16 leaves room for one less.
            let largest = x.iter().fold(0.0, |max: f64, x| max.max(x.abs()));
            x.iter_mut().for_each(|x| *x /= largest);
            for _ in 0..2 {
                for other in found {
                    let shadow = -dot(&x, other);
                    add(&mut x, shadow, other);
                }
            }
            let norm = dot(&x, &x).sqrt();
            x.iter_mut().for_each(|x| *x /= norm);
        }
        x
    }
}

/// `T - value` as triangles, rows exchanged so that no factor grows.
struct Factors {
    /// The upper triangle's diagonal and the two above it.
    upper: Vec<[f64; 3]>,
    /// What is taken off the next row, and whether it was exchanged with it first.
    lower: Vec<(f64, bool)>,
}

impl Factors {
    fn new(form: &Tridiagonal, value: f64) -> Self {
        let n = form.diagonal.len();
        let beside = |i: usize| form.beside.get(i).copied().unwrap_or(0.0);
        let nonzero = |x: f64| if x.abs() < form.tiny() { form.tiny() } else { x };
        let (mut upper, mut lower) = (Vec::with_capacity(n), Vec::with_capacity(n));
        let mut row = [form.diagonal[0] - value, beside(0), 0.0];
        for i in 1..n {
            let below = [beside(i - 1), form.diagonal[i] - value, beside(i)];
            let exchanged = below[0].abs() > row[0].abs();
            let (mut pivot, other) = if exchanged { (below, row) } else { (row, below) };
            pivot[0] = nonzero(pivot[0]);
            let factor = other[0] / pivot[0];
            row = [other[1] - factor * pivot[1], other[2] - factor * pivot[2], 0.0];
            upper.push(pivot);
            lower.push((factor, exchanged));
        }
        row[0] = nonzero(row[0]);
        upper.push(row);
        Factors { upper, lower }
    }

    fn solve(&self, x: &mut [f64]) {
        for (i, &(factor, exchanged)) in self.lower.iter().enumerate() {
            if exchanged {
                x.swap(i, i + 1);
            }
            x[i + 1] -= factor * x[i];
        }
        for (i, [pivot, first, second]) in self.upper.iter().enumerate().rev() {
            let next = x.get(i + 1).copied().unwrap_or(0.0);
            let after = x.get(i + 2).copied().unwrap_or(0.0);
            x[i] = (x[i] - first * next - second * after) / pivot;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(matrix: &[f64], n: usize, expected: &[f64]) {
        let (values, vectors) = largest(matrix.to_vec(), n, expected.len());
        for (index, (value, vector)) in values.iter().zip(&vectors).enumerate() {
            assert!((value - expected[index]).abs() < 1e-12, "{value} for {}", expected[index]);
            for (row, x) in matrix.chunks_exact(n).zip(vector) {
                let residual = dot(row, vector) - value * x;
                assert!(residual.abs() < 1e-12, "{index}: residual {residual:e}");
            }
            for (other, earlier) in vectors[..=index].iter().enumerate() {
                let expected = if other == index { 1.0 } else { 0.0 };
                assert!((dot(vector, earlier) - expected).abs() < 1e-12, "{index} and {other}");
            }
        }
    }

    #[test]
    fn small_matrices_by_hand() {
        check(&[5.0], 1, &[5.0]);
        check(&[2.0, 1.0, 1.0, 2.0], 2, &[3.0, 1.0]);
        check(&[0.0; 9], 3, &[0.0; 3]);
        // The identity, and a matrix that falls apart into blocks with the same values.
        check(&[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0], 3, &[1.0; 3]);
        let blocks =
            [2.0, 1.0, 0.0, 0.0, 1.0, 2.0, 0.0, 0.0, 0.0, 0.0, 2.0, 1.0, 0.0, 0.0, 1.0, 2.0];
        check(&blocks, 4, &[3.0, 3.0, 1.0, 1.0]);
    }

    /// The second difference's eigenvalues are `2 - 2 cos(k pi / (n + 1))`.
    #[test]
    fn a_long_chain_has_its_known_values() {
        let n = 50;
        let mut matrix = vec![0.0; n * n];
        for i in 0..n {
            matrix[i * n + i] = 2.0;
            if i + 1 < n {
                matrix[i * n + i + 1] = -1.0;
                matrix[(i + 1) * n + i] = -1.0;
            }
        }
        let angle = |k: usize| k as f64 * std::f64::consts::PI / (n + 1) as f64;
        let expected: Vec<f64> = (1..=n).rev().map(|k| 2.0 - 2.0 * angle(k).cos()).collect();
        check(&matrix, n, &expected);
    }
}
