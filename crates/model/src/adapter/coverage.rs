//! Which modules an adapter covers, as a recipe or a PEFT config says it.

use std::collections::BTreeMap;

use regex_lite::Regex;

use super::config::{LoraConfig, LoraKind};
use crate::{Config, Error, Module, Result};

/// What an adapter is to cover, in the words of a recipe.
#[derive(Clone, Debug, PartialEq)]
pub struct Coverage {
    /// How scaling is computed.
    pub kind: LoraKind,
    /// Rank where no pattern says otherwise.
    pub rank: usize,
    /// Alpha where no pattern says otherwise.
    pub alpha: f32,
    /// Dropout on the inputs while training.
    pub dropout: f32,
    /// Whether the modules get magnitudes of their own.
    pub dora: bool,
    /// The modules.
    pub target: Target,
    /// The layers; none: all.
    pub layers: Option<Vec<usize>>,
    /// Ranks by pattern, the first that matches wins: see [`LoraConfig::covering`].
    pub rank_pattern: Vec<(String, usize)>,
    /// Alphas by pattern, likewise.
    pub alpha_pattern: Vec<(String, f32)>,
}

/// Modules by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Every linear layer but the head.
    AllLinear,
    /// Those whose path ends in one of these: `q_proj`, `self_attn.q_proj`, `layers.0.self_attn.q_proj`.
    Names(Vec<String>),
    /// Those whose whole path matches, `model.layers.0.self_attn.q_proj` say.
    Regex(String),
}

impl LoraConfig {
    /// The adapter that a recipe describes, over a model.
    ///
    /// Names and patterns match as PEFT's do. A name is a path or the end of one, behind a point. A key of
    /// `rank_pattern` or `alpha_pattern` is a regular expression for a path or the end of one, behind a
    /// point; of several the first decides.
    ///
    /// # Errors
    /// A name, layer or pattern that decides nothing is one: it is a slip of the pen.
    pub fn covering(config: &Config, coverage: &Coverage) -> Result<Self> {
        let covered = covered(config, coverage)?;
        let ranks = Patterns::new("rank_pattern", &coverage.rank_pattern)?;
        let alphas = Patterns::new("alpha_pattern", &coverage.alpha_pattern)?;
        ranks.check_all_decide(&covered)?;
        alphas.check_all_decide(&covered)?;
        if let Some((pattern, _)) = coverage.rank_pattern.iter().find(|(_, rank)| *rank == 0) {
            return Err(wrong(
                "rank_pattern",
                format!("`rank_pattern`: `{pattern}` = 0 is not a valid rank"),
            ));
        }
        let modules = covered.into_iter().map(|key| {
            let path = module_path(key);
            let rank = ranks.find(&path).unwrap_or(coverage.rank);
            (key, (rank, alphas.find(&path).unwrap_or(coverage.alpha)))
        });
        Ok(LoraConfig {
            kind: coverage.kind,
            rank: coverage.rank,
            alpha: coverage.alpha,
            dropout: coverage.dropout,
            dora: coverage.dora,
            pissa: false,
            modules: modules.collect(),
            tokens: Vec::new(),
            tokens_in_head: true,
            modules_to_save: Vec::new(),
            ensure_weight_tying: false,
        })
    }
}

/// The path of a module in a decoder: what names and patterns are compared with.
pub(super) fn module_path((layer, module): (usize, Module)) -> String {
    format!("model.layers.{layer}.{}", module.path())
}

/// The modules that are meant, in order.
fn covered(config: &Config, coverage: &Coverage) -> Result<Vec<(usize, Module)>> {
    let all: Vec<(usize, Module)> = (0..config.num_hidden_layers)
        .flat_map(|layer| config.modules().iter().map(move |&module| (layer, module)))
        .collect();
    let mut covered = match &coverage.target {
        Target::AllLinear => all,
        Target::Names(names) => {
            if let Some(name) = names.iter().find(|name| !all.iter().any(|key| ends_in(*key, name)))
            {
                return Err(no_module("target_modules", name, config));
            }
            all.into_iter().filter(|key| names.iter().any(|name| ends_in(*key, name))).collect()
        }
        Target::Regex(pattern) => {
            let regex = regex("target_modules", pattern, &format!("^(?:{pattern})$"))?;
            let found: Vec<_> =
                all.into_iter().filter(|key| regex.is_match(&module_path(*key))).collect();
            if found.is_empty() {
                return Err(no_module("target_modules", pattern, config));
            }
            found
        }
    };
    if let Some(layers) = &coverage.layers {
        let count = config.num_hidden_layers;
        if let Some(layer) = layers.iter().find(|layer| **layer >= count) {
            return Err(wrong("layers", format!("`layers`: there is no layer {layer}"))
                .with_hint(format!("the model has layers 0 to {}", count - 1)));
        }
        covered.retain(|(layer, _)| layers.contains(layer));
    }
    if covered.is_empty() {
        let message = "`target_modules` and `layers` leave no module to adapt".into();
        return Err(wrong("target_modules", message));
    }
    covered.sort_unstable();
    Ok(covered)
}

