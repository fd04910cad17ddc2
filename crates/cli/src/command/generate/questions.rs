//! Where questions come from: the command line, a file, standard input.

use std::io::Read as _;
use std::path::Path;

use data::record::{self, Prompt, Record};
use data::{Findings, Place, source};
use serde_json::{Map, Value};
use session::Question;
use text::Message;

use crate::context::Context;
use crate::error::{Failure, Result};
use crate::served::Served;

/// How prompts become questions.
pub(super) struct Asking<'a> {
    /// Texts are continued as they are.
    pub(super) raw: bool,
    /// System message of dialogues that bring none.
    pub(super) system: Option<&'a str>,
}

/// A question, and what its row has beyond it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Asked {
    pub(super) question: Question,
    /// Where its row stands.
    place: Option<Place>,
    /// The answer of the row.
    pub(super) reference: Option<Value>,
    /// Columns of the row that are no part of the question.
    pub(super) columns: Map<String, Value>,
}

impl Asked {
    fn new(question: Question) -> Self {
        Asked { question, place: None, reference: None, columns: Map::new() }
    }

    /// A failure with the row that led to it.
    pub(super) fn at_place(&self, failure: Failure) -> Failure {
        let Some(place) = &self.place else { return failure };
        let message = format!("{place}: {}", failure.message);
        Failure { message, line: Some(place.line), ..failure.at(&place.file) }
    }
}

impl Asking<'_> {
    /// A text of the command line.
    pub(super) fn of_text(&self, text: &str) -> Asked {
        Asked::new(match self.raw {
            true => Question::Text(text.to_owned()),
            false => self.dialogue(vec![Message::new("user", text)], None),
        })
    }

    /// All of standard input.
    pub(super) fn of_stdin(&self, context: &Context) -> Result<Asked> {
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

    /// The rows of a file, read as training reads them.
    pub(super) fn of_file(
        &self,
        file: &Path,
        served: &Served,
        context: &Context,
    ) -> Result<Vec<Asked>> {
        let mut findings = Findings::default();
        let asked = self.of_rows(file, served, &mut findings)?;
        context.warn_of(&findings);
        Ok(asked)
    }

    fn of_rows(&self, file: &Path, served: &Served, findings: &mut Findings) -> Result<Vec<Asked>> {
        let mut asked = Vec::new();
        for file in source::expand(file)? {
            let rows = source::read(&file)?;
            let mut reading = served.reading(&file, &rows);
            if let Some(system) = self.system {
                reading.system = Some(system.to_owned());
            }
            for record in record::prompts(rows, &reading, findings)? {
                asked.push(self.of_record(record)?);
            }
        }
        Ok(asked)
    }

    fn of_record(&self, record: Record) -> Result<Asked> {
        let place = Some(record.place().clone());
        let (question, reference, columns) = match record {
            Record::Text(text) => (Question::Text(text.text), None, Map::new()),
            Record::Tokens(row) => (Question::Tokens(row.tokens), None, Map::new()),
            Record::Prompt(Prompt { messages, tools, reference, columns, .. }) => {
                (self.of_turns(messages, tools), reference, columns)
            }
            other => unreachable!("{} is no prompt", other.place()),
        };
        let asked = Asked { question, place, reference, columns };
        match &asked.question {
            Question::Dialogue { messages, .. } if self.raw => {
                let failure = Failure::new(
                    "data_rows",
                    format!(
                        "the row has {} messages, and `--raw` continues a text",
                        messages.len()
                    ),
                );
                Err(asked.at_place(failure).hint("leave `--raw` out"))
            }
            _ => Ok(asked),
        }
    }

    fn of_turns(&self, messages: Vec<Message>, tools: Option<Value>) -> Question {
        match &messages[..] {
            [only] if self.raw && tools.is_none() => Question::Text(only.content.clone()),
            _ => self.dialogue(messages, tools),
        }
    }

    fn dialogue(&self, mut messages: Vec<Message>, tools: Option<Value>) -> Question {
        let has_system = messages.first().is_some_and(|first| first.role == "system");
        if let Some(system) = self.system.filter(|_| !has_system) {
            messages.insert(0, Message::new("system", system));
        }
        Question::Dialogue { messages, tools, own_system: self.system.is_some() }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn asked(rows: &str, asking: &Asking<'_>) -> Result<Vec<Asked>> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("p.jsonl"), rows).unwrap();
        let path = dir.path().join("p.jsonl");
        asking.of_rows(&path, &Served::default(), &mut Findings::default())
    }

    fn questions(rows: &str, asking: &Asking<'_>) -> Vec<Question> {
        asked(rows, asking).unwrap().into_iter().map(|asked| asked.question).collect()
    }

    fn dialogue(turns: &[(&str, &str)], own_system: bool) -> Question {
        let messages = turns.iter().map(|&(role, text)| Message::new(role, text)).collect();
        Question::Dialogue { messages, tools: None, own_system }
    }

    #[test]
    fn rows_of_every_kind_are_understood() {
        let rows = r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "x"}]}
{"prompt": "b"}
{"prompt": "c", "system": "own"}
{"text": "d"}
{"conversations": [{"from": "human", "value": "e"}]}
{"input_ids": [5, 6]}
"#;
        let asking = Asking { raw: false, system: Some("s") };
        let expected = [
            dialogue(&[("system", "s"), ("user", "a")], true),
            dialogue(&[("system", "s"), ("user", "b")], true),
            dialogue(&[("system", "own"), ("user", "c")], true),
            Question::Text("d".into()),
            dialogue(&[("system", "s"), ("user", "e")], true),
            Question::Tokens(vec![5, 6]),
        ];
        assert_eq!(questions(rows, &asking), expected);
        let raw = Asking { raw: true, system: None };
        assert_eq!(questions("{\"prompt\": \"b\"}", &raw), [Question::Text("b".into())]);
    }

    #[test]
    fn what_a_row_has_beyond_its_question_goes_with_it() {
        let asking = Asking { raw: false, system: None };
        let row = r#"{"prompt": "a", "completion": "x", "id": 7, "tools": [{"name": "f"}]}"#;
        let found = asked(row, &asking).unwrap().remove(0);
        assert_eq!(found.reference, Some(json!("x")));
        assert_eq!(Value::Object(found.columns), json!({"id": 7}));
        let Question::Dialogue { messages, tools, .. } = found.question else {
            panic!("a dialogue")
        };
        assert_eq!(messages, [Message::new("user", "a")]);
        assert!(tools.is_some());
    }

    #[test]
    fn a_row_that_asks_nothing_is_named() {
        let asking = Asking { raw: false, system: None };
        for (row, expected) in [
            (r#"{"id": "a"}"#, "p.jsonl:2: unknown format: the rows have `id`"),
            (r#"{"messages": []}"#, "p.jsonl:2: prompt has no user turn"),
            (r#"{"messages": [{"content": "a"}]}"#, "p.jsonl:2: message 0: message has no `role`"),
        ] {
            let failure = asked(&format!("{{\"text\": \"a\"}}\n{row}\n"), &asking).unwrap_err();
            assert!(failure.message.ends_with(expected), "{}", failure.message);
            assert_eq!(failure.line, Some(2));
        }
        let raw = Asking { raw: true, system: None };
        let turns = r#"{"prompt": [{"role": "user", "content": "a"}], "system": "s"}"#;
        let failure = asked(turns, &raw).unwrap_err();
        let expected = "p.jsonl:1: the row has 2 messages, and `--raw` continues a text";
        assert!(failure.message.ends_with(expected), "{}", failure.message);
    }
}
