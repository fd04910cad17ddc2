//! Which files of a commit a model needs.

use std::path::Path;

use model::checkpoint::stays_inside;
use serde::Deserialize;

use super::http::Trouble;
use super::id::{HubId, is_word};
use crate::cache::shards;
use crate::digest::Sum;
use crate::error::{Error, Result};
use text::figures::bytes;

/// A commit of a model or a data set.
#[derive(Deserialize)]
pub(crate) struct Commit {
    pub(crate) sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
    /// What the hub has read of its GGUF files.
    gguf: Option<GgufSummary>,
}

impl Commit {
    pub(crate) fn get(&self, name: &str) -> Option<&Sibling> {
        self.siblings.iter().find(|file| file.name == name)
    }

    /// The names of all its files that a folder can hold.
    pub(crate) fn names(&self) -> Vec<String> {
        let inside = self.siblings.iter().filter(|file| stays_inside(&file.name));
        inside.map(|file| file.name.clone()).collect()
    }

    /// Refuses a commit whose name would not be a folder of its own.
    pub(crate) fn check(self) -> std::result::Result<Self, Trouble> {
        if is_word(&self.sha) {
            return Ok(self);
        }
        Err(Trouble::Garbled(format!("`{}` is not a commit", self.sha.escape_debug())))
    }
}

/// What the hub knows of GGUF files.
#[derive(Deserialize)]
struct GgufSummary {
    architecture: Option<String>,
}

/// A file of a commit.
#[derive(Deserialize)]
pub(crate) struct Sibling {
    #[serde(rename = "rfilename")]
    pub(crate) name: String,
    pub(crate) size: Option<u64>,
    #[serde(rename = "blobId")]
    blob_id: Option<String>,
    lfs: Option<Lfs>,
}

/// A file that the hub keeps by its checksum.
#[derive(Deserialize)]
struct Lfs {
    sha256: String,
}

impl Sibling {
    /// Refuses a name that would lead out of the folder of its commit.
    pub(crate) fn check(&self, id: &HubId) -> Result<()> {
        if stays_inside(&self.name) {
            return Ok(());
        }
        let (repo, name) = (&id.name, self.name.escape_debug());
        let message = format!("{repo}: the hub names a file `{name}`, which no folder can hold");
        Err(Error::new("hub", message).hint("check `HF_ENDPOINT`; this hub is not to be trusted"))
    }

    /// The checksum that its content should have.
    pub(crate) fn sum(&self) -> Option<Sum> {
        let is_hex = |hex: &&String, length| {
            hex.len() == length && hex.bytes().all(|byte| byte.is_ascii_hexdigit())
        };
        match &self.lfs {
            Some(lfs) => Some(&lfs.sha256).filter(|hex| is_hex(hex, 64)).cloned().map(Sum::Sha256),
            None => self.blob_id.as_ref().filter(|hex| is_hex(hex, 40)).cloned().map(Sum::GitBlob),
        }
    }
}

/// Everything beside `config.json` and weights that a model or an adapter may need.
const DESCRIPTIONS: [&str; 10] = [
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "model.safetensors.index.json",
    "tunesmith.json",
    "adapter_config.json",
];

const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
const ADAPTER_WEIGHTS: &str = "adapter_model.safetensors";

/// The files of a commit, seen as the model `id`.
pub(crate) struct Files<'a> {
    pub(crate) commit: &'a Commit,
    pub(crate) id: &'a HubId,
}

