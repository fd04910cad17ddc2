//! Adapter folders written.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::Dtype;
use serde_json::{Map, Value, json};

use super::config::{SCORED, module_name};
use super::{CONFIG, OWN, PeftMetadata, WEIGHTS};
use crate::adapter::config::{LoraConfig, LoraKind};
use crate::architecture::{EMBEDDING, HEAD};
use crate::checkpoint::{Announced, TensorWriter};
use crate::tensor::HostTensor;
use crate::{Config, Error, Module, Result, ScalarHead};

impl LoraConfig {
    /// Writes an adapter folder that PEFT loads. `values` in the order of [`LoraConfig::matrices`];
    /// `saved` are whole tensors of the base, by their names in the base. A head that is tied to a saved
    /// embedding is written too: PEFT looks for both.
    pub fn save(
        &self,
        dir: &Path,
        model: &Config,
        values: &[Vec<f32>],
        saved: &BTreeMap<String, HostTensor>,
        metadata: &PeftMetadata,
    ) -> Result<()> {
        self.save_scored(dir, model, values, saved, None, metadata)
    }

    /// As [`save`](LoraConfig::save), for a reward model or a classifier where there is a score head, `[N, C]`: PEFT
    /// loads the folder over a sequence classifier with `num_labels` N.
    ///
    /// # Errors
    /// Those of [`check_scored`](LoraConfig::check_scored).
    pub fn save_scored(
        &self,
        dir: &Path,
        model: &Config,
        values: &[Vec<f32>],
        saved: &BTreeMap<String, HostTensor>,
        score: Option<&[f32]>,
        metadata: &PeftMetadata,
    ) -> Result<()> {
        if score.is_some() {
            self.check_scored(model)?;
        }
        let path = dir.join(CONFIG);
        let text = serde_json::to_string_pretty(&self.peft_json(model, metadata, score.is_some()))
            .expect("a JSON value can be written");
        std::fs::write(&path, text + "\n").map_err(Error::io(&path))?;
        if let Some(hash) = &metadata.base_hash {
            let path = dir.join(OWN);
            let text = json!({"schema": 1, "base_hash": hash}).to_string();
            std::fs::write(&path, text + "\n").map_err(Error::io(&path))?;
        }
        let infos = self.matrices(model);
        assert_eq!(infos.len(), values.len(), "one value per matrix");
        let own = infos.into_iter().map(|info| (info.name, info.shape));
        let mut saved: Vec<(&str, &HostTensor)> =
            saved.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        let ties = model.tie_word_embeddings && !self.unties_head(model);
        if ties && self.tokens.is_empty() && score.is_none() {
            let embedding = saved.iter().find(|(name, _)| *name == EMBEDDING).map(|saved| saved.1);
            saved.extend(embedding.map(|embedding| (HEAD, embedding)));
        }
        let whole =
            saved.iter().map(|(name, (shape, _))| (self.name_of_saved(name, model), shape.clone()));
        let score_name = format!("base_model.model.{}", ScalarHead::TENSOR);
        let shape_of = |values: &[f32]| {
            let labels = (values.len() / model.hidden_size).max(1);
            vec![labels, values.len() / labels]
        };
        let head = score.iter().map(|values| (score_name.clone(), shape_of(values)));
        let announced: Vec<Announced> = own
            .chain(whole)
            .chain(head)
            .map(|(name, shape)| Announced { name, dtype: Dtype::F32, shape })
            .collect();
        let mut writer = TensorWriter::create(&dir.join(WEIGHTS), &announced)?;
        let saved = saved.iter().map(|(_, (_, values))| values);
        for values in values.iter().chain(saved).map(Vec::as_slice).chain(score) {
            writer.write_f32(values)?;
        }
        writer.finish()
    }

