//! Stored codes to bf16 with AVX2, 16 or 32 at a time.

use std::arch::x86_64::*;

use crate::cpu::simd::bf16_bits;
use crate::quantize::EIGHT_BIT_STEP;

/// 16 words that fit 16 bits, in order.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn pack(low: __m256i, high: __m256i) -> __m256i {
    // Packing works within 128-bit halves; the permutation puts quarters in order.
    _mm256_permute4x64_epi64::<0xD8>(_mm256_packus_epi32(low, high))
}

/// 16 numbers as bf16, in order.
#[inline]
#[target_feature(enable = "avx2")]
fn rounded([low, high]: [__m256; 2]) -> __m256i {
    pack(bf16_bits(low), bf16_bits(high))
}

/// `factor * (q + shift) + offset` for q from 0 to 15, each operation rounded.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn line(factor: __m256, shift: f32, offset: __m256) -> [__m256; 2] {
    let shift = _mm256_set1_ps(shift);
    let low = _mm256_setr_ps(0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0);
    let high = _mm256_setr_ps(8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0);
    [
        _mm256_add_ps(_mm256_mul_ps(factor, _mm256_add_ps(low, shift)), offset),
        _mm256_add_ps(_mm256_mul_ps(factor, _mm256_add_ps(high, shift)), offset),
    ]
}

/// Signed bytes times `factor`, as bf16.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn scaled(bytes: __m128i, factor: __m256) -> __m256i {
    let [low, high] = signed(bytes);
    rounded([_mm256_mul_ps(low, factor), _mm256_mul_ps(high, factor)])
}

/// Codes of 8 bits times their row's magnitude, as bf16.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn eight_bit(codes: __m128i, absmax: __m256) -> __m256i {
    let step = _mm256_set1_ps(EIGHT_BIT_STEP);
    let [low, high] = signed(codes);
    let (low, high) = (_mm256_mul_ps(low, absmax), _mm256_mul_ps(high, absmax));
    rounded([_mm256_mul_ps(low, step), _mm256_mul_ps(high, step)])
}

/// Signed bytes as f32.
#[inline]
#[target_feature(enable = "avx2")]
fn signed(bytes: __m128i) -> [__m256; 2] {
    [
        _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)),
        _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128::<8>(bytes))),
    ]
}

/// The table's entries for the low, then the high halves of bytes.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn low_then_high(table: [__m256; 2], bytes: __m128i) -> [__m256i; 2] {
    let [low, high] = nibbles(bytes);
    look_up(table, _mm256_set_m128i(high, low))
}

/// The table's entries for the high and the low half of each byte in turn.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn high_and_low(table: [__m256; 2], bytes: __m128i) -> [__m256i; 2] {
    let [low, high] = nibbles(bytes);
    let index = _mm256_set_m128i(_mm_unpackhi_epi8(high, low), _mm_unpacklo_epi8(high, low));
    look_up(table, index)
}

#[inline]
#[target_feature(enable = "avx2")]
fn nibbles(bytes: __m128i) -> [__m128i; 2] {
    let mask = _mm_set1_epi8(15);
    [_mm_and_si128(bytes, mask), _mm_and_si128(_mm_srli_epi16::<4>(bytes), mask)]
}

/// The table's entries, as bf16, for 32 indices.
#[inline]
#[target_feature(enable = "avx2")]
fn look_up(table: [__m256; 2], index: __m256i) -> [__m256i; 2] {
    let table = rounded(table);
    let (first, second) = (_mm256_castsi256_si128(table), _mm256_extracti128_si256::<1>(table));
    // Shuffles look bytes up: of the entries' lower bytes, then of the upper ones.
    let mask = _mm_set1_epi16(0xFF);
    let low = _mm_packus_epi16(_mm_and_si128(first, mask), _mm_and_si128(second, mask));
    let high = _mm_packus_epi16(_mm_srli_epi16::<8>(first), _mm_srli_epi16::<8>(second));
    let low = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(low), index);
    let high = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(high), index);
    let (even, odd) = (_mm256_unpacklo_epi8(low, high), _mm256_unpackhi_epi8(low, high));
    [_mm256_permute2x128_si256::<0x20>(even, odd), _mm256_permute2x128_si256::<0x31>(even, odd)]
}
