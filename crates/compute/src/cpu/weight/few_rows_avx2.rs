//! A few rows times stored weights with AVX2: 32 weights of a column at a time become numbers where they are
//! multiplied.
//!
//! Where many rows are multiplied, weights are unpacked into a panel first ([`unpack_avx2`](super::unpack_avx2)). For few
//! rows that takes longer than the product; here codes are transposed while they are still bytes, and numbers
//! never go through memory. They are the same numbers, and they are added in the same order.

use std::arch::x86_64::*;

use super::quantized_blocks::{
    Ahead, BlockGroups, Blocks, CodeOrder, EightBitGroups, FourBitGroups, GROUP, Groups, ROW_AHEAD,
    SIGNED, fetch,
};
use crate::cpu::panel::PANEL;
use crate::quantize::EIGHT_BIT_STEP;

/// The most rows that are multiplied so: their sums stay in registers.
pub(crate) const FEW_ROWS: usize = 4;

/// 32 numbers, one of each row of a panel: rows 0 to 3 and 16 to 19, the next four of both, and so on. It is the
/// order in which bytes become words without crossing the halves of a register.
type Quads = [__m256; 4];

/// What a number is computed from beside its code, row by row.
#[derive(Clone, Copy)]
pub(crate) struct Scales {
    factor: Quads,
    offset: Quads,
}

/// A stored matrix of which a column of 32 rows can be computed at once.
pub(crate) trait Columns: Groups {
    /// Where codes are.
    const ORDER: CodeOrder;

    /// The codes of a row's first group, and bytes from them to those of the next group and of the next row.
    fn codes(self, row: usize) -> (*const u8, usize, usize);

    /// Of a group of rows.
    ///
    /// # Safety
    /// The processor has AVX2 and F16C, and the matrix has the rows and the group.
    unsafe fn scales(self, rows: &PanelRows, group: usize) -> Scales;

    /// What codes stand for, byte by byte, where they are looked up.
    ///
    /// # Safety
    /// The processor has AVX2.
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn table(self) -> [__m256i; 4] {
        [_mm256_setzero_si256(); 4]
    }

    /// Whether what codes stand for is finite, whatever the scales.
    fn is_finite(self) -> bool {
        true
    }

    /// Numbers of a column in f32.
    ///
    /// # Safety
    /// The processor has AVX2.
    unsafe fn numbers(codes: __m256i, scales: &Scales, table: &[__m256i; 4]) -> Quads;
}

/// Rows of a panel: those that it has, then the last of them again.
#[derive(Clone, Copy)]
pub(crate) struct PanelRows {
    first: usize,
    count: usize,
}

impl PanelRows {
    /// The row in a place of a panel, counted from the first.
    #[inline(always)]
    fn nth(&self, place: usize) -> usize {
        place.min(self.count - 1)
    }

    /// The same for a lane of a vector of [`Quads`].
    #[inline(always)]
    fn of_lane(&self, vector: usize, lane: usize) -> usize {
        self.nth(4 * vector + lane % 4 + lane / 4 * 16)
    }
}

