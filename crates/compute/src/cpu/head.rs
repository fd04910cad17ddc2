//! Log-probabilities over the vocabulary and their gradient, in chunks of reads.
//!
//! A chunk's logits stay in memory from the product to the gradient; the gradient with respect to them is made
//! for some thousand tokens at a time, in the form that the transposed product reads.

use super::gemm::{
    Format, Machine, Output, PANEL, PASS_STEPS, PIECES, Packed, Packing, Pass, Piece, Pointers,
    Product, ProductTerm, block_rows, linear, pack_rows,
};
use super::operand::{LANES, Operand};
use super::pool::Scratch;
use super::simd::{Kernel, Simd, dispatch};
use super::weight::{Matrix, TEMPORARY};
use super::{Isa, math};

/// Bytes of the logits of a chunk.
const LOGITS_BYTES: usize = 64 << 20;

/// Logits that are summed in f32 before they are added in f64, and turned into gradients at a time.
const RUN: usize = 512;

/// What `Op::Head` asks for, with slices and pointers in place of buffers.
pub(crate) struct HeadJob<'a> {
    pub(crate) reads: usize,
    /// `[R, C]`, operand.
    pub(crate) hidden: *const u8,
    pub(crate) matrix: &'a Matrix,
    pub(crate) scale: f32,
    pub(crate) softcap: Option<f32>,
    pub(crate) temperature: f32,
    pub(crate) target_reads: &'a [u32],
    pub(crate) target_tokens: &'a [u32],
    pub(crate) outputs: HeadResults,
    pub(crate) gradients: HeadFactors<'a>,
    /// `[R, C]`; null where no gradient is given.
    pub(crate) d_hidden: *mut f32,
}

/// Where results go; null where one is not wanted.
#[derive(Clone, Copy)]
pub(crate) struct HeadResults {
    pub(crate) logprob: *mut f32,
    pub(crate) entropy: *mut f32,
    pub(crate) lse: *mut f32,
    pub(crate) mean_logprob: *mut f32,
    pub(crate) log_sum_sq_probs: *mut f32,
    pub(crate) top1: *mut u32,
}

/// Gradients of the results; empty where there is none.
#[derive(Clone, Copy)]
pub(crate) struct HeadFactors<'a> {
    pub(crate) logprob: &'a [f32],
    pub(crate) entropy: &'a [f32],
    pub(crate) lse: &'a [f32],
    pub(crate) mean_logprob: &'a [f32],
}

/// What the gradient of a row needs: `dz = p * (constant + slope * z) + all`, and the
/// targets' own factors.
#[derive(Clone, Copy, Default)]
struct Row {
    lse: f32,
    constant: f32,
    slope: f32,
    all: f32,
    /// First and one past the last target.
    targets: (usize, usize),
}

/// Memory that lasts from call to call.
pub(crate) struct HeadMemory {
    logits: Packing,
    d_logits: Packing,
    unpacked: Packing,
    rows: Vec<Row>,
}

impl HeadMemory {
    pub(crate) fn new() -> Self {
        let [logits, d_logits, unpacked] = [(); 3].map(|()| Packing::new());
        HeadMemory { logits, d_logits, unpacked, rows: Vec::new() }
    }
}

/// Runs the head.
///
/// # Safety
/// Pointers are valid for the shapes, results overlap nothing.
pub(crate) unsafe fn head(
    machine: Machine<'_>,
    packing: &mut Packing,
    memory: &mut HeadMemory,
    job: &HeadJob<'_>,
) {
    let block = block_rows(machine.isa);
    let most = LOGITS_BYTES / 4 / job.matrix.rows / block * block;
    let most = most.max(block);
    let logits = memory.logits.reserve(most * job.matrix.rows);
    for first in (0..job.reads).step_by(most) {
        let count = most.min(job.reads - first);
        let cols = job.matrix.cols;
        let size = if machine.format == Format::Floats { 4 } else { 2 };
        let input = job.hidden.wrapping_add(first * cols * size);
        let terms = [ProductTerm { input, matrix: job.matrix, transposed: false }];
        let stride = job.matrix.rows;
        let output = Output::Store {
            scale: job.scale,
            base: std::ptr::null(),
            out: logits.cast(),
            bf16: false,
            stride,
        };
        let product = Product { rows: count, n: job.matrix.rows, terms: &terms, output };
        memory.rows.clear();
        memory.rows.resize(count, Row::default());
        // SAFETY: the caller's duty; the logits have room for the chunk.
        unsafe {
            linear(machine, packing, &[product]);
            statistics(machine, job, first, logits, &mut memory.rows);
            if !job.d_hidden.is_null() {
                backward(machine, job, first, logits, memory);
            }
        }
    }
}

