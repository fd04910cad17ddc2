//! Added tokens, found in a text before anything else is done to it.

use aho_corasick::{AhoCorasick, MatchKind};
use tokenizers::AddedVocabulary;

/// A stretch of a text.
pub(super) enum Part<'t> {
    Token(u32),
    Text(&'t str),
}

/// The two rounds in which the library looks for added tokens: those that it
/// looks for before normalization, then the others.
pub(super) struct AddedTokens {
    rounds: Vec<Round>,
}

struct Round {
    automaton: AhoCorasick,
    /// By pattern: the id, and whether the token is special.
    tokens: Vec<(u32, bool)>,
}

impl AddedTokens {
    /// Nothing where a token takes spaces around it along, or matches whole words only.
    pub(super) fn new(vocabulary: &AddedVocabulary) -> Option<Self> {
        let mut tokens: Vec<_> = vocabulary.get_added_tokens_decoder().iter().collect();
        tokens.sort_unstable_by_key(|(id, _)| **id);
        if tokens.iter().any(|(_, token)| token.lstrip || token.rstrip || token.single_word) {
            return None;
        }
        let mut rounds = Vec::new();
        for normalized in [false, true] {
            let tokens = tokens.iter().filter(|(_, token)| token.normalized == normalized);
            let (mut patterns, mut found) = (Vec::new(), Vec::new());
            for (id, token) in tokens {
                // What the library looks for; it differs from the content where normalization changes it.
                let pattern = match normalized {
                    true => vocabulary.simple_id_to_token(**id)?,
                    false => token.content.clone(),
                };
                if pattern.is_empty() {
                    return None;
                }
                patterns.push(pattern);
                found.push((**id, vocabulary.is_special_token(&token.content)));
            }
            if !patterns.is_empty() {
                let mut builder = AhoCorasick::builder();
                let automaton = builder.match_kind(MatchKind::LeftmostLongest).build(patterns);
                rounds.push(Round { automaton: automaton.ok()?, tokens: found });
            }
        }
        Some(AddedTokens { rounds })
    }

    /// Hands on the parts of a text in order. Where `plain`, special tokens are text.
    pub(super) fn split<'t, E>(
        &self,
        text: &'t str,
        plain: bool,
        part: &mut impl FnMut(Part<'t>) -> Result<(), E>,
    ) -> Result<(), E> {
        split(&self.rounds, text, plain, part)
    }
}

fn split<'t, E>(
    rounds: &[Round],
    text: &'t str,
    plain: bool,
    part: &mut impl FnMut(Part<'t>) -> Result<(), E>,
) -> Result<(), E> {
    if text.is_empty() {
        return Ok(());
    }
    let Some((round, rest)) = rounds.split_first() else { return part(Part::Text(text)) };
    let mut start = 0;
    for found in round.automaton.find_iter(text) {
        let (id, special) = round.tokens[found.pattern().as_usize()];
        // The library too looks on behind a special token that it passes by, not inside it.
        if plain && special {
            continue;
        }
        split(rest, &text[start..found.start()], plain, part)?;
        part(Part::Token(id))?;
        start = found.end();
    }
    split(rest, &text[start..], plain, part)
}
