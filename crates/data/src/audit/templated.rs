//! Rows made from one template, told apart from near-duplicates.
//!
//! Such rows are alike on purpose: "What is 12 + 7?" and "What is 3 + 9?", or
//! "Write a poem about cats" and "... about the sea". Their prompts (of plain
//! text: their texts) are aligned word by word. They are of one template if
//!
//! 1. two rows: every change puts numbers or names (words with a digit or a
//!    capital at their start) in the place of numbers or names; or
//! 2. five rows or more: four fifths of them differ from the first in its slots
//!    alone. A slot is a place where a quarter of the rows differ, and slots
//!    cover at most half of the places. Edits of a near-duplicate, in contrast,
//!    lie elsewhere in every row;
//!
//! and the answers differ as the prompts do: rows with one answer to many
//! prompts that hardly differ teach no more than one of them.

use std::collections::BTreeMap;
use std::ops::Range;

use super::AuditText;
use super::shingles::normalise;

/// Rows from which slots can be told from edits.
pub(super) const MANY: usize = 5;
/// Cells of an alignment beyond which rows are not aligned: a thousand changed words each.
const CELLS: usize = 1 << 20;
/// Words of a number or name.
const SLOT_WORDS: usize = 4;

/// Words of the left that stand in place of words of the right; either may be none.
#[derive(Debug, PartialEq)]
struct Change {
    left: Range<usize>,
    right: Range<usize>,
}

/// Whether two similar rows differ in numbers and names alone: the first rule.
pub(super) fn is_pair(left: &AuditText, right: &AuditText) -> bool {
    if !answers_differ(left, right) {
        return false;
    }
    let (left, right) = (words(left), words(right));
    let changes = changes(&left, &right).unwrap_or_default();
    let is_slot = |words: &[&str]| {
        (1..=SLOT_WORDS).contains(&words.len()) && words.iter().all(|word| is_name_or_number(word))
    };
    !changes.is_empty()
        && changes.iter().all(|change| {
            is_slot(&left[change.left.clone()]) && is_slot(&right[change.right.clone()])
        })
}

/// Rows without answers, or without prompts, have none that could differ.
fn answers_differ(left: &AuditText, right: &AuditText) -> bool {
    let compared = ![&left.answer, &right.answer, &left.prompt, &right.prompt]
        .into_iter()
        .any(|text| text.trim().is_empty());
    !compared || normalise(&left.answer) != normalise(&right.answer)
}

fn is_name_or_number(word: &str) -> bool {
    let first = word.chars().find(|character| character.is_alphanumeric());
    first.is_none_or(char::is_uppercase) || word.chars().any(char::is_numeric)
}

/// The words in which a template shows: the prompt's, or those of plain text.
fn words(row: &AuditText) -> Vec<&str> {
    let text = if row.prompt.trim().is_empty() { &row.answer } else { &row.prompt };
    text.split_whitespace().collect()
}

/// What changes from `left` to `right`, by a longest common subsequence; `None` if that is too
/// much to align.
fn changes(left: &[&str], right: &[&str]) -> Option<Vec<Change>> {
    let same = |(a, b): &(&&str, &&str)| a.eq_ignore_ascii_case(b);
    let start = left.iter().zip(right).take_while(same).count();
    let (tail_left, tail_right) = (&left[start..], &right[start..]);
    let end = tail_left.iter().rev().zip(tail_right.iter().rev()).take_while(same).count();
    let inner_left = &tail_left[..tail_left.len() - end];
    let inner_right = &tail_right[..tail_right.len() - end];
    let pairs = common(inner_left, inner_right)?;

    let mut changes = Vec::new();
    let (mut i, mut j) = (start, start);
    let last = (inner_left.len(), inner_right.len());
    for (a, b) in pairs.into_iter().chain([last]) {
        let (a, b) = (start + a, start + b);
        if i < a || j < b {
            changes.push(Change { left: i..a, right: j..b });
        }
        (i, j) = (a + 1, b + 1);
    }
    Some(changes)
}

