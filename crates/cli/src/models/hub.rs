//! The model hub's protocol, as far as models need it.
//!
//! `GET /api/models/ID/revision/REV?blobs=true` lists a commit's files, and
//! `GET /ID/resolve/COMMIT/FILE` is one of them. Spoken with a small HTTP client, not
//! the hub's own library, which brings an asynchronous runtime and a second protocol.

mod download;
mod refusal;

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::cache::{RepoCache, shards};
use crate::environment::Environment;
use crate::error::{Failure, Result};
use crate::terminal::Terminal;
use download::{Client, Remote};

/// A model on the hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HubId {
    /// `owner/name`.
    pub(super) name: String,
    /// Branch, tag or commit.
    pub(super) revision: String,
}

impl HubId {
    /// Reads `owner/name` or `owner/name@revision`.
    pub(super) fn parse(given: &str) -> Option<Self> {
        let (name, revision) = given.split_once('@').unwrap_or((given, "main"));
        let (owner, model) = name.split_once('/')?;
        let is_word = |text: &str| {
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            !text.is_empty() && text.chars().all(plain) && !text.starts_with('.')
        };
        let is_revision = !revision.is_empty() && revision.split('/').all(is_word);
        (is_word(owner) && is_word(model) && is_revision)
            .then(|| HubId { name: name.to_owned(), revision: revision.to_owned() })
    }

    /// Whether this is the model `name` with nothing said about its revision.
    pub(super) fn is_default_of(&self, name: &str) -> bool {
        self.name == name && self.revision == "main"
    }
}

/// The hub, its cache before it.
pub(super) struct Hub<'a> {
    environment: &'a Environment,
    terminal: &'a Terminal,
    offline: bool,
}

/// A commit of a model.
#[derive(Deserialize)]
struct Commit {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

/// A file of a commit.
#[derive(Deserialize)]
struct Sibling {
    #[serde(rename = "rfilename")]
    name: String,
    size: Option<u64>,
    #[serde(rename = "blobId")]
    blob_id: Option<String>,
    lfs: Option<Lfs>,
}

/// A file that the hub keeps by its checksum.
#[derive(Deserialize)]
struct Lfs {
    sha256: String,
}

impl<'a> Hub<'a> {
    pub(super) fn new(environment: &'a Environment, terminal: &'a Terminal, offline: bool) -> Self {
        Hub { environment, terminal, offline: offline || environment.is_offline() }
    }

    /// The folder of a model: from the cache if it is there as a whole, else downloaded.
    pub(super) fn model(&self, id: &HubId) -> Result<PathBuf> {
        if let Some(folder) = self.cached(id) {
            return Ok(folder);
        }
        if self.offline {
            let message =
                format!("`{}` is not in the cache, and the network is forbidden", id.name);
            return Err(Failure::wrong("offline", message)
                .hint("leave out `--offline`, or name a folder or a `.gguf` file"));
        }
        let cache = self.environment.hub_cache().ok_or_else(|| {
            Failure::new("no_cache", "there is no folder for the hub's cache")
                .hint("set `HF_HOME`, or `HOME`")
        })?;
        self.download(id, &RepoCache::new(&cache, id))
    }

    /// The folder of a model in the cache.
    pub(super) fn cached(&self, id: &HubId) -> Option<PathBuf> {
        RepoCache::new(&self.environment.hub_cache()?, id).complete(&id.revision)
    }

