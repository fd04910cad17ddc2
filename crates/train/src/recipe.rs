//! The recipe as a whole: every key, and what a run reads out of them.

mod defaults;
mod distill;
mod pairs;
mod rollout;
mod trained;

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use compute::Quantization;
use data::{Extent, StepSize};
use keys::{Document, Key, Kind, Resume, Schema, Settings as _};

use crate::Result;
use crate::environment;
use crate::method::{METHODS, ONLINE_KEYS};
use crate::models::{REFERENCE_KEYS, Refresh};
use crate::optimizer::OptimizerConfig;
use crate::reward;
use crate::schedule::{Schedule, ScheduleKind};

pub use defaults::{ModelSize, fill_by_data};
pub use distill::DISTILL_KEYS;
pub use pairs::PAIRS_KEYS;
use rollout::ROLLOUT_KEYS;
pub use rollout::{EpisodeBounds, RolloutConfig};
use trained::optimizer;
pub use trained::{check, coverage, layers, quantization, trains_base};

/// The model.
const MODEL_KEYS: &[Key] = &[
    Key::section("model").shorthand("id").doc("Model to start from."),
    Key::path_or_name("model.id")
        .required()
        .doc("Model to train: hub id, folder, .gguf file, adapter folder or run folder."),
    Key::text("model.revision").doc("Branch, tag or commit of a hub model."),
    Key::text("model.chat_template").doc("Chat template: a file, the name of one of the model's templates, or chatml. By default the model's own; rows with tools use its tool_use template if it has one."),
    Key::map("model.template_kwargs").doc("Extra variables for the chat template."),
];

/// Values of `adapter.type` that train an adapter.
const ADAPTERS: &[&str] = &["lora", "rslora", "dora", "pissa"];

/// The adapter.
const ADAPTER_KEYS: &[Key] = &[
    Key::section("adapter").shorthand("type").doc("What is trained over the frozen base."),
    Key::choice("adapter.type", &["lora", "rslora", "dora", "pissa", "none"])
        .default("lora")
        .doc("Kind of adapter. none trains the model's own weights."),
    Key::int("adapter.rank", 1, 4096)
        .when("adapter.type", ADAPTERS).default_by("number of rows").doc("Rank of the adapter matrices."),
    Key::float("adapter.alpha", 0.0, 1e6)
        .when("adapter.type", ADAPTERS)
        .above_min()
        .default_by("rank")
        .doc("Strength of the adapter: scaling is alpha / rank (rslora: alpha / sqrt(rank))."),
    Key::list("adapter.target_modules", &Kind::Text)
        .when("adapter.type", ADAPTERS)
        .items(1, 64)
        .or(&["all-linear"])
        .default("all-linear")
        .doc("Linear layers that get an adapter: q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj (Phi-3: qkv_proj, o_proj, gate_up_proj, down_proj)."),
    Key::map("adapter.rank_pattern")
        .when("adapter.type", ADAPTERS)
        .doc("Ranks of individual modules. A key is a name or regular expression that matches the end of a module's path; its value is the rank."),
    Key::map("adapter.alpha_pattern")
        .when("adapter.type", ADAPTERS).doc("Alphas of individual modules, with keys as in `adapter.rank_pattern`."),
    Key::list("adapter.modules_to_save", &Kind::Text)
        .when("adapter.type", ADAPTERS)
        .default("[]")
        .doc("Modules of the base that are trained whole and saved with the adapter, such as lm_head. If the base ties its head to the embedding, embed_tokens trains and saves both as one matrix; with lm_head beside it they become two."),
    Key::list("adapter.trainable_tokens", &Kind::Text)
        .when("adapter.type", ADAPTERS)
        .or(&["added"])
        .default("[]")
        .doc("Tokens whose embedding and head rows are trained. added means the tokens that `tokenizer` adds."),
    Key::float("adapter.loraplus_lr_ratio", 0.0, 1e4)
        .when("adapter.type", ADAPTERS)
        .above_min()
        .default("1.0")
        .on_resume(Resume::WithNote)
        .doc("LoRA+: learning rate of lora_B divided by that of lora_A."),
    Key::float("adapter.dropout", 0.0, 1.0)
        .when("adapter.type", ADAPTERS)
        .below_max()
        .default("0.0")
        .doc("Dropout probability of the adapter inputs during training."),
    Key::choice("adapter.from", &["continue", "stack"])
        .when("adapter.type", ADAPTERS)
        .default_by("model")
        .doc("If the model is an adapter: continue training it, or freeze it and stack a new one."),
    Key::choice("quantization", &["none", "nf4", "int8"])
        .default("none")
        .doc("Storage of the base's linear layers: nf4 (4 bits, double quantised, as in bitsandbytes) or int8. A GGUF or bitsandbytes base keeps its own blocks."),
];

