//! What objectives see of a model: log-probabilities of tokens, statistics of
//! the distribution, and the scalar head's numbers per read.

use std::ops::Range;

use compute::op::{self, Linear, Op, Term, WeightGradient};
use compute::{Backend, Buffer, DType};
use text::{Batch, Target};

use super::inputs::upload;
use super::{Decoder, Hidden, Keep, Pass};
use crate::{Result, ScalarHead};

/// What an objective asks of the head.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HeadRequest {
    /// The logits are divided by it.
    pub temperature: f32,
    /// Soft cap on the logits; the model's own where there is none.
    pub softcap: Option<f32>,
    /// Factor on the logits, beside the model's own.
    pub scale: f32,
    /// Which results.
    pub want: Want,
}

/// The results that a head can give.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Want {
    /// Log-probability of every target.
    pub logprob: bool,
    /// Entropy at every read.
    pub entropy: bool,
    /// Log of the sum of exponentials at every read.
    pub lse: bool,
    /// Mean log-probability over the vocabulary at every read.
    pub mean_logprob: bool,
    /// Log of the sum of squared probabilities at every read.
    pub log_sum_sq_probs: bool,
    /// The most likely token at every read.
    pub top1: bool,
    /// The scalar head at every read.
    pub value: bool,
}

impl HeadRequest {
    /// The plain distribution of the model, and of it the log-probability of every target.
    pub fn logprobs() -> Self {
        let want = Want { logprob: true, ..Want::default() };
        HeadRequest { temperature: 1.0, softcap: None, scale: 1.0, want }
    }
}

/// Results on the host; empty where they were not wanted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HeadOutputs {
    /// `[targets]`
    pub logprob: Vec<f32>,
    /// `[R]`
    pub entropy: Vec<f32>,
    /// `[R]`
    pub lse: Vec<f32>,
    /// `[R]`
    pub mean_logprob: Vec<f32>,
    /// `[R]`
    pub log_sum_sq_probs: Vec<f32>,
    /// `[R]`
    pub top1: Vec<u32>,
    /// `[R, N]`, where the scalar head gives N numbers per read.
    pub value: Vec<f32>,
    /// `[R]`: how far the distribution is from a teacher's, where that was asked in place of the others.
    pub divergence: Vec<f32>,
}

/// d(loss)/d(output), shaped as [`HeadOutputs`]; each is optional.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HeadGradients {
    /// `[targets]`
    pub logprob: Option<Vec<f32>>,
    /// `[R]`
    pub entropy: Option<Vec<f32>>,
    /// `[R]`
    pub lse: Option<Vec<f32>>,
    /// `[R]`
    pub mean_logprob: Option<Vec<f32>>,
    /// `[R, N]`
    pub value: Option<Vec<f32>>,
    /// `[R, C]`: by the final norm's output itself.
    pub hidden: Option<Vec<f32>>,
}

