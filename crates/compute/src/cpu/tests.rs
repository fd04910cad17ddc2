//! Matrix products, the head and the optimizer against plain loops in f64, and what must not
//! change a bit.

use super::testing::{assert_close, normal};
use super::{Cpu, CpuConfig, Isa, Precision};
use crate::dequant::dequantize;
use crate::op::{Embed, Head, HeadGradients, HeadOutputs, Linear, Optimize, Term, WeightGradient};
use crate::quantize::NF4;
use crate::{
    Absmax, Backend as _, Buffer, DType, Error, Op, Parameter, Quantization, QuantizedSource,
    QuantizedValues, Storage, Weight, WeightSource, random,
};

/// Runs a check for every instruction set, precision and number of threads.
fn everywhere(check: impl Fn(&mut Cpu)) {
    for isa in Isa::available() {
        for precision in [Precision::Bf16, Precision::F32] {
            for threads in [1, 2] {
                let config = CpuConfig { threads, isa: Some(isa), precision };
                let mut cpu = Cpu::new(config).unwrap();
                cpu.reserve(64 << 20).unwrap();
                check(&mut cpu);
            }
        }
    }
}

fn operands(cpu: &mut Cpu, seed: u64, len: usize) -> (Buffer, Vec<f64>) {
    let buffer = cpu.alloc(len, cpu.operand()).unwrap();
    cpu.upload(&normal(seed, len), buffer).unwrap();
    (buffer, read(cpu, buffer))
}

fn floats(cpu: &mut Cpu, values: &[f32]) -> Buffer {
    let buffer = cpu.alloc(values.len(), DType::F32).unwrap();
    cpu.upload(values, buffer).unwrap();
    buffer
}

fn integers(cpu: &mut Cpu, values: &[u32]) -> Buffer {
    let buffer = cpu.alloc(values.len(), DType::U32).unwrap();
    cpu.upload_u32(values, buffer).unwrap();
    buffer
}

fn read_f32(cpu: &mut Cpu, buffer: Buffer) -> Vec<f32> {
    let mut out = vec![0.0; buffer.len];
    cpu.read(buffer, &mut out).unwrap();
    out
}

fn read(cpu: &mut Cpu, buffer: Buffer) -> Vec<f64> {
    read_f32(cpu, buffer).into_iter().map(f64::from).collect()
}

/// Bytes of a matrix; scales of blocks are small numbers, everything else is arbitrary.
fn bytes(storage: Storage, rows: usize, cols: usize, seed: u64) -> Vec<u8> {
    if storage == Storage::F32 {
        return normal(seed, rows * cols).into_iter().flat_map(f32::to_le_bytes).collect();
    }
    let len = rows * storage.row_bytes(cols).unwrap();
    let mut bytes: Vec<u8> = (0..len).map(|i| random::key(&[seed, i as u64]) as u8).collect();
    let halves: &[usize] = match storage {
        Storage::Q4_1 | Storage::Q5_1 | Storage::Q4_K | Storage::Q5_K => &[0, 2],
        Storage::Q6_K => &[208],
        _ => &[0],
    };
    for block in bytes.chunks_exact_mut(storage.block_bytes()) {
        for &at in halves {
            let scale = match storage {
                // 0.5 to 2 in bf16 and in f16.
                Storage::Bf16 => 0x3F,
                Storage::F16 => 0x3C,
                // Below 0.03 in f16.
                _ => 0x24 | block[at + 1] & 0x83,
            };
            block[at + 1] = scale;
        }
    }
    bytes
}

/// Loads a matrix; its values are those that products see.
fn matrix(cpu: &mut Cpu, storage: Storage, rows: usize, cols: usize) -> (Weight, Vec<f64>) {
    let bytes = bytes(storage, rows, cols, 5);
    let mut values = vec![0.0; rows * cols];
    dequantize(storage, &bytes, &mut values);
    if cpu.operand() == DType::Bf16 {
        values.iter_mut().for_each(|x| *x = half::bf16::from_f32(*x).to_f32());
    }
    let source = WeightSource { rows, cols, storage, bytes: &bytes, row_order: None };
    (cpu.load(source).unwrap(), values.into_iter().map(f64::from).collect())
}

