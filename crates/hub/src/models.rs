//! A name becomes a model on this machine: a folder, a file, an adapter, a run, or one of the hub.

use std::path::{Path, PathBuf};

use keys::{Locator, is_local_path};
use model::adapter::PeftMetadata;
use train::moved::Moved;
use train::run::RunFolder;

use crate::digest;
use crate::error::{Cause, Error, Result};
use crate::event::Observer;
use crate::fetch::Hub;
use crate::id::{HubId, MAIN};
use crate::push::{PushRequest, Pushed};
use crate::settings::{Settings, StandIn};

/// A model that lies on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The base: a folder or a `.gguf` file.
    pub path: PathBuf,
    /// The adapter that came with it.
    pub adapter: Option<PathBuf>,
    /// What an adapter trained over the base calls it: hub id or absolute path.
    pub name: String,
    /// Branch, tag or commit of a base on the hub that is not its main branch.
    pub revision: Option<String>,
}

/// What can be known of a model without its weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outline {
    /// It lies on this machine.
    Whole(Resolved),
    /// Its `config.json` does, perhaps with a tokenizer beside it.
    Config(PathBuf),
}

/// Finds models.
#[derive(Clone, Copy)]
pub struct Models<'a> {
    /// Where they are looked for.
    pub settings: &'a Settings,
    /// Hears of downloads and uploads.
    pub observer: &'a dyn Observer,
    /// Whether the network is forbidden, whatever the settings say.
    pub offline: bool,
}

