//! Dropout by hash.

use super::memory::Memory;
use crate::op::Dropout;
use crate::random::{keeps, key};

pub(super) fn forward(memory: &mut Memory, op: &Dropout) {
    let len = op.out.len;
    let keys = memory.integers(op.row_keys, len / op.cols * 3);
    let x = memory.numbers(op.x, len);
    let mut out = match op.base {
        Some(base) if base == op.out => memory.present(base, len),
        Some(base) => memory.numbers(base, len),
        None => vec![0.0; len],
    };
    let factor = 1.0 / (1.0 - f64::from(op.p));
    let rows = out.chunks_exact_mut(op.cols).zip(x.chunks_exact(op.cols));
    for ((out, x), row) in rows.zip(keys.chunks_exact(3)) {
        let identity = u64::from(row[0]) | (u64::from(row[1]) << 32);
        let row_hash = key(&[op.key, identity, u64::from(row[2])]);
        for (column, (out, x)) in out.iter_mut().zip(x).enumerate() {
            if keeps(row_hash, column as u64, op.p) {
                *out += x * factor;
            }
        }
    }
    memory.write(op.out, &out);
}
