//! What may be odd about a row although it can be trained on.

use super::Supervisor;
use super::dialogue::Dialogue;
use super::findings as kind;
use super::render::RowResult;
use super::turn::{Piece, Turn};
use crate::record::calls_tools;
use crate::{Findings, Place};

impl Supervisor {
    /// Notes what the template does to messages that the user would not expect.
    pub(super) fn note_messages(
        &self,
        dialogue: &Dialogue<'_>,
        turns: &[Turn<'_>],
        findings: &mut Findings,
    ) -> RowResult<()> {
        let place = dialogue.place;
        if dialogue.messages.iter().any(|message| self.has_special(&message.content)) {
            findings.add(&kind::SPECIAL_TOKEN_IN_TEXT, place);
        }
        // The template for rows with tools may be another one.
        let shows_tools = self.template.as_ref().is_some_and(|template| template.mentions("tools"));
        if dialogue.tools.is_some() && !shows_tools {
            findings.add(&kind::TOOLS_IGNORED, place);
        }
        let last = dialogue.learn.iter().rposition(|&weight| weight != 0.0).unwrap_or(0);
        let full = turns.last().map_or("", |turn| &turn.full);
        let given = dialogue.messages[..last].iter().filter(|m| m.role != "assistant");
        if given.map(|message| message.content.trim()).any(|content| !full.contains(content)) {
            findings.add(&kind::MESSAGE_REWRITTEN, place);
        }
        let opens = |turn: &Turn<'_>| turn.prompt.trim_end().ends_with("<think>");
        let closes = |turn: &Turn<'_>| match turn.rest() {
            Some(rest) if turn.proven => rest.contains("</think>"),
            _ => turn.emission().contains("</think>"),
        };
        if turns.iter().any(|turn| opens(turn) && !closes(turn)) {
            findings.add(&kind::REASONING_LEFT_OPEN, place);
        }
        self.note_generation_prompt(dialogue, turns, findings)
    }

    /// Notes where the model must open its turn itself, because the generation prompt does not.
    fn note_generation_prompt(
        &self,
        dialogue: &Dialogue<'_>,
        turns: &[Turn<'_>],
        findings: &mut Findings,
    ) -> RowResult<()> {
        let last = dialogue.learn.iter().rposition(|&weight| weight != 0.0);
        let (Some(last), Some(turn)) = (last, turns.last()) else { return Ok(()) };
        let message = turn.message;
        let Some(rest) = turn.rest().filter(|_| message.role == "assistant") else { return Ok(()) };
        // Where the answer begins with its content there is nothing to open.
        let opens = !calls_tools(message) && !rest.trim_start().starts_with(message.content.trim());
        if opens && self.render(dialogue, last, false)? == turn.prompt {
            findings.add(&kind::EMPTY_GENERATION_PROMPT, dialogue.place);
        }
        Ok(())
    }

    /// Notes where a text in one piece has other tokens than what the row is made of.
    pub(super) fn note_pieces(
        &self,
        pieces: &[Piece<'_>],
        tokens: &[u32],
        last_answer: usize,
        place: &Place,
        findings: &mut Findings,
    ) -> RowResult<()> {
        let join = |pieces: &[Piece<'_>]| -> String {
            pieces.iter().map(|piece| piece.text.as_ref()).collect()
        };
        for seam in pieces.windows(2) {
            if self.differs_at(&seam[0].text, &seam[1].text, place)? {
                findings.add(&kind::SPLIT_TOKENS, place);
                break;
            }
        }
        // With one answer the prompt is one piece, and so what serving feeds.
        if pieces.len() > 2 {
            let last = pieces.iter().rposition(|piece| piece.learned.is_some()).unwrap_or(0);
            let fed = self.encode(&join(&pieces[..last]), place)?;
            if let Some(at) = first_difference(&fed, &tokens[..last_answer]) {
                let message = format!(
                    "serving feeds other tokens before the last answer than the row has, from token {at} on"
                );
                findings.add_with(&kind::SERVED_DIFFERENTLY, place, message);
            }
        }
        Ok(())
    }

    /// Whether two pieces have other tokens together than apart. Only what is near the seam can change.
    fn differs_at(&self, before: &str, after: &str, place: &Place) -> RowResult<bool> {
        let before = &before[before.ceil_char_boundary(before.len().saturating_sub(SEAM))..];
        let after = &after[..after.floor_char_boundary(SEAM)];
        let mut apart = self.encode(before, place)?;
        apart.extend(self.encode(after, place)?);
        Ok(apart != self.encode(&format!("{before}{after}"), place)?)
    }

    /// Notes what holds of token ids, wherever they come from.
    pub(super) fn note_tokens(&self, tokens: &[u32], place: &Place, findings: &mut Findings) {
        if let Some(bos) = self.tokenizer.bos() {
            if tokens.starts_with(&[bos, bos]) {
                findings.add(&kind::DOUBLE_BOS, place);
            }
            if self.adds_bos && tokens.first().is_some_and(|&first| first != bos) {
                findings.add(&kind::MISSING_BOS, place);
            }
        }
        let unknown = tokens.iter().filter(|&&token| Some(token) == self.unknown).count();
        if unknown > 0 {
            let share = 100.0 * unknown as f64 / tokens.len() as f64;
            let message = format!("{share:.1} % of the row's tokens are unknown to the tokenizer");
            findings.add_with(&kind::UNKNOWN_TOKENS, place, message);
        }
    }

    /// Whether a text contains a special token.
    pub(super) fn has_special(&self, text: &str) -> bool {
        text.contains(&self.special_starts[..])
            && self.special.iter().any(|token| text.contains(token))
    }
}

/// Bytes on either side of a seam that are looked at: no token is longer but for runs of one character.
const SEAM: usize = 64;

/// Where two lists differ first.
fn first_difference(a: &[u32], b: &[u32]) -> Option<usize> {
    let same = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    (same < a.len().max(b.len())).then_some(same)
}
