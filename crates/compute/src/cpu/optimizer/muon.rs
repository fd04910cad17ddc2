//! Muon: momentum, made orthogonal by Newton-Schulz steps in f32.

use super::{State, chunks, decay, sum_squares};
use crate::Shape;
use crate::cpu::gemm::{
    Gradient, Output, Packing, Product, ProductTerm, Source, linear, weight_gradient,
};
use crate::cpu::operand::Shared;
use crate::cpu::panel::Machine;
use crate::cpu::weight::Matrix;
use crate::cpu::{Pool, versions};
use crate::op::Optimize;
use crate::optimizer::{NEWTON_SCHULZ, NORM_MIN};

/// Rows and columns of the squares in which a matrix is transposed.
const SQUARE: usize = 32;

/// See [`crate::Optimizer::Muon`].
#[derive(Clone, Copy)]
pub(super) struct Settings {
    pub(super) momentum: f32,
    pub(super) nesterov: bool,
    pub(super) iterations: u32,
    pub(super) match_rms: bool,
}

pub(super) fn step(
    machine: Machine<'_>,
    packing: &mut Packing,
    op: &Optimize<'_>,
    settings: Settings,
    state: State<'_>,
) {
    let Machine { pool, isa, .. } = machine;
    let State { shape, master, gradient, floats: [momentum, _], .. } = state;
    let Shape::Matrix(rows, cols) = shape else { panic!("Muon steps matrices, not {shape:?}") };
    chunks(pool, [&mut *gradient, momentum], |[g, m]| {
        look_ahead(isa, op.gradient_scale, settings, g, m);
    });
    orthogonalize(machine, packing, gradient, (rows, cols), settings.iterations);
    let (rows, cols) = (rows as f64, cols as f64);
    let ratio = if settings.match_rms {
        0.2 * rows.max(cols).sqrt()
    } else {
        (rows / cols).max(1.0).sqrt()
    };
    let rate = (f64::from(op.learning_rate) * ratio) as f32;
    let decay = decay(op);
    chunks(pool, [master, gradient], |[p, g]| apply(isa, decay, rate, p, g));
}

versions! {
    fn look_ahead(scale: f32, settings: Settings, g: &mut [f32], m: &mut [f32]) = look_ahead_body;
}

/// Decays the momentum; the gradient becomes what is made orthogonal.
#[inline(always)]
fn look_ahead_body(scale: f32, settings: Settings, g: &mut [f32], m: &mut [f32]) {
    let Settings { momentum, nesterov, .. } = settings;
    for (g, m) in g.iter_mut().zip(m) {
        let gradient = *g * scale;
        *m += (1.0 - momentum) * (gradient - *m);
        *g = if nesterov { gradient + momentum * (*m - gradient) } else { *m };
    }
}

versions! { fn apply(decay: f32, rate: f32, p: &mut [f32], g: &mut [f32]) = apply_body; }

#[inline(always)]
fn apply_body(decay: f32, rate: f32, p: &mut [f32], g: &mut [f32]) {
    for (p, g) in p.iter_mut().zip(g) {
        *p = *p * decay - rate * *g;
        *g = 0.0;
    }
}

/// Newton-Schulz: the singular values of the matrix go towards 1.
///
/// With the longer side first, `X = X (a I + b A + c A^2)`, `A = X^T X`: the same as from the left.
fn orthogonalize(
    machine: Machine<'_>,
    packing: &mut Packing,
    matrix: &mut [f32],
    (rows, cols): (usize, usize),
    iterations: u32,
) {
    let Machine { pool, isa, .. } = machine;
    let wide = cols > rows;
    let (long, short) = if wide { (cols, rows) } else { (rows, cols) };
    let norm = sum_squares(pool, isa, &[matrix]).sqrt().max(NORM_MIN);
    chunks(pool, [&mut *matrix], |[x]| x.iter_mut().for_each(|x| *x /= norm));
    let mut x = vec![0.0; long * short];
    let mut next = vec![0.0; long * short];
    if wide {
        transpose(pool, matrix, &mut x, cols);
    } else {
        x.copy_from_slice(matrix);
    }

    let [mut gram, mut square] = [(); 2].map(|()| vec![0.0; short * short]);
    let mut polynomial = Matrix::trained(machine, short, short, &square);
    for _ in 0..iterations {
        squared(machine, packing, &x, (long, short), &mut gram); // [short, short]
        squared(machine, packing, &gram, (short, short), &mut square);
        let [a, b, c] = NEWTON_SCHULZ;
        chunks(pool, [&mut square, &mut gram], |[square, gram]| {
            square
                .iter_mut()
                .zip(gram)
                .for_each(|(square, gram)| *square = b * *gram + c * *square);
        });
        square.iter_mut().step_by(short + 1).for_each(|diagonal| *diagonal += a);
        polynomial.refresh(machine, &square);
        multiply(machine, packing, &x, long, &polynomial, &mut next);
        std::mem::swap(&mut x, &mut next);
    }
    if wide { transpose(pool, &x, matrix, rows) } else { matrix.copy_from_slice(&x) }
}

/// `out = x^T x`, `[cols, cols]`, symmetric to the bit.
fn squared(
    machine: Machine<'_>,
    packing: &mut Packing,
    x: &[f32],
    (rows, cols): (usize, usize),
    out: &mut [f32],
) {
    assert_eq!([x.len(), out.len()], [rows * cols, cols * cols], "lengths of x and x^T x");
    out.fill(0.0);
    let groups = [0, u32::try_from(rows).expect("fewer than 2^32 rows")];
    let x = x.as_ptr().cast();
    let sources = vec![Source { dy: x, x, groups: &groups }];
    let product = Gradient { sources, n: cols, k: cols, out: out.as_mut_ptr() };
    // SAFETY: lengths were checked; `out` is borrowed alone.
    unsafe { weight_gradient(machine, packing, &[product]) };
}

/// `out = x matrix` with a symmetric matrix.
fn multiply(
    machine: Machine<'_>,
    packing: &mut Packing,
    x: &[f32],
    rows: usize,
    matrix: &Matrix,
    out: &mut [f32],
) {
    let n = matrix.cols;
    assert_eq!([x.len(), out.len()], [rows * n; 2], "lengths of x and x times a matrix");
    let terms = [ProductTerm { input: x.as_ptr().cast(), matrix, transposed: false }];
    let output = Output::Store {
        scale: 1.0,
        bias: std::ptr::null(),
        base: std::ptr::null(),
        out: out.as_mut_ptr().cast(),
        bf16: false,
        stride: n,
    };
    // SAFETY: lengths were checked; `out` is borrowed alone.
    unsafe { linear(machine, packing, &[Product { rows, n, terms: &terms, output }]) };
}

/// Swaps rows and columns of `from`, which has `cols` columns.
fn transpose(pool: &Pool, from: &[f32], to: &mut [f32], cols: usize) {
    let rows = from.len() / cols.max(1);
    assert_eq!([from.len(), to.len()], [rows * cols; 2], "lengths of a matrix and its transpose");
    let out = Shared::new(to);
    pool.run(cols.div_ceil(SQUARE), &|task, _| {
        let columns = task * SQUARE..cols.min((task + 1) * SQUARE);
        // SAFETY: tasks have rows of the transpose of their own.
        let out = unsafe { out.part(columns.start * rows..columns.end * rows) };
        for first in (0..rows).step_by(SQUARE) {
            for (column, out) in columns.clone().zip(out.chunks_exact_mut(rows)) {
                for row in first..rows.min(first + SQUARE) {
                    out[row] = from[row * cols + column];
                }
            }
        }
    });
}
