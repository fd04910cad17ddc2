//! LoRA, Hu et al. 2021: `y = W x + scaling * B A x`, on a device.

use std::collections::BTreeMap;
use std::sync::Arc;

use compute::op::{Embed, Op};
use compute::{Backend, Buffer, DType, Parameter, Weight};

use super::config::LoraConfig;
use super::dora::{Dora, DoraInputs, DoraScratch};
use crate::decoder::{constant, frozen};
use crate::tensor::{Matrix, Optimizers, Role, TrainedTensor, Vector};
use crate::{Decoder, Module, Result};

/// The two matrices over one module that computes, and its magnitudes.
#[derive(Clone, Copy, Debug)]
pub struct Lora {
    a: Matrix,
    b: Matrix,
    rank: usize,
    scaling: f32,
    dora: Option<Dora>,
}

impl Lora {
    pub(crate) fn a(&self) -> compute::Weight {
        self.a.weight()
    }

    pub(crate) fn b(&self) -> compute::Weight {
        self.b.weight()
    }

    pub(crate) fn a_gradient(&self) -> Option<Buffer> {
        self.a.gradient()
    }

    pub(crate) fn b_gradient(&self) -> Option<Buffer> {
        self.b.gradient()
    }

    pub(crate) fn rank(&self) -> usize {
        self.rank
    }

    pub(crate) fn scaling(&self) -> f32 {
        self.scaling
    }

    pub(crate) fn is_trained(&self) -> bool {
        matches!(self.a, Matrix::Trained(_))
    }

    pub(crate) fn dora(&self) -> Option<&Dora> {
        self.dora.as_ref()
    }
}

/// Rows of embedding and head that take the place of the base's while the adapter is active.
#[derive(Clone, Debug)]
pub struct TokenRows {
    /// Ascending.
    pub(crate) indices: Vec<u32>,
    pub(crate) embedding: VocabularyRows,
    /// Where the head is apart from the embedding.
    pub(crate) head: Option<VocabularyRows>,
    index: Buffer,
}

/// Rows of one matrix, `[tokens, C]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct VocabularyRows {
    own: Vector,
    /// What the base has there.
    base: Buffer,
}

impl VocabularyRows {
    pub(crate) fn gradient(&self) -> Option<Buffer> {
        self.own.gradient()
    }
}

impl TokenRows {
    /// For every token its row among the trained ones, `u32::MAX` where it is none of them.
    pub(crate) fn rows_of(&self, tokens: &[u32]) -> Vec<u32> {
        let row = |token| self.indices.binary_search(token).map_or(u32::MAX, |row| row as u32);
        tokens.iter().map(row).collect()
    }
}

/// An adapter on a device.
#[derive(Clone, Debug)]
pub struct Adapter {
    config: LoraConfig,
    modules: BTreeMap<(usize, Module), Lora>,
    tokens: Option<TokenRows>,
    trained: Vec<TrainedTensor>,
    scratch: Option<DoraScratch>,
    /// A frozen adapter that this one stands on.
    below: Option<Arc<Adapter>>,
}

impl Adapter {
    /// Puts the matrices `values` (in the order of [`LoraConfig::matrices`]) on the device of `decoder`, to
    /// be trained or only used. An empty value that follows from the base is filled in.
    ///
    /// The base stays as it is: an adapter with rows of tokens computes what it should after
    /// [`activate`](Adapter::activate). No other one may be active while it is made.
    pub fn new(
        backend: &mut dyn Backend,
        decoder: &Decoder,
        config: LoraConfig,
        values: &[Vec<f32>],
        training: Option<Optimizers>,
    ) -> Result<Self> {
        let builder = Builder { backend, decoder, config: &config, training, trained: Vec::new() };
        let (modules, tokens, trained, scratch) = builder.build(values)?;
        Ok(Adapter { config, modules, tokens, trained, scratch, below: None })
    }

    /// The same adapter over `below`, which stays as it is and may be below others too.
    pub fn over(self, below: Arc<Adapter>) -> Self {
        Adapter { below: Some(below), ..self }
    }

    /// The frozen adapter that it stands on.
    pub fn below(&self) -> Option<Arc<Adapter>> {
        self.below.clone()
    }

    /// What it covers.
    pub fn config(&self) -> &LoraConfig {
        &self.config
    }

    /// The matrices over a module that computes, if it is covered.
    pub fn get(&self, layer: usize, module: Module) -> Option<&Lora> {
        self.modules.get(&(layer, module))
    }

