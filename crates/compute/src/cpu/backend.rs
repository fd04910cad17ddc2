//! The backend itself: memory, weights, and which kernel runs an operation.

mod columns;
mod head;

use super::arena::{ALIGN, Arena, Memory};
use super::attention::{Gradients, Layout, attention, attention_backward};
use super::dropout::{Base, Mask, dropout};
use super::gemm::{
    Gradient, Output, Packing, Product, ProductTerm, Source, linear, peak_flops, weight_gradient,
};
use super::head::HeadMemory;
use super::norm::Factors;
use super::operand::Operand;
use super::optimizer::{State, optimize, sum_squares};
use super::panel::{Format, Machine};
use super::rope::{Rotation, rope, rope_table};
use super::sample::{Drawn, Logits, sample};
use super::weight::{Matrix, quantize};
use super::workspace::Workspace;
use super::{Isa, Pool, cast, embed, gated, norm, rows};
use crate::backend::load_parts;
use crate::op::{self, AttentionLayout, Linear};
use crate::{
    Backend, Buffer, DType, Device, Error, Footprint, LookupSource, Mark, Op, OptimizerKind,
    Parameter, Precision, Quantization, QuantizedSource, Region, Result, Shape, Weight,
    WeightSource,
};

/// How a [`Cpu`] is to work.
#[derive(Clone, Copy, Debug)]
pub struct CpuConfig {
    /// Compute threads, at least one.
    pub threads: usize,
    /// Instruction set; the best that the processor has where none is named.
    pub isa: Option<Isa>,
    /// Type of operands.
    pub precision: Precision,
}

/// The CPU backend. Every operation has run when its call returns.
///
/// Results do not depend on the number of threads, and those of a row not on the other rows.
pub struct Cpu {
    pool: Pool,
    isa: Isa,
    format: Format,
    places: Places,
    weights: Vec<Option<Loaded>>,
    packing: Packing,
    head: HeadMemory,
}

/// Memory that buffers point into.
struct Places {
    stack: Arena,
    statics: Vec<Option<Memory>>,
}

struct Loaded {
    matrix: Matrix,
}

impl Cpu {
    /// Starts the threads. A level of instructions that the processor lacks is an error.
    pub fn new(config: CpuConfig) -> Result<Self> {
        let isa = config.isa.unwrap_or_else(Isa::detect).require()?;
        if config.threads == 0 {
            let message = String::from("`threads` is 0; at least one is needed");
            return Err(Error::Device { device: "cpu", message });
        }
        let format = Format::new(isa, config.precision.operand());
        Ok(Cpu {
            pool: Pool::new(config.threads),
            isa,
            format,
            places: Places { stack: Arena::new(), statics: Vec::new() },
            weights: Vec::new(),
            packing: Packing::new(),
            head: HeadMemory::new(),
        })
    }

    /// Bytes taken for packed operands, and for each of the head's kinds of memory.
    #[cfg(test)]
    pub(super) fn taken(&self) -> (usize, [usize; 5]) {
        (self.packing.bytes(), self.head.bytes())
    }

    fn machine(&self) -> Machine<'_> {
        Machine { pool: &self.pool, isa: self.isa, format: self.format }
    }

    fn insert(&mut self, loaded: Loaded) -> Weight {
        let weight = Weight {
            id: u32::try_from(self.weights.len()).expect("fewer than 2^32 weights"),
            rows: loaded.matrix.rows,
            cols: loaded.matrix.cols,
        };
        self.weights.push(Some(loaded));
        weight
    }
}

/// A type of element that buffers may have.
trait Element: Copy {
    const DTYPE: DType;
}

impl Element for f32 {
    const DTYPE: DType = DType::F32;
}

impl Element for u16 {
    const DTYPE: DType = DType::Bf16;
}

impl Element for u8 {
    const DTYPE: DType = DType::U8;
}

impl Element for u32 {
    const DTYPE: DType = DType::U32;
}

impl Places {
    /// The start of a buffer, which must lie in memory that is in use.
    fn pointer(&self, buffer: Buffer) -> *mut u8 {
        match buffer.region {
            Region::Stack => self.stack.pointer(buffer),
            Region::Static(id) => {
                let memory = self.statics.get(id as usize).and_then(Option::as_ref);
                let memory = memory.expect("a static buffer is used before it is freed");
                let end = buffer.offset + buffer.len * buffer.dtype.size();
                assert!(end <= memory.bytes(), "a buffer lies inside its allocation");
                // SAFETY: just checked.
                unsafe { memory.as_ptr().add(buffer.offset) }
            }
        }
    }

