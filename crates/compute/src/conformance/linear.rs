//! Rows of linear layers and weight gradients.

use super::elementwise::Base;
use super::{Row, Trial};
use crate::op::{Linear, Term, WeightGradient};
use crate::{Buffer, DType, Op, Storage, Weight};

pub(super) fn add(rows: &mut Vec<Row>) {
    // Rows, K and N. The second half lies at the edges of tiles: blocks of 6 and 12 rows, panels of 16 and 32
    // columns, passes of 2,048 steps of one or two numbers.
    let shapes = [
        (1, 1, 1),
        (1, 64, 48),
        (2, 576, 16),
        (5, 37, 19),
        (13, 96, 33),
        (100, 16, 70),
        (30, 576, 200),
        (12, 32, 32),
        (11, 31, 15),
        (25, 33, 65),
        (6, 64, 17),
        (7, 2049, 33),
        (3, 4161, 16),
    ];
    for (count, k, n) in shapes {
        for base in [Base::None, Base::Other, Base::Out] {
            let name = format!("linear {count}x{k}x{n} base {base:?}");
            rows.push(Row::new(name, move |t| linear(t, count, k, n, base)));
        }
        let name = format!("linear trained {count}x{k}x{n}");
        rows.push(Row::new(name, move |t| trained(t, count, k, n)));
        let name = format!("linear of several terms {count}x{k}x{n}");
        rows.push(Row::new(name, move |t| several_terms(t, count, k, n)));
        let name = format!("weight_gradient {count}x{n}x{k}");
        rows.push(Row::new(name, move |t| weight_gradient(t, count, n, k)));
    }
    // The edges of what is packed of a gradient at a time: 1,024 steps of one or two rows.
    for (count, n, k) in [(1025, 33, 31), (2050, 12, 32)] {
        let name = format!("weight_gradient {count}x{n}x{k}");
        rows.push(Row::new(name, move |t| weight_gradient(t, count, n, k)));
    }
    rows.push(Row::new("linear of as many terms as there may be", most_terms));
    rows.push(Row::new("linears of one input", linears_of_one_input));
    rows.push(Row::new("weight_gradient shared by entries", shared_gradient));
    rows.push(Row::new("linear on slices", on_slices));
    for storage in Storage::ALL {
        // Four rows are the most that some kernels multiply without unpacking.
        for (count, n) in [(1, 35), (4, 32), (5, 64), (14, 70)] {
            let name = format!("linear {storage:?} {count} rows");
            rows.push(Row::new(name, move |t| stored(t, storage, count, n)));
        }
    }
}

fn term(input: Buffer, weight: Weight, transposed: bool) -> Term {
    Term { input, weight, transposed }
}

fn linear(t: &mut Trial<'_>, rows: usize, k: usize, n: usize, base: Base) {
    let (weight, back) = (t.weight(n, k, Storage::F32), t.weight(k, n, Storage::Bf16));
    for transposed in [false, true] {
        let weight = if transposed { back } else { weight };
        for dtype in [DType::F32, t.operand()] {
            let terms = [term(t.operands(rows * k), weight, transposed)];
            let bias = transposed.then(|| t.f32(n));
            let (base, out) = match (base, dtype) {
                (Base::None, _) => (None, t.out(rows * n, dtype)),
                (Base::Out, DType::F32) => {
                    let out = t.f32(rows * n);
                    (Some(out), out)
                }
                _ => (Some(t.f32(rows * n)), t.out(rows * n, dtype)),
            };
            t.run(Op::Linear(&[Linear { rows, terms: &terms, scale: 0.5, bias, base, out }]));
            t.keep(format!("transposed {transposed} to {dtype:?}"), out);
        }
    }
}

fn trained(t: &mut Trial<'_>, rows: usize, k: usize, n: usize) {
    for transposed in [false, true] {
        let (outputs, inputs) = if transposed { (k, n) } else { (n, k) };
        let weight = t.trained(outputs, inputs).matrix();
        let terms = [term(t.operands(rows * k), weight, transposed)];
        let out = t.out(rows * n, DType::F32);
        t.run(Op::Linear(&[Linear::product(rows, &terms, out)]));
        t.keep(format!("transposed {transposed}"), out);
    }
}

/// A frozen layer with two adapters, one of them the wrong way round.
fn several_terms(t: &mut Trial<'_>, rows: usize, k: usize, n: usize) {
    let rank = 16;
    let (frozen, b) = (t.weight(n, k, Storage::Bf16), t.trained(n, rank).matrix());
    let a = t.trained(rank + 1, n).matrix();
    let terms = [
        term(t.operands(rows * k), frozen, false),
        term(t.operands(rows * rank), b, false),
        term(t.operands(rows * (rank + 1)), a, true),
    ];
    for dtype in [DType::F32, t.operand()] {
        let (base, out) = (Some(t.f32(rows * n)), t.out(rows * n, dtype));
        let bias = Some(t.f32(n));
        t.run(Op::Linear(&[Linear { rows, terms: &terms, scale: 2.0, bias, base, out }]));
        t.keep(format!("{dtype:?}"), out);
    }
}

