//! What a run leaves for people and for other programs.

use std::fs;

use compute::Backend;
use serde_json::{Value, json};

use super::Summary;
use super::setup::Run;
use crate::run::{pretty, write_atomic};
use crate::{Error, Result};

/// Writes the current adapter as a folder that PEFT and servers take as it is.
pub(super) fn write_adapter(run: &Run, backend: &mut dyn Backend) -> Result<()> {
    let values = run.adapter.values(backend)?;
    write_values(run, &values, run.state.step)
}

/// Writes the adapter that had these values after this step.
///
/// Every file is replaced as a whole; a reader never sees half of one.
pub(super) fn write_values(run: &Run, values: &[Vec<f32>], step: u64) -> Result<()> {
    let dir = run.folder.adapter();
    let beside = run.folder.path().join(".adapter.partial");
    if beside.exists() {
        fs::remove_dir_all(&beside).map_err(Error::io(&beside))?;
    }
    fs::create_dir_all(&beside).map_err(Error::io(&beside))?;
    fs::create_dir_all(&dir).map_err(Error::io(&dir))?;
    run.adapter.config().save(&beside, &run.decoder.config, values, &run.peft)?;
    // The weights last: who sees them sees the config that belongs to them.
    for name in ["adapter_config.json", "adapter_model.safetensors"] {
        let (from, to) = (beside.join(name), dir.join(name));
        let synced = fs::File::open(&from).and_then(|file| file.sync_all());
        synced.and_then(|()| fs::rename(&from, &to)).map_err(Error::io(&to))?;
    }
    fs::remove_dir_all(&beside).map_err(Error::io(&beside))?;
    let metadata = &run.metadata;
    let text = |json: &Value| pretty(json).into_bytes();
    let tokenizer = metadata.tokenizer.to_json().map_err(model::Error::from)?;
    write_atomic(&dir.join("tokenizer.json"), tokenizer.as_bytes())?;
    write_atomic(&dir.join("tokenizer_config.json"), &text(&metadata.tokenizer.config_json()))?;
    if let Some(template) = &metadata.chat_template {
        write_atomic(&dir.join("chat_template.jinja"), template.source().as_bytes())?;
    }
    let mut generation = metadata.generation_config.clone();
    if !generation.is_object() {
        generation = json!({});
    }
    generation["eos_token_id"] = json!(metadata.eos_token_ids);
    write_atomic(&dir.join("generation_config.json"), &text(&generation))?;
    let own = json!({"schema": 1, "date": run.date.to_string(), "base_hash": run.peft.base_hash,
                     "step": step, "template_kwargs": run.template_kwargs});
    write_atomic(&dir.join("tunesmith.json"), &text(&own))?;
    write_atomic(&dir.join("README.md"), card(run).as_bytes())
}

/// The model card.
fn card(run: &Run) -> String {
    let config = run.adapter.config();
    let base = &run.peft.base_model;
    let validation = match run.state.best {
        Some((step, loss)) => format!("Validation loss {loss:.4} at step {step}.\n"),
        None => String::new(),
    };
    format!(
        "---\nbase_model: {base}\nlibrary_name: peft\npipeline_tag: text-generation\ntags: [lora, sft, tunesmith]\n---\n\n\
         # Adapter for {base}\n\n\
         Supervised fine-tuning of a LoRA adapter of rank {} (alpha {}) with Tunesmith {}.\n{validation}\n\
         * Trained on {} rows; loss on assistant turns, their end-of-turn token included.\n\
         * Base weights: SHA-256 `{}`.\n\
         * `chat_template.jinja` is the template that it was trained with.\n",
        config.rank,
        config.alpha,
        env!("CARGO_PKG_VERSION"),
        run.train.len(),
        run.peft.base_hash.as_deref().unwrap_or("unknown"),
    )
}

/// `report.md`: the run in a page.
pub(super) fn write_report(run: &Run, summary: &Summary) -> Result<()> {
    let number = |value: Option<f64>| value.map_or("none".to_owned(), |v| format!("{v:.4}"));
    let mut text = format!(
        "# {}\n\n| | |\n|---|---|\n| status | {} |\n| steps | {} |\n| rows, tokens, supervised | {}, {}, {} |\n\
         | loss first, last | {}, {} |\n| validation best (step), last | {} ({}), {} |\n| tokens/s | {:.0} |\n| seconds | {:.1} |\n",
        run.folder.path().file_name().unwrap_or_default().to_string_lossy(),
        summary.status,
        summary.steps,
        run.state.rows,
        summary.tokens,
        summary.tokens_supervised,
        number(summary.loss_first),
        number(summary.loss_last),
        number(summary.validation_best),
        summary.best_step,
        number(summary.validation_last),
        summary.tokens_per_s,
        summary.seconds,
    );
    if !run.findings.is_empty() {
        text.push_str("\n## Findings\n\n");
    }
    for finding in &run.findings {
        text.push_str(&format!(
            "* `{}` ({} rows): {}; {}\n",
            finding.id, finding.count, finding.message, finding.hint
        ));
    }
    write_atomic(&run.folder.path().join("report.md"), text.as_bytes())
}
