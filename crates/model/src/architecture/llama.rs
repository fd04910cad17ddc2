//! Llama 2 and 3, SmolLM 2, and what else calls itself `llama`.

use super::{Defaults, Keys, decoder, set_windows, share_rope};
use crate::Result;
use crate::config::{Biases, Config};

pub(super) fn config(keys: &Keys<'_>) -> Result<Config> {
    let mut config = decoder(keys, &Defaults::LLAMA)?;
    config.biases = biases(keys)?;
    share_rope(keys, &mut config, 10_000.0)?;
    set_windows(keys, &mut config, None, |_| false)?;
    Ok(config)
}

/// `attention_bias` puts biases on queries, keys, values and output, `mlp_bias` on the MLP.
pub(super) fn biases(keys: &Keys<'_>) -> Result<Biases> {
    let attention = keys.flag_or("attention_bias", false)?;
    Ok(Biases { qkv: attention, output: attention, mlp: keys.flag_or("mlp_bias", false)? })
}