/// Whether a path is `name`, or ends in it behind a point.
fn ends_in(key: (usize, Module), name: &str) -> bool {
    let path = module_path(key);
    path.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

fn wrong(field: &'static str, message: String) -> Error {
    Error::Coverage { field, message, hint: None }
}

fn no_module(key: &'static str, name: &str, config: &Config) -> Error {
    let error = wrong(key, format!("`{key}`: `{name}` matches no module of the model"));
    let names: Vec<&str> = config.modules().iter().map(|module| module.name()).collect();
    let whole = ["lm_head", "embed_tokens"].iter().any(|module| name.ends_with(module));
    error.with_hint(if whole {
        format!("`modules_to_save` trains it as a whole; adapters go over {}", names.join(", "))
    } else {
        format!("there are {}", names.join(", "))
    })
}

fn regex(key: &'static str, pattern: &str, whole: &str) -> Result<Regex> {
    Regex::new(whole).map_err(|error| {
        wrong(key, format!("`{key}`: `{pattern}` is not a regular expression: {error}"))
            .with_hint("there is no look-around and no back-reference")
    })
}

/// `rank_pattern` or `alpha_pattern`: the first pattern that ends a module's path wins.
pub(super) struct Patterns<T> {
    key: &'static str,
    patterns: Vec<(String, Regex, T)>,
}

impl<T: Copy> Patterns<T> {
    pub(super) fn new(key: &'static str, patterns: &[(String, T)]) -> Result<Self> {
        let compiled = patterns.iter().map(|(pattern, value)| {
            let regex = regex(key, pattern, &format!(r"^(.*\.)?({pattern})$"))?;
            Ok((pattern.clone(), regex, *value))
        });
        Ok(Patterns { key, patterns: compiled.collect::<Result<_>>()? })
    }

    pub(super) fn find(&self, path: &str) -> Option<T> {
        self.deciding(path).map(|index| self.patterns[index].2)
    }

    fn deciding(&self, path: &str) -> Option<usize> {
        self.patterns.iter().position(|(_, regex, _)| regex.is_match(path))
    }

    /// Refuses a pattern that matches none of these modules, or none that an earlier one leaves to it.
    fn check_all_decide(&self, covered: &[(usize, Module)]) -> Result<()> {
        // What decided, and by which module: paths are many, patterns few.
        let mut decides: BTreeMap<usize, String> = BTreeMap::new();
        let paths: Vec<String> = covered.iter().map(|key| module_path(*key)).collect();
        for path in &paths {
            if let Some(index) = self.deciding(path) {
                decides.entry(index).or_insert_with(|| path.clone());
            }
        }
        let key = self.key;
        for (index, (pattern, regex, _)) in self.patterns.iter().enumerate() {
            if decides.contains_key(&index) {
                continue;
            }
            let Some(path) = paths.iter().find(|path| regex.is_match(path)) else {
                let mut names: Vec<&str> =
                    covered.iter().map(|(_, module)| module.name()).collect();
                names.sort_unstable();
                names.dedup();
                return Err(wrong(key, format!("`{key}`: `{pattern}` matches no adapted module"))
                    .with_hint(format!("adapted are {}", names.join(", "))));
            };
            let earlier = self.deciding(path).expect("it matches at least this one");
            let earlier = &self.patterns[earlier].0;
            return Err(wrong(
                key,
                format!("`{key}`: `{pattern}` has no effect: an earlier pattern matches first"),
            )
            .with_hint(format!("put it before `{earlier}`, which matches the same modules")));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::path::Path;

    fn config() -> Config {
        let json = json!({"model_type": "llama", "hidden_size": 8, "intermediate_size": 16,
            "num_hidden_layers": 12, "num_attention_heads": 2, "vocab_size": 32});
        Config::from_json(&json, Path::new("config.json")).unwrap()
    }

    fn fused() -> Config {
        Config { is_fused: true, ..config() }
    }

    fn plain() -> Coverage {
        Coverage {
            kind: LoraKind::Lora,
            rank: 8,
            alpha: 16.0,
            dropout: 0.0,
            dora: false,
            target: Target::AllLinear,
            layers: None,
            rank_pattern: Vec::new(),
            alpha_pattern: Vec::new(),
        }
    }

    fn names(names: &[&str]) -> Target {
        Target::Names(names.iter().map(|name| (*name).to_owned()).collect())
    }

    #[track_caller]
    fn check(config: &Config, target: Target, layers: Option<Vec<usize>>, expected: &[&str]) {
        let coverage = Coverage { target, layers, ..plain() };
        let adapter = LoraConfig::covering(config, &coverage).unwrap();
        let paths: Vec<String> = adapter.modules.keys().map(|key| module_path(*key)).collect();
        assert_eq!(paths, expected);
    }

    #[test]
    fn names_match_ends_of_paths_and_expressions_whole_ones() {
        let q = |layer| format!("model.layers.{layer}.self_attn.q_proj");
        let all: Vec<String> = (0..12).map(q).collect();
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        check(&config(), names(&["q_proj"]), None, &all);
        check(&config(), names(&["self_attn.q_proj"]), None, &all);
        check(&config(), names(&["layers.1.self_attn.q_proj"]), None, &all[1..2]);
        check(&config(), names(&["q_proj"]), Some(vec![11, 2]), &[all[2], all[11]]);
        check(&config(), Target::Regex(r".*\.q_proj".into()), None, &all);
        check(&config(), Target::Regex(r"model\.layers\.1\..*\.q_.*".into()), None, &all[1..2]);
        let gate_up = "model.layers.3.mlp.gate_up_proj";
        let qkv = "model.layers.3.self_attn.qkv_proj";
        check(&fused(), names(&["gate_up_proj", "qkv_proj"]), Some(vec![3]), &[qkv, gate_up]);
        let whole = LoraConfig::covering(&fused(), &plain()).unwrap();
        assert_eq!(whole.modules.len(), 4 * 12);
    }

    #[track_caller]
    fn check_rank(patterns: &[(&str, usize)], layer: usize, module: Module, expected: usize) {
        let rank_pattern = patterns.iter().map(|(key, rank)| ((*key).to_owned(), *rank)).collect();
        let adapter =
            LoraConfig::covering(&config(), &Coverage { rank_pattern, ..plain() }).unwrap();
        assert_eq!(adapter.modules[&(layer, module)], (expected, 16.0));
    }

    #[test]
    fn the_first_pattern_that_ends_a_path_wins() {
        check_rank(&[("q_proj", 2)], 5, Module::Q, 2);
        check_rank(&[("q_proj", 2)], 5, Module::K, 8);
        check_rank(&[("layers.1.self_attn.q_proj", 2)], 11, Module::Q, 8);
        check_rank(&[(r"^model.layers.0.mlp.up_proj", 3), ("up_proj", 5)], 0, Module::Up, 3);
        check_rank(&[(r"^model.layers.0.mlp.up_proj", 3), ("up_proj", 5)], 1, Module::Up, 5);
        check_rank(&[("mlp.(gate|up)_proj", 3)], 4, Module::Gate, 3);
        check_rank(&[(".*down.*", 3)], 4, Module::Down, 3);
    }

    #[track_caller]
    fn check_error(coverage: Coverage, message: &str, hint: Option<&str>) {
        let error = LoraConfig::covering(&config(), &coverage).unwrap_err();
        assert_eq!((error.to_string().as_str(), error.hint().as_deref()), (message, hint));
    }

    #[test]
    fn what_decides_nothing_is_named() {
        let all = "q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj";
        check_error(
            Coverage { target: names(&["q_proj", "qkv_proj"]), ..plain() },
            "`target_modules`: `qkv_proj` matches no module of the model",
            Some(&format!("there are {all}")),
        );
        check_error(
            Coverage { target: names(&["lm_head"]), ..plain() },
            "`target_modules`: `lm_head` matches no module of the model",
            Some(&format!("`modules_to_save` trains it as a whole; adapters go over {all}")),
        );
        check_error(
            Coverage { target: Target::Regex("q_proj".into()), ..plain() },
            "`target_modules`: `q_proj` matches no module of the model",
            Some(&format!("there are {all}")),
        );
        check_error(
            Coverage { layers: Some(vec![1, 12]), ..plain() },
            "`layers`: there is no layer 12",
            Some("the model has layers 0 to 11"),
        );
        check_error(
            Coverage { layers: Some(vec![]), ..plain() },
            "`target_modules` and `layers` leave no module to adapt",
            None,
        );
        let q = names(&["q_proj", "k_proj"]);
        check_error(
            Coverage { target: q, rank_pattern: vec![("v_proj".into(), 2)], ..plain() },
            "`rank_pattern`: `v_proj` matches no adapted module",
            Some("adapted are k_proj, q_proj"),
        );
        let alpha_pattern = vec![(".*".into(), 2.0), ("v_proj".into(), 3.0)];
        check_error(
            Coverage { alpha_pattern, ..plain() },
            "`alpha_pattern`: `v_proj` has no effect: an earlier pattern matches first",
            Some("put it before `.*`, which matches the same modules"),
        );
        check_error(
            Coverage { rank_pattern: vec![("v_proj".into(), 0)], ..plain() },
            "`rank_pattern`: `v_proj` = 0 is not a valid rank",
            None,
        );
    }
}
