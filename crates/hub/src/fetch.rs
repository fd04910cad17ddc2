//! The model hub's protocol, as far as models and data sets need it.
//!
//! `GET /api/models/ID/revision/REV?blobs=true` lists a commit's files, and
//! `GET /ID/resolve/COMMIT/FILE` is one of them; how a model gets there is told in `push`.
//! Of data sets the addresses are `/api/datasets/...` and `/datasets/ID/...`.
//! Spoken with a small HTTP client, not the hub's own library, which brings an
//! asynchronous runtime and a second protocol.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cache::RepoCache;
use crate::download::{Download, Remote};
use crate::error::{Error, Result};
use crate::event::{Direction, Observer, Transfers};
use crate::files::{Commit, Files, Sibling};
use crate::http::{Client, Trouble};
use crate::id::{HubId, quote, quote_path};
use crate::parallel;
use crate::refusal::Subject;
use crate::settings::Settings;

const CONFIG_FILE: &str = "config.json";

/// The first wait before something that broke off is tried again.
const PAUSE: Duration = Duration::from_millis(500);

/// The hub, its cache before it.
pub(crate) struct Hub<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) observer: &'a dyn Observer,
    pub(crate) offline: bool,
    pub(crate) pause: Duration,
}

impl<'a> Hub<'a> {
    pub(crate) fn new(settings: &'a Settings, observer: &'a dyn Observer, offline: bool) -> Self {
        Hub { settings, observer, offline: offline || settings.offline, pause: PAUSE }
    }

    /// The folder or `.gguf` file of a model: from the cache if it is there as a whole, else
    /// downloaded.
    pub(crate) fn model(&self, id: &HubId) -> Result<PathBuf> {
        if let Some(found) = self.cached(id) {
            return Ok(found);
        }
        if self.offline {
            return Err(forbidden(id));
        }
        let (client, repo) = (self.client()?, self.repo(id)?);
        Fetcher { client: &client, observer: self.observer, repo: &repo, id }.model()
    }

    /// The `config.json` of a model, with its tokenizer beside it where there is one: from the cache,
    /// else downloaded. Weights are not.
    pub(crate) fn config(&self, id: &HubId) -> Result<PathBuf> {
        let repo = self.repo(id)?;
        if let Some(found) = repo.file(&id.revision, CONFIG_FILE).filter(|_| id.file.is_none()) {
            return Ok(found);
        }
        if self.offline {
            let hint = "leave out `--offline`, or plan by a `config.json` alone: `--config FILE`";
            return Err(forbidden(id).hint(hint));
        }
        let client = self.client()?;
        Fetcher { client: &client, observer: self.observer, repo: &repo, id }.config()
    }

    pub(crate) fn repo(&self, id: &HubId) -> Result<RepoCache> {
        let cache = self.settings.cache.as_ref().ok_or_else(|| {
            Error::new("no_cache", "there is no folder for the hub's cache")
                .hint("set `HF_HOME`, or `HOME`")
        })?;
        Ok(RepoCache::new(cache, id))
    }

    /// The folder or `.gguf` file of a model in the cache.
    pub(crate) fn cached(&self, id: &HubId) -> Option<PathBuf> {
        let repo = RepoCache::new(self.settings.cache.as_ref()?, id);
        match &id.file {
            Some(file) => repo.file(&id.revision, file),
            None => repo.complete(&id.revision),
        }
    }

    pub(crate) fn client(&self) -> Result<Client<'a>> {
        let endpoint = &self.settings.endpoint;
        let token = self.settings.token();
        Client::new(endpoint, token, self.observer, self.pause).ok_or_else(|| {
            Error::wrong("hub", format!("`{endpoint}` is not the address of a hub"))
                .hint("`HF_ENDPOINT` is such as `https://hub.example.com`")
        })
    }
}

pub(crate) fn forbidden(id: &HubId) -> Error {
    let message = format!("`{}` is not in the cache, and the network is forbidden", id.name);
    let hint = format!("leave out `--offline`, or {}", id.kind.instead());
    Error::wrong("offline", message).hint(hint)
}

/// Brings files of a model or a data set into the cache.
pub(crate) struct Fetcher<'a> {
    pub(crate) client: &'a Client<'a>,
    pub(crate) observer: &'a dyn Observer,
    pub(crate) repo: &'a RepoCache,
    pub(crate) id: &'a HubId,
}

