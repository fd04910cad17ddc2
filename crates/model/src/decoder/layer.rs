//! One decoder layer, forward and backward.
//!
//! In the last layer queries, MLP and residual run on the reads only (Q = R), keys
//! and values on all T tokens; elsewhere Q = T.

use compute::op::{
    Activation, Attention, AttentionBackward, Dropout, Gated, GatedBackward, Linear, Op, RmsNorm,
    RmsNormBackward, Rope, Rows, Term, WeightGradient,
};
use compute::{Backend, Buffer, DType};

use super::forward::Pass;
use super::inputs::{Queries, Uploaded};
use super::{Decoder, Layer, Module};
use crate::Result;
use crate::adapter::Lora;

/// What backward needs of a layer's forward.
#[derive(Clone)]
pub(super) struct Saved {
    rstd_in: Buffer,
    q: Buffer,
    k: Buffer,
    v: Buffer,
    attended: Buffer,
    lse: Buffer,
    /// The residual stream between attention and MLP, `[Q, C]`.
    middle: Buffer,
    rstd_middle: Buffer,
    gate: Buffer,
    up: Buffer,
    /// `scaling * dropout(x) A^T` of every adapted module, `[rows, rank]`.
    lora: [Option<Buffer>; 7],
}

/// A layer, the batch that runs through it, and how.
pub(super) struct LayerContext<'a> {
    decoder: &'a Decoder,
    layer: &'a Layer,
    index: usize,
    batch: &'a Uploaded,
    pass: &'a Pass<'a>,
    queries: Queries,
    query_rows: usize,
    is_last: bool,
}

impl<'a> LayerContext<'a> {
    pub(super) fn new(
        decoder: &'a Decoder,
        index: usize,
        batch: &'a Uploaded,
        pass: &'a Pass<'a>,
    ) -> Self {
        let is_last = index + 1 == decoder.layers.len();
        LayerContext {
            decoder,
            layer: &decoder.layers[index],
            index,
            batch,
            pass,
            queries: if is_last { batch.last } else { batch.all },
            query_rows: if is_last { batch.read_count } else { batch.rows },
            is_last,
        }
    }

    /// Runs the layer on `input` (`[T, C]`) into `out` (`[Q, C]`).
    pub(super) fn forward(
        &self,
        backend: &mut dyn Backend,
        input: Buffer,
        out: Buffer,
    ) -> Result<Saved> {
        let config = &self.decoder.config;
        let (rows, queries) = (self.batch.rows, self.query_rows);
        let query_size = config.num_attention_heads * config.head_dim;
        let key_size = config.num_key_value_heads * config.head_dim;
        let operand = backend.operand();

        let mut saved = Saved {
            rstd_in: backend.alloc(rows, DType::F32)?,
            q: backend.alloc(queries * query_size, operand)?,
            k: backend.alloc(rows * key_size, operand)?,
            v: backend.alloc(rows * key_size, operand)?,
            attended: backend.alloc(queries * query_size, operand)?,
            lse: backend.alloc(queries * config.num_attention_heads, DType::F32)?,
            middle: backend.alloc(queries * config.hidden_size, DType::F32)?,
            rstd_middle: backend.alloc(queries, DType::F32)?,
            gate: backend.alloc(queries * config.intermediate_size, operand)?,
            up: backend.alloc(queries * config.intermediate_size, operand)?,
            lora: [None; 7],
        };
        for module in Module::ALL {
            if let Some(lora) = self.lora(module) {
                let len = self.module_rows(module) * lora.rank();
                saved.lora[module as usize] = Some(backend.alloc(len, operand)?);
            }
        }

        let mark = backend.mark();
        self.project_qkv(backend, input, &saved)?;
        backend.release(mark);
        if queries == 0 {
            self.keep_keys(backend, &saved)?;
            return Ok(saved);
        }
        self.attend(backend, &saved)?;
        let residual = if self.is_last {
            self.batch.at_reads(backend, input, config.hidden_size)?
        } else {
            input
        };
        self.adapted(
            backend,
            saved.attended,
            &[(Module::O, saved.middle)],
            Some(residual),
            &saved,
        )?;
        backend.release(mark);

        let normed = backend.alloc(queries * config.hidden_size, operand)?;
        self.norm_middle(backend, &saved, normed)?;
        let outs = [(Module::Gate, saved.gate), (Module::Up, saved.up)];
        self.adapted(backend, normed, &outs, None, &saved)?;
        backend.release(mark);
        let product = self.gated(backend, &saved)?;
        self.adapted(backend, product, &[(Module::Down, out)], Some(saved.middle), &saved)?;
        backend.release(mark);
        Ok(saved)
    }