impl<'a> Files<'a> {
    pub(crate) fn get(&self, name: &str) -> Option<&'a Sibling> {
        self.commit.get(name)
    }

    pub(crate) fn is_adapter(&self) -> bool {
        self.get("adapter_config.json").is_some()
    }

    /// Refuses what the list alone shows to be of no use.
    pub(crate) fn check(&self) -> Result<()> {
        if self.is_adapter() {
            return self.needed(ADAPTER_WEIGHTS).map(|_| ());
        }
        if self.get(WEIGHTS).is_none() && self.get(INDEX).is_none() {
            return Err(self.without_weights());
        }
        self.needed("config.json")?;
        self.needed("tokenizer.json").map(|_| ()).map_err(|failure| {
            failure.hint(
                "its tokenizer is in an older form; transformers' `AutoTokenizer` loads it and \
                 saves it as `tokenizer.json`",
            )
        })
    }

    /// Config, tokenizer and templates, but for `config.json` itself.
    pub(crate) fn described(&self) -> Vec<&'a Sibling> {
        let named = DESCRIPTIONS.iter().filter_map(|name| self.get(name));
        named.chain(self.commit.siblings.iter().filter(|file| is_template(&file.name))).collect()
    }

    /// The weights, with the descriptions in `folder`.
    pub(crate) fn weights(&self, folder: &Path) -> Result<Vec<&'a Sibling>> {
        let names = match self.is_adapter() {
            true => vec![ADAPTER_WEIGHTS.to_owned()],
            // Where a folder holds both, this is the one that is read.
            false if self.get(WEIGHTS).is_some() => vec![WEIGHTS.to_owned()],
            false => shards(folder).unwrap_or_else(|| vec![WEIGHTS.to_owned()]),
        };
        if names.is_empty() {
            let message = format!("{}: its `{INDEX}` names no files", self.id.name);
            return Err(Error::new("model_file", message));
        }
        if let Some(name) = names.iter().find(|name| !stays_inside(name)) {
            let (repo, name) = (&self.id.name, name.escape_debug());
            let message = format!("{repo}: its `{INDEX}` names `{name}`, which is not beside it");
            return Err(Error::new("model_file", message));
        }
        names.iter().map(|name| self.needed(name)).collect()
    }

    /// The GGUF file of that name.
    pub(crate) fn gguf(&self, name: &str) -> Result<&'a Sibling> {
        let file = self.get(name).ok_or_else(|| {
            let message = format!("{}: the hub has no `{name}` of it", self.id.name);
            Error::wrong("model_not_found", message).hint(self.gguf_hint())
        })?;
        if is_split(name) {
            let message = format!("{}: `{name}` is one part of a split file", self.id.name);
            return Err(Error::wrong("model", message)
                .hint("take a quantisation that is one file, or the safetensors original"));
        }
        let architecture = self.commit.gguf.as_ref().and_then(|gguf| gguf.architecture.as_deref());
        let Some(architecture) = architecture else { return Ok(file) };
        // Names of architectures are those of configs, or begin them: `gemma3`, `gemma3_text`.
        let supported: Vec<&str> = model::architecture::supported().collect();
        if supported.iter().any(|name| name.starts_with(architecture)) {
            return Ok(file);
        }
        let name = &self.id.name;
        let message = format!("{name}: its architecture `{architecture}` is not supported");
        Err(Error::new("model_file", message).hint(format!("supported: {}", supported.join(", "))))
    }

    pub(crate) fn needed(&self, name: &str) -> Result<&'a Sibling> {
        self.get(name).ok_or_else(|| {
            let message = format!("{}: the hub has no `{name}` of it", self.id.name);
            Error::wrong("model_not_found", message).hint("take a model with safetensors")
        })
    }

    fn without_weights(&self) -> Error {
        let ends = |end: &str| self.commit.siblings.iter().any(|file| file.name.ends_with(end));
        let name = &self.id.name;
        let (message, hint) = match () {
            () if ends(".gguf") => (
                format!("{name}: it has no safetensors, but GGUF files:{}", self.gguf_list()),
                self.gguf_hint(),
            ),
            () if ends(".bin") || ends(".pt") || ends(".pth") => (
                format!("{name}: its weights are pickled"),
                "convert them to safetensors, or take another copy".to_owned(),
            ),
            () => (
                format!("{name}: the hub has no `{WEIGHTS}` of it"),
                "take a model with safetensors".to_owned(),
            ),
        };
        Error::wrong("model_not_found", message).hint(hint)
    }

    fn ggufs(&self) -> impl Iterator<Item = &'a Sibling> {
        self.commit.siblings.iter().filter(|file| file.name.ends_with(".gguf"))
    }

    fn gguf_list(&self) -> String {
        let line = |file: &Sibling| match file.size {
            Some(size) => format!("\n  {} ({})", file.name, bytes(size)),
            None => format!("\n  {}", file.name),
        };
        self.ggufs().map(line).collect()
    }

    fn gguf_hint(&self) -> String {
        let HubId { name, revision, .. } = self.id;
        let revision = match revision.as_str() {
            super::id::MAIN => String::new(),
            revision => format!("@{revision}"),
        };
        match self.ggufs().find(|file| !is_split(&file.name)) {
            Some(file) => format!("name one of its files: `{name}{revision}:{}`", file.name),
            None => "take a model with safetensors".to_owned(),
        }
    }
}

