//! The gradients of a chunk: of its hidden states, and what it adds to that of the weight.

use super::weight::RowMajor;
use super::{HeadJob, HeadMemory, RUN, Row};
use crate::cpu::Isa;
use crate::cpu::gemm::{Output, PASS_STEPS, PIECES, Packed, Packing, Pass, Piece, pack_rows};
use crate::cpu::operand::{LANES, Operand};
use crate::cpu::panel::{Format, Machine, PANEL};
use crate::cpu::pool::{Pointers, Scratch};
use crate::cpu::simd::{Kernel, Simd, dispatch};
use crate::cpu::weight::{Matrix, TEMPORARY};

/// Tokens whose gradients are made at a time, in steps.
pub(in crate::cpu) fn steps_at_a_time(panels: usize, format: Format) -> usize {
    /// Bytes of their rows of the matrix.
    const ROWS_BYTES: usize = 8 << 20;
    let steps = ROWS_BYTES / (panels * format.step_bytes()) / UNPACKED * UNPACKED;
    steps.clamp(UNPACKED, PASS_STEPS)
}

/// Steps that one task unpacks.
const UNPACKED: usize = PASS_STEPS / PIECES;

/// Panels that one task unpacks at a time: what `TEMPORARY` has room for.
const PANELS: usize = TEMPORARY / PANEL / PANEL;

/// `d_hidden` of a chunk: for some thousand tokens at a time, their gradients times their rows of
/// the matrix; and what these tokens add to the gradient by the matrix.
pub(super) unsafe fn backward(
    machine: Machine<'_>,
    packing: &mut Packing,
    job: &HeadJob<'_>,
    first: usize,
    logits: *const f32,
    memory: &mut HeadMemory,
) {
    let Machine { pool, isa, format } = machine;
    let HeadMemory { rows, d_logits, d_logits_rows, unpacked, .. } = memory;
    let Matrix { rows: vocab, cols, .. } = *job.matrix;
    let panels = cols.div_ceil(PANEL);
    let most = steps_at_a_time(panels, format);
    let words = d_logits.reserve(rows.len() * most.next_multiple_of(format.chain()));
    // A step's operands take at most a word.
    let row_words = job.d_weight.map(|_| d_logits_rows.reserve(rows.len() * most));
    let unpacked = unpacked.reserve(panels * most * format.step_bytes() / 4);
    let out = job.d_hidden.wrapping_add(first * cols);
    // SAFETY: the caller's duty: `d_hidden` has room for every read.
    unsafe { std::slice::from_raw_parts_mut(out, rows.len() * cols) }.fill(0.0);
    for start in (0..format.steps(vocab)).step_by(most) {
        let steps = most.min(format.steps(vocab) - start);
        let packed = Packed::new(machine, words, rows.len(), steps);
        let (blocks, chunks) = (packed.blocks(), steps.div_ceil(UNPACKED));
        let row_tasks = (pool.threads() * 8).div_ceil(panels).min(blocks);
        let transposed = Transposed { matrix: job.matrix, format, start, steps, unpacked };
        let tokens = [start, start + steps].map(|step| (step * format.step_len()).min(vocab));
        let trained = job.d_weight.zip(row_words).map(|(weight, start)| {
            let row_major = RowMajor { tokens: weight.tokens(tokens[0], tokens[1]), start };
            (weight, row_major)
        });
        let trained = trained.filter(|(_, row_major)| row_major.tokens.count > 0);
        let row_major = trained.map(|(_, row_major)| row_major);
        let shared = Pointers((job, logits, &rows[..], packed, out, transposed, row_major));
        pool.run(chunks + blocks, &|task, scratch| {
            let (job, logits, rows, packed, _, transposed, row_major) = { &shared }.0;
            if let Some(block) = task.checked_sub(chunks) {
                let task =
                    DLogits { job, logits, rows, packed, block, start, format, row_major, scratch };
                dispatch(isa, task);
            } else {
                // SAFETY: every chunk of steps has memory of its own.
                unsafe { transposed.unpack(isa, task, scratch) };
            }
        });
        pool.run(panels * row_tasks, &|task, _| {
            let (_, _, _, packed, out, transposed, _) = { &shared }.0;
            let (panel, part) = (task / row_tasks, task % row_tasks);
            let blocks = (blocks * part / row_tasks, blocks * (part + 1) / row_tasks);
            // SAFETY: the caller's duty; tasks write disjoint tiles.
            unsafe { transposed.multiply(isa, panel, packed, blocks, out) };
        });
        if let Some((weight, row_major)) = trained {
            // SAFETY: the caller's duty; every row of the chunk was taken above.
            unsafe { row_major.multiply(machine, packing, job, &weight, (first, rows.len())) };
        }
    }
}

