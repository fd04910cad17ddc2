//! A JSON array of objects, one element in memory at a time.

use std::io::{self, BufRead as _};
use std::path::Path;
use std::sync::Arc;

use super::input::{Stream, reading};
use super::lines::{KEPT, LONGEST};
use super::{Item, Row, file_error, json_row, object, too_long, utf8};
use crate::{Error, Place, Result, RowError};

/// The elements of an array. A scanner that knows strings and brackets finds
/// where each ends, so a broken one is a bad row and the next is read.
pub(super) struct Elements {
    file: Arc<Path>,
    input: Stream,
    /// Line of the next byte, from 1.
    line: usize,
    /// Byte of that line, from 1.
    column: usize,
    /// Elements so far.
    count: usize,
    element: Vec<u8>,
    limit: usize,
    state: State,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Before,
    Within,
    After,
}

impl Elements {
    pub(super) fn new(file: &Arc<Path>, input: Stream) -> Self {
        Elements {
            file: file.clone(),
            input,
            line: 1,
            column: 1,
            count: 0,
            element: Vec::new(),
            limit: LONGEST,
            state: State::Before,
        }
    }

    /// The next element, or `None` at the end of the array.
    fn element(&mut self) -> Result<Option<std::result::Result<Row, RowError>>> {
        let next = self.after_blank()?;
        if self.state == State::Before {
            self.expect(next, b'[')?;
            self.state = State::Within;
            if self.after_blank()? == Some(b']') {
                return self.end();
            }
        } else if next == Some(b']') {
            return Err(self.error("`,` before the `]` that ends the array"));
        } else if next.is_none() {
            self.expect(next, b']')?;
        }
        let (line, column) = (self.line, self.column);
        let place = Place { file: self.file.clone(), line, element: Some(self.count) };
        self.count += 1;
        let whole = self.scan()?;
        match self.peek()? {
            Some(b',') => self.skip(),
            Some(_) => self.state = State::After,
            None => return Err(self.cut_off(line)),
        }
        Ok(Some(if whole { self.parse(place, column) } else { Err(too_long(&place, "element")) }))
    }

    /// Moves to the `,` or `]` after an element, which is kept unless it is too long.
    fn scan(&mut self) -> Result<bool> {
        self.element.clear();
        self.element.shrink_to(KEPT);
        let (mut scanner, mut whole) = (Scanner::default(), true);
        loop {
            let bytes = fill(&mut self.input).map_err(|error| reading(&self.file, error))?;
            let end = bytes.iter().position(|&byte| scanner.ends_before(byte));
            let part = &bytes[..end.unwrap_or(bytes.len())];
            whole &= self.element.len() + part.len() <= self.limit;
            if whole {
                self.element.extend_from_slice(part);
            } else {
                self.element.clear();
            }
            let (length, at_end) = (part.len(), bytes.is_empty());
            self.pass(length);
            if end.is_some() || at_end {
                return Ok(whole);
            }
        }
    }

    fn parse(&self, place: Place, column: usize) -> std::result::Result<Row, RowError> {
        match object::value(utf8(&place, &self.element)?) {
            Ok(parsed) => json_row(place, parsed),
            Err(fault) => {
                let (line, column) = match fault.line {
                    0 | 1 => (place.line, column + fault.column.saturating_sub(1)),
                    later => (place.line + later - 1, fault.column),
                };
                let message = format!("{}, line {line}, column {column}", fault.message);
                Err(RowError::new(&place, message))
            }
        }
    }

    fn end<T>(&mut self) -> Result<Option<T>> {
        self.skip();
        self.state = State::After;
        match self.after_blank()? {
            None => Ok(None),
            Some(_) => Err(self.error("something follows the array")),
        }
    }

    fn peek(&mut self) -> Result<Option<u8>> {
        let bytes = fill(&mut self.input).map_err(|error| reading(&self.file, error))?;
        Ok(bytes.first().copied())
    }

    /// Passes over one byte that is no line feed.
    fn skip(&mut self) {
        self.input.consume(1);
        self.column += 1;
    }

