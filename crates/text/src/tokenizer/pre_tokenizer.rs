//! The pre-tokenizers that a GGUF file calls by name.

use serde_json::{Value, json};

/// The words of Llama 3, up to three digits together.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// The same with every digit by itself.
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Words split where upper case begins, as in Mistral's Tekken.
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// How text is cut into words before byte-pair merging.
pub(super) struct PreTokenizer {
    /// As `tokenizer.json` writes it.
    pub(super) pre_tokenizer: Value,
    /// The normalizer that goes with it, or null.
    pub(super) normalizer: Value,
    /// Whether a word that is a token stays whole, whatever the merges say.
    pub(super) ignore_merges: bool,
    /// Whether a raw text begins with the beginning-of-sequence token by default.
    pub(super) add_bos: bool,
}

/// The names that [`find`] knows.
pub(super) const NAMES: &[&str] = &[
    "gpt-2",
    "smollm",
    "starcoder",
    "llama-bpe",
    "qwen2",
    "deepseek-r1-qwen",
    "tekken",
    "falcon",
    "deepseek-coder",
];

/// The pre-tokenizer of that name, the value of `tokenizer.ggml.pre`.
pub(super) fn find(name: &str) -> Option<PreTokenizer> {
    let plain = |steps: Vec<Value>| PreTokenizer {
        pre_tokenizer: json!({"type": "Sequence", "pretokenizers": steps}),
        normalizer: Value::Null,
        ignore_merges: false,
        add_bos: false,
    };
    Some(match name {
        "gpt-2" | "gpt2" | "olmo" | "mpt" | "jais" | "phi-2" => plain(vec![byte_level(true)]),
        "smollm" | "starcoder" | "refact" | "command-r" | "codeshell" | "exaone" | "minerva-7b" => {
            plain(vec![digits(true), byte_level(true)])
        }
        "llama-bpe" | "llama3" | "llama-v3" | "dbrx" | "smaug-bpe" => PreTokenizer {
            ignore_merges: name.starts_with("llama"),
            add_bos: name.starts_with("llama"),
            ..plain(vec![split(LLAMA3), byte_level(false)])
        },
        "qwen2" => PreTokenizer {
            normalizer: json!({"type": "NFC"}),
            ..plain(vec![split(QWEN2), byte_level(false)])
        },
        "deepseek-r1-qwen" | "stablelm2" | "megrez" => plain(vec![split(QWEN2), byte_level(false)]),
        "tekken" => PreTokenizer {
            ignore_merges: true,
            add_bos: true,
            ..plain(vec![split(TEKKEN), byte_level(false)])
        },
        "falcon" => plain(vec![
            json!({"type": "Punctuation", "behavior": "Contiguous"}),
            byte_level(true),
            digits(false),
            split("[0-9][0-9][0-9]"),
        ]),
        "deepseek-coder" => plain(vec![
            split(r"[\r\n]"),
            split(r"\s?\p{L}+"),
            split(r"\s?\p{P}+"),
            split("[一-龥ࠀ-一가-퟿]+"),
            digits(true),
            byte_level(false),
        ]),
        _ => return None,
    })
}

fn split(regex: &str) -> Value {
    json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false})
}

fn digits(individual: bool) -> Value {
    json!({"type": "Digits", "individual_digits": individual})
}

fn byte_level(use_regex: bool) -> Value {
    json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_known_and_its_description_is_read() {
        for name in NAMES {
            let found = find(name).unwrap();
            let text = found.pre_tokenizer.to_string();
            let read: Result<tokenizers::PreTokenizerWrapper, _> = serde_json::from_str(&text);
            assert!(read.is_ok(), "{name}: {read:?}");
        }
        assert!(find("default").is_none());
    }
}
