//! Tokenizers whose files disagree are what transformers makes of them.

use std::collections::BTreeMap;
use std::fs;

use serde::Deserialize;
use serde_json::Value;
use text::Tokenizer;

#[derive(Deserialize)]
struct Golden {
    cases: BTreeMap<String, Case>,
}

#[derive(Deserialize)]
struct Case {
    files: BTreeMap<String, Value>,
    texts: Vec<Text>,
    special_ids: Vec<u32>,
    special: BTreeMap<String, String>,
    decoded: String,
}

#[derive(Deserialize)]
struct Text {
    text: String,
    ids: Vec<u32>,
    around: Vec<u32>,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("../golden/tokenizer_files.json")).unwrap()
}

fn load(case: &Case) -> Tokenizer {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in &case.files {
        fs::write(dir.path().join(name), content.to_string()).unwrap();
    }
    Tokenizer::from_folder(dir.path()).unwrap()
}

#[test]
fn files_count_as_in_transformers() {
    for (name, case) in golden().cases {
        let tokenizer = load(&case);
        for Text { text, ids, around } in &case.texts {
            assert_eq!(tokenizer.encode(text).unwrap(), *ids, "{name}: {text:?}");
            assert_eq!(tokenizer.encode_with_special(text).unwrap(), *around, "{name}: {text:?}");
        }
        let all = 0..tokenizer.vocab_size() as u32;
        let special: Vec<u32> = all.filter(|id| tokenizer.is_special(*id)).collect();
        assert_eq!(special, case.special_ids, "{name}");
        let named = tokenizer.special().iter().map(|(name, token)| (name.into(), token.into()));
        assert_eq!(named.collect::<BTreeMap<String, String>>(), case.special, "{name}");
        assert_eq!(tokenizer.decode(&[4, 5, 8, 3, 10, 1], true).unwrap(), case.decoded, "{name}");
    }
}

#[test]
fn what_is_written_beside_an_adapter_is_the_same_tokenizer() {
    for (name, case) in golden().cases {
        let tokenizer = load(&case);
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("tokenizer.json"), tokenizer.to_json().unwrap()).unwrap();
        let config = tokenizer.config_json().to_string();
        fs::write(dir.path().join("tokenizer_config.json"), config).unwrap();
        let again = Tokenizer::from_folder(dir.path()).unwrap();
        assert_eq!(again.hash(), tokenizer.hash(), "{name}");
        assert_eq!(again.special(), tokenizer.special(), "{name}");
        assert_eq!(again.notes(), [], "{name}");
    }
}

#[test]
fn what_differs_is_said() {
    let cases = golden().cases;
    let said = |name: &str| {
        let notes = load(&cases[name]).notes().to_vec();
        notes.into_iter().map(|note| note.message).collect::<Vec<_>>().join("; ")
    };
    for name in
        ["equal", "no_decoder", "only_in_tokenizer", "only_in_config", "map_alone", "clean_up"]
    {
        assert_eq!(said(name), "", "{name}");
    }
    for (name, expected) in [
        (
            "flags_in_config",
            "`<|user|>` (rstrip), `<|end|>` (lstrip, rstrip); tokenizer_config.json counts",
        ),
        (
            "flags_in_tokenizer",
            "`<|user|>` (rstrip), `<|end|>` (lstrip, rstrip); tokenizer_config.json counts",
        ),
        ("special_in_config", "`<|tool|>` (special)"),
        ("map_before_config", "special tokens (`eos_token`): special_tokens_map.json counts"),
        (
            "map_behind_decoder",
            "special tokens (`eos_token`, `pad_token`): tokenizer_config.json counts",
        ),
        (
            "add_bos",
            "`add_bos_token: true`, and the post-processor of tokenizer.json does not add it",
        ),
        ("add_none", "`add_bos_token: false`, and the post-processor of tokenizer.json adds it"),
    ] {
        let found = said(name);
        assert!(found.contains(expected), "{name}: {found}");
    }
}
