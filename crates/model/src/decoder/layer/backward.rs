//! A decoder layer's derivatives.

use compute::op::{AttentionBackward, GatedBackward, Op, Rows, WeightGradient};
use compute::{Backend, Buffer, DType};

use super::super::norm::NormSite;
use super::linear::add_gradients;
use super::{LayerContext, Module, Normed, Saved};
use crate::Result;
use crate::config::QkNorm;
use crate::tensor::Vector;

impl LayerContext<'_> {
    /// Takes the gradient `d_out` (`[Q, C]`, f32) of the layer's output back through it.
    ///
    /// d(loss)/d(input), `[T, C]`, goes to `d_input` if `wants_input`; it may be `d_out` itself, changed.
    pub(in crate::decoder) fn backward(
        &self,
        backend: &mut dyn Backend,
        input: Buffer,
        saved: &Saved,
        d_out: Buffer,
        d_input: Buffer,
        wants_input: bool,
    ) -> Result<()> {
        let mark = backend.mark();
        self.backward_mlp(backend, saved, d_out)?;
        backend.release(mark);
        self.backward_attention(backend, input, saved, d_out, d_input, wants_input)?;
        backend.release(mark);
        Ok(())
    }

    /// Through the MLP; `d_residual` goes in as the gradient of the layer's
    /// output and comes out as that of the stream before the MLP.
    fn backward_mlp(
        &self,
        backend: &mut dyn Backend,
        saved: &Saved,
        d_residual: Buffer,
    ) -> Result<()> {
        let config = &self.decoder.config;
        let operand = backend.operand();
        let dgate = backend.alloc(saved.gate.len, operand)?;
        let dup = backend.alloc(saved.up.len, operand)?;
        let mark = backend.mark();
        let d_down =
            self.branch_gradient(backend, d_residual, self.layer.mlp_out, saved.mlp_out)?;
        let product = self.gated(backend, saved)?;
        let d_product = backend.alloc(product.len, operand)?;
        let douts = [(Module::Down, d_down)];
        self.backward_adapted(backend, product, &douts, saved, Some(d_product), None)?;
        backend.run(Op::GatedBackward(GatedBackward {
            activation: config.activation,
            gate: saved.gate,
            up: saved.up,
            dout: d_product,
            dgate,
            dup,
        }))?;
        backend.release(mark);
        let normed = self.mlp_input(backend, saved)?;
        let d_normed = backend.alloc(saved.middle.len, DType::F32)?;
        let douts = [(Module::Gate, dgate), (Module::Up, dup)];
        self.backward_adapted(backend, normed, &douts, saved, Some(d_normed), None)?;
        let groups = self.module_groups(Module::Gate);
        let (x, rstd) = (saved.middle, saved.rstd_middle);
        self.join(backend, self.layer.mlp_in, x, rstd, groups, d_normed, d_residual)
    }

    fn backward_attention(
        &self,
        backend: &mut dyn Backend,
        input: Buffer,
        saved: &Saved,
        d_residual: Buffer,
        d_input: Buffer,
        wants_input: bool,
    ) -> Result<()> {
        let operand = backend.operand();
        let cols = self.decoder.config.hidden_size;
        let dq = backend.alloc(saved.q.len, operand)?;
        let dk = backend.alloc(saved.k.len, operand)?;
        let dv = backend.alloc(saved.v.len, operand)?;
        let mark = backend.mark();
        self.backward_scores(backend, saved, d_residual, [dq, dk, dv])?;
        backend.release(mark);

        let normed = self.attention_input(backend, input, saved)?;
        // A norm's own gradient needs that of its output, wanted below or not.
        let trains_norm = self.layer.attention_in.is_some_and(|norm| norm.gradient().is_some());
        let d_normed = match wants_input || trains_norm {
            true => Some(backend.alloc(self.batch.rows * cols, DType::F32)?),
            false => None,
        };
        if self.is_last {
            let mut gradients = self.backward_reads(backend, normed, dq, saved, d_normed)?;
            let douts = [(Module::K, dk), (Module::V, dv)];
            let others = self.backward_products(backend, normed, &douts, saved, d_normed, d_normed);
            gradients.extend(others?);
            add_gradients(backend, &gradients)?;
        } else {
            let douts = [(Module::Q, dq), (Module::K, dk), (Module::V, dv)];
            self.backward_adapted(backend, normed, &douts, saved, d_normed, None)?;
        }
        let Some(d_normed) = d_normed else { return Ok(()) };
        if self.is_last {
            backend.run(Op::Fill { out: d_input, value: 0.0 })?;
            let x = d_residual;
            backend.run(Op::Scatter(Rows { cols, x, index: self.batch.reads, out: d_input }))?;
        }
        let groups = self.batch.groups;
        let rstd = saved.rstd_in;
        self.join(backend, self.layer.attention_in, input, rstd, groups, d_normed, d_input)
    }

    /// From the attention's output to its queries, keys and values as they were projected.
    fn backward_scores(
        &self,
        backend: &mut dyn Backend,
        saved: &Saved,
        d_residual: Buffer,
        [dq, dk, dv]: [Buffer; 3],
    ) -> Result<()> {
        let config = &self.decoder.config;
        let layer = self.layer;
        let d_projected =
            self.branch_gradient(backend, d_residual, layer.attention_out, saved.attention_out)?;
        let dout = backend.alloc(saved.attended.len, backend.operand())?;
        let douts = [(Module::O, d_projected)];
        self.backward_adapted(backend, saved.attended, &douts, saved, Some(dout), None)?;
        let [dq_f32, dk_f32, dv_f32] = [
            backend.alloc(dq.len, DType::F32)?,
            backend.alloc(dk.len, DType::F32)?,
            backend.alloc(dv.len, DType::F32)?,
        ];
        backend.run(Op::AttentionBackward(AttentionBackward {
            forward: self.attention(saved, saved.k, saved.v),
            dout,
            dq: dq_f32,
            dk: dk_f32,
            dv: dv_f32,
        }))?;
        backend.run(Op::Cast { x: dv_f32, scale: 1.0, out: dv })?;
        let (heads, kv_heads) = (config.num_attention_heads, config.num_key_value_heads);
        let site = self.head_norm(layer.q_norm, saved.q_norm, heads, Module::Q);
        self.backward_heads(backend, dq_f32, dq, heads, self.queries, site)?;
        let site = self.head_norm(layer.k_norm, saved.k_norm, kv_heads, Module::K);
        self.backward_heads(backend, dk_f32, dk, kv_heads, &self.batch.all, site)
    }

    fn head_norm(
        &self,
        weight: Option<Vector>,
        normed: Option<Normed>,
        heads: usize,
        module: Module,
    ) -> Option<NormSite> {
        let (weight, Normed { x, rstd }) = (weight?, normed?);
        let per_head = self.decoder.config.qk_norm == Some(QkNorm::Head);
        let rows_each = if per_head { heads } else { 1 };
        Some(NormSite { weight, x, rstd, groups: self.module_groups(module), rows_each })
    }

    /// Rotates a gradient back and takes it through the norm of queries or keys.
    fn backward_heads(
        &self,
        backend: &mut dyn Backend,
        rotated: Buffer,
        out: Buffer,
        heads: usize,
        queries: &super::Queries,
        site: Option<NormSite>,
    ) -> Result<()> {
        let Some(site) = site else {
            return self.rotate(backend, rotated, out, heads, queries, true);
        };
        let dout = backend.alloc(rotated.len, DType::F32)?;
        self.rotate(backend, rotated, dout, heads, queries, true)?;
        let dx = backend.alloc(rotated.len, DType::F32)?;
        backend.run(Op::Fill { out: dx, value: 0.0 })?;
        self.decoder.backward_norm(backend, &site, dout, dx)?;
        Ok(backend.run(Op::Cast { x: dx, scale: 1.0, out })?)
    }

    /// The last layer's queries, which were projected at the reads: their share of `d_normed`.
    fn backward_reads(
        &self,
        backend: &mut dyn Backend,
        normed: Buffer,
        dq: Buffer,
        saved: &Saved,
        d_normed: Option<Buffer>,
    ) -> Result<Vec<WeightGradient>> {
        let cols = self.decoder.config.hidden_size;
        let at_reads = self.batch.at_reads(backend, normed, cols)?;
        let d_at_reads = match d_normed {
            Some(_) => Some(backend.alloc(self.query_rows * cols, DType::F32)?),
            None => None,
        };
        let douts = [(Module::Q, dq)];
        let gradients =
            self.backward_products(backend, at_reads, &douts, saved, d_at_reads, None)?;
        if let (Some(out), Some(x)) = (d_normed, d_at_reads) {
            backend.run(Op::Fill { out, value: 0.0 })?;
            backend.run(Op::Scatter(Rows { cols, x, index: self.batch.reads, out }))?;
        }
        Ok(gradients)
    }

    /// The gradient of a branch's linear layer from that of the stream: through the norm behind it, if
    /// there is one, and the factor on the branch. An operand.
    fn branch_gradient(
        &self,
        backend: &mut dyn Backend,
        d_residual: Buffer,
        norm: Option<Vector>,
        normed: Option<Normed>,
    ) -> Result<Buffer> {
        let scale = self.decoder.config.residual_scale;
        let mut x = d_residual;
        if let (Some(weight), Some(Normed { x: out, rstd })) = (norm, normed) {
            x = backend.alloc(d_residual.len, DType::F32)?;
            backend.run(Op::Fill { out: x, value: 0.0 })?;
            let groups = self.module_groups(Module::Down);
            let site = NormSite { weight, x: out, rstd, groups, rows_each: 1 };
            self.decoder.backward_norm(backend, &site, d_residual, x)?;
        }
        if x.dtype == backend.operand() && scale == 1.0 {
            return Ok(x);
        }
        let out = backend.alloc(x.len, backend.operand())?;
        backend.run(Op::Cast { x, scale, out })?;
        Ok(out)
    }

    /// Adds the gradient of a branch's input to that of the stream it was taken from.
    #[allow(clippy::too_many_arguments, reason = "one call for each of the two branches")]
    fn join(
        &self,
        backend: &mut dyn Backend,
        norm: Option<Vector>,
        x: Buffer,
        rstd: Buffer,
        groups: Buffer,
        d_normed: Buffer,
        d_stream: Buffer,
    ) -> Result<()> {
        match norm {
            Some(weight) => {
                let site = NormSite { weight, x, rstd, groups, rows_each: 1 };
                self.decoder.backward_norm(backend, &site, d_normed, d_stream)
            }
            None => Ok(backend.run(Op::Accumulate { x: d_normed, out: d_stream })?),
        }
    }
}
