//! From the objective's derivatives down to the adapter's matrices.

use compute::op::{Op, RmsNormBackward};
use compute::{Backend, DType};

use super::forward::{Hidden, Kept, Pass};
use super::head::HeadGradients;
use super::layer::LayerContext;
use super::{Decoder, ScalarHead};
use crate::Result;

impl Decoder {
    /// Adds the gradient of every trained matrix of `pass.adapter` (and of `scalar`) to what it holds, and
    /// gives back the memory of the pass.
    ///
    /// `gradients` are the derivatives of the loss by the head's outputs; they are left
    /// out where [`Decoder::head`] was already given them.
    ///
    /// # Panics
    /// If the pass was not run with `keep`.
    pub fn backward(
        &self,
        backend: &mut dyn Backend,
        mut hidden: Hidden,
        gradients: &HeadGradients,
        scalar: Option<&ScalarHead>,
        pass: &Pass<'_>,
    ) -> Result<()> {
        assert!(pass.keep, "backward of a pass that kept nothing");
        if hidden.reads() == 0 {
            hidden.release(backend);
            return Ok(());
        }
        let d_normed = self.head_backward(backend, &mut hidden, gradients, scalar)?;
        let size = self.config.hidden_size;
        let mut d_out = backend.alloc(hidden.reads() * size, DType::F32)?;
        backend.run(Op::Fill { out: d_out, value: 0.0 })?;
        backend.run(Op::RmsNormBackward(RmsNormBackward {
            cols: size,
            dout: d_normed,
            x: hidden.residual,
            weight: self.norm,
            rstd: hidden.rstd,
            dx: d_out,
        }))?;
        // The last layer turns a gradient at the reads into one of the whole stream; below it is changed in place.
        let d_stream = backend.alloc(hidden.uploaded.rows * size, DType::F32)?;
        let lowest = self.layers.len() - hidden.layers.len();
        let kept = std::mem::take(&mut hidden.layers);
        for (index, Kept { input, saved }) in kept.into_iter().enumerate().rev() {
            let layer = lowest + index;
            let context = LayerContext::new(self, layer, &hidden.uploaded, pass);
            let mark = backend.mark();
            let saved = match saved {
                Some(saved) => saved,
                None => self.recompute(backend, &context, input, d_out.len)?,
            };
            context.backward(backend, input, &saved, d_out, d_stream, index > 0)?;
            backend.release(mark);
            d_out = d_stream;
        }
        hidden.release(backend);
        Ok(())
    }

    fn recompute(
        &self,
        backend: &mut dyn Backend,
        context: &LayerContext<'_>,
        input: compute::Buffer,
        out_len: usize,
    ) -> Result<super::layer::Saved> {
        let out = backend.alloc(out_len, DType::F32)?;
        context.forward(backend, input, out)
    }
}
