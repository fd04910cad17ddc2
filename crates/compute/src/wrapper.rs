//! A device in another one's clothes: everything is passed on, and some of it is watched.

use crate::optimizer::{OptimizerKind, Shape};
use crate::weight::{LookupSource, Parameter, Quantization, QuantizedSource, Weight, WeightSource};
use crate::{Backend, Buffer, DType, Device, Footprint, Mark, Op, Result};

/// Which way data go between host and device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transfer {
    /// From host memory.
    Upload,
    /// To host memory.
    Read,
}

/// A backend over another one. What it does not say itself, it passes on; a profiler clocks operations so, and
/// a test lets one of them fail.
pub trait Wrapper: Send {
    /// The device below.
    fn inner(&self) -> &dyn Backend;

    /// The same, to be told something.
    fn inner_mut(&mut self) -> &mut dyn Backend;

    /// Runs or queues an operation.
    fn run_op(&mut self, op: Op<'_>) -> Result<()> {
        self.inner_mut().run(op)
    }

    /// Lets `copy` copy between host and device.
    fn transfer(
        &mut self,
        _direction: Transfer,
        copy: &mut dyn FnMut(&mut dyn Backend) -> Result<()>,
    ) -> Result<()> {
        copy(self.inner_mut())
    }
}

impl<W: Wrapper> Backend for W {
    fn device(&self) -> Device {
        self.inner().device()
    }

    fn operand(&self) -> DType {
        self.inner().operand()
    }

    fn reserve(&mut self, bytes: usize) -> Result<()> {
        self.inner_mut().reserve(bytes)
    }

    fn reserved(&self) -> usize {
        self.inner().reserved()
    }

    fn alloc(&mut self, len: usize, dtype: DType) -> Result<Buffer> {
        self.inner_mut().alloc(len, dtype)
    }

    fn mark(&self) -> Mark {
        self.inner().mark()
    }

    fn release(&mut self, mark: Mark) {
        self.inner_mut().release(mark);
    }

    fn alloc_static(&mut self, len: usize, dtype: DType) -> Result<Buffer> {
        self.inner_mut().alloc_static(len, dtype)
    }

    fn free_static(&mut self, buffer: Buffer) {
        self.inner_mut().free_static(buffer);
    }

    fn load(&mut self, source: WeightSource<'_>) -> Result<Weight> {
        self.inner_mut().load(source)
    }

    fn load_as(&mut self, source: WeightSource<'_>, quantization: Quantization) -> Result<Weight> {
        self.inner_mut().load_as(source, quantization)
    }

    fn load_parts_as(
        &mut self,
        source: WeightSource<'_>,
        quantization: Quantization,
        parts: &[usize],
    ) -> Result<Vec<Weight>> {
        self.inner_mut().load_parts_as(source, quantization, parts)
    }

    fn load_quantized(&mut self, source: QuantizedSource<'_>) -> Result<Weight> {
        self.inner_mut().load_quantized(source)
    }

    fn load_lookup(&mut self, source: LookupSource) -> Result<Weight> {
        self.inner_mut().load_lookup(source)
    }

    fn load_trained(
        &mut self,
        shape: Shape,
        values: &[f32],
        optimizer: OptimizerKind,
    ) -> Result<Parameter> {
        self.inner_mut().load_trained(shape, values, optimizer)
    }

    fn load_trained_parts(
        &mut self,
        shape: Shape,
        parts: &[usize],
        values: &[f32],
        optimizer: OptimizerKind,
    ) -> Result<Parameter> {
        self.inner_mut().load_trained_parts(shape, parts, values, optimizer)
    }

    fn unload_trained(&mut self, parameter: Parameter) {
        self.inner_mut().unload_trained(parameter);
    }

    fn unload(&mut self, weight: Weight) {
        self.inner_mut().unload(weight);
    }

    fn upload(&mut self, data: &[f32], out: Buffer) -> Result<()> {
        self.transfer(Transfer::Upload, &mut |inner| inner.upload(data, out))
    }

    fn upload_u32(&mut self, data: &[u32], out: Buffer) -> Result<()> {
        self.transfer(Transfer::Upload, &mut |inner| inner.upload_u32(data, out))
    }

    fn read(&mut self, buffer: Buffer, out: &mut [f32]) -> Result<()> {
        self.transfer(Transfer::Read, &mut |inner| inner.read(buffer, out))
    }

    fn read_u32(&mut self, buffer: Buffer, out: &mut [u32]) -> Result<()> {
        self.transfer(Transfer::Read, &mut |inner| inner.read_u32(buffer, out))
    }

    fn upload_u8(&mut self, data: &[u8], out: Buffer) -> Result<()> {
        self.transfer(Transfer::Upload, &mut |inner| inner.upload_u8(data, out))
    }

    fn read_u8(&mut self, buffer: Buffer, out: &mut [u8]) -> Result<()> {
        self.transfer(Transfer::Read, &mut |inner| inner.read_u8(buffer, out))
    }

    fn run(&mut self, op: Op<'_>) -> Result<()> {
        self.run_op(op)
    }

    fn sync(&mut self) -> Result<()> {
        self.inner_mut().sync()
    }

    fn footprint(&self) -> Option<Box<dyn Footprint>> {
        self.inner().footprint()
    }

    fn memory_bytes(&self) -> Option<usize> {
        self.inner().memory_bytes()
    }

    fn peak_flops(&self) -> Option<f64> {
        self.inner().peak_flops()
    }
}
