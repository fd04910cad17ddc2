//! pass@k: how likely at least one of k samples is right.

use serde::Serialize;

use crate::interval::{Interval, bootstrap};

/// The samples of one prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Samples {
    /// How many were graded.
    pub count: usize,
    /// How many of them are right.
    pub right: usize,
}

/// pass@k over prompts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct PassAtK {
    /// Mean over the prompts, with its bootstrap interval over them.
    pub interval: Interval,
    /// Prompts that count.
    pub prompts: usize,
    /// Prompts that do not count: they have fewer than `k` samples.
    pub left_out: usize,
}

impl Samples {
    /// Counts verdicts: one for every sample, `true` for a right one.
    pub fn of(verdicts: impl IntoIterator<Item = bool>) -> Self {
        verdicts.into_iter().fold(Self { count: 0, right: 0 }, |samples, right| Self {
            count: samples.count + 1,
            right: samples.right + usize::from(right),
        })
    }

    /// The unbiased estimate that one of `k` samples is right; `None` with fewer than `k` samples.
    ///
    /// `1 - C(n - c, k) / C(n, k)` for `c` right samples of `n` (Chen et al. 2021, "Evaluating large language models
    /// trained on code", eq. 1). `k` is at least 1.
    pub fn pass_at(self, k: usize) -> Option<f64> {
        let Self { count, right } = self;
        assert!(k > 0, "pass@0 is nothing");
        assert!(right <= count, "{right} of {count} samples are right");
        if k > count {
            return None;
        }
        if k > count - right {
            return Some(1.0);
        }
        // C(n - c, k) / C(n, k) as a product of c factors, none of which overflows.
        let all_wrong: f64 =
            (count - right + 1..=count).map(|i| 1.0 - k as f64 / i as f64).product();
        Some(1.0 - all_wrong)
    }
}

/// The mean of [`Samples::pass_at`] over prompts; `None` where no prompt has `k` samples. `seed` is for the resampling.
pub fn pass_at_k(prompts: &[Samples], k: usize, seed: u64) -> Option<PassAtK> {
    let values: Vec<f64> = prompts.iter().filter_map(|samples| samples.pass_at(k)).collect();
    (!values.is_empty()).then(|| PassAtK {
        interval: bootstrap(&values, seed),
        prompts: values.len(),
        left_out: prompts.len() - values.len(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The share of all choices of `k` samples that hold a right one, counted one by one.
    fn counted(samples: Samples, k: usize) -> f64 {
        let sets = (0_u32..1 << samples.count).filter(|set| set.count_ones() as usize == k);
        let (mut all, mut hits) = (0.0, 0.0);
        for set in sets {
            all += 1.0;
            // The right samples are the first ones.
            hits += f64::from(u8::from(set & ((1 << samples.right) - 1) != 0));
        }
        hits / all
    }

    #[test]
    fn the_estimate_is_the_share_of_choices_with_a_right_sample() {
        for count in 1..=9 {
            for right in 0..=count {
                for k in 1..=count {
                    let samples = Samples { count, right };
                    let got = samples.pass_at(k).expect("enough samples");
                    let expected = counted(samples, k);
                    assert!((got - expected).abs() < 1e-12, "{samples:?} k {k}: {got} {expected}");
                }
            }
        }
    }

    #[test]
    fn large_numbers_stay_finite() {
        let samples = Samples { count: 100_000, right: 10 };
        let got = samples.pass_at(1000).expect("enough samples");
        // Nearly independent draws: 1 - 0.99^10.
        assert!((got - (1.0 - 0.99_f64.powi(10))).abs() < 1e-4, "{got}");
        let one = samples.pass_at(1).expect("enough samples");
        assert!((one - 1e-4).abs() < 1e-12, "{one}");
    }

    #[test]
    fn pass_at_1_is_the_share_of_right_samples() {
        let samples = Samples::of([true, false, false, true]);
        assert_eq!(samples, Samples { count: 4, right: 2 });
        assert!((samples.pass_at(1).expect("enough") - 0.5).abs() < 1e-12);
        assert_eq!(samples.pass_at(5), None);
    }

    #[test]
    fn prompts_are_averaged_with_an_interval() {
        let half = |right: usize| vec![Samples { count: 8, right }; 50];
        let prompts = [half(0), half(8)].concat();
        let result = pass_at_k(&prompts, 4, 1).expect("prompts");
        assert_eq!(result.interval.mean, 0.5);
        // 0.5 ± 1.96 · sqrt(0.25 / 100), in steps of 0.01.
        assert!((result.interval.low - 0.402).abs() < 0.02, "{result:?}");
        assert!((result.interval.high - 0.598).abs() < 0.02, "{result:?}");
        assert_eq!((result.prompts, result.left_out), (100, 0));
    }

    #[test]
    fn prompts_with_too_few_samples_are_counted() {
        let prompts = [Samples { count: 4, right: 4 }, Samples { count: 2, right: 0 }];
        let result = pass_at_k(&prompts, 4, 1).expect("a prompt");
        assert_eq!((result.interval.mean, result.prompts, result.left_out), (1.0, 1, 1));
        assert_eq!(pass_at_k(&prompts, 5, 1), None);
        assert_eq!(pass_at_k(&[], 1, 1), None);
    }
}
