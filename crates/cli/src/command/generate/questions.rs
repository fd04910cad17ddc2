//! Where questions come from: the command line, a file, standard input.

use std::io::Read as _;
use std::path::Path;

use data::source::{self, Row};
use serde_json::Value;
use text::Message;

use crate::context::Context;
use crate::error::{Failure, Result};
use crate::session::Question;

/// How texts become questions.
pub(super) struct Asked<'a> {
    /// Texts are continued as they are.
    pub(super) raw: bool,
    /// System message of dialogues that bring none.
    pub(super) system: Option<&'a str>,
}

impl Asked<'_> {
    /// A text of the command line.
    pub(super) fn of_text(&self, text: &str) -> Question {
        if self.raw {
            return Question::Text(text.to_owned());
        }
        self.dialogue(vec![Message::new("user", text)])
    }

    /// All of standard input.
    pub(super) fn of_stdin(&self, context: &Context) -> Result<Question> {
        if context.environment.stdin_is_terminal {
            return Err(Failure::wrong("no_prompt", "there is no prompt")
                .hint("give `--prompt TEXT`, `--prompts FILE`, or a text on standard input"));
        }
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map_err(|error| {
            Failure::wrong("io", format!("standard input cannot be read: {error}"))
        })?;
        // A raw text is taken to the byte; of a message the line's end is no part.
        let text = if self.raw { text.as_str() } else { text.trim_end() };
        if text.is_empty() {
            return Err(Failure::wrong("no_prompt", "standard input is empty")
                .hint("give `--prompt TEXT` or `--prompts FILE`"));
        }
        Ok(self.of_text(text))
    }

    /// The rows of a file.
    pub(super) fn of_file(&self, file: &Path) -> Result<Vec<Question>> {
        source::read(file)?.iter().map(|row| self.of_row(row)).collect()
    }

    fn of_row(&self, row: &Row) -> Result<Question> {
        let text = |name: &str| row.value.get(name).and_then(Value::as_str);
        if let Some(messages) = row.value.get("messages") {
            return self.of_messages(row, messages);
        }
        if let Some(text) = text("text") {
            return Ok(Question::Text(text.to_owned()));
        }
        let Some(prompt) = text("prompt") else {
            return Err(refused(row, "row has no `messages`, `prompt` or `text`".into()));
        };
        if self.raw {
            return Ok(Question::Text(prompt.to_owned()));
        }
        let system = text("system").map(|system| Message::new("system", system));
        let messages = system.into_iter().chain([Message::new("user", prompt)]);
        Ok(self.dialogue(messages.collect()))
    }

    /// A dialogue up to its last question: answers that follow are what a test set holds.
    fn of_messages(&self, row: &Row, messages: &Value) -> Result<Question> {
        let list = messages.as_array().cloned().unwrap_or_default();
        let parsed: std::result::Result<Vec<Message>, String> =
            list.into_iter().map(Message::from_value).collect();
        let mut messages = parsed.map_err(|message| refused(row, message))?;
        while messages.last().is_some_and(|last| last.role == "assistant") {
            messages.pop();
        }
        if messages.is_empty() {
            return Err(refused(row, "`messages` asks nothing".into()));
        }
        Ok(self.dialogue(messages))
    }

    fn dialogue(&self, mut messages: Vec<Message>) -> Question {
        let has_system = messages.first().is_some_and(|first| first.role == "system");
        if let Some(system) = self.system.filter(|_| !has_system) {
            messages.insert(0, Message::new("system", system));
        }
        Question::Dialogue(messages)
    }
}

fn refused(row: &Row, message: String) -> Failure {
    Failure {
        line: Some(row.place.line),
        ..Failure::new("data_rows", format!("{}: {message}", row.place)).at(&row.place.file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn questions(rows: &str, asked: &Asked<'_>) -> Result<Vec<Question>> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("p.jsonl"), rows).unwrap();
        asked.of_file(&dir.path().join("p.jsonl"))
    }

    fn dialogue(turns: &[(&str, &str)]) -> Question {
        Question::Dialogue(turns.iter().map(|&(role, text)| Message::new(role, text)).collect())
    }

    #[test]
    fn rows_of_every_kind_are_understood() {
        let rows = r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "x"}]}
{"prompt": "b"}
{"prompt": "c", "system": "own"}
{"text": "d"}
"#;
        let asked = Asked { raw: false, system: Some("s") };
        let expected = [
            dialogue(&[("system", "s"), ("user", "a")]),
            dialogue(&[("system", "s"), ("user", "b")]),
            dialogue(&[("system", "own"), ("user", "c")]),
            Question::Text("d".into()),
        ];
        assert_eq!(questions(rows, &asked).unwrap(), expected);
        let raw = Asked { raw: true, system: None };
        assert_eq!(questions("{\"prompt\": \"b\"}", &raw).unwrap(), [Question::Text("b".into())]);
    }

    #[test]
    fn a_row_that_asks_nothing_is_named() {
        let asked = Asked { raw: false, system: None };
        for (row, expected) in [
            (r#"{"question": "a"}"#, "p.jsonl:2: row has no `messages`, `prompt` or `text`"),
            (r#"{"messages": []}"#, "p.jsonl:2: `messages` asks nothing"),
            (r#"{"messages": [{"content": "a"}]}"#, "p.jsonl:2: message has no `role`"),
        ] {
            let failure = questions(&format!("{{\"text\": \"a\"}}\n{row}\n"), &asked).unwrap_err();
            assert!(failure.message.ends_with(expected), "{}", failure.message);
            assert_eq!(failure.line, Some(2));
        }
    }
}
