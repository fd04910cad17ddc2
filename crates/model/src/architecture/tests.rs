//! Every family against configs and tensors that transformers wrote, and what is refused.

use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use serde_json::{Value, json};

use super::*;
use crate::Error;
use crate::config::QkNorm;

fn golden(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden")).join(name)
}

fn read(json: &Value) -> std::result::Result<Config, Error> {
    config(json, Path::new("m/config.json"))
}

fn read_file(path: &Path) -> Value {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    serde_json::from_slice(&bytes).unwrap()
}

/// The config of a model that transformers wrote, the same from either spelling.
fn case(name: &str) -> Config {
    let folder = golden("architectures").join(name);
    let new = read(&read_file(&folder.join("config.json"))).unwrap();
    let old = folder.join("config_old.json");
    if old.is_file() {
        assert_eq!(read(&read_file(&old)).unwrap(), new, "{name}: spelling of transformers 4");
    }
    new
}

const CASES: [&str; 16] = [
    "gemma2",
    "gemma3",
    "gemma3_text",
    "granite",
    "llama_bias",
    "mistral",
    "mistral_full",
    "olmo2",
    "phi3",
    "phi3_longrope",
    "phi4mini",
    "phi4mini_longrope",
    "qwen2",
    "qwen2_window",
    "qwen3",
    "smollm3",
];

#[test]
fn parameters_are_those_of_the_tensors() {
    for name in CASES {
        let bytes = std::fs::read(golden("architectures").join(name).join("model.safetensors"));
        let bytes = bytes.unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let of_images = |name: &str| {
            name.starts_with("vision_tower") || name.starts_with("multi_modal_projector")
        };
        let texts = tensors.tensors().into_iter().filter(|(name, _)| !of_images(name));
        let count: usize = texts.map(|(_, view)| view.shape().iter().product::<usize>()).sum();
        assert_eq!(case(name).parameter_count(), count, "{name}");
    }
}

/// Window and rope of every layer.
#[track_caller]
fn check_layers(name: &str, expected: &[(Option<u32>, Option<usize>)]) {
    let layers: Vec<_> = case(name).layers.iter().map(|l| (l.window, l.rope)).collect();
    assert_eq!(layers, expected, "{name}");
}

#[test]
fn layers_have_their_windows_and_ropes() {
    let full = (None, Some(0));
    let slides = (Some(8), Some(0));
    check_layers("llama_bias", &[full, full]);
    check_layers("mistral", &[slides, slides, slides]);
    check_layers("mistral_full", &[full, full]);
    check_layers("qwen2", &[full, full, full]);
    check_layers("qwen2_window", &[full, slides]);
    check_layers("qwen3", &[full, full]);
    check_layers("gemma2", &[slides, full, slides]);
    check_layers("gemma3", &[(Some(8), Some(1)), (Some(8), Some(1)), full]);
    check_layers("gemma3_text", &[(Some(8), Some(1)), (Some(8), Some(1)), full]);
    check_layers("phi3", &[slides, slides, slides]);
    check_layers("phi4mini", &[full, full, full]);
    check_layers("smollm3", &[full, (None, None), full]);
    check_layers("olmo2", &[full, full]);
    check_layers("granite", &[full, full]);
}

#[test]
fn families_differ_in_their_blocks() {
    let none = Biases::default();
    let attention = Biases { qkv: true, output: true, mlp: false };
    let blocks = [
        ("llama_bias", Norms::Before, 0.0, None, Biases { mlp: true, ..attention }),
        ("mistral", Norms::Before, 0.0, None, none),
        ("qwen2", Norms::Before, 0.0, None, Biases { qkv: true, ..none }),
        ("qwen3", Norms::Before, 0.0, Some(QkNorm::Head), none),
        ("gemma2", Norms::Around, 1.0, None, none),
        ("gemma3", Norms::Around, 1.0, Some(QkNorm::Head), none),
        ("phi3", Norms::Before, 0.0, None, none),
        ("smollm3", Norms::Before, 0.0, None, none),
        ("olmo2", Norms::After, 0.0, Some(QkNorm::Projection), none),
        ("granite", Norms::Before, 0.0, None, none),
    ];
    for (name, norms, offset, qk_norm, biases) in blocks {
        let config = case(name);
        let block = (config.norms, config.norm_offset, config.qk_norm, config.biases);
        assert_eq!(block, (norms, offset, qk_norm, biases), "{name}");
        assert_eq!(config.is_fused, name == "phi3", "{name}");
        let is_gelu = config.activation == Activation::GeluTanh;
        assert_eq!(is_gelu, name.starts_with("gemma"), "{name}");
    }
}

