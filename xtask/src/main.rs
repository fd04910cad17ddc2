//! Chores of the workspace, called as `cargo xtask`.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a chore talks to who runs it")]

mod bench_peers;
mod check;
mod docs;
mod golden;
mod process;

use std::path::Path;
use std::process::ExitCode;

const USAGE: &str = "\
Chores of the workspace

cargo xtask check
    formatting, lints, generated docs, tests, documentation: all that a change must pass
cargo xtask docs
    writes docs/recipe.md from the definitions of the keys
cargo xtask golden NAME|all [--python PYTHON] [--model FOLDER]
    makes goldens anew with the scripts of xtask/golden; some read the folder of
    SmolLM2-135M-Instruct
";

fn main() -> ExitCode {
    let given: Vec<String> = std::env::args().skip(1).collect();
    let given: Vec<&str> = given.iter().map(String::as_str).collect();
    let done = match given.as_slice() {
        ["check"] => check::run(),
        ["docs"] => docs::write(),
        ["golden", rest @ ..] => golden::Arguments::parse(rest).and_then(|a| golden::run(&a)),
        ["bench-peers", rest @ ..] => {
            bench_peers::Arguments::parse(rest).and_then(|a| bench_peers::run(&a))
        }
        ["help" | "--help" | "-h"] => {
            print!("{USAGE}{}", bench_peers::USAGE);
            Ok(())
        }
        _ => {
            eprint!("{USAGE}{}", bench_peers::USAGE);
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

/// The folder of the workspace.
fn root() -> &'static Path {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().expect("xtask is a folder of the workspace")
}
