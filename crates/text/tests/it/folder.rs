//! A whole Hugging Face folder, made from a small tokenizer.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;
use text::{ChatTemplate, Date, Metadata, RenderOptions, SpecialTokens, Tokenizer};

const TEMPLATE: &str =
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}";

/// Byte-level BPE over letters, with one merge, one marker and the surrounding given.
fn tokenizer_json() -> Value {
    let mut vocab = serde_json::Map::new();
    for (id, token) in ["<s>", "</s>", "<|im_start|>", "a", "b", "c", "ab"].iter().enumerate() {
        vocab.insert((*token).into(), id.into());
    }
    let added = |id: usize, content: &str| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false,
               "rstrip": false, "normalized": false, "special": true})
    };
    json!({
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0},
        "padding": null,
        "added_tokens": [added(2, "<|im_start|>")],
        "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
                  "ignore_merges": false, "vocab": vocab, "merges": [["a", "b"]]},
    })
}

fn write(dir: &Path, name: &str, value: &Value) {
    fs::write(dir.join(name), value.to_string()).unwrap();
}

fn folder(tokenizer_config: &Value) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "config.json", &json!({"model_type": "llama", "eos_token_id": 7}));
    write(dir.path(), "tokenizer.json", &tokenizer_json());
    write(dir.path(), "tokenizer_config.json", tokenizer_config);
    dir
}

fn today() -> Date {
    Date::new(2026, 3, 1).unwrap()
}

#[test]
fn a_folder_is_read() {
    let dir = folder(&json!({
        "bos_token": "<s>", "eos_token": {"content": "</s>"}, "add_bos_token": true,
        "added_tokens_decoder": {"7": {"content": "<|im_end|>", "special": true, "normalized": false}},
        "chat_template": TEMPLATE,
    }));
    write(dir.path(), "generation_config.json", &json!({"eos_token_id": [7, 1, 7]}));
    let metadata = Metadata::from_folder(dir.path(), today()).unwrap();
    let tokenizer = &metadata.tokenizer;

    assert_eq!(metadata.eos_token_ids, [1, 7]);
    assert_eq!((tokenizer.bos(), tokenizer.eos()), (Some(0), Some(1)));
    assert_eq!(tokenizer.vocab_size(), 8);
    assert_eq!(tokenizer.id("<|im_end|>"), Some(7));
    assert!(tokenizer.is_special(7) && tokenizer.is_special(1) && !tokenizer.is_special(6));
    assert_eq!(tokenizer.token(6).as_deref(), Some("ab"));

    assert_eq!(tokenizer.encode("abc<|im_end|></s>ba").unwrap(), [6, 5, 7, 1, 4, 3]);
    // `add_bos_token` asks for what the post-processor does not do: transformers 5 does as the latter.
    assert_eq!(tokenizer.encode_with_special("abc").unwrap(), [6, 5]);
    let notes: Vec<_> = tokenizer.notes().iter().map(|note| note.message.as_str()).collect();
    assert!(notes.len() == 1 && notes[0].contains("`add_bos_token: true`"), "{notes:?}");
    assert_eq!(tokenizer.decode(&[0, 6, 5, 7], false).unwrap(), "<s>abc<|im_end|>");
    assert_eq!(tokenizer.decode(&[0, 6, 5, 7], true).unwrap(), "abc");

    let template = metadata.chat_template.as_ref().unwrap();
    assert_eq!(template.missing_tokens(tokenizer), Vec::<String>::new());
    assert_eq!(template.source(), TEMPLATE);
    let again = Metadata::from_folder(dir.path(), today()).unwrap();
    assert_eq!(again.tokenizer.hash(), tokenizer.hash());
    assert_eq!(again.chat_template.unwrap().hash(), template.hash());
}

#[test]
fn what_is_written_beside_an_adapter_reads_back() {
    let dir = folder(&json!({"bos_token": "<s>", "eos_token": "</s>", "chat_template": TEMPLATE}));
    let mut file = tokenizer_json();
    file["post_processor"] = json!({
        "type": "TemplateProcessing",
        "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"</s>": {"id": "</s>", "ids": [1], "tokens": ["</s>"]}},
    });
    write(dir.path(), "tokenizer.json", &file);
    let tokenizer = Tokenizer::from_folder(dir.path()).unwrap();
    let copy = tempfile::tempdir().unwrap();
    fs::write(copy.path().join("tokenizer.json"), tokenizer.to_json().unwrap()).unwrap();
    write(copy.path(), "tokenizer_config.json", &tokenizer.config_json());
    assert!(tokenizer.config_json().get("chat_template").is_none());
    let again = Tokenizer::from_folder(copy.path()).unwrap();
    assert_eq!(again.encode_with_special("abc").unwrap(), [6, 5, 1]);
    assert_eq!(again.hash(), tokenizer.hash());
    assert_eq!(Tokenizer::from_bytes(tokenizer.to_json().unwrap().as_bytes()).unwrap().bos(), None);
}

