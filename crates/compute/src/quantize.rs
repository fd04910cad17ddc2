//! NF4, 8-bit rows, and double quantisation, as bitsandbytes 0.41 and later stores them.
//!
//! Plain code, the meaning of every quantised form: kernels are tested against it, and it against the package
//! (`xtask/golden/nf4.py`). Products and sums are rounded one by one, so the bits are the same on every machine.
//! Everything works on runs of numbers, so that a large matrix never exists in f32 as a whole.

mod rows;

use std::ops::Range;
use std::sync::LazyLock;

use crate::{Absmax, Error, Quantization, QuantizedValues, Result, WeightSource, all_finite};
pub use rows::QuantizedRows;

/// Numbers to one magnitude.
pub const BLOCK_LEN: usize = 64;

/// Magnitudes to one magnitude of magnitudes.
pub const NESTED_LEN: usize = 256;

/// What a step of an 8-bit row stands for, where its largest magnitude is 1: 1/127.
pub const EIGHT_BIT_STEP: f32 = 1.0 / 127.0;

/// No block is divided by less.
const SMALLEST: f32 = 1e-38;

/// The sixteen numbers of NF4: quantiles of the normal distribution (Dettmers et al. 2023, appendix E).
pub const NF4: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// Between the numbers of a map: what lies above a threshold belongs to the next number.
const fn thresholds<const N: usize, const M: usize>(map: &[f32; N]) -> [f32; M] {
    assert!(M + 1 == N, "a threshold between every two numbers");
    let mut thresholds = [0.0; M];
    let mut index = 0;
    while index < M {
        thresholds[index] = (map[index] + map[index + 1]) / 2.0;
        index += 1;
    }
    thresholds
}

const NF4_THRESHOLDS: [f32; 15] = thresholds(&NF4);

/// The signed dynamic map of 8 bits (Dettmers 2015): seven decades below 1, each with twice the
/// fractions of the one below it.
pub static DYNAMIC: LazyLock<[f32; 256]> = LazyLock::new(|| {
    let mut map = [0.0; 256];
    let mut next = 2;
    map[1] = 1.0;
    for decade in 0..7 {
        let parts = 1_usize << decade;
        let scale = 10.0_f64.powi(decade - 6) as f32;
        let step = (1.0_f32 - 0.1) / parts as f32;
        // From the nearer end and rounded once, as `torch.linspace` counts.
        let boundary = |index: usize| {
            let from_start = index < parts.div_ceil(2);
            if from_start {
                step.mul_add(index as f32, 0.1)
            } else {
                step.mul_add(-((parts - index) as f32), 1.0)
            }
        };
        for part in 0..parts {
            let number = scale * ((boundary(part) + boundary(part + 1)) / 2.0);
            map[next..next + 2].copy_from_slice(&[number, -number]);
            next += 2;
        }
    }
    map.sort_by(f32::total_cmp);
    map
});

static DYNAMIC_THRESHOLDS: LazyLock<[f32; 255]> = LazyLock::new(|| thresholds(&DYNAMIC));

/// The largest magnitude; not finite where a number is not.
#[inline(always)]
fn largest(values: &[f32]) -> f32 {
    // Without their signs the bits of floats are in the order of their values, infinity and NaN last.
    let bits = values.iter().map(|value| value.to_bits() & 0x7FFF_FFFF);
    f32::from_bits(bits.fold(0, u32::max))
}

/// Quantises a run of blocks: two codes a byte, the first in the high half, and a magnitude a block. Only
/// the last block may be short. Where a number is not finite, neither is its block's magnitude.
#[inline(always)]
pub fn nf4_blocks(values: &[f32], codes: &mut [u8], absmax: &mut [f32]) {
    assert_eq!(codes.len(), values.len().div_ceil(2), "two codes a byte");
    assert_eq!(absmax.len(), values.len().div_ceil(BLOCK_LEN), "a magnitude a block");
    let blocks = values.chunks(BLOCK_LEN).zip(codes.chunks_mut(BLOCK_LEN / 2));
    for ((values, codes), absmax) in blocks.zip(absmax) {
        *absmax = largest(values);
        let scale = 1.0 / absmax.max(SMALLEST);
        let mut block = [0.0; BLOCK_LEN];
        block[..values.len()].copy_from_slice(values);
        let mut numbers = [0_u8; BLOCK_LEN];
        for (number, value) in numbers.iter_mut().zip(block) {
            let value = value * scale;
            *number = NF4_THRESHOLDS.iter().map(|&threshold| u8::from(value > threshold)).sum();
        }
        for (code, pair) in codes.iter_mut().zip(numbers.as_chunks::<2>().0) {
            *code = pair[0] << 4 | pair[1];
        }
    }
}

