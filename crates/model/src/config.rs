//! The shape of a decoder, read from `config.json` with Hugging Face's keys.

use std::path::Path;

use serde_json::Value;

use crate::{Error, Result};

/// Architectures that [`Config::from_json`] maps, by their `model_type`.
pub const SUPPORTED: &[&str] = &["llama"];

/// The shape of a decoder and the constants of its formulas.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// `model_type` of the checkpoint.
    pub model_type: String,
    /// C.
    pub hidden_size: usize,
    /// I, the inner size of the MLP.
    pub intermediate_size: usize,
    /// Number of decoder layers.
    pub num_hidden_layers: usize,
    /// H.
    pub num_attention_heads: usize,
    /// KV.
    pub num_key_value_heads: usize,
    /// D.
    pub head_dim: usize,
    /// V.
    pub vocab_size: usize,
    /// Added to the mean of squares in every norm.
    pub rms_norm_eps: f32,
    /// Longest sequence that the model was made for.
    pub max_position_embeddings: usize,
    /// Whether the output matrix is the embedding.
    pub tie_word_embeddings: bool,
    /// Rotary positions.
    pub rope: Rope,
}

/// Rotary position embedding, Su et al. 2021, with the frequencies already scaled.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Radians per position of every pair, `[D / 2]`.
    pub inv_freq: Vec<f32>,
    /// Factor on cosine and sine.
    pub attention_scale: f32,
    /// Positions at and beyond this one would need other frequencies (dynamic NTK).
    pub max_positions: Option<usize>,
}

impl Config {
    /// Reads a `config.json`. `path` is only named in errors.
    pub fn from_json(json: &Value, path: &Path) -> Result<Self> {
        let keys = Keys { json, path };
        let model_type = json.get("model_type").and_then(Value::as_str).unwrap_or("").to_owned();
        if !SUPPORTED.contains(&model_type.as_str()) {
            let named =
                if model_type.is_empty() { "none".into() } else { format!("`{model_type}`") };
            return Err(keys
                .error(format!("`model_type` is {named}, which is not supported"))
                .with_hint(format!("supported: {}", SUPPORTED.join(", "))));
        }
        if json.get("partial_rotary_factor").and_then(Value::as_f64).is_some_and(|f| f != 1.0) {
            return Err(keys.error("`partial_rotary_factor` below 1 is not supported".into()));
        }
        for key in ["attention_bias", "mlp_bias"] {
            if json.get(key).and_then(Value::as_bool) == Some(true) {
                return Err(keys.error(format!("`{key}` = true is not supported")));
            }
        }
        match json.get("hidden_act").and_then(Value::as_str).unwrap_or("silu") {
            "silu" => {}
            other => {
                return Err(keys
                    .error(format!("`hidden_act` = `{other}` is not supported"))
                    .with_hint("supported for llama: silu"));
            }
        }
        let hidden_size = keys.size("hidden_size")?;
        let num_attention_heads = keys.size("num_attention_heads")?;
        let num_key_value_heads = keys.size_or("num_key_value_heads", num_attention_heads)?;
        if num_attention_heads % num_key_value_heads != 0 {
            return Err(keys.error(format!(
                "`num_attention_heads` = {num_attention_heads} is not a multiple of \
                 `num_key_value_heads` = {num_key_value_heads}"
            )));
        }
        let head_dim = match json.get("head_dim") {
            None | Some(Value::Null) if hidden_size % num_attention_heads != 0 => {
                return Err(keys.error(format!(
                    "`hidden_size` = {hidden_size} is not a multiple of \
                     `num_attention_heads` = {num_attention_heads}, and there is no `head_dim`"
                )));
            }
            _ => keys.size_or("head_dim", hidden_size / num_attention_heads)?,
        };
        if head_dim % 2 != 0 {
            return Err(keys.error(format!("`head_dim` = {head_dim} is odd")));
        }
        let max_position_embeddings = keys.size_or("max_position_embeddings", 2048)?;
        Ok(Config {
            model_type,
            hidden_size,
            intermediate_size: keys.size("intermediate_size")?,
            num_hidden_layers: keys.size("num_hidden_layers")?,
            num_attention_heads,
            num_key_value_heads,
            head_dim,
            vocab_size: keys.size("vocab_size")?,
            rms_norm_eps: keys.float_or(json, "rms_norm_eps", 1e-6)? as f32,
            max_position_embeddings,
            tie_word_embeddings: json
                .get("tie_word_embeddings")
                .and_then(Value::as_bool)
                .unwrap_or(false),
            rope: Rope::from_json(&keys, head_dim, max_position_embeddings)?,
        })
    }

