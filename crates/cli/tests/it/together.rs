//! Processes beside each other: what one writes is its own.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};

use crate::house::House;

const RECIPE: &str = "model: ./tiny\nmethod: sft\nadapter: {rank: 2}\n\
    data: {train: rows.jsonl}\ntrain: {max_steps: 2, batch_size: 4}\n";

fn house() -> House {
    let house = House::with_model();
    house.write("r.yaml", RECIPE);
    house
}

/// A run in the folder `out` that goes on until it is killed.
fn live_run(house: &House) -> Child {
    let arguments =
        ["train", "r.yaml", "output=out", "train.max_steps=1000000", "train.save.steps=1"];
    let mut child =
        house.command(&arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    lines.find(|line| line.contains(" 2/1000000 ")).unwrap();
    // It goes on writing, so somebody has to read.
    std::thread::spawn(move || lines.for_each(drop));
    child
}

#[test]
fn runs_that_start_together_have_folders_of_their_own() {
    let house = house();
    let start = |seed: usize| {
        let seed = format!("seed={seed}");
        let mut command = house.command(&["train", "r.yaml", &seed, "--threads", "1"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let children: Vec<Child> = (1..=8).map(start).collect();
    for child in children {
        house.ended(&child.wait_with_output().unwrap()).done();
    }
    let mut seeds = BTreeSet::new();
    for number in 1..=8 {
        let run = format!("runs/r-{number:03}");
        let recipe = house.read(&format!("{run}/recipe.yaml"));
        let seed = recipe.lines().find(|line| line.starts_with("seed: ")).unwrap();
        let seed = seed.split_whitespace().nth(1).unwrap().to_owned();
        let alone = format!("output=alone-{seed}");
        house.run(&["train", "r.yaml", &format!("seed={seed}"), &alone]).done();
        let bytes = |run: &str| {
            fs::read(house.path().join(run).join("adapter/adapter_model.safetensors")).unwrap()
        };
        assert!(bytes(&run) == bytes(&format!("alone-{seed}")), "{run}: the adapter of another");
        assert!(!house.path().join(&run).join(".lock").exists(), "{run}");
        seeds.insert(seed);
    }
    assert_eq!(seeds.len(), 8);
}

#[test]
fn a_live_run_is_left_alone_and_named() {
    let house = house();
    let mut child = live_run(&house);
    let process = format!("error: out: process {} since 2", child.id());
    for arguments in [
        &["train", "r.yaml", "output=out"][..],
        &["train", "r.yaml", "output=out", "--resume"],
        &["train", "r.yaml", "output=out", "--overwrite"],
        &["train", "out", "--resume"],
    ] {
        let ended = house.run(arguments);
        assert!(ended.stderr.starts_with(&process), "{arguments:?}: {}", ended.stderr);
        assert!(ended.stderr.contains("\nhint: wait until it ends"), "{}", ended.stderr);
        assert_eq!(ended.code, 2, "{arguments:?}");
    }
    assert!(child.try_wait().unwrap().is_none(), "the run ended");
    // A kill leaves the lock's file and not the lock.
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(house.path().join("out/.lock").is_file());
    house.run(&["train", "r.yaml", "output=out", "--overwrite"]).done();
    assert!(!house.path().join("out/.lock").exists());
}

/// The folder is taken before the model is looked at, and given back where there is no run.
#[test]
fn a_run_that_never_began_leaves_nothing() {
    let house = house();
    house.write("tiny/config.json", "{");
    assert_ne!(house.run(&["train", "r.yaml"]).code, 0);
    assert!(!house.path().join("runs").exists());
    // One that was killed in the meantime leaves an empty folder, which is taken again.
    house.write_model("tiny");
    house.write("runs/r-001/.lock", "");
    house.run(&["train", "r.yaml"]).done();
    assert!(house.path().join("runs/r-001/adapter").is_dir());
}

#[test]
fn what_a_run_writes_is_all_that_overwrite_removes() {
    let house = house();
    house.write(
        "bad.jsonl",
        "{\"prompt\": \"no answer\"}\n{\"prompt\": \"a\", \"completion\": \"b\"}\n",
    );
    let skip = ["train", "r.yaml", "output=out", "data.on_error=skip"];
    house.run(&[&skip[..], &["data.train=[rows.jsonl, bad.jsonl]"]].concat()).done();
    house.run(&["merge", "out"]).done();
    assert!(house.path().join("out/left_out.jsonl").is_file());
    let names = |run: &str| -> BTreeSet<_> {
        let entries = fs::read_dir(house.path().join(run)).unwrap();
        entries.map(|entry| entry.unwrap().file_name()).collect()
    };
    house.run(&["train", "r.yaml", "output=fresh"]).done();
    house.run(&["train", "r.yaml", "output=out", "--overwrite"]).done();
    assert_eq!(names("out"), names("fresh"));
}

#[test]
fn a_target_that_is_being_written_is_refused() {
    let house = house();
    house.run(&["train", "r.yaml", "output=out"]).done();
    let check = |lock: &str, output: &str, arguments: &[&str]| {
        let path = house.write(lock, r#"{"pid": 4711, "host": "node-7", "since": 1700000000}"#);
        let held = File::open(&path).unwrap();
        held.lock().unwrap();
        let ended = house.run(arguments);
        let expected =
            format!("{output}: process 4711 on node-7 since 2023-11-14 22:13 UTC is writing it\n");
        assert!(ended.stderr.contains(&expected), "{}", ended.stderr);
        assert_eq!(ended.code, 2);
        drop(held);
        house.run(arguments).done();
        assert!(!path.exists(), "{lock} was left");
    };
    check("out/.merged.lock", "out/merged", &["merge", "out", "--no-compare"]);
    let distill = ["distill", "r.yaml", "distill.output=d.jsonl", "distill.max_new_tokens=2"];
    check(".d.jsonl.lock", "d.jsonl", &distill);
    check(".i.yaml.lock", "i.yaml", &["init", "sft", "--data", "rows.jsonl", "--output", "i.yaml"]);
}
