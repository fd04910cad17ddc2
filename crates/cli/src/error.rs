//! What went wrong, as the user sees it: message, hint, exit code, and the same as JSON.

use std::path::Path;

use serde_json::{Value, json};

use crate::memory::Needed;

/// Exit code: the work failed.
pub(crate) const FAILED: u8 = 1;
/// Exit code: the command or the recipe was wrong.
pub(crate) const WRONG: u8 = 2;
/// Exit code: the reader of standard output has gone away. It is what a shell shows for SIGPIPE.
pub(crate) const CLOSED_PIPE: u8 = 141;

/// The end of a command that did not get done.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Failure {
    /// Stable name for programs.
    pub(crate) code: &'static str,
    /// Place first, in lower case, values in backticks.
    pub(crate) message: String,
    /// What to do about it.
    pub(crate) hint: Option<String>,
    /// The file concerned.
    pub(crate) file: Option<Box<str>>,
    /// Its line, from 1.
    pub(crate) line: Option<usize>,
    /// The recipe key concerned.
    pub(crate) key: Option<Box<str>>,
    /// What the process ends with.
    pub(crate) exit: u8,
}

/// The result of everything in this crate.
pub(crate) type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    /// Work that failed.
    pub(crate) fn new(code: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Failure { code, message, hint: None, file: None, line: None, key: None, exit: FAILED }
    }

    /// A command that cannot be done as it was given.
    pub(crate) fn wrong(code: &'static str, message: impl Into<String>) -> Self {
        Failure { exit: WRONG, ..Failure::new(code, message) }
    }

    /// A file that the system does not give or take.
    pub(crate) fn io(path: &Path, error: &std::io::Error) -> Self {
        let code = match error.kind() {
            std::io::ErrorKind::NotFound => "file_not_found",
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => "disk_full",
            // Of `ulimit -f`.
            std::io::ErrorKind::FileTooLarge => "file_too_large",
            _ => "io",
        };
        Failure::new(code, format!("{}: {}", path.display(), describe(error))).at(path)
    }

    /// Nobody reads standard output any more: the command ends without a word.
    pub(crate) fn closed_pipe() -> Self {
        let message = "standard output: nobody reads it any more";
        Failure { exit: CLOSED_PIPE, ..Failure::new("closed_pipe", message) }
    }

    pub(crate) fn is_closed_pipe(&self) -> bool {
        self.exit == CLOSED_PIPE
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// With a hint, if there is none yet.
    pub(crate) fn or_hint(mut self, hint: Option<impl Into<String>>) -> Self {
        self.hint = self.hint.or(hint.map(Into::into));
        self
    }

    pub(crate) fn at(mut self, file: &Path) -> Self {
        self.file = Some(file.display().to_string().into());
        self
    }

    /// The object that `--json` ends with.
    pub(crate) fn to_json(&self) -> Value {
        let Failure { code, message, hint, file, line, key, .. } = self;
        json!({
            "schema": 1,
            "error": {
                "code": code, "message": message, "file": file, "line": line, "key": key,
                "hint": hint,
            },
        })
    }
}

/// What the system says, without Rust's `(os error N)`.
pub(crate) fn describe(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text).to_owned();
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_lowercase().chain(chars).collect(),
        None => text,
    }
}

impl From<keys::Error> for Failure {
    fn from(error: keys::Error) -> Self {
        let message = error.to_string();
        let hint = error.hint().map(str::to_owned);
        if let keys::Error::Read { path, source } = &error {
            return Failure { exit: WRONG, ..Failure::io(path, source) };
        }
        let Some(first) = error.problems().first() else {
            return Failure::wrong("recipe", message);
        };
        Failure {
            hint,
            file: first.place.file().map(Into::into),
            line: first.place.line(),
            key: first.key.as_deref().map(Into::into),
            ..Failure::wrong(first.fault.code(), message)
        }
    }
}