impl Fetcher<'_> {
    fn model(&self) -> Result<PathBuf> {
        let HubId { name, revision, file, .. } = self.id;
        let endpoint = &self.client.endpoint;
        self.observer.note(&format!("{name}: asking {endpoint}"));
        let commit = self.commit()?;
        let files = Files { commit: &commit, id: self.id };
        let folder = self.repo.snapshot(&commit.sha);
        let found = match file {
            Some(file) => {
                self.fetch(&commit, &[files.gguf(file)?])?;
                folder.join(file)
            }
            None => {
                self.fetch_folder(&files, &folder)?;
                folder
            }
        };
        self.repo.set_ref(revision, &commit.sha)?;
        Ok(found)
    }

    /// Everything but the weights.
    fn config(&self) -> Result<PathBuf> {
        let HubId { name, revision, file, .. } = self.id;
        let without = |message: String| {
            let hint = "`--config FILE` plans by a `config.json` alone, such as that of its base";
            Err(Error::wrong("model_not_found", message).hint(hint))
        };
        if let Some(file) = file {
            return without(format!("{name}: `{file}` has no `config.json` of its own"));
        }
        self.observer.note(&format!("{name}: asking {}", self.client.endpoint));
        let commit = self.commit()?;
        let files = Files { commit: &commit, id: self.id };
        if files.is_adapter() {
            return without(format!("{name}: it is an adapter"));
        }
        let folder = self.repo.snapshot(&commit.sha);
        self.fetch(&commit, &[files.needed(CONFIG_FILE)?])?;
        check_config(&folder, name)?;
        self.fetch(&commit, &files.described())?;
        self.repo.set_ref(revision, &commit.sha)?;
        Ok(folder.join(CONFIG_FILE))
    }

    /// What it is comes first, so that a model that cannot be used is refused before its
    /// weights; and these come last, so that a folder with weights is whole.
    fn fetch_folder(&self, files: &Files<'_>, folder: &Path) -> Result<()> {
        files.check()?;
        if let Some(config) = files.get("config.json").filter(|_| !files.is_adapter()) {
            self.fetch(files.commit, &[config])?;
            check_config(folder, &self.id.name)?;
        }
        self.fetch(files.commit, &files.described())?;
        self.fetch(files.commit, &files.weights(folder)?)
    }

    pub(crate) fn commit(&self) -> Result<Commit> {
        self.try_commit().map_err(|trouble| {
            let subject = Subject { id: self.id, client: self.client, file: None, writes: false };
            subject.explain(trouble)
        })
    }

    pub(crate) fn try_commit(&self) -> std::result::Result<Commit, Trouble> {
        let HubId { kind, name, revision, .. } = self.id;
        let (endpoint, kind, revision) = (&self.client.endpoint, kind.plural(), quote(revision));
        let url = format!("{endpoint}/api/{kind}/{name}/revision/{revision}?blobs=true");
        self.client.get_json::<Commit>(&url)?.check()
    }

    /// Brings files that are not there yet, several at a time.
    pub(crate) fn fetch(&self, commit: &Commit, files: &[&Sibling]) -> Result<()> {
        files.iter().try_for_each(|file| file.check(self.id))?;
        let folder = self.repo.snapshot(&commit.sha);
        let mut missing = files.to_vec();
        missing.retain(|file| !folder.join(&file.name).exists());
        let total = missing.iter().filter_map(|file| file.size).sum();
        let transfers = Transfers::new(self.observer, Direction::Download, missing.len(), total);
        parallel::for_each(&missing, |file, halt| {
            let bar = transfers.file(&file.name, file.size.unwrap_or(0));
            let sum = file.sum();
            let hash = match &sum {
                Some(sum) => sum.hex().to_owned(),
                None => format!("{}-{}", commit.sha, file.name.replace('/', "-")),
            };
            let wait = || {
                let note = format!("`{}`: another process downloads it; waiting", file.name);
                self.observer.note(&note);
            };
            let _lock = self.repo.lock(&hash, wait)?;
            let blob = self.repo.blob(&hash);
            let HubId { kind, name: repo, .. } = self.id;
            let (endpoint, page) = (&self.client.endpoint, kind.page());
            let path = quote_path(&file.name);
            let url = format!("{endpoint}/{page}{repo}/resolve/{}/{path}", commit.sha);
            let remote =
                Remote { url: &url, repo, name: &file.name, size: file.size, sum: sum.as_ref() };
            let explain = |trouble: Trouble| {
                let file = Some(file.name.as_str());
                Subject { id: self.id, client: self.client, file, writes: false }.explain(trouble)
            };
            let client = self.client;
            Download { client, remote: &remote, bar: &bar, halt, explain: &explain }
                .fetch(&blob)?;
            self.repo.link(&blob, &commit.sha, &file.name)
        })
    }
}

fn check_config(folder: &Path, name: &str) -> Result<()> {
    let path = folder.join("config.json");
    let bytes = std::fs::read(&path).map_err(|error| Error::io(&path, error))?;
    let json = serde_json::from_slice(&bytes).map_err(|error| {
        Error::new("model_file", format!("{}: not JSON: {error}", path.display())).at(&path)
    })?;
    let checked = model::Base::check_config(&json, Path::new(&format!("{name}/config.json")));
    Ok(checked.map(|_| ())?)
}

#[cfg(test)]
mod tests;