/// Indices of a longest common subsequence.
fn common(left: &[&str], right: &[&str]) -> Option<Vec<(usize, usize)>> {
    let width = right.len() + 1;
    if (left.len() + 1) * width > CELLS {
        return None;
    }
    // Length of the longest one from (i, j) on.
    let mut lengths = vec![0_u16; (left.len() + 1) * width];
    for i in (0..left.len()).rev() {
        for j in (0..right.len()).rev() {
            lengths[i * width + j] = if left[i].eq_ignore_ascii_case(right[j]) {
                lengths[(i + 1) * width + j + 1].saturating_add(1)
            } else {
                lengths[(i + 1) * width + j].max(lengths[i * width + j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut pairs = Vec::new();
    while i < left.len() && j < right.len() {
        if left[i].eq_ignore_ascii_case(right[j]) {
            pairs.push((i, j));
            (i, j) = (i + 1, j + 1);
        } else if lengths[(i + 1) * width + j] >= lengths[i * width + j + 1] {
            i += 1;
        } else {
            j += 1;
        }
    }
    Some(pairs)
}

/// A row of which others are copies with other words in the slots.
#[derive(Debug)]
pub(super) struct Template {
    words: Vec<String>,
    /// Of every place: the gap before word i is place 2i, the word itself 2i + 1.
    slots: Vec<bool>,
}

/// The places that a change touches: its words and the gaps around them.
fn places(change: &Change) -> Range<usize> {
    2 * change.left.start..2 * change.left.end + 1
}

impl Template {
    /// The template of these rows, where they are of one: the second rule.
    pub(super) fn find(rows: &[AuditText]) -> Option<Template> {
        if rows.len() < MANY || !varied_answers(rows) {
            return None;
        }
        let base = words(&rows[0]);
        let others: Vec<Option<Vec<Change>>> =
            rows[1..].iter().map(|row| changes(&base, &words(row))).collect();
        let mut counts = vec![0; 2 * base.len() + 1];
        for change in others.iter().flatten().flatten() {
            counts[places(change)].iter_mut().for_each(|count| *count += 1);
        }
        let enough = others.len().div_ceil(4).max(2);
        let slots: Vec<bool> = counts.iter().map(|&count| count >= enough).collect();
        let covered = slots.iter().filter(|&&slot| slot).count();
        let filled = |changes: &Vec<Change>| {
            changes.iter().all(|change| slots[places(change)].iter().all(|&slot| slot))
        };
        let instances = others.iter().flatten().filter(|changes| filled(changes)).count();
        let found = covered > 0 && covered * 2 <= slots.len() && instances * 5 >= others.len() * 4;
        found.then(|| Template { words: base.into_iter().map(str::to_owned).collect(), slots })
    }

    /// What a row has in the slots. Two rows with the same there are near-duplicates after all.
    pub(super) fn filling(&self, row: &AuditText) -> Option<String> {
        let base: Vec<&str> = self.words.iter().map(String::as_str).collect();
        let words = words(row);
        let changes = changes(&base, &words)?;
        let in_slot = changes.iter().filter(|change| self.slots[places(change)].contains(&true));
        let text = |change: &Change| {
            format!(
                "{}: {}\n",
                change.left.start,
                normalise(&words[change.right.clone()].join(" "))
            )
        };
        Some(in_slot.map(text).collect())
    }
}

/// Whether fewer than three quarters of the rows share one answer.
fn varied_answers(rows: &[AuditText]) -> bool {
    if rows.iter().any(|row| row.prompt.trim().is_empty() || row.answer.trim().is_empty()) {
        return true;
    }
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for row in rows {
        *counts.entry(normalise(&row.answer)).or_default() += 1;
    }
    counts.values().all(|&count| count * 4 < rows.len() * 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(prompt: &str, answer: &str) -> AuditText {
        AuditText { prompt: prompt.into(), answer: answer.into() }
    }

    #[track_caller]
    fn check_pair(left: (&str, &str), right: (&str, &str), expected: bool) {
        let (left, right) = (row(left.0, left.1), row(right.0, right.1));
        assert_eq!(is_pair(&left, &right), expected);
        assert_eq!(is_pair(&right, &left), expected);
    }

    #[test]
    fn numbers_and_names_make_a_template() {
        check_pair(("What is 12 + 7?", "19"), ("What is 3 + 9?", "12"), true);
        check_pair(("Ann has 3 apples.", "3"), ("Bob has 5 apples.", "5"), true);
        check_pair(("Is 7 prime?", "yes"), ("Is 8 prime?", "no"), true);
        // Of plain text the text itself is looked at.
        check_pair(("", "Order A-123 was sent."), ("", "Order B-77 was sent."), true);
        // Questions alone.
        check_pair(("What is 12 + 7?", ""), ("What is 3 + 9?", ""), true);
    }

    #[test]
    fn edits_make_none() {
        check_pair(("Tell me about foxes.", "a"), ("Tell me about wolves.", "b"), false);
        check_pair(("Explain this to me", "a"), ("Explain this", "b"), false);
        // The same question with another answer is a contradiction.
        check_pair(("What is 12 + 7?", "19"), ("what is  12 + 7?", "20"), false);
        // Another number with the same answer teaches nothing new.
        check_pair(("[id 17] Hello there", "Hi"), ("[id 18] Hello there", "hi"), false);
        // The same words with a number more.
        check_pair(("Name a fruit", "fig"), ("Name 3 a fruit", "kiwi"), false);
    }

    #[test]
    fn changes_are_where_words_differ() {
        let changes = |left: &str, right: &str| {
            let split = |text| str::split_whitespace(text).collect::<Vec<_>>();
            let list = changes(&split(left), &split(right)).unwrap();
            list.into_iter().map(|change| (change.left, change.right)).collect::<Vec<_>>()
        };
        assert_eq!(changes("a b c", "A B C"), []);
        assert_eq!(changes("a b c d", "a x y c d"), [(1..2, 1..3)]);
        assert_eq!(changes("a b c d", "a c d e"), [(1..2, 1..1), (4..4, 3..4)]);
        assert_eq!(changes("", "a"), [(0..0, 0..1)]);
    }

    #[track_caller]
    fn check_template(rows: &[AuditText], expected: bool) {
        assert_eq!(Template::find(rows).is_some(), expected);
    }

    const THINGS: [&str; 8] =
        ["cats", "the sea", "an old oak", "rain", "two rivers", "bread", "night", "red foxes"];

    #[test]
    fn the_same_slots_over_many_rows_make_a_template() {
        let poem = |thing: &str| {
            row(&format!("Write a short poem about {thing} for my sister"), &format!("O {thing}!"))
        };
        let rows: Vec<AuditText> = THINGS.iter().map(|thing| poem(thing)).collect();
        check_template(&rows, true);
        // Too few to tell.
        check_template(&rows[..MANY - 1], false);
        // One answer to all.
        let same: Vec<_> = rows.iter().map(|text| row(&text.prompt, "I will.")).collect();
        check_template(&same, false);
        // One prompt, many answers.
        let same: Vec<_> = rows.iter().map(|text| row("Write a poem", &text.answer)).collect();
        check_template(&same, false);
    }

    #[test]
    fn edits_in_other_places_make_none() {
        let text = "one two three four five six seven eight nine ten eleven twelve thirteen";
        let edited = |index: usize| {
            let mut words: Vec<&str> = text.split(' ').collect();
            words[(index * 5) % 13] = "edit";
            words[(index * 5 + 3) % 13] = "another";
            row(&words.join(" "), &format!("answer {index}"))
        };
        check_template(&(0..12).map(edited).collect::<Vec<_>>(), false);
    }

    #[test]
    fn fillings_tell_which_rows_say_the_same() {
        let poem = |please: &str, thing: &str| {
            row(&format!("{please} write a short poem about {thing} for my sister"), thing)
        };
        let rows: Vec<AuditText> = THINGS.iter().map(|thing| poem("Please", thing)).collect();
        let template = Template::find(&rows).unwrap();
        let filling = |please, thing| template.filling(&poem(please, thing)).unwrap();
        assert_eq!(filling("Please", "the moon"), filling("Kindly", "the moon"));
        assert_ne!(filling("Please", "the moon"), filling("Please", "the sun"));
    }
}
