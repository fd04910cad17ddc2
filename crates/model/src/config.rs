//! The shape of a decoder, read from `config.json` with Hugging Face's keys.

use std::path::Path;

use compute::op::Activation;
use serde_json::Value;

use crate::{Module, Result, architecture};

/// The shape of a decoder and the constants of its formulas.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// `model_type` of the checkpoint.
    pub model_type: String,
    /// C.
    pub hidden_size: usize,
    /// I, the inner size of the MLP.
    pub intermediate_size: usize,
    /// Number of decoder layers.
    pub num_hidden_layers: usize,
    /// H.
    pub num_attention_heads: usize,
    /// KV.
    pub num_key_value_heads: usize,
    /// D.
    pub head_dim: usize,
    /// V.
    pub vocab_size: usize,
    /// Added to the mean of squares in every norm.
    pub rms_norm_eps: f32,
    /// Longest sequence that the model was made for.
    pub max_position_embeddings: usize,
    /// Whether the output matrix is the embedding.
    pub tie_word_embeddings: bool,
    /// Rotary positions; layers name theirs by index.
    pub ropes: Vec<Rope>,
    /// What differs from layer to layer.
    pub layers: Vec<LayerConfig>,
    /// Of the gated MLP.
    pub activation: Activation,
    /// Where the norms of a layer stand.
    pub norms: Norms,
    /// Added to every norm's weight: 1 for Gemma.
    pub norm_offset: f32,
    /// Norm over queries and keys, before they are rotated.
    pub qk_norm: Option<QkNorm>,
    /// Which linear layers have biases.
    pub biases: Biases,
    /// Whether files hold `qkv_proj` and `gate_up_proj` in place of their parts.
    pub is_fused: bool,
    /// Factor on the embedding.
    pub embedding_scale: f32,
    /// Factor on what attention and MLP add to the stream.
    pub residual_scale: f32,
    /// Factor on the scores of attention.
    pub attention_scale: f32,
    /// Soft cap on the scores.
    pub attention_softcap: Option<f32>,
    /// Factor on the logits.
    pub logit_scale: f32,
    /// Soft cap on the logits.
    pub logit_softcap: Option<f32>,
}

/// What may differ from layer to layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LayerConfig {
    /// Index of its rotary positions in [`Config::ropes`]; none: queries and keys are not rotated.
    pub rope: Option<usize>,
    /// A token sees itself and so many minus one before it.
    pub window: Option<u32>,
}

/// Where the norms of a layer stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Norms {
    /// `x + f(norm(x))`: `input_layernorm`, `post_attention_layernorm`.
    Before,
    /// `x + norm(f(x))`: `post_attention_layernorm`, `post_feedforward_layernorm` (OLMo 2).
    After,
    /// `x + norm(f(norm(x)))`: both, and `pre_feedforward_layernorm` (Gemma 2 and 3).
    Around,
}

/// What a norm over queries and keys is taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QkNorm {
    /// Each head for itself, weights `[D]`.
    Head,
    /// The whole projection, weights `[H * D]` and `[KV * D]`.
    Projection,
}

/// Which linear layers have biases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Biases {
    /// Of queries, keys and values.
    pub qkv: bool,
    /// Of the attention's output.
    pub output: bool,
    /// Of the MLP's three layers.
    pub mlp: bool,
}

/// Rotary position embedding, Su et al. 2021, with the frequencies already scaled.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// R: so many numbers of each head are rotated.
    pub rotary_dim: usize,
    /// Radians per position of every pair, `[R / 2]`.
    pub inv_freq: Vec<f32>,
    /// LongRoPE: sequences of more tokens than the first number take these frequencies, `[R / 2]`. The
    /// length of a sequence is that of the whole row in training, and that of all tokens so far in generation.
    pub long: Option<(usize, Vec<f32>)>,
    /// Factor on cosine and sine.
    pub attention_scale: f32,
    /// Sequences of more tokens would need other frequencies (dynamic NTK) and are refused.
    pub max_positions: Option<usize>,
}

impl Config {
    /// Reads a `config.json` by its `model_type`. `path` is only named in errors.
    pub fn from_json(json: &Value, path: &Path) -> Result<Self> {
        architecture::config(json, path)
    }

    /// Outputs and inputs of a linear module.
    pub fn shape(&self, module: Module) -> (usize, usize) {
        let query = self.num_attention_heads * self.head_dim;
        let key = self.num_key_value_heads * self.head_dim;
        match module {
            Module::Q => (query, self.hidden_size),
            Module::K | Module::V => (key, self.hidden_size),
            Module::O => (self.hidden_size, query),
            Module::Gate | Module::Up => (self.intermediate_size, self.hidden_size),
            Module::Down => (self.hidden_size, self.intermediate_size),
            Module::Qkv => (query + 2 * key, self.hidden_size),
            Module::GateUp => (2 * self.intermediate_size, self.hidden_size),
        }
    }

    /// The linear modules of a layer as files hold them, in the order that they are used.
    pub fn modules(&self) -> &'static [Module] {
        if self.is_fused {
            &[Module::Qkv, Module::O, Module::GateUp, Module::Down]
        } else {
            &Module::ALL
        }
    }

    /// Whether a module (never a fused one) has a bias.
    pub fn has_bias(&self, module: Module) -> bool {
        match module {
            Module::Q | Module::K | Module::V | Module::Qkv => self.biases.qkv,
            Module::O => self.biases.output,
            Module::Gate | Module::Up | Module::Down | Module::GateUp => self.biases.mlp,
        }
    }

    /// Sequences of more tokens than this are rotated by other frequencies than shorter ones, so that
    /// they cannot share a prefix.
    pub fn long_beyond(&self) -> Option<usize> {
        self.ropes.iter().find_map(|rope| rope.long.as_ref().map(|(limit, _)| *limit))
    }

    /// Refuses a sequence that is longer than the rotary embedding can express.
    ///
    /// Beyond the limit, transformers changes the frequencies of `dynamic` scaling with every token, and
    /// leaves the keys of earlier tokens as they are: an answer would not be what training computes.
    pub(crate) fn check_length(&self, tokens: usize) -> Result<()> {
        match self.ropes.iter().find_map(|rope| rope.max_positions) {
            Some(max) if tokens > max => Err(crate::Error::Input {
                message: format!(
                    "a sequence of {tokens} tokens, but `dynamic` rope scaling is supported \
                     up to {max} positions"
                ),
                hint: Some(
                    "use shorter sequences (`data.max_seq_len`, `max_new_tokens`), or `linear` or \
                     `yarn` scaling"
                        .into(),
                ),
            }),
            _ => Ok(()),
        }
    }

    /// Numbers in all matrices, biases and norms; a tied head counts once.
    pub fn parameter_count(&self) -> usize {
        let matrix = |module: &Module| {
            let (rows, cols) = self.shape(*module);
            rows * cols + if self.has_bias(*module) { rows } else { 0 }
        };
        let modules: usize = Module::ALL.iter().map(matrix).sum();
        let norms = if self.norms == Norms::Around { 4 } else { 2 };
        let qk_norms = match self.qk_norm {
            None => 0,
            Some(QkNorm::Head) => 2 * self.head_dim,
            Some(QkNorm::Projection) => self.shape(Module::Q).0 + self.shape(Module::K).0,
        };
        let embeddings = if self.tie_word_embeddings { 1 } else { 2 };
        self.num_hidden_layers * (modules + norms * self.hidden_size + qk_norms)
            + self.hidden_size
            + embeddings * self.vocab_size * self.hidden_size
    }
}
