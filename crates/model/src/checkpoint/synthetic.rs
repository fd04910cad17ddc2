//! A base with a shape of its own and made-up numbers, for measuring.
//!
//! The numbers lie in files that are unlinked as soon as they are mapped, so that pages come and go as
//! those of a real checkpoint do.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use compute::{Storage, random};
use serde_json::Value;
use text::{Date, Metadata};

use super::{Mapping, Stored, Tensor, Tensors};
use crate::{Config, Error, Result};

/// How many rows tensors may begin after each other: so layers differ, and yet all lie in one mapping.
const SPREAD_ROWS: usize = 64;

/// Numbers in whole blocks of every storage.
const LONGEST_BLOCK: usize = 32;

/// bf16 bits of 1.
const ONE: [u8; 2] = 0x3F80_u16.to_le_bytes();

/// Tensors of any shape that is asked for: vectors of ones, matrices of small numbers.
pub(super) struct Synthetic {
    name: PathBuf,
    json: Value,
    layers: usize,
    /// How linear layers are stored.
    linear: Storage,
    /// Numbers of matrices, by storage.
    matrices: Vec<(Storage, Mapping)>,
    /// bf16.
    ones: Mapping,
}

impl Synthetic {
    pub(super) fn new(
        json: &Value,
        config: &Config,
        name: &str,
        linear: Storage,
        scratch: &Path,
    ) -> Result<Self> {
        let shapes = config.modules().iter().map(|&module| config.shape(module));
        let (mut largest, mut widest) = (0, config.hidden_size);
        for (rows, cols) in shapes {
            largest = largest.max(rows * cols);
            widest = widest.max(cols).max(rows);
        }
        let vocabulary = config.vocab_size * config.hidden_size;
        let spread = SPREAD_ROWS * widest;
        let mut matrices = vec![(Storage::Bf16, largest.max(vocabulary) + spread)];
        if linear != Storage::Bf16 {
            matrices.push((linear, largest + spread));
        }
        let map = |(storage, numbers): (Storage, usize)| {
            let blocks = numbers.div_ceil(storage.block_len());
            let mapping = mapped(scratch, blocks, |index, out| block(storage, index, out))?;
            Ok((storage, mapping))
        };
        let matrices = matrices.into_iter().map(map).collect::<Result<_>>()?;
        let ones = mapped(scratch, widest, |_, out| out.extend(ONE))?;
        let (name, json) = (PathBuf::from(name), json.clone());
        Ok(Synthetic { name, json, layers: config.num_hidden_layers, linear, matrices, ones })
    }

    /// Which storage a tensor has: embedding and head stay bf16, as in quantised files they are larger too.
    fn storage(&self, name: &str) -> Storage {
        if name.starts_with("model.layers.") { self.linear } else { Storage::Bf16 }
    }

    fn matrix(&self, name: &str, rows: usize, cols: usize) -> Option<(Storage, &[u8], &Mapping)> {
        let storage = self.storage(name);
        let row_bytes = storage.row_bytes(cols)?;
        let (_, mapping) = self.matrices.iter().find(|(known, _)| *known == storage)?;
        let key = name.bytes().fold(0, |key, byte| random::mix(key ^ u64::from(byte)));
        let first = key as usize % SPREAD_ROWS * row_bytes;
        Some((storage, mapping.get(first..first + rows * row_bytes)?, mapping))
    }
}

impl Tensors for Synthetic {
    fn metadata(&self, _date: Date) -> Result<Metadata> {
        let message = "a shape without a model has no tokenizer";
        Err(Error::Input { message: message.into(), hint: None })
    }

    fn get(&self, name: &str) -> Result<Option<Tensor<'_>>> {
        let is_matrix = name.ends_with("_proj.weight");
        self.get_as(name, if is_matrix { &[1, LONGEST_BLOCK] } else { &[1] })
    }

    fn get_as(&self, name: &str, shape: &[usize]) -> Result<Option<Tensor<'_>>> {
        let layer = name.strip_prefix("model.layers.").and_then(|rest| rest.split('.').next());
        let layer = layer.and_then(|layer| layer.parse::<usize>().ok());
        if layer.is_some_and(|layer| layer >= self.layers) {
            return Ok(None);
        }
        let (storage, bytes, mapping) = match *shape {
            [len] => (Storage::Bf16, &self.ones[..2 * len], &self.ones),
            [rows, cols] => match self.matrix(name, rows, cols) {
                Some(found) => found,
                None => return Ok(None),
            },
            _ => return Ok(None),
        };
        let stored = Stored::Plain { storage, bytes, row_order: None };
        let (name, shape) = (name.to_owned(), shape.to_vec());
        Ok(Some(Tensor { name, shape, stored, path: &self.name, mapping }))
    }

    fn config_json(&self) -> Result<Value> {
        Ok(self.json.clone())
    }
}

