//! Stored codes to bf16 with AVX-512, 32 at a time.

use std::arch::x86_64::*;

/// Signed bytes as f32.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn signed(bytes: __m128i) -> __m512 {
    _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes))
}

/// 0 to 15.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn sixteen() -> __m512 {
    _mm512_setr_ps(
        0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0,
    )
}

/// 32 numbers rounded to bf16, in order.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) fn round(low: __m512, high: __m512) -> __m512i {
    // SAFETY: both types are 512 plain bits.
    unsafe { std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low)) }
}

/// The table's entries (there are only 16 values in a block) for the low, then the high halves of bytes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2")]
pub(super) fn low_then_high(table: __m512, bytes: __m128i) -> __m512i {
    let low = _mm256_cvtepu8_epi16(bytes);
    let high = _mm256_srli_epi16::<4>(low);
    look_up(table, _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high))
}

/// The table's entries for the high and the low half of each byte in turn.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2")]
pub(super) fn high_and_low(table: __m512, bytes: __m128i) -> __m512i {
    let bytes = _mm512_cvtepu8_epi32(bytes);
    look_up(table, _mm512_or_si512(_mm512_srli_epi32::<4>(bytes), _mm512_slli_epi32::<16>(bytes)))
}

/// The table's entries, as bf16, for the lowest four bits of each index.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2")]
fn look_up(table: __m512, index: __m512i) -> __m512i {
    // SAFETY: both types are 256 plain bits.
    let table = unsafe { std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(table)) };
    // The table twice: of the five bits of an index that count, the highest does not matter.
    let table = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(table), table);
    _mm512_permutexvar_epi16(index, table)
}
