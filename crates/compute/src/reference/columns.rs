//! Sums over rows, and factors on columns.

use super::memory::Memory;
use crate::Buffer;
use crate::op::{ColumnSums, DoraFactors, ScaleColumns, ScatterAdd};

pub(super) fn scatter_add(memory: &mut Memory, op: &ScatterAdd) {
    let x = memory.numbers(op.x, op.index.len * op.cols);
    let index = memory.integers(op.index, op.index.len);
    let mut out = memory.present(op.out, op.out.len);
    for (x, row) in x.chunks_exact(op.cols).zip(index).filter(|&(_, row)| row != u32::MAX) {
        let out = out[row as usize * op.cols..][..op.cols].iter_mut();
        out.zip(x).for_each(|(out, x)| *out += f64::from(op.scale) * x);
    }
    memory.write(op.out, &out);
}

/// An input, or ones.
fn given(memory: &mut Memory, buffer: Option<Buffer>, len: usize) -> Vec<f64> {
    buffer.map_or_else(|| vec![1.0; len], |buffer| memory.numbers(buffer, len))
}

pub(super) fn sums(memory: &mut Memory, op: &ColumnSums) {
    let groups = memory.integers(op.groups, op.groups.len);
    assert!(groups.is_sorted() && groups.first() == Some(&0), "groups {groups:?} of rows");
    let rows = groups[groups.len() - 1] as usize * op.rows_each;
    let a = memory.numbers(op.a, rows * op.cols);
    let b = given(memory, op.b, a.len());
    let row_scale = given(memory, op.row_scale, rows);
    let divisor = given(memory, op.divisor, op.cols);
    let mut gradient = memory.present(op.gradient, op.cols);
    for (i, (a, b)) in a.iter().zip(&b).enumerate() {
        gradient[i % op.cols] += row_scale[i / op.cols] * a * b / divisor[i % op.cols];
    }
    memory.write(op.gradient, &gradient);
}

pub(super) fn scale(memory: &mut Memory, op: &ScaleColumns) {
    let len = op.out.len;
    let mut read = |buffer: Buffer| match buffer == op.out {
        true => memory.present(buffer, len),
        false => memory.numbers(buffer, len),
    };
    let (x, base) = (read(op.x), op.base.map(read));
    let factors = memory.numbers(op.factors, op.cols);
    let bias = op.bias.map(|bias| memory.numbers(bias, op.cols));
    let value = |i: usize| {
        let column = i % op.cols;
        let shifted = x[i] * factors[column] + bias.as_ref().map_or(0.0, |bias| bias[column]);
        base.as_ref().map_or(0.0, |base| base[i]) + f64::from(op.scale) * shifted
    };
    let out: Vec<f64> = (0..len).map(value).collect();
    memory.write(op.out, &out);
}

pub(super) fn dora_factors(memory: &mut Memory, op: &DoraFactors) {
    let (outputs, rank) = (op.outputs, op.rank);
    let squares = memory.numbers(op.squares, outputs);
    let product = memory.numbers(op.product, rank * outputs);
    let gram = memory.numbers(op.gram, rank * rank);
    let b = memory.numbers(op.b, outputs * rank);
    let magnitude = memory.numbers(op.magnitude, outputs);
    let scaling = f64::from(op.scaling);
    let norm = |n: usize| {
        let b = &b[n * rank..][..rank];
        let linear: f64 = b.iter().enumerate().map(|(i, b)| b * product[i * outputs + n]).sum();
        let row = |i: usize| b.iter().zip(&gram[i * rank..]).map(|(b, g)| b * g).sum::<f64>();
        let square: f64 = b.iter().enumerate().map(|(i, b)| b * row(i)).sum();
        (squares[n] + 2.0 * scaling * linear + scaling * scaling * square).sqrt()
    };
    let norms: Vec<f64> = (0..outputs).map(norm).collect();
    let factors = magnitude.iter().zip(&norms).map(|(magnitude, norm)| magnitude / norm);
    memory.write(op.factors, &factors.collect::<Vec<f64>>());
    memory.write(op.norms, &norms);
}