#[test]
fn scales_are_read() {
    let granite = case("granite");
    let scales = (granite.embedding_scale, granite.residual_scale, granite.attention_scale);
    assert_eq!((scales, granite.logit_scale), ((3.0, 0.6, 0.5), 0.4));
    let gemma2 = case("gemma2");
    assert_eq!((gemma2.embedding_scale, gemma2.attention_scale), (32_f32.sqrt(), 0.2_f32.sqrt()));
    assert_eq!((gemma2.attention_softcap, gemma2.logit_softcap), (Some(5.0), Some(1.0)));
    let gemma3 = case("gemma3_text");
    assert_eq!((gemma3.attention_softcap, gemma3.logit_softcap), (None, None));
    assert_eq!(Config { model_type: "gemma3".into(), ..gemma3 }, case("gemma3"));
}

/// Every kind of scaling against transformers, to the rounding of f32 powers.
#[test]
fn ropes_are_those_of_transformers() {
    let file = read_file(&golden("ropes.json"));
    for (name, golden) in file["cases"].as_object().unwrap() {
        let config = read(&golden["config"]).unwrap();
        let [rope] = &config.ropes[..] else { panic!("{name}: {} ropes", config.ropes.len()) };
        let check = |found: &[f32], key: &str| {
            let expected = golden[key].as_array().unwrap();
            assert_eq!(found.len(), expected.len(), "{name} {key}");
            for (found, expected) in found.iter().zip(expected) {
                let expected = expected.as_f64().unwrap() as f32;
                assert!((found / expected - 1.0).abs() < 1e-5, "{name} {key}: {found} {expected}");
            }
        };
        check(&rope.inv_freq, "inv_freq");
        assert_eq!(rope.rotary_dim, 2 * rope.inv_freq.len(), "{name}");
        let scale = golden["attention_scale"].as_f64().unwrap_or(1.0) as f32;
        assert!((rope.attention_scale - scale).abs() < 1e-6, "{name}: {}", rope.attention_scale);
        let original = golden["original"].as_u64().map(|length| length as usize);
        assert_eq!(rope.long.as_ref().map(|(length, _)| *length), original, "{name}");
        if let Some((_, long)) = &rope.long {
            check(long, "long");
        }
        assert_eq!(rope.max_positions, (name == "dynamic").then_some(512), "{name}");
    }
}

/// The least that a config of any family says.
fn minimal(model_type: &str) -> Value {
    json!({"model_type": model_type, "hidden_size": 512, "intermediate_size": 16,
           "num_hidden_layers": 30, "num_attention_heads": 32, "vocab_size": 32})
}

fn with(model_type: &str, changes: &Value) -> Value {
    let mut json = minimal(model_type);
    let object = json.as_object_mut().unwrap();
    object.extend(changes.as_object().unwrap().clone());
    json
}

