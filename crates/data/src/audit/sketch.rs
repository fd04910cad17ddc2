//! The fingerprint of a row: enough to find rows that may be similar.
//!
//! One permutation hashing (Li, Owen and Zhang 2012): every shingle falls into
//! one of 240 bins, each bin keeps its smallest hash, so that one pass over the
//! shingles replaces 240. Bins that stay empty borrow from others in an order
//! that all rows share (Shrivastava 2017). A bin of two rows agrees with the
//! probability of their Jaccard similarity s.
//!
//! Six bins make a band; rows that agree in one of 40 bands are candidates:
//! probability `1 - (1 - s^6)^40`, which is 99.3 % at s = 0.7, 99.99 % at 0.8
//! and 0.004 % at 0.1, where unrelated texts of one language are.

use super::AuditText;
use super::shingles::{hash, join, normalise, of_normalised};
use crate::random;

/// Number of bands.
pub const BANDS: usize = 40;
/// Bins of a band.
const BAND_BINS: usize = 6;
/// All bins.
const BINS: usize = BANDS * BAND_BINS;
/// Words that hold a bit of every bin.
const SIGN_WORDS: usize = BINS.div_ceil(64);
/// What an empty bin holds.
const EMPTY: u32 = u32::MAX;
/// How many bins an empty one asks at random before it takes the next that is filled.
const DRAWS: u64 = 32;

/// Fixed-size fingerprint of a row, for caches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sketch {
    /// Hash of prompt and answer, case and whitespace aside.
    pub row: u64,
    /// Hash of the prompt.
    pub prompt: u64,
    /// Hash of the answer.
    pub answer: u64,
    /// One hash for every band of bins.
    pub bands: [u32; BANDS],
    /// The lowest bit of every bin: tells most unlike rows apart without their texts.
    pub signs: [u64; SIGN_WORDS],
    /// Number of different shingles.
    pub shingles: u32,
}

impl Sketch {
    /// Bytes of [`Sketch::to_bytes`].
    pub const BYTES: usize = 3 * 8 + BANDS * 4 + SIGN_WORDS * 8 + 4;

    /// The fingerprint of a row.
    pub fn of(text: &AuditText) -> Sketch {
        let (prompt, answer) = (normalise(&text.prompt), normalise(&text.answer));
        let shingles = of_normalised(&join(&prompt, &answer));
        let bins = bins(&shingles);
        let (prompt, answer) = (hash(&prompt), hash(&answer));
        let mut signs = [0; SIGN_WORDS];
        for (index, &bin) in bins.iter().enumerate() {
            signs[index / 64] |= u64::from(bin & 1) << (index % 64);
        }
        Sketch {
            row: random::key(&[prompt, answer]),
            prompt,
            answer,
            bands: std::array::from_fn(|band| band_hash(&bins[band * BAND_BINS..][..BAND_BINS])),
            signs,
            shingles: u32::try_from(shingles.len()).unwrap_or(u32::MAX),
        }
    }

    /// Whether the row has no text.
    pub fn is_empty(&self) -> bool {
        self.shingles == 0
    }

    /// Whether the row has a prompt.
    pub(super) fn has_prompt(&self) -> bool {
        self.prompt != hash("")
    }

    /// Whether the row has an answer.
    pub(super) fn has_answer(&self) -> bool {
        self.answer != hash("")
    }

    /// Whether the rows can have a Jaccard similarity of 0.7, as far as sizes and signs tell.
    ///
    /// Signs agree with probability (1 + s) / 2: 0.85 at the threshold. A pair
    /// is dropped when it lies 3.5 standard deviations below.
    pub(super) fn may_be_near(&self, other: &Sketch) -> bool {
        let fewer = u64::from(self.shingles.min(other.shingles));
        let more = u64::from(self.shingles.max(other.shingles));
        // No similarity exceeds the ratio of the sizes.
        if fewer * 10 < more * 7 {
            return false;
        }
        let signs = self.signs.iter().zip(&other.signs);
        let unlike: u32 = signs.map(|(a, b)| (a ^ b).count_ones()).sum();
        // Bins of a short row repeat each other.
        let samples = (fewer as f32).clamp(1.0, BINS as f32);
        let deviation = (0.85_f32 * 0.15 / samples).sqrt();
        unlike as f32 <= BINS as f32 * (0.15 + 3.5 * deviation)
    }

