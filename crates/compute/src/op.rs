//! The operations of a [`crate::Backend`], at the grain of a transformer block.
//!
//! Shapes stand beside each field: T rows of the stream, R reads, C hidden, H
//! heads, D head size, V vocabulary, K inputs and N outputs of a linear layer.
//! *Operand* is the type that matrix products multiply in
//! ([`crate::Backend::operand`]). Every buffer is dense, row by row. Unless a field says
//! so, an output may not overlap an input.

use crate::{Buffer, Optimizer, Parameter, Weight};

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
    /// `out = scale * x` in another type or the same: f32 to operand or back.
    Cast {
        /// What is copied.
        x: Buffer,
        /// Factor, applied in f32 before rounding.
        scale: f32,
        /// To where, of the same length.
        out: Buffer,
    },
    /// `out[i] = x[index[i]]` by rows of `cols`, types equal.
    Gather(Rows),
    /// `out[index[i]] = x[i]` by rows of `cols`, types equal, indices distinct; other rows stay.
    Scatter(Rows),
    /// Token embeddings.
    Embed(Embed),
    /// Adds rows to the rows that an index names.
    ScatterAdd(ScatterAdd),
    /// Sums over the rows of a stream, per column.
    ColumnSums(ColumnSums),
    /// Scales the columns of a matrix.
    ScaleColumns(ScaleColumns),
    /// What DoRA scales the columns with.
    DoraFactors(DoraFactors),
    /// `out[n]` is the sum of squares of row n of a weight, f32.
    RowSquares {
        /// `[N, K]`.
        weight: Weight,
        /// `[N]`, f32.
        out: Buffer,
    },
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
    /// How far the distribution of one model is from that of another, and the gradient, in chunks of reads.
    HeadDivergence(HeadDivergence),
    /// Draws a token per row of logits.
    Sample(Sample),
    /// Sum of squares of all f32 buffers together, into one f32.
    SumSquares {
        /// What is summed, in this order.
        inputs: &'a [Buffer],
        /// `[1]`.
        out: Buffer,
    },
    /// One optimizer step over what is trained; clears the gradients.
    Optimize(Optimize<'a>),
    /// Makes the operand copy of trained matrices anew from `master`.
    Refresh(&'a [Parameter]),
    /// Overwrites some rows of a matrix in its operand copy.
    WriteRows {
        /// `[N, K]`, kept as operands (not blocks, not looked up in a file).
        weight: Weight,
        /// `[rows]`, u32, distinct.
        index: Buffer,
        /// `[rows, K]`, f32.
        values: Buffer,
    },
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

/// `out[index[i]] += scale * x[i]` for rows `i` ascending, in one chain per element; rows whose index
/// is `u32::MAX` are left out. The gradient of [`Embed`] by its weight.
#[derive(Clone, Copy, Debug)]
pub struct ScatterAdd {
    /// C.
    pub cols: usize,
    /// `[T, C]`, f32.
    pub x: Buffer,
    /// `[T]`, u32; may repeat.
    pub index: Buffer,
    /// Factor on `x`.
    pub scale: f32,
    /// `[rows, C]`, f32, added to.
    pub out: Buffer,
}

/// `gradient[n] += sum over rows t of row_scale[t] * a[t, n] * b[t, n] / divisor[n]`.
///
/// The gradient of biases, norm weights and DoRA's magnitudes. Every element is one chain of f32
/// additions that goes on from the value in `gradient`, rows ascending within a group, groups
/// one after another as in [`WeightGradient`]: the same bits however groups are spread over calls.
#[derive(Clone, Copy, Debug)]
pub struct ColumnSums {
    /// N.
    pub cols: usize,
    /// `[rows, N]`, f32 or operand.
    pub a: Buffer,
    /// `[rows, N]`, f32 or operand; 1 where there is none.
    pub b: Option<Buffer>,
    /// `[rows]`, f32; 1 where there is none.
    pub row_scale: Option<Buffer>,
    /// `[N]`, f32; 1 where there is none.
    pub divisor: Option<Buffer>,
    /// `[groups + 1]`, u32, ascending, as in [`WeightGradient`]; its entries count rows of the stream.
    pub groups: Buffer,
    /// Rows of `a` to one row of the stream: the number of heads where a norm is taken per head.
    pub rows_each: usize,
    /// `[N]`, f32.
    pub gradient: Buffer,
}

/// `out = base + scale * (x * factors + bias)`, factors and bias per column.
#[derive(Clone, Copy, Debug)]
pub struct ScaleColumns {
    /// N.
    pub cols: usize,
    /// `[rows, N]`, f32 or operand.
    pub x: Buffer,
    /// `[N]`, f32.
    pub factors: Buffer,
    /// `[N]`, f32.
    pub bias: Option<Buffer>,
    /// Factor on the scaled columns.
    pub scale: f32,
    /// `[rows, N]`, f32; may be `out` itself.
    pub base: Option<Buffer>,
    /// `[rows, N]`, f32 or operand; may be `x` itself where types are equal.
    pub out: Buffer,
}

/// `norms[n] = |W_n + scaling * (B A)_n|` and `factors[n] = magnitude[n] / norms[n]`, DoRA, Liu et al.
/// 2024, equation 5.
///
/// The norm needs no dense product: `|W_n|^2 + 2 scaling B_n (A W_n) + scaling^2 B_n (A A^T) B_n^T`.
#[derive(Clone, Copy, Debug)]
pub struct DoraFactors {
    /// N.
    pub outputs: usize,
    /// Rank.
    pub rank: usize,
    /// `[N]`, f32: `|W_n|^2`.
    pub squares: Buffer,
    /// `[rank, N]`, f32: `A W^T`.
    pub product: Buffer,
    /// `[rank, rank]`, f32: `A A^T`.
    pub gram: Buffer,
    /// `[N, rank]`, f32.
    pub b: Buffer,
    /// LoRA's scaling.
    pub scaling: f32,
    /// `[N]`, f32.
    pub magnitude: Buffer,
    /// `[N]`, f32.
    pub factors: Buffer,
    /// `[N]`, f32.
    pub norms: Buffer,
}

/// `out = x * rstd * (offset + weight)` with `rstd = 1 / sqrt(mean(x^2) + eps)` per row.
#[derive(Clone, Copy, Debug)]
pub struct RmsNorm {
    /// C.
    pub cols: usize,
    /// `[T, C]`, f32.
    pub x: Buffer,
    /// `[C]`, f32.
    pub weight: Buffer,
    /// Added to the weight (1 for Gemma, else 0).
    pub offset: f32,
    /// Added to the mean of squares.
    pub eps: f32,
    /// `[T, C]`, f32 or operand.
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
    /// As in forward.
    pub offset: f32,
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

/// `out = base + scale * (bias + sum over terms of input * weight^T)`.
///
/// Every element is one chain of f32 additions: the terms in order, K ascending
/// within a term, whatever the number of rows (batch invariance); the bias joins when the sum is complete.
#[derive(Clone, Copy, Debug)]
pub struct Linear<'a> {
    /// Rows of every input and of the output.
    pub rows: usize,
    /// At least one and at most [`TERMS_MAX`](Linear::TERMS_MAX); all with the same N.
    pub terms: &'a [Term],
    /// Factor on the sum of the products and the bias.
    pub scale: f32,
    /// `[N]`, f32.
    pub bias: Option<Buffer>,
    /// `[rows, N]`, f32; may be `out` itself.
    pub base: Option<Buffer>,
    /// `[rows, N]`, f32 or operand.
    pub out: Buffer,
}

impl<'a> Linear<'a> {
    /// The most terms. The input gradient of queries, keys and values has the most: three for the layers, three
    /// for each adapter over them.
    pub const TERMS_MAX: usize = 16;

    /// The sum of products alone: scale 1, no bias, no base.
    pub fn product(rows: usize, terms: &'a [Term], out: Buffer) -> Self {
        Linear { rows, terms, scale: 1.0, bias: None, base: None, out }
    }

    /// How many linears from the first on touch no result of each other.
    pub(crate) fn independent(list: &[Linear<'_>]) -> usize {
        let overlaps = |a: Buffer, b: Buffer| {
            let end = |buffer: Buffer| buffer.offset + buffer.len * buffer.dtype.size();
            a.region == b.region && a.offset < end(b) && b.offset < end(a)
        };
        let needs = |linear: &Linear<'_>, out: Buffer| {
            let inputs = linear.terms.iter().map(|term| term.input);
            inputs
                .chain(linear.bias)
                .chain(linear.base)
                .chain([linear.out])
                .any(|input| overlaps(input, out))
        };
        let apart = |a: &Linear<'_>, b: &Linear<'_>| !needs(a, b.out) && !needs(b, a.out);
        let free = |&index: &usize| list[..index].iter().all(|before| apart(before, &list[index]));
        (1..list.len()).take_while(free).count() + 1
    }

    /// Panics where the number of terms is not what every device takes. Counting devices ask as well, so a plan
    /// stops before a kernel does.
    pub(crate) fn assert_terms(&self) {
        let (count, most) = (self.terms.len(), Self::TERMS_MAX);
        assert!((1..=most).contains(&count), "linear: {count} terms, a product takes 1 to {most}");
    }
}

/// `gradient += dy^T x`.
///
/// Every element is one chain of f32 additions that goes on from the value in `gradient`, rows
/// ascending; a chain takes rows in pairs that never cross a group, so a step gives the
/// same bits however its groups are spread over calls. Entries of one call may share `gradient` (with
/// its N and K): each group is then taken from all of them, in the order of the list, before the next.
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
    /// `[R / 2]`, f32.
    pub inv_freq: Buffer,
    /// Factor on both (1 but for YaRN-like scalings).
    pub scale: f32,
    /// `[T, R / 2]`, f32.
    pub cos: Buffer,
    /// `[T, R / 2]`, f32.
    pub sin: Buffer,
}

/// Rotates each head's pair `(x[i], x[i + R/2])` of its first R numbers, as Hugging Face orders them; the
/// others pass as they are.
#[derive(Clone, Copy, Debug)]
pub struct Rope {
    /// Heads in a row of `x`.
    pub heads: usize,
    /// D.
    pub head_dim: usize,
    /// R, even, at most D.
    pub rotary_dim: usize,
    /// `[T, heads, D]`, f32.
    pub x: Buffer,
    /// `[T, R / 2]`, f32.
    pub cos: Buffer,
    /// `[T, R / 2]`, f32.
    pub sin: Buffer,
    /// Rotates back: the gradient of the rotation.
    pub inverse: bool,
    /// `[T, heads, D]`, f32 or operand.
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
    /// `[key rows, KV, D]`, operand. Rows that no run names are not read.
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
    /// Where the gradient by the weight goes, if the weight is trained and there are gradients.
    pub d_weight: Option<HeadWeightGradient>,
}

/// How far a student's distribution `p` is from a teacher's `q` at every read, in nats: the generalised Jensen-Shannon
/// divergence of Agarwal et al. 2023 (2306.13649, eq. 1),
/// `mix KL(q || m) + (1 - mix) KL(p || m)` with `m = mix q + (1 - mix) p`. By convention `mix` 0 is `KL(q || p)`, and 1 is
/// `KL(p || q)`.
///
/// `p = softmax(softcap * tanh(scale * hidden * weight^T / softcap) / temperature)`, and `q` alike. Where one vocabulary is
/// larger (padded, say), both are distributions over the tokens that the two have.
#[derive(Clone, Copy, Debug)]
pub struct HeadDivergence {
    /// R.
    pub reads: usize,
    /// The model that learns.
    pub student: Logits,
    /// The one that it learns from.
    pub teacher: Logits,
    /// The logits of both are divided by it.
    pub temperature: f32,
    /// From 0 to 1.
    pub mix: f32,
    /// `[R]`, f32.
    pub divergence: Buffer,
    /// `[R]`, f32: d(loss)/d(divergence).
    pub gradient: Option<Buffer>,
    /// `[R, C]` of the student, f32, overwritten; wanted where there is a gradient.
    pub d_hidden: Option<Buffer>,
    /// Where the gradient by the student's weight goes, if it is trained and there is a gradient.
    pub d_weight: Option<HeadWeightGradient>,
}

/// What a model's logits are made of.
#[derive(Clone, Copy, Debug)]
pub struct Logits {
    /// `[R, C]`, operand.
    pub hidden: Buffer,
    /// `[V, C]`.
    pub weight: Weight,
    /// Factor on the product (1 for Llama).
    pub scale: f32,
    /// Soft cap on the logits.
    pub softcap: Option<f32>,
}

/// The gradient of [`Head`] by its weight: `gradient += d_logits^T hidden`, with the rules of [`WeightGradient`].
#[derive(Clone, Copy, Debug)]
pub struct HeadWeightGradient {
    /// `[groups + 1]`, u32, ascending: where each group of reads starts, and R.
    pub groups: Buffer,
    /// `[rows]`, u32, ascending and distinct: the rows of the weight that are trained; all V where there is none.
    pub rows: Option<Buffer>,
    /// `[V, C]` or `[rows, C]`, f32, added to.
    pub gradient: Buffer,
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

/// Draws one token per row, and says how likely it was.
///
/// The draw: tokens that are not allowed are left out, the logits of `seen` tokens are divided by the
/// repetition penalty where positive and multiplied by it elsewhere (Keskar et al. 2019). With
/// temperature 0 the most likely token is taken, the lowest among equals. Otherwise the `top_k` most likely tokens
/// (0: all), of these the fewest whose probabilities reach `top_p`, of these such as have at least
/// `min_p` times the probability of the most likely one, and from them the one at `draw` in order of
/// falling probability.
///
/// Log-probabilities are those of the model itself at the row's temperature (1 where it is 0), before all
/// this, computed as [`Head`] computes them: what training says of the same token has the same bits.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// V.
    pub vocab: usize,
    /// `[rows, V]`, f32.
    pub logits: Buffer,
    /// `softcap * tanh(logit / softcap)` before all else.
    pub softcap: Option<f32>,
    /// `[rows, SETTINGS]`, f32: temperature, top_k, top_p, min_p, repetition penalty (1: none), draw in `[0, 1)`.
    pub settings: Buffer,
    /// `[rows, V / 32 rounded up]`, u32: bit `t % 32` of word `t / 32` allows token t, at least one a row; all are
    /// allowed where there is none.
    pub allowed: Option<Buffer>,
    /// The same shape: tokens that the repetition penalty applies to.
    pub seen: Option<Buffer>,
    /// `[rows]`, u32.
    pub tokens: Buffer,
    /// `[rows]`, f32: log-probability of the drawn token.
    pub logprobs: Buffer,
    /// The most likely tokens of every row.
    pub top: Option<SampleTop>,
}

impl Sample {
    /// Numbers in a row of [`settings`](Sample::settings).
    pub const SETTINGS: usize = 6;
}

/// The most likely tokens of the model itself, falling, the lower token first among equals.
#[derive(Clone, Copy, Debug)]
pub struct SampleTop {
    /// `[rows, count]`, u32.
    pub tokens: Buffer,
    /// `[rows, count]`, f32.
    pub logprobs: Buffer,
}

/// One step of an optimizer.
#[derive(Clone, Copy, Debug)]
pub struct Optimize<'a> {
    /// What is trained; all were loaded for [`Optimizer::kind`].
    pub parameters: &'a [Parameter],
    /// How.
    pub optimizer: Optimizer,
    /// Factor on every gradient (clipping).
    pub gradient_scale: f32,
    /// Step size now.
    pub learning_rate: f32,
    /// Decoupled decay: `value *= 1 - learning_rate * weight_decay` before the update; coupled in
    /// [`Optimizer::Sgd`].
    pub weight_decay: f32,
    /// Number of this step, from 1.
    pub step: u32,
}