/// The mean of magnitudes, which is taken from each before they are quantised.
pub fn mean(absmax: &[f32]) -> f32 {
    let sum: f64 = absmax.iter().copied().map(f64::from).sum();
    (sum / absmax.len().max(1) as f64) as f32
}

/// Quantises up to [`NESTED_LEN`] magnitudes by the dynamic map, and returns the largest distance from
/// the mean.
pub fn nested_block(absmax: &[f32], mean: f32, codes: &mut [u8]) -> f32 {
    let mut distances = [0.0; NESTED_LEN];
    for (distance, absmax) in distances.iter_mut().zip(absmax) {
        *distance = absmax - mean;
    }
    let nested = largest(&distances[..absmax.len()]);
    let scale = 1.0 / nested.max(SMALLEST);
    let thresholds = &*DYNAMIC_THRESHOLDS;
    for (code, distance) in codes.iter_mut().zip(distances) {
        let distance = distance * scale;
        *code = thresholds.partition_point(|&threshold| threshold < distance) as u8;
    }
    nested
}

/// Quantises a row to 8 bits, and returns its largest magnitude.
#[inline(always)]
pub fn int8_row(values: &[f32], codes: &mut [i8]) -> f32 {
    assert_eq!(codes.len(), values.len(), "a code a number");
    let absmax = largest(values);
    let scale = if absmax > 0.0 { 127.0 / absmax } else { 0.0 };
    for (code, value) in codes.iter_mut().zip(values) {
        *code = (value * scale).round_ties_even() as i8;
    }
    absmax
}

/// A quantised matrix in memory of its own.
#[derive(Clone, Debug, PartialEq)]
pub enum Quantized {
    /// See [`FourBit`].
    FourBit(FourBit),
    /// See [`EightBit`].
    EightBit(EightBit),
}

/// 4 bits: `map[code] * absmax[i / block_len]` over the flattened matrix.
#[derive(Clone, Debug, PartialEq)]
pub struct FourBit {
    /// Two codes a byte, the first in the high half.
    pub codes: Vec<u8>,
    /// What the codes stand for.
    pub map: [f32; 16],
    /// Numbers to one magnitude.
    pub block_len: usize,
    /// Magnitudes.
    pub absmax: BlockAbsmax,
}

/// The magnitudes of 4-bit blocks, as [`Absmax`] has them.
#[derive(Clone, Debug, PartialEq)]
pub enum BlockAbsmax {
    /// As they are.
    Plain(Vec<f32>),
    /// Quantised again: `map[code] * absmax[block / block_len] + offset`.
    Nested {
        /// One a block.
        codes: Vec<u8>,
        /// What the codes stand for, `[256]`.
        map: Vec<f32>,
        /// Blocks to one magnitude.
        block_len: usize,
        /// Magnitudes of the magnitudes.
        absmax: Vec<f32>,
        /// Their mean.
        offset: f32,
    },
}

/// 8 bits: `code * absmax[row] / 127`.
#[derive(Clone, Debug, PartialEq)]
pub struct EightBit {
    /// `[rows, cols]`.
    pub codes: Vec<i8>,
    /// `[rows]`.
    pub absmax: Vec<f32>,
}

impl BlockAbsmax {
    /// The magnitudes.
    pub fn values(&self) -> Absmax<'_> {
        match self {
            BlockAbsmax::Plain(absmax) => Absmax::Plain(absmax),
            BlockAbsmax::Nested { codes, map, block_len, absmax, offset } => {
                Absmax::Nested { codes, map, block_len: *block_len, absmax, offset: *offset }
            }
        }
    }
}

