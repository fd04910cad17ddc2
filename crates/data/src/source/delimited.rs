//! CSV and TSV: a header, then records whose values are all strings.
//!
//! Read here and not by the `csv` crate because that takes a quote that is
//! never closed for the end of a good record: the rest of the file would be
//! one answer. It also keeps a record of any size in memory.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::input::{Stream, reading};
use super::lines::{LONGEST, Lines};
use super::{Item, MARK, Row, file_error, utf8};
use crate::{Error, Place, Result, RowError};

const QUOTING: &str = "a field that holds a quote, a line end or a separator stands in quotes, and a quote in it is doubled";

/// The records of a file.
pub(super) struct Delimited {
    file: Arc<Path>,
    lines: Lines,
    record: Record,
    header: Vec<String>,
    limit: usize,
}

impl Delimited {
    /// Reads the header.
    pub(super) fn new(file: &Arc<Path>, stream: Stream, delimiter: u8) -> Result<Self> {
        let lines = Lines::new(stream, LONGEST);
        let record = Record { delimiter, ..Record::default() };
        let (file, header) = (file.clone(), Vec::new());
        let mut rows = Delimited { file, lines, record, header, limit: LONGEST };
        let Some(line) = rows.advance()? else { return Ok(rows) };
        let place = Place { file: rows.file.clone(), line, element: None };
        let header = rows.record.fields(&place).map_err(|bad| Error::File {
            place: bad.place.to_string(),
            message: bad.message,
            hint: bad.hint,
        })?;
        rows.header = header.into_iter().enumerate().map(name).collect();
        check_header(&place, &rows.header)?;
        Ok(rows)
    }

    /// Reads one record and returns the line where it begins.
    fn advance(&mut self) -> Result<Option<usize>> {
        self.record.clear();
        let mut begin = None;
        loop {
            let line = self.lines.advance().map_err(|error| reading(&self.file, error))?;
            let Some(line) = line else {
                // A record that is still open at the end is told as a bad row.
                return Ok(begin);
            };
            let first = *begin.get_or_insert(line.number);
            let bytes =
                line.bytes.filter(|line| self.record.bytes.len() + line.len() <= self.limit);
            let Some(bytes) = bytes else {
                let place = format!("{}:{first}", self.file.display());
                return Err(file_error(place, "record is over 256 MB")
                    .hinting("a quote in it is probably not closed"));
            };
            // Files that begin with a byte order mark and were joined have more of them.
            let joined = if self.record.is_empty() { bytes.strip_prefix(MARK) } else { None };
            let bytes = joined.unwrap_or(bytes);
            if self.record.is_empty() && bytes.trim_ascii().is_empty() {
                begin = None;
                continue;
            }
            if self.record.take(bytes) {
                return Ok(Some(first));
            }
        }
    }

    fn row(&self, line: usize) -> std::result::Result<Row, RowError> {
        let place = Place { file: self.file.clone(), line, element: None };
        let fields = self.record.fields(&place)?;
        let (found, wanted) = (fields.len(), self.header.len());
        if found != wanted {
            let message = format!("row has {found} fields, the header has {wanted}");
            return Err(RowError::new(&place, message).with_hint(QUOTING));
        }
        if self.header.iter().eq(&fields) {
            let hint = "files were joined: remove every header but the first";
            return Err(RowError::new(&place, "row repeats the header").with_hint(hint));
        }
        let fields = fields.into_iter().map(Value::from);
        let value: Map<String, Value> = self.header.iter().cloned().zip(fields).collect();
        Ok(Row { place, value, troubles: Vec::new() })
    }
}

impl Iterator for Delimited {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        match self.advance() {
            Ok(line) => Some(Ok(self.row(line?))),
            Err(error) => Some(Err(error)),
        }
    }
}

/// The name of a column. One without a name (the index that pandas writes, a comma at the end of each line) is
/// called as pandas calls it.
fn name((index, name): (usize, &str)) -> String {
    if name.trim().is_empty() { format!("Unnamed: {index}") } else { name.to_owned() }
}

fn check_header(place: &Place, header: &[String]) -> Result<()> {
    let wrong = |message: String, hint: &str| Err(file_error(place, message).hinting(hint));
    if let [only] = header
        && let Some(other) = [';', '\t', '|', ','].into_iter().find(|&other| only.contains(other))
    {
        let message = format!("header `{}` is one column", only.escape_debug());
        let hint = format!(
            "its columns seem separated by `{}`: a .csv file has `,`, a .tsv file tabs",
            other.escape_debug()
        );
        return wrong(message, &hint);
    }
    let mut seen = HashSet::new();
    for name in header {
        if !seen.insert(name) {
            let message = format!("column `{name}` stands twice in the header");
            return wrong(message, "rename or remove one of them");
        }
    }
    Ok(())
}

/// The fields of one record, unquoted, one after the other.
#[derive(Default)]
struct Record {
    delimiter: u8,
    bytes: Vec<u8>,
    /// Where each field ends in `bytes`.
    ends: Vec<usize>,
    at: At,
    fault: Option<&'static str>,
}

#[derive(Clone, Copy, Default, PartialEq)]
enum At {
    #[default]
    FieldStart,
    Bare,
    Quoted,
    /// After a quote that closes a field or is the first of a doubled one.
    Closed,
}

