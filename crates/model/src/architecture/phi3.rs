//! Phi 3, 3.5 and 4: queries, keys and values in one matrix, gate and up in another; LongRoPE.

use super::rope::{Frame, parameters, rope};
use super::{Defaults, Keys, decoder, set_window_everywhere, sliding_window};
use crate::{Config, Result};

pub(super) fn config(keys: &Keys<'_>) -> Result<Config> {
    let defaults =
        Defaults { max_position_embeddings: 4096, rms_norm_eps: 1e-5, ..Defaults::LLAMA };
    keys.refuse(&["attention_bias", "mlp_bias"])?;
    let mut config = decoder(keys, &defaults)?;
    config.is_fused = true;
    let (head_dim, max_positions) = (config.head_dim, config.max_position_embeddings);
    let mut frame = Frame::read(keys, head_dim, 10_000.0, max_positions)?;
    frame.partial = Some(keys.float_or("partial_rotary_factor", 1.0)?);
    // The default of this family wins even over the number among the rope's own keys.
    frame.original = frame.original.or(Some(4096));
    frame.su = Some("longrope");
    config.ropes = vec![rope(&parameters(keys)?, &frame)?];
    set_window_everywhere(keys, &mut config, sliding_window(keys, None)?)?;
    Ok(config)
}
