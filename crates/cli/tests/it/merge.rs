//! A base and an adapter become one model, and what does not belong together is refused.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::house::House;

const RECIPE: &str = "model: ./tiny\nmethod: sft\nadapter: {rank: 2}\noutput: run\n\
    data: {train: rows.jsonl, validation: {fraction: 0.25}}\n\
    train: {max_steps: 4, batch_size: 4, learning_rate: 0.02}\n";

/// A house with a run.
fn house() -> House {
    let house = House::with_model();
    house.write("r.yaml", RECIPE);
    house.run(&["train", "r.yaml"]).done();
    house
}

fn json_of(house: &House, name: &str) -> Value {
    serde_json::from_str(&house.read(name)).unwrap()
}

#[test]
fn a_run_becomes_a_model_that_answers_as_it_did() {
    let house = house();
    let ended = house.run(&["merge", "run", "--precision", "f32"]).done();
    let expected =
        ["next", "  tunesmith chat run/merged", "  tunesmith push run/merged OWNER/NAME"];
    let lines: Vec<&str> = ended.stdout.lines().collect();
    assert_eq!(lines[lines.len() - 3..], expected);
    assert!(lines[0].ends_with("tokens of the run's validation rows"), "{}", lines[0]);
    assert!(lines[1].contains("same likeliest token 100.0 %"), "{}", lines[1]);
    assert_eq!(ended.stderr, "comparing\n");

    let answers = |model: &str| {
        let ask = ["generate", model, "--prompt", "3+1?", "--max-new-tokens", "8"];
        let ended = house.run(&[&ask[..], &["--precision", "f32", "--json"]].concat()).done();
        ended.result()["results"].clone()
    };
    let merged = answers("run/merged");
    assert!(!merged[0]["answer"].as_str().unwrap().is_empty(), "{merged}");
    assert_eq!(merged, answers("run"));

    let record = json_of(&house, "run/merged/tunesmith.json");
    assert_eq!(record["merged"]["dtype"], "f32");
    assert!(record["merged"]["comparison"]["merged_vs_trained"]["kl_mean"].is_number());
    let card = house.read("run/merged/README.md");
    assert!(
        card.contains("library_name: transformers") && card.contains("with base and adapter: KL")
    );
    for name in ["tokenizer.json", "chat_template.jinja", "generation_config.json"] {
        assert!(house.path().join("run/merged").join(name).is_file(), "{name}");
    }
    assert!(!house.path().join("run/merged/.logits").exists());
    assert!(!house.path().join("run/merged.partial").exists());
}

#[test]
fn a_program_reads_the_result() {
    let house = house();
    let ask = ["merge", "run/adapter", "--output", "out", "--dtype", "f16", "--precision", "f32"];
    let result =
        house.run(&[&ask[..], &["--json", "--max-shard-size", "20kB"]].concat()).done().result();
    for (key, expected) in [("schema", json!(1)), ("merged", json!("out")), ("dtype", json!("f16"))]
    {
        assert_eq!(result[key], expected, "{key}");
    }
    assert!(result["tensors"].as_u64().unwrap() > 10 && result["bytes"].as_u64().unwrap() > 10_000);
    assert!(result["peak_host_bytes"].is_number());
    let compared = &result["comparison"]["merged_vs_adapter"];
    assert!(compared["kl_mean"].as_f64().unwrap() < 1e-4, "{compared}");
    assert!(compared["top1"].as_f64().unwrap() > 0.97, "{compared}");
    assert!(house.path().join("out/model.safetensors.index.json").is_file());
    assert_eq!(json_of(&house, "out/config.json")["vocab_size"], 128);
}

/// What was written in f32 is compared in f32, and not in the operands that answers are computed in.
#[test]
fn numbers_are_compared_as_they_were_written() {
    let house = house();
    let compared = |dtype: &str, more: &[&str]| {
        let ask = ["merge", "run", "--output", "out", "--overwrite", "--json", "--dtype", dtype];
        let result = house.run(&[&ask[..], more].concat()).done().result();
        let compared = &result["comparison"]["merged_vs_adapter"];
        let number = |key: &str| compared[key].as_f64().unwrap();
        (number("kl_mean"), number("top1"), number("decided") / number("reads"))
    };
    let (kl, top1, decided) = compared("f32", &[]);
    assert!(kl < 1e-9 && top1 == 1.0 && decided > 0.9, "{kl} {top1} {decided}");
    let (kl, top1, decided) = compared("f16", &[]);
    assert!(kl < 1e-5 && top1 == 1.0 && decided > 0.9, "{kl} {top1} {decided}");
    // Rounded, and a lead that rounding explains does not count.
    for (dtype, more) in [("bf16", &[][..]), ("f32", &["--precision", "bf16"][..])] {
        let (kl, top1, decided) = compared(dtype, more);
        assert!(kl > 1e-9 && top1 > 0.97 && decided < 1.0, "{kl} {top1} {decided}");
    }
}

/// PEFT leaves the head of a tied base as it was where an embedding is saved and nobody asks it to tie them.
#[test]
fn a_head_that_parted_from_its_embedding_is_written() {
    let house = House::with_model();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/golden");
    for file in ["config.json", "model.safetensors"] {
        let tied = golden.join("tiny_llama/tied").join(file);
        fs::copy(tied, house.path().join("tiny").join(file)).unwrap();
    }
    for (name, tied) in [("embedding_tied", true), ("embedding_untied", false)] {
        fs::create_dir_all(house.path().join(name)).unwrap();
        for file in ["adapter_config.json", "adapter_model.safetensors"] {
            let from = golden.join("adapters").join(name).join(file);
            fs::copy(from, house.path().join(name).join(file)).unwrap();
        }
        let ask = ["merge", name, "--base", "tiny", "--precision", "f32", "--json"];
        let result = house.run(&ask).done().result();
        assert!(result["comparison"]["merged_vs_adapter"]["kl_mean"].as_f64().unwrap() < 1e-9);
        let config = json_of(&house, &format!("{name}-merged/config.json"));
        assert_eq!(config["tie_word_embeddings"], tied, "{name}");
    }
}

