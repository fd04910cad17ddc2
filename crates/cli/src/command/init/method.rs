//! Methods as `init` knows them: what each learns from, and which files fit it.

use std::path::Path;

use data::record::{Reader, Reading, Wanted};
use data::source::Row;

use crate::command::quote;
use crate::error::Failure;

/// A method of a recipe.
#[derive(Debug, PartialEq)]
pub(super) struct Method {
    /// Its word in a recipe.
    pub(super) name: &'static str,
    /// What it learns from.
    pub(super) wanted: Wanted,
    /// The same in words.
    pub(super) learns_from: &'static str,
    /// Whether `train` can do it, or `check` and `prepare` alone.
    pub(super) trains: bool,
}

const fn method(
    name: &'static str,
    wanted: Wanted,
    learns_from: &'static str,
    trains: bool,
) -> Method {
    Method { name, wanted, learns_from, trains }
}

const PAIRS: &str = "pairs of a chosen and a rejected answer";
const PROMPTS: &str = "prompts";

/// Every method, in the order of `--help`.
pub(super) const METHODS: [Method; 11] = [
    method("sft", Wanted::Conversations, "whole conversations", true),
    method("pretrain", Wanted::Texts, "raw text", true),
    method("dpo", Wanted::Preferences, PAIRS, false),
    method("kto", Wanted::Feedback, "answers marked as wanted or not", false),
    method("orpo", Wanted::Preferences, PAIRS, false),
    method("simpo", Wanted::Preferences, PAIRS, false),
    method("cpo", Wanted::Preferences, PAIRS, false),
    method("reward", Wanted::Rewards, "pairs, ranked answers or judged steps", false),
    method("ppo", Wanted::Prompts, PROMPTS, false),
    method("grpo", Wanted::Prompts, PROMPTS, false),
    method("rloo", Wanted::Prompts, PROMPTS, false),
];

/// What is said of a method that `train` cannot do.
pub(super) const NOT_TRAINED: &str =
    "`check` and `prepare` work on it; training by this method comes later";

impl Method {
    /// The words of all methods.
    pub(super) fn names() -> [&'static str; METHODS.len()] {
        METHODS.map(|method| method.name)
    }

    /// The method of that name.
    pub(super) fn named(name: &str) -> Option<&'static Self> {
        const ALL: &[Method] = &METHODS;
        ALL.iter().find(|method| method.name == name)
    }

    /// What to type in place of this method for rows that do not fit it.
    pub(super) fn instead(&self, file: &Path, rows: &[Row]) -> Option<String> {
        let fitting: Vec<&str> = METHODS
            .iter()
            .filter(|other| other.wanted != self.wanted && shape(rows, other.wanted).is_some())
            .map(|other| other.name)
            .collect();
        let first = fitting.first()?;
        let names: Vec<String> = fitting.iter().map(|name| format!("`{name}`")).collect();
        let file = quote(&file.display().to_string());
        let names = names.join(", ");
        Some(format!("the rows fit {names}: `tunesmith init {first} --data {file}`"))
    }

    /// Refuses rows that the method cannot learn from.
    pub(super) fn refuse(&self, file: &Path, rows: &[Row]) -> Failure {
        let (path, name, learns_from) = (file.display(), self.name, self.learns_from);
        let message = format!("{path}: `{name}` learns from {learns_from}, which the rows are not");
        let columns = rows.first().map(|row| row.value.keys().cloned().collect::<Vec<_>>());
        let columns = columns.unwrap_or_default().join("`, `");
        let hint = self.instead(file, rows);
        let hint = hint.unwrap_or_else(|| format!("the first row has `{columns}`"));
        Failure::wrong("data_file", message).at(file).hint(hint)
    }
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
                .filter(|method| shape(&rows, method.wanted).is_some())
                .map(|method| method.name)
                .collect();
            assert_eq!(fits, expected, "{text}");
        };
        // Whatever has a prompt can be answered and rewarded.
        let pairs = ["dpo", "orpo", "simpo", "cpo", "reward", "ppo", "grpo", "rloo"];
        check(r#"{"prompt": "a", "chosen": "b", "rejected": "c"}"#, &pairs);
        check(r#"{"chosen": "b", "rejected": "c"}"#, &pairs[..5]);
        check(r#"{"text": "a"}"#, &["pretrain"]);
        check(
            r#"{"prompt": "a", "completions": ["b", "c"], "labels": [true, false]}"#,
            &["reward", "ppo", "grpo", "rloo"],
        );
        check(r#"{"question": "a", "answer": "b"}"#, &["sft", "ppo", "grpo", "rloo"]);
        check(r#"{"other": 1}"#, &[]);
    }

    #[test]
    fn rows_of_another_method_are_told_what_to_type() {
        let refuse = |name: &str, text: &str| {
            let failure =
                Method::named(name).unwrap().refuse(Path::new("my rows.jsonl"), &rows(text));
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
