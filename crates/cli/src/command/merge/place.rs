//! Where the merged model goes: written beside, renamed when all is done.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;
use session::Serving;

use super::origin::{Origin, same_file};
use crate::error::{Failure, Result};
use train::claim::Claim;
use train::run::write_atomic;

/// The folder of the merged model, and the one it is written in.
pub(super) struct Place {
    output: PathBuf,
    partial: PathBuf,
    _claim: Claim,
}

impl Place {
    /// Refuses an output that is taken, or that another process is writing. Writes nothing.
    pub(super) fn new(output: &Path, overwrite: bool, origin: &Origin) -> Result<Self> {
        let show = output.display();
        let taken = |message: String| Failure::wrong("refused", message).at(output);
        for part in [&origin.adapter, &origin.base.path] {
            if same_file(output, part) {
                let message = format!("{show}: is what is to be merged");
                return Err(taken(message).hint("name another folder with `--output`"));
            }
        }
        let mut partial = output.as_os_str().to_owned();
        partial.push(".partial");
        let claim = Claim::beside(output)?;
        let place = Place { output: output.to_owned(), partial: partial.into(), _claim: claim };
        if !is_free(&place.partial)? && !is_ours(&place.partial)? {
            let message = format!("{}: is in the way", place.partial.display());
            return Err(taken(message).hint("move it, or name another folder with `--output`"));
        }
        if is_free(output)? {
            return Ok(place);
        }
        match (is_ours(output)?, overwrite) {
            (true, true) => Ok(place),
            (true, false) => Err(taken(format!("{show}: already holds a merged model"))
                .hint("`--overwrite` replaces it, `--output DIR` takes another folder")),
            (false, _) => Err(taken(format!("{show}: is not empty, and no merged model"))
                .hint("name another folder with `--output`")),
        }
    }

    pub(super) fn output(&self) -> &Path {
        &self.output
    }

    /// The folder that is written.
    pub(super) fn partial(&self) -> &Path {
        &self.partial
    }

    /// Makes the folder that is written, without what an earlier merge left of it.
    pub(super) fn begin(&self) -> Result<()> {
        remove(&self.partial)?;
        fs::create_dir_all(&self.partial).map_err(|error| Failure::io(&self.partial, &error))?;
        // First of all: who finds the rest of a merge that was cut off knows what it is.
        self.write(
            Serving::FILE,
            &Serving { merged: Some(json!({})), ..Serving::default() }.to_json(),
        )
    }

    /// Writes the model card and what is known of the merge.
    pub(super) fn describe(&self, card: &str, serving: &Serving) -> Result<()> {
        self.write("README.md", card)?;
        self.write(Serving::FILE, &serving.to_json())
    }

    /// Removes what was written so far.
    pub(super) fn give_up(&self) {
        fs::remove_dir_all(&self.partial).ok();
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        Ok(write_atomic(&self.partial.join(name), text.as_bytes())?)
    }

    /// Gives the folder its name: a reader sees the old model or the new one.
    pub(super) fn finish(&self) -> Result<()> {
        let failed = |error: std::io::Error| Failure::io(&self.output, &error);
        let synced = fs::File::open(&self.partial).and_then(|folder| folder.sync_all());
        synced.map_err(failed)?;
        let mut old = self.output.as_os_str().to_owned();
        old.push(".old");
        let old = PathBuf::from(old);
        if self.output.exists() {
            remove(&old)?;
            fs::rename(&self.output, &old).map_err(failed)?;
        }
        fs::rename(&self.partial, &self.output).map_err(failed)?;
        remove(&old)
    }
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Failure::io(path, &error))
        }
        _ => Ok(()),
    }
}

/// Whether there is nothing, or an empty folder.
fn is_free(path: &Path) -> Result<bool> {
    match fs::read_dir(path) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(Failure { exit: crate::error::WRONG, ..Failure::io(path, &error) }),
    }
}

/// Whether a merge wrote this folder.
fn is_ours(path: &Path) -> Result<bool> {
    Ok(Serving::read(path)?.is_merged())
}
