//! A project that was moved as a whole goes on where it stood.

use std::fs;

use crate::house::{Ended, House};

const RECIPE: &str = "model: ./tiny\nmethod: sft\nadapter: {rank: 2}\n\
    data: {train: rows.jsonl}\ntrain: {max_steps: 8, batch_size: 4, schedule: constant}\n";

/// Runs the binary in a folder of the house.
fn run_in(house: &House, folder: &str, arguments: &[&str]) -> Ended {
    let mut command = house.command(arguments);
    house.ended(&command.current_dir(house.path().join(folder)).output().unwrap())
}

#[test]
fn a_project_goes_on_where_it_lies_now() {
    let house = House::with_model();
    house.write("r.yaml", RECIPE);
    fs::create_dir(house.path().join("old")).unwrap();
    for name in ["tiny", "rows.jsonl", "r.yaml"] {
        fs::rename(house.path().join(name), house.path().join("old").join(name)).unwrap();
    }
    run_in(&house, "old", &["train", "r.yaml", "output=whole"]).done();
    run_in(&house, "old", &["train", "r.yaml", "train.max_steps=3"]).done();
    run_in(&house, "old", &["train", "r.yaml", "train.max_steps=3"]).done();
    fs::rename(house.path().join("old"), house.path().join("new")).unwrap();
    // By the recipe, the newest run; by its folder, the other one; both from elsewhere, too.
    run_in(&house, "new", &["train", "r.yaml", "--resume", "train.max_steps=8"]).done();
    run_in(&house, "", &["train", "new/runs/r-001", "--resume", "train.max_steps=5"]).done();
    run_in(&house, "new", &["train", "runs/r-001", "--resume", "train.max_steps=8"]).done();
    let bytes = |run: &str| {
        let adapter = house.path().join("new").join(run).join("adapter");
        fs::read(adapter.join("adapter_model.safetensors")).unwrap()
    };
    assert!(bytes("runs/r-001") == bytes("whole"), "the adapters differ");
    assert!(bytes("runs/r-002") == bytes("whole"), "the adapters differ");
    // A run that was not resumed since finds its base there, too.
    run_in(&house, "new", &["generate", "whole", "--prompt", "a", "--max-new-tokens", "2"]).done();
    // Another file under the same name is another file.
    house.write("new/rows.jsonl", "{\"prompt\": \"a\", \"completion\": \"b\"}\n");
    let ended = run_in(&house, "new", &["train", "whole", "--resume", "train.max_steps=9"]);
    assert_eq!(ended.code, 2, "{}", ended.stderr);
    assert!(ended.stderr.contains("the run began with another `data`"), "{}", ended.stderr);
}
