//! Stored weights to f32, one block after another.
//!
//! Plain scalar code, the meaning of every [`Storage`]: faster kernels are tested against it,
//! and it against the `gguf` package (`xtask/golden/gguf_blocks.py`). Products and sums
//! are rounded one by one, so the bits are the same on every machine.

use half::{bf16, f16};

use crate::Storage;

/// Reads whole blocks from `bytes` into `out`.
///
/// # Panics
/// Where the two do not hold the same whole number of blocks.
pub fn dequantize(storage: Storage, bytes: &[u8], out: &mut [f32]) {
    let (len, size) = (storage.block_len(), storage.block_bytes());
    assert!(
        out.len().is_multiple_of(len) && bytes.len() == out.len() / len * size,
        "{} bytes of {storage:?} are not {} numbers",
        bytes.len(),
        out.len()
    );
    let block = match storage {
        Storage::F32 => f32_block,
        Storage::F16 => f16_block,
        Storage::Bf16 => bf16_block,
        Storage::Q8_0 => q8_0_block,
        Storage::Q4_0 => q4_0_block,
        Storage::Q4_1 => q4_1_block,
        Storage::Q5_0 => q5_0_block,
        Storage::Q5_1 => q5_1_block,
        Storage::Q4_K => q4_k_block,
        Storage::Q5_K => q5_k_block,
        Storage::Q6_K => q6_k_block,
    };
    for (bytes, out) in bytes.chunks_exact(size).zip(out.chunks_exact_mut(len)) {
        block(bytes, out);
    }
}

