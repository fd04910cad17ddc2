//! What of a folder is pushed.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use model::adapter::PeftMetadata;
use train::run::RunFolder;

use super::card;
use crate::cache::shards;
use crate::digest;
use crate::error::{Error, Result};
use crate::files::is_template;
use crate::id::HubId;

/// Files that are pushed beside the weights. A list of what may go, not of what may not:
/// what is not known stays on this machine.
const BESIDE: [&str; 19] = [
    "README.md",
    "LICENSE",
    "LICENSE.md",
    "LICENSE.txt",
    "NOTICE",
    "NOTICE.txt",
    "USE_POLICY.md",
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "tunesmith.json",
];

/// A folder as it is pushed.
pub(super) struct Shipment {
    /// In the order of their names.
    pub(super) files: Vec<LocalFile>,
    /// Files that stay here.
    pub(super) left_out: Vec<String>,
    /// What the commit is called if nobody says.
    pub(super) title: String,
    pub(super) warnings: Vec<String>,
}

/// A file that is pushed.
pub(super) struct LocalFile {
    /// Its path in the repository.
    pub(super) name: String,
    pub(super) path: PathBuf,
    pub(super) size: u64,
    /// What goes in place of the file's own content.
    text: Option<String>,
}

impl Shipment {
    /// Looks at an adapter folder, a run folder or a model folder.
    pub(super) fn of(folder: &Path) -> Result<Self> {
        let folder = inner(folder)?;
        let is_adapter = PeftMetadata::is_adapter(&folder);
        let weights = match is_adapter {
            true => vec!["adapter_config.json".to_owned(), "adapter_model.safetensors".to_owned()],
            false => model_weights(&folder)?,
        };
        for name in &weights {
            if !folder.join(name).is_file() {
                let message = format!("{}: `{name}` is missing", folder.display());
                return Err(Error::wrong("model_file", message).at(&folder));
            }
        }
        for name in weights.iter().filter(|name| name.ends_with(".safetensors")) {
            model::checkpoint::check_finite(&folder.join(name))?;
        }
        let goes = |name: &str| {
            BESIDE.contains(&name) || is_template(name) || weights.iter().any(|own| own == name)
        };
        let (names, left_out): (Vec<_>, Vec<_>) =
            listed(&folder)?.into_iter().partition(|name| goes(name));
        let files = names.into_iter().map(|name| LocalFile::new(&folder, name));
        let mut warnings = Vec::new();
        if is_adapter {
            warnings.extend(local_base(&folder)?);
        }
        let kind = if is_adapter { "adapter" } else { "model" };
        let title = format!("Upload {kind} with Tunesmith {}", env!("CARGO_PKG_VERSION"));
        Ok(Shipment { files: files.collect::<Result<_>>()?, left_out, title, warnings })
    }
}

/// The folder with the weights: itself, or that of a run.
fn inner(folder: &Path) -> Result<PathBuf> {
    if !folder.is_dir() {
        let message = format!("{}: no such folder", folder.display());
        return Err(Error::wrong("file_not_found", message).at(folder));
    }
    let is_model = |path: &PathBuf| {
        PeftMetadata::is_adapter(path)
            || path.join("model.safetensors").is_file()
            || path.join("model.safetensors.index.json").is_file()
    };
    if is_model(&folder.to_owned()) {
        return Ok(folder.to_owned());
    }
    let mut found: Vec<PathBuf> =
        ["adapter", "model"].map(|name| folder.join(name)).into_iter().filter(is_model).collect();
    match (found.len(), RunFolder::is_run(folder)) {
        (1, _) => Ok(found.remove(0)),
        (2, _) => {
            let message = format!("{}: holds an adapter and a model", folder.display());
            let hint = format!("name `{}` or `{}`", found[0].display(), found[1].display());
            Err(Error::wrong("model_not_found", message).at(folder).hint(hint))
        }
        (_, true) => {
            let message = format!("{}: the run has no adapter yet", folder.display());
            Err(Error::wrong("model_not_found", message)
                .at(folder)
                .hint("finish the run with `tunesmith train FOLDER --resume`"))
        }
        _ => {
            let message = format!("{}: is not an adapter, a run or a model", folder.display());
            Err(Error::wrong("model_not_found", message).at(folder).hint(
                "an adapter has `adapter_config.json`, a model `config.json` and safetensors",
            ))
        }
    }
}

