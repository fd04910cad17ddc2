//! RMSNorm, Zhang and Sennrich 2019, forward and backward.

use compute::op::{ColumnSums, Op, RmsNorm, RmsNormBackward};
use compute::{Backend, Buffer};

use super::Decoder;
use crate::Result;
use crate::tensor::Vector;

/// A norm as backward sees it.
pub(super) struct NormSite {
    pub(super) weight: Vector,
    /// What it was taken of, f32.
    pub(super) x: Buffer,
    /// From forward.
    pub(super) rstd: Buffer,
    /// Groups of the rows of the stream.
    pub(super) groups: Buffer,
    /// Norms taken of one row of the stream.
    pub(super) rows_each: usize,
}

impl Decoder {
    /// `out = norm(x)` over rows as long as the weight.
    pub(super) fn norm(
        &self,
        backend: &mut dyn Backend,
        weight: Vector,
        x: Buffer,
        rstd: Buffer,
        out: Buffer,
    ) -> Result<()> {
        let weight = weight.buffer();
        let (offset, eps) = (self.config.norm_offset, self.config.rms_norm_eps);
        backend.run(Op::RmsNorm(RmsNorm {
            cols: weight.len,
            x,
            weight,
            offset,
            eps,
            out,
            rstd,
        }))?;
        Ok(())
    }

    /// Adds a norm's gradients: to `dx` and, where it is trained, to its weight's.
    pub(super) fn backward_norm(
        &self,
        backend: &mut dyn Backend,
        site: &NormSite,
        dout: Buffer,
        dx: Buffer,
    ) -> Result<()> {
        let &NormSite { weight, x, rstd, groups, rows_each } = site;
        let cols = weight.buffer().len;
        if let Some(gradient) = weight.gradient() {
            backend.run(Op::ColumnSums(ColumnSums {
                cols,
                a: dout,
                b: Some(x),
                row_scale: Some(rstd),
                divisor: None,
                groups,
                rows_each,
                gradient,
            }))?;
        }
        let (weight, offset) = (weight.buffer(), self.config.norm_offset);
        let op = RmsNormBackward { cols, dout, x, weight, offset, rstd, dx };
        Ok(backend.run(Op::RmsNormBackward(op))?)
    }
}
