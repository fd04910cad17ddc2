//! One decoder layer, forward and backward.
//!
//! In the last layer queries, MLP and residual run on the reads only (Q = R), keys
//! and values on all T tokens; elsewhere Q = T.

mod backward;
mod linear;

use compute::op::{Attention, Gated, Op, Rope, Rows};
use compute::{Backend, Buffer, DType};

use super::forward::Pass;
use super::inputs::{Queries, Uploaded};
use super::{Decoder, Layer, Module};
use crate::Result;
use crate::config::QkNorm;
use crate::tensor::Vector;
use linear::Output;

/// What backward needs of a layer's forward.
#[derive(Clone)]
pub(super) struct Saved {
    rstd_in: Buffer,
    q: Buffer,
    k: Buffer,
    v: Buffer,
    /// Queries and keys before their norm, where there is one.
    q_norm: Option<Normed>,
    k_norm: Option<Normed>,
    attended: Buffer,
    lse: Buffer,
    /// What attention adds to the stream before its norm, where there is one.
    attention_out: Option<Normed>,
    /// The residual stream between attention and MLP, `[Q, C]`.
    middle: Buffer,
    rstd_middle: Buffer,
    gate: Buffer,
    up: Buffer,
    /// What the MLP adds to the stream before its norm, where there is one.
    mlp_out: Option<Normed>,
    /// `scaling * dropout(x) A^T` of every adapter over a module, `[rows, rank]`.
    lora: [Vec<Buffer>; 7],
    /// `W x + scaling B A x` of modules under DoRA, `[rows, N]`.
    dora: [Option<Buffer>; 7],
}

/// What a norm was taken of, f32, and its statistics.
#[derive(Clone, Copy)]
struct Normed {
    x: Buffer,
    rstd: Buffer,
}

