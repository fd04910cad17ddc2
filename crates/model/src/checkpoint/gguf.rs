//! A `.gguf` file, its tensors under their Hugging Face names.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use compute::Storage;
use serde_json::Value;
use text::Date;
use text::metadata::gguf::{Metadata, TensorInfo, TensorType};

use super::{Mapping, Stored, Tensor, Tensors};
use crate::{Config, Error, Result};

/// Keys of `rope_scaling` that name tensors of divisors, and the keys that want their numbers.
const DIVISORS: [(&str, &str); 3] =
    [("tensor", "factors"), ("short_tensor", "short_factor"), ("long_tensor", "long_factor")];

pub(super) struct GgufFile {
    path: PathBuf,
    bytes: Mapping,
    header: Metadata,
    heads: usize,
    kv_heads: usize,
    layout: Layout,
    /// Gemma's norms as Hugging Face has them, in F32. Files hold `1 + w`.
    norms: BTreeMap<String, Vec<u8>>,
}

/// What names and rows depend on.
#[derive(Clone, Copy, Debug, Default)]
struct Layout {
    /// Rows of queries and keys alternate between the two halves of a head.
    is_interleaved: bool,
    /// `ffn_norm` stands before the MLP and another norm after attention.
    has_post_norms: bool,
    /// `ffn_up` holds the gate too.
    is_fused: bool,
}

impl Layout {
    fn of(architecture: &str) -> Self {
        Layout {
            is_interleaved: matches!(architecture, "llama" | "granite" | "smollm3"),
            has_post_norms: matches!(architecture, "gemma2" | "gemma3" | "olmo2"),
            is_fused: architecture == "phi3",
        }
    }
}

