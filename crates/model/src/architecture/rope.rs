//! Rotary positions: base, scaling and the part of a head that is rotated, in
//! the spellings of transformers 4 (`rope_theta`, `rope_scaling`) and 5 (`rope_parameters`).
//!
//! LongRoPE (Phi-3 128k, 3.5, 4-mini): a pass over more tokens than `original_max_position_embeddings` uses the long
//! frequencies at all of its positions. In training and evaluation the length is that of the row, tokens that nobody
//! reads included. In generation it is that of prompt and answer so far; when an answer passes the limit, all of its
//! keys are computed again. transformers takes the longest row of a batch with its padding, we take each row's own
//! length. One difference remains there as here: an answer that passes the limit is trained with the long frequencies
//! from its first token and generated with the short ones up to the limit. Sequences on both sides of the limit share
//! no prefix.
//!
//! `dynamic` scaling beyond its limit is refused. transformers changes the frequencies with every token there, leaves
//! earlier keys as they are, and keeps the largest length that it has seen: an answer is not what training computes.

use std::f64::consts::TAU;

use serde_json::Value;

use super::Keys;
use crate::Result;
use crate::config::Rope;

/// What a rope is made of beside the keys of its own object.
pub(super) struct Frame {
    /// D.
    pub(super) head_dim: usize,
    /// `rope_theta` where the object has none.
    pub(super) theta: f64,
    /// `partial_rotary_factor` where the object has none; none: only 1 is possible.
    pub(super) partial: Option<f64>,
    /// Longest sequence that the model was made for.
    pub(super) max_positions: usize,
    /// Longest sequence before the scaling, which wins over the one in the object.
    pub(super) original: Option<usize>,
    /// Kind that is taken for `su` and `yarn`.
    pub(super) su: Option<&'static str>,
}

impl Frame {
    /// For the rope that all layers of a model share. A top-level
    /// `original_max_position_embeddings` wins over the one in the object.
    pub(super) fn read(
        keys: &Keys<'_>,
        head_dim: usize,
        theta: f64,
        max_positions: usize,
    ) -> Result<Self> {
        Ok(Frame {
            head_dim,
            theta: keys.float_or("rope_theta", theta)?,
            partial: None,
            max_positions,
            original: keys.optional_size("original_max_position_embeddings")?,
            su: None,
        })
    }
}

/// The object that describes the one rope of a model: `rope_scaling` wins.
pub(super) fn parameters<'a>(keys: &Keys<'a>) -> Result<Keys<'a>> {
    let old = keys.object("rope_scaling")?;
    if old.is_empty() { keys.object("rope_parameters") } else { Ok(old) }
}

/// The rope that `object` describes.
pub(super) fn rope(object: &Keys<'_>, frame: &Frame) -> Result<Rope> {
    let rotary_dim = rotary_dim(object, frame)?;
    let theta = object.float_or("rope_theta", frame.theta)?;
    let dim = rotary_dim as f64;
    let base: Vec<f64> = (0..rotary_dim / 2).map(|i| theta.powf(-2.0 * i as f64 / dim)).collect();
    let mut rope = Rope {
        rotary_dim,
        inv_freq: Vec::new(),
        long: None,
        attention_scale: 1.0,
        max_positions: None,
    };
    let kind = kind(object, frame)?;
    rope.inv_freq = narrowed(match kind {
        "default" => base,
        "linear" => {
            let factor = object.float("factor")?;
            base.iter().map(|f| f / factor).collect()
        }
        "dynamic" => {
            object.float("factor")?;
            rope.max_positions = Some(frame.max_positions);
            base
        }
        "llama3" => llama3(object, frame, &base)?,
        "yarn" => yarn(object, frame, &base, theta, &mut rope.attention_scale)?,
        "longrope" => longrope(object, frame, &base, &mut rope)?,
        // Of a GGUF file: divisors of every frequency.
        "freq_factors" => divided(object, "factors", &base)?,
        _ => return Err(unknown(object, kind)),
    });
    Ok(rope)
}

fn unknown(object: &Keys<'_>, kind: &str) -> crate::Error {
    object
        .error(format!("rope scaling `{kind}` is not supported"))
        .with_hint("supported: default, linear, dynamic, llama3, yarn, longrope")
}

fn kind<'a>(object: &Keys<'a>, frame: &Frame) -> Result<&'a str> {
    let kind = object.text("rope_type")?.or(object.text("type")?).unwrap_or("default");
    Ok(match frame.su {
        Some(meant) if matches!(kind, "su" | "yarn") => meant,
        _ => kind,
    })
}

