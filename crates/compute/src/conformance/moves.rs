//! Rows of elements and rows moved about.

use super::{Row, Trial};
use crate::op::{Embed, Rows};
use crate::{DType, Op, Storage};

pub(super) fn add(rows: &mut Vec<Row>) {
    for len in [1, 7, 15, 16, 17, 64, 1000] {
        rows.push(Row::new(format!("fill {len}"), move |t| fill(t, len)));
        rows.push(Row::new(format!("accumulate {len}"), move |t| accumulate(t, len)));
        rows.push(Row::new(format!("cast {len}"), move |t| cast(t, len)));
    }
    for (count, cols) in [(1, 1), (3, 5), (20, 64), (7, 33)] {
        rows.push(Row::new(format!("gather {count}x{cols}"), move |t| gather(t, count, cols)));
        rows.push(Row::new(format!("scatter {count}x{cols}"), move |t| scatter(t, count, cols)));
    }
    for storage in Storage::ALL {
        let cols = if storage.block_len() == 256 { 512 } else { 96 };
        let name = format!("embed {storage:?}");
        rows.push(Row::new(name, move |t| embed(t, storage, cols)));
    }
    rows.push(Row::new("embed Bf16 of 5 columns", |t| embed(t, Storage::Bf16, 5)));
    rows.push(Row::new("embed trained", embed_trained));
}

fn fill(t: &mut Trial<'_>, len: usize) {
    for dtype in [DType::F32, t.operand()] {
        let out = t.out(len, dtype);
        t.run(Op::Fill { out, value: -1.5 });
        t.keep("out", out);
    }
}

fn accumulate(t: &mut Trial<'_>, len: usize) {
    let (x, out) = (t.f32(len), t.f32(len));
    t.run(Op::Accumulate { x, out });
    t.keep("out", out);
}

fn cast(t: &mut Trial<'_>, len: usize) {
    let exact = t.random(len);
    // Numbers that a bfloat16 does not hold.
    let values: Vec<f32> = exact.iter().map(|x| x * 1.001).collect();
    let (x, narrow) = (t.upload(&values, DType::F32), t.upload(&exact, t.operand()));
    for scale in [1.0, 0.3] {
        for (input, dtype) in
            [(x, t.operand()), (x, DType::F32), (narrow, DType::F32), (narrow, t.operand())]
        {
            let out = t.out(len, dtype);
            t.run(Op::Cast { x: input, scale, out });
            t.keep(format!("times {scale} to {dtype:?}"), out);
        }
    }
}

fn gather(t: &mut Trial<'_>, count: usize, cols: usize) {
    let index = t.random_below(count, 4);
    let index = t.integers(&index);
    for dtype in [DType::F32, t.operand()] {
        let values = t.random(4 * cols);
        let (x, out) = (t.upload(&values, dtype), t.out(count * cols, dtype));
        t.run(Op::Gather(Rows { cols, x, index, out }));
        t.keep("out", out);
    }
    let values = t.random_below(4 * cols, 1 << 30);
    let (x, out) = (t.integers(&values), t.out(count * cols, DType::U32));
    t.run(Op::Gather(Rows { cols, x, index, out }));
    t.keep("u32", out);
}

fn scatter(t: &mut Trial<'_>, count: usize, cols: usize) {
    let (first, total) = (t.random_below(1, 100)[0], 2 * count as u32 + 3);
    // Distinct: steps of 2 on a circle of odd length.
    let index: Vec<u32> = (0..count as u32).map(|i| (first + 2 * i) % total).collect();
    let index = t.integers(&index);
    for dtype in [DType::F32, t.operand()] {
        let (values, old) = (t.random(count * cols), t.random(total as usize * cols));
        let (x, out) = (t.upload(&values, dtype), t.upload(&old, dtype));
        t.run(Op::Scatter(Rows { cols, x, index, out }));
        t.keep("out", out);
    }
}

fn embed(t: &mut Trial<'_>, storage: Storage, cols: usize) {
    let weight = t.weight(11, cols, storage);
    let tokens = t.random_below(17, 11);
    for scale in [1.0, 2.5] {
        let (tokens, out) = (t.integers(&tokens), t.out(17 * cols, DType::F32));
        t.run(Op::Embed(Embed { weight, tokens, scale, out }));
        t.keep("out", out);
    }
}

fn embed_trained(t: &mut Trial<'_>) {
    let weight = t.trained(9, 40).matrix();
    let (tokens, out) = (t.integers(&[8, 0, 3, 3]), t.out(4 * 40, DType::F32));
    t.run(Op::Embed(Embed { weight, tokens, scale: 1.0, out }));
    t.keep("out", out);
}
