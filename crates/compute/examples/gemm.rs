//! GFLOP/s of the CPU backend's matrix products for the shapes of a small model.
//!
//! `cargo run --release -p tunesmith-compute --example gemm -- [threads] [isa]`

#![allow(clippy::print_stdout, reason = "a program")]

use std::time::Instant;

use compute::cpu::{Cpu, CpuConfig, Isa, Precision};
use compute::op::{Head, HeadGradients, HeadOutputs, Linear, Term, WeightGradient};
use compute::{Backend as _, Buffer, DType, Op, Result, Storage, Weight, WeightSource, random};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let threads = arguments.next().map_or(2, |text| text.parse().expect("a number of threads"));
    let isa: Option<Isa> = arguments.next().map(|text| text.parse()).transpose()?;
    let config = CpuConfig { threads, isa, precision: Precision::Bf16 };
    let mut cpu = Cpu::new(config)?;
    cpu.reserve(512 << 20)?;
    let peak = cpu.peak_flops().max(cpu.peak_flops());
    println!("{:?}: peak {:.0} GFLOP/s", cpu.device(), peak / 1e9);
    for storage in [Storage::Bf16, Storage::Q4_1] {
        for (n, k) in [(576, 576), (192, 576), (1536, 576), (576, 1536), (49152, 576)] {
            for rows in [1, 4, 512, 1024] {
                for transposed in [false, true] {
                    let name = format!("{storage:?} {rows} x {n} x {k} transposed {transposed}");
                    let shape = (rows, n, k);
                    measure_linear(&mut cpu, &name, storage, shape, transposed, peak)?;
                }
            }
        }
    }
    measure_lora(&mut cpu, peak)?;
    measure_head(&mut cpu, peak)
}

/// Best of several runs, as GFLOP/s and share of the peak.
fn report(name: &str, flops: f64, peak: f64, mut run: impl FnMut() -> Result<()>) -> Result<()> {
    let mut best = f64::MAX;
    let begin = Instant::now();
    while begin.elapsed().as_secs_f64() < 0.15 {
        let start = Instant::now();
        run()?;
        best = best.min(start.elapsed().as_secs_f64());
    }
    let rate = flops / best;
    println!(
        "{name:48} {:8.1} us {:7.1} GFLOP/s {:3.0} %",
        best * 1e6,
        rate / 1e9,
        100.0 * rate / peak
    );
    Ok(())
}

fn weight(cpu: &mut Cpu, storage: Storage, rows: usize, cols: usize) -> Result<Weight> {
    let len = rows * storage.row_bytes(cols).expect("whole blocks");
    let mut bytes: Vec<u8> = (0..len).map(|i| random::mix(i as u64) as u8).collect();
    for block in bytes.chunks_exact_mut(storage.block_bytes()) {
        // Small positive scales.
        block[1] = 0x24;
        if storage == Storage::Q4_1 {
            block[3] = 0x24;
        }
    }
    cpu.load(WeightSource { rows, cols, storage, bytes: &bytes, row_order: None })
}

fn operands(cpu: &mut Cpu, len: usize) -> Result<Buffer> {
    let values: Vec<f32> = (0..len).map(|i| random::uniform(random::mix(i as u64))).collect();
    let buffer = cpu.alloc(len, cpu.operand())?;
    cpu.upload(&values, buffer)?;
    Ok(buffer)
}

fn measure_linear(
    cpu: &mut Cpu,
    name: &str,
    storage: Storage,
    (rows, n, k): (usize, usize, usize),
    transposed: bool,
    peak: f64,
) -> Result<()> {
    let weight = weight(cpu, storage, n, k)?;
    let mark = cpu.mark();
    let (inputs, outputs) = if transposed { (n, k) } else { (k, n) };
    let input = operands(cpu, rows * inputs)?;
    let out = cpu.alloc(rows * outputs, cpu.operand())?;
    let terms = [Term { input, weight, transposed }];
    let linear = Linear::product(rows, &terms, out);
    let flops = 2.0 * (rows * n * k) as f64;
    report(name, flops, peak, || cpu.run(Op::Linear(&[linear])))?;
    cpu.release(mark);
    cpu.unload(weight);
    Ok(())
}

