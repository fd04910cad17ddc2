//! The named special tokens of a tokenizer.

use std::collections::BTreeMap;

use serde_json::Value;

/// Special tokens by the name under which a chat template sees them:
/// `bos_token`, `eos_token`, `unk_token`, `pad_token`, ...
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    tokens: BTreeMap<String, String>,
}

impl SpecialTokens {
    /// The token of that name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.tokens.get(name).map(String::as_str)
    }

    /// Names a token.
    pub fn set(&mut self, name: impl Into<String>, token: impl Into<String>) {
        self.tokens.insert(name.into(), token.into());
    }

    /// All names and tokens, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.tokens.iter().map(|(name, token)| (name.as_str(), token.as_str()))
    }

    /// Takes every `*_token` of a `tokenizer_config.json` or a
    /// `special_tokens_map.json`: a string, or an object with `content`;
    /// and the names of an object `extra_special_tokens`.
    pub(crate) fn read(&mut self, config: &Value) {
        let entries = config.as_object().into_iter().flatten();
        let extra = config.get("extra_special_tokens").and_then(Value::as_object);
        let named = entries.filter(|(name, _)| name.ends_with("_token"));
        for (name, value) in named.chain(extra.into_iter().flatten()) {
            if let Some(token) = content(value) {
                self.set(name, token);
            }
        }
    }
}

/// The text of a token that a file writes as a text, or as an object with `content`.
pub(crate) fn content(token: &Value) -> Option<&str> {
    token.as_str().or_else(|| token.get("content")?.as_str())
}

impl<N: Into<String>, T: Into<String>> FromIterator<(N, T)> for SpecialTokens {
    fn from_iter<I: IntoIterator<Item = (N, T)>>(pairs: I) -> Self {
        let pairs = pairs.into_iter().map(|(name, token)| (name.into(), token.into()));
        SpecialTokens { tokens: pairs.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_strings_or_objects_and_flags_are_neither() {
        let mut special = SpecialTokens::default();
        special.read(&serde_json::json!({
            "bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": false},
            "pad_token": null, "add_bos_token": true, "model_max_length": 10,
        }));
        let found: Vec<_> = special.iter().collect();
        assert_eq!(found, [("bos_token", "<s>"), ("eos_token", "</s>")]);
    }
}
