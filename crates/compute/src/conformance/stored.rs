//! Random weights as a file would hold them.

use half::{bf16, f16};

use crate::Storage;
use crate::random::{key, uniform};

/// `len` numbers, whole blocks of them: block types are random bits with scales of a sane
/// size, the others uniform in `[-1, 1)` and exact in bfloat16.
pub(super) fn stored(storage: Storage, len: usize, seed: u64) -> Vec<u8> {
    let numbers = (0..len as u64).map(|i| bf16::from_f32(signed(seed, i)));
    match storage {
        Storage::F32 => numbers.flat_map(|number| number.to_f32().to_le_bytes()).collect(),
        Storage::F16 => numbers.flat_map(|n| f16::from_f32(n.to_f32()).to_le_bytes()).collect(),
        Storage::Bf16 => numbers.flat_map(bf16::to_le_bytes).collect(),
        _ => blocks(storage, len, seed),
    }
}

/// Uniform in `[-1, 1)`.
pub(super) fn signed(seed: u64, index: u64) -> f32 {
    2.0 * uniform(key(&[seed, index])) - 1.0
}

/// Random bytes.
pub(super) fn codes(seed: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|i| key(&[seed, i]) as u8).collect()
}

fn blocks(storage: Storage, len: usize, seed: u64) -> Vec<u8> {
    let size = storage.block_bytes();
    let count = len / storage.block_len() * size;
    let mut bytes = codes(seed, count);
    for (index, block) in bytes.chunks_exact_mut(size).enumerate() {
        for &(at, scale) in scales(storage) {
            let value = scale * (1.5 + 0.5 * signed(seed ^ 1, (index * size + at) as u64));
            block[at..at + 2].copy_from_slice(&f16::from_f32(value).to_le_bytes());
        }
    }
    bytes
}

/// Where the f16 scales of a block stand, and their size for weights of about 1.
fn scales(storage: Storage) -> &'static [(usize, f32)] {
    match storage {
        Storage::Q8_0 => &[(0, 0.008)],
        Storage::Q4_0 => &[(0, -0.1)],
        Storage::Q4_1 => &[(0, 0.1), (2, -0.8)],
        Storage::Q5_0 => &[(0, 0.06)],
        Storage::Q5_1 => &[(0, 0.06), (2, -0.9)],
        Storage::Q4_K => &[(0, 0.004), (2, 0.02)],
        Storage::Q5_K => &[(0, 0.002), (2, 0.02)],
        Storage::Q6_K => &[(208, 0.0005)],
        Storage::F32 | Storage::F16 | Storage::Bf16 => &[],
    }
}
