//! The architectures that a `config.json` may name: one file a family, each a
//! mapping from its keys to [`Config`].
//!
//! Keys and defaults are those of transformers. What a config asks for and the decoder
//! cannot do is refused by the name of its key. Dropouts of the base are not applied.

mod gemma;
mod granite;
mod keys;
mod llama;
mod mistral;
mod olmo2;
mod phi3;
mod qwen;
mod rope;
mod smollm3;
mod tensors;

use compute::op::Activation;
use serde_json::Value;

pub use tensors::{EMBEDDING, HEAD, shapes};
pub(crate) use tensors::{TensorKind, tensors};

use self::keys::Keys;
use crate::config::{Biases, LayerConfig, Norms};
use crate::{Config, Result};

/// A family, by the `model_type`s that it maps.
struct Architecture {
    model_types: &'static [&'static str],
    config: fn(&Keys<'_>) -> Result<Config>,
}

/// Every family that can be loaded.
const ARCHITECTURES: &[Architecture] = &[
    Architecture { model_types: &["llama"], config: llama::config },
    Architecture { model_types: &["mistral"], config: mistral::config },
    Architecture { model_types: &["qwen2"], config: qwen::qwen2 },
    Architecture { model_types: &["qwen3"], config: qwen::qwen3 },
    Architecture { model_types: &["gemma2"], config: gemma::gemma2 },
    Architecture { model_types: &["gemma3", "gemma3_text"], config: gemma::gemma3 },
    Architecture { model_types: &["phi3"], config: phi3::config },
    Architecture { model_types: &["smollm3"], config: smollm3::config },
    Architecture { model_types: &["olmo2"], config: olmo2::config },
    Architecture { model_types: &["granite"], config: granite::config },
];

/// Every `model_type` that can be loaded.
pub fn supported() -> impl Iterator<Item = &'static str> {
    ARCHITECTURES.iter().flat_map(|architecture| architecture.model_types).copied()
}

/// Maps a `config.json` by its `model_type`. `path` is only named in errors.
pub(crate) fn config(json: &Value, path: &std::path::Path) -> Result<Config> {
    let keys = Keys::new(json, path);
    let model_type = keys.text("model_type")?;
    let found = ARCHITECTURES.iter().find(|a| a.model_types.iter().any(|t| Some(*t) == model_type));
    let Some(architecture) = found else {
        let named = model_type.map_or("none".into(), |name| format!("`{name}`"));
        let supported: Vec<_> = supported().collect();
        return Err(keys
            .error(format!("`model_type` is {named}, which is not supported"))
            .with_hint(format!("supported: {}", supported.join(", "))));
    };
    (architecture.config)(&keys)
}

/// What a family takes for a key that is absent.
struct Defaults {
    hidden_size: Option<usize>,
    intermediate_size: Option<usize>,
    num_hidden_layers: Option<usize>,
    num_attention_heads: Option<usize>,
    /// None: `num_attention_heads`.
    num_key_value_heads: Option<usize>,
    /// None: `hidden_size / num_attention_heads`.
    head_dim: Option<usize>,
    vocab_size: Option<usize>,
    max_position_embeddings: usize,
    rms_norm_eps: f64,
    tie_word_embeddings: bool,
    activation_key: &'static str,
    activation: &'static str,
}

impl Defaults {
    /// Llama's. Sizes are always in the file.
    const LLAMA: Defaults = Defaults {
        hidden_size: None,
        intermediate_size: None,
        num_hidden_layers: None,
        num_attention_heads: None,
        num_key_value_heads: None,
        head_dim: None,
        vocab_size: None,
        max_position_embeddings: 2048,
        rms_norm_eps: 1e-6,
        tie_word_embeddings: false,
        activation_key: "hidden_act",
        activation: "silu",
    };
}

/// More layers than this are damage: every layer takes memory before a tensor is read.
const MAX_LAYERS: usize = 1 << 14;

/// Keys of models of other kinds, which change what these compute.
const FOREIGN: &[&str] =
    &["num_local_experts", "num_experts", "n_routed_experts", "attention_sinks", "kv_lora_rank"];

/// A Llama of these sizes: norms before, no biases, full attention, as yet without a rope.
fn decoder(keys: &Keys<'_>, defaults: &Defaults) -> Result<Config> {
    keys.refuse(FOREIGN)?;
    let hidden_size = keys.size_or("hidden_size", defaults.hidden_size)?;
    let heads = keys.size_or("num_attention_heads", defaults.num_attention_heads)?;
    let kv_heads = key_value_heads(keys, heads, defaults.num_key_value_heads)?;
    let head_dim = head_dim(keys, hidden_size, heads, defaults.head_dim)?;
    let num_hidden_layers = keys.size_or("num_hidden_layers", defaults.num_hidden_layers)?;
    if num_hidden_layers > MAX_LAYERS {
        return Err(keys.wrong("num_hidden_layers", "is not a sensible size"));
    }
    let max_positions = defaults.max_position_embeddings;
    Ok(Config {
        model_type: keys.text("model_type")?.unwrap_or_default().to_owned(),
        hidden_size,
        intermediate_size: keys.size_or("intermediate_size", defaults.intermediate_size)?,
        num_hidden_layers,
        num_attention_heads: heads,
        num_key_value_heads: kv_heads,
        head_dim,
        vocab_size: keys.size_or("vocab_size", defaults.vocab_size)?,
        rms_norm_eps: keys.float_or("rms_norm_eps", defaults.rms_norm_eps)? as f32,
        max_position_embeddings: keys.size_or("max_position_embeddings", Some(max_positions))?,
        tie_word_embeddings: keys.flag_or("tie_word_embeddings", defaults.tie_word_embeddings)?,
        ropes: Vec::new(),
        layers: vec![LayerConfig { rope: Some(0), window: None }; num_hidden_layers],
        activation: activation(keys, defaults)?,
        norms: Norms::Before,
        norm_offset: 0.0,
        qk_norm: None,
        biases: Biases::default(),
        is_fused: false,
        embedding_scale: 1.0,
        residual_scale: 1.0,
        attention_scale: 1.0 / (head_dim as f32).sqrt(),
        attention_softcap: None,
        logit_scale: 1.0,
        logit_softcap: None,
    })
}

