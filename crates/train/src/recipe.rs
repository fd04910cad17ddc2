//! The recipe as a whole: every key, and what a run reads out of them.

mod defaults;
mod distill;
mod trained;

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use data::{Extent, StepSize};
use keys::{Document, Key, Kind, Resume, Schema, Settings as _};

use crate::Result;
use crate::method::METHODS;
use crate::optimizer::OptimizerConfig;
use crate::schedule::{Schedule, ScheduleKind};

pub use defaults::fill_by_data;
pub use distill::DISTILL_KEYS;
use trained::optimizer;
pub use trained::{check, coverage, layers, quantization, trains_base};

/// What is asked for first: the model.
const MODEL_KEYS: &[Key] = &[
    Key::section("model").shorthand("id").doc("Model to start from."),
    Key::path_or_name("model.id")
        .required()
        .doc("Hub id, folder, .gguf file, adapter folder or run folder."),
    Key::text("model.revision").doc("Branch, tag or commit of a hub model."),
    Key::text("model.chat_template").doc(
        "File with a chat template, or the name of one: one of the model's own, or chatml. \
             Without it, rows with tools take the model's template tool_use, if there is one.",
    ),
    Key::map("model.template_kwargs").doc("Variables for the chat template."),
];

/// Values of `adapter.type` that train an adapter.
const ADAPTERS: &[&str] = &["lora", "rslora", "dora", "pissa"];

/// The adapter.
const ADAPTER_KEYS: &[Key] = &[
    Key::section("adapter").shorthand("type").doc("What is trained over the frozen base."),
    Key::choice("adapter.type", &["lora", "rslora", "dora", "pissa", "none"])
        .default("lora")
        .doc("Kind of adapter; none trains the model itself."),
    Key::int("adapter.rank", 1, 4096)
        .when("adapter.type", ADAPTERS).default_by("number of rows").doc("Rank of the matrices."),
    Key::float("adapter.alpha", 0.0, 1e6)
        .when("adapter.type", ADAPTERS)
        .above_min()
        .default_by("rank")
        .doc("Strength: scaling is alpha / rank (rslora: alpha / sqrt(rank))."),
    Key::list("adapter.target_modules", &Kind::Text)
        .when("adapter.type", ADAPTERS)
        .items(1, 64)
        .or(&["all-linear"])
        .default("all-linear")
        .doc("Linear layers that get an adapter: q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj (Phi-3: qkv_proj, o_proj, gate_up_proj, down_proj)."),
    Key::map("adapter.rank_pattern")
        .when("adapter.type", ADAPTERS)
        .doc("Ranks of single modules: a name or regular expression that ends the module's path, and its rank."),
    Key::map("adapter.alpha_pattern")
        .when("adapter.type", ADAPTERS).doc("As `rank_pattern`, for alpha."),
    Key::list("adapter.modules_to_save", &Kind::Text)
        .when("adapter.type", ADAPTERS)
        .default("[]")
        .doc("Modules of the base that are trained as a whole and saved with the adapter, lm_head say. Where the base ties its head to the embedding, embed_tokens trains and saves both as one matrix; with lm_head beside it they are two."),
    Key::list("adapter.trainable_tokens", &Kind::Text)
        .when("adapter.type", ADAPTERS)
        .or(&["added"])
        .default("[]")
        .doc("Tokens whose rows of embedding and head are trained; added means those of `tokenizer`."),
    Key::float("adapter.loraplus_lr_ratio", 0.0, 1e4)
        .when("adapter.type", ADAPTERS)
        .above_min()
        .default("1.0")
        .on_resume(Resume::WithNote)
        .doc("LoRA+: rate of lora_B over that of lora_A."),
    Key::float("adapter.dropout", 0.0, 1.0)
        .when("adapter.type", ADAPTERS)
        .below_max()
        .default("0.0")
        .doc("Share of the adapters' inputs that is dropped in training."),
    Key::choice("adapter.from", &["continue", "stack"])
        .when("adapter.type", ADAPTERS)
        .default_by("model")
        .doc("What happens to an adapter that the model brings along: it is trained on, or frozen under a new one."),
    Key::choice("quantization", &["none", "nf4", "int8"])
        .default("none")
        .doc("How the base's linear layers are kept: nf4 (4 bits, double quantised, as bitsandbytes), int8. A GGUF or bitsandbytes base keeps its own blocks."),
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
    Key::choice(
        "train.optimizer.type",
        &["adamw", "adamw8bit", "lion", "adafactor", "muon", "sgd"],
    )
    .default("adamw")
    .doc("Kind of optimizer. Muon makes the update of every matrix orthogonal, lora_A and lora_B each for itself, and leaves embeddings, heads, norms and biases to AdamW. adamw8bit keeps the moments of embeddings, and of tensors of fewer than 4096 numbers, in 32 bits. A fused matrix (qkv_proj) is one matrix."),
    Key::float("train.optimizer.weight_decay", 0.0, 10.0)
        .default("0.0")
        .doc("Weight decay of everything but norms and biases. It is decoupled, but for sgd: there it is coupled (added to the gradient), as in torch.optim.SGD."),
    Key::list("train.optimizer.betas", BETA)
        .items(2, 2)
        .when("train.optimizer.type", &["adamw", "adamw8bit", "muon"])
        .default("[0.9, 0.999]")
        .doc("Decay of the first and second moments."),
    Key::list("train.optimizer.betas", BETA)
        .items(2, 2)
        .when("train.optimizer.type", &["lion"])
        .default("[0.9, 0.99]")
        .doc("Decay of the momentum, in the update and as it is kept."),
    Key::float("train.optimizer.momentum", 0.0, 1.0)
        .below_max()
        .when("train.optimizer.type", &["muon"])
        .default("0.95")
        .doc("Decay of the momentum."),
    Key::float("train.optimizer.momentum", 0.0, 1.0)
        .below_max()
        .when("train.optimizer.type", &["sgd"])
        .default("0.9")
        .doc("Decay of the momentum."),
    Key::bool("train.optimizer.nesterov")
        .when("train.optimizer.type", &["muon"])
        .default("true")
        .doc("Whether the momentum looks ahead."),
    Key::bool("train.optimizer.nesterov")
        .when("train.optimizer.type", &["sgd"])
        .default("false")
        .doc("Whether the momentum looks ahead."),
    Key::float("train.optimizer.eps", 0.0, 1.0)
        .above_min()
        .when("train.optimizer.type", &["adamw", "adamw8bit", "muon"])
        .default("1.0e-8")
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
    Key::choice("train.best", &["lowest", "late"])
        .default("lowest")
        .on_resume(Resume::Free)
        .doc(
            "Step that is kept: the one with the lowest validation loss, or the latest whose loss lies \
             within one standard error of the lowest, for few validation rows.",
        ),
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
    Key::list("train.layers", &Kind::Text)
        .items(1, 4096)
        .doc("Layers to train, the rest stays frozen: numbers from 0, ranges as 8-15, or last 4."),
    Key::float("train.embedding_learning_rate", 0.0, 1.0)
        .above_min()
        .default_by("train.learning_rate")
        .on_resume(Resume::WithNote)
        .doc("Largest learning rate of embeddings, heads and trained tokens."),
];

