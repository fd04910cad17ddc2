//! Files as streams of rows: objects, each with its place.
//!
//! | format | a row is |
//! |---|---|
//! | JSON Lines | a line that is not blank |
//! | JSON array | an element; `Place` has its line and index |
//! | CSV, TSV | a record under the header; every value is a string, and its reader makes of it what it needs |
//! | Parquet, Arrow (file and stream) | a row; `Place` has its number |
//! | text | a line that is not blank, as `{"text": line}` |
//!
//! The content tells the format, and the name where it does not. All but
//! Parquet and Arrow files may be packed with gzip or zstd. However large the
//! file, one row or one batch of it is in memory.
//!
//! A value that has no form in JSON (bytes, an infinite number) does not spoil its row: it is null
//! with a [`Trouble`], which is an error only for who reads that column.

mod columnar;
mod delimited;
mod expand;
mod format;
mod input;
mod json;
mod jsonl;
mod lines;
mod object;
mod python_numbers;
mod text;
mod value;

use std::fmt;
use std::fs::File;
use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Map, Value};

use crate::{Error, Place, Result, RowError};

pub use expand::expand;
use input::Input;

/// One object of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Where it stands.
    pub place: Place,
    /// Its fields, in the order of the file.
    pub value: Map<String, Value>,
    /// Columns whose value could not be taken over. They are null in `value`.
    pub troubles: Vec<Trouble>,
}

/// A column whose value in one row could not be taken over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// The column.
    pub column: String,
    /// What is wrong with it, such as "holds binary data".
    pub message: String,
    /// What to do.
    pub hint: String,
}

impl Trouble {
    /// The error for a reader that needs the column, which the file calls `name`.
    pub(crate) fn error(&self, name: &str, place: &Place) -> RowError {
        RowError::new(place, format!("column `{name}` {}", self.message)).with_hint(&self.hint)
    }
}

/// What a [`Reader`] gives: a row, a bad row, or why it cannot go on.
type Item = Result<std::result::Result<Row, RowError>>;

type Rows = Box<dyn Iterator<Item = Item> + Send>;

/// The rows of a file, in its order.
///
/// `Ok(Err(..))` is a bad row, after which reading goes on. `Err(..)` means
/// that the file cannot be read on, and is the last item. A file without a
/// row, good or bad, gives that too.
pub struct Reader {
    file: Arc<Path>,
    format: &'static str,
    rows: Rows,
    state: State,
}

#[derive(PartialEq)]
enum State {
    NoRowYet,
    Rows,
    End,
}

/// Opens a file of rows.
pub fn open(path: &Path) -> Result<Reader> {
    let file = File::open(path).map_err(|source| Error::Io { path: path.into(), source })?;
    Reader::new(path, Input::File(file))
}

/// Reads all rows of a file; all bad ones make one error.
pub fn read(path: &Path) -> Result<Vec<Row>> {
    open(path)?.collect_rows()
}

/// As [`open`] for content that is already in memory; `path` is only named.
pub fn open_bytes(path: &Path, bytes: &[u8]) -> Result<Reader> {
    Reader::new(path, Input::Memory(Cursor::new(Bytes::copy_from_slice(bytes))))
}

/// As [`read`] for content that is already in memory; `path` is only named.
pub fn parse(path: &Path, bytes: &[u8]) -> Result<Vec<Row>> {
    open_bytes(path, bytes)?.collect_rows()
}

impl Reader {
    fn new(path: &Path, input: Input) -> Result<Reader> {
        let file: Arc<Path> = path.into();
        let (format, rows) = format::rows(&file, input)?;
        Ok(Reader { file, format, rows, state: State::NoRowYet })
    }

    /// "JSON Lines", "JSON array", "CSV", "TSV", "Parquet", "Arrow" or "text".
    pub fn format(&self) -> &'static str {
        self.format
    }

    fn collect_rows(self) -> Result<Vec<Row>> {
        let (mut rows, mut bad) = (Vec::new(), Vec::new());
        for item in self {
            match item? {
                Ok(row) => rows.push(row),
                Err(error) => bad.push(error),
            }
        }
        Error::from_rows(bad).map(|()| rows)
    }
}

impl Iterator for Reader {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        if self.state == State::End {
            return None;
        }
        let item = match self.rows.next() {
            None if self.state == State::NoRowYet => {
                Some(Err(file_error(self.file.display(), "file has no rows")))
            }
            item => item,
        };
        self.state = if matches!(item, Some(Ok(_))) { State::Rows } else { State::End };
        item
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reader({}, {})", self.file.display(), self.format)
    }
}

/// The word for what stands where an object should.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        value if ::text::integer::digits(value).is_some() => "a number",
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Parses a text that should be JSON, as strictly as a row of a file.
pub(crate) fn json_text(text: &str) -> std::result::Result<Value, String> {
    match object::value(text) {
        Ok(parsed) if parsed.infinite.is_empty() => Ok(parsed.value),
        Ok(_) => Err(INFINITE.to_owned()),
        Err(fault) => Err(format!("{}, column {}", fault.message, fault.column)),
    }
}

/// A row of JSON text that is an object.
fn json_row(place: Place, parsed: object::Parsed) -> std::result::Result<Row, RowError> {
    let trouble =
        |column| Trouble { column, message: INFINITE.to_owned(), hint: INFINITE_HINT.to_owned() };
    match parsed.value {
        Value::Object(value) => {
            let troubles = parsed.infinite.into_iter().map(trouble).collect();
            Ok(Row { place, value, troubles })
        }
        other => Err(RowError::new(&place, format!("not an object but {}", kind(&other)))),
    }
}

const INFINITE: &str = "holds an infinite number";
const INFINITE_HINT: &str = "replace it by a large number or null";

/// The byte order mark of UTF-8. It also stands within files that were joined.
const MARK: &[u8] = "\u{feff}".as_bytes();

fn utf8<'a>(place: &Place, bytes: &'a [u8]) -> std::result::Result<&'a str, RowError> {
    std::str::from_utf8(bytes)
        .map_err(|_| RowError::new(place, "text is not UTF-8").with_hint("save the file as UTF-8"))
}

fn too_long(place: &Place, what: &str) -> RowError {
    RowError::new(place, format!("{what} is over 256 MB"))
        .with_hint("a quote or a line end is missing, or the row is not a text to train on")
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
        check(
            "[\n{\"a\": 1},\n  {\"a\" 2}\n]",
            "a.json:3 (element 1): not JSON: expected `:`, line 3, column 8",
            None,
        );
        check(
            "[{\"a\": 1} {}]",
            "a.json:1 (element 0): not JSON: trailing characters, line 1, column 11",
            None,
        );
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
    fn a_missing_file_is_named() {
        let error = read(Path::new("no/such.jsonl")).unwrap_err();
        assert!(error.to_string().starts_with("no/such.jsonl: "), "{error}");
    }
}
