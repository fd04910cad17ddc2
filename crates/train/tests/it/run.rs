//! Whole runs: what they learn, and what they leave.

use std::fs;
use std::path::Path;

use compute::cpu::Precision;
use compute::{Backend as _, Reference};
use keys::Surroundings;
use model::adapter::LoadedAdapter;
use model::generate::{Flow, GenerateConfig, Prompt, generate};
use serde_json::Value;
use text::{Date, Message, RenderOptions};
use train::events::Event;
use train::recipe::schema;
use train::run::Occupied;
use train::trainer::Control;

use crate::support::{CHATML, Fixture, How, ROWS, all_events, cpu, read_json, write_json};

/// Answers a question with a run's adapter, its template and its stop tokens.
fn answer(fixture: &Fixture, run: &str, question: &str) -> (String, bool) {
    let (base, dir) = (fixture.base(), fixture.path(run).join("adapter"));
    let metadata = base.metadata_with(Some(&dir), Date::new(2026, 3, 1).unwrap()).unwrap();
    let mut backend = cpu(2, Precision::F32);
    backend.reserve(1 << 20).unwrap();
    let loaded = LoadedAdapter::read(&dir, &base.config).unwrap();
    let (decoder, adapter) = loaded.load(&base, &mut backend, None, None).unwrap();
    let options = RenderOptions { add_generation_prompt: true, ..RenderOptions::default() };
    let template = metadata.chat_template.unwrap();
    let text = template.render(&[Message::new("user", question)], &options).unwrap();
    let tokens = metadata.tokenizer.encode(&text).unwrap();
    let prompts = [Prompt { tokens, max_new_tokens: 20, key: 0 }];
    let config = GenerateConfig { stop_tokens: metadata.eos_token_ids, ..Default::default() };
    let mut go_on = |_, _| Flow::Continue;
    let completions =
        generate(&decoder, &mut backend, Some(&adapter), &prompts, &config, &mut go_on).unwrap();
    let tokens = &completions[0].tokens;
    let ended = config.stop_tokens.contains(tokens.last().unwrap());
    (metadata.tokenizer.decode(tokens, true).unwrap(), ended)
}

#[test]
fn a_run_learns_its_rows_and_when_to_stop() {
    let fixture = Fixture::new();
    let overrides = [
        "train.max_steps=80",
        "train.batch_size=10",
        "adapter.rank=16",
        "train.schedule=linear",
        "train.learning_rate=0.02",
    ];
    let how = How { overrides: &overrides, threads: 2, ..How::default() };
    let summary = fixture.train("run", &how).unwrap();
    assert_eq!((summary.status, summary.steps, summary.best_step), ("finished", 80, 80));
    let (first, last) = (summary.loss_first.unwrap(), summary.loss_last.unwrap());
    assert!(first > 3.0 && last < 0.1, "loss {first} to {last}");
    for (question, expected) in ROWS {
        assert_eq!(answer(&fixture, "run", question), (expected.to_owned(), true), "{question}");
    }
}

#[test]
fn the_oracle_takes_the_same_steps() {
    let fixture = Fixture::with_validation();
    let how = How {
        overrides: &["train.max_steps=3", "micro_batch_tokens=64", "adapter.dropout=0.1"],
        ..How::default()
    };
    fixture.train("cpu", &how).unwrap();
    let mut reference = Reference::new();
    let go_on = &mut |_| Control::Continue;
    fixture.watch_on(&mut reference, "reference", &how, &mut |_| {}, go_on).unwrap();
    let (cpu, reference) = (fixture.steps("cpu"), fixture.steps("reference"));
    assert_eq!((cpu.len(), reference.len()), (3, 3));
    for (ours, oracle) in cpu.iter().zip(&reference) {
        for (ours, oracle) in ours.iter().zip(oracle) {
            assert!((ours - oracle).abs() < 1e-4 * oracle.abs().max(1e-4), "{ours} {oracle}");
        }
    }
}

