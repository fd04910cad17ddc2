//! What is written is written: a full disk and a closed pipe are noticed.
#![cfg(unix)]

use std::fs::{self, OpenOptions};
use std::process::Stdio;

use crate::house::House;

const RECIPE: &str = "model: ./tiny\nmethod: sft\nadapter: {rank: 16}\n\
    data: {train: rows.jsonl, validation: {fraction: 0.25}}\n\
    train: {max_steps: 6, batch_size: 4, evaluate_every: 3, save: {steps: 3}, schedule: constant}\n";

fn house() -> House {
    let house = House::with_model();
    house.write("r.yaml", RECIPE);
    house
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_behind_standard_output_is_an_error() {
    let house = house();
    let prompts: String = (0..3).map(|i| format!("{{\"prompt\": \"{i}\"}}\n")).collect();
    house.write("p.jsonl", &prompts);
    for arguments in [
        &["schema"][..],
        &["schema", "--json"],
        &["show", "r.yaml"],
        &["show", "r.yaml", "--json"],
        &["plan", "r.yaml"],
        &["plan", "r.yaml", "--json"],
        &["check", "r.yaml"],
        &["prepare", "r.yaml", "--json"],
        &["generate", "tiny", "--prompts", "p.jsonl", "--max-new-tokens", "2"],
        &["generate", "tiny", "--prompt", "a", "--max-new-tokens", "2"],
        &["--help"],
        &["--version"],
        &["train", "--help"],
    ] {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let ended = house.ended(&house.command(arguments).stdout(full).output().unwrap());
        let expected = "error: standard output: no space left on device\n";
        assert!(ended.stderr.ends_with(expected), "{arguments:?}: {}", ended.stderr);
        assert_eq!(ended.code, 1, "{arguments:?}");
    }
    // A run is saved before it ends.
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let arguments = ["train", "r.yaml", "train.max_steps=1000000"];
    let ended = house.ended(&house.command(&arguments).stdout(full).output().unwrap());
    assert_eq!(ended.code, 1, "{}", ended.stderr);
    let expected = "error: standard output: no space left on device\nhint: the run is saved after \
                    step 1: `tunesmith train runs/r-001 --resume` continues it\n";
    assert!(ended.stderr.ends_with(expected), "{}", ended.stderr);
    house.run(&["train", "runs/r-001", "--resume", "train.max_steps=2"]).done();
}

#[test]
fn a_closed_pipe_ends_a_command_without_a_word() {
    let house = house();
    for arguments in [
        &["schema"][..],
        &["plan", "r.yaml", "--json"],
        &["generate", "tiny", "--prompt", "a", "--max-new-tokens", "4"],
        &["train", "r.yaml", "train.max_steps=1000000"],
        &["train", "--help"],
    ] {
        let mut command = house.command(arguments);
        // Closed before the command begins: a short text would else be written in time.
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let child = command.stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
        let ended = house.ended(&child.wait_with_output().unwrap());
        // With `--json` human text goes to standard error.
        let is_quiet = !ended.stderr.contains("error") && !ended.stderr.contains("panicked");
        assert!(is_quiet, "{arguments:?}: {}", ended.stderr);
        assert_eq!(ended.code, 141, "{arguments:?}");
    }
    house.run(&["train", "runs/r-001", "--resume", "train.max_steps=3"]).done();
}

/// A disk without room, as a process meets it that may write no file longer than some kilobytes.
#[test]
fn a_disk_that_fills_is_an_error_with_the_good_checkpoint_named() {
    let house = house();
    house.run(&["train", "r.yaml", "output=whole", "train.max_steps=9"]).done();
    house.run(&["train", "r.yaml", "output=out", "train.max_steps=3"]).done();
    let size = |name: &str| fs::metadata(house.path().join("out").join(name)).unwrap().len();
    let adapter = size("adapter/adapter_model.safetensors");
    let moments = size("checkpoints/step-000003/optimizer.safetensors");
    assert!(2 * size("events.jsonl") + 4096 < adapter && adapter + 4096 < moments);
    let resume = ["train", "out", "--resume", "train.max_steps=9"];
    let check = |blocks: u64, what: &str| {
        let words = format!("ulimit -f {blocks}");
        let ended = house.ended(&house.command_after(&words, &resume).output().unwrap());
        assert_eq!(ended.code, 1, "{}", ended.stderr);
        assert!(ended.stderr.contains(what), "{}", ended.stderr);
        assert!(ended.stderr.contains("file too large"), "{}", ended.stderr);
        let good =
            "out/checkpoints/step-000003 is still good; make room, then go on with `--resume`";
        assert!(ended.stderr.contains(good), "{}", ended.stderr);
        let names = |folder: &str| -> Vec<String> {
            let entries = fs::read_dir(house.path().join(folder)).unwrap();
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
        };
        assert_eq!(names("out/checkpoints"), ["step-000003"]);
        let left = names("out");
        assert!(!left.iter().any(|name| name.ends_with(".partial")), "{left:?}");
    };
    // In blocks of 512 bytes: the adapter does not fit, then it does and the moments do not.
    check((adapter - 1) / 512, "error: step 6: out/.output.partial/adapter_model.safetensors: ");
    check(adapter.div_ceil(512) + 4, "error: checkpoint of step 6: ");
    house.run(&resume).done();
    let bytes =
        |run: &str| fs::read(house.path().join(run).join("adapter/adapter_model.safetensors"));
    assert!(bytes("out").unwrap() == bytes("whole").unwrap(), "the adapters differ");
}
