//! The hub's cache on disk, in the layout that every Hugging Face tool shares:
//!
//! ```text
//! models--owner--name/refs/main               the commit that `main` was at
//!                     blobs/<hash>            contents
//!                     snapshots/<commit>/F    a link to a blob for every file
//! .locks/models--owner--name/<hash>.lock      held by who brings that content
//! ```
//!
//! Data sets are `datasets--owner--name`. Beside what all tools share these have
//! `listings/<commit>`, the names of all files of a commit: with it a part of them is
//! known to be the whole of what was asked for.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

use model::checkpoint::stays_inside;

use crate::error::{Error, Result};
use crate::id::{HubId, is_word};

/// The folder of a model or a data set in the cache.
pub(crate) struct RepoCache {
    folder: PathBuf,
    locks: PathBuf,
}

impl RepoCache {
    /// The folder of `id` in the cache, there or not.
    pub(crate) fn new(cache: &Path, id: &HubId) -> Self {
        let name = format!("{}--{}", id.kind.plural(), id.name.replace('/', "--"));
        RepoCache { locks: cache.join(".locks").join(&name), folder: cache.join(name) }
    }

    /// The snapshot of a branch, tag or commit, if it is there as a whole.
    pub(crate) fn complete(&self, revision: &str) -> Option<PathBuf> {
        Some(self.named(revision)).filter(|snapshot| is_complete(snapshot))
    }

    /// A file of a branch, tag or commit, if it is there.
    pub(crate) fn file(&self, revision: &str, name: &str) -> Option<PathBuf> {
        Some(self.named(revision).join(name)).filter(|file| file.is_file())
    }

    /// The snapshot of a branch, tag or commit, there or not.
    fn named(&self, revision: &str) -> PathBuf {
        self.snapshot(&self.commit(revision))
    }

    /// The commit that a branch or tag was at; a commit is its own.
    pub(crate) fn commit(&self, revision: &str) -> String {
        let named = fs::read_to_string(self.folder.join("refs").join(revision)).ok();
        // Other tools write these files too: what is no commit is as good as none.
        let named = named.as_deref().map(str::trim).filter(|commit| is_word(commit));
        named.unwrap_or(revision).to_owned()
    }

    /// The names of all files of a commit, if they were noted.
    pub(crate) fn listing(&self, commit: &str) -> Option<Vec<String>> {
        let text = fs::read_to_string(self.folder.join("listings").join(commit)).ok()?;
        Some(text.lines().map(str::to_owned).collect())
    }

    /// Notes the names of all files of a commit.
    pub(crate) fn set_listing(&self, commit: &str, names: &[String]) -> Result<()> {
        assert_inside(commit);
        let folder = self.folder.join("listings");
        let (path, part) =
            (folder.join(commit), folder.join(format!("{commit}.{}", std::process::id())));
        // Put in place as a whole: who reads it takes it for all there is.
        let written = fs::create_dir_all(&folder)
            .and_then(|()| fs::write(&part, names.join("\n")))
            .and_then(|()| fs::rename(&part, &path));
        written.map_err(|error| Error::io(&path, error))
    }

    /// Where the files of a commit stand.
    pub(crate) fn snapshot(&self, commit: &str) -> PathBuf {
        assert_inside(commit);
        self.folder.join("snapshots").join(commit)
    }

    /// Where a content stands.
    pub(crate) fn blob(&self, hash: &str) -> PathBuf {
        assert_inside(hash);
        self.folder.join("blobs").join(hash)
    }