#[test]
fn a_run_folder_is_complete() {
    let fixture = Fixture::with_validation();
    let overrides = ["train.sample.prompts=[\"sky?\", \"bye\"]", "train.sample.max_new_tokens=4"];
    let how = How { overrides: &overrides, revision: Some("v1".into()), ..How::default() };
    let summary = fixture.train("run", &how).unwrap();
    let run = fixture.path("run");
    let config = read_json(&run.join("adapter/adapter_config.json"));
    assert_eq!(
        (&config["base_model_name_or_path"], &config["revision"]),
        (&"org/tiny".into(), &"v1".into())
    );

    // The recipe as resolved reads back to the same document.
    let text = fs::read_to_string(run.join("recipe.yaml")).unwrap();
    let around = Surroundings { current_dir: Path::new("/"), home: None, variable: &|_| None };
    let again = schema().read(&run.join("recipe.yaml"), &[], &around).unwrap();
    assert_eq!(again.to_yaml().lines().count(), text.lines().count());
    let third = schema().parse(&again.to_yaml(), &run.join("r.yaml"), &[], &around).unwrap();
    assert!(third.changes(&again).is_empty());
    let given = fixture.document(&overrides);
    let kept = |change: &keys::Change| change.after.is_none() || !is_given(&given, &change.path);
    let changes = given.changes(&again);
    assert!(changes.iter().all(kept), "{changes:?}");

    let manifest = read_json(&run.join("manifest.json"));
    for key in ["version", "model", "model_hash", "tokenizer_hash", "template_hash", "machine"] {
        assert!(!manifest[key].is_null(), "{key}");
    }
    assert_eq!(manifest["date"], "2026-03-01");
    assert_eq!(manifest["data"][0]["rows"], 10);

    let names = all_events(&run);
    let names: Vec<&str> = names.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(names[0], "started");
    let count = |name: &str| names.iter().filter(|&&other| other == name).count();
    assert_eq!((count("step"), count("evaluated"), count("sampled")), (10, 5, 10));
    assert_eq!((count("saved"), count("finished")), (4, 1));
    assert_eq!(names.last(), Some(&"finished"));

    assert_eq!(fixture.checkpoints("run"), ["step-000009", "step-000010"]);
    assert_eq!(summary.adapter, run.join("adapter"));
    for name in [
        "adapter_config.json",
        "adapter_model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "generation_config.json",
        "tunesmith.json",
        "README.md",
    ] {
        assert!(run.join("adapter").join(name).is_file(), "{name}");
    }
    assert!(fs::read_to_string(run.join("report.md")).unwrap().contains("finished"));
    let left: Vec<_> = fs::read_dir(&run)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with('.'))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

fn is_given(document: &keys::Document, path: &str) -> bool {
    keys::Settings::is_given(document, path)
}

#[test]
fn the_adapter_with_the_lowest_validation_loss_is_kept() {
    let fixture = Fixture::with_validation();
    // Rates this high overfit: what is kept back gets worse again.
    let overrides = ["train.learning_rate=0.03", "train.max_steps=24", "train.schedule=constant"];
    let how = How { overrides: &overrides, ..How::default() };
    let summary = fixture.train("run", &how).unwrap();
    let events = fixture.events("run");
    let evaluated = events.iter().filter(|event| event["event"] == "evaluated");
    let losses: Vec<(u64, f64)> = evaluated
        .map(|event| (event["step"].as_u64().unwrap(), event["validation_loss"].as_f64().unwrap()))
        .collect();
    let best = losses.iter().copied().min_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
    assert_eq!((summary.best_step, summary.validation_best), (best.0, Some(best.1)));
    assert_eq!(summary.validation_last, Some(losses.last().unwrap().1));
    assert!(best.0 < 24, "the run was to overfit: {losses:?}");
    assert_eq!(read_json(&fixture.path("run/adapter/tunesmith.json"))["step"], best.0);

    // The kept adapter is the one of that step: a run that ends there has it too.
    let stop = How { overrides: &overrides, ..How::default() };
    fixture.train_until("short", &stop, best.0).unwrap();
    assert_eq!(fixture.adapter_bytes("short"), fixture.adapter_bytes("run"));
}

