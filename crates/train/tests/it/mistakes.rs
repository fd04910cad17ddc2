//! What cannot work is refused with place and cure, before anything is written or lost.

use std::fs;
use std::path::Path;

use safetensors::SafeTensors;
use serde_json::json;
use train::run::Occupied;

use crate::support::{CHATML, Fixture, How, read_json, write_json};

/// A run that cannot begin: the error says so, and the output is as it was.
#[track_caller]
fn check_refused(fixture: &Fixture, how: &How<'_>, message: &str, hint: &str) {
    let error = fixture.train("run", how).unwrap_err();
    let shown = error.to_string();
    assert!(shown.contains(message), "{shown}");
    let given = error.hint().unwrap_or_default();
    assert!(given.contains(hint), "hint: {given}");
    assert!(!fixture.path("run").exists(), "a refused run left a folder");
}

#[test]
fn there_is_nothing_to_resume() {
    let fixture = Fixture::new();
    let how = How::resumed();
    check_refused(&fixture, &how, "there is no run to resume", "leave out `--resume`");
}

#[test]
fn a_folder_of_other_things_is_left_alone() {
    let fixture = Fixture::new();
    fs::create_dir(fixture.path("run")).unwrap();
    fs::write(fixture.path("run/thesis.txt"), "years").unwrap();
    let error = fixture.train("run", &How::default()).unwrap_err();
    assert!(error.to_string().contains("not empty, and not a run"), "{error}");
    assert_eq!(fs::read_dir(fixture.path("run")).unwrap().count(), 1);
}

#[test]
fn a_refused_run_overwrites_nothing() {
    let fixture = Fixture::new();
    fixture.train("run", &How { overrides: &["train.max_steps=2"], ..How::default() }).unwrap();
    let adapter = fixture.adapter_bytes("run");
    fixture.write_rows("rows.jsonl", &[("no answer", "")]);
    let how = How { occupied: Occupied::Overwrite, ..How::default() };
    let error = fixture.train("run", &how).unwrap_err();
    assert!(error.to_string().contains("rows.jsonl:1"), "{error}");
    assert_eq!(fixture.adapter_bytes("run"), adapter);
    assert_eq!(fixture.steps("run").len(), 2);
}

#[test]
fn too_little_memory_is_said_before_the_start() {
    let fixture = Fixture::new();
    let how = How { memory_limit: 1 << 20, ..How::default() };
    check_refused(&fixture, &how, "the run does not fit: weights", "`data.max_seq_len`");
    // The weights count too: what the stack alone would need is not enough.
    let how = How { memory_limit: 1 << 30, ..How::default() };
    let mut planned = 0;
    let mut watch = |event: &train::events::Event| {
        if let train::events::Event::Started { planned_bytes, .. } = event {
            planned = *planned_bytes;
        }
    };
    let stop = &mut |_| train::trainer::Control::Stop;
    fixture.watch("roomy", &how, &mut watch, stop).unwrap();
    assert!(planned > 400_000, "{planned}");
}

#[test]
fn less_memory_takes_smaller_micro_batches_and_changes_no_loss() {
    let fixture = Fixture::new();
    let run = |name: &str, memory_limit: usize| {
        let how = How { memory_limit, overrides: &["train.max_steps=2"], ..How::default() };
        fixture.train(name, &how).unwrap();
        fs::read_to_string(fixture.path(name).join("recipe.yaml")).unwrap()
    };
    let (large, small) = (run("large", 1 << 30), run("small", 3 << 20));
    assert!(large.contains("micro_batch_tokens: 1024"), "{large}");
    assert!(!small.contains("micro_batch_tokens: 1024"), "{small}");
    for (a, b) in fixture.steps("large").iter().zip(fixture.steps("small")) {
        assert!((a[1] - b[1]).abs() < 1e-5, "{a:?} {b:?}");
    }
}

