//! The header of a GGUF file: metadata and where every tensor lies.
//!
//! Versions 2 and 3 are read, little endian. The header is untrusted: no count
//! in it makes anything be allocated that the file is too short to hold.

mod config;
mod reader;
mod tensor;
mod value;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use self::reader::Reader;
pub use self::tensor::{TensorInfo, TensorType};
pub use self::value::{Array, Value};
use crate::{Error, Result};

/// Bytes that data is aligned to where the file does not say.
const DEFAULT_ALIGNMENT: u64 = 32;

/// The header of a GGUF file.
#[derive(Clone, Debug)]
pub struct Metadata {
    /// The file, for messages.
    pub path: PathBuf,
    /// Version of the format.
    pub version: u32,
    /// All metadata by key.
    pub values: BTreeMap<String, Value>,
    /// All tensors, in the order of the file.
    pub tensors: Vec<TensorInfo>,
    index: BTreeMap<String, usize>,
}

impl Metadata {
    /// Reads a header from the beginning of a file.
    ///
    /// `bytes` must reach as far as the header does (a mapping of the whole file
    /// will do); tensors are checked to lie within `file_len` bytes. `path` is
    /// for messages only.
    pub fn parse(path: &Path, bytes: &[u8], file_len: u64) -> Result<Self> {
        let mut reader = Reader::new(path, bytes);
        let version = read_version(&mut reader)?;
        let tensor_count = reader.count("tensors", TensorInfo::MIN_BYTES)?;
        let value_count = reader.count("metadata entries", Value::MIN_ENTRY_BYTES)?;

        let mut values = BTreeMap::new();
        for _ in 0..value_count {
            let key = reader.string("a metadata key")?;
            let value = Value::read(&mut reader, &key)?;
            if values.contains_key(&key) {
                return Err(reader.error(format!("metadata key `{key}` appears twice")));
            }
            values.insert(key, value);
        }
        let mut metadata = Metadata {
            path: path.into(),
            version,
            values,
            tensors: Vec::new(),
            index: BTreeMap::new(),
        };
        metadata.read_tensors(&mut reader, tensor_count, file_len)?;
        Ok(metadata)
    }

    fn read_tensors(&mut self, reader: &mut Reader<'_>, count: usize, file_len: u64) -> Result<()> {
        for _ in 0..count {
            let tensor = TensorInfo::read(reader)?;
            if self.index.insert(tensor.name.clone(), self.tensors.len()).is_some() {
                let name = &tensor.name;
                return Err(reader.error(format!("tensor `{name}` appears twice")));
            }
            self.tensors.push(tensor);
        }
        let alignment = self.alignment()?;
        let data_start = reader.position().next_multiple_of(alignment);
        for tensor in &mut self.tensors {
            tensor.place(data_start, alignment, file_len).map_err(|message| {
                let name = &tensor.name;
                Error::file(&self.path, format!("tensor `{name}`: {message}"))
                    .with_hint("the file is cut off or damaged; download it again")
            })?;
        }
        Ok(())
    }

    fn alignment(&self) -> Result<u64> {
        let alignment = self.u64("general.alignment")?.unwrap_or(DEFAULT_ALIGNMENT);
        if alignment.is_power_of_two() && alignment <= 1 << 20 {
            Ok(alignment)
        } else {
            Err(self.wrong("general.alignment", &format!("is {alignment}, no power of two")))
        }
    }