/// Some tokens' rows of the matrix as panels of its transpose: `[chunks][panels][steps][32]`.
#[derive(Clone, Copy)]
struct Transposed<'a> {
    matrix: &'a Matrix,
    format: Format,
    start: usize,
    steps: usize,
    unpacked: *mut f32,
}

impl Transposed<'_> {
    /// First step of a chunk, and number of steps.
    fn chunk(&self, chunk: usize) -> (usize, usize) {
        let first = chunk * UNPACKED;
        (first, UNPACKED.min(self.steps - first))
    }

    fn panels(&self) -> usize {
        self.matrix.cols.div_ceil(PANEL)
    }

    /// A panel's steps of a chunk.
    fn place(&self, chunk: usize, panel: usize) -> *mut f32 {
        let (first, steps) = self.chunk(chunk);
        let before = first * self.panels() + panel * steps;
        self.unpacked.wrapping_add(before * self.format.step_bytes() / 4)
    }

    unsafe fn unpack(&self, isa: Isa, chunk: usize, scratch: &mut Scratch) {
        let (first, steps) = self.chunk(chunk);
        let temporary = scratch.f32(TEMPORARY);
        for panel in (0..self.panels()).step_by(PANELS) {
            let panels = (panel, PANELS.min(self.panels() - panel));
            let words = panels.1 * steps * self.format.step_bytes() / 4;
            // SAFETY: the panels' steps of the chunk lie next to each other.
            let out = unsafe { std::slice::from_raw_parts_mut(self.place(chunk, panel), words) };
            let range = (self.start + first, steps);
            self.matrix.unpack(isa, true, panels, range, out, temporary);
        }
    }

    /// Adds the product of packed gradients with a panel to `d_hidden`.
    unsafe fn multiply(
        &self,
        isa: Isa,
        panel: usize,
        packed: Packed,
        blocks: (usize, usize),
        out: *mut f32,
    ) {
        let chunks = self.steps.div_ceil(UNPACKED);
        let pieces: [Piece; PIECES] = std::array::from_fn(|chunk| {
            let chunk = chunk.min(chunks - 1);
            let (start, steps) = self.chunk(chunk);
            let panel = self.place(chunk, panel).cast_const().cast();
            Piece { rows: packed, start, steps, panel, stored: None }
        });
        let (column, cols) = (panel * PANEL, self.matrix.cols);
        let pass = Pass {
            format: self.format,
            pieces: &pieces[..chunks],
            blocks,
            column,
            columns: PANEL.min(cols - column),
            partial: std::ptr::null_mut(),
            next: (std::ptr::null(), 0),
            // Each run of tokens is a chain of its own, added to the sum so far: one chain over a
            // whole vocabulary would lose five bits.
            output: Output::Store {
                scale: 1.0,
                bias: std::ptr::null(),
                base: out,
                out: out.cast(),
                bf16: false,
                stride: cols,
            },
        };
        // SAFETY: the caller's duty; the panel was unpacked before.
        unsafe { pass.run(isa) };
    }
}

/// The gradients of some tokens' logits for a block of rows, packed.
struct DLogits<'a> {
    job: &'a HeadJob<'a>,
    /// Of the chunk.
    logits: *const f32,
    rows: &'a [Row],
    packed: Packed,
    block: usize,
    /// First step: the first token, in pairs where the format has pairs.
    start: usize,
    format: Format,
    /// Where operands are wanted row by row too.
    row_major: Option<RowMajor<'a>>,
    scratch: &'a mut Scratch,
}

impl Kernel for DLogits<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        match self.format {
            Format::Pairs | Format::Tiles | Format::Halves => self.pack::<S, u16>(simd),
            Format::Floats => self.pack::<S, f32>(simd),
        }
    }
}