impl Record {
    fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(super::lines::KEPT);
        self.ends.clear();
        (self.at, self.fault) = (At::FieldStart, None);
    }

    fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.at == At::FieldStart
    }

    /// Takes a line in; returns whether the record ends with it.
    fn take(&mut self, line: &[u8]) -> bool {
        let (line, return_) = match line.strip_suffix(b"\r") {
            Some(line) => (line, true),
            None => (line, false),
        };
        for &byte in line {
            self.take_byte(byte);
        }
        if self.at == At::Quoted {
            self.bytes.extend_from_slice(if return_ { b"\r\n" } else { b"\n" });
            return false;
        }
        self.ends.push(self.bytes.len());
        true
    }

    fn take_byte(&mut self, byte: u8) {
        self.at = match (self.at, byte) {
            (At::FieldStart, b'"') => At::Quoted,
            (At::Quoted, b'"') => At::Closed,
            (At::FieldStart | At::Bare | At::Closed, _) if byte == self.delimiter => {
                self.ends.push(self.bytes.len());
                At::FieldStart
            }
            (at, _) => {
                self.bytes.push(byte);
                match (at, byte) {
                    (At::Quoted, _) | (At::Closed, b'"') => At::Quoted,
                    (At::Closed, _) => {
                        self.fault = Some("something follows the quote that closes a field");
                        At::Bare
                    }
                    // A quote within a bare field stands for itself.
                    (At::FieldStart | At::Bare, _) => At::Bare,
                }
            }
        };
    }

    fn fields(&self, place: &Place) -> std::result::Result<Vec<&str>, RowError> {
        let open = (self.at == At::Quoted).then_some("a quote that opens a field is never closed");
        if let Some(fault) = open.or(self.fault) {
            return Err(RowError::new(place, fault).with_hint(QUOTING));
        }
        let mut start = 0;
        let field =
            |&end: &usize| utf8(place, &self.bytes[std::mem::replace(&mut start, end)..end]);
        self.ends.iter().map(field).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(text: &str) -> Result<Delimited> {
        let stream = Box::new(std::io::Cursor::new(text.as_bytes().to_vec()));
        Delimited::new(&Arc::from(Path::new("a.csv")), stream, b',')
    }

    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        let show = |item: Item| match item.unwrap() {
            Ok(row) => {
                let values: Vec<String> = row.value.values().map(Value::to_string).collect();
                format!("{} {}", row.place.line, values.join(" "))
            }
            Err(bad) => format!("{} {}", bad.place.line, bad.message),
        };
        let found: Vec<String> = open(text).unwrap().map(show).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn fields_may_be_quoted() {
        check(
            "a,b\n1,\n\"x,\"\"y\"\"\",\"l1\nl2\"\n,z",
            &[r#"2 "1" """#, r#"3 "x,\"y\"" "l1\nl2""#, r#"5 "" "z""#],
        );
        check(
            "a,b\r\n1,2\r\n\r\n\"x\r\ny\",5\" disk\r\n",
            &[r#"2 "1" "2""#, r#"4 "x\r\ny" "5\" disk""#],
        );
        check("\n\"a\",b\n\"\",\"\"", &[r#"3 "" """#]);
    }

    #[test]
    fn bad_rows_are_told_and_passed() {
        check(
            "a,b\n1\n1,2,3\n1,2",
            &[
                "2 row has 1 fields, the header has 2",
                "3 row has 3 fields, the header has 2",
                r#"4 "1" "2""#,
            ],
        );
        check(
            "a,b\n\"x\"y,2\n1,\"2\n3,4\n",
            &[
                "2 something follows the quote that closes a field",
                "3 a quote that opens a field is never closed",
            ],
        );
    }

    #[test]
    fn headers_are_checked() {
        for (text, message) in [
            ("a,b,a\n1,2,3", "a.csv:1: column `a` stands twice in the header"),
            ("a;b\n1;2", "a.csv:1: header `a;b` is one column"),
            ("a,\"b\n1;2", "a.csv:1: a quote that opens a field is never closed"),
        ] {
            assert_eq!(open(text).err().unwrap().to_string(), message);
        }
    }

    #[test]
    fn a_column_may_be_without_a_name() {
        let row = open(",a,\n0,1,\n").unwrap().next().unwrap().unwrap().unwrap();
        let names: Vec<&str> = row.value.keys().map(String::as_str).collect();
        assert_eq!(names, ["Unnamed: 0", "a", "Unnamed: 2"]);
    }

    #[test]
    fn joined_files_are_read_up_to_their_headers() {
        check(
            "a,b\n1,2\n\u{feff}a,b\n\u{feff}3,4\n",
            &[r#"2 "1" "2""#, "3 row repeats the header", r#"4 "3" "4""#],
        );
    }

    #[test]
    fn an_endless_record_is_not_kept() {
        let mut rows = open("a,b\n1,\"2\n3,4\n5,6\n7,8").unwrap();
        rows.limit = 6;
        let error = rows.next().unwrap().unwrap_err();
        assert_eq!(error.to_string(), "a.csv:2: record is over 256 MB");
    }
}