    fn typed<T: Element>(&self, buffer: Buffer) -> *mut T {
        assert_eq!(buffer.dtype, T::DTYPE, "type of a buffer");
        self.pointer(buffer).cast()
    }

    /// What an operation reads.
    fn input<'a, T: Element>(&self, buffer: Buffer) -> &'a [T] {
        // SAFETY: the memory is initialised (it starts zeroed), aligned, and lives until the
        // operation has run; an input overlaps no output (`Op`).
        unsafe { std::slice::from_raw_parts(self.typed(buffer), buffer.len) }
    }

    /// What an operation writes.
    fn output<'a, T: Element>(&self, buffer: Buffer) -> &'a mut [T] {
        // SAFETY: as above; outputs overlap nothing else (`Op`).
        unsafe { std::slice::from_raw_parts_mut(self.typed(buffer), buffer.len) }
    }

    fn layout<'a>(&self, layout: &AttentionLayout) -> Layout<'a> {
        Layout {
            query_positions: self.input(layout.query_positions),
            spans: self.input(layout.spans),
            runs: self.input(layout.runs),
            trees: self.input(layout.trees),
        }
    }
}

impl Backend for Cpu {
    fn device(&self) -> Device {
        Device { kind: "cpu", isa: self.isa.name(), threads: self.pool.threads() }
    }

    fn operand(&self) -> DType {
        if self.format == Format::Floats { DType::F32 } else { DType::Bf16 }
    }

    fn reserve(&mut self, bytes: usize) -> Result<()> {
        self.places.stack.reserve(bytes);
        Ok(())
    }

    fn reserved(&self) -> usize {
        self.places.stack.reserved()
    }

    fn alloc(&mut self, len: usize, dtype: DType) -> Result<Buffer> {
        self.places.stack.alloc(len, dtype)
    }

    fn mark(&self) -> Mark {
        self.places.stack.mark()
    }

    fn release(&mut self, mark: Mark) {
        self.places.stack.release(mark);
    }

    fn alloc_static(&mut self, len: usize, dtype: DType) -> Result<Buffer> {
        let id = u32::try_from(self.places.statics.len()).expect("fewer than 2^32 allocations");
        let memory = Memory::new((len * dtype.size()).next_multiple_of(ALIGN));
        self.places.statics.push(Some(memory));
        Ok(Buffer { region: Region::Static(id), offset: 0, len, dtype })
    }

    fn free_static(&mut self, buffer: Buffer) {
        let Region::Static(id) = buffer.region else {
            panic!("a buffer of the stack is released by its mark");
        };
        let freed = self.places.statics[id as usize].take();
        assert!(freed.is_some(), "a static buffer is freed once");
    }

    fn load(&mut self, source: WeightSource<'_>) -> Result<Weight> {
        let matrix = Matrix::load(self.machine(), source)?;
        Ok(self.insert(Loaded { matrix }))
    }

    fn load_as(&mut self, source: WeightSource<'_>, to: Quantization) -> Result<Weight> {
        let matrix = Matrix::load_as(self.machine(), source, to)?;
        Ok(self.insert(Loaded { matrix }))
    }

    fn load_parts_as(
        &mut self,
        source: WeightSource<'_>,
        quantization: Quantization,
        parts: &[usize],
    ) -> Result<Vec<Weight>> {
        let whole = quantize(self.machine(), source, quantization)?;
        load_parts(self, &whole, source.cols, parts)
    }

    fn load_quantized(&mut self, source: QuantizedSource<'_>) -> Result<Weight> {
        let matrix = Matrix::load_quantized(self.format, source)?;
        Ok(self.insert(Loaded { matrix }))
    }

    fn load_lookup(&mut self, source: LookupSource) -> Result<Weight> {
        let matrix = Matrix::load_lookup(self.format, source)?;
        Ok(self.insert(Loaded { matrix }))
    }

    fn load_trained_parts(
        &mut self,
        shape: Shape,
        parts: &[usize],
        values: &[f32],
        optimizer: OptimizerKind,
    ) -> Result<Parameter> {
        assert_eq!(values.len(), shape.len(), "values of a parameter");
        let mut weights = Vec::with_capacity(parts.len());
        for (rows, cols, range) in shape.parts(parts) {
            let matrix = Matrix::trained(self.machine(), rows, cols, &values[range]);
            weights.push(self.insert(Loaded { matrix }));
        }
        let parameter = Parameter::new(self, shape, &weights, optimizer)?;
        self.places.output::<f32>(parameter.master).copy_from_slice(values);
        Ok(parameter)
    }

