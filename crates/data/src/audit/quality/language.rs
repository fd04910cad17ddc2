//! Which languages a set is in.
//!
//! Scripts tell most languages, common words the large ones in Latin script.
//! A guess over a whole set, which is why rows do not get one each.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

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
/// Common words from which a language is told.
const MIN_WORDS: usize = 3;
/// A language counts when it has this share of the rows, in percent.
const MIN_PERCENT: usize = 1;

/// Languages in Latin script with words that are common there and rare in the others.
const WORDS: [(&str, [&str; 12]); 6] = [
    ("en", ["the", "and", "is", "of", "to", "that", "with", "this", "you", "are", "it", "for"]),
    ("de", ["der", "die", "und", "das", "ist", "nicht", "ein", "mit", "zu", "auf", "ich", "eine"]),
    ("fr", ["le", "les", "et", "est", "des", "une", "que", "pour", "dans", "du", "je", "pas"]),
    ("es", ["el", "los", "y", "es", "que", "una", "por", "para", "del", "las", "con", "como"]),
    ("it", ["il", "di", "che", "è", "per", "una", "della", "con", "sono", "gli", "non", "le"]),
    ("pt", ["o", "os", "e", "que", "um", "uma", "não", "para", "com", "do", "da", "em"]),
];

/// Scripts with their ranges and what stands for them.
const SCRIPTS: [(&str, &[(u32, u32)]); 9] = [
    ("ru", &[(0x400, 0x52f)]),
    ("el", &[(0x370, 0x3ff)]),
    ("he", &[(0x590, 0x5ff)]),
    ("ar", &[(0x600, 0x6ff)]),
    ("hi", &[(0x900, 0x97f)]),
    ("th", &[(0xe00, 0xe7f)]),
    ("ja", &[(0x3040, 0x30ff)]),
    ("ko", &[(0xac00, 0xd7af)]),
    ("zh", &[(0x4e00, 0x9fff)]),
];

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

/// The language of a text as its ISO 639-1 code, if it shows.
fn language(text: &str) -> Option<&'static str> {
    let text = &text[..text.floor_char_boundary(LOOKED_AT)];
    if !text.is_ascii()
        && let Some(script) = script(text)
    {
        return Some(script);
    }
    let mut votes = [0; WORDS.len()];
    for word in text.split(|character: char| !character.is_alphabetic()) {
        // No common word is longer.
        if !(1..=5).contains(&word.len()) {
            continue;
        }
        for (vote, (_, words)) in votes.iter_mut().zip(&WORDS) {
            *vote += usize::from(words.iter().any(|common| word.eq_ignore_ascii_case(common)));
        }
    }
    let most = *votes.iter().max()?;
    let mut first = votes.iter().zip(&WORDS).filter(|(vote, _)| **vote == most);
    let (_, (name, _)) = first.next()?;
    (most >= MIN_WORDS && first.next().is_none()).then_some(name)
}

/// What the script tells where a quarter of the letters are not Latin. Kana make Japanese of
/// Chinese characters.
fn script(text: &str) -> Option<&'static str> {
    let mut counts = [0_usize; SCRIPTS.len()];
    let mut letters = 0;
    for character in text.chars().filter(|character| character.is_alphabetic()) {
        letters += 1;
        let code = u32::from(character);
        if code < 0x370 {
            continue;
        }
        let within = |ranges: &[(u32, u32)]| ranges.iter().any(|&(a, b)| (a..=b).contains(&code));
        if let Some(index) = SCRIPTS.iter().position(|(_, ranges)| within(ranges)) {
            counts[index] += 1;
        }
    }
    let all: usize = counts.iter().sum();
    if all == 0 || all * 4 < letters {
        return None;
    }
    let name = |index: usize| SCRIPTS[index].0;
    let most = (0..SCRIPTS.len()).max_by_key(|&index| counts[index])?;
    let kana = (0..SCRIPTS.len()).find(|&index| name(index) == "ja")?;
    let is_japanese = name(most) == "zh" && counts[kana] * 10 >= counts[most];
    Some(if is_japanese { "ja" } else { name(most) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<&str>) {
        assert_eq!(language(text), expected, "{text}");
    }

    #[test]
    fn languages_are_told_by_script_and_words() {
        check("The fox is in the garden and it sleeps.", Some("en"));
        check("Der Fuchs ist im Garten und das ist nicht gut.", Some("de"));
        check("Le renard est dans le jardin et je ne le vois pas.", Some("fr"));
        check("El zorro está en el jardín y los perros duermen por la noche.", Some("es"));
        check("Il gatto che è nella casa non è mio, ma sono amici.", Some("it"));
        check("O gato não está em casa e os cães dormem com uma bola.", Some("pt"));
        check("Лиса спит в саду.", Some("ru"));
        check("狐狸在花园里睡觉。", Some("zh"));
        check("狐は庭で寝ています。", Some("ja"));
        check("여우가 정원에서 잔다.", Some("ko"));
        check("42", None);
        check("ok", None);
        check("", None);
    }

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
