//! Checkpoints that a disk damaged, or somebody edited: an error, and never other numbers.

use std::fs;
use std::path::{Path, PathBuf};

use data::checksum::checksum;
use serde_json::{Value, json};

use crate::support::{Fixture, How, read_json, write_json};

/// All files below a folder.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(self::files(&path)) } else { files.push(path) }
    }
    files.sort();
    files
}

/// A run that was stopped after step 4, with checkpoints of steps 3 and 4.
fn stopped() -> Fixture {
    let fixture = Fixture::with_validation();
    fixture.train("whole", &How::default()).unwrap();
    fixture.train_until("stopped", &How::default(), 4).unwrap();
    fixture
}

#[test]
fn a_flipped_bit_in_a_checkpoint_is_found() {
    let fixture = stopped();
    let mut refused = 0;
    for file in files(&fixture.path("stopped/checkpoints/step-000004")) {
        let name = file.strip_prefix(fixture.path("stopped")).unwrap();
        let len = fs::read(&file).unwrap().len();
        for place in 0..9 {
            fixture.copy_run("stopped", "run");
            let path = fixture.path("run").join(name);
            let mut bytes = fs::read(&path).unwrap();
            bytes[place * (len - 1) / 8] ^= 1 << (place % 8);
            fs::write(&path, bytes).unwrap();
            match fixture.train("run", &How::resumed()) {
                Err(error) => {
                    let hint = error.hint().unwrap();
                    assert!(error.to_string().contains("step-000004"), "{error}");
                    assert!(hint.contains("step-000003 is good"), "{hint}");
                    refused += 1;
                }
                // The gap between two words of the checksums says nothing.
                Ok(_) => {
                    assert!(name.ends_with("checksums.json"), "{}", name.display());
                    assert!(fixture.adapter_bytes("run") == fixture.adapter_bytes("whole"));
                }
            }
            fs::remove_dir_all(fixture.path("run")).unwrap();
        }
    }
    assert!(refused > 9 * 10, "{refused}");
    // The way that the hint names.
    fixture.copy_run("stopped", "run");
    fs::remove_dir_all(fixture.path("run/checkpoints/step-000004")).unwrap();
    fixture.train("run", &How::resumed()).unwrap();
    assert!(fixture.adapter_bytes("run") == fixture.adapter_bytes("whole"));
}

#[test]
fn a_checkpoint_has_all_its_files_and_no_others() {
    let fixture = stopped();
    let check = |damage: &dyn Fn(&Path), message: &str| {
        fixture.copy_run("stopped", "run");
        damage(&fixture.path("run/checkpoints/step-000004"));
        let error = fixture.train("run", &How::resumed()).unwrap_err();
        assert!(error.to_string().ends_with(message), "{error}");
        fs::remove_dir_all(fixture.path("run")).unwrap();
    };
    check(
        &|dir| fs::remove_file(dir.join("best/README.md")).unwrap(),
        "step-000004/best/README.md: is missing",
    );
    check(
        &|dir| fs::remove_file(dir.join("checksums.json")).unwrap(),
        "checksums.json: is missing",
    );
    check(
        &|dir| fs::write(dir.join("more.safetensors"), "").unwrap(),
        "more.safetensors: does not belong to the checkpoint",
    );
    // Of none that is left any is good.
    fixture.copy_run("stopped", "run");
    for step in ["step-000003", "step-000004"] {
        fs::write(fixture.path("run/checkpoints").join(step).join("state.json"), "{}").unwrap();
    }
    let error = fixture.train("run", &How::resumed()).unwrap_err();
    assert!(error.hint().unwrap().contains("no older checkpoint is good"), "{:?}", error.hint());
}

/// Writes a file of a checkpoint with a checksum that fits.
fn forge(dir: &Path, name: &str, bytes: &[u8]) {
    fs::write(dir.join(name), bytes).unwrap();
    let mut sums = read_json(&dir.join("checksums.json"));
    sums["files"][name] =
        json!({"bytes": bytes.len(), "crc32": format!("{:08x}", checksum(bytes))});
    write_json(&dir.join("checksums.json"), &sums);
}

#[test]
fn numbers_that_cannot_be_are_refused() {
    let fixture = stopped();
    let check = |change: &dyn Fn(&Path), message: &str| {
        fixture.copy_run("stopped", "run");
        change(&fixture.path("run/checkpoints/step-000004"));
        let error = fixture.train("run", &How::resumed()).unwrap_err();
        assert!(error.to_string().contains(message), "{error}");
        fs::remove_dir_all(fixture.path("run")).unwrap();
    };
    let state = |key: &str, value: Value, message: &str| {
        let change = |dir: &Path| {
            let mut state = read_json(&dir.join("state.json"));
            state[key] = value.clone();
            forge(dir, "state.json", state.to_string().as_bytes());
        };
        check(&change, message);
    };
    state("seconds", json!(-1.0), "state.json: `seconds` = -1 is impossible");
    state("seconds", json!(null), "state.json: ");
    state("rows", json!(-3), "state.json: ");
    let score = json!({"by": "loss", "value": 1.0, "higher_is_better": false});
    let best = json!({"step": 9, "score": score});
    state("best", best, "state.json: a best step 9 after step 4 is impossible");
    state("tokens_supervised", json!(1_u64 << 40), "supervised tokens of ");
    state("step", json!(11), "the run stands at step 11, behind its end");

    let optimizer = |ending: &str, value: f32, message: &str| {
        let change = |dir: &Path| {
            let mut bytes = fs::read(dir.join("optimizer.safetensors")).unwrap();
            let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
            let tensors: Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
            let (_, tensor) = tensors
                .as_object()
                .unwrap()
                .iter()
                .find(|(name, _)| name.ends_with(ending))
                .unwrap();
            let at = 8 + header + tensor["data_offsets"][0].as_u64().unwrap() as usize;
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
            forge(dir, "optimizer.safetensors", &bytes);
        };
        check(&change, message);
    };
    optimizer("first_moment", f32::NAN, "first_moment` holds NaN");
    optimizer("second_moment", f32::INFINITY, "second_moment` holds inf");
    optimizer("second_moment", -1.0, "second_moment` holds -1");
}

/// Cards and configs of the adapter are edited in place; the checkpoint has its own.
#[test]
fn an_edited_card_is_no_damage() {
    let fixture = stopped();
    let card = fixture.path("stopped/adapter/README.md");
    let file = fs::OpenOptions::new().append(true).open(&card).unwrap();
    std::io::Write::write_all(&mut &file, b"\nMine.\n").unwrap();
    fixture.train("stopped", &How::resumed()).unwrap();
    assert!(fixture.adapter_bytes("stopped") == fixture.adapter_bytes("whole"));
}
