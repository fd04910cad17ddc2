//! Adafactor: second moments of rows and columns. Sums are f64 in a fixed order.

use super::{CHUNK, State, chunk_squares, chunks, decay, sum_squares};
use crate::Shape;
use crate::cpu::operand::{LANES, Shared};
use crate::cpu::{Isa, Pool, versions};
use crate::op::Optimize;

/// Columns of a task.
const COLUMNS: usize = 64;

/// The numbers of one step.
#[derive(Clone, Copy)]
pub(super) struct AdafactorStep {
    gradient_scale: f64,
    learning_rate: f64,
    decay: f32,
    beta: f64,
    eps: f64,
    clip_threshold: f64,
}

impl AdafactorStep {
    pub(super) fn new(op: &Optimize<'_>, eps: f32, clip_threshold: f32, decay_rate: f32) -> Self {
        AdafactorStep {
            gradient_scale: op.gradient_scale.into(),
            learning_rate: op.learning_rate.into(),
            decay: decay(op),
            beta: 1.0 - f64::from(op.step).powf(decay_rate.into()),
            eps: eps.into(),
            clip_threshold: clip_threshold.into(),
        }
    }

    /// The second moment with a new (mean) square of the gradient, before its scale.
    #[inline(always)]
    fn moment(&self, moment: f32, square: f64) -> f32 {
        let square = square * self.gradient_scale * self.gradient_scale + self.eps;
        (self.beta * f64::from(moment) + (1.0 - self.beta) * square) as f32
    }

    /// What the update is multiplied by, from the sum of its squares (before the gradient's scale).
    fn rate(&self, squares: f64, len: usize) -> f32 {
        let rms = (squares / len as f64).sqrt() * self.gradient_scale;
        let cut = (rms / self.clip_threshold).max(1.0);
        (self.learning_rate * self.gradient_scale / cut) as f32
    }
}

pub(super) fn step(pool: &Pool, isa: Isa, step: AdafactorStep, state: State<'_>) {
    match state.shape {
        Shape::Matrix(..) => matrix(pool, isa, step, state),
        Shape::Vector(_) => vector(pool, isa, step, state),
    }
}

fn matrix(pool: &Pool, isa: Isa, step: AdafactorStep, state: State<'_>) {
    let State { shape, master, gradient, floats: [row_moment, column_moment], .. } = state;
    let Shape::Matrix(rows, cols) = shape else { unreachable!("a matrix") };
    let lengths = [master.len(), gradient.len(), row_moment.len(), column_moment.len()];
    assert_eq!(lengths, [rows * cols, rows * cols, rows, cols], "lengths of {rows} x {cols}");
    let mut squares = vec![0.0_f64; rows];
    let row = |row: usize| row * cols..(row + 1) * cols;
    each_row(pool, cols, &mut squares, |i| chunk_squares(isa, &gradient[row(i)]));
    for (moment, &square) in row_moment.iter_mut().zip(&squares) {
        *moment = step.moment(*moment, square / cols as f64);
    }
    decay_columns(pool, isa, step, gradient, column_moment);

    let mean = row_moment.iter().copied().map(f64::from).sum::<f64>() / rows as f64;
    let row_factor = |i: usize| (mean / f64::from(row_moment[i])).sqrt();
    let factors: Vec<f32> = column_moment.iter().map(|c| 1.0 / c.sqrt()).collect();
    each_row(pool, cols, &mut squares, |i| {
        row_factor(i).powi(2) * weighted_squares(isa, &gradient[row(i)], &factors)
    });
    let rate = step.rate(squares.iter().sum(), rows * cols);

    let per_task = rows_of_task(cols);
    let [p, g] = [master, gradient].map(Shared::new);
    pool.run(rows.div_ceil(per_task), &|task, _| {
        for i in task * per_task..rows.min((task + 1) * per_task) {
            // SAFETY: rows are disjoint.
            let [p, g] = [&p, &g].map(|slice| unsafe { slice.part(row(i)) });
            let rate = (f64::from(rate) * row_factor(i)) as f32;
            update(isa, step.decay, rate, &factors, p, g);
        }
    });
}