/// An absent key has its own default, null always means as many as queries.
fn key_value_heads(keys: &Keys<'_>, heads: usize, default: Option<usize>) -> Result<usize> {
    let key = "num_key_value_heads";
    let default = default.filter(|_| !keys.is_null(key)).unwrap_or(heads);
    let kv_heads = keys.size_or(key, Some(default))?;
    if heads.is_multiple_of(kv_heads) {
        return Ok(kv_heads);
    }
    Err(keys.error(format!(
        "`num_attention_heads` = {heads} is not a multiple of `{key}` = {kv_heads}"
    )))
}

fn head_dim(keys: &Keys<'_>, hidden: usize, heads: usize, default: Option<usize>) -> Result<usize> {
    let quotient = hidden.is_multiple_of(heads).then_some(hidden / heads);
    match keys.optional_size("head_dim")?.or(default).or(quotient) {
        Some(head_dim) => Ok(head_dim),
        None => Err(keys.error(format!(
            "`hidden_size` = {hidden} is not a multiple of `num_attention_heads` = {heads}, \
             and there is no `head_dim`"
        ))),
    }
}

fn activation(keys: &Keys<'_>, defaults: &Defaults) -> Result<Activation> {
    match keys.text(defaults.activation_key)?.unwrap_or(defaults.activation) {
        "silu" | "swish" => Ok(Activation::Silu),
        "gelu_pytorch_tanh" => Ok(Activation::GeluTanh),
        _ => Err(keys
            .wrong(defaults.activation_key, "is not supported")
            .with_hint("supported: silu, gelu_pytorch_tanh")),
    }
}

/// Gives all layers the one rope that `keys` describe.
fn share_rope(keys: &Keys<'_>, config: &mut Config, theta: f64) -> Result<()> {
    keys.refuse_partial_rotary()?;
    let frame = rope::Frame::read(keys, config.head_dim, theta, config.max_position_embeddings)?;
    config.ropes = vec![rope::rope(&rope::parameters(keys)?, &frame)?];
    Ok(())
}

/// `sliding_window`, which null turns off.
fn sliding_window(keys: &Keys<'_>, default: Option<usize>) -> Result<Option<usize>> {
    let default = default.filter(|_| !keys.is_null("sliding_window"));
    Ok(keys.optional_size("sliding_window")?.or(default))
}

/// Which layers have the window: those that `layer_types` names, else those that `slides` says.
fn set_windows(
    keys: &Keys<'_>,
    config: &mut Config,
    window: Option<usize>,
    slides: impl Fn(usize) -> bool,
) -> Result<()> {
    let count = config.num_hidden_layers;
    let sliding = match layer_types(keys, count)? {
        Some(types) => types,
        None => (0..count).map(|layer| window.is_some() && slides(layer)).collect(),
    };
    if window.is_none() && sliding.contains(&true) {
        let message = "`layer_types` names `sliding_attention`, but there is no sliding window";
        return Err(keys.error(message));
    }
    for (layer, slides) in config.layers.iter_mut().zip(sliding) {
        layer.window = window.filter(|_| slides).map(|window| window as u32);
    }
    Ok(())
}

/// For models that have the window in all layers or in none, whatever `layer_types` says:
/// refuses one that says otherwise.
fn set_window_everywhere(
    keys: &Keys<'_>,
    config: &mut Config,
    window: Option<usize>,
) -> Result<()> {
    let types = layer_types(keys, config.num_hidden_layers)?;
    if types.is_some_and(|types| types.contains(&window.is_none())) {
        let message = "`layer_types` does not say the same as `sliding_window`";
        return Err(keys.error(message));
    }
    config.layers.iter_mut().for_each(|layer| layer.window = window.map(|window| window as u32));
    Ok(())
}

/// For every layer whether `layer_types` calls it sliding.
fn layer_types(keys: &Keys<'_>, count: usize) -> Result<Option<Vec<bool>>> {
    keys.list("layer_types", count, |value| match value.as_str() {
        Some("full_attention") => Some(false),
        Some("sliding_attention") => Some(true),
        _ => None,
    })
}

#[cfg(test)]
mod tests;
