//! A Hugging Face folder: one `model.safetensors`, or several with an index.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use compute::Storage;
use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};
use text::Date;

use super::{Tensor, Tensors, map};
use crate::{Error, Result};

/// Where a tensor lies.
struct Entry {
    file: usize,
    shape: Vec<usize>,
    dtype: Dtype,
    start: usize,
    end: usize,
}

pub(super) struct Folder {
    dir: PathBuf,
    files: Vec<(PathBuf, Mmap)>,
    entries: BTreeMap<String, Entry>,
}

impl Folder {
    pub(super) fn open(dir: &Path) -> Result<Self> {
        let mut folder = Folder { dir: dir.into(), files: Vec::new(), entries: BTreeMap::new() };
        let index_path = dir.join("model.safetensors.index.json");
        if !index_path.is_file() {
            let path = dir.join("model.safetensors");
            if !path.is_file() {
                let error = Error::file(dir, "no `model.safetensors` and no index of several");
                let has_bin = dir.join("pytorch_model.bin").is_file();
                return Err(if has_bin {
                    error.with_hint(
                        "there is a `pytorch_model.bin`: save the model with `safe_serialization`",
                    )
                } else {
                    error
                });
            }
            folder.add(path)?;
            return Ok(folder);
        }
        let bytes = std::fs::read(&index_path).map_err(Error::io(&index_path))?;
        let index: serde_json::Value = serde_json::from_slice(&bytes)
            .map_err(|error| Error::file(&index_path, format!("not JSON: {error}")))?;
        let Some(weights) = index.get("weight_map").and_then(|v| v.as_object()) else {
            return Err(Error::file(&index_path, "no `weight_map`"));
        };
        let mut names: Vec<&str> = weights.values().filter_map(|v| v.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            let path = dir.join(name);
            if !path.is_file() {
                return Err(Error::file(&index_path, format!("names `{name}`, which is missing"))
                    .with_hint("download the folder again: it is not complete"));
            }
            folder.add(path)?;
        }
        if let Some(missing) = weights.keys().find(|name| !folder.entries.contains_key(*name)) {
            return Err(Error::file(
                &index_path,
                format!("tensor `{missing}` is in none of the files"),
            ));
        }
        Ok(folder)
    }

    pub(super) fn files(&self) -> Vec<PathBuf> {
        self.files.iter().map(|(path, _)| path.clone()).collect()
    }

    fn add(&mut self, path: PathBuf) -> Result<()> {
        let bytes = map(&path)?;
        let tensors = SafeTensors::deserialize(&bytes).map_err(|error| {
            Error::file(&path, format!("not a whole safetensors file: {error}"))
                .with_hint("the download was probably cut off: fetch the file again")
        })?;
        let origin = bytes.as_ptr() as usize;
        for (name, view) in tensors.tensors() {
            let start = view.data().as_ptr() as usize - origin;
            let entry = Entry {
                file: self.files.len(),
                shape: view.shape().to_vec(),
                dtype: view.dtype(),
                start,
                end: start + view.data().len(),
            };
            self.entries.insert(name, entry);
        }
        self.files.push((path, bytes));
        Ok(())
    }
}

impl Tensors for Folder {
    fn metadata(&self, date: Date) -> Result<text::Metadata> {
        Ok(text::Metadata::from_folder(&self.dir, date)?)
    }

    fn get(&self, name: &str) -> Result<Option<Tensor<'_>>> {
        let Some(entry) = self.entries.get(name) else { return Ok(None) };
        let (path, bytes) = &self.files[entry.file];
        let storage = match entry.dtype {
            Dtype::F32 => Storage::F32,
            Dtype::F16 => Storage::F16,
            Dtype::BF16 => Storage::Bf16,
            other => {
                return Err(Error::file(path, format!("tensor `{name}` is stored as {other:?}"))
                    .with_hint("supported: F32, F16, BF16"));
            }
        };
        Ok(Some(Tensor {
            shape: entry.shape.clone(),
            storage,
            bytes: &bytes[entry.start..entry.end],
            row_order: None,
            path,
        }))
    }
}
