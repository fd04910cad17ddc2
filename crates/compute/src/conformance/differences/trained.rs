//! By what is trained besides matrices of linear layers: norms, biases, magnitudes, embeddings.

use super::{Case, out, random, run, trained, upload, zeros};
use crate::op::{
    ColumnSums, DoraFactors, Embed, Linear, RmsNorm, RmsNormBackward, ScaleColumns, ScatterAdd,
    Term,
};
use crate::{Backend as _, Buffer, DType, Op, Reference};

pub(super) fn cases() -> Vec<Case> {
    vec![norm_per_head(), bias(), scaled_columns(), magnitude(), embedding()]
}

fn integers(r: &mut Reference, values: &[u32]) -> Buffer {
    let buffer = r.alloc(values.len(), DType::U32).expect("alloc");
    r.upload_u32(values, buffer).expect("upload");
    buffer
}

/// Sums of `a` over the rows of a stream of 3, in two groups.
fn sums(r: &mut Reference, cols: usize, a: Buffer) -> ColumnSums {
    ColumnSums {
        cols,
        a,
        b: None,
        row_scale: None,
        divisor: None,
        groups: integers(r, &[0, 1, 3]),
        rows_each: a.len / cols / 3,
        gradient: zeros(r, cols),
    }
}

/// By what is normed and by the weight, which all heads share.
fn norm_per_head() -> Case {
    let (heads, cols, offset) = (2, 8, 0.5);
    let rows = 3 * heads;
    let normed = move |r: &mut Reference, x: Buffer, weight: Buffer| {
        let (out, rstd) = (out(r, rows * cols), out(r, rows));
        run(r, Op::RmsNorm(RmsNorm { cols, x, weight, offset, eps: 1e-3, out, rstd }));
        (out, rstd)
    };
    Case {
        name: "rms_norm per head".into(),
        inputs: vec![rows * cols, cols],
        forward: Box::new(move |r, i| vec![normed(r, i[0], i[1]).0]),
        backward: Box::new(move |r, i, _, douts| {
            let (x, weight, dout) = (i[0], i[1], douts[0]);
            let (_, rstd) = normed(r, x, weight);
            let dx = zeros(r, rows * cols);
            let op = RmsNormBackward { cols, dout, x, weight, offset, rstd, dx };
            run(r, Op::RmsNormBackward(op));
            let sums = ColumnSums { b: Some(x), row_scale: Some(rstd), ..sums(r, cols, dout) };
            run(r, Op::ColumnSums(sums));
            vec![dx, sums.gradient]
        }),
    }
}

/// Of a linear layer.
fn bias() -> Case {
    let (rows, k, n) = (3, 7, 5);
    Case {
        name: "bias".into(),
        inputs: vec![n],
        forward: Box::new(move |r, i| {
            let (x, w) = (upload(r, &random(6, rows * k)), upload(r, &random(7, n * k)));
            let weight = trained(r, n, k, w).matrix();
            let terms = [Term { input: x, weight, transposed: false }];
            let out = out(r, rows * n);
            let linear =
                Linear { rows, terms: &terms, scale: 1.0, bias: Some(i[0]), base: None, out };
            run(r, Op::Linear(&[linear]));
            vec![out]
        }),
        backward: Box::new(move |r, _, _, douts| {
            let sums = sums(r, n, douts[0]);
            run(r, Op::ColumnSums(sums));
            vec![sums.gradient]
        }),
    }
}

/// By everything that goes in.
fn scaled_columns() -> Case {
    let (rows, cols, scale) = (3, 6, 0.7);
    let len = rows * cols;
    Case {
        name: "scale_columns".into(),
        inputs: vec![len, cols, cols, len],
        forward: Box::new(move |r, i| {
            let out = out(r, len);
            let (bias, base) = (Some(i[2]), Some(i[3]));
            let op = ScaleColumns { cols, x: i[0], factors: i[1], bias, scale, base, out };
            run(r, Op::ScaleColumns(op));
            vec![out]
        }),
        backward: Box::new(move |r, i, _, douts| {
            let (dout, factors, dx) = (douts[0], i[1], out(r, len));
            let op =
                ScaleColumns { cols, x: dout, factors, bias: None, scale, base: None, out: dx };
            run(r, Op::ScaleColumns(op));
            let by_bias = sums(r, cols, dout);
            let by_factors = ColumnSums { b: Some(i[0]), ..sums(r, cols, dout) };
            let [by_factors, by_bias] = [by_factors, by_bias].map(|sums| {
                run(r, Op::ColumnSums(sums));
                let scaled = out(r, cols);
                run(r, Op::Cast { x: sums.gradient, scale, out: scaled });
                scaled
            });
            vec![dx, by_factors, by_bias, dout]
        }),
    }
}

/// By DoRA's magnitudes, whose norms count as constants.
fn magnitude() -> Case {
    let (rows, cols, rank) = (3, 5, 2);
    let factors = move |r: &mut Reference, magnitude: Buffer| {
        let squares: Vec<f64> = random(8, cols).iter().map(|x| 4.0 + x).collect();
        let op = DoraFactors {
            outputs: cols,
            rank,
            squares: upload(r, &squares),
            product: upload(r, &random(9, rank * cols)),
            gram: upload(r, &[1.0, 0.3, 0.3, 2.0]),
            b: upload(r, &random(10, cols * rank)),
            scaling: 0.5,
            magnitude,
            factors: out(r, cols),
            norms: out(r, cols),
        };
        run(r, Op::DoraFactors(op));
        (op.factors, op.norms, upload(r, &random(11, rows * cols)))
    };
    Case {
        name: "magnitude".into(),
        inputs: vec![cols],
        forward: Box::new(move |r, i| {
            let (factors, _, x) = factors(r, i[0]);
            let out = out(r, rows * cols);
            let op = ScaleColumns { cols, x, factors, bias: None, scale: 1.0, base: None, out };
            run(r, Op::ScaleColumns(op));
            vec![out]
        }),
        backward: Box::new(move |r, i, _, douts| {
            let (_, norms, x) = factors(r, i[0]);
            let sums = ColumnSums { b: Some(x), divisor: Some(norms), ..sums(r, cols, douts[0]) };
            run(r, Op::ColumnSums(sums));
            vec![sums.gradient]
        }),
    }
}

/// By the matrix, with a token that comes twice and one that does not come.
fn embedding() -> Case {
    let (vocab, cols, scale) = (4, 5, 1.5);
    let tokens = [2, 0, 2, 3];
    Case {
        name: "embedding".into(),
        inputs: vec![vocab * cols],
        forward: Box::new(move |r, i| {
            let weight = trained(r, vocab, cols, i[0]).matrix();
            let (tokens, out) = (integers(r, &tokens), out(r, tokens.len() * cols));
            run(r, Op::Embed(Embed { weight, tokens, scale, out }));
            vec![out]
        }),
        backward: Box::new(move |r, _, _, douts| {
            let (index, out) = (integers(r, &tokens), zeros(r, vocab * cols));
            run(r, Op::ScatterAdd(ScatterAdd { cols, x: douts[0], index, scale, out }));
            vec![out]
        }),
    }
}
