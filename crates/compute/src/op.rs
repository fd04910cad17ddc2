//! The operations of a [`crate::Backend`], at the grain of a transformer block.
//!
//! Shapes stand beside each field: T rows of the stream, R reads, C hidden, H
//! heads, D head size, V vocabulary, K inputs and N outputs of a linear layer.
//! *Operand* is the type that matrix products multiply in
//! ([`crate::Backend::operand`]). Every buffer is dense, row by row. Unless a field says
//! so, an output may not overlap an input.

use crate::{Buffer, Parameter, Weight};

/// One operation. What it borrows need not outlive the call.
#[derive(Clone, Copy, Debug)]
pub enum Op<'a> {
    /// Sets every element (f32 or operand) to a value.
    Fill {
        /// What is set.
        out: Buffer,
        /// To what.
        value: f32,
    },
    /// `out += x`, both f32 of one length.
    Accumulate {
        /// What is added.
        x: Buffer,
        /// To what.
        out: Buffer,
    },
    /// `out = x` in another type: f32 to operand or back.
    Cast {
        /// What is copied.
        x: Buffer,
        /// To where, of the same length.
        out: Buffer,
    },
    /// `out[i] = x[index[i]]` by rows of `cols`, types equal.
    Gather(Rows),
    /// `out[index[i]] = x[i]` by rows of `cols`, types equal, indices distinct; other rows stay.
    Scatter(Rows),
    /// Token embeddings.
    Embed(Embed),
    /// Root-mean-square norm.
    RmsNorm(RmsNorm),
    /// Its gradient.
    RmsNormBackward(RmsNormBackward),
    /// Linear layers; those with a common input may share the work of packing it.
    Linear(&'a [Linear<'a>]),
    /// The gradient of trained matrices.
    WeightGradient(&'a [WeightGradient]),
    /// Cosines and sines of rotary positions.
    RopeTable(RopeTable),
    /// Rotates queries or keys.
    Rope(Rope),
    /// Attention over segments.
    Attention(Attention),
    /// Its gradient.
    AttentionBackward(AttentionBackward),
    /// `out = activation(gate) * up`.
    Gated(Gated),
    /// Its gradient.
    GatedBackward(GatedBackward),
    /// Dropout by hash.
    Dropout(Dropout),
    /// Log-probabilities over the vocabulary and their gradient, in chunks of reads.
    Head(Head),
    /// Draws a token per row of logits.
    Sample(Sample),
    /// Sum of squares of all f32 buffers together, into one f32.
    SumSquares {
        /// What is summed, in this order.
        inputs: &'a [Buffer],
        /// `[1]`.
        out: Buffer,
    },
    /// One AdamW step over trained matrices; clears their gradients.
    AdamW(AdamW<'a>),
    /// Makes the operand copy of trained matrices anew from `master`.
    Refresh(&'a [Parameter]),
}

/// See [`Op::Gather`] and [`Op::Scatter`].
#[derive(Clone, Copy, Debug)]
pub struct Rows {
    /// Numbers in a row.
    pub cols: usize,
    /// Source rows.
    pub x: Buffer,
    /// u32, one per row moved.
    pub index: Buffer,
    /// Destination rows.
    pub out: Buffer,
}

/// `out[t] = scale * weight[tokens[t]]`.
#[derive(Clone, Copy, Debug)]
pub struct Embed {
    /// `[V, C]`.
    pub weight: Weight,
    /// `[T]`, u32, each below V.
    pub tokens: Buffer,
    /// Factor on the embedding (1 for Llama).
    pub scale: f32,
    /// `[T, C]`, f32.
    pub out: Buffer,
}

/// `out = x * rstd * weight` with `rstd = 1 / sqrt(mean(x^2) + eps)` per row.
#[derive(Clone, Copy, Debug)]
pub struct RmsNorm {
    /// C.
    pub cols: usize,
    /// `[T, C]`, f32.
    pub x: Buffer,
    /// `[C]`, f32.
    pub weight: Buffer,
    /// Added to the mean of squares.
    pub eps: f32,
    /// `[T, C]`, operand.
    pub out: Buffer,
    /// `[T]`, f32, kept for backward.
    pub rstd: Buffer,
}

/// Adds the gradient of [`RmsNorm`] with respect to `x` to `dx`.
#[derive(Clone, Copy, Debug)]
pub struct RmsNormBackward {
    /// C.
    pub cols: usize,
    /// `[T, C]`, f32.
    pub dout: Buffer,
    /// `[T, C]`, f32, as in forward.
    pub x: Buffer,
    /// `[C]`, f32.
    pub weight: Buffer,
    /// `[T]`, f32, from forward.
    pub rstd: Buffer,
    /// `[T, C]`, f32, added to.
    pub dx: Buffer,
}

/// One product of a [`Linear`].
#[derive(Clone, Copy, Debug)]
pub struct Term {
    /// `[rows, K]`, operand; K is `weight.cols`, or `weight.rows` when transposed.
    pub input: Buffer,
    /// `[N, K]`; `[K, N]` when transposed.
    pub weight: Weight,
    /// Whether `input` meets the outputs of the weight (the input gradient).
    pub transposed: bool,
}

/// `out = base + scale * sum over terms of input * weight^T`.
///
/// Every element is one chain of f32 additions: the terms in order, K ascending
/// within a term, whatever the number of rows (batch invariance).
#[derive(Clone, Copy, Debug)]
pub struct Linear<'a> {
    /// Rows of every input and of the output.
    pub rows: usize,
    /// At least one; all with the same N.
    pub terms: &'a [Term],
    /// Factor on the sum of the products.
    pub scale: f32,
    /// `[rows, N]`, f32; may be `out` itself.
    pub base: Option<Buffer>,
    /// `[rows, N]`, f32 or operand.
    pub out: Buffer,
}

/// `gradient += dy^T x`.
///
/// Every element is one chain of f32 additions that goes on from the value in `gradient`, rows
/// ascending; a chain takes rows in pairs that never cross a group, so a step gives the
/// same bits however its groups are spread over calls.
#[derive(Clone, Copy, Debug)]
pub struct WeightGradient {
    /// `[rows, N]`, operand.
    pub dy: Buffer,
    /// `[rows, K]`, operand.
    pub x: Buffer,
    /// Outputs.
    pub n: usize,
    /// Inputs.
    pub k: usize,
    /// `[groups + 1]`, u32, ascending: where each group of rows starts, and the number of rows.
    pub groups: Buffer,
    /// `[N, K]`, f32.
    pub gradient: Buffer,
}

/// `cos` and `sin` of `position * inv_freq`, times `scale`.
#[derive(Clone, Copy, Debug)]
pub struct RopeTable {
    /// `[T]`, u32.
    pub positions: Buffer,
    /// `[D / 2]`, f32.
    pub inv_freq: Buffer,
    /// Factor on both (1 but for YaRN-like scalings).
    pub scale: f32,
    /// `[T, D / 2]`, f32.
    pub cos: Buffer,
    /// `[T, D / 2]`, f32.
    pub sin: Buffer,
}

/// Rotates each head's pair `(x[i], x[i + D/2])`, as Hugging Face orders them.
#[derive(Clone, Copy, Debug)]
pub struct Rope {
    /// Heads in a row of `x`.
    pub heads: usize,
    /// D.
    pub head_dim: usize,
    /// `[T, heads, D]`, f32.
    pub x: Buffer,
    /// `[T, D / 2]`, f32.
    pub cos: Buffer,
    /// `[T, D / 2]`, f32.
    pub sin: Buffer,
    /// Rotates back: the gradient of the rotation.
    pub inverse: bool,
    /// `[T, heads, D]`, operand.
    pub out: Buffer,
}

/// Who attends to whom: for every span of queries, the runs of key rows that
/// make up its sequence from position 0 on.
///
/// A key's position is its place in the concatenated runs. A query sees the keys at its own
/// position and before, within the window. All counts are known to the host.
#[derive(Clone, Copy, Debug)]
pub struct AttentionLayout {
    /// `[queries]`, u32: position of each query within its sequence.
    pub query_positions: Buffer,
    /// `[spans, 4]`, u32: first query, number of queries, first run, number of runs.
    pub spans: Buffer,
    /// `[runs, 2]`, u32: first key row, number of rows.
    pub runs: Buffer,
    /// `[trees + 1]`, u32: first span of each tree of segments, and the number of spans.
    /// Spans of different trees share no key row that has a gradient.
    pub trees: Buffer,
    /// The most keys that any span sees.
    pub keys_max: usize,
}

/// Softmax attention with grouped queries.
///
/// Key tiles are aligned to positions (multiples of a fixed length from the
/// start of the sequence), never to rows: so a prefix that is shared, cached or packed
/// gives the same bits as one that is not.
#[derive(Clone, Copy, Debug)]
pub struct Attention {
    /// `[queries, H, D]`, operand.
    pub q: Buffer,
    /// `[key rows, KV, D]`, operand.
    pub k: Buffer,
    /// `[key rows, KV, D]`, operand.
    pub v: Buffer,
    /// Who sees whom.
    pub layout: AttentionLayout,
    /// H, a multiple of `kv_heads`.
    pub heads: usize,
    /// KV.
    pub kv_heads: usize,
    /// D.
    pub head_dim: usize,
    /// Factor on the scores.
    pub scale: f32,
    /// A query at position p sees keys at positions above `p - window` only.
    pub window: Option<u32>,
    /// `softcap * tanh(score / softcap)` before masking.
    pub softcap: Option<f32>,
    /// `[queries, H, D]`, operand.
    pub out: Buffer,
    /// `[queries, H]`, f32: log of the sum of exponentials, kept for backward.
    pub lse: Buffer,
}

/// The gradient of [`Attention`]. `dq`, `dk` and `dv` are overwritten; rows that nobody sees get 0.
#[derive(Clone, Copy, Debug)]
pub struct AttentionBackward {
    /// As in forward, with its results.
    pub forward: Attention,
    /// `[queries, H, D]`, operand.
    pub dout: Buffer,
    /// `[queries, H, D]`, f32.
    pub dq: Buffer,
    /// `[key rows, KV, D]`, f32.
    pub dk: Buffer,
    /// `[key rows, KV, D]`, f32.
    pub dv: Buffer,
}

/// The non-linearity of a gated MLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x * sigmoid(x)`.
    Silu,
    /// GELU with the tanh approximation.
    GeluTanh,
}

