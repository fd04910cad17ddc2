//! Merged folders: equal to base and adapter, equal to what PEFT merges, and streamed into files that
//! every reader of safetensors takes.

use std::collections::BTreeMap;
use std::path::Path;

use compute::cpu::Precision;
use compute::{Backend, Quantization};
use model::adapter::LoadedAdapter;
use model::divergence::Recording;
use model::merge::{Merge, MergedType, Written};
use model::{Base, Config, Decoder, HeadRequest, Pass};
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};
use tempfile::TempDir;
use text::{Batch, Segment, Target};

use crate::gguf_file::{Stored, as_gguf, config, weights};
use crate::support::{
    check_close, cpu, floats, golden, json as golden_json, random_tokens, tokens,
};

const NO_LIMIT: u64 = u64::MAX;

/// Merges two golden folders in f32.
fn merged(base: &Path, adapter: &Path) -> TempDir {
    let (dir, _) = merged_as(base, adapter, MergedType::F32, NO_LIMIT);
    dir
}

fn merged_as(
    base: &Path,
    adapter: &Path,
    dtype: MergedType,
    max_shard_bytes: u64,
) -> (TempDir, Written) {
    let base = Base::open(base).unwrap();
    let adapter = LoadedAdapter::read(adapter, &base.config).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let merge = Merge::new(&base, adapter, dtype).unwrap();
    let mut heard = 0;
    let written = merge.write(dir.path(), max_shard_bytes, 2, &mut |bytes| heard = bytes).unwrap();
    assert_eq!(heard, written.bytes);
    assert_eq!(merge.bytes(), written.bytes);
    (dir, written)
}

/// Log-probabilities of the whole vocabulary after `tokens`.
fn last_logprobs(
    decoder: &Decoder,
    backend: &mut dyn Backend,
    adapter: Option<&model::Adapter>,
    tokens: &[u32],
) -> Vec<f32> {
    let target = |token| Target { read: 0, token, sequence: 0, place: 0, role: 0, weight: 1.0 };
    let batch = Batch {
        tokens: tokens.to_vec(),
        segments: vec![Segment {
            start: 0,
            len: tokens.len(),
            parent: None,
            sequence_len: tokens.len(),
            row: 0,
        }],
        reads: vec![tokens.len() as u32 - 1],
        targets: (0..decoder.config.vocab_size as u32).map(target).collect(),
        last_reads: Vec::new(),
    };
    let pass = Pass { adapter, ..Pass::default() };
    let mut hidden = decoder.forward(backend, &batch, &pass).unwrap();
    let request = HeadRequest::logprobs();
    let outputs =
        decoder.head(backend, &mut hidden, &batch.targets, &request, None, None, &pass).unwrap();
    hidden.release(backend);
    outputs.logprob
}

fn of_folder(dir: &Path, tokens: &[u32]) -> Vec<f32> {
    let mut backend = cpu(Precision::F32, 1);
    let decoder = Decoder::load(&Base::open(dir).unwrap(), &mut backend).unwrap();
    last_logprobs(&decoder, &mut backend, None, tokens)
}

fn of_adapter(base: &Path, adapter: &Path, tokens: &[u32]) -> Vec<f32> {
    let mut backend = cpu(Precision::F32, 1);
    let base = Base::open(base).unwrap();
    let loaded = LoadedAdapter::read(adapter, &base.config).unwrap();
    let (decoder, adapter) = loaded.load(&base, &mut backend, None, None).unwrap();
    last_logprobs(&decoder, &mut backend, Some(&adapter), tokens)
}

fn log_softmax(logits: &[f32]) -> Vec<f32> {
    let sum: f64 = logits.iter().map(|&x| f64::from(x).exp()).sum();
    logits.iter().map(|&x| (f64::from(x) - sum.ln()) as f32).collect()
}

