//! Whether a later validation loss is higher than an earlier one, or only seems to be.

use serde::{Deserialize, Serialize};

/// Most sequences whose losses are kept. With more of them noise decides nothing.
pub(super) const MOST_SEQUENCES: usize = 1024;

/// The lowest validation so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Lowest {
    /// The loss.
    pub loss: f64,
    /// What every row adds to it, before it is divided, `[units]`.
    pub sequences: Vec<f64>,
}

impl Lowest {
    /// Whether a later loss over the same sequences lies within one standard error of this one.
    ///
    /// The differences are taken sequence by sequence: what is hard for one step is hard for the other, so they
    /// vary much less than the losses. One standard error is the rule of Breiman et al. 1984, 3.4.3. Later ones
    /// are held against the lowest and not against each other, so the kept step cannot drift away from it.
    pub(super) fn is_met_by(&self, later: &[f64]) -> bool {
        let n = later.len();
        if n != self.sequences.len() || n < 2 {
            return false;
        }
        let differences = || later.iter().zip(&self.sequences).map(|(later, own)| later - own);
        let mean = differences().sum::<f64>() / n as f64;
        let squares: f64 = differences().map(|difference| (difference - mean).powi(2)).sum();
        let error = (squares / (n - 1) as f64 / n as f64).sqrt();
        mean <= error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(sequences: &[f64], later: &[f64], expected: bool) {
        let lowest = Lowest { loss: 0.0, sequences: sequences.to_vec() };
        assert_eq!(lowest.is_met_by(later), expected);
    }

    #[test]
    fn only_what_most_sequences_agree_on_is_worse() {
        let before = [1.0, 5.0, 2.0, 8.0];
        // Every sequence is worse by the same: there is no noise in that.
        check(&before, &[1.1, 5.1, 2.1, 8.1], false);
        // One is worse by far, and the others are better: mean 0.1, standard error 0.4.
        check(&before, &[0.7, 4.7, 1.7, 9.3], true);
        // Mean 0.5, standard error 0.29.
        check(&before, &[1.0, 6.0, 2.0, 9.0], false);
        check(&before, &before, true);
        check(&before, &[0.9, 4.9, 1.9, 7.9], true);
    }

    #[test]
    fn without_comparable_sequences_nothing_is_within_noise() {
        check(&[], &[], false);
        check(&[1.0], &[1.0], false);
        check(&[1.0, 2.0], &[1.0, 2.0, 3.0], false);
    }
}
