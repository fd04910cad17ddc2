//! The optimizer step, and the norm that gradients are clipped by.

mod adafactor;
mod adamw;
mod adamw8bit;
mod lion;
mod muon;
mod sgd;

use super::gemm::Packing;
use super::operand::{LANES, Shared};
use super::panel::Machine;
use super::{Isa, Pool, versions};
use crate::op::Optimize;
use crate::{Optimizer, Shape};

/// Elements of a task, and of one partial sum.
const CHUNK: usize = 4096;

/// What the step of one parameter reads and writes.
pub(crate) struct State<'a> {
    pub(crate) shape: Shape,
    pub(crate) master: &'a mut [f32],
    pub(crate) gradient: &'a mut [f32],
    /// What the optimizer keeps in f32, in the order of [`crate::OptimizerKind::states`].
    pub(crate) floats: [&'a mut [f32]; 2],
    /// What it keeps in bytes.
    pub(crate) codes: [&'a mut [u8]; 2],
}

/// One step of one parameter; clears its gradient. Products are those of `machine`, in f32.
pub(crate) fn optimize(
    machine: Machine<'_>,
    packing: &mut Packing,
    op: &Optimize<'_>,
    state: State<'_>,
) {
    let Machine { pool, isa, .. } = machine;
    assert!(op.step > 0, "steps are counted from 1");
    match op.optimizer {
        Optimizer::AdamW8bit { betas, eps } if !state.codes[0].is_empty() => {
            adamw8bit::step(pool, isa, adamw::AdamStep::new(op, betas, eps), state);
        }
        Optimizer::AdamW { betas, eps } | Optimizer::AdamW8bit { betas, eps } => {
            adamw::step(pool, isa, adamw::AdamStep::new(op, betas, eps), state);
        }
        Optimizer::Lion { betas } => {
            lion::step(pool, isa, lion::LionStep::new(op, betas), state);
        }
        Optimizer::Adafactor { eps, clip_threshold, decay_rate } => {
            let step = adafactor::AdafactorStep::new(op, eps, clip_threshold, decay_rate);
            adafactor::step(pool, isa, step, state);
        }
        Optimizer::Muon { momentum, nesterov, iterations, match_rms } => {
            let settings = muon::Settings { momentum, nesterov, iterations, match_rms };
            muon::step(machine, packing, op, settings, state);
        }
        Optimizer::Sgd { momentum, nesterov } => {
            sgd::step(pool, isa, sgd::SgdStep::new(op, momentum, nesterov), state);
        }
    }
}

/// `1 - learning_rate * weight_decay`.
fn decay(op: &Optimize<'_>) -> f32 {
    (1.0 - f64::from(op.learning_rate) * f64::from(op.weight_decay)) as f32
}

/// Runs `body` on the same elements of all slices, chunk by chunk.
fn chunks<const N: usize>(
    pool: &Pool,
    slices: [&mut [f32]; N],
    body: impl Fn([&mut [f32]; N]) + Sync,
) {
    let len = slices[0].len();
    assert!(slices.iter().all(|slice| slice.len() == len), "all of a parameter has one length");
    let slices = slices.map(Shared::new);
    pool.run(len.div_ceil(CHUNK), &|chunk, _| {
        let range = chunk * CHUNK..len.min((chunk + 1) * CHUNK);
        // SAFETY: chunks are disjoint.
        body(slices.each_ref().map(|slice| unsafe { slice.part(range.clone()) }));
    });
}

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