impl From<data::Error> for Failure {
    fn from(error: data::Error) -> Self {
        let message = error.to_string();
        let hint = error.hint().map(str::to_owned);
        let failure = match &error {
            data::Error::Io { path, source } => {
                Failure { exit: WRONG, ..Failure::io(path, source) }
            }
            data::Error::File { place, .. } => {
                let (file, line) = file_and_line(place);
                Failure { file: Some(file.into()), line, ..Failure::new("data_format", message) }
            }
            data::Error::Rows { rows, .. } => {
                let place = rows.first().map(|row| &row.place);
                Failure {
                    file: place.map(|place| place.file.display().to_string().into()),
                    line: place.map(|place| place.line),
                    ..Failure::new("data_rows", message)
                }
            }
            data::Error::Setting { key, .. } => {
                Failure { key: Some(key.as_str().into()), ..Failure::wrong("invalid", message) }
            }
            data::Error::Interrupted => Failure::new("interrupted", message),
            _ => Failure::new("data", message),
        };
        failure.or_hint(hint)
    }
}

/// Splits `file:line:column` as far as it goes.
fn file_and_line(place: &str) -> (String, Option<usize>) {
    let mut parts = place.splitn(3, ':');
    let file = parts.next().unwrap_or(place).to_owned();
    (file, parts.next().and_then(|line| line.parse().ok()))
}

impl From<text::Error> for Failure {
    fn from(error: text::Error) -> Self {
        let failure = match &error {
            text::Error::Read { path, source } => Failure::io(path, source),
            text::Error::Invalid { .. } => Failure::new("model_file", error.to_string()),
            text::Error::Tokenizer { .. } => Failure::new("tokenizer", error.to_string()),
            _ => Failure::new("chat_template", error.to_string()),
        };
        failure.or_hint(error.hint())
    }
}

impl From<model::Error> for Failure {
    fn from(error: model::Error) -> Self {
        let hint = error.hint();
        let failure = match error {
            model::Error::Io { path, source } => Failure::io(&path, &source),
            model::Error::Text(error) => error.into(),
            model::Error::Compute(error) => error.into(),
            model::Error::Interrupted => Failure::new("interrupted", error.to_string()),
            model::Error::File { ref path, .. } => {
                Failure::new("model_file", error.to_string()).at(path)
            }
            _ => Failure::new("model", error.to_string()),
        };
        failure.or_hint(hint)
    }
}

