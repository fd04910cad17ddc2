//! Similar rows among many: rows that share a band are compared by their texts.

use super::Texts;
use super::parallel;
use super::sketch::{BANDS, Sketch};
use super::union_find::UnionFind;
use super::verify::{Pair, Verifier};
use crate::Result;

/// Rows of a bucket up to which every two of them are compared.
const SMALL: usize = 64;
/// Rows of a larger bucket with which the others are compared.
const LEADERS: usize = 16;
/// Comparisons without success after which a row is left alone: rows of one
/// template share most bands, and comparing all with all would never end.
const TRIES: u32 = 128;

/// What is compared.
pub(super) struct Search<'a> {
    /// Of every row: those of the first set, then those of the second one.
    pub(super) sketches: [&'a [Sketch]; 2],
    /// Of the same rows.
    pub(super) texts: &'a dyn Texts,
    /// Rows to compare, in order. Of equal rows one is enough.
    pub(super) rows: Vec<u32>,
    /// Whether rows of different sets alone are compared.
    pub(super) across: bool,
    /// Whether rows of one cluster are compared although they are known to belong together.
    pub(super) every_pair: bool,
    /// Number of threads.
    pub(super) threads: usize,
}

/// What the bands before told.
struct State {
    joined: UnionFind,
    tries: Vec<u32>,
    /// Bit `b` of a row: in band `b` it was compared with every row of its bucket.
    compared: Vec<u64>,
}

/// What the comparisons within a bucket told.
#[derive(Default)]
struct Outcome {
    pairs: Vec<Pair>,
    /// Rows and their comparisons without success.
    tries: Vec<(u32, u32)>,
}

// A bit for every band.
const _: () = assert!(BANDS <= 64);

impl Search<'_> {
    /// Every similar pair that was found, sorted.
    pub(super) fn run(&self) -> Result<Vec<Pair>> {
        let count = self.sketches.iter().map(|set| set.len()).sum();
        let mut state = State {
            joined: UnionFind::new(count),
            tries: vec![0; count],
            compared: vec![0; count],
        };
        let mut pairs = Vec::new();
        for band in 0..BANDS {
            let keyed = self.by_band(band);
            let buckets: Vec<&[(u32, u32)]> =
                keyed.chunk_by(|a, b| a.0 == b.0).filter(|bucket| bucket.len() > 1).collect();
            let outcomes = parallel::map(
                buckets.len(),
                self.threads,
                || Verifier::new(self.texts),
                |verifier, index| self.compare(band, buckets[index], &state, verifier),
            );
            for bucket in buckets.iter().filter(|bucket| bucket.len() <= SMALL) {
                bucket.iter().for_each(|&(_, row)| state.compared[row as usize] |= 1 << band);
            }
            for outcome in outcomes {
                let outcome = outcome?;
                for pair in outcome.pairs.iter().filter(|pair| !pair.templated) {
                    state.joined.join(pair.first, pair.second);
                }
                outcome.tries.iter().for_each(|&(row, more)| state.tries[row as usize] += more);
                pairs.extend(outcome.pairs);
            }
        }
        pairs.sort_unstable_by_key(|pair| (pair.first, pair.second));
        pairs.dedup_by_key(|pair| (pair.first, pair.second));
        Ok(pairs)
    }

    fn sketch(&self, row: u32) -> &Sketch {
        let [first, second] = self.sketches;
        let row = row as usize;
        first.get(row).unwrap_or_else(|| &second[row - first.len()])
    }

    /// The rows with their hash in a band, sorted by it.
    fn by_band(&self, band: usize) -> Vec<(u32, u32)> {
        let key = |&row: &u32| (self.sketch(row).bands[band], row);
        let mut keyed: Vec<(u32, u32)> = self.rows.iter().map(key).collect();
        keyed.sort_unstable();
        keyed
    }

    /// Compares the rows of a bucket. Joined rows are not compared again, which the bucket knows
    /// of itself and of the bands before, but not of the other buckets of this band.
    fn compare(
        &self,
        band: usize,
        bucket: &[(u32, u32)],
        state: &State,
        verifier: &mut Verifier,
    ) -> Result<Outcome> {
        let rows: Vec<u32> = bucket.iter().map(|&(_, row)| row).collect();
        let mut roots: Vec<u32> = rows.iter().map(|&row| state.joined.root(row)).collect();
        let mut tries: Vec<u32> = rows.iter().map(|&row| state.tries[row as usize]).collect();
        let small = rows.len() <= SMALL;
        let mut leaders: Vec<usize> = Vec::new();
        let mut pairs = Vec::new();
        for i in 0..rows.len() {
            for &j in &leaders {
                let skipped = !self.every_pair && roots[i] == roots[j]
                    || tries[i].max(tries[j]) >= TRIES
                    || !self.is_new(band, rows[j], rows[i], state);
                if skipped {
                    continue;
                }
                match verifier.compare(rows[j], rows[i])? {
                    Some(pair) => {
                        pairs.push(pair);
                        if !pair.templated {
                            join(&mut roots, i, j, small);
                        } else {
                            tries[i] += 1;
                            tries[j] += 1;
                        }
                    }
                    None => {
                        tries[i] += 1;
                        tries[j] += 1;
                    }
                }
            }
            if small || leaders.len() < LEADERS {
                leaders.push(i);
            }
        }
        let more = rows.iter().zip(tries).map(|(&row, now)| (row, now - state.tries[row as usize]));
        Ok(Outcome { pairs, tries: more.filter(|&(_, more)| more > 0).collect() })
    }

    /// Whether two rows may be similar and were not compared in a band before.
    fn is_new(&self, band: usize, first: u32, second: u32, state: &State) -> bool {
        let boundary = self.sketches[0].len() as u32;
        if self.across && (first < boundary) == (second < boundary) {
            return false;
        }
        let (a, b) = (self.sketch(first), self.sketch(second));
        let both = state.compared[first as usize] & state.compared[second as usize];
        let shared = (0..band).any(|band| both >> band & 1 == 1 && a.bands[band] == b.bands[band]);
        !shared && a.may_be_near(b)
    }
}

/// Gives `i` the root of `j`; in a small bucket with all that share its own.
fn join(roots: &mut [u32], i: usize, j: usize, all: bool) {
    let (old, new) = (roots[i], roots[j]);
    if all {
        roots.iter_mut().filter(|root| **root == old).for_each(|root| *root = new);
    } else {
        roots[i] = new;
    }
}