#[test]
fn merging_twice_is_refused() {
    let house = house();
    house.run(&["merge", "run", "--no-compare"]).done();
    let check = |arguments: &[&str], expected: &str| {
        let ended = house.run(arguments);
        assert_eq!((ended.stderr.as_str(), ended.code), (expected, 2), "{arguments:?}");
    };
    check(
        &["merge", "run/merged"],
        "error: run/merged: is merged already\nhint: use it as it is\n",
    );
    check(
        &["merge", "run", "--base", "run/merged", "--output", "out"],
        "error: HOUSE/run/merged: this adapter is merged into it already\n\
         hint: use it as it is, or give the base that the adapter was trained over\n",
    );
    check(
        &["merge", "run"],
        "error: HOUSE/run/merged: already holds a merged model\n\
         hint: `--overwrite` replaces it, `--output DIR` takes another folder\n",
    );
    check(
        &["merge", "run", "--output", "tiny", "--overwrite"],
        "error: HOUSE/tiny: is what is to be merged\nhint: name another folder with `--output`\n",
    );
    house.write("mine/notes.txt", "mine");
    check(
        &["merge", "run", "--output", "mine", "--overwrite"],
        "error: HOUSE/mine: is not empty, and no merged model\n\
         hint: name another folder with `--output`\n",
    );
    check(
        &["merge", "tiny"],
        "error: tiny: is a model without an adapter\n\
         hint: name a run, an adapter folder or the hub id of an adapter\n",
    );
    // What a merge that was cut off left behind is in nobody's way.
    house.write("run/merged.partial/tunesmith.json", "{\"merged\": {}}");
    house.run(&["merge", "run", "--no-compare", "--overwrite"]).done();
    assert!(!house.path().join("run/merged.partial").exists());
    assert!(!house.path().join("run/merged.old").exists());
}

/// A base of the same shape with one number changed.
fn write_other(house: &House, name: &str) {
    house.write_model(name);
    let path = house.path().join(name).join("model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn another_base_is_refused_unless_it_is_the_original_of_a_quantised_one() {
    let house = house();
    write_other(&house, "other");
    let merge = ["merge", "run", "--base", "other", "--output", "out", "--precision", "f32"];
    let ended = house.run(&merge);
    let expected = "error: HOUSE/other: the adapter was trained over other weights\n\
                    hint: give the base that it was trained over: HOUSE/tiny\n";
    assert_eq!((ended.stderr.as_str(), ended.code), (expected, 2));

    // As if the base had been a GGUF file that is gone.
    fs::rename(house.path().join("tiny"), house.path().join("gone")).unwrap();
    let own = house.path().join("run/adapter/tunesmith.json");
    let mut json: Value = serde_json::from_slice(&fs::read(&own).unwrap()).unwrap();
    json["base_storage"] = "q4_k".into();
    fs::write(&own, json.to_string()).unwrap();
    let ended = house.run(&merge).done();
    let note = "trained over q4_k weights, merged into the f32 original";
    assert!(ended.stderr.contains(note), "{}", ended.stderr);
    assert!(
        house.read("out/README.md").contains("Trained over q4_k weights"),
        "no note in the card"
    );
    let record = json_of(&house, "out/tunesmith.json");
    assert!(record["merged"]["comparison"]["merged_vs_trained"].is_null());
}

#[test]
fn a_quantised_run_is_compared_with_what_it_was_trained_as() {
    let house = House::with_model();
    house.write("r.yaml", &format!("{RECIPE}quantization: int8\n"));
    house.run(&["train", "r.yaml"]).done();
    let result = house.run(&["merge", "run", "--precision", "f32", "--json"]).done().result();
    let kl = |name: &str| result["comparison"][name]["kl_mean"].as_f64().unwrap();
    assert!(kl("merged_vs_adapter") < 1e-9, "{result}");
    assert!(kl("merged_vs_trained") > 10.0 * kl("merged_vs_adapter"), "{result}");
}

/// An adapter of PEFT's says nothing of hashes: it is merged, and that is said.
#[test]
fn an_adapter_without_a_hash_is_merged_with_a_note() {
    let house = House::with_model();
    let golden =
        concat!(env!("CARGO_MANIFEST_DIR"), "/../model/tests/golden/tiny_llama/gqa/adapter");
    for file in ["adapter_config.json", "adapter_model.safetensors"] {
        let text = fs::read(Path::new(golden).join(file)).unwrap();
        fs::create_dir_all(house.path().join("peft")).unwrap();
        fs::write(house.path().join("peft").join(file), text).unwrap();
    }
    let ended = house.run(&["merge", "peft", "--base", "tiny", "--precision", "f32"]).done();
    assert!(ended.stderr.contains("that they are these was not checked"), "{}", ended.stderr);
    assert!(
        ended.stdout.starts_with("compared at ") && ended.stdout.contains("tokens of fixed texts")
    );
    assert!(house.path().join("peft-merged/model.safetensors").is_file());
    let ended = house.run(&["merge", "peft", "--base", "peft-merged", "--output", "out"]);
    assert!(ended.stderr.contains("this adapter is merged into it already"), "{}", ended.stderr);
}
