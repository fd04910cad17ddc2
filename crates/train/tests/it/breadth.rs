//! Resumed equals uninterrupted for everything that can be trained, with every optimizer.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use train::events::Event;
use train::trainer::Control;

use crate::support::{Fixture, How, read_json};

/// A run of ten steps that is validated every second and saved every third one.
struct Case {
    fixture: Fixture,
    overrides: Vec<String>,
    start: Option<PathBuf>,
}

impl Case {
    fn new(overrides: &[&str]) -> Self {
        Case {
            fixture: Fixture::with_validation(),
            overrides: overrides.iter().map(|&text| text.to_owned()).collect(),
            start: None,
        }
    }

    /// Over an adapter that another run made.
    fn over_adapter(overrides: &[&str]) -> Self {
        let mut case = Case::new(overrides);
        let how = How { overrides: &["train.max_steps=3", "adapter.rank=2"], ..How::default() };
        case.start = Some(case.fixture.train("first", &how).unwrap().adapter);
        case.fixture.recipe = case.fixture.recipe.replace("adapter: {rank: 4}\n", "");
        case
    }

    /// Carries a run out, up to the end of `last`, with the moments at which it is copied.
    fn run(&self, run: &str, how: How<'_>, last: u64, copies: &[(&str, u64)]) {
        let overrides: Vec<&str> = self.overrides.iter().map(String::as_str).collect();
        let overrides = [&overrides[..], how.overrides].concat();
        let how = How { overrides: &overrides, start: self.start.clone(), ..how };
        let mut copy = |event: &Event| {
            for (name, at) in copies {
                let is_it = match event {
                    Event::Step(event) => *name == "step" && event.step == *at,
                    Event::Evaluated { step, .. } => *name == "evaluated" && step == at,
                    _ => false,
                };
                if is_it {
                    self.fixture.copy_run(run, &format!("{name}-{at}"));
                }
            }
        };
        let control = &mut |step| if step == last { Control::Stop } else { Control::Continue };
        let done = self.fixture.watch(run, &how, &mut copy, control);
        done.unwrap_or_else(|error| panic!("{run}, {overrides:?}: {error}"));
    }

    #[track_caller]
    fn check_same(&self, run: &str) {
        let context = format!("{run}, {:?}", self.overrides);
        assert_eq!(self.fixture.steps(run), self.fixture.steps("whole"), "{context}");
        let [ours, theirs] = [run, "whole"].map(|run| self.files(run));
        assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>(), "{context}");
        for (name, bytes) in ours {
            assert!(bytes == theirs[&name], "{context}: another {name}");
        }
    }

    /// What the run leaves for others, and its last checkpoint.
    fn files(&self, run: &str) -> BTreeMap<String, Vec<u8>> {
        let dir = self.fixture.path(run);
        let mut files = BTreeMap::new();
        read_tree(&dir, &self.output(run), &mut files);
        let last = self.fixture.checkpoints(run).pop().unwrap();
        read_tree(&dir, &dir.join("checkpoints").join(last), &mut files);
        // How long the steps took, where values of the recipe come from, where the run lies, and the
        // checksums of these.
        let own = ["state.json", "recipe.yaml", "manifest.json", "checksums.json"];
        files.retain(|name, _| !own.iter().any(|own| name.ends_with(own)));
        assert!(files.len() > 10, "{files:?}", files = files.keys());
        files
    }

    fn output(&self, run: &str) -> PathBuf {
        let is_whole = self.overrides.iter().any(|text| text == "adapter.type=none");
        self.fixture.path(run).join(if is_whole { "model" } else { "adapter" })
    }

    /// Killed in the middle of a checkpoint, and behind one with a better result since, it ends the same.
    fn check(&self) {
        let copies = [("step", 5), ("evaluated", 8)];
        self.run("whole", How { threads: 2, ..How::default() }, 0, &copies);
        let half = self.fixture.path("step-5/checkpoints/.step-000006.partial");
        fs::create_dir_all(&half).unwrap();
        fs::write(half.join("state.json"), "{").unwrap();
        for (run, threads) in [("step-5", 1), ("evaluated-8", 3)] {
            self.run(run, How { threads, ..How::resumed() }, 0, &[]);
            self.check_same(run);
        }
    }
}

fn read_tree(root: &Path, dir: &Path, files: &mut BTreeMap<String, Vec<u8>>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_tree(root, &path, files);
        } else {
            let name = path.strip_prefix(root).unwrap().display().to_string();
            files.insert(name, fs::read(&path).unwrap());
        }
    }
}

/// An adapter whose matrices are large enough for 8-bit moments, and a whole model.
fn check_optimizer(kind: &str) {
    let optimizer = format!("train.optimizer.type={kind}");
    let decay = "train.optimizer.weight_decay=0.05";
    Case::new(&[&optimizer, decay, "adapter.rank=64", "adapter.loraplus_lr_ratio=4"]).check();
    whole(&[&optimizer, decay]).check();
}

