//! Mistral 7B, Nemo and Small: a Llama, in the first version with a window in every layer.

use super::{Defaults, Keys, decoder, set_window_everywhere, share_rope, sliding_window};
use crate::{Config, Result};

pub(super) fn config(keys: &Keys<'_>) -> Result<Config> {
    let defaults = Defaults {
        num_key_value_heads: Some(8),
        max_position_embeddings: 131_072,
        ..Defaults::LLAMA
    };
    keys.refuse(&["attention_bias", "mlp_bias"])?;
    keys.refuse_null("num_key_value_heads")?;
    let mut config = decoder(keys, &defaults)?;
    share_rope(keys, &mut config, 10_000.0)?;
    let window = sliding_window(keys, Some(4096))?;
    set_window_everywhere(keys, &mut config, window)?;
    Ok(config)
}