/// `a [m, k]` times `b [n, k]` transposed; `b` is `[k, n]` where `transposed`.
fn product(a: &[f64], b: &[f64], (m, n, k): (usize, usize, usize), transposed: bool) -> Vec<f64> {
    let b = |n_: usize, k_: usize| if transposed { b[k_ * n + n_] } else { b[n_ * k + k_] };
    let dot = |i: usize, j: usize| (0..k).map(|l| a[i * k + l] * b(j, l)).sum();
    (0..m * n).map(|at| dot(at / n, at % n)).collect()
}

fn check_linear(storage: Storage, (m, n, k): (usize, usize, usize), transposed: bool) {
    everywhere(|cpu| {
        let (rows, cols) = if transposed { (k, n) } else { (n, k) };
        let (weight, values) = matrix(cpu, storage, rows, cols);
        let (input, a) = operands(cpu, 1, m * k);
        let out = cpu.alloc(m * n, DType::F32).unwrap();
        let terms = [Term { input, weight, transposed }];
        let linear = Linear::product(m, &terms, out);
        cpu.run(Op::Linear(&[linear])).unwrap();
        let expected = product(&a, &values, (m, n, k), transposed);
        // Rounding adds up like a random walk.
        assert_close(&read_f32(cpu, out), &expected, 1e-7 * (k as f64).sqrt() + 1e-6);
    });
}

#[test]
fn every_storage_multiplies() {
    for storage in Storage::ALL {
        for transposed in [false, true] {
            check_linear(storage, (13, 256, 512), transposed);
            check_linear(storage, (2, 512, 256), transposed);
        }
    }
}

#[test]
fn shapes_need_not_fit_vectors() {
    for storage in [Storage::F32, Storage::Bf16] {
        for transposed in [false, true] {
            for shape in [(1, 1, 1), (3, 17, 5), (25, 33, 31), (7, 16, 48), (40, 100, 259)] {
                check_linear(storage, shape, transposed);
            }
        }
    }
    check_linear(Storage::Q8_0, (5, 33, 96), false);
    check_linear(Storage::Q4_1, (5, 96, 33), true);
    check_linear(Storage::Q6_K, (5, 256, 33), true);
}

#[test]
fn long_sums_are_cut_into_passes() {
    for (storage, shape) in [(Storage::Bf16, (14, 40, 9001)), (Storage::Q4_1, (3, 32, 8704))] {
        check_linear(storage, shape, false);
        check_linear(storage, shape, true);
    }
    check_linear(Storage::Q4_K, (3, 512, 4500), true);
}

#[test]
fn terms_scale_and_base() {
    everywhere(|cpu| {
        let (m, n) = (29, 70);
        let (x, a) = operands(cpu, 1, m * 96);
        let (z, b) = operands(cpu, 2, m * 16);
        let (dense, dense_values) = matrix(cpu, Storage::Bf16, n, 96);
        let (low, low_values) = matrix(cpu, Storage::F32, 16, n);
        let base = floats(cpu, &normal(3, m * n));
        let start = read(cpu, base);
        let operand = cpu.alloc(m * n, cpu.operand()).unwrap();
        let terms = [
            Term { input: x, weight: dense, transposed: false },
            Term { input: z, weight: low, transposed: true },
        ];
        let linear = Linear {
            rows: m,
            terms: &terms,
            scale: 0.5,
            bias: None,
            base: Some(base),
            out: operand,
        };
        // The second goes on in place, after the first has read its base.
        let list = [linear, Linear { out: base, ..linear }];
        cpu.run(Op::Linear(&list)).unwrap();
        let mut expected = product(&a, &dense_values, (m, n, 96), false);
        let low = product(&b, &low_values, (m, n, 16), true);
        expected.iter_mut().zip(low).zip(start).for_each(|((e, l), s)| *e = s + 0.5 * (*e + l));
        assert_close(&read_f32(cpu, base), &expected, 2e-6);
        assert_close(&read_f32(cpu, operand), &expected, 3e-3);
    });
}