/// A case that trains the model itself.
fn whole(overrides: &[&str]) -> Case {
    let all = [&["adapter.type=none", "train.learning_rate=1e-3"], overrides].concat();
    let mut case = Case::new(&all);
    case.fixture.recipe = case.fixture.recipe.replace("adapter: {rank: 4}\n", "");
    case
}

#[test]
fn adamw() {
    check_optimizer("adamw");
}

#[test]
fn adamw8bit() {
    check_optimizer("adamw8bit");
}

#[test]
fn lion() {
    check_optimizer("lion");
}

#[test]
fn adafactor() {
    check_optimizer("adafactor");
}

#[test]
fn muon() {
    check_optimizer("muon");
}

#[test]
fn sgd() {
    check_optimizer("sgd");
}

#[test]
fn dora() {
    Case::new(&["adapter.type=dora", "adapter.dropout=0.1"]).check();
}

#[test]
fn pissa() {
    Case::new(&["adapter.type=pissa"]).check();
    Case::new(&["adapter.type=pissa", "quantization=nf4", "adapter.rank=2"]).check();
    let beside = ["adapter.trainable_tokens=[e]", "adapter.modules_to_save=[model.norm]"];
    Case::new(&[&["adapter.type=pissa"], &beside[..]].concat()).check();
}

#[test]
fn rslora_with_patterns() {
    let patterns = ["adapter.rank_pattern={q_proj: 2}", "adapter.alpha_pattern={down_proj: 3}"];
    Case::new(&[&["adapter.type=rslora"], &patterns[..]].concat()).check();
}

#[test]
fn over_a_quantised_base() {
    Case::new(&["quantization=nf4"]).check();
    Case::new(&["quantization=int8", "adapter.type=dora"]).check();
}

#[test]
fn some_layers() {
    whole(&["train.layers=[last 1]"]).check();
    Case::new(&["train.layers=[0]"]).check();
}

#[test]
fn whole_modules_beside_an_adapter() {
    let rate = "train.embedding_learning_rate=1e-3";
    Case::new(&["adapter.modules_to_save=[lm_head]", rate]).check();
    let modules = "adapter.modules_to_save=[embed_tokens, model.norm]";
    Case::new(&[modules, rate, "quantization=nf4"]).check();
}

/// So many that embedding and head grow: the tokenizer has 101 tokens, the model rows for 128.
fn many_tokens() -> String {
    let tokens: Vec<String> = (0..30).map(|i| format!("\"<{i}>\"")).collect();
    format!("tokenizer.add_tokens=[hi, {}]", tokens.join(", "))
}

#[test]
fn added_tokens() {
    Case::new(&["tokenizer.add_special_tokens=[hi]", "adapter.trainable_tokens=[e]"]).check();
    Case::new(&[&many_tokens()]).check();
    Case::new(&[&many_tokens(), "adapter.modules_to_save=[embed_tokens, lm_head]"]).check();
    whole(&[&many_tokens()]).check();
}

#[test]
fn over_and_on_another_adapter() {
    Case::over_adapter(&["adapter.from=stack", "adapter.rank=3"]).check();
    Case::over_adapter(&["adapter.from=continue", "adapter.dropout=0.1"]).check();
}

/// After a kill the run does not find the best again: that of the checkpoint is put back.
#[track_caller]
fn check_best_restored(case: &Case) {
    let often = ["train.schedule=constant", "train.save.steps=4"];
    let how = How { overrides: &often, ..How::default() };
    case.run("whole", how, 0, &[("evaluated", 8)]);
    let step = |run: &str| read_json(&case.output(run).join("tunesmith.json"))["step"].as_u64();
    assert!(step("evaluated-8") > Some(4), "{:?}", step("evaluated-8"));
    let how = How { overrides: &often, ..How::default() };
    case.run("short", how, 4, &[]);
    let slow = [&often[..], &["train.learning_rate=1e-12"]].concat();
    case.run("evaluated-8", How { overrides: &slow, ..How::resumed() }, 6, &[]);
    assert_eq!(step("evaluated-8"), Some(4));
    for (name, bytes) in case.files("short") {
        if name.contains(".safetensors") && !name.starts_with("checkpoints") {
            let other = fs::read(case.fixture.path("evaluated-8").join(&name)).unwrap();
            assert!(bytes == other, "{name}");
        }
    }
}

#[test]
fn the_best_of_the_checkpoint_is_put_back() {
    check_best_restored(&Case::new(&["adapter.type=dora"]));
    check_best_restored(&whole(&[]));
    check_best_restored(&Case::over_adapter(&["adapter.from=stack"]));
}