    /// This adapter and those below it, the lowest first.
    pub fn stack(&self) -> Vec<&Adapter> {
        let mut stack = self.below.as_ref().map_or_else(Vec::new, |below| below.stack());
        stack.push(self);
        stack
    }

    /// The rows of tokens that it brings.
    pub(crate) fn tokens(&self) -> Option<&TokenRows> {
        self.tokens.as_ref()
    }

    /// The lowest layer with a trained matrix: nothing below it needs a gradient.
    pub fn lowest_layer(&self) -> usize {
        if self.trained.is_empty() {
            return usize::MAX;
        }
        self.modules.keys().next().map_or(usize::MAX, |key| key.0)
    }

    /// All that is trained, in the order of [`LoraConfig::matrices`].
    pub fn trained(&self) -> &[TrainedTensor] {
        &self.trained
    }

    /// The parameters of [`trained`](Adapter::trained).
    pub fn parameters(&self) -> Vec<Parameter> {
        self.trained.iter().map(|tensor| tensor.parameter).collect()
    }

    /// Reads the f32 values of a trained adapter back, in the order of [`LoraConfig::matrices`].
    pub fn values(&self, backend: &mut dyn Backend, decoder: &Decoder) -> Result<Vec<Vec<f32>>> {
        let mut tensors = crate::tensor::read_tensors(backend, &self.trained)?;
        let infos = self.config.matrices(&decoder.config);
        let take = |name: &str| tensors.remove(name).expect("every matrix is trained").1;
        Ok(infos.iter().map(|info| &*info.name).map(take).collect())
    }

    /// Brings factors that follow from the trained matrices up to them: after a step, or after values were
    /// written. Rows of tokens take their place with [`activate`](Adapter::activate).
    pub fn refresh(&self, backend: &mut dyn Backend, decoder: &Decoder) -> Result<()> {
        if let Some(scratch) = &self.scratch {
            for (&(layer, module), lora) in &self.modules {
                let (Some(dora), Matrix::Trained(a), Matrix::Trained(b)) =
                    (lora.dora, lora.a, lora.b)
                else {
                    continue;
                };
                let magnitude = dora.magnitude().expect("trained with its matrices");
                let inputs = DoraInputs {
                    weight: decoder.module(layer, module).weight(),
                    a: lora.a(),
                    a_values: a.master,
                    b_values: b.master,
                    magnitude,
                    scaling: lora.scaling,
                };
                scratch.refresh(backend, &dora, &inputs)?;
            }
        }
        Ok(())
    }

    /// Puts its rows of tokens, as they are now, into embedding and head. Does nothing where it has none.
    ///
    /// Another adapter that has some must be inactive.
    pub fn activate(&self, backend: &mut dyn Backend, decoder: &Decoder) -> Result<()> {
        self.write_tokens(backend, decoder, |rows| rows.own.buffer())
    }

    /// Puts the rows that the base has back into embedding and head.
    pub fn deactivate(&self, backend: &mut dyn Backend, decoder: &Decoder) -> Result<()> {
        self.write_tokens(backend, decoder, |rows| rows.base)
    }

    fn write_tokens(
        &self,
        backend: &mut dyn Backend,
        decoder: &Decoder,
        values: impl Fn(&VocabularyRows) -> Buffer,
    ) -> Result<()> {
        let Some(TokenRows { embedding, head, index, .. }) = &self.tokens else { return Ok(()) };
        let pairs =
            [(Some(embedding), decoder.embedding()), (head.as_ref(), decoder.head_matrix())];
        for (rows, matrix) in pairs {
            let Some(values) = rows.map(&values) else { continue };
            backend.run(Op::WriteRows { weight: matrix.weight(), index: *index, values })?;
        }
        Ok(())
    }

    /// Gives its device memory back, and that of adapters below it that no other one stands on.
    pub fn unload(self, backend: &mut dyn Backend) {
        for tensor in self.trained {
            backend.unload_trained(tensor.parameter);
        }
        let mut shared = Vec::new();
        for lora in self.modules.into_values() {
            // The parts of a fused module have one `lora_A`.
            if !shared.contains(&lora.a()) {
                shared.push(lora.a());
                lora.a.unload_frozen(backend);
            }
            lora.b.unload_frozen(backend);
            if let Some(dora) = lora.dora {
                dora.unload(backend);
            }
        }
        if let Some(tokens) = self.tokens {
            for rows in [Some(tokens.embedding), tokens.head].into_iter().flatten() {
                if let Vector::Frozen(own) = rows.own {
                    backend.free_static(own);
                }
                backend.free_static(rows.base);
            }
            backend.free_static(tokens.index);
        }
        if let Some(scratch) = self.scratch {
            scratch.free(backend);
        }
        if let Some(below) = self.below.and_then(Arc::into_inner) {
            below.unload(backend);
        }
    }
}

