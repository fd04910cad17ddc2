//! What a student learns from a teacher: how far its distributions are from the teacher's, and the gradient.

use std::fmt;

use compute::op::{HeadDivergence, Logits, Op};
use compute::{Backend, Buffer, DType};
use text::Batch;

use super::{Decoder, Hidden, Keep, Pass};
use crate::{Adapter, Result};

/// Which divergence; see [`HeadDivergence`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DivergenceRequest {
    /// The logits of both are divided by it.
    pub temperature: f32,
    /// Share of the teacher in the mixture, 0 to 1.
    pub mix: f32,
}

/// A teacher at the reads of a batch.
#[derive(Clone, Copy)]
pub struct TeacherStates<'a> {
    /// Whose head makes logits of its states.
    pub decoder: &'a Decoder,
    /// `[R, C]` of the teacher: the final norm's output at the student's reads.
    pub normed: &'a [f32],
}

impl Decoder {
    /// The final norm's output at the reads of a batch, `[R, C]`, on the host. A device that takes it back has the bits
    /// that it had. Nothing of the pass is kept.
    pub fn states(
        &self,
        backend: &mut dyn Backend,
        batch: &Batch,
        adapter: Option<&Adapter>,
    ) -> Result<Vec<f32>> {
        let pass = Pass { adapter, keep: Keep::Nothing, dropout_key: None, lookups: None };
        let hidden = self.forward(backend, batch, &pass)?;
        let mut normed = vec![0.0; hidden.normed.len];
        backend.read(hidden.normed, &mut normed)?;
        hidden.release(backend);
        Ok(normed)
    }

    /// The divergence from a teacher at every read of a forward pass, `[R]`, in nats.
    ///
    /// `gradient` holds the derivatives of the loss by them, which do not depend on them: then [`Decoder::backward`]
    /// has what it needs.
    pub fn head_divergence(
        &self,
        backend: &mut dyn Backend,
        hidden: &mut Hidden,
        teacher: TeacherStates<'_>,
        request: &DivergenceRequest,
        gradient: Option<&[f32]>,
        pass: &Pass<'_>,
    ) -> Result<Vec<f32>> {
        let reads = hidden.reads();
        if reads == 0 {
            return Ok(Vec::new());
        }
        let wanted = backend.alloc(teacher.normed.len(), backend.operand())?;
        backend.upload(teacher.normed, wanted)?;
        let divergence = backend.alloc(reads, DType::F32)?;
        let mut op = HeadDivergence {
            reads,
            student: self.logits_of(hidden.normed),
            teacher: teacher.decoder.logits_of(wanted),
            temperature: request.temperature,
            mix: request.mix,
            divergence,
            gradient: None,
            d_hidden: None,
            d_weight: None,
        };
        if let Some(gradient) = gradient {
            let given = backend.alloc(reads, DType::F32)?;
            backend.upload(gradient, given)?;
            let d_hidden = backend.alloc(reads * self.config.hidden_size, DType::F32)?;
            (op.gradient, op.d_hidden) = (Some(given), Some(d_hidden));
            hidden.d_normed = Some(d_hidden);
            op.d_weight = self.head_gradient(backend, hidden, pass)?;
        }
        backend.run(Op::HeadDivergence(op))?;
        let mut divergences = vec![0.0; reads];
        backend.read(divergence, &mut divergences)?;
        Ok(divergences)
    }

    fn logits_of(&self, hidden: Buffer) -> Logits {
        Logits {
            hidden,
            weight: self.head.weight(),
            scale: self.config.logit_scale,
            softcap: self.config.logit_softcap,
        }
    }
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoder").field("config", &self.config).finish_non_exhaustive()
    }
}