impl Models<'_> {
    fn hub(&self) -> Hub<'_> {
        Hub::new(self.settings, self.observer, self.offline)
    }

    /// A model as the command line names it.
    pub fn resolve(&self, given: &str) -> Result<Resolved> {
        let path = self.settings.path(given);
        let locator = Locator { name: given.to_owned(), path, is_path: is_path(given) };
        self.locate(&locator, None)
    }

    /// Puts a folder on the hub.
    pub fn push(&self, request: &PushRequest<'_>) -> Result<Pushed> {
        self.hub().push(request)
    }

    /// The files of a data set on the hub, sorted: from the cache if all of them are there, else downloaded.
    pub fn data_set(&self, set: &data::HubSet) -> Result<Vec<PathBuf>> {
        self.hub().data_set(set)
    }

    /// A model as a recipe names it: a folder or file where there is one, else a hub id.
    pub fn locate(&self, locator: &Locator, revision: Option<&str>) -> Result<Resolved> {
        if locator.path.exists() {
            return self.local(&locator.path);
        }
        if locator.is_path || is_path(&locator.name) {
            let message = format!("{}: no such model", locator.path.display());
            return Err(Error::wrong("model_not_found", message).at(&locator.path).hint(KINDS));
        }
        let Some(mut id) = HubId::parse(&locator.name) else {
            let message = format!("model `{}`: there is no such file or folder", locator.name);
            return Err(Error::wrong("model_not_found", message).hint(KINDS));
        };
        if let Some(revision) = revision {
            id.set_revision(revision)?;
        }
        match self.stand_in(&id)? {
            Some(found) => Ok(found),
            None => self.of_hub(&id),
        }
    }

    /// As [`locate`](Models::locate), but of a model on the hub only config and tokenizer are fetched.
    pub fn outline(&self, locator: &Locator, revision: Option<&str>) -> Result<Outline> {
        let is_local = locator.path.exists() || locator.is_path || is_path(&locator.name);
        let Some(mut id) = HubId::parse(&locator.name).filter(|_| !is_local) else {
            return self.locate_here(locator, revision).map(Outline::Whole);
        };
        if let Some(revision) = revision {
            id.set_revision(revision)?;
        }
        if let Ok(found) = self.locate_here(locator, revision) {
            return Ok(Outline::Whole(found));
        }
        self.hub()
            .config(&id)
            .map(Outline::Config)
            .map_err(|error| error.or_hint("`--config FILE` plans by a `config.json` alone"))
    }

    fn locate_here(&self, locator: &Locator, revision: Option<&str>) -> Result<Resolved> {
        Models { offline: true, ..*self }.locate(locator, revision)
    }

    /// The model, if it can be had without the network.
    pub fn at_hand(&self, given: &str) -> Option<Resolved> {
        Models { offline: true, ..*self }.resolve(given).ok()
    }

    /// What is taken in place of a model on the hub, if anything is.
    fn stand_in(&self, id: &HubId) -> Result<Option<Resolved>> {
        for stand_in in self.settings.stand_ins.iter().filter(|own| id.is_default_of(own.id())) {
            match stand_in {
                StandIn::Named { path, .. } if path.exists() => return self.local(path).map(Some),
                StandIn::Named { path, by, .. } => {
                    let path = path.display();
                    let message = format!("{path}: no such model, though `{by}` names it");
                    return Err(Error::wrong("model_not_found", message));
                }
                StandIn::Fetched { id, path, sha256 } => {
                    if digest::sha256(path).is_ok_and(|sum| sum == *sha256) {
                        let (path, name) = (path.clone(), (*id).to_owned());
                        return Ok(Some(Resolved { path, adapter: None, name, revision: None }));
                    }
                }
            }
        }
        Ok(None)
    }

    fn local(&self, path: &Path) -> Result<Resolved> {
        let path = std::path::absolute(path).map_err(|error| Error::io(path, error))?;
        if path.is_file() {
            return Ok(Resolved::base(path));
        }
        if PeftMetadata::is_adapter(&path) {
            return self.over_base(&path);
        }
        let adapter = path.join("adapter");
        if PeftMetadata::is_adapter(&adapter) {
            return self.over_base(&adapter);
        }
        // A run that trains the model itself leaves a whole model.
        if path.join("model").join("config.json").is_file() && RunFolder::is_run(&path) {
            return Ok(Resolved::base(path.join("model")));
        }
        if RunFolder::is_run(&path) {
            let message = format!("{}: the run has no adapter yet", path.display());
            let show = self.settings.show(&path);
            return Err(Error::wrong("model_not_found", message)
                .at(&path)
                .hint(format!("`tunesmith train {show} --resume` continues it")));
        }
        if path.join("config.json").is_file() {
            return Ok(Resolved::base(path));
        }
        Err(not_a_model(&path))
    }

    /// An adapter folder with the base that it names.
    fn over_base(&self, adapter: &Path) -> Result<Resolved> {
        let config = adapter.join("adapter_config.json");
        let PeftMetadata { base_model: base, revision, .. } = PeftMetadata::read(adapter)?;
        if base.is_empty() {
            let message = format!("{}: `base_model_name_or_path` is empty", config.display());
            return Err(Error::wrong("model_not_found", message)
                .at(&config)
                .hint("name the base as MODEL and this folder with `--adapter`"));
        }
        if let Some(path) = trained_on(adapter, &base) {
            let adapter = Some(adapter.to_owned());
            return Ok(Resolved { path, adapter, name: base, revision });
        }
        let beside = adapter.join(&base);
        let path = if beside.exists() { beside } else { self.settings.path(&base) };
        let locator = Locator { is_path: is_path(&base), name: base, path };
        let found = self.locate(&locator, revision.as_deref()).map_err(|mut error| {
            let hint = "name the base as MODEL and this folder with `--adapter`";
            let own = error.hint.take().map_or(String::new(), |own| format!("{own}; or "));
            Error::from(Cause::Base { config: config.clone(), source: Box::new(error) })
                .hint(format!("{own}{hint}"))
        })?;
        if found.adapter.is_some() {
            let message = format!("{}: its base is an adapter itself", config.display());
            return Err(Error::wrong("model", message).at(&config));
        }
        Ok(Resolved { adapter: Some(adapter.to_owned()), ..found })
    }

    fn of_hub(&self, id: &HubId) -> Result<Resolved> {
        let path = self.hub().model(id)?;
        if PeftMetadata::is_adapter(&path) {
            return self.over_base(&path);
        }
        let revision = (id.revision != MAIN).then(|| id.revision.clone());
        Ok(Resolved { path, adapter: None, name: id.base_name(), revision })
    }
}

impl Resolved {
    fn base(path: PathBuf) -> Self {
        Resolved { name: path.display().to_string(), path, adapter: None, revision: None }
    }
}

/// The very base that a run was trained on, where the adapter still lies in its run folder.
///
/// The name alone may mean other weights by now: a hub id can be had as a folder and as a file.
fn trained_on(adapter: &Path, base: &str) -> Option<PathBuf> {
    let run = adapter.parent()?;
    let bytes = std::fs::read(run.join("manifest.json")).ok()?;
    let manifest: serde_json::Value = serde_json::from_slice(&bytes).ok()?;
    let path = PathBuf::from(manifest["model"].as_str()?);
    let path = Moved::of(run).and_then(|moved| moved.path(&path)).unwrap_or(path);
    (manifest["model_name"] == base && path.exists()).then_some(path)
}

/// What a model may be.
const KINDS: &str = "a model is a Hugging Face folder, a `.gguf` file, an adapter folder, a run \
                     folder or a hub id such as `owner/name`";