impl Decoder {
    /// Computes what `request` wants for `targets` (sorted by read) of a forward pass.
    ///
    /// `known_gradient` holds the derivatives of the loss by the targets' log-probabilities, where they do not
    /// depend on these: then outputs and gradient take one pass over the vocabulary.
    #[allow(clippy::too_many_arguments, reason = "a question has so many parts")]
    pub fn head(
        &self,
        backend: &mut dyn Backend,
        hidden: &mut Hidden,
        targets: &[Target],
        request: &HeadRequest,
        scalar: Option<&ScalarHead>,
        known_gradient: Option<&[f32]>,
        pass: &Pass<'_>,
    ) -> Result<HeadOutputs> {
        let reads = hidden.reads();
        let mut outputs = HeadOutputs::default();
        if reads == 0 {
            return Ok(outputs);
        }
        let read_indices: Vec<u32> = targets.iter().map(|target| target.read).collect();
        let tokens: Vec<u32> = targets.iter().map(|target| target.token).collect();
        let want = request.want;
        let mut op = op::Head {
            reads,
            hidden: hidden.normed,
            weight: self.head.weight(),
            scale: request.scale * self.config.logit_scale,
            softcap: request.softcap.or(self.config.logit_softcap),
            temperature: request.temperature,
            target_reads: upload(backend, &read_indices)?,
            target_tokens: upload(backend, &tokens)?,
            outputs: op::HeadOutputs::default(),
            gradients: op::HeadGradients::default(),
            d_hidden: None,
            d_weight: None,
        };

        // Gradients come later, in a call of their own, unless they are known.
        hidden.head = Some(op);
        let mut float = |wanted: bool, len: usize| -> Result<Option<Buffer>> {
            Ok(if wanted { Some(backend.alloc(len, DType::F32)?) } else { None })
        };
        op.outputs.logprob = float(want.logprob, targets.len())?;
        op.outputs.entropy = float(want.entropy, reads)?;
        op.outputs.lse = float(want.lse, reads)?;
        op.outputs.mean_logprob = float(want.mean_logprob, reads)?;
        op.outputs.log_sum_sq_probs = float(want.log_sum_sq_probs, reads)?;
        if want.top1 {
            op.outputs.top1 = Some(backend.alloc(reads, DType::U32)?);
        }

        if let Some(weights) = known_gradient {
            op.gradients.logprob = Some(upload_f32(backend, weights)?);
            let d_hidden = backend.alloc(reads * self.config.hidden_size, DType::F32)?;
            op.d_hidden = Some(d_hidden);
            hidden.d_normed = Some(d_hidden);
            op.d_weight = self.head_gradient(backend, hidden, pass)?;
        }
        let wants_vocabulary = Want { value: false, ..want } != Want::default();
        // A scalar head alone needs no logits.
        if wants_vocabulary || known_gradient.is_some() {
            backend.run(Op::Head(op))?;
        }

        outputs.logprob = read(backend, op.outputs.logprob)?;
        outputs.entropy = read(backend, op.outputs.entropy)?;
        outputs.lse = read(backend, op.outputs.lse)?;
        outputs.mean_logprob = read(backend, op.outputs.mean_logprob)?;
        outputs.log_sum_sq_probs = read(backend, op.outputs.log_sum_sq_probs)?;
        if let Some(buffer) = op.outputs.top1 {
            outputs.top1 = vec![0; reads];
            backend.read_u32(buffer, &mut outputs.top1)?;
        }
        if want.value {
            let scalar = scalar.expect("a value is wanted, so there is a scalar head");
            let out = backend.alloc(reads * scalar.outputs(), DType::F32)?;
            let weight = scalar.matrix().weight();
            let terms = &[Term { input: hidden.normed, weight, transposed: false }];
            backend.run(Op::Linear(&[Linear::product(reads, terms, out)]))?;
            outputs.value = read(backend, Some(out))?;
        }
        Ok(outputs)
    }

    /// Runs a batch and gives the scalar head at its reads, `[R, N]`. Nothing of the pass is kept.
    pub fn scores(
        &self,
        backend: &mut dyn Backend,
        batch: &Batch,
        scalar: &ScalarHead,
        pass: &Pass<'_>,
    ) -> Result<Vec<f32>> {
        let mut hidden = self.forward(backend, batch, pass)?;
        let want = Want { value: true, ..Want::default() };
        let request = HeadRequest { want, ..HeadRequest::logprobs() };
        let outputs = self.head(backend, &mut hidden, &[], &request, Some(scalar), None, pass);
        hidden.release(backend);
        Ok(outputs?.value)
    }

