//! Batch invariance: a result has the same bits alone and in any company.
//!
//! Each row keeps its outputs in pairs that must be equal bit for bit: what a batch gave for some of its rows, and
//! what these rows give on their own, or stored in another way.

mod spread;

use std::ops::Range;

use super::attention::Shape;
use super::batch::{BATCH, parts};
use super::layout::Layout;
use super::{Row, STACK_BYTES, Trial};
use crate::op::{
    Activation, Attention, AttentionBackward, Dropout, Gated, GatedBackward, Head, HeadDivergence,
    HeadGradients, HeadOutputs, Linear, Logits, RmsNorm, RmsNormBackward, Rope, Term,
};
use crate::{Backend, Buffer, DType, Op, Storage};

/// Panics with a list of what is not invariant, where there is any.
#[track_caller]
pub fn check(backend: &mut dyn Backend) {
    backend.reserve(STACK_BYTES).expect("a stack for the suite");
    let mut failures = Vec::new();
    for row in rows() {
        for pair in row.run(backend).chunks_exact(2) {
            if pair[0].bits() != pair[1].bits() {
                failures.push(format!("{}: {} is not {}", row.name, pair[1].name, pair[0].name));
            }
        }
    }
    let device = backend.device();
    assert!(failures.is_empty(), "{device:?} is not invariant:\n{}", failures.join("\n"));
}

/// All rows, each with an even number of outputs.
pub fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for storage in [Storage::Bf16, Storage::F32, Storage::Q8_0, Storage::Q4_1, Storage::Q6_K] {
        for transposed in [false, true] {
            let name = format!("linear {storage:?} transposed {transposed}");
            rows.push(Row::new(name, move |t| linear(t, storage, transposed)));
        }
    }
    super::quantized::add_invariance(&mut rows);
    rows.push(Row::new("rms_norm", rms_norm));
    rows.push(Row::new("gated", gated));
    rows.push(Row::new("rope", rope));
    rows.push(Row::new("dropout", dropout));
    rows.push(Row::new("head", head));
    rows.push(Row::new("head divergence", head_divergence));
    spread::add(&mut rows);
    let plain = Shape::new(3, 1, 64);
    let shapes = [
        ("plain", plain),
        ("small", Shape::new(2, 2, 8)),
        ("dim 128", Shape::new(2, 1, 128)),
        ("window", Shape { window: Some(50), ..plain }),
        ("softcap", Shape { softcap: Some(2.0), ..plain }),
    ];
    for (name, shape) in shapes {
        rows.push(Row::new(format!("attention {name}"), move |t| attention(t, shape)));
        let name = format!("attention backward {name}");
        rows.push(Row::new(name, move |t| attention_backward(t, shape)));
    }
    rows
}

fn linear(t: &mut Trial<'_>, storage: Storage, transposed: bool) {
    let (weight, rank) = (t.weight(256, 256, storage), 16);
    let adapter = t.trained(256, rank).matrix();
    let narrow = t.weight(rank, 256, Storage::Bf16);
    let (x, a, base) = (t.random(BATCH * 256), t.random(BATCH * rank), t.random(BATCH * 256));
    let bias = Some(t.f32(256));
    let operand = t.operand();
    parts(t, |t, part| {
        let rows = part.len();
        let x = t.upload(part.of(&x), operand);
        let adapted =
            Term { input: t.upload(part.of(&a), operand), weight: adapter, transposed: false };
        let terms = [Term { input: x, weight, transposed }, adapted];
        let down = [Term { input: x, weight: narrow, transposed: false }];
        let base = Some(t.upload(part.of(&base), DType::F32));
        let outs = [(256, DType::F32), (256, operand), (rank, operand)];
        let outs = outs.map(|(cols, dtype)| t.out(rows * cols, dtype));
        t.run(Op::Linear(&[
            Linear::product(rows, &terms[..1], outs[0]),
            Linear::product(rows, &down, outs[2]),
        ]));
        t.run(Op::Linear(&[Linear { rows, terms: &terms, scale: 2.0, bias, base, out: outs[1] }]));
        outs.to_vec()
    });
}

