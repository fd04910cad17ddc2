//! A small writer of GGUF files, and of safetensors folders with the same numbers.

use std::collections::BTreeMap;
use std::path::Path;

use compute::Storage;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

use crate::support::golden;

/// A matrix or vector, outermost dimension first.
#[derive(Clone)]
pub(crate) struct Numbers {
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Vec<f32>,
}

/// How a tensor is written: the type's number in the file, its dimensions and bytes.
#[derive(Clone)]
pub(crate) struct Stored {
    pub(crate) kind: u32,
    /// Innermost first.
    pub(crate) dims: Vec<u64>,
    pub(crate) bytes: Vec<u8>,
    /// Added to the offset that belongs there.
    pub(crate) shift: u64,
}

/// A value of the metadata.
#[derive(Clone)]
pub(crate) enum Meta {
    Text(String),
    Number(u32),
    Float(f32),
}

/// All that a file holds.
#[derive(Clone, Default)]
pub(crate) struct GgufFile {
    pub(crate) metadata: BTreeMap<String, Meta>,
    pub(crate) tensors: BTreeMap<String, Stored>,
}

impl GgufFile {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(3_u32.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata {
            put_text(&mut out, key);
            match value {
                Meta::Text(text) => {
                    out.extend(8_u32.to_le_bytes());
                    put_text(&mut out, text);
                }
                Meta::Number(number) => {
                    out.extend(4_u32.to_le_bytes());
                    out.extend(number.to_le_bytes());
                }
                Meta::Float(number) => {
                    out.extend(6_u32.to_le_bytes());
                    out.extend(number.to_le_bytes());
                }
            }
        }
        self.finish(out)
    }

    /// Appends the tensors to a header.
    fn finish(&self, mut out: Vec<u8>) -> Vec<u8> {
        let mut data = Vec::new();
        for (name, tensor) in &self.tensors {
            put_text(&mut out, name);
            out.extend((tensor.dims.len() as u32).to_le_bytes());
            out.extend(tensor.dims.iter().flat_map(|dim| dim.to_le_bytes()));
            out.extend(tensor.kind.to_le_bytes());
            out.extend((data.len() as u64).wrapping_add(tensor.shift).to_le_bytes());
            data.extend(&tensor.bytes);
            data.resize(data.len().next_multiple_of(32), 0);
        }
        out.resize(out.len().next_multiple_of(32), 0);
        out.extend(data);
        out
    }

    pub(crate) fn write(&self, path: &Path) {
        std::fs::write(path, self.bytes()).unwrap();
    }
}

