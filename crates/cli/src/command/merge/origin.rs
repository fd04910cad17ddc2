//! What is merged: the adapter, the base that it goes into, and the model that it was trained as.

use std::path::{Path, PathBuf};

use compute::Quantization;
use keys::Document;
use model::adapter::PeftMetadata;
use model::merge::adapter_hash;
use model::{Base, Config};
use serde_json::Value;
use session::Serving;
use text::Date;
use train::recipe::{quantization, schema};

use crate::context::Context;
use crate::error::{Failure, Result};
use hub::Resolved;

/// An adapter, and the base that it is merged into.
pub(super) struct Origin {
    pub(super) adapter: PathBuf,
    pub(super) adapter_hash: String,
    /// The adapter's `tunesmith.json`.
    pub(super) own: Serving,
    pub(super) base: Base,
    pub(super) base_name: String,
    pub(super) base_hash: String,
    /// How the base is stored.
    pub(super) storage: String,
    /// The model as it was trained; none where its weights are not at hand.
    pub(super) trained: Option<Trained>,
    /// The recipe of the run that the adapter lies in.
    pub(super) recipe: Option<Document>,
    /// What the user should know of the merge.
    pub(super) notes: Vec<String>,
}

/// The frozen weights under an adapter while it was trained.
pub(super) struct Trained {
    pub(super) path: PathBuf,
    pub(super) quantization: Option<Quantization>,
    /// Whether these are the weights that the adapter is merged into.
    pub(super) is_base: bool,
}

impl Origin {
    /// Finds all parts, and refuses those that do not belong together.
    pub(super) fn find(context: &Context, given: &str, base: Option<&str>) -> Result<Self> {
        let (adapter, recorded) = adapter_of(context, given, base.is_some())?;
        let own = Serving::read(&adapter)?;
        let (target, base_name) = match (base, &recorded) {
            (Some(name), _) => base_of(context, name)?,
            (None, Some(recorded)) => (recorded.path.clone(), recorded.name.clone()),
            (None, None) => unreachable!("without `--base` a base was found"),
        };
        let hash = adapter_hash(&adapter)?;
        refuse_twice(&target, &hash)?;
        let base = Base::open(&target)?;
        let notes =
            base.remarks.iter().map(|remark| format!("{}; {}", remark.message, remark.hint));
        let notes = notes.collect();
        let base_hash = base.hash()?;
        let storage = base.storage_name()?;
        let recipe = recipe_of(context, &adapter);
        let quantization = own.quantization().or_else(|| recipe.as_ref().and_then(quantization));
        let mut origin = Origin {
            adapter,
            adapter_hash: hash,
            own,
            base,
            base_name,
            base_hash,
            storage,
            trained: None,
            recipe,
            notes,
        };
        origin.relate(recorded.as_ref(), quantization)?;
        Ok(origin)
    }

    /// The date that the chat template takes for today.
    pub(super) fn date(&self, context: &Context) -> Date {
        let date = self.own.date.as_deref().and_then(|date| date.parse().ok());
        date.unwrap_or_else(|| context.today())
    }

    /// Checks that the base is the one that the adapter belongs to, and finds the model as trained.
    fn relate(
        &mut self,
        at_hand: Option<&Resolved>,
        quantization: Option<Quantization>,
    ) -> Result<()> {
        let recorded_hash = PeftMetadata::read(&self.adapter)?.base_hash;
        let at_hand = at_hand.map(|found| found.path.as_path());
        let is_base = match &recorded_hash {
            Some(hash) => *hash == self.base_hash,
            None => match at_hand.filter(|path| !same_file(path, &self.base.path)) {
                Some(path) => Base::open(path)?.hash()? == self.base_hash,
                None => true,
            },
        };
        if recorded_hash.is_none() {
            self.notes.push(
                "the adapter does not say which weights it was trained over: that they are these \
                 was not checked"
                    .into(),
            );
        }
        if !is_float(&self.storage) {
            self.notes.push(format!(
                "the base is stored as {}: its numbers are written as they were trained with, not \
                 those of the original",
                self.storage
            ));
        }
        if is_base {
            let path = self.base.path.clone();
            self.trained = Some(Trained { path, quantization, is_base: true });
            return Ok(());
        }
        let trained = at_hand.map(Base::open).transpose()?;
        let trained = match (trained, &recorded_hash) {
            (Some(base), Some(hash)) if base.hash()? != *hash => None,
            (trained, _) => trained,
        };
        let storage = match &trained {
            Some(base) => Some(base.storage_name()?),
            None => self.recorded_storage()?,
        };
        self.check_original(storage.as_deref(), trained.as_ref())?;
        let storage = storage.unwrap_or_default();
        self.notes.push(format!(
            "trained over {storage} weights, merged into the {} original {}",
            self.storage,
            shown(&self.base_name)
        ));
        self.trained =
            trained.map(|base| Trained { path: base.path, quantization, is_base: false });
        Ok(())
    }

    /// How the base was stored while training, as the adapter or its run recorded it.
    fn recorded_storage(&self) -> Result<Option<String>> {
        if self.own.base_storage.is_some() {
            return Ok(self.own.base_storage.clone());
        }
        let Some(run) = self.adapter.parent() else { return Ok(None) };
        let manifest = json_file(&run.join("manifest.json"))?;
        Ok(manifest["model_storage"].as_str().map(str::to_owned))
    }

