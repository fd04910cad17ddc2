//! A Hugging Face folder: one `model.safetensors`, or several with an index. Where it has both the one is
//! taken, as transformers does.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use compute::Storage;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use text::Date;

use super::{FileTensor, Mapping, Remark, Stored, Tensor, Tensors};
use super::{bitsandbytes, plain_name, stays_inside};
use crate::architecture::{EMBEDDING, HEAD};
use crate::{Error, Result};

/// Where a tensor lies.
struct Entry {
    file: usize,
    shape: Vec<usize>,
    dtype: Dtype,
    start: usize,
    end: usize,
}

/// An entry of a file, which may be a part of a quantised tensor.
pub(super) struct FilePart<'a> {
    pub(super) shape: &'a [usize],
    pub(super) dtype: Dtype,
    pub(super) bytes: &'a [u8],
    pub(super) path: &'a Path,
    mapping: &'a Mapping,
}

const WHOLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

pub(super) struct Folder {
    dir: PathBuf,
    files: Vec<(PathBuf, Mapping)>,
    entries: BTreeMap<String, Entry>,
}

impl Folder {
    pub(super) fn open(dir: &Path) -> Result<Self> {
        let mut folder = Folder { dir: dir.into(), files: Vec::new(), entries: BTreeMap::new() };
        let (whole, index_path) = (dir.join(WHOLE), dir.join(INDEX));
        if whole.is_file() {
            folder.add(whole)?;
            return Ok(folder);
        }
        if !index_path.is_file() {
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
            if !stays_inside(name) {
                let message =
                    format!("names `{}`, which is not in the folder", name.escape_debug());
                return Err(Error::file(&index_path, message).with_hint(
                    "an index names files beside it, as `model-00001-of-00002.safetensors`",
                ));
            }
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

    /// An index of other files beside a whole model: of shards from an earlier save, most likely.
    pub(super) fn stale_index(&self) -> Option<Remark> {
        if !self.dir.join(WHOLE).is_file() {
            return None;
        }
        let bytes = std::fs::read(self.dir.join(INDEX)).ok()?;
        let index: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let names = index["weight_map"].as_object().map(|map| map.values());
        let is_of_it = names.is_some_and(|mut names| names.all(|name| name == WHOLE));
        (!is_of_it).then(|| Remark {
            id: "stale-index",
            message: format!("the folder holds `{WHOLE}` and `{INDEX}`: the first is used"),
            hint: "remove the index and its files if they are left over, or `model.safetensors` if it is",
        })
    }

    /// Whether there are a head and an embedding, and their numbers differ.
    pub(super) fn has_other_head(&self) -> Result<bool> {
        let (Some(head), Some(embedding)) = (self.get(HEAD)?, self.get(EMBEDDING)?) else {
            return Ok(false);
        };
        let differ = head.differs_from(&embedding)?;
        head.release();
        embedding.release();
        Ok(differ)
    }

    pub(super) fn files(&self) -> Vec<PathBuf> {
        self.files.iter().map(|(path, _)| path.clone()).collect()
    }

    fn add(&mut self, path: PathBuf) -> Result<()> {
        let bytes = Mapping::new(&path)?;
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

impl Folder {
    /// What the files have under exactly this name.
    pub(super) fn part(&self, name: &str) -> Option<FilePart<'_>> {
        let Entry { file, ref shape, dtype, start, end } = *self.entries.get(name)?;
        let (path, mapping) = &self.files[file];
        Some(FilePart { shape, dtype, bytes: &mapping[start..end], path, mapping })
    }
}

impl Tensors for Folder {
    fn metadata(&self, date: Date) -> Result<text::Metadata> {
        Ok(text::Metadata::from_folder(&self.dir, date)?)
    }

    fn config_json(&self) -> Result<Value> {
        Ok(text::metadata::folder::config(&self.dir)?)
    }

    fn release(&self) {
        for (_, mapping) in &self.files {
            mapping.release(mapping);
        }
    }

    fn stored_name(&self, name: &str) -> String {
        if self.entries.contains_key(name) {
            return name.to_owned();
        }
        let found = self.entries.keys().find(|stored| plain_name(stored) == name);
        found.map_or(name, |stored| stored).to_owned()
    }

    fn file_tensors(&self) -> Vec<FileTensor<'_>> {
        let entries = self.entries.iter().map(|(name, entry)| {
            let (_, bytes) = &self.files[entry.file];
            let bytes = &bytes[entry.start..entry.end];
            FileTensor { name, dtype: entry.dtype, shape: &entry.shape, bytes }
        });
        entries.collect()
    }

    fn get(&self, name: &str) -> Result<Option<Tensor<'_>>> {
        let name = &self.stored_name(name);
        let Some(part) = self.part(name) else { return Ok(None) };
        let (shape, stored) = match bitsandbytes::read(self, name, &part)? {
            Some((shape, codes)) => (shape, Stored::Quantized(codes)),
            None => {
                let storage = storage(part.dtype).ok_or_else(|| {
                    let message = format!("tensor `{name}` is stored as {:?}", part.dtype);
                    Error::file(part.path, message).with_hint("supported: F32, F16, BF16")
                })?;
                let bytes = part.bytes;
                (part.shape.to_vec(), Stored::Plain { storage, bytes, row_order: None })
            }
        };
        let mapping = part.mapping;
        Ok(Some(Tensor { name: name.clone(), shape, stored, path: part.path, mapping }))
    }
}

/// Refuses a file of safetensors in which a float is NaN or infinite: for weights that are passed on unread.
pub fn check_finite(path: &Path) -> Result<()> {
    let bytes = Mapping::new(path)?;
    let tensors = SafeTensors::deserialize(&bytes).map_err(|error| {
        Error::file(path, format!("not a whole safetensors file: {error}"))
            .with_hint("write or fetch the file again")
    })?;
    for (name, view) in tensors.iter() {
        let Some(storage) = storage(view.dtype()) else { continue };
        let shape = view.shape().to_vec();
        let stored = Stored::Plain { storage, bytes: view.data(), row_order: None };
        let (name, mapping) = (name.to_owned(), &bytes);
        Tensor { name, shape, stored, path, mapping }.check_finite()?;
    }
    Ok(())
}

fn storage(dtype: Dtype) -> Option<Storage> {
    match dtype {
        Dtype::F32 => Some(Storage::F32),
        Dtype::F16 => Some(Storage::F16),
        Dtype::BF16 => Some(Storage::Bf16),
        _ => None,
    }
}
