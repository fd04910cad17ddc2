//! A running program, written to and read from by lines.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Longest line that a program may print, in bytes.
const LONGEST: usize = 1 << 20;
/// Lines that wait to be read; then the program waits.
const WAITING: usize = 1024;
/// Bytes of standard error that are kept, the last ones.
const ERRORS: usize = 8 << 10;
/// Lines of standard error that a message shows, the last ones.
const SHOWN_LINES: usize = 10;
/// Characters of a line that a message shows.
const SHOWN: usize = 300;
/// How long a program has to end when its input has ended.
const GRACE: Duration = Duration::from_secs(2);
/// How long its last words are waited for.
const LAST_WORDS: Duration = Duration::from_millis(300);
/// How often a wait looks.
const LOOK: Duration = Duration::from_millis(5);

/// A program that runs. Dropped, its input ends, and it is ended if it goes on.
pub(crate) struct Process {
    child: Child,
    /// Lines to its standard input; none when that is closed.
    lines: Option<Sender<String>>,
    said: Receiver<Said>,
    errors: Arc<Errors>,
}

/// What was read from a program.
pub(crate) enum Said {
    /// A line of standard output.
    Line(String),
    /// The beginning of a line that does not end.
    TooLong(String),
    /// Nothing yet.
    Nothing,
    /// It has closed its standard output.
    End,
}

/// The end of what a program wrote on standard error.
#[derive(Default)]
struct Errors {
    bytes: Mutex<VecDeque<u8>>,
    have_ended: AtomicBool,
}

impl Process {
    /// Starts a program in a folder. A program with a slash is relative to it, any other is one that the system finds.
    pub(crate) fn start(command: &[String], folder: &Path) -> std::io::Result<Self> {
        let program = match command[0].contains('/') {
            true => folder.join(&command[0]).into_os_string(),
            false => command[0].clone().into(),
        };
        let mut process = Command::new(program);
        process.args(&command[1..]).current_dir(folder);
        process.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Python keeps lines back when nobody sees them at a terminal.
        process.env("PYTHONUNBUFFERED", "1");
        // Ctrl-C is for the run, which ends the program when its own step is done.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut process, 0);
        let mut child = process.spawn()?;
        let (lines, to_write) = mpsc::channel();
        let (sender, said) = mpsc::sync_channel(WAITING);
        let errors: Arc<Errors> = Arc::default();
        // Each pipe has a thread, so that no side waits for the other.
        if let Some(input) = child.stdin.take() {
            thread::spawn(move || write_lines(input, &to_write));
        }
        if let Some(output) = child.stdout.take() {
            thread::spawn(move || read_lines(output, &sender));
        }
        if let Some(output) = child.stderr.take() {
            let errors = Arc::clone(&errors);
            thread::spawn(move || errors.keep(output));
        }
        Ok(Process { child, lines: Some(lines), said, errors })
    }

    /// Writes a line, at once or when the program reads.
    pub(crate) fn write(&self, line: String) {
        if let Some(lines) = &self.lines {
            // A program that has ended is found out by its output.
            let _ = lines.send(line);
        }
    }

    /// What it has said, waiting for at most so long.
    pub(crate) fn read(&self, wait: Duration) -> Said {
        match self.said.recv_timeout(wait) {
            Ok(said) => said,
            Err(RecvTimeoutError::Timeout) => Said::Nothing,
            Err(RecvTimeoutError::Disconnected) => Said::End,
        }
    }

    /// The end of its standard error, for the end of a message.
    pub(crate) fn errors(&self) -> String {
        self.errors.shown()
    }

    /// Ends it at once, and what it has started; the end of its standard error.
    pub(crate) fn kill(mut self) -> String {
        self.end();
        self.errors.shown()
    }

    /// How it ended, which it is about to do or has done; the end of its standard error.
    pub(crate) fn ended(mut self) -> (String, String) {
        self.lines = None;
        let status = self.wait(GRACE).map(|status| status.to_string());
        let status = status.unwrap_or_else(|| "it closed its output and went on".to_owned());
        self.end();
        (status, self.errors.shown())
    }

    fn end(&mut self) {
        self.lines = None;
        if self.wait(Duration::ZERO).is_none() {
            kill_group(&self.child);
            self.child.kill().ok();
            self.child.wait().ok();
        }
        let end = Instant::now() + LAST_WORDS;
        while !self.errors.have_ended.load(Ordering::Acquire) && Instant::now() < end {
            thread::sleep(LOOK);
        }
    }

    /// Its status, once it has ended within so long.
    fn wait(&mut self, time: Duration) -> Option<std::process::ExitStatus> {
        let end = Instant::now() + time;
        loop {
            match self.child.try_wait() {
                Ok(None) if Instant::now() < end => thread::sleep(LOOK),
                Ok(status) => return status,
                Err(_) => return None,
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.lines = None;
        if self.wait(GRACE).is_none() {
            self.end();
        }
    }
}

/// Ends all processes of a program's group. Only a shell can do that without the system's own interface.
fn kill_group(child: &Child) {
    if cfg!(unix) {
        let mut kill = Command::new("/bin/sh");
        kill.args(["-c", "kill -KILL \"-$0\"", &child.id().to_string()]);
        kill.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().ok();
    }
}

fn write_lines(mut input: ChildStdin, lines: &Receiver<String>) {
    for mut line in lines {
        line.push('\n');
        if input.write_all(line.as_bytes()).is_err() {
            return;
        }
    }
}

fn read_lines(output: ChildStdout, said: &SyncSender<Said>) {
    let mut output = BufReader::new(output);
    loop {
        let mut line = Vec::new();
        let read = output.by_ref().take(LONGEST as u64 + 1).read_until(b'\n', &mut line);
        let line = match read {
            Ok(0) | Err(_) => Said::End,
            Ok(len) if len > LONGEST => {
                Said::TooLong(String::from_utf8_lossy(&line[..SHOWN]).into_owned())
            }
            Ok(_) => Said::Line(String::from_utf8_lossy(&line).into_owned()),
        };
        let is_last = !matches!(line, Said::Line(_));
        if said.send(line).is_err() || is_last {
            return;
        }
    }
}

impl Errors {
    fn keep(&self, mut output: ChildStderr) {
        let mut piece = [0; 4096];
        while let Ok(read @ 1..) = output.read(&mut piece) {
            let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
            bytes.extend(&piece[..read]);
            let surplus = bytes.len().saturating_sub(ERRORS);
            bytes.drain(..surplus);
        }
        self.have_ended.store(true, Ordering::Release);
    }

    /// The last lines, each on a line of its own; nothing where there are none.
    fn shown(&self) -> String {
        let bytes: Vec<u8> =
            self.bytes.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        if lines.is_empty() {
            return String::new();
        }
        let last = &lines[lines.len().saturating_sub(SHOWN_LINES)..];
        let last: Vec<String> = last.iter().map(|line| format!("\n  {}", clean(line))).collect();
        format!("; its standard error ends with{}", last.concat())
    }
}

/// A text in backticks, cut and without what confuses a terminal.
pub(crate) fn readable(text: &str) -> String {
    format!("`{}`", clean(text))
}

fn clean(text: &str) -> String {
    let mut out: String = text
        .chars()
        .take(SHOWN)
        .map(|c| if c.is_control() && c != '\t' { ' ' } else { c })
        .collect();
    if text.chars().nth(SHOWN).is_some() {
        out.push_str("...");
    }
    out
}
