//! Data sets of the hub: which files a config and a split mean, and how they get here.
//!
//! Where a data set has no files that can be read, or a program that makes them, the hub's own
//! conversion to Parquet is taken, which stands at the revision `refs/convert/parquet`.

mod card;
mod choice;
mod pattern;

use std::path::PathBuf;

use data::HubSet;

use crate::cache::RepoCache;
use crate::error::{Error, Result};
use crate::fetch::{Fetcher, Hub, forbidden};
use crate::files::{Commit, Sibling};
use crate::http::{Client, Trouble};
use crate::id::HubId;
use crate::refusal::Subject;
use choice::{Lack, choose, choose_converted};

/// What tells of configs.
const CARD: &str = "README.md";
/// Where the hub keeps its own conversion.
const CONVERTED: &str = "refs/convert/parquet";

fn hub_id(set: &HubSet) -> Result<HubId> {
    let mut id = HubId::data_set(&set.id).ok_or_else(|| {
        let message = format!("`{}` is not a data set on the hub", set.id);
        Error::wrong("invalid", message).hint("write it as `owner/name`")
    })?;
    if let Some(revision) = &set.revision {
        id.set_revision(revision)?;
    }
    Ok(id)
}

fn split(set: &HubSet) -> &str {
    set.split.as_deref().unwrap_or("train")
}

/// The files that are meant, out of a commit's.
fn files<'a>(set: &HubSet, names: &'a [String], card: &str) -> Chosen<'a> {
    let configs = card::configs(card).map_err(Missed::Card)?;
    let config = set.config.as_deref();
    // A program decides what the files beside it mean, and it is not run.
    if configs.is_empty() && has_program(set, names) {
        return Err(Missed::Lack(Lack::Data));
    }
    choose(names, &configs, config, split(set)).map_err(Missed::Lack)
}

fn converted<'a>(set: &HubSet, names: &'a [String]) -> Chosen<'a> {
    choose_converted(names, set.config.as_deref(), split(set)).map_err(Missed::Lack)
}

/// Whether the data set is loaded by a program of its own, `name.py`.
fn has_program(set: &HubSet, names: &[String]) -> bool {
    let name = set.id.rsplit('/').next().unwrap_or(&set.id);
    names.iter().any(|file| file.strip_suffix(".py") == Some(name))
}

/// Says what there is in place of what was asked for.
fn explain(set: &HubSet, missed: Missed) -> Error {
    let list = |names: &[String]| {
        names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
    };
    let id = &set.id;
    let (message, hint) = match missed {
        Missed::Card(why) => (
            format!("{id}: its `{CARD}` is not understood: {why}"),
            "download its files and name them with `path`".to_owned(),
        ),
        Missed::Lack(Lack::Data) => (
            format!("{id}: it has no files of JSON, CSV, Parquet or Arrow"),
            "download its files, convert them and name them with `path`".to_owned(),
        ),
        Missed::Lack(Lack::Config(names)) => {
            let message = match &set.config {
                Some(config) => format!("{id}: it has no config `{config}`"),
                None => {
                    format!("{id}: it has several configs, and `config` names none of them")
                }
            };
            let hint = match names.is_empty() {
                true => "leave out `config`: it has none".to_owned(),
                false => format!("its configs: {}", list(&names)),
            };
            (message, hint)
        }
        Missed::Lack(Lack::Split(names)) => {
            let of = set.config.as_ref().map(|config| format!(" of `{config}`"));
            let (split, of) = (split(set), of.unwrap_or_default());
            let message = format!("{id}: there is no split `{split}`{of}");
            let more = match split.contains('[') {
                true => "; `limit` takes the first rows of one",
                false => "",
            };
            (message, format!("its splits: {}{more}", list(&names)))
        }
    };
    Error::wrong("data_set", message).hint(hint)
}

/// Names of files, or why there are none.
type Chosen<'a> = std::result::Result<Vec<&'a str>, Missed>;

/// Why there are no files.
enum Missed {
    /// The card says something that cannot be read.
    Card(String),
    Lack(Lack),
}

impl Missed {
    /// Whether the hub's own conversion may have what is missed.
    fn is_data(&self) -> bool {
        matches!(self, Missed::Lack(Lack::Data))
    }
}