/// Terms of different K, every other one transposed.
fn most_terms(t: &mut Trial<'_>) {
    let (rows, n) = (13, 35);
    let terms: Vec<Term> = (0..Linear::TERMS_MAX)
        .map(|index| {
            let (k, transposed) = (1 + 5 * index, index % 2 == 1);
            let (outputs, inputs) = if transposed { (k, n) } else { (n, k) };
            term(t.operands(rows * k), t.weight(outputs, inputs, Storage::Bf16), transposed)
        })
        .collect();
    let out = t.out(rows * n, DType::F32);
    t.run(Op::Linear(&[Linear::product(rows, &terms, out)]));
    t.keep("out", out);
}

/// As queries, keys and values with their adapters.
fn linears_of_one_input(t: &mut Trial<'_>) {
    let (rows, k) = (21, 96);
    let x = t.operands(rows * k);
    let sizes = [64, 35, 16];
    let weights = sizes.map(|n| t.weight(n, k, Storage::F16));
    let terms = weights.map(|weight| [term(x, weight, false)]);
    let outs = [(64, DType::F32), (35, t.operand()), (16, DType::F32)]
        .map(|(n, dtype)| t.out(rows * n, dtype));
    let ops: Vec<Linear<'_>> =
        terms.iter().zip(outs).map(|(terms, out)| Linear::product(rows, terms, out)).collect();
    t.run(Op::Linear(&ops));
    outs.into_iter().for_each(|out| t.keep("out", out));
}

/// Buffers need not start where an allocation does.
fn on_slices(t: &mut Trial<'_>) {
    let (rows, k, n) = (14, 37, 45);
    let x = t.operands(rows * k + 3).slice(3, rows * k);
    let weight = t.weight(n, k, Storage::F32);
    let terms = [term(x, weight, false)];
    let base = Some(t.f32(rows * n + 1).slice(1, rows * n));
    for dtype in [DType::F32, t.operand()] {
        let out = t.out(rows * n + 5, dtype).slice(5, rows * n);
        t.run(Op::Linear(&[Linear { rows, terms: &terms, scale: 1.0, bias: None, base, out }]));
        t.keep("out", out);
    }
    let groups = t.integers(&[9, 0, rows as u32]).slice(1, 2);
    let dy = t.operands(rows * n + 1).slice(1, rows * n);
    let gradient = t.f32(n * k + 1).slice(1, n * k);
    t.run(Op::WeightGradient(&[WeightGradient { dy, x, n, k, groups, gradient }]));
    t.keep("gradient", gradient);
}

fn stored(t: &mut Trial<'_>, storage: Storage, rows: usize, n: usize) {
    let k = if storage.block_len() == 256 { 512 } else { 96 };
    let shuffled: Vec<u32> = (0..n as u32).map(|row| (row * 3 + 1) % n as u32).collect();
    let order = if n.is_multiple_of(3) { None } else { Some(&shuffled[..]) };
    let plain = t.weight(n, k, storage);
    let ordered = t.weight_in_order(n, k, storage, order);
    for weight in [plain, ordered] {
        for transposed in [false, true] {
            let (inputs, outputs) = if transposed { (n, k) } else { (k, n) };
            let terms = [term(t.operands(rows * inputs), weight, transposed)];
            let out = t.out(rows * outputs, DType::F32);
            t.run(Op::Linear(&[Linear::product(rows, &terms, out)]));
            t.keep(format!("transposed {transposed}"), out);
        }
    }
}

fn weight_gradient(t: &mut Trial<'_>, rows: usize, n: usize, k: usize) {
    let end = rows as u32;
    // One group; a group of one row, an empty one and the rest.
    for groups in [vec![0, end], vec![0, 1, 1, end]] {
        let groups = t.integers(&groups);
        let ops = [(n, k), (k, n)].map(|(n, k)| WeightGradient {
            dy: t.operands(rows * n),
            x: t.operands(rows * k),
            n,
            k,
            groups,
            gradient: t.f32(n * k),
        });
        t.run(Op::WeightGradient(&ops));
        ops.iter().for_each(|op| t.keep("gradient", op.gradient));
    }
}

/// Entries that add to one matrix, over rows of different numbers, beside one that has its own.
fn shared_gradient(t: &mut Trial<'_>) {
    let (n, k) = (70, 35);
    let (gradient, own) = (t.f32(n * k), t.f32(n * k));
    let bounds = [[0, 3, 8, 9], [0, 1, 1, 4], [0, 3, 8, 9]];
    let entries = bounds.into_iter().zip([gradient, gradient, own]);
    let mut ops: Vec<WeightGradient> = Vec::new();
    for (bounds, gradient) in entries {
        let (rows, groups) = (bounds[3] as usize, t.integers(&bounds));
        let (dy, x) = (t.operands(rows * n), t.operands(rows * k));
        ops.push(WeightGradient { dy, x, n, k, groups, gradient });
    }
    t.run(Op::WeightGradient(&[ops[0], ops[2], ops[1], ops[0]]));
    t.keep("shared", gradient);
    t.keep("own", own);
}