/// R = D times `partial_rotary_factor`, rounded down.
fn rotary_dim(object: &Keys<'_>, frame: &Frame) -> Result<usize> {
    let partial = object.optional_float("partial_rotary_factor")?;
    let partial = match frame.partial {
        Some(default) => partial.unwrap_or(default),
        None if partial.is_some_and(|factor| factor != 1.0) => {
            return Err(object.wrong("partial_rotary_factor", "is not supported for this model"));
        }
        None => 1.0,
    };
    let rotary_dim = (frame.head_dim as f64 * partial) as usize;
    if rotary_dim == 0 || rotary_dim > frame.head_dim {
        let message = format!("`partial_rotary_factor` = {partial} is not between 0 and 1");
        return Err(object.error(message));
    }
    if !rotary_dim.is_multiple_of(2) {
        let what = if rotary_dim == frame.head_dim {
            format!("`head_dim` = {rotary_dim}")
        } else {
            format!("`head_dim` * `partial_rotary_factor` = {rotary_dim}")
        };
        return Err(object.error(format!("{what} is odd, and rotary positions turn pairs")));
    }
    Ok(rotary_dim)
}

fn original(object: &Keys<'_>, frame: &Frame) -> Result<f64> {
    let own = object.optional_size("original_max_position_embeddings")?;
    Ok(frame.original.or(own).unwrap_or(frame.max_positions) as f64)
}

/// Llama 3.1's scaling: long waves are slowed by `factor`, short ones kept, those between blended.
fn llama3(object: &Keys<'_>, frame: &Frame, base: &[f64]) -> Result<Vec<f64>> {
    let factor = object.float("factor")?;
    let low = object.float("low_freq_factor")?;
    let high = object.float("high_freq_factor")?;
    let original = original(object, frame)?;
    let scaled = base.iter().map(|&frequency| {
        let wavelength = TAU / frequency;
        if wavelength > original / low {
            frequency / factor
        } else if wavelength < original / high {
            frequency
        } else {
            let smooth = (original / wavelength - low) / (high - low);
            (1.0 - smooth) * frequency / factor + smooth * frequency
        }
    });
    Ok(scaled.collect())
}

/// YaRN, Peng et al. 2023: a ramp between interpolated and kept frequencies.
fn yarn(
    object: &Keys<'_>,
    frame: &Frame,
    base: &[f64],
    theta: f64,
    attention_scale: &mut f32,
) -> Result<Vec<f64>> {
    let original = original(object, frame)?;
    let factor = object.float_or("factor", frame.max_positions as f64 / original)?;
    *attention_scale = yarn_attention_scale(object, factor)? as f32;
    let dim = 2.0 * base.len() as f64;
    // The pair that turns so many times over the original length.
    let pair = |turns: f64| dim * (original / (turns * TAU)).ln() / (2.0 * theta.ln());
    let mut low = pair(object.float_or("beta_fast", 32.0)?);
    let mut high = pair(object.float_or("beta_slow", 1.0)?);
    if object.flag_or("truncate", true)? {
        (low, high) = (low.floor(), high.ceil());
    }
    (low, high) = (low.max(0.0), high.min(dim - 1.0));
    if low == high {
        high += 0.001;
    }
    let blended = base.iter().enumerate().map(|(i, frequency)| {
        let ramp = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
        frequency / factor * ramp + frequency * (1.0 - ramp)
    });
    Ok(blended.collect())
}

/// `attention_factor`, or `1 + 0.1 ln(factor)`; with `mscale` and `mscale_all_dim` (DeepSeek) a ratio.
fn yarn_attention_scale(object: &Keys<'_>, factor: f64) -> Result<f64> {
    if let Some(given) = object.optional_float("attention_factor")? {
        return Ok(given);
    }
    let scale = |mscale: f64| if factor <= 1.0 { 1.0 } else { 0.1 * mscale * factor.ln() + 1.0 };
    let both = (object.optional_float("mscale")?, object.optional_float("mscale_all_dim")?);
    Ok(match both {
        (Some(mscale), Some(all_dim)) => scale(mscale) / scale(all_dim),
        _ => scale(1.0),
    })
}

/// LongRoPE, Ding et al. 2024: a divisor for every frequency, one list for
/// sequences within the original length and one for longer ones.
///
/// The scale of cosine and sine is `sqrt(1 + ln(factor) / ln(original))` for both.
fn longrope(object: &Keys<'_>, frame: &Frame, base: &[f64], rope: &mut Rope) -> Result<Vec<f64>> {
    let original = original(object, frame)?;
    let factor = object.float_or("factor", frame.max_positions as f64 / original)?;
    let inferred = if factor <= 1.0 { 1.0 } else { (1.0 + factor.ln() / original.ln()).sqrt() };
    rope.attention_scale = object.float_or("attention_factor", inferred)? as f32;
    let long = divided(object, "long_factor", base)?;
    rope.long = Some((original as usize, narrowed(long)));
    divided(object, "short_factor", base)
}

/// Every frequency divided by its number in the list under `key`.
fn divided(object: &Keys<'_>, key: &str, base: &[f64]) -> Result<Vec<f64>> {
    let read = |value: &Value| value.as_f64().filter(|factor| *factor > 0.0);
    let Some(factors) = object.list(key, base.len(), read)? else {
        return Err(object.error(format!("{} is missing", object.name(key))));
    };
    Ok(base.iter().zip(factors).map(|(frequency, factor)| frequency / factor).collect())
}

fn narrowed(frequencies: Vec<f64>) -> Vec<f32> {
    frequencies.into_iter().map(|f| f as f32).collect()
}