type Built =
    (BTreeMap<(usize, Module), Lora>, Option<TokenRows>, Vec<TrainedTensor>, Option<DoraScratch>);

/// Puts matrices on a device.
struct Builder<'a> {
    backend: &'a mut dyn Backend,
    decoder: &'a Decoder,
    config: &'a LoraConfig,
    training: Option<Optimizers>,
    trained: Vec<TrainedTensor>,
}

impl Builder<'_> {
    fn build(mut self, values: &[Vec<f32>]) -> Result<Built> {
        let infos = self.config.matrices(&self.decoder.config);
        assert_eq!(infos.len(), values.len(), "one value per matrix");
        let mut matrices = infos.iter().zip(values);
        let mut next = || {
            let (info, values) = matrices.next().expect("as many as were counted");
            (info.name.as_str(), values.as_slice())
        };
        let scratch = self.scratch()?;
        let mut modules = BTreeMap::new();
        for (&(layer, module), &(rank, alpha)) in &self.config.modules {
            let scaling = self.config.scaling(rank, alpha);
            let (a, b) = (next(), next());
            let magnitude = self.config.dora.then(&mut next);
            let cols = self.decoder.config.shape(module).1;
            let a_matrix = self.matrices((a.0, Role::LoraA), (&[rank], cols), a.1)?.remove(0);
            let parts = module.parts();
            let rows: Vec<usize> = parts.iter().map(|&p| self.decoder.config.shape(p).0).collect();
            let b_matrices = self.matrices((b.0, Role::LoraB), (&rows, rank), b.1)?;
            let lora = |b: Matrix| Lora { a: a_matrix, b, rank, scaling, dora: None };
            let mut loras: Vec<Lora> = b_matrices.into_iter().map(lora).collect();
            if let (Some((name, magnitudes)), Some(scratch)) = (magnitude, &scratch) {
                let site = MagnitudeSite { name, layer, magnitudes, a: a.1, b: b.1 };
                self.add_magnitudes(scratch, parts, &mut loras, &site)?;
            }
            modules.extend(parts.iter().map(|&part| (layer, part)).zip(loras));
        }
        let tokens = match self.config.tokens.is_empty() {
            true => None,
            false => {
                let has_head = self.config.token_modules(&self.decoder.config).len() > 1;
                Some(self.tokens(next(), has_head.then(next))?)
            }
        };
        if self.training.is_none() {
            // The factors are made; what they were made of does not change.
            if let Some(scratch) = scratch {
                scratch.free(self.backend);
            }
            return Ok((modules, tokens, self.trained, None));
        }
        Ok((modules, tokens, self.trained, scratch))
    }

    fn scratch(&mut self) -> Result<Option<DoraScratch>> {
        if !self.config.dora {
            return Ok(None);
        }
        let config = &self.decoder.config;
        let (mut rank, mut rows, mut cols) = (1, 1, 1);
        for (&(_, module), &(own, _)) in &self.config.modules {
            let shape = config.shape(module);
            (rank, rows, cols) = (rank.max(own), rows.max(shape.0), cols.max(shape.1));
        }
        Ok(Some(DoraScratch::new(self.backend, rank, rows, cols)?))
    }

    /// The parts of so many rows of a matrix.
    fn matrices(
        &mut self,
        (name, role): (&str, Role),
        (parts, cols): (&[usize], usize),
        values: &[f32],
    ) -> Result<Vec<Matrix>> {
        let Some(optimizers) = self.training else {
            let weights = frozen(self.backend, (parts, cols), values, None)?;
            return Ok(weights.into_iter().map(Matrix::Frozen).collect());
        };
        let place = (name, role);
        let tensor =
            TrainedTensor::load_matrix(self.backend, optimizers, place, (parts, cols), values)?;
        let matrices = tensor.matrices();
        self.trained.push(tensor);
        Ok(matrices)
    }

    /// Puts magnitudes over the parts of a module.
    fn add_magnitudes(
        &mut self,
        scratch: &DoraScratch,
        parts: &[Module],
        loras: &mut [Lora],
        site: &MagnitudeSite<'_>,
    ) -> Result<()> {
        let module = |&part: &Module| self.decoder.module(site.layer, part).weight();
        let weights: Vec<Weight> = parts.iter().map(module).collect();
        let rows: Vec<usize> = weights.iter().map(|weight| weight.rows).collect();
        let (mut squares, mut norms) = (Vec::new(), Vec::new());
        for &weight in &weights {
            let out = self.backend.alloc_static(weight.rows, DType::F32)?;
            self.backend.run(Op::RowSquares { weight, out })?;
            squares.push(out);
            if site.magnitudes.is_empty() {
                let mut own = vec![0.0; out.len];
                self.backend.read(out, &mut own)?;
                norms.extend(own.iter().map(|square| square.sqrt()));
            }
        }
        let magnitudes = if site.magnitudes.is_empty() { &norms[..] } else { site.magnitudes };
        let mut trained = vec![None; parts.len()];
        if let Some(optimizers) = self.training {
            let place = (site.name, Role::Magnitude);
            let tensor = TrainedTensor::load_vector(self.backend, optimizers, place, magnitudes)?;
            trained = tensor.vectors(&rows).into_iter().map(Some).collect();
            self.trained.push(tensor);
        }
        let mut first = 0;
        for (index, lora) in loras.iter_mut().enumerate() {
            let (weight, rank) = (weights[index], lora.rank);
            let dora = Dora::new(self.backend, squares[index], trained[index])?;
            let b = &site.b[first * rank..][..weight.rows * rank];
            let given = [site.a, b, &magnitudes[first..][..weight.rows]];
            let [a_values, b_values, magnitude] =
                given.map(|values| constant(self.backend, values));
            let (a_values, b_values, magnitude) = (a_values?, b_values?, magnitude?);
            let (a, scaling) = (lora.a(), lora.scaling);
            let inputs = DoraInputs { weight, a, a_values, b_values, magnitude, scaling };
            scratch.refresh(self.backend, &dora, &inputs)?;
            self.backend.sync()?;
            for buffer in [a_values, b_values, magnitude] {
                self.backend.free_static(buffer);
            }
            lora.dora = Some(dora);
            first += weight.rows;
        }
        Ok(())
    }

    fn tokens(
        &mut self,
        embedding: (&str, &[f32]),
        head: Option<(&str, &[f32])>,
    ) -> Result<TokenRows> {
        let indices = self.config.tokens.clone();
        let index = self.backend.alloc_static(indices.len(), DType::U32)?;
        self.backend.upload_u32(&indices, index)?;
        let decoder = self.decoder;
        let mut rows = |(name, values): (&str, &[f32]), matrix: Matrix| -> Result<VocabularyRows> {
            let cols = decoder.config.hidden_size;
            let in_base = rows_of(self.backend, matrix, index, cols)?;
            let base = constant(self.backend, &in_base)?;
            let values = if values.is_empty() { &in_base } else { values };
            let own = match self.training {
                None => Vector::Frozen(constant(self.backend, values)?),
                Some(_) => {
                    let (place, rows) = ((name, Role::Tokens), [indices.len()]);
                    self.matrices(place, (&rows, cols), values)?;
                    let tensor = self.trained.last().expect("the tensor that was just made");
                    Vector::Trained(tensor.vectors(&[values.len()]).remove(0))
                }
            };
            Ok(VocabularyRows { own, base })
        };
        let embedding = rows(embedding, decoder.embedding())?;
        let head = head.map(|head| rows(head, decoder.head_matrix())).transpose()?;
        Ok(TokenRows { indices, embedding, head, index })
    }
}

/// Where magnitudes stand in their file, and the matrices beside them.
struct MagnitudeSite<'a> {
    name: &'a str,
    layer: usize,
    /// Empty: the norms of the base's rows.
    magnitudes: &'a [f32],
    a: &'a [f32],
    b: &'a [f32],
}

/// Rows of a matrix of the base, as it multiplies.
fn rows_of(
    backend: &mut dyn Backend,
    matrix: Matrix,
    tokens: Buffer,
    cols: usize,
) -> Result<Vec<f32>> {
    let out = backend.alloc_static(tokens.len * cols, DType::F32)?;
    let weight = matrix.weight();
    backend.run(Op::Embed(Embed { weight, tokens, scale: 1.0, out }))?;
    let mut values = vec![0.0; out.len];
    backend.read(out, &mut values)?;
    backend.free_static(out);
    Ok(values)
}
