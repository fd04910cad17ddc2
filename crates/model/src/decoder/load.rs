//! Weights from a checkpoint to a device, one tensor at a time.

use std::collections::BTreeMap;

use compute::{Backend, Buffer, DType, Quantization, Storage, Weight, WeightSource};

use super::{Decoder, Layer, RopeBuffers};
use crate::architecture::{EMBEDDING, HEAD};
use crate::checkpoint::{Base, Stored, Tensor};
use crate::config::{Config, Norms, QkNorm};
use crate::tensor::{HostTensor, Matrix, Optimizers, Role, TrainedTensor, Vector};
use crate::{Error, Result};

/// How the weights of a base are to be held.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// How frozen linear layers are made smaller. Embedding, head, norms and what is stored
    /// quantised already stay as they are.
    pub quantization: Option<Quantization>,
    /// What is trained.
    pub training: Option<Training>,
    /// Values that take the place of the file's, by tensor.
    pub replaced: BTreeMap<String, HostTensor>,
    /// Whether a head that the base ties to the embedding has values of its own, or keeps those of the base
    /// while the embedding changes.
    pub unties_head: bool,
    /// Rows of embedding and head, if not as many as the file has: new ones start as the mean of the others.
    pub vocab_size: Option<usize>,
    /// Whether single rows of embedding and head will be written.
    pub writes_tokens: bool,
}

/// Which tensors of a base are trained, and what the optimizer keeps.
#[derive(Clone, Debug, PartialEq)]
pub struct Training {
    /// Which.
    pub tensors: Selection,
    /// What for.
    pub optimizers: Optimizers,
}

/// A choice of tensors of a base.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// Every one.
    All,
    /// Those of some layers.
    Layers(Vec<usize>),
    /// Those of modules whose path ends so, `lm_head` or `norm` say.
    Modules(Vec<String>),
}

impl Selection {
    /// Whether a tensor of this name is one.
    pub fn contains(&self, name: &str) -> bool {
        match self {
            Selection::All => true,
            Selection::Layers(layers) => layer_of(name).is_some_and(|l| layers.contains(&l)),
            Selection::Modules(modules) => {
                let path = name.rsplit_once('.').map_or(name, |(path, _)| path);
                modules.iter().any(|module| path.ends_with(module.as_str()))
            }
        }
    }
}

/// The layer that a tensor belongs to.
fn layer_of(name: &str) -> Option<usize> {
    name.strip_prefix("model.layers.")?.split('.').next()?.parse().ok()
}

/// A matrix of the file in its role.
struct Site<'a> {
    name: &'a str,
    /// The tensor of the file: of a head that the base ties, the embedding.
    stored_as: &'a str,
    rows: usize,
    cols: usize,
    role: Role,
}

/// Takes tensors from a base to a backend.
struct Loader<'a> {
    base: &'a Base,
    backend: &'a mut dyn Backend,
    options: &'a LoadOptions,
    trained: Vec<TrainedTensor>,
    /// Whether the backend only counts: no value is read for it.
    counts: bool,
}

impl Decoder {
    /// Loads all weights of `base` into `backend` as they are, frozen.
    pub fn load(base: &Base, backend: &mut dyn Backend) -> Result<Self> {
        Self::load_with(base, backend, &LoadOptions::default())
    }

    /// Loads all weights of `base` into `backend`, one tensor at a time.
    pub fn load_with(
        base: &Base,
        backend: &mut dyn Backend,
        options: &LoadOptions,
    ) -> Result<Self> {
        let mut config = base.config.clone();
        config.vocab_size = options.vocab_size.unwrap_or(config.vocab_size);
        let counts = backend.device().kind == "measure";
        let mut loader = Loader { base, backend, options, trained: Vec::new(), counts };
        let embedding = loader.vocabulary(&config, EMBEDDING, Role::Embedding)?;
        let head = if loader.shares_head(&config) {
            embedding
        } else {
            loader.vocabulary(&config, HEAD, Role::Head)?
        };
        let mut layers = Vec::new();
        for index in 0..config.num_hidden_layers {
            base.check_stop()?;
            layers.push(loader.layer(&config, index)?);
            base.release();
        }
        loader.refuse_surplus(&config)?;
        let final_norm = loader.vector("model.norm.weight", config.hidden_size, Role::Norm)?;
        let trained = loader.trained;
        let mut ropes = Vec::with_capacity(config.ropes.len());
        for rope in &config.ropes {
            let long = match &rope.long {
                Some((limit, frequencies)) => Some((*limit, constant(backend, frequencies)?)),
                None => None,
            };
            ropes.push(RopeBuffers { short: constant(backend, &rope.inv_freq)?, long });
        }
        backend.sync()?;
        Ok(Decoder { config, embedding, head, final_norm, ropes, layers, trained })
    }
}

