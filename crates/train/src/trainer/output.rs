//! What a run leaves for other programs: the best adapter as PEFT has them, or the best model as
//! transformers has them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use compute::Backend;
use data::{Finding, Level};
use model::adapter::LoraKind;
use model::merge::{Merge, MergedType};
use model::{Base, LoraConfig};
use serde_json::{Value, json};
use session::Serving;

use super::start::Run;
use crate::checkpoint::{Best, link_files};
use crate::models::{TrainingSetup, Values};
use crate::run::{pretty, remove_any, sync_folder, write_atomic};
use crate::{Error, Result};

/// Bytes of one file of weights at most.
const SHARD_BYTES: u64 = 5_000_000_000;

/// Refuses what could not be written when all steps are done. What only values can spoil is not known yet.
///
/// An adapter can be written over any base; where it cannot be merged into this one later, that is a finding.
pub(super) fn check(base: &Base, setup: &TrainingSetup) -> Result<Option<Finding>> {
    let whole = |vocab_size| {
        Merge::of_tensors(base, BTreeMap::new(), vocab_size, MergedType::Auto).map(|_| ())
    };
    let Some(own) = setup.policy().own() else {
        whole(setup.vocab_size)?;
        return Ok(None);
    };
    for below in setup.policy().frozen() {
        own.config.check_over(&below.config)?;
    }
    if setup.policy().head.is_some() {
        own.config.check_scored(&setup.config(base))?;
    }
    Ok(whole(None).err().map(|error| Finding {
        id: "not-to-be-merged".into(),
        level: Level::Note,
        count: 1,
        places: Vec::new(),
        message: format!("the adapter cannot be merged into this base: {error}"),
        hint: error.hint().unwrap_or_default(),
    }))
}

/// Writes what is trained, as it stands.
pub(super) fn write(run: &Run, backend: &mut dyn Backend) -> Result<()> {
    let values = run.models.values(backend)?;
    write_values(run, values)
}

/// Puts the files that were the best up to a checkpoint back in their place.
pub(super) fn restore(run: &Run, best: &Path) -> Result<()> {
    link_files(best, &run.output())
}

/// Every file is replaced as a whole; a reader never sees half of one.
fn write_values(run: &Run, values: Values) -> Result<()> {
    let dir = run.output();
    let beside = run.folder.path().join(".output.partial");
    remove_any(&beside)?;
    let written = write_beside(run, values, &beside).and_then(|()| {
        fs::create_dir_all(&dir).map_err(Error::io(&dir))?;
        move_files(&beside, &dir)
    });
    // On a full disk what was written of it would keep the room that a checkpoint needs.
    let removed = remove_any(&beside);
    written.and(removed)
}

fn write_beside(run: &Run, values: Values, dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).map_err(Error::io(dir))?;
    match &run.models.policy().adapter {
        Some(_) => write_adapter(run, values, dir)?,
        None => write_model(run, values, dir)?,
    }
    write_companions(run, dir)
}

fn write_adapter(run: &Run, values: Values, dir: &Path) -> Result<()> {
    let config = &run.models.decoder.config;
    let exported = run.setup.exported(config, values.adapter)?;
    let (lora, matrices) = exported.expect("an adapter is trained");
    let tensors = run.setup.whole_tensors(values.tensors);
    // A value head is of use in training alone.
    let head = values.head.as_deref().filter(|_| run.method.has_scalar_head);
    lora.save_scored(dir, config, &matrices, &tensors, head, &run.peft)?;
    let card = adapter_card(run, &lora);
    write_atomic(&dir.join("README.md"), card.as_bytes())
}

/// The base with its trained tensors in their places.
fn write_model(run: &Run, values: Values, dir: &Path) -> Result<()> {
    let vocab_size = run.setup.vocab_size;
    let merge = Merge::of_tensors(&run.base, values.tensors, vocab_size, MergedType::Auto)?;
    merge.write(dir, SHARD_BYTES, run.threads, &mut |_| {})?;
    write_atomic(&dir.join("README.md"), model_card(run).as_bytes())
}

/// Tokenizer, template and generation config: what the weights are used with.
fn write_companions(run: &Run, dir: &Path) -> Result<()> {
    let metadata = &run.metadata;
    let text = |json: &Value| pretty(json).into_bytes();
    let tokenizer = metadata.tokenizer.to_json().map_err(model::Error::from)?;
    write_atomic(&dir.join("tokenizer.json"), tokenizer.as_bytes())?;
    write_atomic(&dir.join("tokenizer_config.json"), &text(&metadata.tokenizer.config_json()))?;
    if let Some(template) = &metadata.chat_template {
        write_atomic(&dir.join("chat_template.jinja"), template.source().as_bytes())?;
        if let Some(tool_use) = template.tool_use() {
            let folder = dir.join("additional_chat_templates");
            fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
            write_atomic(&folder.join("tool_use.jinja"), tool_use.source().as_bytes())?;
        }
    }
    let mut generation = metadata.generation_config.clone();
    if !generation.is_object() {
        generation = json!({});
    }
    generation["eos_token_id"] = json!(metadata.eos_token_ids);
    write_atomic(&dir.join("generation_config.json"), &text(&generation))?;
    write_atomic(&dir.join(Serving::FILE), serving(run).to_json().as_bytes())
}

