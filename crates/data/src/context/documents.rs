//! Documents as people keep them: texts, Markdown, or rows with `text`.

use std::fs;
use std::path::{Path, PathBuf};

use crate::source::{self, Row};
use crate::{Error, Result, RowError};

const KEY: &str = "data.context.retrieve";
const KINDS: &str = "documents are .txt and .md files, and .jsonl files whose rows have `text`";

/// What was found.
pub(super) struct Documents {
    /// In the order of their files, and of their rows within one.
    pub(super) texts: Vec<String>,
    /// Files of the folder that are not read.
    pub(super) left_out: Vec<PathBuf>,
}

/// Reads a file, or all documents of a folder and those below it.
pub(super) fn read(path: &Path) -> Result<Documents> {
    let metadata = fs::metadata(path).map_err(io(path))?;
    if metadata.is_file() {
        return Ok(Documents { texts: file(path)?, left_out: Vec::new() });
    }
    let mut files = Vec::new();
    collect(path, &mut files)?;
    let (documents, left_out): (Vec<_>, Vec<_>) =
        files.into_iter().partition(|path| is_known(path));
    if documents.is_empty() {
        let message = match left_out.first() {
            Some(other) => format!("{}: no documents, only {}", path.display(), other.display()),
            None => format!("{}: the folder is empty", path.display()),
        };
        return Err(Error::Setting { key: KEY.into(), message, hint: Some(KINDS.into()) });
    }
    let texts = documents.iter().map(|path| file(path)).collect::<Result<Vec<_>>>()?;
    Ok(Documents { texts: texts.into_iter().flatten().collect(), left_out })
}

/// The files below a folder in the order of their paths; hidden ones are not meant.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(folder).and_then(Iterator::collect::<std::io::Result<Vec<_>>>);
    let mut entries = entries.map_err(io(folder))?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let (path, kind) = (entry.path(), entry.file_type().map_err(io(folder))?);
        match kind.is_dir() {
            true => collect(&path, files)?,
            false => files.push(path),
        }
    }
    Ok(())
}

fn extension(path: &Path) -> String {
    path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase()
}

fn is_known(path: &Path) -> bool {
    ["txt", "md", "jsonl"].contains(&extension(path).as_str())
}

/// The documents of a file.
fn file(path: &Path) -> Result<Vec<String>> {
    if extension(path) == "jsonl" {
        return rows(source::read(path)?);
    }
    let bytes = fs::read(path).map_err(io(path))?;
    let text = String::from_utf8(bytes).map_err(|_| Error::File {
        place: path.display().to_string(),
        message: "document is not UTF-8 text".into(),
        hint: Some(KINDS.into()),
    })?;
    Ok(vec![text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text)])
}

fn rows(rows: Vec<Row>) -> Result<Vec<String>> {
    let (mut texts, mut bad) = (Vec::with_capacity(rows.len()), Vec::new());
    for mut row in rows {
        match row.value.shift_remove("text") {
            Some(serde_json::Value::String(text)) => texts.push(text),
            Some(other) => {
                let message = format!("`text` is {}, not a string", source::kind(&other));
                bad.push(RowError::new(&row.place, message));
            }
            None => {
                let has: Vec<&str> = row.value.keys().map(String::as_str).collect();
                let message = format!("document has no `text` field (has: {})", has.join(", "));
                bad.push(RowError::new(&row.place, message).with_hint(KINDS));
            }
        }
    }
    Error::from_rows(bad)?;
    Ok(texts)
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    move |source| Error::Io { path: path.into(), source }
}
