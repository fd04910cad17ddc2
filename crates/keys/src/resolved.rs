//! A resolved document as JSON.

use crate::{
    document::{Document, Origin, Setting},
    key::Key,
};
use serde_json::{Value as Json, json};

impl Document {
    /// Every value as `{key, value, from, why}`, in the order of paths. Secrets are left out.
    ///
    /// `from` is `given`, `default` or `chosen`; `why` is the place of a value that was given
    /// and the reason of one that was chosen.
    pub fn to_json(&self) -> Json {
        self.settings.iter().filter_map(|(path, setting)| self.resolved(path, setting)).collect()
    }

    fn resolved(&self, path: &str, setting: &Setting) -> Option<Json> {
        let key = self.schema.key_at(path)?;
        let value = shown(key, setting)?;
        let (from, why) = match &setting.origin {
            Origin::Given => ("given", Json::from(setting.place.to_string())),
            Origin::Default => ("default", Json::Null),
            Origin::Chosen(reason) => ("chosen", Json::from(reason.as_str())),
        };
        Some(json!({"key": path, "value": value, "from": from, "why": why}))
    }
}

/// The value, as the recipe writes it where a secret variable stands in it.
fn shown(key: &Key, setting: &Setting) -> Option<Json> {
    let value = setting.written.as_ref().unwrap_or(&setting.value);
    match key.secret {
        _ if key.is_secret() && setting.written.is_none() => None,
        Some(false) => Some(value.to_json()),
        _ if key.is_secret() => Some(value.to_json()),
        _ => Some(value.without_secrets().to_json()),
    }
}
