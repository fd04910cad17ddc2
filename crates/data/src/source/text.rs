//! Plain text: a line is a row, as Hugging Face's `text` loader has it.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::input::{Stream, reading};
use super::lines::{LONGEST, Lines};
use super::{Item, Row, too_long, utf8};
use crate::{Place, RowError};

/// The lines of a text that are not blank, each as `{"text": line}`.
pub(super) struct TextLines {
    file: Arc<Path>,
    lines: Lines,
}

impl TextLines {
    pub(super) fn new(file: &Arc<Path>, stream: Stream) -> Self {
        TextLines { file: file.clone(), lines: Lines::new(stream, LONGEST) }
    }
}

impl Iterator for TextLines {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        loop {
            let line = match self.lines.advance() {
                Ok(line) => line?,
                Err(error) => return Some(Err(reading(&self.file, error))),
            };
            let place = Place { file: self.file.clone(), line: line.number, element: None };
            match line.bytes {
                None => return Some(Ok(Err(too_long(&place, "line")))),
                Some(bytes) if bytes.trim_ascii().is_empty() => {}
                Some(bytes) => return Some(Ok(row(place, bytes))),
            }
        }
    }
}

fn row(place: Place, bytes: &[u8]) -> std::result::Result<Row, RowError> {
    let text = utf8(&place, bytes.strip_suffix(b"\r").unwrap_or(bytes))?;
    let value = Map::from_iter([("text".to_owned(), Value::from(text))]);
    Ok(Row { place, value })
}
