//! The `data` section of a recipe.

use keys::{Document, Key, Kind, Problem, Section, Settings as _, Value};

use crate::context::ContextOptions;
use crate::prepare::{HubSet, Location, OnError};
use crate::split::By;
use crate::supervision::{Reasoning, SupervisionOptions, System, TrainOn};
use crate::{Config, Mixture, Overlong, Reading, Source, Stop, Validation, Wanted};

const FORMATS: &[&str] = &[
    "auto",
    "messages",
    "sharegpt",
    "alpaca",
    "prompt_completion",
    "text",
    "tokens",
    "labelled",
    "preference",
    "feedback",
    "ranked",
    "stepwise",
    "prompt",
];

/// The keys of the section.
pub const KEYS: &[Key] = &[
    Key::entries("data.train").shorthand("path").required().doc("What to train on."),
    Key::path("data.train[].path")
        .doc("Training rows: a file, a folder of files or a glob. JSON Lines, JSON, CSV, TSV, Parquet, Arrow or text, also compressed with gzip or zstd."),
    Key::text("data.train[].name")
        .doc("Entry to read, if `path` is a LLaMA-Factory dataset_info.json."),
    Key::choice("data.train[].format", FORMATS)
        .default("auto")
        .doc("Format of the training rows. auto detects it."),
    Key::map("data.train[].columns")
        .doc("Column names in the training file: maps a column of the format to one of the file. Dots reach into nested values, as in `instances.0.output`."),
    Key::text("data.train[].system").doc("System message for training conversations that have none."),
    Key::int("data.train[].limit", 1, i64::MAX).unit("rows").doc("Maximum number of rows to take from this source."),
    Key::bool("data.train[].shuffle")
        .default("false")
        .doc("Let `limit` take random rows, by the seed, instead of the first ones. Training shuffles in any case."),
    Key::int("data.train[].repeat", 1, 1000)
        .excludes(&["data.train[].weight"])
        .default("1")
        .doc("Number of times a row of this source appears in an epoch."),
    Key::float("data.train[].weight", 0.0, f64::INFINITY)
        .above_min()
        .doc("Weight of this source in the mixture. Sources without one have weight 1."),
    Key::text("data.train[].hub")
        .excludes(&["data.train[].path"])
        .doc("Training rows from a data set on the hub: owner/name."),
    Key::text("data.train[].config").doc("Configuration of the hub data set to train on."),
    Key::text("data.train[].split").doc("Split of the hub data set to train on. By default train."),
    Key::text("data.train[].revision").doc("Branch, tag or commit of the hub data set to train on."),
    Key::choice("data.mixture", &["first", "all"])
        .default("first")
        .doc("When an epoch over weighted sources ends: when the first source is used up, or when all are."),
    Key::section("data.validation").shorthand("path").doc("What to validate on."),
    Key::float("data.validation.fraction", 0.0, 1.0)
        .below_max()
        .excludes(&["data.validation.path", "data.validation.hub"])
        .doc("Fraction of the training rows to hold out for validation."),
    Key::text("data.validation.by")
        .default("cluster")
        .doc("What the validation split keeps together: row, cluster (near-duplicate rows, and for preferences rows with the same prompt, unless a tenth of all rows have it), group:<column>, or time:<column>, which holds out the latest rows."),
    Key::text("data.validation.stratify")
        .doc("Column to stratify the validation split by: the fraction is held out for each of its values."),
    Key::path("data.validation.path").doc("File of validation rows."),
    Key::text("data.validation.hub")
        .excludes(&["data.validation.path"])
        .doc("Validation rows from a data set on the hub: owner/name."),
    Key::text("data.validation.config").doc("Configuration of the hub data set to validate on."),
    Key::text("data.validation.split").doc("Split of the hub data set to validate on. By default validation."),
    Key::text("data.validation.revision").doc("Branch, tag or commit of the hub data set to validate on."),
    Key::choice("data.validation.format", FORMATS)
        .default_by("the first file of `data.train`")
        .doc("Format of the validation rows."),
    Key::map("data.validation.columns")
        .default_by("the first file of `data.train`")
        .doc("Column names in the validation file: maps a column of the format to one of the file."),
    Key::text("data.validation.system")
        .default_by("the first file of `data.train`")
        .doc("System message for validation conversations that have none."),
    Key::entries("data.test")
        .shorthand("path")
        .doc("Rows that must not be trained on. Training rows that match them are reported."),
    Key::path("data.test[].path").required().doc("Test rows: a file, a folder or a glob. They are not trained on, and training rows that match them are reported."),
    Key::choice("data.test[].format", FORMATS)
        .default("auto")
        .doc("Format of the test rows. auto detects it."),
    Key::map("data.test[].columns").doc("Column names in the test file: maps a column of the format to one of the file."),
    Key::choice("data.train_on", &["all", "last", "weighted"])
        .default("all")
        .doc("Turns that are trained on: all whose weight is not 0, only the last, or each by its `weight`."),
    Key::list("data.roles", &Kind::Text)
        .items(1, 8)
        .default("[assistant]")
        .doc("Roles whose turns are trained on."),
    Key::choice("data.reasoning", &["keep", "strip"])
        .default("keep")
        .doc("Train on the reasoning of a turn (keep), or remove it from the rows (strip)."),
    Key::section("data.system").shorthand("policy").doc("What to do with system messages."),
    Key::choice("data.system.policy", &["keep", "drop"])
        .excludes(&["data.system.set"])
        .default("keep")
        .doc("Keep the system messages of the rows, or drop them."),
    Key::text("data.system.set").doc("Text that replaces every system message."),
    Key::section("data.context").shorthand("retrieve").doc("Retrieved passages in front of prompts, to train answering from them."),
    Key::path("data.context.retrieve").doc("Folder or file of documents. Passages retrieved from them by BM25 are put in front of the prompts."),
    Key::int("data.context.k", 1, 100).default("3").doc("Number of passages retrieved for a prompt."),
    Key::int("data.context.distractors", 0, 100)
        .default("1")
        .doc("Number of unrelated passages added to a prompt."),
    Key::int("data.context.words", 20, 10_000).default("200").unit("words").doc("Approximate length of a retrieved passage."),
    Key::float("data.context.without", 0.0, 1.0)
        .default("0.0")
        .doc("Fraction of the rows that get only unrelated passages."),
    Key::int("data.max_seq_len", 2, i64::MAX)
        .or(&["auto"])
        .default("auto")
        .unit("tokens")
        .doc("Maximum length of a row. auto is the length of the longest row."),
    Key::choice("data.overlong", &["error", "truncate", "cut_prompt", "split", "skip"])
        .default("error")
        .doc("What to do with rows longer than `data.max_seq_len`. truncate keeps their beginning. cut_prompt cuts the beginning of the prompt, the same for all answers to it, and leaves out rows whose answer does not fit or that have several learned turns. split cuts dialogues between turns and texts into windows."),
    Key::choice("data.on_error", &["stop", "skip"])
        .default("stop")
        .doc("What to do with unusable rows: stop lists them all and trains nothing; skip leaves them out and lists them."),
    Key::list("data.accept", &Kind::Text)
        .default("[]")
        .doc("Names of `check` errors that do not stop the run."),
];

