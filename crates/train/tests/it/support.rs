//! What the tests share: goldens, and a small model with rows to teach it.

use std::fs;
use std::path::{Path, PathBuf};

use compute::Backend;
use compute::cpu::{Cpu, CpuConfig, Precision};
use keys::{Document, Surroundings};
use model::Base;
use serde_json::{Map, Value, json};
use tempfile::TempDir;
use text::Date;
use train::Result;
use train::events::Event;
use train::run::{Occupied, RunFolder};
use train::trainer::{Control, DataAccess, Job, Summary, TeacherModel, no_reward_sources, train};

/// A golden of this crate.
pub(crate) fn golden_json(name: &str) -> Value {
    read_json(&Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden")).join(name))
}

/// A file or folder among the goldens of the model crate.
pub(crate) fn model_golden(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../model/tests/golden")).join(name)
}

/// A golden of the model crate.
pub(crate) fn model_golden_json(name: &str) -> Value {
    read_json(&model_golden(name))
}

/// A JSON file.
pub(crate) fn read_json(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    serde_json::from_str(&text).unwrap()
}

/// The numbers of a JSON list.
pub(crate) fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect()
}

/// The tokens of a JSON list.
pub(crate) fn tokens(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as u32).collect()
}

/// The template of ChatML.
pub(crate) const CHATML: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n\
    {{ m.content }}<|im_end|>\n{% endfor %}\
    {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

const SPECIAL: [&str; 5] = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"];

/// What the model is taught: questions and answers of different lengths.
pub(crate) const ROWS: [(&str, &str); 10] = [
    ("2+2?", "4"),
    ("sky?", "blue"),
    ("capital of Peru?", "Lima"),
    ("say hi", "hi there"),
    ("a or b?", "b"),
    ("3*3?", "9"),
    ("red fruit?", "cherry"),
    ("day after Monday?", "Tuesday"),
    ("bye", "see you"),
    ("10-3?", "7"),
];

const RECIPE: &str = "\
model: ./model
method: sft
adapter: {rank: 4}
data: {train: rows.jsonl}
train:
  max_steps: 10
  batch_size: 4
  learning_rate: 1e-2
  save: {steps: 3}
precision: f32
seed: 7
";

/// A folder with a model, rows and room for runs.
pub(crate) struct Fixture {
    dir: PathBuf,
    /// Removes the folder in the end; none where another process does.
    _owner: Option<TempDir>,
    /// The recipe, in which paths are relative to the folder.
    pub(crate) recipe: String,
}

/// How a run is carried out.
pub(crate) struct How<'a> {
    pub(crate) occupied: Occupied,
    pub(crate) overrides: &'a [&'a str],
    pub(crate) threads: usize,
    pub(crate) memory_limit: usize,
    pub(crate) precision: Precision,
    /// An adapter that the model brings.
    pub(crate) start: Option<PathBuf>,
    /// The base's revision on the hub.
    pub(crate) revision: Option<String>,
    /// What is distilled from.
    pub(crate) teacher: Option<TeacherModel>,
}

impl Default for How<'_> {
    fn default() -> Self {
        How {
            occupied: Occupied::Refuse,
            overrides: &[],
            threads: 1,
            memory_limit: 1 << 30,
            precision: Precision::F32,
            start: None,
            revision: None,
            teacher: None,
        }
    }
}

impl How<'_> {
    pub(crate) fn resumed() -> Self {
        How { occupied: Occupied::Resume, ..How::default() }
    }
}

impl Fixture {
    /// The small random Llama with grouped queries, a tokenizer of characters, ChatML, ten rows, and
    /// a recipe of ten steps.
    pub(crate) fn new() -> Self {
        let owner = tempfile::tempdir().unwrap();
        let fixture = Fixture { _owner: None, ..Fixture::at(owner.path()) };
        let model = fixture.path("model");
        fs::create_dir(&model).unwrap();
        let golden = model_golden("tiny_llama/gqa");
        fs::copy(golden.join("model.safetensors"), model.join("model.safetensors")).unwrap();
        let mut config = read_json(&golden.join("config.json"));
        config["max_position_embeddings"] = 128.into();
        let end = SPECIAL.iter().position(|token| *token == "<|im_end|>").unwrap();
        config["eos_token_id"] = end.into();
        write_json(&model.join("config.json"), &config);
        write_json(&model.join("generation_config.json"), &json!({"eos_token_id": [end]}));
        write_json(&model.join("tokenizer.json"), &tokenizer_json());
        let special = json!({"bos_token": "<s>", "eos_token": "<|im_end|>"});
        write_json(&model.join("tokenizer_config.json"), &special);
        fs::write(model.join("chat_template.jinja"), CHATML).unwrap();
        fixture.write_rows("rows.jsonl", &ROWS);
        Fixture { _owner: Some(owner), ..fixture }
    }

