//! AdamW with moments in f32.

use super::{State, chunks, decay};
use crate::cpu::{Isa, Pool, versions};
use crate::op::Optimize;

/// The numbers of one step, as every element needs them.
#[derive(Clone, Copy)]
pub(super) struct AdamStep {
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
    pub(super) fn new(op: &Optimize<'_>, given: [f32; 2], eps: f32) -> Self {
        let betas = given.map(f64::from);
        let [first, second] = betas.map(|beta| 1.0 - beta.powi(op.step.cast_signed()));
        let learning_rate = f64::from(op.learning_rate);
        AdamStep {
            gradient_scale: op.gradient_scale,
            decay: decay(op),
            betas: given,
            rests: betas.map(|beta| (1.0 - beta) as f32),
            step_size: (learning_rate / first) as f32,
            second_scale: (1.0 / second.sqrt()) as f32,
            eps,
        }
    }
}

pub(super) fn step(pool: &Pool, isa: Isa, step: AdamStep, state: State<'_>) {
    let [first_moment, second_moment] = state.floats;
    let slices = [state.master, state.gradient, first_moment, second_moment];
    chunks(pool, slices, |[p, g, m, v]| update(isa, step, p, g, m, v));
}

versions! {
    fn update(step: AdamStep, p: &mut [f32], g: &mut [f32], m: &mut [f32], v: &mut [f32]) =
        update_body;
}

/// One step of some elements.
#[inline(always)]
pub(super) fn update_body(
    step: AdamStep,
    p: &mut [f32],
    g: &mut [f32],
    m: &mut [f32],
    v: &mut [f32],
) {
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