#[test]
fn a_linear_may_need_the_one_before() {
    everywhere(|cpu| {
        let (x, a) = operands(cpu, 1, 20 * 64);
        let (down, down_values) = matrix(cpu, Storage::F32, 16, 64);
        let (up, up_values) = matrix(cpu, Storage::F32, 64, 16);
        let z = cpu.alloc(20 * 16, cpu.operand()).unwrap();
        let out = cpu.alloc(20 * 64, DType::F32).unwrap();
        let first = [Term { input: x, weight: down, transposed: false }];
        let second = [Term { input: z, weight: up, transposed: false }];
        let linear = Linear::product(20, &first, z);
        cpu.run(Op::Linear(&[linear, Linear { terms: &second, out, ..linear }])).unwrap();
        let between = product(&a, &down_values, (20, 16, 64), false);
        let expected = product(&between, &up_values, (20, 64, 16), false);
        assert_close(&read_f32(cpu, out), &expected, 5e-3);
    });
}

#[test]
fn a_row_does_not_depend_on_others() {
    everywhere(|cpu| {
        for (storage, transposed) in
            [(Storage::Bf16, false), (Storage::Q4_1, false), (Storage::Q4_1, true)]
        {
            let (m, n, k) = (61, 128, 4608);
            let (rows, cols) = if transposed { (k, n) } else { (n, k) };
            let (weight, _) = matrix(cpu, storage, rows, cols);
            let (input, _) = operands(cpu, 1, m * k);
            let out = cpu.alloc(m * n, DType::F32).unwrap();
            let run = |cpu: &mut Cpu, first: usize, count: usize| {
                let input = input.slice(first * k, count * k);
                let terms = [Term { input, weight, transposed }];
                let out = out.slice(first * n, count * n);
                let linear = Linear::product(count, &terms, out);
                cpu.run(Op::Linear(&[linear])).unwrap();
            };
            run(cpu, 0, m);
            let together = read_f32(cpu, out);
            run(cpu, 0, 1);
            run(cpu, 1, 3);
            run(cpu, 4, 7);
            run(cpu, 11, m - 11);
            assert!(read_f32(cpu, out) == together, "{storage:?}");
        }
    });
}

/// Few rows are multiplied without panels; their bits are those of the same rows among many.
#[test]
fn few_rows_are_those_of_many() {
    let stored = [Storage::Q4_0, Storage::Q4_1, Storage::Q8_0, Storage::Q6_K];
    let quantised = [Quantization::Nf4, Quantization::Int8];
    everywhere(|cpu| {
        for (n, k) in [(35, 96), (128, 2560), (7, 256)] {
            for storage in stored.into_iter().filter(|it| k % it.block_len() == 0) {
                let mut bytes = bytes(storage, n, k, 5);
                check_few(cpu, (n, k), |cpu| cpu.load(source(storage, n, k, &bytes)).unwrap());
                // A scale that is infinite, and one that is no number: in f16 at a block's beginning.
                let last = bytes.len() - storage.block_bytes();
                for scale in [0x7C00_u16, 0x7E00].into_iter().filter(|_| storage != Storage::Q6_K) {
                    bytes[last..last + 2].copy_from_slice(&scale.to_le_bytes());
                    let error = cpu.load(source(storage, n, k, &bytes)).unwrap_err();
                    assert!(matches!(error, Error::NotFinite { row, .. } if row == n - 1));
                }
            }
            for to in quantised {
                let bytes = bytes(Storage::F32, n, k, 5);
                let load = |cpu: &mut Cpu| cpu.load_as(source(Storage::F32, n, k, &bytes), to);
                check_few(cpu, (n, k), |cpu| load(cpu).unwrap());
            }
            // A file may bring what codes stand for, and that may be no number.
            let absmax = vec![0.5; n * k / 32];
            let codes: Vec<u8> =
                (0..n * k / 2).map(|i| random::key(&[7, i as u64]) as u8).collect();
            for value in [0.25, f32::from_bits(0x7FFF_FFFF)] {
                let mut map = NF4;
                map[3] = value;
                let (codes, absmax) = (&codes, Absmax::Plain(&absmax));
                let values = QuantizedValues::FourBit { codes, map: &map, block_len: 32, absmax };
                let source = QuantizedSource { rows: n, cols: k, values };
                match cpu.load_quantized(source) {
                    Ok(_) => check_few(cpu, (n, k), |cpu| cpu.load_quantized(source).unwrap()),
                    Err(error) => assert!(matches!(error, Error::NotFinitePart { part: "map" })),
                }
            }
        }
    });
}

