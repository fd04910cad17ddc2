//! What kernels hold beside stack and weights, counted from the operations they run.
//!
//! Packed operands, chunks of logits and what each thread unpacks into are taken from the system
//! when they are first needed, and kept. Pages that nothing touches cost nothing, so what counts is
//! the largest use of each, not what was reserved for it.

use std::collections::BTreeMap;

use super::Isa;
use super::attention::backward_words;
use super::gemm::{GRADIENT_STEPS, PASS_STEPS};
use super::head::{chunk_reads, steps_at_a_time};
use super::panel::{Format, PANEL};
use super::weight::{EIGHT_BIT_WIDTH, FOUR_BIT_WIDTH, TEMPORARY};
use crate::op::{Attention, Head, HeadDivergence, HeadWeightGradient, Linear, WeightGradient};
use crate::{Buffer, DType, Footprint, Kept, Op, Weight};

/// The largest use of each kind of memory, in bytes.
#[derive(Clone, Debug)]
pub(crate) struct Workspace {
    isa: Isa,
    format: Format,
    threads: usize,
    /// Operands of products.
    packing: usize,
    /// Logits of a chunk of reads, their gradient in two forms, rows of the head, and logits of a teacher.
    head: [usize; 5],
    /// Of one thread.
    scratch: usize,
    /// How weights are kept that are not operands.
    kept: BTreeMap<u32, Kept>,
}

impl Workspace {
    /// Nothing used yet.
    pub(crate) fn new(isa: Isa, threads: usize, operand: DType) -> Self {
        let format = Format::new(isa, operand);
        let (packing, head, scratch) = (0, [0; 5], 4 * TEMPORARY);
        Workspace { isa, format, threads, packing, head, scratch, kept: BTreeMap::new() }
    }