#[test]
fn merged_models_equal_what_peft_merges() {
    let golden_cases = golden_json("merged.json");
    let cases = golden_cases["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 24);
    for case in cases {
        let name = case["case"].as_str().unwrap();
        let folder = |key: &str| golden(case[key].as_str().unwrap());
        let tokens = tokens(&case["tokens"]);
        let dir = merged(&folder("base"), &folder("adapter"));
        let actual = of_folder(dir.path(), &tokens);
        check_close(&format!("{name} as PEFT"), &actual, &log_softmax(&floats(&case["logits"])));
        let adapted = of_adapter(&folder("base"), &folder("adapter"), &tokens);
        check_close(&format!("{name} as the adapter"), &actual, &adapted);
        // A pair that parted is written as two tensors, and the config says so.
        let tied = case["tied"].as_bool().unwrap();
        let open = |path: &Path| Base::open(path).unwrap();
        assert_eq!(open(dir.path()).config.tie_word_embeddings, tied, "{name}");
        let has_head = names(dir.path()).contains(&"lm_head.weight".to_owned());
        assert_eq!(has_head, !tied, "{name}");
    }
}

/// Gemma rounds a factor to the type of its weights. Another type is no reason to refuse it, and the tensors
/// of a base can always be written as they are.
#[test]
fn gemma_is_written_in_every_type() {
    let half = tempfile::tempdir().unwrap();
    let write = |path: &Path, dtype, dir: &Path| {
        let base = Base::open(path).unwrap();
        let merge = Merge::of_tensors(&base, BTreeMap::new(), None, dtype).unwrap();
        merge.write(dir, NO_LIMIT, 1, &mut |_| ()).unwrap();
        let written = Base::open(dir).unwrap().config;
        let scale = (written.embedding_scale / base.config.embedding_scale - 1.0).abs();
        assert!(scale < 1.0 / 256.0, "{scale}");
    };
    write(&golden("architectures/gemma3_text"), MergedType::Bf16, half.path());
    let mut bases = vec![half.path().to_owned()];
    for case in ["gemma2", "gemma3_text"] {
        bases.push(golden(&format!("architectures/{case}")));
        bases.push(golden(&format!("gguf/{case}.gguf")));
    }
    for path in bases {
        for dtype in [MergedType::Auto, MergedType::Bf16, MergedType::F16, MergedType::F32] {
            let dir = tempfile::tempdir().unwrap();
            write(&path, dtype, dir.path());
        }
    }
}

/// What a config cannot say is refused before there are values.
#[test]
fn a_model_without_a_config_is_refused_at_once() {
    let mut base = Base::open(&golden("tiny_llama/gqa")).unwrap();
    assert!(Merge::of_tensors(&base, BTreeMap::new(), None, MergedType::Auto).is_ok());
    base.config.rms_norm_eps *= 2.0;
    let Err(error) = Merge::of_tensors(&base, BTreeMap::new(), None, MergedType::Auto) else {
        panic!("not refused");
    };
    assert!(error.to_string().ends_with("cannot say all that this file says"), "{error}");
}

/// Fused modules, biases, norms around, names with a prefix, tied heads: from folder and from GGUF file.
#[test]
fn every_architecture_is_merged() {
    let tokens = random_tokens(5, 20, 90);
    let dirs = std::fs::read_dir(golden("architectures")).unwrap();
    let mut cases: Vec<String> =
        dirs.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    cases.sort();
    assert!(cases.len() >= 16, "{cases:?}");
    for case in &cases {
        let folder = golden(&format!("architectures/{case}"));
        let adapter = folder.join("adapter");
        let dir = merged(&folder, &adapter);
        let actual = of_folder(dir.path(), &tokens);
        check_close(case, &actual, &of_adapter(&folder, &adapter, &tokens));
        check_same_names(case, dir.path(), &folder);
        let file = golden(&format!("gguf/{case}.gguf"));
        if file.is_file() {
            let dir = merged(&file, &adapter);
            let actual = of_folder(dir.path(), &tokens);
            check_close(&format!("{case} GGUF"), &actual, &of_adapter(&file, &adapter, &tokens));
            check_same_names(&format!("{case} GGUF"), dir.path(), &folder);
        }
    }
}

fn names(dir: &Path) -> Vec<String> {
    let bytes = std::fs::read(dir.join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut names: Vec<String> = file.names().into_iter().map(ToOwned::to_owned).collect();
    names.sort();
    names
}

#[track_caller]
fn check_same_names(case: &str, actual: &Path, expected: &Path) {
    assert_eq!(names(actual), names(expected), "{case}");
}

#[test]
fn what_is_no_part_of_the_decoder_is_kept_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let gqa = golden("tiny_llama/gqa");
    std::fs::copy(gqa.join("config.json"), dir.path().join("config.json")).unwrap();
    let own = std::fs::read(gqa.join("model.safetensors")).unwrap();
    let own = SafeTensors::deserialize(&own).unwrap();
    let extra = safetensors::tensor::TensorView::new(Dtype::I64, vec![2], &[7; 16]).unwrap();
    let all = own.tensors().into_iter().chain([("vision.ids".to_owned(), extra)]);
    let bytes = safetensors::serialize(all, None).unwrap();
    std::fs::write(dir.path().join("model.safetensors"), bytes).unwrap();
    let (out, written) = merged_as(dir.path(), &gqa.join("adapter"), MergedType::Bf16, NO_LIMIT);
    assert_eq!(written.tensors, names(&gqa).len() + 1);
    let bytes = std::fs::read(out.path().join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let kept = file.tensor("vision.ids").unwrap();
    assert_eq!((kept.dtype(), kept.data()), (Dtype::I64, &[7_u8; 16][..]));
}

#[test]
fn files_are_split_at_their_size_and_read_as_one() {
    let (base, adapter) = (golden("tiny_llama/gqa"), golden("tiny_llama/gqa/adapter"));
    let (one, whole) = merged_as(&base, &adapter, MergedType::F32, NO_LIMIT);
    let (many, parts) = merged_as(&base, &adapter, MergedType::F32, 40_000);
    assert_eq!(whole.files, ["model.safetensors"]);
    assert!(parts.files.len() > 2, "{:?}", parts.files);
    assert_eq!((parts.tensors, parts.bytes), (whole.tensors, whole.bytes));
    for file in &parts.files {
        assert!(file.ends_with(&format!("-of-{:05}.safetensors", parts.files.len())), "{file}");
        let bytes = std::fs::read(many.path().join(file)).unwrap();
        let (header, _) = SafeTensors::read_metadata(&bytes).unwrap();
        assert!(bytes.len() - header - 8 <= 40_000, "{file}");
    }
    let index = std::fs::read(many.path().join("model.safetensors.index.json")).unwrap();
    let index: Value = serde_json::from_slice(&index).unwrap();
    assert_eq!(index["metadata"]["total_size"], whole.bytes);
    assert_eq!(index["weight_map"].as_object().unwrap().len(), whole.tensors);
    let tokens = random_tokens(1, 12, 100);
    assert_eq!(of_folder(one.path(), &tokens), of_folder(many.path(), &tokens));
}

/// The type of a matrix, and what the config says.
fn types(dir: &Path) -> (Dtype, Value) {
    let bytes = std::fs::read(dir.join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let dtype = file.tensor("model.layers.0.mlp.down_proj.weight").unwrap().dtype();
    let config = std::fs::read(dir.join("config.json")).unwrap();
    let config: Value = serde_json::from_slice(&config).unwrap();
    let named = config.get("dtype").or(config.get("torch_dtype"));
    (dtype, named.cloned().unwrap_or_default())
}

#[test]
fn types_are_the_bases_own_or_as_asked() {
    let (base, adapter) = (golden("tiny_llama/gqa"), golden("tiny_llama/gqa/adapter"));
    let dir = tempfile::tempdir().unwrap();
    let gguf = dir.path().join("tiny.gguf");
    as_gguf(&config("gqa"), &mut weights("gqa"), |name, numbers| match name {
        _ if name.contains("norm") => Stored::f32(numbers),
        _ => Stored::q8_0(numbers),
    })
    .write(&gguf);
    let check = |base: &Path, asked, dtype, name: &str| {
        let (dir, _) = merged_as(base, &adapter, asked, NO_LIMIT);
        assert_eq!(types(dir.path()), (dtype, json!(name)));
    };
    check(&base, MergedType::Auto, Dtype::F32, "float32");
    check(&base, MergedType::Bf16, Dtype::BF16, "bfloat16");
    check(&base, MergedType::F16, Dtype::F16, "float16");
    check(&gguf, MergedType::Auto, Dtype::BF16, "bfloat16");
    check(&gguf, MergedType::F32, Dtype::F32, "float32");
    let tokens = random_tokens(3, 20, 100);
    let dir = merged(&gguf, &adapter);
    check_close("q8_0", &of_folder(dir.path(), &tokens), &of_adapter(&gguf, &adapter, &tokens));
}

/// What bitsandbytes quantised is written as numbers, without the config of its codes.
#[test]
fn a_quantised_folder_becomes_a_plain_one() {
    let tokens = random_tokens(9, 20, 100);
    for case in ["nf4", "nf4_plain", "fp4", "int8"] {
        let (base, adapter) = (golden(&format!("bnb/{case}")), golden("bnb/adapter"));
        let dir = merged(&base, &adapter);
        check_close(case, &of_folder(dir.path(), &tokens), &of_adapter(&base, &adapter, &tokens));
        check_same_names(case, dir.path(), &golden("tiny_llama/gqa"));
        let config = std::fs::read_to_string(dir.path().join("config.json")).unwrap();
        assert!(!config.contains("quantization_config"), "{config}");
    }
}

/// A merged folder of bf16 is a base like any other, quantised on loading too.
#[test]
fn divergence_tells_models_apart() {
    let (base, adapter) = (golden("tiny_llama/gqa"), golden("tiny_llama/gqa/adapter"));
    let dir = merged(&base, &adapter);
    let rows: Vec<Vec<u32>> = (0..4).map(|seed| random_tokens(seed, 30, 100)).collect();
    let mut backend = cpu(Precision::F32, 2);
    let open = |path: &Path| Base::open(path).unwrap();
    let merged = Decoder::load(&open(dir.path()), &mut backend).unwrap();
    let path = dir.path().join("logits");
    let recording = Recording::new(&path, &merged, &mut backend, None, &rows).unwrap();

    let own = open(&base);
    let loaded = LoadedAdapter::read(&adapter, &own.config).unwrap();
    let (decoder, lora) = loaded.clone().load(&own, &mut backend, None, None).unwrap();
    let adapted = recording.divergence(&decoder, &mut backend, Some(&lora), &rows, 1e-5).unwrap();
    assert_eq!((adapted.reads, adapted.top1), (120, 1.0));
    assert!(adapted.decided > 110, "{adapted:?}");
    assert!(adapted.kl_max < 1e-8, "{adapted:?}");
    let bare = recording.divergence(&decoder, &mut backend, None, &rows, 1e-5).unwrap();
    assert!(bare.kl_mean > 1e-3 && bare.kl_max > bare.kl_mean && bare.top1 < 1.0, "{bare:?}");

    let quantization = Some(Quantization::Int8);
    let (decoder, lora) = loaded.load(&own, &mut backend, quantization, None).unwrap();
    let trained = recording.divergence(&decoder, &mut backend, Some(&lora), &rows, 1e-5).unwrap();
    assert!(trained.kl_mean > adapted.kl_mean && trained.kl_mean < bare.kl_mean, "{trained:?}");
}

#[test]
fn what_cannot_be_merged_is_refused() {
    let base = Base::open(&golden("tiny_llama/gqa")).unwrap();
    let read = || LoadedAdapter::read(&golden("tiny_llama/gqa/adapter"), &base.config).unwrap();
    let check = |adapter: LoadedAdapter, dtype, expected: &str, hint: &str| {
        let dir = tempfile::tempdir().unwrap();
        let merge = Merge::new(&base, adapter, dtype);
        let written = merge.and_then(|merge| merge.write(dir.path(), NO_LIMIT, 1, &mut |_| ()));
        let error = written.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert!(error.hint().unwrap().contains(hint), "{:?}", error.hint());
    };
    let mut broken = read();
    broken.values[1][3] = f32::NAN;
    check(
        broken,
        MergedType::F32,
        "self_attn.q_proj.weight` would hold a number that is not finite",
        "broken",
    );
    let mut large = read();
    large.values[1].iter_mut().for_each(|b| *b *= 1e7);
    check(large, MergedType::F16, "a number that its type cannot hold", "bf16");
    let mut other = read();
    other.replaced.insert("lm_head.weight".into(), (vec![2, 2], vec![0.0; 4]));
    check(
        other,
        MergedType::F32,
        "`lm_head.weight` of the adapter has shape [2, 2]",
        "another base",
    );
}

/// Frequency factors of a GGUF file become the scaling of the folder that it was made of.
#[test]
fn a_gguf_file_becomes_a_config_that_others_read() {
    let file = Base::open(&golden("gguf/phi4mini_longrope.gguf")).unwrap();
    let adapter = golden("architectures/phi4mini_longrope/adapter");
    let dir = merged(&file.path, &adapter);
    let path = dir.path().join("config.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let json: Value = serde_json::from_str(&text).unwrap();
    let written = Config::from_json(&json, &path).unwrap();
    assert_eq!(written, file.config);
    assert!(!text.contains("_tensor\""), "{text}");
}
