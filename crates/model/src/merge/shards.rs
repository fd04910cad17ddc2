//! The files that a merged model is written to, tensor by tensor.

use std::path::Path;

use serde_json::{Map, json};

use super::Merge;
use super::files::write_synced;
use super::outputs::{Content, Output};
use super::rows::chunk_rows;
use crate::Result;
use crate::checkpoint::{Announced, TensorWriter};

/// What was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Number of tensors.
    pub tensors: usize,
    /// Bytes of all tensors.
    pub bytes: u64,
    /// The files of weights.
    pub files: Vec<String>,
    /// The largest piece of a tensor that was in memory at a time, in bytes as written.
    pub largest_piece_bytes: usize,
}

impl Merge<'_> {
    pub(super) fn write_shards(
        &self,
        dir: &Path,
        max_shard_bytes: u64,
        threads: usize,
        on_progress: &mut dyn FnMut(u64),
    ) -> Result<Written> {
        let shards = shards(&self.outputs, max_shard_bytes);
        let mut written = Written::default();
        let mut weight_map = Map::new();
        for (index, shard) in shards.iter().enumerate() {
            let name = file_name(index, shards.len());
            let path = dir.join(&name);
            let announced: Vec<Announced> = shard.iter().map(|output| announced(output)).collect();
            let mut file = TensorWriter::create(&path, &announced)?;
            for output in shard {
                let mut sink = |bytes: &[u8]| {
                    written.bytes += bytes.len() as u64;
                    written.largest_piece_bytes = written.largest_piece_bytes.max(bytes.len());
                    on_progress(written.bytes);
                    file.write(bytes)
                };
                self.write_output(output, threads, &mut sink)?;
                written.tensors += 1;
                weight_map.insert(output.name.clone(), name.clone().into());
            }
            file.finish()?;
            written.files.push(name);
        }
        if shards.len() > 1 {
            weight_map.sort_keys();
            let index =
                json!({"metadata": {"total_size": written.bytes}, "weight_map": weight_map});
            let text = serde_json::to_string_pretty(&index).expect("JSON can be written") + "\n";
            write_synced(&dir.join("model.safetensors.index.json"), text.as_bytes())?;
        }
        Ok(written)
    }

    fn write_output(
        &self,
        output: &Output<'_>,
        threads: usize,
        sink: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let Some(rows) = self.rows(output)? else {
            let Content::Foreign(bytes) = output.content else { return Ok(()) };
            return sink(bytes);
        };
        let count = output.shape[0];
        let step = chunk_rows(output.shape.get(1).copied().unwrap_or(1));
        for start in (0..count).step_by(step) {
            sink(&rows.encoded(start..count.min(start + step), threads)?)?;
        }
        rows.release();
        Ok(())
    }
}

/// Tensors by file, in order; wider types first within a file, so that all are aligned.
fn shards<'a>(outputs: &'a [Output<'a>], max_bytes: u64) -> Vec<Vec<&'a Output<'a>>> {
    let mut shards: Vec<Vec<&Output<'_>>> = vec![Vec::new()];
    let mut filled = 0;
    for output in outputs {
        let bytes = output.bytes();
        if filled > 0 && filled + bytes > max_bytes {
            shards.push(Vec::new());
            filled = 0;
        }
        filled += bytes;
        shards.last_mut().expect("there is one from the start").push(output);
    }
    for shard in &mut shards {
        shard.sort_by_key(|output| std::cmp::Reverse(output.dtype.bitsize()));
    }
    shards
}

/// `model.safetensors`, or with its number where there are several.
fn file_name(index: usize, count: usize) -> String {
    match count {
        1 => "model.safetensors".into(),
        _ => format!("model-{:05}-of-{count:05}.safetensors", index + 1),
    }
}

fn announced(output: &Output<'_>) -> Announced {
    Announced { name: output.name.clone(), dtype: output.dtype, shape: output.shape.clone() }
}

#[cfg(test)]
mod tests {
    use safetensors::Dtype;

    use super::*;

    fn output(name: &str, dtype: Dtype, len: usize) -> Output<'static> {
        let content = Content::Vector(name.into());
        Output { name: name.into(), dtype, shape: vec![len], content }
    }

    #[track_caller]
    fn check(lens: &[usize], max_bytes: u64, expected: &[&[&str]]) {
        let outputs: Vec<Output<'_>> = (b'a'..)
            .zip(lens)
            .map(|(name, &len)| output(&char::from(name).to_string(), Dtype::F32, len))
            .collect();
        let shards = shards(&outputs, max_bytes);
        let names: Vec<Vec<&str>> =
            shards.iter().map(|shard| shard.iter().map(|output| &*output.name).collect()).collect();
        assert_eq!(names, expected);
    }

    #[test]
    fn files_are_filled_up_to_their_size() {
        check(&[1, 1, 1], 12, &[&["a", "b", "c"]]);
        check(&[1, 1, 1], 8, &[&["a", "b"], &["c"]]);
        check(&[1, 5, 1], 8, &[&["a"], &["b"], &["c"]]);
        check(&[5, 1], 8, &[&["a"], &["b"]]);
    }
}
