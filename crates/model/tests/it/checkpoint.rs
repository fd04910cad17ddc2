//! Base models on disk: every format gives the same numbers, and what is wrong with a file is an
//! error that names it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use compute::Backend as _;
use compute::cpu::Precision;
use model::{Base, Decoder};
use serde_json::{Value, json};
use tempfile::TempDir;
use text::Batch;

use crate::gguf_file::{
    GgufFile, Meta, Numbers, Stored, as_gguf, config, weights, write_folder, write_safetensors,
};
use crate::support::{
    Rig, batch, check_close, check_same, cpu, golden, random_sequence, random_tokens, tiny,
};

fn test_batch(vocab: u32) -> Batch {
    let sequence = |row, len| random_sequence(row, &random_tokens(row, len, vocab));
    batch(&[sequence(1, 30), sequence(2, 11)], 0)
}

/// Log-probabilities of the base, and with the adapter of a tiny model over it.
fn logprobs(path: &Path, case: &str, precision: Precision) -> [Vec<f32>; 2] {
    let base = Base::open(path).unwrap();
    let (_, lora) = tiny(case);
    let mut rig = Rig::new(Box::new(cpu(precision, 2)), &base, &lora);
    let batch = test_batch(base.config.vocab_size as u32);
    [rig.base_logprobs(&batch), rig.logprobs(&batch)]
}

#[track_caller]
fn check_equal(case: &str, path: &Path, expected: &Path) {
    for precision in [Precision::F32, Precision::Bf16] {
        let [base, adapted] = logprobs(path, case, precision);
        let [expected_base, expected_adapted] = logprobs(expected, case, precision);
        check_same("base", &base, &expected_base);
        check_same("adapter", &adapted, &expected_adapted);
    }
}

#[test]
fn shards_equal_one_file() {
    let dir = tempfile::tempdir().unwrap();
    write_shards(dir.path());
    check_equal("gqa", dir.path(), &golden("tiny_llama/gqa"));
}

/// The tiny model in three files, tensor by tensor in turn.
fn write_shards(dir: &Path) {
    let tensors = weights("gqa");
    let file = |index: usize| format!("model-{:05}-of-00003.safetensors", index % 3 + 1);
    for shard in 0..3 {
        let own = tensors.iter().enumerate().filter(|(index, _)| index % 3 == shard);
        write_safetensors(&dir.join(file(shard)), own.map(|(_, tensor)| tensor));
    }
    let map: BTreeMap<&String, String> =
        tensors.keys().enumerate().map(|(index, name)| (name, file(index))).collect();
    let index = json!({"metadata": {"total_size": 0}, "weight_map": map});
    std::fs::write(dir.join("model.safetensors.index.json"), index.to_string()).unwrap();
    std::fs::write(dir.join("config.json"), config("gqa").to_string()).unwrap();
}

/// The one file goes before an index of others, as in transformers, whether or not those are there.
#[test]
fn a_whole_model_goes_before_a_stale_index() {
    let dir = tempfile::tempdir().unwrap();
    write_shards(dir.path());
    let path = dir.path();
    assert_eq!(Base::open(path).unwrap().remarks, []);
    // Shards of another model.
    let shard = path.join("model-00003-of-00003.safetensors");
    let mut last = std::fs::read(&shard).unwrap();
    *last.last_mut().unwrap() ^= 1;
    std::fs::write(&shard, last).unwrap();
    write_folder(path, &config("gqa"), &weights("gqa"));
    let check = || {
        let base = Base::open(path).unwrap();
        let ids: Vec<&str> = base.remarks.iter().map(|remark| remark.id).collect();
        assert_eq!(ids, ["stale-index"]);
        check_equal("gqa", path, &golden("tiny_llama/gqa"));
    };
    check();
    std::fs::remove_file(shard).unwrap();
    check();
    let index = path.join("model.safetensors.index.json");
    std::fs::write(&index, "{not JSON").unwrap();
    check();
    // An index of that very file contradicts nothing.
    let of_it = json!({"weight_map": {"model.norm.weight": "model.safetensors"}});
    std::fs::write(&index, of_it.to_string()).unwrap();
    assert_eq!(Base::open(path).unwrap().remarks, []);
}