/// A layer, the batch that runs through it, and how.
pub(super) struct LayerContext<'a> {
    decoder: &'a Decoder,
    layer: &'a Layer,
    index: usize,
    batch: &'a Uploaded,
    pass: &'a Pass<'a>,
    queries: &'a Queries,
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
            queries: if is_last { &batch.last } else { &batch.all },
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
        let saved = self.allocate(backend)?;
        let (queries, size) = (self.query_rows, self.decoder.config.hidden_size);
        let mark = backend.mark();
        self.project_qkv(backend, input, &saved)?;
        backend.release(mark);
        if queries == 0 {
            self.keep_keys(backend, &saved)?;
            return Ok(saved);
        }
        let (k, v) = self.keep_keys(backend, &saved)?;
        backend.run(Op::Attention(self.attention(&saved, k, v)))?;
        let residual =
            if self.is_last { self.batch.at_reads(backend, input, size)? } else { input };
        let branch = (Module::O, saved.attended);
        let norm = self.layer.attention_out;
        self.add(backend, branch, residual, norm, saved.attention_out, saved.middle, &saved)?;
        backend.release(mark);

        let normed = self.mlp_input(backend, &saved)?;
        let outs = [Output::of(Module::Gate, saved.gate), Output::of(Module::Up, saved.up)];
        self.adapted(backend, normed, &outs, &saved)?;
        backend.release(mark);
        let product = self.gated(backend, &saved)?;
        let branch = (Module::Down, product);
        let norm = self.layer.mlp_out;
        self.add(backend, branch, saved.middle, norm, saved.mlp_out, out, &saved)?;
        backend.release(mark);
        Ok(saved)
    }

    fn allocate(&self, backend: &mut dyn Backend) -> Result<Saved> {
        let config = &self.decoder.config;
        let (rows, queries) = (self.batch.rows, self.query_rows);
        let query_size = config.num_attention_heads * config.head_dim;
        let key_size = config.num_key_value_heads * config.head_dim;
        let (size, operand) = (config.hidden_size, backend.operand());
        let mut normed = |present: bool, len: usize, groups: usize| -> Result<Option<Normed>> {
            if !present {
                return Ok(None);
            }
            let x = backend.alloc(len, DType::F32)?;
            Ok(Some(Normed { x, rstd: backend.alloc(groups, DType::F32)? }))
        };
        let groups = |rows: usize, heads: usize| match config.qk_norm {
            Some(QkNorm::Head) => rows * heads,
            _ => rows,
        };
        let has_qk = config.qk_norm.is_some();
        let (heads, kv_heads) = (config.num_attention_heads, config.num_key_value_heads);
        let q_norm = normed(has_qk, queries * query_size, groups(queries, heads))?;
        let k_norm = normed(has_qk, rows * key_size, groups(rows, kv_heads))?;
        let attention_out = normed(self.layer.attention_out.is_some(), queries * size, queries)?;
        let mlp_out = normed(self.layer.mlp_out.is_some(), queries * size, queries)?;
        let mut saved = Saved {
            rstd_in: backend.alloc(rows, DType::F32)?,
            q: backend.alloc(queries * query_size, operand)?,
            k: backend.alloc(rows * key_size, operand)?,
            v: backend.alloc(rows * key_size, operand)?,
            q_norm,
            k_norm,
            attended: backend.alloc(queries * query_size, operand)?,
            lse: backend.alloc(queries * config.num_attention_heads, DType::F32)?,
            attention_out,
            middle: backend.alloc(queries * size, DType::F32)?,
            rstd_middle: backend.alloc(queries, DType::F32)?,
            gate: backend.alloc(queries * config.intermediate_size, operand)?,
            up: backend.alloc(queries * config.intermediate_size, operand)?,
            mlp_out,
            lora: Default::default(),
            dora: [None; 7],
        };
        for module in Module::ALL {
            let rows = self.module_rows(module);
            for lora in self.loras(module) {
                let low = backend.alloc(rows * lora.rank(), operand)?;
                saved.lora[module as usize].push(low);
            }
            if self.dora(module).is_some() {
                let len = rows * config.shape(module).0;
                saved.dora[module as usize] = Some(backend.alloc(len, operand)?);
            }
        }
        Ok(saved)
    }

    /// Norm, projections, norms of queries and keys, and their rotation.
    fn project_qkv(&self, backend: &mut dyn Backend, input: Buffer, saved: &Saved) -> Result<()> {
        let config = &self.decoder.config;
        let normed = self.attention_input(backend, input, saved)?;
        let k = match saved.k_norm {
            Some(normed) => normed.x,
            None => backend.alloc(saved.k.len, DType::F32)?,
        };
        let q = match saved.q_norm {
            Some(normed) => normed.x,
            None => backend.alloc(saved.q.len, DType::F32)?,
        };
        let key_outs = [Output::of(Module::K, k), Output::of(Module::V, saved.v)];
        if self.is_last {
            self.adapted(backend, normed, &key_outs, saved)?;
            if self.query_rows > 0 {
                let at_reads = self.batch.at_reads(backend, normed, config.hidden_size)?;
                self.adapted(backend, at_reads, &[Output::of(Module::Q, q)], saved)?;
            }
        } else {
            let [k, v] = key_outs;
            self.adapted(backend, normed, &[Output::of(Module::Q, q), k, v], saved)?;
        }
        if self.query_rows > 0 {
            let q = self.normed_heads(backend, self.layer.q_norm, saved.q_norm, q)?;
            self.rotate(backend, q, saved.q, config.num_attention_heads, self.queries, false)?;
        }
        let k = self.normed_heads(backend, self.layer.k_norm, saved.k_norm, k)?;
        self.rotate(backend, k, saved.k, config.num_key_value_heads, &self.batch.all, false)
    }

    /// Queries or keys after their norm, if there is one.
    fn normed_heads(
        &self,
        backend: &mut dyn Backend,
        norm: Option<Vector>,
        normed: Option<Normed>,
        x: Buffer,
    ) -> Result<Buffer> {
        let (Some(norm), Some(normed)) = (norm, normed) else { return Ok(x) };
        let out = backend.alloc(x.len, DType::F32)?;
        self.decoder.norm(backend, norm, x, normed.rstd, out)?;
        Ok(out)
    }

    /// What attention's projections read: the norm of the stream, or the stream itself.
    fn attention_input(
        &self,
        backend: &mut dyn Backend,
        input: Buffer,
        saved: &Saved,
    ) -> Result<Buffer> {
        self.branch_input(backend, self.layer.attention_in, input, saved.rstd_in)
    }

    /// What the MLP reads.
    fn mlp_input(&self, backend: &mut dyn Backend, saved: &Saved) -> Result<Buffer> {
        self.branch_input(backend, self.layer.mlp_in, saved.middle, saved.rstd_middle)
    }

    fn branch_input(
        &self,
        backend: &mut dyn Backend,
        norm: Option<Vector>,
        x: Buffer,
        rstd: Buffer,
    ) -> Result<Buffer> {
        let out = backend.alloc(x.len, backend.operand())?;
        match norm {
            Some(norm) => self.decoder.norm(backend, norm, x, rstd, out)?,
            None => backend.run(Op::Cast { x, scale: 1.0, out })?,
        }
        Ok(out)
    }

    /// `out = residual + scale * f(x)`, or `residual + norm(f(x))`, for a linear layer `f`.
    #[allow(clippy::too_many_arguments, reason = "one call for each of the two branches")]
    fn add(
        &self,
        backend: &mut dyn Backend,
        (module, x): (Module, Buffer),
        residual: Buffer,
        norm: Option<Vector>,
        normed: Option<Normed>,
        out: Buffer,
        saved: &Saved,
    ) -> Result<()> {
        let scale = self.decoder.config.residual_scale;
        let (Some(norm), Some(normed)) = (norm, normed) else {
            let output = Output { module, out, base: Some(residual), scale };
            return self.adapted(backend, x, &[output], saved);
        };
        self.adapted(backend, x, &[Output { scale, ..Output::of(module, normed.x) }], saved)?;
        let branch = backend.alloc(normed.x.len, DType::F32)?;
        self.decoder.norm(backend, norm, normed.x, normed.rstd, branch)?;
        backend.run(Op::Cast { x: residual, scale: 1.0, out })?;
        backend.run(Op::Accumulate { x: branch, out })?;
        Ok(())
    }

    fn gated(&self, backend: &mut dyn Backend, saved: &Saved) -> Result<Buffer> {
        let out = backend.alloc(saved.gate.len, saved.gate.dtype)?;
        let activation = self.decoder.config.activation;
        let (gate, up) = (saved.gate, saved.up);
        backend.run(Op::Gated(Gated { activation, gate, up, out }))?;
        Ok(out)
    }

    /// Rotates queries or keys; where the layer has no rotary positions it only copies them.
    fn rotate(
        &self,
        backend: &mut dyn Backend,
        x: Buffer,
        out: Buffer,
        heads: usize,
        queries: &Queries,
        inverse: bool,
    ) -> Result<()> {
        let config = &self.decoder.config;
        let Some(rope) = config.layers[self.index].rope else {
            return Ok(backend.run(Op::Cast { x, scale: 1.0, out })?);
        };
        let (cos, sin) = queries.tables[rope];
        let (head_dim, rotary_dim) = (config.head_dim, config.ropes[rope].rotary_dim);
        backend.run(Op::Rope(Rope { heads, head_dim, rotary_dim, x, cos, sin, inverse, out }))?;
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
            scale: config.attention_scale,
            window: config.layers[self.index].window,
            softcap: config.attention_softcap,
            out: saved.attended,
            lse: saved.lse,
        }
    }

    /// Rows that a module runs on.
    fn module_rows(&self, module: Module) -> usize {
        match module {
            Module::K | Module::V => self.batch.rows,
            _ => self.query_rows,
        }
    }

    /// Groups of the rows that a module runs on.
    fn module_groups(&self, module: Module) -> Buffer {
        match module {
            Module::K | Module::V => self.batch.groups,
            _ if self.is_last => self.batch.read_groups,
            _ => self.batch.groups,
        }
    }
}