impl Loader<'_> {
    /// Whether the head is the embedding.
    fn shares_head(&self, config: &Config) -> bool {
        let has_own = self.options.unties_head || self.options.replaced.contains_key(HEAD);
        config.tie_word_embeddings && !has_own
    }

    /// Embedding or head.
    fn vocabulary(&mut self, config: &Config, name: &str, role: Role) -> Result<Matrix> {
        let (rows, cols) = (config.vocab_size, config.hidden_size);
        let is_copy = config.tie_word_embeddings && role == Role::Head;
        let stored_as = if is_copy { EMBEDDING } else { name };
        let plain = !self.is_trained(name)
            && !self.options.replaced.contains_key(name)
            && !self.options.writes_tokens
            && self.base.config.vocab_size == rows;
        let is_looked_up = plain && role == Role::Embedding && !self.shares_head(config);
        if is_looked_up && let Some(source) = self.base.lookup(stored_as, &[rows, cols])? {
            if !self.counts {
                self.base.tensor(stored_as, &[rows, cols])?.check_finite()?;
            }
            return Ok(Matrix::Frozen(self.backend.load_lookup(source)?));
        }
        let site = Site { name, stored_as, rows, cols, role };
        if plain {
            return Ok(self.matrices(&site, &[rows])?.remove(0));
        }
        let values = match self.options.replaced.get(name) {
            _ if self.counts => Vec::new(),
            Some((shape, values)) => {
                check_shape(self.base, name, shape, &[rows, cols])?;
                values.clone()
            }
            None => self.base.vocabulary(stored_as, rows)?.1,
        };
        Ok(self.matrices_of(&site, &[rows], &values)?.remove(0))
    }

    fn layer(&mut self, config: &Config, index: usize) -> Result<Layer> {
        let mut weights = [None; 7];
        let mut biases = [None; 7];
        for &module in config.modules() {
            let path = format!("model.layers.{index}.{}", module.path());
            let (rows, cols) = config.shape(module);
            let (name, role) = (&format!("{path}.weight"), Role::Linear);
            let parts: Vec<usize> = module.parts().iter().map(|&p| config.shape(p).0).collect();
            let site = Site { name, stored_as: name, rows, cols, role };
            let matrices = self.matrices(&site, &parts)?;
            for (&part, matrix) in module.parts().iter().zip(matrices) {
                weights[part as usize] = Some(matrix);
            }
            if config.has_bias(module) {
                let vectors = self.vectors(&format!("{path}.bias"), &parts, Role::Bias)?;
                for (&part, vector) in module.parts().iter().zip(vectors) {
                    biases[part as usize] = Some(vector);
                }
            }
        }
        let mut norm = |present: bool, name: &str, len: usize| -> Result<Option<Vector>> {
            let name = format!("model.layers.{index}.{name}.weight");
            present.then(|| self.vector(&name, len, Role::Norm)).transpose()
        };
        let (size, norms) = (config.hidden_size, config.norms);
        let heads = |count: usize| match config.qk_norm {
            Some(QkNorm::Projection) => count * config.head_dim,
            _ => config.head_dim,
        };
        let mlp_in = match norms {
            Norms::Before => "post_attention_layernorm",
            _ => "pre_feedforward_layernorm",
        };
        let has_qk = config.qk_norm.is_some();
        let (before, after) = (norms != Norms::After, norms != Norms::Before);
        Ok(Layer {
            attention_in: norm(before, "input_layernorm", size)?,
            attention_out: norm(after, "post_attention_layernorm", size)?,
            mlp_in: norm(before, mlp_in, size)?,
            mlp_out: norm(after, "post_feedforward_layernorm", size)?,
            q_norm: norm(has_qk, "self_attn.q_norm", heads(config.num_attention_heads))?,
            k_norm: norm(has_qk, "self_attn.k_norm", heads(config.num_key_value_heads))?,
            weights: weights.map(|weight| weight.expect("every module is a part of one")),
            biases,
        })
    }

    /// A file with more layers than its config is not what it says it is.
    fn refuse_surplus(&self, config: &Config) -> Result<()> {
        let count = config.num_hidden_layers;
        let surplus = format!("model.layers.{count}.self_attn.o_proj.weight");
        if !self.base.contains(&surplus)? {
            return Ok(());
        }
        let plural = if count == 1 { "" } else { "s" };
        let message = format!("has `{surplus}`, but the config asks for {count} layer{plural}");
        Err(Error::file(&self.base.path, message))
    }

    fn is_trained(&self, name: &str) -> bool {
        self.optimizers(name).is_some()
    }

    /// What the optimizer keeps for this tensor, if it is trained.
    fn optimizers(&self, name: &str) -> Option<Optimizers> {
        let training = self.options.training.as_ref()?;
        training.tensors.contains(name).then_some(training.optimizers)
    }

    /// The parts of so many rows of a matrix of the file.
    fn matrices(&mut self, site: &Site<'_>, parts: &[usize]) -> Result<Vec<Matrix>> {
        let &Site { name, stored_as, rows, cols, .. } = site;
        if self.counts && self.options.replaced.contains_key(name) {
            return self.matrices_of(site, parts, &[]);
        }
        if let Some((shape, values)) = self.options.replaced.get(name) {
            check_shape(self.base, name, shape, &[rows, cols])?;
            return self.matrices_of(site, parts, values);
        }
        let tensor = self.base.tensor(stored_as, &[rows, cols])?;
        if self.is_trained(name) {
            let values = if self.counts { Vec::new() } else { tensor.values(0..rows)? };
            tensor.release();
            return self.matrices_of(site, parts, &values);
        }
        let quantization = self.options.quantization.filter(|_| site.role == Role::Linear);
        let weights = tensor
            .load(parts, quantization, self.backend)
            .map_err(|error| tensor.refused(0, error))?;
        tensor.release();
        Ok(weights.into_iter().map(Matrix::Frozen).collect())
    }

    /// The parts of a matrix with these values, trained if the options say so.
    fn matrices_of(
        &mut self,
        site: &Site<'_>,
        parts: &[usize],
        values: &[f32],
    ) -> Result<Vec<Matrix>> {
        let &Site { name, cols, role, .. } = site;
        if let Some(optimizers) = self.optimizers(name) {
            let place = (name, role);
            let tensor =
                TrainedTensor::load_matrix(self.backend, optimizers, place, (parts, cols), values)?;
            let matrices = tensor.matrices();
            self.trained.push(tensor);
            return Ok(matrices);
        }
        let quantization = self.options.quantization.filter(|_| role == Role::Linear);
        let weights = frozen(self.backend, (parts, cols), values, quantization)?;
        Ok(weights.into_iter().map(Matrix::Frozen).collect())
    }

    fn vector(&mut self, name: &str, len: usize, role: Role) -> Result<Vector> {
        Ok(self.vectors(name, &[len], role)?.remove(0))
    }

    /// Parts of so many numbers of a vector of the file.
    fn vectors(&mut self, name: &str, parts: &[usize], role: Role) -> Result<Vec<Vector>> {
        let len = parts.iter().sum();
        let values = match self.options.replaced.get(name) {
            _ if self.counts => vec![0.0; len],
            Some((_, values)) => values.clone(),
            None => self.base.vector(name, 0, len)?,
        };
        if let Some(optimizers) = self.optimizers(name) {
            let tensor =
                TrainedTensor::load_vector(self.backend, optimizers, (name, role), &values)?;
            let vectors = tensor.vectors(parts).into_iter().map(Vector::Trained).collect();
            self.trained.push(tensor);
            return Ok(vectors);
        }
        let mut first = 0;
        let part = |&len: &usize| {
            let values = &values[first..first + len];
            first += len;
            Ok(Vector::Frozen(constant(self.backend, values)?))
        };
        parts.iter().map(part).collect()
    }
}

