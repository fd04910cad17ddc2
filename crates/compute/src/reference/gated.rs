//! Gated MLP activations.

use super::memory::Memory;
use crate::op::{Activation, Gated, GatedBackward};

pub(super) fn forward(memory: &mut Memory, op: &Gated) {
    let gate = memory.numbers(op.gate, op.out.len);
    let up = memory.numbers(op.up, op.out.len);
    let out = gate.iter().zip(&up).map(|(&gate, up)| value_and_slope(op.activation, gate).0 * up);
    let out: Vec<f64> = out.collect();
    memory.write(op.out, &out);
}

pub(super) fn backward(memory: &mut Memory, op: &GatedBackward) {
    let len = op.dout.len;
    let gate = memory.numbers(op.gate, len);
    let up = memory.numbers(op.up, len);
    let dout = memory.numbers(op.dout, len);
    let (mut dgate, mut dup) = (vec![0.0; len], vec![0.0; len]);
    for i in 0..len {
        let (value, slope) = value_and_slope(op.activation, gate[i]);
        dgate[i] = dout[i] * up[i] * slope;
        dup[i] = dout[i] * value;
    }
    memory.write(op.dgate, &dgate);
    memory.write(op.dup, &dup);
}

/// An activation and its derivative.
fn value_and_slope(activation: Activation, x: f64) -> (f64, f64) {
    match activation {
        Activation::Silu => {
            let sigmoid = 1.0 / (1.0 + (-x).exp());
            (x * sigmoid, sigmoid * (1.0 + x * (1.0 - sigmoid)))
        }
        Activation::GeluTanh => {
            let root = (2.0 / std::f64::consts::PI).sqrt();
            let tanh = (root * (x + 0.044715 * x.powi(3))).tanh();
            let inner = root * (1.0 + 3.0 * 0.044715 * x * x);
            (0.5 * x * (1.0 + tanh), 0.5 * (1.0 + tanh) + 0.5 * x * (1.0 - tanh * tanh) * inner)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers from PyTorch 2.13 in float64.
    #[test]
    fn activations_equal_pytorch() {
        #[track_caller]
        fn check(activation: Activation, expected: [f64; 3]) {
            for (x, expected) in [-2.0, 0.5, 3.0].into_iter().zip(expected) {
                let (value, _) = value_and_slope(activation, x);
                assert!((value - expected).abs() < 1e-15, "{value}, not {expected}");
            }
        }
        check(Activation::Silu, [-0.2384058440442351, 0.3112296656009273, 2.8577223804672998]);
        let gelu = [-0.04540230591222494, 0.34571400982514394, 2.996362607918227];
        check(Activation::GeluTanh, gelu);
    }
}
