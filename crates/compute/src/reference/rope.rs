//! Rotary positions.

use super::memory::Memory;
use crate::op::{Rope, RopeTable};

pub(super) fn table(memory: &mut Memory, op: &RopeTable) {
    let positions = memory.integers(op.positions, op.positions.len);
    let inv_freq = memory.numbers(op.inv_freq, op.inv_freq.len);
    let (mut cos, mut sin) = (Vec::new(), Vec::new());
    for position in positions {
        for frequency in &inv_freq {
            let angle = f64::from(position) * frequency;
            cos.push(angle.cos() * f64::from(op.scale));
            sin.push(angle.sin() * f64::from(op.scale));
        }
    }
    memory.write(op.cos, &cos);
    memory.write(op.sin, &sin);
}

pub(super) fn rotate(memory: &mut Memory, op: &Rope) {
    let (width, half) = (op.heads * op.head_dim, op.rotary_dim / 2);
    let fits = op.rotary_dim.is_multiple_of(2) && op.rotary_dim <= op.head_dim;
    assert!(fits, "{} of {} numbers are rotated", op.rotary_dim, op.head_dim);
    let rows = op.x.len / width;
    let x = memory.numbers(op.x, rows * width);
    let cos = memory.numbers(op.cos, rows * half);
    let sin = memory.numbers(op.sin, rows * half);
    let sign = if op.inverse { -1.0 } else { 1.0 };
    let mut out = x.clone();
    for row in 0..rows {
        for head in 0..op.heads {
            let at = row * width + head * op.head_dim;
            for i in 0..half {
                let (cos, sin) = (cos[row * half + i], sign * sin[row * half + i]);
                let (first, second) = (x[at + i], x[at + half + i]);
                out[at + i] = first * cos - second * sin;
                out[at + half + i] = second * cos + first * sin;
            }
        }
    }
    memory.write(op.out, &out);
}
