//! An adapter that the model brings along, to be trained on.

use std::path::Path;

use keys::{Document, Settings as _, Value};
use model::adapter::{LoadedAdapter, LoraKind, PeftMetadata};
use model::{Base, LoraConfig, Module};

use crate::method;
use crate::{Error, Result};

/// Why a value stands in the recipe.
const WHY: &str = "of the model's adapter";

/// Reads the adapter, and the scalar head of a reward model where one is trained, unless the recipe asks for another shape or it belongs to another base, and
/// writes its shape into the recipe. `now` says over what it would be trained.
pub(super) fn load(
    document: &mut Document,
    dir: &Path,
    base: &Base,
    now: &PeftMetadata,
) -> Result<(LoadedAdapter, Option<Vec<f32>>)> {
    let (loaded, head) = match method::of(document).has_scalar_head {
        true => LoadedAdapter::read_scored(dir, &base.config)?,
        false => (LoadedAdapter::read(dir, &base.config)?, None),
    };
    let lora = &loaded.config;
    refuse_pissa(dir, lora)?;
    if lora.alpha <= 0.0 {
        let message = format!("{}: `lora_alpha` = {} trains nothing", dir.display(), lora.alpha);
        return Err(Error::refused(message, "start from the base"));
    }
    let mut shape = vec![
        ("adapter.type", Value::from(kind_name(lora))),
        ("adapter.rank", Value::from(lora.rank)),
        ("adapter.alpha", Value::from(f64::from(lora.alpha))),
        ("adapter.modules_to_save", modules_to_save(document, lora)),
    ];
    if !lora.modules.is_empty() {
        shape.push(("adapter.target_modules", target_modules(lora)));
    }
    for (key, value) in shape {
        let mut adopted = document.clone();
        adopted.choose(key, value, WHY);
        let differs = document.value(key) != adopted.value(key);
        if differs && document.is_given(key) && !covers_all_the_same(document, key, lora) {
            return Err(contradiction(document, &adopted, key, base));
        }
        *document = adopted;
    }
    refuse_more(document, base)?;
    check_base(dir, base, now)?;
    Ok((loaded, head))
}

/// Refuses a PiSSA adapter as others write it.
pub(super) fn refuse_pissa(dir: &Path, lora: &LoraConfig) -> Result<()> {
    if !lora.pissa {
        return Ok(());
    }
    Err(Error::refused(
        format!("{}: a PiSSA adapter is over a base without its beginning", dir.display()),
        "merge it first: `tunesmith merge`; or save it with PEFT's \
         `path_initial_model_for_weight_conversion`",
    ))
}

/// Refuses to stand on an adapter whose whole tensors would be lost: a resized vocabulary say. Those that its
/// config announces are refused with it.
pub(super) fn refuse_whole(dir: &Path, below: &LoadedAdapter) -> Result<()> {
    let Some(name) = below.replaced.keys().find(|name| !below.config.saves(name)) else {
        return Ok(());
    };
    Err(Error::refused(
        format!("{}: contains `{name}`, which a new adapter over it could not keep", dir.display()),
        "merge it into the base first: `tunesmith merge`",
    ))
}

/// Refuses keys that would change which parts of the adapter are trained, or add some.
fn refuse_more(document: &Document, base: &Base) -> Result<()> {
    let asks = |key: &&&str| {
        let is_empty = document.opt_items(key).is_some_and(<[Value]>::is_empty);
        document.is_given(key) && !is_empty && !document.is_word(key, "added")
    };
    let keys = [
        "adapter.rank_pattern",
        "adapter.alpha_pattern",
        "adapter.trainable_tokens",
        "train.layers",
        "tokenizer.add_tokens",
        "tokenizer.add_special_tokens",
    ];
    let Some(key) = keys.iter().find(asks) else { return Ok(()) };
    let message = format!("`{key}` describes a new adapter, but the model's adapter is continued");
    let hint = format!(
        "leave it out, put a new adapter over it with `adapter.from: stack`, or start from the base {}",
        base.path.display()
    );
    Err(Error::Recipe(document.problem(key, message, Some(hint)).into()))
}

/// The modules that are trained as a whole, in the recipe's order where they are the same.
fn modules_to_save(document: &Document, lora: &LoraConfig) -> Value {
    let sorted = |mut names: Vec<String>| {
        names.sort_unstable();
        names
    };
    let asked = document.opt_strs("adapter.modules_to_save").unwrap_or_default();
    let asked: Vec<String> = asked.into_iter().map(str::to_owned).collect();
    let brought = lora.modules_to_save.clone();
    let names = if sorted(asked.clone()) == sorted(brought.clone()) { asked } else { brought };
    Value::List(names.into_iter().map(Value::from).collect())
}

/// Refuses an adapter that was trained over another base.
pub(super) fn check_base(dir: &Path, base: &Base, now: &PeftMetadata) -> Result<()> {
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
    Ok(())
}

fn contradiction(asked: &Document, brought: &Document, key: &str, base: &Base) -> Error {
    let show = |document: &Document| {
        document.value(key).map_or_else(|| "nothing".into(), |value| value.to_json().to_string())
    };
    let message =
        format!("`{key}` of the model's adapter is {}, not {}", show(brought), show(asked));
    let hint = format!("leave `{key}` out, or start from the base {}", base.path.display());
    Error::Recipe(asked.problem(key, message, Some(hint)).into())
}

fn kind_name(lora: &LoraConfig) -> &'static str {
    match (lora.dora, lora.kind) {
        (true, _) => "dora",
        (false, LoraKind::Lora) => "lora",
        (false, LoraKind::RsLora) => "rslora",
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
        modules
            if modules == Module::ALL
                || modules == [Module::O, Module::Down, Module::Qkv, Module::GateUp] =>
        {
            "all-linear".into()
        }
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
