//! How sure a mean is: the bootstrap over rows.

use compute::random::{key, mix};
use serde::Serialize;

/// How often the rows are drawn anew.
const RESAMPLES: u64 = 2000;

/// A mean with the bounds of its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    /// The mean itself.
    pub mean: f64,
    /// 2.5 % of the resampled means lie below.
    pub low: f64,
    /// 2.5 % of the resampled means lie above.
    pub high: f64,
}

impl Interval {
    /// Whether this mean lies above another beyond doubt: the intervals do not touch.
    pub fn clear_of(&self, other: &Self) -> bool {
        self.low > other.high
    }
}

/// The mean of values with its percentile bootstrap interval, Efron 1979.
///
/// The draws depend on the seed and the number of values only, so two arms over
/// the same rows see the same resamples. There is at least one value.
pub fn bootstrap(values: &[f64], seed: u64) -> Interval {
    bootstrap_of(values.len(), seed, |rows| {
        rows.map(|row| values[row]).sum::<f64>() / values.len() as f64
    })
}

/// Any statistic of rows with its percentile bootstrap interval. `statistic` is given the rows, each of them or a
/// resample of so many. The draws are those of [`bootstrap`].
pub fn bootstrap_of(
    count: usize,
    seed: u64,
    statistic: impl Fn(&mut dyn Iterator<Item = usize>) -> f64,
) -> Interval {
    assert!(count > 0, "the mean of no values");
    let mut drawn: Vec<f64> = (0..RESAMPLES)
        .map(|resample| {
            let resample = key(&[seed, resample]);
            statistic(&mut (0..count as u64).map(|draw| row(resample, draw, count)))
        })
        .collect();
    drawn.sort_by(f64::total_cmp);
    let mean = statistic(&mut (0..count));
    Interval { mean, low: percentile(&drawn, 0.025), high: percentile(&drawn, 0.975) }
}

/// The mean of `a - b` over rows that both arms answered, with its interval.
///
/// Narrower than what the two intervals apart suggest, since a row that is hard
/// for one arm is often hard for the other. An interval above 0 means better.
pub fn paired_difference(a: &[f64], b: &[f64], seed: u64) -> Interval {
    assert_eq!(a.len(), b.len(), "the arms answered the same rows");
    let differences: Vec<f64> = a.iter().zip(b).map(|(a, b)| a - b).collect();
    bootstrap(&differences, seed)
}

/// Which row a draw takes: the high bits of hash times count, uniform without a division.
fn row(resample: u64, draw: u64, count: usize) -> usize {
    ((u128::from(mix(resample ^ draw)) * count as u128) >> 64) as usize
}

/// Linear between the two nearest ranks of sorted values.
pub(crate) fn percentile(sorted: &[f64], share: f64) -> f64 {
    let rank = share * (sorted.len() - 1) as f64;
    let below = sorted[rank.floor() as usize];
    let above = sorted[rank.ceil() as usize];
    below + (above - below) * rank.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn near(got: f64, expected: f64, tolerance: f64) {
        assert!((got - expected).abs() <= tolerance, "got {got}, expected {expected}");
    }

    #[test]
    fn a_share_has_the_normal_interval() {
        // 80 of 200: 0.4 ± 1.96 · sqrt(0.4 · 0.6 / 200) = 0.4 ± 0.0679, in steps of 0.005.
        let values: Vec<f64> = (0..200).map(|i| f64::from(i % 5 < 2)).collect();
        let interval = bootstrap(&values, 1);
        near(interval.mean, 0.4, 1e-12);
        near(interval.low, 0.332, 0.01);
        near(interval.high, 0.468, 0.01);
    }

    #[test]
    fn the_seed_decides() {
        let values: Vec<f64> = (0..40).map(|i| f64::from(i) / 40.0).collect();
        assert_eq!(bootstrap(&values, 3), bootstrap(&values, 3));
        assert_ne!(bootstrap(&values, 3), bootstrap(&values, 4));
    }

    #[test]
    fn equal_values_leave_no_doubt() {
        assert_eq!(bootstrap(&[0.5; 7], 1), Interval { mean: 0.5, low: 0.5, high: 0.5 });
    }

    #[test]
    fn pairing_cancels_what_rows_share() {
        let hard = |i: i32| f64::from(i % 2) * 0.8;
        let a: Vec<f64> = (0..100).map(|i| hard(i) + 0.1).collect();
        let b: Vec<f64> = (0..100).map(hard).collect();
        let difference = paired_difference(&a, &b, 1);
        near(difference.low, 0.1, 1e-9);
        near(difference.high, 0.1, 1e-9);
        assert!(!bootstrap(&a, 1).clear_of(&bootstrap(&b, 1)));
    }

    #[test]
    fn clear_means_apart() {
        let interval = |low, high| Interval { mean: (low + high) / 2.0, low, high };
        assert!(interval(0.6, 0.7).clear_of(&interval(0.4, 0.5)));
        assert!(!interval(0.6, 0.7).clear_of(&interval(0.5, 0.6)));
        assert!(!interval(0.4, 0.5).clear_of(&interval(0.6, 0.7)));
    }
}
