use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::house::{Ended, House};

/// A house whose model takes rows as long as the quickstart's.
fn house() -> House {
    let house = House::with_model();
    let mut config: Value = serde_json::from_str(&house.read("tiny/config.json")).unwrap();
    config["max_position_embeddings"] = 16384.into();
    house.write("tiny/config.json", &config.to_string());
    house
}

fn quickstart(house: &House, arguments: &[&str]) -> Ended {
    let mut command = house.command(&["quickstart"]);
    command.args(arguments).env("TUNESMITH_MODEL", "tiny");
    house.ended(&command.output().unwrap())
}

#[test]
fn a_model_is_trained_and_compared() {
    let house = house();
    // No time at all: it makes the fewest steps there are, and says so.
    let ended =
        quickstart(&house, &["--json", "--messages", "2", "--minutes", "0.01", "--seed", "3"])
            .done();
    let result = ended.result();
    assert_eq!((&result["schema"], &result["rows"]), (&1.into(), &2.into()));
    let names: Vec<&Value> =
        result["arms"].as_array().unwrap().iter().map(|arm| &arm["name"]).collect();
    assert_eq!(names, ["base+schema", "base+shots", "tuned"]);
    let tokens = |arm: usize| result["arms"][arm]["prompt_tokens"].as_f64().unwrap();
    assert!(tokens(1) > tokens(0) && tokens(0) > tokens(2));
    for part in ["train_tokens_per_s", "seconds"] {
        assert!(result[part].as_f64().unwrap() > 0.0, "{part}");
    }
    assert_eq!(result["adapter"], "runs/quickstart-001/run/adapter");
    assert_eq!(result["steps"], 24);
    assert!(
        ended.stderr.contains("this machine is slow: it makes 24 of 240 steps, the fewest"),
        "{}",
        ended.stderr
    );

    for file in [
        "tickets/train.jsonl",
        "tickets/test.jsonl",
        "tickets/schema.json",
        "tickets.yaml",
        "run/manifest.json",
        "run/adapter/adapter_model.safetensors",
    ] {
        assert!(house.path().join("runs/quickstart-001").join(file).is_file(), "{file}");
    }
    // The recipe that is printed is the one that was run.
    for line in house.read("runs/quickstart-001/tickets.yaml").lines() {
        assert!(ended.stderr.contains(line), "{line}");
    }
    what_it_says_to_type_works(&house, &ended.stderr);
}

fn what_it_says_to_type_works(house: &House, said: &str) {
    house.write("yours.jsonl", &house.read("rows.jsonl"));
    let (_, next) = said.rsplit_once("next\n").unwrap();
    let lines: Vec<&str> = next.lines().collect();
    assert_eq!(lines.len(), 3, "{next}");
    for line in lines {
        let mut shell = Command::new("/bin/sh");
        shell.arg("-c").arg(line).current_dir(house.path()).env_clear();
        shell
            .env("HOME", house.path())
            .env("TUNESMITH_MODEL", "tiny")
            .env("PATH", Path::new(env!("CARGO_BIN_EXE_tunesmith")).parent().unwrap())
            .stdin(std::process::Stdio::null());
        house.ended(&shell.output().unwrap()).done();
    }
}

#[test]
fn what_is_there_is_not_touched() {
    let house = house();
    house.write("mine/notes.txt", "mine");
    let ended = quickstart(&house, &["--output", "mine"]);
    assert_eq!(ended.code, 2);
    assert_eq!(
        ended.stderr,
        "error: mine: is not an empty folder\nhint: name another one with `--output`\n"
    );
    assert_eq!(house.read("mine/notes.txt"), "mine");
}
