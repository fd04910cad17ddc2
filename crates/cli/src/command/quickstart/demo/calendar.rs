//! Days, and the ways people write them.

use text::date::MONTHS;

use super::draw::Draw;

/// A day of the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Day {
    pub(super) year: usize,
    /// 1 to 12.
    pub(super) month: usize,
    /// 1 to 28, 30 or 31; the 29th of February is never drawn.
    pub(super) day: usize,
}

impl Day {
    /// A day of 2023, 2024 or 2025.
    pub(super) fn draw(draw: &mut Draw) -> Self {
        let year = 2023 + draw.below(3);
        let month = 1 + draw.below(12);
        Self { year, month, day: 1 + draw.below(days_in(month)) }
    }

    /// So many days later, at most a month.
    pub(super) fn plus(self, days: usize) -> Self {
        let Self { year, month, day } = self;
        match (day + days).checked_sub(days_in(month)) {
            None | Some(0) => Self { year, month, day: day + days },
            Some(day) if month == 12 => Self { year: year + 1, month: 1, day },
            Some(day) => Self { year, month: month + 1, day },
        }
    }

    /// `YYYY-MM-DD`.
    pub(super) fn iso(self) -> String {
        format!("{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }

    /// The day as somebody would write it. Every form names one day only: with
    /// slashes the day is over 12.
    pub(super) fn spoken(self, draw: &mut Draw) -> String {
        let Self { year, month, day } = self;
        let name = MONTHS[month - 1];
        let short = &name[..3];
        let nth = ordinal(day);
        match draw.below(16) {
            0..=2 => format!("{day} {name} {year}"),
            3..=5 => format!("{name} {day}, {year}"),
            6..=7 => format!("{name} {nth}, {year}"),
            8..=9 => format!("{nth} of {name} {year}"),
            10..=11 => format!("{day} {short} {year}"),
            12 => format!("{short} {day}, {year}"),
            13 if day > 12 => format!("{month:02}/{day:02}/{year}"),
            _ => self.iso(),
        }
    }
}

/// Days in a month of a common year.
fn days_in(month: usize) -> usize {
    match month {
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn ordinal(day: usize) -> String {
    let ending = match day {
        11..=13 => "th",
        _ => match day % 10 {
            1 => "st",
            2 => "nd",
            3 => "rd",
            _ => "th",
        },
    };
    format!("{day}{ending}")
}

/// Every form in which [`Day::spoken`] may write a day.
#[cfg(test)]
pub(super) fn forms(day: Day) -> Vec<String> {
    let mut forms: Vec<String> =
        (0..400).map(|index| day.spoken(&mut Draw::new(&[index]))).collect();
    forms.sort();
    forms.dedup();
    forms
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_written_in_many_ways() {
        let expected = [
            "03/23/2025",
            "2025-03-23",
            "23 Mar 2025",
            "23 March 2025",
            "23rd of March 2025",
            "Mar 23, 2025",
            "March 23, 2025",
            "March 23rd, 2025",
        ];
        assert_eq!(forms(Day { year: 2025, month: 3, day: 23 }), expected);
    }

    #[test]
    fn slashes_are_never_ambiguous() {
        let forms = forms(Day { year: 2025, month: 3, day: 12 });
        assert!(forms.iter().all(|form| !form.contains('/')), "{forms:?}");
    }

    #[track_caller]
    fn check(from: (usize, usize, usize), days: usize, expected: &str) {
        let (year, month, day) = from;
        assert_eq!(Day { year, month, day }.plus(days).iso(), expected);
    }

    #[test]
    fn days_roll_over() {
        check((2025, 3, 10), 5, "2025-03-15");
        check((2025, 4, 25), 5, "2025-04-30");
        check((2025, 4, 25), 6, "2025-05-01");
        check((2024, 12, 30), 9, "2025-01-08");
    }

    #[test]
    fn ordinals_have_their_endings() {
        let all: Vec<_> = [1, 2, 3, 4, 11, 12, 13, 21, 22, 23, 30, 31].map(ordinal).into();
        let text = all.join(" ");
        assert_eq!(text, "1st 2nd 3rd 4th 11th 12th 13th 21st 22nd 23rd 30th 31st");
    }
}