#[test]
fn tokens_beyond_the_vocabulary() {
    let fixture = Fixture::new();
    let path = fixture.path("model/tokenizer.json");
    let mut tokenizer = read_json(&path);
    tokenizer["model"]["vocab"]["s"] = 128.into();
    write_json(&path, &tokenizer);
    let message = "rows.jsonl:1: token 128 is beyond the model's 128";
    check_refused(&fixture, &How::default(), message, "does not belong to this model");
}

#[test]
fn rows_longer_than_the_model_was_made_for() {
    let fixture = Fixture::new();
    let long = "long ".repeat(30);
    fixture.write_rows("rows.jsonl", &[("short", "row"), (&long, "x")]);
    let how = How::default();
    check_refused(
        &fixture,
        &how,
        "rows.jsonl:2: the row has 172 tokens, the model was made for 128",
        "truncate",
    );
    let how = How { overrides: &["data.max_seq_len=100"], ..How::default() };
    check_refused(
        &fixture,
        &how,
        "rows.jsonl:2: row has 172 tokens, more than 100",
        "data.overlong",
    );
    let overrides = ["data.max_seq_len=100", "data.overlong=skip", "train.max_steps=1"];
    let how = How { overrides: &overrides, ..How::default() };
    let summary = fixture.train("run", &how).unwrap();
    assert_eq!(summary.findings[0].id, "overlong-skipped");
}

#[test]
fn a_base_without_a_template() {
    let fixture = Fixture::new();
    fs::remove_file(fixture.path("model/chat_template.jinja")).unwrap();
    check_refused(&fixture, &How::default(), "no chat template", "chat_template: FILE");
    let how = How { overrides: &["model.chat_template=alpacca"], ..How::default() };
    check_refused(&fixture, &how, "no template `alpacca`", "chatml");
    fs::write(fixture.path("mine.jinja"), CHATML).unwrap();
    let file = format!("model.chat_template={}", fixture.path("mine.jinja").display());
    for (run, choice) in [("named", "model.chat_template=chatml"), ("file", file.as_str())] {
        let how = How { overrides: &[choice, "train.max_steps=1"], ..How::default() };
        fixture.train(run, &how).unwrap();
        assert!(fixture.path(run).join("adapter/chat_template.jinja").is_file());
    }
}

#[test]
fn a_template_that_never_ends_a_turn() {
    let fixture = Fixture::new();
    let endless = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}\
                   {% if add_generation_prompt %}assistant: {% endif %}";
    fs::write(fixture.path("model/chat_template.jinja"), endless).unwrap();
    let how = How::default();
    check_refused(
        &fixture,
        &how,
        "the model does not learn when to stop (10 rows)",
        "ends assistant turns",
    );
}

#[test]
fn a_template_for_another_tokenizer() {
    let fixture = Fixture::new();
    let other = CHATML.replace("<|im_end|>", "<|eot_id|>");
    fs::write(fixture.path("model/chat_template.jinja"), other).unwrap();
    let message = "the tokenizer has no token <|eot_id|>";
    check_refused(&fixture, &How::default(), message, "belongs to this tokenizer");
}

#[test]
fn a_model_that_lacks_a_tensor() {
    let fixture = Fixture::new();
    let mut config = read_json(&fixture.path("model/config.json"));
    config["num_hidden_layers"] = 3.into();
    write_json(&fixture.path("model/config.json"), &config);
    check_refused(&fixture, &How::default(), "layers.2.", "");
}

#[test]
fn modules_that_do_not_exist() {
    let fixture = Fixture::new();
    let how = How { overrides: &["adapter.target_modules=[q_proj, c_attn]"], ..How::default() };
    check_refused(&fixture, &how, "`c_attn` is no linear layer", "q_proj, k_proj");
}

