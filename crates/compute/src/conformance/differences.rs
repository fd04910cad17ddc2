//! The derivatives of the reference against central differences, in f64.
//!
//! The loss is the sum of every output times a random number; that number is the gradient that
//! enters the backward.

mod trained;

use super::attention::{FOREST, Shape};
use super::layout::{Forest, Layout};
use super::{STACK_BYTES, Trial};
use crate::op::{
    Activation, Attention, AttentionBackward, Dropout, Gated, GatedBackward, Head, HeadDivergence,
    HeadGradients, HeadOutputs, HeadWeightGradient, Linear, Logits, RmsNorm, RmsNormBackward, Rope,
    Term, WeightGradient,
};
use crate::random::{key, uniform};
use crate::{Backend as _, Buffer, DType, Op, Parameter, Reference};

/// Most relative error, as norms, between derivatives and differences.
pub const TOLERANCE: f64 = 1e-6;

/// Coordinates of each input that are moved.
const COORDINATES: usize = 60;

/// Half the distance between two losses.
const STEP: f64 = 1e-5;

type Forward = Box<dyn Fn(&mut Reference, &[Buffer]) -> Vec<Buffer>>;
type Backward = Box<dyn Fn(&mut Reference, &[Buffer], &[Buffer], &[Buffer]) -> Vec<Buffer>>;

/// An operation with its backward.
struct Case {
    name: String,
    /// Lengths of the inputs that it is differentiated by.
    inputs: Vec<usize>,
    /// From inputs to outputs.
    forward: Forward,
    /// From inputs, outputs and the gradients of the outputs to those of the inputs.
    backward: Backward,
}

/// Panics where a derivative differs from the differences.
#[track_caller]
pub fn check() {
    for case in cases() {
        let seed = key(&case.name.bytes().map(u64::from).collect::<Vec<_>>());
        let inputs: Vec<Vec<f64>> = (case.inputs.iter().enumerate())
            .map(|(index, &len)| random(seed ^ index as u64, len))
            .collect();
        let (douts, gradients) = derivatives(&case, seed, &inputs);
        for (input, gradient) in gradients.iter().enumerate() {
            let error = error(&case, &inputs, &douts, input, gradient);
            assert!(error < TOLERANCE, "{}: input {input}: relative error {error:.2e}", case.name);
        }
    }
}

fn random(seed: u64, len: usize) -> Vec<f64> {
    (0..len as u64).map(|i| f64::from(2.0 * uniform(key(&[seed, i])) - 1.0)).collect()
}

fn reference() -> Reference {
    let mut reference = Reference::new();
    reference.reserve(STACK_BYTES).expect("a stack");
    reference
}

fn upload(reference: &mut Reference, values: &[f64]) -> Buffer {
    let buffer = out(reference, values.len());
    reference.upload_f64(values, buffer);
    buffer
}

fn out(reference: &mut Reference, len: usize) -> Buffer {
    reference.alloc(len, DType::F32).expect("alloc")
}

fn zeros(reference: &mut Reference, len: usize) -> Buffer {
    upload(reference, &vec![0.0; len])
}

fn run(reference: &mut Reference, op: Op<'_>) {
    reference.run(op).expect("run");
}

/// The gradients that went in, and those that came out.
fn derivatives(case: &Case, seed: u64, inputs: &[Vec<f64>]) -> (Vec<Vec<f64>>, Vec<Vec<f64>>) {
    let r = &mut reference();
    let inputs: Vec<Buffer> = inputs.iter().map(|input| upload(r, input)).collect();
    let outputs = (case.forward)(r, &inputs);
    let douts = outputs.iter().enumerate().map(|(i, out)| random(seed ^ (99 + i as u64), out.len));
    let douts: Vec<Vec<f64>> = douts.collect();
    let dout_buffers: Vec<Buffer> = douts.iter().map(|dout| upload(r, dout)).collect();
    let gradients = (case.backward)(r, &inputs, &outputs, &dout_buffers);
    assert_eq!(gradients.len(), inputs.len(), "a gradient for every input of {}", case.name);
    let gradients = gradients.into_iter().map(|gradient| r.read_f64(gradient)).collect();
    (douts, gradients)
}

fn loss(case: &Case, inputs: &[Vec<f64>], douts: &[Vec<f64>]) -> f64 {
    let r = &mut reference();
    let inputs: Vec<Buffer> = inputs.iter().map(|input| upload(r, input)).collect();
    let outputs = (case.forward)(r, &inputs);
    let terms = outputs.into_iter().zip(douts).map(|(out, dout)| {
        r.read_f64(out).iter().zip(dout).map(|(out, dout)| out * dout).sum::<f64>()
    });
    terms.sum()
}