#[test]
fn absent_keys_have_the_defaults_of_the_family() {
    // Theta, eps, heads of keys, D, window of the last layer, longest sequence, tied.
    let defaults = [
        ("llama", 1e4, 1e-6, 32, 16, None, 2048, false),
        ("mistral", 1e4, 1e-6, 8, 16, Some(4096), 131_072, false),
        ("qwen2", 1e4, 1e-6, 32, 16, None, 32_768, false),
        ("qwen3", 1e4, 1e-6, 32, 128, None, 32_768, false),
        ("gemma2", 1e4, 1e-6, 4, 256, None, 8192, true),
        ("gemma3_text", 1e6, 1e-6, 4, 256, None, 131_072, true),
        ("phi3", 1e4, 1e-5, 32, 16, None, 4096, false),
        ("smollm3", 2e6, 1e-6, 4, 16, None, 32_768, true),
        ("olmo2", 1e4, 1e-5, 32, 16, None, 2048, false),
        ("granite", 1e4, 1e-6, 32, 16, None, 2048, false),
    ];
    for (model_type, theta, eps, kv_heads, head_dim, window, length, tied) in defaults {
        let config = read(&minimal(model_type)).unwrap();
        let second = f64::powf(theta, -2.0 / head_dim as f64) as f32;
        assert_eq!(config.ropes[0].inv_freq[1], second, "{model_type}");
        assert_eq!(config.rms_norm_eps, eps, "{model_type}");
        assert_eq!(config.num_key_value_heads, kv_heads, "{model_type}");
        assert_eq!(config.head_dim, head_dim, "{model_type}");
        assert_eq!(config.layers[29].window, window, "{model_type}");
        assert_eq!(config.max_position_embeddings, length, "{model_type}");
        assert_eq!(config.tie_word_embeddings, tied, "{model_type}");
    }
}

/// A file of Gemma 3 that leaves out what is at its default.
#[test]
fn gemma_has_defaults_for_sizes() {
    let json = json!({"model_type": "gemma3", "text_config": {"num_hidden_layers": 12},
                      "torch_dtype": "bfloat16"});
    let config = read(&json).unwrap();
    let sizes = (config.hidden_size, config.intermediate_size, config.num_attention_heads);
    assert_eq!((sizes, config.vocab_size), ((2304, 9216, 8), 262_208));
    let full: Vec<_> = (0..12).filter(|&i| config.layers[i].window.is_none()).collect();
    assert_eq!(full, [5, 11]);
    // 25.298 in bf16.
    let small = with("gemma3_text", &json!({"hidden_size": 640, "dtype": "bfloat16"}));
    assert_eq!(read(&small).unwrap().embedding_scale, 25.25);
    let off = json!({"attn_logit_softcapping": null, "sliding_window": null});
    let config = read(&with("gemma2", &off)).unwrap();
    assert_eq!((config.attention_softcap, config.layers[0].window), (None, None));
    assert_eq!(config.logit_softcap, Some(30.0));
}

#[test]
fn windows_and_layers_without_a_rope_follow_their_keys() {
    let windows = |json: Value| -> Vec<usize> {
        let config = read(&json).unwrap();
        (0..config.layers.len()).filter(|&i| config.layers[i].window.is_some()).collect()
    };
    let on = json!({"use_sliding_window": true, "sliding_window": 64});
    assert_eq!(windows(with("qwen2", &on)), [28, 29]);
    assert_eq!(windows(with("qwen3", &json!({"sliding_window": 64}))), [0; 0]);
    let smollm3 = with("smollm3", &on);
    let unrotated: Vec<_> = (0..30).filter(|i| (i + 1) % 4 == 0).collect();
    assert_eq!(windows(smollm3.clone()), unrotated);
    let config = read(&smollm3).unwrap();
    for (index, layer) in config.layers.iter().enumerate() {
        assert_eq!(layer.rope.is_none(), unrotated.contains(&index), "{index}");
    }
}

#[track_caller]
fn check_error(model_type: &str, changes: Value, expected: &str) {
    let error = read(&with(model_type, &changes)).unwrap_err().to_string();
    assert_eq!(error, format!("m/config.json: {expected}"));
}

