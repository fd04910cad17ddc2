//! The environment of a recipe, read.

use std::path::{Path, PathBuf};
use std::time::Duration;

use keys::{Document, Settings as _};

use crate::program::{self, Launch};
use crate::reward::OnRewardError;
use crate::{Error, Result};

/// The environment that a recipe names.
#[derive(Clone, Debug, PartialEq)]
pub struct EnvironmentSettings {
    pub(super) launch: Launch,
    /// Most answers of an episode.
    pub max_turns: usize,
    /// How often an episode that failed is tried again.
    pub retries: u32,
    /// The part of its rewards in the sum.
    pub weight: f64,
    /// What happens to an episode that failed for good.
    pub on_error: OnRewardError,
}

/// What a program has to print.
pub(super) const FORM: &str = "its output is a line for each `start` and each `step`: {\"id\": ..., \"observation\": ...} and \
    {\"id\": ..., \"observation\": ..., \"reward\": ..., \"done\": ...}; write everything else to standard error";

impl EnvironmentSettings {
    /// What a recipe says; none without an environment. The program's files are there.
    pub fn read(document: &Document) -> Result<Option<Self>> {
        let section = document.section("environment");
        let Some(command) = section.opt_strs("command") else {
            let given = ["folder", "max_turns", "max_tokens", "timeout", "retries", "weight"];
            return match given.into_iter().find(|key| section.is_given(key)) {
                Some(key) => {
                    let message = format!(
                        "`environment.{key}` has no effect: `environment.command` is missing"
                    );
                    Err(problem(
                        document,
                        key,
                        message,
                        "name the program: `environment: {command: [python3, environment.py]}`",
                    ))
                }
                None => Ok(None),
            };
        };
        let folder = section.opt_path("folder").unwrap_or(Path::new(".")).to_owned();
        if let Some((key, message, hint)) = program::mistake(&section, &command, &folder) {
            return Err(problem(document, key, message, hint));
        }
        let seconds = section.opt_f64("timeout").unwrap_or(60.0);
        Ok(Some(EnvironmentSettings {
            launch: Launch {
                command: command.into_iter().map(str::to_owned).collect(),
                folder,
                key: "environment".into(),
                timeout: Duration::from_secs_f64(seconds),
                form: FORM,
                script: "environment.py",
            },
            max_turns: section.opt_usize("max_turns").unwrap_or(8),
            retries: section.opt_usize("retries").unwrap_or(2) as u32,
            weight: section.opt_f64("weight").unwrap_or(1.0),
            on_error: OnRewardError::read(document),
        }))
    }
}

/// Writes down what a recipe with an environment leaves open.
pub fn fill(document: &mut Document) {
    if document.opt_strs("environment.command").is_none() {
        return;
    }
    let folder = folder_of_recipe(document);
    document.fill("environment.folder", keys::Value::Path(folder), "that of the recipe");
    document.fill("environment.max_turns", 8_i64, "usual");
    document.fill("environment.timeout", 60.0, "usual");
    document.fill("environment.retries", 2_i64, "usual");
    document.fill("environment.weight", 1.0, "usual");
    let turns = document.opt_usize("environment.max_turns").unwrap_or(8);
    let tokens = document.opt_usize("rollout.max_new_tokens").unwrap_or(256);
    let most = turns.saturating_mul(tokens).min(1 << 24);
    let why = "`environment.max_turns` × `rollout.max_new_tokens`";
    document.fill("environment.max_tokens", most as i64, why);
}

/// The folder of the file that names the program; the current one where it stands on the command line.
fn folder_of_recipe(document: &Document) -> PathBuf {
    let file = document.place("environment.command").file().map(Path::new);
    let folder = file.and_then(Path::parent).filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned())
}

fn problem(document: &Document, key: &str, message: String, hint: &str) -> Error {
    let path = format!("environment.{key}");
    keys::Error::from(document.problem(&path, message, Some(hint.to_owned()))).into()
}
