//! Rules that know nothing of preferences, and the model beside them.

use serde::Serialize;

use super::bag_of_words::BagOfWords;
use super::{Answer, FEWEST_PAIRS, Pair, wins};
use crate::interval::{Interval, bootstrap, paired_difference};

/// What a trivial rule scores on the held-out pairs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Rule {
    /// What it goes by.
    pub name: &'static str,
    /// Share of pairs whose chosen answer it picks; a tie is half.
    pub accuracy: Interval,
    /// The model's accuracy less the rule's, pair by pair.
    pub difference: Interval,
}

/// Whether a model learned more than the trivial rules know.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum Verdict {
    /// There are too few held-out pairs to say.
    TooFewPairs {
        /// How many there are.
        pairs: usize,
        /// How many there must be.
        needed: usize,
    },
    /// The interval of the difference from this rule holds 0, or lies below it.
    NotClear {
        /// The rule that the model is least clear of.
        rule: &'static str,
        /// The model's accuracy less the rule's.
        difference: Interval,
    },
    /// The intervals of the differences from all rules lie above 0.
    Clear {
        /// The rule that comes closest.
        rule: &'static str,
        /// The model's accuracy less the rule's.
        difference: Interval,
    },
}

impl Verdict {
    /// Whether the model is better than every trivial rule beyond doubt.
    pub fn is_clear(&self) -> bool {
        matches!(self, Self::Clear { .. })
    }
}

/// All rules that the pairs allow, in a fixed order; `won` is the model's on every pair.
pub(super) fn rules(
    pairs: &[Pair<'_>],
    won: &[f64],
    words: Option<&BagOfWords>,
    seed: u64,
) -> Vec<Rule> {
    let by = |value: fn(&Answer<'_>) -> Option<f64>| -> Option<Vec<f64>> {
        pairs.iter().map(|pair| Some(wins(value(&pair.chosen)? - value(&pair.rejected)?))).collect()
    };
    let columns = [
        ("longer wins", by(|answer| Some(answer.tokens as f64))),
        ("shorter wins", by(|answer| Some(-(answer.tokens as f64)))),
        ("base's log-prob", by(|answer| answer.base_logprob)),
        ("base's log-prob per token", by(per_token)),
        (
            "bag of words",
            words.map(|words| pairs.iter().map(|pair| by_words(words, pair)).collect()),
        ),
    ];
    let rule = |(name, column): (&'static str, Option<Vec<f64>>)| {
        let column = column?;
        let difference = paired_difference(won, &column, seed);
        Some(Rule { name, accuracy: bootstrap(&column, seed), difference })
    };
    columns.into_iter().filter_map(rule).collect()
}

/// An answer without tokens has a log-prob of 0 either way.
fn per_token(answer: &Answer<'_>) -> Option<f64> {
    answer.base_logprob.map(|logprob| logprob / answer.tokens.max(1) as f64)
}

fn by_words(words: &BagOfWords, pair: &Pair<'_>) -> f64 {
    wins(words.margin(pair.chosen.text, pair.rejected.text))
}

/// The model against the rule that it is least clear of: the one whose difference has the
/// lowest lower bound.
///
/// That is nearly always the best rule. Comparing with the best one only would let a model
/// pass that is not clear of the second best, whose errors lie elsewhere. A coin needs no rule of its own:
/// `longer wins` and `shorter wins` add up to 1, so one of them is not below one half.
pub(super) fn verdict(pairs: usize, rules: &[Rule]) -> Verdict {
    let lowest = |a: &&Rule, b: &&Rule| a.difference.low.total_cmp(&b.difference.low);
    match rules.iter().min_by(lowest) {
        Some(&Rule { name: rule, difference, .. }) if pairs >= FEWEST_PAIRS => {
            if difference.low > 0.0 {
                Verdict::Clear { rule, difference }
            } else {
                Verdict::NotClear { rule, difference }
            }
        }
        _ => Verdict::TooFewPairs { pairs, needed: FEWEST_PAIRS },
    }
}
