//! The oracle: every operation straight from its formula, in f64.
//!
//! A full backend with an address space of its own. Operations are copied into a queue
//! and run only at [`Backend::sync`] or a read, so a host slice that leaks upward, memory
//! read before it is written or after its release, and an output that overlaps an input
//! are caught as the bugs they are.

mod attention;
mod columns;
mod divergence;
mod dropout;
mod gated;
mod head;
mod linear;
mod memory;
mod norm;
mod optimizer;
mod rope;
mod rows;
mod sample;

use crate::quantize::Quantized;
use crate::{
    Backend, Buffer, DType, Device, Error, Footprint, LookupSource, Mark, Op, OptimizerKind,
    Parameter, Quantization, QuantizedSource, Region, Result, Shape, Weight, WeightSource,
};
use memory::Memory;

/// A loaded weight.
struct Matrix {
    rows: usize,
    cols: usize,
    /// `[rows, cols]`.
    values: Vec<f64>,
}

impl Matrix {
    fn row(&self, row: usize) -> &[f64] {
        &self.values[row * self.cols..][..self.cols]
    }
}

type Command = Box<dyn FnOnce(&mut Memory) + Send>;

/// The f64 backend.
#[derive(Default)]
pub struct Reference {
    memory: Memory,
    queue: Vec<Command>,
    /// Bytes of the stack, and how many are taken.
    reserved: usize,
    height: usize,
    next_static: u32,
    next_weight: u32,
}

impl Reference {
    /// A reference without memory; [`Backend::reserve`] gives it a stack.
    pub fn new() -> Self {
        Self::default()
    }

    /// As [`Backend::upload`], without rounding to f32.
    pub fn upload_f64(&mut self, data: &[f64], out: Buffer) {
        let data = data.to_vec();
        self.defer(move |memory| memory.write(out, &data));
    }

    /// As [`Backend::read`], without rounding to f32.
    pub fn read_f64(&mut self, buffer: Buffer) -> Vec<f64> {
        self.run_queue();
        self.memory.present(buffer, buffer.len)
    }

    fn defer(&mut self, command: impl FnOnce(&mut Memory) + Send + 'static) {
        self.queue.push(Box::new(command));
    }

    fn run_queue(&mut self) {
        for command in self.queue.drain(..) {
            self.memory.begin();
            command(&mut self.memory);
        }
        self.memory.begin();
    }

    /// Adds a matrix whose f32 numbers `read` writes.
    fn add_matrix(&mut self, rows: usize, cols: usize, read: impl FnOnce(&mut [f32])) -> Weight {
        let mut values = vec![0.0; rows * cols];
        read(&mut values);
        let values = values.into_iter().map(f64::from).collect();
        self.add_weight(Matrix { rows, cols, values })
    }

    fn add_weight(&mut self, matrix: Matrix) -> Weight {
        let weight = Weight { id: self.next_weight, rows: matrix.rows, cols: matrix.cols };
        self.next_weight += 1;
        self.memory.weights.insert(weight.id, matrix);
        weight
    }
}

impl Backend for Reference {
    fn device(&self) -> Device {
        Device { kind: "reference", isa: "f64", threads: 1 }
    }

    fn operand(&self) -> DType {
        DType::F32
    }

    fn reserve(&mut self, bytes: usize) -> Result<()> {
        assert_eq!(self.height, 0, "the stack is resized while it is in use");
        self.reserved = bytes;
        Ok(())
    }

    fn alloc(&mut self, len: usize, dtype: DType) -> Result<Buffer> {
        let offset = self.height;
        let needed = offset + (len * dtype.size()).next_multiple_of(64);
        if needed > self.reserved {
            let (device, reserved) = ("reference", self.reserved);
            return Err(Error::OutOfMemory { device, needed, reserved });
        }
        self.height = needed;
        self.defer(move |memory| memory.grow(offset, needed));
        Ok(Buffer { region: Region::Stack, offset, len, dtype })
    }

    fn mark(&self) -> Mark {
        Mark(self.height)
    }