/// Three projections of one input with adapters of rank 16, and the adapters' gradients.
fn measure_lora(cpu: &mut Cpu, peak: f64) -> Result<()> {
    let (rows, k, rank) = (1024, 576, 16);
    for storage in [Storage::Bf16, Storage::Q4_1] {
        let mark = cpu.mark();
        let x = operands(cpu, rows * k)?;
        let (mut downs, mut ups, mut gradients) = (Vec::new(), Vec::new(), Vec::new());
        let mut flops = 0.0;
        let groups = cpu.alloc(2, DType::U32)?;
        cpu.upload_u32(&[0, rows as u32], groups)?;
        for n in [576, 192, 192] {
            let base = weight(cpu, storage, n, k)?;
            let a = cpu.load_trained(
                compute::Shape::Matrix(rank, k),
                &vec![0.01; rank * k],
                compute::OptimizerKind::AdamW,
            )?;
            let b = cpu.load_trained(
                compute::Shape::Matrix(n, rank),
                &vec![0.01; n * rank],
                compute::OptimizerKind::AdamW,
            )?;
            let z = cpu.alloc(rows * rank, cpu.operand())?;
            let out = cpu.alloc(rows * n, DType::F32)?;
            let dy = operands(cpu, rows * n)?;
            downs.push(([Term { input: x, weight: a.matrix(), transposed: false }], z));
            let terms = [
                Term { input: x, weight: base, transposed: false },
                Term { input: z, weight: b.matrix(), transposed: false },
            ];
            ups.push((terms, out));
            flops += 2.0 * (rows * (k * n + k * rank + rank * n)) as f64;
            gradients.push(WeightGradient { dy: z, x, n: rank, k, groups, gradient: a.gradient });
            gradients.push(WeightGradient { dy, x: z, n, k: rank, groups, gradient: b.gradient });
        }
        let mut list = Vec::new();
        for (terms, out) in &downs {
            list.push(Linear::product(rows, terms, *out));
        }
        for (terms, out) in &ups {
            list.push(Linear::product(rows, terms, *out));
        }
        let name = format!("{storage:?} q k v with rank 16");
        report(&name, flops, peak, || cpu.run(Op::Linear(&list)))?;
        let count = 2.0 * (rows * rank * (3 * k + 576 + 192 + 192)) as f64;
        report("gradients of the adapters", count, peak, || {
            cpu.run(Op::WeightGradient(&gradients))
        })?;
        cpu.release(mark);
    }
    Ok(())
}

/// Loss and gradient over a vocabulary of 49152 in one pass.
fn measure_head(cpu: &mut Cpu, peak: f64) -> Result<()> {
    let (reads, vocab, hidden_size) = (1024, 49152, 576);
    for storage in [Storage::Bf16, Storage::Q8_0] {
        let weight = weight(cpu, storage, vocab, hidden_size)?;
        let mark = cpu.mark();
        let hidden = operands(cpu, reads * hidden_size)?;
        let target_reads = cpu.alloc(reads, DType::U32)?;
        let target_tokens = cpu.alloc(reads, DType::U32)?;
        cpu.upload_u32(&(0..reads as u32).collect::<Vec<_>>(), target_reads)?;
        cpu.upload_u32(&(0..reads as u32).map(|i| 7 * i).collect::<Vec<_>>(), target_tokens)?;
        let logprob = cpu.alloc(reads, DType::F32)?;
        let gradient = cpu.alloc(reads, DType::F32)?;
        cpu.upload(&vec![-1.0 / reads as f32; reads], gradient)?;
        let d_hidden = cpu.alloc(reads * hidden_size, DType::F32)?;
        let head = Head {
            reads,
            hidden,
            weight,
            scale: 0.05,
            softcap: None,
            temperature: 1.0,
            target_reads,
            target_tokens,
            outputs: HeadOutputs { logprob: Some(logprob), ..HeadOutputs::default() },
            gradients: HeadGradients { logprob: Some(gradient), ..HeadGradients::default() },
            d_hidden: Some(d_hidden),
            d_weight: None,
        };
        let flops = 4.0 * (reads * vocab * hidden_size) as f64;
        report(&format!("{storage:?} head"), flops, peak, || cpu.run(Op::Head(head)))?;
        let forward = Head { gradients: HeadGradients::default(), d_hidden: None, ..head };
        let name = format!("{storage:?} head forward");
        report(&name, flops / 2.0, peak, || cpu.run(Op::Head(forward)))?;
        cpu.release(mark);
        cpu.unload(weight);
    }
    Ok(())
}
