//! The recipe: every key declared and documented, what is to come refused by name, defaults.

use compute::Optimizer;
use data::{Extent, StepSize};
use keys::{Document, Fault, Settings as _};
use model::Role;
use model::adapter::{LoraKind, Target};
use train::recipe::{Every, ModelSize, Recipe, check, coverage, fill_by_data, schema};
use train::schedule::ScheduleKind;

use crate::support::Fixture;

fn fixture(recipe: &str) -> Fixture {
    let mut fixture = Fixture::new();
    fixture.recipe = recipe.into();
    fixture
}

const LEAST: &str = "model: org/tiny\nmethod: sft\ndata: {train: rows.jsonl}\n";

#[test]
fn every_key_is_documented() {
    let schema = schema();
    let names: Vec<&str> = schema.keys().map(|key| key.name()).collect();
    for name in ["model.id", "data.train", "train.learning_rate", "micro_batch_tokens", "seed"] {
        assert!(names.contains(&name), "{name}");
    }
    // A schema refuses keys without a doc: that it could be made says that all have one.
    assert!(schema.markdown().contains("| `train.save.keep` |"), "{}", schema.markdown());
}

/// Recipe lines beside the least recipe, and what is said about them.
#[track_caller]
fn check_refused(lines: &str, message: &str, hint: &str) {
    let error = fixture(&format!("{LEAST}{lines}\n")).try_document(&[]).unwrap_err();
    let shown = error.to_string();
    assert!(shown.contains(message), "{shown}");
    let given = error.hint().unwrap_or_default();
    assert!(given.contains(hint), "hint: {given}");
}

#[test]
fn what_later_versions_bring_is_refused_by_name() {
    for (lines, name) in [
        ("evaluate: [{task: t.jsonl}]", "evaluate"),
        ("log: [tensorboard]", "log"),
        ("objective: {beta: 0.1}", "`objective.beta` has no effect: `method` is `sft`"),
        ("reference: base", "`reference.from` has no effect: `method` is `sft`"),
        ("rollout: {group_size: 8}", "rollout"),
        ("rewards: [{grader: json}]", "`rewards.0.grader` has no effect: `method` is `sft`"),
        ("device: cuda", "cuda"),
    ] {
        check_refused(lines, name, "");
    }
}

/// A key as a peer has it, and the hint to what it is here.
#[track_caller]
fn check_peer(line: &str, hint: &str) {
    let key = line.split(':').next().unwrap_or(line);
    check_refused(line, &format!("unknown key `{key}`"), hint);
}

#[test]
fn names_of_peers_are_explained() {
    check_peer("lora_r: 8", "adapter.rank: 8");
    check_peer("cutoff_len: 512", "data.max_seq_len: 512");
    check_peer("per_device_train_batch_size: 4", "train.batch_size: 4");
    check_peer("num_generations: 8", "rollout.group_size: 8");
    check_peer("num_iterations: 2", "rollout.updates: 2");
    check_peer("epsilon: 0.2", "`objective.clip_low` and `objective.clip_high`");
    check_peer("reward_funcs: [f]", "here: `rewards`");
    check_refused(
        "rollout: {prompts_per_step: 4}",
        "rollout.prompts_per_step",
        "train.batch_size: 4",
    );
    check_refused(
        "train: {learning_rte: 1e-4}",
        "unknown key `train.learning_rte`",
        "learning_rate",
    );
}

#[test]
fn adapters_of_peers_are_explained() {
    check_peer("use_dora: true", "`adapter.type: dora`");
    check_peer("peft_use_dora: true", "`adapter.type: dora`");
    check_peer("use_rslora: true", "`adapter.type: rslora`");
    check_peer("pissa_init: true", "`adapter.type: pissa`");
    check_peer("peft_init_lora_weights: pissa", "`adapter.type: pissa`");
    check_peer("pissa_convert: true", "plain one over the base as it is");
    check_peer("loraplus_lr_ratio: 16", "`adapter.loraplus_lr_ratio: 16`");
    check_peer("loraplus_lr_embedding: 1e-6", "`train.embedding_learning_rate: 1e-6`");
    check_peer("embedding_learning_rate: 5e-6", "`train.embedding_learning_rate: 5e-6`");
    check_peer("modules_to_save: [lm_head]", "`adapter.modules_to_save`");
    check_peer("additional_target: lm_head", "`adapter.modules_to_save: lm_head`");
    check_peer("lora_modules_to_save: [lm_head]", "`adapter.modules_to_save`");
    check_peer("new_special_tokens: [<a>]", "`tokenizer.add_special_tokens`");
    check_peer("add_new_tokens: [a]", "`tokenizer.add_tokens`");
    check_peer("add_tokens: [a]", "`tokenizer.add_tokens`");
    check_peer("resize_vocab: true", "leave it out");
    check_refused("adapter: qlora", "qlora", "`quantization: nf4`");
}

