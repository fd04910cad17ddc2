//! Work that goes row by row: how it is spread over threads, and filling, adding and moving.

use std::ops::Range;

use super::operand::{Operand, Shared};
use super::{Isa, Pool, versions};

/// Elements that are worth a task of their own: a few microseconds of streaming.
pub(crate) const TASK_ELEMENTS: usize = 16 * 1024;

/// Runs `body` for ranges that together cover `0..rows`, where a row has `cols` elements.
pub(crate) fn spread(pool: &Pool, rows: usize, cols: usize, body: &(dyn Fn(Range<usize>) + Sync)) {
    let grain = (TASK_ELEMENTS / cols.max(1)).max(1);
    pool.run(rows.div_ceil(grain), &|task, _| {
        body(task * grain..((task + 1) * grain).min(rows));
    });
}

/// `out = value`.
pub(crate) fn fill<T: Operand>(pool: &Pool, out: &mut [T], value: f32) {
    let (len, value) = (out.len(), T::store(value));
    let out = Shared::new(out);
    spread(pool, len, 1, &|range| {
        // SAFETY: ranges are disjoint.
        unsafe { out.part(range) }.fill(value);
    });
}

/// `out += x`.
pub(crate) fn accumulate(pool: &Pool, isa: Isa, x: &[f32], out: &mut [f32]) {
    assert_eq!(x.len(), out.len(), "accumulate: lengths");
    let out = Shared::new(out);
    spread(pool, x.len(), 1, &|range| {
        // SAFETY: ranges are disjoint.
        let out = unsafe { out.part(range.clone()) };
        add(isa, &x[range], out);
    });
}

versions! { fn add(x: &[f32], out: &mut [f32]) = add_body; }

#[inline(always)]
fn add_body(x: &[f32], out: &mut [f32]) {
    for (out, x) in out.iter_mut().zip(x) {
        *out += x;
    }
}

/// `out[i] = x[index[i]]` by rows of `cols`. `T` is any type of the element's size.
pub(crate) fn gather<T: Copy + Send + Sync>(
    pool: &Pool,
    cols: usize,
    x: &[T],
    index: &[u32],
    out: &mut [T],
) {
    assert_eq!(out.len(), index.len() * cols, "gather: out is [index, cols]");
    let out = Shared::new(out);
    spread(pool, index.len(), cols, &|range| {
        // SAFETY: ranges are disjoint.
        let out = unsafe { out.part(range.start * cols..range.end * cols) };
        for (out, &row) in out.chunks_exact_mut(cols).zip(&index[range]) {
            out.copy_from_slice(&x[row as usize * cols..][..cols]);
        }
    });
}

/// `out[index[i]] = x[i]` by rows of `cols`; indices are distinct.
pub(crate) fn scatter<T: Copy + Send + Sync>(
    pool: &Pool,
    cols: usize,
    x: &[T],
    index: &[u32],
    out: &mut [T],
) {
    assert_eq!(x.len(), index.len() * cols, "scatter: x is [index, cols]");
    let out = Shared::new(out);
    spread(pool, index.len(), cols, &|range| {
        for row in range {
            let to = index[row] as usize * cols;
            // SAFETY: indices are distinct, so rows are disjoint.
            let out = unsafe { out.part(to..to + cols) };
            out.copy_from_slice(&x[row * cols..][..cols]);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_covered_once() {
        for (rows, cols) in [(0, 5), (1, 1), (3, 1_000_000), (40_000, 3)] {
            let mut seen = vec![0_u8; rows];
            let shared = Shared::new(&mut seen);
            spread(&Pool::new(2), rows, cols, &|range| {
                // SAFETY: under test; an overlap would only miscount.
                unsafe { shared.part(range) }.iter_mut().for_each(|seen| *seen += 1);
            });
            assert!(seen.iter().all(|&seen| seen == 1), "{rows} x {cols}");
        }
    }

    #[test]
    fn moving_there_and_back() {
        let pool = Pool::new(2);
        let x: Vec<u32> = (0..12).collect();
        let mut gathered = [0; 6];
        gather(&pool, 3, &x, &[3, 1], &mut gathered);
        assert_eq!(gathered, [9, 10, 11, 3, 4, 5]);
        let mut out = [7; 12];
        scatter(&pool, 3, &gathered, &[3, 1], &mut out);
        assert_eq!(out, [7, 7, 7, 3, 4, 5, 7, 7, 7, 9, 10, 11]);
    }

    #[test]
    fn filling_and_adding() {
        let pool = Pool::new(2);
        let (mut half, mut out) = ([0_u16; 40_000], [0.0; 40_000]);
        fill(&pool, &mut half, 1.0);
        fill(&pool, &mut out, 1.5);
        accumulate(&pool, Isa::detect(), &[0.25; 40_000], &mut out);
        assert!(half.iter().all(|&x| x == 0x3F80) && out.iter().all(|&x| x == 1.75));
    }
}
