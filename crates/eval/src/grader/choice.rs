//! Which letter of a multiple-choice question the answer names.

use serde_json::Value;

use super::extract::{EXTRACT, Extract, unmarked};
use super::options::Options;
use super::{Grader, Grades, indicator, latex, reference};
use crate::{Error, Result};

/// Compares the letter of the answer with that of the reference.
///
/// | metric | value |
/// |---|---|
/// | `choice` | 1 if the letter of the answer is that of the reference |
/// | `choice_given` | 1 if the answer names one letter |
///
/// Without `extract` the letter is looked for in the last `\boxed{}`, behind the last "answer is" or "answer:", at the
/// beginning (`B`, `B.`, `(B) since`), and as a last resort it is the last letter in brackets or alone on a line. An
/// answer that names several letters there (`A or B`) names none.
#[derive(Clone, Debug)]
pub struct Choice {
    extract: Extract,
    letters: usize,
    count_from: Option<usize>,
}

/// Words behind which a letter stands, in lower case.
const ANSWER: [&str; 6] =
    ["answer is", "answer:", "answer**:", "choice is", "option is", "correct option:"];

impl Choice {
    /// Names of its options.
    pub(super) const OPTIONS: &[&str] = &["choices", "count_from", EXTRACT];

    /// Reads its options.
    pub(super) fn new(options: &Options<'_>) -> Result<Self> {
        let too_many = |count: usize| -> Error {
            options.error(
                format!("`choices` is {count}"),
                "it must be a whole number from 2 to 26: the letters go from A to Z",
            )
        };
        let letters = options.count("choices", 2)?.unwrap_or(10);
        if letters > 26 {
            return Err(too_many(letters));
        }
        let count_from = options.count("count_from", 0)?;
        if let Some(count) = count_from.filter(|count| *count > 1) {
            let hint = "it must be 0 or 1: the number that the first choice has in the references";
            return Err(options.error(format!("`count_from` is {count}"), hint));
        }
        Ok(Self { extract: Extract::from_options(options)?, letters, count_from })
    }

    /// The choice that a letter stands for, counted from 0.
    fn index(&self, letter: char) -> Option<usize> {
        let index = u32::from(letter.to_ascii_uppercase()).checked_sub(u32::from('A'))? as usize;
        (letter.is_ascii_alphabetic() && index < self.letters).then_some(index)
    }

    fn of_answer(&self, text: &str) -> Option<usize> {
        let start = |part: &str| self.at_start(part);
        if self.extract != Extract::Whole {
            return self.extract.find(text).and_then(start).flatten();
        }
        let lower = text.to_ascii_lowercase();
        let places = ANSWER.iter().filter_map(|marker| Some(lower.rfind(marker)? + marker.len()));
        // What is said to be the answer is it, also where it is no letter.
        let said = places.max().and_then(|at| {
            let line = text[at..].lines().map(unmarked).find(|line| !line.is_empty())?;
            Some(start(line).flatten())
        });
        let named = latex::boxed(text).and_then(start).or(said).or_else(|| start(text));
        named.unwrap_or_else(|| self.last(text))
    }

    /// The letter that a text begins with, if it stands for a choice; none if several do.
    fn at_start(&self, text: &str) -> Option<Option<usize>> {
        let text = unmarked(text).replace("\\text", "");
        let text = text.trim_start_matches(|c: char| c.is_whitespace() || "$:*".contains(c));
        let text = without_word(text, &["option", "choice", "answer"]);
        let text = text.trim_start_matches('{');
        let open = text.starts_with(['(', '[']);
        let text = text.trim_start_matches(['(', '[']);
        let letter = text.chars().next()?;
        let index = self.index(letter)?;
        let behind = &text[1..];
        let next = behind.chars().next();
        let closed = next.is_none_or(|c| !c.is_alphanumeric() && !"'\u{2019}-".contains(c));
        // `A fox` and `a fox` begin with an article, and `I think` with a pronoun.
        let article = !open
            && behind.starts_with(' ')
            && (letter.is_ascii_lowercase() || "AI".contains(letter))
            && behind.trim_start().starts_with(|c: char| c.is_alphabetic())
            && !["because", "since", "as", "is", "and", "or", "for"]
                .contains(&first_word(behind).as_str());
        (closed && !article).then(|| (!self.goes_on(behind)).then_some(index))
    }

    /// Whether more letters follow: `A or B`, `A, B`, `A/B`.
    fn goes_on(&self, behind: &str) -> bool {
        let behind = behind.trim_start_matches([')', ']', '.', '*', ' ']);
        let joins = ["or ", "and ", "/", ",", "&", "|"];
        let Some(behind) = joins.iter().find_map(|join| behind.strip_prefix(join)) else {
            return false;
        };
        let behind = behind.trim_start();
        let behind = without_word(behind, &["or", "and", "option", "choice"]);
        let mut behind = behind.trim_start_matches(['(', '[', '*']).chars();
        let another =
            behind.next().is_some_and(|c| c.is_ascii_uppercase() && self.index(c).is_some());
        let ends = behind.next().is_none_or(|c| !c.is_alphanumeric() && c != '\'' && c != ' ');
        another && (ends || behind.as_str().is_empty())
    }

    /// The last letter in round brackets, or alone on a line.
    fn last(&self, text: &str) -> Option<usize> {
        let bracketed = text.match_indices('(').filter_map(|(at, _)| {
            let mut inner = text[at + 1..].chars();
            let index =
                inner.next().filter(char::is_ascii_uppercase).and_then(|c| self.index(c))?;
            (inner.next() == Some(')')).then_some((at, index))
        });
        let alone = text.lines().filter_map(|line| {
            let mut line_letters = unmarked(line).trim_end_matches(['.', ')']).chars();
            let index = line_letters.next().and_then(|c| self.index(c))?;
            let at = line.as_ptr() as usize - text.as_ptr() as usize;
            line_letters.next().is_none().then_some((at, index))
        });
        bracketed.chain(alone).max().map(|(_, index)| index)
    }

