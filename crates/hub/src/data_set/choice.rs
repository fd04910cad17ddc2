//! Which files of a data set a config and a split mean.
//!
//! The rules are those of Hugging Face's `datasets`, so that the same name gives the same rows: what
//! the card says, else keywords in the names of files, else in those of folders, else all is `train`.

use model::checkpoint::stays_inside;

use super::card::Config;
use super::pattern::fits;

/// Why there are no files.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Lack {
    /// No file has data that can be read.
    Data,
    /// The config asked for, or any where there are several, out of these.
    Config(Vec<String>),
    /// The split asked for, out of these.
    Split(Vec<String>),
}

/// Kinds of data files; of several kinds side by side the most frequent is taken, else the first.
const KINDS: [&str; 7] = ["parquet", "arrow", "jsonl", "ndjson", "json", "csv", "tsv"];

/// Files that describe others.
const DESCRIPTIONS: [&str; 4] =
    ["config.json", "dataset_info.json", "dataset_infos.json", "dataset_dict.json"];

/// Splits by the words that mean them.
const KEYWORDS: [(&str, &[&str]); 3] = [
    ("train", &["train", "training"]),
    ("validation", &["validation", "valid", "dev", "val"]),
    ("test", &["test", "testing", "eval", "evaluation"]),
];

/// A split with its files.
type Split<'a> = (String, Vec<&'a str>);

/// The files of a split, by what the card says or by their names.
pub(super) fn choose<'a>(
    names: &'a [String],
    configs: &[Config],
    config: Option<&str>,
    split: &str,
) -> Result<Vec<&'a str>, Lack> {
    let files: Vec<&str> =
        names.iter().map(String::as_str).filter(|name| kind(name).is_some()).collect();
    if files.is_empty() {
        return Err(Lack::Data);
    }
    let splits = match configs {
        [] => by_name(&within(&files, config)?),
        configs => by_card(&files, the_config(configs, config)?),
    };
    of_split(splits, split)
}

/// The files of a split in the hub's own conversion, `config/split/0000.parquet`.
pub(super) fn choose_converted<'a>(
    names: &'a [String],
    config: Option<&str>,
    split: &str,
) -> Result<Vec<&'a str>, Lack> {
    let mut configs: Vec<(String, Vec<Split<'a>>)> = Vec::new();
    for name in names.iter().filter(|name| kind(name) == Some("parquet")) {
        let parts: Vec<&str> = name.split('/').collect();
        let [config, split, _] = parts[..] else { continue };
        add(entry(&mut configs, config), split, name);
    }
    let found: Vec<&str> = configs.iter().map(|(name, _)| name.as_str()).collect();
    let wanted = match (config, &found[..]) {
        (_, []) => return Err(Lack::Data),
        (Some(config), _) => config,
        (None, [only]) => only,
        (None, _) => "default",
    };
    let index = found.iter().position(|name| *name == wanted);
    let index = index.ok_or_else(|| Lack::Config(owned(&found)))?;
    of_split(configs.swap_remove(index).1, split)
}

/// The kind of a data file; none for other files and for those that no cache should hold.
fn kind(name: &str) -> Option<&'static str> {
    let is_part = |part: &str| !part.is_empty() && !part.starts_with(['.', '_']);
    let (folders, file) = name.rsplit_once('/').unwrap_or(("", name));
    let is_plain = folders.is_empty() || folders.split('/').all(is_part);
    if !is_plain || !is_part(file) || !stays_inside(name) || DESCRIPTIONS.contains(&file) {
        return None;
    }
    let stem = [".gz", ".zst"].iter().find_map(|end| file.strip_suffix(end)).unwrap_or(file);
    let end = stem.rsplit_once('.')?.1.to_ascii_lowercase();
    KINDS.into_iter().find(|kind| *kind == end)
}

fn the_config<'a>(configs: &'a [Config], wanted: Option<&str>) -> Result<&'a Config, Lack> {
    let named = |name: &str| configs.iter().find(|config| config.name == name);
    let found = match (wanted, configs) {
        (Some(name), _) => named(name),
        (None, [only]) => Some(only),
        (None, _) => configs.iter().find(|config| config.is_default).or_else(|| named("default")),
    };
    found.ok_or_else(|| Lack::Config(configs.iter().map(|config| config.name.clone()).collect()))
}

