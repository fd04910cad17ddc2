//! What a person sees: text, marks and colours, and what a program reads instead.

pub(crate) mod curve;
pub(crate) mod escape;
pub(crate) mod lines;
pub(crate) mod progress;
pub(crate) mod style;
pub(crate) mod table;

use std::io::{ErrorKind, Write as _};
use std::sync::{Arc, OnceLock};

use serde_json::Value;

use crate::environment::Environment;
use crate::error::{Failure, Result, describe};
use escape::{escaped, escaped_but_colors};
use style::Style;

/// Where words go.
///
/// Without `--json` human text is standard output. With it standard output is for
/// the program that reads it, and human text goes to standard error.
#[derive(Clone, Debug)]
pub(crate) struct Terminal {
    json: bool,
    /// Colours for what [`Terminal::say`] writes.
    pub(crate) style: Style,
    /// Colours for standard error.
    error_style: Style,
    /// Whether standard error shows bars.
    pub(crate) is_live: bool,
    /// Whether standard output is seen by a person.
    pub(crate) stdout_is_terminal: bool,
    /// The first error of standard output. Nothing is written there any more.
    broken: Arc<OnceLock<Broken>>,
}

/// Why standard output takes nothing more.
#[derive(Clone, Debug)]
struct Broken {
    /// Its reader has gone away, as `head` does.
    is_closed: bool,
    message: String,
}

impl Terminal {
    /// The terminal of these surroundings.
    pub(crate) fn new(environment: &Environment, json: bool) -> Self {
        let color = environment.wants_color();
        let error_style = Style::new(color && environment.stderr_is_terminal);
        let style = Style::new(color && environment.stdout_is_terminal);
        Terminal {
            json,
            style: if json { error_style } else { style },
            error_style,
            is_live: environment.is_live(),
            stdout_is_terminal: environment.stdout_is_terminal,
            broken: Arc::default(),
        }
    }

    /// Whether a program reads standard output.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Whether human text reaches a person as it is written.
    pub(crate) fn is_read_by_person(&self) -> bool {
        self.stdout_is_terminal || self.json
    }

    /// A line of human text: what the command was run for.
    pub(crate) fn say(&self, line: &str) {
        if self.json {
            self.note(line);
        } else if self.stdout_is_terminal {
            self.write_out(&escaped_but_colors(line), "\n");
        } else {
            self.write_out(line, "\n");
        }
    }

    /// A line about what is going on, apart from the result.
    pub(crate) fn note(&self, line: &str) {
        // Unit tests are not to be talked over.
        if cfg!(test) {
            return;
        }
        // What is said here beside the result may be lost.
        let _ = writeln!(std::io::stderr().lock(), "{}", escaped_but_colors(line));
    }

    /// Text of the result as it comes, without a line's end. A terminal is not to obey it, for a model wrote it.
    pub(crate) fn stream(&self, text: &str) {
        if self.stdout_is_terminal {
            self.write_out(&escaped(text), "");
        } else {
            self.write_out(text, "");
        }
    }

    /// What stands before the line that a person types.
    pub(crate) fn prompt(&self, text: &str) {
        self.write_out(&self.style.bold(text), "");
    }

    /// A warning.
    pub(crate) fn warn(&self, line: &str) {
        self.note(&format!("{} {}", self.error_style.yellow("warning:"), escaped(line)));
    }

    /// One JSON value as a line of standard output, with `--json`.
    pub(crate) fn event(&self, value: &Value) {
        if self.json {
            self.write_out(&value.to_string(), "\n");
        }
    }

    /// The result object that `--json` ends with.
    pub(crate) fn result(&self, mut value: Value) {
        if let Some(object) = value.as_object_mut() {
            object.shift_insert(0, "schema".to_owned(), 1.into());
        }
        self.event(&value);
    }

    /// Whether standard output took all that was written to it.
    ///
    /// Work that takes long asks now and then; [`crate::main`] asks in the end.
    pub(crate) fn written(&self) -> Result<()> {
        match self.broken.get() {
            None => Ok(()),
            Some(Broken { is_closed: true, .. }) => Err(Failure::closed_pipe()),
            Some(Broken { message, .. }) => {
                Err(Failure::new("output", format!("standard output: {message}")))
            }
        }
    }

    fn write_out(&self, text: &str, end: &str) {
        if self.broken.get().is_some() {
            return;
        }
        let mut out = std::io::stdout().lock();
        if let Err(error) = write!(out, "{text}{end}").and_then(|()| out.flush()) {
            let is_closed = error.kind() == ErrorKind::BrokenPipe;
            self.broken.get_or_init(|| Broken { is_closed, message: describe(&error) });
        }
    }

    /// The one place that reports an error. A reader that has gone away is none.
    pub(crate) fn fail(&self, failure: &Failure) {
        if failure.is_closed_pipe() {
            return;
        }
        let style = self.error_style;
        self.note(&format!("{} {}", style.red("error:"), escaped(&failure.message)));
        if let Some(hint) = &failure.hint {
            self.note(&format!("{} {}", style.cyan("hint:"), escaped(hint)));
        }
        self.event(&failure.to_json());
    }
}
