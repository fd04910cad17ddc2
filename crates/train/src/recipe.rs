//! The recipe as a whole: every key, and what a run reads out of them.

mod defaults;

use std::path::{Path, PathBuf};

use data::{Extent, StepSize};
use keys::{Document, Key, Kind, Resume, Schema, Settings as _};
use model::adapter::LoraKind;
use model::{Config, LoraConfig, Module};

use crate::schedule::{Schedule, ScheduleKind};
use crate::{Error, Result};

pub use defaults::fill_by_data;

/// What is asked for first: the model, the method, the adapter.
const KEYS: &[Key] = &[
    Key::section("model").shorthand("id").doc("Model to start from."),
    Key::path_or_name("model.id")
        .required()
        .doc("Hub id, folder, .gguf file, adapter folder or run folder."),
    Key::text("model.revision").doc("Branch, tag or commit of a hub model."),
    Key::text("model.chat_template")
        .doc("File with a chat template, or the name of one: one of the model's own, or chatml."),
    Key::map("model.template_kwargs").doc("Variables for the chat template."),
    Key::choice("method", &["sft"])
        .later_words(&[
            "pretrain", "dpo", "kto", "orpo", "simpo", "cpo", "reward", "ppo", "grpo", "rloo",
        ])
        .required()
        .doc("What to learn from."),
    Key::section("adapter").shorthand("type").doc("What is trained over the frozen base."),
    Key::choice("adapter.type", &["lora", "rslora"])
        .later_words(&["dora", "pissa", "none"])
        .default("lora")
        .doc("Kind of adapter."),
    Key::int("adapter.rank", 1, 4096).default_by("number of rows").doc("Rank of the matrices."),
    Key::float("adapter.alpha", 0.0, 1e6)
        .above_min()
        .default_by("rank")
        .doc("Strength: scaling is alpha / rank (rslora: alpha / sqrt(rank))."),
    Key::list("adapter.target_modules", &Kind::Text)
        .items(1, 7)
        .or(&["all-linear"])
        .default("all-linear")
        .doc("Linear layers that get an adapter: q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj."),
    Key::float("adapter.dropout", 0.0, 1.0)
        .below_max()
        .default("0.0")
        .doc("Share of the adapters' inputs that is dropped in training."),
    Key::choice("adapter.from", &["continue"])
        .later_words(&["stack"])
        .default_by("model")
        .doc("What happens to an adapter that the model brings along."),
    Key::choice("quantization", &["none"])
        .later_words(&["nf4", "int8"])
        .default("none")
        .doc("How the base is stored; a GGUF base keeps its own blocks."),
];