    fn unload(&mut self, weight: Weight) {
        let loaded = self.weights[weight.id as usize].take();
        assert!(loaded.is_some(), "a weight is unloaded once");
    }

    fn upload(&mut self, data: &[f32], out: Buffer) -> Result<()> {
        assert_eq!(data.len(), out.len, "upload: lengths");
        if out.dtype == DType::Bf16 {
            cast::cast(&self.pool, self.isa, data, 1.0, self.places.output::<u16>(out));
        } else {
            self.places.output(out).copy_from_slice(data);
        }
        Ok(())
    }

    fn upload_u32(&mut self, data: &[u32], out: Buffer) -> Result<()> {
        self.places.output(out).copy_from_slice(data);
        Ok(())
    }

    fn read(&mut self, buffer: Buffer, out: &mut [f32]) -> Result<()> {
        assert_eq!(out.len(), buffer.len, "read: lengths");
        if buffer.dtype == DType::Bf16 {
            cast::cast(&self.pool, self.isa, self.places.input::<u16>(buffer), 1.0, out);
        } else {
            out.copy_from_slice(self.places.input(buffer));
        }
        Ok(())
    }

    fn read_u32(&mut self, buffer: Buffer, out: &mut [u32]) -> Result<()> {
        out.copy_from_slice(self.places.input(buffer));
        Ok(())
    }

    fn upload_u8(&mut self, data: &[u8], out: Buffer) -> Result<()> {
        self.places.output(out).copy_from_slice(data);
        Ok(())
    }

    fn read_u8(&mut self, buffer: Buffer, out: &mut [u8]) -> Result<()> {
        out.copy_from_slice(self.places.input(buffer));
        Ok(())
    }

