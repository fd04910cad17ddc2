//! The optimizer step and what belongs to it.

use super::memory::Memory;
use crate::op::AdamW;
use crate::{Buffer, Parameter};

pub(super) fn sum_squares(memory: &mut Memory, inputs: &[Buffer], out: Buffer) {
    let mut sum = 0.0;
    for &input in inputs {
        sum += memory.numbers(input, input.len).iter().map(|x| x * x).sum::<f64>();
    }
    memory.write(out, &[sum]);
}

/// Makes the weight of a trained matrix its master values.
pub(super) fn refresh(memory: &mut Memory, parameter: Parameter) {
    let weight = parameter.weight;
    let values = memory.present(parameter.master, weight.rows * weight.cols);
    let matrix = memory.weights.get_mut(&weight.id).expect("a loaded weight");
    matrix.values = values;
}

/// The numbers of an [`AdamW`] step.
#[derive(Clone, Copy)]
pub(super) struct Settings {
    gradient_scale: f64,
    learning_rate: f64,
    betas: [f64; 2],
    eps: f64,
    weight_decay: f64,
    step: i32,
}

impl Settings {
    pub(super) fn of(op: &AdamW<'_>) -> Self {
        assert!(op.step > 0, "steps are counted from 1");
        Settings {
            gradient_scale: op.gradient_scale.into(),
            learning_rate: op.learning_rate.into(),
            betas: op.betas.map(f64::from),
            eps: op.eps.into(),
            weight_decay: op.weight_decay.into(),
            step: op.step as i32,
        }
    }
}

pub(super) fn adamw(memory: &mut Memory, parameter: Parameter, settings: &Settings) {
    let len = parameter.weight.rows * parameter.weight.cols;
    let mut master = memory.present(parameter.master, len);
    let gradient = memory.present(parameter.gradient, len);
    let mut first = memory.present(parameter.first_moment, len);
    let mut second = memory.present(parameter.second_moment, len);
    let [beta1, beta2] = settings.betas;
    let correction1 = 1.0 - beta1.powi(settings.step);
    let correction2 = 1.0 - beta2.powi(settings.step);
    for i in 0..len {
        let gradient = gradient[i] * settings.gradient_scale;
        first[i] = beta1 * first[i] + (1.0 - beta1) * gradient;
        second[i] = beta2 * second[i] + (1.0 - beta2) * gradient * gradient;
        let denominator = (second[i] / correction2).sqrt() + settings.eps;
        master[i] *= 1.0 - settings.learning_rate * settings.weight_decay;
        master[i] -= settings.learning_rate * (first[i] / correction1) / denominator;
    }
    memory.write(parameter.master, &master);
    memory.write(parameter.gradient, &vec![0.0; len]);
    memory.write(parameter.first_moment, &first);
    memory.write(parameter.second_moment, &second);
    refresh(memory, parameter);
}

#[cfg(test)]
mod tests {
    use crate::op::AdamW;
    use crate::{Backend as _, Op, Reference};

    /// Numbers from `torch.optim.AdamW` of PyTorch 2.13 in float64.
    #[test]
    fn adamw_equals_pytorch() {
        let mut reference = Reference::new();
        let parameter = reference.load_trained(1, 2, &[1.0, -2.0]).unwrap();
        let expected =
            [[0.86875, -1.8175], [0.7294527860058722, -1.711053432745411]].map(|e| e.to_vec());
        for (step, gradient) in [(1, [0.5, -3.0]), (2, [2.0, 0.25])] {
            reference.upload(&gradient, parameter.gradient).unwrap();
            let op = AdamW {
                parameters: &[parameter],
                gradient_scale: 0.5,
                learning_rate: 0.125,
                betas: [0.5, 0.75],
                eps: 0.0625,
                weight_decay: 0.25,
                step,
            };
            reference.run(Op::AdamW(op)).unwrap();
            let values = reference.read_f64(parameter.master);
            for (value, expected) in values.iter().zip(&expected[step as usize - 1]) {
                assert!((value - expected).abs() < 1e-15, "step {step}: {value}, not {expected}");
            }
        }
        assert_eq!(reference.read_f64(parameter.gradient), [0.0, 0.0]);
    }
}