/// With `late` a step that is validated later is kept where it is not worse beyond noise, and what is held against
/// it survives a stop.
#[test]
fn the_latest_adapter_within_the_noise_of_the_lowest_is_kept() {
    let fixture = Fixture::with_validation();
    let overrides = [
        "train.learning_rate=0.03",
        "train.max_steps=24",
        "train.schedule=constant",
        "train.best=late",
    ];
    let how = How { overrides: &overrides, ..How::default() };
    let summary = fixture.train("run", &how).unwrap();
    let events = fixture.events("run");
    let evaluated = || events.iter().filter(|event| event["event"] == "evaluated");
    let loss = |event: &&Value| event["validation_loss"].as_f64().unwrap();
    let step = |event: &Value| event["step"].as_u64().unwrap();
    let lowest = evaluated().min_by(|a, b| loss(a).total_cmp(&loss(b))).unwrap();
    let kept = evaluated().rfind(|event| event["best"] == true).unwrap();
    assert!(step(kept) >= step(lowest), "{kept} before {lowest}");
    assert_eq!((summary.best_step, summary.validation_best), (step(kept), Some(loss(&kept))));
    assert_eq!(read_json(&fixture.path("run/adapter/tunesmith.json"))["step"], step(kept));

    fixture.train_until("stopped", &how, step(lowest) + 1).unwrap();
    let resumed = How { occupied: Occupied::Resume, ..how };
    let again = fixture.train("stopped", &resumed).unwrap();
    assert_eq!((again.best_step, again.validation_best), (step(kept), Some(loss(&kept))));
    assert_eq!(fixture.adapter_bytes("stopped"), fixture.adapter_bytes("run"));
}

#[test]
fn the_template_for_tools_goes_with_the_adapter() {
    // Each better adapter takes the place of the one before, with all of its files.
    let fixture = Fixture::with_validation();
    let folder = fixture.path("model/additional_chat_templates");
    fs::create_dir(&folder).unwrap();
    let for_tools = format!("{CHATML}{{# with tools #}}");
    fs::write(folder.join("tool_use.jinja"), &for_tools).unwrap();
    fixture.train("run", &How::default()).unwrap();
    let adapter = fixture.path("run/adapter");
    let written = adapter.join("additional_chat_templates/tool_use.jinja");
    assert_eq!(fs::read_to_string(written).unwrap(), for_tools);
    let date = Date::new(2026, 3, 1).unwrap();
    let metadata = fixture.base().metadata_with(Some(&adapter), date).unwrap();
    assert_eq!(metadata.chat_template.unwrap().tool_use().unwrap().source(), for_tools);
}

#[test]
fn odd_files_of_a_tokenizer_are_findings() {
    let fixture = Fixture::new();
    let path = fixture.path("model/tokenizer.json");
    let mut file = read_json(&path);
    file["model"]["dropout"] = 0.5.into();
    write_json(&path, &file);
    let how = How { overrides: &["train.max_steps=1"], ..How::default() };
    let summary = fixture.train("run", &how).unwrap();
    let ids: Vec<&str> = summary.findings.iter().map(|finding| &*finding.id).collect();
    assert!(ids.contains(&"tokenizer-dropout"), "{ids:?}");
}

#[test]
fn the_loss_counts_every_supervised_token_of_the_step_alike() {
    let fixture = Fixture::new();
    let first_loss = |run: &str, overrides: &[&str]| {
        let how = How { overrides, ..How::default() };
        fixture.train(run, &how).unwrap().loss_first.unwrap()
    };
    let whole = first_loss("a", &["train.max_steps=1"]);
    for (run, overrides) in [
        ("b", ["train.max_steps=1", "micro_batch_tokens=16"]),
        ("c", ["train.max_steps=1", "activation_checkpointing=block"]),
    ] {
        let loss = first_loss(run, &overrides);
        assert!((loss - whole).abs() < 1e-6, "{loss} {whole}");
    }
}

#[test]
fn a_shared_system_message_is_computed_once() {
    let mut fixture = Fixture::new();
    let system = "{train: [{path: rows.jsonl, system: be kind and very brief}]}";
    fixture.recipe = fixture.recipe.replace("{train: rows.jsonl}", system);
    let how = How { overrides: &["train.max_steps=2"], ..How::default() };
    let summary = fixture.train("run", &how).unwrap();
    assert!(summary.tokens_computed + 150 < summary.tokens, "{summary:?}");
}

#[test]
fn prefixes_are_repeated_when_told_and_nothing_else_changes() {
    let mut fixture = Fixture::new();
    let system = "{train: [{path: rows.jsonl, system: be kind and very brief}]}";
    fixture.recipe = fixture.recipe.replace("{train: rows.jsonl}", system);
    let run = |name: &str, share: &str| {
        let overrides = ["train.max_steps=2", share];
        fixture.train(name, &How { overrides: &overrides, ..How::default() }).unwrap()
    };
    let shared = run("shared", "share_prefixes=true");
    let repeated = run("repeated", "share_prefixes=false");
    assert_eq!(shared.tokens, repeated.tokens);
    assert!(shared.tokens_computed + 150 < repeated.tokens_computed, "{shared:?} {repeated:?}");
    for (a, b) in fixture.steps("shared").iter().zip(fixture.steps("repeated")) {
        assert!((a[1] - b[1]).abs() < 1e-5 && (a[2] - b[2]).abs() < 1e-4, "{a:?} {b:?}");
    }
}

