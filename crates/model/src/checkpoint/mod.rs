//! The files a base model is made of, whatever their format.

mod bitsandbytes;
mod gguf;
mod name;
mod part;
mod safetensors;
mod shapes;
mod synthetic;
mod write;

use std::fmt;
use std::fs::File;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::safetensors::Dtype;
use compute::{Owner, Storage};
use memmap2::Mmap;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use text::{Date, Metadata};

pub use bitsandbytes::Codes;
pub use name::stays_inside;
pub use part::Part;
pub(crate) use part::{not_finite, plain_name};
pub use safetensors::check_finite;
pub use write::{Announced, TensorWriter};

use crate::{Config, Error, Result};

/// A tensor where it lies in its file.
pub struct Tensor<'a> {
    /// Its name in the file's own spelling, for errors.
    pub name: String,
    /// Outermost dimension first.
    pub shape: Vec<usize>,
    /// Its numbers.
    pub stored: Stored<'a>,
    /// The file, for errors.
    pub path: &'a Path,
    mapping: &'a Mapping,
}

/// How the numbers of a [`Tensor`] are stored.
pub enum Stored<'a> {
    /// Floats, or the blocks of a GGUF file.
    Plain {
        /// Which.
        storage: Storage,
        /// The bytes in the mapped file.
        bytes: &'a [u8],
        /// Row `i` is row `row_order[i]` of `bytes`.
        row_order: Option<Vec<u32>>,
    },
    /// Codes of bitsandbytes.
    Quantized(Codes<'a>),
}

/// Tensors by the names that Hugging Face gives them.
trait Tensors: Send + Sync {
    fn metadata(&self, date: Date) -> Result<Metadata>;

    fn get(&self, name: &str) -> Result<Option<Tensor<'_>>>;

    /// As `get`, for who expects this shape.
    fn get_as(&self, name: &str, _shape: &[usize]) -> Result<Option<Tensor<'_>>> {
        self.get(name)
    }

    /// `config.json`, or what stands for it.
    fn config_json(&self) -> Result<Value>;

    /// The name that the files have for a tensor of the decoder.
    fn stored_name(&self, name: &str) -> String {
        name.to_owned()
    }

    /// Gives back the memory of all pages of the files.
    fn release(&self) {}

    /// Every tensor of the files as bytes under its own name, where others may read it so.
    fn file_tensors(&self) -> Vec<FileTensor<'_>> {
        Vec::new()
    }
}

/// A tensor as its file has it.
pub(crate) struct FileTensor<'a> {
    pub(crate) name: &'a str,
    pub(crate) dtype: Dtype,
    pub(crate) shape: &'a [usize],
    pub(crate) bytes: &'a [u8],
}

/// Something about a model's files that contradicts itself and was decided as transformers decides it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    /// Stable name.
    pub id: &'static str,
    /// What was found, and what is taken.
    pub message: String,
    /// What to do about it.
    pub hint: &'static str,
}

/// A base model as it lies on disk: its shape read, its tensors mapped, nothing loaded.
pub struct Base {
    /// The folder or file that it was opened from.
    pub path: PathBuf,
    /// `folder`, `gguf`, `config` or `synthetic`.
    pub format: &'static str,
    /// The decoder's shape.
    pub config: Config,
    /// What is odd about the files, and how it was decided.
    pub remarks: Vec<Remark>,
    tensors: Box<dyn Tensors>,
    files: Vec<PathBuf>,
    stop: Option<Asked>,
}

impl fmt::Debug for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Base").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Whether to stop.
type Asked = Box<dyn Fn() -> bool + Send + Sync>;

impl Base {
    /// Opens a Hugging Face folder or a `.gguf` file.
    pub fn open(path: &Path) -> Result<Self> {
        let is_file = std::fs::metadata(path).map_err(Error::io(path))?.is_file();
        if is_file { Self::open_gguf(path) } else { Self::open_folder(path) }
    }