/// The weight files of a model with what belongs to them.
fn model_weights(folder: &Path) -> Result<Vec<String>> {
    let index = "model.safetensors.index.json";
    let mut names = vec!["config.json".to_owned()];
    let whole = "model.safetensors";
    let shards = shards(folder).filter(|_| !folder.join(whole).is_file());
    let Some(shards) = shards else {
        names.push(whole.to_owned());
        return Ok(names);
    };
    let is_plain = |name: &String| name.ends_with(".safetensors") && !name.contains(['/', '\\']);
    if let Some(name) = shards.iter().find(|name| !is_plain(name)) {
        let path = folder.join(index);
        let message = format!("{}: `{name}` is not a file beside it", path.display());
        return Err(Error::wrong("model_file", message).at(&path));
    }
    names.push(index.to_owned());
    names.extend(shards);
    Ok(names)
}

/// The files of a folder and of its templates, in the order of their names; folders with a `/`.
fn listed(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for prefix in ["", "additional_chat_templates/"] {
        let dir = folder.join(prefix);
        if !dir.is_dir() {
            continue;
        }
        let io = |error: std::io::Error| Error::io(&dir, error);
        for entry in fs::read_dir(&dir).map_err(io)? {
            let entry = entry.map_err(io)?;
            let end = if entry.path().is_dir() { "/" } else { "" };
            let name = format!("{prefix}{}{end}", entry.file_name().to_string_lossy());
            if name != "additional_chat_templates/" {
                names.push(name);
            }
        }
    }
    names.sort();
    Ok(names)
}

/// What is wrong with the base's name for others, if anything.
fn local_base(adapter: &Path) -> Result<Option<String>> {
    let base = PeftMetadata::read(adapter)?.base_model;
    let is_id = HubId::parse(&base).is_some() && !Path::new(&base).exists();
    Ok((!is_id).then(|| {
        format!(
            "the adapter calls its base `{base}`, which only this machine knows: others must \
             name the base themselves"
        )
    }))
}

impl LocalFile {
    fn new(folder: &Path, name: String) -> Result<Self> {
        let path = folder.join(&name);
        let io = |error: std::io::Error| Error::io(&path, error);
        let text = match name.as_str() {
            "README.md" => card::for_hub(&fs::read_to_string(&path).map_err(io)?),
            _ => None,
        };
        let size = match &text {
            Some(text) => text.len() as u64,
            None => path.metadata().map_err(io)?.len(),
        };
        Ok(LocalFile { name, path, size, text })
    }

    /// Whether something else goes in place of the file.
    pub(super) fn is_rewritten(&self) -> bool {
        self.text.is_some()
    }

    /// The whole content.
    pub(super) fn bytes(&self) -> Result<Vec<u8>> {
        self.start(u64::MAX)
    }

    /// The first bytes of the content.
    pub(super) fn start(&self, length: u64) -> Result<Vec<u8>> {
        if let Some(text) = &self.text {
            let length = text.len().min(length.try_into().unwrap_or(usize::MAX));
            return Ok(text.as_bytes()[..length].to_vec());
        }
        let mut bytes = Vec::new();
        let read =
            fs::File::open(&self.path).and_then(|file| file.take(length).read_to_end(&mut bytes));
        read.map_err(|error| Error::io(&self.path, error))?;
        Ok(bytes)
    }

    /// SHA-256 of the content.
    pub(super) fn sha256(&self) -> Result<String> {
        match &self.text {
            Some(text) => Ok(digest::of_text(text).0),
            None => digest::sha256(&self.path),
        }
    }

