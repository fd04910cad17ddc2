//! Sets of rows that grow together.

/// A partition of `0..count`. The root of a set is its smallest member.
#[derive(Clone, Debug)]
pub(super) struct UnionFind {
    parents: Vec<u32>,
}

impl UnionFind {
    /// Every row by itself.
    pub(super) fn new(count: usize) -> Self {
        UnionFind { parents: (0..count as u32).collect() }
    }

    /// The smallest row of the set that holds `row`.
    pub(super) fn root(&self, mut row: u32) -> u32 {
        while self.parents[row as usize] != row {
            row = self.parents[row as usize];
        }
        row
    }

    /// Makes one set of the two.
    pub(super) fn join(&mut self, left: u32, right: u32) {
        let (a, b) = (self.root(left), self.root(right));
        let root = a.min(b);
        // The rows on the way point at the root from now on, so that ways stay short.
        for mut row in [left, right] {
            while row != root {
                row = std::mem::replace(&mut self.parents[row as usize], root);
                if row == a || row == b {
                    self.parents[row as usize] = root;
                    break;
                }
            }
        }
    }

    /// Takes a whole set apart, so that each of its rows is by itself.
    pub(super) fn part(&mut self, set: &[u32]) {
        set.iter().for_each(|&row| self.parents[row as usize] = row);
    }

    /// Every set of two rows or more, each sorted, by its first row.
    pub(super) fn sets(&self) -> Vec<Vec<u32>> {
        let rows = 0..self.parents.len() as u32;
        let mut rooted: Vec<(u32, u32)> = rows.map(|row| (self.root(row), row)).collect();
        rooted.sort_unstable();
        let sets = rooted.chunk_by(|left, right| left.0 == right.0);
        let sets = sets.filter(|set| set.len() > 1);
        sets.map(|set| set.iter().map(|&(_, row)| row).collect()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_grow_and_their_root_is_the_smallest() {
        let mut sets = UnionFind::new(9);
        for (left, right) in [(7, 3), (8, 7), (5, 4), (8, 5), (1, 1)] {
            sets.join(left, right);
        }
        let roots: Vec<u32> = (0..9).map(|row| sets.root(row)).collect();
        assert_eq!(roots, [0, 1, 2, 3, 3, 3, 6, 3, 3]);
        assert_eq!(sets.sets(), [[3, 4, 5, 7, 8]]);
        sets.join(0, 1);
        sets.part(&[3, 4, 5, 7, 8]);
        assert_eq!(sets.sets(), [[0, 1]]);
    }
}
