//! From recipe, base and checkpoint to the models of a run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use keys::{Document, Settings as _};
use model::adapter::{LoadedAdapter, PeftMetadata};
use model::architecture::{EMBEDDING, HEAD, shapes};
use model::{Base, LoraConfig, ScalarHead, Selection};
use session::Serving;
use text::Tokenizer;

use super::{TeacherModel, initial_adapter, teacher};
use crate::checkpoint::Store;
use crate::method::{self, Online};
use crate::models::{PartName, PartSetup, ReferenceFrom, TrainingSetup};
use crate::recipe::{Recipe, coverage, layers, trains_base};
use crate::reward::RewardSettings;
use crate::{Error, Result};

/// What the setup is made from, beside the recipe.
pub(super) struct Sources<'a> {
    pub(super) base: &'a Base,
    /// An adapter that the model brought.
    pub(super) start: Option<&'a Path>,
    /// Over what is trained now.
    pub(super) peft: &'a PeftMetadata,
    /// With the added tokens in it.
    pub(super) tokenizer: &'a Tokenizer,
    /// Ids of the added tokens.
    pub(super) added: &'a [u32],
    /// The checkpoint that the run goes on from.
    pub(super) checkpoint: Option<&'a Path>,
    /// Whether only shapes count: no weight is read.
    pub(super) shapes_only: bool,
    /// Threads that may compute.
    pub(super) threads: usize,
    /// What is distilled from, where that is not the model itself.
    pub(super) teacher: Option<&'a TeacherModel>,
}

/// An adapter that the model brought, in its place.
pub(super) enum InitialAdapter {
    /// None, or a checkpoint holds what became of it.
    Nothing,
    /// To be trained on, with its scalar head where it is a reward model.
    Continued(LoadedAdapter, Option<Vec<f32>>),
    /// Frozen under a new one.
    Below(LoadedAdapter),
}

/// Refuses what cannot go together, and lets an adapter that the model brings fill its keys in.
pub(super) fn take_start(document: &mut Document, sources: &Sources<'_>) -> Result<InitialAdapter> {
    if trains_base(document) {
        if sources.start.is_some() {
            let message = "`none` trains the model itself, but the model is an adapter";
            let hint = "merge the adapter first: `tunesmith merge`".to_owned();
            return Err(problem(document, "adapter.type", message.into(), hint));
        }
        return Ok(InitialAdapter::Nothing);
    }
    let Some(dir) = sources.start else {
        if document.is_given("adapter.from") {
            let message = "the model is not an adapter".to_owned();
            let hint = "leave it out, or give an adapter or a run as `model`".to_owned();
            return Err(problem(document, "adapter.from", message, hint));
        }
        return Ok(InitialAdapter::Nothing);
    };
    document.fill("adapter.from", "continue", "the model is an adapter, which is trained further");
    if sources.checkpoint.is_some() {
        return Ok(InitialAdapter::Nothing);
    }
    if document.opt_str("adapter.from") == Some("stack") {
        let below = LoadedAdapter::read(dir, &sources.base.config)?;
        initial_adapter::refuse_pissa(dir, &below.config)?;
        initial_adapter::refuse_whole(dir, &below)?;
        initial_adapter::check_base(dir, sources.base, sources.peft)?;
        return Ok(InitialAdapter::Below(below));
    }
    let (adapter, head) = initial_adapter::load(document, dir, sources.base, sources.peft)?;
    Ok(InitialAdapter::Continued(adapter, head))
}

fn problem(document: &Document, key: &str, message: String, hint: String) -> Error {
    Error::Recipe(document.problem(key, message, Some(hint)).into())
}