fn by_card<'a>(files: &[&'a str], config: &Config) -> Vec<Split<'a>> {
    let dir = config.data_dir.as_deref().map(|dir| dir.trim_matches('/'));
    let below = |name: &str| match dir {
        None | Some("" | ".") => Some(name.to_owned()),
        Some(dir) => Some(name.strip_prefix(dir)?.strip_prefix('/')?.to_owned()),
    };
    if config.splits.is_empty() {
        let files: Vec<&str> = files.iter().copied().filter(|name| below(name).is_some()).collect();
        return by_name(&files);
    }
    let is_meant = |name: &str, patterns: &[String]| {
        below(name).is_some_and(|name| patterns.iter().any(|pattern| fits(pattern, &name)))
    };
    let split = |(name, patterns): &(String, Vec<String>)| {
        (name.clone(), files.iter().copied().filter(|file| is_meant(file, patterns)).collect())
    };
    config.splits.iter().map(split).collect()
}

/// Without a card a config is a folder.
fn within<'a>(files: &[&'a str], config: Option<&str>) -> Result<Vec<&'a str>, Lack> {
    let Some(config) = config.filter(|config| *config != "default") else {
        return Ok(files.to_vec());
    };
    let folder = |name: &'a str| name.split_once('/').map(|(folder, _)| folder);
    let found: Vec<&str> =
        files.iter().copied().filter(|name| folder(name) == Some(config)).collect();
    if !found.is_empty() {
        return Ok(found);
    }
    let mut folders: Vec<&str> = files.iter().copied().filter_map(folder).collect();
    folders.sort_unstable();
    folders.dedup();
    Err(Lack::Config(owned(&folders)))
}

fn by_name<'a>(files: &[&'a str]) -> Vec<Split<'a>> {
    let files = of_one_kind(files);
    let file = |name: &str| name.rsplit('/').next().and_then(split_of);
    // The innermost folder says most.
    let folder = |name: &str| name.rsplit('/').skip(1).find_map(split_of);
    let told = |tell: &dyn Fn(&str) -> Option<&'static str>| {
        let mut splits = Vec::new();
        for name in &files {
            if let Some(split) = tell(name) {
                add(&mut splits, split, name);
            }
        }
        Some(splits).filter(|splits| !splits.is_empty())
    };
    told(&file)
        .or_else(|| told(&folder))
        .unwrap_or_else(|| vec![("train".to_owned(), files.clone())])
}

/// Files of the most frequent kind: the same rows are often there in several.
fn of_one_kind<'a>(files: &[&'a str]) -> Vec<&'a str> {
    let count = |wanted: &str| files.iter().filter(|name| kind(name) == Some(wanted)).count();
    // The first of equals.
    let most = KINDS.into_iter().rev().max_by_key(|kind| count(kind));
    files.iter().copied().filter(|name| kind(name) == most).collect()
}

/// The split that a word of a name means.
fn split_of(name: &str) -> Option<&'static str> {
    let is_between = |c: char| "-._ ".contains(c) || c.is_ascii_digit();
    let words: Vec<String> = name.split(is_between).map(str::to_lowercase).collect();
    let means = |keywords: &[&str]| words.iter().any(|word| keywords.contains(&word.as_str()));
    KEYWORDS.into_iter().find(|(_, keywords)| means(keywords)).map(|(split, _)| split)
}

fn of_split<'a>(mut splits: Vec<Split<'a>>, wanted: &str) -> Result<Vec<&'a str>, Lack> {
    splits.retain(|(_, files)| !files.is_empty());
    if splits.is_empty() {
        return Err(Lack::Data);
    }
    let Some(index) = splits.iter().position(|(name, _)| name == wanted) else {
        return Err(Lack::Split(splits.into_iter().map(|(name, _)| name).collect()));
    };
    let mut files = splits.swap_remove(index).1;
    files.sort_unstable();
    Ok(files)
}

/// The value of that name, made where there is none.
fn entry<'a, T: Default>(list: &'a mut Vec<(String, T)>, name: &str) -> &'a mut T {
    let index = list.iter().position(|(own, _)| own == name).unwrap_or_else(|| {
        list.push((name.to_owned(), T::default()));
        list.len() - 1
    });
    &mut list[index].1
}

