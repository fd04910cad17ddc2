//! The tensors of an adapter's file, sorted.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use super::LoadedAdapter;
use crate::adapter::config::{LoraConfig, TOKEN_MODULES, TOKEN_ROWS};
use crate::adapter::coverage::{Patterns, module_path};
use crate::architecture::{EMBEDDING, HEAD, shapes};
use crate::tensor::{HostTensor, Role};
use crate::{Config, Error, Module, Result, ScalarHead};

const OTHER_BASE: &str = "the adapter belongs to another base";

/// The adapter in a file, whose config says all but what it covers.
pub(super) fn read(
    bytes: &[u8],
    path: &Path,
    model: &Config,
    mut config: LoraConfig,
    patterns: &[Patterns<f64>; 2],
    is_scored: bool,
) -> Result<(LoadedAdapter, Option<Vec<f32>>)> {
    let tensors = SafeTensors::deserialize(bytes)
        .map_err(|error| Error::file(path, format!("not a whole safetensors file: {error}")))?;
    let mut reader = Reader { path, model, tensors: BTreeMap::new(), replaced: BTreeMap::new() };
    for (name, view) in tensors.tensors() {
        reader.take(&name, &view, &config, is_scored)?;
    }
    let score = if is_scored { Some(reader.score()?) } else { None };
    reader.cover(&mut config, patterns)?;
    reader.check_saved(&config)?;
    reader.tie(&config)?;
    let values = reader.values(&config)?;
    Ok((LoadedAdapter { config, values, replaced: reader.replaced }, score))
}

/// Sorts the tensors of a file.
struct Reader<'a> {
    path: &'a Path,
    model: &'a Config,
    /// By PEFT's name, its prefix made that of a plain decoder.
    tensors: BTreeMap<String, HostTensor>,
    replaced: BTreeMap<String, HostTensor>,
}