impl Hub<'_> {
    /// The files of a data set, sorted: from the cache if all of them are there, else downloaded.
    pub(crate) fn data_set(&self, set: &HubSet) -> Result<Vec<PathBuf>> {
        let id = hub_id(set)?;
        let repo = self.repo(&id)?;
        if let Some(found) = of_cache(set, &id, &repo) {
            return Ok(found);
        }
        if self.offline {
            return Err(forbidden(&id));
        }
        let client = self.client()?;
        self.observer.note(&format!("{}: asking {}", id.name, client.endpoint));
        let fetcher = Fetcher { client: &client, observer: self.observer, repo: &repo, id: &id };
        fetcher.data_set(set)
    }
}

/// The files in the cache, if all of them are there.
fn of_cache(set: &HubSet, id: &HubId, repo: &RepoCache) -> Option<Vec<PathBuf>> {
    let commit = repo.commit(&id.revision);
    let names = repo.listing(&commit)?;
    let card = match names.iter().any(|name| name == CARD) {
        true => std::fs::read_to_string(repo.snapshot(&commit).join(CARD)).ok()?,
        false => String::new(),
    };
    let paths = |commit: &str, files: Vec<&str>| -> Option<Vec<PathBuf>> {
        let folder = repo.snapshot(commit);
        let paths: Vec<PathBuf> = files.into_iter().map(|file| folder.join(file)).collect();
        paths.iter().all(|path| path.is_file()).then_some(paths)
    };
    match files(set, &names, &card) {
        Ok(files) => paths(&commit, files),
        Err(missed) if missed.is_data() => {
            let commit = repo.commit(CONVERTED);
            let names = repo.listing(&commit)?;
            paths(&commit, converted(set, &names).ok()?)
        }
        Err(_) => None,
    }
}

impl Fetcher<'_> {
    fn data_set(&self, set: &HubSet) -> Result<Vec<PathBuf>> {
        let commit = self.commit()?;
        let names = commit.names();
        let card = match commit.get(CARD) {
            Some(file) => {
                self.fetch(&commit, &[file])?;
                let path = self.repo.snapshot(&commit.sha).join(CARD);
                std::fs::read_to_string(&path).map_err(|error| Error::io(&path, error))?
            }
            None => String::new(),
        };
        self.repo.set_listing(&commit.sha, &names)?;
        let found = match files(set, &names, &card) {
            Ok(files) => self.bring(&commit, files)?,
            Err(missed) if missed.is_data() => {
                let id = HubId { revision: CONVERTED.to_owned(), ..self.id.clone() };
                Fetcher { id: &id, ..*self }.conversion(set)?
            }
            Err(missed) => return Err(explain(set, missed)),
        };
        self.repo.set_ref(&self.id.revision, &commit.sha)?;
        Ok(found)
    }

    /// The files of the hub's own conversion, of which this is the revision.
    fn conversion(&self, set: &HubSet) -> Result<Vec<PathBuf>> {
        let commit = match self.try_commit() {
            Ok(commit) => commit,
            // Not every data set has one.
            Err(Trouble::Refused(refusal)) if refusal.status == 404 => {
                return Err(explain(set, Missed::Lack(Lack::Data)));
            }
            Err(trouble) => {
                let client: &Client<'_> = self.client;
                let subject = Subject { id: self.id, client, file: None, writes: false };
                return Err(subject.explain(trouble));
            }
        };
        let names = commit.names();
        self.repo.set_listing(&commit.sha, &names)?;
        let files = converted(set, &names).map_err(|missed| explain(set, missed))?;
        let found = self.bring(&commit, files)?;
        self.repo.set_ref(CONVERTED, &commit.sha)?;
        Ok(found)
    }

    fn bring(&self, commit: &Commit, files: Vec<&str>) -> Result<Vec<PathBuf>> {
        let siblings: Vec<&Sibling> = files.iter().filter_map(|name| commit.get(name)).collect();
        self.fetch(commit, &siblings)?;
        let folder = self.repo.snapshot(&commit.sha);
        Ok(files.into_iter().map(|name| folder.join(name)).collect())
    }
}

#[cfg(test)]
mod tests;
