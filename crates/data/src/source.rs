//! Files as lists of JSON objects, each with its place.

mod json;
mod jsonl;

use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::{Error, Place, Result};

/// One object of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Where it stands.
    pub place: Place,
    /// Its fields, in the order of the file.
    pub value: Map<String, Value>,
}

/// Reads a file of rows: JSON Lines or a JSON array of objects.
///
/// The content tells which, not the name. Every line that is no object is
/// named in the error.
pub fn read(path: &Path) -> Result<Vec<Row>> {
    let bytes = std::fs::read(path).map_err(|source| Error::Io { path: path.into(), source })?;
    parse(path, &bytes)
}

/// As [`read`] for content that is already in memory; `path` is only named.
pub fn parse(path: &Path, bytes: &[u8]) -> Result<Vec<Row>> {
    let file: Arc<Path> = path.into();
    refuse_other_formats(path, bytes)?;
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let line = 1 + bytes[..error.valid_up_to()].iter().filter(|&&b| b == b'\n').count();
        file_error(format!("{}:{line}", path.display()), "text is not UTF-8")
            .hinting("save the file as UTF-8")
    })?;
    let rows = match text.trim_start().chars().next() {
        None => Vec::new(),
        Some('[') => json::parse(&file, text)?,
        Some(_) => jsonl::parse(&file, text)?,
    };
    if rows.is_empty() {
        return Err(file_error(path.display(), "file has no rows"));
    }
    Ok(rows)
}

/// Names the formats that people have and this crate does not read.
fn refuse_other_formats(path: &Path, bytes: &[u8]) -> Result<()> {
    let known: [(&[u8], &str); 6] = [
        (&[0x1f, 0x8b], "gzip"),
        (&[0x28, 0xb5, 0x2f, 0xfd], "zstd"),
        (b"PK\x03\x04", "zip"),
        (b"PAR1", "Parquet"),
        (b"ARROW1", "Arrow"),
        (&[0xff, 0xfe], "UTF-16"),
    ];
    match known.iter().find(|(magic, _)| bytes.starts_with(magic)) {
        Some((_, name)) => Err(file_error(path.display(), format!("file is {name}"))
            .hinting("this version reads JSON Lines and JSON arrays of objects, in UTF-8")),
        None => Ok(()),
    }
}

/// Keys under which a file may hide its list of rows.
fn wrapped_list(object: &Map<String, Value>) -> Option<&str> {
    const WRAPPERS: [&str; 8] =
        ["data", "rows", "train", "examples", "items", "records", "instances", "entries"];
    let is_list = |value: &Value| {
        value.as_array().is_some_and(|list| list.first().is_some_and(Value::is_object))
    };
    let found =
        object.iter().find(|(key, value)| WRAPPERS.contains(&key.as_str()) && is_list(value));
    found.map(|(key, _)| key.as_str())
}

/// The word for what stands where an object should.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// What serde_json says, without the position that it adds.
fn bare_message(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let end = text.rfind(" at line ").unwrap_or(text.len());
    text[..end].to_owned()
}

fn file_error(place: impl ToString, message: impl Into<String>) -> Error {
    Error::File { place: place.to_string(), message: message.into(), hint: None }
}