/// The models of a run, in the values that they begin or go on with.
pub(super) fn training_setup(
    document: &Document,
    recipe: &Recipe,
    sources: &Sources<'_>,
    initial: InitialAdapter,
) -> Result<TrainingSetup> {
    let mut setup = policy(document, recipe, sources, initial)?;
    let method = method::of(document);
    if method.has_scalar_head {
        if setup.tensors.is_some() {
            let message = format!("method `{}` writes its model as an adapter", method.name);
            let hint = "train one: `adapter: {type: lora}`".to_owned();
            return Err(problem(document, "adapter.type", message, hint));
        }
        let outputs = (method.outputs)(document);
        let len = outputs * sources.base.config.hidden_size;
        match &setup.policy().head {
            Some(head) => check_head(document, sources, head, outputs)?,
            None => {
                let head = match sources.shapes_only {
                    true => vec![0.0; len],
                    false => ScalarHead::initial_values_of(sources.base, outputs, recipe.seed)?,
                };
                setup.policy_mut().head = Some(head);
            }
        }
    }
    if method.has_value_head {
        if setup.tensors.is_some() {
            let message = format!("method `{}` trains a value head beside an adapter", method.name);
            let hint = "train one: `adapter: {type: lora}`".to_owned();
            return Err(problem(document, "adapter.type", message, hint));
        }
        // Until it has learned something it says nothing.
        let head = vec![0.0; sources.base.config.hidden_size];
        match (method.value_objective)(document) {
            None => _ = setup.policy_mut().head.get_or_insert(head),
            Some(_) if setup.has_part(PartName::Value) => {}
            Some(_) => {
                let part = value_part(&setup, head, recipe.seed, sources)?;
                setup.parts.push(part);
            }
        }
    }
    if let Some(key) = reward_model(document)?.filter(|_| !setup.has_part(PartName::Reward)) {
        let part = reward_part(document, &key, sources)?;
        setup.parts.push(part);
    }
    let objective = (method.objective)(document);
    let asks = objective.extra_passes().iter().any(|pass| pass.part == PartName::Reference);
    // The divergence may be in the reward, which no objective sees.
    let has_advantages = matches!(method.online, Some(Online::Advantages(_)));
    let pulls = has_advantages && document.opt_f64("objective.beta") > Some(0.0);
    if has_advantages && !pulls && document.is_given("reference.from") {
        let message = "`reference.from` has no effect: `objective.beta` is 0".to_owned();
        let hint = "set `objective.beta`, or leave it out".to_owned();
        return Err(problem(document, "reference.from", message, hint));
    }
    if asks || pulls {
        let from = reference(document, sources, &setup)?;
        setup.add_reference(document, from)?;
    }
    if objective.divergence().is_some() {
        teacher::add(document, sources, &mut setup)?;
    }
    Ok(setup)
}

/// A value head over an adapter of its own, which has the form of the policy's linear layers and stands on what the
/// policy begins as.
fn value_part(
    setup: &TrainingSetup,
    head: Vec<f32>,
    seed: u64,
    sources: &Sources<'_>,
) -> Result<PartSetup> {
    let own = setup.policy().own().expect("a value head is trained beside an adapter");
    let config = LoraConfig {
        modules_to_save: Vec::new(),
        ensure_weight_tying: false,
        tokens: Vec::new(),
        pissa: false,
        ..own.config.clone()
    };
    let shape = setup.config(sources.base);
    let values = match sources.shapes_only {
        true => config.no_values(&shape),
        false => config.initial_values(&shape, seed),
    };
    let mut adapters = setup.beginning()?;
    adapters.push(LoadedAdapter { config, values, replaced: BTreeMap::new() }.into());
    Ok(PartSetup { adapters, head: Some(head), ..PartSetup::of_base(PartName::Value) })
}