impl<B: Blocks> Columns for BlockGroups<'_, B> {
    const ORDER: CodeOrder = B::ORDER;

    #[inline(always)]
    fn codes(self, row: usize) -> (*const u8, usize, usize) {
        let codes = self.block(row, 0)[B::SCALES..].as_ptr();
        (codes, B::STORAGE.block_bytes(), self.row_bytes())
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn scales(self, rows: &PanelRows, group: usize) -> Scales {
        let start = self.block(rows.first, group).as_ptr();
        let step = self.row_bytes();
        let mut scales =
            Scales { factor: [_mm256_setzero_ps(); 4], offset: [_mm256_setzero_ps(); 4] };
        let low = _mm256_set1_epi32(0xFFFF);
        for i in 0..4 {
            let mut words = [0; 8];
            for (lane, word) in words.iter_mut().enumerate() {
                let offset = rows.of_lane(i, lane) * step;
                // SAFETY: the row has a block there, which is longer than a word.
                *word = unsafe { start.add(offset).cast::<i32>().read_unaligned() };
            }
            let [a, b, c, d, e, f, g, h] = words;
            let words = _mm256_setr_epi32(a, b, c, d, e, f, g, h);
            scales.factor[i] = eight_halves(_mm256_and_si256(words, low));
            if B::SCALES == 4 {
                scales.offset[i] = eight_halves(_mm256_srli_epi32::<16>(words));
            }
        }
        scales
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn numbers(codes: __m256i, scales: &Scales, _: &[__m256i; 4]) -> Quads {
        let mut v = whole_numbers(codes, B::SHIFT);
        for ((v, &factor), &offset) in v.iter_mut().zip(&scales.factor).zip(&scales.offset) {
            *v = _mm256_mul_ps(factor, *v);
            if B::SCALES == 4 {
                *v = _mm256_add_ps(*v, offset);
            }
        }
        v
    }
}

impl Columns for FourBitGroups<'_> {
    const ORDER: CodeOrder = CodeOrder::HighAndLow;

    fn is_finite(self) -> bool {
        self.map().iter().all(|number| number.is_finite())
    }

    #[inline(always)]
    fn codes(self, row: usize) -> (*const u8, usize, usize) {
        let (codes, step) = self.row_codes(row);
        (codes.as_ptr(), GROUP / 2, step)
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn scales(self, rows: &PanelRows, group: usize) -> Scales {
        let mut factor = [_mm256_setzero_ps(); 4];
        for (i, factor) in factor.iter_mut().enumerate() {
            let mut absmax = [0.0; 8];
            for (lane, absmax) in absmax.iter_mut().enumerate() {
                *absmax = self.group_absmax(rows.first + rows.of_lane(i, lane), group);
            }
            let [a, b, c, d, e, f, g, h] = absmax;
            *factor = _mm256_setr_ps(a, b, c, d, e, f, g, h);
        }
        Scales { factor, offset: [_mm256_setzero_ps(); 4] }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn table(self) -> [__m256i; 4] {
        let mut bytes = [[0_u8; 16]; 4];
        for (code, number) in self.map().iter().enumerate() {
            for (plane, byte) in bytes.iter_mut().zip(number.to_le_bytes()) {
                plane[code] = byte;
            }
        }
        let mut table = [_mm256_setzero_si256(); 4];
        for (table, plane) in table.iter_mut().zip(&bytes) {
            // SAFETY: 16 bytes can be read.
            let plane = unsafe { _mm_loadu_si128(plane.as_ptr().cast()) };
            *table = _mm256_broadcastsi128_si256(plane);
        }
        table
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn numbers(codes: __m256i, scales: &Scales, table: &[__m256i; 4]) -> Quads {
        let mut bytes = *table;
        for bytes in &mut bytes {
            *bytes = _mm256_shuffle_epi8(*bytes, codes);
        }
        let [a, b, c, d] = bytes;
        let low = [_mm256_unpacklo_epi8(a, b), _mm256_unpackhi_epi8(a, b)];
        let high = [_mm256_unpacklo_epi8(c, d), _mm256_unpackhi_epi8(c, d)];
        let mut v = [_mm256_setzero_ps(); 4];
        for i in 0..2 {
            v[2 * i] = _mm256_castsi256_ps(_mm256_unpacklo_epi16(low[i], high[i]));
            v[2 * i + 1] = _mm256_castsi256_ps(_mm256_unpackhi_epi16(low[i], high[i]));
        }
        for (v, &factor) in v.iter_mut().zip(&scales.factor) {
            *v = _mm256_mul_ps(*v, factor);
        }
        v
    }
}

impl Columns for EightBitGroups<'_> {
    const ORDER: CodeOrder = CodeOrder::Bytes;

    #[inline(always)]
    fn codes(self, row: usize) -> (*const u8, usize, usize) {
        let (codes, step) = self.row_codes(row);
        (codes.as_ptr().cast(), GROUP, step)
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn scales(self, rows: &PanelRows, _: usize) -> Scales {
        let absmax = self.absmax(rows.first, rows.count);
        let factor = match absmax.first_chunk() {
            Some(absmax) => quads(absmax),
            None => {
                let mut all = [0.0; PANEL];
                all[..rows.count].copy_from_slice(absmax);
                quads(&all)
            }
        };
        Scales { factor, offset: [_mm256_set1_ps(EIGHT_BIT_STEP); 4] }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn numbers(codes: __m256i, scales: &Scales, _: &[__m256i; 4]) -> Quads {
        let mut v = whole_numbers(codes, SIGNED);
        for ((v, &factor), &offset) in v.iter_mut().zip(&scales.factor).zip(&scales.offset) {
            *v = _mm256_mul_ps(_mm256_mul_ps(*v, factor), offset);
        }
        v
    }
}

/// Codes as f32, less `shift`; where that is [`SIGNED`], they are signed as they are.
#[inline]
#[target_feature(enable = "avx2")]
fn whole_numbers(codes: __m256i, shift: u8) -> Quads {
    // 2^23 has room for a code in its lowest bits, and what is taken away leaves it exact.
    let upper = _mm256_set1_epi16(0x4B00);
    let taken = _mm256_set1_ps(8_388_608.0 + f32::from(shift));
    let codes = match shift {
        SIGNED => _mm256_xor_si256(codes, _mm256_set1_epi8(SIGNED.cast_signed())),
        _ => codes,
    };
    let zero = _mm256_setzero_si256();
    let words = [_mm256_unpacklo_epi8(codes, zero), _mm256_unpackhi_epi8(codes, zero)];
    let mut v = [_mm256_setzero_ps(); 4];
    for i in 0..2 {
        let low = _mm256_castsi256_ps(_mm256_unpacklo_epi16(words[i], upper));
        let high = _mm256_castsi256_ps(_mm256_unpackhi_epi16(words[i], upper));
        v[2 * i] = _mm256_sub_ps(low, taken);
        v[2 * i + 1] = _mm256_sub_ps(high, taken);
    }
    v
}

/// f16 in the lower halves of eight words.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn eight_halves(words: __m256i) -> __m256 {
    // Packing works within halves; the permutation brings both together.
    let packed = _mm256_permute4x64_epi64::<0x08>(_mm256_packus_epi32(words, words));
    _mm256_cvtph_ps(_mm256_castsi256_si128(packed))
}

#[inline]
#[target_feature(enable = "avx2")]
fn quads(x: &[f32; PANEL]) -> Quads {
    let mut v = [_mm256_setzero_ps(); 4];
    for (i, v) in v.iter_mut().enumerate() {
        // SAFETY: four numbers from both places are there.
        *v = unsafe {
            let start = x.as_ptr();
            _mm256_set_m128(_mm_loadu_ps(start.add(16 + 4 * i)), _mm_loadu_ps(start.add(4 * i)))
        };
    }
    v
}

/// Rows and columns of a matrix, and what is multiplied with them.
#[derive(Clone, Copy)]
pub(crate) struct Part {
    /// First row and their number, at most 32.
    pub(crate) rows: (usize, usize),
    /// First column and one past the last, whole groups.
    pub(crate) columns: (usize, usize),
    /// `[columns][count]` from the first column on.
    pub(crate) x: *const f32,
    /// At most [`FEW_ROWS`].
    pub(crate) count: usize,
    /// `[count][32]`: sums.
    pub(crate) tile: *mut f32,
    /// Whether sums go on from what is in the tile.
    pub(crate) load: bool,
}

/// Multiplies.
///
/// # Safety
/// The processor has AVX2, FMA and F16C; the matrix has the part's rows and columns, and pointers are valid for
/// what the part says.
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) unsafe fn multiply(matrix: impl Columns, part: Part) {
    // SAFETY: the caller's duty.
    unsafe {
        match part.count {
            1 => rows::<_, 1>(matrix, part),
            2 => rows::<_, 2>(matrix, part),
            3 => rows::<_, 3>(matrix, part),
            FEW_ROWS => rows::<_, FEW_ROWS>(matrix, part),
            count => unreachable!("{count} rows are not few"),
        }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn rows<C: Columns, const ROWS: usize>(matrix: C, part: Part) {
    // SAFETY: the caller's duty: the tile holds the sums, `x` a number for every column and row.
    unsafe {
        let mut sums = [[_mm256_setzero_ps(); 4]; ROWS];
        if part.load {
            for (row, sums) in sums.iter_mut().enumerate() {
                *sums = quads(&*part.tile.add(row * PANEL).cast());
            }
        }
        let (first, last) = (part.columns.0 / GROUP, part.columns.1 / GROUP);
        // Rows lie behind each other, and 32 of them at a time are more than the processor follows by itself.
        let next = Ahead::new(matrix.stored(part.rows.0 + PANEL, PANEL), last - first);
        let (table, finite) = (matrix.table(), matrix.is_finite());
        let rows = PanelRows { first: part.rows.0, count: part.rows.1 };
        let (start, group_bytes, row_bytes) = matrix.codes(rows.first);
        let mut offsets = [0; PANEL];
        for (lane, offset) in offsets.iter_mut().enumerate() {
            *offset = rows.nth(lane) * row_bytes;
        }
        for group in first..last {
            next.fetch(group - first);
            let scales = matrix.scales(&rows, group);
            let codes = Codes { start: start.add(group * group_bytes), offsets: &offsets };
            let x = part.x.add((group - first) * GROUP * ROWS);
            match finite && are_finite(&scales) {
                true => add_group::<C, ROWS, false>(codes, x, &scales, &table, &mut sums),
                false => add_group::<C, ROWS, true>(codes, x, &scales, &table, &mut sums),
            }
        }
        for (row, sums) in sums.iter().enumerate() {
            for i in 0..2 {
                let (a, b) = (sums[2 * i], sums[2 * i + 1]);
                let out = part.tile.add(row * PANEL + 8 * i);
                _mm256_storeu_ps(out, _mm256_permute2f128_ps::<0x20>(a, b));
                _mm256_storeu_ps(out.add(16), _mm256_permute2f128_ps::<0x31>(a, b));
            }
        }
    }
}

/// Where the codes of a group are.
#[derive(Clone, Copy)]
struct Codes<'a> {
    /// Of the panel's first row.
    start: *const u8,
    /// From there to each row of the panel.
    offsets: &'a [usize; PANEL],
}

/// Adds the products of a group with numbers from `x` on. `CAREFUL` where numbers may be NaN, which rounding must
/// not lose.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn add_group<C: Columns, const ROWS: usize, const CAREFUL: bool>(
    codes: Codes<'_>,
    x: *const f32,
    scales: &Scales,
    table: &[__m256i; 4],
    sums: &mut [[__m256; 4]; ROWS],
) {
    let low = _mm256_set1_epi8(15);
    // SAFETY: the caller's duty; a group has 16 or 32 bytes of codes in each row.
    unsafe {
        let bytes = transpose(codes);
        match C::ORDER {
            CodeOrder::LowThenHigh => {
                for (column, &bytes) in bytes.iter().enumerate() {
                    let codes = _mm256_and_si256(bytes, low);
                    let numbers = C::numbers(codes, scales, table);
                    add::<ROWS, CAREFUL>(numbers, x.add(column * ROWS), sums);
                }
                for (column, &bytes) in bytes.iter().enumerate() {
                    let codes = _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), low);
                    let numbers = C::numbers(codes, scales, table);
                    add::<ROWS, CAREFUL>(numbers, x.add((16 + column) * ROWS), sums);
                }
            }
            CodeOrder::HighAndLow => {
                for (pair, &bytes) in bytes.iter().enumerate() {
                    let codes = _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), low);
                    let numbers = C::numbers(codes, scales, table);
                    add::<ROWS, CAREFUL>(numbers, x.add(2 * pair * ROWS), sums);
                    let numbers = C::numbers(_mm256_and_si256(bytes, low), scales, table);
                    add::<ROWS, CAREFUL>(numbers, x.add((2 * pair + 1) * ROWS), sums);
                }
            }
            CodeOrder::Bytes => {
                for (column, &codes) in bytes.iter().enumerate() {
                    let numbers = C::numbers(codes, scales, table);
                    add::<ROWS, CAREFUL>(numbers, x.add(column * ROWS), sums);
                }
                let second = Codes { start: codes.start.add(16), ..codes };
                for (column, &codes) in transpose(second).iter().enumerate() {
                    let numbers = C::numbers(codes, scales, table);
                    add::<ROWS, CAREFUL>(numbers, x.add((16 + column) * ROWS), sums);
                }
            }
        }
    }
}

