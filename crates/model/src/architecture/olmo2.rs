//! OLMo 2: norms after attention and MLP, and over the whole queries and keys.

use super::{Defaults, Keys, decoder, set_windows, share_rope};
use crate::Result;
use crate::config::{Biases, Config, Norms, QkNorm};

pub(super) fn config(keys: &Keys<'_>) -> Result<Config> {
    keys.refuse(&["mlp_bias", "clip_qkv"])?;
    let mut config = decoder(keys, &Defaults { rms_norm_eps: 1e-5, ..Defaults::LLAMA })?;
    let bias = keys.flag_or("attention_bias", false)?;
    config.biases = Biases { qkv: bias, output: bias, mlp: false };
    config.norms = Norms::After;
    config.qk_norm = Some(QkNorm::Projection);
    share_rope(keys, &mut config, 10_000.0)?;
    set_windows(keys, &mut config, None, |_| false)?;
    Ok(config)
}
