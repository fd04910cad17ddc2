//! Packing: rows of numbers to blocks and panels, 16 x 16 words at a time.

use super::{Format, PANEL};
use crate::cpu::operand::{LANES, Operand};
use crate::cpu::simd::{Kernel, Simd, dispatch};
use crate::cpu::{Isa, Pool};

/// The rows of A in the form that tiles read.
///
/// Block `i` holds rows from `i * block` on, as `[steps][rows of the block]` words: bf16 pairs for
/// [`Format::Pairs`], else f32.
#[derive(Clone, Copy)]
pub(crate) struct Packed {
    pub(crate) words: *const f32,
    pub(crate) rows: usize,
    pub(crate) steps: usize,
    /// Rows of every block but the last.
    pub(crate) block: usize,
}

impl Packed {
    /// Spreads rows evenly over the fewest blocks.
    pub(crate) fn new(words: *const f32, rows: usize, steps: usize, most: usize) -> Self {
        let blocks = rows.div_ceil(most).max(1);
        Packed { words, rows, steps, block: rows.div_ceil(blocks).max(1) }
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

/// Rows whose words can be read 16 steps at a time.
pub(crate) trait Words: Copy {
    /// Steps `step..step + 16` of a row; 0 beyond its end.
    ///
    /// # Safety
    /// The row exists.
    unsafe fn words<S: Simd>(self, simd: S, row: usize, step: usize) -> S::V;
}

/// Rows of f32 that become bf16 pairs, or stay what they are.
#[derive(Clone, Copy)]
pub(crate) struct RowsF32<const PAIRS: bool> {
    pub(crate) start: *const f32,
    pub(crate) cols: usize,
    pub(crate) stride: usize,
}

impl<const PAIRS: bool> Words for RowsF32<PAIRS> {
    #[inline(always)]
    unsafe fn words<S: Simd>(self, simd: S, row: usize, step: usize) -> S::V {
        // SAFETY: the caller's duty: `cols` numbers of the row can be read.
        unsafe {
            let row = self.start.add(row * self.stride);
            if !PAIRS {
                return load_part(simd, row, step, self.cols);
            }
            let mut words = [0_u16; 2 * LANES];
            let (low, high) = words.split_at_mut(LANES);
            let first = load_part::<S, f32>(simd, row, 2 * step, self.cols);
            let second = load_part::<S, f32>(simd, row, 2 * step + LANES, self.cols);
            simd.store_bf16(first, low.try_into().expect("16 of 32"));
            simd.store_bf16(second, high.try_into().expect("16 of 32"));
            simd.load(&words_of(&words))
        }
    }
}

/// Rows of a buffer in the operand type, one number a step.
#[derive(Clone, Copy)]
struct OperandRows<E> {
    start: *const E,
    cols: usize,
}

impl<E: Operand> Words for OperandRows<E> {
    #[inline(always)]
    unsafe fn words<S: Simd>(self, simd: S, row: usize, step: usize) -> S::V {
        // SAFETY: the caller's duty.
        unsafe { load_part(simd, self.start.add(row * self.cols), step, self.cols) }
    }
}

/// Rows of a bf16 buffer, two numbers a step.
#[derive(Clone, Copy)]
struct PairRows {
    start: *const u16,
    cols: usize,
}

impl Words for PairRows {
    #[inline(always)]
    unsafe fn words<S: Simd>(self, simd: S, row: usize, step: usize) -> S::V {
        // SAFETY: the caller's duty.
        unsafe {
            let at = self.start.add(row * self.cols + 2 * step);
            if 2 * (step + LANES) <= self.cols {
                return simd.load(&at.cast::<[f32; LANES]>().read_unaligned());
            }
            let mut words = [0_u16; 2 * LANES];
            let count = self.cols.saturating_sub(2 * step);
            std::ptr::copy_nonoverlapping(at, words.as_mut_ptr(), count);
            simd.load(&words_of(&words))
        }
    }
}

/// The same bits.
#[inline(always)]
fn words_of(halves: &[u16; 2 * LANES]) -> [f32; LANES] {
    // SAFETY: equal size, every bit pattern valid.
    unsafe { std::mem::transmute_copy(halves) }
}

/// Numbers `at..at + 16` of a row of `len`; 0 beyond its end.
#[inline(always)]
unsafe fn load_part<S: Simd, E: Operand>(simd: S, row: *const E, at: usize, len: usize) -> S::V {
    // SAFETY: the caller's duty: the row holds `len` numbers.
    unsafe {
        if at + LANES <= len {
            return E::load16(simd, &*row.add(at).cast());
        }
        let mut part = [E::default(); LANES];
        for (lane, part) in part.iter_mut().enumerate().take(len.saturating_sub(at)) {
            *part = *row.add(at + lane);
        }
        E::load16(simd, &part)
    }
}

/// Writes `rows` (at most 16) rows of words step by step: row `i` of step `s` goes to
/// `out[s * stride + i]`. What lies between is overwritten, ascending, but nothing from `end` on.
///
/// # Safety
/// The rows exist; `out` is valid for `end` elements.
#[inline(always)]
pub(crate) unsafe fn transpose_words<S: Simd, W: Words, E: Operand>(
    simd: S,
    source: W,
    rows: (usize, usize),
    steps: usize,
    out: *mut E,
    stride: usize,
    end: usize,
) {
    let mut step = 0;
    while step < steps {
        let mut square = [simd.zero(); LANES];
        for (lane, vector) in square.iter_mut().enumerate().take(rows.1) {
            // SAFETY: the caller's duty.
            *vector = unsafe { source.words(simd, rows.0 + lane, step) };
        }
        simd.transpose(&mut square);
        for (lane, &vector) in square.iter().enumerate().take(steps - step) {
            let at = (step + lane) * stride;
            // SAFETY: the caller's duty, and `at` plus what is written stays below `end`.
            unsafe {
                if at + LANES <= end {
                    E::store16(simd, vector, &mut *out.add(at).cast());
                } else {
                    let mut part = [E::default(); LANES];
                    E::store16(simd, vector, &mut part);
                    std::ptr::copy_nonoverlapping(part.as_ptr(), out.add(at), rows.1);
                }
            }
        }
        step += LANES;
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

/// Writes rows of operands (first, and how many) as `[steps][rows]`, and never from `end` on.
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
    let inputs = super::Pointers(inputs);
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

/// Writes a panel from up to 32 rows of f32, rounded to the format; missing rows become 0.
///
/// # Safety
/// `source` holds `rows` rows of `cols`, `out` has room for the steps of `cols`.
#[inline(always)]
pub(crate) unsafe fn panel_from_rows<S: Simd>(
    simd: S,
    format: Format,
    source: RowsF32<false>,
    rows: usize,
    out: *mut u8,
) {
    let steps = format.steps(source.cols);
    for half in 0..2 {
        let first = half * LANES;
        let range = (first, rows.saturating_sub(first).min(LANES));
        let end = steps * PANEL - first;
        // SAFETY: the caller's duty; stores of 16 at a stride of 32 never reach beyond `end`.
        unsafe {
            match format {
                Format::Pairs => {
                    let RowsF32 { start, cols, stride } = source;
                    let source = RowsF32::<true> { start, cols, stride };
                    let out = out.cast::<f32>().add(first);
                    transpose_words(simd, source, range, steps, out, PANEL, end);
                }
                Format::Halves => {
                    let out = out.cast::<u16>().add(first);
                    transpose_words(simd, source, range, steps, out, PANEL, end);
                }
                Format::Floats => {
                    let out = out.cast::<f32>().add(first);
                    transpose_words(simd, source, range, steps, out, PANEL, end);
                }
            }
        }
    }
}

/// Steps of a panel of the transpose from one panel of a matrix: `columns` of it (from where
/// `source` points), `steps` along its rows.
///
/// # Safety
/// The columns exist in the panel; `out` has room for the steps.
#[inline(always)]
pub(crate) unsafe fn transpose_panel<S: Simd>(
    simd: S,
    format: Format,
    source: *const u8,
    columns: usize,
    steps: usize,
    out: *mut u8,
) {
    // SAFETY: the caller's duty; stores of 16 at a stride of 32 never reach beyond the steps.
    unsafe {
        match format {
            #[cfg(target_arch = "x86_64")]
            Format::Pairs => super::pairs::transpose(source.cast(), columns, steps, out.cast()),
            #[cfg(not(target_arch = "x86_64"))]
            Format::Pairs => unreachable!("only x86-64 has products of pairs"),
            Format::Halves => {
                transpose_halves::<S, u16>(simd, source.cast(), columns, steps, out.cast());
            }
            Format::Floats => {
                transpose_halves::<S, f32>(simd, source.cast(), columns, steps, out.cast());
            }
        }
    }
}

#[inline(always)]
unsafe fn transpose_halves<S: Simd, E: Operand>(
    simd: S,
    source: *const E,
    columns: usize,
    steps: usize,
    out: *mut E,
) {
    let source = OperandRows { start: source, cols: PANEL };
    for first in [0, LANES] {
        let range = (first, columns.saturating_sub(first).min(LANES));
        // SAFETY: the caller's duty.
        unsafe {
            let end = steps * PANEL - first;
            transpose_words(simd, source, range, steps, out.add(first), PANEL, end);
        }
    }
}
