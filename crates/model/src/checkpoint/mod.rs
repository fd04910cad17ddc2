//! The files a base model is made of, whatever their format.

mod gguf;
mod safetensors;

use std::fs::File;
use std::path::{Path, PathBuf};

use compute::Storage;
use memmap2::Mmap;
use sha2::{Digest as _, Sha256};
use text::{Date, Metadata};

use crate::{Config, Error, Result};

/// A tensor where it lies in its file.
pub struct Tensor<'a> {
    /// Outermost dimension first.
    pub shape: Vec<usize>,
    /// How its numbers are stored.
    pub storage: Storage,
    /// Its bytes in the mapped file.
    pub bytes: &'a [u8],
    /// Row `i` is row `row_order[i]` of `bytes`.
    pub row_order: Option<Vec<u32>>,
    /// The file, for errors.
    pub path: &'a Path,
}

/// Tensors by the names that Hugging Face gives them.
trait Tensors: Send + Sync {
    fn metadata(&self, date: Date) -> Result<Metadata>;

    fn get(&self, name: &str) -> Result<Option<Tensor<'_>>>;
}

/// A base model as it lies on disk: its shape read, its tensors mapped, nothing loaded.
pub struct Base {
    /// The folder or file that it was opened from.
    pub path: PathBuf,
    /// `folder` or `gguf`.
    pub format: &'static str,
    /// The decoder's shape.
    pub config: Config,
    tensors: Box<dyn Tensors>,
    files: Vec<PathBuf>,
}

impl Base {
    /// Opens a Hugging Face folder or a `.gguf` file.
    pub fn open(path: &Path) -> Result<Self> {
        let is_file = std::fs::metadata(path).map_err(Error::io(path))?.is_file();
        if is_file { Self::open_gguf(path) } else { Self::open_folder(path) }
    }

    /// Reads tokenizer, chat template and generation config. `date` is what the template sees as today.
    pub fn metadata(&self, date: Date) -> Result<Metadata> {
        self.tensors.metadata(date)
    }

    fn open_folder(path: &Path) -> Result<Self> {
        let config_path = path.join("config.json");
        if !config_path.is_file() {
            return Err(Error::file(path, "no `config.json` in this folder").with_hint(
                "a model is a Hugging Face folder, a `.gguf` file, an adapter folder or a run folder",
            ));
        }
        let bytes = std::fs::read(&config_path).map_err(Error::io(&config_path))?;
        let json: serde_json::Value = serde_json::from_slice(&bytes)
            .map_err(|error| Error::file(&config_path, format!("not JSON: {error}")))?;
        // The shape first: a model that cannot be used is refused before its weights are read.
        let config = Self::check_config(&json, &config_path)?;
        let tensors = safetensors::Folder::open(path)?;
        let files = tensors.files();
        Ok(Base { path: path.into(), format: "folder", config, tensors: Box::new(tensors), files })
    }

    /// Reads a folder's `config.json` and refuses what cannot be loaded, before there are any
    /// weights. `path` is only named in errors.
    pub fn check_config(json: &serde_json::Value, path: &Path) -> Result<Config> {
        let config = Config::from_json(json, path)?;
        let Some(quantization) = json.get("quantization_config").filter(|v| v.is_object()) else {
            return Ok(config);
        };
        let method = quantization.get("quant_method").and_then(|v| v.as_str()).unwrap_or("?");
        Err(Error::file(path, format!("weights quantised by `{method}` are not supported"))
            .with_hint("use the 16-bit original or a GGUF file"))
    }

    fn open_gguf(path: &Path) -> Result<Self> {
        let file = gguf::GgufFile::open(path)?;
        let json = file.config_json()?;
        let config = Config::from_json(&json, path)?;
        let tensors = file.with_config(&config);
        Ok(Base {
            path: path.into(),
            format: "gguf",
            config,
            tensors: Box::new(tensors),
            files: vec![path.into()],
        })
    }

    /// As [`Base::metadata`], with the tokenizer and the template that an adapter folder brings:
    /// those that it was trained with.
    pub fn metadata_with(&self, adapter: Option<&Path>, date: Date) -> Result<Metadata> {
        let mut metadata = self.metadata(date)?;
        let Some(dir) = adapter else { return Ok(metadata) };
        if dir.join("tokenizer.json").is_file() {
            metadata.tokenizer = text::Tokenizer::from_folder(dir)?;
            metadata.special = metadata.tokenizer.special().clone();
        }
        if let Some(source) = text::metadata::folder::chat_templates(dir)?.default {
            let template = text::ChatTemplate::new(&source, &metadata.special, date)?;
            metadata.chat_template = Some(template);
        }
        let generation = text::metadata::folder::generation_config(dir)?;
        if let Some(ids) = generation.get("eos_token_id") {
            let listed = ids.as_array().cloned().unwrap_or_else(|| vec![ids.clone()]);
            metadata.eos_token_ids =
                listed.iter().filter_map(|v| v.as_u64()).map(|v| v as u32).collect();
            metadata.generation_config = generation;
        }
        Ok(metadata)
    }

    /// The tensor of this name and shape.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor<'_>> {
        let Some(tensor) = self.tensors.get(name)? else {
            return Err(Error::file(&self.path, format!("tensor `{name}` is missing")));
        };
        if tensor.shape != shape {
            return Err(Error::file(
                tensor.path,
                format!(
                    "tensor `{name}` has shape {:?}, but the config asks for {shape:?}",
                    tensor.shape
                ),
            ));
        }
        Ok(tensor)
    }

    /// Whether there is a tensor of this name.
    pub fn contains(&self, name: &str) -> Result<bool> {
        Ok(self.tensors.get(name)?.is_some())
    }

    /// A short word for how most weights are stored: `bf16`, `q4_1`, ...
    pub fn storage_name(&self) -> Result<String> {
        let name = "model.layers.0.mlp.down_proj.weight";
        let storage = self.tensors.get(name)?.map(|t| t.storage);
        Ok(storage.map_or_else(|| "unknown".into(), |s| format!("{s:?}").to_lowercase()))
    }

    /// SHA-256 over names, sizes and contents of the weight files.
    pub fn hash(&self) -> Result<String> {
        let mut digest = Sha256::new();
        for path in &self.files {
            let name = path.file_name().unwrap_or_default();
            digest.update(name.as_encoded_bytes());
            let mut file = File::open(path).map_err(Error::io(path))?;
            let length = file.metadata().map_err(Error::io(path))?.len();
            digest.update(length.to_le_bytes());
            let mut chunk = vec![0; 1 << 20];
            loop {
                let count = std::io::Read::read(&mut file, &mut chunk).map_err(Error::io(path))?;
                if count == 0 {
                    break;
                }
                digest.update(&chunk[..count]);
            }
        }
        Ok(hex(&digest.finalize()))
    }
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Maps a file into memory.
fn map(path: &Path) -> Result<Mmap> {
    let file = File::open(path).map_err(Error::io(path))?;
    // SAFETY: the map is read only, and the file is a checkpoint that nobody
    // rewrites while it is in use; cutting it short would end the process, not corrupt it.
    #[allow(unsafe_code)]
    unsafe { Mmap::map(&file) }.map_err(Error::io(path))
}
