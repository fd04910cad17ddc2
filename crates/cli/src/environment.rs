//! What the program is told by its surroundings: variables, folders, terminals, limits.
//!
//! Read once at the start. Everything below asks this, never the process, so that a
//! test can make surroundings of its own.

mod limits;

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use keys::Surroundings;

pub(crate) use limits::{
    memory_limit, peak_memory, reset_peak_memory, resident_memory, thread_count,
};

/// The surroundings of the process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Environment {
    variables: BTreeMap<String, String>,
    program: Option<String>,
    /// The current folder, absolute.
    pub(crate) current_dir: PathBuf,
    /// Whether somebody may be typing.
    pub(crate) stdin_is_terminal: bool,
    /// Whether results are read by a person.
    pub(crate) stdout_is_terminal: bool,
    /// Whether progress is seen by a person.
    pub(crate) stderr_is_terminal: bool,
}

impl Environment {
    /// Reads the process's surroundings.
    pub(crate) fn read() -> std::io::Result<Self> {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Ok(Environment {
            variables: std::env::vars_os().filter_map(text).collect(),
            program: std::env::args_os().next().and_then(|name| name.into_string().ok()),
            current_dir: std::env::current_dir()?,
            stdin_is_terminal: std::io::stdin().is_terminal(),
            stdout_is_terminal: std::io::stdout().is_terminal(),
            stderr_is_terminal: std::io::stderr().is_terminal(),
        })
    }

    /// Surroundings for a test: these variables, no terminal.
    #[cfg(test)]
    pub(crate) fn of(current_dir: &Path, variables: &[(&str, &str)]) -> Self {
        let pair = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
        Environment {
            variables: variables.iter().map(pair).collect(),
            current_dir: current_dir.to_owned(),
            ..Environment::default()
        }
    }

    /// How the program was called, so that what it says to type next works as it stands.
    pub(crate) fn program(&self) -> &str {
        self.program.as_deref().filter(|name| !name.is_empty()).unwrap_or("tunesmith")
    }

    /// A variable that is set and not empty.
    pub(crate) fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Whether a variable is set to what means yes.
    fn is_on(&self, name: &str) -> bool {
        let yes = ["1", "on", "yes", "true"];
        self.variable(name).is_some_and(|value| yes.contains(&value.to_lowercase().as_str()))
    }

    /// The user's folder.
    pub(crate) fn home(&self) -> Option<&Path> {
        self.variable("HOME").or_else(|| self.variable("USERPROFILE")).map(Path::new)
    }

