//! NaN and infinity in stored weights. They are looked for where weights are read anyway.

use crate::Storage;

/// The exponent of an f32 that is NaN or infinite.
const EXPONENT_F32: u32 = 0x7F80_0000;
/// The exponent of an f16 that is NaN or infinite.
const EXPONENT_F16: u16 = 0x7C00;
/// The exponent of a bf16 that is NaN or infinite.
const EXPONENT_BF16: u16 = 0x7F80;

/// Whether no number is NaN or infinite.
#[inline(always)]
pub fn all_finite(values: &[f32]) -> bool {
    // No early exit, so that the loop becomes vector instructions.
    let is_broken = |value: &f32| value.to_bits() & EXPONENT_F32 == EXPONENT_F32;
    !values.iter().fold(false, |broken, value| broken | is_broken(value))
}

impl Storage {
    /// Whether all numbers of these whole blocks are finite.
    ///
    /// Codes are always finite, so only the scales and minimums of blocks are looked at.
    pub fn all_finite(self, bytes: &[u8]) -> bool {
        match self {
            Storage::F32 => {
                let is_broken =
                    |bytes: &[u8; 4]| u32::from_le_bytes(*bytes) & EXPONENT_F32 == EXPONENT_F32;
                !bytes.as_chunks().0.iter().fold(false, |broken, bytes| broken | is_broken(bytes))
            }
            Storage::F16 => halves_are_finite(bytes, EXPONENT_F16),
            Storage::Bf16 => halves_are_finite(bytes, EXPONENT_BF16),
            Storage::Q8_0 | Storage::Q4_0 | Storage::Q5_0 => self.scales_are_finite(bytes, [0]),
            Storage::Q4_1 | Storage::Q5_1 | Storage::Q4_K | Storage::Q5_K => {
                self.scales_are_finite(bytes, [0, 2])
            }
            Storage::Q6_K => self.scales_are_finite(bytes, [208]),
        }
    }

    /// Whether the f16 numbers at these bytes of every block are finite.
    #[inline(always)]
    fn scales_are_finite<const N: usize>(self, bytes: &[u8], places: [usize; N]) -> bool {
        let mut blocks = bytes.chunks_exact(self.block_bytes());
        blocks.all(|block| {
            places.iter().all(|&at| halves_are_finite(&block[at..at + 2], EXPONENT_F16))
        })
    }
}

#[inline(always)]
fn halves_are_finite(bytes: &[u8], exponent: u16) -> bool {
    let is_broken = |bytes: &[u8; 2]| u16::from_le_bytes(*bytes) & exponent == exponent;
    !bytes.as_chunks().0.iter().fold(false, |broken, bytes| broken | is_broken(bytes))
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};

    use super::*;

    const BROKEN: [f32; 3] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY];

    #[test]
    fn one_broken_number_among_many_is_found() {
        let mut values = vec![f32::MAX; 67];
        assert!(all_finite(&values) && all_finite(&[]));
        for (at, broken) in [0, 31, 66].into_iter().zip(BROKEN) {
            values[at] = broken;
            assert!(!all_finite(&values), "{broken} at {at}");
            values[at] = f32::MIN_POSITIVE / 2.0;
        }
    }

    #[test]
    fn every_type_without_blocks_is_looked_at() {
        let bytes = |values: &[f32], storage: Storage| -> Vec<u8> {
            let value = |value: &f32| match storage {
                Storage::F32 => value.to_le_bytes().to_vec(),
                Storage::F16 => f16::from_f32(*value).to_le_bytes().to_vec(),
                _ => bf16::from_f32(*value).to_le_bytes().to_vec(),
            };
            values.iter().flat_map(value).collect()
        };
        for storage in [Storage::F32, Storage::F16, Storage::Bf16] {
            assert!(storage.all_finite(&bytes(&[0.0, -1.0, 60_000.0, 1e-30], storage)));
            for broken in BROKEN {
                let values = [1.0, 2.0, broken];
                assert!(!storage.all_finite(&bytes(&values, storage)), "{broken} as {storage:?}");
            }
        }
    }

    /// What `dequantize` makes of a block is finite exactly where the block is said to be.
    #[test]
    fn a_block_is_broken_where_its_numbers_are() {
        for storage in Storage::ALL.into_iter().filter(|storage| storage.block_len() > 1) {
            let size = storage.block_bytes();
            let sound: Vec<u8> = (0..2 * size).map(|i| (i * 37 % 100) as u8).collect();
            assert!(storage.all_finite(&sound), "{storage:?}");
            for at in 0..size - 1 {
                let mut block = sound.clone();
                block[size + at..][..2].copy_from_slice(&f16::NAN.to_le_bytes());
                let mut numbers = vec![0.0; 2 * storage.block_len()];
                crate::dequant::dequantize(storage, &block, &mut numbers);
                let expected = numbers.iter().all(|number| number.is_finite());
                assert_eq!(storage.all_finite(&block), expected, "{storage:?} at byte {at}");
            }
        }
    }
}