/// A head of its own beside a config that ties it is taken, as in transformers; a copy of the embedding is
/// only a copy.
#[test]
fn a_head_in_the_files_goes_before_the_config() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (config, mut tensors) = (config("tied"), weights("tied"));
    let embedding = tensors["model.embed_tokens.weight"].clone();
    tensors.insert("lm_head.weight".into(), embedding);
    write_folder(dir.path(), &config, &tensors);
    let base = Base::open(dir.path()).unwrap();
    assert!(base.config.tie_word_embeddings && base.remarks.is_empty(), "{:?}", base.remarks);
    check_equal("tied", dir.path(), &golden("tiny_llama/tied"));

    tensors.get_mut("lm_head.weight").unwrap().values[7] += 1.0;
    write_folder(dir.path(), &config, &tensors);
    let base = Base::open(dir.path()).unwrap();
    let ids: Vec<&str> = base.remarks.iter().map(|remark| remark.id).collect();
    assert_eq!((base.config.tie_word_embeddings, &ids[..]), (false, &["untied-head"][..]));
    let mut untied = config.clone();
    untied["tie_word_embeddings"] = false.into();
    write_folder(other.path(), &untied, &tensors);
    check_equal("tied", dir.path(), other.path());
}

/// Rows of q and k come back to Hugging Face's order, so an adapter fits.
#[test]
fn a_gguf_file_equals_its_folder() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tiny.gguf");
    for case in ["gqa", "tied"] {
        let config = config(case);
        as_gguf(&config, &mut weights(case), |_, numbers| Stored::f32(numbers)).write(&path);
        check_equal(case, &path, &golden(&format!("tiny_llama/{case}")));
    }
}

#[test]
fn a_quantised_gguf_file_equals_the_folder_of_its_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tiny.gguf");
    let config = config("gqa");
    let mut tensors = weights("gqa");
    as_gguf(&config, &mut tensors, |name, numbers| match name {
        _ if name.contains("norm") => Stored::f32(numbers),
        _ => Stored::q8_0(numbers),
    })
    .write(&path);
    let original = weights("gqa");
    let name = "model.layers.0.self_attn.q_proj.weight";
    assert_ne!(tensors[name].values, original[name].values, "quantising changed nothing");
    write_folder(dir.path(), &config, &tensors);
    check_equal("gqa", &path, dir.path());
}

/// `llama3` scaling as a GGUF file carries it: a divisor per frequency.
#[test]
fn frequency_factors_equal_llama3_scaling() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tiny.gguf");
    llama3_gguf(Stored::f32).write(&path);
    let [base, adapted] = logprobs(&path, "llama3", Precision::F32);
    let [expected_base, expected_adapted] =
        logprobs(&golden("tiny_llama/llama3"), "llama3", Precision::F32);
    check_close("base", &base, &expected_base);
    check_close("adapter", &adapted, &expected_adapted);
}

fn llama3_gguf(store: impl FnOnce(&Numbers) -> Stored) -> GgufFile {
    let config = config("llama3");
    let mut file = as_gguf(&config, &mut weights("llama3"), |_, numbers| Stored::f32(numbers));
    let theta = config["rope_parameters"]["rope_theta"].as_f64().unwrap();
    let scaled = tiny("llama3").0.config.ropes.remove(0).inv_freq;
    let len = scaled.len();
    let unscaled = (0..len).map(|i| theta.powf(-(i as f64) / len as f64));
    let values = unscaled.zip(scaled).map(|(base, scaled)| (base / f64::from(scaled)) as f32);
    let factors = Numbers { shape: vec![len], values: values.collect() };
    file.tensors.insert("rope_freqs.weight".into(), store(&factors));
    file
}

/// Opens and loads what must not load; the message names `file` and says all `parts`.
#[track_caller]
fn check_refused(path: &Path, file: &Path, parts: &[&str]) -> Option<String> {
    let mut backend = cpu(Precision::F32, 1);
    let loaded = Base::open(path).and_then(|base| Decoder::load(&base, &mut backend));
    let Err(error) = loaded else { panic!("loaded; expected an error with {parts:?}") };
    let message = error.to_string();
    assert!(message.starts_with(&file.display().to_string()), "{message}");
    for part in parts {
        assert!(message.contains(part), "{message}: no {part}");
    }
    error.hint()
}

/// A copy of the tiny model to be damaged.
fn folder() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    write_folder(dir.path(), &config("gqa"), &weights("gqa"));
    let path = dir.path().to_owned();
    (dir, path)
}

