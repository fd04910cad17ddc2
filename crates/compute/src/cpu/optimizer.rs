//! The optimizer step, and the norm that gradients are clipped by.

use super::operand::{LANES, Shared};
use super::{Isa, Pool, versions};

/// Elements of a task, and of one partial sum.
const CHUNK: usize = 4096;

/// The sum of squares of all inputs together: per chunk 16 chains, chunks in order.
pub(crate) fn sum_squares(pool: &Pool, isa: Isa, inputs: &[&[f32]]) -> f32 {
    let mut total = 0.0;
    let mut sums = Vec::new();
    for input in inputs {
        sums.clear();
        sums.resize(input.len().div_ceil(CHUNK), 0.0_f64);
        let shared = Shared::new(&mut sums);
        pool.run(input.len().div_ceil(CHUNK), &|chunk, _| {
            let values = &input[chunk * CHUNK..input.len().min((chunk + 1) * CHUNK)];
            // SAFETY: every chunk has a sum of its own.
            let sum = unsafe { shared.part(chunk..chunk + 1) };
            sum[0] = chunk_squares(isa, values);
        });
        total += sums.iter().sum::<f64>();
    }
    total as f32
}

versions! { fn chunk_squares(x: &[f32]) -> f64 = chunk_squares_body; }

#[inline(always)]
fn chunk_squares_body(x: &[f32]) -> f64 {
    let mut lanes = [0.0_f64; LANES];
    let (whole, rest) = x.as_chunks::<LANES>();
    for vector in whole {
        for (lane, &x) in lanes.iter_mut().zip(vector) {
            *lane += f64::from(x) * f64::from(x);
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(rest) {
        *lane += f64::from(x) * f64::from(x);
    }
    lanes.iter().sum()
}

/// The numbers of one AdamW step, as every element needs them.
#[derive(Clone, Copy)]
pub(crate) struct AdamStep {
    gradient_scale: f32,
    /// `1 - learning_rate * weight_decay`.
    decay: f32,
    betas: [f32; 2],
    /// `1 - beta`.
    rests: [f32; 2],
    /// `learning_rate / (1 - beta1^step)`.
    step_size: f32,
    /// `1 / sqrt(1 - beta2^step)`.
    second_scale: f32,
    eps: f32,
}

impl AdamStep {
    pub(crate) fn new(op: &crate::op::AdamW<'_>) -> Self {
        assert!(op.step > 0, "steps of AdamW are counted from 1");
        let betas = op.betas.map(f64::from);
        let [first, second] = betas.map(|beta| 1.0 - beta.powi(op.step.cast_signed()));
        let learning_rate = f64::from(op.learning_rate);
        AdamStep {
            gradient_scale: op.gradient_scale,
            decay: (1.0 - learning_rate * f64::from(op.weight_decay)) as f32,
            betas: op.betas,
            rests: betas.map(|beta| (1.0 - beta) as f32),
            step_size: (learning_rate / first) as f32,
            second_scale: (1.0 / second.sqrt()) as f32,
            eps: op.eps,
        }
    }
}

/// What one matrix's step reads and writes.
pub(crate) struct AdamState<'a> {
    pub(crate) master: &'a mut [f32],
    pub(crate) gradient: &'a mut [f32],
    pub(crate) first_moment: &'a mut [f32],
    pub(crate) second_moment: &'a mut [f32],
}

/// One step of one matrix; clears its gradient.
pub(crate) fn adamw(pool: &Pool, isa: Isa, step: AdamStep, state: AdamState<'_>) {
    let AdamState { master, gradient, first_moment, second_moment } = state;
    let len = master.len();
    let equal = [gradient.len(), first_moment.len(), second_moment.len()] == [len; 3];
    assert!(equal, "adamw: the state of a matrix has one length");
    let slices = [master, gradient, first_moment, second_moment].map(Shared::new);
    pool.run(len.div_ceil(CHUNK), &|chunk, _| {
        let range = chunk * CHUNK..len.min((chunk + 1) * CHUNK);
        // SAFETY: chunks are disjoint.
        let [p, g, m, v] = slices.each_ref().map(|slice| unsafe { slice.part(range.clone()) });
        update(isa, step, p, g, m, v);
    });
}

versions! {
    fn update(step: AdamStep, p: &mut [f32], g: &mut [f32], m: &mut [f32], v: &mut [f32]) =
        update_body;
}

#[inline(always)]
fn update_body(step: AdamStep, p: &mut [f32], g: &mut [f32], m: &mut [f32], v: &mut [f32]) {
    let AdamStep { gradient_scale, decay, betas, rests, step_size, second_scale, eps } = step;
    for (((p, g), m), v) in p.iter_mut().zip(g).zip(m).zip(v) {
        let gradient = *g * gradient_scale;
        *m = betas[0] * *m + rests[0] * gradient;
        *v = betas[1] * *v + rests[1] * (gradient * gradient);
        let denominator = v.sqrt() * second_scale + eps;
        *p = *p * decay - step_size * (*m / denominator);
        *g = 0.0;
    }
}
