//! The answers that a grader is probed with.

use std::fmt::Write as _;

use text::figures;

use super::Row;
use crate::grader::{boxed, reference_texts};

/// What an answer is written in, from the plainest on. `{}` is the answer itself.
pub(super) const FORMS: [&str; 7] = [
    "{}",
    "The answer is {}.",
    "#### {}",
    "Answer: {}",
    "\\boxed{{}}",
    "<answer>{}</answer>",
    "<think>\nLet me see.\n</think>\n<answer>{}</answer>",
];

/// Declines whatever is asked.
const REFUSAL: &str = "I'm sorry, but I can't help with that.";

/// How often a reference is repeated.
const REPEATS: usize = 50;

/// A kind of answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Probe {
    /// The reference in the form that scores best.
    Reference,
    /// Nothing.
    Empty,
    /// The prompt.
    Echo,
    /// A refusal.
    Refusal,
    /// All numbers from 0 to 100.
    Numbers,
    /// The same in the form of the reference.
    NumbersInForm,
    /// Another row's reference.
    Other,
    /// The reference within a sentence.
    Sentence,
    /// The reference in bold type.
    Bold,
    /// The reference with a full stop.
    FullStop,
    /// The reference with space and a line break around it.
    Space,
    /// A whole number as a decimal one.
    Decimal,
    /// A number with its thousands apart, or not.
    Thousands,
    /// The reference again and again.
    Repeated,
}

pub(super) const PROBES: [Probe; 14] = [
    Probe::Reference,
    Probe::Empty,
    Probe::Echo,
    Probe::Refusal,
    Probe::Numbers,
    Probe::NumbersInForm,
    Probe::Other,
    Probe::Sentence,
    Probe::Bold,
    Probe::FullStop,
    Probe::Space,
    Probe::Decimal,
    Probe::Thousands,
    Probe::Repeated,
];

/// The probes that are the reference in other words.
pub(super) const REWORDINGS: [Probe; 6] =
    [Probe::Sentence, Probe::Bold, Probe::FullStop, Probe::Space, Probe::Decimal, Probe::Thousands];

impl Probe {
    /// What reports call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Reference => "the reference",
            Self::Empty => "an empty answer",
            Self::Echo => "the prompt itself",
            Self::Refusal => "a refusal",
            Self::Numbers => "all numbers from 0 to 100",
            Self::NumbersInForm => "all numbers, in the form of the reference",
            Self::Other => "another row's reference",
            Self::Sentence => "the reference in a sentence",
            Self::Bold => "the reference in bold",
            Self::FullStop => "the reference and a full stop",
            Self::Space => "the reference with space around it",
            Self::Decimal => "the reference with decimals",
            Self::Thousands => "the reference with other thousands separators",
            Self::Repeated => "the reference 50 times",
        }
    }

    /// The answer to the row at `index`; nothing where the row has none of that kind.
    pub(super) fn answer(self, rows: &[Row<'_>], index: usize, form: Form) -> Option<String> {
        let row = rows[index];
        let own = || form.content(row);
        let within = |change: &dyn Fn(&str) -> String| Some(form.write(&change(&own()?)));
        match self {
            Self::Reference => form.reference(row),
            Self::Empty => Some(String::new()),
            Self::Echo => Some(row.prompt.to_owned()),
            Self::Refusal => Some(REFUSAL.to_owned()),
            Self::Numbers => Some(numbers()),
            Self::NumbersInForm => (!form.is_bare()).then(|| form.write(&numbers())),
            Self::Other => {
                let own = own()?;
                let others = (1..rows.len()).map(|step| (index + step) % rows.len());
                let other =
                    others.filter_map(|other| form.content(rows[other])).find(|o| *o != own);
                other.map(|other| form.write(&other))
            }
            Self::Sentence if form.is_bare() => Some(format!("The answer is {}.", own()?)),
            Self::Sentence => Some(format!("Let me see. I find: {}", form.write(&own()?))),
            Self::Bold => within(&|own| format!("**{own}**")),
            Self::FullStop => within(&|own| format!("{own}.")),
            Self::Space => within(&|own| format!(" {own} \n")),
            Self::Decimal => Some(form.write(&format!("{}.0", whole(&own()?)?))),
            Self::Thousands => {
                let own = own()?;
                let whole = whole(&own)?;
                let digits = whole.trim_start_matches('-');
                let apart = match own.contains(',') {
                    true => digits.to_owned(),
                    false => figures::count(digits.parse::<u64>().ok().filter(|n| *n >= 1000)?),
                };
                let sign = if whole.starts_with('-') { "-" } else { "" };
                Some(form.write(&format!("{sign}{apart}")))
            }
            Self::Repeated => Some(format!("{}\n", form.reference(row)?).repeat(REPEATS)),
        }
    }
}

