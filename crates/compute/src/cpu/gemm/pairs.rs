//! Packing for products of bf16 pairs with AVX-512.

use std::arch::x86_64::*;

use super::PANEL;
use crate::Storage;

/// Steps that one block of 32 numbers fills.
const BLOCK_STEPS: usize = 16;

/// Turns part of a panel of a matrix into part of a panel of its transpose.
///
/// `source` is `[columns / 2][32 rows]` pairs of neighbours in a row, `out` becomes
/// `[steps][32 columns]` pairs of neighbours in a column; columns that are missing become 0.
///
/// # Safety
/// The processor has the instructions. `source` holds the columns (the last of an odd number with its
/// pad), `out` has room for the steps, at most 16.
#[target_feature(enable = "avx512f,avx512bw")]
pub(crate) unsafe fn transpose(source: *const u32, columns: usize, steps: usize, out: *mut u32) {
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

/// Whether blocks of the type are unpacked here.
pub(crate) fn unpacks(storage: Storage) -> bool {
    matches!(storage, Storage::Q4_0 | Storage::Q4_1 | Storage::Q8_0)
}

/// A block's 32 numbers as bf16.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2,f16c")]
fn block(storage: Storage, bytes: &[u8]) -> __m512i {
    match storage {
        Storage::Q4_0 => {
            let d = scales(u32::from(u16::from_le_bytes([bytes[0], bytes[1]])));
            let d = _mm512_broadcastss_ps(d);
            let table = _mm512_mul_ps(d, _mm512_sub_ps(sixteen(), _mm512_set1_ps(8.0)));
            look_up(table, bytes[2..18].try_into().expect("16 bytes"))
        }
        Storage::Q4_1 => {
            let both = scales(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
            let d = _mm512_broadcastss_ps(both);
            let m = _mm512_broadcastss_ps(_mm_movehdup_ps(both));
            let table = _mm512_add_ps(_mm512_mul_ps(d, sixteen()), m);
            look_up(table, bytes[4..20].try_into().expect("16 bytes"))
        }
        Storage::Q8_0 => {
            let d = scales(u32::from(u16::from_le_bytes([bytes[0], bytes[1]])));
            let d = _mm512_broadcastss_ps(d);
            let halves = [2, 18].map(|at| {
                let quants: &[u8; 16] = bytes[at..at + 16].try_into().expect("16 bytes");
                // SAFETY: 16 bytes can be read.
                let quants = unsafe { _mm_loadu_si128(quants.as_ptr().cast()) };
                _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(quants)), d)
            });
            round(halves[0], halves[1])
        }
        _ => unreachable!("only types of `unpacks` are unpacked"),
    }
}

/// Two f16 in one word as f32.
#[inline]
#[target_feature(enable = "f16c,sse2")]
fn scales(halves: u32) -> __m128 {
    _mm_cvtph_ps(_mm_cvtsi32_si128(halves.cast_signed()))
}

/// 0 to 15.
#[inline]
#[target_feature(enable = "avx512f")]
fn sixteen() -> __m512 {
    _mm512_setr_ps(
        0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0,
    )
}

/// 32 numbers rounded to bf16, in order.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn round(low: __m512, high: __m512) -> __m512i {
    // SAFETY: both types are 512 plain bits.
    unsafe { std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low)) }
}

/// The table's entries (there are only 16 values in a block) for the low, then the high halves of bytes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2")]
fn look_up(table: __m512, bytes: &[u8; 16]) -> __m512i {
    // SAFETY: 16 bytes can be read; both types are 256 plain bits.
    let (bytes, table) = unsafe {
        let table = std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(table));
        (_mm_loadu_si128(bytes.as_ptr().cast()), table)
    };
    let low = _mm256_cvtepu8_epi16(bytes);
    let high = _mm256_srli_epi16::<4>(low);
    let index = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high);
    // The table twice: of the five bits of an index that count, the highest does not matter.
    let table = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(table), table);
    _mm512_permutexvar_epi16(index, table)
}

/// Unpacks `rows` (at most 32) rows of blocks, columns `first..last`, into steps of a panel.
///
/// # Safety
/// The processor has the instructions; `out` has room for the steps.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2,f16c")]
pub(crate) unsafe fn unpack<'a>(
    storage: Storage,
    row: impl Fn(usize) -> &'a [u8],
    rows: usize,
    (first, last): (usize, usize),
    out: *mut u32,
) {
    let size = storage.block_bytes();
    let empty: &[u8] = &[];
    for half in 0..2 {
        let sources: [&[u8]; 16] = std::array::from_fn(|lane| {
            if 16 * half + lane < rows { row(16 * half + lane) } else { empty }
        });
        for index in first / 32..last / 32 {
            let mut square = [_mm512_setzero_si512(); 16];
            for (square, source) in square.iter_mut().zip(&sources) {
                if !source.is_empty() {
                    *square = block(storage, &source[index * size..][..size]);
                }
            }
            let step = (index - first / 32) * BLOCK_STEPS;
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

/// Unpacks one block of each of two neighbouring rows into a step of a panel of the transpose.
///
/// # Safety
/// The processor has the instructions; `out` has room for a step.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2,f16c")]
pub(crate) unsafe fn unpack_transposed(
    storage: Storage,
    low: &[u8],
    high: Option<&[u8]>,
    out: *mut u32,
) {
    let low = block(storage, low);
    let high = match high {
        Some(high) => block(storage, high),
        None => _mm512_setzero_si512(),
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
