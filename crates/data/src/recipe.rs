//! The `data` section of a recipe.

use keys::{Document, Key, Problem, Section, Settings as _, Value};

use crate::{Config, Overlong, Reading, Source, Validation};

const FORMATS: &[&str] = &["auto", "messages", "sharegpt", "alpaca", "prompt_completion"];
const NO_HUB: &str = "download the file and name it with `path`";

/// The keys of the section.
pub const KEYS: &[Key] = &[
    Key::entries("data.train").shorthand("path").required().doc("Files to train on."),
    Key::path("data.train[].path").required().doc("JSON Lines, or a JSON array of objects."),
    Key::choice("data.train[].format", FORMATS)
        .default("auto")
        .doc("Shape of the records; `auto` finds it by looking."),
    Key::map("data.train[].columns").doc("The format's column: the file's column."),
    Key::text("data.train[].system").doc("System message of conversations that bring none."),
    Key::int("data.train[].limit", 1, i64::MAX).unit("rows").doc("Takes only the first rows."),
    Key::int("data.train[].repeat", 1, 1000)
        .default("1")
        .doc("How often a row stands in an epoch."),
    Key::float("data.train[].weight", 0.0, f64::INFINITY)
        .later("`repeat` takes rows more often")
        .doc("Share of the file in the mixture."),
    Key::text("data.train[].hub").later(NO_HUB).doc("Data set on the hub."),
    Key::text("data.train[].config").later(NO_HUB).doc("Configuration of the hub data set."),
    Key::text("data.train[].split").later(NO_HUB).doc("Split of the hub data set."),
    Key::text("data.train[].revision").later(NO_HUB).doc("Revision of the hub data set."),
    Key::section("data.validation").shorthand("path").doc("What to validate on."),
    Key::float("data.validation.fraction", 0.0, 1.0)
        .below_max()
        .excludes(&["data.validation.path"])
        .doc("Share of the training rows that is kept back."),
    Key::choice("data.validation.by", &["row"])
        .later_words(&["cluster", "time:<column>", "group:<column>"])
        .default("row")
        .doc("What is kept back as a whole."),
    Key::path("data.validation.path").doc("File of validation rows."),
    Key::choice("data.validation.format", FORMATS)
        .default_by("the first file of `data.train`")
        .doc("Shape of the validation records."),
    Key::map("data.validation.columns")
        .default_by("the first file of `data.train`")
        .doc("The format's column: the validation file's column."),
    Key::text("data.validation.system")
        .default_by("the first file of `data.train`")
        .doc("System message of validation conversations that bring none."),
    Key::int("data.max_seq_len", 2, i64::MAX)
        .or(&["auto"])
        .default("auto")
        .unit("tokens")
        .doc("Longest row; `auto` takes the longest there is."),
    Key::choice("data.overlong", &["error", "truncate", "skip"])
        .later_words(&["split"])
        .default("error")
        .doc("What happens to rows that are longer."),
];

/// Reads the section of a recipe.
///
/// Seed and threads stand elsewhere. Fails where `columns` maps to anything but names.
pub fn config(document: &Document, seed: u64, threads: usize) -> Result<Config, Problem> {
    let train: Vec<Source> =
        document.entries("data.train").iter().map(source).collect::<Result<_, _>>()?;
    let validation = document.section("data.validation");
    let validation = match (validation.opt_path("path"), validation.opt_f64("fraction")) {
        (Some(path), _) => {
            let first = train.first().map(|source| source.reading.clone()).unwrap_or_default();
            let reading = reading(&validation, first)?;
            Validation::Sources(vec![Source { path: path.into(), reading, ..Source::default() }])
        }
        (None, Some(fraction)) if fraction > 0.0 => Validation::Fraction(fraction),
        (None, _) => Validation::None,
    };
    let overlong = match document.get_str("data.overlong") {
        "truncate" => Overlong::Truncate,
        "skip" => Overlong::Skip,
        _ => Overlong::Error,
    };
    let max_seq_len = document.opt_usize("data.max_seq_len");
    Ok(Config { train, validation, max_seq_len, overlong, seed, threads })
}

fn source(entry: &Section<'_>) -> Result<Source, Problem> {
    Ok(Source {
        path: entry.get_path("path").into(),
        reading: reading(entry, Reading::default())?,
        limit: entry.opt_usize("limit"),
        repeat: entry.get_usize("repeat"),
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
    Ok(Reading { format, columns, system, key: group.full("") })
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
        config(&document, 7, 2).map_err(|problem| problem.message)
    }

    #[test]
    fn a_path_alone_takes_the_defaults() {
        let config = read("data: {train: rows.jsonl}").unwrap();
        let reading = Reading { key: "data.train.0".into(), ..Reading::default() };
        let source = Source { path: "/r/rows.jsonl".into(), reading, limit: None, repeat: 1 };
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
        assert_eq!(config.train[1].path, Path::new("/r/b.json"));
        assert_eq!((config.max_seq_len, config.overlong), (Some(512), Overlong::Skip));
        // Validation rows are read as the first training file is.
        let reading = Reading { key: "data.validation".into(), ..first.reading.clone() };
        let source = Source { path: "/r/c.json".into(), reading, limit: None, repeat: 0 };
        assert_eq!(config.validation, Validation::Sources(vec![source]));
    }

    #[test]
    fn every_format_can_be_named() {
        let names = crate::record::SHAPES.iter().map(|shape| shape.name);
        assert!(["auto"].into_iter().chain(names).eq(FORMATS.iter().copied()));
    }

    #[test]
    fn a_share_is_kept_back() {
        let config = read("data: {train: a.json, validation: {fraction: 0.1, by: row}}").unwrap();
        assert_eq!(config.validation, Validation::Fraction(0.1));
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
        check_error("data: {train: a.json, overlong: split}", "split");
        check_error("data: {train: a.json, validation: {fraction: 0.1, by: cluster}}", "cluster");
        check_error("data: {train: [{path: a.json, weight: 2.0}]}", "weight");
        check_error("data: {train: [{path: a.json, hub: org/set}]}", "hub");
        check_error("data: {train: a.json, validation: {fraction: 0.1, path: b.json}}", "path");
        check_error(
            "data: {train: [{path: a.json, columns: {prompt: 3}}]}",
            "`prompt` is not the name of a column",
        );
    }
}
