//! The CPU backend's products in f32 beside those of the `gemm` crate, sides alternating.
//!
//! `cargo run --release -p tunesmith-compute --example gemm -- [threads] [isa]`
//!
//! Both multiply rows `[m, k]` by a weight `[n, k]`, transposed. Ours is packed once, as weights are; the
//! crate packs it every time, as it would for weights that lie as they are stored. The crate takes what the
//! processor has; beside `portable` it is held to the kernel that it has for processors without AVX2.

#![allow(clippy::print_stdout, reason = "a program")]
#![allow(unsafe_code, reason = "the crate takes pointers")]

use std::time::Instant;

use gemm_common::gemm::gemm_basic_generic;
use gemm_common::simd::Scalar;
use gemm_f32::microkernel::scalar::f32 as scalar;

use compute::cpu::{Cpu, CpuConfig, Isa, Precision};
use compute::op::{Linear, Term};
use compute::{Backend as _, Op, Result, Storage, WeightSource, random};

/// Rounds of both sides; medians count.
const ROUNDS: usize = 15;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let threads = arguments.next().map_or(2, |text| text.parse().expect("a number of threads"));
    let isa: Option<Isa> = arguments.next().map(|text| text.parse()).transpose()?;
    let mut cpu = Cpu::new(CpuConfig { threads, isa, precision: Precision::F32 })?;
    cpu.reserve(256 << 20)?;
    let peak_flops = cpu.peak_flops().expect("the CPU measures itself");
    println!("{:?}: at best {:.0} GFLOP/s", cpu.device(), peak_flops * 1e-9);
    println!("{:24} {:>10} {:>10} {:>8}", "m x n x k", "GFLOP/s", "gemm", "ours/gemm");
    for (n, k) in [(576, 576), (192, 576), (1536, 576), (576, 1536), (49152, 576), (2048, 2048)] {
        for m in [512, 1024] {
            compare(&mut cpu, threads, isa == Some(Isa::Portable), (m, n, k))?;
        }
    }
    Ok(())
}

fn compare(
    cpu: &mut Cpu,
    threads: usize,
    plain: bool,
    (m, n, k): (usize, usize, usize),
) -> Result<()> {
    let number = |i: usize| random::uniform(random::mix(i as u64)) - 0.5;
    let a: Vec<f32> = (0..m * k).map(number).collect();
    let b: Vec<f32> = (0..n * k).map(number).collect();
    let mut c = vec![0.0_f32; m * n];
    let bytes: Vec<u8> = b.iter().flat_map(|x| x.to_le_bytes()).collect();
    let source =
        WeightSource { rows: n, cols: k, storage: Storage::F32, bytes: &bytes, row_order: None };
    let weight = cpu.load(source)?;
    let mark = cpu.mark();
    let input = cpu.alloc(m * k, cpu.operand())?;
    cpu.upload(&a, input)?;
    let out = cpu.alloc(m * n, cpu.operand())?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let terms = [Term { input, weight, transposed: false }];
        cpu.run(Op::Linear(&[Linear::product(m, &terms, out)]))?;
        ours.push(start.elapsed().as_secs_f64());
        let start = Instant::now();
        let parallelism = match threads {
            1 => gemm::Parallelism::None,
            threads => gemm::Parallelism::Rayon(threads),
        };
        let (c, a, b) = (c.as_mut_ptr(), a.as_ptr(), b.as_ptr());
        // Steps between columns, then between rows.
        let (c_steps, a_steps, b_steps) = ((1, n as isize), (1, k as isize), (k as isize, 1));
        // SAFETY: c is [m, n], a [m, k] and b [n, k], all row by row.
        unsafe {
            if plain {
                gemm_basic_generic::<Scalar, f32, 1, 2, 4, 2, 0, 0>(
                    Scalar,
                    m,
                    n,
                    k,
                    c,
                    c_steps.0,
                    c_steps.1,
                    false,
                    a,
                    a_steps.0,
                    a_steps.1,
                    b,
                    b_steps.0,
                    b_steps.1,
                    0.0,
                    1.0,
                    false,
                    false,
                    false,
                    |a, b, c| a * b + c,
                    &scalar::UKR,
                    &scalar::H_UKR,
                    false,
                    parallelism,
                );
            } else {
                gemm::gemm(
                    m,
                    n,
                    k,
                    c,
                    c_steps.0,
                    c_steps.1,
                    false,
                    a,
                    a_steps.0,
                    a_steps.1,
                    b,
                    b_steps.0,
                    b_steps.1,
                    0.0,
                    1.0,
                    false,
                    false,
                    false,
                    parallelism,
                );
            }
        }
        theirs.push(start.elapsed().as_secs_f64());
    }
    let mut values = vec![0.0; m * n];
    cpu.read(out, &mut values)?;
    let far = values.iter().zip(&c).map(|(ours, theirs)| (ours - theirs).abs()).fold(0.0, f32::max);
    assert!(far < 1e-3, "both compute the same: {far}");
    let rate = |mut times: Vec<f64>| {
        times.sort_by(f64::total_cmp);
        2e-9 * (m * n * k) as f64 / times[ROUNDS / 2]
    };
    let (ours, theirs) = (rate(ours), rate(theirs));
    let name = format!("{m} x {n} x {k}");
    println!("{name:24} {ours:10.1} {theirs:10.1} {:8.2}", ours / theirs);
    cpu.release(mark);
    cpu.unload(weight);
    Ok(())
}
