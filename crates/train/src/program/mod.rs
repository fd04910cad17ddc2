//! Programs beside a run, which are written to and read from by lines: those that give rewards, and environments.

mod json;
mod process;

use std::path::{Path, PathBuf};
use std::time::Duration;

use keys::{Section, Settings as _};

pub(crate) use json::{number, value};
pub(crate) use process::{Process, Said, readable};

use crate::reward::RewardError;
use crate::{Error, Result};

/// How often a wait looks whether it is to stop.
pub(crate) const LOOK: Duration = Duration::from_millis(50);
/// The first wait before a program that failed is started again; each further one is twice as long.
const PAUSE: Duration = Duration::from_millis(250);
/// No wait is longer.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Endings of names of scripts: a program's argument with one of them is a file.
const SCRIPTS: [&str; 6] = ["py", "sh", "js", "rb", "pl", "R"];

/// How a program is started, and what is said where it fails.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Launch {
    /// The program and its arguments.
    pub(crate) command: Vec<String>,
    /// The folder that it runs in.
    pub(crate) folder: PathBuf,
    /// Its section in the recipe, such as `rewards.0`.
    pub(crate) key: String,
    /// How long it may take until it says something.
    pub(crate) timeout: Duration,
    /// What it has to print.
    pub(crate) form: &'static str,
    /// A name that its script may have.
    pub(crate) script: &'static str,
}

impl Launch {
    /// Starts the program.
    pub(crate) fn start(&self) -> std::result::Result<Process, RewardError> {
        Process::start(&self.command, &self.folder).map_err(|error| {
            let message = format!("`{}` cannot be started: {error}", self.command[0]);
            RewardError::new(message).with_hint(format!(
                "`{}.command` is a program with its arguments, such as [python3, {}]",
                self.key, self.script
            ))
        })
    }

    /// Starts the program before the run does anything else.
    pub(crate) fn start_first(&self) -> Result<Process> {
        self.start().map_err(|RewardError { message, hint }| Error::Refused {
            message: format!("{}.command: {message}", self.key),
            hint,
        })
    }

    /// Ends a program that said nothing for too long. `missing` is what it should have said.
    pub(crate) fn late(&self, process: Process, missing: &str) -> RewardError {
        let errors = process.kill();
        let seconds = self.timeout.as_secs_f64();
        RewardError::new(format!("the program gave no {missing} within {seconds} s{errors}")).with_hint(format!(
            "it has to write a line for each line that it reads, and to flush its output; if it needs more time, raise `{}.timeout`",
            self.key
        ))
    }

    /// Ends a program that said something wrong.
    pub(crate) fn broken(&self, process: Process, message: &str) -> RewardError {
        let errors = process.kill();
        RewardError::new(format!("{message}{errors}")).with_hint(self.form)
    }

    /// What to say of a program that has ended by itself. `missing` is what it should have said.
    pub(crate) fn ended(&self, process: Process, missing: &str) -> RewardError {
        let (status, errors) = process.ended();
        RewardError::new(format!("the program ended ({status}) before it gave a {missing}{errors}"))
            .with_hint("it has to read lines until its input ends")
    }
}

/// How long to wait before a program that has failed so often is started again.
pub(crate) fn pause_after(failures: u32) -> Duration {
    match failures {
        0 => Duration::ZERO,
        _ => PAUSE.saturating_mul(1 << (failures - 1).min(16)).min(LONGEST_PAUSE),
    }
}

/// What is wrong with the command of a section, as key and message; none where its files are there.
pub(crate) fn mistake(
    section: &Section<'_>,
    command: &[&str],
    folder: &Path,
) -> Option<(&'static str, String, &'static str)> {
    if !folder.is_dir() {
        let message = format!("{}: is not a folder", folder.display());
        return Some(("folder", message, "name the folder that the program runs in"));
    }
    // A program without a slash is looked for where the system looks.
    let files = command.iter().enumerate().filter(|(at, name)| match at {
        0 => name.contains('/'),
        _ => is_script(name),
    });
    let missing = files.map(|(_, name)| folder.join(name)).find(|path| !path.is_file())?;
    let message =
        format!("{}: is not there, and `{}` names it", missing.display(), section.full("command"));
    Some(("command", message, "paths are relative to the folder of the recipe, or to `folder`"))
}

/// Whether an argument is the name of a script.
pub(crate) fn is_script(name: &str) -> bool {
    let ending = Path::new(name).extension().and_then(|ending| ending.to_str());
    let is_word = !name.starts_with('-') && !name.contains(char::is_whitespace);
    is_word && ending.is_some_and(|ending| SCRIPTS.contains(&ending))
}
