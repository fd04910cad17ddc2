//! The date that a run's chat template sees.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// English names of the months.
pub const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] =
    ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

/// A day of the Gregorian calendar. A template that asks for today's date gets
/// the run's, so that it trains and serves with the same text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Date {
    year: u16,
    month: u8,
    day: u8,
}

impl Date {
    /// The given day, or nothing where the calendar has none.
    pub fn new(year: u16, month: u8, day: u8) -> Option<Self> {
        let valid = (1..=9999).contains(&year)
            && (1..=12).contains(&month)
            && (1..=days_in_month(year, month)).contains(&day);
        valid.then_some(Date { year, month, day })
    }

    /// The day (UTC) on which so many seconds have passed since 1970; the last
    /// day of 9999 for anything later.
    pub fn from_unix(seconds: u64) -> Self {
        let mut days = seconds / 86_400;
        let mut year = 1970;
        while year < 9999 && days >= days_in_year(year) {
            days -= days_in_year(year);
            year += 1;
        }
        let mut month = 1;
        while month < 12 && days >= u64::from(days_in_month(year, month)) {
            days -= u64::from(days_in_month(year, month));
            month += 1;
        }
        Date { year, month, day: (days + 1).min(u64::from(days_in_month(year, month))) as u8 }
    }

    /// The date as Python's `strftime` writes it in the C locale, at midnight.
    ///
    /// A directive that does not concern a date or a time comes back as it is.
    pub fn strftime(self, format: &str) -> String {
        let mut out = String::new();
        let mut chars = format.chars();
        while let Some(c) = chars.next() {
            if c != '%' {
                out.push(c);
                continue;
            }
            let mut directive = chars.next();
            let unpadded = directive == Some('-');
            if unpadded {
                directive = chars.next();
            }
            match directive.and_then(|directive| self.directive(directive)) {
                Some(text) if unpadded => out.push_str(strip_zeros(&text)),
                Some(text) => out.push_str(&text),
                None => {
                    out.push_str(if unpadded { "%-" } else { "%" });
                    out.extend(directive);
                }
            }
        }
        out
    }

    fn directive(self, directive: char) -> Option<String> {
        let Date { year, month, day } = self;
        let month_name = MONTHS[usize::from(month) - 1];
        let weekday = self.weekday();
        Some(match directive {
            'Y' => format!("{year}"),
            'y' => format!("{:02}", year % 100),
            'm' => format!("{month:02}"),
            'd' => format!("{day:02}"),
            'e' => format!("{day:2}"),
            'B' => month_name.into(),
            'b' | 'h' => month_name[..3].into(),
            'A' => WEEKDAYS[weekday].into(),
            'a' => WEEKDAYS[weekday][..3].into(),
            'u' => format!("{}", weekday + 1),
            'w' => format!("{}", (weekday + 1) % 7),
            'j' => format!("{:03}", self.day_of_year()),
            'F' => self.to_string(),
            'D' | 'x' => format!("{month:02}/{day:02}/{:02}", year % 100),
            'H' | 'M' | 'S' => "00".into(),
            'I' => "12".into(),
            'p' => "AM".into(),
            'f' => "000000".into(),
            'T' | 'X' => "00:00:00".into(),
            'R' => "00:00".into(),
            'c' => self.strftime("%a %b %e %H:%M:%S %Y"),
            'Z' | 'z' => String::new(),
            'n' => "\n".into(),
            't' => "\t".into(),
            '%' => "%".into(),
            _ => return None,
        })
    }

    fn day_of_year(self) -> u64 {
        let before = (1..self.month).map(|month| u64::from(days_in_month(self.year, month)));
        before.sum::<u64>() + u64::from(self.day)
    }

    /// Days since Monday. 1 January of year 1 was a Monday.
    fn weekday(self) -> usize {
        let years = u64::from(self.year) - 1;
        let days = years * 365 + years / 4 - years / 100 + years / 400 + self.day_of_year() - 1;
        (days % 7) as usize
    }
}

fn strip_zeros(text: &str) -> &str {
    let stripped = text.trim_start_matches(['0', ' ']);
    if stripped.is_empty() { &text[text.len() - 1..] } else { stripped }
}

fn is_leap(year: u16) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn days_in_year(year: u16) -> u64 {
    if is_leap(year) { 366 } else { 365 }
}

fn days_in_month(year: u16, month: u8) -> u8 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

impl fmt::Display for Date {
    /// `2026-03-01`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }
}

impl From<Date> for String {
    fn from(date: Date) -> String {
        date.to_string()
    }
}

impl TryFrom<String> for Date {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl FromStr for Date {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a date of the form `2026-03-01`");
        let parts: Vec<&str> = text.split('-').collect();
        let [year, month, day] = parts[..] else { return Err(wrong()) };
        let date = (year.parse().ok()).zip(month.parse().ok()).zip(day.parse().ok());
        date.and_then(|((year, month), day)| Date::new(year, month, day)).ok_or_else(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(date: &str, format: &str, expected: &str) {
        let date: Date = date.parse().unwrap();
        assert_eq!(date.strftime(format), expected);
    }

    #[test]
    fn dates_are_written_as_python_does() {
        check("2026-03-01", "%d %b %Y", "01 Mar 2026");
        check("2026-03-01", "%B %-d, %Y, a %A (%a)", "March 1, 2026, a Sunday (Sun)");
        check("2024-02-29", "%Y-%m-%d %j %y", "2024-02-29 060 24");
        check("2000-01-01", "%A %H:%M:%S", "Saturday 00:00:00");
        check("1970-01-01", "%u %w %I %p %-H", "4 4 12 AM 0");
        check("2026-03-01", "100%% %Q %", "100% %Q %");
    }

    #[test]
    fn seconds_become_days() {
        for (seconds, expected) in [
            (0, "1970-01-01"),
            (86_399, "1970-01-01"),
            (951_782_400, "2000-02-29"),
            (1_772_323_200, "2026-03-01"),
            (u64::MAX, "9999-12-31"),
        ] {
            assert_eq!(Date::from_unix(seconds).to_string(), expected);
        }
    }

    #[test]
    fn what_is_no_date_is_refused() {
        for text in ["", "2026-02-29", "2026-13-01", "2026-1", "01/02/2026", "0-1-1"] {
            assert!(text.parse::<Date>().is_err(), "{text}");
        }
        let date = Date::new(2026, 3, 1).unwrap();
        assert_eq!(serde_json::from_str::<Date>("\"2026-03-01\"").unwrap(), date);
        assert_eq!(serde_json::to_string(&date).unwrap(), "\"2026-03-01\"");
    }
}