#[test]
fn quantisation_of_peers_is_explained() {
    check_peer("load_in_4bit: true", "`quantization: nf4`");
    check_peer("load_in_8bit: true", "`quantization: int8`");
    check_peer("quantization_bit: 4", "`quantization: nf4`");
    check_peer("quantization_bit: 8", "`quantization: int8`");
    check_peer("bnb_4bit_quant_type: nf4", "`quantization: nf4`");
    check_peer("bnb_4bit_quant_type: fp4", "write `nf4`");
    check_peer("bnb_4bit_use_double_quant: true", "leave it out");
    check_peer("double_quantization: true", "leave it out");
    check_peer("bnb_4bit_compute_dtype: bfloat16", "leave it out");
}

#[test]
fn layers_and_optimizers_of_peers_are_explained() {
    check_peer("freeze_trainable_layers: 2", "`train.layers: [last 2]`");
    check_peer("freeze_trainable_layers: -3", "`train.layers: [0-2]`");
    check_peer("freeze_trainable_layers: -1", "`train.layers: [0]`");
    check_peer("finetune_last_n_layers: 4", "`train.layers: [last 4]`");
    check_peer("unfrozen_parameters: [lm_head]", "`train.layers` with `adapter: none`");
    check_peer("finetuning_type: full", "`adapter: none`");
    check_peer("finetuning_type: freeze", "`train.layers`");
    for (theirs, ours) in [
        ("adamw_torch", "adamw"),
        ("adamw_8bit", "adamw8bit"),
        ("paged_adamw_8bit", "adamw8bit"),
        ("adamw_bnb_8bit", "adamw8bit"),
        ("paged_adamw_32bit", "adamw"),
        ("adafactor", "adafactor"),
        ("muon", "muon"),
        ("sgd", "sgd"),
        ("lion_32bit", "lion"),
    ] {
        check_peer(&format!("optim: {theirs}"), &format!("`train.optimizer.type: {ours}`"));
        check_peer(&format!("optimizer: {theirs}"), &format!("`train.optimizer.type: {ours}`"));
    }
    check_peer("optim: lion_8bit", "write `lion`: its one moment is kept in f32");
    check_refused("train: {optimizer: paged_lion_8bit}", "paged_lion_8bit", "write `lion`");
    check_peer("adam_epsilon: 1e-6", "`train.optimizer.eps: 1e-6`");
}

/// A whole recipe of a peer: no key of it is left without a word.
#[track_caller]
fn check_explained(text: &str) {
    let error = fixture(text).try_document(&[]).unwrap_err();
    let keys::Error::Recipe(problems) = error else { panic!("{error}") };
    assert!(problems.len() > 8, "{problems:?}");
    for problem in problems.iter().filter(|problem| problem.fault == Fault::UnknownKey) {
        let said = problem.hint.as_deref().unwrap_or_default();
        assert!(said.contains('`') || said.starts_with("leave it out"), "{problem:?}");
    }
}

