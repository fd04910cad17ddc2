//! Draws for one row, each a hash of the row's key and how many came before.

use data::random::key;

/// A source of draws.
pub(super) struct Draw {
    key: u64,
    count: u64,
}

impl Draw {
    pub(super) fn new(words: &[u64]) -> Self {
        Self { key: key(words), count: 0 }
    }

    fn next(&mut self) -> u64 {
        self.count += 1;
        key(&[self.key, self.count])
    }

    /// A number from 0 to `count - 1`.
    pub(super) fn below(&mut self, count: usize) -> usize {
        ((u128::from(self.next()) * count as u128) >> 64) as usize
    }

    /// Yes in so many of a hundred draws.
    pub(super) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One of them, all equally likely.
    pub(super) fn pick<'a, T>(&mut self, among: &'a [T]) -> &'a T {
        &among[self.below(among.len())]
    }

    /// One of them, as likely as the number beside it.
    pub(super) fn weighted<T: Copy>(&mut self, among: &[(T, usize)]) -> T {
        let mut rest = self.below(among.iter().map(|(_, weight)| weight).sum());
        for (value, weight) in among {
            match rest.checked_sub(*weight) {
                Some(left) => rest = left,
                None => return *value,
            }
        }
        unreachable!("the draw is below the sum of the weights")
    }

    /// Fisher-Yates.
    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}