    fn run(&mut self, op: Op<'_>) -> Result<()> {
        match self.operand() {
            DType::F32 => self.run_as::<f32>(op),
            DType::Bf16 | DType::U32 | DType::U8 => self.run_as::<u16>(op),
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        self.pool.settle();
        Ok(())
    }

    fn footprint(&self) -> Option<Box<dyn Footprint>> {
        let threads = self.pool.threads();
        Some(Box::new(Workspace::new(self.isa, threads, self.operand())))
    }

    fn peak_flops(&self) -> Option<f64> {
        Some(peak_flops(&self.pool, self.isa, self.format))
    }
}

impl Cpu {
    /// Runs an operation with operands of type `T`.
    fn run_as<T: Operand + Element>(&mut self, op: Op<'_>) {
        let (pool, isa, at) = (&self.pool, self.isa, &self.places);
        match op {
            Op::Fill { out, value } if out.dtype == DType::F32 => {
                rows::fill::<f32>(pool, at.output(out), value);
            }
            Op::Fill { out, value } => rows::fill::<T>(pool, at.output(out), value),
            Op::Accumulate { x, out } => rows::accumulate(pool, isa, at.input(x), at.output(out)),
            Op::Cast { x, scale, out } => self.cast::<T>(x, scale, out),
            Op::Gather(op) => self.gather(&op),
            Op::Scatter(op) => self.scatter(&op),
            Op::Embed(op) => {
                let matrix = matrix(&self.weights, op.weight);
                embed::embed(pool, matrix, at.input(op.tokens), op.scale, at.output(op.out));
            }
            Op::RmsNorm(op) => {
                let (x, weight) = (at.input(op.x), at.input(op.weight));
                assert_eq!(op.weight.len, op.cols, "rms_norm: weight is [C]");
                let factors = Factors { weight, offset: op.offset };
                let (eps, rstd) = (op.eps, at.output(op.rstd));
                if op.out.dtype == DType::F32 {
                    let out = at.output::<f32>(op.out);
                    norm::rms_norm(pool, isa, x, factors, eps, out, rstd);
                } else {
                    let out = at.output::<T>(op.out);
                    norm::rms_norm(pool, isa, x, factors, eps, out, rstd);
                }
            }
            Op::RmsNormBackward(op) => {
                let [dout, x, weight, rstd] =
                    [op.dout, op.x, op.weight, op.rstd].map(|buffer| at.input(buffer));
                assert_eq!(op.weight.len, op.cols, "rms_norm_backward: weight is [C]");
                let dx = at.output(op.dx);
                let factors = Factors { weight, offset: op.offset };
                norm::rms_norm_backward(pool, isa, dout, x, factors, rstd, dx);
            }
            Op::Linear(list) => self.linear(list),
            Op::WeightGradient(list) => self.weight_gradient(list),
            Op::RopeTable(op) => {
                let (positions, inv_freq) = (at.input(op.positions), at.input(op.inv_freq));
                let (cos, sin) = (at.output(op.cos), at.output(op.sin));
                rope_table(pool, positions, inv_freq, op.scale, cos, sin);
            }
            Op::Rope(op) => {
                let op::Rope { heads, head_dim, rotary_dim, inverse, .. } = op;
                let (cos, sin) = (at.input(op.cos), at.input(op.sin));
                let rotation = Rotation { heads, head_dim, rotary_dim, cos, sin, inverse };
                if op.out.dtype == DType::F32 {
                    rope::<f32>(pool, isa, rotation, at.input(op.x), at.output(op.out));
                } else {
                    rope::<T>(pool, isa, rotation, at.input(op.x), at.output(op.out));
                }
            }
            Op::Attention(op) => {
                let [q, k, v] = [op.q, op.k, op.v].map(|buffer| at.input::<T>(buffer));
                let (out, lse) = (at.output(op.out), at.output(op.lse));
                attention(pool, isa, (&op).into(), at.layout(&op.layout), q, k, v, out, lse);
            }
            Op::AttentionBackward(op) => {
                let forward = &op.forward;
                let [q, k, v, out, dout] =
                    [forward.q, forward.k, forward.v, forward.out, op.dout].map(|b| at.input(b));
                let lse = at.input(forward.lse);
                let inputs: Gradients<'_, T> = Gradients { q, k, v, out, lse, dout };
                let [dq, dk, dv] = [op.dq, op.dk, op.dv].map(|buffer| at.output(buffer));
                let layout = at.layout(&forward.layout);
                attention_backward(pool, isa, forward.into(), layout, inputs, dq, dk, dv);
            }
            Op::Gated(op) => {
                let (gate, up, out) = (at.input::<T>(op.gate), at.input(op.up), at.output(op.out));
                gated::gated(pool, isa, op.activation, gate, up, out);
            }
            Op::GatedBackward(op) => {
                let [gate, up, dout] = [op.gate, op.up, op.dout].map(|b| at.input::<T>(b));
                let [dgate, dup] = [op.dgate, op.dup].map(|buffer| at.output(buffer));
                gated::gated_backward(pool, isa, op.activation, gate, up, dout, dgate, dup);
            }
            Op::Dropout(op) => self.dropout::<T>(&op),
            Op::Head(op) => self.head(&op),
            Op::HeadDivergence(op) => self.head_divergence(&op),
            Op::Sample(op) => {
                let op::Sample { vocab, softcap, .. } = op;
                let bits = |bits: Option<Buffer>| bits.map_or(&[][..], |bits| at.input(bits));
                let (allowed, seen) = (bits(op.allowed), bits(op.seen));
                let logits = Logits { vocab, logits: at.input(op.logits), softcap, allowed, seen };
                let out = Drawn {
                    tokens: at.output(op.tokens),
                    logprobs: at.output(op.logprobs),
                    top_tokens: op.top.map_or(&mut [], |top| at.output(top.tokens)),
                    top_logprobs: op.top.map_or(&mut [], |top| at.output(top.logprobs)),
                };
                sample(pool, isa, logits, at.input(op.settings), out);
            }
            Op::SumSquares { inputs, out } => {
                let inputs: Vec<&[f32]> = inputs.iter().map(|&input| at.input(input)).collect();
                at.output(out)[0] = sum_squares(pool, isa, &inputs);
            }
            Op::Optimize(op) => {
                self.optimize(&op);
                self.refresh(op.parameters);
            }
            Op::ScatterAdd(op) => self.scatter_add(&op),
            Op::ColumnSums(op) => self.column_sums::<T>(&op),
            Op::ScaleColumns(op) => self.scale_columns::<T>(&op),
            Op::DoraFactors(op) => self.dora_factors(&op),
            Op::RowSquares { weight, out } => self.row_squares(weight, out),
            Op::WriteRows { weight, index, values } => self.write_rows(weight, index, values),
            Op::Refresh(parameters) => self.refresh(parameters),
        }
    }

