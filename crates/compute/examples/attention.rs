//! How fast attention runs on this machine: `cargo run --release --example attention -- [threads]`.
//!
//! Products are counted for visible pairs of query and key only: 2 in forward, 5 in backward.
#![allow(clippy::print_stdout, reason = "a program that reports")]

use std::time::Instant;

use compute::cpu::{Cpu, CpuConfig, Precision};
use compute::op::{Attention, AttentionBackward, AttentionLayout};
use compute::{Backend as _, Buffer, DType, Op, Result, random};

const HEADS: usize = 9;
const KV_HEADS: usize = 3;
const HEAD_DIM: usize = 64;

fn main() -> Result<()> {
    let threads = std::env::args().nth(1).and_then(|arg| arg.parse().ok());
    let threads =
        threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |n| n.get()));
    let mut cpu = Cpu::new(CpuConfig { threads, isa: None, precision: Precision::Bf16 })?;
    println!("{:?}", cpu.device());
    for (sequences, tokens, cached) in
        [(8, 256, 0), (2, 1024, 0), (16, 100, 0), (16, 1, 400), (32, 1, 2048), (1, 1, 2048)]
    {
        let case = Case::new(&mut cpu, sequences, tokens, cached)?;
        let pairs = sequences * (1..=tokens).map(|token| cached + token).sum::<usize>() * HEADS;
        let product = (2 * HEAD_DIM * pairs) as f64;
        let seconds = best(&mut cpu, Op::Attention(case.forward))?;
        print!("{sequences:3} x {tokens:4} tokens after {cached:4}: ");
        print!("forward {:7.3} ms, {:5.1} GFLOP/s", 1e3 * seconds, 2e-9 * product / seconds);
        if tokens > 1 {
            let seconds = best(&mut cpu, Op::AttentionBackward(case.backward))?;
            print!("; backward {:7.3} ms, {:5.1} GFLOP/s", 1e3 * seconds, 5e-9 * product / seconds);
        } else {
            let bytes = (sequences * (cached + 1) * 2 * KV_HEADS * HEAD_DIM * 2) as f64;
            print!("; {:.1} GB/s of keys and values", 1e-9 * bytes / seconds);
        }
        println!();
    }
    Ok(())
}

/// The shortest of several runs, in seconds.
fn best(cpu: &mut Cpu, op: Op<'_>) -> Result<f64> {
    let mut best = f64::INFINITY;
    for _ in 0..12 {
        let start = Instant::now();
        cpu.run(op)?;
        cpu.sync()?;
        best = best.min(start.elapsed().as_secs_f64());
    }
    Ok(best)
}

struct Case {
    forward: Attention,
    backward: AttentionBackward,
}

impl Case {
    /// Sequences of their own, each with `tokens` queries after `cached` keys.
    fn new(cpu: &mut Cpu, sequences: usize, tokens: usize, cached: usize) -> Result<Self> {
        let (queries, keys) = (sequences * tokens, cached + tokens);
        let positions = (0..queries).map(|query| (cached + query % tokens) as u32).collect();
        let spans = (0..sequences).flat_map(|s| [s * tokens, tokens, s, 1].map(|x| x as u32));
        let runs = (0..sequences).flat_map(|s| [s * keys, keys].map(|x| x as u32));
        let layout = AttentionLayout {
            query_positions: indices(cpu, positions)?,
            spans: indices(cpu, spans.collect())?,
            runs: indices(cpu, runs.collect())?,
            trees: indices(cpu, (0..=sequences as u32).collect())?,
            keys_max: keys,
        };
        let (q_len, k_len) = (queries * HEADS * HEAD_DIM, sequences * keys * KV_HEADS * HEAD_DIM);
        let operand = cpu.operand();
        let forward = Attention {
            q: noise(cpu, q_len)?,
            k: noise(cpu, k_len)?,
            v: noise(cpu, k_len)?,
            layout,
            heads: HEADS,
            kv_heads: KV_HEADS,
            head_dim: HEAD_DIM,
            scale: 0.125,
            window: None,
            softcap: None,
            out: cpu.alloc_static(q_len, operand)?,
            lse: cpu.alloc_static(queries * HEADS, DType::F32)?,
        };
        let backward = AttentionBackward {
            forward,
            dout: noise(cpu, q_len)?,
            dq: cpu.alloc_static(q_len, DType::F32)?,
            dk: cpu.alloc_static(k_len, DType::F32)?,
            dv: cpu.alloc_static(k_len, DType::F32)?,
        };
        Ok(Case { forward, backward })
    }
}

fn indices(cpu: &mut Cpu, values: Vec<u32>) -> Result<Buffer> {
    let buffer = cpu.alloc_static(values.len(), DType::U32)?;
    cpu.upload_u32(&values, buffer)?;
    Ok(buffer)
}

/// Operands spread evenly over `[-1, 1)`.
fn noise(cpu: &mut Cpu, len: usize) -> Result<Buffer> {
    let operand = cpu.operand();
    let buffer = cpu.alloc_static(len, operand)?;
    let values: Vec<f32> =
        (0..len as u64).map(|i| 2.0 * random::uniform(random::mix(i)) - 1.0).collect();
    cpu.upload(&values, buffer)?;
    Ok(buffer)
}
