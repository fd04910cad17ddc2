//! What keys of TRL and transformers, Axolotl, LLaMA-Factory and Unsloth are called here.

use crate::schema::Schema;
use std::collections::BTreeMap;

/// What a peer's key becomes.
enum Here {
    /// The same value under another name.
    Key(&'static str),
    /// Another name, and another word for some values; a value without a word is left out.
    Words(&'static str, &'static [(&'static str, &'static str)]),
    /// So many of the last layers; a number below zero means the first ones.
    Layers(&'static str),
    /// Rows of one device and pass: times the accumulation makes an optimizer step's.
    Batch(&'static str),
    /// No key: the sentence says what there is instead.
    Advice(&'static str),
}

/// The hint for a peer's key, with its value converted where it converts.
///
/// `top` are the plain values at the top of the same file. None where the name
/// is no peer's, or where this schema has no such key.
pub(crate) fn explain(
    schema: &Schema,
    path: &str,
    value: Option<&str>,
    top: &BTreeMap<String, String>,
) -> Option<String> {
    let leaf = path.rsplit('.').next().unwrap_or(path);
    let (_, here) = PEERS.iter().find(|(names, _)| names.contains(&leaf))?;
    let (key, value) = match here {
        Here::Advice(advice) => return Some((*advice).to_owned()),
        Here::Key(key) => (*key, value.map(str::to_owned)),
        Here::Words(key, words) => {
            let lower = value.map(str::to_ascii_lowercase);
            let found = words.iter().find(|(theirs, _)| Some(*theirs) == lower.as_deref());
            if let (None, Some(hint)) = (found, lower.as_deref().and_then(|value| word(key, value)))
            {
                return Some(format!("here: `{key}`: {hint}"));
            }
            (*key, found.map(|(_, ours)| (*ours).to_owned()))
        }
        Here::Layers(key) => (*key, value.and_then(layers)),
        Here::Batch(key) => (*key, value.map(|value| batch(value, top))),
    };
    let known = schema.key(key).is_some() || schema.has_below(key);
    let later =
        if schema.later(key).is_some() { ", which this version does not support" } else { "" };
    known.then(|| match value {
        Some(value) => format!("here: `{key}: {value}`{later}"),
        None => format!("here: `{key}`{later}"),
    })
}

fn layers(count: &str) -> Option<String> {
    match count.parse::<i64>().ok()? {
        0 => None,
        1.. => Some(format!("[last {count}]")),
        -1 => Some("[0]".into()),
        first => Some(format!("[0-{}]", first.unsigned_abs() - 1)),
    }
}

fn batch(rows: &str, top: &BTreeMap<String, String>) -> String {
    let number = |text: &str| text.parse::<u64>().ok();
    let accumulated = top.get("gradient_accumulation_steps").and_then(|steps| number(steps));
    match number(rows).zip(accumulated).and_then(|(rows, steps)| rows.checked_mul(steps)) {
        Some(product) => product.to_string(),
        None => rows.to_owned(),
    }
}

/// The hint for a peer's value of a choice that has the same name here.
pub(crate) fn word(key: &str, word: &str) -> Option<&'static str> {
    let (.., hint) = WORDS.iter().find(|(name, theirs, _)| *name == key && *theirs == word)?;
    Some(hint)
}

/// Key here, a peer's value of it, what to write.
const WORDS: &[(&str, &str, &str)] = &[
    ("adapter.type", "qlora", "write `adapter: lora` and `quantization: nf4`"),
    ("adapter.type", "full", "write `adapter: none`: without an adapter all weights are trained"),
    ("method", "pt", "write `pretrain`"),
    ("method", "rm", "write `reward`"),
    ("quantization", "4bit", "write `nf4`"),
    ("quantization", "bnb-4bit", "write `nf4`"),
    ("quantization", "8bit", "write `int8`"),
    ("quantization", "fp4", "write `nf4`: as many bits, and closer to the weights"),
    ("adapter", "freeze", "write `adapter: none` and name the layers to train in `train.layers`"),
    ("adapter.type", "freeze", "write `none` and name the layers to train in `train.layers`"),
    ("adapter.type", "loftq", "write `pissa`: it begins from the weights too"),
    ("train.optimizer.type", "adamw_torch", "write `adamw`"),
    ("train.optimizer.type", "adamw_torch_fused", "write `adamw`"),
    ("train.optimizer.type", "adamw_hf", "write `adamw`"),
    ("train.optimizer.type", "adamw_8bit", "write `adamw8bit`"),
    ("train.optimizer.type", "adamw_bnb_8bit", "write `adamw8bit`"),
    ("train.optimizer.type", "paged_adamw_8bit", "write `adamw8bit`"),
    ("train.optimizer.type", "adamw_torch_8bit", "write `adamw8bit`"),
    ("train.optimizer.type", "paged_adamw_32bit", "write `adamw`"),
    ("train.optimizer.type", "lion_8bit", "write `lion`: its one moment is kept in f32"),
    ("train.optimizer.type", "lion_32bit", "write `lion`"),
    ("train.optimizer.type", "paged_lion_8bit", "write `lion`: its one moment is kept in f32"),
    ("train.optimizer.type", "paged_lion_32bit", "write `lion`"),
    ("train.schedule.type", "constant_with_warmup", "write `{type: constant, warmup_ratio: 0.03}`"),
];

const ACCUMULATION: &str = "leave it out: `train.batch_size` counts all rows of an optimizer step, \
                            and micro-batches follow from memory";
const PRECISION: &str = "leave it out: weights and products are bf16 with sums in f32; \
                         `precision: f32` computes everything in f32";
const PACKING: &str = "leave it out: rows are always packed, without padding and without seeing \
                       each other";
const SUPERVISION: &str = "leave it out: loss is on what the assistant says, its end-of-turn token \
                           included";
const CHECKPOINTING: &str = "leave it out: `activation_checkpointing: auto` decides by memory";
const KERNELS: &str = "leave it out: the fastest kernels of the machine are chosen at run time";
const LOGGING: &str = "leave it out: every step is a line of `events.jsonl` in the run folder";
const COMMAND: &str = "not a part of a recipe: the command says it (`train`, `generate`)";
const WORKERS: &str = "leave it out: data is prepared by as many threads as there are";
const TOKEN: &str = "leave it out: the token is read from the environment";
const SPREAD: &str = "leave it out: a run has no settings of that kind";

const DOUBLE: &str = "leave it out: `quantization: nf4` always quantises its scales too";
const RESIZE: &str = "leave it out: embedding and head grow with `tokenizer.add_tokens`";
const UNFROZEN: &str = "here: `train.layers` with `adapter: none` trains single layers, and \
                        `adapter.modules_to_save` single modules beside an adapter";
const PISSA: &str = "leave it out: `adapter: pissa` is exact, and its adapter is saved as a plain \
                     one over the base as it is";

const QUANTIZED: &[(&str, &str)] = &[("true", "nf4"), ("false", "none")];
const QUANTIZED_8: &[(&str, &str)] = &[("true", "int8"), ("false", "none")];
const BITS: &[(&str, &str)] = &[("4", "nf4"), ("8", "int8")];
const STAGES: &[(&str, &str)] = &[
    ("pt", "pretrain"),
    ("sft", "sft"),
    ("rm", "reward"),
    ("ppo", "ppo"),
    ("dpo", "dpo"),
    ("kto", "kto"),
    ("ipo", "dpo"),
    ("orpo", "orpo"),
    ("simpo", "simpo"),
    ("grpo", "grpo"),
];
const SCHEDULES: &[(&str, &str)] = &[
    ("cosine", "cosine"),
    ("linear", "linear"),
    ("constant", "constant"),
    ("constant_with_warmup", "constant"),
];
const INITS: &[(&str, &str)] = &[
    ("true", "lora"),
    ("pissa", "pissa"),
    ("pissa_niter_4", "pissa"),
    ("pissa_niter_16", "pissa"),
    ("pissa_niter_32", "pissa"),
];
const OPTIMIZERS: &[(&str, &str)] = &[
    ("adamw", "adamw"),
    ("adamw8bit", "adamw8bit"),
    ("adamw_torch", "adamw"),
    ("adamw_torch_fused", "adamw"),
    ("adamw_hf", "adamw"),
    ("adamw_8bit", "adamw8bit"),
    ("adamw_bnb_8bit", "adamw8bit"),
    ("paged_adamw_8bit", "adamw8bit"),
    ("adamw_torch_8bit", "adamw8bit"),
    ("paged_adamw_32bit", "adamw"),
    ("paged_adamw", "adamw"),
    ("lion_32bit", "lion"),
    ("paged_lion_32bit", "lion"),
    ("adafactor", "adafactor"),
    ("lion", "lion"),
    ("sgd", "sgd"),
    ("muon", "muon"),
];

/// Names that mean the same, and what they are here.
const PEERS: &[(&[&str], Here)] = &[
    // Model and method.
    (&["base_model", "model_name_or_path", "model_name", "model_id"], Here::Key("model")),
    (&["adapter_name_or_path", "lora_model_dir"], Here::Key("model")),
    (&["model_revision", "revision_of_model"], Here::Key("model.revision")),
    (&["stage", "rl", "trainer_type"], Here::Words("method", STAGES)),
    (
        &["finetuning_type"],
        Here::Words(
            "adapter",
            &[("lora", "lora"), ("full", "none"), ("qlora", "lora"), ("none", "none")],
        ),
    ),
    (&["full_finetuning"], Here::Words("adapter", &[("true", "none"), ("false", "lora")])),
    (&["use_peft"], Here::Words("adapter", &[("true", "lora"), ("false", "none")])),
    (
        &["template", "chat_template_path"],
        Here::Advice(
            "leave it out: the model's own chat template is used; `model.chat_template` takes another",
        ),
    ),
    // Adapter.
    (&["lora_r", "lora_rank", "r"], Here::Key("adapter.rank")),
    (&["lora_alpha"], Here::Key("adapter.alpha")),
    (&["lora_dropout"], Here::Key("adapter.dropout")),
    (
        &["lora_target_modules", "lora_target", "peft_target_modules"],
        Here::Words(
            "adapter.target_modules",
            &[("all", "all-linear"), ("all-linear", "all-linear")],
        ),
    ),
    (&["lora_target_linear"], Here::Words("adapter.target_modules", &[("true", "all-linear")])),
    (
        &["use_rslora", "lora_use_rslora", "peft_use_rslora"],
        Here::Words("adapter.type", &[("true", "rslora"), ("false", "lora")]),
    ),
    (
        &["use_dora", "lora_use_dora", "peft_use_dora"],
        Here::Words("adapter.type", &[("true", "dora"), ("false", "lora")]),
    ),
    (&["pissa_init"], Here::Words("adapter.type", &[("true", "pissa"), ("false", "lora")])),
    (&["pissa_iter", "pissa_convert"], Here::Advice(PISSA)),
    (&["init_lora_weights", "peft_init_lora_weights"], Here::Words("adapter.type", INITS)),
    (&["loraplus_lr_ratio"], Here::Key("adapter.loraplus_lr_ratio")),
    (
        &["loraplus_lr_embedding", "embedding_lr", "embedding_learning_rate"],
        Here::Key("train.embedding_learning_rate"),
    ),
    (
        &["modules_to_save", "lora_modules_to_save", "additional_target"],
        Here::Key("adapter.modules_to_save"),
    ),
    (&["trainable_token_indices"], Here::Words("adapter.trainable_tokens", &[])),
    (&["new_special_tokens", "add_special_tokens"], Here::Key("tokenizer.add_special_tokens")),
    (&["add_new_tokens", "new_tokens", "add_tokens"], Here::Key("tokenizer.add_tokens")),
    (&["resize_vocab", "resize_token_embeddings_to_32x"], Here::Advice(RESIZE)),
    (&["freeze_trainable_layers", "finetune_last_n_layers"], Here::Layers("train.layers")),
    (&["layers_to_transform", "peft_layers_to_transform"], Here::Key("train.layers")),
    (&["unfrozen_parameters", "freeze_trainable_modules"], Here::Advice(UNFROZEN)),
    (&["load_in_4bit"], Here::Words("quantization", QUANTIZED)),
    (&["load_in_8bit"], Here::Words("quantization", QUANTIZED_8)),
    (&["quantization_bit"], Here::Words("quantization", BITS)),
    (&["bnb_4bit_quant_type", "quantization_type"], Here::Words("quantization", &[("nf4", "nf4")])),
    (
        &["bnb_4bit_use_double_quant", "use_bnb_nested_quant", "double_quantization"],
        Here::Advice(DOUBLE),
    ),
    (
        &["quantization_method"],
        Here::Words("quantization", &[("bnb", "nf4"), ("bitsandbytes", "nf4")]),
    ),
    // Data.
    (
        &["datasets", "dataset", "dataset_name", "train_dataset", "train_file"],
        Here::Key("data.train"),
    ),
    (&["eval_dataset", "test_datasets", "validation_file"], Here::Key("data.validation.path")),
    (&["val_set_size", "val_size"], Here::Key("data.validation.fraction")),
    (
        &["max_length", "max_seq_length", "sequence_len", "cutoff_len", "model_max_length"],
        Here::Key("data.max_seq_len"),
    ),
    (
        &[
            "packing",
            "sample_packing",
            "eval_sample_packing",
            "pad_to_sequence_len",
            "group_by_length",
            "padding_free",
            "neat_packing",
        ],
        Here::Advice(PACKING),
    ),
    (
        &[
            "train_on_inputs",
            "train_on_prompt",
            "train_on_responses_only",
            "assistant_only_loss",
            "completion_only_loss",
            "mask_history",
            "roles_to_train",
        ],
        Here::Advice(SUPERVISION),
    ),
    // The loop.
    (&["num_train_epochs", "num_epochs"], Here::Key("train.epochs")),
    (
        &["per_device_train_batch_size", "micro_batch_size", "batch_size_per_device"],
        Here::Batch("train.batch_size"),
    ),
    (
        &["gradient_accumulation_steps", "per_device_eval_batch_size", "auto_find_batch_size"],
        Here::Advice(ACCUMULATION),
    ),
    (&["lr"], Here::Key("train.learning_rate")),
    (&["learning_rate"], Here::Key("train.learning_rate")),
    (&["lr_scheduler_type", "lr_scheduler"], Here::Words("train.schedule.type", SCHEDULES)),
    (&["warmup_steps"], Here::Key("train.schedule.warmup_steps")),
    (&["warmup_ratio"], Here::Key("train.schedule.warmup_ratio")),
    (&["cosine_min_lr_ratio", "min_lr_rate"], Here::Key("train.schedule.min_ratio")),
    (&["optim", "optimizer"], Here::Words("train.optimizer.type", OPTIMIZERS)),
    (&["weight_decay"], Here::Key("train.optimizer.weight_decay")),
    (&["adam_beta1", "adam_beta2"], Here::Words("train.optimizer.betas", &[])),
    (&["adam_epsilon"], Here::Key("train.optimizer.eps")),
    (&["gradient_clipping"], Here::Key("train.max_grad_norm")),
    (&["eval_steps", "evals_per_epoch"], Here::Words("train.evaluate_every", &[])),
    (&["save_steps", "saves_per_epoch"], Here::Words("train.save", &[])),
    (&["save_total_limit"], Here::Key("train.save.keep")),
    (&["random_state", "data_seed"], Here::Key("seed")),
    (&["output_dir"], Here::Key("output")),
    (
        &["overwrite_output_dir"],
        Here::Advice("not a part of a recipe: say `--overwrite` on the command line"),
    ),
    (
        &["resume_from_checkpoint", "auto_resume_from_checkpoints"],
        Here::Advice("not a part of a recipe: say `--resume` on the command line"),
    ),
    // What needs no choice here.
    (
        &["bf16", "fp16", "tf32", "dtype", "torch_dtype", "pure_bf16", "bnb_4bit_compute_dtype"],
        Here::Advice(PRECISION),
    ),
    (
        &["gradient_checkpointing", "use_gradient_checkpointing", "gradient_checkpointing_kwargs"],
        Here::Advice(CHECKPOINTING),
    ),
    (
        &[
            "flash_attention",
            "flash_attn",
            "attn_implementation",
            "sdp_attention",
            "xformers_attention",
            "use_liger_kernel",
            "torch_compile",
        ],
        Here::Advice(KERNELS),
    ),
    (
        &["report_to", "logging_steps", "logging_dir", "wandb_project", "run_name", "plot_loss"],
        Here::Advice(LOGGING),
    ),
    (
        &["do_train", "do_eval", "do_predict", "eval_strategy", "save_strategy"],
        Here::Advice(COMMAND),
    ),
    (
        &["dataloader_num_workers", "preprocessing_num_workers", "dataset_num_proc"],
        Here::Advice(WORKERS),
    ),
    (&["dataset_prepared_path", "overwrite_cache", "ddp_timeout"], Here::Advice(SPREAD)),
    (&["hf_use_auth_token", "hub_token", "hf_hub_token"], Here::Advice(TOKEN)),
    // Preference and reward methods.
    (&["beta", "pref_beta", "rl_beta"], Here::Key("objective.beta")),
    (&["loss_type", "pref_loss"], Here::Key("objective.loss")),
    (&["ref_model", "ref_model_name_or_path"], Here::Key("reference")),
    (&["num_generations"], Here::Key("rollout.group_size")),
    (&["num_iterations", "num_ppo_epochs"], Here::Key("rollout.updates")),
    (&["num_mini_batches"], Here::Key("rollout.minibatches")),
    (&["prompts_per_step"], Here::Key("train.batch_size")),
    (&["epsilon"], Here::Advice("here: `objective.clip_low` and `objective.clip_high`")),
    (&["epsilon_high"], Here::Key("objective.clip_high")),
    (&["max_completion_length", "max_new_tokens"], Here::Key("rollout.max_new_tokens")),
    (&["temperature"], Here::Key("rollout.temperature")),
    (&["reward_funcs", "reward_model", "reward_weights"], Here::Words("rewards", &[])),
];
