//! From tokens to the final norm at the reads.

use compute::op::{Embed, Op};
use compute::{Backend, Buffer, DType, Mark};
use text::{Batch, Segment};

use super::inputs::{Inputs, Uploaded};
use super::layer::{LayerContext, Saved};
use super::{Decoder, LookupSums};
use crate::{Adapter, Result};

/// How a batch is to be run.
#[derive(Clone, Copy, Default)]
pub struct Pass<'a> {
    /// The adapter over the base; none is the base itself.
    pub adapter: Option<&'a Adapter>,
    /// What it keeps for `backward`.
    pub keep: Keep,
    /// Dropout on the adapter's inputs: the key of this step's masks. None means no dropout.
    pub dropout_key: Option<u64>,
    /// Where lookups are added up, from [`Decoder::begin_step`]; needed where embedding and head are one
    /// matrix that is trained.
    pub lookups: Option<&'a LookupSums>,
}

/// What a forward pass keeps for [`Decoder::backward`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keep {
    /// Nothing: there is no backward pass.
    #[default]
    Nothing,
    /// All activations.
    All,
    /// The residual stream between blocks; what lies within one is recomputed when its gradient is.
    Blocks,
}

impl Keep {
    /// For a pass that goes backward, with blocks recomputed or not.
    pub fn for_backward(recompute: bool) -> Self {
        if recompute { Keep::Blocks } else { Keep::All }
    }
}

/// What a forward pass leaves on the backend's stack.
///
/// Given back by [`Decoder::backward`] or [`Hidden::release`].
pub struct Hidden {
    /// `[R, C]`, operand: the final norm's output at the reads.
    pub normed: Buffer,
    pub(super) uploaded: Uploaded,
    /// The stream's tokens, where backward will ask for them.
    pub(super) tokens: Vec<u32>,
    /// `[R, C]`, f32: the residual stream at the reads.
    pub(super) residual: Buffer,
    /// `[R]`, f32.
    pub(super) rstd: Buffer,
    /// `[R, C]`, f32: d(loss)/d(normed), once the head has made it.
    pub(super) d_normed: Option<Buffer>,
    /// The head's operation as it was last asked, without outputs and gradients.
    pub(super) head: Option<compute::op::Head>,
    pub(super) layers: Vec<Kept>,
    pub(super) start: Mark,
}

/// What was kept of a layer for backward.
pub(super) struct Kept {
    /// The residual stream that went in, `[T, C]`.
    pub(super) input: Buffer,
    /// None: compute it again.
    pub(super) saved: Option<Saved>,
}

impl Hidden {
    /// Number of reads.
    pub fn reads(&self) -> usize {
        self.uploaded.read_count
    }

    /// Gives the memory of a pass back that nobody takes backward.
    pub fn release(self, backend: &mut dyn Backend) {
        backend.release(self.start);
    }
}

impl Decoder {
    /// Runs a batch up to the final norm at its reads.
    pub fn forward(
        &self,
        backend: &mut dyn Backend,
        batch: &Batch,
        pass: &Pass<'_>,
    ) -> Result<Hidden> {
        batch.assert_valid();
        self.config
            .check_length(batch.segments.iter().map(|s| s.sequence_len).max().unwrap_or(0))?;
        self.assert_one_side(batch);
        self.forward_inputs(backend, &Inputs::from_batch(batch), pass)
    }

    /// Panics where a long sequence shares a prefix with a short one: its rotary frequencies are others.
    fn assert_one_side(&self, batch: &Batch) {
        let Some(limit) = self.config.long_beyond() else { return };
        for tree in batch.trees().windows(2) {
            let mut segments = batch.segments[tree[0]..tree[1]].iter();
            let is_long = |segment: &Segment| segment.sequence_len > limit;
            let long = segments.clone().any(is_long);
            assert!(segments.all(|segment| is_long(segment) == long), "a tree is long or short");
        }
    }

    /// The lowest layer that anything trained sits in; 0 where the embedding is.
    pub(super) fn lowest_layer(&self, pass: &Pass<'_>) -> usize {
        if self.wants_embedding_gradient(pass) {
            return 0;
        }
        let adapter = pass.adapter.map_or(usize::MAX, Adapter::lowest_layer);
        self.lowest_trained_layer().min(adapter)
    }

    /// Whether the gradient goes down to the embedding.
    pub(super) fn wants_embedding_gradient(&self, pass: &Pass<'_>) -> bool {
        self.trains_embedding() || pass.adapter.is_some_and(|adapter| adapter.tokens().is_some())
    }

    pub(crate) fn forward_inputs(
        &self,
        backend: &mut dyn Backend,
        inputs: &Inputs,
        pass: &Pass<'_>,
    ) -> Result<Hidden> {
        let start = backend.mark();
        let hidden_size = self.config.hidden_size;
        let uploaded = Uploaded::new(backend, inputs, &self.config, &self.ropes)?;
        let (rows, reads) = (uploaded.rows, uploaded.read_count);
        let operand = backend.operand();
        let residual = backend.alloc(reads * hidden_size, DType::F32)?;
        let normed = backend.alloc(reads * hidden_size, operand)?;
        let rstd = backend.alloc(reads, DType::F32)?;

        let mut stream = backend.alloc(rows * hidden_size, DType::F32)?;
        backend.run(Op::Embed(Embed {
            weight: self.embedding.weight(),
            tokens: uploaded.tokens,
            scale: self.config.embedding_scale,
            out: stream,
        }))?;

        // Two buffers take turns where nothing is kept.
        let mut spare = None;
        let goes_back = pass.keep != Keep::Nothing;
        let wants_tokens = goes_back && self.wants_embedding_gradient(pass);
        let lowest = goes_back.then(|| self.lowest_layer(pass));
        let mut kept = Vec::new();
        let last = self.layers.len() - 1;
        for index in 0..self.layers.len() {
            let keep = lowest.is_some_and(|lowest| index >= lowest);
            let out = match spare.take() {
                _ if index == last => residual,
                Some(buffer) if !keep => buffer,
                _ => backend.alloc(rows * hidden_size, DType::F32)?,
            };

            let context = LayerContext::new(self, index, &uploaded, pass);
            let mark = backend.mark();
            let saved = context.forward(backend, stream, out)?;

            let keeps_all = keep && pass.keep == Keep::All;
            if !keeps_all {
                backend.release(mark);
            }
            if keep {
                kept.push(Kept { input: stream, saved: keeps_all.then_some(saved) });
            } else {
                spare = Some(stream);
            }
            stream = out;
        }

        if reads > 0 {
            self.norm(backend, self.final_norm, residual, rstd, normed)?;
        }
        Ok(Hidden {
            normed,
            uploaded,
            tokens: if wants_tokens { inputs.tokens.clone() } else { Vec::new() },
            residual,
            rstd,
            d_normed: None,
            head: None,
            layers: kept,
            start,
        })
    }
}