    /// The same with another recipe, in which each of `changes` takes the place of what is there.
    pub(crate) fn of(recipe: &str, changes: &[(&str, &str)]) -> Self {
        let mut fixture = Fixture { recipe: recipe.to_owned(), ..Fixture::new() };
        for (from, to) in changes {
            assert!(fixture.recipe.contains(from), "{from}");
            fixture.recipe = fixture.recipe.replace(from, to);
        }
        fixture
    }

    /// A fixture whose folder another one made.
    pub(crate) fn at(dir: &Path) -> Self {
        Fixture { dir: dir.into(), _owner: None, recipe: RECIPE.into() }
    }

    /// The same with one row in five kept back, and a validation after every second step.
    pub(crate) fn with_validation() -> Self {
        let mut fixture = Fixture::new();
        let validated = "{train: rows.jsonl, validation: {fraction: 0.2}}";
        fixture.recipe = fixture.recipe.replace("{train: rows.jsonl}", validated);
        let often = "save: {steps: 3}\n  evaluate_every: 2";
        fixture.recipe = fixture.recipe.replace("save: {steps: 3}", often);
        fixture
    }

    /// A path in the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub(crate) fn write_rows(&self, name: &str, rows: &[(&str, &str)]) {
        let line = |(prompt, completion): &(&str, &str)| {
            json!({"prompt": prompt, "completion": completion}).to_string() + "\n"
        };
        fs::write(self.path(name), rows.iter().map(line).collect::<String>()).unwrap();
    }

    /// The recipe with overrides.
    pub(crate) fn document(&self, overrides: &[&str]) -> Document {
        self.try_document(overrides).unwrap_or_else(|error| panic!("{error}"))
    }

    pub(crate) fn try_document(
        &self,
        overrides: &[&str],
    ) -> std::result::Result<Document, keys::Error> {
        let around = Surroundings { current_dir: &self.dir, home: None, variable: &|_| None };
        let overrides: Vec<String> = overrides.iter().map(|&text| text.to_owned()).collect();
        let path = self.path("recipe.yaml");
        train::recipe::schema().parse(&self.recipe, &path, &overrides, &around)
    }

    pub(crate) fn base(&self) -> Base {
        Base::open(&self.path("model")).unwrap()
    }

    /// Trains to the end.
    pub(crate) fn train(&self, run: &str, how: &How<'_>) -> Result<Summary> {
        self.watch(run, how, &mut |_| {}, &mut |_| Control::Continue)
    }

    /// Trains up to the end of a step.
    pub(crate) fn train_until(&self, run: &str, how: &How<'_>, last: u64) -> Result<Summary> {
        let until = |step| if step == last { Control::Stop } else { Control::Continue };
        self.watch(run, how, &mut |_| {}, &mut { until })
    }

    /// Trains. `control` is asked with the number of the step.
    pub(crate) fn watch(
        &self,
        run: &str,
        how: &How<'_>,
        observer: &mut dyn FnMut(&Event),
        control: &mut dyn FnMut(u64) -> Control,
    ) -> Result<Summary> {
        let mut backend = cpu(how.threads, how.precision);
        self.watch_on(&mut backend, run, how, observer, control)
    }

    pub(crate) fn watch_on(
        &self,
        backend: &mut dyn Backend,
        run: &str,
        how: &How<'_>,
        observer: &mut dyn FnMut(&Event),
        control: &mut dyn FnMut(u64) -> Control,
    ) -> Result<Summary> {
        let folder = RunFolder::claim(&self.path(run), how.occupied)?;
        let step = std::cell::Cell::new(0);
        let mut watch = |event: &Event| {
            if let Event::Step(event) = event {
                step.set(event.step);
            }
            observer(event);
        };
        train(self.job(how), folder, backend, &mut watch, &mut || control(step.get()))
    }

    /// What a run is asked to do.
    pub(crate) fn job(&self, how: &How<'_>) -> Job<'static> {
        Job {
            document: self.document(how.overrides),
            base: self.base(),
            start: how.start.clone(),
            base_name: "org/tiny".into(),
            revision: how.revision.clone(),
            memory_limit: how.memory_limit,
            resident_bytes: || 0,
            date: Date::new(2026, 3, 1).unwrap(),
            threads: how.threads,
            data: DataAccess::default(),
            reward_sources: no_reward_sources(),
            teacher: how.teacher.clone(),
        }
    }

    /// The weights of a run's adapter, as they lie on disk.
    pub(crate) fn adapter_bytes(&self, run: &str) -> Vec<u8> {
        fs::read(self.path(run).join("adapter/adapter_model.safetensors")).unwrap()
    }

    /// The events of a run that are not superseded.
    pub(crate) fn events(&self, run: &str) -> Vec<Value> {
        let events = all_events(&self.path(run));
        events.into_iter().filter(|event| event["superseded"] != true).collect()
    }

    /// Step, loss, norm and rate of all steps that are not superseded.
    pub(crate) fn steps(&self, run: &str) -> Vec<[f64; 4]> {
        let events = self.events(run);
        let number = |event: &Value, key: &str| event[key].as_f64().unwrap();
        let row = |event: &Value| {
            ["step", "loss", "grad_norm", "learning_rate"].map(|key| number(event, key))
        };
        events.iter().filter(|event| event["event"] == "step").map(row).collect()
    }

    /// Names in the folder of checkpoints, sorted.
    pub(crate) fn checkpoints(&self, run: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(run).join("checkpoints")).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Copies a run as it lies on disk now.
    pub(crate) fn copy_run(&self, from: &str, to: &str) {
        copy_tree(&self.path(from), &self.path(to));
    }
}

