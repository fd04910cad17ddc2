//! A tokenizer from the metadata of a GGUF file.
//!
//! What the file describes is written as a `tokenizer.json` and read back, so
//! that there is one way for text to become ids, and one file to hand on.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::Tokenizer;
use super::files::{parse, surround};
use super::pre_tokenizer::{self, PreTokenizer};
use crate::gguf::Metadata;
use crate::{Result, SpecialTokens};

const TOKENS: &str = "tokenizer.ggml.tokens";

/// Kinds of tokens, as `tokenizer.ggml.token_type` numbers them.
const CONTROL: i64 = 3;
const USER_DEFINED: i64 = 4;
const BYTE: i64 = 6;

/// The vocabulary of a file.
struct Vocabulary<'a> {
    metadata: &'a Metadata,
    tokens: &'a [String],
    types: Vec<i64>,
    ids: BTreeMap<&'a str, usize>,
}

pub(super) fn from_gguf(metadata: &Metadata) -> Result<Tokenizer> {
    let vocabulary = Vocabulary::read(metadata)?;
    let key = "tokenizer.ggml.model";
    let (json, add_bos) = match metadata.str(key)? {
        Some("gpt2") => byte_level(&vocabulary)?,
        Some("llama") => (sentence_piece(&vocabulary)?, true),
        Some(other) => {
            let message = format!("is `{other}`; supported are `gpt2` and `llama`");
            return Err(metadata.wrong(key, &message));
        }
        None => return Err(metadata.missing(key)),
    };
    let place = format!("{}: tokenizer", metadata.path.display());
    let mut backend = parse(&place, json.to_string().as_bytes())?;

    let special = vocabulary.special()?;
    let token = |name: &str, wanted: bool| {
        let token = special.get(name).filter(|_| wanted)?;
        Some((token.to_owned(), backend.token_to_id(token)?))
    };
    let bos = metadata.bool("tokenizer.ggml.add_bos_token")?.unwrap_or(add_bos);
    let eos = metadata.bool("tokenizer.ggml.add_eos_token")?.unwrap_or(false);
    let (bos, eos) = (token("bos_token", bos), token("eos_token", eos));
    if bos.is_some() || eos.is_some() {
        surround(&mut backend, bos, eos)?;
    }
    Tokenizer::new(backend, special, config(metadata)?, Vec::new())
}

impl<'a> Vocabulary<'a> {
    fn read(metadata: &'a Metadata) -> Result<Self> {
        let tokens = metadata.strings(TOKENS)?.ok_or_else(|| metadata.missing(TOKENS))?;
        let key = "tokenizer.ggml.token_type";
        let types = metadata.integers(key)?.unwrap_or_else(|| vec![1; tokens.len()]);
        if types.len() != tokens.len() {
            let message = format!("has {} entries for {} tokens", types.len(), tokens.len());
            return Err(metadata.wrong(key, &message));
        }
        let mut ids = BTreeMap::new();
        for (id, token) in tokens.iter().enumerate() {
            if let Some(first) = ids.insert(token.as_str(), id) {
                let message = format!("has `{token}` twice, with ids {first} and {id}");
                return Err(metadata.wrong(TOKENS, &message));
            }
        }
        Ok(Vocabulary { metadata, tokens, types, ids })
    }

    fn special(&self) -> Result<SpecialTokens> {
        let mut special = SpecialTokens::default();
        for (name, id) in [
            ("bos_token", "bos_token_id"),
            ("eos_token", "eos_token_id"),
            ("unk_token", "unknown_token_id"),
            ("sep_token", "seperator_token_id"),
            ("pad_token", "padding_token_id"),
        ] {
            if let Some(id) = self.metadata.token_id(id)? {
                special.set(name, &self.tokens[id as usize]);
            }
        }
        Ok(special)
    }

    fn vocab(&self) -> Map<String, Value> {
        self.tokens.iter().enumerate().map(|(id, token)| (token.clone(), id.into())).collect()
    }

    /// The tokens that are recognised in a text before anything else is done to it.
    fn added(&self) -> Result<Vec<Value>> {
        let mut named = Vec::new();
        for name in ["bos_token_id", "eos_token_id", "eot_token_id", "unknown_token_id"] {
            named.extend(self.metadata.token_id(name)?.map(|id| id as usize));
        }
        let is_special = |id: usize| self.types[id] == CONTROL || named.contains(&id);
        let added = (0..self.tokens.len())
            .filter(|id| is_special(*id) || self.types[*id] == USER_DEFINED)
            .filter(|id| !self.tokens[*id].is_empty());
        Ok(added
            .map(|id| {
                json!({
                    "id": id, "content": self.tokens[id], "special": is_special(id),
                    "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
                })
            })
            .collect())
    }

    /// A `tokenizer.json` around a byte-pair model.
    fn document(&self, parts: Parts) -> Result<Value> {
        let Parts { model, normalizer, pre_tokenizer, post_processor, decoder } = parts;
        let mut bpe = json!({
            "type": "BPE", "dropout": null, "unk_token": null,
            "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": self.vocab(),
        });
        if let (Value::Object(bpe), Value::Object(model)) = (&mut bpe, model) {
            bpe.extend(model);
        }
        Ok(json!({
            "version": "1.0", "truncation": null, "padding": null,
            "added_tokens": self.added()?,
            "normalizer": normalizer, "pre_tokenizer": pre_tokenizer,
            "post_processor": post_processor, "decoder": decoder, "model": bpe,
        }))
    }
}

