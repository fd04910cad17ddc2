//! A recipe becomes an adapter, is stopped, goes on, and answers.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::house::House;

const RECIPE: &str = "model: ./tiny\nmethod: sft\nadapter: {rank: 2}\n\
    data: {train: rows.jsonl, validation: {fraction: 0.25}}\n\
    train: {max_steps: 6, batch_size: 4, evaluate_every: 3}\n";

fn house() -> House {
    let house = House::with_model();
    house.write("r.yaml", RECIPE);
    house
}

#[test]
fn a_run_ends_with_what_to_type_next() {
    let house = house();
    let ended = house.run(&["train", "r.yaml"]).done();
    let lines: Vec<&str> = ended.stdout.lines().collect();
    assert_eq!(lines[0], "runs/r-001: sft, 6 steps");
    assert!(lines[1].starts_with("data   18 rows to train on, 6 for validation; "), "{}", lines[1]);
    let step = lines.iter().find(|line| line.starts_with("step ")).unwrap();
    assert!(step.starts_with("step 1/6  loss "), "{step}");
    let next: Vec<&str> = lines.iter().skip_while(|line| **line != "next").copied().collect();
    let expected =
        ["next", "  tunesmith generate runs/r-001 --prompt 'Hello'", "  tunesmith chat runs/r-001"];
    assert_eq!(next, expected);
    assert_eq!(ended.stderr, "");
    // The lines work as printed.
    house.run(&["generate", "runs/r-001", "--prompt", "Hello", "--max-new-tokens", "4"]).done();
}

#[test]
fn a_model_that_is_trained_itself_is_one_like_any_other() {
    let house = house();
    house.write("r.yaml", &RECIPE.replace("{rank: 2}", "none"));
    let ended = house.run(&["train", "r.yaml"]).done();
    assert!(ended.stdout.contains("\nmodel       runs/r-001/model\n"), "{}", ended.stdout);
    for model in ["runs/r-001", "runs/r-001/model"] {
        house.run(&["generate", model, "--prompt", "Hello", "--max-new-tokens", "4"]).done();
    }
    house.run(&["train", "runs/r-001", "--resume", "train.max_steps=7"]).done();
    let ended = house.run(&["train", "r.yaml", "quantization=nf4"]);
    assert_eq!(ended.code, 2, "{}", ended.stderr);
    assert!(ended.stderr.contains("a quantised model cannot be trained"), "{}", ended.stderr);
    assert!(!house.path().join("runs/r-002").exists());
}

/// An adapter with tokens of its own answers with them, and is trained on.
#[test]
fn added_tokens_are_served_and_trained_on() {
    let house = house();
    let tokens: Vec<String> = (0..12).map(|i| format!("<{i}>")).collect();
    let added = format!("tokenizer.add_tokens=[{}]", tokens.join(", "));
    house.run(&["train", "r.yaml", &added, "quantization=nf4"]).done();
    house.run(&["generate", "runs/r-001", "--prompt", "<3>", "--max-new-tokens", "4"]).done();
    house.write(
        "on.yaml",
        &RECIPE.replace("./tiny", "runs/r-001").replace("adapter: {rank: 2}\n", ""),
    );
    house.run(&["train", "on.yaml"]).done();
}

#[test]
fn a_program_reads_events_and_a_result() {
    let house = house();
    let ended = house.run(&["train", "r.yaml", "--json", "output=out"]).done();
    let events: Vec<Value> =
        ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kinds: Vec<&str> = events.iter().filter_map(|event| event["event"].as_str()).collect();
    assert_eq!(kinds.first(), Some(&"started"));
    assert_eq!(kinds.iter().filter(|kind| **kind == "step").count(), 6);
    assert_eq!(kinds.last(), Some(&"finished"));
    let result = ended.result();
    for (key, expected) in [
        ("schema", 1.into()),
        ("run", "out".into()),
        ("status", "finished".into()),
        ("steps", 6.into()),
        ("adapter", "out/adapter".into()),
        ("peak_device_bytes", 0.into()),
    ] {
        let expected: Value = expected;
        assert_eq!(result[key], expected, "{key}");
    }
    assert!(result["loss_first"].is_number() && result["validation_best"].is_number());
    assert!(ended.stderr.contains("out: sft, 6 steps"), "{}", ended.stderr);
}

#[test]
fn a_folder_that_holds_a_run_is_not_written_over() {
    let house = house();
    house.run(&["train", "r.yaml", "output=out"]).done();
    let ended = house.run(&["train", "r.yaml", "output=out"]);
    let expected = "error: out: already holds a run\nhint: `--resume` continues it, \
                    `output=NAME` takes another folder, `--overwrite` removes it\n";
    assert_eq!((ended.stderr.as_str(), ended.code), (expected, 2));
    house.write("out/notes.txt", "mine");
    house.run(&["train", "r.yaml", "output=out", "--overwrite"]).done();
    assert_eq!(house.read("out/notes.txt"), "mine");
    house.run(&["train", "r.yaml"]).done();
    house.run(&["train", "r.yaml"]).done();
    assert!(house.path().join("runs/r-002/adapter/adapter_model.safetensors").is_file());
}