#[test]
fn a_folder_that_is_not_complete_is_refused() {
    let (_dir, path) = folder();
    std::fs::remove_file(path.join("model.safetensors")).unwrap();
    assert_eq!(check_refused(&path, &path, &["no `model.safetensors`"]), None);
    std::fs::write(path.join("pytorch_model.bin"), b"PK").unwrap();
    let hint = check_refused(&path, &path, &["no `model.safetensors`"]);
    assert!(hint.unwrap().contains("safe_serialization"));
    std::fs::remove_file(path.join("config.json")).unwrap();
    assert!(check_refused(&path, &path, &["no `config.json`"]).is_some());
    let nowhere = path.join("nowhere");
    check_refused(&nowhere, &nowhere, &["No such file"]);
}

#[test]
fn a_cut_off_safetensors_file_is_refused_at_every_length() {
    let (_dir, path) = folder();
    let file = path.join("model.safetensors");
    let whole = std::fs::read(&file).unwrap();
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    for length in [0, 1, 7, 8, 9, header / 2, header - 1, header, header + 1, whole.len() - 1] {
        std::fs::write(&file, &whole[..length]).unwrap();
        let hint = check_refused(&path, &file, &["not a whole safetensors file"]);
        assert!(hint.unwrap().contains("cut off"));
    }
}

#[test]
fn an_index_that_promises_too_much_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let index_path = dir.path().join("model.safetensors.index.json");
    let second = "model-00002-of-00003.safetensors";

    write_shards(dir.path());
    std::fs::remove_file(dir.path().join(second)).unwrap();
    let hint = check_refused(dir.path(), &index_path, &[second, "missing"]);
    assert!(hint.unwrap().contains("not complete"));

    write_shards(dir.path());
    let mut index: Value = serde_json::from_slice(&std::fs::read(&index_path).unwrap()).unwrap();
    index["weight_map"]["model.layers.7.mlp.up_proj.weight"] = second.into();
    std::fs::write(&index_path, index.to_string()).unwrap();
    check_refused(dir.path(), &index_path, &["`model.layers.7.mlp.up_proj.weight`"]);

    std::fs::write(&index_path, "{}").unwrap();
    check_refused(dir.path(), &index_path, &["no `weight_map`"]);
    std::fs::write(&index_path, "{").unwrap();
    check_refused(dir.path(), &index_path, &["not JSON"]);

    write_shards(dir.path());
    let whole = std::fs::read(dir.path().join(second)).unwrap();
    std::fs::write(dir.path().join(second), &whole[..whole.len() - 4]).unwrap();
    check_refused(dir.path(), &dir.path().join(second), &["not a whole safetensors file"]);
}

#[test]
fn a_config_that_does_not_fit_the_tensors_is_refused() {
    let (_dir, path) = folder();
    let check = |key: &str, value: Value, file: &str, parts: &[&str]| {
        let mut config = config("gqa");
        config[key] = value;
        std::fs::write(path.join("config.json"), config.to_string()).unwrap();
        let file = if file.is_empty() { path.clone() } else { path.join(file) };
        check_refused(&path, &file, parts);
    };
    let weights = "model.safetensors";
    check(
        "vocab_size",
        json!(130),
        weights,
        &["`model.embed_tokens.weight`", "[128, 64]", "[130, 64]"],
    );
    check("hidden_size", json!(32), weights, &["`model.embed_tokens.weight`"]);
    check("intermediate_size", json!(64), weights, &["`model.layers.0.mlp.gate_proj.weight`"]);
    check("num_key_value_heads", json!(4), weights, &["`model.layers.0.self_attn.k_proj.weight`"]);
    check(
        "num_hidden_layers",
        json!(3),
        "",
        &["`model.layers.2.self_attn.q_proj.weight` is missing"],
    );
    check("num_hidden_layers", json!(1), "", &["`model.layers.1.", "1 layer"]);
    check("num_hidden_layers", json!(16_000_000), "config.json", &["`num_hidden_layers`"]);
    check("num_hidden_layers", json!("two"), "config.json", &["`num_hidden_layers`"]);
    check("model_type", json!("mamba"), "config.json", &["`model_type`", "`mamba`"]);
    check("model_type", json!(null), "config.json", &["`model_type`"]);
    check("quantization_config", json!({"quant_method": "gptq"}), "config.json", &["`gptq`"]);
    std::fs::write(path.join("config.json"), "not a config").unwrap();
    check_refused(&path, &path.join("config.json"), &["not JSON"]);
}

