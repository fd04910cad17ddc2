//! Entries of a LLaMA-Factory `dataset_info.json`.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::{Reading, Tags, Wanted};
use crate::{Error, Result};

/// Where the rows of an entry are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A file or folder beside the `dataset_info.json`.
    File(PathBuf),
    /// A data set on the Hugging Face hub.
    Hub {
        /// Its name, such as `owner/name`.
        id: String,
        /// Its configuration.
        subset: Option<String>,
        /// Its split.
        split: Option<String>,
    },
}

/// Reads the entry `name` of a `dataset_info.json`: where its rows are, how they
/// are read, and what they are for where the entry says so.
pub fn dataset_info(path: &Path, name: &str) -> Result<(Location, Reading, Option<Wanted>)> {
    let bytes = std::fs::read(path).map_err(|source| Error::Io { path: path.into(), source })?;
    let parsed: Value = serde_json::from_slice(&bytes)
        .map_err(|error| problem(path, format!("not JSON: {error}"), None))?;
    let Value::Object(entries) = parsed else {
        return Err(problem(path, "not an object of data sets".into(), None));
    };
    let Some(entry) = entries.get(name) else {
        let nearest = entries.keys().min_by_key(|known| distance(known, name));
        let hint = nearest.map(|nearest| format!("nearest is `{nearest}`"));
        return Err(problem(path, format!("no data set `{name}`"), hint));
    };
    let Value::Object(entry) = entry else {
        return Err(problem(path, format!("`{name}` is not an object"), None));
    };
    let entry = Entry { path, name, fields: entry };
    let location = entry.location()?;
    let (reading, wanted) = entry.reading()?;
    Ok((location, reading, wanted))
}

fn problem(path: &Path, message: String, hint: Option<String>) -> Error {
    Error::File { place: path.display().to_string(), message, hint }
}

struct Entry<'a> {
    path: &'a Path,
    name: &'a str,
    fields: &'a Map<String, Value>,
}

impl Entry<'_> {
    fn text(&self, key: &str) -> Option<&str> {
        self.fields.get(key).and_then(Value::as_str)
    }

    /// Pairs of a name as LLaMA-Factory has it and as the file has it.
    fn pairs(&self, key: &str) -> Result<Vec<(&str, &str)>> {
        let wrong = || {
            let message = format!("`{}.{key}` is not an object of names", self.name);
            problem(self.path, message, None)
        };
        match self.fields.get(key) {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(Value::Object(map)) => {
                let pair = |(key, value)| Some((String::as_str(key), Value::as_str(value)?));
                map.iter().map(pair).collect::<Option<_>>().ok_or_else(wrong)
            }
            Some(_) => Err(wrong()),
        }
    }

    fn location(&self) -> Result<Location> {
        if let Some(id) = self.text("hf_hub_url") {
            let text = |key| self.text(key).map(str::to_owned);
            return Ok(Location::Hub {
                id: id.into(),
                subset: text("subset"),
                split: text("split"),
            });
        }
        let folder = self.path.parent().unwrap_or(Path::new(""));
        let file = self.text("file_name").map(|file| Location::File(folder.join(file)));
        file.ok_or_else(|| {
            let message = format!("`{}` has neither `file_name` nor `hf_hub_url`", self.name);
            problem(self.path, message, Some("download it and name the file".into()))
        })
    }

    fn reading(&self) -> Result<(Reading, Option<Wanted>)> {
        let columns = self.pairs("columns")?;
        for media in ["images", "videos", "audios"] {
            if let Some((_, column)) = columns.iter().find(|(ours, _)| *ours == media) {
                let message = format!("`{}` has {media} in column `{column}`", self.name);
                return Err(problem(self.path, message, Some("only text is supported".into())));
            }
        }
        let is_sharegpt = match self.text("formatting") {
            None | Some("alpaca") => false,
            Some("sharegpt" | "openai") => true,
            Some(other) => {
                let message = format!("`{}` has unknown formatting `{other}`", self.name);
                return Err(problem(self.path, message, Some("one of alpaca, sharegpt".into())));
            }
        };
        let has = |name: &str| columns.iter().any(|(ours, _)| *ours == name);
        let is_ranking = self.fields.get("ranking") == Some(&Value::Bool(true));
        let is_text = !is_sharegpt && !columns.is_empty() && !has("response");
        let (format, wanted) = match (is_ranking, has("kto_tag")) {
            (true, _) => ("preference", Some(Wanted::Preferences)),
            (false, true) => ("feedback", Some(Wanted::Feedback)),
            (false, false) if is_text => ("text", Some(Wanted::Texts)),
            (false, false) if is_sharegpt => ("sharegpt", None),
            (false, false) => ("alpaca", None),
        };
        let ours = |theirs: &str| match theirs {
            "prompt" if format == "text" => "text".to_owned(),
            "prompt" => "instruction".to_owned(),
            "query" => "input".to_owned(),
            "response" => "output".to_owned(),
            other => other.to_owned(),
        };
        let columns = columns.iter().map(|(name, column)| (ours(name), (*column).to_owned()));
        let reading = Reading {
            format: Some(format.into()),
            columns: columns.collect(),
            tags: self.tags()?,
            ..Reading::default()
        };
        Ok((reading, wanted))
    }

    fn tags(&self) -> Result<Tags> {
        let mut tags = Tags::default();
        for (tag, name) in self.pairs("tags")? {
            let role = match tag {
                "role_tag" => {
                    tags.role = Some(name.into());
                    continue;
                }
                "content_tag" => {
                    tags.content = Some(name.into());
                    continue;
                }
                "user_tag" => "user",
                "assistant_tag" => "assistant",
                "observation_tag" => "tool",
                "function_tag" => "function_call",
                "system_tag" => "system",
                _ => {
                    let message = format!("`{}` has unknown tag `{tag}`", self.name);
                    return Err(problem(self.path, message, None));
                }
            };
            tags.speakers.push((name.into(), role));
        }
        Ok(tags)
    }
}

/// How many letters must change to make one name the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, letter) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, other) in b.iter().enumerate() {
            let changed = diagonal + usize::from(letter != *other);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