#[test]
fn recipes_of_peers_are_explained_key_by_key() {
    // Axolotl, QLoRA.
    check_explained(
        "base_model: org/tiny\nload_in_4bit: true\nadapter: qlora\nlora_r: 32\nlora_alpha: 16\n\
         lora_dropout: 0.05\nlora_target_linear: true\ndatasets: [{path: a, type: alpaca}]\n\
         val_set_size: 0.05\noutput_dir: ./out\nsequence_len: 2048\nsample_packing: true\n\
         micro_batch_size: 2\ngradient_accumulation_steps: 4\nnum_epochs: 1\n\
         optimizer: paged_adamw_32bit\nlr_scheduler: cosine\nlearning_rate: 0.0002\nbf16: auto\n\
         gradient_checkpointing: true\nlogging_steps: 1\nflash_attention: true\n\
         evals_per_epoch: 4\nsaves_per_epoch: 1\nweight_decay: 0.0\nwarmup_ratio: 0.1\n",
    );
    // LLaMA-Factory, LoRA.
    check_explained(
        "model_name_or_path: org/tiny\nstage: sft\ndo_train: true\nfinetuning_type: lora\n\
         lora_rank: 8\nlora_target: all\ndataset: identity\ntemplate: llama3\ncutoff_len: 2048\n\
         overwrite_cache: true\npreprocessing_num_workers: 16\noutput_dir: saves/a\n\
         logging_steps: 10\nsave_steps: 500\nplot_loss: true\noverwrite_output_dir: true\n\
         per_device_train_batch_size: 1\ngradient_accumulation_steps: 8\nlearning_rate: 1.0e-4\n\
         num_train_epochs: 3.0\nlr_scheduler_type: cosine\nwarmup_ratio: 0.1\nbf16: true\n\
         ddp_timeout: 180000000\nresume_from_checkpoint: null\nquantization_bit: 4\n\
         quantization_method: bnb\ndouble_quantization: true\npissa_init: true\n",
    );
    // Unsloth, its command line's file.
    check_explained(
        "model_name: org/tiny\nmax_seq_length: 2048\nload_in_4bit: true\ndtype: null\nr: 16\n\
         lora_alpha: 16\nlora_dropout: 0\nuse_rslora: false\nrandom_state: 3407\n\
         use_gradient_checkpointing: unsloth\nper_device_train_batch_size: 2\n\
         gradient_accumulation_steps: 4\nwarmup_steps: 5\nlearning_rate: 2e-4\n\
         optim: adamw_8bit\nweight_decay: 0.01\nlr_scheduler_type: linear\n\
         embedding_learning_rate: 1e-5\nreport_to: none\n",
    );
}

#[test]
fn what_cannot_work_together_is_refused() {
    check_refused("train: {epochs: 2, max_steps: 10}", "epochs", "");
    check_refused("train: {batch_size: 2, tokens_per_step: 10}", "batch_size", "");
    check_refused("train: {learning_rate: 3}", "learning_rate", "");
    check_refused("train: {optimizer: {betas: [0.9]}}", "betas", "");
    check_refused("train: {optimizer: {betas: [0.9, 1.0]}}", "betas", "");
    check_refused("adapter: {dropout: 1.0}", "dropout", "");
}

/// The least recipe with further lines, filled in over so many rows and numbers of a model.
fn filled(lines: &str, rows: usize, parameters: usize) -> Document {
    filled_for(lines, rows, ModelSize { parameters, hidden: 2000 })
}

/// The same, over a base of some size.
fn filled_for(lines: &str, rows: usize, model: ModelSize) -> Document {
    let mut document = fixture(&format!("{LEAST}{lines}\n")).document(&[]);
    check(&document).unwrap();
    fill_by_data(&mut document, rows, model);
    document
}

#[track_caller]
fn check_defaults(lines: &str, rows: usize, rank: usize, step: StepSize, extent: Extent) {
    let document = filled(lines, rows, 0);
    let recipe = Recipe::read(&document).unwrap();
    let actual = (document.get_usize("adapter.rank"), recipe.step_size, recipe.extent);
    assert_eq!(actual, (rank, step, extent), "{rows} rows, {lines}");
    assert_eq!(document.get_f64("adapter.alpha"), 2.0 * rank as f64);
}

/// Learning rate and optimizer of a recipe, and what it says beside the rate.
#[track_caller]
fn check_optimizer(lines: &str, parameters: usize, rate: f64, optimizer: Optimizer, why: &str) {
    let document = filled(lines, 100, parameters);
    let recipe = Recipe::read(&document).unwrap();
    assert!((recipe.learning_rate / rate - 1.0).abs() < 1e-12, "{lines}: {}", recipe.learning_rate);
    assert_eq!(recipe.optimizer.matrices, optimizer, "{lines}");
    let yaml = document.to_yaml();
    let line = yaml.lines().find(|line| line.trim_start().starts_with("learning_rate:")).unwrap();
    assert!(line.ends_with(&format!("# {why}")), "{line}");
}

