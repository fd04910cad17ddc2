//! Patterns of words as automata.

use std::ops::Range;

use regex_automata::hybrid::LazyStateID;
use regex_automata::hybrid::dfa::{Cache, Config, DFA};
use regex_automata::nfa::thompson::{self, WhichCaptures};
use regex_automata::util::start;
use regex_automata::{Anchored, PatternID};
use regex_syntax::ast::{self, Ast};
use regex_syntax::hir::Hir;

use super::GaveUp;

/// How nearly all patterns of words treat white space: all of it, but for the
/// last character where something else follows. `\s` or `\s+` behind it is the
/// same, for it is reached with a single character only.
const SPACES: &str = r"\s+(?!\S)|\s";

/// The library's matcher has a stack of a million entries; where a run of spaces
/// overflows it, the rest of the text stays in one piece. Far below that, the
/// library is asked.
const LONGEST_MATCH: usize = 1 << 18;

/// A pattern that is matched by a lazy automaton, at about a nanosecond a byte.
pub(super) struct Pattern {
    dfa: DFA,
    /// The bytes that a match can begin with.
    first: [bool; 256],
    /// The alternative that stands for [`SPACES`], and gives the last character back.
    spaces: Option<PatternID>,
}

impl Pattern {
    /// Nothing where the pattern looks around elsewhere than in [`SPACES`], can
    /// match nothing, or has a part that fancy-regex reads in another way.
    pub(super) fn new(pattern: &str) -> Option<Self> {
        let (alternatives, spaces) = alternatives(pattern)?;
        let hirs: Option<Vec<Hir>> = alternatives.iter().map(|part| parse(part)).collect();
        let nfa = thompson::Compiler::new()
            .configure(thompson::Config::new().which_captures(WhichCaptures::None))
            .build_many_from_hir(&hirs?)
            .ok()?;
        let config = Config::new().skip_cache_capacity_check(true);
        let dfa = DFA::builder().configure(config).build_from_nfa(nfa).ok()?;
        let first = first_bytes(&dfa)?;
        Some(Pattern { dfa, first, spaces: spaces.map(PatternID::must) })
    }

    /// What the automaton writes while it matches.
    pub(super) fn cache(&self) -> Cache {
        self.dfa.create_cache()
    }

    /// The first match at `from` or behind it.
    pub(super) fn find(
        &self,
        cache: &mut Cache,
        text: &str,
        from: usize,
    ) -> Result<Option<Range<usize>>, GaveUp> {
        for (start, byte) in text.bytes().enumerate().skip(from) {
            if self.first[byte as usize]
                && let Some(end) = self.match_end(cache, text, start)?
            {
                return Ok(Some(start..end));
            }
        }
        Ok(None)
    }

    /// Where the match ends that begins at `start`, if one does.
    fn match_end(
        &self,
        cache: &mut Cache,
        text: &str,
        start: usize,
    ) -> Result<Option<usize>, GaveUp> {
        let clears = cache.clear_count();
        let Some((state, end)) = self.longest(cache, text.as_bytes(), start)? else {
            return Ok(None);
        };
        if end - start > LONGEST_MATCH {
            return Err(GaveUp);
        }
        // Which alternative it was takes a while to look up.
        let last = text.as_bytes()[end - 1];
        if end == text.len() || (last.is_ascii() && last != 0xb && !last.is_ascii_whitespace()) {
            return Ok(Some(end));
        }
        if cache.clear_count() != clears {
            return Err(GaveUp);
        }
        if self.spaces != Some(self.dfa.match_pattern(cache, state, 0)) {
            return Ok(Some(end));
        }
        let last = text[..end].char_indices().next_back().map_or(start, |(at, _)| at);
        Ok(Some(if last > start { last } else { end }))
    }

    /// The state after the first alternative that matches at `start`, and that match's end.
    fn longest(
        &self,
        cache: &mut Cache,
        text: &[u8],
        start: usize,
    ) -> Result<Option<(LazyStateID, usize)>, GaveUp> {
        let dfa = &self.dfa;
        let mut state = dfa.start_state(cache, &anchored()).map_err(|_| GaveUp)?;
        let mut found = None;
        // A match shows one byte after its end.
        for (at, byte) in text.iter().enumerate().skip(start) {
            state = dfa.next_state(cache, state, *byte).map_err(|_| GaveUp)?;
            if state.is_tagged() {
                if state.is_match() {
                    found = Some((state, at));
                } else if state.is_dead() {
                    return Ok(found);
                } else if state.is_quit() {
                    return Err(GaveUp);
                }
            }
        }
        state = dfa.next_eoi_state(cache, state).map_err(|_| GaveUp)?;
        if state.is_match() {
            found = Some((state, text.len()));
        }
        Ok(found)
    }
}

