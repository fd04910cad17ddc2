//! Decoding while a model is still writing.

use crate::{Result, Tokenizer};

/// Turns ids into text as they come, in whole characters only.
///
/// A token may end inside a character, and what a token looks like may depend
/// on the one before it. So a few tokens are decoded together, and only what is
/// new and complete is given out.
#[derive(Debug)]
pub struct DecodeStream<'a> {
    tokenizer: &'a Tokenizer,
    skip_special: bool,
    /// Ids from which the next text is decoded; `ids[..shown]` was given out.
    ids: Vec<u32>,
    shown: usize,
}

/// What a decoder puts in place of bytes that are no character (yet).
const REPLACEMENT: char = '\u{FFFD}';

impl<'a> DecodeStream<'a> {
    /// A stream at its beginning.
    pub fn new(tokenizer: &'a Tokenizer, skip_special: bool) -> Self {
        DecodeStream { tokenizer, skip_special, ids: Vec::new(), shown: 0 }
    }

    /// Takes one more id, gives the text that is certain now.
    pub fn push(&mut self, id: u32) -> Result<Option<String>> {
        if self.skip_special && self.tokenizer.is_special(id) {
            return Ok(None);
        }
        self.ids.push(id);
        let text = self.rest()?;
        if text.is_empty() || text.ends_with(REPLACEMENT) {
            return Ok(None);
        }
        self.ids.drain(..self.shown);
        self.shown = self.ids.len();
        Ok(Some(text))
    }

    /// Gives what is left, an incomplete character as U+FFFD, and starts anew.
    pub fn flush(&mut self) -> Result<Option<String>> {
        let text = self.rest()?;
        self.ids.clear();
        self.shown = 0;
        Ok(Some(text).filter(|text| !text.is_empty()))
    }

    /// The text of the ids that were not given out.
    fn rest(&self) -> Result<String> {
        let shown = self.tokenizer.decode(&self.ids[..self.shown], self.skip_special)?;
        let all = self.tokenizer.decode(&self.ids, self.skip_special)?;
        match all.strip_prefix(&shown) {
            Some(rest) => Ok(rest.to_owned()),
            // Bytes that are no UTF-8 can spoil what stood before them: too late for that.
            None => self.tokenizer.decode(&self.ids[self.shown..], self.skip_special),
        }
    }
}
