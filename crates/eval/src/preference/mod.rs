//! Did preference training learn more than trivial rules, or is it only a length meter?
//!
//! ```text
//! rules         held-out pairs -> what answers by length, base or words score
//! bag_of_words  training pairs -> a linear classifier of words
//! logistic      sparse rows    -> its weights
//! calibration   margins        -> whether they mean what they say
//! length        margins, lengths -> accuracy by length, the finding of a length meter
//! text          a report       -> what a person reads
//! ```
//!
//! Everything is measured on the same held-out pairs, whose prompts are not those of
//! training. The bag of words learns from the training pairs.

pub mod bag_of_words;
mod calibration;
mod length;
mod logistic;
mod rules;
mod text;

use serde::Serialize;

pub use calibration::{Bin, Calibration};
pub use length::{ByLength, LengthFinding, LengthGroup};
pub use rules::{Rule, Verdict};

use crate::interval::{Interval, bootstrap, percentile};
use crate::{Error, Result};

/// With fewer held-out pairs than these a report has no verdict and no finding.
pub const FEWEST_PAIRS: usize = 20;

/// One answer of a held-out pair.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// Its text.
    pub text: &'a str,
    /// Its length in tokens.
    pub tokens: usize,
    /// The base's log-prob of the answer, summed over its tokens; `None` where it was not
    /// computed, and then for all answers.
    pub base_logprob: Option<f64>,
}

/// A held-out pair and what the trained model makes of it.
#[derive(Clone, Copy, Debug)]
pub struct Pair<'a> {
    /// Reward of the chosen answer less that of the rejected one: implicit rewards, or the
    /// scores of a reward model. Its sigmoid is the model's probability of the choice.
    pub margin: f64,
    /// The same before training, where rewards have no reference and so hold what the model preferred anyway.
    pub margin_begun: Option<f64>,
    /// The better answer.
    pub chosen: Answer<'a>,
    /// The worse answer.
    pub rejected: Answer<'a>,
}

/// The texts of a training pair.
#[derive(Clone, Copy, Debug)]
pub struct TrainingPair<'a> {
    /// The better answer.
    pub chosen: &'a str,
    /// The worse answer.
    pub rejected: &'a str,
}

/// The mean of the margins and where they lie.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Margins {
    /// Their mean.
    pub mean: f64,
    /// A quarter of them lie below.
    pub lower_quartile: f64,
    /// Half of them lie below.
    pub median: f64,
    /// Three quarters of them lie below.
    pub upper_quartile: f64,
}

/// What a model knows of held-out pairs, beside what trivial rules know.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// How many held-out pairs there are.
    pub pairs: usize,
    /// How many of them have a margin of 0.
    pub ties: usize,
    /// How many training pairs there are, and how many of these the bag of words learned from.
    pub training_pairs: TrainingPairs,
    /// Share of pairs whose chosen answer has the higher reward; a tie is half.
    pub accuracy: Interval,
    /// The margins themselves.
    pub margins: Margins,
    /// Whether the margins are the probabilities that they claim to be.
    pub calibration: Calibration,
    /// Accuracy where the chosen answer is shorter, about as long, and longer.
    pub by_length: Vec<ByLength>,
    /// The trivial rules on the same pairs.
    pub rules: Vec<Rule>,
    /// Whether the model is clear of them.
    pub verdict: Verdict,
    /// Whether the model only measures length.
    pub length: Option<LengthFinding>,
}

/// The pairs that the bag of words saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct TrainingPairs {
    /// All of them.
    pub all: usize,
    /// Those it learned from: evenly chosen where there are more than [`bag_of_words::MOST_PAIRS`].
    pub used: usize,
}

/// 1 where the chosen answer has the higher reward, 0 where it has the lower one, half for a tie.
pub fn wins(margin: f64) -> f64 {
    if margin == 0.0 { 0.5 } else { f64::from(u8::from(margin > 0.0)) }
}

/// Compares a model with the trivial rules; `None` without held-out pairs.
///
/// `seed` is for the resampling of the intervals. Without training pairs, or without
/// words in them, the rules have no bag of words; without the base's log-probs they lack its two rules.
///
/// # Errors
///
/// A margin or a log-prob is not finite.
pub fn report(
    held_out: &[Pair<'_>],
    training: &[TrainingPair<'_>],
    seed: u64,
) -> Result<Option<Report>> {
    check(held_out)?;
    if held_out.is_empty() {
        return Ok(None);
    }
    let margins: Vec<f64> = held_out.iter().map(|pair| pair.margin).collect();
    let won: Vec<f64> = margins.iter().map(|&margin| wins(margin)).collect();
    let words = bag_of_words::BagOfWords::fit(training);
    let rules = rules::rules(held_out, &won, words.as_ref(), seed);
    let enough = held_out.len() >= FEWEST_PAIRS;
    Ok(Some(Report {
        pairs: held_out.len(),
        ties: margins.iter().filter(|&&margin| margin == 0.0).count(),
        training_pairs: TrainingPairs {
            all: training.len(),
            used: training.len().min(bag_of_words::MOST_PAIRS),
        },
        accuracy: bootstrap(&won, seed),
        calibration: Calibration::of(&margins),
        margins: Margins::of(margins),
        by_length: length::by_length(held_out, &won, seed),
        verdict: rules::verdict(held_out.len(), &rules),
        rules,
        length: if enough { length::finding(held_out, &won, seed) } else { None },
    }))
}

fn check(held_out: &[Pair<'_>]) -> Result<()> {
    let has_base = held_out.first().is_some_and(|pair| pair.chosen.base_logprob.is_some());
    for (index, pair) in held_out.iter().enumerate() {
        let error = |problem: String| Error::HeldOutPair { pair: index + 1, problem };
        if !pair.margin.is_finite() {
            return Err(error(format!("the margin is {}", pair.margin)));
        }
        if let Some(margin) = pair.margin_begun.filter(|margin| !margin.is_finite()) {
            return Err(error(format!("the margin before training is {margin}")));
        }
        for (side, answer) in [("chosen", &pair.chosen), ("rejected", &pair.rejected)] {
            assert_eq!(answer.base_logprob.is_some(), has_base, "all log-probs or none");
            if let Some(logprob) = answer.base_logprob.filter(|logprob| !logprob.is_finite()) {
                return Err(error(format!(
                    "the base's log-prob of the {side} answer is {logprob}"
                )));
            }
        }
    }
    Ok(())
}

impl Margins {
    fn of(mut margins: Vec<f64>) -> Self {
        let mean = margins.iter().sum::<f64>() / margins.len() as f64;
        margins.sort_by(f64::total_cmp);
        let [lower_quartile, median, upper_quartile] =
            [0.25, 0.5, 0.75].map(|share| percentile(&margins, share));
        Self { mean, lower_quartile, median, upper_quartile }
    }
}