/// The f16 at byte `at`.
fn half_at(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

fn f32_block(bytes: &[u8], out: &mut [f32]) {
    out[0] = f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
}

fn f16_block(bytes: &[u8], out: &mut [f32]) {
    out[0] = half_at(bytes, 0);
}

fn bf16_block(bytes: &[u8], out: &mut [f32]) {
    out[0] = bf16::from_le_bytes([bytes[0], bytes[1]]).to_f32();
}

/// `d` f16, 32 signed bytes.
fn q8_0_block(bytes: &[u8], out: &mut [f32]) {
    let d = half_at(bytes, 0);
    for (out, &byte) in out.iter_mut().zip(&bytes[2..]) {
        *out = f32::from(byte.cast_signed()) * d;
    }
}

/// `d` f16, 16 bytes: number `i` in the low and `i + 16` in the high half of byte `i`.
fn q4_0_block(bytes: &[u8], out: &mut [f32]) {
    let d = half_at(bytes, 0);
    for (i, &byte) in bytes[2..].iter().enumerate() {
        out[i] = d * (f32::from(byte & 15) - 8.0);
        out[i + 16] = d * (f32::from(byte >> 4) - 8.0);
    }
}

/// `d`, `m` f16, 16 bytes as in Q4_0.
fn q4_1_block(bytes: &[u8], out: &mut [f32]) {
    let (d, m) = (half_at(bytes, 0), half_at(bytes, 2));
    for (i, &byte) in bytes[4..].iter().enumerate() {
        out[i] = d * f32::from(byte & 15) + m;
        out[i + 16] = d * f32::from(byte >> 4) + m;
    }
}

/// The 32 five-bit numbers of Q5_0 and Q5_1: fifth bits in `high` (bit `i` for number `i`), the rest as in Q4_0.
fn five_bits(high: &[u8], low: &[u8]) -> [u8; 32] {
    std::array::from_fn(|i| {
        let fifth = (high[i / 8] >> (i % 8)) & 1;
        ((low[i % 16] >> (i / 16 * 4)) & 15) | (fifth << 4)
    })
}

/// `d` f16, 4 bytes of fifth bits, 16 bytes.
fn q5_0_block(bytes: &[u8], out: &mut [f32]) {
    let d = half_at(bytes, 0);
    for (out, q) in out.iter_mut().zip(five_bits(&bytes[2..6], &bytes[6..])) {
        *out = d * (f32::from(q) - 16.0);
    }
}

/// `d`, `m` f16, 4 bytes of fifth bits, 16 bytes.
fn q5_1_block(bytes: &[u8], out: &mut [f32]) {
    let (d, m) = (half_at(bytes, 0), half_at(bytes, 2));
    for (out, q) in out.iter_mut().zip(five_bits(&bytes[4..8], &bytes[8..])) {
        *out = d * f32::from(q) + m;
    }
}

/// The six-bit scale and minimum of run `run` (of 8) of a Q4_K or Q5_K block.
///
/// Bytes 0..4 hold scales 0..4 and bytes 4..8 minima 0..4 in their low six bits; bytes 8..12
/// hold the low halves of scales (low) and minima (high) 4..8, whose two upper bits are the upper bits of bytes 0..8.
fn scale_and_minimum(scales: &[u8], run: usize) -> (f32, f32) {
    let (scale, minimum) = if run < 4 {
        (scales[run] & 63, scales[run + 4] & 63)
    } else {
        let low = scales[run + 4];
        ((low & 15) | ((scales[run - 4] >> 6) << 4), (low >> 4) | ((scales[run] >> 6) << 4))
    };
    (f32::from(scale), f32::from(minimum))
}

/// Eight runs of 32 numbers `d * scale * q - dmin * minimum`: `d`, `dmin` f16, 12 bytes of scales,
/// then the numbers: two runs share 32 bytes, the first in the low halves.
fn q4_k_block(bytes: &[u8], out: &mut [f32]) {
    k_block(bytes, &bytes[16..], |_, _| 0, out);
}

/// As Q4_K, with 32 bytes of fifth bits (bit `run` of byte `i` for number `i` of a run) before the numbers.
fn q5_k_block(bytes: &[u8], out: &mut [f32]) {
    let high = &bytes[16..48];
    k_block(bytes, &bytes[48..], |run, i| ((high[i] >> run) & 1) << 4, out);
}

fn k_block(bytes: &[u8], low: &[u8], fifth: impl Fn(usize, usize) -> u8, out: &mut [f32]) {
    let (d, dmin) = (half_at(bytes, 0), half_at(bytes, 2));
    for (run, out) in out.chunks_exact_mut(32).enumerate() {
        let (scale, minimum) = scale_and_minimum(&bytes[4..16], run);
        let (d, minimum) = (d * scale, dmin * minimum);
        for (i, out) in out.iter_mut().enumerate() {
            let q = ((low[run / 2 * 32 + i] >> (run % 2 * 4)) & 15) | fifth(run, i);
            *out = d * f32::from(q) - minimum;
        }
    }
}

/// 128 bytes of low halves, 64 of upper bit pairs, 16 signed scales of 16 numbers each, `d` f16.
///
/// Each half of the block, 128 numbers, is four runs of 32: runs 0 and 2 are the low and high halves of
/// 32 bytes, runs 1 and 3 of the next 32; bit pair `run` of 32 bytes completes them.
fn q6_k_block(bytes: &[u8], out: &mut [f32]) {
    let (low, rest) = bytes.split_at(128);
    let (high, rest) = rest.split_at(64);
    let (scales, d) = rest.split_at(16);
    let d = half_at(d, 0);
    for (index, out) in out.iter_mut().enumerate() {
        let (part, run, i) = (index / 128, index / 32 % 4, index % 32);
        let four = (low[part * 64 + run % 2 * 32 + i] >> (run / 2 * 4)) & 15;
        let two = (high[part * 32 + i] >> (run * 2)) & 3;
        let scale = f32::from(scales[index / 16].cast_signed());
        *out = d * scale * (f32::from(four | (two << 4)) - 32.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_read_as_they_are() {
        let mut out = [0.0; 2];
        dequantize(Storage::F32, &[0, 0, 0xC0, 0x3F, 0, 0, 0, 0xC0], &mut out);
        assert_eq!(out, [1.5, -2.0]);
        dequantize(Storage::F16, &[0x00, 0x3C, 0x00, 0xC0], &mut out);
        assert_eq!(out, [1.0, -2.0]);
        dequantize(Storage::Bf16, &[0x80, 0x3F, 0x00, 0xC0], &mut out);
        assert_eq!(out, [1.0, -2.0]);
    }

    #[test]
    #[should_panic(expected = "33 bytes of Q8_0 are not 32 numbers")]
    fn half_a_block_is_a_bug() {
        dequantize(Storage::Q8_0, &[0; 33], &mut [0.0; 32]);
    }
}