    /// Keeps others from bringing the same content until the file is dropped. `wait` is called
    /// when somebody else is at it.
    pub(crate) fn lock(&self, hash: &str, wait: impl FnOnce()) -> Result<File> {
        assert_inside(hash);
        let path = self.locks.join(format!("{hash}.lock"));
        let locked = || {
            fs::create_dir_all(&self.locks)?;
            let mut options = OpenOptions::new();
            let file = options.create(true).write(true).truncate(false).open(&path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    wait();
                    file.lock()?;
                }
                // Some network file systems have no locks; the checksum still protects.
                Err(TryLockError::Error(error))
                    if error.kind() == std::io::ErrorKind::Unsupported => {}
                Err(TryLockError::Error(error)) => return Err(error),
            }
            Ok(file)
        };
        locked().map_err(|error| Error::io(&path, error))
    }

    /// Makes a blob the file `name` of a commit.
    pub(crate) fn link(&self, blob: &Path, commit: &str, name: &str) -> Result<()> {
        assert_inside(name);
        let file = self.snapshot(commit).join(name);
        if file.exists() {
            return Ok(());
        }
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder).map_err(|error| Error::io(folder, error))?;
        }
        place(blob, &file, name).map_err(|error| Error::io(&file, error))
    }

    /// Notes which commit a branch was at; last, when all files are there.
    pub(crate) fn set_ref(&self, revision: &str, commit: &str) -> Result<()> {
        if revision == commit {
            return Ok(());
        }
        assert_inside(revision);
        let path = self.folder.join("refs").join(revision);
        let folder = path.parent().unwrap_or(&self.folder);
        let written = fs::create_dir_all(folder).and_then(|()| fs::write(&path, commit));
        written.map_err(|error| Error::io(&path, error))
    }
}

/// The last line before a name becomes a path that is written. Whoever reads a name from outside refuses it with
/// words; here it is a bug.
fn assert_inside(name: &str) {
    assert!(stays_inside(name), "`{}` leads out of the cache", name.escape_debug());
}

/// Links, so that commits with equal files share them; moves where there are no links.
fn place(blob: &Path, file: &Path, name: &str) -> std::io::Result<()> {
    #[cfg(unix)]
    {
        let up = "../".repeat(2 + name.matches('/').count());
        let blob = blob.file_name().unwrap_or_default().to_string_lossy();
        let _ = fs::remove_file(file);
        std::os::unix::fs::symlink(format!("{up}blobs/{blob}"), file)
    }
    #[cfg(not(unix))]
    {
        let _ = name;
        fs::rename(blob, file)
    }
}

/// Whether a folder holds all that a model or an adapter needs.
pub(crate) fn is_complete(folder: &Path) -> bool {
    let has = |name: &str| folder.join(name).is_file();
    if has("adapter_config.json") {
        return has("adapter_model.safetensors");
    }
    let is_there = |name: &String| stays_inside(name) && has(name);
    let whole = has("config.json") && has("tokenizer.json");
    whole
        && (has("model.safetensors")
            || shards(folder).is_some_and(|names| !names.is_empty() && names.iter().all(is_there)))
}

/// The weight files that the index of a folder names, sorted.
pub(crate) fn shards(folder: &Path) -> Option<Vec<String>> {
    let bytes = fs::read(folder.join("model.safetensors.index.json")).ok()?;
    let index: serde_json::Value = serde_json::from_slice(&bytes).ok()?;
    let files = index["weight_map"].as_object()?.values();
    let mut names: Vec<String> =
        files.filter_map(|name| name.as_str().map(str::to_owned)).collect();
    names.sort();
    names.dedup();
    Some(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_counts_when_all_of_it_is_there() {
        let root = tempfile::tempdir().unwrap();
        let id = HubId::parse("owner/name").unwrap();
        let repo = RepoCache::new(root.path(), &id);
        let snapshot = root.path().join("models--owner--name/snapshots/c0ffee");
        fs::create_dir_all(&snapshot).unwrap();
        let steps = [
            ("config.json", "{}", false),
            ("tokenizer.json", "{}", false),
            (
                "model.safetensors.index.json",
                r#"{"weight_map": {"a": "1.st", "b": "2.st"}}"#,
                false,
            ),
            ("1.st", "", false),
            ("2.st", "", true),
        ];
        for (name, text, complete) in steps {
            fs::write(snapshot.join(name), text).unwrap();
            assert_eq!(repo.complete("c0ffee").is_some(), complete, "with {name}");
        }
        assert_eq!(repo.complete("main"), None);
        repo.set_ref("main", "c0ffee").unwrap();
        assert_eq!(repo.complete("main"), Some(snapshot));
    }
}