impl Quantized {
    /// Quantises a matrix. One that holds NaN or an infinity is an error.
    pub fn new(source: WeightSource<'_>, quantization: Quantization) -> Result<Self> {
        source.check()?;
        let (rows, cols) = (source.rows, source.cols);
        match quantization {
            Quantization::Nf4 => {
                let len = rows * cols;
                let mut codes = vec![0; len.div_ceil(2)];
                let mut absmax = vec![0.0; len.div_ceil(BLOCK_LEN)];
                let mut numbers = vec![0.0; RUN.min(len)];
                for (run, codes) in codes.chunks_mut(RUN / 2).enumerate() {
                    let first = run * RUN;
                    let numbers = &mut numbers[..RUN.min(len - first)];
                    source.read(first, numbers);
                    let blocks = first / BLOCK_LEN..(first + numbers.len()).div_ceil(BLOCK_LEN);
                    nf4_blocks(numbers, codes, &mut absmax[blocks]);
                }
                check_finite(&absmax, |block| block * BLOCK_LEN / cols, rows, cols)?;
                let absmax = BlockAbsmax::nest(&absmax);
                let block_len = BLOCK_LEN;
                Ok(Quantized::FourBit(FourBit { codes, map: NF4, block_len, absmax }))
            }
            Quantization::Int8 => {
                let mut codes = vec![0; rows * cols];
                let mut numbers = vec![0.0; cols];
                let row = |(row, codes)| {
                    source.read(row * cols, &mut numbers);
                    int8_row(&numbers, codes)
                };
                let absmax: Vec<f32> = codes.chunks_mut(cols.max(1)).enumerate().map(row).collect();
                check_finite(&absmax, |row| row, rows, cols)?;
                Ok(Quantized::EightBit(EightBit { codes, absmax }))
            }
        }
    }

    /// A copy of a matrix that is quantised already, which must be whole.
    pub fn copy(rows: usize, cols: usize, values: QuantizedValues<'_>) -> Result<Self> {
        values.check(rows, cols)?;
        Ok(match values {
            QuantizedValues::FourBit { codes, map, block_len, absmax } => {
                let (codes, map) = (codes.to_vec(), *map);
                let absmax = match absmax {
                    Absmax::Plain(absmax) => BlockAbsmax::Plain(absmax.to_vec()),
                    Absmax::Nested { codes, map, block_len, absmax, offset } => {
                        let (codes, map) = (codes.to_vec(), map.to_vec());
                        let absmax = absmax.to_vec();
                        BlockAbsmax::Nested { codes, map, block_len, absmax, offset }
                    }
                };
                Quantized::FourBit(FourBit { codes, map, block_len, absmax })
            }
            QuantizedValues::EightBit { codes, absmax } => {
                let (codes, absmax) = (codes.to_vec(), absmax.to_vec());
                Quantized::EightBit(EightBit { codes, absmax })
            }
        })
    }

    /// Its numbers.
    pub fn values(&self) -> QuantizedValues<'_> {
        match self {
            Quantized::FourBit(FourBit { codes, map, block_len, absmax }) => {
                let (block_len, absmax) = (*block_len, absmax.values());
                QuantizedValues::FourBit { codes, map, block_len, absmax }
            }
            Quantized::EightBit(EightBit { codes, absmax }) => {
                QuantizedValues::EightBit { codes, absmax }
            }
        }
    }
}

/// Numbers that are quantised at a time: whole blocks of every storage and of NF4.
pub(crate) const RUN: usize = 1 << 14;

impl BlockAbsmax {
    /// Quantises magnitudes.
    fn nest(absmax: &[f32]) -> Self {
        let offset = mean(absmax);
        let mut codes = vec![0; absmax.len()];
        let blocks = absmax.chunks(NESTED_LEN).zip(codes.chunks_mut(NESTED_LEN));
        let nested = blocks.map(|(absmax, codes)| nested_block(absmax, offset, codes)).collect();
        let (map, block_len) = (DYNAMIC.to_vec(), NESTED_LEN);
        BlockAbsmax::Nested { codes, map, block_len, absmax: nested, offset }
    }
}

/// Refuses magnitudes that are not finite; `row` says whose they are.
pub(crate) fn check_finite(
    absmax: &[f32],
    row: impl Fn(usize) -> usize,
    rows: usize,
    cols: usize,
) -> Result<()> {
    if all_finite(absmax) {
        return Ok(());
    }
    let index = absmax.iter().position(|absmax| !absmax.is_finite()).unwrap_or(0);
    Err(Error::NotFinite { row: row(index), rows, cols })
}

impl Absmax<'_> {
    /// Number of blocks.
    pub fn blocks(&self) -> usize {
        match self {
            Absmax::Plain(absmax) => absmax.len(),
            Absmax::Nested { codes, .. } => codes.len(),
        }
    }

    /// The magnitude of a block.
    #[inline(always)]
    pub fn get(&self, block: usize) -> f32 {
        match *self {
            Absmax::Plain(absmax) => absmax[block],
            Absmax::Nested { codes, map, block_len, absmax, offset } => {
                map[usize::from(codes[block])] * absmax[block / block_len] + offset
            }
        }
    }
}

