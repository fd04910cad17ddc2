//! What a set of preferences teaches beside the preference.

use serde::{Deserialize, Serialize};

use crate::finding::Kind;
use crate::{Findings, Level, Place};

/// The longer answer is chosen too often.
pub const LENGTH_BIAS: Kind = Kind {
    id: "length-bias",
    level: Level::Warning,
    message: "the longer answer is nearly always the chosen one",
    hint: "the model learns to write more: balance the pairs, or use a loss normalised by length",
};
/// The shorter answer is chosen too often.
pub const BREVITY_BIAS: Kind = Kind {
    id: "brevity-bias",
    level: Level::Warning,
    message: "the shorter answer is nearly always the chosen one",
    hint: "the model learns to write less: balance the pairs, or use a loss normalised by length",
};
/// There is no prompt.
pub const WITHOUT_PROMPT: Kind = Kind {
    id: "answers-without-prompt",
    level: Level::Warning,
    message: "answers are compared that answer no prompt",
    hint: "check that the prompt's column was found: `columns: {prompt: ...}` names it",
};
/// The rejected answer has the higher score.
pub const SCORES_AGAINST: Kind = Kind {
    id: "scores-against-choice",
    level: Level::Warning,
    message: "the rejected answer has a higher score than the chosen one",
    hint: "check which way the scores run and how pairs were made of them",
};
/// All scores are the same.
pub const SCORES_FLAT: Kind = Kind {
    id: "scores-without-range",
    level: Level::Warning,
    message: "all scores are the same",
    hint: "scores that never differ tell nothing: check the column",
};

/// Pairs of unequal length from which a bias is told.
const MIN_PAIRS: usize = 50;
/// The share of pairs, in percent, from which there is a bias.
const BIASED: usize = 75;
/// Places that are kept of a finding.
const NAMED: usize = 5;

/// One preference.
#[derive(Clone, Copy, Debug)]
pub struct Pair<'a> {
    /// What was asked.
    pub prompt: &'a str,
    /// The better answer.
    pub chosen: &'a str,
    /// The worse answer.
    pub rejected: &'a str,
    /// Their scores, where there are any.
    pub scores: Option<(f64, f64)>,
}

/// Counts over a set of preferences. Merged in the order of the rows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tally {
    /// Number of pairs.
    pub pairs: usize,
    /// Pairs of which the chosen answer is longer, in characters.
    pub chosen_longer: usize,
    /// Pairs of which the rejected answer is longer.
    pub rejected_longer: usize,
    /// Pairs of which both answers are the same text.
    pub identical: usize,
    /// Characters of all chosen answers.
    pub chosen_characters: u64,
    /// Characters of all rejected answers.
    pub rejected_characters: u64,
    /// Pairs without a prompt.
    pub without_prompt: usize,
    /// Number of pairs with scores.
    pub scored: usize,
    /// The lowest and the highest score.
    pub range: Option<(f64, f64)>,
    /// Rows are named where they are read: places are not kept.
    #[serde(skip)]
    against: Places,
}

/// A number of rows, of which a few are named.
#[derive(Clone, Debug, Default, PartialEq)]
struct Places {
    count: usize,
    first: Vec<Place>,
}

impl Places {
    fn add(&mut self, place: &Place) {
        self.count += 1;
        if self.first.len() < NAMED {
            self.first.push(place.clone());
        }
    }

    fn merge(&mut self, other: Places) {
        self.count += other.count;
        self.first.extend(other.first);
        self.first.truncate(NAMED);
    }

    fn report(&self, kind: &Kind, findings: &mut Findings) {
        if self.count > 0 {
            let places = self.first.iter().cloned();
            findings.add_many(kind, self.count, places, kind.message.to_owned());
        }
    }
}

impl Tally {
    /// Counts a pair.
    pub fn add(&mut self, pair: &Pair, place: &Place) {
        let chosen = pair.chosen.chars().count();
        let rejected = pair.rejected.chars().count();
        self.pairs += 1;
        self.chosen_longer += usize::from(chosen > rejected);
        self.rejected_longer += usize::from(rejected > chosen);
        self.identical += usize::from(pair.chosen == pair.rejected);
        self.chosen_characters += chosen as u64;
        self.rejected_characters += rejected as u64;
        self.without_prompt += usize::from(pair.prompt.trim().is_empty());
        if let Some((chosen, rejected)) = pair.scores {
            self.scored += 1;
            self.widen((chosen.min(rejected), chosen.max(rejected)));
            if rejected > chosen {
                self.against.add(place);
            }
        }
    }

    /// Adds the counts of later rows.
    pub fn merge(&mut self, other: Tally) {
        self.pairs += other.pairs;
        self.chosen_longer += other.chosen_longer;
        self.rejected_longer += other.rejected_longer;
        self.identical += other.identical;
        self.chosen_characters += other.chosen_characters;
        self.rejected_characters += other.rejected_characters;
        self.without_prompt += other.without_prompt;
        self.scored += other.scored;
        other.range.into_iter().for_each(|range| self.widen(range));
        self.against.merge(other.against);
    }