#[test]
fn a_tensor_that_is_missing_or_of_a_strange_type_is_named() {
    let (_dir, path) = folder();
    let mut tensors = weights("gqa");
    let name = "model.layers.1.post_attention_layernorm.weight";
    tensors.remove(name);
    write_folder(&path, &config("gqa"), &tensors);
    check_refused(&path, &path, &[name, "is missing"]);

    let bytes = vec![0; 64 * 8];
    let view =
        safetensors::tensor::TensorView::new(safetensors::Dtype::F64, vec![64], &bytes).unwrap();
    let file = path.join("model.safetensors");
    let name = "model.embed_tokens.weight";
    std::fs::write(&file, safetensors::serialize([(name, view)], None).unwrap()).unwrap();
    check_refused(&path, &file, &[name, "F64"]);
}

/// A whole file, and a place to write damaged ones.
fn gguf() -> (TempDir, PathBuf, GgufFile) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tiny.gguf");
    let file = as_gguf(&config("gqa"), &mut weights("gqa"), |_, numbers| Stored::f32(numbers));
    (dir, path, file)
}

#[test]
fn a_damaged_gguf_header_is_refused() {
    let (_dir, path, file) = gguf();
    let whole = file.bytes();
    let check = |at: usize, bytes: &[u8], parts: &[&str]| {
        let mut damaged = whole.clone();
        damaged[at..at + bytes.len()].copy_from_slice(bytes);
        std::fs::write(&path, damaged).unwrap();
        check_refused(&path, &path, parts);
    };
    check(0, b"GGML", &["no GGUF file"]);
    check(4, &99_u32.to_le_bytes(), &["version 99"]);
    check(8, &u64::MAX.to_le_bytes(), &["tensors"]);
    check(16, &(1_u64 << 40).to_le_bytes(), &["metadata"]);
    // The length of the first key.
    check(24, &u64::MAX.to_le_bytes(), &["header"]);
}

#[test]
fn a_gguf_tensor_that_does_not_fit_is_named() {
    let (_dir, path, file) = gguf();
    let check = |name: &str, edit: &dyn Fn(&mut Stored), parts: &[&str]| {
        let mut damaged = file.clone();
        edit(damaged.tensors.get_mut(name).unwrap());
        damaged.write(&path);
        check_refused(&path, &path, &[&[name], parts].concat());
    };
    check("blk.1.attn_q.weight", &|t| t.shift = 1 << 40, &["past the end"]);
    // The first tensor of the file: its offset is 0 before.
    check("blk.0.attn_k.weight", &|t| t.shift = u64::MAX - 31, &["past the end"]);
    check("blk.1.attn_q.weight", &|t| t.shift = 4, &["not a multiple"]);
    check("blk.1.attn_q.weight", &|t| t.dims = vec![u64::MAX, 2], &[]);
    check("blk.1.attn_q.weight", &|t| t.dims = vec![], &["0 dimensions"]);
    check("blk.1.attn_q.weight", &|t| t.kind = 777, &["777"]);
    // IQ4_NL: blocks that the format knows and this program does not.
    check("blk.1.attn_q.weight", &|t| t.kind = 20, &["IQ4_NL"]);

    let check_shape = |name: &str, hf_name: &str, dims: &[u64]| {
        let mut damaged = file.clone();
        damaged.tensors.get_mut(name).unwrap().dims = dims.to_vec();
        damaged.write(&path);
        check_refused(&path, &path, &[hf_name, "shape"]);
    };
    check_shape("blk.0.attn_k.weight", "`model.layers.0.self_attn.k_proj.weight`", &[64, 16]);
    check_shape("blk.0.attn_k.weight", "`model.layers.0.self_attn.k_proj.weight`", &[2048]);
    check_shape("blk.0.attn_norm.weight", "`model.layers.0.input_layernorm.weight`", &[32]);
    check_shape("output_norm.weight", "`model.norm.weight`", &[8, 8]);

    let mut damaged = file.clone();
    damaged.tensors.remove("blk.1.ffn_down.weight");
    damaged.write(&path);
    check_refused(&path, &path, &["`model.layers.1.mlp.down_proj.weight` is missing"]);
}