impl QuantizedValues<'_> {
    /// Whether the parts fit a matrix of this shape, and all that codes are multiplied by is finite.
    pub fn check(&self, rows: usize, cols: usize) -> Result<()> {
        self.check_parts(rows, cols)?;
        let finite = |part, values: &[f32]| match all_finite(values) {
            true => Ok(()),
            false => Err(Error::NotFinitePart { part }),
        };
        // Of an empty matrix there are no magnitudes, so nothing is divided by zero.
        match *self {
            QuantizedValues::FourBit { map, block_len, absmax, .. } => {
                finite("map", map)?;
                match absmax {
                    Absmax::Plain(absmax) => {
                        check_finite(absmax, |block| block * block_len / cols, rows, cols)
                    }
                    Absmax::Nested { map, block_len: nested, absmax, offset, .. } => {
                        finite("nested map", map)?;
                        finite("offset", &[offset])?;
                        let row = |block| block * nested * block_len / cols;
                        check_finite(absmax, row, rows, cols)
                    }
                }
            }
            QuantizedValues::EightBit { absmax, .. } => check_finite(absmax, |row| row, rows, cols),
        }
    }

    fn check_parts(&self, rows: usize, cols: usize) -> Result<()> {
        let len = rows * cols;
        let error = |part, expected, actual| {
            Err(Error::QuantizedParts { part, rows, cols, expected, actual })
        };
        let same = |part, expected: usize, actual: usize| {
            if expected == actual { Ok(()) } else { error(part, expected, actual) }
        };
        match *self {
            QuantizedValues::FourBit { codes, block_len, absmax, .. } => {
                if block_len == 0 || block_len % 2 == 1 {
                    return error("block length", BLOCK_LEN, block_len);
                }
                same("bytes of codes", len.div_ceil(2), codes.len())?;
                same("magnitudes", len.div_ceil(block_len), absmax.blocks())?;
                if let Absmax::Nested { codes, map, block_len, absmax, .. } = absmax {
                    if block_len == 0 {
                        return error("nested block length", NESTED_LEN, block_len);
                    }
                    same("numbers of the nested map", 256, map.len())?;
                    same("nested magnitudes", codes.len().div_ceil(block_len), absmax.len())?;
                }
                Ok(())
            }
            QuantizedValues::EightBit { codes, absmax } => {
                same("codes", len, codes.len())?;
                same("magnitudes", rows, absmax.len())
            }
        }
    }

    /// The f32 numbers in a range of the flattened matrix `[rows, cols]`.
    #[inline(always)]
    pub fn read(&self, cols: usize, range: Range<usize>, out: &mut [f32]) {
        assert_eq!(range.len(), out.len(), "numbers {range:?}");
        match *self {
            QuantizedValues::FourBit { codes, map, block_len, absmax } => {
                let mut first = range.start;
                while first < range.end {
                    let block = first / block_len;
                    let last = range.end.min((block + 1) * block_len);
                    let out = &mut out[first - range.start..last - range.start];
                    four_bit_part(codes, map, absmax.get(block), first, out);
                    first = last;
                }
            }
            QuantizedValues::EightBit { codes, absmax } => {
                let mut first = range.start;
                while first < range.end {
                    let row = first / cols;
                    let last = range.end.min((row + 1) * cols);
                    let out = &mut out[first - range.start..last - range.start];
                    for (out, &code) in out.iter_mut().zip(&codes[first..last]) {
                        *out = f32::from(code) * absmax[row] * EIGHT_BIT_STEP;
                    }
                    first = last;
                }
            }
        }
    }

    /// Bytes that a backend keeps of a matrix of this shape.
    pub fn resident_bytes(&self, rows: usize, cols: usize) -> usize {
        let len = rows * cols;
        match *self {
            QuantizedValues::FourBit { block_len, absmax, .. } => {
                let blocks = len.div_ceil(block_len);
                let absmax = match absmax {
                    Absmax::Plain(_) => 4 * blocks,
                    Absmax::Nested { block_len, map, .. } => {
                        blocks + 4 * (blocks.div_ceil(block_len) + map.len())
                    }
                };
                len.div_ceil(2) + absmax
            }
            QuantizedValues::EightBit { .. } => len + 4 * rows,
        }
    }
}

impl Quantization {
    /// Bytes that a backend keeps of a matrix of this shape.
    pub fn resident_bytes(self, rows: usize, cols: usize) -> usize {
        match self {
            Quantization::Nf4 => QuantizedValues::FourBit {
                codes: &[],
                map: &NF4,
                block_len: BLOCK_LEN,
                absmax: Absmax::Nested {
                    codes: &[],
                    map: &*DYNAMIC,
                    block_len: NESTED_LEN,
                    absmax: &[],
                    offset: 0.0,
                },
            },
            Quantization::Int8 => QuantizedValues::EightBit { codes: &[], absmax: &[] },
        }
        .resident_bytes(rows, cols)
    }
}