/// Sets the embedding of a token to NaN.
fn poison(fixture: &Fixture, token: u32) {
    let path = fixture.path("model/model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let (header, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    let info = metadata.info("model.embed_tokens.weight").unwrap();
    let (rows, size) = (info.shape[0], info.data_offsets.1 - info.data_offsets.0);
    let row = size / rows;
    let start = 8 + header + info.data_offsets.0 + token as usize * row;
    bytes[start..start + row].fill(0xff);
    fs::write(path, bytes).unwrap();
}

/// The token of `~`, which only poisoned rows have.
const TILDE: u32 = 100;

#[test]
fn a_loss_that_is_no_number_stops_the_run_and_spares_the_checkpoint() {
    let fixture = Fixture::new();
    let mut rows = crate::support::ROWS.to_vec();
    rows.push(("~", "poison"));
    fixture.write_rows("rows.jsonl", &rows);
    poison(&fixture, TILDE);
    let overrides =
        ["train.batch_size=1", "train.max_steps=30", "train.save.steps=1", "train.save.keep=1"];
    // The seed whose order brings the poisoned row neither first nor second.
    let seeds = (1..20).map(|seed| format!("seed={seed}"));
    for (index, seed) in seeds.enumerate() {
        let run = format!("run-{index}");
        let how = How { overrides: &[&overrides[..], &[&seed]].concat(), ..How::default() };
        let error = fixture.train(&run, &how).unwrap_err();
        let done = fixture.steps(&run).len();
        if done < 2 {
            continue;
        }
        let shown = error.to_string();
        assert!(
            shown.starts_with(&format!("step {}: loss is NaN (grad_norm was ", done + 1)),
            "{shown}"
        );
        assert!(shown.ends_with(&format!(" at step {done})")), "{shown}");
        let hint = error.hint().unwrap();
        let kept = format!("step-{done:06}");
        assert!(hint.contains(&kept) && hint.contains("--resume"), "{hint}");
        assert_eq!(fixture.checkpoints(&run), [kept.as_str()]);
        let weights = format!("{run}/checkpoints/{kept}/adapter_model.safetensors");
        assert!(all_finite(&fixture.path(&weights)));
        return;
    }
    panic!("no seed brings the poisoned row late");
}

fn all_finite(path: &Path) -> bool {
    let bytes = fs::read(path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap().tensors();
    let mut values = tensors.iter().flat_map(|(_, view)| view.data().chunks_exact(4));
    values.all(|b| f32::from_le_bytes(b.try_into().unwrap()).is_finite())
}

#[test]
fn a_loss_that_is_no_number_at_once() {
    let fixture = Fixture::new();
    // Newline is in every row.
    poison(&fixture, 5);
    let error = fixture.train("run", &How::default()).unwrap_err();
    assert_eq!(error.to_string(), "step 1: loss is NaN");
    assert!(error.hint().unwrap().contains("no checkpoint"), "{:?}", error.hint());
}

#[test]
fn a_validation_loss_that_is_no_number() {
    let fixture = Fixture::new();
    fixture.write_rows("other.jsonl", &[("~", "poison")]);
    poison(&fixture, TILDE);
    let overrides = ["data.validation=other.jsonl", "train.evaluate_every=4"];
    let how = How { overrides: &overrides, ..How::default() };
    let error = fixture.train("run", &how).unwrap_err();
    assert_eq!(error.to_string(), "step 4: validation_loss is NaN");
    assert!(error.hint().unwrap().contains("step-000003"), "{:?}", error.hint());
}

#[test]
fn a_checkpoint_that_cannot_be_written_leaves_the_old_one_good() {
    let fixture = Fixture::new();
    fixture.train("whole", &How::default()).unwrap();
    fixture.train_until("run", &How::default(), 4).unwrap();
    let (path, aside) = (fixture.path("run/checkpoints"), fixture.path("aside"));
    fs::rename(&path, &aside).unwrap();
    fs::copy(fixture.path("rows.jsonl"), &path).unwrap();
    let error = fixture.train("run", &How::resumed()).unwrap_err();
    assert!(error.to_string().starts_with("checkpoint of step 3: "), "{error}");
    fs::remove_file(&path).unwrap();
    fs::rename(&aside, &path).unwrap();
    fixture.train("run", &How::resumed()).unwrap();
    assert_eq!(fixture.adapter_bytes("run"), fixture.adapter_bytes("whole"));
}

/// What the process that has no room is told.
#[cfg(unix)]
const FOLDER: &str = "TUNESMITH_TEST_FOLDER";

/// A disk is full for a process that may write no file longer than a few kilobytes: the adapter
/// still fits, the optimizer's moments do not.
#[cfg(unix)]
#[test]
fn a_full_disk_leaves_the_old_checkpoint_good() {
    let fixture = Fixture::new();
    fixture.train("whole", &How::default()).unwrap();
    fixture.train_until("run", &How::default(), 4).unwrap();
    let checkpoint = fixture.path("run/checkpoints/step-000004");
    let size = |name: &str| fs::metadata(checkpoint.join(name)).unwrap().len();
    let (adapter, moments) = (size("adapter_model.safetensors"), size("optimizer.safetensors"));
    // In blocks of 512 bytes, or where the shell counts so of 1024.
    let blocks = adapter.div_ceil(512);
    assert!(blocks * 1024 < moments, "{adapter} {moments}");
    let program = std::env::current_exe().unwrap();
    let output = std::process::Command::new("sh")
        .args(["-c", &format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"")])
        .arg(program)
        .args(["--exact", "mistakes::without_room", "--ignored", "--nocapture"])
        .env(FOLDER, fixture.path(""))
        .output()
        .unwrap();
    let said = [&output.stdout[..], &output.stderr[..]].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success(), "{said}");
    assert_eq!(fixture.checkpoints("run"), ["step-000003", "step-000004"]);
    fixture.train("run", &How::resumed()).unwrap();
    assert_eq!(fixture.adapter_bytes("run"), fixture.adapter_bytes("whole"));
    assert_eq!(fixture.steps("run"), fixture.steps("whole"));
}

