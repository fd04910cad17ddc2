//! 32 stored numbers at a time to bf16, with AVX-512 and with AVX2.

use std::arch::x86_64::*;
use std::marker::PhantomData;

use super::bf16_avx512::{round, signed, sixteen};
use super::{bf16_avx2, bf16_avx512};
use crate::quantize::EIGHT_BIT_STEP;
use crate::{Absmax, Storage};

/// Numbers of a group.
pub(crate) const GROUP: usize = 32;

/// What is taken from codes of 8 bits that are signed.
pub(super) const SIGNED: u8 = 128;

/// Where the codes of a group's numbers are in its bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum CodeOrder {
    /// A byte each.
    Bytes,
    /// In the low halves of 16 bytes, then in the high ones.
    LowThenHigh,
    /// In the high and the low half of each byte in turn.
    HighAndLow,
}

/// A stored matrix whose rows are whole groups.
pub(crate) trait Groups: Copy {
    /// What rows are unpacked from, but for scales that lie apart: as many of the bytes as there are.
    fn stored(&self, first_row: usize, rows: usize) -> &[u8];

    /// A group of a row as bf16, in order.
    ///
    /// # Safety
    /// The processor has AVX-512 with F, BW, VL and BF16, AVX2 and F16C.
    unsafe fn group(self, row: usize, group: usize) -> __m512i;

    /// The same in two halves.
    ///
    /// # Safety
    /// The processor has AVX2 and F16C.
    unsafe fn halves(self, row: usize, group: usize) -> [__m256i; 2];
}

/// Blocks of 32 in GGUF files.
pub(crate) trait Blocks: Copy {
    /// Which.
    const STORAGE: Storage;
    /// Bytes of the scale, and of the minimum where there is one, that a block begins with.
    const SCALES: usize;
    /// Where codes are behind them.
    const ORDER: CodeOrder;
    /// What is taken from codes before they are scaled.
    const SHIFT: u8;

    /// The numbers of a block as bf16, in order.
    ///
    /// # Safety
    /// As for [`Groups::group`].
    unsafe fn group(block: &[u8]) -> __m512i;

    /// The same in two halves.
    ///
    /// # Safety
    /// As for [`Groups::halves`].
    unsafe fn halves(block: &[u8]) -> [__m256i; 2];
}

/// See [`Storage::Q4_0`].
#[derive(Clone, Copy)]
pub(crate) struct Q4;

/// See [`Storage::Q4_1`].
#[derive(Clone, Copy)]
pub(crate) struct Q4WithMinimum;

/// See [`Storage::Q8_0`].
#[derive(Clone, Copy)]
pub(crate) struct Q8;

impl Blocks for Q4 {
    const STORAGE: Storage = Storage::Q4_0;
    const SCALES: usize = 2;
    const ORDER: CodeOrder = CodeOrder::LowThenHigh;
    const SHIFT: u8 = 8;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2,f16c")]
    unsafe fn group(block: &[u8]) -> __m512i {
        let d = _mm512_broadcastss_ps(one_scale(block));
        let table = _mm512_mul_ps(d, _mm512_sub_ps(sixteen(), _mm512_set1_ps(8.0)));
        bf16_avx512::low_then_high(table, sixteen_bytes(block, 2))
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn halves(block: &[u8]) -> [__m256i; 2] {
        let d = _mm256_broadcastss_ps(one_scale(block));
        let table = bf16_avx2::line(d, -8.0, _mm256_set1_ps(-0.0));
        bf16_avx2::low_then_high(table, sixteen_bytes(block, 2))
    }
}

impl Blocks for Q4WithMinimum {
    const STORAGE: Storage = Storage::Q4_1;
    const SCALES: usize = 4;
    const ORDER: CodeOrder = CodeOrder::LowThenHigh;
    const SHIFT: u8 = 0;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2,f16c")]
    unsafe fn group(block: &[u8]) -> __m512i {
        let both = two_scales(block);
        let m = _mm512_broadcastss_ps(_mm_movehdup_ps(both));
        let table = _mm512_add_ps(_mm512_mul_ps(_mm512_broadcastss_ps(both), sixteen()), m);
        bf16_avx512::low_then_high(table, sixteen_bytes(block, 4))
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn halves(block: &[u8]) -> [__m256i; 2] {
        let both = two_scales(block);
        let m = _mm256_broadcastss_ps(_mm_movehdup_ps(both));
        let table = bf16_avx2::line(_mm256_broadcastss_ps(both), 0.0, m);
        bf16_avx2::low_then_high(table, sixteen_bytes(block, 4))
    }
}

impl Blocks for Q8 {
    const STORAGE: Storage = Storage::Q8_0;
    const SCALES: usize = 2;
    const ORDER: CodeOrder = CodeOrder::Bytes;
    const SHIFT: u8 = SIGNED;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2,f16c")]
    unsafe fn group(block: &[u8]) -> __m512i {
        let d = _mm512_broadcastss_ps(one_scale(block));
        let low = _mm512_mul_ps(signed(sixteen_bytes(block, 2)), d);
        round(low, _mm512_mul_ps(signed(sixteen_bytes(block, 18)), d))
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn halves(block: &[u8]) -> [__m256i; 2] {
        let d = _mm256_broadcastss_ps(one_scale(block));
        [
            bf16_avx2::scaled(sixteen_bytes(block, 2), d),
            bf16_avx2::scaled(sixteen_bytes(block, 18), d),
        ]
    }
}

/// Rows of GGUF blocks of 32.
#[derive(Clone, Copy)]
pub(crate) struct BlockGroups<'a, B> {
    bytes: &'a [u8],
    row_bytes: usize,
    blocks: PhantomData<B>,
}

impl<'a, B: Blocks> BlockGroups<'a, B> {
    /// Rows of `cols` numbers.
    pub(crate) fn new(bytes: &'a [u8], cols: usize) -> Self {
        let row_bytes = cols / GROUP * B::STORAGE.block_bytes();
        BlockGroups { bytes, row_bytes, blocks: PhantomData }
    }

