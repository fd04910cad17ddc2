//! Adapter folders as PEFT writes and reads them: `adapter_config.json` and
//! `adapter_model.safetensors`.

use std::collections::BTreeMap;
use std::path::Path;

use regex_lite::Regex;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Map, Value, json};

use super::lora::{LoraConfig, LoraKind};
use crate::{Config, Error, Module, Result};

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";
/// What Tunesmith adds: the hash of the base, and in a finished adapter the template's date.
const OWN: &str = "tunesmith.json";

/// Shape and values of a matrix in a file.
type Stored = (Vec<usize>, Vec<f32>);

/// What an adapter folder says beside shapes and values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeftMetadata {
    /// `base_model_name_or_path`.
    pub base_model: String,
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
        let own = std::fs::read(dir.join(OWN)).ok();
        let own: Option<Value> = own.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let base_hash = own.and_then(|own| Some(own.get("base_hash")?.as_str()?.to_owned()));
        Ok(PeftMetadata { base_model: base_model.unwrap_or_default().into(), base_hash })
    }
}

impl LoraConfig {
    /// Reads an adapter folder: what it covers, and the values of its matrices in the order of
    /// [`LoraConfig::matrices`]. What cannot be honoured is refused by name.
    pub fn load(dir: &Path, model: &Config) -> Result<(Self, Vec<Vec<f32>>)> {
        let path = dir.join(CONFIG);
        let json = read_config(dir)?;
        refuse_unsupported(&json, &path)?;
        let use_rslora = json.get("use_rslora").and_then(Value::as_bool) == Some(true);
        let mut config = LoraConfig {
            kind: if use_rslora { LoraKind::RsLora } else { LoraKind::Lora },
            rank: number(&json, &path, "r", None, |r| r >= 1.0 && r.fract() == 0.0)? as usize,
            alpha: number(&json, &path, "lora_alpha", None, |_| true)? as f32,
            dropout: number(&json, &path, "lora_dropout", Some(0.0), |p| (0.0..1.0).contains(&p))?
                as f32,
            modules: BTreeMap::new(),
        };
        let alphas = Patterns::new(&json, "alpha_pattern", &path)?;
        let ranks = Patterns::new(&json, "rank_pattern", &path)?;
        let bytes = read_weights(dir)?;
        let weights_path = dir.join(WEIGHTS);
        let tensors = SafeTensors::deserialize(&bytes).map_err(|error| {
            Error::file(&weights_path, format!("not a whole safetensors file: {error}"))
        })?;
        let mut matrices: BTreeMap<(usize, Module, bool), Stored> = BTreeMap::new();
        for (name, view) in tensors.tensors() {
            let Some((layer, module, is_b)) = parse_name(&name) else {
                return Err(Error::file(
                    &weights_path,
                    format!("tensor `{name}` is not supported"),
                )
                .with_hint("supported: lora_A and lora_B of the linear layers of a decoder"));
            };
            if layer >= model.num_hidden_layers {
                return Err(Error::file(
                    &weights_path,
                    format!(
                        "tensor `{name}` is for layer {layer} of a model with {} layers",
                        model.num_hidden_layers
                    ),
                )
                .with_hint("the adapter belongs to another base"));
            }
            let values = to_f32(&view).ok_or_else(|| {
                Error::file(
                    &weights_path,
                    format!("tensor `{name}` is stored as {:?}", view.dtype()),
                )
            })?;
            matrices.insert((layer, module, is_b), (view.shape().to_vec(), values));
        }
        let mut values = Vec::with_capacity(matrices.len());
        for (&(layer, module, is_b), (shape, _)) in &matrices {
            if !matrices.contains_key(&(layer, module, !is_b)) {
                let part = if is_b { "lora_A" } else { "lora_B" };
                return Err(Error::file(
                    &weights_path,
                    format!("layer {layer} `{}` has no `{part}`", module.name()),
                ));
            }
            let (rows, cols) = model.shape(module);
            let (rank, fits) =
                if is_b { (shape[1], shape[0] == rows) } else { (shape[0], shape[1] == cols) };
            if !fits || rank == 0 {
                return Err(Error::file(
                    &weights_path,
                    format!(
                        "layer {layer} `{}`: shape {shape:?} does not fit a {rows} x {cols} layer",
                        module.name()
                    ),
                )
                .with_hint("the adapter belongs to another base"));
            }
            let key = format!("model.layers.{layer}.{}", module.path());
            let stated = ranks.find(&key).unwrap_or(config.rank as f64);
            if stated != rank as f64 {
                return Err(Error::file(
                    &weights_path,
                    format!(
                        "layer {layer} `{}`: shape {shape:?}, but the config says rank {stated}",
                        module.name()
                    ),
                )
                .with_hint(
                    "`r` and `rank_pattern` of `adapter_config.json` must fit the matrices",
                ));
            }
            let alpha = alphas.find(&key).map_or(config.alpha, |alpha| alpha as f32);
            config.modules.insert((layer, module), (rank, alpha));
        }
        if config.modules.is_empty() {
            return Err(Error::file(&weights_path, "no matrices"));
        }
        for (_, (_, matrix)) in matrices {
            values.push(matrix);
        }
        Ok((config, values))
    }