#[cfg(unix)]
#[test]
#[ignore = "run by `a_full_disk_leaves_the_old_checkpoint_good` in a process without room"]
fn without_room() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let fixture = Fixture::at(Path::new(&folder));
    let error = fixture.train("run", &How::resumed()).unwrap_err();
    let shown = error.to_string();
    assert!(shown.starts_with("checkpoint of step 6: "), "{shown}");
    let hint = error.hint().unwrap();
    assert!(hint.contains("step-000004 is still good"), "{hint}");
}

#[test]
fn a_damaged_checkpoint_says_so() {
    let fixture = Fixture::new();
    fixture.train_until("run", &How::default(), 4).unwrap();
    let checkpoint = fixture.path("run/checkpoints/step-000004");
    let check = |name: &str, content: &[u8]| {
        let path = checkpoint.join(name);
        let original = fs::read(&path).unwrap();
        fs::write(&path, content).unwrap();
        let error = fixture.train("run", &How::resumed()).unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
        assert!(error.hint().unwrap().contains("resume from the one before"), "{:?}", error.hint());
        fs::write(&path, original).unwrap();
    };
    check("state.json", b"{\"step\": ");
    check("optimizer.safetensors", b"cut off");
    check("adapter_model.safetensors", b"cut off");
    fs::remove_dir_all(&checkpoint).unwrap();
    assert_eq!(fixture.train("run", &How::resumed()).unwrap().steps, 10);
}

#[test]
fn a_run_that_began_with_another_version_is_not_resumed() {
    let fixture = Fixture::new();
    fixture.train_until("run", &How::default(), 4).unwrap();
    let path = fixture.path("run/manifest.json");
    let mut manifest = read_json(&path);
    manifest["version"] = json!("0.0.1");
    write_json(&path, &manifest);
    let error = fixture.train("run", &How::resumed()).unwrap_err();
    assert!(error.to_string().contains("another `version`: \"0.0.1\""), "{error}");
}
