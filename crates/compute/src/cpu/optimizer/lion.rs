//! Lion.

use super::{State, chunks, decay};
use crate::cpu::{Isa, Pool, versions};
use crate::op::Optimize;

/// The numbers of one step, as every element needs them.
#[derive(Clone, Copy)]
pub(super) struct LionStep {
    gradient_scale: f32,
    learning_rate: f32,
    decay: f32,
    betas: [f32; 2],
    /// `1 - beta`.
    rests: [f32; 2],
}

impl LionStep {
    pub(super) fn new(op: &Optimize<'_>, betas: [f32; 2]) -> Self {
        LionStep {
            gradient_scale: op.gradient_scale,
            learning_rate: op.learning_rate,
            decay: decay(op),
            betas,
            rests: betas.map(|beta| (1.0 - f64::from(beta)) as f32),
        }
    }
}

pub(super) fn step(pool: &Pool, isa: Isa, step: LionStep, state: State<'_>) {
    let [momentum, _] = state.floats;
    let slices = [state.master, state.gradient, momentum];
    chunks(pool, slices, |[p, g, m]| update(isa, step, p, g, m));
}

versions! {
    fn update(step: LionStep, p: &mut [f32], g: &mut [f32], m: &mut [f32]) = update_body;
}

#[inline(always)]
fn update_body(step: LionStep, p: &mut [f32], g: &mut [f32], m: &mut [f32]) {
    let LionStep { gradient_scale, learning_rate, decay, betas, rests } = step;
    for ((p, g), m) in p.iter_mut().zip(g).zip(m) {
        let gradient = *g * gradient_scale;
        let direction = betas[0] * *m + rests[0] * gradient;
        // Not `signum`: that of zero is 1.
        let sign = f32::from(direction > 0.0) - f32::from(direction < 0.0);
        *p = *p * decay - learning_rate * sign;
        *m = betas[1] * *m + rests[1] * gradient;
        *g = 0.0;
    }
}
