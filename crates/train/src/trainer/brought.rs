//! An adapter that the model brings along, to be trained on.

use std::path::Path;

use keys::{Document, Settings as _, Value};
use model::adapter::{LoraKind, PeftMetadata};
use model::{Base, LoraConfig, Module};

use crate::{Error, Result};

/// Why a value stands in the recipe.
const WHY: &str = "of the adapter that the model brings";

/// Reads the adapter, unless the recipe asks for another shape or it belongs to another base, and
/// writes its shape into the recipe. `now` says over what it would be trained.
pub(super) fn load(
    document: &mut Document,
    dir: &Path,
    base: &Base,
    now: &PeftMetadata,
) -> Result<(LoraConfig, Vec<Vec<f32>>)> {
    let (lora, values) = LoraConfig::load(dir, &base.config)?;
    let shape = [
        ("adapter.type", Value::from(kind_name(lora.kind))),
        ("adapter.rank", Value::from(lora.rank)),
        ("adapter.alpha", Value::from(f64::from(lora.alpha))),
        ("adapter.target_modules", target_modules(&lora)),
    ];
    for (key, value) in shape {
        let mut adopted = document.clone();
        adopted.choose(key, value, WHY);
        let differs = document.value(key) != adopted.value(key);
        if differs && document.is_given(key) && !covers_all_the_same(document, key, &lora) {
            return Err(contradiction(document, &adopted, key, base));
        }
        *document = adopted;
    }
    let before = PeftMetadata::read(dir)?;
    if before.base_hash.is_some() && before.base_hash != now.base_hash {
        return Err(Error::refused(
            format!(
                "{}: the adapter was trained over other weights than {}",
                dir.display(),
                base.path.display()
            ),
            "give the base that it was trained over",
        ));
    }
    Ok((lora, values))
}

fn contradiction(asked: &Document, brought: &Document, key: &str, base: &Base) -> Error {
    let show = |document: &Document| {
        document.value(key).map_or_else(|| "nothing".into(), |value| value.to_json().to_string())
    };
    let message = format!(
        "`{key}` of the adapter that the model brings is {}, not {}",
        show(brought),
        show(asked)
    );
    let hint = format!("leave `{key}` out, or start from the base {}", base.path.display());
    Error::Recipe(asked.problem(key, message, Some(hint)).into())
}

fn kind_name(kind: LoraKind) -> &'static str {
    match kind {
        LoraKind::Lora => "lora",
        LoraKind::RsLora => "rslora",
    }
}

/// Modules that are covered in any layer.
fn covered(lora: &LoraConfig) -> Vec<Module> {
    let mut modules: Vec<Module> = lora.modules.keys().map(|&(_, module)| module).collect();
    modules.sort_unstable();
    modules.dedup();
    modules
}

fn target_modules(lora: &LoraConfig) -> Value {
    match covered(lora) {
        modules if modules == Module::ALL => "all-linear".into(),
        modules => Value::List(modules.into_iter().map(|module| module.name().into()).collect()),
    }
}

/// Whether the recipe names the covered modules, in whatever order.
fn covers_all_the_same(document: &Document, key: &str, lora: &LoraConfig) -> bool {
    if key != "adapter.target_modules" {
        return false;
    }
    let names = document.opt_strs(key).unwrap_or_default();
    let mut asked: Vec<_> = names.into_iter().filter_map(Module::from_name).collect();
    asked.sort_unstable();
    asked.dedup();
    asked == covered(lora)
}
