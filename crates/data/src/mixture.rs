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

/// How often each of a source's rows stands in an epoch: all of them equally often, and once more those that
/// the seed chooses.
pub(crate) struct Copies {
    each: usize,
    seed: u64,
    /// The first of the draws that do not stand once more.
    bound: Option<(u64, u32)>,
}

impl Copies {
    /// Of an epoch that takes `count` of these rows.
    pub(crate) fn of(rows: impl Iterator<Item = u32>, count: usize, seed: u64) -> Self {
        let mut draws: Vec<(u64, u32)> = rows.map(|row| draw(seed, row)).collect();
        if draws.is_empty() {
            return Copies { each: 0, seed, bound: None };
        }
        let (each, more) = (count / draws.len(), count % draws.len());
        let bound = *draws.select_nth_unstable(more).1;
        Copies { each, seed, bound: Some(bound) }
    }

    /// Of one of the rows.
    pub(crate) fn get(&self, row: u32) -> usize {
        self.each + usize::from(self.bound.is_some_and(|bound| draw(self.seed, row) < bound))
    }
}

fn draw(seed: u64, row: u32) -> (u64, u32) {
    (key(&[purpose::MIXTURE, seed, row.into()]), row)
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
        let copies_of = |count, seed| -> Vec<usize> {
            let copies = Copies::of(0..10, count, seed);
            (0..10).map(|row| copies.get(row)).collect()
        };
        assert_eq!(copies_of(23, 1).iter().sum::<usize>(), 23);
        assert!(copies_of(23, 1).iter().all(|&copies| copies == 2 || copies == 3));
        assert_ne!(copies_of(5, 1), copies_of(5, 2));
        assert_eq!(Copies::of(0..0, 0, 1).get(3), 0);
    }
}
