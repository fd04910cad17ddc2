//! A tokenizer from the files of a Hugging Face folder.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value, json};
use tokenizers::{AddedToken, PostProcessorWrapper, Tokenizer as Backend};

use super::{Note, Tokenizer};
use crate::metadata::folder::{read_bytes, read_json};
use crate::special::content;
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

    let mut notes = Vec::new();
    let mut names = Names::choose(&config, &map, &mut notes);
    if let (None, Some(padding)) = (names.special.get("pad_token"), backend.get_padding()) {
        names.name("pad_token", &padding.pad_token);
    }
    if config.get("added_tokens_decoder").is_some_and(Value::is_object) {
        let listed = listed_tokens(&config);
        add_listed(&mut backend, listed, &names, dir, &mut notes)?;
    } else {
        let added = read_json(&dir.join("added_tokens.json"))?.unwrap_or_default();
        add_missing(&mut backend, &older_list(&added, &names), dir)?;
        // Without that list, the tokens of `tokenizer.json` are the listed ones.
        let own = backend.get_added_tokens_decoder().into_iter().collect();
        add_listed(&mut backend, own, &names, dir, &mut notes)?;
    }
    names.mark(&mut backend);
    compare_surroundings(&backend, &config, &names.special, &mut notes);

    let mut config = config.as_object().cloned().unwrap_or_default();
    // The template stands in a file of its own; the flags have done what they do.
    for key in ["chat_template", "add_bos_token", "add_eos_token"] {
        config.remove(key);
    }
    Tokenizer::new(backend, names.special, config, notes)
}

pub(super) fn parse(place: &str, json: &[u8]) -> Result<Backend> {
    Backend::from_bytes(json).map_err(|error| Error::invalid(place, error.to_string()))
}

/// The special tokens that the files name, as transformers chooses between them.
struct Names {
    special: SpecialTokens,
    /// Each named token as its file writes it: a text, or an object with flags.
    written: Vec<Value>,
}

impl Names {
    /// `special_tokens_map.json` counts only where `tokenizer_config.json` has no `added_tokens_decoder`, and goes
    /// before it there.
    fn choose(config: &Value, map: &Value, notes: &mut Vec<Note>) -> Names {
        let map_counts = !config.get("added_tokens_decoder").is_some_and(Value::is_object);
        let read = |files: &[&Value]| {
            let mut special = SpecialTokens::default();
            files.iter().for_each(|file| special.read(file));
            special
        };
        let special = if map_counts { read(&[config, map]) } else { read(&[config]) };
        let (in_config, in_map) = (read(&[config]), read(&[map]));
        let differ = |(name, token): (&str, &str)| {
            let other = in_config.get(name);
            (other.is_none() && !map_counts) || other.is_some_and(|other| other != token)
        };
        let names: Vec<String> = in_map
            .iter()
            .filter(|pair| differ(*pair))
            .map(|(name, _)| format!("`{name}`"))
            .collect();
        if !names.is_empty() {
            let counts =
                if map_counts { "special_tokens_map.json" } else { "tokenizer_config.json" };
            notes.push(Note::differ(format!(
                "special_tokens_map.json and tokenizer_config.json name different special tokens ({}): \
                 {counts} counts, as in transformers",
                some(&names)
            )));
        }
        let files = if map_counts { vec![map, config] } else { vec![config] };
        let written = files.into_iter().flat_map(written_tokens).cloned().collect();
        Names { special, written }
    }

    fn name(&mut self, name: &str, token: &str) {
        self.special.set(name, token);
        self.written.push(token.into());
    }

    fn has(&self, token: &str) -> bool {
        self.special.iter().any(|(_, other)| other == token)
    }

    /// A special token that the vocabulary holds is recognised in a text.
    fn mark(&self, backend: &mut Backend) {
        for written in &self.written {
            let Some(token) = content(written) else { continue };
            let added = backend.get_added_tokens_decoder();
            let id = backend.token_to_id(token);
            if id.is_some_and(|id| !added.contains_key(&id)) {
                // Adding what the vocabulary holds changes no id, so it cannot fail.
                let token = AddedToken { special: true, ..flagged(token, written, true) };
                let _ = backend.add_special_tokens([token]);
            }
        }
    }
}

/// The special tokens of a file: named ones, then those in lists.
fn written_tokens(file: &Value) -> impl Iterator<Item = &Value> {
    let fields = file.as_object().into_iter().flatten();
    let named = fields.filter(|(name, _)| name.ends_with("_token")).map(|(_, token)| token);
    let listed = ["extra_special_tokens", "additional_special_tokens"].into_iter();
    let listed = listed.filter_map(|key| file.get(key)).flat_map(|list| {
        let items = list.as_array().into_iter().flatten();
        items.chain(list.as_object().into_iter().flat_map(Map::values))
    });
    named.chain(listed)
}

/// A token with the flags that an object gives it; those that it leaves out are `tokenizers`' own defaults.
fn flagged(content: &str, flags: &Value, special: bool) -> AddedToken {
    let flag = |name: &str| flags.get(name).and_then(Value::as_bool);
    let special = flag("special").unwrap_or(special);
    AddedToken::from(content.to_owned(), special)
        .single_word(flag("single_word").unwrap_or(false))
        .lstrip(flag("lstrip").unwrap_or(false))
        .rstrip(flag("rstrip").unwrap_or(false))
        .normalized(flag("normalized").unwrap_or(!special))
}