impl Base {
    /// Embedding or head with so many rows; those beyond the file's are the mean of the file's.
    pub fn vocabulary(&self, name: &str, rows: usize) -> Result<HostTensor> {
        let (before, cols) = (self.config.vocab_size, self.config.hidden_size);
        let tensor = self.tensor(name, &[before, cols])?;
        Ok((vec![rows, cols], extended(tensor.values(0..before)?, before, rows, cols)))
    }
}

/// The first `rows` rows of a vocabulary; rows beyond the file's are the mean of the file's.
fn extended(mut values: Vec<f32>, before: usize, rows: usize, cols: usize) -> Vec<f32> {
    let mut mean = vec![0.0_f64; cols];
    for row in values.chunks_exact(cols) {
        mean.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x));
    }
    let mean: Vec<f32> = mean.into_iter().map(|sum| (sum / before as f64) as f32).collect();
    values.resize(before.min(rows) * cols, 0.0);
    for _ in before..rows {
        values.extend(&mean);
    }
    values
}

fn check_shape(base: &Base, name: &str, shape: &[usize], expected: &[usize]) -> Result<()> {
    if shape == expected {
        return Ok(());
    }
    let message = format!("`{name}` of the adapter has shape {shape:?}, the model's {expected:?}");
    Err(Error::file(&base.path, message).with_hint("the adapter belongs to another base"))
}