/// One of [`FORMS`], or the reference as it is written in the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Form(usize);

impl Form {
    /// The answer and nothing else.
    pub(super) const PLAIN: Self = Self(0);
    /// The whole reference, reasoning included.
    const AS_WRITTEN: Self = Self(FORMS.len());

    /// All forms, the plainest first, and last the reference as it is written.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        (0..=FORMS.len()).map(Self)
    }

    /// Whether nothing is written around the answer.
    fn is_bare(self) -> bool {
        self == Self::PLAIN || self == Self::AS_WRITTEN
    }

    /// As reports show it.
    pub(super) fn name(self) -> &'static str {
        FORMS.get(self.0).copied().unwrap_or("as it is written")
    }

    fn write(self, answer: &str) -> String {
        FORMS.get(self.0).unwrap_or(&"{}").replacen("{}", answer, 1)
    }

    /// What is written in this form: the answer alone, or the whole reference as it is written.
    fn content(self, row: Row<'_>) -> Option<String> {
        if self == Self::AS_WRITTEN { whole_reference(row) } else { short(row) }
    }

    /// A row's reference in this form.
    pub(super) fn reference(self, row: Row<'_>) -> Option<String> {
        self.content(row).map(|answer| self.write(&answer))
    }
}

/// The first text of a reference that is not blank.
fn whole_reference(row: Row<'_>) -> Option<String> {
    let texts = reference_texts(row.expected);
    texts.into_iter().find(|text| !text.trim().is_empty()).map(|text| text.into_owned())
}

/// The answer of a reference, without the reasoning before `####` or around `\boxed{}`.
fn short(row: Row<'_>) -> Option<String> {
    let whole = whole_reference(row)?;
    let marked = whole.rsplit_once("####").map(|(_, answer)| answer.trim());
    let short = marked.or_else(|| boxed(&whole)).filter(|answer| !answer.is_empty());
    Some(short.unwrap_or(&whole).trim().to_owned())
}

/// The digits of a whole number, with its sign.
fn whole(text: &str) -> Option<String> {
    let text = text.replace(',', "");
    let digits = text.strip_prefix('-').unwrap_or(&text);
    let whole = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    whole.then_some(text)
}

fn numbers() -> String {
    let mut list = String::from("0");
    for number in 1..=100 {
        write!(list, ", {number}").expect("a string takes all");
    }
    list
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn references_are_written_in_many_ways() {
        let check = |probe: Probe, expected: Value, form: usize, answer: Option<&str>| {
            let rows = [Row { prompt: "p", expected: &expected }];
            assert_eq!(
                probe.answer(&rows, 0, Form(form)).as_deref(),
                answer,
                "{probe:?} {expected}"
            );
        };
        check(Probe::Reference, json!("18"), 0, Some("18"));
        check(Probe::Reference, json!("9*2\n#### 18"), 0, Some("18"));
        check(Probe::Reference, json!("9*2\n#### 18"), 7, Some("9*2\n#### 18"));
        check(Probe::Reference, json!("so \\boxed{18}."), 5, Some("<answer>18</answer>"));
        check(Probe::Reference, json!(18), 4, Some("\\boxed{18}"));
        check(Probe::Reference, json!(null), 0, None);
        check(Probe::Other, json!("18"), 0, None);
        check(Probe::Sentence, json!("18"), 0, Some("The answer is 18."));
        check(Probe::Sentence, json!("18"), 2, Some("Let me see. I find: #### 18"));
        check(Probe::Decimal, json!("1,800"), 0, Some("1800.0"));
        check(Probe::Decimal, json!("1.5"), 0, None);
        check(Probe::Thousands, json!("-1800"), 0, Some("-1,800"));
        check(Probe::Thousands, json!("1,800"), 0, Some("1800"));
        check(Probe::Thousands, json!("18"), 0, None);
        check(Probe::NumbersInForm, json!("18"), 0, None);
    }

    #[test]
    fn another_row_has_another_reference() {
        let (a, b) = (json!("18"), json!("#### 18"));
        let c = json!("19");
        let rows = [&a, &b, &c].map(|expected| Row { prompt: "p", expected });
        assert_eq!(Probe::Other.answer(&rows, 0, Form::PLAIN).as_deref(), Some("19"));
        assert_eq!(Probe::Other.answer(&rows, 2, Form::PLAIN).as_deref(), Some("18"));
    }
}