fn source(storage: Storage, rows: usize, cols: usize, bytes: &[u8]) -> WeightSource<'_> {
    WeightSource { rows, cols, storage, bytes, row_order: None }
}

/// Products of 13 rows with a matrix `[n, k]` and with one in panels, and of its first rows alone.
fn check_few(cpu: &mut Cpu, (n, k): (usize, usize), load: impl Fn(&mut Cpu) -> Weight) {
    let mark = cpu.mark();
    let weight = load(cpu);
    let (low, _) = matrix(cpu, Storage::F32, n, 16);
    let ((x, _), (z, _)) = (operands(cpu, 1, 13 * k), operands(cpu, 2, 13 * 16));
    let base = floats(cpu, &normal(3, 13 * n));
    let run = |cpu: &mut Cpu, rows: usize| {
        let terms = [
            Term { input: z.slice(0, rows * 16), weight: low, transposed: false },
            Term { input: x.slice(0, rows * k), weight, transposed: false },
        ];
        let out = cpu.alloc(rows * n, DType::F32).unwrap();
        let base = Some(base.slice(0, rows * n));
        let linear = Linear { rows, terms: &terms, scale: 0.5, bias: None, base, out };
        cpu.run(Op::Linear(&[linear])).unwrap();
        read_f32(cpu, out)
    };
    let many = run(cpu, 13);
    for rows in 1..=5 {
        let few = run(cpu, rows);
        let same = few.iter().zip(&many).all(|(a, b)| a == b || a.is_nan() && b.is_nan());
        assert!(same, "{rows} rows of {n} x {k}");
    }
    cpu.release(mark);
    cpu.unload(weight);
    cpu.unload(low);
}

fn check_gradient(groups: &[u32], n: usize, k: usize) {
    everywhere(|cpu| {
        let rows = *groups.last().unwrap() as usize;
        let (dy, a) = operands(cpu, 1, rows * n);
        let (x, b) = operands(cpu, 2, rows * k);
        let gradient = floats(cpu, &normal(3, n * k));
        let start = read_f32(cpu, gradient);
        let whole = integers(cpu, groups);
        let op = WeightGradient { dy, x, n, k, groups: whole, gradient };
        cpu.run(Op::WeightGradient(&[op])).unwrap();
        let together = read_f32(cpu, gradient);
        let sum = |at: usize| {
            let products = (0..rows).map(|r| a[r * n + at / k] * b[r * k + at % k]);
            f64::from(start[at]) + products.sum::<f64>()
        };
        let expected: Vec<f64> = (0..n * k).map(sum).collect();
        assert_close(&together, &expected, 2e-6);

        // The same step in two calls.
        cpu.upload(&start, gradient).unwrap();
        let cut = groups.len() / 2;
        let middle = groups[cut] as usize;
        let second: Vec<u32> = groups[cut..].iter().map(|row| row - middle as u32).collect();
        for (groups, first, count) in
            [(&groups[..=cut], 0, middle), (&second[..], middle, rows - middle)]
        {
            let groups = integers(cpu, groups);
            let (dy, x) = (dy.slice(first * n, count * n), x.slice(first * k, count * k));
            cpu.run(Op::WeightGradient(&[WeightGradient { dy, x, groups, ..op }])).unwrap();
        }
        assert!(read_f32(cpu, gradient) == together, "{groups:?}");
    });
}

