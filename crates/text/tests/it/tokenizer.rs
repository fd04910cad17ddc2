//! Tokenizers of GGUF files, against llama.cpp's and transformers' ids.

use std::fs;
use std::path::Path;

use serde::Deserialize;
use text::{DecodeStream, Metadata, Tokenizer, gguf};

use crate::shared;

fn open(path: &Path) -> gguf::Metadata {
    let bytes = fs::read(path).unwrap();
    gguf::Metadata::parse(path, &bytes, bytes.len() as u64).unwrap()
}

/// Encodes the texts of `<name>.gguf.inp` and compares with the ids of `<name>.gguf.out`.
#[track_caller]
fn check(name: &str) {
    let Some(path) = shared::data(&format!("vocab-gguf/ggml-vocab-{name}.gguf")) else { return };
    let tokenizer = Tokenizer::from_gguf(&open(&path)).unwrap();
    check_ids(&tokenizer, name);
    round_trip(&tokenizer, name);
}

fn inputs(name: &str) -> Option<Vec<String>> {
    let path = shared::data(&format!("vocab-gguf/ggml-vocab-{name}.gguf.inp"))?;
    let text = fs::read_to_string(path).unwrap();
    let mut inputs: Vec<String> =
        text.split("\n__ggml_vocab_test__\n").map(str::to_owned).collect();
    assert_eq!(inputs.pop().as_deref(), Some(""), "{name}: the file ends with a separator");
    Some(inputs)
}

#[track_caller]
fn check_ids(tokenizer: &Tokenizer, name: &str) {
    let Some(path) = shared::data(&format!("vocab-gguf/ggml-vocab-{name}.gguf.out")) else {
        return;
    };
    // All vocabularies share one list of texts.
    let Some(inputs) = inputs("gpt-2") else { return };
    let output = fs::read_to_string(path).unwrap();
    let outputs: Vec<&str> = output.lines().collect();
    assert_eq!(inputs.len(), outputs.len());
    for (input, output) in inputs.iter().zip(outputs) {
        let expected: Vec<u32> = output.split_whitespace().map(|id| id.parse().unwrap()).collect();
        assert_eq!(tokenizer.encode(input).unwrap(), expected, "{name}: {input:?}");
    }
}

/// What was encoded decodes to itself, in one piece and token by token.
#[track_caller]
fn round_trip(tokenizer: &Tokenizer, name: &str) {
    for input in inputs(name).into_iter().flatten() {
        let ids = tokenizer.encode(&input).unwrap();
        assert_eq!(tokenizer.decode(&ids, true).unwrap(), input, "{name}");
        assert_eq!(streamed(tokenizer, &ids), input, "{name}: streamed");
    }
}

fn streamed(tokenizer: &Tokenizer, ids: &[u32]) -> String {
    let mut stream = DecodeStream::new(tokenizer, true);
    let mut text = String::new();
    for id in ids {
        let piece = stream.push(*id).unwrap().unwrap_or_default();
        assert!(!piece.contains('\u{FFFD}'), "{piece:?} is not whole");
        text.push_str(&piece);
    }
    text.push_str(&stream.flush().unwrap().unwrap_or_default());
    text
}

#[test]
fn gpt_2() {
    check("gpt-2");
}

#[test]
fn llama_spm() {
    check("llama-spm");
}

#[test]
fn phi_3() {
    check("phi-3");
}

#[test]
fn deepseek_coder() {
    check("deepseek-coder");
}

#[test]
fn falcon() {
    check("falcon");
}

#[test]
fn starcoder() {
    check("starcoder");
}

#[test]
fn an_incomplete_character_waits() {
    let Some(path) = shared::data("vocab-gguf/ggml-vocab-gpt-2.gguf") else { return };
    let tokenizer = Tokenizer::from_gguf(&open(&path)).unwrap();
    let ids = tokenizer.encode("a🙂").unwrap();
    let mut stream = tokenizer.decode_stream(true);
    assert_eq!(stream.push(ids[0]).unwrap().as_deref(), Some("a"));
    for id in &ids[1..ids.len() - 1] {
        assert_eq!(stream.push(*id).unwrap(), None);
    }
    assert_eq!(stream.flush().unwrap().as_deref(), Some("\u{FFFD}"));
    assert_eq!(stream.flush().unwrap(), None);
    // Bytes that never become a character are given out once something follows.
    let bytes = [ids[1], ids[0]];
    let pieces: Vec<_> = bytes.iter().map(|id| stream.push(*id).unwrap()).collect();
    assert_eq!(pieces, [None, Some("\u{FFFD}a".into())]);
}

#[derive(Deserialize)]
struct Golden {
    vocab_size: usize,
    bos: u32,
    eos: u32,
    rows: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    text: String,
    ids: Vec<u32>,
    decoded: String,
}

#[track_caller]
fn check_golden(tokenizer: &Tokenizer) {
    let golden: Golden = serde_json::from_str(include_str!("../golden/tokenizer.json")).unwrap();
    assert_eq!(tokenizer.vocab_size(), golden.vocab_size);
    assert_eq!((tokenizer.bos(), tokenizer.eos()), (Some(golden.bos), Some(golden.eos)));
    for row in &golden.rows {
        assert_eq!(tokenizer.encode(&row.text).unwrap(), row.ids, "{:?}", row.text);
        assert_eq!(tokenizer.decode(&row.ids, true).unwrap(), row.decoded);
        let plain = tokenizer.encode_plain(&row.text).unwrap();
        assert!(plain.iter().all(|id| !tokenizer.is_special(*id)), "{:?}", row.text);
        assert_eq!(tokenizer.decode(&plain, true).unwrap(), row.text);
    }
}

/// The GGUF file of SmolLM2-135M-Instruct, named by `TUNESMITH_TEST_GGUF`.
fn smollm2() -> Option<gguf::Metadata> {
    let Some(path) = std::env::var_os("TUNESMITH_TEST_GGUF") else {
        shared::skipped("TUNESMITH_TEST_GGUF names no file");
        return None;
    };
    Some(open(Path::new(&path)))
}

#[test]
fn smollm2_from_gguf_is_that_of_the_folder() {
    let Some(header) = smollm2() else { return };
    let tokenizer = Tokenizer::from_gguf(&header).unwrap();
    check_golden(&tokenizer);
    // Written beside an adapter, it is the same tokenizer again.
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("tokenizer.json"), tokenizer.to_json().unwrap()).unwrap();
    let config = tokenizer.config_json().to_string();
    fs::write(dir.path().join("tokenizer_config.json"), config).unwrap();
    let again = Tokenizer::from_folder(dir.path()).unwrap();
    check_golden(&again);
    assert_eq!(again.hash(), tokenizer.hash());
}

#[test]
fn smollm2_has_its_metadata() {
    let Some(header) = smollm2() else { return };
    let metadata = Metadata::from_gguf(&header, text::Date::new(2026, 3, 1).unwrap()).unwrap();
    assert_eq!(metadata.eos_token_ids, [2]);
    assert_eq!(metadata.config["num_key_value_heads"], 3);
    assert_eq!(metadata.config["head_dim"], 64);
    assert_eq!(metadata.config["tie_word_embeddings"], true);
    assert_eq!(metadata.config["rope_theta"], 100_000.0);
    let template = metadata.chat_template.unwrap();
    assert_eq!(template.missing_tokens(&metadata.tokenizer), Vec::<String>::new());
}
