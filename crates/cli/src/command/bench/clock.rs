//! How long something takes.

use std::collections::BTreeMap;
use std::time::Instant;

use compute::{
    Backend, Buffer, DType, Device, Footprint, LookupSource, Mark, Op, OptimizerKind, Parameter,
    Quantization, QuantizedSource, Result, Shape, Weight, WeightSource,
};

use super::row::Row;

/// What takes so long in all need not be measured again.
const LONG: f64 = 60.0;

/// Runs `work` once unmeasured, then `seconds` long and at least `least` times, fewer only where that is long; the
/// median.
pub(super) fn median<E>(
    seconds: f64,
    least: usize,
    mut work: impl FnMut() -> std::result::Result<(), E>,
) -> std::result::Result<f64, E> {
    work()?;
    let begun = Instant::now();
    let mut times = Vec::new();
    loop {
        let start = Instant::now();
        work()?;
        times.push(start.elapsed().as_secs_f64());
        let passed = begun.elapsed().as_secs_f64();
        if passed >= seconds && (times.len() >= least || passed >= LONG) {
            return Ok(middle(times));
        }
    }
}

/// The median, of two middle ones the mean.
pub(super) fn middle(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    let half = times.len() / 2;
    match times.len() % 2 {
        1 => times[half],
        _ => 0.5 * (times[half - 1] + times[half]),
    }
}

/// Runs `work` once and says where its time goes: a row for every kind of operation, the longest first.
pub(super) fn profile(
    backend: &mut dyn Backend,
    work: impl FnOnce(&mut dyn Backend) -> crate::error::Result<()>,
) -> crate::error::Result<Vec<Row>> {
    let mut clocked = Clocked { backend, seconds: BTreeMap::new() };
    let start = Instant::now();
    work(&mut clocked)?;
    let total = start.elapsed().as_secs_f64();
    let mut operations: Vec<_> = clocked.seconds.into_iter().collect();
    operations.sort_by(|a, b| b.1.total_cmp(&a.1));
    let rest = total - operations.iter().map(|(_, seconds)| seconds).sum::<f64>();
    operations.push(("between operations", rest));
    let row = |(name, seconds): (&str, f64)| {
        let name = format!("  {:4.1} %  {name}", 100.0 * seconds / total);
        Row { name, seconds, ..Row::default() }
    };
    Ok(operations.into_iter().map(row).collect())
}

/// A backend that writes down how long every kind of operation takes.
struct Clocked<'a> {
    backend: &'a mut dyn Backend,
    seconds: BTreeMap<&'static str, f64>,
}

impl Clocked<'_> {
    fn clock<T>(
        &mut self,
        name: &'static str,
        work: impl FnOnce(&mut dyn Backend) -> Result<T>,
    ) -> Result<T> {
        let start = Instant::now();
        let done = work(self.backend);
        *self.seconds.entry(name).or_default() += start.elapsed().as_secs_f64();
        done
    }
}

