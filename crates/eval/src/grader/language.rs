//! Is the answer in the script or the language that it should be in?

use serde_json::Value;
use text::language::{self, LANGUAGES, SCRIPTS};

use super::options::Options;
use super::{Grader, Grades, indicator};
use crate::Result;

/// Scores the script or the language of the answer.
///
/// | metric | value |
/// |---|---|
/// | `language` | with `script` the share of the letters that are of it; with `language` 1 if the answer is told to be in it |
/// | `language_told` | 1 if the answer could be told: it has letters, or enough common words |
///
/// An answer that could not be told scores `undecided`. What can be told is limited, see [`text::language`]: a script
/// always, a language in Latin script only where it is one of six and at least three of its common words are there.
#[derive(Clone, Debug)]
pub struct Language {
    wanted: Wanted,
    undecided: f64,
}

#[derive(Clone, Copy, Debug)]
enum Wanted {
    Script(&'static str),
    Language(&'static str),
}

impl Language {
    /// Names of its options.
    pub(super) const OPTIONS: &[&str] = &["language", "script", "undecided"];

    /// Reads its options.
    pub(super) fn new(options: &Options<'_>) -> Result<Self> {
        let language = options.word("language", &LANGUAGES)?;
        let script = options.word("script", &SCRIPTS)?;
        let wanted = match (language, script) {
            (Some(language), None) => Wanted::Language(language),
            (None, Some(script)) => Wanted::Script(script),
            (given, _) => {
                let hint = format!(
                    "give one of `language` ({}) and `script` ({})",
                    LANGUAGES.join(", "),
                    SCRIPTS.join(", ")
                );
                let both = "`language` and `script` exclude each other";
                let problem = given.map_or("`language` or `script` is missing", |_| both);
                return Err(options.error(problem.to_owned(), hint));
            }
        };
        Ok(Self { wanted, undecided: options.number("undecided", 0.0, 0.0..=1.0)? })
    }
}

impl Grader for Language {
    fn grade(&self, answer: &str, _: &Value) -> Grades {
        let score = match self.wanted {
            Wanted::Script(script) => language::share_of_script(answer, script),
            Wanted::Language(wanted) => {
                language::told(answer).map(|told| indicator(told == wanted))
            }
        };
        let mut grades = Grades::default();
        grades.insert("language", score.unwrap_or(self.undecided));
        grades.insert("language_told", indicator(score.is_some()));
        grades
    }

    fn primary(&self) -> &'static str {
        "language"
    }

    fn needs_reference(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{grade, refused, reward};
    use super::*;

    #[track_caller]
    fn check(options: Value, answer: &str, expected: f64) {
        assert_eq!(reward("language", options, answer, &Value::Null), expected, "{answer:?}");
    }

    #[test]
    fn a_script_is_a_share_of_letters() {
        check(json!({"script": "cyrillic"}), "Лиса спит.", 1.0);
        check(json!({"script": "cyrillic"}), "Лиса fox", 4.0 / 7.0);
        check(json!({"script": "latin"}), "The größe 12!", 1.0);
        check(json!({"script": "han"}), "狐狸 ok", 0.5);
        check(json!({"script": "latin"}), "12", 0.0);
        check(json!({"script": "latin", "undecided": 1}), "12", 1.0);
    }

    #[test]
    fn a_language_is_told_or_not() {
        check(json!({"language": "de"}), "Der Fuchs ist im Garten und das ist gut.", 1.0);
        check(json!({"language": "de"}), "The fox is in the garden and it sleeps.", 0.0);
        check(json!({"language": "ja"}), "狐は庭で寝ています。", 1.0);
        check(json!({"language": "en", "undecided": 0.5}), "Yes.", 0.5);
        let told = |answer: &str| {
            let grades = grade("language", json!({"language": "en"}), answer, &Value::Null);
            grades.get("language_told").unwrap()
        };
        assert_eq!((told("Yes."), told("Лиса спит.")), (0.0, 1.0));
    }

    #[test]
    fn one_of_both_is_given() {
        refused("language", json!({}), "`language`: `language` or `script` is missing");
        let both = json!({"language": "en", "script": "latin"});
        refused("language", both, "`language`: `language` and `script` exclude each other");
        refused(
            "language",
            json!({"language": "english"}),
            "`language`: `language` is \"english\"",
        );
    }
}