/// How weights of the run are to be served, as it stands.
pub(super) fn serving(run: &Run) -> Serving {
    Serving {
        date: Some(run.date.to_string()),
        base_hash: run.peft.base_hash.clone(),
        base_storage: Some(run.storage.clone()),
        quantization: run.quantization.map(str::to_owned),
        step: Some(run.state.step),
        template_kwargs: run.template_kwargs.clone(),
        classes: run.classes.clone(),
        ..Serving::default()
    }
}

/// Moves files to where they belong, the weights last: who sees them sees what belongs to them.
fn move_files(from: &Path, to: &Path) -> Result<()> {
    let mut names = Vec::new();
    for entry in fs::read_dir(from).map_err(Error::io(from))? {
        names.push(entry.map_err(Error::io(from))?.file_name());
    }
    let is_weights = |name: &std::ffi::OsString| name.to_string_lossy().contains(".safetensors");
    names.sort_by_key(|name| (is_weights(name), name.clone()));
    for name in names {
        let (from, to) = (from.join(&name), to.join(&name));
        if from.is_dir() {
            fs::create_dir_all(&to).map_err(Error::io(&to))?;
            move_files(&from, &to)?;
            fs::remove_dir(&from).map_err(Error::io(&from))?;
            continue;
        }
        let synced = fs::File::open(&from).and_then(|file| file.sync_all());
        synced.and_then(|()| fs::rename(&from, &to)).map_err(Error::io(&to))?;
    }
    sync_folder(to)
}

fn adapter_card(run: &Run, lora: &LoraConfig) -> String {
    let (base, method) = (&run.peft.base_model, run.method.name);
    let kind = match (lora.dora, lora.kind) {
        (true, _) => "DoRA",
        (false, LoraKind::RsLora) => "rsLoRA",
        (false, LoraKind::Lora) => "LoRA",
    };
    let task = match run.method.has_scalar_head {
        true => "text-classification",
        false => "text-generation",
    };
    let over = match run.quantization {
        Some(name) => format!("* Trained over the base in {name}.\n"),
        None => String::new(),
    };
    let grown = match run.setup.vocab_size {
        Some(rows) => format!(
            "* The vocabulary has another size: `model.resize_token_embeddings({rows})` goes before PEFT loads it.\n"
        ),
        None => String::new(),
    };
    let labels = match run.classes.is_empty() {
        true => String::new(),
        false => {
            let id2label: serde_json::Map<String, Value> = (0..)
                .zip(&run.classes)
                .map(|(id, class): (usize, &String)| (id.to_string(), json!(class)))
                .collect();
            format!(
                "* For transformers: `AutoModelForSequenceClassification.from_pretrained(base, num_labels={})` goes \
                 before PEFT loads it; `id2label` is `{}`.\n",
                run.classes.len(),
                Value::Object(id2label)
            )
        }
    };
    let is_plain = !lora.dora && lora.tokens.is_empty() && lora.modules_to_save.is_empty();
    let alone = match is_plain && run.setup.vocab_size.is_none() {
        true => "",
        false => "* vLLM takes LoRA matrices only: merge it first, with `tunesmith merge`.\n",
    };
    format!(
        "---\nbase_model: {base}\nlibrary_name: peft\npipeline_tag: {task}\ntags: [lora, {method}, tunesmith]\n---\n\n\
         # Adapter for {base}\n\n\
         {} of a {kind} adapter of rank {} (alpha {}) with Tunesmith {}.\n{}\n\
         {}{labels}{over}{grown}{alone}",
        run.method.title,
        lora.rank,
        lora.alpha,
        env!("CARGO_PKG_VERSION"),
        validation(run),
        facts(run),
    )
}

fn model_card(run: &Run) -> String {
    let (base, method) = (&run.peft.base_model, run.method.name);
    format!(
        "---\nbase_model: {base}\npipeline_tag: text-generation\ntags: [{method}, tunesmith]\n---\n\n\
         # {base}, fine-tuned\n\n\
         {} of {} tensors of the model with Tunesmith {}.\n{}\n{}",
        run.method.title,
        run.models.decoder.trained().len(),
        env!("CARGO_PKG_VERSION"),
        validation(run),
        facts(run),
    )
}

fn validation(run: &Run) -> String {
    match &run.state.best {
        Some(Best { step, score, .. }) => {
            let reference = match score.reference_step {
                0 => String::new(),
                step => format!(", against the reference of step {step}"),
            };
            format!("Validation {} {:.4} at step {step}{reference}.\n", score.by, score.value)
        }
        None => String::new(),
    }
}

fn facts(run: &Run) -> String {
    format!(
        "* Trained on {} rows; {}.\n\
         * Base weights: SHA-256 `{}`.\n\
         * `chat_template.jinja` is the template that it was trained with.\n",
        run.counts.train,
        run.method.learned,
        run.peft.base_hash.as_deref().unwrap_or("unknown"),
    )
}