    /// Products of one call.
    fn linear(&mut self, list: &[Linear<'_>]) {
        let mut rest = list;
        while !rest.is_empty() {
            let (together, later) = rest.split_at(Linear::independent(rest));
            self.products(together);
            rest = later;
        }
    }

    /// Panels of the transpose that are unpacked together; none where the matrix is multiplied where it lies, unless
    /// transposed.
    fn unpacked_width(&self, weight: Weight) -> Option<usize> {
        match self.kept.get(&weight.id)? {
            Kept::Operands => None,
            Kept::Blocks(storage) => Some(storage.block_len() / PANEL),
            Kept::FourBit => Some(FOUR_BIT_WIDTH),
            Kept::EightBit => Some(EIGHT_BIT_WIDTH),
        }
    }

    fn products(&mut self, list: &[Linear<'_>]) {
        let mut inputs: Vec<(Buffer, usize)> = Vec::new();
        let mut words = 0;
        for op in list {
            let (mut steps, mut width, mut unpacks) = (0, 1, false);
            for term in op.terms {
                let k = if term.transposed { term.weight.rows } else { term.weight.cols };
                steps += self.format.steps(k);
                match self.unpacked_width(term.weight) {
                    None => unpacks |= term.transposed,
                    Some(panels) => {
                        unpacks = true;
                        width = width.max(if term.transposed { panels } else { 1 });
                    }
                }
                if !inputs.contains(&(term.input, k)) {
                    inputs.push((term.input, k));
                    words += (op.rows * self.format.block_steps(k)).next_multiple_of(16);
                }
            }
            let panels = steps.min(PASS_STEPS) * width * self.format.step_bytes();
            let partial = if steps > PASS_STEPS { 4 * op.rows * PANEL * width } else { 0 };
            self.take_scratch(4 * TEMPORARY + partial + if unpacks { panels } else { 0 });
        }
        self.packing = self.packing.max(4 * words);
    }

    /// Gradients of one call.
    fn weight_gradient(&mut self, list: &[WeightGradient]) {
        let words = |op: &WeightGradient| {
            self.gradient_words((op.dy.len / op.n, op.groups.len - 1), op.n, op.k)
        };
        let words = list.iter().map(words).sum::<usize>();
        self.packing = self.packing.max(4 * words);
        self.take_scratch(GRADIENT_STEPS * self.format.step_bytes());
    }

    /// The smaller side of a gradient is packed whole; each group of rows may be padded.
    fn gradient_words(&self, (rows, groups): (usize, usize), n: usize, k: usize) -> usize {
        let chain = self.format.chain();
        (self.format.steps(rows) + groups * (chain - 1)) / chain * chain * n.min(k)
    }

    /// The output layer.
    fn head(&mut self, op: &Head) {
        self.head_over(op.reads, op.weight, op.d_hidden.is_some(), op.d_weight.as_ref());
    }

    /// The output layers of two models.
    fn head_divergence(&mut self, op: &HeadDivergence) {
        let (own, teacher) = (op.student.weight, op.teacher.weight);
        self.head_over(op.reads, own, op.d_hidden.is_some(), op.d_weight.as_ref());
        let reads = chunk_reads(self.isa, self.format, own.rows).min(op.reads);
        self.packing = self.packing.max(4 * reads * self.format.block_steps(teacher.cols));
        self.head[4] = self.head[4].max(4 * reads * teacher.rows);
    }

    fn head_over(
        &mut self,
        reads: usize,
        weight: Weight,
        has_gradient: bool,
        d_weight: Option<&HeadWeightGradient>,
    ) {
        let (vocab, cols) = (weight.rows, weight.cols);
        let reads = chunk_reads(self.isa, self.format, vocab).min(reads);
        self.packing = self.packing.max(4 * reads * self.format.block_steps(cols));
        let mut head = [4 * reads * vocab, 0, 0, 0];
        if has_gradient {
            let panels = cols.div_ceil(PANEL);
            let steps = steps_at_a_time(panels, self.format).min(self.format.steps(vocab));
            head[1] = 4 * reads * steps.next_multiple_of(self.format.chain());
            head[3] = panels * steps * self.format.step_bytes();
            if let Some(weight) = d_weight {
                head[2] = 4 * reads * steps;
                let tokens = steps * self.format.step_len();
                let words = self.gradient_words((reads, weight.groups.len - 1), tokens, cols);
                self.packing = self.packing.max(4 * words);
                self.take_scratch(GRADIENT_STEPS * self.format.step_bytes());
            }
        }
        for (most, bytes) in self.head.iter_mut().zip(head) {
            *most = bytes.max(*most);
        }
    }

    /// Attention forward or backward, of which backward takes more.
    fn attention(&mut self, op: &Attention) {
        self.take_scratch(4 * backward_words(op.into()).iter().sum::<usize>());
    }

    fn take_scratch(&mut self, bytes: usize) {
        self.scratch = self.scratch.max(bytes);
    }
}

impl Footprint for Workspace {
    fn load(&mut self, weight: Weight, kept: Kept) {
        if kept != Kept::Operands {
            self.kept.insert(weight.id, kept);
        }
    }

    fn unload(&mut self, weight: Weight) {
        self.kept.remove(&weight.id);
    }

    fn run(&mut self, op: &Op<'_>) {
        match op {
            Op::Linear(list) => self.linear(list),
            Op::WeightGradient(list) => self.weight_gradient(list),
            Op::Attention(op) => self.attention(op),
            Op::AttentionBackward(op) => self.attention(&op.forward),
            Op::Head(op) => self.head(op),
            Op::HeadDivergence(op) => self.head_divergence(op),
            // These work in their operands.
            _ => {}
        }
    }

    fn bytes(&self) -> usize {
        self.packing + self.head.iter().sum::<usize>() + self.threads * self.scratch
    }

    fn copy(&self) -> Box<dyn Footprint> {
        Box::new(self.clone())
    }

    #[cfg(test)]
    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::{Cpu, CpuConfig, Precision};
    use crate::op::{HeadGradients, HeadOutputs, Logits, Term};
    use crate::{Backend, OptimizerKind, Shape};

    const READS: usize = 30;
    const VOCAB: usize = 3000;
    const COLS: usize = 70;

    /// A product with two inputs, its gradients, and a head whose weight is trained.
    fn work(backend: &mut dyn Backend) {
        let operand = backend.operand();
        backend.reserve(1 << 22).unwrap();
        let shape = Shape::Matrix(VOCAB, COLS);
        let values = vec![0.01; VOCAB * COLS];
        let head = backend.load_trained(shape, &values, OptimizerKind::Sgd).unwrap();
        let small = backend.load_trained(
            Shape::Matrix(COLS, COLS),
            &values[..COLS * COLS],
            OptimizerKind::Sgd,
        );
        let small = small.unwrap();
        let (x, y) = (
            backend.alloc(READS * COLS, operand).unwrap(),
            backend.alloc(READS * COLS, operand).unwrap(),
        );
        let out = backend.alloc(READS * COLS, DType::F32).unwrap();
        let term = |input, transposed| Term { input, weight: small.matrix(), transposed };
        let terms = [term(x, false), term(y, true)];
        let linear = Linear::product(READS, &terms, out);
        backend.run(Op::Linear(&[linear])).unwrap();
        let groups = backend.alloc(2, DType::U32).unwrap();
        backend.upload_u32(&[0, READS as u32], groups).unwrap();
        let gradient = small.gradient;
        let op = WeightGradient { dy: x, x: y, n: COLS, k: COLS, groups, gradient };
        backend.run(Op::WeightGradient(&[op])).unwrap();
        let targets = backend.alloc(1, DType::U32).unwrap();
        backend.upload_u32(&[0], targets).unwrap();
        let [logprob, d_logprob] = [(); 2].map(|()| backend.alloc(1, DType::F32).unwrap());
        let op = Head {
            reads: READS,
            hidden: x,
            weight: head.matrix(),
            scale: 1.0,
            softcap: None,
            temperature: 1.0,
            target_reads: targets,
            target_tokens: targets,
            outputs: HeadOutputs { logprob: Some(logprob), ..Default::default() },
            gradients: HeadGradients { logprob: Some(d_logprob), ..Default::default() },
            d_hidden: Some(out),
            d_weight: Some(HeadWeightGradient { groups, rows: None, gradient: head.gradient }),
        };
        backend.run(Op::Head(op)).unwrap();
        let own = Logits { hidden: x, weight: head.matrix(), scale: 1.0, softcap: None };
        let gradient = backend.alloc(READS, DType::F32).unwrap();
        let divergence = HeadDivergence {
            reads: READS,
            student: own,
            teacher: own,
            temperature: 1.0,
            mix: 0.5,
            divergence: backend.alloc(READS, DType::F32).unwrap(),
            gradient: Some(gradient),
            d_hidden: op.d_hidden,
            d_weight: op.d_weight,
        };
        backend.run(Op::HeadDivergence(divergence)).unwrap();
    }

    #[test]
    fn what_is_counted_is_what_the_kernels_take() {
        for isa in Isa::available() {
            for precision in [Precision::Bf16, Precision::F32] {
                let mut cpu =
                    Cpu::new(CpuConfig { threads: 1, isa: Some(isa), precision }).unwrap();
                work(&mut cpu);
                let mut measure = crate::Measure::of(&cpu);
                work(&mut measure);
                let footprint = measure.footprint().expect("that of the device");
                let counted: &Workspace = footprint.as_any().downcast_ref().expect("a CPU");
                // Memory is taken in powers of two, for logits as of the longest chunk.
                let rounded = counted.head.map(usize::next_power_of_two);
                let (packing, head) = cpu.taken();
                assert_eq!(counted.packing.next_power_of_two(), packing, "{isa} {precision:?}");
                assert_eq!(rounded[1..4], head[1..4], "{isa} {precision:?}");
                for logits in [0, 4] {
                    assert_eq!(counted.head[logits], 4 * READS * VOCAB);
                    assert!(counted.head[logits] <= head[logits]);
                }
                let all = measure.report().workspace_bytes;
                assert!(all > counted.packing + counted.head.iter().sum::<usize>());
            }
        }
    }
}
