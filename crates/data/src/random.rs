//! Randomness as a hash: the same question has the same answer in any order,
//! on any number of threads and in a resumed run.
//!
//! Repeats the four lines of the hash in `compute`, because this crate knows no device.

/// Mixes words into one.
pub const fn key(words: &[u64]) -> u64 {
    let mut state = 0x9E37_79B9_7F4A_7C15;
    let mut index = 0;
    while index < words.len() {
        state = mix(state ^ words[index]);
        index += 1;
    }
    state
}

/// SplitMix64, Steele et al. 2014, figure 15.
const fn mix(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// What a draw is for, so that two uses of one seed stay independent.
pub mod purpose {
    /// The order of rows in an epoch.
    pub const ORDER: u64 = 0x6F72_6465;
    /// Which rows are for validation.
    pub const SPLIT: u64 = 0x7370_6C69;
    /// Which rows of a source an epoch takes.
    pub const MIXTURE: u64 = 0x6D69_7874;
    /// Which rows of a file a limit takes.
    pub const LIMIT: u64 = 0x6C69_6D69;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_of_words_matters() {
        assert_ne!(key(&[1, 2]), key(&[2, 1]));
        assert_ne!(key(&[1]), key(&[1, 0]));
    }
}
