//! A Hugging Face folder: its configuration and its chat templates.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use serde_json::{Map, Value};

use crate::{Error, Result};

/// The chat templates of a folder, as sources.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TemplateSources {
    /// The one that is meant when none is named.
    pub default: Option<String>,
    /// All others by name.
    pub named: BTreeMap<String, String>,
}

impl TemplateSources {
    fn insert(&mut self, name: &str, source: String) {
        if name == "default" {
            self.default = Some(source);
        } else {
            self.named.insert(name.into(), source);
        }
    }
}

/// `config.json` of a folder.
pub fn config(dir: &Path) -> Result<Value> {
    if !dir.is_dir() {
        return Err(Error::file(dir, "is not a folder"));
    }
    let path = dir.join("config.json");
    let config = read_json(&path)?.ok_or_else(|| {
        Error::file(dir, "has no `config.json`")
            .with_hint("a model folder holds config.json, tokenizer.json and *.safetensors")
    })?;
    Ok(config)
}

/// `generation_config.json` of a folder, or an empty object.
pub fn generation_config(dir: &Path) -> Result<Value> {
    let config = read_json(&dir.join("generation_config.json"))?;
    Ok(config.unwrap_or_else(|| Value::Object(Map::new())))
}

/// The chat templates of a folder, wherever they stand.
///
/// As in transformers, files of templates go before `tokenizer_config.json`: where there is a `chat_template.jinja`,
/// it and `additional_chat_templates/*.jinja` (or `chat_templates/*.jinja`) are all. Otherwise `chat_template.json`
/// counts, then the key `chat_template`, which is a string, a list of `{name, template}` or an object.
pub fn chat_templates(dir: &Path) -> Result<TemplateSources> {
    let mut files = TemplateSources::default();
    for folder in ["chat_templates", "additional_chat_templates"] {
        for (name, source) in jinja_files(&dir.join(folder))? {
            files.insert(&name, source);
        }
    }
    if let Some(source) = read_text(&dir.join("chat_template.jinja"))? {
        files.default = Some(source);
    }
    if files.default.is_some() {
        return Ok(files);
    }
    let mut found = TemplateSources::default();
    for file in ["tokenizer_config.json", "chat_template.json"] {
        let path = dir.join(file);
        if let Some(config) = read_json(&path)? {
            read_templates(&config["chat_template"], &path, &mut found)?;
        }
    }
    found.named.extend(files.named);
    Ok(found)
}

fn read_templates(value: &Value, path: &Path, found: &mut TemplateSources) -> Result<()> {
    let wrong = || {
        let message =
            "`chat_template` is neither a string nor a list of objects with `name` and `template`";
        Error::file(path, message)
    };
    match value {
        Value::Null => {}
        Value::String(source) => found.default = Some(source.clone()),
        Value::Array(templates) => {
            for template in templates {
                let name = template["name"].as_str().ok_or_else(wrong)?;
                let source = template["template"].as_str().ok_or_else(wrong)?;
                found.insert(name, source.into());
            }
        }
        Value::Object(templates) => {
            for (name, source) in templates {
                found.insert(name, source.as_str().ok_or_else(wrong)?.into());
            }
        }
        _ => return Err(wrong()),
    }
    Ok(())
}

/// The `*.jinja` files of a folder by name, sorted; none where there is no folder.
fn jinja_files(dir: &Path) -> Result<BTreeMap<String, String>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(source) => return Err(Error::Read { path: dir.into(), source }),
    };
    let mut files = BTreeMap::new();
    for entry in entries {
        let path = entry.map_err(|source| Error::Read { path: dir.into(), source })?.path();
        let name = path.file_stem().and_then(|name| name.to_str());
        if let Some(name) = name.filter(|_| path.extension().is_some_and(|e| e == "jinja"))
            && let Some(source) = read_text(&path)?
        {
            files.insert(name.to_owned(), source);
        }
    }
    Ok(files)
}

/// The bytes of a file, or nothing where there is none.
pub(crate) fn read_bytes(path: &Path) -> Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Read { path: path.into(), source }),
    }
}

fn read_text(path: &Path) -> Result<Option<String>> {
    let Some(bytes) = read_bytes(path)? else { return Ok(None) };
    let text = String::from_utf8(bytes).map_err(|_| Error::file(path, "is not UTF-8"))?;
    Ok(Some(text))
}

/// The JSON object in a file, or nothing where there is no file.
pub(crate) fn read_json(path: &Path) -> Result<Option<Value>> {
    let Some(bytes) = read_bytes(path)? else { return Ok(None) };
    let value: Value = serde_json::from_slice(&bytes)
        .map_err(|error| Error::file(path, format!("is not valid JSON: {error}")))?;
    if value.is_object() { Ok(Some(value)) } else { Err(Error::file(path, "is not a JSON object")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(files: &[(&str, &str)], default: Option<&str>, named: &[(&str, &str)]) {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let found = chat_templates(dir.path()).unwrap();
        let expected = TemplateSources {
            default: default.map(str::to_owned),
            named: named.iter().map(|(n, t)| (n.to_string(), t.to_string())).collect(),
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn templates_are_found_in_each_of_their_places() {
        check(&[], None, &[]);
        check(&[("tokenizer_config.json", r#"{"chat_template": "a"}"#)], Some("a"), &[]);
        check(&[("chat_template.json", r#"{"chat_template": "b"}"#)], Some("b"), &[]);
        check(
            &[(
                "tokenizer_config.json",
                r#"{"chat_template": [{"name": "default", "template": "a"},
                                      {"name": "tool_use", "template": "t"}]}"#,
            )],
            Some("a"),
            &[("tool_use", "t")],
        );
        check(
            &[
                ("tokenizer_config.json", r#"{"chat_template": "old"}"#),
                ("chat_template.jinja", "new"),
                ("additional_chat_templates/rag.jinja", "r"),
                ("additional_chat_templates/notes.txt", "x"),
            ],
            Some("new"),
            &[("rag", "r")],
        );
        check(&[("chat_templates/default.jinja", "d")], Some("d"), &[]);
        let listed = (
            "tokenizer_config.json",
            r#"{"chat_template": [{"name": "default", "template": "a"},
                                  {"name": "tool_use", "template": "t"}]}"#,
        );
        check(&[listed, ("chat_template.jinja", "new")], Some("new"), &[]);
        let tools = ("additional_chat_templates/tool_use.jinja", "u");
        check(&[listed, tools], Some("a"), &[("tool_use", "u")]);
    }

    #[test]
    fn bad_files_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let message = config(dir.path()).unwrap_err().to_string();
        assert!(message.ends_with("has no `config.json`"), "{message}");
        for (text, expected) in [("{", "is not valid JSON"), ("[]", "is not a JSON object")] {
            fs::write(dir.path().join("config.json"), text).unwrap();
            let message = config(dir.path()).unwrap_err().to_string();
            assert!(message.contains("config.json: ") && message.contains(expected), "{message}");
        }
        fs::write(dir.path().join("tokenizer_config.json"), r#"{"chat_template": 3}"#).unwrap();
        let message = chat_templates(dir.path()).unwrap_err().to_string();
        assert!(message.contains("tokenizer_config.json: `chat_template` is neither"), "{message}");
    }
}
