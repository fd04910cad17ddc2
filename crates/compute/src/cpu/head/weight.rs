//! The gradient of the head by its weight: from the gradients of some tokens' logits, row by row.

use super::{HeadJob, RUN};
use crate::cpu::gemm::{Gradient, Packing, Source, weight_gradient};
use crate::cpu::operand::Operand;
use crate::cpu::panel::{Format, Machine};

/// What `HeadWeightGradient` asks for, with slices and pointers in place of buffers.
#[derive(Clone, Copy)]
pub(crate) struct HeadWeight<'a> {
    /// `[groups + 1]`.
    pub(crate) groups: &'a [u32],
    /// Rows of the weight that are trained, ascending; all where there is none.
    pub(crate) rows: Option<&'a [u32]>,
    /// `[V, C]` or `[rows, C]`.
    pub(crate) gradient: *mut f32,
}

impl<'a> HeadWeight<'a> {
    /// Reads of the chunk that starts at `first` and has at most `most`. It ends where no rows are torn apart
    /// that the format adds up together, counted from the start of a group.
    pub(super) fn chunk(&self, format: Format, first: usize, most: usize, reads: usize) -> usize {
        let end = first + most;
        if end >= reads {
            return reads - first;
        }
        let group = self.groups.partition_point(|&start| start as usize <= end) - 1;
        most - (end - self.groups[group] as usize) % (format.step_len() * format.chain())
    }

    /// The trained ones of the tokens from `first` to `last`.
    pub(super) fn tokens(&self, first: usize, last: usize) -> Tokens<'a> {
        let Some(rows) = self.rows else {
            return Tokens { first, count: last - first, place: first, rows: None };
        };
        let before = |end: usize| rows.partition_point(|&row| (row as usize) < end);
        let (place, end) = (before(first), before(last));
        Tokens { first, count: end - place, place, rows: Some(&rows[place..end]) }
    }
}

/// Some tokens whose rows of the weight are trained.
#[derive(Clone, Copy)]
pub(super) struct Tokens<'a> {
    /// The first token of the run that they are taken from.
    first: usize,
    pub(super) count: usize,
    /// Of the first of them in the gradient.
    place: usize,
    /// Which they are; all of the run where there is none.
    rows: Option<&'a [u32]>,
}

/// Room for the operands of their logits' gradients, `[reads of the chunk, count]`.
#[derive(Clone, Copy)]
pub(super) struct RowMajor<'a> {
    pub(super) tokens: Tokens<'a>,
    pub(super) start: *mut f32,
}

impl RowMajor<'_> {
    /// Takes a row's gradients of up to [`RUN`] tokens from `first` on.
    ///
    /// # Safety
    /// The row has room and no other writer.
    pub(super) unsafe fn take<E: Operand>(&self, row: usize, first: usize, d_logits: &[E]) {
        debug_assert!(d_logits.len() <= RUN, "a run of tokens");
        let Tokens { first: start, count, rows, .. } = self.tokens;
        let out = self.start.cast::<E>().wrapping_add(row * count);
        // SAFETY: the caller's duty.
        let out = unsafe { std::slice::from_raw_parts_mut(out, count) };
        let Some(rows) = rows else {
            return out[first - start..][..d_logits.len()].copy_from_slice(d_logits);
        };
        let from = rows.partition_point(|&token| (token as usize) < first);
        for (out, &token) in out[from..].iter_mut().zip(&rows[from..]) {
            let Some(&d_logit) = d_logits.get(token as usize - first) else { break };
            *out = d_logit;
        }
    }

    /// `gradient += d_logits^T hidden` for the `count` reads of a chunk from `first` on.
    ///
    /// # Safety
    /// All rows were taken.
    pub(super) unsafe fn multiply(
        &self,
        machine: Machine<'_>,
        packing: &mut Packing,
        job: &HeadJob<'_>,
        weight: &HeadWeight<'_>,
        (first, count): (usize, usize),
    ) {
        let cols = job.matrix.cols;
        let inside = |&bound: &u32| (bound as usize).clamp(first, first + count) - first;
        let groups: Vec<u32> = weight.groups.iter().map(|bound| inside(bound) as u32).collect();
        let source = Source {
            dy: self.start.cast_const().cast(),
            x: job.hidden.wrapping_add(first * cols * machine.format.operand_bytes()),
            groups: &groups,
        };
        let gradient = Gradient {
            sources: vec![source],
            n: self.tokens.count,
            k: cols,
            out: weight.gradient.wrapping_add(self.tokens.place * cols),
        };
        // SAFETY: the caller's duty; the gradient has a row for every token.
        unsafe { weight_gradient(machine, packing, &[gradient]) };
    }
}