/// The tokens that `tokenizer_config.json` lists by id.
fn listed_tokens(config: &Value) -> BTreeMap<u32, AddedToken> {
    let decoder = config.get("added_tokens_decoder").and_then(Value::as_object);
    let token = |(id, token): (&String, &Value)| {
        let content = token.get("content")?.as_str()?;
        Some((id.parse().ok()?, flagged(content, token, false)))
    };
    decoder.into_iter().flatten().filter_map(token).collect()
}

/// The tokens of `added_tokens.json`, which has ids and no flags.
fn older_list(added: &Value, names: &Names) -> BTreeMap<u32, AddedToken> {
    let token = |(content, id): (&String, &Value)| {
        let id = id.as_u64().and_then(|id| u32::try_from(id).ok())?;
        Some((id, AddedToken::from(content.clone(), names.has(content))))
    };
    added.as_object().into_iter().flatten().filter_map(token).collect()
}

/// Adds the listed tokens, lowest id first. Where `tokenizer.json` has one with other flags, the list counts, as in
/// transformers; a token that is named as a special one is special.
fn add_listed(
    backend: &mut Backend,
    tokens: BTreeMap<u32, AddedToken>,
    names: &Names,
    dir: &Path,
    notes: &mut Vec<Note>,
) -> Result<()> {
    let before = backend.get_added_tokens_decoder();
    let (mut differing, mut changed) = (Vec::new(), Vec::new());
    let mut missing = BTreeMap::new();
    for (id, mut token) in tokens {
        let is_named = names.has(&token.content);
        token.special |= is_named;
        let Some(own) = before.get(&id).filter(|own| own.content == token.content) else {
            missing.insert(id, token);
            continue;
        };
        differing.extend(difference(own, &token, is_named));
        if token != *own {
            changed.push(token);
        }
    }
    backend.add_tokens(changed).map_err(super::failed)?;
    if !differing.is_empty() {
        notes.push(Note::differ(format!(
            "tokenizer.json and tokenizer_config.json disagree about added tokens: {}; \
             tokenizer_config.json counts, as in transformers",
            some(&differing)
        )));
    }
    add_missing(backend, &missing, dir)
}

/// The flags in which a token of `tokenizer.json` differs from the listed one. That a named token is special is no
/// matter of its flags.
fn difference(own: &AddedToken, listed: &AddedToken, is_named: bool) -> Option<String> {
    let flags = [
        ("special", own.special != listed.special && !is_named),
        ("lstrip", own.lstrip != listed.lstrip),
        ("rstrip", own.rstrip != listed.rstrip),
        ("single_word", own.single_word != listed.single_word),
        ("normalized", own.normalized != listed.normalized),
    ];
    let names: Vec<&str> =
        flags.into_iter().filter(|(_, differs)| *differs).map(|(n, _)| n).collect();
    (!names.is_empty()).then(|| format!("`{}` ({})", own.content, names.join(", ")))
}

/// The first few of a list.
fn some(items: &[String]) -> String {
    let shown = items.iter().take(4).cloned().collect::<Vec<_>>().join(", ");
    match items.len().saturating_sub(4) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// Adds tokens that the tokenizer does not have yet, lowest id first. Each must get its id.
fn add_missing(
    backend: &mut Backend,
    tokens: &BTreeMap<u32, AddedToken>,
    dir: &Path,
) -> Result<()> {
    let before = backend.get_added_tokens_decoder();
    let is_there = |id: &u32, token: &AddedToken| {
        before.get(id).is_some_and(|own| own.content == token.content)
    };
    let missing: Vec<_> = tokens.iter().filter(|(id, token)| !is_there(id, token)).collect();
    let added: Vec<AddedToken> = missing.iter().map(|(_, token)| (*token).clone()).collect();
    backend.add_tokens(added).map_err(super::failed)?;
    for (id, token) in missing {
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

/// Says where `add_bos_token` or `add_eos_token` ask for something else than `tokenizer.json` does, whose
/// post-processor counts, as in transformers 5.
fn compare_surroundings(
    backend: &Backend,
    config: &Value,
    special: &SpecialTokens,
    notes: &mut Vec<Note>,
) {
    let around = backend.encode_fast("", true).map(|encoding| encoding.get_ids().to_vec());
    let around = around.unwrap_or_default();
    for (key, name) in [("add_bos_token", "bos_token"), ("add_eos_token", "eos_token")] {
        let wanted = config.get(key).and_then(Value::as_bool);
        let id = special.get(name).and_then(|token| backend.token_to_id(token));
        let adds = id.is_some_and(|id| around.contains(&id));
        if let (Some(wanted), Some(_)) = (wanted, id)
            && wanted != adds
        {
            let does = if adds { "adds it" } else { "does not add it" };
            notes.push(Note::differ(format!(
                "tokenizer_config.json says `{key}: {wanted}`, and the post-processor of tokenizer.json {does}: \
                 tokenizer.json counts, as in transformers"
            )));
        }
    }
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
