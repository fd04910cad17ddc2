//! The fast path of encoding, against the `tokenizers` library.

use std::fs;
use std::io::Read as _;
use std::path::Path;

use flate2::read::GzDecoder;
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use text::{Tokenizer, gguf};

use crate::shared;

const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const O200K: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// A tokenizer, and the library that it has to agree with.
struct Pair {
    tokenizer: Tokenizer,
    library: tokenizers::Tokenizer,
    plain: tokenizers::Tokenizer,
}

impl Pair {
    fn new(tokenizer: Tokenizer) -> Self {
        let json = tokenizer.to_json().unwrap();
        let library = tokenizers::Tokenizer::from_bytes(json).unwrap();
        let mut plain = library.clone();
        plain.set_encode_special_tokens(true);
        Pair { tokenizer, library, plain }
    }

    #[track_caller]
    fn check(&self, text: &str) {
        let ids = |library: &tokenizers::Tokenizer| {
            library.encode_fast(text, false).unwrap().get_ids().to_vec()
        };
        assert_eq!(self.tokenizer.encode(text).unwrap(), ids(&self.library), "{text:?}");
        assert_eq!(self.tokenizer.encode_plain(text).unwrap(), ids(&self.plain), "{text:?}, plain");
    }
}

fn split(regex: &str, behavior: &str, invert: bool) -> Value {
    json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": behavior, "invert": invert})
}

fn digits(individual: bool) -> Value {
    json!({"type": "Digits", "individual_digits": individual})
}

fn byte_level(use_regex: bool) -> Value {
    json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex,
    })
}

fn sequence(steps: &[Value]) -> Value {
    json!({"type": "Sequence", "pretokenizers": steps})
}

/// A byte-level tokenizer that merges most pairs of common bytes, so that a
/// piece which begins or ends at another place shows in the ids.
fn document(pre_tokenizer: Value, normalizer: Value) -> Value {
    let alphabet = tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet();
    let mut alphabet: Vec<char> = alphabet.into_iter().collect();
    alphabet.sort_unstable();
    let common = "ĠĊčĉaestlABdmv12'.,/<|>ÃÂ©łĢìğ";
    let mut vocab: Vec<String> = alphabet.iter().map(char::to_string).collect();
    let mut merges = Vec::new();
    for left in common.chars() {
        for right in common.chars() {
            merges.push(json!([left.to_string(), right.to_string()]));
            vocab.push(format!("{left}{right}"));
        }
    }
    let added = [
        ("<|end|>", true, false),
        ("<|e", true, false),
        ("a<|", false, false),
        ("end", false, true),
        ("\t\t\t", false, false),
        ("e\u{301}", false, true),
        ("2|>1", true, true),
    ];
    let tokens = added.iter().zip(vocab.len()..);
    let tokens: Vec<Value> = tokens
        .map(|((content, special, normalized), id)| {
            json!({
                "id": id, "content": content, "special": special, "normalized": normalized,
                "single_word": false, "lstrip": false, "rstrip": false,
            })
        })
        .collect();
    let ids: Map<String, Value> =
        vocab.into_iter().enumerate().map(|(id, token)| (token, id.into())).collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": tokens,
        "normalizer": normalizer, "pre_tokenizer": pre_tokenizer,
        "post_processor": null, "decoder": byte_level(true),
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null,
            "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": false,
            "byte_fallback": false, "ignore_merges": false, "vocab": ids, "merges": merges,
        },
    })
}

fn small(document: &Value) -> Tokenizer {
    Tokenizer::from_bytes(document.to_string().as_bytes()).unwrap()
}

/// Texts rich in what patterns of words tell apart.
fn texts() -> impl Strategy<Value = String> {
    let common = prop::sample::select(vec![
        " ",
        " ",
        "  ",
        "   ",
        "\n",
        "\n\n",
        "\r\n",
        "\t",
        "\t\t",
        "\u{a0}",
        "\u{3000}",
        "\u{85}",
        "a",
        "est",
        "tl",
        "AB",
        "dAm",
        "é",
        "e\u{301}",
        "\u{301}",
        "ſ",
        "你好",
        "の",
        "ب",
        "🙂",
        "👩\u{200d}👧",
        "1",
        "12",
        "2222",
        "½",
        "٣",
        "'s",
        "'LL",
        "'",
        "’",
        ".",
        ",,",
        "/",
        "//\n",
        "<|end|>",
        "<|e",
        "a<|",
        "end",
        "2|>1",
        "<|",
        "|>",
    ]);
    let fragment = prop_oneof![
        8 => common.prop_map(str::to_owned),
        1 => any::<char>().prop_map(String::from),
        1 => (0..0x300_u32).prop_filter_map("a character", char::from_u32).prop_map(String::from),
    ];
    prop::collection::vec(fragment, 0..40).prop_map(|parts| parts.concat())
}