    fn cast<T: Operand + Element>(&self, x: Buffer, scale: f32, out: Buffer) {
        let (pool, isa, at) = (&self.pool, self.isa, &self.places);
        match (x.dtype, out.dtype) {
            (DType::F32, DType::F32) => {
                cast::cast::<f32, f32>(pool, isa, at.input(x), scale, at.output(out));
            }
            (DType::F32, _) => cast::cast::<f32, T>(pool, isa, at.input(x), scale, at.output(out)),
            (_, DType::F32) => cast::cast::<T, f32>(pool, isa, at.input(x), scale, at.output(out)),
            _ => cast::cast::<T, T>(pool, isa, at.input(x), scale, at.output(out)),
        }
    }

    fn gather(&self, op: &op::Rows) {
        assert_eq!(op.x.dtype, op.out.dtype, "gather: types");
        let (pool, at, index) = (&self.pool, &self.places, self.places.input(op.index));
        match op.x.dtype {
            DType::F32 => {
                rows::gather::<f32>(pool, op.cols, at.input(op.x), index, at.output(op.out));
            }
            DType::Bf16 => {
                rows::gather::<u16>(pool, op.cols, at.input(op.x), index, at.output(op.out));
            }
            DType::U8 => unreachable!("bytes are not gathered"),
            DType::U32 => {
                rows::gather::<u32>(pool, op.cols, at.input(op.x), index, at.output(op.out));
            }
        }
    }

    fn scatter(&self, op: &op::Rows) {
        assert_eq!(op.x.dtype, op.out.dtype, "scatter: types");
        let (pool, at, index) = (&self.pool, &self.places, self.places.input(op.index));
        match op.x.dtype {
            DType::F32 => {
                rows::scatter::<f32>(pool, op.cols, at.input(op.x), index, at.output(op.out));
            }
            DType::Bf16 => {
                rows::scatter::<u16>(pool, op.cols, at.input(op.x), index, at.output(op.out));
            }
            DType::U8 => unreachable!("bytes are not scattered"),
            DType::U32 => {
                rows::scatter::<u32>(pool, op.cols, at.input(op.x), index, at.output(op.out));
            }
        }
    }

    fn dropout<T: Operand + Element>(&self, op: &op::Dropout) {
        let (pool, isa, at) = (&self.pool, self.isa, &self.places);
        let mask = Mask { cols: op.cols, row_keys: at.input(op.row_keys), key: op.key, p: op.p };
        let base = match op.base {
            None => Base::Zero,
            Some(base) if base == op.out => Base::Out,
            Some(base) => Base::Apart(at.input(base)),
        };
        match (op.x.dtype, op.out.dtype) {
            (DType::F32, DType::F32) => {
                dropout::<f32, f32>(pool, isa, mask, at.input(op.x), base, at.output(op.out));
            }
            (DType::F32, _) => {
                dropout::<f32, T>(pool, isa, mask, at.input(op.x), base, at.output(op.out));
            }
            (_, DType::F32) => {
                dropout::<T, f32>(pool, isa, mask, at.input(op.x), base, at.output(op.out));
            }
            _ => dropout::<T, T>(pool, isa, mask, at.input(op.x), base, at.output(op.out)),
        }
    }