/// Refuses a head of other outputs than the method trains. A checkpoint has those of its own recipe.
fn check_head(
    document: &Document,
    sources: &Sources<'_>,
    head: &[f32],
    outputs: usize,
) -> Result<()> {
    let Some(start) = sources.start.filter(|_| sources.checkpoint.is_none()) else { return Ok(()) };
    let brought = head.len() / sources.base.config.hidden_size;
    let (classes, known) = (method::classes(document), Serving::read(start)?.classes);
    let is_other = |known: &Vec<String>| !known.is_empty() && *known != classes;
    if brought == outputs && !is_other(&known) {
        return Ok(());
    }
    let described = |classes: &[String], outputs: usize| match classes {
        [] if outputs == 1 => "one score".to_owned(),
        [] => format!("{outputs} classes"),
        classes => format!("the classes {}", classes.join(", ")),
    };
    Err(Error::refused(
        format!(
            "{}: the head of the adapter gives {}, and the run trains {}",
            start.display(),
            described(&known, brought),
            described(&classes, outputs)
        ),
        "start from the base, or train the same outputs",
    ))
}

/// What the recipe compares with. A checkpoint has the values that a path named when the run began.
fn reference(
    document: &Document,
    sources: &Sources<'_>,
    setup: &TrainingSetup,
) -> Result<ReferenceFrom> {
    let key = "reference.from";
    let is = |word| document.is_word(key, word);
    if is("start") || document.value(key).is_none() {
        return Ok(ReferenceFrom::Start);
    }
    if is("base") || setup.has_part(PartName::Reference) {
        return Ok(ReferenceFrom::Base);
    }
    if let Some(checkpoint) = sources.checkpoint {
        let message =
            format!("{}: the checkpoint does not hold its reference", checkpoint.display());
        return Err(Error::refused(message, "begin a new run with `--overwrite`"));
    }
    let hint = "write start, base, an adapter folder or a run folder; merge a whole model's difference into an adapter first";
    let dir = adapter_folder(document, key, hint)?;
    initial_adapter::check_base(&dir, sources.base, sources.peft)?;
    let adapter = LoadedAdapter::read(&dir, &sources.base.config)?;
    initial_adapter::refuse_pissa(&dir, &adapter.config)?;
    initial_adapter::refuse_whole(&dir, &adapter)?;
    Ok(ReferenceFrom::Adapter(adapter.into()))
}

/// The folder of the adapter that a key names: itself, or that of a run.
fn adapter_folder(document: &Document, key: &str, hint: &str) -> Result<PathBuf> {
    let locator = document.get_locator(key);
    let dirs = [locator.path.clone(), locator.path.join("adapter")];
    dirs.into_iter().find(|dir| PeftMetadata::is_adapter(dir)).ok_or_else(|| {
        let message = format!("`{}` is not the folder of an adapter", locator.name);
        problem(document, key, message, hint.to_owned())
    })
}

/// The key of the reward model that answers are scored by; none where none is.
fn reward_model(document: &Document) -> Result<Option<String>> {
    let settings = RewardSettings::read(document)?;
    let mut models = settings.iter().filter(|settings| settings.is_model());
    let key = models.next().map(|settings| format!("{}.model", settings.key));
    if let Some(second) = models.next() {
        let message = "a run has one reward model, and this is the second".to_owned();
        let hint = "leave one out, or score by a program that runs it".to_owned();
        return Err(problem(document, &format!("{}.model", second.key), message, hint));
    }
    Ok(key)
}

/// The reward model that a key names.
fn reward_part(document: &Document, key: &str, sources: &Sources<'_>) -> Result<PartSetup> {
    let hint = "write the adapter folder or the run of a reward model: `method: reward`";
    let dir = adapter_folder(document, key, hint)?;
    initial_adapter::check_base(&dir, sources.base, sources.peft)?;
    let (adapter, head) = LoadedAdapter::read_scored(&dir, &sources.base.config)?;
    initial_adapter::refuse_pissa(&dir, &adapter.config)?;
    initial_adapter::refuse_whole(&dir, &adapter)?;
    let head = head.filter(|head| head.len() == sources.base.config.hidden_size);
    if head.is_none() {
        let message = format!("{} gives no score", dir.display());
        return Err(problem(document, key, message, hint.to_owned()));
    }
    Ok(PartSetup { adapters: vec![adapter.into()], head, ..PartSetup::of_base(PartName::Reward) })
}

