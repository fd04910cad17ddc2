//! `tunesmith.json`: what a folder of weights says about how it was trained and is to be served.

use std::path::Path;

use compute::Quantization;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::{Error, Result};

/// What `tunesmith.json` says. Everything is missing where another program wrote the folder.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Serving {
    /// Version of this form.
    pub schema: u32,
    /// What the chat template takes for today, as `2026-03-01`.
    pub date: Option<String>,
    /// Hash of the base's weight files.
    pub base_hash: Option<String>,
    /// How the base is stored: `bf16`, `q4_1`, ...
    pub base_storage: Option<String>,
    /// How the base was quantised while it was loaded: `nf4`, `int8`.
    pub quantization: Option<String>,
    /// The step of these weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<u64>,
    /// Names of the classes of a classifier, in the order of its outputs. PEFT keeps them nowhere.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<String>,
    /// Variables of the chat template.
    #[serde(deserialize_with = "or_default")]
    pub template_kwargs: Map<String, Value>,
    /// What a merge says of base and adapter; an object without keys while it is not done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub merged: Option<Value>,
}

impl Serving {
    /// The name of the file.
    pub const FILE: &str = "tunesmith.json";

    /// What the folder says; nothing where it has no such file.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(Self::FILE);
        let Ok(bytes) = std::fs::read(&path) else { return Ok(Serving::default()) };
        let read = serde_json::from_slice(&bytes).map(Option::unwrap_or_default);
        read.map_err(|source| Error::Json { path, source })
    }

    /// The content of the file.
    pub fn to_json(&self) -> String {
        let serving = Serving { schema: 1, ..self.clone() };
        serde_json::to_string_pretty(&serving).expect("it is JSON") + "\n"
    }

    /// Whether a merge wrote the folder, perhaps not to its end.
    pub fn is_merged(&self) -> bool {
        self.merged.as_ref().is_some_and(Value::is_object)
    }

    /// The quantisation that its base was loaded with.
    pub fn quantization(&self) -> Option<Quantization> {
        match self.quantization.as_deref() {
            Some("nf4") => Some(Quantization::Nf4),
            Some("int8") => Some(Quantization::Int8),
            _ => None,
        }
    }
}

/// A map that may be null.
fn or_default<'de, D: Deserializer<'de>>(
    from: D,
) -> std::result::Result<Map<String, Value>, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Serving::read(folder.path()).unwrap(), Serving::default());
        let serving = Serving {
            schema: 1,
            date: Some("2026-03-01".into()),
            quantization: Some("nf4".into()),
            step: Some(7),
            ..Serving::default()
        };
        let path = folder.path().join(Serving::FILE);
        std::fs::write(&path, serving.to_json()).unwrap();
        assert_eq!(Serving::read(folder.path()).unwrap(), serving);
        assert_eq!(serving.quantization(), Some(Quantization::Nf4));
        std::fs::write(&path, "{").unwrap();
        assert!(Serving::read(folder.path()).unwrap_err().to_string().contains("not JSON"));
    }
}
