//! Log-probabilities of the reference, computed once for every row.
//!
//! Kept by content: an entry's name is a hash of tokens and weights, the file's that of everything else that decides
//! about the numbers (base, adapters, storage, machine, version). So a later run, a resumed one and one over more rows
//! take what is there. The bits are those of a pass in the step, because bits do not depend on the batch.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use data::checksum::checksum;
use data::{Packing, Sequence, Sequences, Unit};
use model::HeadRequest;
use sha2::{Digest as _, Sha256};

use super::course::VALIDATION_CHUNK;
use crate::engine::Engine;
use crate::models::PartName;
use crate::run::write_atomic;
use crate::step::StepPlan;
use crate::{Error, Result};

/// First bytes of a file.
const MAGIC: &[u8; 8] = b"TSREF\0\0\x01";

/// Name of an entry.
type RowHash = [u8; 16];

/// See the module.
#[derive(Debug, Default)]
pub(super) struct ReferenceCache {
    /// None of a reference that was refreshed: no other run has the same.
    path: Option<PathBuf>,
    /// Log-probability of every learned token, in the order of the row.
    by_row: BTreeMap<RowHash, Arc<[f32]>>,
}

/// How many rows had to be computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Filled {
    pub(super) rows: usize,
    pub(super) computed: usize,
}

impl ReferenceCache {
    /// What a file holds; nothing where there is none, or a damaged one, which is written anew.
    pub(super) fn open(path: PathBuf) -> Self {
        let by_row = fs::read(&path).ok().and_then(|bytes| decode(&bytes)).unwrap_or_default();
        ReferenceCache { path: Some(path), by_row }
    }

    /// Forgets all, because the reference is another one now. What is computed next stays in memory.
    pub(super) fn forget(&mut self) {
        *self = ReferenceCache::default();
    }

    /// Whether it holds any row: in a plan none is computed.
    pub(super) fn is_filled(&self) -> bool {
        !self.by_row.is_empty()
    }

    /// The known log-probabilities of a step's sequences.
    pub(super) fn of(&self, units: &[Unit]) -> Vec<Arc<[f32]>> {
        let sequences = units.iter().flat_map(|unit| &unit.sequences);
        let known = |sequence| {
            let entry = self.by_row.get(&hash(sequence));
            entry.expect("every row was computed before the first step").clone()
        };
        sequences.map(known).collect()
    }

    /// Computes what is missing, and writes the file where that was anything. `go_on` is asked between chunks; what
    /// was computed before it refuses is kept.
    pub(super) fn fill(
        &mut self,
        engine: &mut Engine<'_>,
        sets: [&Sequences; 2],
        packing: &Packing,
        go_on: &mut dyn FnMut() -> Result<()>,
    ) -> Result<Filled> {
        let mut filled = Filled::default();
        for set in sets {
            for chunk in set.chunks(VALIDATION_CHUNK) {
                if let Err(stopped) = go_on() {
                    self.write()?;
                    return Err(stopped);
                }
                let sequences = chunk?.into_iter().flat_map(|unit| unit.sequences);
                let sequences: Vec<Sequence> = sequences.collect();
                filled.rows += sequences.len();
                let mut missing: BTreeMap<RowHash, Sequence> = BTreeMap::new();
                for sequence in sequences {
                    let hash = hash(&sequence);
                    if !self.by_row.contains_key(&hash) {
                        missing.insert(hash, sequence);
                    }
                }
                filled.computed += missing.len();
                self.compute(engine, missing, packing)?;
            }
        }
        if filled.computed > 0 {
            self.write()?;
        }
        Ok(filled)
    }

    fn compute(
        &mut self,
        engine: &mut Engine<'_>,
        missing: BTreeMap<RowHash, Sequence>,
        packing: &Packing,
    ) -> Result<()> {
        let (hashes, mut sequences): (Vec<RowHash>, Vec<Sequence>) = missing.into_iter().unzip();
        for (row, sequence) in (0..).zip(&mut sequences) {
            sequence.row = row;
        }
        let plan = StepPlan::new(&Unit::of_sequences(sequences), packing);
        let values = reference_logprobs(&plan, engine, 1.0)?;
        self.by_row.extend(hashes.into_iter().zip(values));
        Ok(())
    }

