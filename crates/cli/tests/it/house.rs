//! A folder with a tiny model in it, and the binary run there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::tiny;

const BINARY: &str = env!("CARGO_BIN_EXE_tunesmith");

/// A home of its own for every test.
pub(crate) struct House {
    dir: tempfile::TempDir,
}

/// How the binary ended.
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// The last line of standard output as JSON.
    pub(crate) fn result(&self) -> Value {
        let line = self.stdout.lines().last().unwrap_or_default();
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {}", self.stdout))
    }

    #[track_caller]
    pub(crate) fn done(self) -> Self {
        assert_eq!(self.code, 0, "{}{}", self.stdout, self.stderr);
        self
    }
}

impl House {
    pub(crate) fn new() -> Self {
        House { dir: tempfile::tempdir().unwrap() }
    }

    /// A house with the model `tiny` and rows to train on, `rows.jsonl`.
    pub(crate) fn with_model() -> Self {
        let house = House::new();
        house.write_model("tiny");
        let rows: Vec<String> = (0..24)
            .map(|i| {
                json!({"prompt": format!("{i}+1?"), "completion": format!("{}", i + 1)}).to_string()
            })
            .collect();
        house.write("rows.jsonl", &(rows.join("\n") + "\n"));
        house
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path().join(name)).unwrap()
    }

    /// A random Llama of 128 tokens with a tokenizer of characters.
    pub(crate) fn write_model(&self, name: &str) {
        tiny::write(&self.path().join(name));
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        #[cfg(unix)]
        std::os::unix::process::CommandExt::arg0(&mut command, "tunesmith");
        command.args(arguments);
        self.furnish(command)
    }

    /// The binary after some words of a shell, as `ulimit -f 8`.
    #[cfg(unix)]
    pub(crate) fn command_after(&self, words: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &format!("{words}; exec \"$0\" \"$@\""), BINARY]).args(arguments);
        self.furnish(command)
    }

    fn furnish(&self, mut command: Command) -> Command {
        command.current_dir(self.path()).env_clear();
        command.env("HOME", self.path()).env("HF_HUB_OFFLINE", "1").stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        self.ended(&self.command(arguments).output().unwrap())
    }

    /// What a finished process said, with this folder called `HOUSE`.
    pub(crate) fn ended(&self, output: &Output) -> Ended {
        let own = self.path().display().to_string();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap().replace(&own, "HOUSE");
        Ended {
            code: output.status.code().unwrap_or(-1),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        }
    }
}