    /// Norm, projections and rotation of queries, keys and values.
    fn project_qkv(&self, backend: &mut dyn Backend, input: Buffer, saved: &Saved) -> Result<()> {
        let rows = self.batch.rows;
        let normed = self.norm_input(backend, input, saved.rstd_in)?;
        let k = backend.alloc(saved.k.len, DType::F32)?;
        let q = backend.alloc(saved.q.len, DType::F32)?;
        if self.is_last {
            self.adapted(backend, normed, &[(Module::K, k), (Module::V, saved.v)], None, saved)?;
            if self.query_rows > 0 {
                let at_reads =
                    self.batch.at_reads(backend, normed, self.decoder.config.hidden_size)?;
                self.adapted(backend, at_reads, &[(Module::Q, q)], None, saved)?;
            }
        } else {
            let outs = [(Module::Q, q), (Module::K, k), (Module::V, saved.v)];
            self.adapted(backend, normed, &outs, None, saved)?;
        }
        let config = &self.decoder.config;
        if self.query_rows > 0 {
            self.rotate(backend, q, saved.q, config.num_attention_heads, self.queries, false)?;
        }
        debug_assert_eq!(k.len, rows * config.num_key_value_heads * config.head_dim);
        self.rotate(backend, k, saved.k, config.num_key_value_heads, self.batch.all, false)
    }

    fn norm_input(&self, backend: &mut dyn Backend, input: Buffer, rstd: Buffer) -> Result<Buffer> {
        let cols = self.decoder.config.hidden_size;
        let operand = backend.operand();
        let out = backend.alloc(self.batch.rows * cols, operand)?;
        backend.run(Op::RmsNorm(RmsNorm {
            cols,
            x: input,
            weight: self.layer.input_norm,
            eps: self.decoder.config.rms_norm_eps,
            out,
            rstd,
        }))?;
        Ok(out)
    }

    fn norm_middle(&self, backend: &mut dyn Backend, saved: &Saved, out: Buffer) -> Result<()> {
        backend.run(Op::RmsNorm(RmsNorm {
            cols: self.decoder.config.hidden_size,
            x: saved.middle,
            weight: self.layer.post_attention_norm,
            eps: self.decoder.config.rms_norm_eps,
            out,
            rstd: saved.rstd_middle,
        }))?;
        Ok(())
    }

    fn gated(&self, backend: &mut dyn Backend, saved: &Saved) -> Result<Buffer> {
        let out = backend.alloc(saved.gate.len, saved.gate.dtype)?;
        let (gate, up) = (saved.gate, saved.up);
        backend.run(Op::Gated(Gated { activation: Activation::Silu, gate, up, out }))?;
        Ok(out)
    }

    fn rotate(
        &self,
        backend: &mut dyn Backend,
        x: Buffer,
        out: Buffer,
        heads: usize,
        queries: Queries,
        inverse: bool,
    ) -> Result<()> {
        let (cos, sin) = (queries.cos, queries.sin);
        let head_dim = self.decoder.config.head_dim;
        backend.run(Op::Rope(Rope { heads, head_dim, x, cos, sin, inverse, out }))?;
        Ok(())
    }

    /// Writes keys and values to the cache, if there is one; returns what queries look at.
    fn keep_keys(&self, backend: &mut dyn Backend, saved: &Saved) -> Result<(Buffer, Buffer)> {
        let Some(slots) = self.batch.slots else { return Ok((saved.k, saved.v)) };
        let cols = self.decoder.config.num_key_value_heads * self.decoder.config.head_dim;
        let (keys, values) = self.batch.cache[self.index];
        backend.run(Op::Scatter(Rows { cols, x: saved.k, index: slots, out: keys }))?;
        backend.run(Op::Scatter(Rows { cols, x: saved.v, index: slots, out: values }))?;
        Ok((keys, values))
    }

    fn attention(&self, saved: &Saved, k: Buffer, v: Buffer) -> Attention {
        let config = &self.decoder.config;
        Attention {
            q: saved.q,
            k,
            v,
            layout: self.queries.layout,
            heads: config.num_attention_heads,
            kv_heads: config.num_key_value_heads,
            head_dim: config.head_dim,
            scale: self.decoder.attention_scale(),
            window: None,
            softcap: None,
            out: saved.attended,
            lse: saved.lse,
        }
    }