/// Whether a text can only mean something on this machine.
fn is_path(given: &str) -> bool {
    let is_file = given.ends_with(".gguf") || given.matches('/').count() > 1;
    is_local_path(given) || is_file && HubId::parse(given).is_none()
}

fn not_a_model(path: &Path) -> Error {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "gguf"));
    files.sort();
    let failure = Error::wrong("model_not_found", format!("{}: is not a model", path.display()));
    match files.first() {
        Some(file) => failure.at(path).hint(format!("name the file: `{}`", file.display())),
        None => failure.at(path).hint(KINDS),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn write(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn adapter(dir: &Path, base: &str) {
        let config = serde_json::json!({"peft_type": "LORA", "base_model_name_or_path": base});
        write(&dir.join("adapter_config.json"), &config.to_string());
        let empty = serde_json::json!({});
        write(&dir.join("adapter_model.safetensors"), &empty.to_string());
    }

    fn resolve(root: &Path, given: &str) -> Result<Resolved> {
        let (current_dir, home) = (root.to_owned(), Some(root.to_owned()));
        let cache = Some(root.join("hub"));
        let settings = Settings { current_dir, home, cache, ..Settings::default() };
        Models { settings: &settings, observer: &(), offline: true }.resolve(given)
    }

    fn house() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        write(&root.path().join("base/config.json"), "{}");
        write(&root.path().join("tiny.gguf"), "GGUF");
        adapter(&root.path().join("beside"), "../base");
        adapter(&root.path().join("runs/a/adapter"), "base");
        write(&root.path().join("runs/a/manifest.json"), "{}");
        write(&root.path().join("runs/young/manifest.json"), "{}");
        adapter(&root.path().join("stacked"), "beside");
        adapter(&root.path().join("nameless"), "");
        adapter(&root.path().join("lost"), "owner/absent");
        write(&root.path().join("ggufs/x.gguf"), "GGUF");
        root
    }

    #[test]
    fn models_are_found_in_all_their_forms() {
        let root = house();
        let root = root.path();
        let check = |given: &str, path: &str, adapter: Option<&str>| {
            let found = resolve(root, given).unwrap();
            let adapter = adapter.map(|adapter| root.join(adapter));
            assert_eq!(found.path.canonicalize().unwrap(), root.join(path).canonicalize().unwrap());
            assert_eq!(found.adapter, adapter, "{given}");
        };
        check("base", "base", None);
        check("./base", "base", None);
        check("~/base", "base", None);
        check("tiny.gguf", "tiny.gguf", None);
        check("beside", "base", Some("beside"));
        check("runs/a", "base", Some("runs/a/adapter"));
        check("runs/a/adapter", "base", Some("runs/a/adapter"));
        // The manifest knows which of several copies it was.
        let manifest = serde_json::json!({"model": root.join("tiny.gguf"), "model_name": "base"});
        write(&root.join("runs/a/manifest.json"), &manifest.to_string());
        check("runs/a", "tiny.gguf", Some("runs/a/adapter"));
    }

    #[test]
    fn what_is_no_model_says_what_would_be() {
        let root = house();
        let check = |given: &str, message: &str, hint: &str| {
            let failure = resolve(root.path(), given).unwrap_err();
            let text = failure.to_string().replace(&root.path().display().to_string(), "ROOT");
            assert_eq!(text, message);
            let found = failure.hint.unwrap_or_default();
            assert!(found.contains(hint), "{given}: {found}");
        };
        check("./absent", "ROOT/absent: no such model", "hub id");
        check("/absent/model", "/absent/model: no such model", "hub id");
        check("absent.gguf", "ROOT/absent.gguf: no such model", "hub id");
        let lost = "`owner/absent` is not in the cache, and the network is forbidden";
        check("owner/absent@v2", lost, "--offline");
        check("owner/absent:q4/x.gguf", lost, "--offline");
        check(
            "owner/absent:Q4_K_M",
            "model `owner/absent:Q4_K_M`: there is no such file or folder",
            "hub id",
        );
        check("absent", "model `absent`: there is no such file or folder", "hub id");
        check("runs/young", "ROOT/runs/young: the run has no adapter yet", "--resume");
        check("ggufs", "ROOT/ggufs: is not a model", "ggufs/x.gguf`");
        check("runs", "ROOT/runs: is not a model", "run folder");
        check("stacked", "ROOT/stacked/adapter_config.json: its base is an adapter itself", "");
        check(
            "nameless",
            "ROOT/nameless/adapter_config.json: `base_model_name_or_path` is empty",
            "--adapter",
        );
        check(
            "lost",
            "ROOT/lost/adapter_config.json: its base: `owner/absent` is not in the cache, and \
             the network is forbidden",
            "--adapter",
        );
    }
}
