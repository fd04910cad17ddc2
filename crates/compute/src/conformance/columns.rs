//! Rows of sums over rows, factors on columns, and rows of weights.

use super::elementwise::Base;
use super::{Row, Trial};
use crate::op::{ColumnSums, DoraFactors, ScaleColumns, ScatterAdd};
use crate::{Buffer, DType, Op, Storage};

pub(super) fn add(rows: &mut Vec<Row>) {
    for (count, cols) in [(1, 1), (40, 5), (300, 64), (17, 200)] {
        let name = format!("scatter_add {count}x{cols}");
        rows.push(Row::new(name, move |t| scatter_add(t, count, cols)));
    }
    for (count, each, cols) in [(1, 1, 1), (37, 1, 64), (300, 1, 130), (9, 3, 40)] {
        let name = format!("column_sums {count}x{each}x{cols}");
        rows.push(Row::new(name, move |t| column_sums(t, count, each, cols)));
    }
    for (count, cols) in [(1, 1), (3, 5), (40, 64), (7, 33)] {
        for base in [Base::None, Base::Other, Base::Out] {
            let name = format!("scale_columns {count}x{cols} base {base:?}");
            rows.push(Row::new(name, move |t| scale_columns(t, count, cols, base)));
        }
        let name = format!("scale_columns {count}x{cols} in place");
        rows.push(Row::new(name, move |t| scale_in_place(t, count, cols)));
    }
    for (outputs, rank) in [(1, 1), (5, 3), (64, 4), (100, 16), (33, 30)] {
        let name = format!("dora_factors {outputs}, rank {rank}");
        rows.push(Row::new(name, move |t| dora_factors(t, outputs, rank)));
    }
    for storage in Storage::ALL {
        let body = move |t: &mut Trial<'_>| {
            for (outputs, cols) in [(1, 256), (70, 768)] {
                let weight = t.weight(outputs, cols, storage);
                let out = t.out(outputs, DType::F32);
                t.run(Op::RowSquares { weight, out });
                t.keep(format!("{outputs}x{cols}"), out);
            }
        };
        rows.push(Row::new(format!("row_squares {storage:?}"), body));
    }
    rows.push(Row::new("row_squares of odd rows", odd_squares));
    rows.push(Row::new("write_rows", write_rows));
}

/// Repeated rows, rows that are left out, rows that nobody names.
fn scatter_add(t: &mut Trial<'_>, count: usize, cols: usize) {
    let mut index = t.random_below(count, 6);
    index.iter_mut().filter(|row| **row == 2).for_each(|row| *row = u32::MAX);
    let index = t.integers(&index);
    for scale in [1.0, 0.7] {
        let (x, out) = (t.f32(count * cols), t.f32(8 * cols));
        t.run(Op::ScatterAdd(ScatterAdd { cols, x, index, scale, out }));
        t.keep("out", out);
    }
}

fn column_sums(t: &mut Trial<'_>, count: usize, rows_each: usize, cols: usize) {
    let rows = count * rows_each;
    let divisor: Vec<f32> = t.random(cols).iter().map(|x| 1.5 + x).collect();
    let divisor = t.upload(&divisor, DType::F32);
    let (row_scale, end) = (t.f32(rows), count as u32);
    let groups = [vec![0, end], vec![0, 1, 1, end]].map(|groups| t.integers(&groups));
    let operand = t.operand();
    let types = [DType::F32, operand];
    for (a, b) in
        types.into_iter().flat_map(|a| [None, Some(types[0]), Some(operand)].map(|b| (a, b)))
    {
        for (scaled, groups) in [false, true].into_iter().zip(groups) {
            let values = [(); 2].map(|()| t.random(rows * cols));
            let gradient = t.f32(cols);
            let op = ColumnSums {
                cols,
                a: t.upload(&values[0], a),
                b: b.map(|b| t.upload(&values[1], b)),
                row_scale: scaled.then_some(row_scale),
                divisor: scaled.then_some(divisor),
                groups,
                rows_each,
                gradient,
            };
            t.run(Op::ColumnSums(op));
            t.keep(format!("{a:?} times {b:?}, scaled {scaled}"), gradient);
        }
    }
}

fn scale_columns(t: &mut Trial<'_>, rows: usize, cols: usize, base: Base) {
    let (len, factors) = (rows * cols, t.f32(cols));
    for input in [DType::F32, t.operand()] {
        for output in [DType::F32, t.operand()] {
            for biased in [false, true] {
                let (values, bias) = (t.random(len), t.f32(cols));
                let x = t.upload(&values, input);
                let (base, out) = match (base, output) {
                    (Base::None, _) => (None, t.out(len, output)),
                    (Base::Out, DType::F32) => {
                        let out = t.f32(len);
                        (Some(out), out)
                    }
                    _ => (Some(t.f32(len)), t.out(len, output)),
                };
                let bias = biased.then_some(bias);
                let op = ScaleColumns { cols, x, factors, bias, scale: 0.7, base, out };
                t.run(Op::ScaleColumns(op));
                t.keep(format!("{input:?} to {output:?}, bias {biased}"), out);
            }
        }
    }
}