    /// The tensor of that name.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.index.get(name).map(|index| &self.tensors[*index])
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(key)
    }

    /// The text at a key; anything but a text there is an error.
    pub fn str(&self, key: &str) -> Result<Option<&str>> {
        self.typed(key, "a string", |value| match value {
            Value::String(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// The number at a key; anything but a number from 0 on is an error.
    pub fn u64(&self, key: &str) -> Result<Option<u64>> {
        self.typed(key, "a whole number from 0 on", |value| match value {
            Value::Unsigned(number) => Some(*number),
            Value::Signed(number) => u64::try_from(*number).ok(),
            _ => None,
        })
    }

    /// The number at a key; anything but a finite number is an error.
    pub fn f64(&self, key: &str) -> Result<Option<f64>> {
        self.typed(key, "a finite number", |value| match value {
            Value::Float(number) => Some(*number).filter(|number| number.is_finite()),
            Value::Unsigned(number) => Some(*number as f64),
            Value::Signed(number) => Some(*number as f64),
            _ => None,
        })
    }

    /// The flag at a key; anything but a flag is an error.
    pub fn bool(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "true or false", |value| match value {
            Value::Bool(flag) => Some(*flag),
            _ => None,
        })
    }

    /// The list of texts at a key; anything else is an error.
    pub fn strings(&self, key: &str) -> Result<Option<&[String]>> {
        self.typed(key, "a list of strings", |value| match value {
            Value::Array(Array::String(texts)) => Some(texts.as_slice()),
            _ => None,
        })
    }

    /// The list of floats at a key; anything else is an error.
    pub fn floats(&self, key: &str) -> Result<Option<&[f64]>> {
        self.typed(key, "a list of floats", |value| match value {
            Value::Array(Array::Float(numbers)) => Some(numbers.as_slice()),
            _ => None,
        })
    }

    /// The list of whole numbers at a key; anything else is an error.
    pub fn integers(&self, key: &str) -> Result<Option<Vec<i64>>> {
        self.typed(key, "a list of whole numbers", |value| match value {
            Value::Array(Array::Signed(numbers)) => Some(numbers.clone()),
            Value::Array(Array::Unsigned(numbers)) => {
                numbers.iter().map(|number| i64::try_from(*number).ok()).collect()
            }
            _ => None,
        })
    }

    /// The id at `tokenizer.ggml.<name>`, where the vocabulary has such a token.
    pub fn token_id(&self, name: &str) -> Result<Option<u32>> {
        let key = format!("tokenizer.ggml.{name}");
        let Some(id) = self.u64(&key)? else { return Ok(None) };
        let vocab = self.strings("tokenizer.ggml.tokens")?.map_or(0, <[String]>::len);
        // "No such token" is written as the largest number of its type.
        if id == u64::from(u32::MAX) {
            return Ok(None);
        }
        if id >= vocab as u64 {
            return Err(self.wrong(&key, &format!("is {id}, but there are {vocab} tokens")));
        }
        Ok(Some(id as u32))
    }

    /// The chat templates besides the default one, by name.
    pub fn named_templates(&self) -> Result<BTreeMap<String, String>> {
        let prefix = "tokenizer.chat_template.";
        let keys = self.values.keys().filter_map(|key| Some((key, key.strip_prefix(prefix)?)));
        keys.map(|(key, name)| Ok((name.to_owned(), self.str(key)?.unwrap_or_default().to_owned())))
            .collect()
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        wanted: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(value) = self.values.get(key) else { return Ok(None) };
        match read(value) {
            Some(value) => Ok(Some(value)),
            None => Err(self.wrong(key, &format!("is {}, not {wanted}", value.kind()))),
        }
    }

    pub(crate) fn wrong(&self, key: &str, message: &str) -> Error {
        Error::file(&self.path, format!("`{key}` {message}"))
    }

    pub(crate) fn missing(&self, key: &str) -> Error {
        Error::file(&self.path, format!("has no `{key}`"))
    }
}

fn read_version(reader: &mut Reader<'_>) -> Result<u32> {
    let magic = reader.take(4, "the magic number")?;
    if magic != b"GGUF" {
        let hint = match magic {
            [b'P', b'K', ..] => "this is a zip archive, perhaps a PyTorch checkpoint",
            b"ggjt" | b"lmgg" | b"fmgg" | b"tjgg" => {
                "this is the format before GGUF; convert it again"
            }
            b"vers" => "this is a pointer of git-lfs, not the file; run `git lfs pull`",
            [b'<', ..] => "this is a web page, not the file; download it again",
            _ => "a folder of safetensors is given by the folder's name",
        };
        return Err(reader.error("is no GGUF file").with_hint(hint));
    }
    let version = reader.u32("the version")?;
    match version {
        2 | 3 => Ok(version),
        _ if version != 0 && version & 0xffff == 0 => {
            Err(reader.error("is a big-endian GGUF file").with_hint("use the little-endian one"))
        }
        _ => Err(reader.error(format!("has GGUF version {version}; 2 and 3 are supported"))),
    }
}

#[cfg(test)]
pub(crate) mod tests;
