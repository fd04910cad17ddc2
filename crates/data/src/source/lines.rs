//! Lines of a stream, each with its number, none larger than a limit.

use std::io::{self, BufRead as _, Read as _};
use std::path::Path;
use std::sync::Arc;

use super::input::{Stream, reading};
use super::{Item, MARK, Row, too_long};
use crate::{Place, RowError};

/// Longest line, array element or CSV record, in bytes.
pub(super) const LONGEST: usize = 256 << 20;

/// What a buffer keeps between rows, in bytes.
pub(super) const KEPT: usize = 1 << 20;

/// A cursor over the lines of a stream.
pub(super) struct Lines {
    input: Stream,
    line: Vec<u8>,
    number: usize,
    limit: usize,
}

/// One line.
pub(super) struct Line<'a> {
    /// From 1.
    pub(super) number: usize,
    /// Without its line feed; `None` where it is longer than the limit.
    pub(super) bytes: Option<&'a [u8]>,
}

impl Lines {
    pub(super) fn new(input: Stream, limit: usize) -> Self {
        Lines { input, line: Vec::new(), number: 0, limit }
    }

    /// Reads one more line. What passes the limit is read over, not kept.
    pub(super) fn advance(&mut self) -> io::Result<Option<Line<'_>>> {
        self.line.clear();
        self.line.shrink_to(KEPT);
        let room = self.limit as u64 + 1;
        let read = (&mut self.input).take(room).read_until(b'\n', &mut self.line)?;
        if read == 0 {
            return Ok(None);
        }
        self.number += 1;
        let ended = self.line.pop_if(|last| *last == b'\n').is_some();
        let too_long = !ended && self.line.len() > self.limit;
        if too_long {
            self.input.skip_until(b'\n')?;
        }
        let bytes = (!too_long).then_some(self.line.as_slice());
        Ok(Some(Line { number: self.number, bytes }))
    }
}

/// The lines of a file that are not blank, each with its place.
pub(super) struct Records {
    file: Arc<Path>,
    lines: Lines,
}

impl Records {
    pub(super) fn new(file: &Arc<Path>, input: Stream) -> Self {
        Records { file: file.clone(), lines: Lines::new(input, LONGEST) }
    }

    /// The next line, made a row by `parse`.
    pub(super) fn next(
        &mut self,
        parse: impl Fn(Place, &[u8]) -> std::result::Result<Row, RowError>,
    ) -> Option<Item> {
        loop {
            let line = match self.lines.advance() {
                Ok(line) => line?,
                Err(error) => return Some(Err(reading(&self.file, error))),
            };
            let place = Place { file: self.file.clone(), line: line.number, element: None };
            // Files that begin with a byte order mark and were joined with `cat` have more of them.
            let bytes = line.bytes.map(|bytes| bytes.strip_prefix(MARK).unwrap_or(bytes));
            match bytes {
                None => return Some(Ok(Err(too_long(&place, "line")))),
                Some(bytes) if bytes.trim_ascii().is_empty() => {}
                Some(bytes) => return Some(Ok(parse(place, bytes))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &'static str, expected: &[Option<&str>]) {
        let mut lines = Lines::new(Box::new(text.as_bytes()), 4);
        let mut found = Vec::new();
        while let Some(line) = lines.advance().unwrap() {
            assert_eq!(line.number, found.len() + 1);
            found.push(line.bytes.map(|bytes| String::from_utf8(bytes.to_vec()).unwrap()));
        }
        let found: Vec<Option<&str>> = found.iter().map(Option::as_deref).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn lines_end_with_a_line_feed_or_the_file() {
        check("", &[]);
        check("a\n\nb", &[Some("a"), Some(""), Some("b")]);
        check("a\r\nb\n", &[Some("a\r"), Some("b")]);
    }

    #[test]
    fn a_long_line_is_passed_over() {
        check("abcd\nx", &[Some("abcd"), Some("x")]);
        check("abcde\nx\n123456", &[None, Some("x"), None]);
    }
}