#[test]
fn what_does_not_fit_is_named() {
    check_error("mamba", json!({}), "`model_type` is `mamba`, which is not supported");
    check_error(
        "llama",
        json!({"model_type": null}),
        "`model_type` is none, which is not supported",
    );
    check_error("llama", json!({"vocab_size": -3}), "`vocab_size` = -3 is not a sensible size");
    check_error(
        "llama",
        json!({"num_hidden_layers": 20_000}),
        "`num_hidden_layers` = 20000 is not a sensible size",
    );
    check_error("llama", json!({"vocab_size": null}), "`vocab_size` is missing");
    check_error(
        "llama",
        json!({"num_attention_heads": 3}),
        "`hidden_size` = 512 is not a multiple of `num_attention_heads` = 3, and there is no `head_dim`",
    );
    check_error(
        "llama",
        json!({"num_key_value_heads": 3}),
        "`num_attention_heads` = 32 is not a multiple of `num_key_value_heads` = 3",
    );
    check_error(
        "llama",
        json!({"head_dim": 5}),
        "`head_dim` = 5 is odd, and rotary positions turn pairs",
    );
    check_error(
        "llama",
        json!({"rope_scaling": {"rope_type": "magic"}}),
        "rope scaling `magic` is not supported",
    );
    check_error(
        "llama",
        json!({"rope_scaling": {"rope_type": "linear"}}),
        "`rope_scaling.factor` is missing",
    );
    check_error(
        "phi3",
        json!({"rope_scaling": {"type": "longrope", "long_factor": [1.0]}}),
        "`rope_scaling.long_factor` has 1 values, not 8",
    );
}

#[test]
fn what_would_change_the_numbers_is_refused() {
    let unsupported = "is not supported";
    check_error("llama", json!({"hidden_act": "gelu"}), "`hidden_act` = \"gelu\" is not supported");
    check_error(
        "llama",
        json!({"num_local_experts": 8}),
        "`num_local_experts` = 8 is not supported",
    );
    check_error(
        "phi3",
        json!({"attention_bias": true}),
        "`attention_bias` = true is not supported",
    );
    check_error(
        "gemma2",
        json!({"hidden_activation": "gelu"}),
        "`hidden_activation` = \"gelu\" is not supported",
    );
    let bidirectional = json!({"use_bidirectional_attention": true});
    for model_type in ["gemma2", "gemma3_text"] {
        let expected = format!("`use_bidirectional_attention` = true {unsupported}");
        check_error(model_type, bidirectional.clone(), &expected);
    }
    check_error(
        "gemma3_text",
        json!({"attn_logit_softcapping": 50.0}),
        "`attn_logit_softcapping` = 50.0 has no effect in this model",
    );
    check_error(
        "gemma3_text",
        json!({"rope_scaling": {"type": "linear", "factor": 8.0}}),
        "`rope_scaling.type` = \"linear\" is not read in this model",
    );
    check_error(
        "gemma3_text",
        json!({"rope_parameters": {"rope_type": "linear", "factor": 8.0}}),
        "`rope_parameters` has no `full_attention`",
    );
    check_error(
        "qwen2",
        json!({"partial_rotary_factor": 0.5}),
        "`partial_rotary_factor` = 0.5 is not supported for this model",
    );
    check_error(
        "qwen2",
        json!({"num_hidden_layers": 1, "layer_types": ["sliding_attention"]}),
        "`layer_types` names `sliding_attention`, but there is no sliding window",
    );
    check_error(
        "qwen2",
        json!({"num_hidden_layers": 1, "layer_types": ["chunked_attention"]}),
        "`layer_types` holds \"chunked_attention\", which does not belong there",
    );
    check_error(
        "mistral",
        json!({"num_hidden_layers": 1, "layer_types": ["full_attention"]}),
        "`layer_types` does not say the same as `sliding_window`",
    );
    check_error(
        "mistral",
        json!({"num_key_value_heads": null}),
        "`num_key_value_heads` = null is not possible: leave the key out for its default",
    );
}

#[test]
fn an_unsupported_model_hears_what_is_supported() {
    let hint = read(&minimal("mamba")).unwrap_err().hint().unwrap();
    assert!(hint.starts_with("supported: llama, mistral, qwen2, qwen3, gemma2, gemma3"), "{hint}");
}