/// Whether a file is a chat template among several.
pub(crate) fn is_template(name: &str) -> bool {
    let name = name.strip_prefix("additional_chat_templates/");
    name.is_some_and(|name| name.ends_with(".jinja") && !name.contains(['/', '\\']))
}

/// Whether a GGUF file is `NAME-00001-of-00003.gguf`.
fn is_split(name: &str) -> bool {
    let mut parts = name.trim_end_matches(".gguf").rsplit('-');
    let mut is = |test: fn(&str) -> bool| parts.next().is_some_and(test);
    let number: fn(&str) -> bool =
        |text| text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    is(number) && is(|text| text == "of") && is(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit(names: &[&str]) -> Commit {
        let file = |name: &&str| serde_json::json!({"rfilename": name, "size": 1_500_000});
        let siblings: Vec<_> = names.iter().map(file).collect();
        let gguf = serde_json::json!({"architecture": "mamba"});
        serde_json::from_value(serde_json::json!({"sha": "c", "siblings": siblings, "gguf": gguf}))
            .unwrap()
    }

    #[test]
    fn the_list_of_files_shows_what_is_of_no_use() {
        let check = |names: &[&str], message: &str, hint: &str| {
            let (commit, id) = (commit(names), HubId::parse("o/n@v2").unwrap());
            let failure = Files { commit: &commit, id: &id }.check().unwrap_err();
            assert_eq!(failure.to_string(), format!("o/n: {message}"));
            assert!(failure.hint.as_deref().unwrap().contains(hint), "{:?}", failure.hint);
        };
        check(
            &["config.json", "q/a-00001-of-00002.gguf", "b.gguf"],
            "it has no safetensors, but GGUF files:\n  q/a-00001-of-00002.gguf (2 MB)\n  b.gguf (2 MB)",
            "`o/n@v2:b.gguf`",
        );
        check(&["config.json", "pytorch_model.bin"], "its weights are pickled", "convert");
        check(&["README.md"], "the hub has no `model.safetensors` of it", "safetensors");
        check(&[WEIGHTS], "the hub has no `config.json` of it", "safetensors");
        check(&[WEIGHTS, "config.json"], "the hub has no `tokenizer.json` of it", "AutoTokenizer");
        check(
            &["adapter_config.json", "adapter_model.bin"],
            "the hub has no `adapter_model.safetensors` of it",
            "safetensors",
        );
    }

    #[test]
    fn gguf_files_are_looked_at_before_they_are_fetched() {
        let commit = commit(&["a.gguf", "a-00001-of-00002.gguf"]);
        let id = HubId::parse("o/n").unwrap();
        let files = Files { commit: &commit, id: &id };
        let check = |name: &str, expected: &str| {
            let message = files.gguf(name).map(|_| ()).unwrap_err().to_string();
            assert_eq!(message, format!("o/n: {expected}"));
        };
        check("a.gguf", "its architecture `mamba` is not supported");
        check("a-00001-of-00002.gguf", "`a-00001-of-00002.gguf` is one part of a split file");
        check("b.gguf", "the hub has no `b.gguf` of it");
    }
}