/// The policy alone.
fn policy(
    document: &Document,
    recipe: &Recipe,
    sources: &Sources<'_>,
    brought: InitialAdapter,
) -> Result<TrainingSetup> {
    let base = sources.base;
    let vocabulary = sources.tokenizer.vocab_size();
    let vocab_size =
        (!sources.added.is_empty() && vocabulary > base.config.vocab_size).then_some(vocabulary);
    let mut setup = TrainingSetup::new(recipe.quantization, recipe.optimizer.kinds());
    setup.vocab_size = vocab_size;
    setup.brought = usize::from(sources.start.is_some());
    let config = setup.config(base);
    if let Some(path) = sources.checkpoint {
        Store::restore(path, &mut setup, &config)?;
    }
    if trains_base(document) {
        let layers = layers(document, &config)?;
        setup.tensors = Some(layers.map_or(Selection::All, Selection::Layers));
        return Ok(setup);
    }
    let is_fresh =
        sources.checkpoint.is_none() && !matches!(brought, InitialAdapter::Continued(..));
    match brought {
        InitialAdapter::Continued(adapter, head) => {
            setup.policy_mut().adapters.push(adapter.into());
            setup.policy_mut().head = head;
        }
        InitialAdapter::Below(adapter) => setup.policy_mut().adapters.push(adapter.into()),
        InitialAdapter::Nothing => {}
    }
    if is_fresh {
        fresh(document, recipe, sources, &mut setup)?;
        return Ok(setup);
    }
    let own = setup.policy_mut().adapters.last_mut().expect("a checkpoint has the trained adapter");
    Arc::make_mut(own).config.dropout = recipe.dropout;
    // It may bring tokens that the base has not.
    let own_vocab_size = own.vocab_size(&base.config);
    setup.vocab_size = setup.vocab_size.max(own_vocab_size);
    Ok(setup)
}

/// A new adapter as the recipe describes it.
fn fresh(
    document: &Document,
    recipe: &Recipe,
    sources: &Sources<'_>,
    setup: &mut TrainingSetup,
) -> Result<()> {
    let config = setup.config(sources.base);
    let wanted = coverage(document, &config)?;
    let mut lora = LoraConfig::covering(&config, &wanted).map_err(|error| match error {
        model::Error::Coverage { field, message, hint } => {
            let section = if field == "layers" { "train" } else { "adapter" };
            let key = format!("{section}.{field}");
            Error::Recipe(document.problem(&key, message, hint).into())
        }
        error => error.into(),
    })?;
    let saved = document.opt_strs("adapter.modules_to_save").unwrap_or_default();
    lora.modules_to_save = saved.into_iter().map(str::to_owned).collect();
    check_saved(document, sources.base, &lora)?;
    // The head of a tied pair goes with the embedding, unless it is trained apart.
    let ties = config.tie_word_embeddings && lora.saves(EMBEDDING) && !lora.saves(HEAD);
    lora.ensure_weight_tying = ties;
    lora.tokens = trained_tokens(document, sources, &lora)?;
    check_tokens(document, sources.base, &lora)?;
    // A head that is trained as a whole has no rows of its own.
    lora.tokens_in_head = !lora.saves(HEAD);
    let mut replaced = std::mem::take(&mut setup.replaced);
    if let Some(rows) =
        setup.vocab_size.filter(|_| lora.saves(EMBEDDING) && lora.tokens_in_head && !ties)
    {
        // New rows of a head that is not trained: others would draw them at random.
        let head = match sources.shapes_only {
            true => (vec![rows, config.hidden_size], Vec::new()),
            false => sources.base.vocabulary(HEAD, rows)?,
        };
        replaced.insert(HEAD.to_owned(), head);
    }
    let is_pissa = document.get_str("adapter.type") == "pissa";
    let values = match (sources.shapes_only, is_pissa) {
        (true, _) => lora.no_values(&config),
        (false, true) => lora.pissa_values(sources.base, sources.threads)?,
        (false, false) => lora.initial_values(&config, recipe.seed),
    };
    if is_pissa {
        // The base stays as it is: what the adapter begins with is taken off below it.
        let below = lora.counterweight(&values, &config);
        setup.policy_mut().adapters.push(below.into());
    }
    let adapter = LoadedAdapter { config: lora, values, replaced };
    setup.policy_mut().adapters.push(adapter.into());
    Ok(())
}

