//! Adapter folders in every spelling that PEFT writes: right, or refused by name.

use std::path::Path;

use compute::cpu::Precision;
use std::collections::BTreeMap;

use model::adapter::{LoadedAdapter, PeftMetadata};
use model::{Base, LoraConfig, Module};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    Rig, TOLERANCE, check_same_all, cpu, distance, floats, golden, json, sequence, tokens,
};

fn base() -> Base {
    Base::open(&golden("tiny_llama/gqa")).unwrap()
}

fn logprobs(base: &Base, loaded: LoadedAdapter, tokens: &[u32]) -> Vec<f32> {
    let mut rig = Rig::load(Box::new(cpu(Precision::F32, 1)), base, loaded);
    let mut weights = vec![1.0; tokens.len()];
    weights[0] = 0.0;
    let batch = crate::support::batch(&[sequence(0, tokens, &weights)], 0);
    rig.logprobs(&batch)
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
        }
    }
}

/// A copy of a golden adapter whose config was edited.
fn edited(case: &str, edit: impl FnOnce(&mut Value)) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    copy(&golden(&format!("peft/{case}")), dir.path());
    let path = dir.path().join("adapter_config.json");
    let mut config = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    edit(&mut config);
    std::fs::write(&path, config.to_string()).unwrap();
    dir
}