/// Reads the section of a recipe.
///
/// `wanted` is what the method learns from. Seed, threads and cache stand elsewhere. Fails where a value does not fit the others.
pub fn config(
    document: &Document,
    wanted: Wanted,
    seed: u64,
    threads: usize,
) -> Result<Config, Problem> {
    let list = |name: &str| -> Result<Vec<Source>, Problem> {
        document.entries(name).iter().map(source).collect()
    };
    let (train, test) = (list("data.train")?, list("data.test")?);
    let overlong = match document.get_str("data.overlong") {
        "truncate" => Overlong::Truncate,
        "cut_prompt" => Overlong::CutPrompt,
        "split" => Overlong::Split,
        "skip" => Overlong::Skip,
        _ => Overlong::Error,
    };
    let on_error = match document.get_str("data.on_error") {
        "skip" => OnError::Skip,
        _ => OnError::Stop,
    };
    let mixture = match document.get_str("data.mixture") {
        "all" => Mixture::All,
        _ => Mixture::First,
    };
    let accept = document.opt_strs("data.accept").unwrap_or_default();
    Ok(Config {
        wanted,
        validation: validation(document, &train)?,
        train,
        test,
        mixture,
        context: context(document),
        max_seq_len: document.opt_usize("data.max_seq_len"),
        overlong,
        on_error,
        accept: accept.into_iter().map(str::to_owned).collect(),
        seed,
        threads,
        cache: None,
        stop: Stop::default(),
    })
}

