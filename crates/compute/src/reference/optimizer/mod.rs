//! The optimizer step and what belongs to it.

mod adafactor;
mod eight_bit;
mod muon;

use super::memory::Memory;
use crate::op::Optimize;
use crate::{Buffer, DType, Optimizer, Parameter, Shape};

pub(super) fn sum_squares(memory: &mut Memory, inputs: &[Buffer], out: Buffer) {
    let mut sum = 0.0;
    for &input in inputs {
        sum += memory.numbers(input, input.len).iter().map(|x| x * x).sum::<f64>();
    }
    memory.write(out, &[sum]);
}

/// Makes the weights of a trained matrix its master values.
pub(super) fn refresh(memory: &mut Memory, parameter: Parameter) {
    for part in parameter.parts() {
        let values = memory.present(part.master, part.master.len);
        let matrix = memory.weights.get_mut(&part.weight.id).expect("a loaded weight");
        matrix.values = values;
    }
}

/// A step without its list of parameters.
#[derive(Clone, Copy)]
pub(super) struct Step {
    optimizer: Optimizer,
    gradient_scale: f64,
    learning_rate: f64,
    weight_decay: f64,
    number: i32,
}

impl Step {
    pub(super) fn of(op: &Optimize<'_>) -> Self {
        assert!(op.step > 0, "steps are counted from 1");
        Step {
            optimizer: op.optimizer,
            gradient_scale: op.gradient_scale.into(),
            learning_rate: op.learning_rate.into(),
            weight_decay: op.weight_decay.into(),
            number: op.step as i32,
        }
    }

    /// Decoupled decay.
    fn decay(&self, value: &mut [f64]) {
        value.iter_mut().for_each(|x| *x *= 1.0 - self.learning_rate * self.weight_decay);
    }
}

/// One step of one parameter; clears its gradient.
pub(super) fn optimize(memory: &mut Memory, parameter: Parameter, step: &Step) {
    parameter.assert_kept_for(step.optimizer.kind());
    let len = parameter.shape.len();
    let mut value = memory.present(parameter.master, len);
    let mut gradient = memory.present(parameter.gradient, len);
    gradient.iter_mut().for_each(|g| *g *= step.gradient_scale);
    let eight_bit = matches!(step.optimizer, Optimizer::AdamW8bit { .. })
        && parameter.state.iter().flatten().any(|buffer| buffer.dtype == DType::U8);
    let mut states = if eight_bit {
        eight_bit::decode(memory, parameter)
    } else {
        let kept = parameter.state.iter().flatten();
        kept.map(|&buffer| memory.present(buffer, buffer.len)).collect()
    };
    update(step, parameter.shape, &mut value, &mut gradient, &mut states);
    if eight_bit {
        eight_bit::encode(memory, parameter, &states);
    } else {
        let kept = parameter.state.iter().flatten().zip(&states);
        kept.for_each(|(&buffer, values)| memory.write(buffer, values));
    }
    memory.write(parameter.master, &value);
    memory.write(parameter.gradient, &vec![0.0; len]);
    refresh(memory, parameter);
}

fn update(step: &Step, shape: Shape, p: &mut [f64], g: &mut [f64], states: &mut [Vec<f64>]) {
    match (step.optimizer, states) {
        (Optimizer::AdamW { betas, eps } | Optimizer::AdamW8bit { betas, eps }, [m, v]) => {
            adamw(step, betas.map(f64::from), eps.into(), p, g, m, v);
        }
        (Optimizer::Lion { betas }, [m]) => lion(step, betas.map(f64::from), p, g, m),
        (Optimizer::Sgd { momentum, nesterov }, [m]) => {
            sgd(step, momentum.into(), nesterov, p, g, m);
        }
        (Optimizer::Adafactor { eps, clip_threshold, decay_rate }, states) => {
            let [eps, clip_threshold, decay_rate] =
                [eps, clip_threshold, decay_rate].map(f64::from);
            let beta = 1.0 - f64::from(step.number).powf(decay_rate);
            match (shape, states) {
                (Shape::Matrix(_, cols), [row, column]) => {
                    adafactor::precondition_matrix(beta, eps, cols, g, row, column);
                }
                (_, [v]) => adafactor::precondition_vector(beta, eps, g, v),
                _ => unreachable!("what Adafactor keeps"),
            }
            adafactor::clip(clip_threshold, g);
            step.decay(p);
            p.iter_mut().zip(g).for_each(|(p, u)| *p -= step.learning_rate * *u);
        }
        (Optimizer::Muon { momentum, nesterov, iterations, match_rms }, [m]) => {
            let Shape::Matrix(rows, cols) = shape else {
                panic!("Muon steps matrices, not {shape:?}")
            };
            muon::look_ahead(momentum.into(), nesterov, g, m);
            let update = muon::orthogonal(g, (rows, cols), iterations);
            let rate = step.learning_rate * muon::ratio(rows, cols, match_rms);
            step.decay(p);
            p.iter_mut().zip(update).for_each(|(p, u)| *p -= rate * u);
        }
        (optimizer, _) => unreachable!("what {optimizer:?} keeps"),
    }
}

