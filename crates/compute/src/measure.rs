//! A backend that computes nothing and keeps the books: what would a step need?
//!
//! Run a model on it as on any other backend, then ask for the [`Measured`]
//! memory and work. Only shapes count; numbers are never looked at, but for the layouts of
//! attention, whose visible pairs are counted one by one.

use std::collections::BTreeMap;

use crate::op::{
    Attention, Head, HeadDivergence, HeadWeightGradient, Linear, Optimize, WeightGradient,
};
use crate::quantize::BLOCK_LEN;
use crate::{
    Backend, Buffer, DType, Device, Error, Footprint, Kept, LookupSource, Mark, Op, OptimizerKind,
    Parameter, Quantization, QuantizedSource, QuantizedValues, Region, Result, Shape, Storage,
    Weight, WeightSource,
};

/// What was needed up to now.
///
/// Work is counted as useful floating point operations, two to a multiply and add: what a
/// backward computes again is not counted twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    /// The most bytes of the stack that were in use, each allocation a multiple of 64.
    pub stack_peak_bytes: usize,
    /// The most bytes in allocations of their own, masters and moments of trained matrices among them, and what
    /// a step of the optimizer takes for itself.
    pub static_bytes: usize,
    /// The most bytes of weights: blocks and codes as they are stored, all else as operands.
    pub weight_bytes: usize,
    /// What kernels hold beside stack and weights, as the device's [`Footprint`] counts it. Known for a
    /// [device](Measure::of) only.
    pub workspace_bytes: usize,
    /// Bytes of a row of the matrices that stay in their file, of which only looked-up rows come into memory.
    pub lookup_row_bytes: usize,
    /// Linear layers, forward and input gradient.
    pub flops_linear: u64,
    /// Gradients of trained matrices, that of the output layer among them.
    pub flops_weight_gradient: u64,
    /// Attention over the pairs that are visible: 4 D a pair and head, and 8 D backward.
    pub flops_attention: u64,
    /// The output layer: logits where outputs are wanted, and the gradient of the hidden states.
    pub flops_head: u64,
}

/// The backend that measures.
#[derive(Clone)]
pub struct Measure {
    operand: DType,
    footprint: Option<Box<dyn Footprint>>,
    height: usize,
    static_bytes: usize,
    weight_bytes: usize,
    /// Bytes of each static buffer, and of each weight with its static buffers.
    statics: BTreeMap<u32, usize>,
    weights: BTreeMap<u32, usize>,
    /// What was uploaded, by region and offset.
    uploads: BTreeMap<(u64, usize), Vec<u32>>,
    next: u32,
    measured: Measured,
}

impl Measure {
    /// Measures for a backend that multiplies in `operand`, without the workspace of its kernels.
    pub fn new(operand: DType) -> Self {
        Measure {
            operand,
            footprint: None,
            height: 0,
            static_bytes: 0,
            weight_bytes: 0,
            statics: BTreeMap::new(),
            weights: BTreeMap::new(),
            uploads: BTreeMap::new(),
            next: 0,
            measured: Measured::default(),
        }
    }

    /// Measures what this device would take, the workspace of its kernels included.
    pub fn of(backend: &dyn Backend) -> Self {
        Measure { footprint: backend.footprint(), ..Measure::new(backend.operand()) }
    }

    /// What was needed up to now.
    pub fn report(&self) -> Measured {
        let workspace_bytes = self.footprint.as_ref().map_or(0, |footprint| footprint.bytes());
        Measured { workspace_bytes, ..self.measured }
    }

    fn number(&mut self) -> u32 {
        self.next += 1;
        self.next
    }

    fn add_weight(&mut self, rows: usize, cols: usize, bytes: usize, kept: Kept) -> Weight {
        let weight = Weight { id: self.number(), rows, cols };
        self.weights.insert(weight.id, bytes);
        self.weight_bytes += bytes;
        self.measured.weight_bytes = self.measured.weight_bytes.max(self.weight_bytes);
        if let Some(footprint) = &mut self.footprint {
            footprint.load(weight, kept);
        }
        weight
    }