/// The loop.
const TRAIN_KEYS: &[Key] = &[
    Key::float("train.epochs", 0.0, 1e4)
        .above_min()
        .excludes(&["train.max_steps"])
        .default_by("method")
        .on_resume(Resume::Free)
        .doc("Passes over the training rows."),
    Key::int("train.max_steps", 1, 1 << 40)
        .on_resume(Resume::Free)
        .unit("steps")
        .doc("Optimizer steps, in place of epochs."),
    Key::int("train.batch_size", 1, 1 << 20)
        .excludes(&["train.tokens_per_step"])
        .default_by("method and number of rows")
        .unit("rows")
        .doc("Rows in an optimizer step."),
    Key::int("train.tokens_per_step", 1, 1 << 30)
        .unit("tokens")
        .doc("Tokens in an optimizer step, as rendered, in place of rows."),
    Key::float("train.learning_rate", 0.0, 1.0)
        .above_min()
        .default_by("method and adapter")
        .on_resume(Resume::WithNote)
        .doc("Largest learning rate."),
    Key::section("train.schedule").shorthand("type").doc("How the rate goes."),
    Key::choice("train.schedule.type", &["cosine", "linear", "constant"])
        .default("cosine")
        .on_resume(Resume::WithNote)
        .doc("Shape after warm-up."),
    Key::float("train.schedule.warmup_ratio", 0.0, 1.0)
        .default("0.03")
        .on_resume(Resume::WithNote)
        .doc("Share of the steps in which the rate rises."),
    Key::int("train.schedule.warmup_steps", 0, 1 << 40)
        .excludes(&["train.schedule.warmup_ratio"])
        .on_resume(Resume::WithNote)
        .unit("steps")
        .doc("Steps in which the rate rises, in place of a share."),
    Key::float("train.schedule.min_ratio", 0.0, 1.0)
        .default("0.0")
        .on_resume(Resume::WithNote)
        .doc("The rate at the end, as a share of the largest."),
    Key::section("train.optimizer").shorthand("type").doc("How gradients become updates."),
    Key::choice("train.optimizer.type", &["adamw"])
        .later_words(&["adamw8bit", "lion", "adafactor", "muon", "sgd"])
        .default("adamw")
        .doc("Kind of optimizer."),
    Key::float("train.optimizer.weight_decay", 0.0, 10.0)
        .default("0.0")
        .doc("Decoupled weight decay."),
    Key::list(
        "train.optimizer.betas",
        &Kind::Float { min: 0.0, max: 1.0, open_min: false, open_max: true },
    )
    .items(2, 2)
    .default("[0.9, 0.999]")
    .doc("Decay of the moments."),
    Key::float("train.optimizer.eps", 0.0, 1.0)
        .above_min()
        .default("1e-8")
        .doc("Added to the root of the second moment."),
    Key::float("train.max_grad_norm", 0.0, 1e9)
        .above_min()
        .or(&["none"])
        .default("1.0")
        .doc("Longer gradients are shortened to this norm."),
    Key::section("train.evaluate_every")
        .shorthand("steps")
        .doc("How often the validation loss is taken."),
    Key::int("train.evaluate_every.steps", 1, 1 << 40)
        .excludes(&["train.evaluate_every.tokens", "train.evaluate_every.minutes"])
        .default_by("number of steps")
        .on_resume(Resume::Free)
        .unit("steps")
        .doc("After so many steps."),
    Key::int("train.evaluate_every.tokens", 1, 1 << 50)
        .excludes(&["train.evaluate_every.minutes"])
        .on_resume(Resume::Free)
        .unit("tokens")
        .doc("After so many tokens."),
    Key::float("train.evaluate_every.minutes", 0.0, 1e6)
        .above_min()
        .on_resume(Resume::Free)
        .unit("minutes")
        .doc("After so many minutes; where they fall differs from run to run."),
    Key::section("train.save").shorthand("minutes").doc("How often a checkpoint is written."),
    Key::float("train.save.minutes", 0.0, 1e6)
        .above_min()
        .default("10")
        .on_resume(Resume::Free)
        .unit("minutes")
        .doc("After so many minutes."),
    Key::int("train.save.steps", 1, 1 << 40)
        .excludes(&["train.save.minutes"])
        .on_resume(Resume::Free)
        .unit("steps")
        .doc("After so many steps."),
    Key::int("train.save.keep", 1, 1000)
        .default("2")
        .on_resume(Resume::Free)
        .doc("How many checkpoints stay."),
    Key::section("train.sample")
        .doc("Prompts that are answered whenever the validation loss is taken."),
    Key::list("train.sample.prompts", &Kind::Text)
        .default("[]")
        .on_resume(Resume::Free)
        .doc("User messages."),
    Key::text("train.sample.system")
        .on_resume(Resume::Free)
        .doc("System message before each of them."),
    Key::int("train.sample.max_new_tokens", 1, 1 << 20)
        .default("128")
        .on_resume(Resume::Free)
        .unit("tokens")
        .doc("Longest answer."),
    Key::float("train.neftune_noise_alpha", 0.0, 1e3)
        .later("")
        .doc("Strength of noise on the embeddings while training."),
    Key::any("train.layers").later("").doc("Layers to train."),
];