/// The fast path exists, and agrees with the library on random texts.
#[track_caller]
fn check_small(document: &Value) {
    let pair = Pair::new(small(document));
    assert!(pair.tokenizer.has_fast_path());
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) };
    proptest!(config, |(text in texts())| pair.check(&text));
}

#[test]
fn gpt2s_words() {
    check_small(&document(byte_level(true), Value::Null));
}

#[test]
fn digits_and_gpt2s_words() {
    check_small(&document(sequence(&[digits(true), byte_level(true)]), Value::Null));
    check_small(&document(sequence(&[digits(false), byte_level(true)]), Value::Null));
}

#[test]
fn llama_3s_words() {
    let step = split(LLAMA3, "Isolated", false);
    check_small(&document(sequence(&[step, byte_level(false)]), Value::Null));
}

#[test]
fn llama_3s_words_as_what_is_not_removed() {
    let step = split(LLAMA3, "Removed", true);
    check_small(&document(sequence(&[step, byte_level(false)]), Value::Null));
}

#[test]
fn qwen_2s_words_and_normalization() {
    let step = split(QWEN2, "Isolated", false);
    check_small(&document(sequence(&[step, byte_level(false)]), json!({"type": "NFC"})));
}

#[test]
fn o200ks_words() {
    let step = split(O200K, "Isolated", false);
    check_small(&document(sequence(&[step, byte_level(false)]), Value::Null));
}

#[test]
fn several_stages_with_gaps() {
    let steps = [
        split(r"[\r\n]", "Isolated", false),
        split(r"\s?\p{L}+", "Isolated", false),
        json!({"type": "Split", "pattern": {"String": "|"}, "behavior": "Removed", "invert": false}),
        digits(true),
        byte_level(false),
    ];
    check_small(&document(sequence(&steps), Value::Null));
}

#[test]
fn no_words_at_all() {
    check_small(&document(byte_level(false), Value::Null));
}

/// What the fast path does not know is left to the library.
#[test]
fn others_are_encoded_by_the_library() {
    let plain = || document(byte_level(true), Value::Null);
    let steps = |steps: &[Value]| document(sequence(steps), Value::Null);
    let with = |pointer: &str, value: Value| {
        let mut document = plain();
        *document.pointer_mut(pointer).unwrap() = value;
        document
    };
    let documents = [
        document(Value::Null, Value::Null),
        document(byte_level(true), json!({"type": "NFKC"})),
        steps(&[byte_level(true), digits(true)]),
        steps(&[json!({"type": "Whitespace"}), byte_level(false)]),
        steps(&[split(r"a(?=b)|[^a]+", "Isolated", false), byte_level(false)]),
        steps(&[split(r"\s+", "MergedWithNext", false), byte_level(false)]),
        with("/pre_tokenizer/add_prefix_space", true.into()),
        with("/added_tokens/0/lstrip", true.into()),
        with("/added_tokens/3/single_word", true.into()),
    ];
    for document in documents {
        let pair = Pair::new(small(&document));
        assert!(!pair.tokenizer.has_fast_path(), "{}", document["pre_tokenizer"]);
        pair.check("  It's   the<|end|> 12  \n\n x|y est e\u{301} ");
    }
}

/// The library's matcher overflows on these, and cuts no further.
#[test]
fn a_million_spaces_are_encoded_by_the_library() {
    let pair = Pair::new(small(&document(byte_level(true), Value::Null)));
    for spaces in [200_000, 300_000, 1_100_000] {
        pair.check(&format!("a{}b c d e", " ".repeat(spaces)));
    }
}

#[test]
fn added_tokens_join_the_fast_path() {
    let tokenizer = small(&document(byte_level(true), Value::Null));
    let (tokenizer, ids) = tokenizer.with_tokens(&["<x>".into(), "st l".into()], true).unwrap();
    let pair = Pair::new(tokenizer);
    assert!(pair.tokenizer.has_fast_path());
    pair.check("est la<x> 12<x>");
    assert!(pair.tokenizer.encode("est l").unwrap().contains(&ids[1]));
}

