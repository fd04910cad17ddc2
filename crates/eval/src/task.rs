//! A task: prompts, and the answer expected to each.

use serde_json::Value;
use text::{Message, integer};

use crate::{Error, Result};

/// Rows that a model is measured on.
#[derive(Clone, Debug)]
pub struct Task {
    /// How results name it; for a file, its path.
    pub name: String,
    rows: Vec<TaskRow>,
}

/// One prompt and the answer expected.
#[derive(Clone, Debug)]
pub struct TaskRow {
    /// The messages up to the answer.
    pub prompt: Vec<Message>,
    /// The answer: an object or a list where its text is one in JSON, else the text as it is.
    pub expected: Value,
}

impl Task {
    /// A task of at least one row.
    pub fn new(name: impl Into<String>, rows: Vec<TaskRow>) -> Result<Self> {
        let name = name.into();
        if rows.is_empty() {
            return Err(Error::EmptyTask { task: name });
        }
        Ok(Self { name, rows })
    }

    /// The rows, at least one.
    pub fn rows(&self) -> &[TaskRow] {
        &self.rows
    }

    /// The expected answers in order.
    pub fn expected(&self) -> Vec<Value> {
        self.rows.iter().map(|row| row.expected.clone()).collect()
    }
}

impl TaskRow {
    /// Splits a conversation before its last turn, which is the assistant's.
    /// `place` is the row's file and line.
    pub fn from_messages(mut messages: Vec<Message>, place: &str) -> Result<Self> {
        let bad = |problem: &str, hint: &str| Error::TaskRow {
            place: place.to_owned(),
            problem: problem.to_owned(),
            hint: Some(hint.to_owned()),
        };
        let answer = match messages.pop() {
            Some(message) if message.role == "assistant" => message.content,
            _ => {
                let hint = "the last message is the answer that is expected";
                return Err(bad("the row does not end with an assistant turn", hint));
            }
        };
        if messages.is_empty() {
            return Err(bad(
                "nothing comes before the answer",
                "put the question into a user turn",
            ));
        }
        Ok(Self { prompt: messages, expected: expected(answer) })
    }
}

/// `1.00` is a text, and not the number 1: only what has parts is read as JSON.
fn expected(answer: String) -> Value {
    let marked = integer::marked(&answer);
    match serde_json::from_str(marked.as_deref().unwrap_or(&answer)) {
        Ok(value @ (Value::Object(_) | Value::Array(_))) if integer::digits(&value).is_none() => {
            value
        }
        _ => Value::String(answer),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

    use super::*;
    use crate::grader::{Grader as _, Json};

    fn message(role: &str, content: &str) -> Message {
        Message { role: role.into(), content: content.into(), extra: Map::new() }
    }

    #[test]
    fn the_last_turn_is_expected() {
        let row = TaskRow::from_messages(
            vec![message("user", "hello"), message("assistant", r#"{"a": 1}"#)],
            "t.jsonl:1",
        )
        .expect("a good row");
        assert_eq!(row.prompt.len(), 1);
        assert_eq!(row.expected, json!({"a": 1}));
        let row = TaskRow::from_messages(
            vec![message("user", "hello"), message("assistant", "well, hello")],
            "t.jsonl:2",
        );
        assert_eq!(row.expect("a good row").expected, json!("well, hello"));
    }

    #[test]
    fn an_expected_text_stays_as_it_is_written() {
        let long = "1234567890123456789012345";
        for text in ["1.00", "007", "1e3", "true", "null", "\"quoted\"", " 1 ", long] {
            let turns = vec![message("user", "?"), message("assistant", text)];
            let row = TaskRow::from_messages(turns, "t.jsonl:1").expect("a good row");
            assert_eq!(row.expected, json!(text));
        }
        // Within an object too, every digit counts.
        let id = |last: char| format!("{{\"id\": 123456789012345678901234{last}}}");
        let turns = vec![message("user", "?"), message("assistant", &id('5'))];
        let row = TaskRow::from_messages(turns, "t.jsonl:1").expect("a good row");
        let reward = |answer: &str| Json::untyped().reward(answer, &row.expected);
        assert_eq!((reward(&id('5')), reward(&id('6'))), (1.0, 0.0));
    }

    #[track_caller]
    fn refused(messages: Vec<Message>, expected: &str) {
        let error = TaskRow::from_messages(messages, "t.jsonl:3").expect_err("a bad row");
        assert_eq!(error.to_string(), expected);
        assert!(error.hint().is_some());
    }

    #[test]
    fn rows_without_an_answer_are_refused() {
        refused(vec![], "t.jsonl:3: the row does not end with an assistant turn");
        refused(
            vec![message("assistant", "a"), message("user", "b")],
            "t.jsonl:3: the row does not end with an assistant turn",
        );
        refused(vec![message("assistant", "a")], "t.jsonl:3: nothing comes before the answer");
    }

    #[test]
    fn a_task_has_rows() {
        let error = Task::new("test.jsonl", Vec::new()).expect_err("no rows");
        assert_eq!(error.to_string(), "test.jsonl: the task has no rows");
    }
}