/// Results of every row of a chunk, and what its gradient needs.
unsafe fn statistics(
    machine: Machine<'_>,
    job: &HeadJob<'_>,
    first: usize,
    logits: *mut f32,
    rows: &mut [Row],
) {
    let count = rows.len();
    let shared = Pointers((job, logits, rows.as_mut_ptr()));
    machine.pool.run(count, &|row, _| {
        let (job, logits, rows) = { &shared }.0;
        let vocab = job.matrix.rows;
        let read = first + row;
        // SAFETY: each task has a row of its own.
        let (logits, state) = unsafe {
            let logits = std::slice::from_raw_parts_mut(logits.add(row * vocab), vocab);
            (logits, &mut *rows.add(row))
        };
        let mut sums = Sums::default();
        let extra = job.wants_sums();
        let top1 = !job.outputs.top1.is_null();
        dispatch(machine.isa, RowSums { logits, cap: job.cap(), extra, top1, sums: &mut sums });
        // SAFETY: the caller's duty: results have room for every read and target.
        unsafe { *state = job.finish_row(read, &sums, logits) };
    });
}

impl HeadJob<'_> {
    /// Logits are kept as `tanh` where there is a soft cap, and times this are `z`.
    fn factor(&self) -> f32 {
        self.softcap.unwrap_or(1.0) / self.temperature
    }

    /// What products are multiplied by before `tanh`.
    fn cap(&self) -> Cap {
        let factor = self.factor();
        Cap { inverse: self.softcap.map(|cap| 1.0 / cap), factor }
    }

    fn wants_sums(&self) -> bool {
        let outputs = &self.outputs;
        let pointers = [outputs.entropy, outputs.mean_logprob, outputs.log_sum_sq_probs];
        pointers.iter().any(|pointer| !pointer.is_null()) || !self.gradients.entropy.is_empty()
    }

    unsafe fn finish_row(&self, read: usize, sums: &Sums, logits: &[f32]) -> Row {
        let max = f64::from(sums.max);
        let lse = max + sums.exp.ln();
        let shifted = sums.exp_shifted / sums.exp;
        // H = lse - sum p z, with z measured from the largest.
        let entropy = sums.exp.ln() - shifted;
        let mean_logprob = sums.logits / logits.len() as f64 - lse;
        let log_sum_sq_probs = sums.exp_squared.ln() - 2.0 * sums.exp.ln();
        let from = self.target_reads.partition_point(|&target| (target as usize) < read);
        let to = from + self.target_reads[from..].partition_point(|&t| t as usize == read);
        // SAFETY: the caller's duty.
        unsafe {
            for target in from..to {
                if !self.outputs.logprob.is_null() {
                    let logit = logits[self.target_tokens[target] as usize] * self.factor();
                    *self.outputs.logprob.add(target) = (f64::from(logit) - lse) as f32;
                }
            }
            let results = [
                (self.outputs.entropy, entropy),
                (self.outputs.lse, lse),
                (self.outputs.mean_logprob, mean_logprob),
                (self.outputs.log_sum_sq_probs, log_sum_sq_probs),
            ];
            for (pointer, value) in results {
                if !pointer.is_null() {
                    *pointer.add(read) = value as f32;
                }
            }
            if !self.outputs.top1.is_null() {
                *self.outputs.top1.add(read) = sums.top1;
            }
        }
        let factors = &self.gradients;
        let at = |given: &[f32]| if given.is_empty() { 0.0 } else { f64::from(given[read]) };
        let of_targets = if factors.logprob.is_empty() {
            0.0
        } else {
            factors.logprob[from..to].iter().map(|&g| f64::from(g)).sum::<f64>()
        };
        let (of_entropy, of_mean) = (at(factors.entropy), at(factors.mean_logprob));
        let of_entropy_constant =
            if of_entropy == 0.0 { 0.0 } else { of_entropy * (entropy - lse) };
        let constant = at(factors.lse) - of_targets - of_mean - of_entropy_constant;
        Row {
            lse: lse as f32,
            constant: constant as f32,
            slope: -of_entropy as f32,
            all: (of_mean / logits.len() as f64) as f32,
            targets: (from, to),
        }
    }
}

/// How stored logits become `z`.
#[derive(Clone, Copy)]
struct Cap {
    inverse: Option<f32>,
    factor: f32,
}

/// Sums over a row of `z`, taken from the largest.
#[derive(Default)]
struct Sums {
    max: f32,
    top1: u32,
    /// Of `e^(z - max)`.
    exp: f64,
    /// Of `(z - max) e^(z - max)`.
    exp_shifted: f64,
    /// Of `e^(2 (z - max))`.
    exp_squared: f64,
    /// Of `z`.
    logits: f64,
}

struct RowSums<'a> {
    logits: &'a mut [f32],
    cap: Cap,
    extra: bool,
    top1: bool,
    sums: &'a mut Sums,
}