    /// Calls `read` with what a recipe may refer to.
    pub(crate) fn with_surroundings<T>(&self, read: impl FnOnce(&Surroundings<'_>) -> T) -> T {
        let variable = |name: &str| self.variables.get(name).cloned();
        let around =
            Surroundings { current_dir: &self.current_dir, home: self.home(), variable: &variable };
        read(&around)
    }

    /// A path of the command line, `~` replaced, relative to the current folder.
    pub(crate) fn path(&self, given: &str) -> PathBuf {
        keys::resolve_path(given, &self.current_dir, self.home())
            .unwrap_or_else(|| self.current_dir.join(given))
    }

    /// A path as short as it can be named from the current folder.
    pub(crate) fn show(&self, path: &Path) -> String {
        let short = path.strip_prefix(&self.current_dir).unwrap_or(path);
        if short.as_os_str().is_empty() { ".".to_owned() } else { short.display().to_string() }
    }

    /// Where prepared rows are kept.
    pub(crate) fn prepared_cache(&self) -> Option<PathBuf> {
        self.cache_home().map(|cache| cache.join("tunesmith/prepared"))
    }

    /// `$XDG_CACHE_HOME` or `~/.cache`.
    fn cache_home(&self) -> Option<PathBuf> {
        let xdg = self.variable("XDG_CACHE_HOME").map(PathBuf::from);
        xdg.or_else(|| self.home().map(|home| home.join(".cache")))
    }

    /// Where Tunesmith keeps models of its own.
    pub(crate) fn models_dir(&self) -> Option<PathBuf> {
        self.cache_home().map(|cache| cache.join("tunesmith/models"))
    }

    /// What the variables say about the hub: those that every tool of the hub reads.
    pub(crate) fn hub(&self) -> hub::Settings {
        let first = |names: [&str; 2]| names.into_iter().find_map(|name| self.variable(name));
        let home = self.variable("HF_HOME").map(|path| self.path(path));
        let home = home.or_else(|| self.cache_home().map(|cache| cache.join("huggingface")));
        let cache = first(["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"]).map(|path| self.path(path));
        let endpoint = self.variable("HF_ENDPOINT").unwrap_or("https://huggingface.co");
        let login = self.variable("HF_TOKEN_PATH").map(|path| self.path(path));
        hub::Settings {
            current_dir: self.current_dir.clone(),
            home: self.home().map(Path::to_owned),
            cache: cache.or_else(|| Some(home.as_ref()?.join("hub"))),
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            token: first(["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"]).map(str::to_owned),
            token_file: login.or_else(|| Some(home.as_ref()?.join("token"))),
            offline: self.is_on("HF_HUB_OFFLINE") || self.is_on("TRANSFORMERS_OFFLINE"),
            stand_ins: Vec::new(),
        }
    }

    /// The key for an OpenAI-compatible endpoint; never shown or written.
    pub(crate) fn endpoint_key(&self) -> Option<&str> {
        self.variable("OPENAI_API_KEY").map(str::trim)
    }

    /// The key for an address that gives rewards; never shown or written.
    pub(crate) fn reward_key(&self) -> Option<&str> {
        self.variable("REWARD_API_KEY").map(str::trim)
    }

    /// Whether text to a terminal may have colours.
    pub(crate) fn wants_color(&self) -> bool {
        self.variable("NO_COLOR").is_none() && self.variable("TERM") != Some("dumb")
    }

    /// Whether standard error can show lines that change.
    pub(crate) fn is_live(&self) -> bool {
        self.stderr_is_terminal && self.variable("TERM") != Some("dumb")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caches_follow_their_variables() {
        let check = |variables: &[(&str, &str)], expected: Option<&str>| {
            let cache = Environment::of(Path::new("/here"), variables).hub().cache;
            assert_eq!(cache.as_deref(), expected.map(Path::new), "{variables:?}");
        };
        check(&[], None);
        check(&[("HOME", "/h")], Some("/h/.cache/huggingface/hub"));
        check(&[("HOME", "/h"), ("XDG_CACHE_HOME", "/c")], Some("/c/huggingface/hub"));
        check(&[("HOME", "/h"), ("HF_HOME", "~/hf")], Some("/h/hf/hub"));
        check(&[("HF_HOME", "/hf"), ("HF_HUB_CACHE", "rel")], Some("/here/rel"));
        check(&[("HOME", "/h"), ("HF_HOME", "")], Some("/h/.cache/huggingface/hub"));
    }

    #[test]
    fn paths_are_relative_to_the_current_folder_and_home() {
        let environment = Environment::of(Path::new("/here"), &[("HOME", "/h")]);
        for (given, expected) in [
            ("a", "/here/a"),
            ("./a", "/here/a"),
            ("/a", "/a"),
            ("~/a", "/h/a"),
            ("~", "/h"),
            ("~o", "/here/~o"),
        ] {
            assert_eq!(environment.path(given).to_str(), Some(expected));
        }
        assert_eq!(environment.show(Path::new("/here/runs/a")), "runs/a");
        assert_eq!(environment.show(Path::new("/other")), "/other");
    }

    #[test]
    fn a_token_comes_from_the_variable_or_the_login() {
        let check = |variables: &[(&str, &str)], token: Option<&str>, file: &str| {
            let hub = Environment::of(Path::new("/here"), variables).hub();
            assert_eq!(hub.token.as_deref(), token);
            assert_eq!(hub.token_file.as_deref(), Some(Path::new(file)));
        };
        check(&[("HF_HOME", "/h")], None, "/h/token");
        check(&[("HF_HOME", "/h"), ("HF_TOKEN", "x")], Some("x"), "/h/token");
        check(&[("HF_HOME", "/h"), ("HF_TOKEN_PATH", "other")], None, "/here/other");
    }

    #[test]
    fn the_network_can_be_forbidden() {
        let offline =
            |variables: &[(&str, &str)]| Environment::of(Path::new("/"), variables).hub().offline;
        assert!(!offline(&[]));
        assert!(!offline(&[("HF_HUB_OFFLINE", "0")]));
        assert!(offline(&[("HF_HUB_OFFLINE", "1")]));
        assert!(offline(&[("TRANSFORMERS_OFFLINE", "True")]));
    }

    #[test]
    fn colours_can_be_forbidden() {
        let color =
            |variables: &[(&str, &str)]| Environment::of(Path::new("/"), variables).wants_color();
        assert!(color(&[]));
        assert!(color(&[("NO_COLOR", "")]));
        assert!(!color(&[("NO_COLOR", "1")]));
        assert!(!color(&[("TERM", "dumb")]));
    }
}