    fn write(&self) -> Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        let mut bytes = MAGIC.to_vec();
        for (hash, values) in &self.by_row {
            bytes.extend(hash);
            bytes.extend((values.len() as u32).to_le_bytes());
            bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        }
        bytes.extend(checksum(&bytes).to_le_bytes());
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(Error::io(folder))?;
        }
        write_atomic(path, &bytes)
    }
}

/// Log-probabilities under the reference at a temperature, for [`StepPlan::reference`].
pub(super) fn reference_logprobs(
    plan: &StepPlan,
    engine: &mut Engine<'_>,
    temperature: f32,
) -> Result<Vec<Arc<[f32]>>> {
    let request = HeadRequest { temperature, ..HeadRequest::logprobs() };
    let outputs = engine.outputs_under_part(plan, PartName::Reference, &request)?;
    Ok(plan.by_sequence(&outputs, |outputs, index, _| outputs.logprob[index]))
}

/// Where the log-probabilities of a reference lie: `identity` is all that decides about them, but for the rows.
pub(super) fn path_for(folder: &Path, identity: &[&[u8]]) -> PathBuf {
    let mut hasher = Sha256::new();
    for part in identity {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    let hex: String = hasher.finalize()[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    folder.join(format!("reference-{hex}.bin"))
}

/// Bytes that the log-probabilities of all rows take.
pub(super) fn bytes(rows: &Sequences) -> usize {
    const OF_AN_ENTRY: usize = 96;
    4 * rows.supervised() + OF_AN_ENTRY * rows.len()
}

fn hash(sequence: &Sequence) -> RowHash {
    let mut hasher = Sha256::new();
    hasher.update((sequence.tokens.len() as u64).to_le_bytes());
    for (token, weight) in sequence.tokens.iter().zip(&sequence.weights) {
        hasher.update(token.to_le_bytes());
        hasher.update([u8::from(*weight != 0.0)]);
    }
    hasher.finalize()[..16].try_into().expect("a hash has 32 bytes")
}

fn decode(bytes: &[u8]) -> Option<BTreeMap<RowHash, Arc<[f32]>>> {
    let (content, sum) = bytes.split_last_chunk::<4>()?;
    if u32::from_le_bytes(*sum) != checksum(content) {
        return None;
    }
    let mut rest = content.strip_prefix(MAGIC)?;
    let mut by_row = BTreeMap::new();
    while let Some((hash, after)) = rest.split_first_chunk::<16>() {
        let (len, after) = after.split_first_chunk::<4>()?;
        let (values, after) = after.split_at_checked(4 * u32::from_le_bytes(*len) as usize)?;
        let values = values
            .chunks_exact(4)
            .map(|four| f32::from_le_bytes(four.try_into().expect("chunks of four")));
        by_row.insert(*hash, values.collect());
        rest = after;
    }
    rest.is_empty().then_some(by_row)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_file_is_no_cache() {
        let folder = tempfile::tempdir().unwrap();
        let path = path_for(folder.path(), &[b"base", b"adapter"]);
        assert_ne!(path, path_for(folder.path(), &[b"basea", b"dapter"]));
        let mut cache = ReferenceCache::open(path.clone());
        assert!(cache.by_row.is_empty());
        cache.by_row.insert([7; 16], Arc::from([-0.5, -2.25]));
        cache.by_row.insert([9; 16], Arc::from([]));
        cache.write().unwrap();
        assert_eq!(ReferenceCache::open(path.clone()).by_row, cache.by_row);

        let good = fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 4;
            fs::write(&path, &bad).unwrap();
            assert!(ReferenceCache::open(path.clone()).by_row.is_empty(), "byte {at}");
            fs::write(&path, &good[..at]).unwrap();
            assert!(ReferenceCache::open(path.clone()).by_row.is_empty(), "cut at {at}");
        }
    }
}
