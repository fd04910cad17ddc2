//! Rows of the optimizer.

use super::{Row, Trial};
use crate::op::{AdamW, Linear, Term};
use crate::{DType, Op, Parameter};

pub(super) fn add(rows: &mut Vec<Row>) {
    rows.push(Row::new("sum_squares", sum_squares));
    for weight_decay in [0.0, 0.1] {
        let name = format!("adamw with decay {weight_decay}");
        rows.push(Row::new(name, move |t| adamw(t, weight_decay)));
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

fn adamw(t: &mut Trial<'_>, weight_decay: f32) {
    let parameters = [(16, 40), (3, 5), (1, 1)].map(|(rows, cols)| t.trained(rows, cols));
    for step in 1..=4 {
        for parameter in parameters {
            let gradient = t.random(parameter.gradient.len);
            t.write(&gradient, parameter.gradient);
        }
        let settings = AdamW {
            parameters: &parameters,
            gradient_scale: 0.5,
            learning_rate: 0.01 * step as f32,
            betas: [0.9, 0.99],
            eps: 1e-8,
            weight_decay,
            step,
        };
        t.run(Op::AdamW(settings));
    }
    for parameter in parameters {
        t.keep("master", parameter.master);
        t.keep("gradient", parameter.gradient);
        t.keep("first_moment", parameter.first_moment);
        t.keep("second_moment", parameter.second_moment);
        keep_product(t, parameter);
    }
}

/// A master that is written counts from the refresh on.
fn refresh(t: &mut Trial<'_>) {
    let parameters = [(16, 40), (40, 16)].map(|(rows, cols)| t.trained(rows, cols));
    for parameter in parameters {
        let values = t.random(parameter.master.len);
        t.write(&values, parameter.master);
    }
    parameters.iter().for_each(|&parameter| keep_product(t, parameter));
    t.run(Op::Refresh(&parameters));
    parameters.iter().for_each(|&parameter| keep_product(t, parameter));
}

/// What the matrix multiplies to, both ways.
fn keep_product(t: &mut Trial<'_>, parameter: Parameter) {
    let weight = parameter.weight;
    for transposed in [false, true] {
        let (k, n) = match transposed {
            true => (weight.rows, weight.cols),
            false => (weight.cols, weight.rows),
        };
        let terms = [Term { input: t.operands(3 * k), weight, transposed }];
        let out = t.out(3 * n, DType::F32);
        t.run(Op::Linear(&[Linear { rows: 3, terms: &terms, scale: 1.0, base: None, out }]));
        t.keep("product", out);
    }
}