impl From<hub::Error> for Failure {
    fn from(error: hub::Error) -> Self {
        let hub::Error { cause, hint } = error;
        let failure = match cause {
            hub::Cause::Refused { code, message, file, is_mistake } => {
                let file = file.map(|file| file.display().to_string().into());
                let exit = if is_mistake { WRONG } else { FAILED };
                Failure { file, exit, ..Failure::new(code, message) }
            }
            hub::Cause::Io { path, source } => Failure::io(&path, &source),
            hub::Cause::Model(error) => (*error).into(),
            hub::Cause::Base { config, source } => {
                let failure = Failure::from(*source);
                let message = format!("{}: its base: {}", config.display(), failure.message);
                Failure { message, ..failure }
            }
        };
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

impl From<session::Error> for Failure {
    fn from(error: session::Error) -> Self {
        use session::Error as E;
        let message = error.to_string();
        match error {
            E::Model(error) => error.into(),
            E::Io { path, source } => Failure::io(&path, &source),
            E::Json { path, .. } => Failure::new("model_file", message).at(&path),
            E::NoTemplate => {
                Failure::wrong("chat_template", message).hint("`--raw` continues the text as it is")
            }
            E::Template { hint, .. } => Failure::new("chat_template", message).or_hint(hint),
            E::BaseReplaced => Failure::wrong("no_base", message)
                .hint("ask the base by itself, in a command of its own"),
            E::Vocabulary { .. } => Failure::new("tokenizer", message)
                .hint("the tokenizer does not belong to this model"),
            E::Empty => Failure::wrong("empty_prompt", message),
            E::TooLong { .. } => Failure::wrong("prompt_too_long", message),
            E::NoScoreHead => Failure::wrong("no_score_head", message).hint(
                "name the run folder or adapter folder of a model that was trained with `method: reward` or `method: classify`",
            ),
            E::ScoreRoom { tokens, demand, limit } => {
                let what = format!("scoring {tokens} tokens at a time");
                Needed { what, kinds: &demand.kinds() }.refusal(limit).hint(
                    "lower `--batch-tokens`; a row is never cut, so the longest one has to fit",
                )
            }
            E::Room { active, longest, demand, limit, fits } => {
                let s = if active == 1 { "" } else { "s" };
                let what = format!(
                    "answering {active} prompt{s} at a time, of up to {longest} tokens with the answer,"
                );
                Needed { what, kinds: &demand.kinds() }.refusal(limit).hint(match fits {
                    0 if demand.weights > demand.cache => {
                        "a smaller model fits, or one stored in fewer bits: a GGUF or bitsandbytes \
                         file"
                            .to_owned()
                    }
                    0 => "lower `--max-new-tokens`, or shorten the prompt".to_owned(),
                    fits => format!("`--batch` {fits} fits"),
                })
            }
            _ => Failure::new("model", message),
        }
    }
}

impl From<compute::Error> for Failure {
    fn from(error: compute::Error) -> Self {
        let code = match error {
            compute::Error::OutOfMemory { .. } => "out_of_memory",
            _ => "device",
        };
        Failure::new(code, error.to_string())
    }
}

impl From<train::Error> for Failure {
    fn from(error: train::Error) -> Self {
        let hint = error.hint();
        let failure = match error {
            train::Error::Io { path, source } => Failure::io(&path, &source),
            train::Error::Recipe(error) => error.into(),
            train::Error::Data(error) => error.into(),
            train::Error::Model(error) => error.into(),
            train::Error::Compute(error) => error.into(),
            train::Error::Refused { .. } => Failure::wrong("refused", error.to_string()),
            train::Error::Unsaved { what, source, .. } => {
                let failure = Failure::from(*source);
                Failure { message: format!("{what}: {}", failure.message), hint: None, ..failure }
            }
            train::Error::Busy { ref path, .. } => {
                Failure::wrong("busy", error.to_string()).at(path)
            }
            train::Error::Reward { .. } => Failure::new("reward", error.to_string()),
            train::Error::NotFinite { .. } => Failure::new("not_finite", error.to_string()),
            _ => Failure::new("train", error.to_string()),
        };
        failure.or_hint(hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recipe_mistake_keeps_its_place() {
        use keys::{Key, Schema, Surroundings};
        static KEYS: &[Key] = &[Key::int("rank", 1, 8).default("2").doc("Rank.")];
        let around = Surroundings { current_dir: Path::new("/w"), home: None, variable: &|_| None };
        let error = Schema::new(&[KEYS]).parse("rnk: 3\n", Path::new("a.yaml"), &[], &around);
        let failure = Failure::from(error.unwrap_err());
        assert_eq!(failure.exit, WRONG);
        assert_eq!(failure.code, "unknown_key");
        assert_eq!((failure.file.as_deref(), failure.line), (Some("a.yaml"), Some(1)));
        let json = failure.to_json();
        assert_eq!(json["schema"], 1);
        assert_eq!(json["error"]["key"], "rnk");
    }

    #[test]
    fn the_systems_words_are_ours() {
        let error = std::fs::read("/no/such/file").unwrap_err();
        assert_eq!(
            Failure::io(Path::new("/no/such/file"), &error).message,
            "/no/such/file: no such file or directory"
        );
    }

    #[test]
    fn places_are_split() {
        assert_eq!(file_and_line("a.jsonl:3:7"), ("a.jsonl".into(), Some(3)));
        assert_eq!(file_and_line("a.jsonl"), ("a.jsonl".into(), None));
    }
}