/// A decay of an optimizer.
const BETA: &Kind = &Kind::Float { min: 0.0, max: 1.0, open_min: false, open_max: true };

/// The loop.
const TRAIN_KEYS: &[Key] = &[
    Key::float("train.epochs", 0.0, 1e4)
        .above_min()
        .excludes(&["train.max_steps"])
        .default_by("method")
        .on_resume(Resume::WithNote)
        .doc("Passes over the training rows."),
    Key::int("train.max_steps", 1, 1 << 40)
        .on_resume(Resume::WithNote)
        .unit("steps")
        .doc("Number of optimizer steps, instead of `train.epochs`."),
    Key::int("train.batch_size", 1, 1 << 20)
        .excludes(&["train.tokens_per_step"])
        .default_by("method and number of rows")
        .unit("rows")
        .doc("Rows per optimizer step. A preference pair counts as one row."),
    Key::int("train.tokens_per_step", 1, 1 << 30)
        .unit("tokens")
        .doc("Tokens per optimizer step, as rendered, instead of `train.batch_size`."),
    Key::float("train.learning_rate", 0.0, 1.0)
        .above_min()
        .default_by("method and what is trained; of an adapter also hidden size")
        .on_resume(Resume::WithNote)
        .doc("Peak learning rate."),
    Key::section("train.schedule").shorthand("type").doc("Learning rate schedule."),
    Key::choice("train.schedule.type", &["cosine", "linear", "constant"])
        .default("cosine")
        .on_resume(Resume::WithNote)
        .doc("Shape of the learning rate after warm-up."),
    Key::float("train.schedule.warmup_ratio", 0.0, 1.0)
        .default("0.03")
        .on_resume(Resume::WithNote)
        .doc("Fraction of the steps used for learning rate warm-up."),
    Key::int("train.schedule.warmup_steps", 0, 1 << 40)
        .excludes(&["train.schedule.warmup_ratio"])
        .on_resume(Resume::WithNote)
        .unit("steps")
        .doc("Number of learning rate warm-up steps, instead of `train.schedule.warmup_ratio`."),
    Key::float("train.schedule.min_ratio", 0.0, 1.0)
        .default("0.0")
        .on_resume(Resume::WithNote)
        .doc("Final learning rate as a fraction of the peak."),
    Key::section("train.optimizer").shorthand("type").doc("Optimizer."),
    Key::choice(
        "train.optimizer.type",
        &["adamw", "adamw8bit", "lion", "adafactor", "muon", "sgd"],
    )
    .default("adamw")
    .doc("Optimizer. muon orthogonalises the update of each matrix (lora_A and lora_B separately) and leaves embeddings, heads, norms and biases to AdamW. adamw8bit keeps the moments of embeddings, and of tensors with fewer than 4096 numbers, in 32 bits. A fused matrix (qkv_proj) is one matrix."),
    Key::float("train.optimizer.weight_decay", 0.0, 10.0)
        .default("0.0")
        .doc("Weight decay of all parameters except norms and biases. It is decoupled, except for sgd, where it is added to the gradient as in torch.optim.SGD."),
    Key::list("train.optimizer.betas", BETA)
        .items(2, 2)
        .when("train.optimizer.type", &["adamw", "adamw8bit", "muon"])
        .default("[0.9, 0.999]")
        .doc("Decay rates of the first and second moments."),
    Key::list("train.optimizer.betas", BETA)
        .items(2, 2)
        .when("train.optimizer.type", &["lion"])
        .default("[0.9, 0.99]")
        .doc("Decay rates of the momentum: for the update, and for the stored momentum."),
    Key::float("train.optimizer.momentum", 0.0, 1.0)
        .below_max()
        .when("train.optimizer.type", &["muon"])
        .default("0.95")
        .doc("Decay rate of the momentum."),
    Key::float("train.optimizer.momentum", 0.0, 1.0)
        .below_max()
        .when("train.optimizer.type", &["sgd"])
        .default("0.9")
        .doc("Decay rate of the momentum."),
    Key::bool("train.optimizer.nesterov")
        .when("train.optimizer.type", &["muon"])
        .default("true")
        .doc("Use Nesterov momentum."),
    Key::bool("train.optimizer.nesterov")
        .when("train.optimizer.type", &["sgd"])
        .default("false")
        .doc("Use Nesterov momentum."),
    Key::float("train.optimizer.eps", 0.0, 1.0)
        .above_min()
        .when("train.optimizer.type", &["adamw", "adamw8bit", "muon"])
        .default("1.0e-8")
        .doc("Constant added to the square root of the second moment."),
    Key::float("train.max_grad_norm", 0.0, 1e9)
        .above_min()
        .or(&["none"])
        .default("1.0")
        .doc("Clip the global gradient norm to this value. none turns clipping off."),
    Key::section("train.evaluate_every")
        .shorthand("steps")
        .doc("How often to validate."),
    Key::int("train.evaluate_every.steps", 1, 1 << 40)
        .excludes(&["train.evaluate_every.tokens", "train.evaluate_every.minutes"])
        .default_by("number of steps")
        .on_resume(Resume::Free)
        .unit("steps")
        .doc("Validate after this many steps."),
    Key::int("train.evaluate_every.tokens", 1, 1 << 50)
        .excludes(&["train.evaluate_every.minutes"])
        .on_resume(Resume::Free)
        .unit("tokens")
        .doc("Validate after this many training tokens."),
    Key::float("train.evaluate_every.minutes", 0.0, 1e6)
        .above_min()
        .on_resume(Resume::Free)
        .unit("minutes")
        .doc("Validate after this many minutes. The steps at which this happens differ from run to run."),
    Key::choice("train.best", &["lowest", "late"])
        .default("lowest")
        .on_resume(Resume::Free)
        .doc("Step that is kept. lowest: the one with the best validation result. late: the latest one whose validation loss is within one standard error of the lowest, for few validation rows."),
    Key::section("train.save").shorthand("minutes").doc("How often to save a checkpoint."),
    Key::float("train.save.minutes", 0.0, 1e6)
        .above_min()
        .default("10")
        .on_resume(Resume::Free)
        .unit("minutes")
        .doc("Save a checkpoint after this many minutes."),
    Key::int("train.save.steps", 1, 1 << 40)
        .excludes(&["train.save.minutes"])
        .on_resume(Resume::Free)
        .unit("steps")
        .doc("Save a checkpoint after this many steps."),
    Key::int("train.save.keep", 1, 1000)
        .default("2")
        .on_resume(Resume::Free)
        .doc("Number of checkpoints to keep."),
    Key::section("train.sample")
        .doc("Prompts that the model answers at every validation."),
    Key::list("train.sample.prompts", &Kind::Text)
        .default("[]")
        .on_resume(Resume::Free)
        .doc("User messages that the model answers at every validation."),
    Key::text("train.sample.system")
        .on_resume(Resume::Free)
        .doc("System message before each sample prompt."),
    Key::int("train.sample.max_new_tokens", 1, 1 << 20)
        .default("128")
        .on_resume(Resume::Free)
        .unit("tokens")
        .doc("Maximum length of a sample answer."),
    Key::float("train.neftune_noise_alpha", 0.0, 1e3)
        .later("")
        .doc("Strength of the NEFTune noise on the embeddings during training."),
    Key::list("train.layers", &Kind::Text)
        .items(1, 4096)
        .doc("Layers to train; the others stay frozen. Takes numbers from 0, ranges such as 8-15, or last 4."),
    Key::float("train.embedding_learning_rate", 0.0, 1.0)
        .above_min()
        .default_by("train.learning_rate")
        .on_resume(Resume::WithNote)
        .doc("Peak learning rate of embeddings, heads and trained tokens."),
];

