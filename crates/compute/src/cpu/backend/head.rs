//! Buffers to slices and pointers for the head.

use super::{Cpu, Element, Places, matrix};
use crate::cpu::head::{HeadFactors, HeadJob, HeadResults, HeadWeight, Teacher, head};
use crate::cpu::panel::Machine;
use crate::op::HeadWeightGradient;
use crate::{Backend as _, Buffer, Weight, op};

impl Places {
    /// The start of an output that may not be wanted.
    fn wanted<T: Element>(&self, buffer: Option<Buffer>, len: usize) -> *mut T {
        buffer.map_or(std::ptr::null_mut(), |buffer| {
            assert_eq!(buffer.len, len, "head: length of an output");
            self.typed(buffer)
        })
    }

    /// An input that may not be given.
    fn given<'a>(&self, buffer: Option<Buffer>, len: usize) -> &'a [f32] {
        buffer.map_or(&[], |buffer| {
            assert_eq!(buffer.len, len, "head: length of a gradient");
            self.input(buffer)
        })
    }
}

impl Cpu {
    pub(super) fn head(&mut self, op: &op::Head) {
        let operand = self.operand();
        let Cpu { pool, isa, format, places: at, weights, packing, head: memory, .. } = self;
        let machine = Machine { pool, isa: *isa, format: *format };
        let (reads, targets) = (op.reads, op.target_reads.len);
        let matrix = matrix(weights, op.weight);
        assert_eq!(op.hidden.dtype, operand, "head: type of hidden");
        assert_eq!(op.hidden.len, reads * matrix.cols, "head: hidden is [R, C]");
        let target_reads: &[u32] = at.input(op.target_reads);
        let target_tokens: &[u32] = at.input(op.target_tokens);
        let fits = target_reads.is_sorted()
            && target_tokens.len() == targets
            && target_reads.iter().all(|&read| (read as usize) < reads)
            && target_tokens.iter().all(|&token| (token as usize) < matrix.rows);
        assert!(fits, "head: targets ascend, and name reads and tokens");
        let gradients = HeadFactors {
            logprob: at.given(op.gradients.logprob, targets),
            entropy: at.given(op.gradients.entropy, reads),
            lse: at.given(op.gradients.lse, reads),
            mean_logprob: at.given(op.gradients.mean_logprob, reads),
        };
        let given = &op.gradients;
        let any = [given.logprob, given.entropy, given.lse, given.mean_logprob];
        let any = any.iter().any(Option::is_some);
        assert!(!any || op.d_hidden.is_some(), "head: gradients want `d_hidden`");
        let outputs = HeadResults {
            logprob: at.wanted(op.outputs.logprob, targets),
            entropy: at.wanted(op.outputs.entropy, reads),
            lse: at.wanted(op.outputs.lse, reads),
            mean_logprob: at.wanted(op.outputs.mean_logprob, reads),
            log_sum_sq_probs: at.wanted(op.outputs.log_sum_sq_probs, reads),
            top1: at.wanted(op.outputs.top1, reads),
        };
        assert!(op.d_weight.is_none() || any, "head: `d_weight` wants gradients");
        let d_weight = op.d_weight.map(|given| head_weight(at, reads, op.weight, &given));
        let job = HeadJob {
            reads,
            hidden: at.pointer(op.hidden),
            matrix,
            scale: op.scale,
            softcap: op.softcap,
            temperature: op.temperature,
            target_reads,
            target_tokens,
            outputs,
            gradients,
            d_hidden: at.wanted(op.d_hidden, reads * matrix.cols),
            d_weight,
            teacher: None,
        };
        // SAFETY: types and lengths were checked; outputs overlap nothing (`Op`).
        unsafe { head(machine, packing, memory, &job) };
    }

    pub(super) fn head_divergence(&mut self, op: &op::HeadDivergence) {
        let operand = self.operand();
        let Cpu { pool, isa, format, places: at, weights, packing, head: memory, .. } = self;
        let machine = Machine { pool, isa: *isa, format: *format };
        let reads = op.reads;
        let hidden = |of: &op::Logits| {
            assert_eq!(of.hidden.dtype, operand, "head: type of hidden");
            assert_eq!(of.hidden.len, reads * of.weight.cols, "head: hidden is [R, C]");
            at.pointer(of.hidden)
        };
        assert!((0.0..=1.0).contains(&op.mix), "head: a mixture of two has shares");
        assert_eq!(op.gradient.is_some(), op.d_hidden.is_some(), "head: gradients want `d_hidden`");
        assert!(
            op.d_weight.is_none() || op.gradient.is_some(),
            "head: `d_weight` wants a gradient"
        );
        let teacher = Teacher {
            hidden: hidden(&op.teacher),
            matrix: matrix(weights, op.teacher.weight),
            scale: op.teacher.scale,
            softcap: op.teacher.softcap,
            mix: op.mix,
            gradient: at.given(op.gradient, reads),
            divergence: at.wanted(Some(op.divergence), reads),
        };
        let matrix = matrix(weights, op.student.weight);
        let nothing = HeadResults {
            logprob: std::ptr::null_mut(),
            entropy: std::ptr::null_mut(),
            lse: std::ptr::null_mut(),
            mean_logprob: std::ptr::null_mut(),
            log_sum_sq_probs: std::ptr::null_mut(),
            top1: std::ptr::null_mut(),
        };
        let d_weight = op.d_weight.map(|given| head_weight(at, reads, op.student.weight, &given));
        let job = HeadJob {
            reads,
            hidden: hidden(&op.student),
            matrix,
            scale: op.student.scale,
            softcap: op.student.softcap,
            temperature: op.temperature,
            target_reads: &[],
            target_tokens: &[],
            outputs: nothing,
            gradients: HeadFactors { logprob: &[], entropy: &[], lse: &[], mean_logprob: &[] },
            d_hidden: at.wanted(op.d_hidden, reads * matrix.cols),
            d_weight,
            teacher: Some(teacher),
        };
        // SAFETY: types and lengths were checked; outputs overlap nothing (`Op`).
        unsafe { head(machine, packing, memory, &job) };
    }
}

fn head_weight<'a>(
    at: &Places,
    reads: usize,
    weight: Weight,
    given: &HeadWeightGradient,
) -> HeadWeight<'a> {
    let (vocab, cols) = (weight.rows, weight.cols);
    let groups: &[u32] = at.input(given.groups);
    let ends = [groups.first().copied(), groups.last().copied()];
    let fits = ends == [Some(0), Some(reads as u32)] && groups.is_sorted();
    assert!(fits, "head: groups ascend from 0 to the number of reads");
    let rows: Option<&[u32]> = given.rows.map(|rows| at.input(rows));
    let fits = rows.is_none_or(|rows| {
        let inside = rows.last().is_none_or(|&row| (row as usize) < vocab);
        inside && rows.is_sorted_by(|a, b| a < b)
    });
    assert!(fits, "head: trained rows ascend, and name tokens");
    let len = rows.map_or(vocab, <[u32]>::len) * cols;
    assert_eq!(given.gradient.len, len, "head: gradient of the weight");
    HeadWeight { groups, rows, gradient: at.typed(given.gradient) }
}