    fn release(&mut self, mark: Mark) {
        assert!(mark.0 <= self.height, "release to {} of a stack of {}", mark.0, self.height);
        self.height = mark.0;
        self.defer(move |memory| memory.shrink(mark.0));
    }

    fn alloc_static(&mut self, len: usize, dtype: DType) -> Result<Buffer> {
        let id = self.next_static;
        self.next_static += 1;
        self.defer(move |memory| memory.add_static(id, len, dtype));
        Ok(Buffer { region: Region::Static(id), offset: 0, len, dtype })
    }

    fn free_static(&mut self, buffer: Buffer) {
        let Region::Static(id) = buffer.region else {
            panic!("{buffer:?} is freed but lies on the stack")
        };
        self.defer(move |memory| memory.remove_static(id));
    }

    fn load(&mut self, source: WeightSource<'_>) -> Result<Weight> {
        source.check()?;
        source.check_finite()?;
        let (rows, cols) = (source.rows, source.cols);
        Ok(self.add_matrix(rows, cols, |out| source.read(0, out)))
    }

    fn load_as(&mut self, source: WeightSource<'_>, to: Quantization) -> Result<Weight> {
        let quantized = Quantized::new(source, to)?;
        let (rows, cols) = (source.rows, source.cols);
        self.load_quantized(QuantizedSource { rows, cols, values: quantized.values() })
    }

    fn load_quantized(&mut self, source: QuantizedSource<'_>) -> Result<Weight> {
        let QuantizedSource { rows, cols, values } = source;
        values.check(rows, cols)?;
        Ok(self.add_matrix(rows, cols, |out| values.read(cols, 0..rows * cols, out)))
    }