/// Numbers from `first` on of a block.
#[inline(always)]
fn four_bit_part(codes: &[u8], map: &[f32; 16], absmax: f32, first: usize, out: &mut [f32]) {
    let table = map.map(|number| number * absmax);
    let number = |index: usize| {
        let shift = if index.is_multiple_of(2) { 4 } else { 0 };
        table[usize::from(codes[index / 2] >> shift & 15)]
    };
    if first % 2 == 1 {
        for (index, out) in out.iter_mut().enumerate() {
            *out = number(first + index);
        }
        return;
    }
    let (pairs, rest) = out.as_chunks_mut::<2>();
    let index = first + 2 * pairs.len();
    for (out, code) in pairs.iter_mut().zip(&codes[first / 2..]) {
        *out = [table[usize::from(code >> 4)], table[usize::from(code & 15)]];
    }
    if let [last] = rest {
        *last = number(index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Storage;

    fn source(values: &[f32], rows: usize) -> (Vec<u8>, usize, usize) {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        (bytes, rows, values.len() / rows)
    }

    fn quantize(values: &[f32], rows: usize, to: Quantization) -> Result<Quantized> {
        let (bytes, rows, cols) = source(values, rows);
        let storage = Storage::F32;
        Quantized::new(WeightSource { rows, cols, storage, bytes: &bytes, row_order: None }, to)
    }

    #[test]
    fn numbers_of_the_map_come_back() {
        let values: Vec<f32> = NF4.iter().chain(&NF4).map(|number| 3.0 * number).collect();
        let quantized = quantize(&values, 2, Quantization::Nf4).unwrap();
        let mut out = vec![0.0; 32];
        quantized.values().read(16, 0..32, &mut out);
        assert_eq!(out, values);
        quantized.values().read(16, 5..12, &mut out[..7]);
        assert_eq!(out[..7], values[5..12]);
    }

    #[test]
    fn what_is_not_finite_is_refused_with_its_row() {
        #[track_caller]
        fn check(value: f32, to: Quantization) {
            let mut values = vec![1.0; 3 * 64];
            values[2 * 64 + 5] = value;
            let error = quantize(&values, 3, to).unwrap_err();
            assert_eq!(error.to_string(), "row 2 of a matrix of 3 x 64 holds NaN or infinity");
        }
        check(f32::NAN, Quantization::Nf4);
        check(f32::NEG_INFINITY, Quantization::Nf4);
        check(f32::NAN, Quantization::Int8);
    }

    #[test]
    fn parts_that_do_not_fit_are_refused() {
        let Quantized::FourBit(whole) = quantize(&[1.0; 130], 2, Quantization::Nf4).unwrap() else {
            panic!("NF4 has 4 bits")
        };
        #[track_caller]
        fn check(matrix: FourBit, rows: usize, expected: &str) {
            let matrix = Quantized::FourBit(matrix);
            let error = Quantized::copy(rows, 65, matrix.values()).unwrap_err();
            assert_eq!(error.to_string(), expected);
        }
        let matrix = whole.clone();
        check(matrix, 3, "a quantised matrix of 3 x 65 has 98 bytes of codes, not 65");
        let matrix = FourBit { absmax: BlockAbsmax::Plain(vec![1.0; 2]), ..whole.clone() };
        check(matrix, 2, "a quantised matrix of 2 x 65 has 3 magnitudes, not 2");
        let mut matrix = whole.clone();
        if let BlockAbsmax::Nested { map, .. } = &mut matrix.absmax {
            map.pop();
        }
        check(matrix, 2, "a quantised matrix of 2 x 65 has 256 numbers of the nested map, not 255");
    }

    #[test]
    fn resident_bytes_are_those_of_the_parts() {
        for (rows, cols) in [(3, 65), (300, 64)] {
            let values = vec![0.5; rows * cols];
            for to in [Quantization::Nf4, Quantization::Int8] {
                let parts = match quantize(&values, rows, to).unwrap() {
                    Quantized::EightBit(EightBit { codes, absmax }) => {
                        codes.len() + 4 * absmax.len()
                    }
                    Quantized::FourBit(FourBit { codes, absmax, .. }) => match absmax {
                        BlockAbsmax::Plain(_) => panic!("NF4 is quantised twice"),
                        BlockAbsmax::Nested { codes: own, map, absmax, .. } => {
                            codes.len() + own.len() + 4 * (map.len() + absmax.len())
                        }
                    },
                };
                assert_eq!(to.resident_bytes(rows, cols), parts);
            }
        }
    }
}
