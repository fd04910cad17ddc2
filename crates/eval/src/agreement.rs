//! How far raters agree beyond chance: Cohen's and Fleiss' kappa.
//!
//! A kappa is `(observed − expected) / (1 − expected)`: 1 is full agreement, 0 is
//! what raters reach who draw from the frequencies of their categories, and below 0
//! they agree less than that.

use serde::Serialize;

use crate::interval::Interval;

/// 97.5 % of a normal distribution lie below.
const NORMAL: f64 = 1.959_963_984_540_054;

/// Agreement of raters over items.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Agreement {
    /// How many items have at least one rating.
    pub items: usize,
    /// How many of them have two ratings or more; only they can show agreement.
    pub compared: usize,
    /// Share of pairs of raters that agree, averaged over the compared items.
    pub observed: f64,
    /// The share that agrees by chance.
    pub expected: f64,
    /// Kappa with its 95 % interval, bounds cut at -1 and 1. `None` where all ratings name
    /// one category, so that chance alone would agree fully.
    pub kappa: Option<Interval>,
}

/// Agreement of two raters, Cohen 1960; `None` without items.
///
/// A row holds the category that each rater chose for an item. The interval is normal, with
/// the large-sample variance of Fleiss, Cohen and Everitt 1969. Full agreement
/// has no variance by that formula, so its interval has no width however few the items are.
pub fn cohen_kappa(ratings: &[(usize, usize)]) -> Option<Agreement> {
    let categories = ratings.iter().map(|&(a, b)| a.max(b) + 1).max()?;
    let items = ratings.len();
    let one = 1.0 / items as f64;
    let mut first = vec![0.0; categories];
    let mut second = vec![0.0; categories];
    for &(a, b) in ratings {
        first[a] += one;
        second[b] += one;
    }
    let agreed = ratings.iter().filter(|(a, b)| a == b).count();
    let observed = agreed as f64 * one;
    let expected: f64 = first.iter().zip(&second).map(|(a, b)| a * b).sum();

    let squares: f64 = ratings
        .iter()
        .map(|&(a, b)| {
            // The paper sums over cells of the table; a sum over items is the same.
            let chance = (second[a] + first[b]) * (1.0 - observed);
            let term = if a == b { 1.0 - expected - chance } else { chance };
            term * term * one
        })
        .sum();
    let mean = observed * expected - 2.0 * expected + observed;
    let variance = match items {
        1 => f64::INFINITY,
        _ => (squares - mean * mean) / (1.0 - expected).powi(4) * one,
    };
    Some(Agreement {
        items,
        compared: items,
        observed,
        expected,
        kappa: kappa(observed, expected, variance, one_category(&[&first, &second])),
    })
}

/// Agreement of any number of raters, Fleiss 1971; `None` where no item has two ratings.
///
/// `counts[item][category]` is how many raters chose the category; a short row ends in
/// zeros. Items may differ in their number of ratings: then this is the generalised kappa
/// of Gwet 2014 (Handbook of Inter-Rater Reliability, ch. 5). The interval is normal, with
/// the variance of kappa linearised in its items. Where all items have as many ratings it is
/// that of Gwet 2021 (Large-Sample Variance of Fleiss Generalized Kappa); where not, the
/// number of compared items counts as drawn too. The variance of Fleiss, Nee and Landis 1979
/// would not do: it holds for a kappa of 0 only.
pub fn fleiss_kappa(counts: &[Vec<usize>]) -> Option<Agreement> {
    let rated: Vec<Vec<f64>> = counts
        .iter()
        .filter(|row| row.iter().any(|&count| count > 0))
        .map(|row| row.iter().map(|&count| count as f64).collect())
        .collect();
    let raters: Vec<f64> = rated.iter().map(|row| row.iter().sum()).collect();
    let items = rated.len();
    let compared = raters.iter().filter(|&&raters| raters >= 2.0).count();
    if compared == 0 {
        return None;
    }

    let categories = rated.iter().map(Vec::len).max().unwrap_or(0);
    let mut shares = vec![0.0; categories];
    for (row, raters) in rated.iter().zip(&raters) {
        for (share, count) in shares.iter_mut().zip(row) {
            *share += count / raters / items as f64;
        }
    }
    let expected: f64 = shares.iter().map(|share| share * share).sum();
    let agreements: Vec<f64> =
        rated.iter().zip(&raters).map(|(row, &n)| pairwise(row, n)).collect();
    let observed = agreements.iter().sum::<f64>() / compared as f64;

    let plain = (observed - expected) / (1.0 - expected);
    let squares: f64 = (0..items)
        .map(|item| {
            let scale = items as f64 / compared as f64;
            let agreed = if raters[item] < 2.0 { 0.0 } else { agreements[item] - observed };
            let by_chance: f64 =
                rated[item].iter().zip(&shares).map(|(count, share)| count * share).sum();
            let chance = by_chance / raters[item] - expected;
            let own = (scale * agreed - 2.0 * (1.0 - plain) * chance) / (1.0 - expected);
            own * own
        })
        .sum();
    // One item shows no spread: its interval is all that a kappa can be. Only compared items show agreement.
    let variance = match compared {
        1 => f64::INFINITY,
        _ => squares / (items as f64 * (items as f64 - 1.0)),
    };
    Some(Agreement {
        items,
        compared,
        observed,
        expected,
        kappa: kappa(observed, expected, variance, one_category(&[&shares])),
    })
}

