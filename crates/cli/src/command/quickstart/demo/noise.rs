//! How a message is typed: letter case, missing full stops, typos. What was
//! filled into a pattern (a product, a date, a number) stands between two marks
//! and keeps its letters.

use super::draw::Draw;

const OPEN: char = '\u{2}';
const CLOSE: char = '\u{3}';

/// Puts the marks around a value.
pub(super) fn protect(value: &str) -> String {
    format!("{OPEN}{value}{CLOSE}")
}

/// Takes all marks away.
pub(super) fn unprotect(text: &str) -> String {
    text.replace([OPEN, CLOSE], "")
}

/// The text with a capital at its start.
pub(super) fn capitalize(text: &str) -> String {
    change_first(text, |letter| letter.to_ascii_uppercase())
}

/// The text with a small letter at its start, unless its first word is `I` or
/// is written in capitals.
pub(super) fn decapitalize(text: &str) -> String {
    let second = text.chars().nth(1);
    if second.is_some_and(|letter| letter.is_ascii_lowercase()) {
        change_first(text, |letter| letter.to_ascii_lowercase())
    } else {
        text.to_owned()
    }
}

fn change_first(text: &str, change: impl Fn(char) -> char) -> String {
    let first = text.find(|letter: char| letter != OPEN);
    text.char_indices()
        .map(|(index, letter)| if Some(index) == first { change(letter) } else { letter })
        .collect()
}

/// Everything outside the marks in small letters.
pub(super) fn lowercase(text: &str) -> String {
    outside(text)
        .map(|(letter, free)| if free { letter.to_ascii_lowercase() } else { letter })
        .collect()
}

/// Mistypes one word of five letters or more outside the marks, if there is one.
pub(super) fn mistype(text: &str, draw: &mut Draw) -> String {
    let letters: Vec<(char, bool)> = outside(text).collect();
    let ranges = words(&letters);
    if ranges.is_empty() {
        return text.to_owned();
    }
    let (start, end) = *draw.pick(&ranges);
    // The first and the last letter stay: a reader still knows the word.
    let at = start + 1 + draw.below(end - start - 3);
    let mut typed: Vec<char> = letters.iter().map(|(letter, _)| *letter).collect();
    match draw.below(3) {
        0 => typed.swap(at, at + 1),
        1 => drop(typed.remove(at)),
        _ => typed.insert(at, typed[at]),
    }
    typed.into_iter().collect()
}

/// Start and end of every word of five or more small letters outside the marks.
fn words(letters: &[(char, bool)]) -> Vec<(usize, usize)> {
    let in_word = |index: usize| letters[index].1 && letters[index].0.is_ascii_lowercase();
    let mut words = Vec::new();
    let mut start = 0;
    for index in 0..=letters.len() {
        if index == letters.len() || !in_word(index) {
            if index - start >= 5 {
                words.push((start, index));
            }
            start = index + 1;
        }
    }
    words
}

/// Every letter, and whether it stands outside the marks.
fn outside(text: &str) -> impl Iterator<Item = (char, bool)> {
    text.chars().scan(true, |free, letter| {
        match letter {
            OPEN => *free = false,
            CLOSE => *free = true,
            _ => {}
        }
        Some((letter, *free && letter != CLOSE))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> String {
        format!("Please look at {} today.", protect("the Brisa kettle A-12345"))
    }

    #[test]
    fn marks_come_and_go() {
        assert_eq!(unprotect(&sample()), "Please look at the Brisa kettle A-12345 today.");
    }

    #[test]
    fn case_outside_the_marks_changes() {
        assert_eq!(
            unprotect(&lowercase(&sample())),
            "please look at the Brisa kettle A-12345 today."
        );
        assert_eq!(unprotect(&capitalize(&protect("the lamp"))), "The lamp");
        assert_eq!(decapitalize("My lamp"), "my lamp");
        assert_eq!(decapitalize("I see"), "I see");
        assert_eq!(decapitalize("ASAP please"), "ASAP please");
    }

    #[test]
    fn typos_spare_what_is_marked() {
        let plain = unprotect(&sample());
        let mut changed = 0;
        for index in 0..200 {
            let typed = unprotect(&mistype(&sample(), &mut Draw::new(&[index])));
            assert!(typed.contains("the Brisa kettle A-12345"), "{typed}");
            assert!(typed.starts_with('P'), "{typed}");
            changed += usize::from(typed != plain);
        }
        assert!(changed > 150, "{changed} of 200 were mistyped");
    }

    #[test]
    fn short_texts_have_no_typos() {
        assert_eq!(mistype("Hi all", &mut Draw::new(&[1])), "Hi all");
    }
}
