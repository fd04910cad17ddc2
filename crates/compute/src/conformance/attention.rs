//! Rows of attention, forward and backward.

use super::layout::{Forest, Layout};
use super::{Row, Trial};
use crate::op::{Attention, AttentionBackward};
use crate::{DType, Op};

/// What an attention is but for its layout.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    pub(super) head_dim: usize,
    pub(super) window: Option<u32>,
    pub(super) softcap: Option<f32>,
}

impl Shape {
    pub(super) fn new(heads: usize, kv_heads: usize, head_dim: usize) -> Self {
        Shape { heads, kv_heads, head_dim, window: None, softcap: None }
    }

    /// Numbers in a row of queries, and of keys.
    pub(super) fn widths(&self) -> (usize, usize) {
        (self.heads * self.head_dim, self.kv_heads * self.head_dim)
    }
}

/// A prompt of three levels among packed rows.
pub(super) const FOREST: &Forest =
    &[(5, None), (70, None), (3, Some(1)), (66, Some(1)), (9, Some(3)), (1, Some(3)), (2, None)];

pub(super) fn add(rows: &mut Vec<Row>) {
    let plain = Shape::new(2, 1, 8);
    let shapes: [(&str, Shape); 9] = [
        ("plain", plain),
        ("heads 9 of 3, dim 64", Shape::new(9, 3, 64)),
        ("dim 6", Shape::new(3, 3, 6)),
        ("dim 96", Shape::new(4, 1, 96)),
        ("dim 128", Shape::new(2, 2, 128)),
        ("window 1", Shape { window: Some(1), ..plain }),
        ("window 70", Shape { window: Some(70), ..plain }),
        ("softcap", Shape { softcap: Some(2.0), ..plain }),
        ("window and softcap", Shape { window: Some(9), softcap: Some(5.0), ..plain }),
    ];
    let forests: [(&str, &'static Forest); 6] = [
        ("one token", &[(1, None)]),
        ("one row", &[(37, None)]),
        ("packed rows", &[(3, None), (64, None), (129, None)]),
        // Tiles have 64 keys, counted from the start of a sequence.
        ("ends of tiles", &[(63, None), (1, Some(0)), (2, Some(0)), (128, None), (127, None)]),
        ("prefix", &[(64, None), (7, Some(0)), (65, Some(0))]),
        ("forest", FOREST),
    ];
    for (shape_name, shape) in shapes {
        for (name, forest) in forests {
            let name = format!("attention {shape_name}, {name}");
            rows.push(Row::new(name, move |t| attention(t, shape, &Layout::of(forest, None))));
        }
        let name = format!("attention {shape_name}, some queries");
        // None in the last child and in the last tree.
        let queries = [2, 4, 30, 75, 77, 78, 140, 152];
        let layout = Layout::of(FOREST, Some(&queries));
        rows.push(Row::new(name, move |t| attention(t, shape, &layout)));
        let name = format!("attention {shape_name}, pages");
        rows.push(Row::new(name, move |t| attention(t, shape, &pages())));
    }
}

/// A cache whose rows lie in pages out of order, some unused, and two decoded tokens.
fn pages() -> Layout {
    let mut layout = Layout { key_rows: 120, trees: vec![0, 1, 2], ..Layout::default() };
    layout.add_span(&[75], &[[40, 30], [8, 32], [100, 14]]);
    layout.add_span(&[0, 3], &[[0, 5]]);
    layout
}

fn attention(t: &mut Trial<'_>, shape: Shape, layout: &Layout) {
    let (q_width, kv_width) = shape.widths();
    let queries = layout.queries();
    let (q, dout) = (t.operands(queries * q_width), t.operands(queries * q_width));
    let k = t.operands(layout.key_rows * kv_width);
    let v = t.operands(layout.key_rows * kv_width);
    let out = t.out(queries * q_width, t.operand());
    let forward = Attention {
        q,
        k,
        v,
        layout: layout.upload(t),
        heads: shape.heads,
        kv_heads: shape.kv_heads,
        head_dim: shape.head_dim,
        scale: 1.5 / (shape.head_dim as f32).sqrt(),
        window: shape.window,
        softcap: shape.softcap,
        out,
        lse: t.out(queries * shape.heads, DType::F32),
    };
    t.run(Op::Attention(forward));
    let dq = t.out(queries * q_width, DType::F32);
    let dk = t.out(layout.key_rows * kv_width, DType::F32);
    let dv = t.out(layout.key_rows * kv_width, DType::F32);
    t.run(Op::AttentionBackward(AttentionBackward { forward, dout, dq, dk, dv }));
    t.keep("out", out);
    t.keep("lse", forward.lse);
    t.keep("dq", dq);
    t.keep("dk", dk);
    t.keep("dv", dv);
}