impl Reader<'_> {
    fn error(&self, message: String) -> Error {
        Error::file(self.path, message)
    }

    fn take(
        &mut self,
        name: &str,
        view: &TensorView<'_>,
        config: &LoraConfig,
        is_scored: bool,
    ) -> Result<()> {
        let Some(values) = to_f32(view) else {
            return Err(self.error(format!("tensor `{name}` is stored as {:?}", view.dtype())));
        };
        if let Some(index) = first_broken(&values) {
            let cols = view.shape().iter().skip(1).product::<usize>().max(1);
            return Err(crate::checkpoint::not_finite(self.path, name, index / cols));
        }
        let tensor = (view.shape().to_vec(), values);
        let Some(inner) = name.strip_prefix("base_model.model.") else {
            return Err(self.unsupported(name));
        };
        let inner = crate::checkpoint::plain_name(inner);
        match vocabulary_part(&inner) {
            Some(Part::Whole(name)) => {
                self.replaced.insert(name.to_owned(), tensor);
                return Ok(());
            }
            // The tensor stands beside it under its own name, or is what the base had.
            Some(Part::Copy) => return Ok(()),
            None => {}
        }
        let is_score = is_scored && inner == ScalarHead::TENSOR;
        if is_score || config.saves(&inner) && !inner.contains("lora_") {
            self.replaced.insert(inner, tensor);
            return Ok(());
        }
        let name = inner
            .strip_suffix("lora_magnitude_vector.weight")
            .map_or_else(|| inner.clone(), |path| format!("{path}lora_magnitude_vector"));
        if parse_name(&name).is_none() && !name.ends_with(TOKEN_ROWS) {
            return Err(self.unsupported(&name));
        }
        self.tensors.insert(format!("base_model.model.{name}"), tensor);
        Ok(())
    }

    /// Takes the score head, `[N, C]`, out of the whole tensors.
    fn score(&mut self) -> Result<Vec<f32>> {
        let name = ScalarHead::TENSOR;
        let Some((shape, values)) = self.replaced.remove(name) else {
            return Err(self
                .error(format!("tensor `base_model.model.{name}` is missing"))
                .with_hint("`task_type` = SEQ_CLS of `adapter_config.json` announces it"));
        };
        // A row a label.
        let labels = if shape.len() == 2 { shape[0].max(1) } else { 1 };
        let expected = [labels, self.model.hidden_size];
        if shape != expected {
            let message =
                format!("tensor `{name}`: shape {shape:?} does not fit, {expected:?} would");
            return Err(self.error(message).with_hint(OTHER_BASE));
        }
        Ok(values)
    }

    fn unsupported(&self, name: &str) -> Error {
        self.error(format!("tensor `{name}` is not supported"))
            .with_hint("supported: LoRA and DoRA over the linear layers of a decoder, trained tokens, whole modules")
    }

    /// Fills in which modules are covered, and with what rank and alpha.
    fn cover(&self, config: &mut LoraConfig, [ranks, alphas]: &[Patterns<f64>; 2]) -> Result<()> {
        for (name, (shape, _)) in &self.tensors {
            let inner = name.strip_prefix("base_model.model.").unwrap_or(name);
            let Some((layer, module, part)) = parse_name(inner) else { continue };
            let layers = self.model.num_hidden_layers;
            if layer >= layers {
                let message =
                    format!("tensor `{name}` is of layer {layer}, but the model has {layers}");
                return Err(self.error(message).with_hint(OTHER_BASE));
            }
            if !self.model.modules().contains(&module) {
                let message = format!("tensor `{name}`: the model has no `{}`", module.name());
                return Err(self.error(message).with_hint(OTHER_BASE));
            }
            if part != "lora_A.weight" {
                continue;
            }
            let rank = shape.first().copied().unwrap_or(0);
            let key = module_path((layer, module));
            let stated = ranks.find(&key).unwrap_or(config.rank as f64);
            if rank == 0 || stated != rank as f64 {
                return Err(self
                    .error(format!(
                        "layer {layer} `{}`: shape {shape:?}, but the config says rank {stated}",
                        module.name()
                    ))
                    .with_hint(
                        "`r` and `rank_pattern` of `adapter_config.json` must fit the matrices",
                    ));
            }
            let alpha = alphas.find(&key).map_or(config.alpha, |alpha| alpha as f32);
            config.modules.insert((layer, module), (rank, alpha));
        }
        let is_empty = config.modules.is_empty() && config.tokens.is_empty();
        if is_empty && self.replaced.is_empty() {
            return Err(self.error("no matrices".into()));
        }
        Ok(())
    }

    /// Whole tensors must be the model's, and all of a module that the config names.
    fn check_saved(&self, config: &LoraConfig) -> Result<()> {
        let shapes: BTreeMap<String, Vec<usize>> = shapes(self.model).collect();
        for (name, (shape, _)) in &self.replaced {
            match shapes.get(name) {
                // Tokens may have been added to these.
                _ if [EMBEDDING, HEAD].contains(&&**name) => {
                    let size = self.model.hidden_size;
                    if shape.len() != 2 || shape[0] == 0 || shape[1] != size {
                        let message = format!(
                            "tensor `{name}`: shape {shape:?} does not fit, [tokens, {size}] would"
                        );
                        return Err(self.error(message).with_hint(OTHER_BASE));
                    }
                }
                None => {
                    let message = format!("tensor `{name}` has no place in the model");
                    return Err(self.error(message).with_hint(OTHER_BASE));
                }
                Some(expected) if shape != expected => {
                    let message = format!(
                        "tensor `{name}`: shape {shape:?} does not fit, {expected:?} would"
                    );
                    return Err(self.error(message).with_hint(OTHER_BASE));
                }
                Some(_) => {}
            }
        }
        // A tied head has no shape of its own, and may be saved apart all the same.
        let head = HEAD.to_owned();
        let mut names = shapes.keys().chain([&head]);
        let missing = names.find(|name| config.saves(name) && !self.replaced.contains_key(*name));
        match missing {
            None => Ok(()),
            Some(name) => Err(self
                .error(format!("tensor `base_model.model.{name}` is missing"))
                .with_hint("`modules_to_save` of `adapter_config.json` announces it")),
        }
    }

    /// Of a head and an embedding that stay one, keeps the embedding, and of their trained rows likewise.
    fn tie(&mut self, config: &LoraConfig) -> Result<()> {
        if !self.model.tie_word_embeddings || config.unties_head(self.model) {
            return Ok(());
        }
        let [own, copy] = TOKEN_MODULES else { unreachable!("embedding and head") };
        let rows = |module: &str| format!("base_model.model.{module}.{TOKEN_ROWS}");
        if self.tensors.get(&rows(own)) == self.tensors.get(&rows(copy)) {
            self.tensors.remove(&rows(copy));
        }
        let Some(head) = self.replaced.remove(HEAD) else { return Ok(()) };
        let embedding = self.replaced.entry(EMBEDDING.to_owned()).or_insert_with(|| head.clone());
        if *embedding == head {
            return Ok(());
        }
        let message = format!("tensors `{EMBEDDING}` and `{HEAD}` differ, but the base ties them");
        Err(self.error(message).with_hint(
            "save them with PEFT as modules of their own: `modules_to_save=[\"embed_tokens\", \"lm_head\"]`",
        ))
    }

    /// The matrices in order; one that is missing or of another shape is an error.
    fn values(&mut self, config: &LoraConfig) -> Result<Vec<Vec<f32>>> {
        let mut values = Vec::new();
        for info in config.matrices(self.model) {
            let Some((shape, matrix)) = self.tensors.remove(&info.name) else {
                let error = self.error(format!("tensor `{}` is missing", info.name));
                return Err(match info.role {
                    Role::Tokens => error.with_hint(
                        "`trainable_token_indices` of `adapter_config.json` announces it",
                    ),
                    _ => error,
                });
            };
            if shape != info.shape {
                let expected = &info.shape;
                return Err(self
                    .error(format!(
                        "tensor `{}`: shape {shape:?} does not fit, {expected:?} would",
                        info.name
                    ))
                    .with_hint(OTHER_BASE));
            }
            values.push(matrix);
        }
        match self.tensors.keys().next() {
            Some(name) => Err(self.unsupported(name)),
            None => Ok(values),
        }
    }
}

