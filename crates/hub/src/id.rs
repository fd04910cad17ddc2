//! What a model or a data set on the hub is called.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

use crate::error::{Error, Result};

/// What is kept on the hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RepoKind {
    Model,
    DataSet,
}

impl RepoKind {
    /// In the addresses of the hub's protocol and in the names of the cache's folders.
    pub(crate) fn plural(self) -> &'static str {
        match self {
            RepoKind::Model => "models",
            RepoKind::DataSet => "datasets",
        }
    }

    /// What goes before a name in the addresses of pages and files.
    pub(crate) fn page(self) -> &'static str {
        match self {
            RepoKind::Model => "",
            RepoKind::DataSet => "datasets/",
        }
    }

    /// What a message calls it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            RepoKind::Model => "model",
            RepoKind::DataSet => "data set",
        }
    }

    /// What can be named in place of something on the hub.
    pub(crate) fn instead(self) -> &'static str {
        match self {
            RepoKind::Model => "name a folder or a `.gguf` file",
            RepoKind::DataSet => "download its files and name them with `path`",
        }
    }
}

/// A model or a data set on the hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HubId {
    pub(crate) kind: RepoKind,
    /// `owner/name`.
    pub(crate) name: String,
    /// Branch, tag or commit.
    pub(crate) revision: String,
    /// The `.gguf` file of it that is meant.
    pub(crate) file: Option<String>,
}

/// The branch that is meant where none is named.
pub(crate) const MAIN: &str = "main";

impl HubId {
    /// Reads `owner/name`, `owner/name@revision`, and either with `:FILE.gguf` after it.
    pub(crate) fn parse(given: &str) -> Option<Self> {
        let (given, file) = match given.split_once(':') {
            Some((given, file)) => (given, Some(file)),
            None => (given, None),
        };
        let (name, revision) = given.split_once('@').unwrap_or((given, MAIN));
        let (owner, model) = name.split_once('/')?;
        let is_file = |file: &str| file.ends_with(".gguf") && file.split('/').all(is_word);
        let is_name = is_word(owner) && is_word(model);
        let is_id = is_name && is_revision(revision) && file.is_none_or(is_file);
        is_id.then(|| HubId {
            kind: RepoKind::Model,
            name: name.to_owned(),
            revision: revision.to_owned(),
            file: file.map(str::to_owned),
        })
    }

    /// Reads the name of a data set, `owner/name` or one of the hub's oldest without an owner.
    pub(crate) fn data_set(given: &str) -> Option<Self> {
        let parts: Vec<&str> = given.split('/').collect();
        let is_name = parts.len() <= 2 && parts.iter().all(|part| is_word(part));
        is_name.then(|| HubId {
            kind: RepoKind::DataSet,
            name: given.to_owned(),
            revision: MAIN.to_owned(),
            file: None,
        })
    }

    /// Means another revision from now on.
    pub(crate) fn set_revision(&mut self, revision: &str) -> Result<()> {
        if !is_revision(revision) {
            let message = format!("{}: `{revision}` is not a revision", self.name);
            return Err(Error::wrong("invalid", message).hint("name a branch, tag or commit"));
        }
        revision.clone_into(&mut self.revision);
        Ok(())
    }

    /// Whether this is the model `name` with nothing said about its revision.
    pub(crate) fn is_default_of(&self, name: &str) -> bool {
        self.name == name && self.revision == MAIN && self.file.is_none()
    }

    /// What an adapter trained over it calls it; its revision has a key of its own there.
    pub(crate) fn base_name(&self) -> String {
        match &self.file {
            Some(file) => format!("{}:{file}", self.name),
            None => self.name.clone(),
        }
    }
}

fn is_revision(text: &str) -> bool {
    text.split('/').all(is_word)
}

/// Whether a text can be a part of an id, of a revision or of a path.
pub(crate) fn is_word(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.+".contains(c);
    !text.is_empty() && text.chars().all(plain) && !text.starts_with('.')
}

/// Everything but what a segment of a URL takes as it is (RFC 3986, 2.3).
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// A text as one segment of a URL.
pub(crate) fn quote(text: &str) -> String {
    percent_encode(text.as_bytes(), SEGMENT).to_string()
}

/// A path as segments of a URL.
pub(crate) fn quote_path(path: &str) -> String {
    path.split('/').map(quote).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_told_from_other_texts() {
        let check = |text: &str, name: &str, revision: &str, file: Option<&str>| {
            let id = HubId::parse(text).unwrap();
            assert_eq!((id.name.as_str(), id.revision.as_str()), (name, revision), "{text}");
            assert_eq!(id.file.as_deref(), file, "{text}");
        };
        check("o/n", "o/n", "main", None);
        check("o/n-1.5_x@v2", "o/n-1.5_x", "v2", None);
        check("o/n@refs/pr/1", "o/n", "refs/pr/1", None);
        check("o/n:a-Q4_K_M.gguf", "o/n", "main", Some("a-Q4_K_M.gguf"));
        check("o/n@v2:q4/a.gguf", "o/n", "v2", Some("q4/a.gguf"));
        for text in
            ["n", "o/n/m", "o/..", "../n", "o/n@", "o/n@../x", "o/n m", "/n", "o/", "o/n:Q4_K_M"]
        {
            assert_eq!(HubId::parse(text), None, "{text}");
        }
        for text in ["o/n:../a.gguf", "o/n:/a.gguf", "C:/m/a.gguf", "o/n:"] {
            assert_eq!(HubId::parse(text), None, "{text}");
        }
    }

    #[test]
    fn addresses_are_quoted() {
        assert_eq!(quote("refs/pr/1"), "refs%2Fpr%2F1");
        assert_eq!(quote_path("a b/c#1.json"), "a%20b/c%231.json");
    }
}