    /// What was uploaded to a buffer. A static buffer starts as zeros.
    fn uploaded(&self, buffer: Buffer) -> Vec<u32> {
        let region = region_key(buffer.region);
        let before = self.uploads.range((region, 0)..=(region, buffer.offset));
        let mut covering = before.rev().filter_map(|(&(_, offset), words)| {
            words.get((buffer.offset - offset) / 4..)?.get(..buffer.len)
        });
        match (covering.next(), buffer.region) {
            (Some(words), _) => words.to_vec(),
            (None, Region::Static(_)) => vec![0; buffer.len],
            (None, Region::Stack) if buffer.len == 0 => Vec::new(),
            (None, Region::Stack) => panic!("layout {buffer:?} was not uploaded in one piece"),
        }
    }

    /// Number of pairs of a query and a key that it sees.
    fn visible_pairs(&self, op: &Attention) -> u64 {
        let positions = self.uploaded(op.layout.query_positions);
        let window = op.window.unwrap_or(u32::MAX);
        let seen = |&position: &u32| u64::from(window.min(position.saturating_add(1)));
        let spans = self.uploaded(op.layout.spans);
        let queries = spans.chunks_exact(4).map(|span| {
            let queries = &positions[span[0] as usize..][..span[1] as usize];
            queries.iter().map(seen).sum::<u64>()
        });
        queries.sum()
    }

    fn attention(&mut self, op: &Attention, flops_per_dim: u64) {
        let per_pair = flops_per_dim * (op.head_dim * op.heads) as u64;
        self.measured.flops_attention += self.visible_pairs(op) * per_pair;
    }

    fn linear(&mut self, list: &[Linear<'_>]) {
        for op in list {
            op.assert_terms();
            for term in op.terms {
                self.measured.flops_linear += product(op.rows, term.weight.rows, term.weight.cols);
            }
        }
    }

    fn weight_gradient(&mut self, list: &[WeightGradient]) {
        for op in list {
            self.measured.flops_weight_gradient += product(op.dy.len / op.n, op.n, op.k);
        }
    }

    fn optimize(&mut self, op: &Optimize<'_>) {
        let kind = op.optimizer.kind();
        let shapes = op.parameters.iter().map(|parameter| parameter.shape);
        let scratch = shapes.map(|shape| kind.scratch_bytes(shape)).max().unwrap_or(0);
        self.measured.static_bytes = self.measured.static_bytes.max(self.static_bytes + scratch);
    }

    fn head(&mut self, op: &Head) {
        let outputs = &op.outputs;
        let numbers = [outputs.logprob, outputs.entropy, outputs.lse, outputs.mean_logprob];
        let wanted = numbers.iter().chain([&outputs.log_sum_sq_probs, &outputs.top1]);
        let forward = u64::from(wanted.flatten().count() > 0);
        let passes = forward + u64::from(op.d_hidden.is_some());
        self.measured.flops_head += passes * product(op.reads, op.weight.rows, op.weight.cols);
        self.head_weight(op.reads, op.d_weight);
    }

    fn head_divergence(&mut self, op: &HeadDivergence) {
        for (logits, passes) in
            [(&op.student, 1 + u64::from(op.d_hidden.is_some())), (&op.teacher, 1)]
        {
            let one = product(op.reads, logits.weight.rows, logits.weight.cols);
            self.measured.flops_head += passes * one;
        }
        self.head_weight(op.reads, op.d_weight);
    }

    fn head_weight(&mut self, reads: usize, d_weight: Option<HeadWeightGradient>) {
        if let Some(d_weight) = d_weight {
            self.measured.flops_weight_gradient += product(reads, d_weight.gradient.len, 1);
        }
    }
}

/// FLOPs of a product of `[m, k]` and `[k, n]`.
fn product(m: usize, n: usize, k: usize) -> u64 {
    2 * m as u64 * n as u64 * k as u64
}

fn region_key(region: Region) -> u64 {
    match region {
        Region::Stack => 0,
        Region::Static(id) => 1 + u64::from(id),
    }
}

impl Backend for Measure {
    fn device(&self) -> Device {
        Device { kind: "measure", isa: "none", threads: 0 }
    }

    fn operand(&self) -> DType {
        self.operand
    }

    /// The stack has no end.
    fn reserve(&mut self, _bytes: usize) -> Result<()> {
        Ok(())
    }

    fn alloc(&mut self, len: usize, dtype: DType) -> Result<Buffer> {
        let offset = self.height;
        self.height += (len * dtype.size()).next_multiple_of(64);
        self.measured.stack_peak_bytes = self.measured.stack_peak_bytes.max(self.height);
        Ok(Buffer { region: Region::Stack, offset, len, dtype })
    }

