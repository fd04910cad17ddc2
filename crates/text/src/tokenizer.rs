//! From text to token ids and back.

mod fast_path;
mod files;
mod from_gguf;
mod notes;
mod pre_tokenizer;
mod stream;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use serde_json::{Map, Value};
use tokenizers::{DecoderWrapper, Tokenizer as Backend};

use self::fast_path::FastPath;
pub use self::notes::Note;
pub use self::stream::DecodeStream;
use crate::hash::sha256;
use crate::{Error, Result, SpecialTokens, gguf, special};

/// A tokenizer, cheap to clone.
///
/// It never truncates, never pads and draws nothing at random, whatever its file asks for.
#[derive(Clone)]
pub struct Tokenizer {
    inner: Arc<Inner>,
}

struct Inner {
    backend: Backend,
    /// What encodes most texts in its stead, to the same ids.
    fast_path: Option<FastPath>,
    /// The backend, but special tokens in a text are text; made when first asked for.
    plain: OnceLock<Backend>,
    special: SpecialTokens,
    /// Ids of the tokens of control.
    special_ids: BTreeSet<u32>,
    vocab_size: usize,
    /// Added tokens of text that a byte-level decoder would take for bytes.
    literal: BTreeMap<u32, String>,
    /// `tokenizer_config.json`, without the chat template.
    config: Map<String, Value>,
    notes: Vec<Note>,
}

impl Tokenizer {
    /// Reads `tokenizer.json` of a folder, with the special tokens that
    /// `tokenizer_config.json`, `special_tokens_map.json` and
    /// `added_tokens.json` add to it.
    pub fn from_folder(dir: &Path) -> Result<Self> {
        files::from_folder(dir)
    }

    /// Builds the tokenizer that a GGUF file describes in `tokenizer.ggml.*`.
    pub fn from_gguf(metadata: &gguf::Metadata) -> Result<Self> {
        from_gguf::from_gguf(metadata)
    }

    /// Reads the bytes of a `tokenizer.json`. No special token has a name then.
    pub fn from_bytes(json: &[u8]) -> Result<Self> {
        let backend = files::parse("tokenizer.json", json)?;
        Tokenizer::new(backend, SpecialTokens::default(), Map::new(), Vec::new())
    }

    /// The same tokenizer with texts that become one token each, and their ids in order. One that is a token
    /// already keeps its id.
    pub fn with_tokens(&self, tokens: &[String], special: bool) -> Result<(Self, Vec<u32>)> {
        let mut backend = self.inner.backend.clone();
        let added = tokens.iter().map(|token| tokenizers::AddedToken::from(token.clone(), special));
        let added: Vec<_> = added.collect();
        if special {
            backend.add_special_tokens(added).map_err(failed)?;
        } else {
            backend.add_tokens(added).map_err(failed)?;
        }
        let Inner { special: named, config, notes, .. } = &*self.inner;
        let tokenizer = Tokenizer::new(backend, named.clone(), config.clone(), notes.clone())?;
        let ids = tokens.iter().map(|token| tokenizer.id(token));
        let ids = ids.map(|id| id.expect("the token was just added")).collect();
        Ok((tokenizer, ids))
    }

    fn new(
        mut backend: Backend,
        special: SpecialTokens,
        config: Map<String, Value>,
        mut notes: Vec<Note>,
    ) -> Result<Self> {
        notes::without_dropout(&mut backend, &mut notes);
        backend.with_truncation(None).map_err(failed)?;
        backend.with_padding(None);
        backend.set_encode_special_tokens(false);
        let added: BTreeMap<_, _> = backend.get_added_tokens_decoder().into_iter().collect();
        let special_ids = added.iter().filter(|(_, token)| token.special).map(|(id, _)| *id);
        let special_ids = special_ids.collect();
        let is_byte_level = matches!(backend.get_decoder(), Some(DecoderWrapper::ByteLevel(_)));
        let literal = (added.into_iter())
            .filter(|(_, token)| is_byte_level && !token.special && !token.content.is_ascii())
            .map(|(id, token)| (id, token.content))
            .collect();
        let highest = backend.get_vocab(true).into_values().max();
        let vocab_size = highest.map_or(0, |id| id as usize + 1);
        let fast_path = FastPath::new(&mut backend);
        let plain = OnceLock::new();
        let inner = Inner {
            backend,
            fast_path,
            plain,
            special,
            special_ids,
            vocab_size,
            literal,
            config,
            notes,
        };
        Ok(Tokenizer { inner: Arc::new(inner) })
    }