    fn widen(&mut self, (low, high): (f64, f64)) {
        let (lowest, highest) = self.range.unwrap_or((low, high));
        self.range = Some((lowest.min(low), highest.max(high)));
    }

    /// How much longer chosen answers are than rejected ones, in the mean over all characters.
    pub fn length_ratio(&self) -> Option<f64> {
        let some = self.rejected_characters > 0;
        some.then(|| self.chosen_characters as f64 / self.rejected_characters as f64)
    }

    /// Remarks on the rows that were counted here.
    pub fn row_findings(&self, findings: &mut Findings) {
        self.against.report(&SCORES_AGAINST, findings);
    }

    /// Remarks on the set.
    pub fn findings(&self, findings: &mut Findings) {
        if self.without_prompt > 0 {
            let message = WITHOUT_PROMPT.message.to_owned();
            findings.add_many(&WITHOUT_PROMPT, self.without_prompt, [], message);
        }
        let unequal = self.chosen_longer + self.rejected_longer;
        let sides = [(&LENGTH_BIAS, self.chosen_longer), (&BREVITY_BIAS, self.rejected_longer)];
        for (kind, count) in sides {
            if unequal >= MIN_PAIRS && count * 100 >= unequal * BIASED {
                findings.add_many(kind, count, [], self.bias(kind, count, unequal));
            }
        }
        if self.scored > 1 && self.range.is_some_and(|(low, high)| low == high) {
            findings.add_many(&SCORES_FLAT, self.scored, [], SCORES_FLAT.message.to_owned());
        }
    }

    fn bias(&self, kind: &Kind, count: usize, unequal: usize) -> String {
        let percent = count * 100 / unequal;
        let ratio = self.length_ratio();
        let ratio = ratio.map_or(String::new(), |ratio| {
            format!(", chosen answers have {ratio:.2} times the characters of rejected ones")
        });
        format!("{}: in {percent} % of the pairs{ratio}", kind.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(line: usize) -> Place {
        Place { file: std::path::Path::new("a.jsonl").into(), line, element: None }
    }

    type Answers<'a> = (&'a str, &'a str, Option<(f64, f64)>);

    fn tally(pairs: &[Answers<'_>]) -> Tally {
        let mut tally = Tally::default();
        for (index, &(chosen, rejected, scores)) in pairs.iter().enumerate() {
            tally.add(&Pair { prompt: "p", chosen, rejected, scores }, &place(index + 1));
        }
        tally
    }

    #[track_caller]
    fn check(tally: &Tally, expected: &[(&str, usize)]) {
        let mut findings = Findings::default();
        tally.row_findings(&mut findings);
        tally.findings(&mut findings);
        let found: Vec<(&str, usize)> =
            findings.iter().map(|finding| (&*finding.id, finding.count)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn lengths_are_compared_over_the_set() {
        check(&tally(&[("long one", "short", None); 49]), &[]);
        check(&tally(&[("long one", "short", None); 50]), &[("length-bias", 50)]);
        check(&tally(&[("short", "long one", None); 50]), &[("brevity-bias", 50)]);
        let mixed = [[("long one", "short", None); 35], [("short", "long one", None); 35]].concat();
        check(&tally(&mixed), &[]);
        assert_eq!(tally(&[("aaaa", "bb", None)]).length_ratio(), Some(2.0));
        assert_eq!(tally(&[]).length_ratio(), None);
        let same = tally(&[("a", "a", None), ("a", "b", None)]);
        assert_eq!((same.identical, same.chosen_longer + same.rejected_longer), (1, 0));
    }

    #[test]
    fn pairs_that_teach_nothing_are_named() {
        let mut unasked = Tally::default();
        let (chosen, rejected, scores) = ("a", "b", None);
        unasked.add(&Pair { prompt: " ", chosen, rejected, scores }, &place(1));
        check(&unasked, &[("answers-without-prompt", 1)]);
        let scored = tally(&[("a", "b", Some((1.0, 4.0))), ("c", "d", Some((3.0, 2.0)))]);
        check(&scored, &[("scores-against-choice", 1)]);
        assert_eq!(scored.range, Some((1.0, 4.0)));
        check(&tally(&[("a", "b", Some((1.0, 1.0))); 2]), &[("scores-without-range", 2)]);
    }

    #[test]
    fn merging_equals_counting_on() {
        let pairs = [("a", "a", Some((1.0, 2.0))), ("b", "cc", None), ("d", "d", Some((0.5, 0.1)))];
        let whole = tally(&pairs);
        let mut parts = tally(&pairs[..1]);
        let mut later = Tally::default();
        for (index, &(chosen, rejected, scores)) in pairs.iter().enumerate().skip(1) {
            later.add(&Pair { prompt: "p", chosen, rejected, scores }, &place(index + 1));
        }
        parts.merge(later);
        assert_eq!(parts, whole);
    }
}