/// What stands at the end of a recipe.
const LAST_KEYS: &[Key] = &[
    Key::any("evaluate")
        .later("`tunesmith quickstart` shows an evaluation; tasks come with `eval`")
        .doc("Tasks to measure the model on."),
    Key::any("objective")
        .later("its keys belong to preference and RL methods")
        .doc("Loss of a preference or RL method."),
    Key::any("reference")
        .later("it belongs to preference and RL methods")
        .doc("What a preference or RL method compares with."),
    Key::any("rollout").later("it belongs to RL methods").doc("How completions are sampled."),
    Key::any("rewards").later("they belong to RL methods").doc("How completions are scored."),
    Key::any("stop_on").later("").doc("Findings that end a run."),
    Key::any("log")
        .later("events.jsonl in the run folder holds everything")
        .doc("Further readers of the events."),
    Key::any("tokenizer").later("").doc("Tokens to add."),
    Key::path("output").on_resume(Resume::Free).doc("Run folder; without it runs/<recipe>-NNN."),
    Key::int("seed", 0, i64::MAX).default("1").doc("Of everything random."),
    Key::choice("device", &["auto", "cpu"])
        .later_words(&["cuda"])
        .default("auto")
        .on_resume(Resume::Free)
        .doc("Where to compute."),
    Key::int("micro_batch_tokens", 16, 1 << 30)
        .or(&["auto"])
        .default("auto")
        .unit("tokens")
        .doc("Most tokens computed at a time; changes memory, not the result beyond rounding."),
    Key::choice("precision", &["auto", "bf16", "f32"])
        .default("auto")
        .doc("Type that matrix products multiply in; auto is bf16."),
    Key::choice("activation_checkpointing", &["auto", "none", "block"])
        .default("auto")
        .doc("Keep only the stream between layers and compute the rest twice; changes no bit."),
];

/// All keys of a recipe.
pub fn schema() -> Schema {
    Schema::new(&[KEYS, data::recipe::KEYS, TRAIN_KEYS, LAST_KEYS])
}

/// How often something is done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Every {
    /// After so many steps.
    Steps(u64),
    /// After so many tokens, as rendered.
    Tokens(u64),
    /// After so many minutes.
    Minutes(f64),
}

/// Answers to fixed prompts while training.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SampleConfig {
    /// User messages.
    pub prompts: Vec<String>,
    /// System message before each of them.
    pub system: Option<String>,
    /// Longest answer, in tokens.
    pub max_new_tokens: usize,
}

