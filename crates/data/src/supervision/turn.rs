//! An assistant turn as rendered before and after it is given.

use std::borrow::Cow;

use text::Message;

/// A turn that counts in the loss.
pub(super) struct Turn<'a> {
    pub(super) message: &'a Message,
    /// The messages before it, with the generation prompt.
    pub(super) prompt: String,
    /// The messages up to and including it.
    pub(super) full: String,
}

impl Turn<'_> {
    /// The content as the model must emit it after the prompt.
    pub(super) fn emission(&self) -> &str {
        let content = self.message.content.trim();
        // A prompt may have opened the reasoning that the content opens too.
        let overlap = (1..=content.len()).rev().find(|&len| {
            content.is_char_boundary(len)
                && content.starts_with('<')
                && self.prompt.ends_with(&content[..len])
        });
        &content[overlap.unwrap_or(0)..]
    }
}

/// Text that is tokenised by itself.
pub(super) struct Piece<'a> {
    pub(super) text: Cow<'a, str>,
    /// The turn that the text is the answer of; `None` for context.
    pub(super) learned: Option<&'a Message>,
}

/// Whether every rendering is a prefix of the next.
pub(super) fn nested(turns: &[Turn<'_>]) -> bool {
    turns.iter().all(|turn| turn.full.starts_with(&turn.prompt))
        && turns.windows(2).all(|pair| pair[1].prompt.starts_with(&pair[0].full))
}

/// Context and answers in turn, for turns that are nested.
pub(super) fn pieces<'a>(turns: &'a [Turn<'a>]) -> Vec<Piece<'a>> {
    let mut pieces = Vec::with_capacity(2 * turns.len());
    let mut done = 0;
    for turn in turns {
        let (context, answer) = (&turn.prompt[done..], &turn.full[turn.prompt.len()..]);
        pieces.push(Piece { text: context.into(), learned: None });
        pieces.push(Piece { text: answer.into(), learned: Some(turn.message) });
        done = turn.full.len();
    }
    pieces
}