    /// Bytes from a row to the next.
    #[inline(always)]
    pub(super) fn row_bytes(&self) -> usize {
        self.row_bytes
    }

    /// A block of a row.
    #[inline(always)]
    pub(super) fn block(&self, row: usize, group: usize) -> &[u8] {
        let size = B::STORAGE.block_bytes();
        &self.bytes[row * self.row_bytes + group * size..][..size]
    }

    /// The same, with what comes behind it fetched.
    #[inline(always)]
    pub(super) fn block_and_fetch(&self, row: usize, group: usize) -> &[u8] {
        let block = self.block(row, group);
        fetch(block.as_ptr().wrapping_add(ROW_AHEAD));
        block
    }
}

impl<B: Blocks> Groups for BlockGroups<'_, B> {
    fn stored(&self, first_row: usize, rows: usize) -> &[u8] {
        some(self.bytes, first_row * self.row_bytes, rows * self.row_bytes)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2,f16c")]
    unsafe fn group(self, row: usize, group: usize) -> __m512i {
        // SAFETY: the caller's duty.
        unsafe { B::group(self.block_and_fetch(row, group)) }
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn halves(self, row: usize, group: usize) -> [__m256i; 2] {
        // SAFETY: the caller's duty.
        unsafe { B::halves(self.block_and_fetch(row, group)) }
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

    /// The first number of a group.
    #[inline(always)]
    fn first(&self, row: usize, group: usize) -> usize {
        let first = row * self.cols + group * GROUP;
        fetch(self.codes.as_ptr().wrapping_add(first / 2 + ROW_AHEAD));
        first
    }

    /// The codes of a row, and bytes from them to those of the next.
    #[inline(always)]
    pub(super) fn row_codes(&self, row: usize) -> (&[u8], usize) {
        let step = self.cols / 2;
        (&self.codes[row * step..][..step], step)
    }

    /// The magnitude that the codes of a group belong to.
    #[inline(always)]
    pub(super) fn group_absmax(self, row: usize, group: usize) -> f32 {
        self.absmax((row * self.cols + group * GROUP) >> self.block_bits)
    }

    /// What codes stand for.
    pub(super) fn map(&self) -> &[f32; 16] {
        self.map
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
    fn stored(&self, first_row: usize, rows: usize) -> &[u8] {
        some(self.codes, first_row * self.cols / 2, rows * self.cols / 2)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2,f16c")]
    unsafe fn group(self, row: usize, group: usize) -> __m512i {
        let first = self.first(row, group);
        let absmax = _mm512_set1_ps(self.absmax(first >> self.block_bits));
        // SAFETY: 16 floats can be read.
        let map = unsafe { _mm512_loadu_ps(self.map.as_ptr()) };
        bf16_avx512::high_and_low(_mm512_mul_ps(map, absmax), sixteen_bytes(self.codes, first / 2))
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn halves(self, row: usize, group: usize) -> [__m256i; 2] {
        let first = self.first(row, group);
        let absmax = _mm256_set1_ps(self.absmax(first >> self.block_bits));
        // SAFETY: 16 floats can be read.
        let [low, high] = unsafe {
            [_mm256_loadu_ps(self.map.as_ptr()), _mm256_loadu_ps(self.map.as_ptr().add(8))]
        };
        let table = [_mm256_mul_ps(low, absmax), _mm256_mul_ps(high, absmax)];
        bf16_avx2::high_and_low(table, sixteen_bytes(self.codes, first / 2))
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

    /// The codes of a row, and bytes from them to those of the next.
    #[inline(always)]
    pub(super) fn row_codes(&self, row: usize) -> (&[i8], usize) {
        (&self.codes[row * self.cols..][..self.cols], self.cols)
    }

    /// The magnitudes of some rows.
    pub(super) fn absmax(&self, first: usize, rows: usize) -> &[f32] {
        &self.absmax[first..first + rows]
    }

    /// The first number of a group.
    #[inline(always)]
    fn first(&self, row: usize, group: usize) -> usize {
        let first = row * self.cols + group * GROUP;
        fetch(self.codes.as_ptr().wrapping_add(first + ROW_AHEAD));
        first
    }
}

impl Groups for EightBitGroups<'_> {
    fn stored(&self, first_row: usize, rows: usize) -> &[u8] {
        let codes = some(self.codes, first_row * self.cols, rows * self.cols);
        // SAFETY: both are one byte, and every bit pattern is valid in both.
        unsafe { std::slice::from_raw_parts(codes.as_ptr().cast(), codes.len()) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2,f16c")]
    unsafe fn group(self, row: usize, group: usize) -> __m512i {
        let first = self.first(row, group);
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

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn halves(self, row: usize, group: usize) -> [__m256i; 2] {
        let first = self.first(row, group);
        let absmax = _mm256_set1_ps(self.absmax[row]);
        let codes = &self.codes[first..first + GROUP];
        // SAFETY: 32 bytes can be read.
        let [low, high] = unsafe {
            let start = codes.as_ptr().cast::<__m128i>();
            [_mm_loadu_si128(start), _mm_loadu_si128(start.add(1))]
        };
        [bf16_avx2::eight_bit(low, absmax), bf16_avx2::eight_bit(high, absmax)]
    }
}

/// As much of a range as there is.
fn some<T>(all: &[T], first: usize, len: usize) -> &[T] {
    let first = first.min(all.len());
    &all[first..all.len().min(first + len)]
}

/// Bytes of a cache line.
const LINE: usize = 64;

/// How far ahead in its row a group is fetched. 32 rows at a time are more than the processor follows by itself.
pub(super) const ROW_AHEAD: usize = 2 * LINE;

/// Brings a line into the first-level cache.
#[inline(always)]
pub(super) fn fetch<T>(line: *const T) {
    // SAFETY: fetching reads nothing; any address will do.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(line.cast()) };
}

/// What comes after the rows that are being unpacked, to be fetched bit by bit.
#[derive(Clone, Copy)]
pub(super) struct Ahead<'a> {
    bytes: &'a [u8],
    each: usize,
}

impl<'a> Ahead<'a> {
    /// The bytes, in `parts`.
    pub(super) fn new(bytes: &'a [u8], parts: usize) -> Self {
        let each = bytes.len().div_ceil(parts.max(1)).next_multiple_of(LINE);
        Ahead { bytes, each }
    }

    /// Brings one part into the second-level cache.
    #[inline(always)]
    pub(super) fn fetch(self, part: usize) {
        for line in some(self.bytes, part * self.each, self.each).chunks(LINE) {
            // SAFETY: fetching reads nothing.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast()) };
        }
    }
}

#[inline]
#[target_feature(enable = "sse2")]
fn sixteen_bytes(bytes: &[u8], at: usize) -> __m128i {
    let bytes = &bytes[at..at + 16];
    // SAFETY: 16 bytes can be read.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

/// The f16 that a block begins with.
#[inline]
#[target_feature(enable = "f16c,sse2")]
fn one_scale(block: &[u8]) -> __m128 {
    let bits = u32::from(u16::from_le_bytes([block[0], block[1]]));
    _mm_cvtph_ps(_mm_cvtsi32_si128(bits.cast_signed()))
}

/// The two f16 that a block begins with.
#[inline]
#[target_feature(enable = "f16c,sse2")]
fn two_scales(block: &[u8]) -> __m128 {
    let bits = u32::from_le_bytes([block[0], block[1], block[2], block[3]]);
    _mm_cvtph_ps(_mm_cvtsi32_si128(bits.cast_signed()))
}