impl DLogits<'_> {
    #[inline(always)]
    fn pack<S: Simd, E: Operand>(self, simd: S) {
        let (first, count) = self.packed.block_range(self.block);
        let vocab = self.job.matrix.rows;
        let each = self.format.step_len();
        let (start, end) = (self.start * each, (self.start + self.packed.steps) * each);
        let end = end.min(vocab);
        for token in (start..end).step_by(RUN) {
            let len = RUN.min(end - token);
            let [run, operands] = self.scratch.split([RUN, count * RUN]);
            let operands = operands.as_mut_ptr().cast::<E>();
            for row in 0..count {
                // SAFETY: the row belongs to the chunk and has one writer; a row of operands takes at
                // most `RUN` words.
                unsafe {
                    let logits = self.logits.add((first + row) * vocab + token);
                    let logits = std::slice::from_raw_parts(logits, len);
                    let row_state = &self.rows[first + row];
                    // Of a divergence the logits have made room for their gradients already.
                    match self.job.teacher {
                        Some(_) => run[..len].copy_from_slice(logits),
                        None => {
                            self.job.gradient(simd, row_state, token, logits, &mut run[..len]);
                        }
                    }
                    let out = std::slice::from_raw_parts_mut(operands.add(row * len), len);
                    round(simd, &run[..len], out);
                    if let Some(row_major) = self.row_major {
                        row_major.take(first + row, token, out);
                    }
                }
            }
            let step = (token - start) / each;
            let out = self.packed.block(self.block).cast_mut().wrapping_add(step * count);
            let end = (self.packed.steps - step) * count;
            let (steps, input) = (len.div_ceil(each), operands.cast_const().cast());
            // SAFETY: the rows were just written; the block has room and one writer.
            unsafe { pack_rows(simd, self.format, input, len, (0, count), steps, out, end) };
        }
    }
}

#[inline(always)]
fn round<S: Simd, E: Operand>(simd: S, x: &[f32], out: &mut [E]) {
    let (whole, rest) = x.as_chunks::<LANES>();
    let (out_whole, out_rest) = out.as_chunks_mut::<LANES>();
    for (x, out) in whole.iter().zip(out_whole) {
        E::store16(simd, simd.load(x), out);
    }
    for (&x, out) in rest.iter().zip(out_rest) {
        *out = E::store(x);
    }
}

impl HeadJob<'_> {
    /// d(loss)/d(product) of the tokens from `first` on.
    #[inline(always)]
    fn gradient<S: Simd>(&self, simd: S, row: &Row, first: usize, logits: &[f32], out: &mut [f32]) {
        let outer = self.scale / self.temperature;
        let capped = self.softcap.is_some();
        let slope = Slope {
            factor: simd.splat(self.factor()),
            outer: simd.splat(outer),
            lse: simd.splat(row.lse),
            constant: simd.splat(row.constant),
            slope: simd.splat(row.slope),
            all: simd.splat(row.all),
            capped,
        };
        let (whole, rest) = logits.as_chunks::<LANES>();
        let (out_whole, out_rest) = out.as_chunks_mut::<LANES>();
        for (logits, out) in whole.iter().zip(out_whole) {
            simd.store(slope.of(simd, simd.load(logits)), out);
        }
        if !rest.is_empty() {
            let mut last = [0.0; LANES];
            last[..rest.len()].copy_from_slice(rest);
            let last = simd.lanes(slope.of(simd, simd.load(&last)));
            out_rest.copy_from_slice(&last[..rest.len()]);
        }
        if self.gradients.logprob.is_empty() {
            return;
        }
        for target in row.targets.0..row.targets.1 {
            let token = self.target_tokens[target] as usize;
            if (first..first + logits.len()).contains(&token) {
                let stored = logits[token - first];
                let bend = if capped { 1.0 - stored * stored } else { 1.0 };
                out[token - first] += self.gradients.logprob[target] * bend * outer;
            }
        }
    }
}

/// A [`Row`] and the head's factors in every lane.
struct Slope<S: Simd> {
    factor: S::V,
    outer: S::V,
    lse: S::V,
    constant: S::V,
    slope: S::V,
    all: S::V,
    capped: bool,
}

impl<S: Simd> Slope<S> {
    /// d(loss)/d(product) from stored logits, without the targets' own part.
    #[inline(always)]
    fn of(&self, simd: S, stored: S::V) -> S::V {
        let z = simd.mul(stored, self.factor);
        let p = simd.exp(simd.sub(z, self.lse));
        let dz = simd.fma(p, simd.fma(self.slope, z, self.constant), self.all);
        let one = simd.splat(1.0);
        let bend = if self.capped { simd.sub(one, simd.mul(stored, stored)) } else { one };
        simd.mul(simd.mul(dz, bend), self.outer)
    }
}