/// Figures of steps and validations that do not depend on the clock.
pub(crate) fn figures(fixture: &Fixture, run: &str) -> Vec<Value> {
    let events = fixture.events(run).into_iter();
    let figures = events.filter(|event| event["event"] == "step" || event["event"] == "evaluated");
    let without_time = |mut event: Value| {
        event.as_object_mut().unwrap().remove("seconds");
        event
    };
    figures.map(without_time).collect()
}

#[track_caller]
pub(crate) fn check_same(fixture: &Fixture, run: &str, whole: &str) {
    assert_eq!(figures(fixture, run), figures(fixture, whole), "{run}");
    assert!(fixture.adapter_bytes(run) == fixture.adapter_bytes(whole), "{run}: another adapter");
}

/// All lines of `events.jsonl`.
pub(crate) fn all_events(run: &Path) -> Vec<Value> {
    let text = fs::read_to_string(run.join("events.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A CPU backend without memory yet.
pub(crate) fn cpu(threads: usize, precision: Precision) -> Cpu {
    Cpu::new(CpuConfig { threads, isa: None, precision }).unwrap()
}

pub(crate) fn write_json(path: &Path, value: &Value) {
    fs::write(path, value.to_string()).unwrap();
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// A tokenizer of printable ASCII, space and newline, and special tokens: 101 tokens.
fn tokenizer_json() -> Value {
    let mut vocab = Map::new();
    // How byte-level tokenizers write newline and space.
    let letters = ['Ċ', 'Ġ'].into_iter().chain('!'..='~').map(String::from);
    for (id, token) in SPECIAL.iter().map(ToString::to_string).chain(letters).enumerate() {
        vocab.insert(token, id.into());
    }
    let added = SPECIAL.iter().enumerate().map(|(id, content)| {
        json!({"id": id, "content": content, "special": true, "single_word": false,
               "lstrip": false, "rstrip": false, "normalized": false})
    });
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false,
                            "trim_offsets": false, "use_regex": false});
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": added.collect::<Vec<_>>(), "normalizer": null,
        "pre_tokenizer": byte_level, "post_processor": null, "decoder": byte_level,
        "model": {"type": "BPE", "dropout": null, "unk_token": null,
                  "continuing_subword_prefix": null, "end_of_word_suffix": null,
                  "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
                  "vocab": vocab, "merges": []},
    })
}
