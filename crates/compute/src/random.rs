//! Randomness as a hash: the same question has the same answer in any order,
//! batch, thread or resumed run.

/// Mixes words into one (SplitMix64's finalizer over a running sum).
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
#[inline(always)]
pub const fn mix(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A number in `[0, 1)` with 24 bits, exact in f32.
#[inline(always)]
pub const fn uniform(hash: u64) -> f32 {
    (hash >> 40) as f32 * (1.0 / 16_777_216.0)
}

/// Whether dropout with probability `p` keeps column `column` of a row, whose own
/// hash is [`key`]`(&[dropout key, row identity, position])`.
#[inline(always)]
pub const fn keeps(row_hash: u64, column: u64, p: f32) -> bool {
    uniform(mix(row_hash ^ column)) >= p
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uniform_is_spread_evenly() {
        let count = 100_000;
        let mean = (0..count).map(|i| f64::from(uniform(key(&[7, i])))).sum::<f64>() / count as f64;
        assert!((mean - 0.5).abs() < 0.005, "mean {mean}");
    }

    #[test]
    fn order_of_words_matters() {
        assert_ne!(key(&[1, 2]), key(&[2, 1]));
    }
}