/// Relative error of one input's gradient at some of its coordinates.
fn error(
    case: &Case,
    inputs: &[Vec<f64>],
    douts: &[Vec<f64>],
    input: usize,
    gradient: &[f64],
) -> f64 {
    let mut inputs = inputs.to_vec();
    let (mut difference, mut size) = (0.0, 0.0);
    let stride = gradient.len().div_ceil(COORDINATES);
    for index in (0..gradient.len()).step_by(stride) {
        let value = inputs[input][index];
        let mut at = |x| {
            inputs[input][index] = x;
            loss(case, &inputs, douts)
        };
        let slope = (at(value + STEP) - at(value - STEP)) / (2.0 * STEP);
        inputs[input][index] = value;
        difference += (gradient[index] - slope).powi(2);
        size += slope.powi(2);
    }
    assert!(size > 0.0, "{}: input {input} has no effect", case.name);
    (difference / size).sqrt()
}

fn cases() -> Vec<Case> {
    let mut cases = vec![linear(), rms_norm(), rope(), dropout()];
    cases.extend(trained::cases());
    cases.extend([Activation::Silu, Activation::GeluTanh].map(gated));
    let plain = Shape::new(4, 2, 6);
    let row: &Forest = &[(9, None)];
    let shapes: [(&str, Shape, &'static Forest, Option<&'static [usize]>); 6] = [
        ("plain", plain, row, None),
        ("window", Shape { window: Some(3), ..plain }, row, None),
        ("softcap", Shape { softcap: Some(0.8), ..plain }, row, None),
        ("forest", Shape::new(1, 1, 2), FOREST, None),
        ("windowed forest", Shape { window: Some(4), softcap: Some(2.0), ..plain }, SMALL, None),
        ("some queries", plain, SMALL, Some(&[1, 4, 5, 8, 11])),
    ];
    cases.extend(
        shapes.map(|(name, shape, forest, queries)| {
            attention(name, shape, Layout::of(forest, queries))
        }),
    );
    for kind in super::head::GRADIENTS {
        cases.push(head(kind, 1.0, None, 1.0));
        cases.push(head(kind, 0.7, Some(1.5), 0.6));
    }
    for mix in [0.0, 0.3, 1.0] {
        cases.push(head_divergence(mix, None));
        cases.push(head_divergence(mix, Some(1.5)));
    }
    cases
}

const SMALL: &Forest = &[(2, None), (4, None), (3, Some(1)), (2, Some(1)), (2, Some(3))];

/// A trained matrix with the values of a buffer.
fn trained(r: &mut Reference, rows: usize, cols: usize, values: Buffer) -> Parameter {
    let parameter = r
        .load_trained(
            crate::Shape::Matrix(rows, cols),
            &vec![0.0; rows * cols],
            crate::OptimizerKind::AdamW,
        )
        .expect("load");
    run(r, Op::Accumulate { x: values, out: parameter.master });
    run(r, Op::Refresh(&[parameter]));
    parameter
}

/// By the input and by both weights, one of which is used the wrong way round.
fn linear() -> Case {
    let (rows, k, n) = (5, 7, 4);
    let product = move |r: &mut Reference, x: Buffer, w: Buffer, u: Buffer, out: Buffer| {
        let (w, u) = (trained(r, n, k, w), trained(r, k, n, u));
        let terms = [(w, false), (u, true)].map(|(parameter, transposed)| Term {
            input: x,
            weight: parameter.matrix(),
            transposed,
        });
        run(r, Op::Linear(&[Linear::product(rows, &terms, out)]));
        [w, u]
    };
    let forward = move |r: &mut Reference, i: &[Buffer]| {
        let out = out(r, rows * n);
        product(r, i[0], i[1], i[2], out);
        vec![out]
    };
    let backward = move |r: &mut Reference, i: &[Buffer], _: &[Buffer], dout: &[Buffer]| {
        let unused = out(r, rows * n);
        let [w, u] = product(r, i[0], i[1], i[2], unused);
        let terms = [(w, true), (u, false)].map(|(p, transposed)| Term {
            input: dout[0],
            weight: p.matrix(),
            transposed,
        });
        let dx = out(r, rows * k);
        run(r, Op::Linear(&[Linear::product(rows, &terms, dx)]));
        let groups = r.alloc(2, DType::U32).expect("alloc");
        r.upload_u32(&[0, rows as u32], groups).expect("upload");
        let (x, dy) = (i[0], dout[0]);
        run(
            r,
            Op::WeightGradient(&[
                WeightGradient { dy, x, n, k, groups, gradient: w.gradient },
                WeightGradient { dy: x, x: dy, n: k, k: n, groups, gradient: u.gradient },
            ]),
        );
        vec![dx, w.gradient, u.gradient]
    };
    Case {
        name: "linear".into(),
        inputs: vec![rows * k, n * k, k * n],
        forward: Box::new(forward),
        backward: Box::new(backward),
    }
}