#[test]
fn gradients_of_weights_add_up() {
    check_gradient(&[0, 5, 12, 13, 40], 16, 70);
    check_gradient(&[0, 5, 12, 13, 40], 70, 16);
    check_gradient(&[0, 1, 2], 3, 5);
    check_gradient(&[0, 1100, 2301], 8, 40);
    check_gradient(&[0, 9], 64, 64);
}

/// A head over 300 tokens with every result and gradient, two targets on one read.
struct HeadCase {
    op: Head,
    results: Vec<Buffer>,
}

const READS: usize = 19;
const VOCAB: usize = 5001;
const HIDDEN: usize = 48;

fn head_case(cpu: &mut Cpu, softcap: Option<f32>) -> (HeadCase, Vec<f64>, Vec<f64>) {
    let (hidden, h) = operands(cpu, 1, READS * HIDDEN);
    let (weight, w) = matrix(cpu, Storage::F32, VOCAB, HIDDEN);
    let target_reads: Vec<u32> = (0..READS as u32).chain([READS as u32 - 1]).collect();
    let tokens: Vec<u32> = (0..=READS as u32).map(|i| i * 263 % VOCAB as u32).collect();
    let targets = target_reads.len();
    let target_reads = integers(cpu, &target_reads);
    let target_tokens = integers(cpu, &tokens);
    let [logprob] = [targets].map(|len| cpu.alloc(len, DType::F32).unwrap());
    let [entropy, lse, mean, squares] = [(); 4].map(|()| cpu.alloc(READS, DType::F32).unwrap());
    let top1 = cpu.alloc(READS, DType::U32).unwrap();
    let d_hidden = cpu.alloc(READS * HIDDEN, DType::F32).unwrap();
    let op = Head {
        reads: READS,
        hidden,
        weight,
        scale: 0.4,
        softcap,
        temperature: 0.9,
        target_reads,
        target_tokens,
        outputs: HeadOutputs {
            logprob: Some(logprob),
            entropy: Some(entropy),
            lse: Some(lse),
            mean_logprob: Some(mean),
            log_sum_sq_probs: Some(squares),
            top1: Some(top1),
        },
        gradients: HeadGradients {
            logprob: Some(floats(cpu, &normal(11, targets))),
            entropy: Some(floats(cpu, &normal(12, READS))),
            lse: Some(floats(cpu, &normal(13, READS))),
            mean_logprob: Some(floats(cpu, &normal(14, READS))),
        },
        d_hidden: Some(d_hidden),
        d_weight: None,
    };
    (HeadCase { op, results: vec![logprob, entropy, lse, mean, squares, d_hidden] }, h, w)
}

/// Logits and their slopes over one row of hidden numbers.
fn logits(op: &Head, h: &[f64], w: &[f64]) -> Vec<(f64, f64)> {
    let (scale, temperature) = (f64::from(op.scale), f64::from(op.temperature));
    let logit = |w: &[f64]| {
        let product = scale * h.iter().zip(w).map(|(h, w)| h * w).sum::<f64>();
        match op.softcap.map(f64::from) {
            None => (product / temperature, scale / temperature),
            Some(cap) => {
                let tanh = (product / cap).tanh();
                (cap * tanh / temperature, (1.0 - tanh * tanh) * scale / temperature)
            }
        }
    };
    w.chunks_exact(HIDDEN).map(logit).collect()
}

