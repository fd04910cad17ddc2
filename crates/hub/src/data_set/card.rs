//! What the card of a data set, its `README.md`, says about its configs.

use std::path::Path;

use keys::{Key, Schema, Settings as _, Surroundings};
use serde_json::Value;

/// A config of a data set.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Config {
    pub(super) name: String,
    /// Whether it is meant where none is named.
    pub(super) is_default: bool,
    /// The folder that its files lie in, where splits are told by their names.
    pub(super) data_dir: Option<String>,
    /// Splits with their patterns.
    pub(super) splits: Vec<(String, Vec<String>)>,
}

/// Of all that a card says, only this is read.
const KEYS: &[Key] = &[Key::any("configs").doc("Configs with the patterns of their files.")];

/// The configs of a card; none where it names none.
///
/// Fails with a sentence where they are not written as they should be.
pub(super) fn configs(card: &str) -> Result<Vec<Config>, String> {
    let Some(block) = block(card) else { return Ok(Vec::new()) };
    let around = Surroundings { current_dir: Path::new("/"), home: None, variable: &|_| None };
    let document = Schema::new(&[KEYS])
        .parse(&block, Path::new("README.md"), &[], &around)
        .map_err(|error| error.to_string())?;
    let Some(configs) = document.value("configs").map(keys::Value::to_json) else {
        return Ok(Vec::new());
    };
    let entries = configs.as_array().ok_or("`configs` is not a list")?;
    entries.iter().map(config).collect()
}

/// The lines of `configs:` in the front matter, which ends at the second `---`.
fn block(card: &str) -> Option<String> {
    let mut lines = card.trim_start_matches('\u{feff}').lines().map(str::trim_end);
    lines.next().filter(|line| *line == "---")?;
    let mut lines = lines.take_while(|line| *line != "---").skip_while(|line| *line != "configs:");
    let first = lines.next()?;
    let belongs = |line: &&str| line.is_empty() || line.starts_with([' ', '-', '#']);
    let rest: Vec<&str> = lines.take_while(belongs).collect();
    Some(format!("{first}\n{}\n", rest.join("\n")))
}

fn config(entry: &Value) -> Result<Config, String> {
    let name = text(&entry["config_name"]).ok_or("a config has no `config_name`")?;
    let splits = match &entry["data_files"] {
        Value::Null => Vec::new(),
        Value::Array(files) if files.iter().any(Value::is_object) => {
            files.iter().map(|files| split(&name, files)).collect::<Result<_, _>>()?
        }
        // Patterns alone are those of `train`.
        files => vec![("train".to_owned(), patterns(files))],
    };
    Ok(Config {
        name,
        is_default: entry["default"] == true,
        data_dir: text(&entry["data_dir"]),
        splits,
    })
}

fn split(config: &str, files: &Value) -> Result<(String, Vec<String>), String> {
    let name = text(&files["split"]);
    let name = name.ok_or_else(|| format!("config `{config}` has files without a `split`"))?;
    Ok((name, patterns(&files["path"])))
}

fn patterns(value: &Value) -> Vec<String> {
    match value {
        Value::Array(list) => list.iter().filter_map(text).collect(),
        value => text(value).into_iter().collect(),
    }
}

/// A name, also where YAML reads it as a number.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(name: &str, splits: &[(&str, &[&str])]) -> Config {
        let split = |(name, patterns): &(&str, &[&str])| {
            ((*name).to_owned(), patterns.iter().map(|&pattern| pattern.to_owned()).collect())
        };
        let splits = splits.iter().map(split).collect();
        Config { name: name.to_owned(), is_default: false, data_dir: None, splits }
    }

    #[test]
    fn configs_are_read_in_all_their_forms() {
        let card = "---\nlicense: mit\ndataset_info:\n- config_name: x\n  features: [a: b]\n\
                    configs:\n- config_name: main\n  default: true\n  data_files:\n  - split: train\n    \
                    path: main/train-*\n  - split: test\n    path: [\"a.csv\", \"b.csv\"]\n\
                    - config_name: 2023\n  data_files: \"*.json\"\n- config_name: dir\n  data_dir: d\n\
                    tags: {oops\n---\n# A data set\nconfigs:\n";
        let expected = [
            Config {
                is_default: true,
                ..config("main", &[("train", &["main/train-*"]), ("test", &["a.csv", "b.csv"])])
            },
            config("2023", &[("train", &["*.json"])]),
            Config { data_dir: Some("d".to_owned()), ..config("dir", &[]) },
        ];
        assert_eq!(configs(card).unwrap(), expected);
    }

    #[test]
    fn a_card_without_configs_says_nothing() {
        for card in ["", "# A data set", "---\nlicense: mit\n---\nconfigs:\n- config_name: x\n"] {
            assert_eq!(configs(card), Ok(Vec::new()), "{card}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_card_is_told() {
        let check = |configs: &str, expected: &str| {
            let error = super::configs(&format!("---\nconfigs:\n{configs}\n---\n")).unwrap_err();
            assert!(error.contains(expected), "{error}");
        };
        check("- data_files: a.csv", "a config has no `config_name`");
        check("- config_name: a\n  data_files:\n  - path: a.csv", "files without a `split`");
        check("  a: b", "`configs` is not a list");
        check("- [", "README.md:");
    }
}
