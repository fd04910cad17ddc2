//! Where an answer ends.

use text::Message;

use super::Supervisor;
use super::turn::Turn;
use crate::record::calls_tools;

impl Supervisor {
    /// Index of the token that ends the answer `text`, whose tokens are `ids`.
    ///
    /// It is the first special token after the content, or in the run of special
    /// tokens that begins there the first one at which the model stops. Where the
    /// content cannot be found in the text (tool calls, a template that rewrites),
    /// it is the first token at which the model stops, else the last special one.
    pub(super) fn end_of_turn(
        &self,
        text: &str,
        ids: &[u32],
        message: &Message,
    ) -> text::Result<Option<usize>> {
        let is_end = |id: &u32| self.eos_token_ids.contains(id) || self.tokenizer.is_special(*id);
        let Some(content_end) = self.content_end(text, message) else {
            let stop = ids.iter().position(|id| self.eos_token_ids.contains(id));
            return Ok(stop.or_else(|| ids.iter().rposition(is_end)));
        };
        // Special tokens are cut out of a text before all else, so as many
        // stand before the content's end in the whole as in the part.
        let before = &text[..content_end];
        let earlier = if self.special.iter().any(|token| before.contains(token)) {
            self.tokenizer.encode(before)?.iter().filter(|id| is_end(id)).count()
        } else {
            0
        };
        let ends = ids.iter().enumerate().filter(|(_, id)| is_end(id));
        let first = ends.map(|(index, _)| index).nth(earlier);
        // Some templates close the content before the turn: `<|END_RESPONSE|><|END_OF_TURN_TOKEN|>`.
        Ok(first.map(|first| {
            let mut run = ids[first..].iter().take_while(|id| is_end(id));
            first + run.position(|id| self.eos_token_ids.contains(id)).unwrap_or(0)
        }))
    }

    /// The end-of-turn token as text, for an answer that the template does not
    /// render as it is emitted.
    pub(super) fn end_text(&self, turn: &Turn<'_>) -> String {
        let content = turn.message.content.trim();
        let shown = content.rsplit("</think>").next().unwrap_or(content).trim();
        let after = turn.full.rfind(shown).map_or("", |at| &turn.full[at + shown.len()..]);
        let found =
            self.special.iter().filter_map(|token| Some((after.find(token.as_str())?, token)));
        let nearest = found.min_by_key(|(at, token)| (*at, std::cmp::Reverse(token.len())));
        let eos = || self.tokenizer.token(*self.eos_token_ids.first()?);
        nearest.map(|(_, token)| token.clone()).or_else(eos).unwrap_or_default()
    }

    /// Where the message's content ends in the text of its answer.
    fn content_end(&self, text: &str, message: &Message) -> Option<usize> {
        let content = message.content.trim();
        if content.is_empty() || calls_tools(message) {
            return None;
        }
        let ends: Vec<usize> =
            text.match_indices(content).map(|(at, _)| at + content.len()).collect();
        // A short content may also occur in what the template writes before it.
        let closes = |&&end: &&usize| {
            let rest = text[end..].trim_start();
            rest.is_empty() || self.special.iter().any(|token| rest.starts_with(token))
        };
        ends.iter().find(closes).or(ends.first()).copied()
    }
}