fn first_bytes(dfa: &DFA) -> Option<[bool; 256]> {
    let mut cache = dfa.create_cache();
    let mut first = [false; 256];
    for (byte, can_begin) in (0..=255).zip(&mut first) {
        let start = dfa.start_state(&mut cache, &anchored()).ok()?;
        *can_begin = !dfa.next_state(&mut cache, start, byte).ok()?.is_dead();
    }
    Some(first)
}

fn anchored() -> start::Config {
    start::Config::new().anchored(Anchored::Yes)
}

/// The pattern cut around [`SPACES`], with `\s+` for it, and the place of that.
/// Of several alternatives, the first that matches is taken, as before.
fn alternatives(pattern: &str) -> Option<(Vec<&str>, Option<usize>)> {
    let Some((before, after)) = pattern.split_once(SPACES) else {
        return Some((vec![pattern], None));
    };
    let after = after.strip_prefix('+').unwrap_or(after);
    let mut parts = Vec::new();
    if !before.is_empty() {
        parts.push(before.strip_suffix('|')?);
    }
    let spaces = parts.len();
    parts.push(r"\s+");
    if !after.is_empty() {
        parts.push(after.strip_prefix('|')?);
    }
    Some((parts, Some(spaces)))
}

/// Reads a part by itself: one with half of a group or of a class is refused.
fn parse(part: &str) -> Option<Hir> {
    let ast = ast::parse::Parser::new().parse(part).ok()?;
    ast::visit(&ast, Plain).ok()?;
    let hir = regex_syntax::hir::translate::Translator::new().translate(part, &ast).ok()?;
    let properties = hir.properties();
    let is_word = properties.minimum_len() > Some(0) && properties.look_set().is_empty();
    is_word.then_some(hir)
}

/// Refuses what fancy-regex reads otherwise (`a++` gives nothing back there),
/// and flags, which would be lost on the other parts.
struct Plain;

impl ast::Visitor for Plain {
    type Output = ();
    type Err = ();

    fn finish(self) -> Result<(), ()> {
        Ok(())
    }

    fn visit_pre(&mut self, ast: &Ast) -> Result<(), ()> {
        match ast {
            Ast::Flags(_) => Err(()),
            Ast::Repetition(outer) if matches!(*outer.ast, Ast::Repetition(_)) => Err(()),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, text: &str, expected: &[&str]) {
        let pattern = Pattern::new(pattern).unwrap();
        let mut cache = pattern.cache();
        let (mut words, mut start) = (Vec::new(), 0);
        while let Some(found) = pattern.find(&mut cache, text, start).unwrap() {
            start = found.end;
            words.push(&text[found]);
        }
        assert_eq!(words, expected);
    }

    #[test]
    fn white_space_gives_its_last_character_back() {
        let pattern = r" ?\p{L}+|\s+(?!\S)|\s+";
        check(pattern, "a   b", &["a", "  ", " b"]);
        check(pattern, "a \n\u{3000}b \n", &["a", " \n", "\u{3000}", "b", " \n"]);
        check(pattern, "\n\n", &["\n\n"]);
        check(pattern, "\nb", &["\n", "b"]);
    }

    #[test]
    fn only_its_own_alternative_gives_back() {
        let pattern = r" ?\p{L}+|\s*[\r\n]+|\s+(?!\S)|\s|[0-9]";
        check(pattern, " \n  b", &[" \n", " ", " b"]);
        check(pattern, "\n\nb1  2", &["\n\n", "b", "1", " ", " ", "2"]);
    }

    #[test]
    fn the_first_alternative_that_matches_is_taken() {
        check("a|ab|[^a]", "abab", &["a", "b", "a", "b"]);
        check("ab|a", "aba", &["ab", "a"]);
    }

    #[test]
    fn what_lies_between_is_passed_over() {
        check("[0-9][0-9]", "1, 23é4567 8é", &["23", "45", "67"]);
        check(r"\s?\p{Lu}+", "é É  ÀbĆ\n", &[" É", " À", "Ć"]);
    }

    #[test]
    fn other_patterns_are_refused() {
        for pattern in [
            r"a(?=b)",
            r"\s+(?!\S)",
            r"(a|\s+(?!\S)|\s+)",
            r"\||\s+(?!\S)|\s++",
            r"a\|\s+(?!\S)|\s+",
            r"[a|\s+(?!\S)|\s+]",
            r"a|\s+(?!\S)|\s+b",
            r"a|\s+(?!\S)|\s{2}",
            r"x\s+(?!\S)|\s+",
            r"(?i)a|\s+(?!\S)|\s+",
            r"a++",
            r"\p{N}{1,3}+",
            r"a*",
            r"a|^b",
            r"a\b",
            r"(a)\1",
            r"(?>a)",
            "",
        ] {
            assert!(Pattern::new(pattern).is_none(), "{pattern}");
        }
    }
}