#[test]
fn rates_follow_optimizer_and_size() {
    let (betas, eps) = ([0.9, 0.999], 1e-8);
    let adamw = Optimizer::AdamW { betas, eps };
    let (adapter, whole) = ("sft with an adapter, hidden size 2000", "sft of a whole model");
    check_optimizer("", 0, 5e-4, adamw, adapter);
    check_optimizer("adapter: none", 2_000_000_000, 1e-5, adamw, whole);
    check_optimizer("adapter: none", 100_000_000, 5e-5, adamw, "sft of a whole model under 1B");
    let eight = Optimizer::AdamW8bit { betas, eps };
    check_optimizer("train: {optimizer: adamw8bit}", 0, 5e-4, eight, adapter);
    let lion = Optimizer::Lion { betas: [0.9, 0.99] };
    let tenth = format!("{adapter}, a tenth with lion");
    check_optimizer("train: {optimizer: lion}", 0, 5e-5, lion, &tenth);
    let adafactor = Optimizer::Adafactor { eps: 1e-30, clip_threshold: 1.0, decay_rate: -0.8 };
    check_optimizer("train: {optimizer: adafactor}", 0, 5e-4, adafactor, adapter);
    let muon = Optimizer::Muon { momentum: 0.95, nesterov: true, iterations: 5, match_rms: true };
    check_optimizer("train: {optimizer: muon}", 0, 5e-4, muon, adapter);
    let sgd = Optimizer::Sgd { momentum: 0.9, nesterov: false };
    let hundred = format!("{whole}, times 100 with sgd");
    check_optimizer("adapter: none\ntrain: {optimizer: sgd}", 2 << 30, 1e-3, sgd, &hundred);
    let own = "train: {learning_rate: 3e-3, optimizer: {type: lion, betas: [0.8, 0.9]}}";
    check_optimizer(own, 0, 3e-3, Optimizer::Lion { betas: [0.8, 0.9] }, "given");
}

#[test]
fn an_adapter_takes_less_the_wider_the_model() {
    for (hidden, rate) in
        [(64, 1.3e-3), (576, 1.3e-3), (2000, 5e-4), (4096, 2.9e-4), (8192, 1.7e-4)]
    {
        let document = filled_for("", 100, ModelSize { parameters: 0, hidden });
        assert_eq!(document.get_f64("train.learning_rate"), rate, "{hidden}");
    }
}

#[test]
fn a_resolved_recipe_lists_only_what_means_something() {
    #[track_caller]
    fn check_listed(lines: &str, listed: &[&str], left_out: &[&str]) {
        let yaml = filled(lines, 100, 0).to_yaml();
        let has =
            |key: &str| yaml.lines().any(|line| line.trim_start().starts_with(&format!("{key}:")));
        for key in listed {
            assert!(has(key), "{key} in {yaml}");
        }
        for key in left_out {
            assert!(!has(key), "{key} in {yaml}");
        }
    }
    let adapters = ["rank", "alpha", "target_modules", "dropout", "modules_to_save"];
    check_listed("", &adapters, &[]);
    check_listed("adapter: none", &["type"], &adapters);
    check_listed("adapter: none", &[], &["loraplus_lr_ratio", "from", "trainable_tokens"]);
    check_listed("", &["betas", "eps"], &["momentum", "nesterov"]);
    check_listed("train: {optimizer: sgd}", &["momentum", "nesterov"], &["betas", "eps"]);
    check_listed("train: {optimizer: adafactor}", &[], &["betas", "eps", "momentum", "nesterov"]);
    check_listed("train: {optimizer: lion}", &["betas"], &["eps", "momentum", "nesterov"]);
    check_listed("train: {optimizer: muon}", &["betas", "eps", "momentum", "nesterov"], &[]);
}