    /// Refuses a base with other weights, unless it is the original of quantised ones.
    fn check_original(&self, storage: Option<&str>, trained: Option<&Base>) -> Result<()> {
        let path = self.base.path.display();
        let wrong = |message: String| Failure::wrong("wrong_base", message).at(&self.base.path);
        let name = PeftMetadata::read(&self.adapter)?.base_model;
        if storage.is_none_or(is_float) || !is_float(&self.storage) {
            let message = format!("{path}: the adapter was trained over other weights");
            return Err(
                wrong(message).hint(format!("give the base that it was trained over: {name}"))
            );
        }
        match trained.filter(|base| !same_shape(&base.config, &self.base.config)) {
            None => Ok(()),
            Some(_) => Err(wrong(format!("{path}: its shape is not that of {name}"))
                .hint("give the original that the quantised base was made of")),
        }
    }
}

/// The adapter folder of a run, an adapter or a hub id, and its base where that is found.
///
/// With another base given it need not be.
fn adapter_of(
    context: &Context,
    given: &str,
    base_given: bool,
) -> Result<(PathBuf, Option<Resolved>)> {
    let failure = match context.models().resolve(given) {
        Ok(found) => {
            return match found.adapter.clone() {
                Some(adapter) => Ok((adapter, Some(found))),
                None => Err(no_adapter(given, &found.path)?),
            };
        }
        Err(failure) => failure,
    };
    let path = context.environment.path(given);
    let folders = [path.join("adapter"), path];
    let adapter = folders.into_iter().find(|folder| PeftMetadata::is_adapter(folder));
    match adapter.filter(|_| base_given) {
        Some(adapter) => Ok((adapter, None)),
        None => Err(failure.into()),
    }
}

/// The base that `--base` names, and what it is called.
fn base_of(context: &Context, given: &str) -> Result<(PathBuf, String)> {
    let path = context.environment.path(given);
    if path.join("config.json").is_file() {
        // A model, whatever else lies in its folder.
        let name = path.display().to_string();
        return Ok((path, name));
    }
    let found = context.models().resolve(given)?;
    if found.adapter.is_some() {
        let message = format!("`--base {given}` is an adapter itself");
        return Err(Failure::wrong("model", message).hint("name the base alone"));
    }
    Ok((found.path, found.name))
}

fn no_adapter(given: &str, path: &Path) -> Result<Failure> {
    if Serving::read(path)?.is_merged() {
        let message = format!("{given}: is merged already");
        return Ok(Failure::wrong("merged_already", message).at(path).hint("use it as it is"));
    }
    let message = format!("{given}: is a model without an adapter");
    Ok(Failure::wrong("model", message)
        .at(path)
        .hint("name a run, an adapter folder or the hub id of an adapter"))
}

/// Refuses to add an adapter to a model that holds it.
fn refuse_twice(base: &Path, adapter_hash: &str) -> Result<()> {
    let merged = Serving::read(base)?.merged.unwrap_or_default();
    if merged["adapter_hash"] != adapter_hash {
        return Ok(());
    }
    let message = format!("{}: this adapter is merged into it already", base.display());
    Err(Failure::wrong("merged_already", message)
        .at(base)
        .hint("use it as it is, or give the base that the adapter was trained over"))
}

/// The recipe of the run that an adapter lies in, if there is one that can be read.
fn recipe_of(context: &Context, adapter: &Path) -> Option<Document> {
    let path = adapter.parent()?.join("recipe.yaml");
    let text = std::fs::read_to_string(&path).ok()?;
    let read = |around: &keys::Surroundings<'_>| schema().parse(&text, &path, &[], around);
    context.environment.with_surroundings(read).ok()
}

/// The JSON of a file; null where there is none.
pub(super) fn json_file(path: &Path) -> Result<Value> {
    let Ok(bytes) = std::fs::read(path) else { return Ok(Value::Null) };
    serde_json::from_slice(&bytes).map_err(|error| {
        Failure::new("model_file", format!("{}: not JSON: {error}", path.display())).at(path)
    })
}

fn is_float(storage: &str) -> bool {
    ["f32", "f16", "bf16"].contains(&storage)
}

pub(super) fn same_file(a: &Path, b: &Path) -> bool {
    match (a.canonicalize(), b.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        _ => false,
    }
}

/// Whether an adapter over one model fits the other; vocabularies may be padded.
fn same_shape(a: &Config, b: &Config) -> bool {
    let shape = |config: &Config| {
        (
            config.hidden_size,
            config.intermediate_size,
            config.num_hidden_layers,
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
        )
    };
    shape(a) == shape(b) && a.model_type == b.model_type
}

/// What a base is called where others read it: of a path the last part alone.
pub(super) fn shown(base: &str) -> &str {
    let name = Path::new(base).file_name().and_then(|name| name.to_str());
    name.filter(|_| Path::new(base).is_absolute()).unwrap_or(base)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_names_no_folder_of_this_machine() {
        for (base, expected) in
            [("owner/name", "owner/name"), ("/home/me/base", "base"), ("/x/a.gguf", "a.gguf")]
        {
            assert_eq!(shown(base), expected);
        }
    }
}
