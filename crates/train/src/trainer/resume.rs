//! What a resumed run may change, and what it takes over.

use std::path::{Path, PathBuf};

use keys::{Document, Resume, Settings as _, Surroundings};
use serde_json::Value;
use text::Date;

use crate::recipe::schema;
use crate::run::{MANIFEST, RECIPE, RunFolder, read_manifest};
use crate::{Error, Result};

/// Why a value stands in the recipe of a resumed run.
const WHY: &str = "of the run so far";

/// The run so far: as its folder tells it, and as its newest checkpoint does, which nobody has edited since.
pub(super) struct Before {
    folder: PathBuf,
    checkpoint: Option<PathBuf>,
    /// Manifests that have to agree with what is there now, the checkpoint's first.
    manifests: Vec<(PathBuf, Value)>,
}

impl Before {
    pub(super) fn read(folder: &RunFolder, checkpoint: Option<&Path>) -> Result<Self> {
        let dirs = checkpoint.into_iter().chain([folder.path()]);
        let read = |dir: &Path| Ok((dir.join(MANIFEST), read_manifest(dir)?));
        let manifests = dirs.map(read).collect::<Result<Vec<_>>>()?;
        let checkpoint = checkpoint.map(Path::to_owned);
        Ok(Before { folder: folder.path().to_owned(), checkpoint, manifests })
    }

    /// The day that templates were told.
    pub(super) fn date(&self) -> Result<Date> {
        let (path, manifest) = &self.manifests[0];
        manifest["date"].as_str().and_then(|date| date.parse().ok()).ok_or_else(|| {
            let message =
                format!("{}: `date` = {} is not a date", path.display(), manifest["date"]);
            Error::refused(message, "begin a new run")
        })
    }

    /// Completes `document` from the recipe of the run so far. Returns notes on what changed.
    pub(super) fn take_over(&self, document: &mut Document) -> Result<Vec<String>> {
        let path = self.folder.join(RECIPE);
        if !path.is_file() {
            // Killed before its first line was written: nothing was decided yet.
            return Ok(Vec::new());
        }
        let around = Surroundings { current_dir: &self.folder, home: None, variable: &|_| None };
        let mut changes = take_over(document, &schema().read(&path, &[], &around)?);
        if let Some(checkpoint) = &self.checkpoint {
            // The folder's recipe may have been edited, and may have changed since the checkpoint.
            let before = schema().read(&checkpoint.join(RECIPE), &[], &around)?;
            for change in document.changes(&before) {
                if change.after.is_some() || document.is_given(&change.path) {
                    changes.add(&change, document);
                }
            }
        }
        changes.finish()
    }

    /// Refuses to go on with other files than the run began with.
    pub(super) fn check(&self, now: &Value) -> Result<()> {
        self.manifests.iter().try_for_each(|(path, before)| check_manifest(path, before, now))
    }
}

/// What the user changes.
#[derive(Default)]
struct Changes {
    /// What may be changed, and what follows.
    notes: Vec<String>,
    problems: Vec<keys::Problem>,
}

/// Keeps what the user leaves open as it was before.
fn take_over(document: &mut Document, before: &Document) -> Changes {
    let mut changes = Changes::default();
    for change in document.changes(before) {
        let is_open = !document.is_given(&change.path) || document.is_word(&change.path, "auto");
        if is_open {
            // Left open or at its default now: the run keeps what it had.
            if let Some(value) = change.before {
                keep(document, &change.path, value);
            }
            continue;
        }
        changes.add(&change, document);
    }
    changes
}

impl Changes {
    fn add(&mut self, change: &keys::Change, document: &Document) {
        let show = |value: &Option<keys::Value>| {
            value.as_ref().map_or("nothing".to_owned(), |value| value.to_json().to_string())
        };
        let message =
            format!("`{}` was {}, now {}", change.path, show(&change.before), show(&change.after));
        match change.key.resume() {
            Resume::Free => {}
            Resume::WithNote => {
                let follows = consequence(change.key.name(), document).unwrap_or_default();
                let note = message + follows;
                if !self.notes.contains(&note) {
                    self.notes.push(note);
                }
            }
            // Files are compared by what is in them, with the manifest.
            Resume::Never if is_file(&change.before) && is_file(&change.after) => {}
            Resume::Never => {
                let hint =
                    "a run cannot change it: begin a new one with `model:` set to the old run";
                let problem = document.problem(&change.path, message, Some(hint.into()));
                if !self.problems.contains(&problem) {
                    self.problems.push(problem);
                }
            }
        }
    }

    fn finish(self) -> Result<Vec<String>> {
        match self.problems.is_empty() {
            true => Ok(self.notes),
            false => Err(Error::Recipe(keys::Error::Recipe(self.problems))),
        }
    }
}

/// What follows from a change that may be made.
fn consequence(key: &str, document: &Document) -> Option<&'static str> {
    let has_dropout = document.opt_f64("adapter.dropout").is_some_and(|dropout| dropout > 0.0);
    match key {
        // Rows that share a prefix have one mask there.
        "share_prefixes" if has_dropout => Some("; with dropout the results differ"),
        "micro_batch_tokens" | "share_prefixes" => Some("; results differ by rounding at most"),
        "activation_checkpointing" => Some("; no result differs"),
        "train.epochs" | "train.max_steps" => {
            let bends = document.get_str("train.schedule.type") != "constant";
            bends.then_some("; from here on the learning rate follows the curve of the new length")
        }
        _ => None,
    }
}

fn is_file(value: &Option<keys::Value>) -> bool {
    matches!(value, Some(keys::Value::Path(_) | keys::Value::Locator(_)))
}

/// Gives a key the value of the run so far, unless that would drop one that the user now gives.
fn keep(document: &mut Document, path: &str, value: keys::Value) {
    let value = match value {
        // Chosen words are given as texts.
        keys::Value::Word(word) => keys::Value::Text(word),
        value => value,
    };
    let mut kept = document.clone();
    kept.choose(path, value, WHY);
    let is_lost =
        |change: &keys::Change| change.before.is_none() && document.is_given(&change.path);
    if !document.changes(&kept).iter().any(is_lost) {
        *document = kept;
    }
}

fn check_manifest(path: &Path, before: &Value, now: &Value) -> Result<()> {
    for key in [
        "model_hash",
        "tokenizer_hash",
        "template_hash",
        "data",
        "context_hash",
        "teacher_hash",
        "machine",
        "version",
    ] {
        let (before, now) = (content(&before[key]), content(&now[key]));
        if before != now {
            return Err(Error::refused(
                format!(
                    "{}: the run began with another `{key}`: {before}, now {now}",
                    path.display()
                ),
                "a resumed run gives the same numbers only with the same files and the same kind of \
                 machine; begin a new run with `model:` set to the old one",
            ));
        }
    }
    Ok(())
}

/// A part of a manifest without the names of files, which may lie elsewhere now.
fn content(part: &Value) -> Value {
    let mut part = part.clone();
    for file in part.as_array_mut().into_iter().flatten() {
        if let Some(file) = file.as_object_mut() {
            file.remove("path");
            file.remove("why");
        }
    }
    part
}
