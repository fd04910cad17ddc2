//! Adapter folders as PEFT writes and reads them: `adapter_config.json` and
//! `adapter_model.safetensors`.

mod config;
mod tensors;
mod write;

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::config::LoraConfig;
use crate::architecture::{EMBEDDING, HEAD};
use crate::tensor::HostTensor;
use crate::{Config, Error, Result};

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";
/// What Tunesmith adds: the hash of the base, and in a finished adapter the template's date.
const OWN: &str = "tunesmith.json";

/// What an adapter folder says beside shapes and values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeftMetadata {
    /// `base_model_name_or_path`.
    pub base_model: String,
    /// Branch, tag or commit of a base on the hub; none is its main branch.
    pub revision: Option<String>,
    /// Hash of the base's weight files, where Tunesmith wrote the adapter.
    pub base_hash: Option<String>,
}

impl PeftMetadata {
    /// Whether `dir` holds an adapter.
    pub fn is_adapter(dir: &Path) -> bool {
        dir.join(CONFIG).is_file()
    }

    /// Reads which base an adapter belongs to, before the base is opened.
    pub fn read(dir: &Path) -> Result<Self> {
        let json = read_config(dir)?;
        let base_model = json.get("base_model_name_or_path").and_then(Value::as_str);
        let revision = json.get("revision").and_then(Value::as_str).filter(|text| !text.is_empty());
        let own = std::fs::read(dir.join(OWN)).ok();
        let own: Option<Value> = own.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let base_hash = own.and_then(|own| Some(own.get("base_hash")?.as_str()?.to_owned()));
        Ok(PeftMetadata {
            base_model: base_model.unwrap_or_default().into(),
            revision: revision.map(str::to_owned),
            base_hash,
        })
    }
}

/// An adapter folder on the host.
#[derive(Clone, Debug)]
pub struct LoadedAdapter {
    /// What it covers.
    pub config: LoraConfig,
    /// Its matrices in the order of [`LoraConfig::matrices`].
    pub values: Vec<Vec<f32>>,
    /// Whole tensors of the base that it brings, by their names in the base: those of `modules_to_save`, and
    /// embedding and head where the vocabulary has another size. Of a tied pair it is the embedding.
    pub replaced: BTreeMap<String, HostTensor>,
}

impl LoadedAdapter {
    /// Reads the adapter of a language model from its folder. What cannot be honoured is refused by name.
    pub fn read(dir: &Path, model: &Config) -> Result<Self> {
        match Self::read_scored(dir, model)? {
            (adapter, None) => Ok(adapter),
            (_, Some(_)) => {
                let message = "the adapter is a reward model: it gives scores, not text";
                Err(Error::file(dir.join(CONFIG), message)
                    .with_hint("give an adapter of `task_type` CAUSAL_LM"))
            }
        }
    }

    /// Reads an adapter folder, and the score head, `[N, C]`, of a reward model (N = 1) or a classifier of N labels,
    /// where it holds one: PEFT calls such a folder a sequence classifier (`SEQ_CLS`). PEFT writes neither the number
    /// nor the names of the labels into the folder.
    pub fn read_scored(dir: &Path, model: &Config) -> Result<(Self, Option<Vec<f32>>)> {
        let path = dir.join(CONFIG);
        let json = read_config(dir)?;
        config::refuse_unsupported(&json, &path)?;
        let mut config = config::config_of(&json, &path)?;
        config.tokens_in_head |= model.tie_word_embeddings;
        // Before it wrote the key, Tunesmith trained the two as one.
        let is_own = json.get("ensure_weight_tying").is_none() && dir.join(OWN).is_file();
        config.ensure_weight_tying |= is_own && config.saves(EMBEDDING) && !config.saves(HEAD);
        config.settle_tying(model);
        let patterns = ["rank_pattern", "alpha_pattern"];
        let [ranks, alphas] = patterns.map(|key| config::patterns(&json, key, &path));
        let bytes = read_weights(dir)?;
        let is_scored = config::is_scored(&json);
        tensors::read(&bytes, &dir.join(WEIGHTS), model, config, &[ranks?, alphas?], is_scored)
    }
}

fn read_config(dir: &Path) -> Result<Value> {
    let path = dir.join(CONFIG);
    let bytes = std::fs::read(&path).map_err(Error::io(&path))?;
    serde_json::from_slice(&bytes).map_err(|error| Error::file(&path, format!("not JSON: {error}")))
}

fn read_weights(dir: &Path) -> Result<Vec<u8>> {
    let path = dir.join(WEIGHTS);
    if !path.is_file() && dir.join("adapter_model.bin").is_file() {
        return Err(Error::file(dir, "the adapter is an `adapter_model.bin`, not safetensors")
            .with_hint("load it with PEFT and save it with `safe_serialization=True`"));
    }
    std::fs::read(&path).map_err(Error::io(&path))
}
