//! What cannot work is refused with place and cure, before anything is written or lost.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use safetensors::{Dtype, SafeTensors};
use serde_json::json;
use train::run::Occupied;

use crate::support::{CHATML, Fixture, How, cpu, read_json, write_json};

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
    check_refused(&fixture, &how, "it takes", "`data.max_seq_len`");
    // Everything counts: without room for its gradients, say, the run does not begin.
    let (total, kinds) = planned(&fixture, "roomy", &["micro_batch_tokens=64"]);
    for kind in ["weights", "trained", "gradients", "optimizer", "activations", "workspace"] {
        assert!(kinds[kind] > 0, "{kind}");
    }
    assert_eq!(kinds.values().sum::<usize>(), total);
    let overrides = ["micro_batch_tokens=64", "activation_checkpointing=none"];
    let memory_limit = total - kinds["gradients"];
    let how = How { memory_limit, overrides: &overrides, ..How::default() };
    check_refused(&fixture, &how, "the run does not fit", "adamw8bit");
}

/// Planned bytes of a run with room: all, and by kind.
fn planned(fixture: &Fixture, run: &str, overrides: &[&str]) -> (usize, BTreeMap<String, usize>) {
    let mut planned = (0, BTreeMap::new());
    let mut watch = |event: &train::events::Event| {
        if let train::events::Event::Started { planned_bytes, memory, .. } = event {
            planned = (*planned_bytes, memory.clone().into_iter().collect());
        }
    };
    let stop = &mut |_| train::trainer::Control::Stop;
    let how = How { overrides, ..How::default() };
    fixture.watch(run, &how, &mut watch, stop).unwrap();
    planned
}

#[test]
fn less_memory_takes_smaller_micro_batches_and_changes_no_loss() {
    let fixture = Fixture::new();
    let run = |name: &str, memory_limit: usize| {
        let how = How { memory_limit, overrides: &["train.max_steps=2"], ..How::default() };
        fixture.train(name, &how).unwrap();
        fs::read_to_string(fixture.path(name).join("recipe.yaml")).unwrap()
    };
    let how = How { overrides: &["micro_batch_tokens=256"], ..How::default() };
    let device = cpu(how.threads, how.precision);
    let job = fixture.job(&how);
    let plan = train::trainer::plan(job, &device, None).unwrap();
    let tight = plan.worst_bytes;
    let (large, small) = (run("large", 1 << 30), run("small", tight));
    assert!(large.contains("micro_batch_tokens: 1024"), "{large}");
    assert!(!small.contains("micro_batch_tokens: 1024"), "{small}");
    assert_eq!(fixture.steps("large"), fixture.steps("small"));
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
        "the model does not learn when to stop (`no-end-of-turn`, 10 rows)",
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
    check_refused(&fixture, &how, "`c_attn` matches no module of the model", "q_proj, k_proj");
}