/// Every module to save must be one of the model's.
fn check_saved(document: &Document, base: &Base, lora: &LoraConfig) -> Result<()> {
    let key = "adapter.modules_to_save";
    let names = shapes(&base.config).map(|(name, _)| name);
    // A tied head may be trained apart from its embedding.
    let mut paths: Vec<String> = names.chain(["lm_head.weight".to_owned()]).collect();
    for path in &mut paths {
        path.truncate(path.rfind('.').unwrap_or(path.len()));
    }
    for name in &lora.modules_to_save {
        let found: Vec<_> = paths.iter().filter(|path| path.ends_with(name.as_str())).collect();
        if found.is_empty() {
            let hint = "embed_tokens, lm_head and norm are the usual ones".to_owned();
            let message = format!("`{name}` is not a module of the model");
            return Err(problem(document, key, message, hint));
        }
        let adapted = |(layer, module): &(usize, model::Module)| {
            let path = format!("model.layers.{layer}.{}", module.path());
            found.iter().any(|found| **found == path)
        };
        if let Some((_, module)) = lora.modules.keys().find(|key| adapted(key)) {
            let hint = "leave it out of one of the two".to_owned();
            let message = format!("`{}` is adapted and saved as a whole at once", module.name());
            return Err(problem(document, key, message, hint));
        }
    }
    Ok(())
}

/// Refuses single tokens where PEFT could not compute the head with them.
fn check_tokens(document: &Document, base: &Base, lora: &LoraConfig) -> Result<()> {
    if lora.tokens.is_empty() {
        return Ok(());
    }
    let keys = ["adapter.trainable_tokens", "tokenizer.add_tokens"];
    let key = keys.into_iter().find(|key| document.is_given(key));
    let key = key.unwrap_or("tokenizer.add_special_tokens");
    if base.config.tie_word_embeddings && lora.saves(HEAD) {
        let message = "rows of single tokens are trained, but the head that the base ties to the \
                       embedding is trained apart: PEFT cannot load that";
        let hint = "leave `lm_head` out of `adapter.modules_to_save`, or put `embed_tokens` beside it \
                    in place of single tokens";
        return Err(problem(document, "adapter.modules_to_save", message.into(), hint.into()));
    }
    if base.remarks.iter().any(|remark| remark.id == "untied-head") {
        let message = "rows of single tokens are trained, but `config.json` of the model says that \
                       its head is the embedding, and it is not: PEFT would mix the two up";
        let hint = "set `tie_word_embeddings` to false in its `config.json`";
        return Err(problem(document, key, message.into(), hint.into()));
    }
    Ok(())
}

/// Ids of the tokens whose rows are trained, ascending. Added ones always are, unless embedding and
/// head are trained as a whole.
fn trained_tokens(
    document: &Document,
    sources: &Sources<'_>,
    lora: &LoraConfig,
) -> Result<Vec<u32>> {
    let key = "adapter.trainable_tokens";
    let mut ids = Vec::new();
    for name in document.opt_strs(key).unwrap_or_default() {
        let Some(id) = sources.tokenizer.id(name) else {
            let message = format!("`{name}` is not a token of the model");
            let hint = "a new one is added with `tokenizer: {add_tokens: [...]}`".to_owned();
            return Err(problem(document, key, message, hint));
        };
        ids.push(id);
    }
    if !lora.saves(EMBEDDING) {
        ids.extend(sources.added);
    } else if !ids.is_empty() {
        let message =
            "the embedding is trained as a whole: single tokens of it are not named".to_owned();
        return Err(problem(document, key, message, "leave it out".into()));
    }
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}
