//! Panels of bf16 pairs with AVX-512: from stored weights, and from panels of the transpose.

use std::arch::x86_64::*;

use super::quantized_blocks::{Ahead, GROUP, Groups};
use crate::cpu::panel::PANEL;

/// Steps that one group fills.
const GROUP_STEPS: usize = GROUP / 2;

/// Turns part of a panel of a matrix into part of a panel of its transpose.
///
/// `source` is `[columns / 2][32 rows]` pairs of neighbours in a row, `out` becomes
/// `[steps][32 columns]` pairs of neighbours in a column; columns that are missing become 0.
///
/// # Safety
/// The processor has the instructions. `source` holds the columns (the last of an odd number with its
/// pad), `out` has room for the steps, at most 16.
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) unsafe fn transpose(source: *const u32, columns: usize, steps: usize, out: *mut u32) {
    // Swaps the inner two of four halves: a 2 x 2 transpose.
    let inner =
        _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15));
    // What is left is a 16 x 16 transpose of 64-bit squares, here by 8 x 8.
    for across in 0..2 {
        for down in 0..2 {
            let mut rows = [_mm512_setzero_si512(); 8];
            for (index, row) in rows.iter_mut().enumerate() {
                let pair = 8 * down + index;
                if 2 * pair < columns {
                    // SAFETY: the pair of columns exists.
                    let words = unsafe {
                        _mm512_loadu_si512(source.add(pair * PANEL + 16 * across).cast())
                    };
                    *row = _mm512_shuffle_epi8(words, inner);
                }
            }
            for (index, row) in transpose_squares(rows).into_iter().enumerate() {
                let step = 8 * across + index;
                if step < steps {
                    // SAFETY: the step lies inside `out`.
                    unsafe {
                        _mm512_storeu_si512(out.add(step * PANEL + 16 * down).cast(), row);
                    }
                }
            }
        }
    }
}

/// Transposes 8 x 8 words of 64 bits.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose_squares(rows: [__m512i; 8]) -> [__m512i; 8] {
    let mut out = rows;
    for odd in 0..2 {
        let [a, b, c, d] = [0, 1, 2, 3].map(|i| match odd {
            0 => _mm512_unpacklo_epi64(rows[2 * i], rows[2 * i + 1]),
            _ => _mm512_unpackhi_epi64(rows[2 * i], rows[2 * i + 1]),
        });
        let (ab_low, ab_high) =
            (_mm512_shuffle_i64x2::<0x44>(a, b), _mm512_shuffle_i64x2::<0xEE>(a, b));
        let (cd_low, cd_high) =
            (_mm512_shuffle_i64x2::<0x44>(c, d), _mm512_shuffle_i64x2::<0xEE>(c, d));
        out[odd] = _mm512_shuffle_i64x2::<0x88>(ab_low, cd_low);
        out[2 + odd] = _mm512_shuffle_i64x2::<0xDD>(ab_low, cd_low);
        out[4 + odd] = _mm512_shuffle_i64x2::<0x88>(ab_high, cd_high);
        out[6 + odd] = _mm512_shuffle_i64x2::<0xDD>(ab_high, cd_high);
    }
    out
}

/// Transposes 16 x 16 words of 32 bits.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose_words(rows: [__m512i; 16]) -> [__m512i; 16] {
    let mut quads = rows;
    for quad in 0..4 {
        let [a, b, c, d] = [0, 1, 2, 3].map(|i| rows[4 * quad + i]);
        let (ab_low, ab_high) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
        let (cd_low, cd_high) = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
        quads[4 * quad] = _mm512_unpacklo_epi64(ab_low, cd_low);
        quads[4 * quad + 1] = _mm512_unpackhi_epi64(ab_low, cd_low);
        quads[4 * quad + 2] = _mm512_unpacklo_epi64(ab_high, cd_high);
        quads[4 * quad + 3] = _mm512_unpackhi_epi64(ab_high, cd_high);
    }
    let mut out = rows;
    for c in 0..4 {
        let [a, b, x, y] = [0, 1, 2, 3].map(|i| quads[4 * i + c]);
        let (ab_low, ab_high) =
            (_mm512_shuffle_i32x4::<0x44>(a, b), _mm512_shuffle_i32x4::<0xEE>(a, b));
        let (xy_low, xy_high) =
            (_mm512_shuffle_i32x4::<0x44>(x, y), _mm512_shuffle_i32x4::<0xEE>(x, y));
        out[c] = _mm512_shuffle_i32x4::<0x88>(ab_low, xy_low);
        out[4 + c] = _mm512_shuffle_i32x4::<0xDD>(ab_low, xy_low);
        out[8 + c] = _mm512_shuffle_i32x4::<0x88>(ab_high, xy_high);
        out[12 + c] = _mm512_shuffle_i32x4::<0xDD>(ab_high, xy_high);
    }
    out
}

/// Unpacks `rows` (at most 32) rows of groups, columns `first..last`, into steps of a panel.
///
/// # Safety
/// The processor has the instructions; `out` has room for the steps.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2,f16c")]
pub(crate) unsafe fn unpack(
    matrix: impl Groups,
    (first_row, rows): (usize, usize),
    (first, last): (usize, usize),
    out: *mut u32,
) {
    // Rows lie behind each other, and 16 of them at a time are more than the processor follows by itself.
    let next = Ahead::new(matrix.stored(first_row + PANEL, PANEL), (last - first) / GROUP);
    for half in 0..2 {
        let rows = rows.saturating_sub(16 * half);
        for group in first / GROUP..last / GROUP {
            if half == 0 {
                next.fetch(group - first / GROUP);
            }
            let mut square = [_mm512_setzero_si512(); 16];
            for (lane, square) in square.iter_mut().enumerate().take(rows) {
                // SAFETY: the caller's duty.
                *square = unsafe { matrix.group(first_row + 16 * half + lane, group) };
            }
            let step = (group - first / GROUP) * GROUP_STEPS;
            for (lane, words) in transpose_words(square).into_iter().enumerate() {
                // SAFETY: the step lies inside `out`.
                unsafe {
                    let out = out.add((step + lane) * PANEL + 16 * half);
                    _mm512_storeu_si512(out.cast(), words);
                }
            }
        }
    }
}

/// Unpacks one group of each of two neighbouring rows (or of one and zeros) into a step of a panel of the
/// transpose.
///
/// # Safety
/// The processor has the instructions; `out` has room for a step.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2,f16c")]
pub(crate) unsafe fn unpack_transposed(
    matrix: impl Groups,
    (row, rows): (usize, usize),
    group: usize,
    out: *mut u32,
) {
    // SAFETY: the caller's duty.
    let low = unsafe { matrix.group(row, group) };
    let high = match rows {
        // SAFETY: the caller's duty.
        2 => unsafe { matrix.group(row + 1, group) },
        _ => _mm512_setzero_si512(),
    };
    // Interleaving works within quarters; the permutations put quarters in order.
    let (even, odd) = (_mm512_unpacklo_epi16(low, high), _mm512_unpackhi_epi16(low, high));
    let first = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11);
    let second = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
    // SAFETY: the step lies inside `out`.
    unsafe {
        _mm512_storeu_si512(out.cast(), _mm512_permutex2var_epi64(even, first, odd));
        _mm512_storeu_si512(out.add(16).cast(), _mm512_permutex2var_epi64(even, second, odd));
    }
}