    fn download(&self, id: &HubId, repo: &RepoCache) -> Result<PathBuf> {
        let endpoint = self.environment.hub_endpoint();
        let client = Client::new(self.environment.hub_token());
        let HubId { name, revision } = id;
        self.terminal.note(&format!("{name}: asking {endpoint}"));
        let quoted = revision.replace('/', "%2F");
        let url = format!("{endpoint}/api/models/{name}/revision/{quoted}?blobs=true");
        let commit: Commit = client.json(&url, id)?;
        let fetch = |file: &Sibling| -> Result<()> {
            let hash = file.hash().filter(|hash| hash.bytes().all(|b| b.is_ascii_hexdigit()));
            let hash = hash.map_or_else(|| format!("{}-{}", commit.sha, file.name), str::to_owned);
            let blob = repo.blob(&hash.replace('/', "-"));
            let url = format!("{endpoint}/{name}/resolve/{}/{}", commit.sha, file.name);
            let sha256 = file.lfs.as_ref().map(|lfs| lfs.sha256.as_str());
            let remote = Remote { url: &url, name: &file.name, size: file.size, sha256, id };
            client.fetch(&remote, &blob, self.terminal)?;
            repo.link(&blob, &commit.sha, &file.name)
        };
        let folder = repo.snapshot(&commit.sha);
        let files = Files { all: &commit.siblings, name };
        // What it is comes first: a model that cannot be used is refused before its weights.
        for file in files.described() {
            fetch(file)?;
        }
        check_config(&folder, name)?;
        for file in files.weights(&folder)? {
            fetch(file)?;
        }
        repo.set_ref(revision, &commit.sha)?;
        Ok(folder)
    }
}

impl Sibling {
    fn hash(&self) -> Option<&str> {
        self.lfs.as_ref().map(|lfs| lfs.sha256.as_str()).or(self.blob_id.as_deref())
    }
}

/// The files of a commit, seen as a model.
struct Files<'a> {
    all: &'a [Sibling],
    name: &'a str,
}

/// Everything beside weights that a model or an adapter may need.
const DESCRIPTIONS: [&str; 10] = [
    "config.json",
    "adapter_config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "model.safetensors.index.json",
];

impl<'a> Files<'a> {
    fn get(&self, name: &str) -> Option<&'a Sibling> {
        self.all.iter().find(|file| file.name == name)
    }

    fn described(&self) -> impl Iterator<Item = &'a Sibling> {
        let named = DESCRIPTIONS.iter().filter_map(|name| self.get(name));
        let templates = self.all.iter().filter(|file| {
            let name = file.name.strip_prefix("additional_chat_templates/");
            name.is_some_and(|name| name.ends_with(".jinja") && !name.contains(['/', '\\']))
        });
        named.chain(templates)
    }

    /// The weights, with the descriptions in `folder`.
    fn weights(&self, folder: &Path) -> Result<Vec<&'a Sibling>> {
        let names = match self.get("adapter_config.json") {
            Some(_) => vec!["adapter_model.safetensors".to_owned()],
            None => shards(folder).unwrap_or_else(|| vec!["model.safetensors".to_owned()]),
        };
        let find = |name: &String| self.get(name).ok_or_else(|| self.missing(name));
        names.iter().map(find).collect()
    }

    fn missing(&self, name: &str) -> Failure {
        let message = format!("{}: the hub has no `{name}` of it", self.name);
        let ends = |end: &str| self.all.iter().any(|file| file.name.ends_with(end));
        let hint = match () {
            () if ends(".gguf") => "download one of its `.gguf` files and name that file",
            () if ends(".bin") || ends(".pt") || ends(".pth") => {
                "its weights are pickled; convert them to safetensors, or take another copy"
            }
            () => "take a model with safetensors",
        };
        Failure::wrong("model_not_found", message).hint(hint)
    }
}

fn check_config(folder: &Path, name: &str) -> Result<()> {
    let path = folder.join("config.json");
    let Ok(bytes) = std::fs::read(&path) else { return Ok(()) };
    let json = serde_json::from_slice(&bytes).map_err(|error| {
        Failure::new("model_file", format!("{}: not JSON: {error}", path.display())).at(&path)
    })?;
    let checked = model::Config::from_json(&json, Path::new(&format!("{name}/config.json")));
    Ok(checked.map(|_| ())?)
}

#[cfg(test)]
mod tests;
