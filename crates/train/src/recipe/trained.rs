//! What a recipe trains, and how: adapter, layers, optimizer.

use compute::{Optimizer, Quantization};
use keys::{Document, Settings as _};
use model::Config;
use model::adapter::{Coverage, LoraKind, Target};

use crate::doctor;
use crate::method;
use crate::optimizer::OptimizerConfig;
use crate::{Error, Result};

/// Whether the recipe trains the model itself.
pub fn trains_base(document: &Document) -> bool {
    document.get_str("adapter.type") == "none"
}

/// Refuses values that cannot go together.
pub fn check(document: &Document) -> Result<()> {
    if trains_base(document) && quantization(document).is_some() {
        let message = "a quantised model cannot be trained itself, and `adapter.type` is none";
        let hint = "leave `quantization` out, or train an adapter: `adapter: {type: lora}`";
        return Err(problem(document, "quantization", message.to_owned(), hint.to_owned()));
    }
    let prompts = document.opt_strs("train.sample.prompts").unwrap_or_default();
    if method::of(document).has_scalar_head && !prompts.is_empty() {
        let message = "a model with a score head gives scores and answers no prompts";
        return Err(problem(
            document,
            "train.sample.prompts",
            message.into(),
            "leave it out".into(),
        ));
    }
    let method = method::of(document);
    let key = "train.batch_size";
    if let Some(rows) = document.opt_usize(key).filter(|&rows| rows < method.fewest_rows) {
        let (name, fewest) = (method.name, method.fewest_rows);
        let message = format!("method `{name}` compares the rows of a step, and a step has {rows}");
        let hint = format!("set it to {fewest} or more");
        return Err(problem(document, key, message, hint));
    }
    let names: Vec<&str> = doctor::kinds().map(|kind| kind.id).collect();
    for name in document.opt_strs("stop_on").unwrap_or_default() {
        if !names.contains(&name) {
            let message = format!("`{name}` is not a finding about a run");
            return Err(problem(
                document,
                "stop_on",
                message,
                format!("it takes {}", names.join(", ")),
            ));
        }
    }
    (method.check)(document)?;
    let by = document.opt_str("train.best_by").unwrap_or("loss");
    if document.get_str("train.best") == "late" && by != "loss" {
        let message = "`late` compares losses, and `train.best_by` is accuracy";
        let hint = "set `train.best: lowest`, or `train.best_by: loss`";
        return Err(problem(document, "train.best", message.to_owned(), hint.to_owned()));
    }
    Ok(())
}

/// How frozen linear layers are made smaller.
pub fn quantization(document: &Document) -> Option<Quantization> {
    match document.get_str("quantization") {
        "nf4" => Some(Quantization::Nf4),
        "int8" => Some(Quantization::Int8),
        _ => None,
    }
}

/// The adapter that the recipe asks for.
pub fn coverage(document: &Document, config: &Config) -> Result<Coverage> {
    let kind = document.get_str("adapter.type");
    let names = document.opt_strs("adapter.target_modules").unwrap_or_default();
    let target = match document.is_word("adapter.target_modules", "all-linear") {
        true => Target::AllLinear,
        false => Target::Names(names.into_iter().map(str::to_owned).collect()),
    };
    let ranks =
        pattern(document, "adapter.rank_pattern", |rank| rank >= 1.0 && rank.fract() == 0.0)?;
    let alphas = pattern(document, "adapter.alpha_pattern", |alpha| alpha > 0.0)?;
    Ok(Coverage {
        kind: if kind == "rslora" { LoraKind::RsLora } else { LoraKind::Lora },
        rank: document.get_usize("adapter.rank"),
        alpha: document.get_f64("adapter.alpha") as f32,
        dropout: document.get_f64("adapter.dropout") as f32,
        dora: kind == "dora",
        target,
        layers: layers(document, config)?,
        rank_pattern: ranks.into_iter().map(|(name, rank)| (name, rank as usize)).collect(),
        alpha_pattern: alphas.into_iter().map(|(name, alpha)| (name, alpha as f32)).collect(),
    })
}

