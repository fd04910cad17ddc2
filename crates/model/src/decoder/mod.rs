//! A decoder-only transformer over a backend: RMSNorm, rotary attention with
//! grouped queries, gated MLP.
//!
//! `forward` runs a batch up to the final norm at its reads; `head` turns reads into
//! log-probabilities; `backward` takes the objective's derivatives of those down to the
//! adapter's matrices. Derivatives are written by hand; there is no tape.

mod backward;
mod forward;
mod head;
mod inputs;
mod layer;

use compute::{Backend, Buffer, DType, Weight, WeightSource};

pub use forward::{Hidden, Pass};
pub use head::{HeadGradients, HeadOutputs, HeadRequest, ScalarHead, Want};
pub(crate) use inputs::{CacheView, Inputs, Spans};

use crate::checkpoint::{Base, Tensor};
use crate::{Config, Error, Result};

/// The linear layers of a decoder layer, in the order that they are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Module {
    /// `self_attn.q_proj`
    Q,
    /// `self_attn.k_proj`
    K,
    /// `self_attn.v_proj`
    V,
    /// `self_attn.o_proj`
    O,
    /// `mlp.gate_proj`
    Gate,
    /// `mlp.up_proj`
    Up,
    /// `mlp.down_proj`
    Down,
}

impl Module {
    /// All of them, in order.
    pub const ALL: [Module; 7] =
        [Module::Q, Module::K, Module::V, Module::O, Module::Gate, Module::Up, Module::Down];

    /// The name within a layer, as in checkpoints.
    pub fn path(self) -> &'static str {
        match self {
            Module::Q => "self_attn.q_proj",
            Module::K => "self_attn.k_proj",
            Module::V => "self_attn.v_proj",
            Module::O => "self_attn.o_proj",
            Module::Gate => "mlp.gate_proj",
            Module::Up => "mlp.up_proj",
            Module::Down => "mlp.down_proj",
        }
    }

    /// The last part of [`path`](Module::path), as in `target_modules`.
    pub fn name(self) -> &'static str {
        let path = self.path();
        path.split_once('.').map_or(path, |(_, name)| name)
    }

    /// The module with this [`name`](Module::name).
    pub fn from_name(name: &str) -> Option<Self> {
        Module::ALL.into_iter().find(|module| module.name() == name)
    }
}

/// A decoder layer's weights.
struct Layer {
    input_norm: Buffer,
    post_attention_norm: Buffer,
    weights: [Weight; 7],
}

/// A decoder whose weights a backend holds.
pub struct Decoder {
    /// Its shape.
    pub config: Config,
    embedding: Weight,
    head: Weight,
    norm: Buffer,
    inv_freq: Buffer,
    layers: Vec<Layer>,
}

impl Decoder {
    /// Loads all weights of `base` into `backend`, one tensor at a time.
    pub fn load(base: &Base, backend: &mut dyn Backend) -> Result<Self> {
        let config = base.config.clone();
        let (vocab, hidden) = (config.vocab_size, config.hidden_size);
        let embedding = matrix(base, backend, "model.embed_tokens.weight", vocab, hidden)?;
        let head = if config.tie_word_embeddings {
            embedding
        } else {
            matrix(base, backend, "lm_head.weight", vocab, hidden)?
        };
        let mut layers = Vec::new();
        for index in 0..config.num_hidden_layers {
            layers.push(Layer::load(base, backend, &config, index)?);
        }
        let count = config.num_hidden_layers;
        let surplus = format!("model.layers.{count}.input_layernorm.weight");
        if base.contains(&surplus)? {
            let plural = if count == 1 { "" } else { "s" };
            let message = format!("has `{surplus}`, but the config asks for {count} layer{plural}");
            return Err(Error::file(&base.path, message));
        }
        let norm = vector(base, backend, "model.norm.weight", hidden)?;
        let inv_freq = constant(backend, &config.rope.inv_freq)?;
        backend.sync()?;
        Ok(Decoder { config, embedding, head, norm, inv_freq, layers })
    }

    /// The factor on scores, `1 / sqrt(D)`.
    fn attention_scale(&self) -> f32 {
        1.0 / (self.config.head_dim as f32).sqrt()
    }
}

impl Layer {
    fn load(base: &Base, backend: &mut dyn Backend, config: &Config, index: usize) -> Result<Self> {
        let name = |part: &str| format!("model.layers.{index}.{part}.weight");
        let mut weights = Vec::with_capacity(Module::ALL.len());
        for module in Module::ALL {
            let (rows, cols) = config.shape(module);
            weights.push(matrix(base, backend, &name(module.path()), rows, cols)?);
        }
        let hidden = config.hidden_size;
        Ok(Layer {
            input_norm: vector(base, backend, &name("input_layernorm"), hidden)?,
            post_attention_norm: vector(base, backend, &name("post_attention_layernorm"), hidden)?,
            weights: weights.try_into().expect("seven modules"),
        })
    }

    fn weight(&self, module: Module) -> Weight {
        self.weights[module as usize]
    }
}

fn matrix(
    base: &Base,
    backend: &mut dyn Backend,
    name: &str,
    rows: usize,
    cols: usize,
) -> Result<Weight> {
    let Tensor { storage, bytes, row_order, path, .. } = base.tensor(name, &[rows, cols])?;
    let source = WeightSource { rows, cols, storage, bytes, row_order: row_order.as_deref() };
    backend.load(source).map_err(|error| Error::file(path, format!("tensor `{name}`: {error}")))
}

fn vector(base: &Base, backend: &mut dyn Backend, name: &str, len: usize) -> Result<Buffer> {
    let tensor = base.tensor(name, &[len])?;
    let Some(bytes) = tensor.storage.row_bytes(len).filter(|&b| b == tensor.bytes.len()) else {
        return Err(Error::file(tensor.path, format!("tensor `{name}` is cut off")));
    };
    let mut values = vec![0.0; len];
    compute::dequant::dequantize(tensor.storage, &tensor.bytes[..bytes], &mut values);
    constant(backend, &values)
}

/// A f32 buffer with these values that lives as long as the backend.
fn constant(backend: &mut dyn Backend, values: &[f32]) -> Result<Buffer> {
    let buffer = backend.alloc_static(values.len(), DType::F32)?;
    backend.upload(values, buffer)?;
    Ok(buffer)
}
