//! Rows and elements moved about.

use super::memory::Memory;
use crate::op::{Embed, Rows};
use crate::{Buffer, DType, Weight};

pub(super) fn fill(memory: &mut Memory, out: Buffer, value: f32) {
    memory.write(out, &vec![f64::from(value); out.len]);
}

pub(super) fn accumulate(memory: &mut Memory, x: Buffer, out: Buffer) {
    let x = memory.numbers(x, out.len);
    let sum: Vec<f64> = memory.present(out, out.len).iter().zip(&x).map(|(o, x)| o + x).collect();
    memory.write(out, &sum);
}

pub(super) fn cast(memory: &mut Memory, x: Buffer, scale: f32, out: Buffer) {
    let x = memory.numbers(x, out.len).into_iter().map(|x| f64::from(scale) * x);
    memory.write(out, &x.collect::<Vec<f64>>());
}

pub(super) fn gather(memory: &mut Memory, op: &Rows) {
    let index = memory.integers(op.index, op.out.len / op.cols);
    for (to, from) in index.into_iter().enumerate() {
        copy_row(memory, op, from as usize, to);
    }
}

pub(super) fn scatter(memory: &mut Memory, op: &Rows) {
    let index = memory.integers(op.index, op.x.len / op.cols);
    let distinct: std::collections::BTreeSet<u32> = index.iter().copied().collect();
    assert_eq!(distinct.len(), index.len(), "indices of a scatter are distinct");
    for (from, to) in index.into_iter().enumerate() {
        copy_row(memory, op, from, to as usize);
    }
}

/// Row by row: rows that take no part need not have been written.
fn copy_row(memory: &mut Memory, op: &Rows, from: usize, to: usize) {
    assert_eq!(op.x.dtype, op.out.dtype, "types of rows that are moved");
    let cols = op.cols;
    let (x, out) = (op.x.slice(from * cols, cols), op.out.slice(to * cols, cols));
    if x.dtype == DType::U32 {
        let row = memory.integers(x, cols);
        memory.write_integers(out, &row);
    } else {
        let row = memory.numbers(x, cols);
        memory.write(out, &row);
    }
}

pub(super) fn embed(memory: &mut Memory, op: &Embed) {
    let cols = op.weight.cols;
    let tokens = memory.integers(op.tokens, op.out.len / cols);
    let mut out = Vec::with_capacity(op.out.len);
    for token in tokens {
        let row = memory.weight(op.weight).row(token as usize);
        out.extend(row.iter().map(|value| value * f64::from(op.scale)));
    }
    memory.write(op.out, &out);
}

pub(super) fn squares(memory: &mut Memory, weight: Weight, out: Buffer) {
    let matrix = memory.weight(weight);
    let squares = |row| matrix.row(row).iter().map(|x| x * x).sum();
    let squares: Vec<f64> = (0..weight.rows).map(squares).collect();
    memory.write(out, &squares);
}

pub(super) fn write(memory: &mut Memory, weight: Weight, index: Buffer, values: Buffer) {
    let cols = weight.cols;
    let index = memory.integers(index, values.len / cols);
    let distinct: std::collections::BTreeSet<u32> = index.iter().copied().collect();
    assert_eq!(distinct.len(), index.len(), "rows that are written are distinct");
    let values = memory.numbers(values, values.len);
    let matrix = memory.weights.get_mut(&weight.id).expect("a loaded weight");
    for (row, values) in index.into_iter().zip(values.chunks_exact(cols)) {
        matrix.values[row as usize * cols..][..cols].copy_from_slice(values);
    }
}
