//! Root-mean-square norm.

use super::memory::Memory;
use crate::Buffer;
use crate::op::{RmsNorm, RmsNormBackward};

/// `offset + weight`.
fn factors(memory: &mut Memory, weight: Buffer, offset: f32, cols: usize) -> Vec<f64> {
    memory.numbers(weight, cols).into_iter().map(|weight| f64::from(offset) + weight).collect()
}

pub(super) fn forward(memory: &mut Memory, op: &RmsNorm) {
    let x = memory.numbers(op.x, op.x.len);
    let factors = factors(memory, op.weight, op.offset, op.cols);
    let (mut out, mut rstds) = (Vec::new(), Vec::new());
    for x in x.chunks_exact(op.cols) {
        let mean_square = x.iter().map(|x| x * x).sum::<f64>() / op.cols as f64;
        let rstd = 1.0 / (mean_square + f64::from(op.eps)).sqrt();
        out.extend(x.iter().zip(&factors).map(|(x, factor)| x * rstd * factor));
        rstds.push(rstd);
    }
    memory.write(op.out, &out);
    memory.write(op.rstd, &rstds);
}

/// `dx = rstd * (g - x * rstd^2 * mean(g x))` with `g = dout * (offset + weight)`.
pub(super) fn backward(memory: &mut Memory, op: &RmsNormBackward) {
    let dout = memory.numbers(op.dout, op.dx.len);
    let x = memory.numbers(op.x, op.dx.len);
    let factors = factors(memory, op.weight, op.offset, op.cols);
    let rstd = memory.numbers(op.rstd, op.dx.len / op.cols);
    let mut dx = memory.present(op.dx, op.dx.len);
    for (row, dx) in dx.chunks_exact_mut(op.cols).enumerate() {
        let at = row * op.cols;
        let g: Vec<f64> = (0..op.cols).map(|i| dout[at + i] * factors[i]).collect();
        let mean = (0..op.cols).map(|i| g[i] * x[at + i]).sum::<f64>() / op.cols as f64;
        for (i, dx) in dx.iter_mut().enumerate() {
            *dx += rstd[row] * (g[i] - x[at + i] * rstd[row] * rstd[row] * mean);
        }
    }
    memory.write(op.dx, &dx);
}