    /// The ids of a text. Special tokens written in it are recognised; none is added.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        if let Some(ids) = self.encode_quickly(text, false) {
            return Ok(ids);
        }
        let encoding = self.inner.backend.encode_fast(text, false).map_err(failed)?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The ids of a text in which special tokens are ordinary characters.
    pub fn encode_plain(&self, text: &str) -> Result<Vec<u32>> {
        if let Some(ids) = self.encode_quickly(text, true) {
            return Ok(ids);
        }
        let plain = self.inner.plain.get_or_init(|| {
            let mut plain = self.inner.backend.clone();
            plain.set_encode_special_tokens(true);
            plain
        });
        Ok(plain.encode_fast(text, false).map_err(failed)?.get_ids().to_vec())
    }

    fn encode_quickly(&self, text: &str, plain: bool) -> Option<Vec<u32>> {
        self.inner.fast_path.as_ref()?.encode(&self.inner.backend, text, plain)
    }

    /// Whether texts are encoded many times faster than by the `tokenizers`
    /// library. The ids are the same either way.
    pub fn has_fast_path(&self) -> bool {
        self.inner.fast_path.is_some()
    }

    /// Like [`Tokenizer::encode`], with what the tokenizer puts around a raw
    /// text (the beginning-of-sequence token of most Llamas).
    pub fn encode_with_special(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self.inner.backend.encode_fast(text, true).map_err(failed)?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The text of some ids; bytes that are no UTF-8 become U+FFFD.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        let literal = &self.inner.literal;
        let mut text = String::new();
        for run in ids.chunk_by(|a, b| !literal.contains_key(a) && !literal.contains_key(b)) {
            let decoded = match literal.get(&run[0]) {
                Some(content) => content.clone(),
                None => self.inner.backend.decode(run, skip_special).map_err(failed)?,
            };
            text.push_str(&decoded);
        }
        Ok(text)
    }

    /// Decodes ids one by one, in whole characters.
    pub fn decode_stream(&self, skip_special: bool) -> DecodeStream<'_> {
        DecodeStream::new(self, skip_special)
    }

    /// The token of an id, as the vocabulary spells it.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.backend.id_to_token(id)
    }

    /// The id of a token, spelt as in the vocabulary.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.backend.token_to_id(token)
    }

    /// What its files disagree about, or ask for and do not get.
    pub fn notes(&self) -> &[Note] {
        &self.inner.notes
    }

    /// The highest id plus one.
    pub fn vocab_size(&self) -> usize {
        self.inner.vocab_size
    }

    /// Whether the id is a token of control rather than of text.
    pub fn is_special(&self, id: u32) -> bool {
        self.inner.special_ids.contains(&id)
    }

    /// The beginning-of-sequence token, where the model has one.
    pub fn bos(&self) -> Option<u32> {
        self.id(self.special().get("bos_token")?)
    }

    /// The end-of-sequence token, where the model has one.
    pub fn eos(&self) -> Option<u32> {
        self.id(self.special().get("eos_token")?)
    }

    /// The named special tokens.
    pub fn special(&self) -> &SpecialTokens {
        &self.inner.special
    }

    /// The tokenizer as a `tokenizer.json`, also where it came from a GGUF file.
    pub fn to_json(&self) -> Result<String> {
        self.inner.backend.to_string(true).map_err(failed)
    }

    /// A `tokenizer_config.json` to stand beside it. It holds no chat template.
    pub fn config_json(&self) -> Value {
        let mut config = self.inner.config.clone();
        config.entry("tokenizer_class").or_insert_with(|| "PreTrainedTokenizerFast".into());
        for (name, token) in self.special().iter() {
            let written = config.get(name).and_then(special::content);
            if written != Some(token) {
                config.insert(name.into(), token.into());
            }
        }
        Value::Object(config)
    }

    /// The SHA-256 of [`Tokenizer::to_json`], in hex.
    pub fn hash(&self) -> String {
        let json = self.to_json().expect("what was read as JSON can be written");
        sha256(json.as_bytes())
    }
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer").field("special", self.special()).finish_non_exhaustive()
    }
}

fn failed(error: tokenizers::Error) -> Error {
    Error::Tokenizer { message: error.to_string() }
}
