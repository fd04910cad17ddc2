//! Qwen 2 and 2.5 (biases on queries, keys and values) and Qwen 3 (norms on queries and keys).

use super::{Defaults, Keys, decoder, set_windows, share_rope, sliding_window};
use crate::Result;
use crate::config::{Biases, Config, QkNorm};

const QWEN: Defaults =
    Defaults { num_key_value_heads: Some(32), max_position_embeddings: 32_768, ..Defaults::LLAMA };

pub(super) fn qwen2(keys: &Keys<'_>) -> Result<Config> {
    let mut config = decoder(keys, &QWEN)?;
    config.biases = Biases { qkv: true, output: false, mlp: false };
    finish(keys, config)
}

pub(super) fn qwen3(keys: &Keys<'_>) -> Result<Config> {
    let mut config = decoder(keys, &Defaults { head_dim: Some(128), ..QWEN })?;
    let bias = keys.flag_or("attention_bias", false)?;
    config.biases = Biases { qkv: bias, output: bias, mlp: false };
    config.qk_norm = Some(QkNorm::Head);
    finish(keys, config)
}

/// With `use_sliding_window`, all but the first `max_window_layers` layers have the window.
fn finish(keys: &Keys<'_>, mut config: Config) -> Result<Config> {
    keys.refuse(&["mlp_bias"])?;
    share_rope(keys, &mut config, 10_000.0)?;
    let is_on = keys.flag_or("use_sliding_window", false)?;
    let window = if is_on { sliding_window(keys, Some(4096))? } else { None };
    let full = keys.count_or("max_window_layers", 28)?;
    set_windows(keys, &mut config, window, |layer| layer >= full)?;
    Ok(config)
}
