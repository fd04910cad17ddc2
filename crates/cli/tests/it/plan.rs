//! What a recipe would take is said before anything is loaded.

use crate::house::House;

const RECIPE: &str = "model: ./tiny\nmethod: sft\nadapter: {rank: 2}\n\
    data: {train: rows.jsonl, validation: {fraction: 0.25}}\n\
    train: {max_steps: 6, batch_size: 4}\n";

fn house() -> House {
    let house = House::with_model();
    house.write("r.yaml", RECIPE);
    house
}

#[test]
fn a_plan_is_a_table_and_writes_nothing() {
    let house = house();
    let ended = house.run(&["plan", "r.yaml"]).done();
    let lines: Vec<&str> = ended.stdout.lines().collect();
    assert!(lines[0].starts_with("model   ") && lines[0].contains(" parameters, "), "{}", lines[0]);
    assert!(lines[1].starts_with("run     6 steps, "), "{}", lines[1]);
    assert_eq!(lines[2], "device  1,024 tokens at a time, activation checkpointing: none");
    for kind in ["weights", "trained", "gradients", "optimizer", "activations", "process", "in all"]
    {
        assert!(lines.iter().any(|line| line.starts_with(kind)), "{kind}: {}", ended.stdout);
    }
    assert!(lines.iter().any(|line| line.starts_with("fits: at most ")), "{}", ended.stdout);
    assert!(!house.path().join("runs").exists());
}

#[test]
fn a_program_reads_the_plan_as_one_object() {
    let planned = house().run(&["plan", "r.yaml", "--json"]).done().result();
    assert_eq!((&planned["schema"], &planned["fits"]), (&1.into(), &true.into()));
    assert_eq!(planned["steps"], 6);
    assert!(planned["tokens"].as_u64().unwrap() > 100 && planned["seconds"].is_null());
    let resolved = planned["resolved"].as_array().unwrap();
    let chosen = |key: &str| resolved.iter().find(|chosen| chosen["key"] == key).unwrap();
    assert_eq!(chosen("micro_batch_tokens")["value"], 1024);
    assert_eq!(chosen("adapter.alpha")["reason"], "twice the rank");
}

#[test]
fn what_does_not_fit_ends_with_1() {
    let ended = house().run(&["plan", "r.yaml", "--memory", "0.001"]);
    assert_eq!(ended.code, 1);
    assert!(ended.stdout.contains("does not fit: at most "), "{}", ended.stdout);
    assert!(ended.stdout.contains("what helps most, in this order\n  "), "{}", ended.stdout);
}

#[test]
fn a_config_and_stand_in_rows_are_enough() {
    let house = house();
    std::fs::remove_file(house.path().join("tiny/model.safetensors")).unwrap();
    std::fs::remove_file(house.path().join("rows.jsonl")).unwrap();
    let order = ["plan", "r.yaml", "--config", "tiny/config.json"];
    let ended = house.run(&order);
    assert_eq!(ended.code, 2);
    assert!(ended.stderr.contains("hint: `--tokens N` plans rows"), "{}", ended.stderr);
    let rows = ["--tokens", "64", "--rows", "12", "--json", "model=owner/absent"];
    let planned = house.run(&[&order[..], &rows].concat()).done().result();
    assert_eq!(planned["steps"], 6);
    assert_eq!(planned["tokens"], 6 * 4 * 64);
    assert!(
        planned["notes"][0].as_str().unwrap().starts_with("12 synthetic rows of 64 tokens replace")
    );
}

#[test]
fn a_model_that_is_not_here_is_planned_by_its_config() {
    let ended = house().run(&["plan", "r.yaml", "--offline", "model=owner/absent"]);
    let expected = "error: command line, argument `model=owner/absent`: `owner/absent` is not in the \
                    cache, and the network is forbidden\nhint: leave out `--offline`, or plan by a \
                    `config.json` alone: `--config FILE`\n";
    assert_eq!((ended.stderr.as_str(), ended.code), (expected, 2));
}
