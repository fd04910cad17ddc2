//! Methods as `init` knows them: what each learns from, and which files fit it.

use std::path::Path;

use data::record::{Reader, Reading, Wanted};
use data::source::Row;
use train::method::{METHODS, Method};

use crate::command::quote;
use crate::error::Failure;

/// What to type in place of a method for rows that do not fit it.
pub(super) fn instead(method: &Method, file: &Path, rows: &[Row]) -> Option<String> {
    let fitting: Vec<&str> = METHODS
        .iter()
        .filter(|other| other.records != method.records)
        .filter(|other| shape(rows, other.records).is_some())
        .map(|other| other.name)
        .collect();
    let first = fitting.first()?;
    let names: Vec<String> = fitting.iter().map(|name| format!("`{name}`")).collect();
    let file = quote(&file.display().to_string());
    let names = names.join(", ");
    Some(format!("the rows fit {names}: `tunesmith init {first} --data {file}`"))
}

/// Refuses rows that the method cannot learn from.
pub(super) fn refuse(method: &Method, file: &Path, rows: &[Row]) -> Failure {
    let (path, name, learns_from) = (file.display(), method.name, method.learns_from);
    let message = format!("{path}: `{name}` learns from {learns_from}, which the rows are not");
    let columns = rows.first().map(|row| row.value.keys().cloned().collect::<Vec<_>>());
    let columns = columns.unwrap_or_default().join("`, `");
    let hint = instead(method, file, rows);
    let hint = hint.unwrap_or_else(|| format!("the first row has `{columns}`"));
    Failure::wrong("data_file", message).at(file).hint(hint)
}

/// The shape in which the rows hold what is wanted; none where they do not.
pub(super) fn shape(rows: &[Row], wanted: Wanted) -> Option<&'static str> {
    let sample = &rows[..rows.len().min(SAMPLE_ROWS)];
    let reader = Reader::find(sample, &Reading::default(), wanted).ok()?;
    Some(reader.shape())
}

/// Rows at which is looked to find their shape, as `prepare` does.
const SAMPLE_ROWS: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(text: &str) -> Vec<Row> {
        data::source::parse(Path::new("rows.jsonl"), text.as_bytes()).unwrap()
    }

    #[test]
    fn rows_fit_the_methods_that_learn_from_them() {
        let check = |text: &str, expected: &[&str]| {
            let rows = rows(text);
            let fits: Vec<&str> = METHODS
                .iter()
                .filter(|method| shape(&rows, method.records).is_some())
                .map(|method| method.name)
                .collect();
            assert_eq!(fits, expected, "{text}");
        };
        // Whatever has a prompt can be answered and rewarded.
        let online = ["ppo", "grpo", "rloo", "reinforce_pp", "online_dpo", "distill"];
        let pairs = ["dpo", "kto", "bco", "orpo", "simpo", "cpo", "reward"];
        let all = [&pairs[..], &online].concat();
        check(r#"{"prompt": "a", "chosen": "b", "rejected": "c"}"#, &all);
        check(r#"{"chosen": "b", "rejected": "c"}"#, &pairs);
        check(
            r#"{"prompt": "a", "completion": "b", "label": true}"#,
            &[&["sft", "kto", "bco", "classify"], &online[..]].concat(),
        );
        check(r#"{"text": "a"}"#, &["pretrain"]);
        check(
            r#"{"prompt": "a", "completions": ["b", "c"], "labels": [true, false]}"#,
            &[&["reward"], &online[..]].concat(),
        );
        check(r#"{"question": "a", "answer": "b"}"#, &[&["sft"], &online[..]].concat());
        check(r#"{"other": 1}"#, &[]);
    }

    #[test]
    fn rows_of_another_method_are_told_what_to_type() {
        let refuse = |name: &str, text: &str| {
            let method = train::method::named(name).unwrap();
            let failure = super::refuse(method, Path::new("my rows.jsonl"), &rows(text));
            (failure.message, failure.hint.unwrap())
        };
        let (message, hint) = refuse("dpo", r#"{"text": "a"}"#);
        let expected = "my rows.jsonl: `dpo` learns from pairs of a chosen and a rejected answer, \
                        which the rows are not";
        assert_eq!(message, expected);
        let expected = "the rows fit `pretrain`: `tunesmith init pretrain --data 'my rows.jsonl'`";
        assert_eq!(hint, expected);
        let (_, hint) = refuse("pretrain", r#"{"a": 1, "b": 2}"#);
        assert_eq!(hint, "the first row has `a`, `b`");
    }
}
