//! What a file is: told by its content, and by its name where that is not enough.

use std::io::BufRead as _;
use std::path::Path;
use std::sync::Arc;

use super::delimited::Delimited;
use super::input::{HEAD, Input, Packed, Stream, reading, refuse_other_formats};
use super::json::Elements;
use super::jsonl::JsonLines;
use super::text::TextLines;
use super::{MARK, Rows, columnar, file_error, jsonl};
use crate::{Error, Result};

/// Endings of names that a folder's data files have, without `.gz` and the like.
pub(super) const DATA_ENDINGS: [&str; 11] =
    ["jsonl", "ndjson", "json", "csv", "tsv", "parquet", "arrow", "feather", "ipc", "txt", "text"];

const PACKED_ENDINGS: [&str; 4] = ["gz", "gzip", "zst", "zstd"];

/// The format of an input and its rows.
pub(super) fn rows(file: &Arc<Path>, mut input: Input) -> Result<(&'static str, Rows)> {
    let failed = |error| reading(file, error);
    let head = input.head().map_err(failed)?;
    if let Some(format) = seekable_format(&head) {
        let input = input.rewound().map_err(failed)?;
        let rows = match format {
            "Parquet" => columnar::parquet(file, input)?,
            _ => columnar::arrow_file(file, input)?,
        };
        return Ok((format, rows));
    }
    let stream = input.after(head.clone());
    let Some(packed) = Packed::of(&head) else { return streamed(file, &head, stream) };
    let (head, stream) = packed.open(stream).map_err(failed)?;
    if let Some(format) = seekable_format(&head) {
        let message = format!("file is {format} inside {}", packed.name());
        return Err(file_error(file.display(), message).hinting(
            "unpack it: this format is read from several places and is compact by itself",
        ));
    }
    streamed(file, &head, stream)
}

/// A format that has its directory at the end of the file.
fn seekable_format(head: &[u8]) -> Option<&'static str> {
    if head.starts_with(b"PAR1") {
        Some("Parquet")
    } else if head.starts_with(b"ARROW1") {
        Some("Arrow")
    } else {
        None
    }
}

fn streamed(file: &Arc<Path>, mut head: &[u8], mut stream: Stream) -> Result<(&'static str, Rows)> {
    if head.starts_with(&[0xff; 4]) {
        return Ok(("Arrow", columnar::arrow_stream(file, stream)?));
    }
    refuse_other_formats(file, head)?;
    let whole = head.len() < HEAD;
    while let Some(rest) = head.strip_prefix(MARK) {
        stream.consume(MARK.len());
        head = rest;
    }
    let format = TextFormat::of(file, head)?;
    let rows: Rows = match format {
        TextFormat::JsonLines => {
            jsonl::refuse_one_object(file, head, whole)?;
            Box::new(JsonLines::new(file, stream))
        }
        TextFormat::JsonArray => Box::new(Elements::new(file, stream)),
        TextFormat::Csv => Box::new(Delimited::new(file, stream, b',')?),
        TextFormat::Tsv => Box::new(Delimited::new(file, stream, b'\t')?),
        TextFormat::Text => Box::new(TextLines::new(file, stream)),
    };
    Ok((format.name(), rows))
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum TextFormat {
    JsonLines,
    JsonArray,
    Csv,
    Tsv,
    Text,
}

impl TextFormat {
    fn of(path: &Path, head: &[u8]) -> Result<TextFormat> {
        let head = head.trim_ascii_start();
        if starts_object(head) {
            return Ok(TextFormat::JsonLines);
        }
        if head.strip_prefix(b"[").is_some_and(|rest| starts_object(rest.trim_ascii_start())) {
            return Ok(TextFormat::JsonArray);
        }
        match ending(path).as_deref() {
            Some("csv") => Ok(TextFormat::Csv),
            Some("tsv" | "tab") => Ok(TextFormat::Tsv),
            Some("txt" | "text" | "md" | "markdown") => Ok(TextFormat::Text),
            _ if head.starts_with(b"[") => Ok(TextFormat::JsonArray),
            Some("json" | "jsonl" | "ndjson") | None => Ok(TextFormat::JsonLines),
            // An empty file is told so by who reads it.
            Some(_) if head.is_empty() => Ok(TextFormat::JsonLines),
            Some(other) => Err(unknown(path, other)),
        }
    }

    fn name(self) -> &'static str {
        match self {
            TextFormat::JsonLines => "JSON Lines",
            TextFormat::JsonArray => "JSON array",
            TextFormat::Csv => "CSV",
            TextFormat::Tsv => "TSV",
            TextFormat::Text => "text",
        }
    }
}

