//! The model that is measured, or the shape of one.

use clap::ValueEnum;
use compute::{Quantization, Storage};
use model::Base;

use super::Arguments;
use crate::context::Context;
use crate::error::{Failure, Result};

macro_rules! shape {
    ($name:literal) => {
        ($name, include_str!(concat!("../../../configs/", $name, ".json")))
    };
}

/// Shapes that are known by name: each the `config.json` of a model.
pub(super) const SHAPES: [(&str, &str); 7] = [
    shape!("smollm2-135m"),
    shape!("smollm2-360m"),
    shape!("qwen2.5-0.5b"),
    shape!("qwen3-0.6b"),
    shape!("llama-3.2-1b"),
    shape!("mistral-7b-v0.3"),
    shape!("llama-3.1-8b"),
];

/// How linear layers are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Kept {
    /// As the model has them; a shape has bf16.
    None,
    /// 4 bits, quantised while loading.
    Nf4,
    /// 8 bits, quantised while loading.
    Int8,
    /// Blocks of GGUF.
    #[value(name = "q8_0")]
    Q8,
    /// Blocks of GGUF.
    #[value(name = "q4_0")]
    Q4,
    /// Blocks of GGUF.
    #[value(name = "q4_1")]
    Q4WithMinimum,
}

impl Kept {
    /// What loading makes of the weights.
    pub(super) fn quantization(self) -> Option<Quantization> {
        match self {
            Kept::Nf4 => Some(Quantization::Nf4),
            Kept::Int8 => Some(Quantization::Int8),
            _ => None,
        }
    }

    /// How a shape's weights are stored.
    fn storage(self) -> Storage {
        match self {
            Kept::None | Kept::Nf4 | Kept::Int8 => Storage::Bf16,
            Kept::Q8 => Storage::Q8_0,
            Kept::Q4 => Storage::Q4_0,
            Kept::Q4WithMinimum => Storage::Q4_1,
        }
    }
}

/// What is measured.
pub(super) struct Subject {
    pub(super) name: String,
    pub(super) base: Base,
    /// How its linear layers are kept: `bf16`, `nf4`, ...
    pub(super) kept: String,
}

impl Subject {
    pub(super) fn find(arguments: &Arguments, context: &Context) -> Result<Self> {
        let kept = arguments.quantization;
        let (name, base) = match &arguments.model {
            Some(model) if kept.storage() != Storage::Bf16 => {
                let message = format!("`{model}` keeps the blocks that its file has");
                let hint = "give a .gguf file of that type, or `--shape` with made-up weights";
                return Err(Failure::wrong("arguments", message).hint(hint));
            }
            Some(model) => {
                let found = context.models().resolve(model)?;
                (model.clone(), Base::open(&found.path)?)
            }
            None => {
                let name = arguments.shape.as_deref().unwrap_or(SHAPES[0].0);
                let (_, config) = SHAPES
                    .into_iter()
                    .find(|(known, _)| *known == name)
                    .expect("only known names are parsed");
                let config = serde_json::from_str(config).expect("configs are JSON");
                let scratch = std::env::temp_dir();
                (name.to_owned(), Base::synthetic(&config, name, kept.storage(), &scratch)?)
            }
        };
        let kept = match kept.quantization() {
            Some(Quantization::Nf4) => "nf4".to_owned(),
            Some(Quantization::Int8) => "int8".to_owned(),
            None => base.storage_name()?,
        };
        Ok(Subject { name, base, kept })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_is_a_config() {
        for (name, config) in SHAPES {
            let json = serde_json::from_str(config).unwrap();
            let config = Base::check_config(&json, name.as_ref()).unwrap();
            assert!(config.parameter_count() > 100_000_000, "{name}");
        }
    }
}
