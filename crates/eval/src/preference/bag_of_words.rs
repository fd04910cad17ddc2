//! A classifier that sees which words an answer has, and nothing else.

use std::collections::{BTreeMap, HashMap};

use unicode_segmentation::UnicodeSegmentation as _;

use super::TrainingPair;
use super::logistic::{self, Row};

/// Only words among the most frequent ones of the training answers count.
pub const MOST_WORDS: usize = 20_000;

/// It learns from this many pairs at most, so that its time stays bounded.
pub const MOST_PAIRS: usize = 20_000;

/// Strength of the L2 penalty; scikit-learn's default.
const L2: f64 = 1.0;

/// Logistic regression on the words of both answers.
///
/// A word's feature is `ln(1 + count)` in the chosen answer less the same in the rejected
/// one. Words are those of Unicode (UAX 29) in lower case. There is no intercept, so swapping
/// the answers changes the sign only.
#[derive(Debug)]
pub struct BagOfWords {
    /// Place of every word in `weights`.
    places: HashMap<String, u32>,
    weights: Vec<f64>,
}

impl BagOfWords {
    /// Learns from training pairs; `None` where their answers have no words.
    ///
    /// The same pairs in the same order give the same bits.
    pub fn fit(training: &[TrainingPair<'_>]) -> Option<Self> {
        let used = training.len().min(MOST_PAIRS);
        // Evenly over all pairs: files are often sorted by source.
        let pairs: Vec<&TrainingPair<'_>> =
            (0..used).map(|index| &training[index * training.len() / used]).collect();
        let places = vocabulary(&pairs);
        if places.is_empty() {
            return None;
        }
        let rows: Vec<Row> =
            pairs.iter().map(|pair| row(&places, pair.chosen, pair.rejected)).collect();
        let weights = logistic::fit(&rows, places.len(), L2);
        Some(Self { places, weights })
    }

    /// The log-odds that `chosen` is the better answer; 0 where only unknown words differ.
    pub fn margin(&self, chosen: &str, rejected: &str) -> f64 {
        logistic::dot(&row(&self.places, chosen, rejected), &self.weights)
    }

    /// The weight of a word in lower case, where it is known.
    pub fn weight(&self, word: &str) -> Option<f64> {
        self.places.get(word).map(|&place| self.weights[place as usize])
    }
}

fn words(text: &str) -> impl Iterator<Item = String> {
    text.unicode_words().map(str::to_lowercase)
}

/// Places of the most frequent words; of equally frequent ones the first by name.
fn vocabulary(pairs: &[&TrainingPair<'_>]) -> HashMap<String, u32> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for text in pairs.iter().flat_map(|pair| [pair.chosen, pair.rejected]) {
        for word in words(text) {
            *counts.entry(word).or_default() += 1;
        }
    }
    let mut counts: Vec<(String, usize)> = counts.into_iter().collect();
    // Stable: words come out of the tree by name.
    counts.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
    counts.truncate(MOST_WORDS);
    counts.into_iter().zip(0..).map(|((word, _), place)| (word, place)).collect()
}

/// The features of a pair, by place.
fn row(places: &HashMap<String, u32>, chosen: &str, rejected: &str) -> Row {
    let mut counts: BTreeMap<u32, [f64; 2]> = BTreeMap::new();
    for (side, text) in [chosen, rejected].into_iter().enumerate() {
        for word in words(text) {
            if let Some(&place) = places.get(&word) {
                counts.entry(place).or_default()[side] += 1.0;
            }
        }
    }
    counts
        .into_iter()
        .map(|(place, [chosen, rejected])| (place, chosen.ln_1p() - rejected.ln_1p()))
        .filter(|&(_, value)| value != 0.0)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fit(pairs: &[(&'static str, &'static str)]) -> Option<BagOfWords> {
        let pair = |&(chosen, rejected)| TrainingPair { chosen, rejected };
        BagOfWords::fit(&pairs.iter().map(pair).collect::<Vec<_>>())
    }

    #[test]
    fn no_words_are_no_classifier() {
        assert!(fit(&[]).is_none());
        assert!(fit(&[("", "..."), ("!", "")]).is_none());
    }

    #[test]
    fn words_that_tell_the_sides_apart_get_weight() {
        let words = fit(&[("Thank you, yes.", "no"), ("yes please", "No, you"), ("YES", "NO no")])
            .expect("words");
        assert!(words.weight("yes") > Some(0.1));
        assert!(words.weight("no") < Some(-0.1));
        assert!(words.margin("yes", "no") > 0.0);
        assert_eq!(words.margin("never seen", "nor this"), 0.0);
        assert_eq!(words.margin("yes you", "no"), -words.margin("no", "yes you"));
    }

    #[test]
    fn equal_sides_teach_nothing() {
        let words = fit(&[("the same words", "words the same")]).expect("words");
        assert_eq!(words.weight("same"), Some(0.0));
    }

    #[test]
    fn the_vocabulary_holds_the_most_frequent_words() {
        let many: String = (0..MOST_WORDS + 50).map(|i| format!("w{i} ")).collect();
        let pairs = [TrainingPair { chosen: &many, rejected: "zebra zebra" }];
        let words = BagOfWords::fit(&pairs).expect("words");
        assert_eq!(words.weights.len(), MOST_WORDS);
        assert!(words.weight("zebra").is_some(), "twice");
    }
}