#[test]
fn gguf_metadata_that_does_not_fit_is_refused() {
    let (_dir, path, file) = gguf();
    let check = |key: &str, value: Option<Meta>, parts: &[&str]| {
        let mut damaged = file.clone();
        damaged.metadata.remove(key);
        damaged.metadata.extend(value.map(|value| (key.to_owned(), value)));
        damaged.write(&path);
        check_refused(&path, &path, parts);
    };
    check("general.architecture", Some(Meta::Text("mamba".into())), &["`mamba`"]);
    check("general.architecture", None, &["`general.architecture`"]);
    check("llama.block_count", None, &["`llama.block_count`"]);
    check("llama.block_count", Some(Meta::Number(1)), &["`model.layers.1.", "1 layer"]);
    check("llama.block_count", Some(Meta::Text("two".into())), &["`llama.block_count`"]);
    check("llama.attention.head_count", Some(Meta::Number(0)), &["num_attention_heads"]);
    check("llama.attention.head_count_kv", Some(Meta::Number(0)), &["num_key_value_heads"]);
    check("llama.attention.key_length", Some(Meta::Number(0)), &["head_dim"]);
}

/// An index says which files are read: none outside of its folder, and the name is shown without what a
/// terminal would obey.
#[test]
fn shards_outside_of_the_folder_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("model");
    std::fs::create_dir(&folder).unwrap();
    write_shards(&folder);
    let index_path = folder.join("model.safetensors.index.json");
    let index: Value = serde_json::from_slice(&std::fs::read(&index_path).unwrap()).unwrap();
    let shard = "model-00001-of-00003.safetensors";
    std::fs::copy(folder.join(shard), dir.path().join("other.safetensors")).unwrap();
    std::fs::create_dir(folder.join("sub")).unwrap();
    std::fs::copy(folder.join(shard), folder.join("sub").join(shard)).unwrap();
    let absolute = dir.path().join("other.safetensors").display().to_string();
    let named = |name: &str| index.to_string().replace(shard, name);
    for (name, shown) in [
        ("../other.safetensors", "`../other.safetensors`"),
        (absolute.as_str(), "other.safetensors`"),
        ("sub/../../other.safetensors", "`sub/../../other.safetensors`"),
        ("\\u001b[2J.safetensors", "`\\u{1b}[2J.safetensors`"),
    ] {
        std::fs::write(&index_path, named(name)).unwrap();
        let hint = check_refused(&folder, &index_path, &[shown, "is not in the folder"]);
        assert!(hint.unwrap().contains("beside it"));
    }
    // Below the folder they may lie where they like.
    std::fs::write(&index_path, named(&format!("sub/{shard}"))).unwrap();
    check_equal("gqa", &folder, &golden("tiny_llama/gqa"));
}

#[test]
fn frequency_factors_that_do_not_fit_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tiny.gguf");
    let short = |factors: &Numbers| {
        Stored::f32(&Numbers { shape: vec![4], values: factors.values[..4].to_vec() })
    };
    llama3_gguf(short).write(&path);
    check_refused(&path, &path, &["`rope_freqs.weight`", "4", "8"]);
    let half = |factors: &Numbers| {
        let bytes = vec![0; 2 * factors.values.len()];
        Stored { kind: 1, bytes, ..Stored::f32(factors) }
    };
    llama3_gguf(half).write(&path);
    check_refused(&path, &path, &["`rope_freqs.weight`", "F16"]);
    let zero = |factors: &Numbers| {
        Stored::f32(&Numbers { values: vec![0.0; factors.values.len()], ..factors.clone() })
    };
    llama3_gguf(zero).write(&path);
    check_refused(&path, &path, &["`rope_freqs.weight`", "0"]);
}

/// Cut at any byte the file is refused; with any byte of its header turned over, it is loaded or
/// refused, and nothing panics.
#[test]
fn no_damage_panics() {
    let (_dir, path, file) = gguf();
    let whole = file.bytes();
    let data: usize = file.tensors.values().map(|t| t.bytes.len().next_multiple_of(32)).sum();
    let header = whole.len() - data;
    for length in (0..header).step_by(7).chain((header..whole.len()).step_by(4999)) {
        std::fs::write(&path, &whole[..length]).unwrap();
        check_refused(&path, &path, &[]);
    }
    let mut backend = cpu(Precision::F32, 1);
    for at in (0..header).step_by(3) {
        let mut damaged = whole.clone();
        damaged[at] = !damaged[at];
        std::fs::write(&path, damaged).unwrap();
        let _ = Base::open(&path).and_then(|base| Decoder::load(&base, &mut backend));
        backend.sync().unwrap();
    }
}
