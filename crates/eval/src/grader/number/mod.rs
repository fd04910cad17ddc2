//! Is the number of the answer that of the reference?

mod scan;

use serde_json::Value;

use self::scan::{Decimal, Found, Number as Read, normalised, numbers};
use super::extract::{EXTRACT, Extract, unmarked};
use super::options::Options;
use super::{Grader, Grades, indicator, latex, reference};
use crate::Result;

/// Compares numbers.
///
/// | metric | value |
/// |---|---|
/// | `number` | 1 if the number of the answer is that of the reference |
/// | `number_given` | 1 if the answer has a number at the place where it is looked for |
///
/// Without `extract` the number of an answer is the one behind its last `####`, in its last `\boxed{}` or behind its
/// last "answer is" or "answer:", whichever of these comes last in the text and holds a number; without them it is the
/// last number of the text. Money, units, percent signs, thousands separators and LaTeX around a number do not count.
///
/// A reference that is a formula and no number (`3\sqrt{13}`) is compared as text, without spaces and looks.
#[derive(Clone, Debug)]
pub struct Number {
    extract: Extract,
    tolerance: f64,
    relative_tolerance: f64,
    decimal: Decimal,
    percent_is_share: bool,
}

/// A reference with more words than this and no number at a known place is a text, and no formula.
const FORMULA_WORDS: usize = 12;

/// Rounding of the division in a fraction, as a share of the reference.
const ROUNDING: f64 = 1e-12;

/// Words behind which answers stand, in lower case.
const ANSWER: [&str; 4] = ["answer is", "answer:", "answer**:", "answer ="];

impl Number {
    /// Names of its options.
    pub(super) const OPTIONS: &[&str] =
        &["tolerance", "relative_tolerance", "decimal", "percent", EXTRACT];

    /// Reads its options.
    pub(super) fn new(options: &Options<'_>) -> Result<Self> {
        let decimal = match options.word("decimal", &["point", "comma"])? {
            Some("comma") => Decimal::Comma,
            _ => Decimal::Point,
        };
        let percent = options.word("percent", &["ignore", "share"])?;
        Ok(Self {
            extract: Extract::from_options(options)?,
            tolerance: options.number("tolerance", 0.0, 0.0..=f64::MAX)?,
            relative_tolerance: options.number("relative_tolerance", 0.0, 0.0..=1.0)?,
            decimal,
            percent_is_share: percent == Some("share"),
        })
    }

    /// The number that a text gives as its answer.
    fn of_answer(&self, text: &str) -> Option<Read> {
        if self.extract != Extract::Whole {
            return self.extract.find(text).and_then(|part| self.of_part(part));
        }
        let marked = marked(text).into_iter().find_map(|part| self.of_part(part));
        marked.or_else(|| {
            let text = prepared(text);
            let mut found = numbers(&text, self.decimal);
            found.retain(|found| found.plain);
            found.last().map(|last| self.value(&text, last))
        })
    }

    /// The number of a part that holds the answer: the part itself, or the first number in it; behind `=` if it has one.
    fn of_part(&self, part: &str) -> Option<Read> {
        let text = prepared(part);
        let text = behind_equals(&text);
        let found = numbers(text, self.decimal);
        let first = found.first().filter(|first| first.plain)?;
        (!goes_on(&text[first.end..])).then(|| self.value(text, first))
    }

    /// The number of a reference; nothing where it is a formula or a text.
    fn of_reference(&self, reference: &str) -> Option<Read> {
        if self.extract != Extract::Whole
            && let Some(part) = self.extract.find(reference)
        {
            return self.is_number(part);
        }
        match marked(reference).first() {
            Some(part) => self.is_number(part),
            None => self.is_number(reference),
        }
    }

    /// A text that is a number and nothing else but money, units and words.
    fn is_number(&self, text: &str) -> Option<Read> {
        let text = prepared(text);
        let text = behind_equals(&text);
        let found = numbers(text, self.decimal);
        let [only] = found.as_slice() else { return None };
        let around = [&text[..only.start], &text[only.end..]].concat();
        let harmless =
            |c: char| c.is_alphabetic() || c.is_whitespace() || "$€£¥₹₩°%.*'()".contains(c);
        (only.plain && around.chars().all(harmless)).then(|| self.value(text, only))
    }