    fn mark(&self) -> Mark {
        Mark(self.height)
    }

    fn release(&mut self, mark: Mark) {
        assert!(mark.0 <= self.height, "release to {} of a stack of {}", mark.0, self.height);
        self.height = mark.0;
        self.uploads.retain(|&(region, offset), _| region != 0 || offset < mark.0);
    }

    fn alloc_static(&mut self, len: usize, dtype: DType) -> Result<Buffer> {
        let id = self.number();
        self.statics.insert(id, len * dtype.size());
        self.static_bytes += len * dtype.size();
        self.measured.static_bytes = self.measured.static_bytes.max(self.static_bytes);
        Ok(Buffer { region: Region::Static(id), offset: 0, len, dtype })
    }

    fn free_static(&mut self, buffer: Buffer) {
        let Region::Static(id) = buffer.region else {
            panic!("{buffer:?} is freed but lies on the stack")
        };
        self.static_bytes -= self.statics.remove(&id).expect("a live static buffer");
        self.uploads.retain(|&(region, _), _| region != region_key(buffer.region));
    }

    /// Looks at the shape and the storage alone: `bytes` may be empty.
    fn load(&mut self, source: WeightSource<'_>) -> Result<Weight> {
        let WeightSource { rows, cols, storage, .. } = source;
        let Some(row_bytes) = storage.row_bytes(cols) else {
            let actual = source.bytes.len();
            return Err(Error::WeightBytes { storage, rows, cols, expected: 0, actual });
        };
        let (bytes, kept) = match storage {
            Storage::F32 | Storage::F16 | Storage::Bf16 => {
                (rows * cols * self.operand.size(), Kept::Operands)
            }
            _ => (rows * row_bytes, Kept::Blocks(storage)),
        };
        Ok(self.add_weight(rows, cols, bytes, kept))
    }

    /// As [`load`](Backend::load).
    fn load_as(&mut self, source: WeightSource<'_>, to: Quantization) -> Result<Weight> {
        let WeightSource { rows, cols, .. } = source;
        let kept = match to {
            Quantization::Nf4 => Kept::FourBit,
            Quantization::Int8 => Kept::EightBit,
        };
        Ok(self.add_weight(rows, cols, to.resident_bytes(rows, cols), kept))
    }

    /// As [`load`](Backend::load).
    fn load_parts_as(
        &mut self,
        source: WeightSource<'_>,
        to: Quantization,
        parts: &[usize],
    ) -> Result<Vec<Weight>> {
        let (cols, mut first) = (source.cols, 0);
        let load = |&rows: &usize| {
            let is_whole = to == Quantization::Int8 || (first * cols).is_multiple_of(BLOCK_LEN);
            first += rows;
            let part = WeightSource { rows, storage: Storage::F32, ..source };
            if is_whole { self.load_as(part, to) } else { self.load(part) }
        };
        parts.iter().map(load).collect()
    }

    /// Looks at the shape and the lengths of blocks: all else may be empty.
    fn load_quantized(&mut self, source: QuantizedSource<'_>) -> Result<Weight> {
        let QuantizedSource { rows, cols, values } = source;
        let kept = match values {
            QuantizedValues::FourBit { .. } => Kept::FourBit,
            QuantizedValues::EightBit { .. } => Kept::EightBit,
        };
        Ok(self.add_weight(rows, cols, values.resident_bytes(rows, cols), kept))
    }

    /// Nothing is kept.
    fn load_lookup(&mut self, source: LookupSource) -> Result<Weight> {
        self.measured.lookup_row_bytes += source.storage.row_bytes(source.cols).unwrap_or(0);
        Ok(self.add_weight(source.rows, source.cols, 0, Kept::Operands))
    }

    /// Looks at the shape alone: `values` may be empty.
    fn load_trained_parts(
        &mut self,
        shape: Shape,
        parts: &[usize],
        _values: &[f32],
        optimizer: OptimizerKind,
    ) -> Result<Parameter> {
        let mut weights = Vec::with_capacity(parts.len());
        for (rows, cols, range) in shape.parts(parts) {
            let bytes = range.len() * self.operand.size();
            weights.push(self.add_weight(rows, cols, bytes, Kept::Operands));
        }
        Parameter::new(self, shape, &weights, optimizer)
    }

