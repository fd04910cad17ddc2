//! The folder of a set in the cache: found again by what went into it, made by one process at a time, gone on
//! with after a kill.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use super::{Found, Shard};
use crate::checksum::{seal, unseal};
use crate::{Error, Result};

/// What a set is of.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Header {
    /// Format of the file.
    pub(crate) container: String,
    /// Shape of its records.
    pub(crate) format: String,
    /// Why it is taken to be that.
    pub(crate) why: String,
    /// Shards, once all are there.
    pub(crate) shards: Option<usize>,
    /// What was found about the file as a whole.
    pub(crate) notes: Found,
}

/// A set's folder, held by this process.
pub(crate) struct Folder {
    path: PathBuf,
    /// Files that were found damaged, and are made anew.
    damaged: Mutex<Vec<PathBuf>>,
    /// Released by the system when the process ends, however it ends.
    _lock: File,
}

impl Folder {
    /// Takes the folder `<cache>/<key>`; waits for another process that is making it.
    pub(crate) fn take(cache: &Path, key: &str) -> Result<Folder> {
        let path = cache.join(key);
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| Error::Io { path, source }
        };
        std::fs::create_dir_all(&path).map_err(io(&path))?;
        let lock_path = path.join("lock");
        let lock = File::create(&lock_path).map_err(io(&lock_path))?;
        lock.lock().map_err(io(&lock_path))?;
        Ok(Folder { path, damaged: Mutex::default(), _lock: lock })
    }

    /// The header, where all shards are there.
    pub(crate) fn finished(&self) -> Option<Header> {
        let path = self.path.join("set.json");
        let bytes = std::fs::read(&path).ok()?;
        let header = unseal(&bytes).and_then(|json| serde_json::from_slice(json).ok());
        if header.is_none() {
            self.add_damaged(path);
        }
        header.filter(|header: &Header| header.shards.is_some())
    }

    /// Files that were found damaged, and are made anew.
    pub(crate) fn damaged(&self) -> Vec<PathBuf> {
        let mut damaged = self.damaged.lock().expect("a push does not panic").clone();
        damaged.sort();
        damaged.dedup();
        damaged
    }

    fn add_damaged(&self, path: PathBuf) {
        self.damaged.lock().expect("a push does not panic").push(path);
    }

    /// Says that all shards are there.
    pub(crate) fn finish(&self, header: &Header) -> Result<()> {
        let json = serde_json::to_vec_pretty(header).expect("a header is JSON");
        self.write("set.json", &seal(json))
    }

    /// A shard that is there already, and as it was written.
    pub(crate) fn shard(&self, number: usize) -> Option<Shard> {
        let path = self.shard_path(number);
        match Shard::in_file(&path) {
            Ok(shard) => Some(shard),
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => None,
            Err(_) => {
                self.add_damaged(path);
                None
            }
        }
    }

    /// Writes a shard.
    pub(crate) fn put(&self, number: usize, bytes: &[u8]) -> Result<Shard> {
        let path = self.shard_path(number);
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        self.write(&name, bytes)?;
        Shard::written(&path, bytes)
    }

    fn shard_path(&self, number: usize) -> PathBuf {
        self.path.join(format!("{number:06}.rows"))
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        write_whole(&self.path.join(name), "", bytes)
    }
}

/// Writes a file that is there whole or not at all. Those who may write it at once have different `writer`s.
pub(crate) fn write_whole(path: &Path, writer: &str, bytes: &[u8]) -> Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!("{writer}.part"));
    let io = |source| Error::Io { path: path.into(), source };
    std::fs::write(&beside, bytes).map_err(io)?;
    std::fs::rename(&beside, path).map_err(io)
}
