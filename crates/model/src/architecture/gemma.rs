//! Gemma 2 and the text part of Gemma 3: norms around with `1 + w`, scaled embeddings,
//! windows in most layers.

use super::rope::{Frame, rope};
use super::{Defaults, Keys, decoder, set_windows, share_rope, sliding_window};
use crate::Result;
use crate::config::{Biases, Config, Norms, QkNorm};

const GEMMA2: Defaults = Defaults {
    hidden_size: Some(2304),
    intermediate_size: Some(9216),
    num_hidden_layers: Some(26),
    num_attention_heads: Some(8),
    num_key_value_heads: Some(4),
    head_dim: Some(256),
    vocab_size: Some(256_000),
    max_position_embeddings: 8192,
    rms_norm_eps: 1e-6,
    tie_word_embeddings: true,
    activation_key: "hidden_activation",
    activation: "gelu_pytorch_tanh",
};

const GEMMA3: Defaults =
    Defaults { vocab_size: Some(262_208), max_position_embeddings: 131_072, ..GEMMA2 };

pub(super) fn gemma2(keys: &Keys<'_>) -> Result<Config> {
    let mut config = gemma(keys, &GEMMA2, keys)?;
    config.attention_softcap = softcap(keys, "attn_logit_softcapping", Some(50.0))?;
    config.logit_softcap = softcap(keys, "final_logit_softcapping", Some(30.0))?;
    share_rope(keys, &mut config, 10_000.0)?;
    set_windows(keys, &mut config, sliding_window(keys, Some(4096))?, |layer| layer % 2 == 0)?;
    Ok(config)
}

/// `gemma3` also sees images: its text part stands under `text_config`, whether the
/// head is tied beside it. Tensors of its other parts are left alone.
pub(super) fn gemma3(outer: &Keys<'_>) -> Result<Config> {
    let model_type = outer.text("model_type")?.unwrap_or_default();
    let is_text = model_type == "gemma3_text";
    let keys = if is_text { outer.clone() } else { outer.object("text_config")? };
    let mut config = gemma(&keys, &GEMMA3, outer)?;
    config.model_type = model_type.into();
    config.tie_word_embeddings = outer.flag_or("tie_word_embeddings", true)?;
    config.qk_norm = Some(QkNorm::Head);
    if keys.get("attn_logit_softcapping").is_some() {
        let error = keys.wrong("attn_logit_softcapping", "has no effect in this model");
        return Err(error.with_hint("set it to null"));
    }
    config.logit_softcap = softcap(&keys, "final_logit_softcapping", None)?;
    let period = keys.size_or("sliding_window_pattern", Some(6))?;
    let is_full = |layer: usize| (layer + 1).is_multiple_of(period);
    set_windows(&keys, &mut config, sliding_window(&keys, Some(4096))?, |layer| !is_full(layer))?;
    set_ropes(&keys, &mut config)?;
    Ok(config)
}

/// What both have. `outer` says in what type the weights are.
fn gemma(keys: &Keys<'_>, defaults: &Defaults, outer: &Keys<'_>) -> Result<Config> {
    let bidirectional = "use_bidirectional_attention";
    if keys.get(bidirectional).is_some_and(|value| value.as_bool() != Some(false)) {
        let error = keys.wrong(bidirectional, "is not supported");
        return Err(error.with_hint("it belongs to embedding models"));
    }
    for key in [defaults.activation_key, "num_key_value_heads", "head_dim"] {
        keys.refuse_null(key)?;
    }
    keys.refuse(&["mlp_bias"])?;
    let mut config = decoder(keys, defaults)?;
    let bias = keys.flag_or("attention_bias", false)?;
    config.biases = Biases { qkv: bias, output: bias, mlp: false };
    config.norms = Norms::Around;
    config.norm_offset = 1.0;
    let dtype = dtype(outer)?.or(dtype(keys)?);
    config.embedding_scale = embedding_scale(config.hidden_size, dtype);
    config.attention_scale = 1.0 / keys.float_or("query_pre_attn_scalar", 256.0)?.sqrt() as f32;
    Ok(config)
}

fn dtype<'a>(keys: &Keys<'a>) -> Result<Option<&'a str>> {
    Ok(keys.text("dtype")?.or(keys.text("torch_dtype")?))
}

/// The square root of C, rounded to the type of the weights, as transformers does.
fn embedding_scale(hidden_size: usize, dtype: Option<&str>) -> f32 {
    let scale = (hidden_size as f32).sqrt();
    match dtype {
        Some("bfloat16") => half::bf16::from_f32(scale).to_f32(),
        Some("float16") => half::f16::from_f32(scale).to_f32(),
        _ => scale,
    }
}

/// A soft cap; null turns it off.
fn softcap(keys: &Keys<'_>, key: &str, default: Option<f64>) -> Result<Option<f32>> {
    let default = default.filter(|_| !keys.is_null(key));
    Ok(keys.optional_float(key)?.or(default).map(|cap| cap as f32))
}

/// Rope 0 is that of layers without a window, rope 1 that of the others.
fn set_ropes(keys: &Keys<'_>, config: &mut Config) -> Result<()> {
    keys.refuse_partial_rotary()?;
    let parameters = keys.object("rope_parameters")?;
    let scaling = keys.object("rope_scaling")?;
    if scaling.get("type").is_some() && scaling.get("rope_type").is_none() {
        let error = scaling.wrong("type", "is not read in this model");
        return Err(error.with_hint("name the key `rope_type`"));
    }
    let own = parameters.object("full_attention")?;
    if !parameters.is_empty() && own.is_empty() {
        let message = "`rope_parameters` has no `full_attention`";
        return Err(keys.error(message).with_hint("this model has one rope for each layer type"));
    }
    if !scaling.is_empty() && !own.is_empty() {
        let message = "has both `rope_scaling` and `rope_parameters`";
        return Err(keys.error(message).with_hint("leave `rope_scaling` out"));
    }
    let frame = |theta| Frame {
        head_dim: config.head_dim,
        theta,
        partial: None,
        max_positions: config.max_position_embeddings,
        original: None,
        su: None,
    };
    let full = frame(keys.float_or("rope_theta", 1_000_000.0)?);
    let sliding = frame(keys.float_or("rope_local_base_freq", 10_000.0)?);
    config.ropes = vec![
        rope(if own.is_empty() { &scaling } else { &own }, &full)?,
        rope(&parameters.object("sliding_attention")?, &sliding)?,
    ];
    for layer in &mut config.layers {
        layer.rope = Some(usize::from(layer.window.is_some()));
    }
    Ok(())
}