    /// The fingerprint as bytes, little-endian.
    pub fn to_bytes(&self) -> [u8; Self::BYTES] {
        let longs = [self.row, self.prompt, self.answer].into_iter().chain(self.signs);
        let mut bytes: Vec<u8> = longs.flat_map(u64::to_le_bytes).collect();
        bytes.extend(self.bands.iter().flat_map(|band| band.to_le_bytes()));
        bytes.extend(self.shingles.to_le_bytes());
        let mut array = [0; Self::BYTES];
        array.copy_from_slice(&bytes);
        array
    }

    /// The fingerprint that [`Sketch::to_bytes`] wrote.
    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Sketch {
        let (longs, rest) = bytes.split_at((3 + SIGN_WORDS) * 8);
        let long = |index: usize| u64::from_le_bytes(longs.as_chunks::<8>().0[index]);
        let word = |index: usize| u32::from_le_bytes(rest.as_chunks::<4>().0[index]);
        Sketch {
            row: long(0),
            prompt: long(1),
            answer: long(2),
            signs: std::array::from_fn(|index| long(3 + index)),
            bands: std::array::from_fn(word),
            shingles: word(BANDS),
        }
    }
}

/// The smallest hash of every bin.
fn bins(shingles: &[u64]) -> [u32; BINS] {
    let mut bins = [EMPTY; BINS];
    for &shingle in shingles {
        let bin = ((shingle >> 32) * BINS as u64) >> 32;
        let smallest = &mut bins[bin as usize];
        *smallest = (*smallest).min((shingle as u32).min(EMPTY - 1));
    }
    if !shingles.is_empty() {
        fill(&mut bins);
    }
    bins
}

/// Gives every empty bin the value of a filled one. At least one bin is filled.
fn fill(bins: &mut [u32; BINS]) {
    let own = *bins;
    for (index, bin) in bins.iter_mut().enumerate().filter(|(_, bin)| **bin == EMPTY) {
        let draw = |turn| (random::key(&[index as u64, turn]) % BINS as u64) as usize;
        let others = (0..DRAWS).map(draw).chain((1..BINS).map(|step| (index + step) % BINS));
        *bin = others.map(|other| own[other]).find(|&value| value != EMPTY).unwrap_or(EMPTY);
    }
}

fn band_hash(bins: &[u32]) -> u32 {
    bins.iter().fold(0, |state, &bin| random::key(&[state, u64::from(bin)])) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sketch(prompt: &str, answer: &str) -> Sketch {
        Sketch::of(&AuditText { prompt: prompt.into(), answer: answer.into() })
    }

    #[test]
    fn bytes_give_the_sketch_again() {
        for (prompt, answer) in [("", ""), ("a", "b"), ("What is a fox?", "An animal, I think.")] {
            let sketch = sketch(prompt, answer);
            assert_eq!(Sketch::from_bytes(&sketch.to_bytes()), sketch);
        }
    }

    #[test]
    fn case_and_whitespace_change_nothing() {
        assert_eq!(sketch("What  IS it?\n", "A fox"), sketch("what is it?", " a FOX"));
    }

    #[test]
    fn where_the_prompt_ends_matters_to_equality_alone() {
        let (left, right) = (sketch("a b", "c d e f"), sketch("a b c", "d e f"));
        assert_ne!(left.row, right.row);
        assert_eq!(left.bands, right.bands);
    }

    #[test]
    fn empty_rows_are_told() {
        let empty = sketch(" ", "\n");
        assert!(empty.is_empty() && !empty.has_prompt() && !empty.has_answer());
        assert!(sketch("a", "").has_prompt() && !sketch("a", "").has_answer());
    }

    /// Bins agree as often as the sets are similar, in long rows and in short ones.
    #[test]
    fn agreement_of_bins_is_the_similarity() {
        for (size, tolerance) in [(40, 0.03), (300, 0.015), (3000, 0.015)] {
            let mut agreed = 0;
            for turn in 0..200 {
                // Of `size` elements in all, 15 % stand in the left alone and as many in the right.
                let element = |index: u64| random::key(&[turn, index, 7]);
                let edge = size * 15 / 100;
                let left: Vec<u64> = (0..size - edge).map(element).collect();
                let right: Vec<u64> = (edge..size).map(element).collect();
                let pairs = bins(&left).into_iter().zip(bins(&right));
                agreed += pairs.filter(|(a, b)| a == b).count();
            }
            let share = agreed as f32 / (200 * BINS) as f32;
            assert!((share - 0.7).abs() < tolerance, "{size}: {share}");
        }
    }
}