    /// Refuses to save an adapter as a reward model that changes the head of a language model: a sequence
    /// classifier has none.
    pub fn check_scored(&self, model: &Config) -> Result<()> {
        let has_rows = !self.tokens.is_empty() && self.token_modules(model).len() > 1;
        if !self.saves(HEAD) && !has_rows {
            return Ok(());
        }
        let message = "the adapter trains `lm_head`, which a reward model does not have".into();
        let hint = Some("train the embedding without the head".into());
        Err(Error::Input { message, hint })
    }

    /// PEFT's name for a whole tensor. Where rows of it are trained, it stands under them.
    fn name_of_saved(&self, name: &str, model: &Config) -> String {
        let module = name.strip_suffix(".weight").unwrap_or(name);
        let has_rows = !self.tokens.is_empty() && self.token_modules(model).contains(&module);
        match has_rows {
            true => format!("base_model.model.{module}.token_adapter.base_layer.weight"),
            false => format!("base_model.model.{name}"),
        }
    }

    fn peft_json(&self, model: &Config, metadata: &PeftMetadata, is_scored: bool) -> Value {
        let mut by_layer: BTreeMap<usize, Vec<Module>> = BTreeMap::new();
        for &(layer, module) in self.modules.keys() {
            by_layer.entry(layer).or_default().push(module);
        }
        let first = by_layer.values().next().cloned().unwrap_or_default();
        let same_modules = by_layer.values().all(|modules| *modules == first);
        let targets: Vec<String> = if same_modules {
            first.iter().map(|module| module.name().to_owned()).collect()
        } else {
            let keys = self.modules.keys();
            keys.map(|(layer, module)| format!("layers.{layer}.{}", module.path())).collect()
        };
        let layers = (same_modules && by_layer.len() < model.num_hidden_layers)
            .then(|| by_layer.keys().copied().collect::<Vec<_>>());
        let mut ranks = Map::new();
        let mut alphas = Map::new();
        for (&(layer, module), &(rank, alpha)) in &self.modules {
            let key = format!("layers.{layer}.{}", module.path());
            if rank != self.rank {
                ranks.insert(key.clone(), rank.into());
            }
            if alpha != self.alpha {
                alphas.insert(key, float(alpha));
            }
        }
        let tokens = (!self.tokens.is_empty()).then(|| {
            let modules = self.token_modules(model).iter();
            let entries = modules.map(|m| (module_name(m).to_owned(), json!(self.tokens)));
            Value::Object(entries.collect())
        });
        let scored = SCORED.into_iter().filter(|_| is_scored).map(str::to_owned);
        let modules_to_save: Vec<String> =
            self.modules_to_save.iter().cloned().chain(scored).collect();
        let mut json = json!({
            "alpha_pattern": alphas,
            "auto_mapping": null,
            "base_model_name_or_path": metadata.base_model,
            "bias": "none",
            "fan_in_fan_out": false,
            "inference_mode": true,
            "init_lora_weights": if self.pissa { json!("pissa") } else { json!(true) },
            "layers_pattern": null,
            "layers_to_transform": layers,
            "lora_alpha": float(self.alpha),
            "lora_dropout": float(self.dropout),
            "modules_to_save": some(&modules_to_save),
            "peft_type": "LORA",
            "r": self.rank,
            "rank_pattern": ranks,
            "revision": metadata.revision,
            "target_modules": targets,
            "task_type": if is_scored { "SEQ_CLS" } else { "CAUSAL_LM" },
            "trainable_token_indices": tokens,
            "use_dora": self.dora,
            "use_rslora": self.kind == LoraKind::RsLora,
        });
        if !self.modules_to_save.is_empty() {
            // Versions of PEFT before the key refuse it.
            json["ensure_weight_tying"] = self.ensure_weight_tying.into();
        }
        json
    }
}

/// A list, or null where it is empty.
fn some(list: &[String]) -> Value {
    if list.is_empty() { Value::Null } else { json!(list) }
}

/// A number as short as it was written, whole numbers without a point.
fn float(value: f32) -> Value {
    if value.fract() == 0.0 {
        json!(value as i64)
    } else {
        json!(value.to_string().parse::<f64>().unwrap_or(f64::from(value)))
    }
}
