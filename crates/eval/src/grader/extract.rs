//! The part of a text that is the answer: behind `Answer:`, within `<answer>`, within `\boxed{}`.

use super::latex;
use super::options::Options;
use crate::Result;

/// Name of the option that graders share.
pub(super) const EXTRACT: &str = "extract";

/// Where the answer is. Of several places the last one counts.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum Extract {
    /// The whole text.
    #[default]
    Whole,
    /// Within `\boxed{}`.
    Boxed,
    /// Between an opening and a closing tag.
    Tag { open: String, close: String },
    /// Behind a marker, whose letters may be of either case, up to the end of its line. Where nothing else is on that
    /// line, the next line with text on it.
    After { marker: String },
}

impl Extract {
    /// Reads `extract`: `boxed`, a tag such as `<answer>`, or any other text as a marker.
    pub(super) fn from_options(options: &Options<'_>) -> Result<Self> {
        let Some(place) = options.text(EXTRACT)? else { return Ok(Self::Whole) };
        if place.trim().is_empty() {
            let hint = "name a marker such as `Answer:`, a tag such as `<answer>`, or `boxed`";
            return Err(options.error("`extract` is blank".to_owned(), hint));
        }
        let tag = place.strip_prefix('<').and_then(|rest| rest.strip_suffix('>'));
        Ok(match tag {
            Some(name) if !name.is_empty() && !name.contains(['<', '>', '/']) => {
                Self::Tag { open: place.to_owned(), close: format!("</{name}>") }
            }
            _ if place == "boxed" => Self::Boxed,
            _ => Self::After { marker: place.to_ascii_lowercase() },
        })
    }

    /// The answer within a text, without space around it; `None` where its place is missing.
    pub(super) fn find<'a>(&self, text: &'a str) -> Option<&'a str> {
        match self {
            Self::After { .. } => {
                let behind = self.rest(text)?;
                behind.lines().map(unmarked).find(|line| !line.is_empty())
            }
            _ => self.rest(text),
        }
    }

    /// As [`Extract::find`], but behind a marker everything up to the end of the text.
    pub(super) fn rest<'a>(&self, text: &'a str) -> Option<&'a str> {
        let found = match self {
            Self::Whole => Some(text),
            Self::Boxed => latex::boxed(text),
            Self::Tag { open, close } => {
                let end = text.rfind(close)?;
                let start = text[..end].rfind(open)? + open.len();
                Some(&text[start..end])
            }
            Self::After { marker } => {
                let start = text.to_ascii_lowercase().rfind(marker)? + marker.len();
                Some(&text[start..])
            }
        };
        found.map(str::trim)
    }

    /// The answer of a reference, which may be written with the marker or without it.
    pub(super) fn reference<'a>(&self, text: &'a str) -> &'a str {
        self.find(text).unwrap_or(text)
    }
}

/// A line without the marks that Markdown puts around bold words and code.
pub(super) fn unmarked(line: &str) -> &str {
    line.trim_matches(|c: char| c.is_whitespace() || c == '*' || c == '`')
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

    use super::*;

    fn extract(place: &str) -> Extract {
        let given = Map::from_iter([(EXTRACT.to_owned(), json!(place))]);
        Extract::from_options(&Options::new("exact", &[EXTRACT], &given).unwrap()).unwrap()
    }

    #[test]
    fn answers_are_found() {
        let check = |place: &str, text: &str, expected: Option<&str>| {
            assert_eq!(extract(place).find(text), expected, "{place}: {text:?}");
        };
        check("<answer>", "<think>5?</think><answer> 6 </answer>", Some("6"));
        check("<answer>", "<answer>1</answer> no: <answer>2</answer>", Some("2"));
        check("<answer>", "<answer>1</answer> or <answer>2", Some("1"));
        check("<answer>", "<answer></answer>", Some(""));
        check("<answer>", "<answer>6", None);
        check("<answer>", "6</answer>", None);
        check("Answer:", "Answer: 5\nSo it is.", Some("5"));
        check("Answer:", "ANSWER: 5\nfinal answer: 6", Some("6"));
        check("Answer:", "**Answer:** `5`", Some("5"));
        check("Answer:", "Answer:\n\n  5 \nmore", Some("5"));
        check("Answer:", "Answer:", None);
        check("Answer:", "5", None);
        check("####", "a\n#### 18", Some("18"));
        check("Lösung:", "Die Lösung: 3", Some("3"));
        check("boxed", r"so \boxed{\frac{1}{2}}.", Some(r"\frac{1}{2}"));
        check("boxed", r"so \boxed{\frac{1}{2}", None);
        check("<", "a < b", Some("b"));
    }

    #[test]
    fn behind_a_marker_is_a_line_or_the_rest() {
        let text = "Answer: {\n  \"a\": 1\n}";
        assert_eq!(extract("Answer:").find(text), Some("{"));
        assert_eq!(extract("Answer:").rest(text), Some("{\n  \"a\": 1\n}"));
    }

    #[test]
    fn a_reference_may_lack_the_marker() {
        assert_eq!(extract("####").reference("9*2\n#### 18"), "18");
        assert_eq!(extract("####").reference("18"), "18");
    }
}
