//! `adapter_config.json`, as far as it says what the matrices compute.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};

use crate::adapter::config::{LoraConfig, LoraKind};
use crate::adapter::coverage::Patterns;
use crate::{Error, Result};

/// What `adapter_config.json` says of the whole adapter.
pub(super) fn config_of(json: &Value, path: &Path) -> Result<LoraConfig> {
    let flag = |key: &str| json.get(key).and_then(Value::as_bool) == Some(true);
    let init = json.get("init_lora_weights").and_then(Value::as_str).unwrap_or_default();
    let (tokens, tokens_in_head) = token_indices(json, path)?;
    Ok(LoraConfig {
        kind: if flag("use_rslora") { LoraKind::RsLora } else { LoraKind::Lora },
        rank: number(json, path, "r", None, |r| r >= 1.0 && r.fract() == 0.0)? as usize,
        alpha: number(json, path, "lora_alpha", None, |alpha| (alpha as f32).is_finite())? as f32,
        dropout: number(json, path, "lora_dropout", Some(0.0), |p| (0.0..1.0).contains(&p))? as f32,
        dora: flag("use_dora"),
        pissa: init.starts_with("pissa"),
        modules: BTreeMap::new(),
        tokens,
        tokens_in_head,
        modules_to_save: modules_to_save(json),
        ensure_weight_tying: flag("ensure_weight_tying"),
    })
}

/// The modules of a sequence classifier that PEFT saves without being asked. A decoder has the second.
pub(super) const SCORED: [&str; 2] = ["classifier", "score"];

/// Whether the adapter is that of a sequence classifier: a reward model.
pub(super) fn is_scored(json: &Value) -> bool {
    json.get("task_type").and_then(Value::as_str) == Some("SEQ_CLS")
}

/// `modules_to_save`, each once: PEFT lists `model.embed_tokens` beside `embed_tokens` where it ties the head.
/// The head of a sequence classifier is none of them.
fn modules_to_save(json: &Value) -> Vec<String> {
    let listed = json.get("modules_to_save").and_then(Value::as_array).into_iter().flatten();
    let mut names: Vec<&str> = listed.filter_map(Value::as_str).collect();
    names.retain(|name| !is_scored(json) || !SCORED.contains(name));
    let is_meant_by =
        |name: &str, other: &str| name.strip_suffix(other).is_some_and(|path| path.ends_with('.'));
    let own = names.iter().filter(|name| !names.iter().any(|other| is_meant_by(name, other)));
    own.map(|&name| name.to_owned()).collect()
}

/// `trainable_token_indices`: a list for the embedding, or lists by module that must be the same. Also says
/// whether the head has one.
fn token_indices(json: &Value, path: &Path) -> Result<(Vec<u32>, bool)> {
    let key = "trainable_token_indices";
    let value = json.get(key).unwrap_or(&Value::Null);
    let wrong = || {
        Error::file(path, format!("`{key}` = {value} is not supported"))
            .with_hint("supported: ascending token ids, the same for `embed_tokens` and `lm_head`")
    };
    let by_module: Vec<(&str, &Value)> = match value {
        Value::Null => return Ok((Vec::new(), true)),
        Value::Object(modules) => {
            modules.iter().map(|(name, list)| (module_name(name), list)).collect()
        }
        list => vec![("embed_tokens", list)],
    };
    let numbers = |list: &Value| -> Option<Vec<u32>> {
        let list = list.as_array()?.iter();
        let list: Option<Vec<u32>> =
            list.map(|n| n.as_u64().and_then(|n| u32::try_from(n).ok())).collect();
        list.filter(|list| list.is_sorted_by(|a, b| a < b))
    };
    let of = |module: &str| by_module.iter().find(|(name, _)| *name == module);
    let (_, embedding) = of("embed_tokens").ok_or_else(wrong)?;
    let tokens = numbers(embedding).ok_or_else(wrong)?;
    let head = of("lm_head");
    let is_same = head.is_none_or(|(_, list)| numbers(list).as_ref() == Some(&tokens));
    if !is_same || by_module.len() > 1 + usize::from(head.is_some()) {
        return Err(wrong());
    }
    Ok((tokens, head.is_some()))
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
            .ok_or_else(|| Error::file(path, format!("`{key}` = {value} is not a valid value"))),
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
    "modules_to_save",
    "peft_type",
    "peft_version",
    "r",
    "rank_pattern",
    "revision",
    "target_modules",
    "task_type",
    "trainable_token_indices",
    "use_dora",
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

/// Refuses what would compute something else than is computed here.
pub(super) fn refuse_unsupported(json: &Value, path: &Path) -> Result<()> {
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
                "init_lora_weights" => {
                    matches!(text.as_str(), "gaussian" | "eva" | "orthogonal")
                        || text.starts_with("pissa")
                }
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

/// `rank_pattern` or `alpha_pattern`.
pub(super) fn patterns(json: &Value, key: &'static str, path: &Path) -> Result<Patterns<f64>> {
    let mut listed = Vec::new();
    for (pattern, value) in json.get(key).and_then(Value::as_object).into_iter().flatten() {
        let number = value.as_f64().filter(|&number| (number as f32).is_finite());
        let Some(number) = number else {
            let message = format!("`{key}`: `{pattern}` = {value} is not a number");
            return Err(Error::file(path, message));
        };
        listed.push((pattern.clone(), number));
    }
    Patterns::new(key, &listed).map_err(|error| {
        let hint = error.hint().unwrap_or_default();
        Error::file(path, error.to_string()).with_hint(hint)
    })
}

/// The last part of a module's path.
pub(super) fn module_name(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}
