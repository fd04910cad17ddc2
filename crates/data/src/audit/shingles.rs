//! Texts as sets of character 5-grams.

use super::AuditText;
use crate::random;

/// Number of characters in a shingle.
const LENGTH: usize = 5;
/// Bits of a character: Unicode ends below 2^21.
const CHARACTER: u32 = 21;

/// The text in lower case, every run of whitespace as one space, none at the ends.
///
/// No Unicode normalisation: two spellings of one letter change only the few
/// shingles that hold it, and the tables would be this crate's largest part.
pub(super) fn normalise(text: &str) -> String {
    let mut normalised = String::with_capacity(text.len());
    for word in text.split_whitespace() {
        if !normalised.is_empty() {
            normalised.push(' ');
        }
        if word.is_ascii() {
            normalised.extend(word.bytes().map(|byte| char::from(byte.to_ascii_lowercase())));
        } else {
            normalised.extend(word.chars().flat_map(char::to_lowercase));
        }
    }
    normalised
}

/// A row's prompt and answer, both normalised, as one text.
pub(super) fn join(prompt: &str, answer: &str) -> String {
    let space = if prompt.is_empty() || answer.is_empty() { "" } else { " " };
    [prompt, space, answer].concat()
}

/// The shingles of a row: sorted, each once.
pub fn shingles(text: &AuditText) -> Vec<u64> {
    of_normalised(&join(&normalise(&text.prompt), &normalise(&text.answer)))
}

/// As [`shingles`] for a text that is already normalised. One that is shorter
/// than a shingle is one itself.
pub(super) fn of_normalised(text: &str) -> Vec<u64> {
    let mask = (1_u128 << (CHARACTER * LENGTH as u32)) - 1;
    let mut list = Vec::with_capacity(text.len());
    let mut window = 0_u128;
    for (index, character) in text.chars().enumerate() {
        window = (window << CHARACTER | u128::from(u32::from(character))) & mask;
        if index + 1 >= LENGTH {
            list.push(fold(window));
        }
    }
    if list.is_empty() && window != 0 {
        list.push(fold(window));
    }
    list.sort_unstable();
    list.dedup();
    list
}

/// 64 bits of a window: two of a million shingles are equal by chance once in 10^7 sets.
fn fold(window: u128) -> u64 {
    random::key(&[window as u64, (window >> 64) as u64])
}

/// Shared elements over all elements of two sorted sets; 0 for two empty ones.
pub fn jaccard(left: &[u64], right: &[u64]) -> f32 {
    let (mut i, mut j, mut shared) = (0, 0, 0_usize);
    while i < left.len() && j < right.len() {
        let (a, b) = (left[i], right[j]);
        // Without branches: which side comes next cannot be predicted.
        shared += usize::from(a == b);
        i += usize::from(a <= b);
        j += usize::from(b <= a);
    }
    let all = left.len() + right.len() - shared;
    if all == 0 { 0.0 } else { shared as f32 / all as f32 }
}

/// A hash of a text that stays the same in every version, for fingerprints in caches.
pub(super) fn hash(text: &str) -> u64 {
    let (words, rest) = text.as_bytes().as_chunks::<8>();
    let mut tail = [0; 8];
    tail[..rest.len()].copy_from_slice(rest);
    let start = random::key(&[text.len() as u64, u64::from_le_bytes(tail)]);
    words.iter().fold(start, |state, word| random::key(&[state, u64::from_le_bytes(*word)]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(left: &str, right: &str, expected: f32) {
        let set = |text: &str| of_normalised(&normalise(text));
        let found = jaccard(&set(left), &set(right));
        assert!((found - expected).abs() < 1e-6, "{found}");
    }

    #[test]
    fn similarity_is_shared_shingles_over_all() {
        check("", "", 0.0);
        check("abc", "abc", 1.0);
        check("abc", "abd", 0.0);
        // {abcde, bcdef} and {bcdef, cdefg}.
        check("abcdef", "bcdefg", 1.0 / 3.0);
        // A shingle that stands twice counts once.
        check("aaaaaaaaaa", "aaaaa", 1.0);
        check("Two  Words\n", " two words", 1.0);
        check("ÄÖÜ ÉÈ", "äöü éè", 1.0);
    }

    #[test]
    fn a_hash_sees_every_byte() {
        let texts = ["", "a", "a\0", "abcdefgh", "abcdefgi", "abcdefgh\0", "hgfedcba"];
        let hashes: Vec<u64> = texts.iter().map(|text| hash(text)).collect();
        for (index, value) in hashes.iter().enumerate() {
            assert!(!hashes[..index].contains(value), "{:?}", texts[index]);
        }
        // Kept in caches: it must never change.
        assert_eq!(hash("abcdefgh ijk"), hash(&["abcdefgh", " ijk"].concat()));
    }
}