    /// d(loss)/d(final norm's output), `[R, C]`; the scalar head's own gradient is added to it.
    pub(super) fn head_backward(
        &self,
        backend: &mut dyn Backend,
        hidden: &mut Hidden,
        gradients: &HeadGradients,
        scalar: Option<&ScalarHead>,
        pass: &Pass<'_>,
    ) -> Result<Buffer> {
        let reads = hidden.reads();
        let size = self.config.hidden_size;
        let HeadGradients { logprob, entropy, lse, mean_logprob, value, hidden: direct } =
            gradients;
        let by_vocabulary = [logprob, entropy, lse, mean_logprob].iter().any(|g| g.is_some());
        let d_normed = match hidden.d_normed {
            Some(buffer) => {
                assert!(!by_vocabulary, "the head was already given its gradient");
                buffer
            }
            None => backend.alloc(reads * size, DType::F32)?,
        };
        if by_vocabulary {
            let mut op = hidden.head.expect("the head ran before backward");
            let mut given = |values: &Option<Vec<f32>>| -> Result<Option<Buffer>> {
                values.as_ref().map(|values| upload_f32(backend, values)).transpose()
            };
            op.gradients = op::HeadGradients {
                logprob: given(logprob)?,
                entropy: given(entropy)?,
                lse: given(lse)?,
                mean_logprob: given(mean_logprob)?,
            };
            op.d_hidden = Some(d_normed);
            op.d_weight = self.head_gradient(backend, hidden, pass)?;
            backend.run(Op::Head(op))?;
        } else if hidden.d_normed.is_none() {
            backend.run(Op::Fill { out: d_normed, value: 0.0 })?;
        }
        if let Some(value) = value {
            let scalar = scalar.expect("a gradient of the value needs its head");
            let (matrix, n) = (scalar.matrix(), scalar.outputs());
            let dy = backend.alloc(reads * n, backend.operand())?;
            backend.upload(value, dy)?;
            if let Some(gradient) = matrix.gradient() {
                let (x, groups) = (hidden.normed, hidden.uploaded.read_groups);
                let own = WeightGradient { dy, x, n, k: size, groups, gradient };
                backend.run(Op::WeightGradient(&[own]))?;
            }
            let terms = &[Term { input: dy, weight: matrix.weight(), transposed: true }];
            let base = Some(d_normed);
            let linear = Linear { rows: reads, terms, scale: 1.0, bias: None, base, out: d_normed };
            backend.run(Op::Linear(&[linear]))?;
        }
        if let Some(direct) = direct {
            let x = upload_f32(backend, direct)?;
            backend.run(Op::Accumulate { x, out: d_normed })?;
        }
        Ok(d_normed)
    }

    /// Where the gradient by the head's matrix goes, if it or rows of it are trained.
    pub(super) fn head_gradient(
        &self,
        backend: &mut dyn Backend,
        hidden: &Hidden,
        pass: &Pass<'_>,
    ) -> Result<Option<op::HeadWeightGradient>> {
        if pass.keep == Keep::Nothing {
            return Ok(None);
        }
        let groups = hidden.uploaded.read_groups;
        if let Some(gradient) = self.head.gradient() {
            return Ok(Some(op::HeadWeightGradient { groups, rows: None, gradient }));
        }
        let Some(tokens) = pass.adapter.and_then(|adapter| adapter.tokens()) else {
            return Ok(None);
        };
        let matrix = if self.shares_head() { Some(tokens.embedding) } else { tokens.head };
        let Some(gradient) = matrix.and_then(|rows| rows.gradient()) else { return Ok(None) };
        let rows = Some(upload(backend, &tokens.indices)?);
        Ok(Some(op::HeadWeightGradient { groups, rows, gradient }))
    }

    /// Logits at the reads, `[R, V]`, on the stack, before their soft cap.
    pub(crate) fn logits(&self, backend: &mut dyn Backend, hidden: &Hidden) -> Result<Buffer> {
        self.logits_at(backend, hidden, 0..hidden.reads())
    }

    /// Logits at some of the reads, `[reads, V]`, on the stack, before their soft cap.
    pub(crate) fn logits_at(
        &self,
        backend: &mut dyn Backend,
        hidden: &Hidden,
        reads: Range<usize>,
    ) -> Result<Buffer> {
        let (rows, size) = (reads.len(), self.config.hidden_size);
        let input = hidden.normed.slice(reads.start * size, rows * size);
        let out = backend.alloc(rows * self.config.vocab_size, DType::F32)?;
        let terms = &[Term { input, weight: self.head.weight(), transposed: false }];
        let scale = self.config.logit_scale;
        backend.run(Op::Linear(&[Linear { rows, terms, scale, bias: None, base: None, out }]))?;
        Ok(out)
    }
}

fn upload_f32(backend: &mut dyn Backend, values: &[f32]) -> Result<Buffer> {
    let buffer = backend.alloc(values.len(), DType::F32)?;
    backend.upload(values, buffer)?;
    Ok(buffer)
}

fn read(backend: &mut dyn Backend, buffer: Option<Buffer>) -> Result<Vec<f32>> {
    let Some(buffer) = buffer else { return Ok(Vec::new()) };
    let mut values = vec![0.0; buffer.len];
    backend.read(buffer, &mut values)?;
    Ok(values)
}