fn rms_norm() -> Case {
    let (rows, cols) = (3, 8);
    let normed = move |r: &mut Reference, x: Buffer| {
        let weight = upload(r, &random(3, cols));
        let (out, rstd) = (out(r, rows * cols), out(r, rows));
        run(r, Op::RmsNorm(RmsNorm { cols, x, weight, offset: 0.0, eps: 1e-3, out, rstd }));
        (weight, out, rstd)
    };
    Case {
        name: "rms_norm".into(),
        inputs: vec![rows * cols],
        forward: Box::new(move |r, i| vec![normed(r, i[0]).1]),
        backward: Box::new(move |r, i, _, douts| {
            let (x, dout) = (i[0], douts[0]);
            let (weight, _, rstd) = normed(r, x);
            let dx = zeros(r, rows * cols);
            run(
                r,
                Op::RmsNormBackward(RmsNormBackward {
                    cols,
                    dout,
                    x,
                    weight,
                    offset: 0.0,
                    rstd,
                    dx,
                }),
            );
            vec![dx]
        }),
    }
}

fn rope() -> Case {
    let (rows, heads, head_dim, rotary_dim) = (3, 2, 6, 4);
    let rotated = move |r: &mut Reference, x: Buffer, inverse| {
        let angles = random(4, rows * rotary_dim / 2);
        let cos = upload(r, &angles.iter().map(|angle| angle.cos()).collect::<Vec<_>>());
        let sin = upload(r, &angles.iter().map(|angle| angle.sin()).collect::<Vec<_>>());
        let out = out(r, x.len);
        run(r, Op::Rope(Rope { heads, head_dim, rotary_dim, x, cos, sin, inverse, out }));
        vec![out]
    };
    Case {
        name: "rope".into(),
        inputs: vec![rows * heads * head_dim],
        forward: Box::new(move |r, i| rotated(r, i[0], false)),
        backward: Box::new(move |r, _, _, douts| rotated(r, douts[0], true)),
    }
}

fn gated(activation: Activation) -> Case {
    let len = 40;
    Case {
        name: format!("gated {activation:?}"),
        inputs: vec![len, len],
        forward: Box::new(move |r, i| {
            let out = out(r, len);
            run(r, Op::Gated(Gated { activation, gate: i[0], up: i[1], out }));
            vec![out]
        }),
        backward: Box::new(move |r, i, _, douts| {
            let (gate, up, dout) = (i[0], i[1], douts[0]);
            let (dgate, dup) = (out(r, len), out(r, len));
            run(r, Op::GatedBackward(GatedBackward { activation, gate, up, dout, dgate, dup }));
            vec![dgate, dup]
        }),
    }
}

/// By what is dropped from and by the base.
fn dropout() -> Case {
    let (rows, cols) = (4, 9);
    let dropped = move |r: &mut Reference, x: Buffer, base: Option<Buffer>| {
        let row_keys = r.alloc(rows * 3, DType::U32).expect("alloc");
        let keys: Vec<u32> = (0..rows as u32 * 3).collect();
        r.upload_u32(&keys, row_keys).expect("upload");
        let out = out(r, x.len);
        run(r, Op::Dropout(Dropout { cols, x, row_keys, key: 77, p: 0.4, base, out }));
        out
    };
    Case {
        name: "dropout".into(),
        inputs: vec![rows * cols; 2],
        forward: Box::new(move |r, i| vec![dropped(r, i[0], Some(i[1]))]),
        backward: Box::new(move |r, _, _, douts| vec![dropped(r, douts[0], None), douts[0]]),
    }
}

fn attention(name: &str, shape: Shape, layout: Layout) -> Case {
    let (q_width, kv_width) = shape.widths();
    let (q_len, kv_len) = (layout.queries() * q_width, layout.key_rows * kv_width);
    let attended = move |r: &mut Reference, i: &[Buffer]| {
        let op = Attention {
            q: i[0],
            k: i[1],
            v: i[2],
            layout: layout.upload(&mut Trial::new(r, "layout")),
            heads: shape.heads,
            kv_heads: shape.kv_heads,
            head_dim: shape.head_dim,
            scale: 0.9,
            window: shape.window,
            softcap: shape.softcap,
            out: out(r, q_len),
            lse: out(r, q_len / shape.head_dim),
        };
        run(r, Op::Attention(op));
        op
    };
    let again = attended.clone();
    Case {
        name: format!("attention {name}"),
        inputs: vec![q_len, kv_len, kv_len],
        forward: Box::new(move |r, i| vec![attended(r, i).out]),
        backward: Box::new(move |r, i, _, douts| {
            let forward = again(r, i);
            let (dq, dk, dv) = (out(r, q_len), out(r, kv_len), out(r, kv_len));
            let dout = douts[0];
            run(r, Op::AttentionBackward(AttentionBackward { forward, dout, dq, dk, dv }));
            vec![dq, dk, dv]
        }),
    }
}