/// What the section says about which tokens are learned.
pub fn supervision(document: &Document) -> SupervisionOptions {
    let train_on = match document.get_str("data.train_on") {
        "last" => TrainOn::Last,
        "weighted" => TrainOn::Weighted,
        _ => TrainOn::All,
    };
    let reasoning = match document.get_str("data.reasoning") {
        "strip" => Reasoning::Strip,
        _ => Reasoning::Keep,
    };
    let system = match (document.opt_str("data.system.set"), document.opt_str("data.system.policy"))
    {
        (Some(text), _) => System::Set(text.to_owned()),
        (None, Some("drop")) => System::Drop,
        (None, _) => System::Keep,
    };
    let roles = document.opt_strs("data.roles").unwrap_or_default();
    let roles = roles.into_iter().map(str::to_owned).collect();
    let split = document.get_str("data.overlong") == "split";
    let split_beyond = document.opt_usize("data.max_seq_len").filter(|_| split);
    SupervisionOptions { train_on, roles, reasoning, system, split_beyond }
}

fn validation(document: &Document, train: &[Source]) -> Result<Validation, Problem> {
    let group = document.section("data.validation");
    let location = location(&group, "validation");
    if let Some(Location::Path(path)) = &location
        && let Some(share) = path.file_name().and_then(|name| name.to_str())
        && share.parse().is_ok_and(|share| (0.0..1.0).contains(&share))
        && !path.exists()
    {
        let message = format!("`{share}` is not a file");
        let hint = format!("for a share of the rows: `validation: {{fraction: {share}}}`");
        return Err(group.problem("path", message, Some(hint)));
    }
    if let Some(location) = location {
        let first = train.first().map(|source| source.reading.clone()).unwrap_or_default();
        let reading = reading(&group, first)?;
        return Ok(Validation::Sources(vec![Source { location, reading, ..Source::default() }]));
    }
    match group.opt_f64("fraction") {
        Some(fraction) if fraction > 0.0 => {
            let by = by(&group)?;
            let stratify = group.opt_str("stratify").map(str::to_owned);
            Ok(Validation::Fraction { fraction, by, stratify })
        }
        _ => Ok(Validation::None),
    }
}

fn by(group: &Section<'_>) -> Result<By, Problem> {
    let text = group.opt_str("by").unwrap_or("cluster");
    match text.split_once(':') {
        None if text == "row" => Ok(By::Row),
        None if text == "cluster" => Ok(By::Cluster),
        Some(("time", column)) if !column.is_empty() => Ok(By::Time(column.trim().to_owned())),
        Some(("group", column)) if !column.is_empty() => Ok(By::Group(column.trim().to_owned())),
        _ => {
            let message = format!("`{text}` is not a unit to hold out rows by");
            let hint = "one of row, cluster, time:<column>, group:<column>";
            Err(group.problem("by", message, Some(hint.into())))
        }
    }
}