fn rms_norm(t: &mut Trial<'_>) {
    let cols = 67;
    let (x, dout, dx) = (t.random(BATCH * cols), t.random(BATCH * cols), t.random(BATCH * cols));
    let weight = t.f32(cols);
    parts(t, |t, part| {
        let x = t.upload(part.of(&x), DType::F32);
        let (out, rstd) = (t.out(x.len, t.operand()), t.out(part.len(), DType::F32));
        t.run(Op::RmsNorm(RmsNorm { cols, x, weight, offset: 1.0, eps: 1e-6, out, rstd }));
        let dout = t.upload(part.of(&dout), DType::F32);
        let dx = t.upload(part.of(&dx), DType::F32);
        t.run(Op::RmsNormBackward(RmsNormBackward {
            cols,
            dout,
            x,
            weight,
            offset: 1.0,
            rstd,
            dx,
        }));
        vec![out, rstd, dx]
    });
}

fn gated(t: &mut Trial<'_>) {
    let [gate, up, dout] = [(); 3].map(|()| t.random(BATCH * 45));
    let operand = t.operand();
    for activation in [Activation::Silu, Activation::GeluTanh] {
        parts(t, |t, part| {
            let [gate, up, dout] = [&gate, &up, &dout].map(|v| t.upload(part.of(v), operand));
            let [out, dgate, dup] = [(); 3].map(|()| t.out(gate.len, operand));
            t.run(Op::Gated(Gated { activation, gate, up, out }));
            t.run(Op::GatedBackward(GatedBackward { activation, gate, up, dout, dgate, dup }));
            vec![out, dgate, dup]
        });
    }
}

fn rope(t: &mut Trial<'_>) {
    let (heads, head_dim, rotary_dim) = (3, 6, 4);
    let x = t.random(BATCH * heads * head_dim);
    let (cos, sin) = (t.random(BATCH * rotary_dim / 2), t.random(BATCH * rotary_dim / 2));
    parts(t, |t, part| {
        let [x, cos, sin] = [&x, &cos, &sin].map(|v| t.upload(part.of(v), DType::F32));
        let out = t.out(x.len, t.operand());
        t.run(Op::Rope(Rope { heads, head_dim, rotary_dim, x, cos, sin, inverse: false, out }));
        vec![out]
    });
}

fn dropout(t: &mut Trial<'_>) {
    let cols = 37;
    let x = t.random(BATCH * cols);
    let keys = t.random_below(BATCH * 3, 1 << 30);
    parts(t, |t, part| {
        let x = t.upload(part.of(&x), DType::F32);
        let row_keys = t.integers(&keys[part.rows.start * 3..part.rows.end * 3]);
        let out = t.out(x.len, t.operand());
        t.run(Op::Dropout(Dropout { cols, x, row_keys, key: 5, p: 0.3, base: None, out }));
        vec![out]
    });
}

fn head(t: &mut Trial<'_>) {
    let (vocab, cols) = (317, 64);
    let weight = t.weight(vocab, cols, Storage::Bf16);
    let hidden = t.random(BATCH * cols);
    let tokens = t.random_below(BATCH, vocab as u32);
    let gradients = [(); 4].map(|()| t.random(BATCH));
    parts(t, |t, part| {
        let reads = part.len();
        let targets: Vec<u32> = (0..reads as u32).collect();
        let [logprob, entropy, lse, mean_logprob] =
            gradients.each_ref().map(|values| Some(t.upload(part.of(values), DType::F32)));
        let outs = [(); 5].map(|()| t.out(reads, DType::F32));
        let (top1, d_hidden) = (t.out(reads, DType::U32), t.out(reads * cols, DType::F32));
        let op = Head {
            reads,
            hidden: t.upload(part.of(&hidden), t.operand()),
            weight,
            scale: 1.0,
            softcap: Some(9.0),
            temperature: 0.8,
            target_reads: t.integers(&targets),
            target_tokens: t.integers(&tokens[part.rows.clone()]),
            outputs: HeadOutputs {
                logprob: Some(outs[0]),
                entropy: Some(outs[1]),
                lse: Some(outs[2]),
                mean_logprob: Some(outs[3]),
                log_sum_sq_probs: Some(outs[4]),
                top1: Some(top1),
            },
            gradients: HeadGradients { logprob, entropy, lse, mean_logprob },
            d_hidden: Some(d_hidden),
            d_weight: None,
        };
        t.run(Op::Head(op));
        outs.into_iter().chain([top1, d_hidden]).collect()
    });
}

