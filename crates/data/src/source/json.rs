//! A JSON array of objects.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Deserializer, Value};

use super::{Row, bare_message, file_error, kind};
use crate::{Error, Place, Result, RowError};

/// Reads the array element by element, so that each knows its line.
pub(super) fn parse(file: &Arc<Path>, text: &str) -> Result<Vec<Row>> {
    let mut reader = Reader { file, text, at: 0, line: 1, line_start: 0 };
    let (mut rows, mut bad) = (Vec::new(), Vec::new());
    reader.skip_blank();
    reader.expect(&['['])?;
    reader.skip_blank();
    while reader.peek() != Some(']') {
        let place =
            Place { file: file.clone(), line: reader.line, element: Some(rows.len() + bad.len()) };
        match reader.value()? {
            Value::Object(value) => rows.push(Row { place, value }),
            other => bad.push(RowError::new(&place, format!("not an object but {}", kind(&other)))),
        }
        reader.skip_blank();
        if reader.expect(&[',', ']'])? == ']' {
            return reader.end(rows, bad);
        }
        reader.skip_blank();
        if reader.peek() == Some(']') {
            return Err(reader.error("`,` before the `]` that ends the array"));
        }
    }
    reader.expect(&[']'])?;
    reader.end(rows, bad)
}

struct Reader<'a> {
    file: &'a Path,
    text: &'a str,
    at: usize,
    line: usize,
    line_start: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn advance_to(&mut self, end: usize) {
        let passed = &self.text[self.at..end];
        self.line += passed.bytes().filter(|&byte| byte == b'\n').count();
        if let Some(newline) = passed.rfind('\n') {
            self.line_start = self.at + newline + 1;
        }
        self.at = end;
    }

    fn skip_blank(&mut self) {
        let rest = &self.text[self.at..];
        self.advance_to(self.text.len() - rest.trim_start().len());
    }

    fn expect(&mut self, any: &[char]) -> Result<char> {
        match self.peek() {
            Some(found) if any.contains(&found) => {
                self.at += found.len_utf8();
                Ok(found)
            }
            found => {
                let wanted: Vec<String> = any.iter().map(|c| format!("`{c}`")).collect();
                let found = found.map_or("the end of the file".into(), |c| format!("`{c}`"));
                Err(self.error(&format!("expected {}, found {found}", wanted.join(" or "))))
            }
        }
    }

    fn value(&mut self) -> Result<Value> {
        let mut stream = Deserializer::from_str(&self.text[self.at..]).into_iter::<Value>();
        match stream.next() {
            Some(Ok(value)) => {
                let end = self.at + stream.byte_offset();
                self.advance_to(end);
                Ok(value)
            }
            Some(Err(error)) => {
                let (line, column) = match error.line() {
                    1 => (self.line, self.at - self.line_start + error.column()),
                    line => (self.line + line - 1, error.column()),
                };
                let place = format!("{}:{line}:{column}", self.file.display());
                Err(file_error(place, format!("not JSON: {}", bare_message(&error))))
            }
            None => Err(self.error("expected `]`, found the end of the file")),
        }
    }

    fn error(&self, message: &str) -> Error {
        let column = self.at - self.line_start + 1;
        let place = format!("{}:{}:{column}", self.file.display(), self.line);
        file_error(place, format!("not JSON: {message}"))
    }

    fn end(mut self, rows: Vec<Row>, bad: Vec<RowError>) -> Result<Vec<Row>> {
        self.skip_blank();
        if self.peek().is_some() {
            return Err(self.error("something follows the array"));
        }
        Error::from_rows(bad).map(|()| rows)
    }
}