    /// Git's name of the content.
    pub(super) fn git_blob(&self) -> Result<String> {
        match &self.text {
            Some(text) => Ok(digest::of_text(text).1),
            None => digest::git_blob(&self.path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn house(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            // Weights are read before they are sent: these are whole, with no tensor.
            let is_weights = name.ends_with(".safetensors") && text.is_empty();
            let text = if is_weights { "\u{8}\0\0\0\0\0\0\0{}      " } else { *text };
            fs::write(path, text).unwrap();
        }
        root
    }

    const ADAPTER: &str = r#"{"peft_type": "LORA", "base_model_name_or_path": "o/base"}"#;
    const INDEX: &str = r#"{"weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors"}}"#;

    #[test]
    fn only_what_belongs_to_it_is_pushed() {
        let check = |files: &[(&str, &str)], inner: &str, goes: &[&str], stays: &[&str]| {
            let root = house(files);
            let shipment = Shipment::of(root.path()).unwrap();
            let names: Vec<&str> = shipment.files.iter().map(|file| file.name.as_str()).collect();
            assert_eq!(names, goes);
            assert_eq!(shipment.left_out, stays);
            let first = &shipment.files[0];
            assert_eq!(first.path, root.path().join(inner).join(&first.name));
        };
        check(
            &[
                ("adapter_config.json", ADAPTER),
                ("adapter_model.safetensors", ""),
                ("additional_chat_templates/rag.jinja", ""),
                ("additional_chat_templates/token.txt", ""),
                ("optimizer.safetensors", ""),
                (".env", ""),
                ("token", ""),
                ("hf_token.json", ""),
                ("api_key.txt", ""),
                ("secret.md", ""),
                ("tokenizer.json", ""),
                ("checkpoints/step-1/optimizer.safetensors", ""),
            ],
            "",
            &[
                "adapter_config.json",
                "adapter_model.safetensors",
                "additional_chat_templates/rag.jinja",
                "tokenizer.json",
            ],
            &[
                ".env",
                "additional_chat_templates/token.txt",
                "api_key.txt",
                "checkpoints/",
                "hf_token.json",
                "optimizer.safetensors",
                "secret.md",
                "token",
            ],
        );
        check(
            &[
                ("manifest.json", "{}"),
                ("adapter/adapter_config.json", ADAPTER),
                ("adapter/adapter_model.safetensors", ""),
            ],
            "adapter",
            &["adapter_config.json", "adapter_model.safetensors"],
            &[],
        );
        check(
            &[
                ("manifest.json", "{}"),
                ("model/config.json", "{}"),
                ("model/model.safetensors.index.json", INDEX),
                ("model/m-1.safetensors", ""),
                ("model/m-2.safetensors", ""),
                ("model/m-3.safetensors", ""),
            ],
            "model",
            &["config.json", "m-1.safetensors", "m-2.safetensors", "model.safetensors.index.json"],
            &["m-3.safetensors"],
        );
        // Where both are there, the one file is what is read: the other is left over.
        check(
            &[
                ("config.json", "{}"),
                ("model.safetensors", ""),
                ("model.safetensors.index.json", INDEX),
                ("m-1.safetensors", ""),
            ],
            "",
            &["config.json", "model.safetensors"],
            &["m-1.safetensors", "model.safetensors.index.json"],
        );
    }

    #[test]
    fn what_cannot_be_pushed_says_why() {
        let check = |files: &[(&str, &str)], expected: &str| {
            let root = house(files);
            let failure = Shipment::of(root.path()).map(|_| ()).unwrap_err();
            let message = failure.to_string().replace(&root.path().display().to_string(), "ROOT");
            assert_eq!(message, expected);
        };
        check(&[], "ROOT: is not an adapter, a run or a model");
        check(&[("manifest.json", "{}")], "ROOT: the run has no adapter yet");
        check(&[("m.gguf", "")], "ROOT: is not an adapter, a run or a model");
        check(&[("adapter_config.json", ADAPTER)], "ROOT: `adapter_model.safetensors` is missing");
        check(&[("model.safetensors", "")], "ROOT: `config.json` is missing");
        check(
            &[("config.json", "{}"), ("model.safetensors.index.json", INDEX)],
            "ROOT: `m-1.safetensors` is missing",
        );
        check(
            &[("model.safetensors.index.json", r#"{"weight_map": {"a": "../../id"}}"#)],
            "ROOT/model.safetensors.index.json: `../../id` is not a file beside it",
        );
        check(
            &[("adapter/adapter_config.json", ADAPTER), ("model/model.safetensors", "")],
            "ROOT: holds an adapter and a model",
        );
    }

    #[test]
    fn a_base_that_others_do_not_know_is_told() {
        let check = |base: &str, warns: bool| {
            let config = format!(r#"{{"base_model_name_or_path": "{base}"}}"#);
            let root =
                house(&[("adapter_config.json", &config), ("adapter_model.safetensors", "")]);
            let warnings = Shipment::of(root.path()).unwrap().warnings;
            assert_eq!(!warnings.is_empty(), warns, "{base}: {warnings:?}");
        };
        check("o/n", false);
        check("/home/me/n", true);
    }
}
