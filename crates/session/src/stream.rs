//! One answer as it comes into being.

use text::{DecodeStream, Tokenizer};

use crate::Result;
use crate::answer::{Finish, Sampling};
use crate::stop::StopScanner;

/// Tokens in, text out, up to whatever ends the answer.
pub(crate) struct AnswerStream<'a> {
    stream: DecodeStream<'a>,
    scanner: StopScanner<'a>,
    is_complete: Option<fn(&str) -> bool>,
    max_new_tokens: usize,
    text: String,
    tokens: usize,
    finish: Option<Finish>,
}

impl<'a> AnswerStream<'a> {
    pub(crate) fn new(
        tokenizer: &'a Tokenizer,
        sampling: &'a Sampling,
        max_new_tokens: usize,
    ) -> Self {
        AnswerStream {
            stream: tokenizer.decode_stream(true),
            scanner: StopScanner::new(&sampling.stop),
            is_complete: sampling.is_complete,
            max_new_tokens,
            text: String::new(),
            tokens: 0,
            finish: None,
        }
    }

    /// Takes the next token, gives the text that has become certain. A token that is part of a character, or may
    /// begin a stop string, has none yet.
    pub(crate) fn push(&mut self, token: u32, is_stop_token: bool) -> Result<String> {
        self.tokens += 1;
        let mut certain = String::new();
        if !is_stop_token && let Some(piece) = self.stream.push(token)? {
            certain = self.scanner.push(&piece);
        }
        self.finish = self.finish_after(&certain, is_stop_token);
        if self.finish.is_some() {
            certain += &self.rest()?;
        }
        self.text += &certain;
        Ok(certain)
    }

    fn finish_after(&self, certain: &str, is_stop_token: bool) -> Option<Finish> {
        let is_complete = |is_complete: fn(&str) -> bool| {
            !certain.is_empty() && is_complete(&format!("{}{certain}", self.text))
        };
        let is_stopped = is_stop_token || self.scanner.is_over();
        if is_stopped || self.is_complete.is_some_and(is_complete) {
            return Some(Finish::Stop);
        }
        (self.tokens == self.max_new_tokens).then_some(Finish::Length)
    }

    /// The answer ends here, for the caller wants no more of it.
    pub(crate) fn interrupt(&mut self) -> Result<()> {
        if self.finish.is_none() {
            self.finish = Some(Finish::Interrupted);
            let rest = self.rest()?;
            self.text += &rest;
        }
        Ok(())
    }

    /// What was held back for the sake of a character or a stop string.
    fn rest(&mut self) -> Result<String> {
        if self.scanner.is_over() {
            return Ok(String::new());
        }
        let last = self.stream.flush()?.map(|piece| self.scanner.push(&piece));
        Ok(last.unwrap_or_default() + &self.scanner.finish())
    }

    /// How the answer ended; none while it goes on.
    pub(crate) fn finish(&self) -> Option<Finish> {
        self.finish
    }

    /// The text so far, and its tokens.
    pub(crate) fn into_text(self) -> (String, usize) {
        (self.text, self.tokens)
    }
}