    /// Outputs and inputs of a linear module.
    pub fn shape(&self, module: crate::Module) -> (usize, usize) {
        use crate::Module::*;
        let query = self.num_attention_heads * self.head_dim;
        let key = self.num_key_value_heads * self.head_dim;
        match module {
            Q => (query, self.hidden_size),
            K | V => (key, self.hidden_size),
            O => (self.hidden_size, query),
            Gate | Up => (self.intermediate_size, self.hidden_size),
            Down => (self.hidden_size, self.intermediate_size),
        }
    }

    /// Numbers in all matrices and norms; a tied head counts once.
    pub fn parameter_count(&self) -> usize {
        let modules: usize =
            crate::Module::ALL.iter().map(|&m| self.shape(m).0 * self.shape(m).1).sum();
        let embeddings = if self.tie_word_embeddings { 1 } else { 2 };
        self.num_hidden_layers * (modules + 2 * self.hidden_size)
            + self.hidden_size
            + embeddings * self.vocab_size * self.hidden_size
    }
}

impl Rope {
    fn from_json(keys: &Keys<'_>, head_dim: usize, max_positions: usize) -> Result<Self> {
        let json = keys.json;
        // Transformers 5 writes one `rope_parameters`; before, theta stood beside `rope_scaling`.
        let scaling = ["rope_parameters", "rope_scaling"]
            .into_iter()
            .find_map(|key| json.get(key).filter(|v| v.is_object()))
            .unwrap_or(&Value::Null);
        let theta = match scaling.get("rope_theta") {
            Some(_) => keys.float_or(scaling, "rope_theta", 10_000.0)?,
            None => keys.float_or(json, "rope_theta", 10_000.0)?,
        };
        let kind = scaling.get("rope_type").or_else(|| scaling.get("type"));
        let kind = kind.and_then(Value::as_str).unwrap_or("default");
        let base: Vec<f64> =
            (0..head_dim / 2).map(|i| theta.powf(-2.0 * i as f64 / head_dim as f64)).collect();
        let mut rope = Rope { inv_freq: Vec::new(), attention_scale: 1.0, max_positions: None };
        let inv_freq = match kind {
            // Of a GGUF file: divisors of every frequency, which stand in a tensor.
            "default" | "freq_factors" => base,
            "linear" => {
                let factor = keys.float(scaling, "factor")?;
                base.iter().map(|f| f / factor).collect()
            }
            "dynamic" => {
                rope.max_positions = Some(max_positions);
                base
            }
            "llama3" => llama3_frequencies(keys, scaling, &base)?,
            "yarn" => {
                let factor = keys.float(scaling, "factor")?;
                rope.attention_scale =
                    keys.float_or(scaling, "attention_factor", 0.1 * factor.ln() + 1.0)? as f32;
                yarn_frequencies(keys, scaling, &base, theta, max_positions)?
            }
            other => {
                return Err(keys
                    .error(format!("rope scaling `{other}` is not supported"))
                    .with_hint("supported: default, linear, dynamic, llama3, yarn"));
            }
        };
        rope.inv_freq = inv_freq.into_iter().map(|f| f as f32).collect();
        if let Some(factors) = json.get("rope_freq_factors").and_then(Value::as_array) {
            for (frequency, factor) in rope.inv_freq.iter_mut().zip(factors) {
                *frequency /= factor.as_f64().unwrap_or(1.0) as f32;
            }
        }
        Ok(rope)
    }
}