/// A resolved recipe, read out of its document.
#[derive(Clone, Debug, PartialEq)]
pub struct Recipe {
    /// Kind of adapter.
    pub adapter_kind: LoraKind,
    /// Its rank.
    pub rank: usize,
    /// Its alpha.
    pub alpha: f32,
    /// Its dropout.
    pub dropout: f32,
    /// What it covers.
    pub target_modules: Vec<Module>,
    /// Rows or tokens of a step.
    pub step_size: StepSize,
    /// When the run ends.
    pub extent: Extent,
    /// Largest learning rate.
    pub learning_rate: f64,
    /// Decay of AdamW's moments.
    pub betas: [f32; 2],
    /// AdamW's eps.
    pub eps: f32,
    /// Decoupled weight decay.
    pub weight_decay: f32,
    /// Longest gradient.
    pub max_grad_norm: Option<f64>,
    /// How often the validation loss is taken.
    pub evaluate_every: Every,
    /// How often a checkpoint is written.
    pub save_every: Every,
    /// How many checkpoints stay.
    pub keep: usize,
    /// Fixed prompts.
    pub sample: SampleConfig,
    /// Seed of everything random.
    pub seed: u64,
    schedule: (ScheduleKind, Warmup, f64),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Warmup {
    Steps(u64),
    Ratio(f64),
}

impl Recipe {
    /// Reads a document whose open keys [`fill_by_data`] has filled.
    pub fn read(document: &Document) -> Result<Self> {
        let adapter_kind = match document.get_str("adapter.type") {
            "rslora" => LoraKind::RsLora,
            _ => LoraKind::Lora,
        };
        let step_size = match document.opt_usize("train.tokens_per_step") {
            Some(tokens) => StepSize::Tokens(tokens),
            None => StepSize::Rows(document.get_usize("train.batch_size")),
        };
        let extent = match document.opt_usize("train.max_steps") {
            Some(steps) => Extent::Steps(steps as u64),
            None => Extent::Epochs(document.get_f64("train.epochs")),
        };
        let every = |section: &str, fallback: Every| {
            let key = |name: &str| format!("{section}.{name}");
            let steps = document.opt_usize(&key("steps")).map(|n| Every::Steps(n as u64));
            let tokens = document.opt_usize(&key("tokens")).map(|n| Every::Tokens(n as u64));
            let minutes = document.opt_f64(&key("minutes")).map(Every::Minutes);
            steps.or(tokens).or(minutes).unwrap_or(fallback)
        };
        let kind = match document.get_str("train.schedule.type") {
            "linear" => ScheduleKind::Linear,
            "constant" => ScheduleKind::Constant,
            _ => ScheduleKind::Cosine,
        };
        let warmup = match document.opt_usize("train.schedule.warmup_steps") {
            Some(steps) => Warmup::Steps(steps as u64),
            None => Warmup::Ratio(document.get_f64("train.schedule.warmup_ratio")),
        };
        let betas = document.opt_f64s("train.optimizer.betas").unwrap_or_default();
        Ok(Recipe {
            adapter_kind,
            rank: document.get_usize("adapter.rank"),
            alpha: document.get_f64("adapter.alpha") as f32,
            dropout: document.get_f64("adapter.dropout") as f32,
            target_modules: target_modules(document)?,
            step_size,
            extent,
            learning_rate: document.get_f64("train.learning_rate"),
            betas: [betas[0] as f32, betas[1] as f32],
            eps: document.get_f64("train.optimizer.eps") as f32,
            weight_decay: document.get_f64("train.optimizer.weight_decay") as f32,
            max_grad_norm: document.opt_f64("train.max_grad_norm"),
            evaluate_every: every("train.evaluate_every", Every::Steps(50)),
            save_every: every("train.save", Every::Minutes(10.0)),
            keep: document.get_usize("train.save.keep"),
            sample: SampleConfig {
                prompts: document
                    .opt_strs("train.sample.prompts")
                    .unwrap_or_default()
                    .into_iter()
                    .map(str::to_owned)
                    .collect(),
                system: document.opt_str("train.sample.system").map(str::to_owned),
                max_new_tokens: document.get_usize("train.sample.max_new_tokens"),
            },
            seed: document.get_i64("seed") as u64,
            schedule: (kind, warmup, document.get_f64("train.schedule.min_ratio")),
        })
    }

    /// The learning rate's course over a run of `total_steps`.
    pub fn schedule(&self, total_steps: u64) -> Schedule {
        let (kind, warmup, min_ratio) = self.schedule;
        let warmup_steps = match warmup {
            Warmup::Steps(steps) => steps,
            Warmup::Ratio(ratio) => (ratio * total_steps as f64).ceil() as u64,
        };
        Schedule { kind, warmup_steps, total_steps, min_ratio }
    }

    /// The adapter that the recipe asks for.
    pub fn lora(&self, model: &Config) -> LoraConfig {
        let (kind, modules) = (self.adapter_kind, &self.target_modules);
        LoraConfig::uniform(model, kind, self.rank, self.alpha, self.dropout, modules)
    }
}

fn target_modules(document: &Document) -> Result<Vec<Module>> {
    let key = "adapter.target_modules";
    if document.is_word(key, "all-linear") {
        return Ok(Module::ALL.to_vec());
    }
    let names = document.opt_strs(key).unwrap_or_default();
    let mut modules = Vec::with_capacity(names.len());
    for name in names {
        let Some(module) = Module::from_name(name) else {
            let known: Vec<_> = Module::ALL.iter().map(|module| module.name()).collect();
            let message = format!("`{name}` is no linear layer of the model");
            let hint = format!("there are {}, or all-linear", known.join(", "));
            return Err(Error::Recipe(document.problem(key, message, Some(hint)).into()));
        };
        modules.push(module);
    }
    modules.sort_unstable();
    modules.dedup();
    Ok(modules)
}

/// `runs/<stem of the recipe>`, the number still to come.
pub fn run_stem(recipe: &Path) -> (PathBuf, String) {
    let stem = recipe.file_stem().map_or("run".into(), |stem| stem.to_string_lossy().into_owned());
    (PathBuf::from("runs"), stem)
}