fn context(document: &Document) -> Option<ContextOptions> {
    let group = document.section("data.context");
    Some(ContextOptions {
        retrieve: group.opt_path("retrieve")?.into(),
        k: group.get_usize("k"),
        distractors: group.get_usize("distractors"),
        words: group.get_usize("words"),
        without: group.get_f64("without"),
    })
}

/// Where the rows of a group are; `None` where it names no place.
fn location(group: &Section<'_>, split: &str) -> Option<Location> {
    let text = |name: &str| group.opt_str(name).map(str::to_owned);
    if let Some(id) = group.opt_str("hub") {
        let split = text("split").or_else(|| Some(split.to_owned()));
        let (config, revision) = (text("config"), text("revision"));
        return Some(Location::Hub(HubSet { id: id.to_owned(), config, split, revision }));
    }
    let path = group.opt_path("path")?.to_owned();
    Some(match text("name") {
        Some(name) => Location::Entry { path, name },
        None => Location::Path(path),
    })
}

fn source(entry: &Section<'_>) -> Result<Source, Problem> {
    let location = location(entry, "train").ok_or_else(|| {
        let hint = "write `path: FILE`, or `hub: owner/name`";
        entry.problem("path", "the entry names no rows".to_owned(), Some(hint.into()))
    })?;
    Ok(Source {
        location,
        reading: reading(entry, Reading::default())?,
        limit: entry.opt_usize("limit"),
        shuffle: entry.opt_bool("shuffle").unwrap_or(false),
        repeat: entry.opt_usize("repeat").unwrap_or(1),
        weight: entry.opt_f64("weight"),
    })
}

/// What the group says about its file; what it leaves open is as in `otherwise`.
fn reading(group: &Section<'_>, otherwise: Reading) -> Result<Reading, Problem> {
    let format = match group.opt_str("format") {
        None => otherwise.format,
        Some("auto") => None,
        Some(name) => Some(name.to_owned()),
    };
    let columns = match group.opt_map("columns") {
        None => otherwise.columns,
        Some(map) => map.iter().map(|pair| column(group, pair)).collect::<Result<_, _>>()?,
    };
    let system = group.opt_str("system").map(str::to_owned).or(otherwise.system);
    Ok(Reading { format, columns, system, key: group.full(""), ..otherwise })
}

