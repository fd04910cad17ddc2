//! Accuracy by the lengths of both answers, and the finding of a length meter.

use serde::Serialize;

use super::{Pair, wins};
use crate::interval::{Interval, bootstrap};

/// Lengths that differ by at most this share of the longer one are about the same.
const SIMILAR: f64 = 0.1;

/// With fewer pairs that contradict length nothing can be said of them.
const FEWEST_OTHERS: usize = 10;

/// Accuracy above this is not near chance, even where its interval holds 0.5.
const NEAR_CHANCE: f64 = 0.6;

/// How long the chosen answer is beside the rejected one, in tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LengthGroup {
    /// Shorter by more than a tenth of the rejected answer.
    ChosenShorter,
    /// Within a tenth of the longer answer.
    Similar,
    /// Longer by more than a tenth of its own length.
    ChosenLonger,
}

/// The pairs of one group.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ByLength {
    /// Which group.
    pub group: LengthGroup,
    /// How many pairs it has.
    pub pairs: usize,
    /// The model's accuracy on them; `None` where there are none.
    pub accuracy: Option<Interval>,
}

/// What lengths say about a model's accuracy.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum LengthFinding {
    /// The model is right where length gives the answer away and near chance or worse elsewhere.
    Meter {
        /// Whether margins from before training are known, which training moved the same way.
        more_than_before: bool,
        /// `longer` or `shorter`: the answer that the model prefers.
        prefers: &'static str,
        /// How many pairs have that answer chosen.
        pairs: usize,
        /// The model's accuracy on them.
        accuracy: Interval,
        /// How many pairs do not.
        other_pairs: usize,
        /// The model's accuracy on those.
        other_accuracy: Interval,
    },
    /// Nearly all pairs have the longer (or the shorter) answer chosen, so a length meter
    /// would score the same.
    CannotTell {
        /// `longer` or `shorter`: the answer that is chosen.
        chosen: &'static str,
        /// How many pairs have that answer chosen.
        pairs: usize,
        /// How many pairs do not.
        other_pairs: usize,
    },
}

impl LengthGroup {
    fn of(pair: &Pair<'_>) -> Self {
        let (chosen, rejected) = (pair.chosen.tokens as f64, pair.rejected.tokens as f64);
        if (chosen - rejected).abs() <= SIMILAR * chosen.max(rejected) {
            Self::Similar
        } else if chosen < rejected {
            Self::ChosenShorter
        } else {
            Self::ChosenLonger
        }
    }
}

/// Accuracy in the three groups; `won` has an entry for every pair.
pub(super) fn by_length(pairs: &[Pair<'_>], won: &[f64], seed: u64) -> Vec<ByLength> {
    [LengthGroup::ChosenShorter, LengthGroup::Similar, LengthGroup::ChosenLonger]
        .into_iter()
        .map(|group| {
            let inside = |(pair, _): &(&Pair<'_>, &f64)| LengthGroup::of(pair) == group;
            let won: Vec<f64> = pairs.iter().zip(won).filter(inside).map(|(_, &won)| won).collect();
            let accuracy = (!won.is_empty()).then(|| bootstrap(&won, seed));
            ByLength { group, pairs: won.len(), accuracy }
        })
        .collect()
}

/// Whether the model only measures length, tried for both directions.
///
/// Rewards without a reference are log-probabilities, which go by the length under any model. So where margins from before
/// training are known, training must have moved them the same way. The moves alone would say little: a likelihood term
/// lifts unlikely answers most, long or short, without making the model prefer them.
pub(super) fn finding(pairs: &[Pair<'_>], won: &[f64], seed: u64) -> Option<LengthFinding> {
    let longer = |pair: &Pair<'_>| pair.chosen.tokens > pair.rejected.tokens;
    let shorter = |pair: &Pair<'_>| pair.chosen.tokens < pair.rejected.tokens;
    let moved: Option<Vec<f64>> =
        pairs.iter().map(|pair| Some(wins(pair.margin - pair.margin_begun?))).collect();
    let found = |name, is_chosen: &dyn Fn(&Pair<'_>) -> bool| {
        let found = direction(name, pairs, won, is_chosen, seed)?;
        let Some(moved) = &moved else { return Some(found) };
        match direction(name, pairs, moved, is_chosen, seed)? {
            LengthFinding::Meter { .. } => Some(found.since_training()),
            cannot_tell @ LengthFinding::CannotTell { .. } => Some(cannot_tell),
        }
    };
    found("longer", &longer).or_else(|| found("shorter", &shorter))
}

impl LengthFinding {
    /// The same where margins from before training were compared.
    fn since_training(mut self) -> Self {
        if let LengthFinding::Meter { more_than_before, .. } = &mut self {
            *more_than_before = true;
        }
        self
    }
}

fn direction(
    name: &'static str,
    pairs: &[Pair<'_>],
    won: &[f64],
    is_chosen: impl Fn(&Pair<'_>) -> bool,
    seed: u64,
) -> Option<LengthFinding> {
    let side = |expected: bool| -> Vec<f64> {
        let inside = |(pair, _): &(&Pair<'_>, &f64)| is_chosen(pair) == expected;
        pairs.iter().zip(won).filter(inside).map(|(_, &won)| won).collect()
    };
    let (along, others) = (side(true), side(false));
    if along.len() < FEWEST_OTHERS {
        return None;
    }
    if others.len() < FEWEST_OTHERS {
        return Some(LengthFinding::CannotTell {
            chosen: name,
            pairs: along.len(),
            other_pairs: others.len(),
        });
    }
    let (accuracy, other_accuracy) = (bootstrap(&along, seed), bootstrap(&others, seed));
    let near_chance = other_accuracy.low <= 0.5 && other_accuracy.mean <= NEAR_CHANCE;
    (accuracy.low > 0.5 && near_chance && accuracy.clear_of(&other_accuracy)).then_some(
        LengthFinding::Meter {
            more_than_before: false,
            prefers: name,
            pairs: along.len(),
            accuracy,
            other_pairs: others.len(),
            other_accuracy,
        },
    )
}