/// A file of so many blocks that nobody else sees.
fn mapped(scratch: &Path, blocks: usize, block: impl Fn(usize, &mut Vec<u8>)) -> Result<Mapping> {
    static FILES: AtomicU32 = AtomicU32::new(0);
    let number = FILES.fetch_add(1, Ordering::Relaxed);
    let path = scratch.join(format!("tunesmith-synthetic-{}-{number}", std::process::id()));
    let written = || -> std::io::Result<()> {
        let mut file = BufWriter::with_capacity(1 << 20, File::create_new(&path)?);
        let mut bytes = Vec::new();
        for index in 0..blocks {
            bytes.clear();
            block(index, &mut bytes);
            file.write_all(&bytes)?;
        }
        file.flush()
    };
    let mapping = written().map_err(Error::io(&path)).and_then(|()| Mapping::new(&path));
    std::fs::remove_file(&path).map_err(Error::io(&path))?;
    mapping
}

/// Adds a block of numbers of about 0.02 in size.
fn block(storage: Storage, index: usize, out: &mut Vec<u8>) {
    let draw = |i: usize| random::mix((index * 8 + i) as u64);
    if storage == Storage::Bf16 {
        let value = 0.07 * (random::uniform(draw(0)) - 0.5);
        return out.extend(half::bf16::from_f32(value).to_le_bytes());
    }
    // Scales first, codes behind them.
    let scales: &[f32] = match storage {
        Storage::Q8_0 => &[0.0003],
        Storage::Q4_0 => &[0.005],
        _ => &[0.005, -0.0375],
    };
    out.extend(scales.iter().flat_map(|&scale| half::f16::from_f32(scale).to_le_bytes()));
    let codes = (0..).flat_map(|i| draw(i).to_le_bytes());
    out.extend(codes.take(storage.block_bytes() - 2 * scales.len()));
}

#[cfg(test)]
mod tests {
    use compute::cpu::{Cpu, CpuConfig, Precision};
    use serde_json::json;

    use crate::{Base, Decoder, Pass};
    use text::{Batch, Segment};

    use super::*;

    /// Every storage loads, and the last hidden state is made of numbers.
    #[test]
    fn made_up_weights_are_numbers() {
        let dir = tempfile::tempdir().unwrap();
        let config = json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64,
            "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
            "num_key_value_heads": 2, "vocab_size": 50, "max_position_embeddings": 32,
            "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": true,
            "hidden_act": "silu"
        });
        for storage in [Storage::Bf16, Storage::Q8_0, Storage::Q4_0, Storage::Q4_1] {
            let base = Base::synthetic(&config, "test", storage, dir.path()).unwrap();
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "files are unlinked");
            let config = CpuConfig { threads: 1, isa: None, precision: Precision::F32 };
            let mut cpu = Cpu::new(config).unwrap();
            let backend: &mut dyn compute::Backend = &mut cpu;
            let name = format!("{storage:?}").to_lowercase();
            assert_eq!(base.storage_name().unwrap(), name);
            let decoder = Decoder::load(&base, backend).unwrap();
            backend.reserve(1 << 20).unwrap();
            let segments =
                vec![Segment { start: 0, len: 3, parent: None, sequence_len: 3, row: 0 }];
            let batch =
                Batch { tokens: vec![1, 2, 3], segments, reads: vec![2], ..Batch::default() };
            let hidden = decoder.forward(backend, &batch, &Pass::default()).unwrap();
            let mut values = vec![0.0; 64];
            backend.read(hidden.normed, &mut values).unwrap();
            assert!(values.iter().all(|x| x.is_finite()), "{storage:?}");
            assert!(values.iter().any(|x| *x != values[0]), "{storage:?}");
        }
    }

    #[test]
    fn other_storages_are_refused() {
        let config = serde_json::json!({"model_type": "llama"});
        assert!(Base::synthetic(&config, "test", Storage::Q6_K, Path::new(".")).is_err());
    }
}
