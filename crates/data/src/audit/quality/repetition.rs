//! Text that goes round in circles.

use crate::random;

/// How often a line or sentence stands in a text that goes round in circles.
const TIMES: usize = 5;
/// Words of a line or sentence that counts.
const UNIT_WORDS: usize = 4;
/// The longest run of words whose immediate repetition is looked for.
const LOOP_WORDS: usize = 8;
/// Words that repeat those before them from which a text loops.
const LOOPED: usize = 24;

/// Whether a line, a sentence or a few words stand in the text over and over.
///
/// Lines and sentences: one of four words or more, five times, and a third of the text. Words:
/// up to eight of them, over and over for 24 words. Words without letters, such as those of
/// tables and numbers, do not count.
pub(super) fn is_repeated(text: &str) -> bool {
    let units = text.split(['\n', '.', '!', '?']);
    let mut hashes: Vec<Vec<u64>> = units.map(words).collect();
    let count: usize = hashes.iter().map(Vec::len).sum();
    if count < TIMES * UNIT_WORDS {
        return false;
    }
    if loops(&hashes.concat()) {
        return true;
    }
    hashes.retain(|unit| unit.len() >= UNIT_WORDS);
    hashes.sort_unstable();
    let same = hashes.chunk_by(|a, b| a == b);
    same.into_iter().any(|group| group.len() >= TIMES && group.len() * group[0].len() * 3 >= count)
}

/// Hashes of the words that have letters.
fn words(text: &str) -> Vec<u64> {
    let words = text.split_ascii_whitespace();
    let words = words.filter(|word| word.bytes().any(|b| b.is_ascii_alphabetic() || b >= 128));
    words.map(hash).collect()
}

/// Words of up to eight bytes are their own hash.
fn hash(word: &str) -> u64 {
    let (whole, rest) = word.as_bytes().as_chunks::<8>();
    let tail = rest.iter().fold(0, |tail, &byte| tail << 8 | u64::from(byte));
    whole.iter().fold(tail, |state, eight| random::key(&[state, u64::from_le_bytes(*eight)]))
}

fn loops(words: &[u64]) -> bool {
    (1..=LOOP_WORDS).any(|period| {
        let mut run = 0;
        words.iter().skip(period).zip(words).any(|(word, before)| {
            run = if word == before { run + 1 } else { 0 };
            run >= LOOPED
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: bool) {
        assert_eq!(is_repeated(text), expected, "{text}");
    }

    #[test]
    fn circles_are_told_from_lists() {
        check(&"I like to go home. ".repeat(5), true);
        check(&"I like to go home. ".repeat(4), false);
        check(&"It is a fox.\nAnd so on it goes.\n".repeat(6), true);
        check(&"no ".repeat(40), true);
        check(&"very good and ".repeat(12), true);
        check(&"ha ".repeat(12), false);
        check(&"| --- | --- |\n".repeat(30), false);
        check(&"0, ".repeat(300), false);
        check(&"}\n    return x;\n".repeat(12), false);
        check("", false);
        let list: String = (0..60).map(|item| format!("item{item} is on this list.\n")).collect();
        check(&list, false);
        // A refrain that is a small part of a long text.
        let verse: String = (0..40).map(|word| format!("w{word} x{word} y{word}. ")).collect();
        check(&format!("{verse} {}", "we all sing along. ".repeat(5)), false);
    }
}
