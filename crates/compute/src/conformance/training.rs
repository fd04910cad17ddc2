//! Rows of the optimizers.

use super::{Row, Trial};
use crate::op::{Linear, Optimize, Term};
use crate::{DType, DynamicMap, Op, Optimizer, OptimizerKind, Parameter, Shape, Weight};

/// What all parameters may be: with short and long sides first, of several tasks, and vectors.
const SHAPES: [Shape; 7] = [
    Shape::Matrix(16, 40),
    Shape::Matrix(3, 5),
    Shape::Matrix(1, 1),
    Shape::Matrix(130, 70),
    Shape::Vector(1),
    Shape::Vector(7),
    Shape::Vector(5000),
];

pub(super) fn add(rows: &mut Vec<Row>) {
    rows.push(Row::new("sum_squares", sum_squares));
    for optimizer in optimizers() {
        for weight_decay in [0.0, 0.1] {
            let name = format!("{optimizer:?} with decay {weight_decay}");
            rows.push(Row::new(name, move |t| steps(t, optimizer, weight_decay)));
        }
    }
    for step in [1, 20] {
        rows.push(Row::new(format!("8-bit moments, step {step}"), move |t| eight_bit(t, step)));
    }
    rows.push(Row::new("refresh", refresh));
}

fn sum_squares(t: &mut Trial<'_>) {
    let inputs = [1, 7, 100_000, 64, 4097].map(|len| t.f32(len));
    for count in [1, 3, 5] {
        let out = t.out(1, DType::F32);
        t.run(Op::SumSquares { inputs: &inputs[..count], out });
        t.keep("out", out);
    }
}

fn optimizers() -> Vec<Optimizer> {
    let muon = |momentum, nesterov, match_rms| Optimizer::Muon {
        momentum,
        nesterov,
        iterations: 5,
        match_rms,
    };
    vec![
        Optimizer::AdamW { betas: [0.9, 0.99], eps: 1e-8 },
        Optimizer::Lion { betas: [0.9, 0.99] },
        Optimizer::Adafactor { eps: 1e-30, clip_threshold: 1.0, decay_rate: -0.8 },
        Optimizer::Adafactor { eps: 1e-3, clip_threshold: 0.5, decay_rate: -0.5 },
        muon(0.95, true, false),
        muon(0.9, false, true),
        Optimizer::Sgd { momentum: 0.9, nesterov: false },
        Optimizer::Sgd { momentum: 0.9, nesterov: true },
    ]
}

fn steps(t: &mut Trial<'_>, optimizer: Optimizer, weight_decay: f32) {
    let kind = optimizer.kind();
    let fits = |shape: &Shape| kind != OptimizerKind::Muon || matches!(shape, Shape::Matrix(..));
    let parameters: Vec<Parameter> =
        SHAPES.into_iter().filter(fits).map(|shape| t.parameter(shape, kind)).collect();
    // Parts of a fused matrix take one step together.
    let parts = t.parameter_of_parts(Shape::Matrix(55, 20), &[32, 16, 7], kind);
    let parameters = [parameters, vec![parts]].concat();
    for step in 1..=4 {
        for parameter in &parameters {
            let gradient = t.random(parameter.gradient.len);
            t.write(&gradient, parameter.gradient);
        }
        t.run(Op::Optimize(Optimize {
            parameters: &parameters,
            gradient_scale: 0.5,
            learning_rate: 0.01 * step as f32,
            optimizer,
            weight_decay,
            step,
        }));
    }
    for parameter in parameters {
        t.keep("master", parameter.master);
        t.keep("gradient", parameter.gradient);
        for ((name, ..), buffer) in kind.states(parameter.shape).iter().zip(parameter.state) {
            t.keep(*name, buffer.expect("kept"));
        }
        parameter.parts().for_each(|part| keep_product(t, part.weight));
    }
}

/// One step from given codes. Where a new moment lies halfway between two levels, rounding decides which it
/// takes, so moments may be one level apart; and one step alone, since a later one would start from there.
fn eight_bit(t: &mut Trial<'_>, step: u32) {
    let kind = OptimizerKind::AdamW8bit;
    let optimizer = Optimizer::AdamW8bit { betas: [0.9, 0.99], eps: 1e-8 };
    // Too few for 8 bits, a last block that is short, several tasks.
    let shapes = [Shape::Matrix(3, 5), Shape::Matrix(100, 83), Shape::Vector(4096)];
    let parameters = shapes.map(|shape| t.parameter(shape, kind));
    for parameter in parameters {
        let gradient = t.random(parameter.gradient.len);
        t.write(&gradient, parameter.gradient);
        let [Some(first), Some(first_absmax), Some(second), Some(second_absmax)] = parameter.state
        else {
            continue;
        };
        // Before the first step all moments are zero.
        for (codes, absmax) in [(first, first_absmax), (second, second_absmax)] {
            if step > 1 {
                let values = t.random_below(codes.len, 256);
                let values: Vec<u8> = values.iter().map(|&code| code as u8).collect();
                t.write_u8(&values, codes);
                let values = t.random(absmax.len);
                t.write(&values.iter().map(|x| x.abs()).collect::<Vec<_>>(), absmax);
            }
        }
    }
    t.run(Op::Optimize(Optimize {
        parameters: &parameters,
        gradient_scale: 0.5,
        learning_rate: 0.01,
        optimizer,
        weight_decay: 0.1,
        step,
    }));
    for parameter in parameters {
        t.keep("master", parameter.master);
        t.keep("gradient", parameter.gradient);
        match parameter.state {
            [Some(first), Some(first_absmax), Some(second), Some(second_absmax)] => {
                t.keep("first_absmax", first_absmax);
                t.keep("second_absmax", second_absmax);
                t.keep_levels("first_moment", first, first_absmax, DynamicMap::signed());
                t.keep_levels("second_moment", second, second_absmax, DynamicMap::unsigned());
            }
            state => state.into_iter().flatten().for_each(|buffer| t.keep("moment", buffer)),
        }
    }
}

/// A master that is written counts from the refresh on.
fn refresh(t: &mut Trial<'_>) {
    let parameters = [(16, 40), (40, 16)].map(|(rows, cols)| t.trained(rows, cols));
    for parameter in parameters {
        let values = t.random(parameter.master.len);
        t.write(&values, parameter.master);
    }
    parameters.iter().for_each(|&parameter| keep_product(t, parameter.matrix()));
    t.run(Op::Refresh(&parameters));
    parameters.iter().for_each(|&parameter| keep_product(t, parameter.matrix()));
}

/// What the matrix multiplies to, both ways.
pub(super) fn keep_product(t: &mut Trial<'_>, weight: Weight) {
    for transposed in [false, true] {
        let (k, n) = match transposed {
            true => (weight.rows, weight.cols),
            false => (weight.cols, weight.rows),
        };
        let terms = [Term { input: t.operands(3 * k), weight, transposed }];
        let out = t.out(3 * n, DType::F32);
        t.run(Op::Linear(&[Linear::product(3, &terms, out)]));
        t.keep("product", out);
    }
}