    fn attend(&self, backend: &mut dyn Backend, saved: &Saved) -> Result<()> {
        let (k, v) = self.keep_keys(backend, saved)?;
        backend.run(Op::Attention(self.attention(saved, k, v)))?;
        Ok(())
    }

    fn lora(&self, module: Module) -> Option<&'a Lora> {
        self.pass.adapter.and_then(|adapter| adapter.get(self.index, module))
    }

    /// Rows that a module runs on.
    fn module_rows(&self, module: Module) -> usize {
        match module {
            Module::K | Module::V => self.batch.rows,
            _ => self.query_rows,
        }
    }

    /// Linear layers with their adapters over one input. `base` is added to a single output.
    fn adapted(
        &self,
        backend: &mut dyn Backend,
        input: Buffer,
        outs: &[(Module, Buffer)],
        base: Option<Buffer>,
        saved: &Saved,
    ) -> Result<()> {
        let rows = self.module_rows(outs[0].0);
        let dropped = self.dropped(backend, input, outs[0].0)?;
        let low: Vec<(Module, Term)> = outs
            .iter()
            .filter_map(|&(module, _)| Some((module, self.lora(module)?)))
            .map(|(module, lora)| (module, forward_term(dropped, lora.a())))
            .collect();
        let low: Vec<Linear<'_>> = low
            .iter()
            .map(|(module, term)| Linear {
                rows,
                terms: std::slice::from_ref(term),
                scale: self.lora(*module).map_or(1.0, Lora::scaling),
                base: None,
                out: saved.lora[*module as usize].expect("allocated with the adapter"),
            })
            .collect();
        if !low.is_empty() {
            backend.run(Op::Linear(&low))?;
        }
        let mut terms = [[None; 2]; 3];
        for (slot, &(module, _)) in terms.iter_mut().zip(outs) {
            slot[0] = Some(forward_term(input, self.layer.weight(module)));
            if let (Some(lora), Some(low)) = (self.lora(module), saved.lora[module as usize]) {
                slot[1] = Some(forward_term(low, lora.b()));
            }
        }
        let terms: Vec<Vec<Term>> =
            terms.iter().map(|slot| slot.iter().flatten().copied().collect()).collect();
        let linears: Vec<Linear<'_>> = outs
            .iter()
            .zip(&terms)
            .map(|(&(_, out), terms)| Linear { rows, terms, scale: 1.0, base, out })
            .collect();
        backend.run(Op::Linear(&linears))?;
        Ok(())
    }

    /// What dropout leaves of a module's input for its adapter; the input itself without dropout.
    fn dropped(&self, backend: &mut dyn Backend, input: Buffer, module: Module) -> Result<Buffer> {
        let Some(op) = self.dropout(input, module) else { return Ok(input) };
        let out = backend.alloc(input.len, input.dtype)?;
        backend.run(Op::Dropout(Dropout { out, ..op }))?;
        Ok(out)
    }

    /// The dropout of the adapters that read the same input as `module`; in and out are `x`.
    fn dropout(&self, x: Buffer, module: Module) -> Option<Dropout> {
        let p = self.pass.adapter.map_or(0.0, |adapter| adapter.config().dropout);
        let key = self.pass.dropout_key.filter(|_| p > 0.0)?;
        let (group, cols) = match module {
            Module::Q | Module::K | Module::V => (0, self.decoder.config.hidden_size),
            Module::O => {
                (1, self.decoder.config.num_attention_heads * self.decoder.config.head_dim)
            }
            Module::Gate | Module::Up => (2, self.decoder.config.hidden_size),
            Module::Down => (3, self.decoder.config.intermediate_size),
        };
        let row_keys = match module {
            Module::K | Module::V => self.batch.row_keys,
            _ if self.is_last => self.batch.read_keys,
            _ => self.batch.row_keys,
        };
        let key = compute::random::key(&[key, self.index as u64, group]);
        Some(Dropout { cols, x, row_keys, key, p, base: None, out: x })
    }

    /// Takes the gradient `d_out` (`[Q, C]`, f32) of the layer's output back through it.
    ///
    /// Returns d(loss)/d(input), `[T, C]`, if `wants_input`; it may be `d_out` itself, changed.
    pub(super) fn backward(
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

    /// Through MLP and its norm; `d_residual` goes in as the gradient of the layer's
    /// output and comes out as that of the stream before the MLP.
    fn backward_mlp(
        &self,
        backend: &mut dyn Backend,
        saved: &Saved,
        d_residual: Buffer,
    ) -> Result<()> {
        let config = &self.decoder.config;
        let operand = backend.operand();
        let cols = config.hidden_size;
        let queries = self.query_rows;
        let dgate = backend.alloc(saved.gate.len, operand)?;
        let dup = backend.alloc(saved.up.len, operand)?;
        let mark = backend.mark();
        let d_down = cast(backend, d_residual, operand)?;
        let product = self.gated(backend, saved)?;
        let d_product = backend.alloc(product.len, operand)?;
        self.backward_adapted(
            backend,
            product,
            &[(Module::Down, d_down)],
            saved,
            Some(d_product),
            None,
        )?;
        backend.run(Op::GatedBackward(GatedBackward {
            activation: Activation::Silu,
            gate: saved.gate,
            up: saved.up,
            dout: d_product,
            dgate,
            dup,
        }))?;
        backend.release(mark);
        let normed = backend.alloc(queries * cols, operand)?;
        self.norm_middle(backend, saved, normed)?;
        let d_normed = backend.alloc(queries * cols, DType::F32)?;
        let douts = [(Module::Gate, dgate), (Module::Up, dup)];
        self.backward_adapted(backend, normed, &douts, saved, Some(d_normed), None)?;
        backend.run(Op::RmsNormBackward(RmsNormBackward {
            cols,
            dout: d_normed,
            x: saved.middle,
            weight: self.layer.post_attention_norm,
            rstd: saved.rstd_middle,
            dx: d_residual,
        }))?;
        Ok(())
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
        let config = &self.decoder.config;
        let operand = backend.operand();
        let cols = config.hidden_size;
        let rows = self.batch.rows;

        let dq = backend.alloc(saved.q.len, operand)?;
        let dk = backend.alloc(saved.k.len, operand)?;
        let dv = backend.alloc(saved.v.len, operand)?;
        let mark = backend.mark();
        let d_projected = cast(backend, d_residual, operand)?;
        let dout = backend.alloc(saved.attended.len, operand)?;
        self.backward_adapted(
            backend,
            saved.attended,
            &[(Module::O, d_projected)],
            saved,
            Some(dout),
            None,
        )?;
        let (dq_f32, dk_f32, dv_f32) = (
            backend.alloc(dq.len, DType::F32)?,
            backend.alloc(dk.len, DType::F32)?,
            backend.alloc(dv.len, DType::F32)?,
        );
        backend.run(Op::AttentionBackward(AttentionBackward {
            forward: self.attention(saved, saved.k, saved.v),
            dout,
            dq: dq_f32,
            dk: dk_f32,
            dv: dv_f32,
        }))?;
        self.rotate(backend, dq_f32, dq, config.num_attention_heads, self.queries, true)?;
        self.rotate(backend, dk_f32, dk, config.num_key_value_heads, self.batch.all, true)?;
        backend.run(Op::Cast { x: dv_f32, out: dv })?;
        backend.release(mark);

        let normed = self.norm_input(backend, input, saved.rstd_in)?;
        let d_normed =
            if wants_input { Some(backend.alloc(rows * cols, DType::F32)?) } else { None };
        if self.is_last {
            let at_reads = self.batch.at_reads(backend, normed, cols)?;
            let d_at_reads = match d_normed {
                Some(_) => Some(backend.alloc(self.query_rows * cols, DType::F32)?),
                None => None,
            };
            self.backward_adapted(backend, at_reads, &[(Module::Q, dq)], saved, d_at_reads, None)?;
            if let (Some(d_normed), Some(x)) = (d_normed, d_at_reads) {
                backend.run(Op::Fill { out: d_normed, value: 0.0 })?;
                backend.run(Op::Scatter(Rows {
                    cols,
                    x,
                    index: self.batch.reads,
                    out: d_normed,
                }))?;
            }
            let douts = [(Module::K, dk), (Module::V, dv)];
            self.backward_adapted(backend, normed, &douts, saved, d_normed, d_normed)?;
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
        backend.run(Op::RmsNormBackward(RmsNormBackward {
            cols,
            dout: d_normed,
            x: input,
            weight: self.layer.input_norm,
            rstd: saved.rstd_in,
            dx: d_input,
        }))?;
        Ok(())
    }

    /// The gradients of linear layers over one input: of their adapters, and `d_input`
    /// (f32 or operand) if it is wanted, with `base` added.
    fn backward_adapted(
        &self,
        backend: &mut dyn Backend,
        input: Buffer,
        douts: &[(Module, Buffer)],
        saved: &Saved,
        d_input: Option<Buffer>,
        base: Option<Buffer>,
    ) -> Result<()> {
        let rows = self.module_rows(douts[0].0);
        let operand = backend.operand();
        let groups = if self.is_last && !matches!(douts[0].0, Module::K | Module::V) {
            self.batch.read_groups
        } else {
            self.batch.groups
        };
        let adapted: Vec<(Module, Buffer, &Lora)> = douts
            .iter()
            .filter_map(|&(module, dout)| Some((module, dout, self.lora(module)?)))
            .collect();
        let mut lows = Vec::with_capacity(adapted.len());
        for (_, dout, lora) in &adapted {
            let d_low = backend.alloc(rows * lora.rank(), operand)?;
            lows.push((d_low, backward_term(*dout, lora.b())));
        }
        for ((d_low, term), (_, _, lora)) in lows.iter().zip(&adapted) {
            let terms = std::slice::from_ref(term);
            let scale = lora.scaling();
            backend.run(Op::Linear(&[Linear { rows, terms, scale, base: None, out: *d_low }]))?;
        }
        let dropped = if adapted.iter().any(|(_, _, lora)| lora.is_trained()) {
            self.dropped(backend, input, douts[0].0)?
        } else {
            input
        };
        let mut gradients = Vec::with_capacity(2 * adapted.len());
        for ((module, dout, lora), (d_low, _)) in adapted.iter().zip(&lows) {
            let (Some(a), Some(b)) = (lora.a_gradient(), lora.b_gradient()) else { continue };
            let low = saved.lora[*module as usize].expect("allocated with the adapter");
            let (n, k) = self.decoder.config.shape(*module);
            let rank = lora.rank();
            gradients.push(WeightGradient { dy: *dout, x: low, n, k: rank, groups, gradient: b });
            gradients.push(WeightGradient {
                dy: *d_low,
                x: dropped,
                n: rank,
                k,
                groups,
                gradient: a,
            });
        }
        if !gradients.is_empty() {
            backend.run(Op::WeightGradient(&gradients))?;
        }
        let Some(d_input) = d_input else { return Ok(()) };
        let low_terms = lows
            .iter()
            .zip(&adapted)
            .map(|((d_low, _), (_, _, lora))| backward_term(*d_low, lora.a()));
        let mut terms: Vec<Term> = douts
            .iter()
            .map(|&(module, dout)| backward_term(dout, self.layer.weight(module)))
            .collect();
        let dropout = self.dropout(input, douts[0].0).filter(|_| !adapted.is_empty());
        let Some(dropout) = dropout else {
            terms.extend(low_terms);
            let linear = Linear { rows, terms: &terms, scale: 1.0, base, out: d_input };
            backend.run(Op::Linear(&[linear]))?;
            return Ok(());
        };
        // With dropout the adapters' share passes the mask before it joins the rest.
        let low_terms: Vec<Term> = low_terms.collect();
        let masked = backend.alloc(d_input.len, DType::F32)?;
        let linear = Linear { rows, terms: &low_terms, scale: 1.0, base: None, out: masked };
        backend.run(Op::Linear(&[linear]))?;
        let sum = backend.alloc(d_input.len, DType::F32)?;
        backend.run(Op::Dropout(Dropout { x: masked, base, out: sum, ..dropout }))?;
        let linear = Linear { rows, terms: &terms, scale: 1.0, base: Some(sum), out: d_input };
        backend.run(Op::Linear(&[linear]))?;
        Ok(())
    }
}

fn forward_term(input: Buffer, weight: compute::Weight) -> Term {
    Term { input, weight, transposed: false }
}

fn backward_term(input: Buffer, weight: compute::Weight) -> Term {
    Term { input, weight, transposed: true }
}

/// A copy of `x` in the operand type; `x` itself where that is its type.
fn cast(backend: &mut dyn Backend, x: Buffer, operand: DType) -> Result<Buffer> {
    if x.dtype == operand {
        return Ok(x);
    }
    let out = backend.alloc(x.len, operand)?;
    backend.run(Op::Cast { x, out })?;
    Ok(out)
}