impl Kernel for RowSums<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let RowSums { logits, cap, extra, top1, sums } = self;
        if let Some(inverse) = cap.inverse {
            for logit in logits.iter_mut() {
                *logit = math::tanh(*logit * inverse);
            }
        }
        // Vectors of one chain per lane; the last is filled with the least number there is.
        let (whole, rest) = logits.as_chunks::<LANES>();
        let mut last = [f32::NEG_INFINITY; LANES];
        last[..rest.len()].copy_from_slice(rest);
        let factor = simd.splat(cap.factor);
        let mut max = simd.mul(simd.load(&last), factor);
        for vector in whole {
            max = simd.max(simd.mul(simd.load(vector), factor), max);
        }
        sums.max = simd.largest(max);
        if top1 {
            let place = logits.iter().position(|&logit| logit * cap.factor == sums.max);
            sums.top1 = place.unwrap_or(0) as u32;
        }
        for run in whole.chunks(RUN / LANES) {
            add_run::<S>(simd, run, factor, extra, sums);
        }
        if !rest.is_empty() {
            add_run::<S>(simd, &[last], factor, false, sums);
            for &logit in rest.iter().filter(|_| extra) {
                let z = logit * cap.factor;
                let e = math::exp(z - sums.max);
                sums.logits += f64::from(z);
                sums.exp_shifted += f64::from(e * (z - sums.max));
                sums.exp_squared += f64::from(e * e);
            }
        }
    }
}

/// Adds the sums over some vectors: 16 chains in f32, then their sum in f64.
#[inline(always)]
fn add_run<S: Simd>(simd: S, run: &[[f32; LANES]], factor: S::V, extra: bool, sums: &mut Sums) {
    let max = simd.splat(sums.max);
    let mut totals = [simd.zero(); 4];
    for vector in run {
        let z = simd.mul(simd.load(vector), factor);
        let shifted = simd.sub(z, max);
        let e = simd.exp(shifted);
        totals[0] = simd.add(totals[0], e);
        if extra {
            totals[1] = simd.fma(e, shifted, totals[1]);
            totals[2] = simd.fma(e, e, totals[2]);
            totals[3] = simd.add(totals[3], z);
        }
    }
    sums.exp += f64::from(simd.sum(totals[0]));
    if extra {
        sums.exp_shifted += f64::from(simd.sum(totals[1]));
        sums.exp_squared += f64::from(simd.sum(totals[2]));
        sums.logits += f64::from(simd.sum(totals[3]));
    }
}

/// Tokens whose gradients are made at a time, in steps.
fn steps_at_a_time(panels: usize, format: Format) -> usize {
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
/// the matrix.
unsafe fn backward(
    machine: Machine<'_>,
    job: &HeadJob<'_>,
    first: usize,
    logits: *const f32,
    memory: &mut HeadMemory,
) {
    let Machine { pool, isa, format } = machine;
    let HeadMemory { rows, d_logits, unpacked, .. } = memory;
    let Matrix { rows: vocab, cols, .. } = *job.matrix;
    let panels = cols.div_ceil(PANEL);
    let most = steps_at_a_time(panels, format);
    let words = d_logits.reserve(rows.len() * most);
    let unpacked = unpacked.reserve(panels * most * format.step_bytes() / 4);
    let out = job.d_hidden.wrapping_add(first * cols);
    // SAFETY: the caller's duty: `d_hidden` has room for every read.
    unsafe { std::slice::from_raw_parts_mut(out, rows.len() * cols) }.fill(0.0);
    for start in (0..format.steps(vocab)).step_by(most) {
        let steps = most.min(format.steps(vocab) - start);
        let packed = Packed::new(words, rows.len(), steps, block_rows(isa));
        let (blocks, chunks) = (packed.blocks(), steps.div_ceil(UNPACKED));
        let row_tasks = (pool.threads() * 8).div_ceil(panels).min(blocks);
        let transposed = Transposed { matrix: job.matrix, format, start, steps, unpacked };
        let shared = Pointers((job, logits, &rows[..], packed, out, transposed));
        pool.run(chunks + blocks, &|task, scratch| {
            let (job, logits, rows, packed, _, transposed) = { &shared }.0;
            if let Some(block) = task.checked_sub(chunks) {
                let task = DLogits { job, logits, rows, packed, block, start, format, scratch };
                dispatch(isa, task);
            } else {
                // SAFETY: every chunk of steps has memory of its own.
                unsafe { transposed.unpack(isa, task, scratch) };
            }
        });
        pool.run(panels * row_tasks, &|task, _| {
            let (_, _, _, packed, out, transposed) = { &shared }.0;
            let (panel, part) = (task / row_tasks, task % row_tasks);
            let blocks = (blocks * part / row_tasks, blocks * (part + 1) / row_tasks);
            // SAFETY: the caller's duty; tasks write disjoint tiles.
            unsafe { transposed.multiply(isa, panel, packed, blocks, out) };
        });
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
            Piece { rows: packed, start, steps, panel }
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
    scratch: &'a mut Scratch,
}

impl Kernel for DLogits<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        match self.format {
            Format::Pairs | Format::Halves => self.pack::<S, u16>(simd),
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
                // SAFETY: the row belongs to the chunk; a row of operands takes at most `RUN` words.
                unsafe {
                    let logits = self.logits.add((first + row) * vocab + token);
                    let logits = std::slice::from_raw_parts(logits, len);
                    let row_state = &self.rows[first + row];
                    self.job.gradient(simd, row_state, token, logits, &mut run[..len]);
                    let out = std::slice::from_raw_parts_mut(operands.add(row * len), len);
                    round(simd, &run[..len], out);
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