    /// The choice of a reference: a letter, with or without brackets and the text of the choice, or a number where the
    /// recipe says how they are counted.
    fn of_reference(&self, text: &str) -> Option<usize> {
        if let (Some(from), Ok(number)) = (self.count_from, text.trim().parse::<usize>()) {
            return number.checked_sub(from).filter(|index| *index < self.letters);
        }
        self.at_start(text).unwrap_or_else(|| self.of_answer(text))
    }
}

impl Grader for Choice {
    fn grade(&self, answer: &str, expected: &Value) -> Grades {
        let given = self.of_answer(answer);
        let references = reference::texts(expected);
        let right = |text: &str| given.is_some() && self.of_reference(text) == given;
        let mut grades = Grades::default();
        grades.insert("choice", indicator(references.iter().any(|text| right(text))));
        grades.insert("choice_given", indicator(given.is_some()));
        grades
    }

    fn primary(&self) -> &'static str {
        "choice"
    }

    fn reference_problem(&self, expected: &Value) -> Option<String> {
        let texts = reference::texts(expected);
        let wrong = || {
            let shown = texts.first().map_or("", |text| &text[..text.floor_char_boundary(40)]);
            format!(
                "the reference `{shown}` is no letter of a choice (for numbers set `count_from`)"
            )
        };
        reference::missing(expected)
            .or_else(|| texts.iter().all(|text| self.of_reference(text).is_none()).then(wrong))
    }
}

fn first_word(text: &str) -> String {
    let word = text.trim_start().chars().take_while(|c| c.is_alphabetic());
    word.collect::<String>().to_lowercase()
}

/// A text without one of these words at its beginning.
fn without_word<'a>(text: &'a str, words: &[&str]) -> &'a str {
    let word = first_word(text);
    match words.contains(&word.as_str()) {
        true => text[word.len()..].trim_start(),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{grade, refused};
    use super::*;

    /// The letter that an answer is read as.
    #[track_caller]
    fn read(answer: &str, expected: Option<char>) {
        let given = |letter: char| {
            let grades = grade("choice", json!({}), answer, &json!(letter.to_string()));
            grades.get("choice") == Some(1.0)
        };
        let letters: Vec<char> = ('A'..='J').filter(|letter| given(*letter)).collect();
        assert_eq!(letters, expected.into_iter().collect::<Vec<_>>(), "{answer:?}");
    }

    #[test]
    fn letters_are_read() {
        for answer in [
            "B",
            "b",
            "B.",
            "(B)",
            "(b) since",
            "B) Paris",
            "B: Paris",
            "**B**",
            "B\nsince",
            "The answer is B.",
            "The answer is (B)",
            "The correct answer is B because A is not.",
            "Answer: B",
            "**Answer:** B) Paris",
            "A is wrong, so the answer is B",
            "\\boxed{B}",
            "\\boxed{\\text{(B)}}",
            "The answer is option B",
            "The answer is: **B**",
            "Not (A). It must be (B).",
            "It is Paris.\n\nB",
            "$\\boxed{B}$",
            "[B]",
            "B - Paris",
            "B, because A is wrong",
            "Option B",
        ] {
            read(answer, Some('B'));
        }
        read("A", Some('A'));
        read("A. fox", Some('A'));
        read("The answer is A", Some('A'));
        read("A because", Some('A'));
    }

    #[test]
    fn words_and_lists_are_no_letters() {
        for answer in [
            "",
            "A fox",
            "a",
            "The answer is a fox",
            "I think so",
            "Paris",
            "Because",
            "B2",
            "A or B",
            "A, B, C, D",
            "The answer is A or B",
            "(A) or (B)",
            "The answer is (A) and (B)",
            "Z",
            "The answer is Paris, so (B) is wrong",
            "It's",
            "A/B",
        ] {
            // A single small letter is read, see above.
            read(answer, if answer == "a" { Some('A') } else { None });
        }
    }

    #[test]
    fn references_are_letters_or_numbers() {
        let right = |options: Value, expected: Value| {
            grade("choice", options, "B", &expected).get("choice") == Some(1.0)
        };
        for reference in ["B", "(B)", "B) Paris", "\\text{(B)}", "The answer is B."] {
            assert!(right(json!({}), json!(reference)), "{reference}");
        }
        assert!(
            right(json!({"count_from": 0}), json!(1))
                && right(json!({"count_from": 1}), json!("2"))
        );
        assert!(!right(json!({}), json!(1)) && !right(json!({}), json!(null)));
        assert!(right(json!({"choices": 2}), json!("B")));
        let options = json!({});
        let grader = super::super::by_name("choice", options.as_object().unwrap()).unwrap();
        assert_eq!(grader.reference_problem(&json!("C")), None);
        let problem = grader.reference_problem(&json!(1)).unwrap();
        assert!(problem.starts_with("the reference `1` is no letter"), "{problem}");
    }

    #[test]
    fn places_and_counts_are_options() {
        let given = |options: Value, answer: &str| {
            grade("choice", options, answer, &json!("B")).get("choice").unwrap()
        };
        let tag = || json!({"extract": "<answer>"});
        assert_eq!(given(tag(), "<think>A?</think><answer>B</answer>"), 1.0);
        assert_eq!(given(tag(), "B"), 0.0);
        refused("choice", json!({"choices": 1}), "`choice`: `choices` is 1");
        refused("choice", json!({"choices": 27}), "`choice`: `choices` is 27");
        refused("choice", json!({"count_from": 2}), "`choice`: `count_from` is 2");
    }
}
