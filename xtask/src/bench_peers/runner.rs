//! One run of one side: a process of its own, its time, its memory, its last line.

use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::machine;

/// How often the clock and the memory are looked at: often at first, for a start is short.
const GLANCE: Duration = Duration::from_millis(2);
const LATER_GLANCE: Duration = Duration::from_millis(50);
const SHORT: Duration = Duration::from_secs(5);

/// A command line, with what it needs around it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Invocation {
    /// What is run.
    pub(super) program: PathBuf,
    /// With which words.
    pub(super) arguments: Vec<String>,
    /// A folder that the run makes, and that must not be there before.
    pub(super) leaves: Option<PathBuf>,
}

/// What came of a run.
#[derive(Clone, Debug)]
pub(super) struct Output {
    /// The last line of standard output that is a JSON object, or null.
    pub(super) result: Value,
    /// From start to exit.
    pub(super) wall: Duration,
    /// Most memory held at a time as seen from outside, where the system tells.
    pub(super) peak_bytes: Option<u64>,
}

/// Runs a command to its end or its limit.
///
/// The error is what a row of a table can say: the last line of standard error.
pub(super) fn run(
    invocation: &Invocation,
    variables: &[(&str, String)],
    limit: Duration,
) -> Result<Output, String> {
    let clear = || match &invocation.leaves {
        Some(folder) if folder.exists() => {
            fs::remove_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))
        }
        _ => Ok(()),
    };
    clear()?;
    let ran = run_once(invocation, variables, limit);
    clear()?;
    ran
}

fn run_once(
    invocation: &Invocation,
    variables: &[(&str, String)],
    limit: Duration,
) -> Result<Output, String> {
    let mut command = Command::new(&invocation.program);
    command.args(&invocation.arguments);
    command.envs(variables.iter().map(|(name, value)| (name, value)));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let begun = Instant::now();
    let cannot = |error| format!("`{}` cannot be run: {error}", invocation.program.display());
    let mut child = command.spawn().map_err(cannot)?;
    let stdout = drain(child.stdout.take());
    let stderr = drain(child.stderr.take());
    let (ended, peak_bytes) = wait(&mut child, begun, limit);
    let wall = begun.elapsed();
    if ended.is_none() {
        let killed = child.kill().and_then(|()| child.wait());
        killed.map_err(|error| format!("it cannot be stopped: {error}"))?;
    }
    let (stdout, stderr) = (text(stdout), text(stderr));
    match ended {
        None => Err(format!("stopped after {} s", limit.as_secs())),
        Some(status) if !status.success() => {
            Err(last_line(&stderr).map_or_else(|| status.to_string(), str::to_owned))
        }
        Some(_) => Ok(Output { result: last_object(&stdout), wall, peak_bytes }),
    }
}

/// Waits for the end, which is none where the limit comes first, and watches the memory.
fn wait(child: &mut Child, begun: Instant, limit: Duration) -> (Option<ExitStatus>, Option<u64>) {
    let status_file = format!("/proc/{}/status", child.id());
    let mut peak = None;
    let mut looked = None;
    loop {
        if looked.is_none_or(|at: Instant| at.elapsed() >= 10 * GLANCE) {
            looked = Some(Instant::now());
            // A process that has just ended has no such line any more.
            peak = peak.max(fs::read_to_string(&status_file).ok().and_then(|text| peak_of(&text)));
        }
        match child.try_wait() {
            Ok(Some(status)) => return (Some(status), peak),
            Ok(None) if begun.elapsed() < limit => {}
            Ok(None) | Err(_) => return (None, peak),
        }
        thread::sleep(if begun.elapsed() < SHORT { GLANCE } else { LATER_GLANCE });
    }
}

/// The largest resident size in a `/proc/PID/status`.
fn peak_of(status: &str) -> Option<u64> {
    let kib = machine::field(status, "VmHWM")?.strip_suffix(" kB")?;
    Some(kib.trim().parse::<u64>().ok()? << 10)
}

/// Reads a stream to its end, beside the process: a full pipe would stop it.
fn drain(stream: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            // What was read before an error is all there is to read.
            let _ = stream.read_to_end(&mut bytes);
        }
        bytes
    })
}

fn text(stream: JoinHandle<Vec<u8>>) -> String {
    String::from_utf8_lossy(&stream.join().unwrap_or_default()).into_owned()
}

/// The last line with anything in it, without what a progress bar has written over.
pub(super) fn last_line(text: &str) -> Option<&str> {
    text.split(['\n', '\r']).map(str::trim).rfind(|line| !line.is_empty())
}

/// The JSON object of the last line that is one.
fn last_object(text: &str) -> Value {
    let objects = text.lines().rev().filter_map(|line| serde_json::from_str(line).ok());
    let mut objects = objects.filter(Value::is_object);
    objects.next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_object_is_the_result() {
        let output = "loading\n{\"a\": 1}\n{'python': 2}\n\n";
        assert_eq!(last_object(output)["a"], 1);
        assert_eq!(last_object("no\n3\n"), Value::Null);
    }

    #[test]
    fn the_last_line_is_why() {
        let trace = "Traceback\n  File x\n 10%|#\r100%|##\nModuleNotFoundError: no `trl`\n\n";
        assert_eq!(last_line(trace), Some("ModuleNotFoundError: no `trl`"));
        assert_eq!(last_line(" \n"), None);
    }

    #[test]
    fn the_peak_is_the_high_water_mark() {
        assert_eq!(peak_of("VmPeak:\t  9 kB\nVmHWM:\t    4120 kB\n"), Some(4120 << 10));
        assert_eq!(peak_of("State:\tZ (zombie)\n"), None);
    }

    #[cfg(unix)]
    mod processes {
        use super::*;

        fn shell(script: &str) -> Invocation {
            let arguments = vec!["-c".to_owned(), script.to_owned()];
            Invocation { program: "/bin/sh".into(), arguments, leaves: None }
        }

        #[test]
        fn a_run_gives_its_last_object() {
            let variables = [("WORD", "two".to_owned())];
            let script = "echo one; echo \"{\\\"word\\\": \\\"$WORD\\\"}\"";
            let output = run(&shell(script), &variables, Duration::from_secs(60)).unwrap();
            assert_eq!(output.result["word"], "two");
        }

        #[test]
        fn a_failure_says_why() {
            let limit = Duration::from_secs(60);
            let failed = |script| run(&shell(script), &[], limit).unwrap_err();
            assert_eq!(failed("echo a >&2; echo b >&2; exit 3"), "b");
            assert_eq!(failed("exit 3"), "exit status: 3");
            let absent = Invocation { program: "/no/such".into(), ..shell("") };
            assert!(run(&absent, &[], limit).unwrap_err().contains("cannot be run"));
        }

        #[test]
        fn a_run_ends_at_its_limit() {
            let error = run(&shell("exec sleep 60"), &[], Duration::from_millis(20)).unwrap_err();
            assert_eq!(error, "stopped after 0 s");
        }

        #[test]
        fn what_a_run_leaves_is_gone_afterwards() {
            let root = tempfile::tempdir().unwrap();
            let leaves = root.path().join("run");
            fs::create_dir(&leaves).unwrap();
            let script = format!("mkdir {}", leaves.display());
            let invocation = Invocation { leaves: Some(leaves.clone()), ..shell(&script) };
            run(&invocation, &[], Duration::from_secs(60)).unwrap();
            assert!(!leaves.exists());
        }
    }
}
