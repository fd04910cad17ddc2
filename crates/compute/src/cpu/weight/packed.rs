//! Matrices in less than operands: blocks of a file, and quantised ones.

use super::FirstBroken;
use crate::cpu::arena::Memory;
use crate::cpu::panel::{Machine, PANEL};
use crate::cpu::pool::Pointers;
use crate::dequant::dequantize;
use crate::quantize::Quantized;
use crate::{Storage, WeightSource};

/// Rows that a task copies.
const TASK_ROWS: usize = 64;

/// Rows that become operands each time they are multiplied.
pub(crate) enum Packed {
    /// Blocks as in the file.
    Blocks(Storage, Memory),
    /// 4 or 8 bits.
    Quantized(Quantized),
}

/// Panels of the transpose of 4-bit codes that are unpacked together: half a cache line of codes.
pub(crate) const FOUR_BIT_WIDTH: usize = 2;

/// As [`FOUR_BIT_WIDTH`], of 8-bit codes.
pub(crate) const EIGHT_BIT_WIDTH: usize = 1;

impl Packed {
    /// A copy of a source's blocks, in the order of its rows. Notes the rows that are not finite.
    pub(super) fn blocks(
        machine: Machine<'_>,
        source: WeightSource<'_>,
        broken: &FirstBroken,
    ) -> Self {
        let memory = Memory::new(source.bytes.len());
        let start = Pointers(memory.as_ptr());
        machine.pool.run(source.rows.div_ceil(TASK_ROWS), &|task, _| {
            let start = { &start }.0;
            for row in task * TASK_ROWS..source.rows.min((task + 1) * TASK_ROWS) {
                let bytes = source.row(row);
                // SAFETY: the memory holds as many rows as the source, and every task writes its own.
                unsafe {
                    let out = start.add(row * bytes.len());
                    out.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
                }
                if !source.storage.all_finite(bytes) {
                    broken.note(row);
                }
            }
        });
        Packed::Blocks(source.storage, memory)
    }

    /// Panels of the transpose that are best unpacked together.
    pub(super) fn width(&self) -> usize {
        match self {
            Packed::Blocks(storage, _) => storage.block_len() / PANEL,
            Packed::Quantized(Quantized::FourBit(_)) => FOUR_BIT_WIDTH,
            Packed::Quantized(Quantized::EightBit(_)) => EIGHT_BIT_WIDTH,
        }
    }

    /// Some numbers of a row as f32; of blocks, whole ones.
    #[inline(always)]
    pub(super) fn read(&self, cols: usize, row: usize, first: usize, out: &mut [f32]) {
        match self {
            Packed::Blocks(storage, memory) => {
                let (block, size) = (storage.block_len(), storage.block_bytes());
                debug_assert!(first.is_multiple_of(block), "whole blocks");
                let start = (row * cols + first) / block * size;
                dequantize(*storage, &bytes(memory)[start..][..out.len() / block * size], out);
            }
            Packed::Quantized(matrix) => {
                let start = row * cols + first;
                matrix.values().read(cols, start..start + out.len(), out);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod grouped {
    use super::super::quantized_blocks::{
        BlockGroups, EightBitGroups, FourBitGroups, Q4, Q4WithMinimum, Q8,
    };
    use super::{Packed, bytes};
    use crate::{QuantizedValues, Storage};

    /// A matrix that AVX-512 unpacks 32 numbers at a time.
    #[derive(Clone, Copy)]
    pub(crate) enum Grouped<'a> {
        Q4(BlockGroups<'a, Q4>),
        Q4WithMinimum(BlockGroups<'a, Q4WithMinimum>),
        Q8(BlockGroups<'a, Q8>),
        FourBit(FourBitGroups<'a>),
        EightBit(EightBitGroups<'a>),
    }

    impl<'a> Grouped<'a> {
        /// None where only [`Packed::read`] unpacks it.
        pub(crate) fn new(matrix: &'a Packed, cols: usize) -> Option<Self> {
            match matrix {
                Packed::Blocks(storage, memory) => {
                    let bytes = bytes(memory);
                    Some(match storage {
                        Storage::Q4_0 => Grouped::Q4(BlockGroups::new(bytes, cols)),
                        Storage::Q4_1 => Grouped::Q4WithMinimum(BlockGroups::new(bytes, cols)),
                        Storage::Q8_0 => Grouped::Q8(BlockGroups::new(bytes, cols)),
                        _ => return None,
                    })
                }
                Packed::Quantized(matrix) => match matrix.values() {
                    QuantizedValues::FourBit { codes, map, block_len, absmax } => {
                        FourBitGroups::new(codes, map, block_len, absmax, cols)
                            .map(Grouped::FourBit)
                    }
                    QuantizedValues::EightBit { codes, absmax } => {
                        EightBitGroups::new(codes, absmax, cols).map(Grouped::EightBit)
                    }
                },
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) use grouped::Grouped;

/// Memory that is written no more.
fn bytes(memory: &Memory) -> &[u8] {
    // SAFETY: the memory is initialised, and was written when the matrix was loaded.
    unsafe { std::slice::from_raw_parts(memory.as_ptr(), memory.bytes()) }
}
