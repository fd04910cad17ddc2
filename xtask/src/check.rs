//! Everything that a change must pass.

use crate::{docs, process};

/// Quick ones first.
pub(crate) fn run() -> Result<(), String> {
    cargo("fmt --all --check", &[])?;
    docs::check()?;
    cargo("clippy --workspace --all-targets -- -D warnings", &[])?;
    cargo("test --workspace", &[])?;
    cargo("doc --workspace --no-deps", &[("RUSTDOCFLAGS", "-D warnings")])
}

fn cargo(arguments: &str, variables: &[(&str, &str)]) -> Result<(), String> {
    let arguments: Vec<&str> = arguments.split(' ').collect();
    process::run("cargo", &arguments, variables)
}