fn adamw(
    step: &Step,
    [beta1, beta2]: [f64; 2],
    eps: f64,
    p: &mut [f64],
    g: &[f64],
    m: &mut [f64],
    v: &mut [f64],
) {
    let correction1 = 1.0 - beta1.powi(step.number);
    let correction2 = 1.0 - beta2.powi(step.number);
    step.decay(p);
    for i in 0..p.len() {
        m[i] = beta1 * m[i] + (1.0 - beta1) * g[i];
        v[i] = beta2 * v[i] + (1.0 - beta2) * g[i] * g[i];
        let denominator = (v[i] / correction2).sqrt() + eps;
        p[i] -= step.learning_rate * (m[i] / correction1) / denominator;
    }
}

fn lion(step: &Step, [beta1, beta2]: [f64; 2], p: &mut [f64], g: &[f64], m: &mut [f64]) {
    step.decay(p);
    for i in 0..p.len() {
        let direction = beta1 * m[i] + (1.0 - beta1) * g[i];
        let sign = if direction == 0.0 { 0.0 } else { direction.signum() };
        p[i] -= step.learning_rate * sign;
        m[i] = beta2 * m[i] + (1.0 - beta2) * g[i];
    }
}

fn sgd(step: &Step, momentum: f64, nesterov: bool, p: &mut [f64], g: &[f64], m: &mut [f64]) {
    for i in 0..p.len() {
        let gradient = g[i] + step.weight_decay * p[i];
        m[i] = momentum * m[i] + gradient;
        let direction = if nesterov { gradient + momentum * m[i] } else { m[i] };
        p[i] -= step.learning_rate * direction;
    }
}

#[cfg(test)]
mod tests {
    use crate::op::Optimize;
    use crate::{Backend as _, Op, Reference};

    /// Numbers from `torch.optim.AdamW` of PyTorch 2.13 in float64.
    #[test]
    fn adamw_equals_pytorch() {
        let mut reference = Reference::new();
        let parameter = reference
            .load_trained(crate::Shape::Matrix(1, 2), &[1.0, -2.0], crate::OptimizerKind::AdamW)
            .unwrap();
        let expected =
            [[0.86875, -1.8175], [0.7294527860058722, -1.711053432745411]].map(|e| e.to_vec());
        for (step, gradient) in [(1, [0.5, -3.0]), (2, [2.0, 0.25])] {
            reference.upload(&gradient, parameter.gradient).unwrap();
            let op = Optimize {
                parameters: &[parameter],
                gradient_scale: 0.5,
                learning_rate: 0.125,
                optimizer: crate::Optimizer::AdamW { betas: [0.5, 0.75], eps: 0.0625 },
                weight_decay: 0.25,
                step,
            };
            reference.run(Op::Optimize(op)).unwrap();
            let values = reference.read_f64(parameter.master);
            for (value, expected) in values.iter().zip(&expected[step as usize - 1]) {
                assert!((value - expected).abs() < 1e-15, "step {step}: {value}, not {expected}");
            }
        }
        assert_eq!(reference.read_f64(parameter.gradient), [0.0, 0.0]);
    }
}