/// What a tensor is to embedding or head.
enum Part {
    /// Its values, by the name in the base.
    Whole(&'static str),
    /// A copy, or what the module was before.
    Copy,
}

/// PEFT adds embedding and head to the file where the vocabulary was resized, in whatever they are wrapped.
fn vocabulary_part(name: &str) -> Option<Part> {
    [EMBEDDING, HEAD].into_iter().find_map(|whole| {
        let module = whole.strip_suffix("weight")?;
        match name.strip_prefix(module)? {
            "weight" | "token_adapter.base_layer.weight" => Some(Part::Whole(whole)),
            "original_module.weight" | "modules_to_save.weight" => Some(Part::Copy),
            _ => None,
        }
    })
}

/// Layer, module and part (`lora_A.weight`, ...) of a tensor's name.
fn parse_name(name: &str) -> Option<(usize, Module, &str)> {
    let rest = name.strip_prefix("model.layers.")?;
    let (layer, rest) = rest.split_once('.')?;
    let all = Module::ALL.into_iter().chain([Module::Qkv, Module::GateUp]);
    let (module, part) = all
        .filter_map(|module| Some((module, rest.strip_prefix(module.path())?.strip_prefix('.')?)))
        .next()?;
    let known = ["lora_A.weight", "lora_B.weight", "lora_magnitude_vector"];
    known.contains(&part).then_some((layer.parse().ok()?, module, part))
}

/// Index of the first number that is NaN or infinite.
fn first_broken(values: &[f32]) -> Option<usize> {
    if compute::all_finite(values) {
        return None;
    }
    values.iter().position(|value| !value.is_finite())
}

fn to_f32(view: &TensorView<'_>) -> Option<Vec<f32>> {
    let storage = match view.dtype() {
        Dtype::F32 => compute::Storage::F32,
        Dtype::F16 => compute::Storage::F16,
        Dtype::BF16 => compute::Storage::Bf16,
        _ => return None,
    };
    let mut values = vec![0.0; view.shape().iter().product()];
    compute::dequant::dequantize(storage, view.data(), &mut values);
    Some(values)
}