fn check_head(softcap: Option<f32>) {
    everywhere(|cpu| {
        let (HeadCase { op, results }, h, w) = head_case(cpu, softcap);
        cpu.run(Op::Head(op)).unwrap();
        let gradients = op.gradients;
        let given = [gradients.entropy, gradients.lse, gradients.mean_logprob];
        let [of_entropy, of_lse, of_mean] = given.map(|given| read(cpu, given.unwrap()));
        let of_logprob = read(cpu, gradients.logprob.unwrap());
        let mut tokens = vec![0; READS + 1];
        cpu.read_u32(op.target_tokens, &mut tokens).unwrap();
        let mut top1 = vec![0; READS];
        cpu.read_u32(op.outputs.top1.unwrap(), &mut top1).unwrap();
        let mut expected: Vec<Vec<f64>> = vec![Vec::new(); 6];
        for read in 0..READS {
            let logits = logits(&op, &h[read * HIDDEN..][..HIDDEN], &w);
            let lse = logits.iter().map(|(z, _)| z.exp()).sum::<f64>().ln();
            let p: Vec<f64> = logits.iter().map(|(z, _)| (z - lse).exp()).collect();
            let entropy = -p.iter().map(|p| p * p.ln()).sum::<f64>();
            let targets = if read + 1 == READS { read..read + 2 } else { read..read + 1 };
            expected[0].extend(targets.clone().map(|t| logits[tokens[t] as usize].0 - lse));
            expected[1].push(entropy);
            expected[2].push(lse);
            expected[3].push(p.iter().map(|p| p.ln()).sum::<f64>() / VOCAB as f64);
            expected[4].push(p.iter().map(|p| p * p).sum::<f64>().ln());
            let best = (0..VOCAB).max_by(|&a, &b| p[a].total_cmp(&p[b])).unwrap();
            assert_eq!(top1[read] as usize, best);
            let mut d_hidden = [0.0; HIDDEN];
            for (token, &(_, slope)) in logits.iter().enumerate() {
                let p = p[token];
                let mut dz = -of_entropy[read] * p * (p.ln() + entropy) + of_lse[read] * p;
                dz += of_mean[read] * (1.0 / VOCAB as f64 - p);
                for target in targets.clone() {
                    let hit = if tokens[target] as usize == token { 1.0 } else { 0.0 };
                    dz += of_logprob[target] * (hit - p);
                }
                let row = &w[token * HIDDEN..][..HIDDEN];
                d_hidden.iter_mut().zip(row).for_each(|(d, w)| *d += dz * slope * w);
            }
            expected[5].extend(d_hidden);
        }
        let exact = cpu.operand() == DType::F32;
        for (index, (result, expected)) in results.iter().zip(&expected).enumerate() {
            let tolerance = if index == 5 && !exact { 4e-3 } else { 3e-6 };
            assert_close(&read_f32(cpu, *result), expected, tolerance);
        }
    });
}

#[test]
fn head_is_close_to_f64() {
    check_head(None);
    check_head(Some(5.0));
}

#[test]
fn head_rows_do_not_depend_on_others() {
    everywhere(|cpu| {
        let (HeadCase { op, results }, ..) = head_case(cpu, None);
        cpu.run(Op::Head(op)).unwrap();
        let together: Vec<Vec<f32>> = results.iter().map(|&b| read_f32(cpu, b)).collect();
        let one = |buffer: Option<Buffer>, len: usize| buffer.map(|b| b.slice(7 * len, len));
        let (outputs, gradients) = (op.outputs, op.gradients);
        let alone = Head {
            reads: 1,
            hidden: op.hidden.slice(7 * HIDDEN, HIDDEN),
            target_reads: integers(cpu, &[0]),
            target_tokens: op.target_tokens.slice(7, 1),
            outputs: HeadOutputs {
                logprob: one(outputs.logprob, 1),
                entropy: one(outputs.entropy, 1),
                lse: one(outputs.lse, 1),
                mean_logprob: one(outputs.mean_logprob, 1),
                log_sum_sq_probs: one(outputs.log_sum_sq_probs, 1),
                top1: one(outputs.top1, 1),
            },
            gradients: HeadGradients {
                logprob: one(gradients.logprob, 1),
                entropy: one(gradients.entropy, 1),
                lse: one(gradients.lse, 1),
                mean_logprob: one(gradients.mean_logprob, 1),
            },
            d_hidden: one(op.d_hidden, HIDDEN),
            ..op
        };
        for &buffer in &results {
            cpu.run(Op::Fill { out: buffer, value: 7.0 }).unwrap();
        }
        cpu.run(Op::Head(alone)).unwrap();
        for (&buffer, together) in results.iter().zip(&together) {
            let len = if buffer.len > READS + 1 { HIDDEN } else { 1 };
            let range = 7 * len..8 * len;
            assert_eq!(read_f32(cpu, buffer)[range.clone()], together[range]);
        }
    });
}