    fn value(&self, text: &str, found: &Found) -> Read {
        let percent = text[found.end..].trim_start().starts_with('%');
        match percent && self.percent_is_share {
            true => Read { value: found.number.value / 100.0, digits: None },
            false => found.number.clone(),
        }
    }

    fn equal(&self, answer: &Read, reference: &Read) -> bool {
        if let (Some(a), Some(b)) = (&answer.digits, &reference.digits)
            && (a == b || (self.tolerance == 0.0 && self.relative_tolerance == 0.0))
        {
            return a == b;
        }
        let relative = self.relative_tolerance.max(ROUNDING) * reference.value.abs();
        // The bound of a tolerance counts: 0.1 + 0.2 is within 0.1 of 0.2.
        (answer.value - reference.value).abs() <= self.tolerance * (1.0 + ROUNDING) + relative
    }

    fn is_right(&self, answer: &str, number: Option<&Read>, reference: &str) -> bool {
        match self.of_reference(reference) {
            Some(reference) => number.is_some_and(|number| self.equal(number, &reference)),
            None => {
                let part = |text| match self.extract {
                    Extract::Whole => marked(text).first().copied().or(Some(text)),
                    _ => self.extract.find(text),
                };
                let reference = latex::tidy(part(reference).unwrap_or(reference));
                !reference.is_empty() && part(answer).map(latex::tidy) == Some(reference)
            }
        }
    }
}

impl Grader for Number {
    fn grade(&self, answer: &str, expected: &Value) -> Grades {
        let number = self.of_answer(answer);
        let references = reference::texts(expected);
        let right = references.iter().any(|text| self.is_right(answer, number.as_ref(), text));
        let mut grades = Grades::default();
        grades.insert("number", indicator(right));
        grades.insert("number_given", indicator(number.is_some()));
        grades
    }

    fn primary(&self) -> &'static str {
        "number"
    }

    fn reference_problem(&self, expected: &Value) -> Option<String> {
        let usable = |text: &str| {
            let part = self.extract.find(text).unwrap_or(text);
            self.of_reference(text).is_some() || !marked(text).is_empty() || is_formula(part)
        };
        let wrong = || {
            let cure = "end it with `#### 18` or `\\boxed{18}`, or give the number alone";
            format!("the reference is a text without a number at a known place: {cure}")
        };
        let texts = reference::texts(expected);
        reference::missing(expected)
            .or_else(|| (!texts.iter().any(|text| usable(text))).then(wrong))
    }
}

/// One line with few words; names of variables are no words.
fn is_formula(text: &str) -> bool {
    let text = text.trim();
    let words = text.split(|c: char| !c.is_alphabetic()).filter(|word| word.chars().count() > 2);
    !text.contains('\n') && words.count() <= FORMULA_WORDS
}

/// A text with plain fractions and signs.
fn prepared(text: &str) -> String {
    normalised(&latex::with_plain_fractions(text))
}

/// What stands behind the last `=`, or all of the text.
fn behind_equals(text: &str) -> &str {
    match text.trim_end_matches(['=', ' ']).rsplit_once(['=', '≈']) {
        Some((_, behind)) if behind.contains(|c: char| c.is_ascii_digit()) => behind,
        _ => text,
    }
}

/// Whether a formula goes on behind a number: `5 + 3`, `6 - 5i`. Asterisks of bold words do not count.
fn goes_on(behind: &str) -> bool {
    let mut behind = behind.trim_start().chars();
    let sign = behind.next();
    let operand = behind.as_str().trim_start().chars().next();
    let number = operand.is_some_and(|c| c.is_ascii_digit() || c == '\\');
    match sign {
        Some('+' | '*' | '×' | '·' | '÷' | '^' | '/') => {
            number || operand.is_some_and(|c| c.is_alphabetic() || "($".contains(c))
        }
        Some('-') => number,
        _ => false,
    }
}