fn head_divergence(t: &mut Trial<'_>) {
    let (vocab, cols) = (317, 64);
    let weights = [(); 2].map(|()| t.weight(vocab, cols, Storage::Bf16));
    let hidden = [(); 2].map(|()| t.random(BATCH * cols));
    let gradient = t.random(BATCH);
    parts(t, |t, part| {
        let reads = part.len();
        let [student, teacher] = [0, 1].map(|at| Logits {
            hidden: t.upload(part.of(&hidden[at]), t.operand()),
            weight: weights[at],
            scale: 1.0,
            softcap: [None, Some(9.0)][at],
        });
        let (divergence, d_hidden) = (t.out(reads, DType::F32), t.out(reads * cols, DType::F32));
        let op = HeadDivergence {
            reads,
            student,
            teacher,
            temperature: 0.8,
            mix: 0.4,
            divergence,
            gradient: Some(t.upload(part.of(&gradient), DType::F32)),
            d_hidden: Some(d_hidden),
            d_weight: None,
        };
        t.run(Op::HeadDivergence(op));
        vec![divergence, d_hidden]
    });
}

/// Tokens of the sequence whose attention is compared.
const TOKENS: usize = 150;

/// Queries, keys and values of one sequence.
struct Sequence {
    shape: Shape,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
}

impl Sequence {
    fn new(t: &mut Trial<'_>, shape: Shape) -> Self {
        let (q_width, kv_width) = shape.widths();
        let q = t.random(TOKENS * q_width);
        Sequence { shape, q, k: t.random(TOKENS * kv_width), v: t.random(TOKENS * kv_width) }
    }

    /// Attention of the sequence's queries at `positions`, after queries of other sequences; key row
    /// `i` holds the key at position `key_positions[i]`, or noise without one.
    fn attend(
        &self,
        t: &mut Trial<'_>,
        layout: &Layout,
        positions: Range<usize>,
        key_positions: &[Option<usize>],
    ) -> Attention {
        let Shape { heads, kv_heads, head_dim, window, softcap } = self.shape;
        let (q_width, kv_width) = self.shape.widths();
        let own = &self.q[positions.start * q_width..positions.end * q_width];
        let mut q = t.random(layout.queries() * q_width - own.len());
        q.extend(own);
        let q = t.upload(&q, t.operand());
        let [k, v] = [&self.k, &self.v].map(|values| {
            let mut rows = t.random(key_positions.len() * kv_width);
            for (row, position) in rows.chunks_exact_mut(kv_width).zip(key_positions) {
                if let Some(position) = position {
                    row.copy_from_slice(&values[position * kv_width..][..kv_width]);
                }
            }
            t.upload(&rows, t.operand())
        });
        let op = Attention {
            q,
            k,
            v,
            layout: layout.upload(t),
            heads,
            kv_heads,
            head_dim,
            scale: 0.25,
            window,
            softcap,
            out: t.out(q.len, t.operand()),
            lse: t.out(layout.queries() * heads, DType::F32),
        };
        t.run(Op::Attention(op));
        op
    }
}

/// Keeps a pair for the last rows of a buffer and the rows of another from `first` on.
fn keep_last(t: &mut Trial<'_>, name: &str, whole: Buffer, first: usize, part: Buffer, len: usize) {
    t.keep("one run alone", whole.slice(first, len));
    t.keep(name, part.slice(part.len - len, len));
}

