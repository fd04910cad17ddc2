//! The `config.json` of a merged model.

use safetensors::Dtype;
use serde_json::{Value, json};

use crate::{Base, Config, Error, Result};

/// The base's `config.json` with what the merge changes; made from the metadata of a GGUF file.
///
/// It is read back: a model that it would not describe is refused.
pub(super) fn config_json(base: &Base, merged: &Config, dtype: Dtype) -> Result<Value> {
    let mut json = base.config_json()?;
    express_divisors(&mut json);
    let object = json.as_object_mut().expect("a config is an object");
    object.shift_remove("quantization_config");
    if base.format == "gguf" {
        name_absent_tokens(&mut json);
    }
    set_type(&mut json, dtype);
    set(&mut json, "vocab_size", merged.vocab_size.into());
    let mut written = Config::from_json(&json, &base.path)?;
    if merged.tie_word_embeddings != written.tie_word_embeddings {
        // The file's own word may be wrong: see `Base::open`.
        set(&mut json, "tie_word_embeddings", merged.tie_word_embeddings.into());
        written = Config::from_json(&json, &base.path)?;
    }
    if same(&written, merged) {
        return Ok(json);
    }
    Err(Error::file(&base.path, "a `config.json` cannot say all that this file says")
        .with_hint("merge into the 16-bit original of this base"))
}

/// Says of special tokens that the file does not have that there are none: left out they would be taken
/// to be those of the family.
fn name_absent_tokens(json: &mut Value) {
    for key in ["bos_token_id", "eos_token_id", "pad_token_id"] {
        if json.get(key).is_none() {
            json[key] = Value::Null;
        }
    }
}

/// Sets a key where it stands: in the file's `text_config` too, and at the top where it stands nowhere.
fn set(json: &mut Value, key: &str, value: Value) {
    let mut is_set = false;
    if let Some(inner) = json.get_mut("text_config").and_then(|inner| inner.get_mut(key)) {
        *inner = value.clone();
        is_set = true;
    }
    if !is_set || json.get(key).is_some() {
        json[key] = value;
    }
}

/// `dtype` and `torch_dtype`, its name before transformers 5, wherever they stand.
fn set_type(json: &mut Value, dtype: Dtype) {
    let name = match dtype {
        Dtype::F32 => "float32",
        Dtype::F16 => "float16",
        _ => "bfloat16",
    };
    let has = |json: &Value, key: &str| json.get(key).is_some();
    if !has(json, "dtype") && !has(json, "torch_dtype") {
        json["torch_dtype"] = name.into();
    }
    for part in ["text_config", "vision_config"] {
        if let Some(inner) = json.get_mut(part).filter(|inner| inner.is_object()) {
            write_type(inner, name);
        }
    }
    write_type(json, name);
}

fn write_type(json: &mut Value, name: &str) {
    for key in ["dtype", "torch_dtype"] {
        if let Some(value) = json.get_mut(key) {
            *value = name.into();
        }
    }
}