    /// Writes an adapter folder that PEFT loads. `values` in the order of [`LoraConfig::matrices`].
    pub fn save(
        &self,
        dir: &Path,
        model: &Config,
        values: &[Vec<f32>],
        metadata: &PeftMetadata,
    ) -> Result<()> {
        let path = dir.join(CONFIG);
        let text = serde_json::to_string_pretty(&self.peft_json(model, metadata))
            .expect("a JSON value can be written");
        std::fs::write(&path, text + "\n").map_err(Error::io(&path))?;
        let infos = self.matrices(model);
        let bytes: Vec<Vec<u8>> = values
            .iter()
            .map(|values| values.iter().flat_map(|v| v.to_le_bytes()).collect())
            .collect();
        let views = infos.iter().zip(&bytes).map(|(info, bytes)| {
            let view = TensorView::new(Dtype::F32, vec![info.rows, info.cols], bytes);
            (info.name.clone(), view.expect("as many bytes as the shape asks for"))
        });
        // One entry only: the library writes a map in the order of its hash, which changes from run to run.
        let header = std::collections::HashMap::from([("format".to_owned(), "pt".to_owned())]);
        if let Some(hash) = &metadata.base_hash {
            let path = dir.join(OWN);
            let text = json!({"schema": 1, "base_hash": hash}).to_string();
            std::fs::write(&path, text + "\n").map_err(Error::io(&path))?;
        }
        let path = dir.join(WEIGHTS);
        let bytes = safetensors::serialize(views, Some(header))
            .map_err(|error| Error::file(&path, error.to_string()))?;
        std::fs::write(&path, bytes).map_err(Error::io(&path))
    }

    fn peft_json(&self, model: &Config, metadata: &PeftMetadata) -> Value {
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
        json!({
            "alpha_pattern": alphas,
            "auto_mapping": null,
            "base_model_name_or_path": metadata.base_model,
            "bias": "none",
            "fan_in_fan_out": false,
            "inference_mode": true,
            "init_lora_weights": true,
            "layers_pattern": null,
            "layers_to_transform": layers,
            "lora_alpha": float(self.alpha),
            "lora_dropout": float(self.dropout),
            "modules_to_save": null,
            "peft_type": "LORA",
            "r": self.rank,
            "rank_pattern": ranks,
            "revision": null,
            "target_modules": targets,
            "task_type": "CAUSAL_LM",
            "use_dora": false,
            "use_rslora": self.kind == LoraKind::RsLora,
        })
    }
}

