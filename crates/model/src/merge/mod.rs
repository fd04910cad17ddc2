//! An adapter and its base as one model: a folder of safetensors that needs no adapter any more.
//!
//! Every tensor is read from the mapped base, changed as the adapter asks in f32, and written, some
//! rows at a time: neither model is ever in memory as a whole.

mod config;
mod files;
mod outputs;
mod rows;
mod shards;

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::Dtype;
use serde_json::Value;

use crate::adapter::{LoadedAdapter, LoraKind};
use crate::architecture::HEAD;
use crate::tensor::HostTensor;
use crate::{Base, LoadOptions, LoraConfig, Result};
use outputs::Output;

pub use files::{adapter_hash, copy_companions};
pub use shards::Written;

/// The type that merged weights are written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MergedType {
    /// That of the base; bf16 where the base is quantised or a GGUF file.
    Auto,
    /// bfloat16.
    Bf16,
    /// IEEE half floats.
    F16,
    /// 32-bit floats.
    F32,
}

impl MergedType {
    /// `bf16`, `f16` or `f32`: what it stands for over this base.
    pub fn name(self, base: &Base) -> Result<&'static str> {
        main_type(base, self).map(dtype_name)
    }
}

fn dtype_name(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F32 => "f32",
        Dtype::F16 => "f16",
        _ => "bf16",
    }
}

/// A base and an adapter that are to become one model.
pub struct Merge<'a> {
    base: &'a Base,
    adapter: LoraConfig,
    /// In the order of [`LoraConfig::matrices`].
    values: Vec<Vec<f32>>,
    options: LoadOptions,
    config_json: Value,
    dtype: Dtype,
    outputs: Vec<Output<'a>>,
}

impl<'a> Merge<'a> {
    /// Plans the merge: refuses what cannot be expressed before anything is written.
    pub fn new(base: &'a Base, mut adapter: LoadedAdapter, dtype: MergedType) -> Result<Self> {
        adapter.made_plain(base)?;
        let vocab_size = adapter.vocab_size(&base.config);
        // Whole tensors may be large: they are moved, not copied.
        let replaced = std::mem::take(&mut adapter.replaced);
        let options = adapter.options(base, None, None);
        let options = LoadOptions { replaced, vocab_size, ..options };
        Self::planned(base, adapter.config, adapter.values, options, dtype)
    }

    /// Plans to write the base with other values for some of its tensors, and `vocab_size` rows of embedding
    /// and head where it has tokens that the base has not. What would be refused later is refused now,
    /// whatever the values will be.
    pub fn of_tensors(
        base: &'a Base,
        replaced: BTreeMap<String, HostTensor>,
        vocab_size: Option<usize>,
        dtype: MergedType,
    ) -> Result<Self> {
        let none = LoraConfig::uniform(&base.config, LoraKind::Lora, 1, 1.0, 0.0, &[]);
        let options = LoadOptions { replaced, vocab_size, ..LoadOptions::default() };
        Self::planned(base, none, Vec::new(), options, dtype)
    }

    fn planned(
        base: &'a Base,
        adapter: LoraConfig,
        values: Vec<Vec<f32>>,
        options: LoadOptions,
        dtype: MergedType,
    ) -> Result<Self> {
        let mut config = base.config.clone();
        config.vocab_size = options.vocab_size.unwrap_or(config.vocab_size);
        // A head of its own parts from the embedding.
        config.tie_word_embeddings &= !options.unties_head && !options.replaced.contains_key(HEAD);
        let main = main_type(base, dtype)?;
        let config_json = config::config_json(base, &config, main)?;
        let outputs = outputs::outputs(base, &config, &options, dtype, main)?;
        Ok(Merge { base, adapter, values, options, config_json, dtype: main, outputs })
    }

    /// `bf16`, `f16` or `f32`: the type of most of what is written.
    pub fn dtype(&self) -> &'static str {
        dtype_name(self.dtype)
    }

    /// Bytes of all tensors that will be written.
    pub fn bytes(&self) -> u64 {
        self.outputs.iter().map(Output::bytes).sum()
    }

    /// Writes weights and `config.json` into `dir`, which exists; every file is synced.
    ///
    /// A file of weights holds at most `max_shard_bytes`, unless a single tensor is larger. `on_progress`
    /// hears how many bytes were written so far.
    pub fn write(
        &self,
        dir: &Path,
        max_shard_bytes: u64,
        threads: usize,
        on_progress: &mut dyn FnMut(u64),
    ) -> Result<Written> {
        let written = self.write_shards(dir, max_shard_bytes, threads.max(1), on_progress)?;
        let text = serde_json::to_string_pretty(&self.config_json).expect("JSON can be written");
        files::write_synced(&dir.join("config.json"), (text + "\n").as_bytes())?;
        Ok(written)
    }
}

/// The type of most tensors.
fn main_type(base: &Base, dtype: MergedType) -> Result<Dtype> {
    let own = match dtype {
        MergedType::F32 => Some(Dtype::F32),
        MergedType::F16 => Some(Dtype::F16),
        MergedType::Bf16 => Some(Dtype::BF16),
        MergedType::Auto if base.format == "gguf" => None,
        MergedType::Auto => {
            let (rows, cols) = base.config.shape(crate::Module::Down);
            base.tensor("model.layers.0.mlp.down_proj.weight", &[rows, cols])?.float_type()
        }
    };
    Ok(own.unwrap_or(Dtype::BF16))
}