#[test]
fn a_head_of_blocks_is_one_of_its_values() {
    let (reads, vocab, cols) = (5, 333, 512);
    everywhere(|cpu| {
        for storage in [Storage::Q8_0, Storage::Q4_1, Storage::Q5_0, Storage::Q4_K] {
            let (weight, values) = matrix(cpu, storage, vocab, cols);
            let bytes: Vec<u8> = values.iter().flat_map(|&x| (x as f32).to_le_bytes()).collect();
            let source = WeightSource {
                rows: vocab,
                cols,
                storage: Storage::F32,
                bytes: &bytes,
                row_order: None,
            };
            let same = cpu.load(source).unwrap();
            let (hidden, _) = operands(cpu, 1, reads * cols);
            let logprob = cpu.alloc(reads, DType::F32).unwrap();
            let d_hidden = cpu.alloc(reads * cols, DType::F32).unwrap();
            let op = Head {
                reads,
                hidden,
                weight,
                scale: 0.1,
                softcap: None,
                temperature: 1.0,
                target_reads: integers(cpu, &[0, 1, 2, 3, 4]),
                target_tokens: integers(cpu, &[0, 332, 7, 7, 100]),
                outputs: HeadOutputs { logprob: Some(logprob), ..HeadOutputs::default() },
                gradients: HeadGradients {
                    logprob: Some(floats(cpu, &[1.0, 2.0, -1.0, 0.5, 3.0])),
                    ..HeadGradients::default()
                },
                d_hidden: Some(d_hidden),
                d_weight: None,
            };
            let [of_blocks, of_values] = [weight, same].map(|weight| {
                cpu.run(Op::Head(Head { weight, ..op })).unwrap();
                [read_f32(cpu, logprob), read_f32(cpu, d_hidden)]
            });
            assert!(of_blocks == of_values, "{storage:?}");
        }
    });
}

#[test]
fn rows_are_embedded_and_reordered() {
    everywhere(|cpu| {
        for storage in Storage::ALL {
            let bytes = bytes(storage, 40, 256, 5);
            let order: Vec<u32> = (0..40).map(|i| i * 7 % 40).collect();
            let row_order = Some(&order[..]);
            let source = WeightSource { rows: 40, cols: 256, storage, bytes: &bytes, row_order };
            let weight = cpu.load(source).unwrap();
            let (_, values) = matrix(cpu, storage, 40, 256);
            let tokens = integers(cpu, &[39, 0, 7, 7, 33]);
            let out = cpu.alloc(5 * 256, DType::F32).unwrap();
            cpu.run(Op::Embed(Embed { weight, tokens, scale: 2.0, out })).unwrap();
            let row = |token: usize| &values[order[token] as usize * 256..][..256];
            let expected: Vec<f64> =
                [39, 0, 7, 7, 33].into_iter().flat_map(row).map(|x| 2.0 * x).collect();
            assert_close(&read_f32(cpu, out), &expected, 0.0);
        }
    });
}

fn trained(cpu: &mut Cpu) -> (Parameter, Vec<f32>) {
    let values = normal(1, 50 * 90);
    (
        cpu.load_trained(crate::Shape::Matrix(50, 90), &values, crate::OptimizerKind::AdamW)
            .unwrap(),
        values,
    )
}