/// Rounds a column to bf16, and adds its products with a number of each row.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn add<const ROWS: usize, const CAREFUL: bool>(
    mut numbers: Quads,
    x: *const f32,
    sums: &mut [[__m256; 4]; ROWS],
) {
    for number in &mut numbers {
        let bits = _mm256_castps_si256(*number);
        let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
        let bias = _mm256_add_epi32(odd, _mm256_set1_epi32(0x7FFF));
        let mut rounded = _mm256_add_epi32(bits, bias);
        if CAREFUL {
            let nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(*number, *number));
            let quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x40_0000));
            rounded = _mm256_blendv_epi8(rounded, quiet, nan);
        }
        let upper = _mm256_set1_epi32(0xFFFF_0000_u32.cast_signed());
        *number = _mm256_castsi256_ps(_mm256_and_si256(rounded, upper));
    }
    for (row, sums) in sums.iter_mut().enumerate() {
        // SAFETY: the caller's duty.
        let x = unsafe { _mm256_broadcast_ss(&*x.add(row)) };
        for i in 0..4 {
            sums[i] = _mm256_fmadd_ps(x, numbers[i], sums[i]);
        }
    }
}

/// Whether no number that is computed with these can be NaN.
#[inline]
#[target_feature(enable = "avx2")]
fn are_finite(scales: &Scales) -> bool {
    let exponent = _mm256_castsi256_ps(_mm256_set1_epi32(0x7F80_0000));
    let mut special = _mm256_setzero_si256();
    for &v in scales.factor.iter().chain(&scales.offset) {
        let bits = _mm256_castps_si256(_mm256_and_ps(v, exponent));
        special = _mm256_or_si256(special, _mm256_cmpeq_epi32(bits, _mm256_castps_si256(exponent)));
    }
    _mm256_testz_si256(special, special) == 1
}

/// The first 16 bytes of each row's codes: byte by byte of all rows, in order.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn transpose(codes: Codes<'_>) -> [__m256i; 16] {
    let mut v = [_mm256_setzero_si256(); 16];
    let (first, second) = codes.offsets.split_at(16);
    for ((v, &low), &high) in v.iter_mut().zip(first).zip(second) {
        // SAFETY: the caller's duty.
        *v = unsafe {
            let (low, high) = (codes.start.add(low), codes.start.add(high));
            fetch(low.wrapping_add(ROW_AHEAD));
            fetch(high.wrapping_add(ROW_AHEAD));
            _mm256_set_m128i(_mm_loadu_si128(high.cast()), _mm_loadu_si128(low.cast()))
        };
    }
    // Each turn moves the highest bit of a byte's row behind those of its column, and the highest of its
    // column behind those of its row; after four, the two have changed places.
    for _ in 0..4 {
        let mut turned = v;
        for i in 0..8 {
            turned[2 * i] = _mm256_unpacklo_epi8(v[i], v[8 + i]);
            turned[2 * i + 1] = _mm256_unpackhi_epi8(v[i], v[8 + i]);
        }
        v = turned;
    }
    v
}
