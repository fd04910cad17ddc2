//! SmolLM 3: a Llama in which every fourth layer knows no positions.

use super::llama::biases;
use super::{Defaults, Keys, decoder, set_windows, share_rope, sliding_window};
use crate::{Config, Result};

pub(super) fn config(keys: &Keys<'_>) -> Result<Config> {
    let defaults = Defaults {
        num_key_value_heads: Some(4),
        max_position_embeddings: 32_768,
        tie_word_embeddings: true,
        ..Defaults::LLAMA
    };
    let mut config = decoder(keys, &defaults)?;
    config.biases = biases(keys)?;
    share_rope(keys, &mut config, 2_000_000.0)?;
    let has_rope = has_rope(keys, config.num_hidden_layers)?;
    for (layer, has_rope) in config.layers.iter_mut().zip(&has_rope) {
        layer.rope = has_rope.then_some(0);
    }
    let is_on = keys.flag_or("use_sliding_window", false)?;
    let window = if is_on { sliding_window(keys, None)? } else { None };
    set_windows(keys, &mut config, window, |layer| !has_rope[layer])?;
    Ok(config)
}

/// `no_rope_layers` holds 1 for layers *with* a rope; without it, every
/// `no_rope_layer_interval`-th layer has none.
fn has_rope(keys: &Keys<'_>, count: usize) -> Result<Vec<bool>> {
    let listed = keys.list("no_rope_layers", count, |value| match value.as_u64() {
        Some(0) => Some(false),
        Some(1) => Some(true),
        _ => None,
    })?;
    let interval = keys.size_or("no_rope_layer_interval", Some(4))?;
    let by_interval = || (1..=count).map(|layer| !layer.is_multiple_of(interval)).collect();
    Ok(listed.unwrap_or_else(by_interval))
}
