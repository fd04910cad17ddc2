//! Packing: rows of operands to the blocks that tiles read.

use super::block_rows;
use crate::cpu::operand::LANES;
use crate::cpu::panel::{Format, Machine, OperandRows, PairRows, StepRows as _, transpose_words};
use crate::cpu::pool::Pointers;
use crate::cpu::simd::{Kernel, Simd, dispatch};
use crate::cpu::{Isa, Pool};

/// The rows of A in the form that tiles read.
///
/// Block `i` holds rows from `i * block` on, as `[steps][rows of the block]` words: bf16 pairs for
/// [`Format::Pairs`], else f32. For [`Format::Tiles`] it is bf16 pairs as `[steps / 16][rows of the block][16]`.
#[derive(Clone, Copy)]
pub(crate) struct Packed {
    pub(crate) words: *const f32,
    pub(crate) rows: usize,
    pub(crate) steps: usize,
    /// Rows of every block but the last.
    pub(crate) block: usize,
}

impl Packed {
    /// Spreads rows evenly over the fewest blocks; steps may be padded with zeros.
    pub(crate) fn new(machine: Machine<'_>, words: *const f32, rows: usize, steps: usize) -> Self {
        let blocks = rows.div_ceil(block_rows(machine.isa, machine.format)).max(1);
        let steps = steps.next_multiple_of(machine.format.chain());
        Packed { words, rows, steps, block: rows.div_ceil(blocks).max(1) }
    }

    /// Words of all blocks.
    pub(crate) fn words(&self) -> usize {
        self.rows * self.steps
    }

    pub(crate) fn blocks(&self) -> usize {
        self.rows.div_ceil(self.block)
    }

    /// First row of a block, and number of rows.
    #[inline(always)]
    pub(crate) fn block_range(&self, block: usize) -> (usize, usize) {
        let first = block * self.block;
        (first, self.block.min(self.rows - first))
    }

    /// The words of a block.
    #[inline(always)]
    pub(crate) fn block(&self, block: usize) -> *const f32 {
        // SAFETY: `words` has room for every block.
        unsafe { self.words.add(block * self.block * self.steps) }
    }
}

/// One block of rows (`cols` operands each) to be packed as `into` says.
#[derive(Clone, Copy)]
struct PackJob {
    format: Format,
    input: *const u8,
    cols: usize,
    into: Packed,
    block: usize,
}

impl Kernel for PackJob {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let range = self.into.block_range(self.block);
        let (steps, end) = (self.into.steps, self.into.steps * range.1);
        let out = self.into.block(self.block).cast_mut();
        // SAFETY: `pack_blocks`' caller gives valid pointers, and a block has one writer.
        unsafe { pack_rows(simd, self.format, self.input, self.cols, range, steps, out, end) };
    }
}

/// Writes rows of operands (first, and how many) as a block of [`Packed`], and never from word `end` on.
///
/// # Safety
/// The rows, of `cols` operands, exist; `out` is valid for `end` words.
#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "a kernel's arguments stay in registers")]
pub(crate) unsafe fn pack_rows<S: Simd>(
    simd: S,
    format: Format,
    input: *const u8,
    cols: usize,
    range: (usize, usize),
    steps: usize,
    out: *mut f32,
    end: usize,
) {
    let stride = range.1;
    // SAFETY: the caller's duty.
    unsafe {
        match format {
            Format::Pairs => {
                let source = PairRows { start: input.cast(), cols };
                transpose_words(simd, source, range, steps, out, stride, end);
            }
            Format::Tiles => {
                let source = PairRows { start: input.cast(), cols };
                for step in (0..steps).step_by(Format::CHAIN) {
                    for row in 0..range.1 {
                        let words = source.words(simd, range.0 + row, step);
                        simd.store(words, &mut *out.add(step * stride + row * LANES).cast());
                    }
                }
            }
            Format::Halves => {
                let source = OperandRows { start: input.cast::<u16>(), cols };
                transpose_words(simd, source, range, steps, out, stride, end);
            }
            Format::Floats => {
                let source = OperandRows { start: input.cast::<f32>(), cols };
                transpose_words(simd, source, range, steps, out, stride, end);
            }
        }
    }
}

/// One input of [`pack_blocks`]: operands `[into.rows, cols]`.
#[derive(Clone, Copy)]
pub(crate) struct PackInput {
    pub(crate) input: *const u8,
    pub(crate) cols: usize,
    pub(crate) into: Packed,
}

/// Packs rows of operands.
///
/// # Safety
/// Inputs and what they go into are valid for their sizes and not used otherwise.
pub(crate) unsafe fn pack_blocks(pool: &Pool, isa: Isa, format: Format, inputs: &[PackInput]) {
    /// Fewer words than this are packed before another thread would wake.
    const ALONE: usize = 1 << 15;
    let inputs = Pointers(inputs);
    let blocks: usize = inputs.0.iter().map(|input| input.into.blocks()).sum();
    let words: usize = inputs.0.iter().map(|input| input.into.rows * input.into.steps).sum();
    let tasks = if words < ALONE { 1 } else { (pool.threads() * 8).min(blocks) };
    pool.run(tasks, &|task, _| {
        let inputs = { &inputs }.0;
        let (from, to) = (blocks * task / tasks, blocks * (task + 1) / tasks);
        let mut first = 0;
        for input in inputs {
            let count = input.into.blocks();
            for block in from.max(first)..to.min(first + count) {
                let block = block - first;
                let PackInput { input, cols, into } = *input;
                dispatch(isa, PackJob { format, input, cols, into, block });
            }
            first += count;
        }
    });
}