#[test]
fn every_spelling_gives_pefts_numbers_or_is_refused() {
    let expected = json("peft/golden.json");
    let tokens = tokens(&expected["tokens"]);
    let base = base();
    let cases = expected["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 15);
    for case in cases {
        let name = case["case"].as_str().unwrap();
        let loaded = LoadedAdapter::read(&golden(&format!("peft/{name}")), &base.config);
        match (case["expect"].as_str().unwrap(), loaded) {
            ("load" | "load_or_refuse", Ok(lora)) => {
                let actual = logprobs(&base, lora, &tokens);
                let distance = distance(&actual, &floats(&case["logprobs"]));
                assert!(distance < TOLERANCE, "{name}: distance {distance:e}");
            }
            ("load", Err(error)) => panic!("{name}: {error}"),
            ("load_or_refuse" | "refuse", Err(error)) => {
                let message = error.to_string();
                let key = match name {
                    "bias_all" => "`bias`",
                    "lora_bias" => "`lora_bias`",
                    "lm_head" => "lm_head",
                    "embedding" => "embed_tokens",
                    other => panic!("{other} has no expected message"),
                };
                assert!(message.contains(key), "{name}: {message}");
                assert!(error.hint().is_some(), "{name}: {message}");
            }
            (expect, _) => panic!("{name}: expected `{expect}`"),
        }
    }
}

#[test]
fn what_is_saved_is_loaded_again() {
    let expected = json("peft/golden.json");
    let base = base();
    for case in expected["cases"].as_array().unwrap() {
        if case["expect"] != "load" {
            continue;
        }
        let name = case["case"].as_str().unwrap();
        let LoadedAdapter { config, values, replaced } =
            LoadedAdapter::read(&golden(&format!("peft/{name}")), &base.config).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let metadata = PeftMetadata {
            base_model: "owner/name".into(),
            revision: Some("v1".into()),
            base_hash: Some("c0ffee".into()),
        };
        config.save(dir.path(), &base.config, &values, &replaced, &metadata).unwrap();
        let again = LoadedAdapter::read(dir.path(), &base.config).unwrap();
        assert_eq!(again.config, config, "{name}");
        assert_eq!(again.replaced, replaced, "{name}");
        check_same_all(name, &again.values, &values);
        assert_eq!(PeftMetadata::read(dir.path()).unwrap(), metadata, "{name}");
    }
}

/// Ranks, alphas and modules that differ by layer, and numbers that are no whole ones.
#[test]
fn odd_adapters_survive_their_file() {
    let base = base();
    let uniform = |modules: &[Module]| {
        let kind = model::adapter::LoraKind::RsLora;
        LoraConfig::uniform(&base.config, kind, 3, 4.5, 0.05, modules)
    };
    let mut mixed = uniform(&[Module::Q, Module::Down]);
    mixed.modules.remove(&(0, Module::Down));
    mixed.modules.insert((0, Module::K), (5, 0.1));
    mixed.modules.insert((1, Module::Q), (1, 4.5));
    let mut top = uniform(&Module::ALL);
    top.modules.retain(|key, _| key.0 == 1);
    for config in [mixed, top] {
        let values = config.initial_values(&base.config, 7);
        let dir = tempfile::tempdir().unwrap();
        config
            .save(dir.path(), &base.config, &values, &BTreeMap::new(), &PeftMetadata::default())
            .unwrap();
        let again = LoadedAdapter::read(dir.path(), &base.config).unwrap();
        assert_eq!(again.config, config);
        check_same_all("values", &again.values, &values);
    }
}

#[track_caller]
fn check_refused(dir: &Path, base: &Base, parts: &[&str]) {
    let error = match LoadedAdapter::read(dir, &base.config) {
        Ok(loaded) => panic!("loaded {:?}; expected an error with {parts:?}", loaded.config),
        Err(error) => error,
    };
    let message = error.to_string();
    assert!(message.starts_with(&dir.display().to_string()), "{message}");
    for part in parts {
        assert!(message.contains(part), "{message}: no {part}");
    }
}

#[test]
fn an_adapter_of_another_base_is_refused_with_a_hint() {
    // `tied` has half the hidden size; `subset` covers layer 1, which a model of one layer lacks.
    let other = Base::open(&golden("tiny_llama/tied")).unwrap();
    let error = LoadedAdapter::read(&golden("peft/subset"), &other.config).unwrap_err();
    assert!(error.to_string().ends_with("shape [4, 64] does not fit, [4, 32] would"), "{error}");
    assert_eq!(error.hint().unwrap(), "the adapter belongs to another base");

    let mut shallow = base();
    shallow.config.num_hidden_layers = 1;
    let error = LoadedAdapter::read(&golden("peft/subset"), &shallow.config).unwrap_err();
    assert!(error.to_string().ends_with("is of layer 1, but the model has 1"), "{error}");
    assert_eq!(error.hint().unwrap(), "the adapter belongs to another base");

    let mut fused = base();
    fused.config.is_fused = true;
    let error = LoadedAdapter::read(&golden("peft/subset"), &fused.config).unwrap_err();
    assert!(error.to_string().ends_with("the model has no `q_proj`"), "{error}");
    assert_eq!(error.hint().unwrap(), "the adapter belongs to another base");

    // Norms are saved whole, and of another size.
    let norms = golden("adapters/norms");
    let error = LoadedAdapter::read(&norms, &other.config).unwrap_err();
    assert!(error.to_string().contains("does not fit"), "{error}");
    let mut narrow = base();
    narrow.config.norms = model::config::Norms::After;
    let error = LoadedAdapter::read(&norms, &narrow.config).unwrap_err();
    let message = "`model.layers.0.input_layernorm.weight` has no place in the model";
    assert!(error.to_string().ends_with(message), "{error}");
    assert_eq!(error.hint().unwrap(), "the adapter belongs to another base");
}

#[test]
fn a_file_that_is_missing_or_cut_off_is_named() {
    let base = base();
    let whole = std::fs::read(golden("peft/subset/adapter_model.safetensors")).unwrap();
    for length in [0, 4, 8, 100, whole.len() / 2, whole.len() - 1] {
        let dir = edited("subset", |_| ());
        std::fs::write(dir.path().join("adapter_model.safetensors"), &whole[..length]).unwrap();
        check_refused(dir.path(), &base, &["adapter_model.safetensors", "not a whole"]);
    }
    for name in ["adapter_model.safetensors", "adapter_config.json"] {
        let dir = edited("subset", |_| ());
        std::fs::remove_file(dir.path().join(name)).unwrap();
        check_refused(dir.path(), &base, &[name]);
    }
    let dir = edited("subset", |_| ());
    std::fs::rename(
        dir.path().join("adapter_model.safetensors"),
        dir.path().join("adapter_model.bin"),
    )
    .unwrap();
    check_refused(dir.path(), &base, &["`adapter_model.bin`"]);
    let dir = edited("subset", |_| ());
    std::fs::write(dir.path().join("adapter_config.json"), "{\"r\": 4").unwrap();
    check_refused(dir.path(), &base, &["adapter_config.json", "not JSON"]);
}

#[test]
fn what_the_config_says_is_honoured_or_refused() {
    let base = base();
    let check = |key: &str, value: Value, parts: &[&str]| {
        let dir = edited("subset", |config| config[key] = value);
        check_refused(dir.path(), &base, parts);
    };
    check("peft_type", json!("LOHA"), &["`peft_type`", "`LOHA`"]);
    check("fan_in_fan_out", json!(true), &["`fan_in_fan_out`"]);
    // These begin with something taken off the base, which nobody could put back.
    check("init_lora_weights", json!("olora"), &["`init_lora_weights`", "olora"]);
    check("init_lora_weights", json!("corda"), &["`init_lora_weights`"]);
    check("init_lora_weights", json!("loftq"), &["`init_lora_weights`"]);
    check("layer_replication", json!([[0, 1]]), &["`layer_replication`"]);
    // What the config announces must be there.
    let rows = "embed_tokens.token_adapter.trainable_tokens_delta` is missing";
    check("trainable_token_indices", json!([5]), &[rows]);
    check("trainable_token_indices", json!({"lm_head": [5]}), &["`trainable_token_indices`"]);
    check("trainable_token_indices", json!([7, 5]), &["`trainable_token_indices`", "[7,5]"]);
    let differ = json!({"embed_tokens": [5], "lm_head": [6]});
    check("trainable_token_indices", differ, &["`trainable_token_indices`"]);
    check("modules_to_save", json!(["lm_head"]), &["`base_model.model.lm_head.weight` is missing"]);
    check("use_dora", json!(true), &["q_proj.lora_magnitude_vector` is missing"]);
    check("bias", json!("lora_only"), &["`bias`", "lora_only"]);
    check("something_new", json!(0.5), &["`something_new`"]);
    check("r", json!(null), &["`r`"]);
    check("r", json!(-4), &["`r`"]);
    check("lora_alpha", json!("high"), &["`lora_alpha`"]);
    check("lora_dropout", json!(1.5), &["`lora_dropout`"]);
    check("alpha_pattern", json!({"q_proj": "high"}), &["alpha_pattern", "q_proj"]);
    check("alpha_pattern", json!({"q_(": 2}), &["`q_(`"]);
    // Where the file's shapes and the config's ranks disagree, PEFT refuses too.
    check("r", json!(16), &["rank"]);
    check("rank_pattern", json!({"q_proj": 2}), &["rank"]);
}
