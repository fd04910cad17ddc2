//! Calibration: how often a model is right, against how sure it is.

use serde::Serialize;

use super::wins;

/// How many bins the probabilities from 0.5 to 1 fall into.
const BINS: usize = 10;

/// Whether `σ(margin)` is the frequency with which the model is right.
///
/// A pair has no natural first answer, so its prediction is the likelier side with
/// a confidence from 0.5 to 1.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Calibration {
    /// Expected calibration error over ten bins of equal width, Guo et al. 2017, eq. 3.
    pub expected_error: f64,
    /// Mean of `(1 − σ(margin))²`, Brier 1950; 0.25 for who always says one half.
    pub brier: f64,
    /// The bins that have pairs.
    pub bins: Vec<Bin>,
}

/// The pairs of which a model is about equally sure.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Bin {
    /// The lowest confidence of the bin.
    pub from: f64,
    /// Where the next bin begins.
    pub to: f64,
    /// How many pairs fall into it.
    pub pairs: usize,
    /// Their mean confidence.
    pub confidence: f64,
    /// The share of them that the model has right; a tie is half.
    pub accuracy: f64,
}

impl Calibration {
    /// The calibration of margins, of which there is at least one.
    pub(super) fn of(margins: &[f64]) -> Self {
        let mut bins: [(usize, f64, f64); BINS] = [(0, 0.0, 0.0); BINS];
        let mut brier = 0.0;
        for &margin in margins {
            brier += sigmoid(-margin).powi(2);
            let confidence = sigmoid(margin.abs());
            let place = ((confidence - 0.5) * 2.0 * BINS as f64) as usize;
            let (pairs, confidences, right) = &mut bins[place.min(BINS - 1)];
            *pairs += 1;
            *confidences += confidence;
            *right += wins(margin);
        }

        let edge = |bin: usize| 0.5 + bin as f64 / (2.0 * BINS as f64);
        let bins: Vec<Bin> = bins
            .iter()
            .enumerate()
            .filter(|(_, (pairs, ..))| *pairs > 0)
            .map(|(bin, &(pairs, confidences, right))| Bin {
                from: edge(bin),
                to: edge(bin + 1),
                pairs,
                confidence: confidences / pairs as f64,
                accuracy: right / pairs as f64,
            })
            .collect();
        let count = margins.len() as f64;
        let apart = |bin: &Bin| bin.pairs as f64 / count * (bin.accuracy - bin.confidence).abs();
        Self { expected_error: bins.iter().map(apart).sum(), brier: brier / count, bins }
    }
}

/// `1 / (1 + exp(-x))`, without overflow.
pub(super) fn sigmoid(x: f64) -> f64 {
    if x >= 0.0 { 1.0 / (1.0 + (-x).exp()) } else { x.exp() / (1.0 + x.exp()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn near(got: f64, expected: f64) {
        assert!((got - expected).abs() < 1e-12, "got {got}, expected {expected}");
    }

    #[test]
    fn a_model_that_is_right_as_often_as_it_says_has_no_error() {
        // Sure to 3/4, right on three of four pairs.
        let margin = 3_f64.ln();
        let calibration = Calibration::of(&[margin, margin, margin, -margin]);
        near(calibration.expected_error, 0.0);
        near(calibration.brier, (3.0 / 16.0 + 9.0 / 16.0) / 4.0);
        assert_eq!(calibration.bins.len(), 1);
        near(calibration.bins[0].confidence, 0.75);
        assert_eq!(calibration.bins[0].pairs, 4);
    }

    #[test]
    fn a_model_that_is_sure_and_wrong_half_the_time_is_off_by_half() {
        let calibration = Calibration::of(&[500.0, -500.0]);
        near(calibration.expected_error, 0.5);
        near(calibration.brier, 0.5);
        near(calibration.bins[0].to, 1.0);
    }

    #[test]
    fn ties_are_honest() {
        let calibration = Calibration::of(&[0.0; 3]);
        near(calibration.expected_error, 0.0);
        near(calibration.brier, 0.25);
        assert_eq!((calibration.bins[0].from, calibration.bins[0].accuracy), (0.5, 0.5));
    }

    #[test]
    fn bins_are_weighted_by_their_pairs() {
        let (low, high) = (0.6_f64, 0.9_f64);
        let logit = |p: f64| (p / (1.0 - p)).ln();
        let calibration = Calibration::of(&[logit(low), logit(high), logit(high), -logit(high)]);
        near(calibration.expected_error, 0.25 * 0.4 + 0.75 * (0.9 - 2.0 / 3.0));
    }
}