    fn unload(&mut self, weight: Weight) {
        if let Some(footprint) = &mut self.footprint {
            footprint.unload(weight);
        }
        self.weight_bytes -= self.weights.remove(&weight.id).expect("a loaded weight");
    }

    fn upload_u8(&mut self, data: &[u8], out: Buffer) -> Result<()> {
        assert_eq!(data.len(), out.len, "length of {out:?}");
        Ok(())
    }

    /// Zeros.
    fn read_u8(&mut self, buffer: Buffer, out: &mut [u8]) -> Result<()> {
        assert_eq!(out.len(), buffer.len, "length of {buffer:?}");
        out.fill(0);
        Ok(())
    }

    fn upload(&mut self, data: &[f32], out: Buffer) -> Result<()> {
        assert_eq!(data.len(), out.len, "length of {out:?}");
        Ok(())
    }

    fn upload_u32(&mut self, data: &[u32], out: Buffer) -> Result<()> {
        assert_eq!(data.len(), out.len, "length of {out:?}");
        self.uploads.insert((region_key(out.region), out.offset), data.to_vec());
        Ok(())
    }

    /// Zeros.
    fn read(&mut self, buffer: Buffer, out: &mut [f32]) -> Result<()> {
        assert_eq!(out.len(), buffer.len, "length of {buffer:?}");
        out.fill(0.0);
        Ok(())
    }

    /// Zeros.
    fn read_u32(&mut self, buffer: Buffer, out: &mut [u32]) -> Result<()> {
        assert_eq!(out.len(), buffer.len, "length of {buffer:?}");
        out.fill(0);
        Ok(())
    }