/// The parts of so many rows of a frozen matrix with these values, which are quantised as a whole.
pub(crate) fn frozen(
    backend: &mut dyn Backend,
    (parts, cols): (&[usize], usize),
    values: &[f32],
    quantization: Option<Quantization>,
) -> Result<Vec<Weight>> {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let source = |rows, bytes| {
        let storage = Storage::F32;
        WeightSource { rows, cols, storage, bytes, row_order: None }
    };
    if let Some(quantization) = quantization {
        let whole = source(parts.iter().sum(), &bytes);
        return Ok(match parts {
            [_] => vec![backend.load_as(whole, quantization)?],
            _ => backend.load_parts_as(whole, quantization, parts)?,
        });
    }
    let mut rest = &bytes[..];
    let load = |&rows: &usize| {
        // A device that only counts is given no values.
        let (own, after) = rest.split_at((4 * rows * cols).min(rest.len()));
        rest = after;
        Ok(backend.load(source(rows, own))?)
    };
    parts.iter().map(load).collect()
}

/// A f32 buffer with these values that lives as long as the backend.
pub(crate) fn constant(backend: &mut dyn Backend, values: &[f32]) -> Result<Buffer> {
    let buffer = backend.alloc_static(values.len(), DType::F32)?;
    backend.upload(values, buffer)?;
    Ok(buffer)
}

impl Tensor<'_> {
    /// Takes a matrix to a device in parts of so many rows, quantised on the way if it is not and shall be:
    /// as a whole, as it is stored.
    fn load(
        &self,
        parts: &[usize],
        quantization: Option<Quantization>,
        backend: &mut dyn Backend,
    ) -> compute::Result<Vec<Weight>> {
        if let (Some(quantization), Stored::Plain { .. }) = (quantization, &self.stored) {
            let whole = self.rows(0..parts.iter().sum());
            let source = whole.plain().expect("numbers that stand for themselves");
            return match parts {
                [_] => Ok(vec![backend.load_as(source, quantization)?]),
                _ => backend.load_parts_as(source, quantization, parts),
            };
        }
        let mut first = 0;
        let load = |&rows: &usize| {
            let part = self.rows(first..first + rows);
            first += rows;
            match part.plain() {
                Some(source) => backend.load(source),
                None => backend.load_quantized(part.quantized()),
            }
        };
        parts.iter().map(load).collect()
    }
}
