//! Every recipe of `examples/` is loaded and planned over the published shape of its model.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::house::House;

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples");
const CONFIGS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/configs");

/// Recipe, the config that has its model's shape, and its parameters as published.
const RECIPES: [(&str, &str, u64); 28] = [
    ("llama-3.1-8b-qlora", "llama-3.1-8b", 8_030_261_248),
    ("mistral-7b-v0.3-qlora", "mistral-7b-v0.3", 7_248_023_552),
    ("qwen2.5-0.5b", "qwen2.5-0.5b", 494_032_768),
    ("qwen3-0.6b", "qwen3-0.6b", 596_049_920),
    ("gemma-2-2b", "gemma-2-2b", 2_614_341_888),
    ("gemma-3-1b", "gemma-3-1b", 999_885_952),
    ("phi-3-mini", "phi-3-mini", 3_821_079_552),
    ("smollm3-3b", "smollm3-3b", 3_075_098_624),
    ("olmo-2-1b", "olmo-2-1b", 1_484_916_736),
    ("granite-3.3-2b", "granite-3.3-2b", 2_533_539_840),
    ("smollm2-135m", "smollm2-135m", 134_515_008),
    ("full-fine-tuning", "smollm2-135m", 134_515_008),
    ("dora", "smollm2-135m", 134_515_008),
    ("new-tokens", "smollm2-135m", 134_515_008),
    ("dpo", "smollm2-135m", 134_515_008),
    ("orpo", "smollm2-135m", 134_515_008),
    ("simpo", "smollm2-135m", 134_515_008),
    ("cpo", "smollm2-135m", 134_515_008),
    ("kto", "smollm2-135m", 134_515_008),
    ("bco", "smollm2-135m", 134_515_008),
    ("reward", "smollm2-135m", 134_515_008),
    ("classify", "smollm2-135m", 134_515_008),
    ("grpo", "smollm2-135m", 134_515_008),
    ("gsm8k-grpo", "qwen2.5-0.5b", 494_032_768),
    ("online-dpo", "smollm2-135m", 134_515_008),
    ("distill", "smollm2-135m", 134_515_008),
    ("environment", "smollm2-135m", 134_515_008),
    ("pairs", "smollm2-135m", 134_515_008),
];

/// Plans a recipe over a shape, for rows of 512 tokens and so many GB.
fn plan(recipe: &str, config: &str, memory: &str) -> (Value, i32) {
    let recipe = format!("{EXAMPLES}/{recipe}.yaml");
    let config = format!("{CONFIGS}/{config}.json");
    let arguments = ["plan", &recipe, "--config", &config, "--tokens", "512", "--rows", "200"];
    let ended = House::new().run(&[&arguments[..], &["--memory", memory, "--json"]].concat());
    assert!(ended.code < 2, "{recipe}: {}", ended.stderr);
    (ended.result(), ended.code)
}

#[test]
fn every_recipe_is_planned() {
    for (recipe, config, parameters) in RECIPES {
        let (planned, code) = plan(recipe, config, "24");
        let total = planned["parameters"]["total"].as_u64().unwrap();
        // Added tokens have rows of their own.
        assert!(total.abs_diff(parameters) <= 2 * 576, "{recipe}: {total} parameters");
        let trained = planned["parameters"]["trainable"].as_u64().unwrap();
        let whole = recipe == "full-fine-tuning";
        assert!(if whole { trained == total } else { trained < total / 20 }, "{recipe}: {trained}");
        assert_eq!((&planned["fits"], code), (&true.into(), 0), "{recipe}: {planned}");
        let bytes = planned["memory_bytes"].as_u64().unwrap();
        let kinds = planned["memory"].as_object().unwrap().values();
        assert_eq!(bytes, kinds.map(|kind| kind.as_u64().unwrap()).sum::<u64>());
        assert!(bytes <= planned["worst_bytes"].as_u64().unwrap(), "{recipe}: {planned}");
    }
}

#[test]
fn the_table_has_every_recipe() {
    let mut found: Vec<PathBuf> =
        std::fs::read_dir(EXAMPLES).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    let mut listed: Vec<PathBuf> = RECIPES
        .iter()
        .map(|(recipe, ..)| Path::new(EXAMPLES).join(format!("{recipe}.yaml")))
        .collect();
    found.sort();
    listed.sort();
    assert_eq!(found, listed);
}

/// 8B in NF4 with rank 64 over all linear layers, 8-bit moments, the input embedding left in its file.
#[test]
fn qlora_of_8b_takes_about_8_gb() {
    let (planned, _) = plan("llama-3.1-8b-qlora", "llama-3.1-8b", "24");
    let bytes = planned["memory_bytes"].as_u64().unwrap() as f64;
    assert!((7.5e9..9.5e9).contains(&bytes), "{bytes}: {}", planned["memory"]);
    assert_eq!(planned["micro_batch_tokens"], 512);
    assert_eq!(planned["parameters"]["trainable"], 167_772_160);
}

#[test]
fn what_does_not_fit_is_told_what_to_change() {
    let (planned, code) = plan("llama-3.1-8b-qlora", "llama-3.1-8b", "4");
    assert_eq!((&planned["fits"], code), (&false.into(), 1));
    assert_eq!(planned["activation_checkpointing"], "block");
    let expected = [
        "a smaller model",
        "a lower `adapter.rank`",
        "a lower `data.max_seq_len` or `micro_batch_tokens`",
    ];
    assert_eq!(planned["cures"], serde_json::json!(expected));
    let (planned, _) = plan("full-fine-tuning", "smollm2-135m", "1");
    let cures = planned["cures"].as_array().unwrap();
    assert!(cures[0].as_str().unwrap().contains("`adapter: {type: lora}`"), "{cures:?}");
}

/// The rows that come with the recipes can be read and learned from.
#[test]
fn the_rows_of_the_recipes_are_read() {
    let house = House::with_model();
    // A letter is a token to this model.
    let mut config: Value = serde_json::from_str(&house.read("tiny/config.json")).unwrap();
    config["max_position_embeddings"] = 512.into();
    house.write("tiny/config.json", &config.to_string());
    // Of the twelve pairs, those that validation does not hold out are a step each.
    let preferences =
        ["dpo", "orpo", "simpo", "cpo", "bco", "reward"].map(|recipe| (recipe, 6..=11));
    // KTO compares the rows of a step, so a step has two.
    let recipes = [("smollm2-135m", 51..=51), ("kto", 3..=6), ("classify", 39..=39)];
    for (recipe, steps) in recipes.into_iter().chain(preferences) {
        let recipe = format!("{EXAMPLES}/{recipe}.yaml");
        let planned = house.run(&["plan", &recipe, "--json", "model=./tiny"]).done().result();
        assert_eq!(planned["schema"], 1, "{planned}");
        assert!(steps.contains(&planned["steps"].as_u64().unwrap()), "{planned}");
    }
}
