//! Files that stand beside the repository.

use std::path::PathBuf;

/// The path of a file under `shared/data`, or nothing, with a word about it,
/// where the checkout has no `shared` beside it.
pub(crate) fn data(path: &str) -> Option<PathBuf> {
    let root = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data"));
    let path = root.join(path);
    if !path.exists() {
        skipped(&format!("{} is missing", path.display()));
        return None;
    }
    Some(path)
}

/// Says that a test did nothing.
#[allow(clippy::print_stderr)]
pub(crate) fn skipped(reason: &str) {
    eprintln!("skipped: {reason}");
}
