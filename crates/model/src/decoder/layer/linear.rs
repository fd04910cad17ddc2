//! Linear layers with what lies over them: biases, LoRA, DoRA, dropout.

use compute::op::{ColumnSums, Dropout, Linear, Op, ScaleColumns, Term, WeightGradient};
use compute::{Backend, Buffer, DType, Weight};

use super::{LayerContext, Module, Saved};
use crate::Result;
use crate::adapter::{Dora, Lora};
use crate::tensor::Matrix;

/// Where a linear layer's result goes: `out = base + scale * result`.
#[derive(Clone, Copy)]
pub(super) struct Output {
    pub(super) module: Module,
    pub(super) out: Buffer,
    pub(super) base: Option<Buffer>,
    pub(super) scale: f32,
}

impl Output {
    pub(super) fn of(module: Module, out: Buffer) -> Self {
        Output { module, out, base: None, scale: 1.0 }
    }
}

/// An adapter's matrices over a module, and what its forward left.
struct Adapted<'a> {
    dout: Buffer,
    lora: &'a Lora,
    low: Buffer,
    d_low: Buffer,
}

impl<'a> LayerContext<'a> {
    /// The adapters over a module, those below first.
    pub(super) fn loras(&self, module: Module) -> impl Iterator<Item = &'a Lora> {
        let adapters = self.pass.adapter.into_iter().flat_map(|adapter| adapter.stack());
        let index = self.index;
        adapters.filter_map(move |adapter| adapter.get(index, module))
    }

    /// The magnitudes over a module: those of the adapter on top.
    pub(super) fn dora(&self, module: Module) -> Option<&'a Dora> {
        self.pass.adapter.and_then(|adapter| adapter.get(self.index, module)?.dora())
    }

    fn weight(&self, module: Module) -> Matrix {
        self.layer.weights[module as usize]
    }

    fn bias(&self, module: Module) -> Option<Buffer> {
        self.layer.biases[module as usize].map(|bias| bias.buffer())
    }

    /// Linear layers with their adapters over one input.
    pub(super) fn adapted(
        &self,
        backend: &mut dyn Backend,
        input: Buffer,
        outs: &[Output],
        saved: &Saved,
    ) -> Result<()> {
        let rows = self.module_rows(outs[0].module);
        self.adapter_inputs(backend, input, outs, saved)?;
        let mut terms: Vec<Vec<Term>> = Vec::with_capacity(outs.len());
        for &Output { module, .. } in outs {
            let mut own = vec![forward_term(input, self.weight(module).weight())];
            let lows = &saved.lora[module as usize];
            own.extend(self.loras(module).zip(lows).map(|(l, &low)| forward_term(low, l.b())));
            terms.push(own);
        }
        let linears: Vec<Linear<'_>> = outs
            .iter()
            .zip(&terms)
            .map(|(output, terms)| {
                let &Output { module, out, base, scale } = output;
                match saved.dora[module as usize] {
                    // The magnitudes come after the sum.
                    Some(sum) => Linear::product(rows, terms, sum),
                    None => Linear { rows, terms, scale, bias: self.bias(module), base, out },
                }
            })
            .collect();
        backend.run(Op::Linear(&linears))?;
        for &Output { module, out, base, scale } in outs {
            let (Some(x), Some(dora)) = (saved.dora[module as usize], self.dora(module)) else {
                continue;
            };
            let (cols, factors) = (self.decoder.config.shape(module).0, dora.factors);
            let bias = self.bias(module);
            let op = ScaleColumns { cols, x, factors, bias, scale, base, out };
            backend.run(Op::ScaleColumns(op))?;
        }
        Ok(())
    }

    /// `scaling * x A^T` of every adapter.
    fn adapter_inputs(
        &self,
        backend: &mut dyn Backend,
        input: Buffer,
        outs: &[Output],
        saved: &Saved,
    ) -> Result<()> {
        let rows = self.module_rows(outs[0].module);
        let mut dropped = None;
        let mut terms: Vec<(Term, f32, Buffer)> = Vec::new();
        for &Output { module, .. } in outs {
            for (lora, &low) in self.loras(module).zip(&saved.lora[module as usize]) {
                let input = match (lora.is_trained(), dropped) {
                    (false, _) => input,
                    (true, Some(dropped)) => dropped,
                    (true, None) => {
                        let fresh = self.dropped(backend, input, module)?;
                        dropped = Some(fresh);
                        fresh
                    }
                };
                terms.push((forward_term(input, lora.a()), lora.scaling(), low));
            }
        }
        let linears: Vec<Linear<'_>> = terms
            .iter()
            .map(|(term, scale, out)| Linear {
                rows,
                terms: std::slice::from_ref(term),
                scale: *scale,
                bias: None,
                base: None,
                out: *out,
            })
            .collect();
        if !linears.is_empty() {
            backend.run(Op::Linear(&linears))?;
        }
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
        let group = match module {
            Module::Q | Module::K | Module::V | Module::Qkv => 0,
            Module::O => 1,
            Module::Gate | Module::Up | Module::GateUp => 2,
            Module::Down => 3,
        };
        let row_keys = match module {
            Module::K | Module::V => self.batch.row_keys,
            _ if self.is_last => self.batch.read_keys,
            _ => self.batch.row_keys,
        };
        let key = compute::random::key(&[key, self.index as u64, group]);
        let cols = self.decoder.config.shape(module).1;
        Some(Dropout { cols, x, row_keys, key, p, base: None, out: x })
    }

    /// The gradients of linear layers over one input: of all that is trained in them, and `d_input`
    /// (f32 or operand) if it is wanted, with `base` added. `douts` are operands.
    pub(super) fn backward_adapted(
        &self,
        backend: &mut dyn Backend,
        input: Buffer,
        douts: &[(Module, Buffer)],
        saved: &Saved,
        d_input: Option<Buffer>,
        base: Option<Buffer>,
    ) -> Result<()> {
        let gradients = self.backward_products(backend, input, douts, saved, d_input, base)?;
        add_gradients(backend, &gradients)
    }

    /// As [`backward_adapted`](Self::backward_adapted), but the products for trained matrices are left to
    /// [`add_gradients`]: parts of a fused module share a `lora_A`, and one operation adds to it.
    pub(super) fn backward_products(
        &self,
        backend: &mut dyn Backend,
        input: Buffer,
        douts: &[(Module, Buffer)],
        saved: &Saved,
        d_input: Option<Buffer>,
        base: Option<Buffer>,
    ) -> Result<Vec<WeightGradient>> {
        let rows = self.module_rows(douts[0].0);
        let groups = self.module_groups(douts[0].0);
        let mut inner = Vec::with_capacity(douts.len());
        for &(module, dout) in douts {
            self.bias_gradient(backend, module, dout, groups)?;
            inner.push((module, self.through_magnitudes(backend, module, dout, saved, groups)?));
        }
        let mut adapted = Vec::new();
        for &(module, dout) in &inner {
            for (lora, &low) in self.loras(module).zip(&saved.lora[module as usize]) {
                let d_low = backend.alloc(rows * lora.rank(), backend.operand())?;
                let terms = [backward_term(dout, lora.b())];
                let scale = lora.scaling();
                let linear =
                    Linear { rows, terms: &terms, scale, bias: None, base: None, out: d_low };
                backend.run(Op::Linear(&[linear]))?;
                adapted.push(Adapted { dout, lora, low, d_low });
            }
        }
        let gradients = self.weight_gradients(backend, input, &inner, &adapted, groups)?;
        if let Some(d_input) = d_input {
            self.input_gradient(backend, input, &inner, &adapted, d_input, base)?;
        }
        Ok(gradients)
    }

    fn bias_gradient(
        &self,
        backend: &mut dyn Backend,
        module: Module,
        dout: Buffer,
        groups: Buffer,
    ) -> Result<()> {
        let Some(bias) = self.layer.biases[module as usize] else { return Ok(()) };
        let Some(gradient) = bias.gradient() else { return Ok(()) };
        let cols = gradient.len;
        let sums = ColumnSums {
            cols,
            a: dout,
            b: None,
            row_scale: None,
            divisor: None,
            groups,
            rows_each: 1,
            gradient,
        };
        Ok(backend.run(Op::ColumnSums(sums))?)
    }

    /// The gradient before DoRA's magnitudes, whose own gradient is added up; `dout` without them.
    fn through_magnitudes(
        &self,
        backend: &mut dyn Backend,
        module: Module,
        dout: Buffer,
        saved: &Saved,
        groups: Buffer,
    ) -> Result<Buffer> {
        let (Some(sum), Some(dora)) = (saved.dora[module as usize], self.dora(module)) else {
            return Ok(dout);
        };
        let cols = self.decoder.config.shape(module).0;
        if let Some(gradient) = dora.gradient() {
            let sums = ColumnSums {
                cols,
                a: dout,
                b: Some(sum),
                row_scale: None,
                divisor: Some(dora.norms),
                groups,
                rows_each: 1,
                gradient,
            };
            backend.run(Op::ColumnSums(sums))?;
        }
        let out = backend.alloc(dout.len, dout.dtype)?;
        let factors = dora.factors;
        let op = ScaleColumns { cols, x: dout, factors, bias: None, scale: 1.0, base: None, out };
        backend.run(Op::ScaleColumns(op))?;
        Ok(out)
    }

    fn weight_gradients(
        &self,
        backend: &mut dyn Backend,
        input: Buffer,
        douts: &[(Module, Buffer)],
        adapted: &[Adapted<'_>],
        groups: Buffer,
    ) -> Result<Vec<WeightGradient>> {
        let mut gradients = Vec::with_capacity(douts.len() + 2 * adapted.len());
        for &(module, dy) in douts {
            if let Some(gradient) = self.weight(module).gradient() {
                let (n, k) = self.decoder.config.shape(module);
                gradients.push(WeightGradient { dy, x: input, n, k, groups, gradient });
            }
        }
        let is_trained = adapted.iter().any(|adapted| adapted.lora.is_trained());
        let x = if is_trained { self.dropped(backend, input, douts[0].0)? } else { input };
        for Adapted { dout, lora, low, d_low } in adapted {
            let (Some(a), Some(b)) = (lora.a_gradient(), lora.b_gradient()) else { continue };
            let (rank, n, k) = (lora.rank(), lora.b().rows, lora.a().cols);
            let (dy, low) = (*dout, *low);
            gradients.push(WeightGradient { dy, x: low, n, k: rank, groups, gradient: b });
            gradients.push(WeightGradient { dy: *d_low, x, n: rank, k, groups, gradient: a });
        }
        Ok(gradients)
    }

    fn input_gradient(
        &self,
        backend: &mut dyn Backend,
        input: Buffer,
        douts: &[(Module, Buffer)],
        adapted: &[Adapted<'_>],
        d_input: Buffer,
        base: Option<Buffer>,
    ) -> Result<()> {
        let module = douts[0].0;
        let rows = self.module_rows(module);
        let mut terms: Vec<Term> = douts
            .iter()
            .map(|&(module, dout)| backward_term(dout, self.weight(module).weight()))
            .collect();
        let dropout = self.dropout(input, module);
        // With dropout the trained adapters' share passes the mask before it joins the rest.
        let (masked, plain): (Vec<_>, Vec<_>) =
            adapted.iter().partition(|adapted| dropout.is_some() && adapted.lora.is_trained());
        let low = |adapted: &&Adapted<'_>| backward_term(adapted.d_low, adapted.lora.a());
        terms.extend(plain.iter().map(low));
        let mut base = base;
        if let (Some(dropout), false) = (dropout, masked.is_empty()) {
            let masked_terms: Vec<Term> = masked.iter().map(low).collect();
            let out = backend.alloc(d_input.len, DType::F32)?;
            let terms = &masked_terms;
            let linear = Linear::product(rows, terms, out);
            backend.run(Op::Linear(&[linear]))?;
            let sum = backend.alloc(d_input.len, DType::F32)?;
            backend.run(Op::Dropout(Dropout { x: out, base, out: sum, ..dropout }))?;
            base = Some(sum);
        }
        let linear = Linear { rows, terms: &terms, scale: 1.0, bias: None, base, out: d_input };
        Ok(backend.run(Op::Linear(&[linear]))?)
    }
}

/// Adds products to the gradients of trained matrices.
pub(super) fn add_gradients(backend: &mut dyn Backend, gradients: &[WeightGradient]) -> Result<()> {
    if !gradients.is_empty() {
        backend.run(Op::WeightGradient(gradients))?;
    }
    Ok(())
}

fn forward_term(input: Buffer, weight: Weight) -> Term {
    Term { input, weight, transposed: false }
}

fn backward_term(input: Buffer, weight: Weight) -> Term {
    Term { input, weight, transposed: true }
}