/// `x`, and `base` too, may be what is written.
fn scale_in_place(t: &mut Trial<'_>, rows: usize, cols: usize) {
    let (factors, bias) = (t.f32(cols), Some(t.f32(cols)));
    let (wide, narrow, both) = (t.f32(rows * cols), t.operands(rows * cols), t.f32(rows * cols));
    let apart = Some(t.f32(rows * cols));
    for (x, base) in [(wide, None), (narrow, apart), (both, Some(both))] {
        let op = ScaleColumns { cols, x, factors, bias, scale: -0.4, base, out: x };
        t.run(Op::ScaleColumns(op));
        t.keep(format!("with base {}", base.is_some()), x);
    }
}

/// From a weight and an adapter, by the operations that a model would use.
fn dora_factors(t: &mut Trial<'_>, outputs: usize, rank: usize) {
    let inputs = 24;
    let values: [Vec<f32>; 3] =
        [outputs * inputs, rank * inputs, outputs * rank].map(|len| t.random(len));
    let row = |matrix: usize, row: usize| {
        values[matrix][row * inputs..][..inputs].iter().map(|&x| f64::from(x))
    };
    let dot = |a: (usize, usize), b: (usize, usize)| {
        row(a.0, a.1).zip(row(b.0, b.1)).map(|(a, b)| a * b).sum::<f64>() as f32
    };
    let table = |n: usize, k: usize, of: &dyn Fn(usize, usize) -> f32| -> Vec<f32> {
        (0..n * k).map(|i| of(i / k, i % k)).collect()
    };
    let squares = table(outputs, 1, &|n, _| dot((0, n), (0, n)));
    let product = table(rank, outputs, &|i, n| dot((1, i), (0, n)));
    let gram = table(rank, rank, &|i, j| dot((1, i), (1, j)));
    let mut upload = |values: &[f32]| t.upload(values, DType::F32);
    let (squares, product, gram) = (upload(&squares), upload(&product), upload(&gram));
    let b = upload(&values[2]);
    let (magnitude, factors, norms) =
        (t.f32(outputs), t.out(outputs, DType::F32), t.out(outputs, DType::F32));
    let scaling = 0.5;
    let op = DoraFactors {
        outputs,
        rank,
        squares,
        product,
        gram,
        b,
        scaling,
        magnitude,
        factors,
        norms,
    };
    t.run(Op::DoraFactors(op));
    t.keep("factors", factors);
    t.keep("norms", norms);
    // The same norms, from the adapted matrix itself.
    let adapted = |n: usize, k: usize| {
        let b = &values[2][n * rank..][..rank];
        let low = b.iter().enumerate().map(|(i, b)| b * values[1][i * inputs + k]).sum::<f32>();
        values[0][n * inputs + k] + scaling * low
    };
    let direct = |n| (0..inputs).map(|k| adapted(n, k).powi(2)).sum::<f32>().sqrt();
    let expected: Vec<f32> = (0..outputs).map(direct).collect();
    for (norm, expected) in t.read(norms).into_iter().zip(expected) {
        // Zeros where nothing is computed.
        assert!(norm == 0.0 || (norm - expected).abs() < 1e-4 * expected, "{norm}, not {expected}");
    }
}

/// Columns that fill neither vectors nor pairs.
fn odd_squares(t: &mut Trial<'_>) {
    let weights = [t.weight(35, 577, crate::Storage::F32), t.trained(3, 7).matrix()];
    for weight in weights {
        let out = t.out(weight.rows, DType::F32);
        t.run(Op::RowSquares { weight, out });
        t.keep("out", out);
    }
}

/// What was written is multiplied and looked up; all else stays.
fn write_rows(t: &mut Trial<'_>) {
    for (rows, cols) in [(70, 33), (5, 64)] {
        let weights = [t.weight(rows, cols, crate::Storage::Bf16), t.trained(rows, cols).matrix()];
        for weight in weights {
            let index = t.integers(&[4, 0, rows as u32 - 2]);
            let values: Buffer = t.f32(3 * cols);
            t.run(Op::WriteRows { weight, index, values });
            let tokens: Vec<u32> = (0..rows as u32).collect();
            let (tokens, out) = (t.integers(&tokens), t.out(rows * cols, DType::F32));
            t.run(Op::Embed(crate::op::Embed { weight, tokens, scale: 1.0, out }));
            t.keep("rows", out);
            super::training::keep_product(t, weight);
        }
    }
}
