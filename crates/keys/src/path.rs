use std::{
    fmt,
    path::{Component, Path, PathBuf},
};

/// A file or folder, or the name of something kept elsewhere, as a hub id is.
///
/// Without a sign of a path, `org/name` may be either: look for the folder
/// first, then take it for a name. This crate touches no file.
#[derive(Clone, Debug)]
pub struct Locator {
    /// The text as given.
    pub name: String,
    /// The file or folder that it would be, absolute.
    pub path: PathBuf,
    /// Whether it can only be a path (see [`is_local_path`]).
    pub is_path: bool,
}

impl Locator {
    /// A file or folder that is known to be one.
    pub fn local(path: PathBuf) -> Locator {
        Locator { name: path.to_string_lossy().into_owned(), path, is_path: true }
    }
}

/// A name means the same in whatever folder it is read.
impl PartialEq for Locator {
    fn eq(&self, other: &Locator) -> bool {
        match (self.is_path, other.is_path) {
            (true, true) => self.path == other.path,
            (false, false) => self.name == other.name,
            _ => false,
        }
    }
}

impl fmt::Display for Locator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.is_path {
            true => self.path.display().fmt(f),
            false => f.write_str(&self.name),
        }
    }
}

/// Whether a text can only be a path, never a name on a hub: it begins with
/// `/`, `./`, `../` or `~/`, or is `.`, `..` or `~`.
pub fn is_local_path(text: &str) -> bool {
    matches!(text, "." | ".." | "~")
        || ["/", "./", "../", "~/"].iter().any(|start| text.starts_with(start))
        || Path::new(text).is_absolute()
}

/// The path that a text means, relative to `base`; none for `~` without a home.
///
/// `.` is dropped; `..` stays, since the folder before it may be a link.
pub fn resolve_path(text: &str, base: &Path, home: Option<&Path>) -> Option<PathBuf> {
    let joined = match text.strip_prefix('~') {
        Some("") => home?.to_path_buf(),
        Some(rest) if rest.starts_with('/') => home?.join(rest.trim_start_matches('/')),
        _ => base.join(text),
    };
    Some(joined.components().filter(|part| *part != Component::CurDir).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_of_a_path() {
        for text in ["./x", "/x", "~/x", "../x", ".", "..", "~"] {
            assert!(is_local_path(text), "{text}");
        }
        for text in ["org/name", "model.gguf", "~name", ".hidden/x", ""] {
            assert!(!is_local_path(text), "{text}");
        }
    }

    #[test]
    fn paths_are_relative_to_their_base() {
        let check = |text: &str, expected: &str| {
            let path = resolve_path(text, Path::new("/a/b"), Some(Path::new("/home/ada")));
            assert_eq!(path.unwrap(), Path::new(expected), "{text}");
        };
        check("x/y", "/a/b/x/y");
        check("./x", "/a/b/x");
        check("../x", "/a/b/../x");
        check("/x", "/x");
        check("~/x", "/home/ada/x");
        check("~", "/home/ada");
        check("~x", "/a/b/~x");
        assert_eq!(resolve_path("~/x", Path::new("/a"), None), None);
    }
}
