//! NaN and infinity in files: whoever loads or merges them is told the file, the tensor and the row.

use std::path::{Path, PathBuf};

use compute::Quantization;
use compute::cpu::Precision;
use half::{bf16, f16};
use model::adapter::LoadedAdapter;
use model::checkpoint::check_finite;
use model::merge::{Merge, MergedType};
use model::{Base, Decoder, LoadOptions, Optimizers, Selection, Training};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use tempfile::TempDir;

use crate::gguf_file::{Numbers, Stored, as_gguf, config, weights, write_folder};
use crate::support::{cpu, golden, on_exact_backends};

const BROKEN: [f32; 3] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY];

/// Every way in which weights are loaded.
fn ways() -> Vec<(&'static str, LoadOptions)> {
    let quantized = |to| LoadOptions { quantization: Some(to), ..LoadOptions::default() };
    let training = Training { tensors: Selection::All, optimizers: Optimizers::ADAMW };
    vec![
        ("as it is", LoadOptions::default()),
        ("nf4", quantized(Quantization::Nf4)),
        ("int8", quantized(Quantization::Int8)),
        ("trained", LoadOptions { training: Some(training), ..LoadOptions::default() }),
        ("more tokens", LoadOptions { vocab_size: Some(140), ..LoadOptions::default() }),
    ]
}

#[track_caller]
fn check(path: &Path, file: &Path, tensor: &str, row: usize) {
    for (way, options) in ways() {
        let mut backend = cpu(Precision::Bf16, 2);
        let base = Base::open(path).unwrap();
        let Err(error) = Decoder::load_with(&base, &mut backend, &options) else {
            panic!("`{tensor}` was loaded {way}");
        };
        let expected =
            format!("{}: tensor `{tensor}`: row {row} holds NaN or infinity", file.display());
        assert_eq!(error.to_string(), expected, "{way}");
        assert!(error.hint().is_some_and(|hint| hint.contains("damaged")), "{way}");
    }
}

/// A folder of floats in which one number was changed.
fn folder(case: &str, dtype: Dtype, tensor: &str, at: usize, value: f32) -> TempDir {
    let mut tensors = weights(case);
    tensors.get_mut(tensor).unwrap().values[at] = value;
    let dir = tempfile::tempdir().unwrap();
    write_folder(dir.path(), &config(case), &tensors);
    let bytes = |numbers: &Numbers| -> Vec<u8> {
        let bytes = |value: &f32| match dtype {
            Dtype::F16 => f16::from_f32(*value).to_le_bytes().to_vec(),
            Dtype::BF16 => bf16::from_f32(*value).to_le_bytes().to_vec(),
            _ => value.to_le_bytes().to_vec(),
        };
        numbers.values.iter().flat_map(bytes).collect()
    };
    let stored: Vec<_> = tensors.iter().map(|(name, n)| (name, &n.shape, bytes(n))).collect();
    let views = stored.iter().map(|(name, shape, bytes)| {
        (name, TensorView::new(dtype, (*shape).clone(), bytes).unwrap())
    });
    let file = safetensors::serialize(views, None).unwrap();
    std::fs::write(dir.path().join("model.safetensors"), file).unwrap();
    dir
}

#[test]
fn floats_of_every_type_and_role() {
    let places = [
        ("gqa", "model.embed_tokens.weight", 64),
        ("gqa", "lm_head.weight", 64),
        ("tied", "model.embed_tokens.weight", 32),
        ("gqa", "model.layers.1.self_attn.k_proj.weight", 64),
        ("gqa", "model.layers.0.mlp.down_proj.weight", 96),
        ("gqa", "model.layers.1.input_layernorm.weight", 1),
        ("gqa", "model.norm.weight", 1),
    ];
    for (index, (case, tensor, cols)) in places.into_iter().enumerate() {
        let dtype = [Dtype::F32, Dtype::F16, Dtype::BF16][index % 3];
        let dir = folder(case, dtype, tensor, 7 * cols + cols / 2, BROKEN[index % 3]);
        check(dir.path(), &dir.path().join("model.safetensors"), tensor, 7);
    }
}

/// The largest numbers that a type holds are numbers.
#[test]
fn large_numbers_are_no_infinity() {
    for (dtype, value) in [(Dtype::F32, 3e38), (Dtype::F16, 65_504.0), (Dtype::BF16, 3e38)] {
        let dir = folder("gqa", dtype, "lm_head.weight", 5, value);
        let base = Base::open(dir.path()).unwrap();
        Decoder::load(&base, &mut cpu(Precision::F32, 1)).unwrap();
    }
}

/// Writes a GGUF file with NaN as the scale of the first block of a row of its own.
fn gguf(dir: &Path, tensor: &str, row: usize) -> PathBuf {
    let path = dir.join("tiny.gguf");
    let mut file = as_gguf(&config("gqa"), &mut weights("gqa"), |name, numbers| match name {
        _ if name.contains("norm") => Stored::f32(numbers),
        _ => Stored::q8_0(numbers),
    });
    let stored = file.tensors.get_mut(tensor).unwrap();
    let row_bytes = stored.dims[0] as usize / 32 * 34;
    stored.bytes[row * row_bytes..][..2].copy_from_slice(&f16::NAN.to_le_bytes());
    file.write(&path);
    path
}