fn name(op: &Op<'_>) -> &'static str {
    match op {
        Op::Fill { .. } => "fill",
        Op::Accumulate { .. } => "accumulate",
        Op::Cast { .. } => "cast",
        Op::Gather(_) | Op::Scatter(_) => "gather and scatter",
        Op::Embed(_) => "embedding",
        Op::RmsNorm(_) => "norm",
        Op::RmsNormBackward(_) => "norm backward",
        Op::Linear(list) if is_transposed(list) => "linear backward",
        Op::Linear(_) => "linear",
        Op::WeightGradient(_) => "weight gradient",
        Op::RopeTable(_) | Op::Rope(_) => "rope",
        Op::Attention(_) => "attention",
        Op::AttentionBackward(_) => "attention backward",
        Op::Gated(_) => "activation",
        Op::GatedBackward(_) => "activation backward",
        Op::Dropout(_) => "dropout",
        Op::Head(_) => "head",
        Op::Sample(_) => "sample",
        Op::SumSquares { .. } => "gradient norm",
        Op::Optimize(_) | Op::Refresh(_) => "optimizer",
        _ => "other",
    }
}

fn is_transposed(list: &[compute::op::Linear<'_>]) -> bool {
    list.iter().flat_map(|linear| linear.terms).any(|term| term.transposed)
}

impl Backend for Clocked<'_> {
    fn device(&self) -> Device {
        self.backend.device()
    }

    fn operand(&self) -> DType {
        self.backend.operand()
    }

    fn reserve(&mut self, bytes: usize) -> Result<()> {
        self.backend.reserve(bytes)
    }

    fn reserved(&self) -> usize {
        self.backend.reserved()
    }

    fn alloc(&mut self, len: usize, dtype: DType) -> Result<Buffer> {
        self.backend.alloc(len, dtype)
    }

    fn mark(&self) -> Mark {
        self.backend.mark()
    }

    fn release(&mut self, mark: Mark) {
        self.backend.release(mark);
    }

    fn alloc_static(&mut self, len: usize, dtype: DType) -> Result<Buffer> {
        self.backend.alloc_static(len, dtype)
    }

    fn free_static(&mut self, buffer: Buffer) {
        self.backend.free_static(buffer);
    }

    fn load(&mut self, source: WeightSource<'_>) -> Result<Weight> {
        self.backend.load(source)
    }

    fn load_as(&mut self, source: WeightSource<'_>, quantization: Quantization) -> Result<Weight> {
        self.backend.load_as(source, quantization)
    }

    fn load_parts_as(
        &mut self,
        source: WeightSource<'_>,
        quantization: Quantization,
        parts: &[usize],
    ) -> Result<Vec<Weight>> {
        self.backend.load_parts_as(source, quantization, parts)
    }

    fn load_quantized(&mut self, source: QuantizedSource<'_>) -> Result<Weight> {
        self.backend.load_quantized(source)
    }

    fn load_lookup(&mut self, source: LookupSource) -> Result<Weight> {
        self.backend.load_lookup(source)
    }

    fn load_trained_parts(
        &mut self,
        shape: Shape,
        parts: &[usize],
        values: &[f32],
        optimizer: OptimizerKind,
    ) -> Result<Parameter> {
        self.backend.load_trained_parts(shape, parts, values, optimizer)
    }

    fn unload(&mut self, weight: Weight) {
        self.backend.unload(weight);
    }

    fn upload(&mut self, data: &[f32], out: Buffer) -> Result<()> {
        self.clock("upload", |backend| backend.upload(data, out))
    }

    fn upload_u32(&mut self, data: &[u32], out: Buffer) -> Result<()> {
        self.clock("upload", |backend| backend.upload_u32(data, out))
    }

    fn read(&mut self, buffer: Buffer, out: &mut [f32]) -> Result<()> {
        self.clock("read", |backend| backend.read(buffer, out))
    }

    fn read_u32(&mut self, buffer: Buffer, out: &mut [u32]) -> Result<()> {
        self.clock("read", |backend| backend.read_u32(buffer, out))
    }

    fn upload_u8(&mut self, data: &[u8], out: Buffer) -> Result<()> {
        self.clock("upload", |backend| backend.upload_u8(data, out))
    }

    fn read_u8(&mut self, buffer: Buffer, out: &mut [u8]) -> Result<()> {
        self.clock("read", |backend| backend.read_u8(buffer, out))
    }

    fn run(&mut self, op: Op<'_>) -> Result<()> {
        self.clock(name(&op), |backend| {
            backend.run(op)?;
            backend.sync()
        })
    }

    fn sync(&mut self) -> Result<()> {
        self.backend.sync()
    }

    fn footprint(&self) -> Option<Box<dyn Footprint>> {
        self.backend.footprint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_an_even_number_is_a_mean() {
        assert_eq!(middle(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(middle(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
    }

    #[test]
    fn work_is_run_once_more_than_measured() {
        let mut runs = 0;
        let seconds = median(0.0, 3, || {
            runs += 1;
            Ok::<(), ()>(())
        });
        assert!(seconds.unwrap() >= 0.0);
        assert_eq!(runs, 4);
    }
}
