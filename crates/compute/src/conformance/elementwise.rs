//! Rows of norms, rotary positions, gated activations and dropout.

use super::{Row, Trial};
use crate::op::{
    Activation, Dropout, Gated, GatedBackward, RmsNorm, RmsNormBackward, Rope, RopeTable,
};
use crate::{Buffer, DType, Op};

pub(super) fn add(rows: &mut Vec<Row>) {
    for (count, cols) in [(1, 1), (1, 64), (3, 5), (17, 576), (130, 33), (2, 15), (2, 16), (2, 17)]
    {
        rows.push(Row::new(format!("rms_norm {count}x{cols}"), move |t| norm(t, count, cols)));
    }
    rows.push(Row::new("slices", on_slices));
    for (count, half, scale) in [(1, 1, 1.0), (5, 3, 1.25), (40, 32, 1.0)] {
        let name = format!("rope_table {count}x{half}");
        rows.push(Row::new(name, move |t| rope_table(t, count, half, scale)));
    }
    let shapes =
        [(1, 1, 2, 2), (3, 2, 6, 6), (7, 9, 64, 64), (40, 3, 96, 96), (5, 2, 6, 4), (7, 3, 96, 24)];
    for (count, heads, head_dim, rotary_dim) in shapes {
        let name = format!("rope {rotary_dim} of {count}x{heads}x{head_dim}");
        rows.push(Row::new(name, move |t| rope(t, count, heads, head_dim, rotary_dim)));
    }
    for activation in [Activation::Silu, Activation::GeluTanh] {
        for len in [1, 7, 15, 16, 17, 1000] {
            let name = format!("gated {activation:?} {len}");
            rows.push(Row::new(name, move |t| gated(t, activation, len)));
        }
    }
    for (count, cols, p) in [(1, 1, 0.5), (3, 5, 0.1), (40, 64, 0.5), (7, 33, 0.0)] {
        for base in [Base::None, Base::Other, Base::Out] {
            let name = format!("dropout {count}x{cols} p {p} base {base:?}");
            rows.push(Row::new(name, move |t| dropout(t, count, cols, p, base)));
        }
    }
}

fn norm(t: &mut Trial<'_>, rows: usize, cols: usize) {
    let (x, weight) = (t.f32(rows * cols), t.f32(cols));
    for (offset, dtype) in [(0.0, t.operand()), (1.0, t.operand()), (1.0, DType::F32)] {
        let (out, rstd) = (t.out(rows * cols, dtype), t.out(rows, DType::F32));
        t.run(Op::RmsNorm(RmsNorm { cols, x, weight, offset, eps: 1e-5, out, rstd }));
        let (dout, dx) = (t.f32(rows * cols), t.f32(rows * cols));
        t.run(Op::RmsNormBackward(RmsNormBackward { cols, dout, x, weight, offset, rstd, dx }));
        t.keep(format!("out with offset {offset} in {dtype:?}"), out);
        t.keep("rstd", rstd);
        t.keep("dx", dx);
    }
}

/// Buffers need not start where an allocation does.
fn on_slices(t: &mut Trial<'_>) {
    let (cols, len) = (33, 3 * 33);
    let operand = t.operand();
    let (x, weight) = (t.f32(len + 1).slice(1, len), t.f32(cols + 1).slice(1, cols));
    let [normed, out] = [(); 2].map(|()| t.out(len + 1, operand).slice(1, len));
    let rstd = t.out(4, DType::F32).slice(1, 3);
    t.run(Op::RmsNorm(RmsNorm { cols, x, weight, offset: 0.0, eps: 1e-5, out: normed, rstd }));
    let up = t.operands(len + 1).slice(1, len);
    t.run(Op::Gated(Gated { activation: Activation::Silu, gate: normed, up, out }));
    let sum = t.f32(len + 1).slice(1, len);
    t.run(Op::Accumulate { x, out: sum });
    for buffer in [normed, rstd, out, sum] {
        t.keep("out", buffer);
    }
}

fn rope_table(t: &mut Trial<'_>, rows: usize, half: usize, scale: f32) {
    let positions = t.random_below(rows, 1000);
    let frequency = |i| 10000f32.powf(-(i as f32) / half as f32);
    let frequencies: Vec<f32> = (0..half).map(frequency).collect();
    let (positions, inv_freq) = (t.integers(&positions), t.upload(&frequencies, DType::F32));
    let (cos, sin) = (t.out(rows * half, DType::F32), t.out(rows * half, DType::F32));
    t.run(Op::RopeTable(RopeTable { positions, inv_freq, scale, cos, sin }));
    t.keep("cos", cos);
    t.keep("sin", sin);
}

fn rope(t: &mut Trial<'_>, rows: usize, heads: usize, head_dim: usize, rotary_dim: usize) {
    let len = rows * heads * head_dim;
    let (x, half) = (t.f32(len), rows * rotary_dim / 2);
    let (cos, sin) = (t.f32(half), t.f32(half));
    for inverse in [false, true] {
        for output in [DType::F32, t.operand()] {
            let out = t.out(len, output);
            t.run(Op::Rope(Rope { heads, head_dim, rotary_dim, x, cos, sin, inverse, out }));
            t.keep(format!("out in {output:?}"), out);
        }
    }
}

fn gated(t: &mut Trial<'_>, activation: Activation, len: usize) {
    // Wide enough for both ends of the activation.
    let values: Vec<f32> = t.random(len).iter().map(|x| x * 8.0).collect();
    let (gate, up) = (t.upload(&values, t.operand()), t.operands(len));
    let dout = t.operands(len);
    let outs: [Buffer; 3] = std::array::from_fn(|_| t.out(len, t.operand()));
    let [out, dgate, dup] = outs;
    t.run(Op::Gated(Gated { activation, gate, up, out }));
    t.run(Op::GatedBackward(GatedBackward { activation, gate, up, dout, dgate, dup }));
    t.keep("out", out);
    t.keep("dgate", dgate);
    t.keep("dup", dup);
}

/// What a sum begins with.
#[derive(Clone, Copy, Debug)]
pub(super) enum Base {
    None,
    Other,
    Out,
}

fn dropout(t: &mut Trial<'_>, rows: usize, cols: usize, p: f32, base: Base) {
    let keys = t.random_below(rows * 3, u32::MAX);
    let row_keys = t.integers(&keys);
    for input in [DType::F32, t.operand()] {
        for output in [DType::F32, t.operand()] {
            let values = t.random(rows * cols);
            let x = t.upload(&values, input);
            let (base, out) = match (base, output) {
                (Base::None, _) => (None, t.out(rows * cols, output)),
                (Base::Out, DType::F32) => {
                    let out = t.f32(rows * cols);
                    (Some(out), out)
                }
                _ => (Some(t.f32(rows * cols)), t.out(rows * cols, output)),
            };
            let key = 0x1234_5678_9ABC_DEF0;
            t.run(Op::Dropout(Dropout { cols, x, row_keys, key, p, base, out }));
            t.keep(format!("{input:?} to {output:?}"), out);
        }
    }
}