/// Llama 3.1's scaling: long waves are slowed by `factor`, short ones kept, those between blended.
fn llama3_frequencies(keys: &Keys<'_>, scaling: &Value, base: &[f64]) -> Result<Vec<f64>> {
    let factor = keys.float(scaling, "factor")?;
    let low = keys.float(scaling, "low_freq_factor")?;
    let high = keys.float(scaling, "high_freq_factor")?;
    let original = keys.float(scaling, "original_max_position_embeddings")?;
    let scaled = base.iter().map(|&frequency| {
        let wavelength = std::f64::consts::TAU / frequency;
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
fn yarn_frequencies(
    keys: &Keys<'_>,
    scaling: &Value,
    base: &[f64],
    theta: f64,
    max_positions: usize,
) -> Result<Vec<f64>> {
    let factor = keys.float(scaling, "factor")?;
    let beta_fast = keys.float_or(scaling, "beta_fast", 32.0)?;
    let beta_slow = keys.float_or(scaling, "beta_slow", 1.0)?;
    let original =
        keys.float_or(scaling, "original_max_position_embeddings", max_positions as f64)?;
    let dim = 2.0 * base.len() as f64;
    // The pair that turns `rotations` times over the original length.
    let pair = |rotations: f64| {
        dim * (original / (rotations * std::f64::consts::TAU)).ln() / (2.0 * theta.ln())
    };
    let truncate = scaling.get("truncate").and_then(Value::as_bool).unwrap_or(true);
    let (mut low, mut high) = (pair(beta_fast), pair(beta_slow));
    if truncate {
        (low, high) = (low.floor(), high.ceil());
    }
    let (low, mut high) = (low.max(0.0), high.min(dim - 1.0));
    if low == high {
        high += 0.001;
    }
    let blended = base.iter().enumerate().map(|(i, frequency)| {
        let ramp = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
        frequency / factor * ramp + frequency * (1.0 - ramp)
    });
    Ok(blended.collect())
}

/// Reads numbers and says which key of which file is wrong.
struct Keys<'a> {
    json: &'a Value,
    path: &'a Path,
}

impl Keys<'_> {
    fn error(&self, message: String) -> Error {
        Error::file(self.path, message)
    }

    fn size(&self, key: &str) -> Result<usize> {
        match self.json.get(key) {
            None | Some(Value::Null) => Err(self.error(format!("`{key}` is missing"))),
            Some(value) => value
                .as_u64()
                .filter(|v| (1..=1 << 24).contains(v))
                .map(|v| v as usize)
                .ok_or_else(|| self.error(format!("`{key}` = {value} is not a sensible size"))),
        }
    }

    fn size_or(&self, key: &str, default: usize) -> Result<usize> {
        match self.json.get(key) {
            None | Some(Value::Null) => Ok(default),
            Some(_) => self.size(key),
        }
    }

    fn float(&self, json: &Value, key: &str) -> Result<f64> {
        match json.get(key) {
            None | Some(Value::Null) => Err(self.error(format!("`{key}` is missing"))),
            Some(value) => value
                .as_f64()
                .filter(|v| *v > 0.0)
                .ok_or_else(|| self.error(format!("`{key}` = {value} is not a positive number"))),
        }
    }

    fn float_or(&self, json: &Value, key: &str, default: f64) -> Result<f64> {
        match json.get(key) {
            None | Some(Value::Null) => Ok(default),
            Some(_) => self.float(json, key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn minimal() -> Value {
        json!({"model_type": "llama", "hidden_size": 8, "intermediate_size": 16,
               "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 32})
    }

    #[track_caller]
    fn check_error(key: &str, value: Value, expected: &str) {
        let mut json = minimal();
        json[key] = value;
        let error = Config::from_json(&json, Path::new("m/config.json")).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        check_error(
            "model_type",
            json!("mamba"),
            "m/config.json: `model_type` is `mamba`, which is not supported",
        );
        check_error(
            "hidden_size",
            json!(-3),
            "m/config.json: `hidden_size` = -3 is not a sensible size",
        );
        check_error(
            "num_attention_heads",
            json!(3),
            "m/config.json: `hidden_size` = 8 is not a multiple of `num_attention_heads` = 3, and there is no `head_dim`",
        );
        check_error(
            "num_key_value_heads",
            json!(3),
            "m/config.json: `num_attention_heads` = 2 is not a multiple of `num_key_value_heads` = 3",
        );
        check_error(
            "rope_scaling",
            json!({"rope_type": "magic"}),
            "m/config.json: rope scaling `magic` is not supported",
        );
        check_error(
            "rope_scaling",
            json!({"rope_type": "linear"}),
            "m/config.json: `factor` is missing",
        );
    }

    #[test]
    fn unscaled_frequencies_fall_by_powers_of_theta() {
        let config = Config::from_json(&minimal(), Path::new("config.json")).unwrap();
        assert_eq!(config.rope.inv_freq, [1.0, 0.01]);
        assert_eq!(config.num_key_value_heads, 2);
    }
}
