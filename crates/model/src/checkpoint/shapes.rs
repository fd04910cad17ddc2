//! A base that has shapes and no numbers: what a `config.json` alone says.
//!
//! It can be put on a device that only counts. On any other its tensors are found to be empty.

use std::path::{Path, PathBuf};

use compute::Storage;
use memmap2::MmapOptions;
use serde_json::Value;
use text::{Date, Metadata};

use super::{Mapping, Stored, Tensor, Tensors};
use crate::{Config, Error, Result};

/// Tensors of any shape that is asked for, all empty and bf16.
pub(super) struct Shapes {
    /// The folder that the config stands in, with or without a tokenizer beside it.
    dir: PathBuf,
    json: Value,
    layers: usize,
    mapping: Mapping,
}

impl Shapes {
    pub(super) fn new(json: &Value, config: &Config, dir: &Path) -> Result<Self> {
        let empty = MmapOptions::new().len(1).map_anon().and_then(|map| map.make_read_only());
        let mapping = Mapping(empty.map_err(Error::io(dir))?.into());
        let (dir, json) = (dir.to_owned(), json.clone());
        Ok(Shapes { dir, json, layers: config.num_hidden_layers, mapping })
    }

    fn has(&self, name: &str) -> bool {
        let layer = name.strip_prefix("model.layers.").and_then(|rest| rest.split('.').next());
        layer.and_then(|layer| layer.parse().ok()).is_none_or(|layer: usize| layer < self.layers)
    }
}

impl Tensors for Shapes {
    fn metadata(&self, date: Date) -> Result<Metadata> {
        Ok(Metadata::from_folder(&self.dir, date)?)
    }

    fn get(&self, name: &str) -> Result<Option<Tensor<'_>>> {
        self.get_as(name, &[])
    }

    fn get_as(&self, name: &str, shape: &[usize]) -> Result<Option<Tensor<'_>>> {
        let stored =
            Stored::Plain { storage: Storage::Bf16, bytes: &self.mapping[..0], row_order: None };
        let (path, mapping) = (&*self.dir, &self.mapping);
        let tensor = Tensor { name: name.to_owned(), shape: shape.to_vec(), stored, path, mapping };
        Ok(self.has(name).then_some(tensor))
    }

    fn config_json(&self) -> Result<Value> {
        Ok(self.json.clone())
    }
}