fn column(
    group: &Section<'_>,
    (ours, theirs): &(String, Value),
) -> Result<(String, String), Problem> {
    match theirs {
        Value::Text(theirs) => Ok((ours.clone(), theirs.clone())),
        _ => {
            let message = format!("`{ours}` is not the name of a column");
            let hint = "write it as `columns: {prompt: question}`, in quotes if it is a number";
            Err(group.problem("columns", message, Some(hint.into())))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use keys::{Schema, Surroundings};

    use super::*;

    fn read(recipe: &str) -> Result<Config, String> {
        let around =
            Surroundings { current_dir: Path::new("/now"), home: None, variable: &|_| None };
        let parsed = Schema::new(&[KEYS]).parse(recipe, Path::new("/r/a.yaml"), &[], &around);
        let document = parsed.map_err(|error| error.to_string())?;
        config(&document, Wanted::default(), 7, 2).map_err(|problem| problem.message)
    }

    #[test]
    fn a_path_alone_takes_the_defaults() {
        let config = read("data: {train: rows.jsonl}").unwrap();
        let reading = Reading { key: "data.train.0".into(), ..Reading::default() };
        let source = Source { reading, repeat: 1, ..Source::of_path("/r/rows.jsonl") };
        let expected = Config { train: vec![source], seed: 7, threads: 2, ..Config::default() };
        assert_eq!(config, expected);
    }

    #[test]
    fn everything_that_is_said_is_taken() {
        let config = read(
            "data:\n  train:\n    - {path: a.json, format: alpaca, columns: {output: answer},\n       \
             system: Be brief., limit: 5, repeat: 3}\n    - b.json\n  \
             validation: c.json\n  max_seq_len: 512\n  overlong: skip\n",
        );
        let config = config.unwrap();
        let first = &config.train[0];
        assert_eq!((first.limit, first.repeat), (Some(5), 3));
        assert_eq!(first.reading.format.as_deref(), Some("alpaca"));
        assert_eq!(first.reading.columns, [("output".to_owned(), "answer".to_owned())]);
        assert_eq!(config.train[1].location, Location::Path("/r/b.json".into()));
        assert_eq!((config.max_seq_len, config.overlong), (Some(512), Overlong::Skip));
        // Validation rows are read as the first training file is.
        let reading = Reading { key: "data.validation".into(), ..first.reading.clone() };
        let source = Source { reading, ..Source::of_path("/r/c.json") };
        let cut = read("data: {train: a.json, overlong: cut_prompt}").unwrap();
        assert_eq!(cut.overlong, Overlong::CutPrompt);
        assert_eq!(config.validation, Validation::Sources(vec![source]));
    }

    #[test]
    fn supervision_is_read() {
        let read = |lines: &str| {
            let around =
                Surroundings { current_dir: Path::new("/now"), home: None, variable: &|_| None };
            let recipe = format!("data:\n  train: a.json\n{lines}");
            let schema = Schema::new(&[KEYS]);
            supervision(&schema.parse(&recipe, Path::new("/r/a.yaml"), &[], &around).unwrap())
        };
        assert_eq!(read(""), SupervisionOptions::default());
        assert_eq!(read("  system: drop\n").system, System::Drop);
        assert_eq!(read("  system: {set: Be brief.}\n").system, System::Set("Be brief.".into()));
        let all = read("  train_on: last\n  reasoning: strip\n  roles: [assistant, tool]\n");
        assert_eq!((all.train_on, all.reasoning), (TrainOn::Last, Reasoning::Strip));
        assert_eq!(all.roles, ["assistant", "tool"]);
        let split = read("  overlong: split\n  max_seq_len: 64\n");
        assert_eq!(split.split_beyond, Some(64));
    }

    #[test]
    fn every_format_can_be_named() {
        let names = crate::record::SHAPES.iter().map(|shape| shape.name);
        assert!(["auto"].into_iter().chain(names).eq(FORMATS.iter().copied()));
    }

    #[test]
    fn a_share_is_kept_back() {
        let config = read("data: {train: a.json, validation: {fraction: 0.1, by: row}}").unwrap();
        let by = |by| Validation::Fraction { fraction: 0.1, by, stratify: None };
        assert_eq!(config.validation, by(By::Row));
        let config =
            read("data: {train: a.json, validation: {fraction: 0.1, by: \"time:day\"}}").unwrap();
        assert_eq!(config.validation, by(By::Time("day".into())));
        let error = read("data: {train: a.json, validation: 0.1}").unwrap_err();
        assert_eq!(error, "`0.1` is not a file");
        assert!(read("data: {train: a.json, validation: \"2024\"}").is_ok());
        let config = read("data: {train: a.json, validation: {fraction: 0}}").unwrap();
        assert_eq!(config.validation, Validation::None);
    }

    #[track_caller]
    fn check_error(recipe: &str, message: &str) {
        let error = read(recipe).unwrap_err();
        assert!(error.contains(message), "{error}");
    }

    #[test]
    fn what_cannot_be_honoured_is_refused_by_name() {
        check_error("data: {train: a.json, validation: {fraction: 0.1, by: day}}", "`day`");
        check_error("data: {train: [{path: a.json, weight: 2.0, repeat: 3}]}", "weight");
        check_error("data: {train: [{format: alpaca}]}", "names no rows");
        check_error("data: {train: [{path: a.json, hub: org/set}]}", "hub");
        check_error("data: {train: a.json, validation: {fraction: 0.1, path: b.json}}", "path");
        check_error(
            "data: {train: [{path: a.json, columns: {prompt: 3}}]}",
            "`prompt` is not the name of a column",
        );
    }
}
