//! Granite 3: a Llama with multipliers.

use super::{Keys, llama};
use crate::{Config, Result};

pub(super) fn config(keys: &Keys<'_>) -> Result<Config> {
    let mut config = llama::config(keys)?;
    config.embedding_scale = keys.float_or("embedding_multiplier", 1.0)? as f32;
    config.residual_scale = keys.float_or("residual_multiplier", 1.0)? as f32;
    // In place of the root of D.
    config.attention_scale = keys.float_or("attention_multiplier", 1.0)? as f32;
    config.logit_scale = 1.0 / keys.float_or("logits_scaling", 1.0)? as f32;
    Ok(config)
}
