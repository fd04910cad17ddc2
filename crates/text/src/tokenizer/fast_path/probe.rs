//! A text that is encoded both ways before a fast path is trusted.

use tokenizers::Tokenizer as Backend;

use super::FastPath;
use super::cache::PieceCache;

/// What patterns of words tell apart: contractions, white space of every kind
/// and length before words, numbers and line ends, scripts with and without
/// spaces, marks, joined emoji, and code.
const TEXTS: &[&str] = &[
    "I'm sure they'll've said it's HE'S 'tis don't DON'T we'd 'S ’s o'clock rock 'n' roll 'ſ",
    " a  b   c    d\te\t\tf \tg\t h\n\ni\n  j\n\n\n   k \n l\r\n\r\nm \r\n n\r\r  \n",
    "1 12 123 1234 12345 3.14 -1e10 1,000,000 ٣٤٥ ½ ² ⅷ 一二三 x1y22z333 v1.2.3 100% $5  6   77",
    "x\u{a0}y\u{a0}\u{a0}z \u{a0} w\u{3000}v\u{2003}\u{2028}u\u{85}t\u{b}s\u{c}r\u{200b}q\u{feff}\u{0}\u{1b}",
    "你好，世界。  東京は日本の首都です！한국어 ไทย नमस्ते दुनिया Привет, мир Ωmega ΣΊΣΥΦΟΣ İıſß Ǆǅǆ",
    "مرحبا بالعالم، كيف الحال؟ שלום עולם cafe\u{301} café n\u{303}o e\u{301}\u{323} \u{301}x  \u{300}",
    "👩‍👩‍👧‍👦 🏳️‍🌈👍🏽🇩🇪  🙂!!! ... ?! --- ___ \"quoted\" (a) [b] {c} <d> `e` *f* #g @h https://a.b/c?d=e&f=g",
    "fn main() {\n    let x = vec![1, 2];\n\n\tif x.len() >= 2 && !y { println!(\"{x:?}\"); }\n}\n// TODO/\r\n/\n",
    "CamelCase HTTPServer snake_case SCREAMING_CASE iPhone McDonald ÉcoleNormale aB Ab AB ab\u{301}C  D",
    "   leading and trailing   ",
    "\n",
    "  \n  ",
    "",
];

/// Added tokens that take part; some tokenizers have thousands.
const TOKENS: usize = 100;

/// Whether both ways give the same ids.
pub(super) fn agrees(fast_path: &FastPath, backend: &mut Backend) -> bool {
    let mut texts: Vec<String> = TEXTS.iter().map(|text| (*text).to_owned()).collect();
    texts.push(between_tokens(backend));
    // One of its own: what was tried need not be remembered.
    let cache = PieceCache::new(8, 1 << 14);
    let agrees = [true, false].into_iter().all(|plain| {
        backend.set_encode_special_tokens(plain);
        texts.iter().all(|text| {
            let Some(ids) = fast_path.encode_with(&cache, backend, text, plain) else {
                // It may leave what is no normal form to the library.
                return fast_path.nfc && !text.is_ascii();
            };
            backend.encode_fast(text.as_str(), false).is_ok_and(|slow| slow.get_ids() == ids)
        })
    });
    backend.set_encode_special_tokens(false);
    agrees
}

/// Added tokens side by side, and with words and spaces between them.
fn between_tokens(backend: &Backend) -> String {
    let mut tokens: Vec<_> = backend.get_added_tokens_decoder().into_iter().collect();
    tokens.sort_unstable_by_key(|(id, _)| *id);
    let mut text = String::from(" a ");
    for ((_, token), between) in
        tokens.iter().take(TOKENS).zip([" ", "", "a", " b\n", "  "].iter().cycle())
    {
        text += &token.content;
        text += between;
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::OnceLock;

    use serde_json::json;
    use tokenizers::pre_tokenizers::byte_level::ByteLevel;

    use super::super::{AddedTokens, Pieces};
    use super::*;

    fn backend(use_regex: bool) -> Backend {
        let mut alphabet: Vec<char> = ByteLevel::alphabet().into_iter().collect();
        alphabet.sort_unstable();
        let vocab = (0..).zip(&alphabet).map(|(id, char)| (char.to_string(), json!(id)));
        let mut vocab: serde_json::Map<_, _> = vocab.collect();
        vocab.insert("aĠ".into(), 256.into());
        let document = json!({
            "version": "1.0", "added_tokens": [], "normalizer": null, "post_processor": null,
            "pre_tokenizer": {
                "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
                "use_regex": use_regex,
            },
            "decoder": null, "model": {"type": "BPE", "vocab": vocab, "merges": [["a", "Ġ"]]},
        });
        Backend::from_bytes(document.to_string()).unwrap()
    }

    #[test]
    fn a_fast_path_with_other_pieces_is_not_trusted() {
        for (mine, its, expected) in
            [(true, true, true), (false, false, true), (false, true, false)]
        {
            let (mut backend, other) = (backend(mine), backend(its));
            let fast_path = FastPath {
                added_tokens: AddedTokens::new(other.get_added_vocabulary()).unwrap(),
                nfc: false,
                pieces: Pieces::new(other.get_pre_tokenizer().unwrap()).unwrap(),
                cache: OnceLock::new(),
            };
            assert_eq!(agrees(&fast_path, &mut backend), expected);
            assert!(!backend.get_encode_special_tokens());
        }
    }
}