/// A number as short as it was written, whole numbers without a point.
fn float(value: f32) -> Value {
    if value.fract() == 0.0 {
        json!(value as i64)
    } else {
        json!(value.to_string().parse::<f64>().unwrap_or(f64::from(value)))
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

/// The number at a key, if `is_valid` takes it.
fn number(
    json: &Value,
    path: &Path,
    key: &str,
    default: Option<f64>,
    is_valid: impl Fn(f64) -> bool,
) -> Result<f64> {
    match (json.get(key), default) {
        (None | Some(Value::Null), Some(default)) => Ok(default),
        (None | Some(Value::Null), None) => Err(Error::file(path, format!("`{key}` is missing"))),
        (Some(value), _) => value
            .as_f64()
            .filter(|&number| is_valid(number))
            .ok_or_else(|| Error::file(path, format!("`{key}` = {value} cannot be"))),
    }
}

/// Keys that say nothing about what the adapter computes, or whose every value is honoured.
const HONOURED: &[&str] = &[
    "alpha_pattern",
    "auto_mapping",
    "base_model_name_or_path",
    "exclude_modules",
    "inference_mode",
    "layers_pattern",
    "layers_to_transform",
    "lora_alpha",
    "lora_dropout",
    "peft_type",
    "peft_version",
    "r",
    "rank_pattern",
    "revision",
    "target_modules",
    "task_type",
    "use_rslora",
    "megatron_core",
    "qalora_group_size",
    "runtime_config",
    "ensure_weight_tying",
    "eva_config",
    "corda_config",
    "loftq_config",
    "lora_ga_config",
    "arrow_config",
];

fn refuse_unsupported(json: &Value, path: &Path) -> Result<()> {
    let kind = json.get("peft_type").and_then(Value::as_str).unwrap_or("?");
    if kind != "LORA" {
        return Err(Error::file(path, format!("`peft_type` = `{kind}` is not supported"))
            .with_hint("supported: LORA"));
    }
    let empty = Map::new();
    for (key, value) in json.as_object().unwrap_or(&empty) {
        let is_default = match value {
            Value::Null | Value::Bool(false) => true,
            Value::Array(list) => list.is_empty(),
            Value::Object(map) => map.is_empty(),
            Value::String(text) => match key.as_str() {
                "bias" => text == "none",
                // These change only how training began, not what the matrices mean.
                "init_lora_weights" => matches!(text.as_str(), "gaussian" | "eva" | "orthogonal"),
                _ => text.is_empty(),
            },
            Value::Bool(true) => key == "init_lora_weights",
            Value::Number(_) => false,
        };
        if !is_default && !HONOURED.contains(&key.as_str()) {
            return Err(Error::file(path, format!("`{key}` = {value} is not supported"))
                .with_hint("an adapter that needs it would compute something else here"));
        }
    }
    Ok(())
}

/// `rank_pattern` or `alpha_pattern`: the first pattern that ends a module's name wins.
struct Patterns(Vec<(Regex, f64)>);

impl Patterns {
    fn new(json: &Value, key: &str, path: &Path) -> Result<Self> {
        let mut patterns = Vec::new();
        for (pattern, value) in json.get(key).and_then(Value::as_object).into_iter().flatten() {
            let Some(number) = value.as_f64() else {
                let message = format!("`{key}`: `{pattern}` = {value} is not a number");
                return Err(Error::file(path, message));
            };
            let regex = Regex::new(&format!(r"^(.*\.)?({pattern})$")).map_err(|error| {
                Error::file(
                    path,
                    format!("pattern `{pattern}` is not a regular expression: {error}"),
                )
            })?;
            patterns.push((regex, number));
        }
        Ok(Patterns(patterns))
    }

    fn find(&self, key: &str) -> Option<f64> {
        self.0.iter().find(|(regex, _)| regex.is_match(key)).map(|(_, value)| *value)
    }
}

/// Layer, module and whether it is `lora_B`, from PEFT's tensor name.
fn parse_name(name: &str) -> Option<(usize, Module, bool)> {
    let rest = name.strip_prefix("base_model.model.model.layers.")?;
    let (layer, rest) = rest.split_once('.')?;
    let module = Module::ALL.into_iter().find(|module| rest.starts_with(module.path()))?;
    match rest.strip_prefix(module.path())? {
        ".lora_A.weight" => Some((layer.parse().ok()?, module, false)),
        ".lora_B.weight" => Some((layer.parse().ok()?, module, true)),
        _ => None,
    }
}

fn to_f32(view: &TensorView<'_>) -> Option<Vec<f32>> {
    let storage = match view.dtype() {
        Dtype::F32 => compute::Storage::F32,
        Dtype::F16 => compute::Storage::F16,
        Dtype::BF16 => compute::Storage::Bf16,
        _ => return None,
    };
    if view.shape().len() != 2 {
        return None;
    }
    let mut values = vec![0.0; view.shape().iter().product()];
    compute::dequant::dequantize(storage, view.data(), &mut values);
    Some(values)
}