#[test]
fn dropout_is_switched_off_and_said() {
    let dir = folder(&json!({}));
    let mut file = tokenizer_json();
    file["model"]["dropout"] = json!(0.5);
    write(dir.path(), "tokenizer.json", &file);
    let tokenizer = Tokenizer::from_folder(dir.path()).unwrap();
    for _ in 0..50 {
        assert_eq!(tokenizer.encode("abababab").unwrap(), [6, 6, 6, 6]);
    }
    let ids: Vec<_> = tokenizer.notes().iter().map(|note| note.id).collect();
    assert_eq!(ids, ["tokenizer-dropout"]);
    // What is written beside an adapter has no dropout either, and a dropout of zero is none.
    let written: Value = serde_json::from_str(&tokenizer.to_json().unwrap()).unwrap();
    assert_eq!(written["model"]["dropout"], Value::Null);
    file["model"]["dropout"] = json!(0.0);
    write(dir.path(), "tokenizer.json", &file);
    let again = Tokenizer::from_folder(dir.path()).unwrap();
    assert!(again.notes().is_empty());
    assert_eq!(again.hash(), tokenizer.hash());
}

#[test]
fn conversations_with_tools_take_the_template_of_that_name() {
    let dir = folder(&json!({"bos_token": "<s>", "eos_token": "</s>", "chat_template": [
        {"name": "tool_use", "template": "T{{ tools | length }}"},
        {"name": "rag", "template": "R"},
        {"name": "default", "template": "D{{ tools is none }}"},
    ]}));
    let metadata = Metadata::from_folder(dir.path(), today()).unwrap();
    let template = metadata.chat_template.clone().unwrap();
    let (tools, none) = (json!([{"name": "f"}]), Value::Null);
    let empty = json!([]);
    let render = |template: &ChatTemplate, tools: Option<&Value>| {
        template.render(&[], &RenderOptions { tools, ..RenderOptions::default() }).unwrap()
    };
    // As transformers: an empty list is a list of tools, and none is none.
    assert_eq!(render(&template, Some(&tools)), "T1");
    assert_eq!(render(&template, Some(&empty)), "T0");
    assert_eq!(render(&template, Some(&none)), "DTrue");
    assert_eq!(render(&template, None), "DTrue");
    // A template that is named is used for every conversation.
    assert_eq!(render(&metadata.template("default").unwrap(), Some(&tools)), "DFalse");
    assert_eq!(render(&metadata.template("rag").unwrap(), Some(&tools)), "R");
    assert_ne!(template.hash(), template.alone().hash());
    assert_eq!(template.tool_use().unwrap().source(), "T{{ tools | length }}");
}

#[test]
fn markers_that_the_tokenizer_would_split_are_named() {
    let dir = folder(&json!({}));
    let tokenizer = Tokenizer::from_folder(dir.path()).unwrap();
    let special: SpecialTokens = [("eos_token", "<eos>")].into_iter().collect();
    let source = format!("{TEMPLATE}{{{{ eos_token }}}}");
    let template = ChatTemplate::new(&source, &special, today()).unwrap();
    assert_eq!(template.missing_tokens(&tokenizer), ["<|im_end|>", "<eos>"]);
}

#[test]
fn folders_that_cannot_be_used_say_why() {
    let dir = folder(&json!({"added_tokens_decoder": {"9": {"content": "<x>"}}}));
    let message = Tokenizer::from_folder(dir.path()).unwrap_err().to_string();
    assert!(message.contains("added token `<x>` should have id 9"), "{message}");

    fs::remove_file(dir.path().join("tokenizer.json")).unwrap();
    let error = Tokenizer::from_folder(dir.path()).unwrap_err();
    assert!(error.to_string().contains("has no `tokenizer.json`") && error.hint().is_some());

    fs::write(dir.path().join("tokenizer.json"), "{\"model\": 1").unwrap();
    let message = Tokenizer::from_folder(dir.path()).unwrap_err().to_string();
    assert!(message.contains("tokenizer.json: "), "{message}");

    let dir = folder(&json!({"chat_template": "{% for %}"}));
    let error = Metadata::from_folder(dir.path(), today()).unwrap_err().to_string();
    assert!(error.starts_with("chat template, line 1: "), "{error}");
    let missing = dir.path().join("nothing");
    let error = Metadata::from_folder(&missing, today()).unwrap_err().to_string();
    assert!(error.ends_with("nothing: is not a folder"), "{error}");
}