    fn load_lookup(&mut self, source: LookupSource) -> Result<Weight> {
        source.check()?;
        let (rows, cols) = (source.rows, source.cols);
        let read = |out: &mut [f32]| {
            let rows = out.chunks_exact_mut(cols).enumerate();
            rows.for_each(|(row, out)| source.read_row(row, out));
        };
        let weight = self.add_matrix(rows, cols, read);
        self.memory.lookups.insert(weight.id);
        Ok(weight)
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
            let values = values[range].iter().copied().map(f64::from).collect();
            weights.push(self.add_weight(Matrix { rows, cols, values }));
        }
        let parameter = Parameter::new(self, shape, &weights, optimizer)?;
        self.upload(values, parameter.master)?;
        Ok(parameter)
    }

    fn unload(&mut self, weight: Weight) {
        self.defer(move |memory| {
            let matrix = memory.weights.remove(&weight.id);
            assert!(matrix.is_some(), "{weight:?} is unloaded twice");
        });
    }

    fn upload_u8(&mut self, data: &[u8], out: Buffer) -> Result<()> {
        assert_eq!(out.dtype, DType::U8, "bytes are written to {out:?}");
        let data: Vec<u32> = data.iter().copied().map(u32::from).collect();
        self.defer(move |memory| memory.write_integers(out, &data));
        Ok(())
    }

    fn read_u8(&mut self, buffer: Buffer, out: &mut [u8]) -> Result<()> {
        assert_eq!(buffer.dtype, DType::U8, "bytes are read from {buffer:?}");
        self.run_queue();
        let codes = self.memory.present_integers(buffer, out.len());
        out.iter_mut().zip(codes).for_each(|(out, code)| *out = code as u8);
        Ok(())
    }

    fn upload(&mut self, data: &[f32], out: Buffer) -> Result<()> {
        let data: Vec<f64> = data.iter().copied().map(f64::from).collect();
        self.defer(move |memory| memory.write(out, &data));
        Ok(())
    }

    fn upload_u32(&mut self, data: &[u32], out: Buffer) -> Result<()> {
        let data = data.to_vec();
        self.defer(move |memory| memory.write_integers(out, &data));
        Ok(())
    }

    fn read(&mut self, buffer: Buffer, out: &mut [f32]) -> Result<()> {
        self.run_queue();
        let values = self.memory.present(buffer, out.len());
        out.iter_mut().zip(values).for_each(|(out, value)| *out = value as f32);
        Ok(())
    }

    fn read_u32(&mut self, buffer: Buffer, out: &mut [u32]) -> Result<()> {
        self.run_queue();
        out.copy_from_slice(&self.memory.integers(buffer, out.len()));
        Ok(())
    }

    fn run(&mut self, op: Op<'_>) -> Result<()> {
        match op {
            Op::Fill { out, value } => self.defer(move |m| rows::fill(m, out, value)),
            Op::Accumulate { x, out } => self.defer(move |m| rows::accumulate(m, x, out)),
            Op::Cast { x, scale, out } => self.defer(move |m| rows::cast(m, x, scale, out)),
            Op::Gather(op) => self.defer(move |m| rows::gather(m, &op)),
            Op::Scatter(op) => self.defer(move |m| rows::scatter(m, &op)),
            Op::Embed(op) => self.defer(move |m| rows::embed(m, &op)),
            Op::RmsNorm(op) => self.defer(move |m| norm::forward(m, &op)),
            Op::RmsNormBackward(op) => self.defer(move |m| norm::backward(m, &op)),
            Op::Linear(ops) => {
                for op in ops {
                    let (rows, scale, bias, base, out) =
                        (op.rows, op.scale, op.bias, op.base, op.out);
                    let terms = op.terms.to_vec();
                    let own = move |m: &mut Memory| {
                        linear::forward(
                            m,
                            &crate::op::Linear { rows, terms: &terms, scale, bias, base, out },
                        );
                    };
                    self.defer(own);
                }
            }
            Op::WeightGradient(ops) => {
                for &op in ops {
                    self.defer(move |m| linear::weight_gradient(m, &op));
                }
            }
            Op::RopeTable(op) => self.defer(move |m| rope::table(m, &op)),
            Op::Rope(op) => self.defer(move |m| rope::rotate(m, &op)),
            Op::Attention(op) => self.defer(move |m| attention::forward(m, &op)),
            Op::AttentionBackward(op) => self.defer(move |m| attention::backward(m, &op)),
            Op::Gated(op) => self.defer(move |m| gated::forward(m, &op)),
            Op::GatedBackward(op) => self.defer(move |m| gated::backward(m, &op)),
            Op::Dropout(op) => self.defer(move |m| dropout::forward(m, &op)),
            Op::Head(op) => self.defer(move |m| head::run(m, &op)),
            Op::HeadDivergence(op) => self.defer(move |m| divergence::run(m, &op)),
            Op::Sample(op) => self.defer(move |m| sample::run(m, &op)),
            Op::SumSquares { inputs, out } => {
                let inputs = inputs.to_vec();
                self.defer(move |m| optimizer::sum_squares(m, &inputs, out));
            }
            Op::Optimize(op) => {
                let step = optimizer::Step::of(&op);
                for &parameter in op.parameters {
                    self.defer(move |m| optimizer::optimize(m, parameter, &step));
                }
            }
            Op::ScatterAdd(op) => self.defer(move |m| columns::scatter_add(m, &op)),
            Op::ColumnSums(op) => self.defer(move |m| columns::sums(m, &op)),
            Op::ScaleColumns(op) => self.defer(move |m| columns::scale(m, &op)),
            Op::DoraFactors(op) => self.defer(move |m| columns::dora_factors(m, &op)),
            Op::RowSquares { weight, out } => self.defer(move |m| rows::squares(m, weight, out)),
            Op::WriteRows { weight, index, values } => {
                self.defer(move |m| rows::write(m, weight, index, values));
            }
            Op::Refresh(parameters) => {
                for &parameter in parameters {
                    self.defer(move |m| optimizer::refresh(m, parameter));
                }
            }
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        self.run_queue();
        Ok(())
    }

    /// What it works in is not counted: it is the oracle, not a device.
    fn footprint(&self) -> Option<Box<dyn Footprint>> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference() -> Reference {
        let mut reference = Reference::new();
        reference.reserve(1 << 16).unwrap();
        reference
    }

    #[test]
    fn operations_wait_for_a_read_and_see_memory_as_it_was() {
        let mut reference = reference();
        let kept = reference.alloc(3, DType::F32).unwrap();
        let mark = reference.mark();
        let first = reference.alloc(3, DType::F32).unwrap();
        reference.upload(&[1.0, 2.0, 3.0], first).unwrap();
        reference.run(Op::Fill { out: kept, value: 1.0 }).unwrap();
        reference.run(Op::Accumulate { x: first, out: kept }).unwrap();
        reference.release(mark);
        let second = reference.alloc(3, DType::F32).unwrap();
        assert_eq!(first, second);
        reference.upload(&[7.0; 3], second).unwrap();
        let mut out = [0.0; 3];
        reference.read(kept, &mut out).unwrap();
        assert_eq!(out, [2.0, 3.0, 4.0]);
    }

    #[test]
    fn bytes_lie_side_by_side() {
        let mut reference = reference();
        let buffer = reference.alloc(5, DType::U8).unwrap();
        reference.upload_u8(&[1, 2, 255, 4, 5], buffer).unwrap();
        reference.upload_u8(&[9], buffer.slice(1, 1)).unwrap();
        let mut out = [0; 3];
        reference.read_u8(buffer.slice(1, 3), &mut out).unwrap();
        assert_eq!(out, [9, 255, 4]);
    }

    #[test]
    #[should_panic(expected = "is read but Unwritten")]
    fn reading_what_was_never_written_is_a_bug() {
        let mut reference = reference();
        let mark = reference.mark();
        let buffer = reference.alloc(2, DType::F32).unwrap();
        reference.upload(&[1.0, 2.0], buffer).unwrap();
        reference.release(mark);
        let again = reference.alloc(2, DType::F32).unwrap();
        reference.read(again, &mut [0.0; 2]).unwrap();
    }

    #[test]
    #[should_panic(expected = "after it was released")]
    fn reading_what_was_released_is_a_bug() {
        let mut reference = reference();
        let mark = reference.mark();
        let buffer = reference.alloc(2, DType::F32).unwrap();
        reference.upload(&[1.0, 2.0], buffer).unwrap();
        reference.release(mark);
        reference.read(buffer, &mut [0.0; 2]).unwrap();
    }

    #[test]
    #[should_panic(expected = "overlaps input")]
    fn writing_over_an_input_is_a_bug() {
        let mut reference = reference();
        let buffer = reference.alloc(4, DType::F32).unwrap();
        reference.upload(&[1.0; 4], buffer).unwrap();
        let (x, out) = (buffer.slice(0, 2), buffer.slice(1, 2));
        reference.run(Op::Accumulate { x, out }).unwrap();
        reference.sync().unwrap();
    }

    #[test]
    fn the_stack_has_an_end() {
        let mut reference = Reference::new();
        reference.reserve(64).unwrap();
        reference.alloc(16, DType::F32).unwrap();
        let error = reference.alloc(1, DType::F32).unwrap_err();
        assert_eq!(error.to_string(), "out of reference memory: 128 bytes needed, 64 reserved");
    }

    #[test]
    fn rows_of_a_weight_follow_their_order() {
        let mut reference = reference();
        let bytes: Vec<u8> = [1.0f32, 2.0, 3.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        let order = Some(&[2, 0, 1][..]);
        let storage = crate::Storage::F32;
        let source = WeightSource { rows: 3, cols: 1, storage, bytes: &bytes, row_order: order };
        let weight = reference.load(source).unwrap();
        assert_eq!(reference.memory.weights[&weight.id].values, [3.0, 1.0, 2.0]);
        let error = reference.load(WeightSource { cols: 2, ..source }).unwrap_err();
        assert_eq!(error.to_string(), "a F32 matrix of 3 x 2 has 24 bytes, not 12");
    }
}