/// Divisors of rotary frequencies, which only GGUF files have, as the `llama3` scaling that they come
/// from: its other constants are the same for all models.
fn express_divisors(json: &mut Value) {
    let scaling = &json["rope_scaling"];
    let divisors = scaling.get("factors").or(json.get("rope_freq_factors"));
    let Some(divisors) = divisors.and_then(Value::as_array) else {
        if let Some(scaling) = json.get_mut("rope_scaling").and_then(Value::as_object_mut) {
            // Names of tensors in the file that the numbers were read from.
            scaling.shift_remove("short_tensor");
            scaling.shift_remove("long_tensor");
        }
        return;
    };
    let largest = divisors.iter().filter_map(Value::as_f64).fold(1.0, f64::max);
    let object = json.as_object_mut().expect("a config is an object");
    object.shift_remove("rope_freq_factors");
    object.insert(
        "rope_scaling".into(),
        json!({"rope_type": "llama3", "factor": largest, "low_freq_factor": 1.0,
               "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}),
    );
}

/// Whether two configs describe the same model; rotary frequencies may differ by rounding.
///
/// So may the factor on the embedding: Gemma rounds it to the type that the weights are in, and that type is
/// what a merge chooses.
fn same(a: &Config, b: &Config) -> bool {
    let close = |a: &[f32], b: &[f32]| {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-5 * b.abs())
    };
    let same_ropes = a.ropes.len() == b.ropes.len()
        && a.ropes.iter().zip(&b.ropes).all(|(a, b)| {
            let long = match (&a.long, &b.long) {
                (Some(a), Some(b)) => a.0 == b.0 && close(&a.1, &b.1),
                (a, b) => a.is_none() && b.is_none(),
            };
            long && close(&a.inv_freq, &b.inv_freq)
                && close(&[a.attention_scale], &[b.attention_scale])
                && (a.rotary_dim, a.max_positions) == (b.rotary_dim, b.max_positions)
        });
    let (scale, expected) = (a.embedding_scale, b.embedding_scale);
    let same_scale = (scale - expected).abs() <= expected.abs() / 256.0;
    let own = Config { ropes: b.ropes.clone(), embedding_scale: expected, ..a.clone() };
    same_ropes && same_scale && own == *b
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn llama(rope_scaling: Value) -> Value {
        json!({"model_type": "llama", "hidden_size": 128, "intermediate_size": 16,
               "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 32,
               "max_position_embeddings": 131_072, "rope_theta": 500_000.0,
               "rope_scaling": rope_scaling})
    }

    #[test]
    fn divisors_become_the_scaling_that_they_come_from() {
        let scaling = json!({"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 8192});
        let config = |json: &Value| Config::from_json(json, Path::new("config.json")).unwrap();
        let expected = config(&llama(scaling.clone()));
        let plain = config(&llama(Value::Null));
        let pairs = plain.ropes[0].inv_freq.iter().zip(&expected.ropes[0].inv_freq);
        let factors: Vec<f32> = pairs.map(|(plain, scaled)| plain / scaled).collect();
        let mut json = llama(json!({"rope_type": "freq_factors", "factors": factors}));
        express_divisors(&mut json);
        assert_eq!(json["rope_scaling"], scaling);
        assert!(same(&config(&json), &expected));
        assert!(!same(&config(&json), &plain));
    }

    /// Gemma's factor follows from the type of the weights; any other difference is another model.
    #[test]
    fn the_rounding_of_a_factor_is_no_difference() {
        let gemma = |dtype: &str| {
            let json =
                json!({"model_type": "gemma3_text", "hidden_size": 1152, "torch_dtype": dtype});
            Config::from_json(&json, Path::new("config.json")).unwrap()
        };
        let (exact, half, rounded) = (gemma("float32"), gemma("float16"), gemma("bfloat16"));
        assert_eq!(rounded.embedding_scale, 34.0);
        assert!(exact.embedding_scale != rounded.embedding_scale);
        for (a, b) in [(&exact, &rounded), (&rounded, &exact), (&half, &rounded)] {
            assert!(same(a, b));
        }
        let other = Config { embedding_scale: 1.0, ..exact.clone() };
        assert!(!same(&other, &exact) && !same(&exact, &other));
        assert!(!same(&Config { rms_norm_eps: 1e-5, ..exact.clone() }, &exact));
    }

    #[test]
    fn keys_are_set_where_they_stand() {
        let mut json = json!({"text_config": {"vocab_size": 3, "dtype": "float32"}, "dtype": "x"});
        set(&mut json, "vocab_size", 4.into());
        set_type(&mut json, Dtype::BF16);
        let inner = json!({"vocab_size": 4, "dtype": "bfloat16"});
        assert_eq!(json, json!({"text_config": inner, "dtype": "bfloat16"}));
        let mut json = json!({});
        set(&mut json, "vocab_size", 4.into());
        set_type(&mut json, Dtype::F16);
        assert_eq!(json, json!({"vocab_size": 4, "torch_dtype": "float16"}));
    }
}
