//! A backend that counts the tokens it embeds, and fails when it is told to.

use compute::{
    Backend, Buffer, DType, Device, Error, Footprint, LookupSource, Mark, Op, OptimizerKind,
    Parameter, Quantization, QuantizedSource, Result, Shape, Weight, WeightSource,
};

pub(crate) struct Watched {
    pub(crate) inner: Box<dyn Backend>,
    /// Tokens embedded: all that were ever computed.
    pub(crate) tokens: usize,
    /// Operations until one fails; none does where there is no number.
    pub(crate) fails_after: Option<usize>,
}

impl Watched {
    pub(crate) fn new(inner: Box<dyn Backend>) -> Self {
        Watched { inner, tokens: 0, fails_after: None }
    }

    /// Tokens embedded since this was last asked.
    pub(crate) fn take_tokens(&mut self) -> usize {
        std::mem::take(&mut self.tokens)
    }
}

impl Backend for Watched {
    fn device(&self) -> Device {
        self.inner.device()
    }

    fn footprint(&self) -> Option<Box<dyn Footprint>> {
        self.inner.footprint()
    }

    fn operand(&self) -> DType {
        self.inner.operand()
    }

    fn reserve(&mut self, bytes: usize) -> Result<()> {
        self.inner.reserve(bytes)
    }

    fn reserved(&self) -> usize {
        self.inner.reserved()
    }

    fn alloc(&mut self, len: usize, dtype: DType) -> Result<Buffer> {
        self.inner.alloc(len, dtype)
    }

    fn mark(&self) -> Mark {
        self.inner.mark()
    }

    fn release(&mut self, mark: Mark) {
        self.inner.release(mark);
    }

    fn alloc_static(&mut self, len: usize, dtype: DType) -> Result<Buffer> {
        self.inner.alloc_static(len, dtype)
    }

    fn free_static(&mut self, buffer: Buffer) {
        self.inner.free_static(buffer);
    }

    fn load(&mut self, source: WeightSource<'_>) -> Result<Weight> {
        self.inner.load(source)
    }

    fn load_as(&mut self, source: WeightSource<'_>, quantization: Quantization) -> Result<Weight> {
        self.inner.load_as(source, quantization)
    }

    fn load_quantized(&mut self, source: QuantizedSource<'_>) -> Result<Weight> {
        self.inner.load_quantized(source)
    }

    fn load_lookup(&mut self, source: LookupSource) -> Result<Weight> {
        self.inner.load_lookup(source)
    }

    fn load_trained_parts(
        &mut self,
        shape: Shape,
        parts: &[usize],
        values: &[f32],
        optimizer: OptimizerKind,
    ) -> Result<Parameter> {
        self.inner.load_trained_parts(shape, parts, values, optimizer)
    }

    fn unload(&mut self, weight: Weight) {
        self.inner.unload(weight);
    }

    fn upload(&mut self, data: &[f32], out: Buffer) -> Result<()> {
        self.inner.upload(data, out)
    }

    fn upload_u32(&mut self, data: &[u32], out: Buffer) -> Result<()> {
        self.inner.upload_u32(data, out)
    }

    fn read(&mut self, buffer: Buffer, out: &mut [f32]) -> Result<()> {
        self.inner.read(buffer, out)
    }

    fn read_u32(&mut self, buffer: Buffer, out: &mut [u32]) -> Result<()> {
        self.inner.read_u32(buffer, out)
    }

    fn upload_u8(&mut self, data: &[u8], out: Buffer) -> Result<()> {
        self.inner.upload_u8(data, out)
    }

    fn read_u8(&mut self, buffer: Buffer, out: &mut [u8]) -> Result<()> {
        self.inner.read_u8(buffer, out)
    }

    fn run(&mut self, op: Op<'_>) -> Result<()> {
        if let Op::Embed(embed) = &op {
            self.tokens += embed.tokens.len;
        }
        match &mut self.fails_after {
            Some(0) => Err(Error::Device { device: "watched", message: "it was told to".into() }),
            Some(left) => {
                *left -= 1;
                self.inner.run(op)
            }
            None => self.inner.run(op),
        }
    }

    fn sync(&mut self) -> Result<()> {
        self.inner.sync()
    }
}