#[test]
fn adamw_is_close_to_f64_and_refreshes() {
    everywhere(|cpu| {
        let (parameter, values) = trained(cpu);
        let mut p: Vec<f64> = values.iter().copied().map(f64::from).collect();
        let (mut m, mut v) = (vec![0.0; p.len()], vec![0.0; p.len()]);
        for step in 1..=3 {
            let gradient = normal(u64::from(step) + 7, p.len());
            cpu.upload(&gradient, parameter.gradient).unwrap();
            let op = Optimize {
                parameters: &[parameter],
                gradient_scale: 0.5,
                learning_rate: 0.01,
                optimizer: crate::Optimizer::AdamW { betas: [0.9, 0.99], eps: 1e-8 },
                weight_decay: 0.1,
                step,
            };
            cpu.run(Op::Optimize(op)).unwrap();
            let [b1, b2] = [0.9_f32, 0.99].map(f64::from);
            for i in 0..p.len() {
                let g = 0.5 * f64::from(gradient[i]);
                m[i] = b1 * m[i] + (1.0 - b1) * g;
                v[i] = b2 * v[i] + (1.0 - b2) * g * g;
                let root = (v[i] / (1.0 - b2.powi(step as i32))).sqrt() + 1e-8;
                p[i] -= 0.01 * 0.1 * p[i] + 0.01 * m[i] / (1.0 - b1.powi(step as i32)) / root;
            }
        }
        assert_close(&read_f32(cpu, parameter.master), &p, 1e-6);
        assert!(read_f32(cpu, parameter.gradient).iter().all(|&g| g == 0.0));
        // The operand copy is the master, rounded.
        let tokens = integers(cpu, &[49]);
        let out = cpu.alloc(90, DType::F32).unwrap();
        cpu.run(Op::Embed(Embed { weight: parameter.matrix(), tokens, scale: 1.0, out })).unwrap();
        assert_close(&read_f32(cpu, out), &p[49 * 90..], 4e-3);
        cpu.unload_trained(parameter);
    });
}

#[test]
fn squares_are_summed_in_one_order() {
    let mut sums = Vec::new();
    for threads in [1, 2, 3] {
        let config = CpuConfig { threads, isa: None, precision: Precision::F32 };
        let mut cpu = Cpu::new(config).unwrap();
        cpu.reserve(1 << 20).unwrap();
        let inputs = [normal(1, 20_001), normal(2, 3)];
        let expected: f64 = inputs.iter().flatten().map(|&x| f64::from(x) * f64::from(x)).sum();
        let inputs = inputs.map(|values| floats(&mut cpu, &values));
        let out = cpu.alloc(1, DType::F32).unwrap();
        cpu.run(Op::SumSquares { inputs: &inputs, out }).unwrap();
        let sum = read_f32(&mut cpu, out);
        assert_close(&sum, &[expected], 1e-7);
        sums.push(sum);
    }
    assert!(sums.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn threads_change_no_bit() {
    for precision in [Precision::Bf16, Precision::F32] {
        for isa in Isa::available() {
            let mut results = Vec::new();
            for threads in [1, 2, 5] {
                let config = CpuConfig { threads, isa: Some(isa), precision };
                let mut cpu = Cpu::new(config).unwrap();
                cpu.reserve(64 << 20).unwrap();
                let (HeadCase { op, results: buffers }, ..) = head_case(&mut cpu, Some(9.0));
                cpu.run(Op::Head(op)).unwrap();
                let bits: Vec<f32> =
                    buffers.iter().flat_map(|&buffer| read_f32(&mut cpu, buffer)).collect();
                results.push(bits);
            }
            assert!(results.windows(2).all(|pair| pair[0] == pair[1]), "{isa}");
        }
    }
}

#[test]
fn mistakes_are_errors() {
    let config = CpuConfig { threads: 1, isa: None, precision: Precision::Bf16 };
    let mut cpu = Cpu::new(config).unwrap();
    let source = WeightSource {
        rows: 2,
        cols: 40,
        storage: Storage::Q8_0,
        bytes: &[0; 85],
        row_order: None,
    };
    let error = cpu.load(source).unwrap_err().to_string();
    assert_eq!(error, "a Q8_0 matrix of 2 x 40 has 0 bytes, not 85");
    let error = Cpu::new(CpuConfig { threads: 0, ..config }).err().unwrap().to_string();
    assert_eq!(error, "cpu: `threads` is 0; at least one is needed");
    assert!(cpu.alloc(1, DType::F32).is_err());
}