/// See [`Op::Gated`].
#[derive(Clone, Copy, Debug)]
pub struct Gated {
    /// Applied to `gate`.
    pub activation: Activation,
    /// `[T, I]`, operand.
    pub gate: Buffer,
    /// `[T, I]`, operand.
    pub up: Buffer,
    /// `[T, I]`, operand.
    pub out: Buffer,
}

/// See [`Op::GatedBackward`].
#[derive(Clone, Copy, Debug)]
pub struct GatedBackward {
    /// Applied to `gate` in forward.
    pub activation: Activation,
    /// `[T, I]`, operand.
    pub gate: Buffer,
    /// `[T, I]`, operand.
    pub up: Buffer,
    /// `[T, I]`, operand.
    pub dout: Buffer,
    /// `[T, I]`, operand.
    pub dgate: Buffer,
    /// `[T, I]`, operand.
    pub dup: Buffer,
}

/// `out = base + x * kept / (1 - p)`, where `kept` is a hash of key, row, position and column.
/// It is its own gradient.
#[derive(Clone, Copy, Debug)]
pub struct Dropout {
    /// C.
    pub cols: usize,
    /// `[T, C]`, f32 or operand.
    pub x: Buffer,
    /// `[T, 3]`, u32: low and high half of the row's identity, position.
    pub row_keys: Buffer,
    /// Hash of seed, purpose, step and module ([`crate::random::key`]).
    pub key: u64,
    /// Share of elements that become 0.
    pub p: f32,
    /// `[T, C]`, f32; may be `out` itself.
    pub base: Option<Buffer>,
    /// `[T, C]`, f32 or operand.
    pub out: Buffer,
}