impl GgufFile {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let bytes = Mapping::new(path)?;
        let header = Metadata::parse(path, &bytes, bytes.len() as u64)?;
        let architecture = header.architecture()?;
        let layout = Layout::of(architecture);
        let is_gemma = architecture.starts_with("gemma");
        let norms = BTreeMap::new();
        let mut file =
            GgufFile { path: path.into(), bytes, header, heads: 0, kv_heads: 0, layout, norms };
        if is_gemma {
            file.norms = file.norms_less_one()?;
        }
        Ok(file)
    }

    fn norms_less_one(&self) -> Result<BTreeMap<String, Vec<u8>>> {
        let is_norm = |info: &&TensorInfo| info.name.ends_with("norm.weight");
        let mut norms = BTreeMap::new();
        for info in self.header.tensors.iter().filter(is_norm) {
            let values = self.floats(info)?.into_iter().map(|value| value - 1.0);
            norms.insert(info.name.clone(), values.flat_map(f32::to_le_bytes).collect());
        }
        Ok(norms)
    }

    /// The header as a `config.json`, with the divisors of rotary frequencies where the file has them.
    pub(super) fn config_json(&self) -> Result<Value> {
        let mut json = self.header.config()?;
        for (key, list) in DIVISORS {
            let Some(name) = json["rope_scaling"].get(key).and_then(Value::as_str) else {
                continue;
            };
            let Some(info) = self.header.tensor(name) else {
                return Err(Error::file(&self.path, format!("tensor `{name}` is missing")));
            };
            let divisors = self.divisors(info, &json)?;
            json["rope_scaling"][list] = divisors;
        }
        Ok(json)
    }

    fn divisors(&self, info: &TensorInfo, config: &Value) -> Result<Value> {
        let name = &info.name;
        let error = |message| Error::file(&self.path, format!("tensor `{name}` {message}"));
        let partial = config["partial_rotary_factor"].as_f64().unwrap_or(1.0);
        let pairs = (config["head_dim"].as_f64().unwrap_or(0.0) * partial) as u64 / 2;
        if info.dims != [pairs] {
            return Err(error(format!("has shape {:?}, not [{pairs}]", info.dims)));
        }
        let check = |factor: f32| match factor.is_finite() && factor > 0.0 {
            true => Ok(Value::from(f64::from(factor))),
            false => Err(error(format!("holds {factor}, which divides no frequency"))),
        };
        self.floats(info)?.into_iter().map(check).collect()
    }

    /// The numbers of a tensor that is never quantised.
    fn floats(&self, info: &TensorInfo) -> Result<Vec<f32>> {
        if info.tensor_type != TensorType::F32 {
            let kind = info.tensor_type.name();
            let message = format!("tensor `{}` has type {kind}, not F32", info.name);
            return Err(Error::file(&self.path, message));
        }
        let (chunks, _) = self.tensor_bytes(info)?.as_chunks::<4>();
        Ok(chunks.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
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
    fn release(&self) {
        self.bytes.release(&self.bytes);
    }

    fn metadata(&self, date: Date) -> Result<text::Metadata> {
        Ok(text::Metadata::from_gguf(&self.header, date)?)
    }

    fn config_json(&self) -> Result<Value> {
        GgufFile::config_json(self)
    }

    fn get(&self, name: &str) -> Result<Option<Tensor<'_>>> {
        let Some(gguf_name) = gguf_name(name, self.layout) else { return Ok(None) };
        let Some(info) = self.header.tensor(&gguf_name) else { return Ok(None) };
        // GGUF lists dimensions innermost first.
        let shape: Vec<usize> = info.dims.iter().rev().map(|&dim| dim as usize).collect();
        let heads = match name.rsplit('.').nth(1) {
            Some("q_proj") => self.heads,
            Some("k_proj") => self.kv_heads,
            _ => 0,
        };
        let row_order = match Some(heads).filter(|&h| h > 0 && self.layout.is_interleaved) {
            Some(heads) if shape[0].is_multiple_of(2 * heads) => {
                Some(rotary_row_order(heads, shape[0] / heads))
            }
            _ => None,
        };
        let storage = storage(info.tensor_type.name()).ok_or_else(|| {
            let kind = info.tensor_type.name();
            Error::file(&self.path, format!("tensor `{}` has type {kind}", info.name)).with_hint(
                "supported: F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K, Q6_K",
            )
        })?;
        let bytes = match self.norms.get(&gguf_name) {
            Some(bytes) => bytes,
            None => self.tensor_bytes(info)?,
        };
        Ok(Some(Tensor {
            name: gguf_name,
            shape,
            stored: Stored::Plain { storage, bytes, row_order },
            path: &self.path,
            mapping: &self.bytes,
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

/// The GGUF name of a Hugging Face tensor.
fn gguf_name(name: &str, layout: Layout) -> Option<String> {
    match name {
        "model.embed_tokens.weight" => return Some("token_embd.weight".into()),
        "model.norm.weight" => return Some("output_norm.weight".into()),
        "lm_head.weight" => return Some("output.weight".into()),
        _ => {}
    }
    let (layer, rest) = name.strip_prefix("model.layers.")?.split_once('.')?;
    let (module, kind) = rest.rsplit_once('.').filter(|(_, k)| matches!(*k, "weight" | "bias"))?;
    let short = match module {
        "input_layernorm" => "attn_norm",
        "post_attention_layernorm" if layout.has_post_norms => "post_attention_norm",
        "post_attention_layernorm" => "ffn_norm",
        "pre_feedforward_layernorm" => "ffn_norm",
        "post_feedforward_layernorm" => "post_ffw_norm",
        "self_attn.q_proj" => "attn_q",
        "self_attn.k_proj" => "attn_k",
        "self_attn.v_proj" => "attn_v",
        "self_attn.qkv_proj" => "attn_qkv",
        "self_attn.q_norm" => "attn_q_norm",
        "self_attn.k_norm" => "attn_k_norm",
        "self_attn.o_proj" => "attn_output",
        "mlp.gate_proj" => "ffn_gate",
        "mlp.up_proj" if !layout.is_fused => "ffn_up",
        "mlp.gate_up_proj" if layout.is_fused => "ffn_up",
        "mlp.down_proj" => "ffn_down",
        _ => return None,
    };
    Some(format!("blk.{layer}.{short}.{kind}"))
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
    use super::super::Base;
    use super::*;

    #[test]
    fn rotary_rows_are_deinterleaved_per_head() {
        assert_eq!(rotary_row_order(2, 4), [0, 2, 1, 3, 4, 6, 5, 7]);
    }

    #[track_caller]
    fn check_name(architecture: &str, module: &str, expected: Option<&str>) {
        let name = format!("model.layers.3.{module}");
        let found = gguf_name(&name, Layout::of(architecture));
        assert_eq!(found, expected.map(|short| format!("blk.3.{short}")), "{architecture} {name}");
    }

    #[test]
    fn names_map_to_gguf() {
        check_name("llama", "self_attn.k_proj.weight", Some("attn_k.weight"));
        check_name("qwen2", "self_attn.k_proj.bias", Some("attn_k.bias"));
        check_name("llama", "unknown.weight", None);
        check_name("llama", "post_attention_layernorm.weight", Some("ffn_norm.weight"));
        let after_attention = Some("post_attention_norm.weight");
        check_name("gemma2", "post_attention_layernorm.weight", after_attention);
        check_name("olmo2", "post_attention_layernorm.weight", after_attention);
        check_name("phi3", "mlp.gate_up_proj.weight", Some("ffn_up.weight"));
        check_name("phi3", "mlp.up_proj.weight", None);
    }

    /// Files of every family hold what the folders they were made of hold, bit for bit but for
    /// Gemma's norms, which lost digits when 1 was added.
    #[test]
    fn files_equal_their_folders() {
        let golden = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden"));
        for case in [
            "llama_bias",
            "mistral",
            "qwen2",
            "qwen3",
            "gemma2",
            "gemma3_text",
            "phi3",
            "phi4mini_longrope",
            "smollm3",
            "olmo2",
            "granite",
        ] {
            let folder = Base::open(&golden.join("architectures").join(case)).unwrap();
            let file = Base::open(&golden.join(format!("gguf/{case}.gguf"))).unwrap();
            check_config(case, &file.config, &folder.config);
            let names = std::fs::read(folder.path.join("model.safetensors")).unwrap();
            let names = safetensors::SafeTensors::deserialize(&names).unwrap();
            for (name, view) in names.iter() {
                let tensor = file.tensor(name, view.shape()).unwrap();
                let expected = folder.tensor(name, view.shape()).unwrap();
                let error = values(&tensor).into_iter().zip(values(&expected));
                let error = error.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                let is_rounded = case.starts_with("gemma") && name.ends_with("norm.weight");
                let allowed = if is_rounded { f32::EPSILON } else { 0.0 };
                assert!(error <= allowed, "{case} {name}: {error}");
            }
        }
    }

    /// Equal but for what a file does not hold exactly.
    fn check_config(case: &str, file: &Config, folder: &Config) {
        let close = |a: &[f32], b: &[f32]| {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a / b - 1.0).abs() < 1e-6)
        };
        for (a, b) in file.ropes.iter().zip(&folder.ropes) {
            assert!(close(&a.inv_freq, &b.inv_freq), "{case}: {a:?} {b:?}");
            assert!(close(&[a.attention_scale], &[b.attention_scale]), "{case}: {a:?} {b:?}");
            let long = |rope: &crate::config::Rope| rope.long.clone().unwrap_or_default();
            assert!(long(a).0 == long(b).0 && close(&long(a).1, &long(b).1), "{case}");
        }
        assert!(close(&[file.attention_scale], &[folder.attention_scale]), "{case}");
        let rest = |config: &Config| Config {
            ropes: config.ropes.iter().map(|_| config.ropes[0].clone()).collect(),
            ..config.clone()
        };
        let expected = Config {
            ropes: rest(file).ropes,
            attention_scale: file.attention_scale,
            // Files do not say which layers have no rope: every fourth, which this model lacks.
            layers: if case == "smollm3" { file.layers.clone() } else { folder.layers.clone() },
            ..folder.clone()
        };
        assert_eq!(folder.ropes.len(), file.ropes.len(), "{case}");
        assert_eq!(rest(file), expected, "{case}");
    }

    fn values(tensor: &Tensor<'_>) -> Vec<f32> {
        tensor.values(0..tensor.shape[0]).unwrap()
    }
}