    /// Passes over bytes that are in the input's buffer.
    fn pass(&mut self, length: usize) {
        // They were seen a moment ago, so this neither reads nor fails.
        let bytes = self.input.fill_buf().map_or(&[][..], |bytes| &bytes[..length]);
        match bytes.iter().rposition(|&byte| byte == b'\n') {
            Some(last) => {
                self.line += bytes.iter().filter(|&&byte| byte == b'\n').count();
                self.column = length - last;
            }
            None => self.column += length,
        }
        self.input.consume(length);
    }

    fn after_blank(&mut self) -> Result<Option<u8>> {
        loop {
            let bytes = fill(&mut self.input).map_err(|error| reading(&self.file, error))?;
            let blank = bytes.len() - bytes.trim_ascii_start().len();
            let next = bytes.get(blank).copied();
            if blank == 0 {
                return Ok(next);
            }
            self.pass(blank);
        }
    }

    fn expect(&mut self, found: Option<u8>, wanted: u8) -> Result<()> {
        let wanted_char = char::from(wanted);
        match found {
            Some(byte) if byte == wanted => {
                self.skip();
                Ok(())
            }
            Some(_) => Err(self.error(&format!("expected `{wanted_char}`"))),
            None => {
                Err(self.error(&format!("expected `{wanted_char}`, found the end of the file")))
            }
        }
    }

    fn error(&self, message: &str) -> Error {
        let place = format!("{}:{}:{}", self.file.display(), self.line, self.column);
        file_error(place, format!("not JSON: {message}"))
    }

    fn cut_off(&self, line: usize) -> Error {
        let place = format!("{}:{line}", self.file.display());
        file_error(place, "not JSON: the file ends within the array's element that begins here")
            .hinting("the file is cut off, or a quote or bracket in this element is not closed")
    }
}

impl Iterator for Elements {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        let element = match self.state {
            State::After => self.end(),
            State::Before | State::Within => self.element(),
        };
        element.transpose()
    }
}

/// `fill_buf` that goes on when a signal interrupts it.
fn fill(input: &mut Stream) -> io::Result<&[u8]> {
    while let Err(error) = input.fill_buf() {
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    input.fill_buf()
}

/// Where in an element a byte stands.
#[derive(Default)]
struct Scanner {
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl Scanner {
    /// Whether the element ends before this byte; else takes it in.
    fn ends_before(&mut self, byte: u8) -> bool {
        if self.in_string {
            let escaped = std::mem::take(&mut self.escaped);
            match byte {
                b'\\' => self.escaped = !escaped,
                b'"' => self.in_string = escaped,
                _ => {}
            }
            return false;
        }
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' => self.depth += 1,
            b',' | b']' if self.depth == 0 => return true,
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use serde_json::Value;

    use super::*;

    /// Reads through a buffer of any size, so that every cut is met.
    fn read(text: &'static str, buffer: usize, limit: usize) -> Vec<String> {
        let input = Box::new(BufReader::with_capacity(buffer, text.as_bytes()));
        let mut elements = Elements::new(&Arc::from(Path::new("a.json")), input);
        elements.limit = limit;
        let show = |item: Item| match item {
            Ok(Ok(row)) => format!("{}: {}", row.place, Value::Object(row.value)),
            Ok(Err(bad)) => bad.to_string(),
            Err(error) => error.to_string(),
        };
        elements.map(show).collect()
    }

    #[test]
    fn buffers_may_end_anywhere() {
        let text = "[ {\"a\": \"],\\\"}\\\\\"},\n{\"a\": [1, {\"b\": 2}]} , \n\n 3]";
        for buffer in 1..12 {
            let expected = [
                "a.json:1 (element 0): {\"a\":\"],\\\"}\\\\\"}",
                "a.json:2 (element 1): {\"a\":[1,{\"b\":2}]}",
                "a.json:4 (element 2): not an object but a number",
            ];
            assert_eq!(read(text, buffer, 100), expected, "buffer of {buffer}");
        }
    }

    #[test]
    fn a_long_element_is_passed_over() {
        let expected =
            ["a.json:1 (element 0): element is over 256 MB", "a.json:2 (element 1): {\"a\":1}"];
        assert_eq!(read("[{\"a\": \"123456789\"},\n{\"a\":1}]", 4, 12), expected);
    }
}