/// Log-probabilities and statistics of the output distribution at every read,
/// and the gradient of any function of them, without ever holding all logits.
///
/// `z = softcap * tanh(scale * hidden * weight^T / softcap) / temperature`. With
/// `gradients` and outputs in one call there is one pass; with `gradients` alone
/// the logits are computed again.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    /// R.
    pub reads: usize,
    /// `[R, C]`, operand.
    pub hidden: Buffer,
    /// `[V, C]`.
    pub weight: Weight,
    /// Factor on the product (1 for Llama).
    pub scale: f32,
    /// Soft cap on the logits.
    pub softcap: Option<f32>,
    /// The logits are divided by it.
    pub temperature: f32,
    /// `[targets]`, u32, ascending: index of the read.
    pub target_reads: Buffer,
    /// `[targets]`, u32.
    pub target_tokens: Buffer,
    /// What is wanted.
    pub outputs: HeadOutputs,
    /// d(loss)/d(output) of each output that the loss depends on.
    pub gradients: HeadGradients,
    /// `[R, C]`, f32, overwritten; wanted where there are gradients.
    pub d_hidden: Option<Buffer>,
}

/// Results of [`Head`], f32 unless said.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeadOutputs {
    /// `[targets]`: log-probability of each target's token.
    pub logprob: Option<Buffer>,
    /// `[R]`: entropy of the distribution, in nats.
    pub entropy: Option<Buffer>,
    /// `[R]`: log of the sum of exponentials of the logits.
    pub lse: Option<Buffer>,
    /// `[R]`: mean log-probability over the vocabulary.
    pub mean_logprob: Option<Buffer>,
    /// `[R]`: log of the sum of squared probabilities.
    pub log_sum_sq_probs: Option<Buffer>,
    /// `[R]`, u32: the most likely token, the lowest among equals.
    pub top1: Option<Buffer>,
}

