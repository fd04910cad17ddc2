//! Panels: 32 rows of a matrix, step by step along K, as products read them.

use super::operand::{LANES, Operand};
use super::simd::Simd;
use super::{Isa, Pool};
use crate::DType;

/// Rows of B in a panel.
pub(crate) const PANEL: usize = 32;

/// How a panel holds its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// A step is two neighbours along K as bf16 in one word; multiplied by `vdpbf16ps`.
    Pairs,
    /// As [`Pairs`](Format::Pairs); multiplied by AMX, which takes [`CHAIN`](Format::CHAIN) steps together.
    Tiles,
    /// A step is one bf16, widened when it is used.
    Halves,
    /// A step is one f32.
    Floats,
}

impl Format {
    /// How operands of a type are held where these instructions multiply them.
    pub(crate) fn new(isa: Isa, operand: DType) -> Self {
        match (operand, isa) {
            (DType::F32, _) => Format::Floats,
            (_, Isa::Avx512Bf16) => Format::Pairs,
            (_, Isa::Amx) => Format::Tiles,
            _ => Format::Halves,
        }
    }

    /// Steps that AMX adds up before it adds them to the sum so far.
    pub(crate) const CHAIN: usize = 16;

    /// Steps whose sum is rounded as one: what is added up in several parts gives the same bits only where a
    /// part ends at a multiple of it.
    pub(crate) fn chain(self) -> usize {
        if self == Format::Tiles { Format::CHAIN } else { 1 }
    }

    /// Whether a step is two neighbours in one word.
    pub(crate) fn has_pairs(self) -> bool {
        self.step_len() == 2
    }

    /// Numbers along K in one step.
    pub(crate) fn step_len(self) -> usize {
        match self {
            Format::Pairs | Format::Tiles => 2,
            Format::Halves | Format::Floats => 1,
        }
    }

    /// Bytes of a number in a row of operands.
    pub(crate) fn operand_bytes(self) -> usize {
        match self {
            Format::Pairs | Format::Tiles | Format::Halves => 2,
            Format::Floats => 4,
        }
    }

    /// Steps that `k` numbers take; the last may be padded with zeros.
    pub(crate) fn steps(self, k: usize) -> usize {
        k.div_ceil(self.step_len())
    }

    /// Steps of a block of rows of `k` numbers.
    pub(crate) fn block_steps(self, k: usize) -> usize {
        self.steps(k).next_multiple_of(self.chain())
    }

    /// Bytes of one step of a panel.
    pub(crate) fn step_bytes(self) -> usize {
        match self {
            Format::Pairs | Format::Tiles | Format::Floats => 4 * PANEL,
            Format::Halves => 2 * PANEL,
        }
    }
}

/// Threads, instruction set and format: what every product runs with.
#[derive(Clone, Copy)]
pub(crate) struct Machine<'a> {
    pub(crate) pool: &'a Pool,
    pub(crate) isa: Isa,
    pub(crate) format: Format,
}

/// Rows whose words can be read 16 steps at a time.
pub(crate) trait StepRows: Copy {
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

impl<const PAIRS: bool> StepRows for RowsF32<PAIRS> {
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
pub(crate) struct OperandRows<E> {
    pub(crate) start: *const E,
    pub(crate) cols: usize,
}

impl<E: Operand> StepRows for OperandRows<E> {
    #[inline(always)]
    unsafe fn words<S: Simd>(self, simd: S, row: usize, step: usize) -> S::V {
        // SAFETY: the caller's duty.
        unsafe { load_part(simd, self.start.add(row * self.cols), step, self.cols) }
    }
}

/// Rows of a bf16 buffer, two numbers a step.
#[derive(Clone, Copy)]
pub(crate) struct PairRows {
    pub(crate) start: *const u16,
    pub(crate) cols: usize,
}

impl StepRows for PairRows {
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
pub(crate) unsafe fn transpose_words<S: Simd, W: StepRows, E: Operand>(
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
                Format::Pairs | Format::Tiles => {
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
