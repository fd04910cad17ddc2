//! Rows out of a matrix that was quantised as a whole.

use std::ops::Range;

use super::BlockAbsmax;
use crate::{Absmax, QuantizedValues};

/// Rows of a quantised matrix, with the numbers that they have in it.
pub struct QuantizedRows<'a>(Numbers<'a>);

enum Numbers<'a> {
    Quantized(QuantizedValues<'a>),
    /// Whole blocks from the middle of a matrix.
    FourBit {
        codes: &'a [u8],
        map: &'a [f32; 16],
        block_len: usize,
        absmax: BlockAbsmax,
    },
    /// Part of a block is no block of its own.
    Floats(Vec<u8>),
}

impl<'a> QuantizedValues<'a> {
    /// Some rows of the matrix, which has `cols` columns.
    pub fn rows(&self, cols: usize, rows: Range<usize>) -> QuantizedRows<'a> {
        let range = rows.start * cols..rows.end * cols;
        QuantizedRows(match *self {
            QuantizedValues::EightBit { codes, absmax } => {
                let (codes, absmax) = (&codes[range], &absmax[rows]);
                Numbers::Quantized(QuantizedValues::EightBit { codes, absmax })
            }
            QuantizedValues::FourBit { codes, map, block_len, absmax }
                if range.start.is_multiple_of(block_len) =>
            {
                let codes = &codes[range.start / 2..range.end.div_ceil(2)];
                let blocks = range.start / block_len..range.end.div_ceil(block_len);
                Numbers::FourBit { codes, map, block_len, absmax: absmax.blocks_of(blocks) }
            }
            QuantizedValues::FourBit { .. } => {
                let mut numbers = vec![0.0; range.len()];
                self.read(cols, range, &mut numbers);
                Numbers::Floats(numbers.iter().flat_map(|number| number.to_le_bytes()).collect())
            }
        })
    }
}

impl Absmax<'_> {
    /// The magnitudes of some blocks.
    fn blocks_of(&self, blocks: Range<usize>) -> BlockAbsmax {
        match *self {
            Absmax::Plain(absmax) => BlockAbsmax::Plain(absmax[blocks].to_vec()),
            Absmax::Nested { codes, map, block_len, absmax, offset }
                if blocks.start.is_multiple_of(block_len) =>
            {
                let nested = blocks.start / block_len..blocks.end.div_ceil(block_len);
                BlockAbsmax::Nested {
                    codes: codes[blocks].to_vec(),
                    map: map.to_vec(),
                    block_len,
                    absmax: absmax[nested].to_vec(),
                    offset,
                }
            }
            nested => BlockAbsmax::Plain(blocks.map(|block| nested.get(block)).collect()),
        }
    }
}

impl QuantizedRows<'_> {
    /// The numbers as little-endian f32, where the rows begin within a block.
    pub fn floats(&self) -> Option<&[u8]> {
        match &self.0 {
            Numbers::Floats(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The rows, quantised.
    ///
    /// # Panics
    /// Where they are [`floats`](QuantizedRows::floats).
    pub fn values(&self) -> QuantizedValues<'_> {
        match &self.0 {
            Numbers::Quantized(values) => *values,
            Numbers::FourBit { codes, map, block_len, absmax } => QuantizedValues::FourBit {
                codes,
                map,
                block_len: *block_len,
                absmax: absmax.values(),
            },
            Numbers::Floats(_) => panic!("rows that are not quantised"),
        }
    }
}