/// Makes numbers overflow in rows with a token, and only there: all weights are finite. The first column of the
/// embedding is zero but for this token, and the first norm multiplies it by the largest number.
fn poison(fixture: &Fixture, token: u32) {
    let path = fixture.path("model/model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let (header, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    let mut set = |name: &str, index: &dyn Fn(usize) -> usize, value: &dyn Fn(usize) -> f32| {
        let info = metadata.info(name).unwrap();
        for row in 0..info.shape[0] {
            let start = 8 + header + info.data_offsets.0 + 4 * index(row);
            bytes[start..start + 4].copy_from_slice(&value(row).to_le_bytes());
        }
    };
    assert_eq!(metadata.info("model.embed_tokens.weight").unwrap().dtype, Dtype::F32);
    let cols = metadata.info("model.embed_tokens.weight").unwrap().shape[1];
    let is_poison = |row: usize| if row == token as usize { 1e4 } else { 0.0 };
    set("model.embed_tokens.weight", &|row| row * cols, &is_poison);
    set("model.layers.0.input_layernorm.weight", &|_| 0, &|_| f32::MAX);
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

/// A recipe that the data and the model refuse, key by key: nothing is written.
#[track_caller]
fn check_key(overrides: &[&str], message: &str, hint: &str) {
    let mut fixture = Fixture::new();
    fixture.recipe = fixture.recipe.replace("adapter: {rank: 4}\n", "");
    let how = How { overrides, ..How::default() };
    let error = fixture.train("run", &how).unwrap_err();
    let place = overrides.last().and_then(|text| text.split('=').next()).unwrap();
    let shown = error.to_string();
    assert!(shown.contains(place), "no place in: {shown}");
    assert!(shown.contains(message), "{shown}");
    assert!(error.hint().unwrap_or_default().contains(hint), "hint: {:?}", error.hint());
    assert!(!fixture.path("run").exists(), "a refused run left a folder");
}

#[test]
fn adapters_that_the_model_cannot_have() {
    let none = "`adapter.type` is none";
    check_key(&["adapter.type=none", "quantization=nf4"], none, "leave `quantization` out");
    check_key(&["adapter.from=stack"], "is not an adapter", "leave it out");
    check_key(
        &["adapter.rank_pattern={q_proj: two}"],
        "`q_proj` = \"two\" is not a valid rank",
        "whole one",
    );
    check_key(
        &["adapter.rank_pattern={q_proj: 1.5}"],
        "`q_proj` = 1.5 is not a valid rank",
        "whole one",
    );
    check_key(
        &["adapter.rank_pattern={q_proj: 0}"],
        "`q_proj` = 0 is not a valid rank",
        "whole one",
    );
    check_key(
        &["adapter.alpha_pattern={q_proj: -1}"],
        "`q_proj` = -1 is not a valid alpha",
        "a positive",
    );
    let matches = "`qq_proj` matches no adapted module";
    check_key(&["adapter.rank_pattern={qq_proj: 2}"], matches, "adapted are");
    check_key(&["adapter.alpha_pattern={qq_proj: 2}"], matches, "adapted are");
    check_key(&["adapter.rank_pattern={\"q_(\": 2}"], "is not a regular expression", "");
    let layers = "the model has layers 0 to 1";
    check_key(&["train.layers=[2]"], "`2` names no layers", layers);
    check_key(&["train.layers=[last 3]"], "`last 3` names no layers", layers);
    check_key(&["adapter.type=none", "train.layers=[0-2]"], "`0-2` names no layers", layers);
}

#[test]
fn modules_and_tokens_that_the_model_has_not() {
    let no_module = "`lm_haed` is not a module of the model";
    check_key(&["adapter.modules_to_save=[lm_haed]"], no_module, "lm_head");
    let at_once = "`q_proj` is adapted and saved as a whole at once";
    check_key(&["adapter.modules_to_save=[q_proj]"], at_once, "one of the two");
    let no_token = "`<x>` is not a token of the model";
    check_key(&["adapter.trainable_tokens=[<x>]"], no_token, "tokenizer: {add_tokens");
    let twice = "the embedding is trained as a whole";
    check_key(
        &["adapter.modules_to_save=[embed_tokens]", "adapter.trainable_tokens=[e]"],
        twice,
        "leave it out",
    );
    check_key(&["tokenizer.add_tokens=[\"\"]"], "an empty text is not a token", "leave it out");
    check_key(&["tokenizer.add_tokens=[e]"], "`e` is a token already", "trainable_tokens");
    check_key(&["tokenizer.add_tokens=[<a>, <a>]"], "`<a>` is a token already", "");
    check_key(&["tokenizer.add_special_tokens=[<s>]"], "`<s>` is a token already", "");
}

#[test]
fn adapters_that_do_not_go_together() {
    let fixture = Fixture::new();
    let start = |name: &str, overrides: &[&str]| {
        let overrides = [&["train.max_steps=1"], overrides].concat();
        let how = How { overrides: &overrides, ..How::default() };
        fixture.train(name, &how).unwrap().adapter
    };
    let (plain, dora) = (start("plain", &[]), start("dora", &["adapter.type=dora"]));
    let tokens = start("tokens", &["adapter.trainable_tokens=[e]"]);
    let check = |start: &std::path::PathBuf, overrides: &[&str], message: &str, hint: &str| {
        let how = How { start: Some(start.clone()), overrides, ..How::default() };
        check_refused(&fixture, &how, message, hint);
    };
    let together = "cannot be put together";
    check(&dora, &["adapter.from=stack"], together, "tunesmith merge");
    check(&tokens, &["adapter.from=stack"], together, "tunesmith merge");
    check(&plain, &["adapter.from=stack", "adapter.type=dora"], together, "tunesmith merge");
    let mut whole = Fixture::at(&fixture.path(""));
    whole.recipe = whole.recipe.replace("adapter: {rank: 4}\n", "");
    let how = How { start: Some(plain), overrides: &["adapter.type=none"], ..How::default() };
    check_refused(&whole, &how, "the model is an adapter", "tunesmith merge");
}

/// Findings of a short run over a base.
fn findings(base: &Path, overrides: &[&str]) -> Vec<std::borrow::Cow<'static, str>> {
    let mut fixture = Fixture::new();
    for entry in fs::read_dir(base).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "safetensors") {
            fs::copy(&path, fixture.path("model").join(path.file_name().unwrap())).unwrap();
        }
    }
    let mut config = read_json(&base.join("config.json"));
    config["max_position_embeddings"] = 128.into();
    write_json(&fixture.path("model/config.json"), &config);
    fixture.recipe = fixture.recipe.replace("adapter: {rank: 4}\n", "");
    let overrides = [&["train.max_steps=1"], overrides].concat();
    let summary = fixture.train("run", &How { overrides: &overrides, ..How::default() }).unwrap();
    let of_model = summary.findings.iter().filter(|finding| finding.id != "few-rows");
    of_model.map(|finding| finding.id.clone()).collect()
}

#[test]
fn what_is_quantised_already_is_said() {
    let nf4 = crate::support::model_golden("bnb/nf4");
    let none: [&str; 0] = [];
    assert_eq!(findings(&nf4, &[]), none);
    assert_eq!(findings(&nf4, &["quantization=nf4"]), ["quantised-already"]);
    assert_eq!(findings(&nf4, &["quantization=int8"]), ["quantised-already"]);
    assert_eq!(findings(&nf4, &["adapter.type=none"]), ["quantised-start"]);
    let plain = crate::support::model_golden("tiny_llama/gqa");
    assert_eq!(findings(&plain, &["quantization=nf4"]), none);
}
