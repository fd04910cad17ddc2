//! 32 stored numbers at a time to bf16, with AVX-512.

use std::arch::x86_64::*;

use crate::quantize::EIGHT_BIT_STEP;
use crate::{Absmax, Storage};

/// Numbers of a group.
pub(crate) const GROUP: usize = 32;

/// A stored matrix whose rows are whole groups.
pub(crate) trait Groups: Copy {
    /// A group of a row as bf16, in order.
    ///
    /// # Safety
    /// The processor has AVX-512 with F, BW, VL and BF16, AVX2 and F16C.
    unsafe fn group(self, row: usize, group: usize) -> __m512i;
}

/// Rows of GGUF blocks of 32.
#[derive(Clone, Copy)]
pub(crate) struct BlockGroups<'a> {
    storage: Storage,
    bytes: &'a [u8],
    row_bytes: usize,
}

impl<'a> BlockGroups<'a> {
    /// None where blocks of the type are not unpacked here.
    pub(crate) fn new(storage: Storage, bytes: &'a [u8], cols: usize) -> Option<Self> {
        let known = matches!(storage, Storage::Q4_0 | Storage::Q4_1 | Storage::Q8_0);
        let row_bytes = cols / GROUP * storage.block_bytes();
        known.then_some(BlockGroups { storage, bytes, row_bytes })
    }
}

impl Groups for BlockGroups<'_> {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2,f16c")]
    unsafe fn group(self, row: usize, group: usize) -> __m512i {
        let size = self.storage.block_bytes();
        let bytes = &self.bytes[row * self.row_bytes + group * size..][..size];
        match self.storage {
            Storage::Q4_0 => {
                let d = scales(u32::from(u16::from_le_bytes([bytes[0], bytes[1]])));
                let d = _mm512_broadcastss_ps(d);
                let table = _mm512_mul_ps(d, _mm512_sub_ps(sixteen(), _mm512_set1_ps(8.0)));
                halves(table, sixteen_bytes(bytes, 2))
            }
            Storage::Q4_1 => {
                let both = scales(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
                let d = _mm512_broadcastss_ps(both);
                let m = _mm512_broadcastss_ps(_mm_movehdup_ps(both));
                let table = _mm512_add_ps(_mm512_mul_ps(d, sixteen()), m);
                halves(table, sixteen_bytes(bytes, 4))
            }
            Storage::Q8_0 => {
                let d = scales(u32::from(u16::from_le_bytes([bytes[0], bytes[1]])));
                let d = _mm512_broadcastss_ps(d);
                let [low, high] =
                    [2, 18].map(|at| _mm512_mul_ps(signed(sixteen_bytes(bytes, at)), d));
                round(low, high)
            }
            _ => unreachable!("only types of `new` are unpacked"),
        }
    }
}

/// 4-bit codes whose blocks are whole groups.
#[derive(Clone, Copy)]
pub(crate) struct FourBitGroups<'a> {
    codes: &'a [u8],
    map: &'a [f32; 16],
    absmax: Absmax<'a>,
    cols: usize,
    /// Logarithms of the lengths of blocks: of numbers, and of magnitudes.
    block_bits: u32,
    nested_bits: u32,
}

impl<'a> FourBitGroups<'a> {
    /// None where a group may lie in two blocks, or a length is no power of two.
    pub(crate) fn new(
        codes: &'a [u8],
        map: &'a [f32; 16],
        block_len: usize,
        absmax: Absmax<'a>,
        cols: usize,
    ) -> Option<Self> {
        let nested_len = match absmax {
            Absmax::Plain(_) => 1,
            Absmax::Nested { block_len, .. } => block_len,
        };
        let fits = cols.is_multiple_of(GROUP)
            && block_len.is_power_of_two()
            && block_len >= GROUP
            && nested_len.is_power_of_two();
        let (block_bits, nested_bits) = (block_len.trailing_zeros(), nested_len.trailing_zeros());
        fits.then_some(FourBitGroups { codes, map, absmax, cols, block_bits, nested_bits })
    }

    /// [`Absmax::get`] without a division.
    #[inline(always)]
    fn absmax(self, block: usize) -> f32 {
        match self.absmax {
            Absmax::Plain(absmax) => absmax[block],
            Absmax::Nested { codes, map, absmax, offset, .. } => {
                map[usize::from(codes[block])] * absmax[block >> self.nested_bits] + offset
            }
        }
    }
}

impl Groups for FourBitGroups<'_> {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2,f16c")]
    unsafe fn group(self, row: usize, group: usize) -> __m512i {
        let first = row * self.cols + group * GROUP;
        let absmax = _mm512_set1_ps(self.absmax(first >> self.block_bits));
        // SAFETY: 16 floats can be read.
        let map = unsafe { _mm512_loadu_ps(self.map.as_ptr()) };
        pairs(_mm512_mul_ps(map, absmax), sixteen_bytes(self.codes, first / 2))
    }
}

/// 8-bit codes with a magnitude a row.
#[derive(Clone, Copy)]
pub(crate) struct EightBitGroups<'a> {
    codes: &'a [i8],
    absmax: &'a [f32],
    cols: usize,
}

impl<'a> EightBitGroups<'a> {
    /// None where rows are not whole groups.
    pub(crate) fn new(codes: &'a [i8], absmax: &'a [f32], cols: usize) -> Option<Self> {
        cols.is_multiple_of(GROUP).then_some(EightBitGroups { codes, absmax, cols })
    }
}

impl Groups for EightBitGroups<'_> {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2,f16c")]
    unsafe fn group(self, row: usize, group: usize) -> __m512i {
        let first = row * self.cols + group * GROUP;
        let absmax = _mm512_set1_ps(self.absmax[row]);
        let step = _mm512_set1_ps(EIGHT_BIT_STEP);
        let [low, high] = [first, first + 16].map(|at| {
            let codes = &self.codes[at..at + 16];
            // SAFETY: 16 bytes can be read.
            let codes = unsafe { _mm_loadu_si128(codes.as_ptr().cast()) };
            _mm512_mul_ps(_mm512_mul_ps(signed(codes), absmax), step)
        });
        round(low, high)
    }
}

#[inline]
#[target_feature(enable = "sse2")]
fn sixteen_bytes(bytes: &[u8], at: usize) -> __m128i {
    let bytes = &bytes[at..at + 16];
    // SAFETY: 16 bytes can be read.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

/// Signed bytes as f32.
#[inline]
#[target_feature(enable = "avx512f")]
fn signed(bytes: __m128i) -> __m512 {
    _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes))
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
fn halves(table: __m512, bytes: __m128i) -> __m512i {
    let low = _mm256_cvtepu8_epi16(bytes);
    let high = _mm256_srli_epi16::<4>(low);
    look_up(table, _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high))
}

/// The table's entries for the high and the low half of each byte in turn.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2")]
fn pairs(table: __m512, bytes: __m128i) -> __m512i {
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