    /// From now on hashing and loading end with [`Error::Interrupted`] once `asked` says so.
    pub fn stop_when(&mut self, asked: impl Fn() -> bool + Send + Sync + 'static) {
        self.stop = Some(Box::new(asked));
    }

    /// [`Error::Interrupted`] where it is time to stop.
    pub(crate) fn check_stop(&self) -> Result<()> {
        match self.stop.as_ref().is_some_and(|asked| asked()) {
            true => Err(Error::Interrupted),
            false => Ok(()),
        }
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
        let mut config = Self::check_config(&json, &config_path)?;
        let tensors = safetensors::Folder::open(path)?;
        let mut remarks: Vec<Remark> = tensors.stale_index().into_iter().collect();
        if config.tie_word_embeddings && tensors.has_other_head()? {
            config.tie_word_embeddings = false;
            remarks.push(Remark {
                id: "untied-head",
                message: "`config.json` ties the head to the embedding, but the files hold a head with \
                          other values: that one is used"
                    .into(),
                hint: "set `tie_word_embeddings` to false, or remove `lm_head.weight` from the files",
            });
        }
        let files = tensors.files();
        let (path, tensors) = (path.into(), Box::new(tensors));
        Ok(Base { path, format: "folder", config, remarks, tensors, files, stop: None })
    }

    /// Reads a folder's `config.json` and refuses what cannot be loaded, before there are any
    /// weights. `path` is only named in errors.
    pub fn check_config(json: &serde_json::Value, path: &Path) -> Result<Config> {
        let config = Config::from_json(json, path)?;
        check_quantization(json, path)?;
        Ok(config)
    }

    /// A base that has shapes and no numbers, from what stands in a `config.json`: for a device that only
    /// counts. Tokenizer and templates come from the folder of `path`, where they are asked for.
    pub fn from_config(json: &Value, path: &Path) -> Result<Self> {
        let config = Self::check_config(json, path)?;
        let tensors = shapes::Shapes::new(json, &config, path.parent().unwrap_or(path))?;
        let tensors = Box::new(tensors);
        let (path, files) = (path.into(), Vec::new());
        let remarks = Vec::new();
        Ok(Base { path, format: "config", config, remarks, tensors, files, stop: None })
    }