/// By the student's hidden states and weight. The teacher has fewer tokens and dimensions.
fn head_divergence(mix: f32, softcap: Option<f32>) -> Case {
    let (reads, vocab, cols) = (3, 11, 5);
    let (fewer, narrower) = (9, 4);
    let op = move |r: &mut Reference, i: &[Buffer], divergence| {
        let teacher = [reads * narrower, fewer * narrower].map(|len| {
            let values: Vec<f32> = (0..len).map(|at| (at as f32 * 0.7).sin()).collect();
            let buffer = r.alloc(len, DType::F32).expect("alloc");
            r.upload(&values, buffer).expect("upload");
            buffer
        });
        HeadDivergence {
            reads,
            student: Logits {
                hidden: i[0],
                weight: trained(r, vocab, cols, i[1]).matrix(),
                scale: 0.7,
                softcap,
            },
            teacher: Logits {
                hidden: teacher[0],
                weight: trained(r, fewer, narrower, teacher[1]).matrix(),
                scale: 1.3,
                softcap: None,
            },
            temperature: 0.6,
            mix,
            divergence,
            gradient: None,
            d_hidden: None,
            d_weight: None,
        }
    };
    Case {
        name: format!("head divergence, mix {mix}, softcap {softcap:?}"),
        inputs: vec![reads * cols, vocab * cols],
        forward: Box::new(move |r, i| {
            let out = out(r, reads);
            let op = op(r, i, out);
            run(r, Op::HeadDivergence(op));
            vec![out]
        }),
        backward: Box::new(move |r, i, _, douts| {
            let (divergence, d_hidden) = (out(r, reads), out(r, reads * cols));
            let groups = r.alloc(2, DType::U32).expect("alloc");
            r.upload_u32(&[0, reads as u32], groups).expect("upload");
            let gradient = zeros(r, vocab * cols);
            let d_weight = Some(HeadWeightGradient { groups, rows: None, gradient });
            let op = HeadDivergence {
                gradient: Some(douts[0]),
                d_hidden: Some(d_hidden),
                d_weight,
                ..op(r, i, divergence)
            };
            run(r, Op::HeadDivergence(op));
            vec![d_hidden, gradient]
        }),
    }
}

/// By the hidden states and by the weight, through one kind of output.
fn head(kind: &'static str, scale: f32, softcap: Option<f32>, temperature: f32) -> Case {
    let (reads, vocab, cols) = (3, 11, 5);
    let targets = [0u32, 2, 2, 2];
    let op = move |r: &mut Reference, i: &[Buffer]| {
        let target_reads = r.alloc(targets.len(), DType::U32).expect("alloc");
        let target_tokens = r.alloc(targets.len(), DType::U32).expect("alloc");
        r.upload_u32(&targets, target_reads).expect("upload");
        r.upload_u32(&[3, 10, 0, 10], target_tokens).expect("upload");
        Head {
            reads,
            hidden: i[0],
            weight: trained(r, vocab, cols, i[1]).matrix(),
            scale,
            softcap,
            temperature,
            target_reads,
            target_tokens,
            outputs: HeadOutputs::default(),
            gradients: HeadGradients::default(),
            d_hidden: None,
            d_weight: None,
        }
    };
    let only = move |name, buffer| (kind == name).then_some(buffer);
    Case {
        name: format!("head, {kind}, softcap {softcap:?}"),
        inputs: vec![reads * cols, vocab * cols],
        forward: Box::new(move |r, i| {
            let out = out(r, if kind == "logprob" { targets.len() } else { reads });
            let outputs = HeadOutputs {
                logprob: only("logprob", out),
                entropy: only("entropy", out),
                lse: only("lse", out),
                mean_logprob: only("mean_logprob", out),
                ..HeadOutputs::default()
            };
            let op = Head { outputs, ..op(r, i) };
            run(r, Op::Head(op));
            vec![out]
        }),
        backward: Box::new(move |r, i, _, douts| {
            let gradients = HeadGradients {
                logprob: only("logprob", douts[0]),
                entropy: only("entropy", douts[0]),
                lse: only("lse", douts[0]),
                mean_logprob: only("mean_logprob", douts[0]),
            };
            let d_hidden = out(r, reads * cols);
            let groups = r.alloc(2, DType::U32).expect("alloc");
            r.upload_u32(&[0, reads as u32], groups).expect("upload");
            let gradient = zeros(r, vocab * cols);
            let d_weight = Some(HeadWeightGradient { groups, rows: None, gradient });
            let op = Head { gradients, d_hidden: Some(d_hidden), d_weight, ..op(r, i) };
            run(r, Op::Head(op));
            vec![d_hidden, gradient]
        }),
    }
}
