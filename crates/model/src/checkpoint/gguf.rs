//! A `.gguf` file, its tensors under their Hugging Face names.

use std::path::{Path, PathBuf};

use compute::Storage;
use memmap2::Mmap;
use serde_json::Value;
use text::Date;
use text::metadata::gguf::{Metadata, TensorInfo, TensorType};

use super::{Tensor, Tensors, map};
use crate::{Config, Error, Result};

/// Divisors of the rotary frequencies, `[D / 2]`.
const ROPE_FREQS: &str = "rope_freqs.weight";

pub(super) struct GgufFile {
    path: PathBuf,
    bytes: Mmap,
    header: Metadata,
    heads: usize,
    kv_heads: usize,
}

impl GgufFile {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let bytes = map(path)?;
        let header = Metadata::parse(path, &bytes, bytes.len() as u64)?;
        Ok(GgufFile { path: path.into(), bytes, header, heads: 0, kv_heads: 0 })
    }

    /// The header as a `config.json`, with Llama 3's frequency factors where the file has them.
    pub(super) fn config_json(&self) -> Result<Value> {
        let mut json = self.header.config()?;
        if let Some(info) = self.header.tensor(ROPE_FREQS) {
            json["rope_freq_factors"] = Value::Array(self.frequency_factors(info, &json)?);
        }
        Ok(json)
    }

    fn frequency_factors(&self, info: &TensorInfo, config: &Value) -> Result<Vec<Value>> {
        let error = |message| Error::file(&self.path, format!("tensor `{ROPE_FREQS}` {message}"));
        if info.tensor_type != TensorType::F32 {
            return Err(error(format!("has type {}, not F32", info.tensor_type.name())));
        }
        let pairs = config["head_dim"].as_u64().unwrap_or(0) / 2;
        if info.dims != [pairs] {
            return Err(error(format!("has shape {:?}, not [{pairs}]", info.dims)));
        }
        let floats = self.tensor_bytes(info)?.chunks_exact(4);
        let floats = floats.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        floats
            .map(|factor| match factor.is_finite() && factor > 0.0 {
                true => Ok(f64::from(factor).into()),
                false => Err(error(format!("holds {factor}, which divides no frequency"))),
            })
            .collect()
    }

    pub(super) fn with_config(mut self, config: &Config) -> Self {
        self.heads = config.num_attention_heads;
        self.kv_heads = config.num_key_value_heads;
        self
    }

    fn tensor_bytes(&self, info: &TensorInfo) -> Result<&[u8]> {
        let (start, len) = (info.offset as usize, info.bytes as usize);
        self.bytes.get(start..).and_then(|rest| rest.get(..len)).ok_or_else(|| {
            Error::file(&self.path, format!("tensor `{}` ends past the end of the file", info.name))
        })
    }
}

impl Tensors for GgufFile {
    fn metadata(&self, date: Date) -> Result<text::Metadata> {
        Ok(text::Metadata::from_gguf(&self.header, date)?)
    }

    fn get(&self, name: &str) -> Result<Option<Tensor<'_>>> {
        let Some((gguf_name, heads)) = gguf_name(name, self.heads, self.kv_heads) else {
            return Ok(None);
        };
        let Some(info) = self.header.tensor(&gguf_name) else { return Ok(None) };
        // GGUF lists dimensions innermost first.
        let shape: Vec<usize> = info.dims.iter().rev().map(|&dim| dim as usize).collect();
        let row_order = match heads {
            Some(heads) if shape[0].is_multiple_of(2 * heads) => {
                Some(rotary_row_order(heads, shape[0] / heads))
            }
            _ => None,
        };
        Ok(Some(Tensor {
            shape,
            storage: storage(info.tensor_type.name()).ok_or_else(|| {
                Error::file(
                    &self.path,
                    format!("tensor `{}` has type {}", info.name, info.tensor_type.name()),
                )
                .with_hint(
                    "supported: F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K, Q6_K",
                )
            })?,
            bytes: self.tensor_bytes(info)?,
            row_order,
            path: &self.path,
        }))
    }
}

fn storage(type_name: &str) -> Option<Storage> {
    Some(match type_name {
        "F32" => Storage::F32,
        "F16" => Storage::F16,
        "BF16" => Storage::Bf16,
        "Q8_0" => Storage::Q8_0,
        "Q4_0" => Storage::Q4_0,
        "Q4_1" => Storage::Q4_1,
        "Q5_0" => Storage::Q5_0,
        "Q5_1" => Storage::Q5_1,
        "Q4_K" => Storage::Q4_K,
        "Q5_K" => Storage::Q5_K,
        "Q6_K" => Storage::Q6_K,
        _ => return None,
    })
}

/// The GGUF name of a Hugging Face tensor, and the number of heads whose rows are permuted in it.
fn gguf_name(name: &str, heads: usize, kv_heads: usize) -> Option<(String, Option<usize>)> {
    let plain = |name: &str| Some((name.to_owned(), None));
    match name {
        "model.embed_tokens.weight" => return plain("token_embd.weight"),
        "model.norm.weight" => return plain("output_norm.weight"),
        "lm_head.weight" => return plain("output.weight"),
        _ => {}
    }
    let (layer, rest) = name.strip_prefix("model.layers.")?.split_once('.')?;
    let (short, permuted) = match rest.strip_suffix(".weight")? {
        "input_layernorm" => ("attn_norm", None),
        "post_attention_layernorm" => ("ffn_norm", None),
        "self_attn.q_proj" => ("attn_q", Some(heads)),
        "self_attn.k_proj" => ("attn_k", Some(kv_heads)),
        "self_attn.v_proj" => ("attn_v", None),
        "self_attn.o_proj" => ("attn_output", None),
        "mlp.gate_proj" => ("ffn_gate", None),
        "mlp.up_proj" => ("ffn_up", None),
        "mlp.down_proj" => ("ffn_down", None),
        _ => return None,
    };
    Some((format!("blk.{layer}.{short}.weight"), permuted))
}

/// Llama-family files interleave the two halves of each rotary head; this is
/// the row of the file for each row in Hugging Face order.
fn rotary_row_order(heads: usize, head_dim: usize) -> Vec<u32> {
    let half = head_dim / 2;
    (0..heads)
        .flat_map(|head| (0..2).map(move |part| (head, part)))
        .flat_map(|(head, part)| (0..half).map(move |i| (head * head_dim + 2 * i + part) as u32))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotary_rows_are_deinterleaved_per_head() {
        assert_eq!(rotary_row_order(2, 4), [0, 2, 1, 3, 4, 6, 5, 7]);
    }

    #[test]
    fn names_map_to_gguf() {
        let name = gguf_name("model.layers.3.self_attn.k_proj.weight", 9, 3);
        assert_eq!(name, Some(("blk.3.attn_k.weight".into(), Some(3))));
        assert_eq!(gguf_name("model.layers.3.unknown.weight", 9, 3), None);
    }
}