/// A map from patterns to numbers.
fn pattern(
    document: &Document,
    key: &str,
    is_valid: impl Fn(f64) -> bool,
) -> Result<Vec<(String, f64)>> {
    let entries = document.opt_map(key).unwrap_or_default();
    let entry = |(name, value): &(String, keys::Value)| {
        let json = value.to_json();
        match json.as_f64().filter(|&number| is_valid(number)) {
            Some(number) => Ok((name.clone(), number)),
            None => {
                let hint = "a positive number, a whole one for a rank".to_owned();
                let noun = if key == "adapter.rank_pattern" { "rank" } else { "alpha" };
                Err(problem(
                    document,
                    key,
                    format!("`{name}` = {json} is not a valid {noun}"),
                    hint,
                ))
            }
        }
    };
    entries.iter().map(entry).collect()
}

/// The layers that the recipe restricts training to.
pub fn layers(document: &Document, config: &Config) -> Result<Option<Vec<usize>>> {
    let key = "train.layers";
    let count = config.num_hidden_layers;
    let Some(items) = document.opt_strs(key) else { return Ok(None) };
    let mut layers = Vec::new();
    for item in items {
        let Some(range) = layer_range(item, count) else {
            let hint = format!("the model has layers 0 to {}: write 3, 8-15 or last 4", count - 1);
            return Err(problem(document, key, format!("`{item}` names no layers"), hint));
        };
        layers.extend(range);
    }
    layers.sort_unstable();
    layers.dedup();
    Ok(Some(layers))
}

/// `3`, `8-15` or `last 4` of `count` layers.
fn layer_range(item: &str, count: usize) -> Option<std::ops::Range<usize>> {
    let item = item.trim();
    let range = match item.strip_prefix("last") {
        Some(last) => count.checked_sub(last.trim().parse().ok()?)?..count,
        None => match item.split_once('-') {
            Some((first, last)) => {
                first.trim().parse().ok()?..last.trim().parse::<usize>().ok()?.checked_add(1)?
            }
            None => {
                let layer: usize = item.parse().ok()?;
                layer..layer.checked_add(1)?
            }
        },
    };
    (!range.is_empty() && range.end <= count).then_some(range)
}

/// How gradients become updates.
pub(super) fn optimizer(document: &Document) -> OptimizerConfig {
    let betas = || {
        let betas = document.opt_f64s("train.optimizer.betas").unwrap_or_default();
        [betas[0] as f32, betas[1] as f32]
    };
    let eps = || document.get_f64("train.optimizer.eps") as f32;
    let momentum = || document.get_f64("train.optimizer.momentum") as f32;
    let nesterov = || document.get_bool("train.optimizer.nesterov");
    let adamw = || Optimizer::AdamW { betas: betas(), eps: eps() };
    let kind = document.get_str("train.optimizer.type");
    let matrices = match kind {
        "adamw8bit" => Optimizer::AdamW8bit { betas: betas(), eps: eps() },
        "lion" => Optimizer::Lion { betas: betas() },
        // The defaults of the paper and of transformers.
        "adafactor" => Optimizer::Adafactor { eps: 1e-30, clip_threshold: 1.0, decay_rate: -0.8 },
        "muon" => Optimizer::Muon {
            momentum: momentum(),
            nesterov: nesterov(),
            iterations: 5,
            match_rms: true,
        },
        "sgd" => Optimizer::Sgd { momentum: momentum(), nesterov: nesterov() },
        _ => adamw(),
    };
    let others = if kind == "muon" { adamw() } else { matrices };
    let rate = document.get_f64("train.learning_rate");
    // Not filled in: left open, it follows a rate that is changed on resume.
    let embedding_rate = document.opt_f64("train.embedding_learning_rate");
    OptimizerConfig {
        matrices,
        others,
        weight_decay: document.get_f64("train.optimizer.weight_decay") as f32,
        embedding_ratio: embedding_rate.map_or(1.0, |own| own / rate),
        loraplus_ratio: document.opt_f64("adapter.loraplus_lr_ratio").unwrap_or(1.0),
    }
}

fn problem(document: &Document, key: &str, message: String, hint: String) -> Error {
    Error::Recipe(document.problem(key, message, Some(hint)).into())
}

#[cfg(test)]
mod tests {
    use super::layer_range;

    #[test]
    fn layers_are_numbers_ranges_or_the_last() {
        #[track_caller]
        fn check(item: &str, expected: Option<std::ops::Range<usize>>) {
            assert_eq!(layer_range(item, 12), expected, "{item}");
        }
        check("3", Some(3..4));
        check(" 8-11", Some(8..12));
        check("last 4", Some(8..12));
        check("12", None);
        check("9-12", None);
        check("5-4", None);
        check("last 13", None);
        check("last 0", None);
        check("18446744073709551615", None);
        check("first", None);
    }
}