fn add<'a>(splits: &mut Vec<Split<'a>>, split: &str, file: &'a str) {
    entry(splits, split).push(file);
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        owned(names)
    }

    #[track_caller]
    fn check(files: &[&str], config: Option<&str>, split: &str, expected: &[&str]) {
        assert_eq!(choose(&names(files), &[], config, split).as_deref(), Ok(expected));
    }

    #[test]
    fn names_tell_splits() {
        let sharded = [
            "data/test-0-of-1.parquet",
            "data/train-1-of-2.parquet",
            "data/train-0-of-2.parquet",
            "README.md",
            "dataset_infos.json",
        ];
        let train = ["data/train-0-of-2.parquet", "data/train-1-of-2.parquet"];
        check(&sharded, None, "train", &train);
        check(&sharded, Some("data"), "test", &["data/test-0-of-1.parquet"]);
        check(
            &["gsm8k_train.jsonl.gz", "gsm8k_dev.jsonl.gz"],
            None,
            "validation",
            &["gsm8k_dev.jsonl.gz"],
        );
        // Words, not letters: nothing here is called `train`.
        check(&["constraint/a.csv", "b.csv"], None, "train", &["b.csv", "constraint/a.csv"]);
        check(&["en/train/a.json", "en/test/a.json"], None, "test", &["en/test/a.json"]);
        check(&["en/train/a.json", "fr/train/a.json"], Some("fr"), "train", &["fr/train/a.json"]);
        // The same rows twice.
        check(&["train.csv", "train.parquet"], None, "train", &["train.parquet"]);
        check(
            &["../train.csv", ".x/train.csv", "__m/train.csv", "train.csv"],
            None,
            "train",
            &["train.csv"],
        );
    }

    #[test]
    fn a_card_goes_before_names() {
        let config = |name: &str, is_default, splits: &[(&str, &str)]| Config {
            name: name.to_owned(),
            is_default,
            data_dir: None,
            splits: splits
                .iter()
                .map(|(split, pattern)| ((*split).to_owned(), vec![(*pattern).to_owned()]))
                .collect(),
        };
        let configs = [
            config("a", false, &[("train", "a/*"), ("extra", "more/*.json")]),
            config("b", true, &[("train", "b/**")]),
        ];
        let files = names(&["a/test.json", "a/notes.txt", "b/c/x.json", "more/x.json"]);
        let check = |config, split, expected: Result<Vec<&str>, Lack>| {
            assert_eq!(choose(&files, &configs, config, split), expected, "{config:?} {split}");
        };
        check(Some("a"), "train", Ok(vec!["a/test.json"]));
        check(Some("a"), "extra", Ok(vec!["more/x.json"]));
        check(None, "train", Ok(vec!["b/c/x.json"]));
        check(Some("c"), "train", Err(Lack::Config(names(&["a", "b"]))));
        check(None, "test", Err(Lack::Split(names(&["train"]))));
        let dir = [Config { data_dir: Some("more".to_owned()), ..config("d", false, &[]) }];
        assert_eq!(choose(&files, &dir, None, "train"), Ok(vec!["more/x.json"]));
        // Two, and nothing says which.
        let two = [config("a", false, &[]), config("b", false, &[])];
        let lack = choose(&files, &two, None, "train");
        assert_eq!(lack, Err(Lack::Config(names(&["a", "b"]))));
    }

    #[test]
    fn what_is_not_there_says_what_is() {
        let check = |files: &[&str], config, split, expected| {
            assert_eq!(choose(&names(files), &[], config, split), Err(expected));
        };
        check(&["README.md", "set.py"], None, "train", Lack::Data);
        check(&["train.csv", "test.csv"], None, "dev", Lack::Split(names(&["train", "test"])));
        check(&["b/x.csv", "a/x.csv"], Some("c"), "train", Lack::Config(names(&["a", "b"])));
    }

    #[test]
    fn the_conversion_has_a_folder_a_config() {
        let files = names(&[
            "main/train/0000.parquet",
            "main/train/0001.parquet",
            "socratic/test/0000.parquet",
            "socratic/partial-train/0000.parquet",
        ]);
        let check = |config, split, expected: Result<Vec<&str>, Lack>| {
            assert_eq!(choose_converted(&files, config, split), expected, "{config:?} {split}");
        };
        check(
            Some("main"),
            "train",
            Ok(vec!["main/train/0000.parquet", "main/train/0001.parquet"]),
        );
        check(None, "train", Err(Lack::Config(names(&["main", "socratic"]))));
        let splits = Lack::Split(names(&["test", "partial-train"]));
        check(Some("socratic"), "train", Err(splits));
        let one = names(&["default/train/0000.parquet"]);
        assert_eq!(
            choose_converted(&one, None, "train").as_deref(),
            Ok(&["default/train/0000.parquet"][..])
        );
        assert_eq!(choose_converted(&[], None, "train"), Err(Lack::Data));
    }
}