#[test]
fn a_longer_run_goes_on_from_a_shorter_one() {
    let house = house();
    house.run(&["train", "r.yaml", "train.schedule.type=constant"]).done();
    let more = ["train", "r.yaml", "--resume", "train.max_steps=8", "train.schedule.type=constant"];
    let ended = house.run(&more).done();
    assert!(ended.stdout.starts_with("resuming runs/r-001\n"), "{}", ended.stdout);
    assert!(
        ended.stdout.contains("runs/r-001: sft, 8 steps, resumed after step 6"),
        "{}",
        ended.stdout
    );
    house.run(&["train", "runs/r-001", "--resume", "train.max_steps=9"]).done();
    let ended = house.run(&["train", "runs/r-001", "--resume", "adapter.rank=4"]);
    assert_eq!(ended.code, 2);
    assert!(ended.stderr.contains("`adapter.rank` was 2, now 4"), "{}", ended.stderr);
}

#[test]
fn there_may_be_nothing_to_resume() {
    let house = house();
    let ended = house.run(&["train", "r.yaml", "--resume"]);
    let expected = "error: there is no run HOUSE/runs/r-NNN to resume\nhint: leave out `--resume` \
                    to begin one, or name the folder of the run\n";
    assert_eq!((ended.stderr.as_str(), ended.code), (expected, 2));
    let ended = house.run(&["train", "r.yaml", "--resume", "output=out"]);
    assert!(
        ended.stderr.starts_with("error: out: there is no run to resume\n"),
        "{}",
        ended.stderr
    );
}

#[test]
#[cfg(unix)]
fn an_interrupted_run_saves_and_says_how_to_resume() {
    for (signal, code) in [("INT", 130), ("TERM", 143), ("USR1", 143), ("HUP", 129)] {
        if signal == "HUP" && ignores_hang_up() {
            #[allow(clippy::print_stderr, reason = "a test that is skipped says so")]
            {
                eprintln!("skipped: SIGHUP is ignored here, as under nohup");
            }
            continue;
        }
        let house = house();
        let mut command = house.command(&["train", "r.yaml", "train.max_steps=1000000"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        lines.find(|line| line.as_ref().unwrap().contains(" 2/1000000 "));
        let process = child.id().to_string();
        Command::new("kill").args([&format!("-{signal}"), &process]).status().unwrap();
        let rest: Vec<String> = lines.map(Result::unwrap).collect();
        assert_eq!(child.wait().unwrap().code(), Some(code), "{signal}");
        let rest = rest.join("\n");
        assert!(rest.contains("stopped after "), "{rest}");
        assert!(rest.contains("\n  tunesmith train runs/r-001 --resume\n"), "{rest}");
        let events = house.read("runs/r-001/events.jsonl");
        assert!(events.lines().last().unwrap().contains("interrupted"), "{events}");
    }
}

/// Whether this process was begun by `nohup` or the like, and hands that on.
#[cfg(unix)]
fn ignores_hang_up() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.is_none_or(|mask| u64::from_str_radix(mask.trim(), 16).unwrap_or(1) & 1 == 1)
}

#[test]
#[cfg(target_os = "linux")]
fn nohup_holds() {
    let house = house();
    let arguments = ["train", "r.yaml", "train.max_steps=1000000"];
    let mut command = house.command_after("trap '' HUP", &arguments);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    lines.find(|line| line.contains(" 2/1000000 "));
    Command::new("kill").args(["-HUP", &child.id().to_string()]).status().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(500));
    let ended = child.try_wait().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(ended.is_none(), "the run ended: {ended:?}");
}

#[test]
fn a_killed_run_ends_with_the_same_bytes() {
    let house = house();
    let order = ["train", "r.yaml", "train.max_steps=24", "train.save.steps=3", "--json"];
    house.run(&[&order[..], &["output=whole", "--threads", "1"]].concat()).done();
    let mut more: &[&str] = &[];
    for step in [2, 8, 9, 17] {
        let arguments = [&order[..], &["output=killed", "--threads", "2"], more].concat();
        let mut command = house.command(&arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let seen = format!("\"event\":\"step\",\"step\":{step},");
        assert!(lines.any(|line| line.unwrap().contains(&seen)), "step {step} was reached");
        child.kill().unwrap();
        child.wait().unwrap();
        more = &["--resume"];
    }
    house.run(&[&order[..], &["output=killed", "--resume"]].concat()).done();
    let bytes = |run: &str| {
        let path = house.path().join(run).join("adapter/adapter_model.safetensors");
        std::fs::read(path).unwrap()
    };
    assert!(bytes("whole") == bytes("killed"), "the adapters differ");
    let losses = |run: &str| -> Vec<(u64, f64)> {
        let text = house.read(&format!("{run}/events.jsonl"));
        let events = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let valid = events.filter(|event| event["superseded"] != true && event["event"] == "step");
        valid
            .map(|event| (event["step"].as_u64().unwrap(), event["loss"].as_f64().unwrap()))
            .collect()
    };
    assert_eq!(losses("whole"), losses("killed"));
}
