//! Gradient descent with momentum.

use super::{State, chunks};
use crate::cpu::{Isa, Pool, versions};
use crate::op::Optimize;

/// The numbers of one step, as every element needs them.
#[derive(Clone, Copy)]
pub(super) struct SgdStep {
    gradient_scale: f32,
    learning_rate: f32,
    weight_decay: f32,
    momentum: f32,
    nesterov: bool,
}

impl SgdStep {
    pub(super) fn new(op: &Optimize<'_>, momentum: f32, nesterov: bool) -> Self {
        let &Optimize { gradient_scale, learning_rate, weight_decay, .. } = op;
        SgdStep { gradient_scale, learning_rate, weight_decay, momentum, nesterov }
    }
}

pub(super) fn step(pool: &Pool, isa: Isa, step: SgdStep, state: State<'_>) {
    let [momentum, _] = state.floats;
    let slices = [state.master, state.gradient, momentum];
    chunks(pool, slices, |[p, g, m]| update(isa, step, p, g, m));
}

versions! {
    fn update(step: SgdStep, p: &mut [f32], g: &mut [f32], m: &mut [f32]) = update_body;
}

#[inline(always)]
fn update_body(step: SgdStep, p: &mut [f32], g: &mut [f32], m: &mut [f32]) {
    let SgdStep { gradient_scale, learning_rate, weight_decay, momentum, nesterov } = step;
    for ((p, g), m) in p.iter_mut().zip(g).zip(m) {
        let gradient = *g * gradient_scale + weight_decay * *p;
        *m = momentum * *m + gradient;
        let direction = if nesterov { gradient + momentum * *m } else { *m };
        *p -= learning_rate * direction;
        *g = 0.0;
    }
}