impl Error {
    fn hinting(mut self, text: &str) -> Error {
        if let Error::File { hint, .. } = &mut self {
            *hint = Some(text.to_owned());
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(text: &str) -> Vec<(usize, Option<usize>, String)> {
        let rows = parse(Path::new("a.json"), text.as_bytes()).unwrap();
        let row = |row: Row| {
            let value = Value::Object(row.value).to_string();
            (row.place.line, row.place.element, value)
        };
        rows.into_iter().map(row).collect()
    }

    #[track_caller]
    fn check(text: &str, message: &str, hint: Option<&str>) {
        let error = parse(Path::new("a.json"), text.as_bytes()).unwrap_err();
        assert_eq!(error.to_string(), message);
        assert_eq!(error.hint(), hint);
    }

    #[test]
    fn lines_keep_their_numbers() {
        let expected = [(1, None, r#"{"b":1,"a":2}"#.into()), (4, None, r#"{"c":3}"#.into())];
        assert_eq!(rows("{\"b\": 1, \"a\": 2}\n\n  \n{\"c\": 3}"), expected);
        assert_eq!(rows("\u{feff}{\"b\":1,\"a\":2}\r\n\r\n\r\n{\"c\":3}\r\n"), expected);
    }

    #[test]
    fn elements_keep_line_and_index() {
        let expected = [(2, Some(0), r#"{"a":1}"#.into()), (4, Some(1), r#"{"a":[2]}"#.into())];
        assert_eq!(rows("[\n  {\"a\": 1},\n\n  {\"a\":\n [2]}\n]\n"), expected);
        assert_eq!(rows("\u{feff}[{\"a\":1}]")[0].0, 1);
    }

    #[test]
    fn bad_lines_are_all_named() {
        check(
            "{\"a\": 1}\n{\"a\": }\n[1]\n{\"a\": 2}\n7",
            "a.json:2: not JSON: expected value, column 7\n\
             a.json:3: not an object but a list\n\
             a.json:5: not an object but a number",
            None,
        );
        check("prose", "a.json:1: not JSON: expected value, column 1", None);
        check("{\"a\": 1", "a.json:1: not JSON: EOF while parsing an object, column 7", None);
    }

    #[test]
    fn bad_arrays_say_where() {
        check("[\n{\"a\": 1},\n  {\"a\" 2}\n]", "a.json:3:8: not JSON: expected `:`", None);
        check("[{\"a\": 1} {}]", "a.json:1:11: not JSON: expected `,` or `]`, found `{`", None);
        check(
            "[{\"a\": 1},\n]",
            "a.json:2:1: not JSON: `,` before the `]` that ends the array",
            None,
        );
        check("[{\"a\": 1}] x", "a.json:1:12: not JSON: something follows the array", None);
        check(
            "[{\"a\": 1},",
            "a.json:1:11: not JSON: expected `]`, found the end of the file",
            None,
        );
        check(
            "[{}, 3,\n\"x\"]",
            "a.json:1 (element 1): not an object but a number\n\
               a.json:2 (element 2): not an object but a string",
            None,
        );
    }

    #[test]
    fn a_file_without_rows_is_an_error() {
        for text in ["", " \n\n", "[]", "[ ]\n"] {
            check(text, "a.json: file has no rows", None);
        }
    }

    #[test]
    fn a_wrapped_list_is_explained() {
        let message = "a.json: file is one JSON object, not a list of rows";
        let hint = Some("the rows stand under `data`: save that list alone");
        check("{\"version\": 1, \"data\": [{\"a\": 1}]}", message, hint);
        check("{\n\"data\": [\n{\"a\": 1}]}", message, hint);
        let hint = Some("write each row as one line, or all rows as one array");
        check("{\n\"prompt\": \"p\"\n}", message, hint);
        // A single row is a row.
        assert_eq!(rows("{\"messages\": [{\"role\": \"user\"}]}").len(), 1);
    }

    #[test]
    fn other_formats_are_named() {
        for (bytes, name) in [(&b"PAR1"[..], "Parquet"), (&[0x1f, 0x8b, 8], "gzip")] {
            let error = parse(Path::new("a.bin"), bytes).unwrap_err();
            assert_eq!(error.to_string(), format!("a.bin: file is {name}"));
        }
        let error = parse(Path::new("a.jsonl"), b"{}\n{\"a\": \"\xe9\"}").unwrap_err();
        assert_eq!(error.to_string(), "a.jsonl:2: text is not UTF-8");
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = read(Path::new("no/such.jsonl")).unwrap_err();
        assert!(error.to_string().starts_with("no/such.jsonl: "), "{error}");
    }
}