/// Share of an item's pairs of raters that agree; 0 with fewer than two raters.
fn pairwise(row: &[f64], raters: f64) -> f64 {
    if raters < 2.0 {
        return 0.0;
    }
    row.iter().map(|count| count * (count - 1.0)).sum::<f64>() / (raters * (raters - 1.0))
}

/// Whether one category has all ratings. Not asked of `expected`, which is only near 1 then.
fn one_category(shares: &[&[f64]]) -> bool {
    let used = |category: usize| shares.iter().any(|shares| shares[category] > 0.0);
    (0..shares[0].len()).filter(|&category| used(category)).count() == 1
}

fn kappa(observed: f64, expected: f64, variance: f64, undefined: bool) -> Option<Interval> {
    if undefined {
        return None;
    }
    let mean = (observed - expected) / (1.0 - expected);
    // Rounding may leave a variance of 0 slightly below it.
    let half = NORMAL * variance.max(0.0).sqrt();
    Some(Interval { mean, low: (mean - half).max(-1.0), high: (mean + half).min(1.0) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn near(got: f64, expected: f64, tolerance: f64) {
        assert!((got - expected).abs() <= tolerance, "got {got}, expected {expected}");
    }

    /// Items of a table of two raters, row by row.
    fn ratings(table: &[&[usize]]) -> Vec<(usize, usize)> {
        let cells = table.iter().enumerate().flat_map(|(a, row)| {
            row.iter().enumerate().flat_map(move |(b, &count)| vec![(a, b); count])
        });
        cells.collect()
    }

    #[test]
    fn no_items_have_no_agreement() {
        assert_eq!(cohen_kappa(&[]), None);
        assert_eq!(fleiss_kappa(&[]), None);
        assert_eq!(fleiss_kappa(&[vec![1, 0], vec![0, 0]]), None, "nobody rated an item twice");
    }

    #[test]
    fn one_category_has_no_kappa() {
        let cohen = cohen_kappa(&[(1, 1); 7]).expect("items");
        assert_eq!((cohen.observed, cohen.kappa), (1.0, None));
        let fleiss = fleiss_kappa(&vec![vec![0, 3]; 7]).expect("items");
        assert_eq!((fleiss.observed, fleiss.kappa), (1.0, None));
        assert!(cohen_kappa(&[(0, 1); 7]).expect("items").kappa.is_some());
    }

    #[test]
    fn full_agreement_is_1_and_opposite_raters_are_below_0() {
        let kappa =
            |agreement: Option<Agreement>| agreement.expect("items").kappa.expect("defined");
        near(kappa(cohen_kappa(&ratings(&[&[5, 0], &[0, 5]]))).mean, 1.0, 1e-12);
        near(kappa(cohen_kappa(&ratings(&[&[0, 5], &[5, 0]]))).mean, -1.0, 1e-12);
        near(kappa(fleiss_kappa(&[vec![3, 0], vec![0, 3]])).mean, 1.0, 1e-12);
        near(kappa(fleiss_kappa(&[vec![1, 1], vec![1, 1]])).mean, -1.0, 1e-12);
    }

    #[test]
    fn a_single_item_leaves_everything_open() {
        let kappa = fleiss_kappa(&[vec![2, 1]]).expect("rated").kappa.expect("defined");
        assert_eq!((kappa.low, kappa.high), (-1.0, 1.0));
    }

    /// With many items the closed form is as wide as what resampling items shows.
    #[test]
    fn the_interval_is_that_of_resampled_items() {
        let rows = ratings(&[&[40, 6, 4], &[5, 30, 5], &[3, 7, 20]]);
        let drawn = |resample: u64| -> Vec<(usize, usize)> {
            let item = |draw: u64| compute::random::key(&[resample, draw]) as usize % rows.len();
            (0..rows.len() as u64).map(|draw| rows[item(draw)]).collect()
        };
        let counts = |rows: &[(usize, usize)]| -> Vec<Vec<usize>> {
            let row = |&(a, b): &(usize, usize)| {
                (0..3).map(move |c| usize::from(a == c) + usize::from(b == c))
            };
            rows.iter().map(|pair| row(pair).collect()).collect()
        };
        for fleiss in [false, true] {
            let kappa = |rows: &[(usize, usize)]| {
                let agreement =
                    if fleiss { fleiss_kappa(&counts(rows)) } else { cohen_kappa(rows) };
                agreement.expect("items").kappa.expect("defined")
            };
            let mut means: Vec<f64> =
                (0..4000).map(|resample| kappa(&drawn(resample)).mean).collect();
            means.sort_by(f64::total_cmp);
            let closed = kappa(&rows);
            near(closed.low, means[100], 0.015);
            near(closed.high, means[3900], 0.015);
        }
    }
}