/// The parts of a text that say that they are the answer, the last one first.
fn marked(text: &str) -> Vec<&str> {
    let lower = text.to_ascii_lowercase();
    let mut places: Vec<(usize, &str)> = Vec::new();
    for (at, marker) in text.match_indices("####") {
        let line = text[at + marker.len()..].lines().next().unwrap_or_default();
        if is_answer_line(line) {
            places.push((at, line));
        }
    }
    for marker in ANSWER {
        for (at, _) in lower.match_indices(marker) {
            let behind = &text[at + marker.len()..];
            let line = behind.lines().map(unmarked).find(|line| !line.is_empty());
            places.extend(line.map(|line| (at, sentence(line))));
        }
    }
    if let Some(boxed) = latex::boxed(text) {
        // Its place is that of its content: "the answer is \boxed{5}" is read within the box.
        places.push((boxed.as_ptr() as usize - text.as_ptr() as usize, boxed));
    }
    places.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
    places.into_iter().map(|(_, part)| part).collect()
}

/// Whether a line behind `####` is an answer, and no heading of Markdown such as `#### 2. Add them up`.
fn is_answer_line(line: &str) -> bool {
    let line = unmarked(line);
    let starts = line.trim_start_matches(|c: char| "$€£¥₹₩-+\u{2212}(\\.".contains(c));
    let digits = starts.bytes().take_while(u8::is_ascii_digit).count();
    let listed = starts[digits..].strip_prefix(['.', ')', ':']).unwrap_or_default();
    digits > 0 && !listed.trim_start().starts_with(char::is_alphabetic)
}

