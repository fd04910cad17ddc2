//! A turn as rendered before and after it is given.

use std::borrow::Cow;

use text::Message;

use super::options::reasoning;
use crate::record::calls_tools;

/// A turn that counts in the loss.
pub(super) struct Turn<'a> {
    /// Which of the messages it is.
    pub(super) index: usize,
    pub(super) message: &'a Message,
    /// How much each of its tokens counts.
    pub(super) weight: f32,
    /// The messages before it, with the generation prompt if it is the assistant's.
    pub(super) prompt: String,
    /// The messages up to and including it.
    pub(super) full: String,
    /// Whether what the template writes after the prompt is what the model must emit.
    pub(super) proven: bool,
}

impl Turn<'_> {
    /// What the template writes for the turn after its prompt.
    pub(super) fn rest(&self) -> Option<&str> {
        self.full.strip_prefix(&self.prompt)
    }

    /// Whether the turn has reasoning that the rendering lacks.
    pub(super) fn loses_reasoning(&self) -> bool {
        reasoning(self.message).is_some_and(|text| !self.full.contains(text))
    }

    /// The content as the model must emit it after the prompt, reasoning first.
    pub(super) fn emission(&self) -> String {
        let content = self.message.content.trim();
        let whole = match reasoning(self.message) {
            Some(text) if !content.contains("</think>") => {
                format!("<think>\n{text}\n</think>\n\n{content}")
            }
            _ => content.to_owned(),
        };
        // A prompt may have opened the reasoning that the content opens too.
        let opened = ["<think>\n", "<think>"].into_iter().find(|tag| self.prompt.ends_with(tag));
        match opened.and_then(|tag| whole.strip_prefix(tag).or(whole.strip_prefix(tag.trim()))) {
            Some(rest) => rest.to_owned(),
            None => whole,
        }
    }

    /// As [`Turn::emission`] for a turn that calls tools: what the template writes from where it departs from
    /// the prompt on, special tokens kept whole.
    pub(super) fn rendered_calls(&self, special: &[String]) -> Option<&str> {
        if !calls_tools(self.message) {
            return None;
        }
        let same = self.prompt.bytes().zip(self.full.bytes()).take_while(|(a, b)| a == b).count();
        let mut at = same;
        for token in special {
            let from = same.saturating_sub(token.len());
            let whole = (from..same).find(|&start| {
                start + token.len() > same
                    && self.full.as_bytes()[start..].starts_with(token.as_bytes())
            });
            at = at.min(whole.unwrap_or(at));
        }
        while !self.full.is_char_boundary(at) {
            at -= 1;
        }
        Some(&self.full[at..])
    }
}

/// Text that is tokenised by itself.
pub(super) struct Piece<'a> {
    pub(super) text: Cow<'a, str>,
    /// The turn that the text is the answer of; `None` for context.
    pub(super) learned: Option<&'a Turn<'a>>,
}

/// Whether every rendering is a prefix of the next.
pub(super) fn nested(turns: &[Turn<'_>]) -> bool {
    turns.iter().all(|turn| turn.proven)
        && turns.windows(2).all(|pair| pair[1].prompt.starts_with(&pair[0].full))
}

/// Context and answers in turn, for turns that are nested.
pub(super) fn pieces<'a>(turns: &'a [Turn<'a>]) -> Vec<Piece<'a>> {
    let mut pieces = Vec::with_capacity(2 * turns.len());
    let mut done = 0;
    for turn in turns {
        let (context, answer) = (&turn.prompt[done..], &turn.full[turn.prompt.len()..]);
        pieces.push(Piece { text: context.into(), learned: None });
        pieces.push(Piece { text: answer.into(), learned: Some(turn) });
        done = turn.full.len();
    }
    pieces
}
