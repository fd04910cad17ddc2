//! What a resumed run may change, and what it takes over.

use std::path::Path;

use keys::{Document, Resume, Settings as _, Surroundings};

use crate::recipe::schema;
use crate::run::RunFolder;
use crate::{Error, Result};

/// Why a value stands in the recipe of a resumed run.
const WHY: &str = "of the run so far";

/// Completes `document` from the recipe of the run so far. Returns notes on what changed.
pub(super) fn take_over(document: &mut Document, folder: &RunFolder) -> Result<Vec<String>> {
    let path = folder.path().join("recipe.yaml");
    if !path.is_file() {
        // Killed before its first line was written: nothing was decided yet.
        return Ok(Vec::new());
    }
    let around = Surroundings { current_dir: folder.path(), home: None, variable: &|_| None };
    let before = schema().read(&path, &[], &around)?;
    let mut notes = Vec::new();
    let mut problems = Vec::new();
    for change in document.changes(&before) {
        let is_open = !document.is_given(&change.path) || document.is_word(&change.path, "auto");
        if is_open {
            // Left open or at its default now: the run keeps what it had.
            if let Some(value) = change.before {
                keep(document, &change.path, value);
            }
            continue;
        }
        let show = |value: &Option<keys::Value>| {
            value.as_ref().map_or("nothing".to_owned(), |value| value.to_json().to_string())
        };
        let message =
            format!("`{}` was {}, now {}", change.path, show(&change.before), show(&change.after));
        match change.key.resume() {
            Resume::Free => {}
            Resume::WithNote => notes.push(message),
            Resume::Never => {
                let hint =
                    "a run cannot change it: begin a new one with `model:` set to the old run";
                problems.push(document.problem(&change.path, message, Some(hint.into())));
            }
        }
    }
    if problems.is_empty() { Ok(notes) } else { Err(Error::Recipe(keys::Error::Recipe(problems))) }
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

/// Refuses to go on with other files than the run began with.
pub(super) fn check_manifest(
    folder: &Path,
    before: &serde_json::Value,
    now: &serde_json::Value,
) -> Result<()> {
    for key in ["model_hash", "tokenizer_hash", "template_hash", "data", "machine", "version"] {
        if before[key] != now[key] {
            return Err(Error::refused(
                format!(
                    "{}: the run began with another `{key}`: {}, now {}",
                    folder.join("manifest.json").display(),
                    before[key],
                    now[key]
                ),
                "a resumed run gives the same numbers only with the same files and the same kind of \
                 machine; begin a new run with `model:` set to the old one",
            ));
        }
    }
    Ok(())
}
