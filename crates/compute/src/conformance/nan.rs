//! Rows in which a NaN goes in: it must come out wherever it counts, and nowhere else.

use super::layout::Layout;
use super::{Row, Trial};
use crate::op::{
    Activation, Attention, ColumnSums, Gated, Head, HeadGradients, HeadOutputs, Linear, RmsNorm,
    Rope, ScaleColumns, ScatterAdd, Term,
};
use crate::{Buffer, DType, Op, Storage};

pub(super) fn add(rows: &mut Vec<Row>) {
    rows.push(Row::new("NaN in one row", one_row));
    rows.push(Row::new("NaN in attention", attention));
    rows.push(Row::new("NaN in head", head));
    rows.push(Row::new("NaN in sum_squares", sum_squares));
    rows.push(Row::new("NaN in sums over rows", sums));
}

const ROWS: usize = 15;

impl Trial<'_> {
    /// A random input whose element `at` is NaN.
    fn poisoned(&mut self, len: usize, at: usize, dtype: DType) -> Buffer {
        let mut values = self.random(len);
        values[at] = f32::NAN;
        self.upload(&values, dtype)
    }
}

fn one_row(t: &mut Trial<'_>) {
    let cols = 38;
    let (len, at) = (ROWS * cols, 13 * cols + 5);
    let operand = t.operand();
    let (x, narrow) = (t.poisoned(len, at, DType::F32), t.poisoned(len, at, operand));
    let outs = [(); 5].map(|()| t.out(len, operand));
    let (weight, rstd) = (t.f32(cols), t.out(ROWS, DType::F32));
    t.run(Op::Cast { x, scale: 1.0, out: outs[0] });
    t.run(Op::RmsNorm(RmsNorm { cols, x, weight, offset: 0.0, eps: 1e-5, out: outs[1], rstd }));
    for (gate, up, out) in [(narrow, t.operands(len), outs[2]), (t.operands(len), narrow, outs[3])]
    {
        t.run(Op::Gated(Gated { activation: Activation::GeluTanh, gate, up, out }));
    }
    let (cos, sin) = (t.f32(len / 2), t.f32(len / 2));
    let rope = Rope {
        heads: 1,
        head_dim: cols,
        rotary_dim: cols,
        x,
        cos,
        sin,
        inverse: false,
        out: outs[4],
    };
    t.run(Op::Rope(rope));
    let terms =
        [Term { input: narrow, weight: t.weight(20, cols, Storage::F32), transposed: false }];
    let product = t.out(ROWS * 20, operand);
    let bias = Some(t.poisoned(20, 17, DType::F32));
    let linear = Linear { rows: ROWS, terms: &terms, scale: 1.0, bias, base: None, out: product };
    t.run(Op::Linear(&[linear]));
    let scaled = t.out(len, operand);
    let (factors, bias) = (t.f32(cols), None);
    let op = ScaleColumns { cols, x: narrow, factors, bias, scale: 1.0, base: None, out: scaled };
    t.run(Op::ScaleColumns(op));
    for out in outs.into_iter().chain([product, scaled]) {
        t.keep_nan("out", out);
    }
}

/// In a query: that query. In a key: the queries that see it. In a value that all see: the
/// heads that share it. In a row that lies between the runs: nowhere.
fn attention(t: &mut Trial<'_>) {
    let (heads, kv_heads, head_dim, tokens) = (4, 2, 8, 70);
    let (q_width, kv_width) = (heads * head_dim, kv_heads * head_dim);
    let (q_len, kv_len) = (tokens * q_width, (tokens + 1) * kv_width);
    let operand = t.operand();
    let mut layout = Layout { trees: vec![0, 1], ..Layout::default() };
    let positions: Vec<u32> = (0..tokens as u32).collect();
    layout.add_span(&positions, &[[0, 50], [51, 20]]);
    let layout = layout.upload(t);
    let (q, k, v) = (t.operands(q_len), t.operands(kv_len), t.operands(kv_len));
    let inputs = [
        ("q", t.poisoned(q_len, 40 * q_width, operand), k, v),
        ("k", q, t.poisoned(kv_len, 40 * kv_width, operand), v),
        ("v", q, k, t.poisoned(kv_len, 0, operand)),
        ("an unseen k", q, t.poisoned(kv_len, 50 * kv_width, operand), v),
        ("an unseen v", q, k, t.poisoned(kv_len, 50 * kv_width, operand)),
    ];
    for (name, q, k, v) in inputs {
        let (out, lse) = (t.out(q_len, operand), t.out(tokens * heads, DType::F32));
        let (scale, window, softcap) = (0.3, None, None);
        let op = Attention {
            q,
            k,
            v,
            layout,
            heads,
            kv_heads,
            head_dim,
            scale,
            window,
            softcap,
            out,
            lse,
        };
        t.run(Op::Attention(op));
        t.keep_nan(format!("out with NaN in {name}"), out);
        t.keep_nan(format!("lse with NaN in {name}"), lse);
    }
}

fn head(t: &mut Trial<'_>) {
    let (vocab, cols) = (90, 16);
    let hidden = t.poisoned(ROWS * cols, 4 * cols, t.operand());
    let targets: Vec<u32> = (0..ROWS as u32).collect();
    let (target_reads, target_tokens) = (t.integers(&targets), t.integers(&targets));
    let [logprob, lse, entropy] = [(); 3].map(|()| t.out(ROWS, DType::F32));
    let d_hidden = t.out(ROWS * cols, DType::F32);
    let gradient = t.f32(ROWS);
    let op = Head {
        reads: ROWS,
        hidden,
        weight: t.weight(vocab, cols, Storage::F32),
        scale: 1.0,
        softcap: None,
        temperature: 1.0,
        target_reads,
        target_tokens,
        outputs: HeadOutputs {
            logprob: Some(logprob),
            entropy: Some(entropy),
            lse: Some(lse),
            ..HeadOutputs::default()
        },
        gradients: HeadGradients { logprob: Some(gradient), ..HeadGradients::default() },
        d_hidden: Some(d_hidden),
        d_weight: None,
    };
    t.run(Op::Head(op));
    for (name, out) in
        [("logprob", logprob), ("entropy", entropy), ("lse", lse), ("d_hidden", d_hidden)]
    {
        t.keep_nan(name, out);
    }
}

fn sum_squares(t: &mut Trial<'_>) {
    let inputs = [t.f32(100), t.poisoned(100, 77, DType::F32)];
    for count in [1, 2] {
        let out = t.out(1, DType::F32);
        t.run(Op::SumSquares { inputs: &inputs[..count], out });
        t.keep_nan("out", out);
    }
}

/// In the column, or the row, that it is added to.
fn sums(t: &mut Trial<'_>) {
    let cols = 38;
    let (x, at) = (t.poisoned(ROWS * cols, 13 * cols + 5, DType::F32), [0, ROWS as u32]);
    let (groups, gradient) = (t.integers(&at), t.f32(cols));
    t.run(Op::ColumnSums(ColumnSums {
        cols,
        a: x,
        b: None,
        row_scale: None,
        divisor: None,
        groups,
        rows_each: 1,
        gradient,
    }));
    let index: Vec<u32> = (0..ROWS as u32).map(|row| row % 4).collect();
    let (index, out) = (t.integers(&index), t.f32(4 * cols));
    t.run(Op::ScatterAdd(ScatterAdd { cols, x, index, scale: 1.0, out }));
    t.keep_nan("column sums", gradient);
    t.keep_nan("scattered rows", out);
}