/// A GGUF file with every matrix of whole blocks in Q8_0, all else as it was in F32.
pub(crate) fn in_blocks(path: &Path) -> Vec<u8> {
    let bytes = std::fs::read(path).unwrap();
    let header = text::gguf::Metadata::parse(path, &bytes, bytes.len() as u64).unwrap();
    let mut file = GgufFile::default();
    for info in &header.tensors {
        let stored = &bytes[info.offset as usize..][..info.bytes as usize];
        let storage = match info.tensor_type.name() {
            "F32" => Storage::F32,
            "F16" => Storage::F16,
            "BF16" => Storage::Bf16,
            other => panic!("{other} in {path:?}"),
        };
        let shape: Vec<usize> = info.dims.iter().rev().map(|&dim| dim as usize).collect();
        let mut values = vec![0.0; shape.iter().product()];
        compute::dequant::dequantize(storage, stored, &mut values);
        let mut numbers = Numbers { shape, values };
        let has_blocks = info.dims.len() == 2 && info.dims[0] % 32 == 0;
        let stored = match has_blocks {
            true => Stored::q8_0(&mut numbers),
            false => Stored::f32(&numbers),
        };
        file.tensors.insert(info.name.clone(), stored);
    }
    // The metadata end where the first tensor's entry begins.
    let mut first = Vec::new();
    put_text(&mut first, &header.tensors[0].name);
    let end = bytes.windows(first.len()).position(|window| window == first).unwrap();
    file.finish(bytes[..end].to_vec())
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

impl Stored {
    pub(crate) fn f32(numbers: &Numbers) -> Self {
        let bytes = numbers.values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Stored { kind: 0, dims: dims(numbers), bytes, shift: 0 }
    }

    /// Blocks of 32 with a power of two as scale; `numbers` become what the blocks stand for.
    pub(crate) fn q8_0(numbers: &mut Numbers) -> Self {
        let mut bytes = Vec::new();
        for block in numbers.values.chunks_exact_mut(32) {
            let largest = block.iter().fold(1e-6_f32, |max, v| max.max(v.abs()));
            let exponent = (largest / 127.0).log2().ceil() as i32;
            let scale = (exponent as f32).exp2();
            bytes.extend((((exponent + 15) as u16) << 10).to_le_bytes());
            for value in block {
                let code = (*value / scale).round() as i8;
                bytes.extend(code.to_le_bytes());
                *value = f32::from(code) * scale;
            }
        }
        Stored { kind: 8, dims: dims(numbers), bytes, shift: 0 }
    }
}

fn dims(numbers: &Numbers) -> Vec<u64> {
    numbers.shape.iter().rev().map(|&dim| dim as u64).collect()
}

/// The weights of a tiny model.
pub(crate) fn weights(case: &str) -> BTreeMap<String, Numbers> {
    let path = golden(&format!("tiny_llama/{case}/model.safetensors"));
    let bytes = std::fs::read(path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let all = tensors.tensors().into_iter().map(|(name, view)| {
        let values = view.data().chunks_exact(4);
        let values = values.map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        (name, Numbers { shape: view.shape().to_vec(), values })
    });
    all.collect()
}

pub(crate) fn config(case: &str) -> Value {
    let path = golden(&format!("tiny_llama/{case}/config.json"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Writes tensors as a safetensors file.
pub(crate) fn write_safetensors<'a>(
    path: &Path,
    tensors: impl IntoIterator<Item = (&'a String, &'a Numbers)>,
) {
    let stored: Vec<(&String, &Numbers, Vec<u8>)> = tensors
        .into_iter()
        .map(|(name, numbers)| {
            (name, numbers, numbers.values.iter().flat_map(|v| v.to_le_bytes()).collect())
        })
        .collect();
    let views = stored.iter().map(|(name, numbers, bytes)| {
        (name.as_str(), TensorView::new(Dtype::F32, numbers.shape.clone(), bytes).unwrap())
    });
    std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

/// Writes a Hugging Face folder.
pub(crate) fn write_folder(dir: &Path, config: &Value, tensors: &BTreeMap<String, Numbers>) {
    std::fs::write(dir.join("config.json"), config.to_string()).unwrap();
    write_safetensors(&dir.join("model.safetensors"), tensors);
}

/// A tiny model as llama.cpp's converter writes it: its names, and the rows of q and k with the
/// two halves of every rotary head interleaved. `store` chooses the type of every matrix.
pub(crate) fn as_gguf(
    config: &Value,
    tensors: &mut BTreeMap<String, Numbers>,
    mut store: impl FnMut(&str, &mut Numbers) -> Stored,
) -> GgufFile {
    let size = |key: &str| config[key].as_u64().unwrap() as u32;
    let mut file = GgufFile::default();
    let numbers = [
        ("embedding_length", size("hidden_size")),
        ("feed_forward_length", size("intermediate_size")),
        ("block_count", size("num_hidden_layers")),
        ("attention.head_count", size("num_attention_heads")),
        ("attention.head_count_kv", size("num_key_value_heads")),
        ("attention.key_length", size("head_dim")),
        ("rope.dimension_count", size("head_dim")),
        ("context_length", size("max_position_embeddings")),
    ];
    for (key, number) in numbers {
        file.metadata.insert(format!("llama.{key}"), Meta::Number(number));
    }
    let float = |value: &Value| Meta::Float(value.as_f64().unwrap() as f32);
    let theta = float(&config["rope_parameters"]["rope_theta"]);
    let eps = float(&config["rms_norm_eps"]);
    file.metadata.insert("llama.rope.freq_base".into(), theta);
    file.metadata.insert("llama.attention.layer_norm_rms_epsilon".into(), eps);
    file.metadata.insert("general.architecture".into(), Meta::Text("llama".into()));
    for (name, numbers) in tensors {
        let heads = match name.rsplit('.').nth(1).unwrap() {
            "q_proj" => size("num_attention_heads"),
            "k_proj" => size("num_key_value_heads"),
            _ => 0,
        };
        let mut stored = store(name, numbers);
        if heads > 0 {
            interleave(&mut stored.bytes, heads as usize, numbers.shape[0]);
        }
        file.tensors.insert(gguf_name(name), stored);
    }
    file
}

/// Row (head, half, i) goes to (head, i, half).
fn interleave(bytes: &mut [u8], heads: usize, rows: usize) {
    let (row_bytes, head_dim) = (bytes.len() / rows, rows / heads);
    let original = bytes.to_vec();
    for row in 0..rows {
        let (head, within) = (row / head_dim, row % head_dim);
        let (half, i) = (within / (head_dim / 2), within % (head_dim / 2));
        let to = head * head_dim + 2 * i + half;
        bytes[to * row_bytes..][..row_bytes]
            .copy_from_slice(&original[row * row_bytes..][..row_bytes]);
    }
}

fn gguf_name(name: &str) -> String {
    let replaced = [
        ("model.embed_tokens", "token_embd"),
        ("model.norm", "output_norm"),
        ("lm_head", "output"),
        ("model.layers", "blk"),
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ffn_norm"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
    ];
    replaced.iter().fold(name.to_owned(), |name, (from, to)| name.replace(from, to))
}
