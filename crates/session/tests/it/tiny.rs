//! A random Llama of 128 tokens with a tokenizer of characters.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

/// Writes the model into a folder.
pub(crate) fn write(folder: &Path) {
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../model/tests/golden/tiny_llama/gqa");
    fs::create_dir_all(folder).unwrap();
    for file in ["config.json", "model.safetensors"] {
        fs::copy(Path::new(golden).join(file), folder.join(file)).unwrap();
    }
    let files = [
        ("tokenizer.json", tokenizer().to_string()),
        ("tokenizer_config.json", r#"{"bos_token": "<s>", "eos_token": "<|end|>"}"#.to_owned()),
        ("generation_config.json", r#"{"eos_token_id": 3}"#.to_owned()),
        ("chat_template.jinja", TEMPLATE.to_owned()),
    ];
    for (name, text) in files {
        fs::write(folder.join(name), text).unwrap();
    }
}

const TEMPLATE: &str = "{% for m in messages %}{{ m.role[0] }}:{{ m.content }}<|end|>{% endfor %}\
                        {% if add_generation_prompt %}a:{% endif %}";

/// Ids: 0 unknown, 1 and 2 ends of text, 3 end of turn, 4 newline, then ASCII from the space
/// on, then Greek letters up to 127.
fn tokenizer() -> Value {
    let special = ["<unk>", "<s>", "</s>", "<|end|>"];
    let plain = std::iter::once('\n').chain(' '..='~').chain('Α'..='Ω').chain('α'..='ω');
    let words = special.iter().map(|word| (*word).to_owned()).chain(plain.map(String::from));
    let vocab: serde_json::Map<String, Value> =
        words.take(128).enumerate().map(|(id, word)| (word, id.into())).collect();
    let added: Vec<Value> = special
        .iter()
        .enumerate()
        .map(|(id, word)| {
            json!({"id": id, "content": word, "single_word": false, "lstrip": false,
                   "rstrip": false, "normalized": false, "special": true})
        })
        .collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": null, "pre_tokenizer": null, "post_processor": null,
        "decoder": {"type": "Fuse"},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": "<unk>",
            "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": false,
            "byte_fallback": false, "ignore_merges": false, "vocab": vocab, "merges": [],
        },
    })
}
