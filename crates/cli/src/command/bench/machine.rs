//! What the machine could do at best.

use std::hint::black_box;
use std::time::Instant;

use compute::Device;
use serde_json::{Value, json};

use super::PRECISION;
use crate::context::Context;
use crate::error::Result;
use crate::memory::{Needed, free_memory};

/// Bytes that are read or copied: far more than caches hold.
const BYTES: usize = 256 << 20;

/// How often.
const PASSES: usize = 6;

/// A machine and its measured limits.
pub(super) struct Machine {
    pub(super) device: Device,
    /// Multiplies and additions in a second, operands in the first-level cache.
    pub(super) peak_flops: f64,
    /// Bytes that all threads together read in a second.
    pub(super) read_bytes_per_s: f64,
    /// Bytes copied in a second, each counted once.
    pub(super) copy_bytes_per_s: f64,
}

impl Machine {
    pub(super) fn measure(context: &Context) -> Result<Self> {
        let backend = context.device(PRECISION)?;
        let device = backend.device();
        let threads = device.threads;
        // What is read, and what it is copied to.
        let what = "measuring the machine".to_owned();
        Needed { what, kinds: &[("arrays", 2 * BYTES)] }.require(free_memory(), || {
            "raise the limit: nothing smaller tells memory from caches".into()
        })?;
        let words = BYTES / size_of::<u64>();
        let source: Vec<u64> = (0..words as u64).collect();
        let read_bytes_per_s = read(&source, threads);
        let copy_bytes_per_s = copy(&source, threads);
        let peak_flops = backend.peak_flops().expect("the CPU measures itself");
        Ok(Machine { device, peak_flops, read_bytes_per_s, copy_bytes_per_s })
    }

    /// Clocks change with heat and neighbours: what was seen at best counts.
    pub(super) fn look_again(&mut self, context: &Context) -> Result<()> {
        let again = context.device(PRECISION)?.peak_flops().expect("the CPU measures itself");
        self.peak_flops = self.peak_flops.max(again);
        Ok(())
    }

    pub(super) fn to_json(&self) -> Value {
        json!({
            "isa": self.device.isa,
            "threads": self.device.threads,
            "peak_flops": self.peak_flops,
            "read_bytes_per_s": self.read_bytes_per_s,
            "copy_bytes_per_s": self.copy_bytes_per_s,
        })
    }
}

/// The fastest of several passes, in bytes a second.
fn fastest(mut pass: impl FnMut()) -> f64 {
    let mut best = f64::INFINITY;
    for _ in 0..PASSES {
        let start = Instant::now();
        pass();
        best = best.min(start.elapsed().as_secs_f64());
    }
    BYTES as f64 / best
}

fn read(source: &[u64], threads: usize) -> f64 {
    fastest(|| {
        std::thread::scope(|scope| {
            for part in source.chunks(source.len().div_ceil(threads)) {
                scope.spawn(|| black_box(xor(black_box(part))));
            }
        });
    })
}

/// All words together, in chains that do not wait for each other.
fn xor(words: &[u64]) -> u64 {
    let mut chains = [0_u64; 32];
    for words in words.as_chunks::<32>().0 {
        for (chain, word) in chains.iter_mut().zip(words) {
            *chain ^= word;
        }
    }
    chains.into_iter().fold(0, |all, chain| all ^ chain)
}

fn copy(source: &[u64], threads: usize) -> f64 {
    let mut target = vec![0_u64; source.len()];
    let part = source.len().div_ceil(threads);
    fastest(|| {
        std::thread::scope(|scope| {
            for (source, target) in source.chunks(part).zip(target.chunks_mut(part)) {
                scope.spawn(|| black_box(target).copy_from_slice(black_box(source)));
            }
        });
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_whole_chunk_is_read() {
        let words: Vec<u64> = (0..320).map(|i| 1 << (i % 60)).collect();
        assert_eq!(xor(&words), words.iter().fold(0, |all, word| all ^ word));
    }
}
