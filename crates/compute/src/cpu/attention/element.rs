//! What products multiply: a word of 32 bits is one f32, or two neighbours along K as bf16.

use super::TILE;
use crate::cpu::operand::{LANES, Operand, load_chunk};
use crate::cpu::simd::{Dot, Simd};

/// Numbers that are brought into words together.
const RUN: usize = 2 * LANES;

/// A way to hold numbers in words.
pub(super) trait PackedElement<T: Operand, S: Simd> {
    /// Numbers in a word.
    const NUMBERS: usize;

    /// `c` and the products of the numbers in `a` and `b`, lane by lane.
    fn multiply(simd: S, a: S::V, b: S::V, c: S::V) -> S::V;

    /// The 16 words of a row from word `at` on; zeros from its end on.
    fn load(simd: S, row: &[T], at: usize) -> S::V;

    /// The same without a look at the end.
    ///
    /// # Safety
    /// The row has 16 words from word `at` on.
    unsafe fn load_whole(simd: S, row: &[T], at: usize) -> S::V;

    /// The same numbers of as many rows as go into a word, or of one row and zeros: 32 words.
    fn join(simd: S, first: &[T], second: &[T], at: usize) -> [S::V; 2];

    /// Writes numbers `32 * run..32 * (run + 1)` of a row, which may lie over its numbers as f32: of those,
    /// only what has been read is written over.
    fn store(simd: S, v: [S::V; 2], row: &mut [f32], run: usize);

    /// Two rows of a tile as [`store`](PackedElement::store) wrote them, number by number in one word; without a
    /// second one with zeros. Nothing, where a word has room for one.
    fn fold(simd: S, first: &[f32], second: Option<&[f32]>, out: &mut [f32]);
}

/// One f32 a word.
pub(super) struct Floats;

impl<T: Operand, S: Simd> PackedElement<T, S> for Floats {
    const NUMBERS: usize = 1;

    #[inline(always)]
    fn multiply(simd: S, a: S::V, b: S::V, c: S::V) -> S::V {
        simd.fma(a, b, c)
    }

    #[inline(always)]
    fn load(simd: S, row: &[T], at: usize) -> S::V {
        load_columns(simd, row, at)
    }

    #[inline(always)]
    unsafe fn load_whole(simd: S, row: &[T], at: usize) -> S::V {
        // SAFETY: the caller's duty.
        T::load16(simd, unsafe { &*row.as_ptr().add(at).cast() })
    }

    #[inline(always)]
    fn join(simd: S, first: &[T], _: &[T], at: usize) -> [S::V; 2] {
        [load_columns(simd, first, at), load_columns(simd, first, at + LANES)]
    }

    #[inline(always)]
    fn store(simd: S, v: [S::V; 2], row: &mut [f32], run: usize) {
        let (chunks, _) = row[run * RUN..].as_chunks_mut();
        simd.store(v[0], &mut chunks[0]);
        simd.store(v[1], &mut chunks[1]);
    }

    #[inline(always)]
    fn fold(_: S, _: &[f32], _: Option<&[f32]>, _: &mut [f32]) {}
}

/// Two bf16 a word.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "only x86-64 multiplies pairs"))]
pub(super) struct Bf16Pairs;

impl<T: Operand, S: Dot> PackedElement<T, S> for Bf16Pairs {
    const NUMBERS: usize = 2;

    #[inline(always)]
    fn multiply(simd: S, a: S::V, b: S::V, c: S::V) -> S::V {
        simd.dot(a, b, c)
    }

    #[inline(always)]
    fn load(simd: S, row: &[T], at: usize) -> S::V {
        load_pairs(simd, row, 2 * at)
    }

    #[inline(always)]
    unsafe fn load_whole(simd: S, row: &[T], at: usize) -> S::V {
        let row = T::halves(row).expect("pairs are bf16");
        // SAFETY: the caller's duty: a word has two numbers.
        simd.load_pairs(unsafe { &*row.as_ptr().add(2 * at).cast() })
    }

    #[inline(always)]
    fn join(simd: S, first: &[T], second: &[T], at: usize) -> [S::V; 2] {
        simd.interleave(load_pairs(simd, first, at), load_pairs(simd, second, at))
    }

    #[inline(always)]
    fn store(simd: S, v: [S::V; 2], row: &mut [f32], run: usize) {
        let (chunks, _) = row.as_chunks_mut();
        simd.store(simd.round_pairs(v[0], v[1]), &mut chunks[run]);
    }

    #[inline(always)]
    fn fold(simd: S, first: &[f32], second: Option<&[f32]>, out: &mut [f32]) {
        let (out, _) = out.as_chunks_mut();
        for run in 0..TILE / RUN {
            let first = simd.load(&first.as_chunks().0[run]);
            let second = match second {
                Some(second) => simd.load(&second.as_chunks().0[run]),
                None => simd.zero(),
            };
            let [low, high] = simd.interleave(first, second);
            simd.store(low, &mut out[2 * run]);
            simd.store(high, &mut out[2 * run + 1]);
        }
    }
}

/// The 32 numbers of a row of bf16 from number `at` on; zeros from its end on.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "only x86-64 multiplies pairs"))]
#[inline(always)]
fn load_pairs<S: Dot, T: Operand>(simd: S, row: &[T], at: usize) -> S::V {
    let row = T::halves(row).expect("pairs are bf16");
    let rest = row.get(at..).unwrap_or(&[]);
    if let Some(whole) = rest.first_chunk() {
        return simd.load_pairs(whole);
    }
    let mut padded = [0; RUN];
    padded[..rest.len()].copy_from_slice(rest);
    simd.load_pairs(&padded)
}

/// 16 numbers of a row from column `column` on, with zeros from its end on.
#[inline(always)]
pub(super) fn load_columns<S: Simd, T: Operand>(simd: S, row: &[T], column: usize) -> S::V {
    match row.get(column..) {
        Some(rest) => load_chunk(simd, rest),
        None => simd.zero(),
    }
}

/// Writes a row as words, with zeros behind it.
#[inline(always)]
pub(super) fn pack_row<T: Operand, S: Simd, W: PackedElement<T, S>>(
    simd: S,
    row: &[T],
    out: &mut [f32],
) {
    for (index, out) in out.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
        simd.store(W::load(simd, row, index * LANES), out);
    }
}

/// Writes the rows that go into one word each, with zeros behind them.
#[inline(always)]
pub(super) fn pack_joined<T: Operand, S: Simd, W: PackedElement<T, S>>(
    simd: S,
    [first, second]: [&[T]; 2],
    out: &mut [f32],
) {
    for (index, out) in out.as_chunks_mut::<RUN>().0.iter_mut().enumerate() {
        let (out, _) = out.as_chunks_mut();
        let [low, high] = W::join(simd, first, second, index * RUN);
        simd.store(low, &mut out[0]);
        simd.store(high, &mut out[1]);
    }
}