#[test]
fn a_resolved_recipe_reads_back_to_itself() {
    for lines in ["", "adapter: none", "adapter: none\ntrain: {optimizer: muon, layers: [last 1]}"]
    {
        let document = filled(lines, 100, 0);
        let mut again = fixture(&document.to_yaml()).document(&[]);
        check(&again).unwrap();
        fill_by_data(&mut again, 100, ModelSize { parameters: 0, hidden: 2000 });
        assert!(again.changes(&document).is_empty(), "{:?}", again.changes(&document));
    }
}

/// A recipe that is right key by key, and what is wrong with all of it.
#[track_caller]
fn check_contradicts(lines: &str, message: &str, hint: &str) {
    let (shown, given) = match fixture(&format!("{LEAST}{lines}\n")).try_document(&[]) {
        Ok(document) => {
            let error = check(&document).unwrap_err();
            (error.to_string(), error.hint().unwrap_or_default())
        }
        Err(error) => (error.to_string(), error.hint().unwrap_or_default().to_owned()),
    };
    assert!(shown.contains("recipe.yaml:4:") || shown.contains("recipe.yaml:5:"), "{shown}");
    assert!(shown.contains(message), "{shown}");
    assert!(given.contains(hint), "hint: {given}");
}

#[test]
fn keys_that_contradict_each_other_are_refused() {
    for key in [
        "rank: 8",
        "alpha: 8",
        "dropout: 0.1",
        "target_modules: [q_proj]",
        "rank_pattern: {q_proj: 4}",
        "alpha_pattern: {q_proj: 4}",
        "modules_to_save: [lm_head]",
        "trainable_tokens: [a]",
        "loraplus_lr_ratio: 2",
        "from: stack",
    ] {
        let name = key.split(':').next().unwrap();
        let message = format!("`adapter.{name}` has no effect: `adapter.type` is `none`");
        let lines = format!("adapter: {{type: none, {key}}}");
        check_contradicts(
            &lines,
            &message,
            "it belongs to `adapter.type`: lora, rslora, dora, pissa",
        );
    }
    let quantised = "a quantised model cannot be trained itself";
    check_contradicts("quantization: nf4\nadapter: none", quantised, "leave `quantization` out");
    let of = |kind: &str, key: &str| format!("train: {{optimizer: {{type: {kind}, {key}}}}}");
    for (kind, key, belongs) in [
        ("adafactor", "eps: 1e-6", "adamw, adamw8bit, muon"),
        ("adafactor", "betas: [0.9, 0.99]", "adamw, adamw8bit, muon, lion"),
        ("lion", "eps: 1e-6", "adamw, adamw8bit, muon"),
        ("sgd", "betas: [0.9, 0.99]", "adamw, adamw8bit, muon, lion"),
        ("adamw", "momentum: 0.9", "muon, sgd"),
        ("adamw8bit", "nesterov: true", "muon, sgd"),
    ] {
        let name = key.split(':').next().unwrap();
        let message =
            format!("`train.optimizer.{name}` has no effect: `train.optimizer.type` is `{kind}`");
        check_contradicts(&of(kind, key), &message, belongs);
    }
}

#[test]
fn defaults_follow_the_rows() {
    let (rows, tokens) = (StepSize::Rows, StepSize::Tokens);
    let (epochs, steps) = (Extent::Epochs, Extent::Steps);
    check_defaults("", 1999, 16, rows(16), epochs(3.0));
    check_defaults("", 2000, 64, rows(16), epochs(3.0));
    // 100 rows three times over make 50 steps of six.
    check_defaults("", 100, 16, rows(6), epochs(3.0));
    check_defaults("", 10, 16, rows(1), epochs(3.0));
    check_defaults("train: {epochs: 10}", 100, 16, rows(16), epochs(10.0));
    check_defaults("train: {batch_size: 16}", 10, 16, rows(16), epochs(3.0));
    check_defaults("train: {tokens_per_step: 900}", 10, 16, tokens(900), epochs(3.0));
    check_defaults("adapter: {rank: 8}", 5000, 8, rows(16), epochs(3.0));
    check_defaults("train: {max_steps: 70, batch_size: 4}", 10, 16, rows(4), steps(70));
}