fn from_gguf(path: &Path) -> Tokenizer {
    let bytes = fs::read(path).unwrap();
    let metadata = gguf::Metadata::parse(path, &bytes, bytes.len() as u64).unwrap();
    Tokenizer::from_gguf(&metadata).unwrap()
}

fn from_json(path: &Path) -> Tokenizer {
    let mut bytes = fs::read(path).unwrap();
    if path.extension().is_some_and(|extension| extension == "gz") {
        let packed = std::mem::take(&mut bytes);
        GzDecoder::new(packed.as_slice()).read_to_end(&mut bytes).unwrap();
    }
    Tokenizer::from_bytes(&bytes).unwrap()
}

/// A tokenizer of a model has the fast path, or has none, and agrees with the
/// library on samples of real texts.
#[track_caller]
fn check_real(path: &str, has_fast_path: bool) {
    let Some(file) = shared::data(path) else { return };
    let pair = Pair::new(match path.ends_with(".gguf") {
        true => from_gguf(&file),
        false => from_json(&file),
    });
    assert_eq!(pair.tokenizer.has_fast_path(), has_fast_path, "{path}");
    // Where the library answers anyway, a few texts will do.
    let texts = if has_fast_path { samples() } else { inputs("gpt-2") };
    for text in texts {
        pair.check(&text);
    }
}

/// Texts of llama.cpp's tests, and the first strings of some data sets.
fn samples() -> Vec<String> {
    let mut samples = Vec::new();
    for name in ["gpt-2", "deepseek-coder", "falcon", "llama-spm", "phi-3", "starcoder"] {
        samples.extend(inputs(name));
    }
    for file in [
        "gsm8k/test.jsonl",
        "mbpp/mbpp.jsonl",
        "ifeval/input_data.jsonl",
        "llamafactory-demo/c4_demo.jsonl",
        "llamafactory-demo/v1_sft_demo.jsonl",
        "self-instruct/seed_tasks.jsonl",
        "truthfulqa/TruthfulQA.csv",
        "llamafactory-demo/wiki_demo.txt",
    ] {
        let Some(path) = shared::data(file) else { continue };
        let text = fs::read_to_string(path).unwrap();
        let (mut lines, mut bytes) = (text.lines().take(300), 0);
        while let Some(line) = lines.next().filter(|_| bytes < 20_000) {
            match serde_json::from_str(line) {
                Ok(row) => strings(&row, &mut samples),
                Err(_) => samples.push(line.to_owned()),
            }
            bytes += line.len();
        }
    }
    samples
}

/// The texts of one vocabulary's test.
fn inputs(name: &str) -> Vec<String> {
    let path = shared::data(&format!("vocab-gguf/ggml-vocab-{name}.gguf.inp"));
    let text = path.map(|path| fs::read_to_string(path).unwrap()).unwrap_or_default();
    text.split("\n__ggml_vocab_test__\n").map(str::to_owned).collect()
}

/// All strings of a record.
fn strings(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::String(text) => found.push(text.clone()),
        Value::Array(values) => values.iter().for_each(|value| strings(value, found)),
        Value::Object(map) => map.values().for_each(|value| strings(value, found)),
        _ => {}
    }
}

#[test]
fn gpt_2() {
    check_real("vocab-gguf/ggml-vocab-gpt-2.gguf", true);
}

#[test]
fn starcoder() {
    check_real("vocab-gguf/ggml-vocab-starcoder.gguf", true);
}

#[test]
fn deepseek_coder() {
    check_real("vocab-gguf/ggml-vocab-deepseek-coder.gguf", true);
}

#[test]
fn qwen_3() {
    check_real("tokenizers/qwen3-tokenizer.json.gz", true);
}

#[test]
fn dolma_2() {
    check_real("tokenizers/allenai_dolma2.json", true);
}

#[test]
fn gpt_neox_for_dolma() {
    check_real("tokenizers/allenai_gpt-neox-olmo-dolma-v1_5.json", true);
}

#[test]
fn falcon_llama_and_phi_have_none() {
    for name in ["falcon", "llama-spm", "phi-3"] {
        check_real(&format!("vocab-gguf/ggml-vocab-{name}.gguf"), false);
    }
}