    fn run(&mut self, op: Op<'_>) -> Result<()> {
        if let Some(footprint) = &mut self.footprint {
            footprint.run(&op);
        }
        match op {
            Op::Linear(ops) => self.linear(ops),
            Op::WeightGradient(ops) => self.weight_gradient(ops),
            Op::Attention(op) => self.attention(&op, 4),
            Op::AttentionBackward(op) => self.attention(&op.forward, 8),
            Op::Head(op) => self.head(&op),
            Op::HeadDivergence(op) => self.head_divergence(&op),
            Op::Optimize(op) => self.optimize(&op),
            // Work in proportion to memory touched, not to products: not counted.
            _ => {}
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        Ok(())
    }

    fn footprint(&self) -> Option<Box<dyn Footprint>> {
        self.footprint.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::{AttentionLayout, HeadOutputs, HeadWeightGradient, Term};

    #[test]
    fn memory_is_counted_at_its_highest() {
        let mut measure = Measure::new(DType::Bf16);
        measure.alloc(1, DType::F32).unwrap();
        let mark = measure.mark();
        measure.alloc(33, DType::Bf16).unwrap();
        measure.release(mark);
        measure.alloc(3, DType::U32).unwrap();
        let own = measure.alloc_static(10, DType::F32).unwrap();
        measure.free_static(own);
        measure.alloc_static(3, DType::Bf16).unwrap();
        let report = measure.report();
        assert_eq!((report.stack_peak_bytes, report.static_bytes), (64 + 128, 40));
    }

    #[test]
    fn weights_are_counted_as_they_are_kept() {
        #[track_caller]
        fn check(storage: Storage, operand: DType, expected: usize) {
            let mut measure = Measure::new(operand);
            let source = WeightSource { rows: 3, cols: 256, storage, bytes: &[], row_order: None };
            let weight = measure.load(source).unwrap();
            measure.unload(weight);
            measure.load(source).unwrap();
            assert_eq!(measure.report().weight_bytes, expected);
        }
        check(Storage::F32, DType::Bf16, 3 * 256 * 2);
        check(Storage::F16, DType::F32, 3 * 256 * 4);
        check(Storage::Q4_1, DType::Bf16, 3 * 8 * 20);
        check(Storage::Q6_K, DType::F32, 3 * 210);
        let mut measure = Measure::new(DType::Bf16);
        let source =
            WeightSource { rows: 3, cols: 50, storage: Storage::F16, bytes: &[], row_order: None };
        measure.load_as(source, Quantization::Nf4).unwrap();
        // Codes, magnitudes of 3 blocks, their own magnitude and its map.
        assert_eq!(measure.report().weight_bytes, 75 + 3 + 4 + 4 * 256);
        let mut measure = Measure::new(DType::Bf16);
        measure.load_as(source, Quantization::Int8).unwrap();
        assert_eq!(measure.report().weight_bytes, 3 * 50 + 3 * 4);
        let mut measure = Measure::new(DType::Bf16);
        measure.load_trained(Shape::Matrix(4, 5), &[], OptimizerKind::AdamW).unwrap();
        let report = measure.report();
        assert_eq!((report.weight_bytes, report.static_bytes), (40, 4 * 80));
    }

    /// Six matrices of 12 x 20 (value, gradient, momentum; 3 in a step) and three over the shorter side.
    #[test]
    fn a_step_of_muon_takes_memory_for_a_while() {
        let mut measure = Measure::new(DType::Bf16);
        let shape = Shape::Matrix(12, 20);
        let parameter = measure.load_trained(shape, &[], OptimizerKind::Muon).unwrap();
        let optimizer = crate::Optimizer::Muon {
            momentum: 0.95,
            nesterov: true,
            iterations: 5,
            match_rms: false,
        };
        let op = Optimize {
            parameters: &[parameter],
            optimizer,
            gradient_scale: 1.0,
            learning_rate: 0.1,
            weight_decay: 0.0,
            step: 1,
        };
        measure.run(Op::Optimize(op)).unwrap();
        assert_eq!(measure.report().static_bytes, 4 * (6 * 240 + 3 * 144));
    }

    #[test]
    fn products_are_counted() {
        let mut measure = Measure::new(DType::F32);
        let weight =
            measure.load_trained(Shape::Matrix(7, 5), &[], OptimizerKind::AdamW).unwrap().matrix();
        let buffer = measure.alloc(6 * 7, DType::F32).unwrap();
        let term = Term { input: buffer, weight, transposed: false };
        let back = Term { transposed: true, ..term };
        let terms = [term, back];
        let linear = Linear::product(6, &terms, buffer);
        measure.run(Op::Linear(&[linear, linear])).unwrap();
        let op =
            WeightGradient { dy: buffer, x: buffer, n: 7, k: 5, groups: buffer, gradient: buffer };
        measure.run(Op::WeightGradient(&[op])).unwrap();
        let head = Head {
            reads: 6,
            hidden: buffer,
            weight,
            scale: 1.0,
            softcap: None,
            temperature: 1.0,
            target_reads: buffer,
            target_tokens: buffer,
            outputs: HeadOutputs { lse: Some(buffer), ..Default::default() },
            gradients: Default::default(),
            d_hidden: Some(buffer),
            d_weight: None,
        };
        measure.run(Op::Head(head)).unwrap();
        let gradient = measure.alloc(2 * 5, DType::F32).unwrap();
        let d_weight = Some(HeadWeightGradient { groups: buffer, rows: Some(buffer), gradient });
        let again = Head { outputs: Default::default(), d_weight, ..head };
        measure.run(Op::Head(again)).unwrap();
        let report = measure.report();
        let one = 2 * 6 * 7 * 5;
        assert_eq!(report.flops_linear, 4 * one);
        assert_eq!(report.flops_weight_gradient, one + 2 * 6 * 2 * 5);
        assert_eq!(report.flops_head, 3 * one);
    }

    #[test]
    fn attention_counts_visible_pairs() {
        #[track_caller]
        fn check(window: Option<u32>, pairs: u64) {
            let mut measure = Measure::new(DType::F32);
            let mut upload = |words: &[u32]| {
                let buffer = measure.alloc(words.len(), DType::U32).unwrap();
                measure.upload_u32(words, buffer).unwrap();
                buffer
            };
            let layout = AttentionLayout {
                query_positions: upload(&[0, 1, 2, 3, 2]),
                spans: upload(&[0, 4, 0, 1, 4, 1, 0, 1]),
                runs: upload(&[0, 4]),
                trees: upload(&[0, 2]),
                keys_max: 4,
            };
            let buffer = layout.runs;
            let (heads, kv_heads, head_dim) = (3, 1, 8);
            let op = Attention {
                q: buffer,
                k: buffer,
                v: buffer,
                layout,
                heads,
                kv_heads,
                head_dim,
                scale: 1.0,
                window,
                softcap: None,
                out: buffer,
                lse: buffer,
            };
            measure.run(Op::Attention(op)).unwrap();
            assert_eq!(measure.report().flops_attention, pairs * 4 * 8 * 3);
        }
        check(None, 1 + 2 + 3 + 4 + 3);
        check(Some(2), 1 + 2 + 2 + 2 + 2);
    }
}
