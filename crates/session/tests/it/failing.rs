//! A CPU that fails in the middle of its work.

use compute::cpu::{Cpu, CpuConfig, Isa, Precision};
use compute::{
    Backend, Buffer, DType, Device, Error, Footprint, LookupSource, Mark, Op, OptimizerKind,
    Parameter, Quantization, QuantizedSource, Result, Shape, Weight, WeightSource,
};

/// Runs so many operations, and then none.
pub(crate) struct Failing {
    cpu: Cpu,
    pub(crate) left: usize,
}

impl Failing {
    pub(crate) fn new(left: usize) -> Self {
        Failing { cpu: cpu(), left }
    }
}

pub(crate) fn cpu() -> Cpu {
    let (threads, isa, precision) = (1, Some(Isa::Portable), Precision::F32);
    Cpu::new(CpuConfig { threads, isa, precision }).unwrap()
}

impl Backend for Failing {
    fn run(&mut self, op: Op<'_>) -> Result<()> {
        match self.left.checked_sub(1) {
            Some(left) => self.left = left,
            None => return Err(Error::OutOfMemory { device: "failing", needed: 1, reserved: 0 }),
        }
        self.cpu.run(op)
    }

    fn device(&self) -> Device {
        self.cpu.device()
    }

    fn footprint(&self) -> Option<Box<dyn Footprint>> {
        self.cpu.footprint()
    }

    fn operand(&self) -> DType {
        self.cpu.operand()
    }

    fn reserve(&mut self, bytes: usize) -> Result<()> {
        self.cpu.reserve(bytes)
    }

    fn reserved(&self) -> usize {
        self.cpu.reserved()
    }

    fn alloc(&mut self, len: usize, dtype: DType) -> Result<Buffer> {
        self.cpu.alloc(len, dtype)
    }

    fn mark(&self) -> Mark {
        self.cpu.mark()
    }

    fn release(&mut self, mark: Mark) {
        self.cpu.release(mark);
    }

    fn alloc_static(&mut self, len: usize, dtype: DType) -> Result<Buffer> {
        self.cpu.alloc_static(len, dtype)
    }

    fn free_static(&mut self, buffer: Buffer) {
        self.cpu.free_static(buffer);
    }

    fn load(&mut self, source: WeightSource<'_>) -> Result<Weight> {
        self.cpu.load(source)
    }

    fn load_as(&mut self, source: WeightSource<'_>, quantization: Quantization) -> Result<Weight> {
        self.cpu.load_as(source, quantization)
    }

    fn load_quantized(&mut self, source: QuantizedSource<'_>) -> Result<Weight> {
        self.cpu.load_quantized(source)
    }

    fn load_lookup(&mut self, source: LookupSource) -> Result<Weight> {
        self.cpu.load_lookup(source)
    }

    fn load_trained_parts(
        &mut self,
        shape: Shape,
        parts: &[usize],
        values: &[f32],
        optimizer: OptimizerKind,
    ) -> Result<Parameter> {
        self.cpu.load_trained_parts(shape, parts, values, optimizer)
    }

    fn unload(&mut self, weight: Weight) {
        self.cpu.unload(weight);
    }

    fn upload(&mut self, data: &[f32], out: Buffer) -> Result<()> {
        self.cpu.upload(data, out)
    }

    fn upload_u32(&mut self, data: &[u32], out: Buffer) -> Result<()> {
        self.cpu.upload_u32(data, out)
    }

    fn upload_u8(&mut self, data: &[u8], out: Buffer) -> Result<()> {
        self.cpu.upload_u8(data, out)
    }

    fn read(&mut self, buffer: Buffer, out: &mut [f32]) -> Result<()> {
        self.cpu.read(buffer, out)
    }

    fn read_u32(&mut self, buffer: Buffer, out: &mut [u32]) -> Result<()> {
        self.cpu.read_u32(buffer, out)
    }

    fn read_u8(&mut self, buffer: Buffer, out: &mut [u8]) -> Result<()> {
        self.cpu.read_u8(buffer, out)
    }

    fn sync(&mut self) -> Result<()> {
        self.cpu.sync()
    }
}
