//! Single operations over a layer's shapes.

use std::collections::BTreeMap;

use compute::op::{
    Attention, AttentionBackward, AttentionLayout, Head, HeadGradients, HeadOutputs, Linear, Term,
};
use compute::{Backend, Buffer, DType, Op, Quantization, Storage, Weight, WeightSource, random};
use serde_json::json;

use super::clock::median;
use super::row::Row;
use super::subject::Subject;
use super::{Arguments, PRECISION};
use crate::context::Context;
use crate::error::Result;
use crate::memory::{Needed, free_memory};

/// Times that a kernel is measured at least.
const LEAST: usize = 3;

/// Rows of products that are measured.
const ROWS: [usize; 3] = [512, 1024, 2048];

/// Products of a layer, forward and input gradient: one row for each shape, and one for the layer
/// as a whole, weighted by what each has to do.
pub(super) fn products(
    arguments: &Arguments,
    subject: &Subject,
    context: &Context,
) -> Result<Vec<Row>> {
    let config = &subject.base.config;
    let mut shapes: BTreeMap<(usize, usize), usize> = BTreeMap::new();
    for module in config.modules().iter().flat_map(|module| module.parts()) {
        *shapes.entry(config.shape(*module)).or_default() += 1;
    }
    let seconds = 0.25 * arguments.seconds;
    let backend = &mut *context.device(PRECISION)?;
    let mut rows = Vec::new();
    let (mut work, mut time) = (0.0, 0.0);
    for (&(n, k), &count) in &shapes {
        let weight = made_up_weight(backend, n, k, arguments.quantization.quantization())?;
        for m in ROWS {
            for transposed in [false, true] {
                let (inputs, outputs) = if transposed { (n, k) } else { (k, n) };
                let input = operands(backend, m * inputs)?;
                let operand = backend.operand();
                let out = backend.alloc_static(m * outputs, operand)?;
                let terms = [Term { input, weight, transposed }];
                let linear = Linear::product(m, &terms, out);
                let took = median(seconds, LEAST, || backend.run(Op::Linear(&[linear])))?;
                backend.free_static(input);
                backend.free_static(out);
                let flops = 2.0 * (m * n * k) as f64;
                work += count as f64 * flops;
                time += count as f64 * took;
                let direction = if transposed { "input gradient" } else { "forward" };
                rows.push(Row {
                    name: format!("product {m} x {n} x {k} {direction}"),
                    seconds: took,
                    work: Some(flops),
                    more: vec![
                        ("m", m.into()),
                        ("n", n.into()),
                        ("k", k.into()),
                        ("direction", direction.into()),
                        ("count", count.into()),
                    ],
                    ..Row::default()
                });
            }
        }
        backend.unload(weight);
    }
    rows.push(Row {
        name: "all products of a layer".into(),
        seconds: time,
        work: Some(work),
        ..Row::default()
    });
    Ok(rows)
}

/// Attention over rows of their own, forward and backward.
pub(super) fn attention(
    arguments: &Arguments,
    subject: &Subject,
    context: &Context,
) -> Result<Row> {
    let sequences = arguments.sequences_or(&[8])[0];
    let tokens = arguments.tokens_or(256);
    let config = &subject.base.config;
    let (heads, kv_heads) = (config.num_attention_heads, config.num_key_value_heads);
    let head_dim = config.head_dim;
    let backend = &mut *context.device(PRECISION)?;
    let queries = sequences * tokens;
    let spans = (0..sequences).flat_map(|s| [s * tokens, tokens, s, 1]);
    let runs = (0..sequences).flat_map(|s| [s * tokens, tokens]);
    let layout = AttentionLayout {
        query_positions: indices(backend, (0..queries).map(|query| query % tokens))?,
        spans: indices(backend, spans)?,
        runs: indices(backend, runs)?,
        trees: indices(backend, 0..=sequences)?,
        keys_max: tokens,
    };
    let (q_len, k_len) = (queries * heads * head_dim, queries * kv_heads * head_dim);
    let operand = backend.operand();
    let forward = Attention {
        q: operands(backend, q_len)?,
        k: operands(backend, k_len)?,
        v: operands(backend, k_len)?,
        layout,
        heads,
        kv_heads,
        head_dim,
        scale: config.attention_scale,
        window: None,
        softcap: None,
        out: backend.alloc_static(q_len, operand)?,
        lse: backend.alloc_static(queries * heads, DType::F32)?,
    };
    let backward = AttentionBackward {
        forward,
        dout: operands(backend, q_len)?,
        dq: backend.alloc_static(q_len, DType::F32)?,
        dk: backend.alloc_static(k_len, DType::F32)?,
        dv: backend.alloc_static(k_len, DType::F32)?,
    };
    let seconds = 0.25 * arguments.seconds;
    let there = median(seconds, LEAST, || backend.run(Op::Attention(forward)))?;
    let back = median(seconds, LEAST, || backend.run(Op::AttentionBackward(backward)))?;
    // Visible pairs of a query and a key: 4 D forward and 8 D backward for each head.
    let pairs = (sequences * (tokens * (tokens + 1) / 2)) as f64;
    Ok(Row {
        name: format!("attention {sequences} x {tokens}, forward and backward"),
        seconds: there + back,
        tokens: Some(queries as f64),
        work: Some(12.0 * pairs * (heads * head_dim) as f64),
        more: vec![
            ("sequences", sequences.into()),
            ("tokens", tokens.into()),
            ("seconds_forward", there.into()),
            ("seconds_backward", back.into()),
        ],
        ..Row::default()
    })
}