/// What the recipe's adapter covers, over the small model.
fn covered(document: &Document) -> model::adapter::Coverage {
    coverage(document, &Fixture::new().base().config).unwrap()
}

#[test]
fn a_recipe_says_why_it_chose() {
    let document = filled("", 100, 0);
    let recipe = Recipe::read(&document).unwrap();
    assert_eq!(recipe.learning_rate, 5e-4);
    let coverage = covered(&document);
    assert_eq!((coverage.kind, coverage.dora, recipe.dropout), (LoraKind::Lora, false, 0.0));
    assert_eq!(coverage.target, Target::AllLinear);
    let adamw = Optimizer::AdamW { betas: [0.9, 0.999], eps: 1e-8 };
    let optimizer = &recipe.optimizer;
    assert_eq!((optimizer.matrices, optimizer.others), (adamw, adamw));
    assert_eq!(optimizer.weight_decay, 0.0);
    for role in [Role::LoraA, Role::LoraB, Role::Embedding, Role::Tokens, Role::Linear] {
        assert_eq!(optimizer.rate(role), 1.0, "{role:?}");
    }
    assert_eq!(recipe.max_grad_norm, Some(1.0));
    assert_eq!((recipe.save_every, recipe.keep), (Every::Minutes(10.0), 2));
    assert_eq!(recipe.evaluate_every, Every::Steps(5));
    let schedule = recipe.schedule(100);
    assert_eq!((schedule.kind, schedule.warmup_steps), (ScheduleKind::Cosine, 3));
    let yaml = document.to_yaml();
    assert!(yaml.contains("lowered from 16 so that 100 rows make about 50 steps"), "{yaml}");
    for key in ["adapter.rank", "adapter.alpha", "train.learning_rate", "train.batch_size"] {
        assert!(!document.is_given(key) && document.value(key).is_some(), "{key}");
    }
}

#[test]
fn the_recipe_of_the_guide_is_read_as_it_says() {
    let document = fixture(
        "model: {id: org/tiny, revision: main, template_kwargs: {enable_thinking: false}}
method: sft
adapter: {type: rslora, rank: 8, alpha: 32, target_modules: [v_proj, q_proj, v_proj], dropout: 0.1}
quantization: none
data:
  train: [{path: rows.jsonl}]
  validation: {fraction: 0.1, by: row}
  max_seq_len: auto
  overlong: error
train:
  epochs: 3
  tokens_per_step: 4096
  learning_rate: 2.0e-4
  schedule: {type: linear, warmup_steps: 7, min_ratio: 0.1}
  optimizer: {type: adamw, weight_decay: 0.01, betas: [0.8, 0.95], eps: 1e-6}
  max_grad_norm: none
  evaluate_every: {tokens: 20000}
  save: {steps: 20, keep: 3}
  sample: {prompts: [Hello], system: Be brief., max_new_tokens: 9}
output: runs/tickets
seed: 1
device: auto
",
    );
    let mut document = document.document(&[]);
    fill_by_data(&mut document, 100, ModelSize::default());
    let recipe = Recipe::read(&document).unwrap();
    let coverage = covered(&document);
    assert_eq!((coverage.kind, coverage.rank, coverage.alpha), (LoraKind::RsLora, 8, 32.0));
    let names = ["v_proj", "q_proj", "v_proj"].map(str::to_owned);
    assert_eq!(coverage.target, Target::Names(names.into()));
    assert_eq!(recipe.step_size, StepSize::Tokens(4096));
    let adamw = Optimizer::AdamW { betas: [0.8, 0.95], eps: 1e-6 };
    assert_eq!((recipe.max_grad_norm, recipe.optimizer.matrices), (None, adamw));
    assert_eq!(recipe.optimizer.weight_decay, 0.01);
    assert_eq!(recipe.evaluate_every, Every::Tokens(20000));
    assert_eq!((recipe.save_every, recipe.keep), (Every::Steps(20), 3));
    assert_eq!(recipe.sample.prompts, ["Hello"]);
    let schedule = recipe.schedule(100);
    assert_eq!((schedule.kind, schedule.warmup_steps), (ScheduleKind::Linear, 7));
    assert_eq!(schedule.min_ratio, 0.1);
}