/// The remaining keys.
const LAST_KEYS: &[Key] = &[
    Key::any("evaluate")
        .later("`tunesmith quickstart` shows an evaluation; tasks come with `eval`")
        .doc("Tasks to measure the model on."),
    Key::section("objective").doc("Loss of a preference or RL method."),
    Key::list("stop_on", &Kind::Text)
        .default("[]")
        .on_resume(Resume::Free)
        .doc("Findings about the run that end it, such as chosen-log-prob-falls; docs/methods/findings.md lists them. A checkpoint is written first."),
    Key::any("log")
        .later("events.jsonl in the run folder holds everything")
        .doc("Further readers of the events."),
    Key::section("tokenizer").doc("Tokens to add to the tokenizer."),
    Key::list("tokenizer.add_tokens", &Kind::Text)
        .default("[]")
        .doc("Texts that become one token each. Their embedding rows start as the mean of the others and are trained."),
    Key::list("tokenizer.add_special_tokens", &Kind::Text)
        .default("[]")
        .doc("Special tokens to add. They are trained like `tokenizer.add_tokens` and left out when text is shown."),
    Key::path("output").on_resume(Resume::Free).doc("Run folder. By default runs/<recipe>-NNN."),
    Key::int("seed", 0, i64::MAX).default("1").doc("Seed for shuffling, splits, dropout and initialisation."),
    Key::choice("device", &["auto", "cpu"])
        .later_words(&["cuda"])
        .default("auto")
        .on_resume(Resume::Free)
        .doc("Device to compute on."),
    Key::int("micro_batch_tokens", 16, 1 << 30)
        .or(&["auto"])
        .default("auto")
        .on_resume(Resume::WithNote)
        .unit("tokens")
        .doc("Maximum number of tokens computed at a time. Changes memory and no bit of the result, unless rows that share a prefix need more than this (at most 1024 tokens behind up to 186 shared ones): then they are split, which changes rounding. auto is 1024; more if rows share long prefixes, less if memory is short."),
    Key::bool("share_prefixes")
        .default("true")
        .on_resume(Resume::WithNote)
        .doc("Compute a prefix that several rows share only once. Changes time and memory, and the result only by rounding. With dropout, these rows share one mask in the prefix."),
    Key::choice("precision", &["auto", "bf16", "f32"])
        .default("auto")
        .doc("Data type of the operands of matrix products. auto is bf16."),
    Key::choice("activation_checkpointing", &["auto", "none", "block"])
        .default("auto")
        .on_resume(Resume::WithNote)
        .doc("Save memory by computing layers twice: block keeps only the residual stream between layers. Changes no bit of the result."),
];