/// Log-probabilities and the gradient of the hidden states in one pass.
pub(super) fn head(arguments: &Arguments, subject: &Subject, context: &Context) -> Result<Row> {
    let reads = 1024;
    let (vocab, size) = (subject.base.config.vocab_size, subject.base.config.hidden_size);
    let backend = &mut *context.device(PRECISION)?;
    let weight = made_up_weight(backend, vocab, size, None)?;
    let hidden = operands(backend, reads * size)?;
    let tokens = (0..reads).map(|read| 7 * read % vocab);
    let gradient = backend.alloc_static(reads, DType::F32)?;
    backend.upload(&vec![-1.0 / reads as f32; reads], gradient)?;
    let outputs = HeadOutputs {
        logprob: Some(backend.alloc_static(reads, DType::F32)?),
        ..Default::default()
    };
    let head = Head {
        reads,
        hidden,
        weight,
        scale: 0.05,
        softcap: None,
        temperature: 1.0,
        target_reads: indices(backend, 0..reads)?,
        target_tokens: indices(backend, tokens)?,
        outputs,
        gradients: HeadGradients { logprob: Some(gradient), ..Default::default() },
        d_hidden: Some(backend.alloc_static(reads * size, DType::F32)?),
        d_weight: None,
    };
    let seconds = median(0.25 * arguments.seconds, LEAST, || backend.run(Op::Head(head)))?;
    Ok(Row {
        name: format!("head over {reads} reads, loss and gradient"),
        seconds,
        tokens: Some(reads as f64),
        work: Some(4.0 * (reads * vocab * size) as f64),
        more: vec![("reads", reads.into()), ("vocab", json!(vocab))],
        ..Row::default()
    })
}

fn made_up_weight(
    backend: &mut dyn Backend,
    rows: usize,
    cols: usize,
    quantization: Option<Quantization>,
) -> Result<Weight> {
    // The numbers in f32, and what is kept of them, which is no larger.
    let needed = 2 * 4 * rows * cols;
    let what = format!("a made-up matrix of {rows} x {cols}");
    Needed { what, kinds: &[("weights", needed)] }
        .require(free_memory(), || "give a smaller model or `--shape`".into())?;
    let number = |i: usize| 0.07 * (random::uniform(random::mix(i as u64)) - 0.5);
    let mut bytes = Vec::with_capacity(4 * rows * cols);
    bytes.extend((0..rows * cols).flat_map(|i| number(i).to_le_bytes()));
    let source = WeightSource { rows, cols, storage: Storage::F32, bytes: &bytes, row_order: None };
    Ok(match quantization {
        Some(quantization) => backend.load_as(source, quantization)?,
        None => backend.load(source)?,
    })
}

/// Operands spread evenly over `[-1, 1)`.
fn operands(backend: &mut dyn Backend, len: usize) -> compute::Result<Buffer> {
    let operand = backend.operand();
    let buffer = backend.alloc_static(len, operand)?;
    let value = |i: usize| 2.0 * random::uniform(random::mix(i as u64)) - 1.0;
    backend.upload(&(0..len).map(value).collect::<Vec<f32>>(), buffer)?;
    Ok(buffer)
}

fn indices(
    backend: &mut dyn Backend,
    values: impl Iterator<Item = usize>,
) -> compute::Result<Buffer> {
    let values: Vec<u32> = values.map(|value| value as u32).collect();
    let buffer = backend.alloc_static(values.len(), DType::U32)?;
    backend.upload_u32(&values, buffer)?;
    Ok(buffer)
}