/// What stands at the end of a recipe.
const LAST_KEYS: &[Key] = &[
    Key::any("evaluate")
        .later("`tunesmith quickstart` shows an evaluation; tasks come with `eval`")
        .doc("Tasks to measure the model on."),
    Key::section("objective").doc("Loss of a preference or RL method."),
    Key::any("reference")
        .later("it belongs to preference and RL methods")
        .doc("What a preference or RL method compares with."),
    Key::any("rollout").later("it belongs to RL methods").doc("How completions are sampled."),
    Key::any("rewards").later("they belong to RL methods").doc("How completions are scored."),
    Key::any("stop_on").later("").doc("Findings that end a run."),
    Key::any("log")
        .later("events.jsonl in the run folder holds everything")
        .doc("Further readers of the events."),
    Key::section("tokenizer").doc("What the tokenizer gets beside what it has."),
    Key::list("tokenizer.add_tokens", &Kind::Text)
        .default("[]")
        .doc("Texts that become one token each. Their rows start as the mean of the others and are trained."),
    Key::list("tokenizer.add_special_tokens", &Kind::Text)
        .default("[]")
        .doc("As `add_tokens`, for marks that are left out when text is shown."),
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
        .on_resume(Resume::WithNote)
        .unit("tokens")
        .doc("Most tokens computed at a time; changes memory and no bit of the result, unless rows behind one beginning take more (1024 at most behind up to 186 shared tokens): these it cuts apart, which changes rounding. auto is 1024, more where rows share long beginnings, less where memory is short."),
    Key::bool("share_prefixes")
        .default("true")
        .on_resume(Resume::WithNote)
        .doc("Compute what several rows begin with once; changes time and memory, not the result beyond rounding. With dropout they have one mask there."),
    Key::choice("precision", &["auto", "bf16", "f32"])
        .default("auto")
        .doc("Type that matrix products multiply in; auto is bf16."),
    Key::choice("activation_checkpointing", &["auto", "none", "block"])
        .default("auto")
        .on_resume(Resume::WithNote)
        .doc("Keep only the stream between layers and compute the rest twice; changes no bit."),
];

/// `method`, whose words are the names of [`METHODS`].
static METHOD_KEY: LazyLock<[Key; 1]> = LazyLock::new(|| {
    let names: Vec<&str> = METHODS.iter().map(|method| method.name()).collect();
    [Key::choice("method", names.leak()).required().doc("What to learn from.")]
});

/// All keys of a recipe.
pub fn schema() -> Schema {
    let mut sections = vec![MODEL_KEYS, &*METHOD_KEY, ADAPTER_KEYS];
    sections.extend([data::recipe::KEYS, TRAIN_KEYS, DISTILL_KEYS, LAST_KEYS]);
    sections.extend(METHODS.iter().map(|method| method.keys()));
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
}

/// `runs/<stem of the recipe>`, the number still to come.
pub fn run_stem(recipe: &Path) -> (PathBuf, String) {
    let stem = recipe.file_stem().map_or("run".into(), |stem| stem.to_string_lossy().into_owned());
    (PathBuf::from("runs"), stem)
}
