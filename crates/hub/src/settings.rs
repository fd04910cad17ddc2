//! Where models are looked for, and as whom the hub is asked.

use std::path::{Path, PathBuf};

/// What the surroundings say about models.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// What a relative path starts from.
    pub current_dir: PathBuf,
    /// What `~` means.
    pub home: Option<PathBuf>,
    /// The hub's cache on disk.
    pub cache: Option<PathBuf>,
    /// The address of the hub, without a slash at the end.
    pub endpoint: String,
    /// The user's token for the hub.
    pub token: Option<String>,
    /// The file that a login leaves its token in; read where `token` is none.
    pub token_file: Option<PathBuf>,
    /// Whether the network is forbidden.
    pub offline: bool,
    /// Files and folders that are taken in place of models on the hub.
    pub stand_ins: Vec<StandIn>,
}

/// A file or folder that is taken in place of a model on the hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StandIn {
    /// The user named it.
    Named {
        /// The hub's id of the model.
        id: &'static str,
        /// A model in any of its forms.
        path: PathBuf,
        /// What the user named it with.
        by: &'static str,
    },
    /// An earlier command fetched it from elsewhere. Counts where it is there and whole.
    Fetched {
        /// The hub's id of the model.
        id: &'static str,
        /// A `.gguf` file.
        path: PathBuf,
        /// The SHA-256 of its content, in hex.
        sha256: &'static str,
    },
}

impl StandIn {
    pub(crate) fn id(&self) -> &'static str {
        match self {
            StandIn::Named { id, .. } | StandIn::Fetched { id, .. } => id,
        }
    }
}

impl Settings {
    /// A path as a person writes it: `~` replaced, relative to the current folder.
    pub(crate) fn path(&self, given: &str) -> PathBuf {
        keys::resolve_path(given, &self.current_dir, self.home.as_deref())
            .unwrap_or_else(|| self.current_dir.join(given))
    }

    /// A path as short as it can be named from the current folder.
    pub(crate) fn show(&self, path: &Path) -> String {
        let short = path.strip_prefix(&self.current_dir).unwrap_or(path);
        if short.as_os_str().is_empty() { ".".to_owned() } else { short.display().to_string() }
    }

    /// Settings of a test: a cache in `home`, and this hub.
    #[cfg(test)]
    pub(crate) fn for_test(home: &Path, endpoint: &str, token: Option<&str>) -> Self {
        Settings {
            current_dir: "/".into(),
            cache: Some(home.join("hub")),
            endpoint: endpoint.to_owned(),
            token: token.map(str::to_owned),
            ..Settings::default()
        }
    }

    /// The user's token for the hub, if there is one.
    pub(crate) fn token(&self) -> Option<String> {
        let token = self.token.clone().or_else(|| {
            let path = self.token_file.as_ref()?;
            std::fs::read_to_string(path).ok()
        })?;
        Some(token.trim().to_owned()).filter(|token| !token.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_given_or_read_from_the_login() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        let token = |given: Option<&str>| {
            let (token, token_file) = (given.map(str::to_owned), Some(file.clone()));
            Settings { token, token_file, ..Settings::default() }.token()
        };
        assert_eq!(token(None), None);
        std::fs::write(&file, "from-login\n").unwrap();
        assert_eq!(token(None).as_deref(), Some("from-login"));
        assert_eq!(token(Some("x")).as_deref(), Some("x"));
    }
}
