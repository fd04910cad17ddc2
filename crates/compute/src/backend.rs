//! The seam between models and devices.

use crate::quantize::Quantized;
use crate::{
    Buffer, DType, Footprint, LookupSource, Mark, Op, OptimizerKind, Parameter, Quantization,
    QuantizedSource, Result, Shape, Storage, Weight, WeightSource,
};

/// Loads parts of so many rows of a quantised matrix.
pub(crate) fn load_parts<B: Backend + ?Sized>(
    backend: &mut B,
    whole: &Quantized,
    cols: usize,
    parts: &[usize],
) -> Result<Vec<Weight>> {
    let mut first = 0;
    let load = |&rows: &usize| {
        let part = whole.values().rows(cols, first..first + rows);
        first += rows;
        match part.floats() {
            Some(bytes) => {
                let storage = Storage::F32;
                backend.load(WeightSource { rows, cols, storage, bytes, row_order: None })
            }
            None => backend.load_quantized(QuantizedSource { rows, cols, values: part.values() }),
        }
    };
    parts.iter().map(load).collect()
}

/// What matrix products multiply in. Sums are f32 in both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// bfloat16: half the memory, and the fastest where the processor multiplies it.
    Bf16,
    /// 32-bit floats.
    F32,
}

impl Precision {
    /// The type of operands.
    pub fn operand(self) -> DType {
        match self {
            Precision::Bf16 => DType::Bf16,
            Precision::F32 => DType::F32,
        }
    }
}

/// What a backend is, for reports and manifests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// `cpu`, `reference`, `measure`.
    pub kind: &'static str,
    /// Instruction set that the kernels were chosen for, `avx512bf16` say.
    pub isa: &'static str,
    /// Compute threads.
    pub threads: usize,
}

/// A device with memory of its own, a set of loaded weights, and the
/// operations of [`Op`].
///
/// No operation takes or returns host memory: only [`upload`](Backend::upload),
/// [`read`](Backend::read) and [`sync`](Backend::sync) touch it, and the loading of weights. A backend may queue what it is
/// told to run; an error may then surface as late as at `sync` or `read`.
///
/// Memory of a step is a stack: [`alloc`](Backend::alloc) takes from its top, [`release`](Backend::release) gives back
/// everything above a mark. Its contents are undefined until written.
pub trait Backend: Send {
    /// What this is.
    fn device(&self) -> Device;

    /// The type that matrix products multiply in.
    fn operand(&self) -> DType;

    /// Sets the size of the stack. It must be empty.
    fn reserve(&mut self, bytes: usize) -> Result<()>;

    /// The size of the stack; by default there is no limit.
    fn reserved(&self) -> usize {
        usize::MAX
    }

    /// Takes `len` elements from the top of the stack.
    fn alloc(&mut self, len: usize, dtype: DType) -> Result<Buffer>;

    /// The height of the stack.
    fn mark(&self) -> Mark;

    /// Gives back all that was taken since `mark`.
    fn release(&mut self, mark: Mark);

    /// An allocation of its own, zeroed.
    fn alloc_static(&mut self, len: usize, dtype: DType) -> Result<Buffer>;

    /// Gives back an allocation of [`alloc_static`](Backend::alloc_static).
    fn free_static(&mut self, buffer: Buffer);

    /// Loads a frozen matrix. One that holds NaN or an infinity is an error.
    fn load(&mut self, source: WeightSource<'_>) -> Result<Weight>;

    /// Loads a frozen matrix and quantises it on the way.
    fn load_as(&mut self, source: WeightSource<'_>, quantization: Quantization) -> Result<Weight>;

    /// Loads parts of so many rows of a frozen matrix that is quantised as a whole, as
    /// [`load_as`](Backend::load_as) does. A part that begins within a block of 4-bit codes is kept as operands.
    fn load_parts_as(
        &mut self,
        source: WeightSource<'_>,
        quantization: Quantization,
        parts: &[usize],
    ) -> Result<Vec<Weight>> {
        let whole = Quantized::new(source, quantization)?;
        load_parts(self, &whole, source.cols, parts)
    }

    /// Loads a frozen matrix that is quantised already.
    fn load_quantized(&mut self, source: QuantizedSource<'_>) -> Result<Weight>;

    /// Takes a matrix whose rows are only looked up and leaves it where it lies.
    fn load_lookup(&mut self, source: LookupSource) -> Result<Weight>;

    /// Makes a parameter with these values, zero gradient, and what the optimizer keeps as it is
    /// before the first step.
    fn load_trained(
        &mut self,
        shape: Shape,
        values: &[f32],
        optimizer: OptimizerKind,
    ) -> Result<Parameter> {
        match shape {
            Shape::Matrix(rows, _) => self.load_trained_parts(shape, &[rows], values, optimizer),
            Shape::Vector(_) => self.load_trained_parts(shape, &[], values, optimizer),
        }
    }

    /// As [`load_trained`](Backend::load_trained), for a matrix whose parts of so many rows are multiplied
    /// apart: each has an operand copy of its own, and the optimizer steps over the matrix as a whole.
    fn load_trained_parts(
        &mut self,
        shape: Shape,
        parts: &[usize],
        values: &[f32],
        optimizer: OptimizerKind,
    ) -> Result<Parameter>;

    /// Forgets a parameter and what belongs to it.
    fn unload_trained(&mut self, parameter: Parameter) {
        parameter.buffers().for_each(|buffer| self.free_static(buffer));
        parameter.weights.into_iter().flatten().for_each(|weight| self.unload(weight));
    }

    /// Forgets a frozen matrix.
    fn unload(&mut self, weight: Weight);

    /// Copies host memory into a f32 or operand buffer of the same length.
    fn upload(&mut self, data: &[f32], out: Buffer) -> Result<()>;

    /// Copies host memory into a u32 buffer of the same length.
    fn upload_u32(&mut self, data: &[u32], out: Buffer) -> Result<()>;

    /// Waits, then copies a f32 or operand buffer to host memory.
    fn read(&mut self, buffer: Buffer, out: &mut [f32]) -> Result<()>;

    /// Waits, then copies a u32 buffer to host memory.
    fn read_u32(&mut self, buffer: Buffer, out: &mut [u32]) -> Result<()>;

    /// Copies host memory into a byte buffer of the same length.
    fn upload_u8(&mut self, data: &[u8], out: Buffer) -> Result<()>;

    /// Waits, then copies a byte buffer to host memory.
    fn read_u8(&mut self, buffer: Buffer, out: &mut [u8]) -> Result<()>;

    /// Runs or queues an operation.
    fn run(&mut self, op: Op<'_>) -> Result<()>;

    /// Waits for all that was queued.
    fn sync(&mut self) -> Result<()>;

    /// Bookkeeping of what kernels hold beside stack and weights; none where they hold nothing.
    fn footprint(&self) -> Option<Box<dyn Footprint>>;

    /// Bytes of the device's own memory that may be taken; none where it works in the host's.
    fn memory_bytes(&self) -> Option<usize> {
        None
    }

    /// Multiplies and additions in a second that the kernel of matrix products reaches where operands lie in the
    /// fastest memory. Measured, in about 0.2 s; none where nobody has measured it.
    fn peak_flops(&self) -> Option<f64> {
        None
    }
}
