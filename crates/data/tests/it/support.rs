//! A small model to render and tokenise for.

use std::path::Path;

use data::{Config, Place, Reading, Sequence, Source, Supervisor};
use serde_json::{Map, Value, json};
use text::{ChatTemplate, Date, Message, Tokenizer};

/// The template of ChatML, with nothing after the last turn but a newline.
pub(crate) const CHATML: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n\
    {{ m.content }}<|im_end|>\n{% endfor %}\
    {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

const SPECIAL: [&str; 4] = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"];

/// Writes a folder with a tokenizer of bytes, special tokens, and one merge: of
/// two newlines.
fn write_tokenizer(folder: &Path, special: &[&str], config: &Value) {
    let mut vocab = Map::new();
    for id in 0..=255u8 {
        vocab.insert(byte_token(id), id.into());
    }
    vocab.insert("ĊĊ".into(), 256.into());
    let added = |(index, text): (usize, &&str)| {
        json!({"id": 257 + index, "content": text, "special": true, "single_word": false,
               "lstrip": false, "rstrip": false, "normalized": false})
    };
    let added: Vec<Value> = special.iter().enumerate().map(added).collect();
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false,
                            "trim_offsets": false, "use_regex": false});
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": null, "pre_tokenizer": byte_level, "post_processor": null,
        "decoder": byte_level,
        "model": {"type": "BPE", "dropout": null, "unk_token": null,
                  "continuing_subword_prefix": null, "end_of_word_suffix": null,
                  "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
                  "vocab": vocab, "merges": ["Ċ Ċ"]},
    });
    std::fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    std::fs::write(folder.join("tokenizer_config.json"), config.to_string()).unwrap();
}

/// The letter by which byte-level BPE writes a byte.
fn byte_token(byte: u8) -> String {
    let printable = |b: u8| matches!(b, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let letter = match byte {
        b if printable(b) => u32::from(b),
        b => 256 + (0..b).filter(|&other| !printable(other)).count() as u32,
    };
    char::from_u32(letter).unwrap().to_string()
}

fn tokenizer(special: &[&str], bos: &str, eos: &str) -> Tokenizer {
    let folder = tempfile::tempdir().unwrap();
    let config = json!({"bos_token": bos, "eos_token": eos});
    write_tokenizer(folder.path(), special, &config);
    Tokenizer::from_folder(folder.path()).unwrap()
}

/// The tokenizer of [`supervisor`].
pub(crate) fn small_tokenizer() -> Tokenizer {
    tokenizer(&SPECIAL, SPECIAL[0], SPECIAL[1])
}

/// The same, but it puts `<s>` before a raw text.
pub(crate) fn tokenizer_with_bos() -> Tokenizer {
    let folder = tempfile::tempdir().unwrap();
    let config = json!({"bos_token": SPECIAL[0], "eos_token": SPECIAL[1]});
    write_tokenizer(folder.path(), &SPECIAL, &config);
    let path = folder.path().join("tokenizer.json");
    let mut file: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let bos = json!({"SpecialToken": {"id": SPECIAL[0], "type_id": 0}});
    let text = json!({"Sequence": {"id": "A", "type_id": 0}});
    file["post_processor"] = json!({
        "type": "TemplateProcessing", "single": [bos, text],
        "pair": [text, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {SPECIAL[0]: {"id": SPECIAL[0], "ids": [257], "tokens": [SPECIAL[0]]}},
    });
    std::fs::write(path, file.to_string()).unwrap();
    Tokenizer::from_folder(folder.path()).unwrap()
}

/// A model that stops at `<|im_end|>`.
pub(crate) fn supervisor(template: &str) -> Supervisor {
    try_supervisor(template).unwrap()
}

pub(crate) fn try_supervisor(template: &str) -> data::Result<Supervisor> {
    supervisor_of(template, &small_tokenizer(), "<|im_end|>")
}

pub(crate) fn supervisor_of(
    template: &str,
    tokenizer: &Tokenizer,
    stop: &str,
) -> data::Result<Supervisor> {
    let date = Date::new(2026, 3, 1).unwrap();
    let template = ChatTemplate::new(template, tokenizer.special(), date).unwrap();
    Supervisor::new(tokenizer, &template, &[tokenizer.id(stop).unwrap()], Map::new())
}

/// The sequences of a conversation, shown, for a template with special tokens of
/// its own: those that begin and end a text, those that it stops at, and more.
pub(crate) fn show_for(
    template: &str,
    (bos, eos, stop): (&str, &str, &str),
    more: &[&str],
    conversation: &data::Conversation,
) -> (Vec<String>, data::Findings) {
    let mut special = vec![bos, eos, stop];
    special.extend(more);
    special.sort_unstable();
    special.dedup();
    let tokenizer = tokenizer(&special, bos, eos);
    let supervisor = supervisor_of(template, &tokenizer, stop).unwrap();
    let mut findings = data::Findings::default();
    let sequences = supervisor.supervise(0, conversation, &mut findings).unwrap();
    (sequences.iter().map(|sequence| show_with(sequence, &tokenizer)).collect(), findings)
}

pub(crate) fn place(line: usize) -> Place {
    Place { file: Path::new("a.jsonl").into(), line, element: None }
}

/// A conversation of `(role, content)` in which every assistant turn counts.
pub(crate) fn conversation(turns: &[(&str, &str)]) -> data::Conversation {
    data::Conversation {
        place: place(1),
        messages: turns.iter().map(|(role, content)| Message::new(*role, *content)).collect(),
        supervised: turns.iter().map(|(role, _)| *role == "assistant").collect(),
        weights: vec![1.0; turns.len()],
        tools: None,
    }
}

/// A sequence as text, with what is learned in `[...]`.
pub(crate) fn show(sequence: &Sequence) -> String {
    show_with(sequence, &small_tokenizer())
}

fn show_with(sequence: &Sequence, tokenizer: &Tokenizer) -> String {
    assert_eq!(sequence.tokens.len(), sequence.weights.len());
    let mut shown = String::new();
    let mut run: (bool, Vec<u32>) = (false, Vec::new());
    let mut flush = |(learned, tokens): (bool, Vec<u32>)| {
        let text = tokenizer.decode(&tokens, false).unwrap();
        shown.push_str(&if learned { format!("[{text}]") } else { text });
    };
    for (&token, &weight) in sequence.tokens.iter().zip(&sequence.weights) {
        let learned = weight != 0.0;
        if learned != run.0 {
            flush(std::mem::replace(&mut run, (learned, Vec::new())));
        }
        run.1.push(token);
    }
    flush(run);
    shown
}

/// A source that is found by looking.
pub(crate) fn source(path: &Path) -> Source {
    let reading = Reading { key: "data.train.0".into(), ..Reading::default() };
    Source { reading, ..Source::of_path(path) }
}

pub(crate) fn config(path: &Path) -> Config {
    Config { train: vec![source(path)], seed: 1, threads: 2, ..Config::default() }
}