/// What distinguishes one byte-pair tokenizer from another.
struct Parts {
    model: Value,
    normalizer: Value,
    pre_tokenizer: Value,
    post_processor: Value,
    decoder: Value,
}

/// Byte-level BPE with the merges that the file lists, and whether a text begins
/// with the beginning-of-sequence token where the file does not say.
fn byte_level(vocabulary: &Vocabulary<'_>) -> Result<(Value, bool)> {
    let metadata = vocabulary.metadata;
    let key = "tokenizer.ggml.merges";
    let merges = metadata.strings(key)?.ok_or_else(|| metadata.missing(key))?;
    if let Some(index) = merges.iter().position(|merge| merge.split(' ').count() != 2) {
        let message = format!("has `{}` at {index}, which is not two tokens", merges[index]);
        return Err(metadata.wrong(key, &message));
    }
    let PreTokenizer { pre_tokenizer, normalizer, ignore_merges, add_bos } = pre(metadata)?;
    let byte_level = json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true,
    });
    let pairs: Vec<Value> = merges
        .iter()
        .filter_map(|merge| merge.split_once(' '))
        .map(|(left, right)| json!([left, right]))
        .collect();
    let document = vocabulary.document(Parts {
        model: json!({"merges": pairs, "ignore_merges": ignore_merges}),
        normalizer,
        pre_tokenizer,
        post_processor: byte_level.clone(),
        decoder: byte_level,
    })?;
    Ok((document, add_bos))
}

fn pre(metadata: &Metadata) -> Result<PreTokenizer> {
    let key = "tokenizer.ggml.pre";
    let name = metadata.str(key)?.ok_or_else(|| {
        metadata
            .missing(key)
            .with_hint("the file is from an old converter; convert the model again")
    })?;
    pre_tokenizer::find(name).ok_or_else(|| {
        let known = pre_tokenizer::NAMES.join("`, `");
        let message = format!("is `{name}`; supported are `{known}`");
        metadata.wrong(key, &message).with_hint("use the model's Hugging Face folder instead")
    })
}

/// SentencePiece BPE: merges by the scores of the tokens, bytes where there is no token.
fn sentence_piece(vocabulary: &Vocabulary<'_>) -> Result<Value> {
    let metadata = vocabulary.metadata;
    let key = "tokenizer.ggml.scores";
    let scores = metadata.floats(key)?.ok_or_else(|| metadata.missing(key))?;
    if scores.len() != vocabulary.tokens.len() {
        let message =
            format!("has {} entries for {} tokens", scores.len(), vocabulary.tokens.len());
        return Err(metadata.wrong(key, &message));
    }
    let add_space = metadata.bool("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
    let unknown = metadata.token_id("unknown_token_id")?;
    let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
    let mut normalizers = vec![replace];
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if add_space {
        normalizers.insert(0, json!({"type": "Prepend", "prepend": "▁"}));
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    vocabulary.document(Parts {
        model: json!({
            "merges": merges_by_score(vocabulary, scores),
            "unk_token": unknown.map(|id| &vocabulary.tokens[id as usize]),
            "fuse_unk": true,
            "byte_fallback": vocabulary.types.contains(&BYTE),
        }),
        normalizer: json!({"type": "Sequence", "normalizers": normalizers}),
        pre_tokenizer: Value::Null,
        post_processor: Value::Null,
        decoder: json!({"type": "Sequence", "decoders": decoders}),
    })
}

/// Every way to put a token together from two others, best token first; among
/// the ways to make one token, the one whose parts have the lowest ids first.
fn merges_by_score(vocabulary: &Vocabulary<'_>, scores: &[f64]) -> Vec<[String; 2]> {
    let mut by_score: Vec<usize> = (0..vocabulary.tokens.len()).collect();
    by_score.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]).then(a.cmp(b)));
    let mut merges = Vec::new();
    for id in by_score {
        let token = vocabulary.tokens[id].as_str();
        // Control tokens and bytes are never made by merging.
        if matches!(vocabulary.types[id], CONTROL | USER_DEFINED | BYTE) {
            continue;
        }
        let mut ways: Vec<(usize, usize, [String; 2])> = token
            .char_indices()
            .skip(1)
            .filter_map(|(middle, _)| {
                let (left, right) = token.split_at(middle);
                let ids = (*vocabulary.ids.get(left)?, *vocabulary.ids.get(right)?);
                Some((ids.0, ids.1, [left.to_owned(), right.to_owned()]))
            })
            .collect();
        ways.sort();
        merges.extend(ways.into_iter().map(|(_, _, pair)| pair));
    }
    merges
}

/// What of `tokenizer_config.json` the metadata tells.
fn config(metadata: &Metadata) -> Result<Map<String, Value>> {
    let mut config = Map::new();
    for name in ["add_bos_token", "add_eos_token"] {
        if let Some(flag) = metadata.bool(&format!("tokenizer.ggml.{name}"))? {
            config.insert(name.into(), flag.into());
        }
    }
    config.insert("clean_up_tokenization_spaces".into(), false.into());
    if let Ok(architecture) = metadata.architecture()
        && let Some(length) = metadata.u64(&format!("{architecture}.context_length"))?
    {
        config.insert("model_max_length".into(), length.into());
    }
    Ok(config)
}