/// Gradients that go into [`Head`], shaped as its outputs.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeadGradients {
    /// `[targets]`.
    pub logprob: Option<Buffer>,
    /// `[R]`.
    pub entropy: Option<Buffer>,
    /// `[R]`.
    pub lse: Option<Buffer>,
    /// `[R]`.
    pub mean_logprob: Option<Buffer>,
}

/// Draws one token per row.
///
/// With temperature 0 the most likely token, the lowest among equals. Otherwise the `top_k` most likely
/// tokens (0: all), of these the fewest whose probabilities reach `top_p`, and from
/// them the one at `draw` in order of falling probability.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// V.
    pub vocab: usize,
    /// `[rows, V]`, f32.
    pub logits: Buffer,
    /// `[rows, 4]`, f32: temperature, top_k, top_p, draw in `[0, 1)`.
    pub settings: Buffer,
    /// `[rows]`, u32.
    pub tokens: Buffer,
    /// `[rows]`, f32: log-probability of the drawn token at temperature 1, before top-k and top-p.
    pub logprobs: Buffer,
}

/// AdamW, Loshchilov and Hutter 2019, algorithm 2, as PyTorch computes it.
#[derive(Clone, Copy, Debug)]
pub struct AdamW<'a> {
    /// What is trained.
    pub parameters: &'a [Parameter],
    /// Factor on every gradient (clipping).
    pub gradient_scale: f32,
    /// Step size now.
    pub learning_rate: f32,
    /// Decay of the moments.
    pub betas: [f32; 2],
    /// Added to the root of the second moment.
    pub eps: f32,
    /// Decoupled decay.
    pub weight_decay: f32,
    /// Number of this step, from 1.
    pub step: u32,
}
