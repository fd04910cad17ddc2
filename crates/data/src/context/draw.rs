//! Draws for one row, by its number and the seed alone.

use crate::random;

/// Keeps these draws apart from others of the same seed.
const PURPOSE: u64 = 0x6374_7874;

/// A row's draws, one after the other.
pub(super) struct Draw {
    row: u64,
    drawn: u64,
}

impl Draw {
    pub(super) fn new(seed: u64, row: u64) -> Self {
        Draw { row: random::key(&[seed, PURPOSE, row]), drawn: 0 }
    }

    fn next(&mut self) -> u64 {
        self.drawn += 1;
        random::key(&[self.row, self.drawn])
    }

    /// A number from 0 to under 1.
    pub(super) fn share(&mut self) -> f64 {
        // As many bits as the number holds.
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// An index under `count`, at least 1.
    fn below(&mut self, count: usize) -> usize {
        (self.next() % count as u64) as usize
    }

    /// An index under `count` that is none of `taken`, which are in order; none is left where
    /// they are all.
    pub(super) fn other_than(&mut self, taken: &[usize], count: usize) -> Option<usize> {
        let free = count.checked_sub(taken.len()).filter(|&free| free > 0)?;
        let mut index = self.below(free);
        for &taken in taken {
            if taken > index {
                break;
            }
            index += 1;
        }
        Some(index)
    }

    /// Fisher and Yates.
    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.below(last + 1);
            items.swap(last, other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_free_index_can_be_drawn_and_no_other() {
        let mut seen = [0; 6];
        for row in 0..200 {
            seen[Draw::new(1, row).other_than(&[0, 3, 4], 6).unwrap()] += 1;
        }
        assert_eq!((seen[0], seen[3], seen[4]), (0, 0, 0));
        assert!(seen[1] > 40 && seen[2] > 40 && seen[5] > 40, "{seen:?}");
        assert_eq!(Draw::new(1, 0).other_than(&[0, 1], 2), None);
    }

    #[test]
    fn shares_are_spread() {
        let mean = (0..1000).map(|row| Draw::new(7, row).share()).sum::<f64>() / 1000.0;
        // Four deviations of the mean of 1,000 even draws: 4 / sqrt(12 * 1000).
        assert!((mean - 0.5).abs() < 0.037, "{mean}");
    }

    #[test]
    fn a_shuffle_keeps_all() {
        let mut items: Vec<usize> = (0..20).collect();
        Draw::new(3, 5).shuffle(&mut items);
        assert_ne!(items, (0..20).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..20).collect::<Vec<_>>());
    }
}