fn rows_of_task(cols: usize) -> usize {
    (CHUNK / cols.max(1)).max(1)
}

/// One number of every row.
fn each_row(pool: &Pool, cols: usize, out: &mut [f64], of: impl Fn(usize) -> f64 + Sync) {
    let (rows, per_task) = (out.len(), rows_of_task(cols));
    let out = Shared::new(out);
    pool.run(rows.div_ceil(per_task), &|task, _| {
        let range = task * per_task..rows.min((task + 1) * per_task);
        // SAFETY: tasks have rows of their own.
        let out = unsafe { out.part(range.clone()) };
        out.iter_mut().zip(range).for_each(|(out, row)| *out = of(row));
    });
}

/// Takes the mean squares of the columns into their moments.
fn decay_columns(pool: &Pool, isa: Isa, step: AdafactorStep, g: &[f32], moments: &mut [f32]) {
    let cols = moments.len();
    let rows = g.len() / cols.max(1);
    let shared = Shared::new(moments);
    pool.run(cols.div_ceil(COLUMNS), &|task, _| {
        let range = task * COLUMNS..cols.min((task + 1) * COLUMNS);
        let mut sums = [0.0_f64; COLUMNS];
        column_squares(isa, g, cols, range.start, &mut sums[..range.len()]);
        // SAFETY: tasks have columns of their own.
        let moments = unsafe { shared.part(range) };
        for (moment, sum) in moments.iter_mut().zip(sums) {
            *moment = step.moment(*moment, sum / rows as f64);
        }
    });
}

versions! {
    fn column_squares(g: &[f32], cols: usize, first: usize, sums: &mut [f64]) =
        column_squares_body;
}

/// Adds the squares of some columns, row after row.
#[inline(always)]
fn column_squares_body(g: &[f32], cols: usize, first: usize, sums: &mut [f64]) {
    for row in g.chunks_exact(cols) {
        for (sum, &g) in sums.iter_mut().zip(&row[first..]) {
            *sum += f64::from(g) * f64::from(g);
        }
    }
}

versions! { fn weighted_squares(g: &[f32], factors: &[f32]) -> f64 = weighted_squares_body; }

/// The sum of `(factor g)^2`, in 16 chains.
#[inline(always)]
fn weighted_squares_body(g: &[f32], factors: &[f32]) -> f64 {
    let mut lanes = [0.0_f64; LANES];
    for (g, factors) in g.chunks(LANES).zip(factors.chunks(LANES)) {
        for ((lane, &g), &factor) in lanes.iter_mut().zip(g).zip(factors) {
            let update = f64::from(g) * f64::from(factor);
            *lane += update * update;
        }
    }
    lanes.iter().sum()
}

versions! {
    fn update(decay: f32, rate: f32, factors: &[f32], p: &mut [f32], g: &mut [f32]) = update_body;
}

#[inline(always)]
fn update_body(decay: f32, rate: f32, factors: &[f32], p: &mut [f32], g: &mut [f32]) {
    for ((p, g), factor) in p.iter_mut().zip(g).zip(factors) {
        *p = *p * decay - rate * (*g * factor);
        *g = 0.0;
    }
}

fn vector(pool: &Pool, isa: Isa, step: AdafactorStep, state: State<'_>) {
    let State { master, gradient, floats: [second_moment, _], .. } = state;
    let len = master.len();
    chunks(pool, [&mut *gradient, second_moment], |[g, v]| precondition(isa, step, g, v));
    let squares = sum_squares(pool, isa, &[gradient]);
    let rate = step.rate(squares.into(), len);
    chunks(pool, [master, gradient], |[p, g]| apply(isa, step.decay, rate, p, g));
}

versions! { fn precondition(step: AdafactorStep, g: &mut [f32], v: &mut [f32]) = precondition_body; }

/// Decays the second moment; the gradient becomes the update, before its scale.
#[inline(always)]
fn precondition_body(step: AdafactorStep, g: &mut [f32], v: &mut [f32]) {
    for (g, v) in g.iter_mut().zip(v) {
        *v = step.moment(*v, f64::from(*g) * f64::from(*g));
        *g /= v.sqrt();
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