/// A long beginning is computed anew in each micro-batch, so larger ones are taken where that saves something.
#[test]
fn rows_behind_a_long_beginning_take_larger_micro_batches() {
    let mut fixture = Fixture::new();
    let mut config = read_json(&fixture.path("model/config.json"));
    config["max_position_embeddings"] = 2048.into();
    write_json(&fixture.path("model/config.json"), &config);
    let prompts: Vec<String> = (0..40).map(|number| format!("{number} and {number}?")).collect();
    let rows: Vec<_> = prompts.iter().map(|prompt| (prompt.as_str(), "more")).collect();
    fixture.write_rows("rows.jsonl", &rows);
    let usual = fixture.recipe.clone();
    let run = |fixture: &Fixture, name: &str, share: &str| {
        let overrides = ["train.max_steps=1", "train.batch_size=40", share];
        let how = How { memory_limit: 1 << 30, overrides: &overrides, ..How::default() };
        let summary = fixture.train(name, &how).unwrap();
        let recipe = fs::read_to_string(fixture.path(name).join("recipe.yaml")).unwrap();
        let size = recipe.lines().find_map(|line| line.strip_prefix("micro_batch_tokens: "));
        let size = size.unwrap().split_whitespace().next().unwrap().parse::<usize>().unwrap();
        (size, summary.tokens_computed)
    };
    assert_eq!(run(&fixture, "usual", "share_prefixes=true").0, 1024);
    let words = "be kind and very brief ".repeat(30);
    let system = format!("{{train: [{{path: rows.jsonl, system: {words}}}]}}");
    fixture.recipe = usual.replace("{train: rows.jsonl}", &system);
    let (size, computed) = run(&fixture, "long", "share_prefixes=true");
    assert!(size > 1024, "{size}");
    let (unshared, all) = run(&fixture, "repeated", "share_prefixes=false");
    assert!(all > 2 * computed, "{all} {computed}");
    assert_eq!(unshared, 1024);
}

#[test]
fn an_occupied_output_is_overwritten_only_when_told_and_only_the_run() {
    let fixture = Fixture::new();
    let how = How { overrides: &["train.max_steps=2"], ..How::default() };
    fixture.train("run", &how).unwrap();
    fs::write(fixture.path("run/notes.txt"), "mine").unwrap();
    let before = fixture.events("run");
    let error = fixture.train("run", &how).unwrap_err();
    assert!(error.to_string().ends_with("already holds a run"), "{error}");
    let hint = error.hint().unwrap();
    for way in ["--resume", "--overwrite", "output="] {
        assert!(hint.contains(way), "{hint}");
    }
    assert_eq!(fixture.events("run"), before);
    let how =
        How { occupied: Occupied::Overwrite, overrides: &["train.max_steps=1"], ..How::default() };
    fixture.train("run", &how).unwrap();
    assert_eq!(fixture.steps("run").len(), 1);
    assert_eq!(fs::read_to_string(fixture.path("run/notes.txt")).unwrap(), "mine");
}

/// What is odd about the files of a model is said before the first step.
#[test]
fn remarks_on_the_files_are_findings() {
    let fixture = Fixture::new();
    let index = r#"{"weight_map": {"model.norm.weight": "model-00001-of-00002.safetensors"}}"#;
    fs::write(fixture.path("model/model.safetensors.index.json"), index).unwrap();
    let mut found = Vec::new();
    let mut watch = |event: &Event| {
        if let Event::Finding { id, level, hint, .. } = event {
            found.push((id.clone(), level.clone(), hint.clone()));
        }
    };
    let how = How { overrides: &["train.max_steps=1"], ..How::default() };
    fixture.watch("run", &how, &mut watch, &mut |_| Control::Continue).unwrap();
    let (_, level, hint) = found.iter().find(|(id, ..)| id == "stale-index").unwrap();
    assert_eq!(level, "warning");
    assert!(hint.contains("the first is used"), "{hint}");
}