/// The row is the file's, also where rows of queries change places on the way.
#[test]
fn scales_of_blocks() {
    let dir = tempfile::tempdir().unwrap();
    for tensor in
        ["token_embd.weight", "output.weight", "blk.1.attn_q.weight", "blk.0.ffn_down.weight"]
    {
        let path = gguf(dir.path(), tensor, 3);
        check(&path, &path, tensor, 3);
    }
}

/// Overwrites the first bytes of a tensor in a safetensors file.
fn overwrite(path: &Path, tensor: &str, at: usize, bytes: &[u8]) {
    let mut file = std::fs::read(path).unwrap();
    let start = {
        let tensors = SafeTensors::deserialize(&file).unwrap();
        tensors.tensor(tensor).unwrap().data().as_ptr().addr() - file.as_ptr().addr()
    };
    file[start + at..][..bytes.len()].copy_from_slice(bytes);
    std::fs::write(path, file).unwrap();
}

fn copy(from: &Path) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        std::fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
    }
    dir
}

#[test]
fn magnitudes_of_bitsandbytes() {
    let module = "model.layers.1.mlp.gate_proj";
    for (case, part, message) in [
        ("nf4", "weight.nested_absmax", "row 0 holds NaN or infinity"),
        ("nf4", "weight.nested_quant_map", "the nested map of a quantised matrix holds NaN"),
        ("nf4", "weight.quant_map", "the map of a quantised matrix holds NaN"),
        ("nf4_plain", "weight.absmax", "row 0 holds NaN or infinity"),
        ("int8", "SCB", "row 0 holds NaN or infinity"),
    ] {
        let dir = copy(&golden(&format!("bnb/{case}")));
        let file = dir.path().join("model.safetensors");
        overwrite(&file, &format!("{module}.{part}"), 0, &f32::NAN.to_le_bytes());
        let base = Base::open(dir.path()).unwrap();
        let error = Decoder::load(&base, &mut cpu(Precision::Bf16, 1)).err().unwrap().to_string();
        let expected = format!("{}: tensor `{module}.weight`: {message}", file.display());
        assert!(error.starts_with(&expected), "{case} {part}: {error}");
    }
}

#[test]
fn adapters() {
    let base = Base::open(&golden("tiny_llama/gqa")).unwrap();
    let dir = copy(&golden("bnb/adapter"));
    let file = dir.path().join("adapter_model.safetensors");
    let tensor = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight";
    let cols = 64;
    overwrite(&file, tensor, 4 * cols, &f32::NEG_INFINITY.to_le_bytes());
    let error = LoadedAdapter::read(dir.path(), &base.config).err().unwrap();
    let expected = format!("{}: tensor `{tensor}`: row 1 holds NaN or infinity", file.display());
    assert_eq!(error.to_string(), expected);

    let dir = copy(&golden("bnb/adapter"));
    let path = dir.path().join("adapter_config.json");
    let mut config: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config["lora_alpha"] = 1e300.into();
    std::fs::write(&path, config.to_string()).unwrap();
    let error = LoadedAdapter::read(dir.path(), &base.config).err().unwrap().to_string();
    assert!(
        error.contains("`lora_alpha` = 1e300") || error.contains("`lora_alpha` = 1e+300"),
        "{error}"
    );
}

/// What a merge reads of the base is named, not what it would have written.
#[test]
fn merges() {
    for tensor in ["model.layers.0.mlp.up_proj.weight", "model.embed_tokens.weight"] {
        let dir = folder("gqa", Dtype::F32, tensor, 2 * 64 + 1, f32::NAN);
        let base = Base::open(dir.path()).unwrap();
        let adapter = LoadedAdapter::read(&golden("bnb/adapter"), &base.config).unwrap();
        let merge = Merge::new(&base, adapter, MergedType::Auto).unwrap();
        let out = tempfile::tempdir().unwrap();
        let error = merge.write(out.path(), u64::MAX, 2, &mut |_| ()).unwrap_err();
        let file = dir.path().join("model.safetensors");
        let expected =
            format!("{}: tensor `{tensor}`: row 2 holds NaN or infinity", file.display());
        assert_eq!(error.to_string(), expected);
    }
}

/// What is passed on unread is looked at too, whatever its shape.
#[test]
fn files_that_are_only_passed_on() {
    check_finite(&golden("tiny_llama/gqa/model.safetensors")).unwrap();
    for (tensor, at, row) in [("model.norm.weight", 5, 5), ("lm_head.weight", 3 * 64 + 1, 3)] {
        let dir = folder("gqa", Dtype::F16, tensor, at, f32::NAN);
        let file = dir.path().join("model.safetensors");
        let error = check_finite(&file).unwrap_err().to_string();
        let end = format!("tensor `{tensor}`: row {row} holds NaN or infinity");
        assert_eq!(error, format!("{}: {end}", file.display()));
    }
}

/// The reference, which tests compare devices with, refuses what they refuse.
#[test]
fn every_device_refuses() {
    let dir = folder("gqa", Dtype::F32, "lm_head.weight", 64, f32::NAN);
    let base = Base::open(dir.path()).unwrap();
    on_exact_backends(|backend| {
        let error = Decoder::load(&base, backend).err().unwrap().to_string();
        assert!(error.ends_with("tensor `lm_head.weight`: row 1 holds NaN or infinity"), "{error}");
    });
}