/// `method`, whose words are the names of [`METHODS`].
static METHOD_KEY: LazyLock<[Key; 1]> = LazyLock::new(|| {
    let names: Vec<&str> = METHODS.iter().map(|method| method.name).collect();
    [Key::choice("method", names.leak()).required().doc("Training method: see docs/methods.")]
});

/// All keys of a recipe.
pub fn schema() -> Schema {
    let mut sections = vec![MODEL_KEYS, &*METHOD_KEY, ADAPTER_KEYS];
    sections.extend([data::recipe::KEYS, TRAIN_KEYS, DISTILL_KEYS, PAIRS_KEYS]);
    sections.extend([
        LAST_KEYS,
        REFERENCE_KEYS,
        ROLLOUT_KEYS,
        ONLINE_KEYS,
        reward::KEYS,
        environment::KEYS,
    ]);
    sections.extend(METHODS.iter().map(|method| method.keys));
    Schema::new(&sections)
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
    /// Dropout of the adapter.
    pub dropout: f32,
    /// Rows or tokens of a step.
    pub step_size: StepSize,
    /// When the run ends.
    pub extent: Extent,
    /// Largest learning rate.
    pub learning_rate: f64,
    /// How gradients become updates.
    pub optimizer: OptimizerConfig,
    /// Longest gradient.
    pub max_grad_norm: Option<f64>,
    /// How often the validation loss is taken.
    pub evaluate_every: Every,
    /// Whether the latest step within the noise of the lowest validation loss is kept, and not the lowest.
    pub keeps_late: bool,
    /// How often a checkpoint is written.
    pub save_every: Every,
    /// How many checkpoints stay.
    pub keep: usize,
    /// Fixed prompts.
    pub sample: SampleConfig,
    /// Seed of everything random.
    pub seed: u64,
    /// How frozen linear layers are made smaller.
    pub quantization: Option<Quantization>,
    /// Whether what rows begin with is computed once.
    pub shares_prefixes: bool,
    /// Most tokens computed at a time; none where memory decides.
    pub micro_batch_tokens: Option<usize>,
    /// Whether layers are computed twice to save memory; none where memory decides.
    pub recompute: Option<bool>,
    /// Findings that end the run.
    pub stop_on: Vec<String>,
    /// Scale of implicit rewards, where the method has one.
    pub beta: Option<f64>,
    /// How the reference follows the policy; none where it stays as it began.
    pub refresh: Option<Refresh>,
    /// How answers are sampled; none of a method that learns from rows as they are.
    pub rollout: Option<RolloutConfig>,
    /// Variables for the chat template.
    pub template_kwargs: serde_json::Map<String, serde_json::Value>,
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
        Ok(Recipe {
            // A model that is trained itself has none.
            dropout: document.opt_f64("adapter.dropout").unwrap_or(0.0) as f32,
            step_size,
            extent,
            learning_rate: document.get_f64("train.learning_rate"),
            optimizer: optimizer(document),
            max_grad_norm: document.opt_f64("train.max_grad_norm"),
            evaluate_every: every("train.evaluate_every", Every::Steps(50)),
            keeps_late: document.get_str("train.best") == "late",
            save_every: every("train.save", Every::Minutes(10.0)),
            keep: document.get_usize("train.save.keep"),
            sample: SampleConfig {
                prompts: texts(document, "train.sample.prompts"),
                system: document.opt_str("train.sample.system").map(str::to_owned),
                max_new_tokens: document.get_usize("train.sample.max_new_tokens"),
            },
            seed: document.get_i64("seed") as u64,
            quantization: quantization(document),
            shares_prefixes: document.get_bool("share_prefixes"),
            micro_batch_tokens: document.opt_usize("micro_batch_tokens"),
            recompute: match document.get_str("activation_checkpointing") {
                "none" => Some(false),
                "block" => Some(true),
                _ => None,
            },
            stop_on: texts(document, "stop_on"),
            beta: document.opt_f64("objective.beta"),
            refresh: Refresh::read(document),
            rollout: RolloutConfig::read(document),
            template_kwargs: template_kwargs(document),
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
}

/// A list of texts, empty where there is none.
fn texts(document: &Document, key: &str) -> Vec<String> {
    document.opt_strs(key).unwrap_or_default().into_iter().map(str::to_owned).collect()
}

/// Variables that a recipe gives to the chat template.
pub fn template_kwargs(document: &Document) -> serde_json::Map<String, serde_json::Value> {
    let entries = document.opt_map("model.template_kwargs").unwrap_or_default();
    entries.iter().map(|(name, value)| (name.clone(), value.to_json())).collect()
}

/// `runs/<stem of the recipe>`, the number still to come.
pub fn run_stem(recipe: &Path) -> (PathBuf, String) {
    let stem = recipe.file_stem().map_or("run".into(), |stem| stem.to_string_lossy().into_owned());
    (PathBuf::from("runs"), stem)
}
