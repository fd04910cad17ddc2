//! Rows of heads to packed words and back.

use super::TILE;
use super::element::{PackedElement, load_columns, pack_joined};
use crate::cpu::operand::{LANES, Operand, store_chunk};
use crate::cpu::simd::Simd;

/// Writes a row to a packed row of f32, with zeros behind it.
#[inline(always)]
pub(super) fn unpack_row<S: Simd, T: Operand>(simd: S, row: &[T], packed: &mut [f32]) {
    let (whole, rest) = row.as_chunks::<LANES>();
    let (packed, _) = packed.as_chunks_mut::<LANES>();
    let (packed, behind) = packed.split_at_mut(whole.len());
    for (chunk, packed) in whole.iter().zip(packed) {
        simd.store(T::load16(simd, chunk), packed);
    }
    for (index, packed) in behind.iter_mut().enumerate() {
        simd.store(load_columns(simd, rest, index * LANES), packed);
    }
}

/// Writes `factor` times a packed row to a row.
#[inline(always)]
pub(super) fn store_row<S: Simd, T: Operand>(simd: S, packed: &[f32], factor: f32, row: &mut [T]) {
    let factor = simd.splat(factor);
    for (row, packed) in row.chunks_mut(LANES).zip(packed.as_chunks::<LANES>().0) {
        store_chunk(simd, simd.mul(simd.load(packed), factor), row);
    }
}

/// Rows of keys or values in memory.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a, T> {
    pub(super) x: &'a [T],
    /// From a row to the next.
    pub(super) step: usize,
    /// From the start of a row to the head.
    pub(super) offset: usize,
    pub(super) head_dim: usize,
}

impl<'a, T: Operand> Rows<'a, T> {
    #[inline(always)]
    fn row(&self, row: usize) -> &'a [T] {
        &self.x[row * self.step + self.offset..][..self.head_dim]
    }

    /// Asks for rows that will be packed next.
    #[inline(always)]
    fn prefetch<S: Simd>(&self, simd: S, row: Option<&usize>) {
        if let Some(&row) = row {
            simd.prefetch(self.row(row));
        }
    }

    /// Writes the rows of a tile as `[TILE / NUMBERS, padded]` words along rows, zeros where there are none;
    /// `next` are the rows of the tile after it.
    #[inline(always)]
    pub(super) fn pack<S: Simd, W: PackedElement<T, S>>(
        &self,
        simd: S,
        rows: &[usize],
        next: &[usize],
        padded: usize,
        out: &mut [f32],
    ) {
        let mut packed = out[..TILE / W::NUMBERS * padded].chunks_exact_mut(padded);
        for (first, packed) in (0..rows.len()).step_by(W::NUMBERS).zip(&mut packed) {
            for i in first..first + W::NUMBERS {
                self.prefetch(simd, next.get(i));
            }
            let second = rows.get(first + 1).map_or(&[][..], |&row| self.row(row));
            pack_joined::<T, S, W>(simd, [self.row(rows[first]), second], packed);
        }
        packed.for_each(|packed| packed.fill(0.0));
    }

    /// Writes the rows of a tile as `[padded / NUMBERS, TILE]` words along columns, otherwise as
    /// [`pack`](Rows::pack).
    #[inline(always)]
    pub(super) fn pack_transposed<S: Simd, W: PackedElement<T, S>>(
        &self,
        simd: S,
        rows: &[usize],
        next: &[usize],
        padded: usize,
        out: &mut [f32],
    ) {
        for first in (0..TILE).step_by(LANES) {
            let mut block: [&[T]; LANES] = [&[]; LANES];
            for (i, row) in block.iter_mut().enumerate() {
                self.prefetch(simd, next.get(first + i));
                *row = rows.get(first + i).map_or(&[], |&row| self.row(row));
            }
            let there = rows.len() >= first + LANES;
            for word in (0..padded / W::NUMBERS).step_by(LANES) {
                let mut v = [simd.zero(); LANES];
                if there && (word + LANES) * W::NUMBERS <= self.head_dim {
                    for i in 0..LANES {
                        // SAFETY: all 16 rows are there, and have 16 words from this one on.
                        v[i] = unsafe { W::load_whole(simd, block[i], word) };
                    }
                } else {
                    for (v, row) in v.iter_mut().zip(block) {
                        *v = W::load(simd, row, word);
                    }
                }
                simd.transpose(&mut v);
                for (i, v) in v.into_iter().enumerate() {
                    let to = &mut out[(word + i) * TILE + first..];
                    simd.store(v, to.first_chunk_mut().expect("16 numbers"));
                }
            }
        }
    }
}
