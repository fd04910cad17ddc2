//! Hints about the contents of rows. All are guesses: none is an error.
//!
//! No hint repeats what it found: a secret must not travel into reports.

mod language;
mod markup;
mod openings;
mod personal;
mod repetition;

pub use language::{LANGUAGES, Tally};

use super::AuditText;
use crate::finding::Kind;
use crate::{Findings, Level, Place};

/// An answer opens with a phrase that says nothing.
pub const BOILERPLATE: Kind = Kind {
    id: "boilerplate-opening",
    level: Level::Note,
    message: "the answer opens with a phrase that says nothing, such as `Sure!`",
    hint: "the model will learn to open like that: cut such openings if it should not",
};
/// An answer declines to answer.
pub const REFUSAL: Kind = Kind {
    id: "refusal",
    level: Level::Warning,
    message: "the answer reads like a refusal",
    hint: "a few refusals teach many: keep them only where they are meant",
};
/// Text decoded with the wrong encoding.
pub const MOJIBAKE: Kind = Kind {
    id: "mojibake",
    level: Level::Warning,
    message: "characters look as if they were decoded with the wrong encoding",
    hint: "read the source as UTF-8 when you export it",
};
/// Rests of HTML.
pub const HTML: Kind = Kind {
    id: "html-rest",
    level: Level::Note,
    message: "the text contains HTML tags or entities",
    hint: "strip them unless the task is about HTML",
};
/// An e-mail address.
pub const EMAIL: Kind = Kind {
    id: "email-address",
    level: Level::Note,
    message: "the text contains an e-mail address",
    hint: "models repeat what they were trained on: replace personal data",
};
/// The number of a payment card or bank account.
pub const ACCOUNT: Kind = Kind {
    id: "card-number",
    level: Level::Warning,
    message: "the text contains the number of a payment card or bank account",
    hint: "models repeat what they were trained on: replace personal data",
};
/// A telephone number.
pub const PHONE: Kind = Kind {
    id: "phone-number",
    level: Level::Note,
    message: "the text contains a telephone number with a country code",
    hint: "models repeat what they were trained on: replace personal data",
};
/// A key that opens something.
pub const SECRET: Kind = Kind {
    id: "secret",
    level: Level::Warning,
    message: "the text contains what looks like an API key or a private key",
    hint: "revoke it and remove it from the data: models repeat what they were trained on",
};
/// The same over and over.
pub const REPETITION: Kind = Kind {
    id: "repeated-text",
    level: Level::Warning,
    message: "the answer repeats a line, a sentence or a few words over and over",
    hint: "remove such rows: they teach the model to loop",
};

/// Looks at one row.
pub fn look(text: &AuditText, place: &Place, findings: &mut Findings) {
    let either = |test: fn(&str) -> bool| test(&text.prompt) || test(&text.answer);
    let hints = [
        (BOILERPLATE, openings::is_boilerplate(&text.answer)),
        (REFUSAL, openings::is_refusal(&text.answer)),
        (REPETITION, repetition::is_repeated(&text.answer)),
        (MOJIBAKE, either(markup::has_mojibake)),
        (HTML, either(markup::has_html)),
        (EMAIL, either(personal::has_email)),
        (ACCOUNT, either(personal::has_account)),
        (PHONE, either(personal::has_phone)),
        (SECRET, either(personal::has_secret)),
    ];
    for (kind, _) in hints.iter().filter(|(_, found)| *found) {
        findings.add(kind, place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(prompt: &str, answer: &str, expected: &[&str]) {
        let place = Place { file: std::path::Path::new("a.jsonl").into(), line: 1, element: None };
        let mut findings = Findings::default();
        look(&AuditText { prompt: prompt.into(), answer: answer.into() }, &place, &mut findings);
        assert_eq!(findings.iter().map(|finding| &*finding.id).collect::<Vec<_>>(), expected);
        assert!(findings.iter().all(|finding| finding.level < Level::Error));
    }

    #[test]
    fn a_row_may_have_several_hints_or_none() {
        check("What is a fox?", "An animal with a bushy tail.", &[]);
        check("", "", &[]);
        check(
            "Say hi to bob@example.com",
            "Sure! Hi Bob.<br>",
            &["boilerplate-opening", "html-rest", "email-address"],
        );
    }

    #[test]
    fn secrets_are_not_repeated() {
        let place = Place { file: std::path::Path::new("a.jsonl").into(), line: 1, element: None };
        let mut findings = Findings::default();
        let key = "AKIAIOSFODNN7EXAMPLE";
        let text = AuditText { prompt: format!("my key is {key}"), answer: "ok".into() };
        look(&text, &place, &mut findings);
        let json = serde_json::to_string(findings.get("secret").unwrap()).unwrap();
        assert!(!json.contains(key), "{json}");
    }
}
