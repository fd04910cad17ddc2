//! Panels of one bf16 a step from stored weights, 32 numbers at a time, with AVX2.
//!
//! No closures over vectors: one that is not inlined passes them through memory.

use std::arch::x86_64::*;

use super::bf16_avx2::pack;
use super::quantized_blocks::{Ahead, GROUP, Groups};
use crate::cpu::panel::PANEL;
use crate::cpu::simd::transpose8;

/// Unpacks `rows` (at most 32) rows of groups, columns `first..last`, into steps of a panel.
///
/// # Safety
/// The processor has the instructions; `out` has room for the steps.
#[target_feature(enable = "avx2,f16c")]
pub(crate) unsafe fn unpack(
    matrix: impl Groups,
    (first_row, rows): (usize, usize),
    (first, last): (usize, usize),
    out: *mut u16,
) {
    let mut square = [[_mm256_setzero_si256(); 2]; PANEL];
    // Rows lie behind each other, and 32 of them at a time are more than the processor follows by itself.
    let next = Ahead::new(matrix.stored(first_row + PANEL, PANEL), (last - first) / GROUP);
    for group in first / GROUP..last / GROUP {
        next.fetch(group - first / GROUP);
        for (lane, square) in square.iter_mut().enumerate().take(rows) {
            // SAFETY: the caller's duty.
            *square = unsafe { matrix.halves(first_row + lane, group) };
        }
        for part in 0..2 {
            let step = (group - first / GROUP) * GROUP + 16 * part;
            for side in 0..2 {
                // SAFETY: 16 steps from this one on lie inside `out`.
                unsafe {
                    let out = out.add(step * PANEL + 16 * side);
                    sixteen_steps(&square, part, 16 * side, out);
                }
            }
        }
    }
}

/// Half a group of the 16 rows from `first` on, step by step.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn sixteen_steps(square: &[[__m256i; 2]; PANEL], part: usize, first: usize, out: *mut u16) {
    // Words are pairs of neighbours in a row; transposed, eight rows stand side by side.
    let low = eight_rows(square, first, part);
    let high = eight_rows(square, first + 8, part);
    let mask = _mm256_set1_epi32(0xFFFF);
    for pair in 0..8 {
        let (low, high) = (_mm256_castps_si256(low[pair]), _mm256_castps_si256(high[pair]));
        let even = pack(_mm256_and_si256(low, mask), _mm256_and_si256(high, mask));
        let odd = pack(_mm256_srli_epi32::<16>(low), _mm256_srli_epi32::<16>(high));
        // SAFETY: the caller's duty.
        unsafe {
            _mm256_storeu_si256(out.add(2 * pair * PANEL).cast(), even);
            _mm256_storeu_si256(out.add((2 * pair + 1) * PANEL).cast(), odd);
        }
    }
}

/// Half a group of eight rows: word `pair` of all of them in the vector of that number.
#[inline]
#[target_feature(enable = "avx2")]
fn eight_rows(square: &[[__m256i; 2]; PANEL], first: usize, part: usize) -> [__m256; 8] {
    let mut rows = [_mm256_setzero_ps(); 8];
    for (i, row) in rows.iter_mut().enumerate() {
        *row = _mm256_castsi256_ps(square[first + i][part]);
    }
    transpose8(rows)
}

/// Unpacks one group of a row into a step of a panel of the transpose.
///
/// # Safety
/// The processor has the instructions; `out` has room for a step.
#[target_feature(enable = "avx2,f16c")]
pub(crate) unsafe fn unpack_transposed(
    matrix: impl Groups,
    row: usize,
    group: usize,
    out: *mut u16,
) {
    // SAFETY: the caller's duty.
    unsafe {
        let [first, second] = matrix.halves(row, group);
        _mm256_storeu_si256(out.cast(), first);
        _mm256_storeu_si256(out.add(16).cast(), second);
    }
}
