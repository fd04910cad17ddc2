//! From the objective's derivatives down to the adapter's matrices.

use compute::op::{Op, ScatterAdd};
use compute::{Backend, Buffer, DType};

use super::Decoder;
use super::forward::{Hidden, Keep, Kept, Pass};
use super::head::HeadGradients;
use super::inputs::upload;
use super::layer::LayerContext;
use super::lookups::Of;
use super::norm::NormSite;
use crate::{Result, ScalarHead};

impl Decoder {
    /// Adds the gradient of every trained matrix of `pass.adapter` (and of `scalar`) to what it holds, and
    /// gives back the memory of the pass.
    ///
    /// `gradients` are the derivatives of the loss by the head's outputs; they are left
    /// out where [`Decoder::head`] was already given them.
    ///
    /// # Panics
    /// If the pass kept nothing.
    pub fn backward(
        &self,
        backend: &mut dyn Backend,
        mut hidden: Hidden,
        gradients: &HeadGradients,
        scalar: Option<&ScalarHead>,
        pass: &Pass<'_>,
    ) -> Result<()> {
        assert!(pass.keep != Keep::Nothing, "backward of a pass that kept nothing");
        if hidden.reads() == 0 {
            hidden.release(backend);
            return Ok(());
        }

        let d_normed = self.head_backward(backend, &mut hidden, gradients, scalar, pass)?;
        let size = self.config.hidden_size;
        let mut d_out = backend.alloc(hidden.reads() * size, DType::F32)?;
        backend.run(Op::Fill { out: d_out, value: 0.0 })?;
        let site = NormSite {
            weight: self.final_norm,
            x: hidden.residual,
            rstd: hidden.rstd,
            groups: hidden.uploaded.read_groups,
            rows_each: 1,
        };
        self.backward_norm(backend, &site, d_normed, d_out)?;

        // The last layer turns a gradient at the reads into one of the whole stream; below it is changed in place.
        let d_stream = backend.alloc(hidden.uploaded.rows * size, DType::F32)?;
        let lowest = self.layers.len() - hidden.layers.len();
        let wants_embedding = self.wants_embedding_gradient(pass);
        let kept = std::mem::take(&mut hidden.layers);
        for (index, Kept { input, saved }) in kept.into_iter().enumerate().rev() {
            let layer = lowest + index;
            let context = LayerContext::new(self, layer, &hidden.uploaded, pass);
            let mark = backend.mark();
            let saved = match saved {
                Some(saved) => saved,
                None => self.recompute(backend, &context, input, d_out.len)?,
            };
            let wants_input = index > 0 || wants_embedding;
            context.backward(backend, input, &saved, d_out, d_stream, wants_input)?;
            backend.release(mark);
            d_out = d_stream;
        }

        if wants_embedding {
            self.backward_embedding(backend, &hidden, d_stream, pass)?;
        }
        hidden.release(backend);
        Ok(())
    }

    /// Adds the gradient of the stream's beginning to the rows of the embedding that it was made of.
    fn backward_embedding(
        &self,
        backend: &mut dyn Backend,
        hidden: &Hidden,
        x: Buffer,
        pass: &Pass<'_>,
    ) -> Result<()> {
        let scale = self.config.embedding_scale;
        let cols = self.config.hidden_size;
        let base = self.embedding.gradient().map(|out| (Of::Base, hidden.tokens.clone(), out));
        let adapter = pass.adapter.and_then(|adapter| adapter.tokens()).and_then(|tokens| {
            Some((Of::Adapter, tokens.rows_of(&hidden.tokens), tokens.embedding.gradient()?))
        });
        for (of, rows, out) in base.into_iter().chain(adapter) {
            let (rows, out) = self.lookups(pass.lookups, of, rows, out);
            let index = upload(backend, &rows)?;
            backend.run(Op::ScatterAdd(ScatterAdd { cols, x, index, scale, out }))?;
        }
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
