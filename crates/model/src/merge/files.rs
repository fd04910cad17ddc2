//! What stands beside the weights of a merged model.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::Path;

use sha2::{Digest as _, Sha256};
use text::Date;

use crate::{Base, Error, Result};

/// Files that make a tokenizer, taken together from one folder.
const TOKENIZER: &[&str] = &[
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
];

/// Files of the base that belong to the model whatever was trained.
const OTHERS: &[&str] = &[
    "preprocessor_config.json",
    "processor_config.json",
    "LICENSE",
    "LICENSE.txt",
    "LICENSE.md",
    "NOTICE",
    "USE_POLICY.md",
];

/// Copies tokenizer, chat templates, generation config and licence to `dir`: those that the adapter was
/// trained with where its folder has them, else the base's. Of a GGUF base they are made from its header.
pub fn copy_companions(base: &Base, adapter: &Path, dir: &Path, date: Date) -> Result<()> {
    let origin = base.path.is_dir().then_some(base.path.as_path());
    let has = |folder: &Path, name: &str| folder.join(name).is_file();
    let folders = [Some(adapter), origin];
    let first = |name: &str| folders.into_iter().flatten().find(|folder| has(folder, name));
    if origin.is_none() && !(has(adapter, "tokenizer.json")) {
        return write_from_header(base, dir, date);
    }
    if let Some(folder) = first("tokenizer.json").or(first("tokenizer_config.json")) {
        TOKENIZER.iter().try_for_each(|name| copy_if_there(folder, dir, name))?;
    }
    let brings_template = has(adapter, "chat_template.jinja");
    match origin {
        Some(origin) if !brings_template => {
            copy_if_there(origin, dir, "chat_template.jinja")?;
            copy_if_there(origin, dir, "chat_template.json")?;
            copy_folder(origin, dir, "additional_chat_templates")?;
        }
        _ => {
            copy_if_there(adapter, dir, "chat_template.jinja")?;
            copy_folder(adapter, dir, "additional_chat_templates")?;
        }
    }
    if let Some(folder) = first("generation_config.json") {
        copy_if_there(folder, dir, "generation_config.json")?;
    }
    match origin {
        Some(origin) => OTHERS.iter().try_for_each(|name| copy_if_there(origin, dir, name)),
        None => Ok(()),
    }
}

/// SHA-256 of an adapter's matrices: what tells one adapter from another, wherever its folder lies.
pub fn adapter_hash(dir: &Path) -> Result<String> {
    let path = dir.join("adapter_model.safetensors");
    let mut file = File::open(&path).map_err(Error::io(&path))?;
    let mut digest = Sha256::new();
    let mut chunk = vec![0; 1 << 20];
    loop {
        let count = file.read(&mut chunk).map_err(Error::io(&path))?;
        if count == 0 {
            return Ok(crate::checkpoint::hex(&digest.finalize()));
        }
        digest.update(&chunk[..count]);
    }
}

fn write_from_header(base: &Base, dir: &Path, date: Date) -> Result<()> {
    let metadata = base.metadata(date)?;
    let pretty = |json: &serde_json::Value| {
        serde_json::to_string_pretty(json).expect("JSON can be written") + "\n"
    };
    let tokenizer = metadata.tokenizer.to_json()?;
    write_synced(&dir.join("tokenizer.json"), tokenizer.as_bytes())?;
    let config = pretty(&metadata.tokenizer.config_json());
    write_synced(&dir.join("tokenizer_config.json"), config.as_bytes())?;
    if let Some(template) = &metadata.chat_template {
        write_synced(&dir.join("chat_template.jinja"), template.source().as_bytes())?;
        if let Some(tool_use) = template.tool_use() {
            let folder = dir.join("additional_chat_templates");
            fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
            write_synced(&folder.join("tool_use.jinja"), tool_use.source().as_bytes())?;
        }
    }
    let generation = pretty(&metadata.generation_config);
    write_synced(&dir.join("generation_config.json"), generation.as_bytes())
}

fn copy_if_there(from: &Path, to: &Path, name: &str) -> Result<()> {
    let path = from.join(name);
    match fs::read(&path) {
        Ok(bytes) => write_synced(&to.join(name), &bytes),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::io(&path)(error)),
    }
}

/// Copies the files of a folder within the base, if there is one.
fn copy_folder(from: &Path, to: &Path, name: &str) -> Result<()> {
    let (from, to) = (from.join(name), to.join(name));
    if !from.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(&to).map_err(Error::io(&to))?;
    for entry in fs::read_dir(&from).map_err(Error::io(&from))? {
        let name = entry.map_err(Error::io(&from))?.file_name();
        copy_if_there(&from, &to, &name.to_string_lossy())?;
    }
    Ok(())
}

/// Writes a file and makes it durable.
pub(super) fn write_synced(path: &Path, bytes: &[u8]) -> Result<()> {
    let written = File::create(path).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.map_err(Error::io(path))
}
