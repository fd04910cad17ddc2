//! Plain text: a line is a row, as Hugging Face's `text` loader has it.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::input::Stream;
use super::lines::Records;
use super::{Item, Row, utf8};
use crate::{Place, RowError};

/// The lines of a text that are not blank, each as `{"text": line}`.
pub(super) struct TextLines(Records);

impl TextLines {
    pub(super) fn new(file: &Arc<Path>, stream: Stream) -> Self {
        TextLines(Records::new(file, stream))
    }
}

impl Iterator for TextLines {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        self.0.next(row)
    }
}

fn row(place: Place, bytes: &[u8]) -> std::result::Result<Row, RowError> {
    let text = utf8(&place, bytes.strip_suffix(b"\r").unwrap_or(bytes))?;
    let value = Map::from_iter([("text".to_owned(), Value::from(text))]);
    Ok(Row { place, value, troubles: Vec::new() })
}
