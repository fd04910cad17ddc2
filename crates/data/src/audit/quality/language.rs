//! Which languages a set is in.
//!
//! A guess over a whole set (see [`text::language`]), which is why rows do not get one each.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use text::language::told;

use super::super::AuditText;
use crate::finding::Kind;
use crate::{Findings, Level};

/// Rows in several languages.
pub const LANGUAGES: Kind = Kind {
    id: "language-mix",
    level: Level::Note,
    message: "the rows are in several languages",
    hint: "the model answers in the language of its data: check that the mix is meant",
};

/// Bytes of a row that are looked at.
const LOOKED_AT: usize = 500;
/// A language counts when it has this share of the rows, in percent.
const MIN_PERCENT: usize = 1;

/// Rows by language, over a whole set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tally {
    rows: usize,
    languages: BTreeMap<String, usize>,
}

impl Tally {
    /// Counts a row.
    pub fn add(&mut self, text: &AuditText) {
        self.rows += 1;
        let answer = language(&text.answer);
        if let Some(language) = answer.or_else(|| language(&text.prompt)) {
            *self.languages.entry(language.to_owned()).or_default() += 1;
        }
    }

    /// Adds the counts of other rows.
    pub fn merge(&mut self, other: Tally) {
        self.rows += other.rows;
        for (language, count) in other.languages {
            *self.languages.entry(language).or_default() += count;
        }
    }

    /// Rows by language, the commonest first. Rows too short to tell are in none.
    pub fn languages(&self) -> Vec<(&str, usize)> {
        let mut languages: Vec<_> =
            self.languages.iter().map(|(name, &count)| (name.as_str(), count)).collect();
        languages.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
        languages
    }

    /// Remarks on the set as a whole.
    pub fn findings(&self, findings: &mut Findings) {
        let told: usize = self.languages.values().sum();
        let mut languages = self.languages();
        languages.retain(|(_, count)| count * 100 >= told * MIN_PERCENT);
        if languages.len() < 2 {
            return;
        }
        let percent = |count: usize| (count * 100 + told / 2) / told;
        let shares: Vec<String> = languages
            .iter()
            .map(|&(name, count)| format!("`{name}` {} %", percent(count)))
            .collect();
        let message = format!("{}: {}", LANGUAGES.message, shares.join(", "));
        let others: usize = languages[1..].iter().map(|(_, count)| count).sum();
        findings.add_many(&LANGUAGES, others, [], message);
    }
}

/// The language that the beginning of a text shows.
fn language(text: &str) -> Option<&'static str> {
    told(&text[..text.floor_char_boundary(LOOKED_AT)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mix_is_told_with_its_shares() {
        let text = |answer: &str| AuditText { prompt: String::new(), answer: answer.into() };
        let (mut left, mut right) = (Tally::default(), Tally::default());
        (0..90).for_each(|_| left.add(&text("The fox is in the garden and it sleeps.")));
        let mut findings = Findings::default();
        left.findings(&mut findings);
        assert!(findings.is_empty());
        (0..10).for_each(|_| right.add(&text("Der Fuchs ist im Garten und das ist gut.")));
        right.add(&text("42"));
        left.merge(right);
        assert_eq!(left.languages(), [("en", 90), ("de", 10)]);
        left.findings(&mut findings);
        let finding = findings.get("language-mix").unwrap();
        assert_eq!(finding.count, 10);
        assert!(finding.message.ends_with("`en` 90 %, `de` 10 %"), "{}", finding.message);
    }
}
