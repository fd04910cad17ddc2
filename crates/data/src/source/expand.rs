//! From what a recipe names to files: a file, a folder, a pattern.

use std::fs;
use std::path::{Path, PathBuf};

use super::file_error;
use super::format::{DATA_ENDINGS, ending};
use crate::{Error, Result};

/// Files that lie beside data and only describe it.
const DESCRIPTIONS: [&str; 7] = [
    "dataset_info.json",
    "dataset_infos.json",
    "dataset_dict.json",
    "state.json",
    "license.txt",
    "readme.txt",
    "notice.txt",
];

/// How many names a message lists.
const NAMED: usize = 8;

/// The files that a path stands for, sorted by name.
///
/// A file stands for itself. A folder stands for the data files in it and in
/// the folders below, a pattern (`data/*.jsonl`, `**/train*.parquet`) for
/// those it fits. Hidden files, files without the ending of a data format,
/// licences and Hugging Face's descriptions of data sets are left out; if
/// nothing is left, the error says what was seen.
pub fn expand(path: &Path) -> Result<Vec<PathBuf>> {
    let (kind, seen) = match fs::metadata(path) {
        Ok(found) if !found.is_dir() => return Ok(vec![path.into()]),
        Ok(_) => ("folder", walk(path)?),
        Err(source) => match pattern(path)? {
            Some(seen) => ("pattern", seen),
            None => return Err(Error::Io { path: path.into(), source }),
        },
    };
    let mut files: Vec<PathBuf> = seen.iter().filter(|file| is_data(file)).cloned().collect();
    if files.is_empty() {
        return Err(no_data(path, kind, seen));
    }
    files.sort();
    Ok(files)
}

/// All files under a folder that are not hidden. Links to folders are not
/// followed, they may lead back up; links to files are.
fn walk(folder: &Path) -> Result<Vec<PathBuf>> {
    let (mut files, mut folders) = (Vec::new(), vec![folder.to_path_buf()]);
    while let Some(folder) = folders.pop() {
        let failed = |source| Error::Io { path: folder.clone(), source };
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                continue;
            }
            if entry.file_type().map_err(failed)?.is_dir() {
                folders.push(entry.path());
            } else if entry.path().is_file() {
                files.push(entry.path());
            }
        }
    }
    Ok(files)
}

/// The files that fit a pattern; `None` where the path is none.
fn pattern(path: &Path) -> Result<Option<Vec<PathBuf>>> {
    let Some(text) = path.to_str().filter(|text| text.contains(['*', '?', '['])) else {
        return Ok(None);
    };
    let options = glob::MatchOptions { require_literal_leading_dot: true, ..Default::default() };
    let found = glob::glob_with(text, options)
        .map_err(|error| file_error(path.display(), format!("pattern is wrong: {}", error.msg)))?;
    let mut files = Vec::new();
    for entry in found {
        let entry = entry.map_err(|error| {
            let path = error.path().into();
            Error::Io { path, source: error.into() }
        })?;
        if entry.is_file() {
            files.push(entry);
        }
    }
    Ok(Some(files))
}

fn is_data(file: &Path) -> bool {
    let name = file.file_name().unwrap_or_default().to_ascii_lowercase();
    let ending = ending(file).unwrap_or_default();
    DATA_ENDINGS.contains(&ending.as_str()) && !DESCRIPTIONS.iter().any(|other| name == *other)
}

fn no_data(path: &Path, kind: &str, mut seen: Vec<PathBuf>) -> Error {
    if seen.is_empty() {
        let message = format!("{kind} {} no file", if kind == "folder" { "holds" } else { "fits" });
        return file_error(path.display(), message)
            .hinting("name a file, a folder of files, or a pattern such as `data/*.jsonl`");
    }
    seen.sort();
    let names = seen.iter().take(NAMED).filter_map(|file| file.file_name());
    let mut names: Vec<String> = names.map(|name| format!("`{}`", name.display())).collect();
    if seen.len() > NAMED {
        names.push(format!("{} more", seen.len() - NAMED));
    }
    let message = format!("{kind} has no data file, only {}", names.join(", "));
    let endings = DATA_ENDINGS.map(|ending| format!(".{ending}")).join(", ");
    file_error(path.display(), message)
        .hinting(&format!("data files end in {endings}, each also with .gz or .zst"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "{}").unwrap();
        }
        folder
    }

    #[track_caller]
    fn check(files: &[&str], path: &str, expected: std::result::Result<&[&str], &str>) {
        let folder = folder(files);
        let within = |path: &Path| path.strip_prefix(folder.path()).unwrap().display().to_string();
        match (expand(&folder.path().join(path)), expected) {
            (Ok(found), Ok(expected)) => {
                let found: Vec<String> = found.iter().map(|path| within(path)).collect();
                assert_eq!(found, expected);
            }
            (Err(error), Err(expected)) => {
                let text = error.to_string();
                assert!(text.contains(expected), "{text}");
            }
            (found, _) => panic!("found {found:?}"),
        }
    }

    #[test]
    fn a_folder_stands_for_its_data_files() {
        let files =
            ["b.jsonl", "a/z.csv.gz", "a/dataset_info.json", ".x.json", "README.md", "LICENSE.txt"];
        check(&files, "", Ok(&["a/z.csv.gz", "b.jsonl"]));
        check(&files, "a", Ok(&["a/z.csv.gz"]));
        check(&files, "README.md", Ok(&["README.md"]));
    }

    #[test]
    fn a_pattern_stands_for_what_it_fits() {
        let files = ["t1.json", "t0.json", "v.json", "d/t2.json", "odd[1].json", "t3.md"];
        check(&files, "t*", Ok(&["t0.json", "t1.json"]));
        check(&files, "**/t?.json", Ok(&["d/t2.json", "t0.json", "t1.json"]));
        // A file that exists is no pattern.
        check(&files, "odd[1].json", Ok(&["odd[1].json"]));
    }

    #[test]
    fn nothing_found_is_explained() {
        check(&["a.md", "b.bin"], "", Err(": folder has no data file, only `a.md`, `b.bin`"));
        check(&[".x.json"], "", Err(": folder holds no file"));
        check(&["a.md"], "*.json", Err(": pattern fits no file"));
        check(&["a.md"], "a***", Err("a***: pattern is wrong: wildcards are"));
        check(&[], "no.json", Err("no.json: "));
    }
}
