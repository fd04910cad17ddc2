//! How often the rows of every source stand in an epoch.

use crate::random::{key, purpose};

/// When an epoch of weighted sources ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mixture {
    /// With the first source that is through: no row is repeated, some are left out.
    #[default]
    First,
    /// When all sources are through: every row is taken, some more than once.
    All,
}

/// How many rows an epoch takes of sources with `rows` rows in the proportions of `weights`.
pub(crate) fn counts(rows: &[usize], weights: &[f64], mixture: Mixture) -> Vec<usize> {
    let per_weight = rows.iter().zip(weights).map(|(&rows, weight)| rows as f64 / weight);
    let scale = match mixture {
        Mixture::First => per_weight.fold(f64::INFINITY, f64::min),
        Mixture::All => per_weight.fold(0.0, f64::max),
    };
    weights.iter().map(|weight| (weight * scale).round() as usize).collect()
}

/// How often each of a source's rows stands in an epoch of `count` of them: all of them equally often, and
/// once more those that the seed chooses.
pub(crate) fn copies(rows: &[u64], count: usize, seed: u64) -> Vec<usize> {
    if rows.is_empty() {
        return Vec::new();
    }
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by_cached_key(|&index| (key(&[purpose::MIXTURE, seed, rows[index]]), index));
    let mut copies = vec![count / rows.len(); rows.len()];
    order[..count % rows.len()].iter().for_each(|&index| copies[index] += 1);
    copies
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_stand_in_the_proportions_of_their_weights() {
        for (rows, weights, mixture, expected) in [
            (&[100, 1000][..], &[1.0, 1.0][..], Mixture::First, &[100, 100][..]),
            (&[100, 1000], &[1.0, 1.0], Mixture::All, &[1000, 1000]),
            (&[100, 1000], &[0.2, 0.8], Mixture::First, &[100, 400]),
            (&[100, 1000], &[0.2, 0.8], Mixture::All, &[250, 1000]),
            (&[10], &[3.0], Mixture::First, &[10]),
        ] {
            assert_eq!(counts(rows, weights, mixture), expected);
        }
    }

    #[test]
    fn copies_are_spread_evenly_and_by_the_seed() {
        let rows: Vec<u64> = (0..10).collect();
        let copies_of = |count, seed| copies(&rows, count, seed);
        assert_eq!(copies_of(23, 1).iter().sum::<usize>(), 23);
        assert!(copies_of(23, 1).iter().all(|&copies| copies == 2 || copies == 3));
        assert_ne!(copies_of(5, 1), copies_of(5, 2));
        assert!(copies(&[], 0, 1).is_empty());
    }
}