fn attention(t: &mut Trial<'_>, shape: Shape) {
    let sequence = Sequence::new(t, shape);
    let in_order: Vec<Option<usize>> = (0..TOKENS).map(Some).collect();
    let all: Vec<u32> = (0..TOKENS as u32).collect();
    let whole = sequence.attend(t, &Layout::of(&[(TOKENS, None)], None), 0..TOKENS, &in_order);
    let (q_width, heads) = (shape.widths().0, shape.heads);
    let compare = |t: &mut Trial<'_>,
                   name: &str,
                   layout: &Layout,
                   positions: Range<usize>,
                   keys: &[Option<usize>]| {
        let part = sequence.attend(t, layout, positions.clone(), keys);
        let (first, count) = (positions.start, positions.len());
        keep_last(t, name, whole.out, first * q_width, part.out, count * q_width);
        keep_last(t, name, whole.lse, first * heads, part.lse, count * heads);
    };

    let mut runs = Layout { key_rows: TOKENS, trees: vec![0, 1], ..Layout::default() };
    runs.add_span(&all, &[[109, 41], [0, 109]]);
    let rotated: Vec<_> = (41..TOKENS).chain(0..41).map(Some).collect();
    compare(t, "two runs", &runs, 0..TOKENS, &rotated);

    let packed = Layout::of(&[(7, None), (33, None), (TOKENS, None)], None);
    let after: Vec<_> = [None; 40].into_iter().chain(in_order.iter().copied()).collect();
    compare(t, "packed after others", &packed, 0..TOKENS, &after);

    let child = Layout::of(&[(70, None), (TOKENS - 70, Some(0))], None);
    compare(t, "prefix and child", &child, 0..TOKENS, &in_order);

    for position in [0, 1, 7, 63, 64, 65, 127, 128, TOKENS - 1] {
        let mut decode = Layout { key_rows: position + 1, trees: vec![0, 1], ..Layout::default() };
        decode.add_span(&[position as u32], &[[0, position as u32 + 1]]);
        let name = format!("decoded at {position}");
        compare(t, &name, &decode, position..position + 1, &in_order[..=position]);
    }
    compare(t, "the last 9 queries", &last_queries(9), TOKENS - 9..TOKENS, &in_order);
}

/// The last queries of the sequence over all of its keys.
fn last_queries(count: usize) -> Layout {
    let mut layout = Layout { key_rows: TOKENS, trees: vec![0, 1], ..Layout::default() };
    let positions: Vec<u32> = (TOKENS - count..TOKENS).map(|position| position as u32).collect();
    layout.add_span(&positions, &[[0, TOKENS as u32]]);
    layout
}

/// A tree's gradients, alone and packed after other trees.
fn attention_backward(t: &mut Trial<'_>, shape: Shape) {
    let sequence = Sequence::new(t, shape);
    let (q_width, kv_width) = shape.widths();
    let dout = t.random(TOKENS * q_width);
    let mut gradients = |forest: &[(usize, Option<usize>)], before: usize| {
        let keys: Vec<_> = (0..before).map(|_| None).chain((0..TOKENS).map(Some)).collect();
        let forward = sequence.attend(t, &Layout::of(forest, None), 0..TOKENS, &keys);
        let mut values = t.random(before * q_width);
        values.extend(&dout);
        let dout = t.upload(&values, t.operand());
        let dq = t.out(forward.q.len, DType::F32);
        let [dk, dv] = [(); 2].map(|()| t.out(forward.k.len, DType::F32));
        t.run(Op::AttentionBackward(AttentionBackward { forward, dout, dq, dk, dv }));
        [dq, dk, dv]
    };
    let alone = gradients(&[(70, None), (30, Some(0)), (50, Some(0))], 0);
    let packed =
        gradients(&[(7, None), (33, Some(0)), (70, None), (30, Some(2)), (50, Some(2))], 40);
    let widths = [("dq", q_width), ("dk", kv_width), ("dv", kv_width)];
    for ((alone, packed), (name, width)) in alone.into_iter().zip(packed).zip(widths) {
        t.keep(format!("{name} alone"), alone);
        t.keep(format!("{name} packed"), packed.slice(40 * width, TOKENS * width));
    }
}
