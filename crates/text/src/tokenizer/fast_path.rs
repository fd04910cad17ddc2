//! Encoding many times faster than the library does it, to the same ids.
//!
//! The library spends its time on offsets that are not asked for, and on a
//! backtracking matcher. Here the text is cut by automata, and the ids of a
//! piece come from a cache; what the cache does not know is merged by the
//! library. A tokenizer whose steps are not all known here has no fast path,
//! nor has one whose ids for the probe differ.

mod added_tokens;
mod cache;
mod pattern;
mod pieces;
mod probe;

use std::sync::OnceLock;

use tokenizers::models::bpe::BPE;
use tokenizers::{Model as _, ModelWrapper, NormalizerWrapper, Tokenizer as Backend};
use unicode_normalization_alignments::{IsNormalized, is_nfc_quick};

use self::added_tokens::{AddedTokens, Part};
use self::cache::PieceCache;
use self::pieces::Pieces;

/// Slots of the cache, 32 bytes each, and what its entries may take: 8 MB together.
const CACHE_BITS: u32 = 16;
const CACHE_BYTES: usize = 6 << 20;

/// The way around the library's pipeline, for one tokenizer.
pub(super) struct FastPath {
    added_tokens: AddedTokens,
    /// Whether text has to be in normalization form C.
    nfc: bool,
    pieces: Pieces,
    /// Made when first needed, so that a tokenizer that is only read costs nothing.
    cache: OnceLock<PieceCache>,
}

/// The library has to answer for this text.
#[derive(Debug)]
struct GaveUp;

impl FastPath {
    /// The fast path of a tokenizer, where it has one. `backend` comes back as it was.
    pub(super) fn new(backend: &mut Backend) -> Option<Self> {
        model(backend)?;
        let fast_path = FastPath {
            added_tokens: AddedTokens::new(backend.get_added_vocabulary())?,
            nfc: normalizes(backend.get_normalizer())?,
            pieces: Pieces::new(backend.get_pre_tokenizer()?)?,
            cache: OnceLock::new(),
        };
        probe::agrees(&fast_path, backend).then_some(fast_path)
    }

    /// The ids of a text, or nothing where the library has to find them.
    /// Where `plain`, special tokens are ordinary characters.
    pub(super) fn encode(&self, backend: &Backend, text: &str, plain: bool) -> Option<Vec<u32>> {
        let cache = self.cache.get_or_init(|| PieceCache::new(CACHE_BITS, CACHE_BYTES));
        self.encode_with(cache, backend, text, plain)
    }

    fn encode_with(
        &self,
        cache: &PieceCache,
        backend: &Backend,
        text: &str,
        plain: bool,
    ) -> Option<Vec<u32>> {
        if self.nfc && !text.is_ascii() && is_nfc_quick(text.chars()) != IsNormalized::Yes {
            return None;
        }
        let model = model(backend)?;
        // Fewer bytes a token are rare, and growing once costs little.
        let mut ids = Vec::with_capacity(text.len() / 3);
        let mut part = |part: Part<'_>| match part {
            Part::Token(id) => {
                ids.push(id);
                Ok(())
            }
            Part::Text(text) => self.pieces.split(text, &mut |piece| match cache
                .extend(piece.as_bytes(), &mut ids)
            {
                true => Ok(()),
                false => merge(model, cache, piece, &mut ids),
            }),
        };
        self.added_tokens.split(text, plain, &mut part).ok()?;
        ids.shrink_to_fit();
        Some(ids)
    }
}

/// Merges a piece as the library does, and keeps the ids.
fn merge(model: &BPE, cache: &PieceCache, piece: &str, ids: &mut Vec<u32>) -> Result<(), GaveUp> {
    let chars: String = piece.bytes().map(|byte| BYTE_CHARS[byte as usize]).collect();
    let tokens = model.tokenize(&chars).map_err(|_| GaveUp)?;
    let start = ids.len();
    ids.extend(tokens.iter().map(|token| token.id));
    cache.insert(piece.as_bytes(), &ids[start..]);
    Ok(())
}

/// How byte-level vocabularies write each byte: printable ones as they are, the
/// others by the characters from U+0100 on, in order.
const BYTE_CHARS: [char; 256] = {
    let mut chars = ['\0'; 256];
    let (mut byte, mut next) = (0, 0x100);
    while byte < 256 {
        let code = match byte {
            0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => byte as u32,
            _ => {
                next += 1;
                next - 1
            }
        };
        chars[byte] = char::from_u32(code).expect("far below the surrogates");
        byte += 1;
    }
    chars
};

/// The model, if what it makes of a piece depends on the piece alone.
fn model(backend: &Backend) -> Option<&BPE> {
    match backend.get_model() {
        ModelWrapper::BPE(model) if model.dropout.is_none() => Some(model),
        _ => None,
    }
}

/// Whether the normalizer is NFC rather than none; nothing where it is another.
fn normalizes(normalizer: Option<&NormalizerWrapper>) -> Option<bool> {
    match normalizer {
        None => Some(false),
        Some(NormalizerWrapper::NFC(_)) => Some(true),
        Some(NormalizerWrapper::Sequence(sequence)) => {
            let mut steps = sequence.as_ref().iter();
            steps.try_fold(false, |any, step| Some(any | normalizes(Some(step))?))
        }
        Some(_) => None,
    }
}