    fn linear(&mut self, list: &[Linear<'_>]) {
        let Cpu { pool, isa, format, places, weights, packing, .. } = self;
        let machine = Machine { pool, isa: *isa, format: *format };
        let mut rest = list;
        while !rest.is_empty() {
            let count = Linear::independent(rest);
            let terms: Vec<Vec<ProductTerm<'_>>> =
                rest[..count].iter().map(|linear| product_terms(places, weights, linear)).collect();
            let products: Vec<Product<'_>> = rest[..count]
                .iter()
                .zip(&terms)
                .map(|(linear, terms)| product(places, linear, terms))
                .collect();
            // SAFETY: lengths were checked; outputs overlap no inputs (`Op`).
            unsafe { linear(machine, packing, &products) };
            rest = &rest[count..];
        }
    }

    fn weight_gradient(&mut self, list: &[op::WeightGradient]) {
        let operand = self.operand();
        let Cpu { pool, isa, format, places: at, packing, .. } = self;
        let machine = Machine { pool, isa: *isa, format: *format };
        let mut gradients: Vec<Gradient<'_>> = Vec::new();
        for op in list {
            let groups: &[u32] = at.input(op.groups);
            let rows = groups.last().map_or(0, |&rows| rows as usize);
            assert!(groups.is_sorted(), "weight_gradient: groups ascend");
            let types = [op.dy.dtype, op.x.dtype] == [operand; 2];
            let lengths =
                [op.dy.len, op.x.len, op.gradient.len] == [rows * op.n, rows * op.k, op.n * op.k];
            assert!(types && lengths, "weight_gradient: {rows} rows, {} x {}", op.n, op.k);
            let source = Source { dy: at.pointer(op.dy), x: at.pointer(op.x), groups };
            let (n, k, out) = (op.n, op.k, at.typed(op.gradient));
            match gradients.iter_mut().find(|gradient| gradient.out == out) {
                Some(same) => {
                    assert_eq!([same.n, same.k], [n, k], "weight_gradient: a shared gradient");
                    same.sources.push(source);
                }
                None => gradients.push(Gradient { sources: vec![source], n, k, out }),
            }
        }
        // SAFETY: types and lengths were checked; gradients overlap nothing (`Op`).
        unsafe { weight_gradient(machine, packing, &gradients) };
    }

    fn optimize(&mut self, op: &op::Optimize<'_>) {
        let Cpu { pool, isa, places: at, packing, .. } = self;
        let machine = Machine { pool, isa: *isa, format: Format::Floats };
        for parameter in op.parameters {
            parameter.assert_kept_for(op.optimizer.kind());
            let mut state = State {
                shape: parameter.shape,
                master: at.output(parameter.master),
                gradient: at.output(parameter.gradient),
                floats: [&mut [], &mut []],
                codes: [&mut [], &mut []],
            };
            let (mut floats, mut codes) = (0, 0);
            for &buffer in parameter.state.iter().flatten() {
                if buffer.dtype == DType::U8 {
                    state.codes[codes] = at.output(buffer);
                    codes += 1;
                } else {
                    state.floats[floats] = at.output(buffer);
                    floats += 1;
                }
            }
            optimize(machine, packing, op, state);
        }
    }

    fn refresh(&mut self, parameters: &[Parameter]) {
        let Cpu { pool, isa, format, places, weights, .. } = self;
        let machine = Machine { pool, isa: *isa, format: *format };
        for parameter in parameters {
            for part in parameter.parts() {
                let loaded = weights[part.weight.id as usize].as_mut();
                let loaded = loaded.expect("a weight is used before it is unloaded");
                loaded.matrix.refresh(machine, places.input(part.master));
            }
        }
    }
}

fn matrix(weights: &[Option<Loaded>], weight: Weight) -> &Matrix {
    let loaded = weights.get(weight.id as usize).and_then(Option::as_ref);
    &loaded.expect("a weight is used before it is unloaded").matrix
}

fn product_terms<'a>(
    places: &Places,
    weights: &'a [Option<Loaded>],
    linear: &Linear<'_>,
) -> Vec<ProductTerm<'a>> {
    let term = |term: &op::Term| {
        let matrix = matrix(weights, term.weight);
        let k = if term.transposed { matrix.rows } else { matrix.cols };
        assert_eq!(term.input.len, linear.rows * k, "linear: input is [{}, {k}]", linear.rows);
        ProductTerm { input: places.pointer(term.input), matrix, transposed: term.transposed }
    };
    linear.terms.iter().map(term).collect()
}

fn product<'a>(places: &Places, linear: &Linear<'_>, terms: &'a [ProductTerm<'a>]) -> Product<'a> {
    let outputs =
        |term: &ProductTerm<'_>| if term.transposed { term.matrix.cols } else { term.matrix.rows };
    let rows = linear.rows;
    linear.assert_terms();
    let n = outputs(&terms[0]);
    assert!(terms.iter().all(|term| outputs(term) == n), "linear: all terms have {n} outputs");
    assert_eq!(linear.out.len, rows * n, "linear: out is [{rows}, {n}]");
    let base = linear.base.map_or(std::ptr::null(), |base| {
        assert_eq!(base.len, rows * n, "linear: base is [{rows}, {n}]");
        places.typed::<f32>(base).cast_const()
    });
    let bias = linear.bias.map_or(std::ptr::null(), |bias| {
        assert_eq!(bias.len, n, "linear: bias is [{n}]");
        places.typed::<f32>(bias).cast_const()
    });
    let output = Output::Store {
        scale: linear.scale,
        bias,
        base,
        out: places.pointer(linear.out),
        bf16: linear.out.dtype == DType::Bf16,
        stride: n,
    };
    Product { rows, n, terms, output }
}