/// A line up to the end of its first sentence.
fn sentence(line: &str) -> &str {
    line.find(". ").map_or(line, |end| &line[..end])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{grade, refused, reward};
    use super::*;

    #[track_caller]
    fn with(options: Value, answer: &str, reference: &str, right: bool) {
        let got = reward("number", options, answer, &json!(reference));
        assert_eq!(got, indicator(right), "{answer:?} for {reference:?}");
    }

    #[track_caller]
    fn right(answer: &str, reference: &str) {
        with(json!({}), answer, reference, true);
    }

    #[track_caller]
    fn wrong(answer: &str, reference: &str) {
        with(json!({}), answer, reference, false);
    }

    #[test]
    fn a_number_has_many_spellings() {
        right("1,234.50", "1234.5");
        right("12.0", "12");
        right("012", "12");
        right("$12", "12");
        right("12 dollars", "$12.00");
        right("12%", "12");
        right("-3/4", "-0.75");
        right("\u{2212}3/4", "-3/4");
        right("3/4", "6/8");
        right("1 3/4", "1.75");
        right("½", "0.5");
        right("1e3", "1000");
        right("+5", "5");
        right("-0", "0");
        right("5km", "5");
        right("90°", "90^\\circ");
        right("１２", "12");
        wrong("12", "-12");
        wrong("1.2", "12");
        wrong("1,2", "12");
        wrong("0.333", "1/3");
        wrong("twelve", "12");
        wrong("", "12");
        wrong("", "");
        wrong("12", "");
    }

    #[test]
    fn the_answer_is_looked_for() {
        right("3 ducks lay 6 eggs, so 18.", "18");
        wrong("18 in 3 days", "18");
        right("The answer is 18 dollars for 3 days. Bye 7", "18");
        right("**Answer:** 18 in 3 days", "18");
        right("Answer:\n\n18 eggs\nof 3 ducks", "18");
        right("The answer is 5 * 3 + 3 = 18.", "18");
        wrong("The answer is 18 + 3", "18");
        right("#### 18\nThat took 3 steps", "18");
        right("#### Step 3\n5 + 13\n#### 18 eggs", "18");
        right("#### 1. Add them up\nThe sum is 18.\n#### 2. Be done", "2");
        right("18 \\boxed{18} 3", "18");
        right("\\boxed{x = 18}", "18");
        wrong("\\boxed{3}, or 18", "18");
        wrong("\\boxed{18} no, \\boxed{3}", "18");
        right("The answer is 3. No: #### 18", "18");
        right("#### 3\nNo, the answer is 18.", "18");
        right("The final answer is: $\\boxed{18}$. I hope it is correct.", "18");
        right("The answer is not known, perhaps 18", "18");
        wrong("The answer is 17 or 18", "18");
    }

    #[test]
    fn parts_of_formulas_are_no_numbers() {
        wrong("\\boxed{3\\sqrt{13}}", "3");
        wrong("\\boxed{3\\sqrt{13}}", "13");
        wrong("\\boxed{6 - 5i}", "6");
        wrong("so it is 3x", "3");
        right("\\boxed{3 \\sqrt{13}}", "3\\sqrt{13}");
        right("The answer is $\\dfrac{\\pi}{2}$.", "\\frac{\\pi}{2}");
        right("\\text{Evelyn}", "Evelyn");
        wrong("Evelyn", "Angela");
        wrong("52", "52_8");
        right("x=5", "5");
        right("5", "x = 5");
        right("\\frac{14}{3}", "14/3");
        right("10,\\!080", "10080");
        right("1\\frac{4}{5}", "1.8");
    }

    #[test]
    fn digits_are_exact() {
        right("9007199254740993", "9007199254740993.0");
        wrong("9007199254740993", "9007199254740992");
        let long = "7".repeat(500);
        right(&long, &long);
        wrong(&long, &format!("{long}7"));
    }

    #[test]
    fn tolerances_are_optional() {
        with(json!({"tolerance": 0.01}), "0.333", "1/3", true);
        with(json!({"tolerance": 0.5}), "12.5", "12", true);
        with(json!({"tolerance": 0.5}), "12.6", "12", false);
        with(json!({"tolerance": 0.1}), "0.3", "0.2", true);
        with(json!({"relative_tolerance": 0.01}), "101", "100", true);
        with(json!({"relative_tolerance": 0.01}), "102", "100", false);
        with(json!({"tolerance": 1}), &"7".repeat(500), &"8".repeat(500), false);
    }

    #[test]
    fn options_say_how_numbers_are_written() {
        with(json!({"decimal": "comma"}), "1.234,5", "1234,50", true);
        with(json!({"percent": "share"}), "12 %", "0.12", true);
        with(json!({"percent": "share"}), "12", "12%", false);
        with(json!({"extract": "<answer>"}), "<answer>18</answer> 3", "18", true);
        with(json!({"extract": "<answer>"}), "18", "18", false);
        with(json!({"extract": "Answer:"}), "Answer: 18\n3", "9*2\nAnswer: 18", true);
        with(json!({"extract": "boxed"}), "\\boxed{\\pi}", "\\pi", true);
        with(json!({"extract": "boxed"}), "\\pi", "\\pi", false);
    }

    #[test]
    fn references_are_numbers_texts_or_lists() {
        let right = |expected: Value| reward("number", json!({}), "18", &expected) == 1.0;
        assert!(right(json!(18)) && right(json!(18.0)) && right(json!(["17", "18"])));
        assert!(!right(json!(null)) && !right(json!([])) && !right(json!({"a": 18})));
    }

    #[test]
    fn whether_there_is_a_number_is_graded_apart() {
        let given = |answer: &str| {
            grade("number", json!({}), answer, &json!("18")).get("number_given").unwrap()
        };
        assert_eq!((given("17"), given("I do not know")), (1.0, 0.0));
    }

    #[test]
    fn a_reference_must_be_usable() {
        let grader = super::super::by_name("number", &serde_json::Map::new()).unwrap();
        let problem = |expected: Value| grader.reference_problem(&expected);
        for usable in ["18", "9*2\n#### 18", "3\\sqrt{13}", "It is long.\nThe answer is 18."] {
            assert_eq!(problem(json!(usable)), None, "{usable}");
        }
        assert!(problem(json!(null)).is_some() && problem(json!("")).is_some());
        let text = "She sells 9 eggs.\nEach of them costs 2 dollars.";
        assert!(problem(json!(text)).unwrap().contains("a text without a number"));
    }

    #[test]
    fn bad_options_are_refused() {
        let error =
            refused("number", json!({"tolerence": 1}), "`number`: unknown option `tolerence`");
        assert!(error.hint().unwrap().starts_with("did you mean `tolerance`?"), "{error:?}");
        refused("number", json!({"tolerance": -1}), "`number`: `tolerance` is -1");
        refused("number", json!({"tolerance": "a"}), "`number`: `tolerance` is \"a\"");
        let error =
            refused("number", json!({"decimal": "coma"}), "`number`: `decimal` is \"coma\"");
        assert!(error.hint().unwrap().ends_with("did you mean `comma`?"), "{error:?}");
    }
}