/// `{` alone may begin prose or a template; `{"` does not.
fn starts_object(text: &[u8]) -> bool {
    let inside = text.strip_prefix(b"{").map(<[u8]>::trim_ascii_start);
    inside.is_some_and(|rest| rest.starts_with(b"\"") || rest.starts_with(b"}"))
}

fn unknown(path: &Path, ending: &str) -> Error {
    file_error(path.display(), format!("format of the file is not known: `.{ending}`, and no JSON"))
        .hinting("give it the ending of its format: .jsonl, .json, .csv, .tsv, .txt; Parquet and Arrow are known by content")
}

/// The ending of a name in lower case, of `a.csv.gz` that is `csv`.
pub(super) fn ending(path: &Path) -> Option<String> {
    let ending = |path: &Path| {
        path.extension().and_then(|ending| ending.to_str()).map(str::to_ascii_lowercase)
    };
    match ending(path) {
        Some(last) if PACKED_ENDINGS.contains(&last.as_str()) => {
            ending(Path::new(path.file_stem()?))
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Cursor, Read};
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn content_decides_before_the_name() {
        for (name, head, expected) in [
            ("a.csv", "{\"a\": 1}", TextFormat::JsonLines),
            ("a.txt", " \n[ {\"a\"", TextFormat::JsonArray),
            ("a.txt", "{{Infobox}}", TextFormat::Text),
            ("a.md", "[link](x)", TextFormat::Text),
            ("a.jsonl", "[1, 2]", TextFormat::JsonArray),
            ("a.json", "prose", TextFormat::JsonLines),
            ("a", "prose", TextFormat::JsonLines),
            ("a.CSV.gz", "id,b", TextFormat::Csv),
            ("a.tsv.zst", "id\tb", TextFormat::Tsv),
            ("a.dat", "", TextFormat::JsonLines),
        ] {
            assert_eq!(
                TextFormat::of(Path::new(name), head.as_bytes()).unwrap(),
                expected,
                "{name}"
            );
        }
        let error = TextFormat::of(Path::new("a.dat"), b"prose").unwrap_err();
        assert_eq!(
            error.to_string(),
            "a.dat: format of the file is not known: `.dat`, and no JSON"
        );
    }

    /// An input of a gigabyte: a beginning, then the same row again and again.
    struct Endless {
        begin: &'static [u8],
        row: &'static [u8],
        at: usize,
        read: Arc<AtomicUsize>,
    }

    impl Read for Endless {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let read = self.read.load(Ordering::Relaxed);
            let from = self.begin.get(read..).filter(|rest| !rest.is_empty());
            let begins = from.is_some();
            let from = from.unwrap_or(&self.row[self.at..]);
            let length = if read > 1 << 30 { 0 } else { from.len().min(buffer.len()) };
            buffer[..length].copy_from_slice(&from[..length]);
            if !begins {
                self.at = (self.at + length) % self.row.len();
            }
            self.read.store(read + length, Ordering::Relaxed);
            Ok(length)
        }
    }

    #[track_caller]
    fn check_streams(name: &str, begin: &'static str, row: &'static str) {
        let read = Arc::new(AtomicUsize::new(0));
        let (begin, row) = (begin.as_bytes(), row.as_bytes());
        let input = Endless { begin, row, at: 0, read: read.clone() };
        let mut stream: Stream = Box::new(BufReader::new(input));
        let mut head = Vec::new();
        (&mut stream).take(HEAD as u64).read_to_end(&mut head).unwrap();
        let stream = Box::new(Cursor::new(head.clone()).chain(stream));
        let (_, mut rows) = streamed(&Arc::from(Path::new(name)), &head, stream).unwrap();
        assert!(rows.next().unwrap().unwrap().is_ok());
        assert!(read.load(Ordering::Relaxed) < 4 * HEAD, "the first row came late");
        assert!(rows.take(10_000).all(|item| item.unwrap().is_ok()));
        let most = 10_001 * row.len() + 4 * HEAD;
        assert!(read.load(Ordering::Relaxed) < most, "rows came late");
    }

    #[test]
    fn rows_come_while_the_input_is_read() {
        check_streams("a.jsonl", "", "{\"prompt\": \"one\", \"answer\": \"two\"}\n");
        check_streams("a.json", "[{\"b\": 2}", ", {\"prompt\": \"one\", \"answer\": \"two\"}\n");
        check_streams("a.csv", "a,b\n", "some text,\"more\nof it\"\n");
        check_streams("a.txt", "", "a line of text\n");
    }
}
