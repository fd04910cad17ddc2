//! A tokenizer from the files of a Hugging Face folder.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value, json};
use tokenizers::{AddedToken, PostProcessorWrapper, Tokenizer as Backend};

use super::Tokenizer;
use crate::metadata::folder::{read_bytes, read_json};
use crate::{Error, Result, SpecialTokens};

const HINT: &str = "make one with transformers: \
    `AutoTokenizer.from_pretrained(folder).save_pretrained(folder)`";

pub(super) fn from_folder(dir: &Path) -> Result<Tokenizer> {
    let path = dir.join("tokenizer.json");
    let Some(bytes) = read_bytes(&path)? else {
        let message = "has no `tokenizer.json`, the only tokenizer format that is read";
        return Err(Error::file(dir, message).with_hint(HINT));
    };
    let mut backend = parse(&path.display().to_string(), &bytes)?;
    let config = read_json(&dir.join("tokenizer_config.json"))?.unwrap_or_default();
    let map = read_json(&dir.join("special_tokens_map.json"))?.unwrap_or_default();
    let added = read_json(&dir.join("added_tokens.json"))?.unwrap_or_default();

    let mut special = SpecialTokens::default();
    special.read(&map);
    special.read(&config);

    add_tokens(&mut backend, &listed_tokens(&config, &added), dir)?;
    mark_special(&mut backend, &special);
    set_surroundings(&mut backend, &config, &special)?;

    let mut config = config.as_object().cloned().unwrap_or_default();
    config.remove("chat_template");
    Tokenizer::new(backend, special, config)
}

pub(super) fn parse(place: &str, json: &[u8]) -> Result<Backend> {
    Backend::from_bytes(json).map_err(|error| Error::invalid(place, error.to_string()))
}

/// Tokens that the configuration lists by id, outside `tokenizer.json`.
fn listed_tokens(config: &Value, added: &Value) -> BTreeMap<u32, AddedToken> {
    let mut tokens = BTreeMap::new();
    for (content, id) in added.as_object().into_iter().flatten() {
        if let Some(id) = id.as_u64().and_then(|id| u32::try_from(id).ok()) {
            tokens.insert(id, AddedToken::from(content.clone(), false));
        }
    }
    let decoder = config.get("added_tokens_decoder").and_then(Value::as_object);
    for (id, token) in decoder.into_iter().flatten() {
        let content = token.get("content").and_then(Value::as_str);
        if let (Ok(id), Some(content)) = (id.parse(), content) {
            let flag = |name: &str| token.get(name).and_then(Value::as_bool);
            let added = AddedToken::from(content.to_owned(), flag("special").unwrap_or(false))
                .single_word(flag("single_word").unwrap_or(false))
                .lstrip(flag("lstrip").unwrap_or(false))
                .rstrip(flag("rstrip").unwrap_or(false))
                .normalized(flag("normalized").unwrap_or(true));
            tokens.insert(id, added);
        }
    }
    tokens
}

/// Adds the listed tokens that the tokenizer does not have yet, lowest id first.
fn add_tokens(backend: &mut Backend, tokens: &BTreeMap<u32, AddedToken>, dir: &Path) -> Result<()> {
    for (id, token) in tokens {
        if backend.get_added_tokens_decoder().contains_key(id) {
            continue;
        }
        backend.add_tokens([token.clone()]).map_err(super::failed)?;
        let actual = backend.token_to_id(&token.content);
        if actual != Some(*id) {
            let message = format!(
                "added token `{}` should have id {id}, but the tokenizer gives it {actual:?}",
                token.content
            );
            return Err(Error::file(&dir.join("tokenizer_config.json"), message).with_hint(HINT));
        }
    }
    Ok(())
}

/// A named special token that the vocabulary holds is recognised in a text.
fn mark_special(backend: &mut Backend, special: &SpecialTokens) {
    for (_, token) in special.iter() {
        let added = backend.get_added_tokens_decoder();
        let is_added = backend.token_to_id(token).is_some_and(|id| added.contains_key(&id));
        if backend.token_to_id(token).is_some() && !is_added {
            // Adding what the vocabulary holds changes no id, so it cannot fail.
            let _ = backend.add_special_tokens([AddedToken::from(token.to_owned(), true)]);
        }
    }
}

/// `add_bos_token` and `add_eos_token`, where the configuration has them, go
/// before the post-processor of `tokenizer.json`, as in transformers.
fn set_surroundings(backend: &mut Backend, config: &Value, special: &SpecialTokens) -> Result<()> {
    let flag = |name: &str| config.get(name).and_then(Value::as_bool);
    let (bos, eos) = (flag("add_bos_token"), flag("add_eos_token"));
    if bos.is_none() && eos.is_none() {
        return Ok(());
    }
    let token = |wanted: Option<bool>, name: &str| {
        let token = special.get(name).filter(|_| wanted == Some(true))?;
        Some((token.to_owned(), backend.token_to_id(token)?))
    };
    let (bos, eos) = (token(bos, "bos_token"), token(eos, "eos_token"));
    let adds_nothing = backend.encode_fast("", true).is_ok_and(|encoding| encoding.is_empty());
    if bos.is_none() && eos.is_none() && adds_nothing {
        // Nothing is asked for that the file does not do: it stays as it is, and so does its hash.
        return Ok(());
    }
    surround(backend, bos, eos)
}

/// Makes the tokenizer put these tokens around a raw text.
pub(super) fn surround(
    backend: &mut Backend,
    bos: Option<(String, u32)>,
    eos: Option<(String, u32)>,
) -> Result<()> {
    let piece = |(token, _): &(String, u32), kind: u8| json!({"SpecialToken": {"id": token, "type_id": kind}});
    let around = |text: &str, kind: u8| -> Vec<Value> {
        let text = json!({"Sequence": {"id": text, "type_id": kind}});
        let (bos, eos) = (bos.iter().map(|t| piece(t, kind)), eos.iter().map(|t| piece(t, kind)));
        bos.chain([text]).chain(eos).collect()
    };
    let single = around("A", 0);
    let pair: Vec<Value> = single.iter().cloned().chain(around("B", 1)).collect();
    let tokens: Map<String, Value> = (bos.iter().chain(&eos))
        .map(|(token, id)| (token.clone(), json!({"id": token, "ids": [id], "tokens": [token]})))
        .collect();
    let processor = json!({
        "type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": tokens,
    });
    let processor: PostProcessorWrapper = serde_json::from_value(processor)
        .map_err(|error| Error::Tokenizer { message: error.to_string() })?;
    backend.with_post_processor(Some(processor));
    Ok(())
}
