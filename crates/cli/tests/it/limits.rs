//! Memory that is too small, and signals before the first step.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::house::{Ended, House};

/// A model of 400 million numbers, as large on paper as it is small on disk: its weights are a hole in a file.
fn write_large_model(house: &House) {
    house.write_model("large");
    let (hidden, inner, layers, vocab) = (1024, 4096, 24, 128);
    let path = house.path().join("large/config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    for (key, value) in [
        ("hidden_size", hidden),
        ("intermediate_size", inner),
        ("num_hidden_layers", layers),
        ("num_attention_heads", 16),
        ("num_key_value_heads", 16),
        ("head_dim", 64),
    ] {
        config[key] = value.into();
    }
    std::fs::write(&path, config.to_string()).unwrap();
    let mut header = serde_json::Map::new();
    let mut end = 0;
    let mut add = |name: String, shape: &[usize]| {
        let start = end;
        end += 2 * shape.iter().product::<usize>();
        header.insert(name, json!({"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}));
    };
    add("model.embed_tokens.weight".into(), &[vocab, hidden]);
    add("lm_head.weight".into(), &[vocab, hidden]);
    add("model.norm.weight".into(), &[hidden]);
    for layer in 0..layers {
        let path = format!("model.layers.{layer}");
        for name in ["q_proj", "k_proj", "v_proj", "o_proj"] {
            add(format!("{path}.self_attn.{name}.weight"), &[hidden, hidden]);
        }
        add(format!("{path}.mlp.gate_proj.weight"), &[inner, hidden]);
        add(format!("{path}.mlp.up_proj.weight"), &[inner, hidden]);
        add(format!("{path}.mlp.down_proj.weight"), &[hidden, inner]);
        add(format!("{path}.input_layernorm.weight"), &[hidden]);
        add(format!("{path}.post_attention_layernorm.weight"), &[hidden]);
    }
    let header = Value::from(header).to_string();
    let mut file = File::create(house.path().join("large/model.safetensors")).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    file.set_len((8 + header.len() + end) as u64).unwrap();
}

/// Runs the binary in so many kilobytes of address space.
fn in_space(house: &House, kilobytes: usize, arguments: &[&str]) -> Ended {
    let mut plain = house.command(&[]);
    let script = format!("ulimit -v {kilobytes}; exec \"$0\" \"$@\"");
    let mut command = Command::new("sh");
    command.arg("-c").arg(script).arg(plain.get_program()).args(arguments);
    command.env_clear().envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.current_dir(house.path()).stdin(Stdio::null());
    // Only its surroundings were wanted.
    plain.stdin(Stdio::null());
    house.ended(&command.output().unwrap())
}

/// Every command that loads weights says that they do not fit, by kind and with a cure, and loads nothing.
#[test]
#[cfg(target_os = "linux")]
fn what_does_not_fit_is_refused_before_it_is_loaded() {
    let house = House::with_model();
    write_large_model(&house);
    house.write("r.yaml", "model: ./large\nmethod: sft\ndata: {train: rows.jsonl}\n");
    // The file takes 810 MB of address space when it is mapped, and its weights as much again.
    let space = 1_300_000;
    let commands: [(&[&str], &str); 4] = [
        (&["generate", "large", "--prompt", "hi", "--max-new-tokens", "4"], "(weights "),
        (&["chat", "large", "--max-new-tokens", "4"], "(weights "),
        // It measures the machine first, over arrays that take half a gigabyte.
        (&["bench", "large", "--only", "decode"], "(arrays "),
        (&["train", "r.yaml"], "(weights "),
    ];
    for (command, kind) in commands {
        let begun = Instant::now();
        let ended = in_space(&house, space, &[command, &["--threads", "2"]].concat());
        assert_eq!(ended.code, 2, "{command:?}: {}{}", ended.stdout, ended.stderr);
        for part in ["does not fit", kind, "hint: "] {
            assert!(ended.stderr.contains(part), "{command:?}: no {part}: {}", ended.stderr);
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{command:?}");
    }
    // With enough of it they answer; weights are all zero, so the answer is any text.
    let asked = ["generate", "large", "--prompt", "hi", "--max-new-tokens", "1", "--threads", "2"];
    in_space(&house, 3_500_000, &asked).done();
}

/// What would fit one by one is told so.
#[test]
#[cfg(target_os = "linux")]
fn a_smaller_batch_that_fits_is_named() {
    let house = House::with_model();
    write_large_model(&house);
    // Keys and values of a token take 98 kB: 64 positions in 200 lanes 1.3 GB.
    let row = |i: usize| format!("{}\n", json!({"prompt": format!("{i} {}", "x".repeat(45))}));
    house.write("p.jsonl", &(0..200).map(row).collect::<String>());
    let asked = ["generate", "large", "--prompts", "p.jsonl", "--raw", "--batch", "200"];
    let ended = in_space(&house, 2_400_000, &[&asked[..], &["--threads", "2"]].concat());
    assert_eq!(ended.code, 2, "{}", ended.stderr);
    assert!(ended.stderr.contains("hint: `--batch` "), "{}", ended.stderr);
    assert!(ended.stderr.contains(" fits"), "{}", ended.stderr);
}

/// Files that the cache holds, without locks.
fn cached(house: &House) -> Vec<PathBuf> {
    let cache = house.path().join(".cache/tunesmith/prepared");
    let sets = std::fs::read_dir(cache).into_iter().flatten().flatten();
    let files = sets.flat_map(|set| std::fs::read_dir(set.path()).into_iter().flatten().flatten());
    let mut files: Vec<PathBuf> = files.map(|file| file.path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "rows"));
    files.sort();
    files
}

fn is_finished(shard: &Path) -> bool {
    shard.parent().is_some_and(|set| set.join("set.json").exists())
}

/// While rows are prepared a signal ends the run within a second; what was prepared stays.
#[test]
#[cfg(unix)]
fn a_signal_is_heard_while_rows_are_prepared() {
    let house = House::with_model();
    let row = |i: usize| format!("{}\n", json!({"prompt": format!("{i}?"), "completion": "yes"}));
    let rows: String = (0..400_000).map(row).collect();
    house.write("many.jsonl", &rows);
    house.write("r.yaml", "model: ./tiny\nmethod: sft\ndata: {train: many.jsonl}\n");
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let mut command = house.command(&["train", "r.yaml", "--threads", "1"]);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let before = cached(&house).len();
        while cached(&house).len() < before + 2 {
            std::thread::sleep(Duration::from_millis(5));
        }
        let begun = Instant::now();
        let process = child.id().to_string();
        Command::new("kill").args([&format!("-{signal}"), &process]).status().unwrap();
        let ended = house.ended(&child.wait_with_output().unwrap());
        // A second, and what a busy machine takes.
        assert!(begun.elapsed() < Duration::from_secs(3), "{signal}: {:?}", begun.elapsed());
        assert_eq!(ended.code, code, "{}", ended.stderr);
        assert!(ended.stderr.contains("interrupted before the first step"), "{}", ended.stderr);
        assert!(!house.path().join("runs/r-001/manifest.json").exists());
        let shards = cached(&house);
        assert!(!shards.is_empty() && !is_finished(&shards[0]), "{shards:?}");
    }
}
