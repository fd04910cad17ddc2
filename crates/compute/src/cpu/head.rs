//! Log-probabilities over the vocabulary and their gradient, in chunks of reads.
//!
//! A chunk's logits stay in memory from the product to the gradient; the gradient with respect to them is made
//! for some thousand tokens at a time, in the form that the transposed product reads.

mod backward;
mod divergence;
#[cfg(test)]
mod tests;
mod weight;

use super::Isa;
use super::gemm::{Output, Packing, Product, ProductTerm, block_rows, linear};
use super::math;
use super::operand::LANES;
use super::panel::{Format, Machine};
use super::pool::Pointers;
use super::simd::{Kernel, Simd, dispatch};
use super::weight::Matrix;
use backward::backward;
pub(super) use backward::steps_at_a_time;
pub(crate) use divergence::Teacher;
pub(crate) use weight::HeadWeight;

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
    pub(crate) d_weight: Option<HeadWeight<'a>>,
    /// Another model, the divergence from which is wanted in place of anything else.
    pub(crate) teacher: Option<Teacher<'a>>,
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
    /// Bytes of the logits of a chunk.
    logits_bytes: usize,
    logits: Packing,
    d_logits: Packing,
    d_logits_rows: Packing,
    unpacked: Packing,
    teacher_logits: Packing,
    rows: Vec<Row>,
}

impl HeadMemory {
    pub(crate) fn new() -> Self {
        let [logits, d_logits, d_logits_rows, unpacked, teacher_logits] =
            [(); 5].map(|()| Packing::new());
        let (logits_bytes, rows) = (LOGITS_BYTES, Vec::new());
        HeadMemory { logits_bytes, logits, d_logits, d_logits_rows, unpacked, teacher_logits, rows }
    }
}

impl HeadMemory {
    /// Bytes taken from the system, in the order of `Workspace`.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> [usize; 5] {
        let HeadMemory { logits, d_logits, d_logits_rows, unpacked, teacher_logits, .. } = self;
        [logits, d_logits, d_logits_rows, unpacked, teacher_logits].map(Packing::bytes)
    }
}

/// Most reads of a chunk.
pub(super) fn chunk_reads(isa: Isa, format: Format, vocab: usize) -> usize {
    reads_within(LOGITS_BYTES, isa, format, vocab)
}

/// Reads whose logits take at most so many bytes: whole blocks, at least one.
fn reads_within(logits_bytes: usize, isa: Isa, format: Format, vocab: usize) -> usize {
    let block = block_rows(isa, format);
    (logits_bytes / 4 / vocab / block * block).max(block)
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
    let most = reads_within(memory.logits_bytes, machine.isa, machine.format, job.matrix.rows);
    let logits = memory.logits.reserve(most * job.matrix.rows);
    let mut first = 0;
    while first < job.reads {
        let count = match &job.d_weight {
            Some(weight) => weight.chunk(machine.format, first, most, job.reads),
            None => most.min(job.reads - first),
        };
        memory.rows.clear();
        memory.rows.resize(count, Row::default());
        // SAFETY: the caller's duty; the logits have room for the chunk.
        unsafe {
            products(machine, packing, job.hidden, job.matrix, job.scale, (first, count), logits);
            match &job.teacher {
                Some(teacher) => {
                    let wanted = memory.teacher_logits.reserve(most * teacher.matrix.rows);
                    let Teacher { hidden, matrix, scale, .. } = *teacher;
                    products(machine, packing, hidden, matrix, scale, (first, count), wanted);
                    divergence::divergences(machine, job, teacher, (first, count), logits, wanted);
                }
                None => statistics(machine, job, first, logits, &mut memory.rows),
            }
            if !job.d_hidden.is_null() {
                backward(machine, packing, job, first, logits, memory);
            }
        }
        first += count;
    }
}

/// Logits of some reads before their soft cap, from the first one on, `[count, V]`.
unsafe fn products(
    machine: Machine<'_>,
    packing: &mut Packing,
    hidden: *const u8,
    matrix: &Matrix,
    scale: f32,
    (first, count): (usize, usize),
    logits: *mut f32,
) {
    let input = hidden.wrapping_add(first * matrix.cols * machine.format.operand_bytes());
    let terms = [ProductTerm { input, matrix, transposed: false }];
    let output = Output::Store {
        scale,
        bias: std::ptr::null(),
        base: std::ptr::null(),
        out: logits.cast(),
        bf16: false,
        stride: matrix.rows,
    };
    let product = Product { rows: count, n: matrix.rows, terms: &terms, output };
    // SAFETY: the caller's duty.
    unsafe { linear(machine, packing, &[product]) };
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
        self.cap().factor
    }

    fn cap(&self) -> Cap {
        Cap::new(self.softcap, self.temperature)
    }

    fn wants_sums(&self) -> bool {
        let outputs = &self.outputs;
        let pointers = [outputs.entropy, outputs.mean_logprob, outputs.log_sum_sq_probs];
        pointers.iter().any(|pointer| !pointer.is_null()) || !self.gradients.entropy.is_empty()
    }

    unsafe fn finish_row(&self, read: usize, sums: &Sums, logits: &[f32]) -> Row {
        let lse = sums.lse();
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
                    let logit = logits[self.target_tokens[target] as usize];
                    *self.outputs.logprob.add(target) = self.cap().logprob(logit, lse);
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
pub(super) struct Cap {
    /// What products are multiplied by before `tanh`.
    inverse: Option<f32>,
    factor: f32,
}

impl Cap {
    pub(super) fn new(softcap: Option<f32>, temperature: f32) -> Self {
        let factor = softcap.unwrap_or(1.0) / temperature;
        Cap { inverse: softcap.map(|cap| 1.0 / cap), factor }
    }

    /// The log of the sum of exponentials of a row, whose logits are left as `tanh` where there is a soft cap.
    pub(super) fn lse(self, isa: Isa, logits: &mut [f32]) -> f64 {
        let mut sums = Sums::default();
        dispatch(isa, RowSums { logits, cap: self, extra: false, top1: false, sums: &mut sums });
        sums.lse()
    }

    /// Log-probability of a token by its stored logit.
    pub(super) fn logprob(self, logit: f32, lse: f64) -> f32 {
        (f64::from(logit * self.factor) - lse) as f32
    }
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

impl Sums {
    fn lse(&self) -> f64 {
        f64::from(self.max) + self.exp.ln()
    }
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