    /// A base of a shape with made-up numbers, for measuring: linear layers stored as `storage` (bf16, Q8_0,
    /// Q4_0 or Q4_1), embedding and head in bf16. It has no tokenizer. The numbers lie in files of the folder
    /// `scratch` that are unlinked at once.
    pub fn synthetic(json: &Value, name: &str, storage: Storage, scratch: &Path) -> Result<Self> {
        let known = [Storage::Bf16, Storage::Q8_0, Storage::Q4_0, Storage::Q4_1];
        if !known.contains(&storage) {
            let message = format!("made-up weights are not stored as {storage:?}");
            return Err(Error::Input { message, hint: None });
        }
        let path = Path::new(name);
        let config = Self::check_config(json, path)?;
        let tensors = Box::new(synthetic::Synthetic::new(json, &config, name, storage, scratch)?);
        let (path, files) = (path.into(), Vec::new());
        let remarks = Vec::new();
        Ok(Base { path, format: "synthetic", config, remarks, tensors, files, stop: None })
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
            remarks: Vec::new(),
            tensors: Box::new(tensors),
            files: vec![path.into()],
            stop: None,
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
        let templates = text::metadata::folder::chat_templates(dir)?;
        if let Some(source) = templates.default {
            let compile = |source: &str| text::ChatTemplate::new(source, &metadata.special, date);
            let mut template = compile(&source)?;
            if let Some(source) = templates.named.get("tool_use") {
                template = template.with_tool_use(&compile(source)?);
            }
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
        let Some(tensor) = self.tensors.get_as(name, shape)? else {
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

    /// `config.json`; of a GGUF file, the same keys made from its metadata.
    pub fn config_json(&self) -> Result<Value> {
        self.tensors.config_json()
    }

    /// The name that the files have for a tensor of the decoder.
    pub(crate) fn stored_name(&self, name: &str) -> String {
        self.tensors.stored_name(name)
    }

    /// Every tensor of a folder's files; none of a GGUF file, whose names are others.
    pub(crate) fn file_tensors(&self) -> Vec<FileTensor<'_>> {
        self.tensors.file_tensors()
    }

    /// Gives back the memory of all pages of the files; they are read again when they are touched. Systems
    /// bring in neighbours of what is touched, so that giving back tensor by tensor is not enough.
    pub fn release(&self) {
        self.tensors.release();
    }

    /// Whether there is a tensor of this name.
    pub fn contains(&self, name: &str) -> Result<bool> {
        Ok(self.tensors.get(name)?.is_some())
    }

    /// A short word for how most weights are stored: `bf16`, `q4_1`, `nf4`, ...
    pub fn storage_name(&self) -> Result<String> {
        let tensor = self.tensors.get("model.layers.0.mlp.down_proj.weight")?;
        Ok(tensor.map_or_else(|| "unknown".into(), |tensor| tensor.stored.name()))
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
                self.check_stop()?;
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

impl Stored<'_> {
    fn name(&self) -> String {
        match self {
            Stored::Plain { storage, .. } => format!("{storage:?}").to_lowercase(),
            Stored::Quantized(codes) => codes.name().to_owned(),
        }
    }
}

/// Refuses weights quantised in a way that cannot be read.
fn check_quantization(config: &serde_json::Value, path: &Path) -> Result<()> {
    let Some(quantization) = config.get("quantization_config").filter(|v| v.is_object()) else {
        return Ok(());
    };
    let is_set = |key: &str| quantization.get(key).and_then(|v| v.as_bool()) == Some(true);
    match quantization.get("quant_method").and_then(|v| v.as_str()) {
        Some("bitsandbytes") => Ok(()),
        // Older files name no method.
        None if is_set("load_in_4bit") || is_set("load_in_8bit") => Ok(()),
        method => {
            let method = method.unwrap_or("?");
            let message = format!("weights quantised by `{method}` are not supported");
            let hint = "use the 16-bit original, a bitsandbytes folder or a GGUF file";
            Err(Error::file(path, message).with_hint(hint))
        }
    }
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A file in memory, whose pages come when they are touched.
#[derive(Clone)]
struct Mapping(Arc<Mmap>);

impl Mapping {
    fn new(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io(path))?;
        // SAFETY: the map is read only, and the file is a checkpoint that nobody
        // rewrites while it is in use; cutting it short would end the process, not corrupt it.
        #[allow(unsafe_code)]
        let map = unsafe { Mmap::map(&file) }.map_err(Error::io(path))?;
        Ok(Mapping(Arc::new(map)))
    }

    /// The mapping as a backend keeps it.
    fn owner(&self) -> Owner {
        self.0.clone()
    }

    /// Where bytes of the mapping lie in it.
    fn offset(&self, bytes: &[u8]) -> usize {
        bytes.as_ptr().addr() - self.0.as_ptr().addr()
    }

    /// Gives back the memory of the pages that hold these bytes of the mapping.
    #[cfg(unix)]
    fn release(&self, bytes: &[u8]) {
        use memmap2::UncheckedAdvice::DontNeed;
        if !self.0.as_ptr_range().contains(&bytes.as_ptr()) {
            // Numbers that were changed on opening lie elsewhere.
            return;
        }
        let offset = self.offset(bytes);
        // SAFETY: the map is of a file and never written, so a page that was dropped comes back with
        // the same bytes when it is touched.
        #[allow(unsafe_code)]
        let advised = unsafe { self.0.unchecked_advise_range(DontNeed, offset, bytes.len()) };
        // Where the system does not take the advice, the pages stay until it wants them.
        advised.ok();
    }

    #[cfg(not(unix))]
    fn release(&self, _bytes: &[u8]) {}
}

impl Deref for Mapping {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}
