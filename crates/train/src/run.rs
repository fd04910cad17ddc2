//! The run folder: recipe, manifest, events, checkpoints, adapter.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::claim::{Claim, LOCK};
use crate::events::Event;
use crate::{Error, Result};

/// A run's folder on disk, which belongs to this process until it is dropped.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    occupied: Occupied,
    _claim: Claim,
}

/// What to do with an output folder that already holds a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occupied {
    /// It is an error.
    Refuse,
    /// Go on with the run in it.
    Resume,
    /// Remove the run in it, and nothing else.
    Overwrite,
}

/// What a run writes into its folder, and with the remains of writing it all that `--overwrite` removes.
const CONTENT: [&str; 14] = [
    RECIPE,
    MANIFEST,
    "events.jsonl",
    "left_out.jsonl",
    "checkpoints",
    "adapter",
    "model",
    "merged",
    "merged.partial",
    "merged.old",
    "report.md",
    REFERENCE,
    ROLLOUTS,
    "report.html",
];

/// Log-probabilities of the reference, where no later run could use them.
pub(crate) const REFERENCE: &str = "reference.bin";
/// Answers that the policy sampled, a file a rollout.
pub(crate) const ROLLOUTS: &str = "rollouts";
/// The resolved recipe.
pub(crate) const RECIPE: &str = "recipe.yaml";
/// What the run is made of.
pub(crate) const MANIFEST: &str = "manifest.json";

impl RunFolder {
    /// Whether `path` holds a run.
    pub fn is_run(path: &Path) -> bool {
        path.join(MANIFEST).is_file() || path.join("events.jsonl").is_file()
    }

    /// Claims `path` for a run that begins or goes on there: the folder is made, and other processes are
    /// kept away. Nothing in it changes: that is for [`RunFolder::begin`], once everything else was
    /// checked too. A folder that stays empty is removed when the claim ends.
    pub fn claim(path: &Path, occupied: Occupied) -> Result<Self> {
        // A run that is going on is told as such, and not as one that is in the way.
        if !path.join(LOCK).exists() {
            check(path, occupied)?;
        }
        let folder = RunFolder { path: path.to_owned(), occupied, _claim: Claim::within(path)? };
        check(path, occupied)?;
        Ok(folder)
    }

    /// Claims `<parent>/<stem>-NNN` with the lowest number that nobody has, for a new run.
    pub fn claim_next(parent: &Path, stem: &str) -> Result<Self> {
        let mut number = 1;
        loop {
            let path = parent.join(format!("{stem}-{number:03}"));
            let is_made = match fs::create_dir(&path) {
                Ok(()) => true,
                // All that a process has left which was killed before its run began.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    if !path.join(LOCK).is_file() || holds_anything(&path) {
                        number += 1;
                        continue;
                    }
                    false
                }
                Err(error) if error.kind() == ErrorKind::NotFound => false,
                Err(error) => return Err(Error::io(&path)(error)),
            };
            match RunFolder::claim(&path, Occupied::Refuse) {
                Ok(mut folder) => {
                    if is_made {
                        folder._claim.own(vec![path]);
                    }
                    return Ok(folder);
                }
                // Another process was faster.
                Err(Error::Busy { .. } | Error::Refused { .. }) if path.exists() => number += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// What becomes of a run that the folder holds.
    pub fn occupied(&self) -> Occupied {
        self.occupied
    }

    /// Removes the run in the folder, with [`Occupied::Overwrite`].
    pub fn begin(&self) -> Result<()> {
        match self.occupied {
            Occupied::Overwrite => self.remove_content(),
            Occupied::Refuse | Occupied::Resume => Ok(()),
        }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the best adapter stands.
    pub fn adapter(&self) -> PathBuf {
        self.path.join("adapter")
    }

    /// Where the best model goes, where the model itself is trained.
    pub fn model(&self) -> PathBuf {
        self.path.join("model")
    }

    /// Where checkpoints stand.
    pub fn checkpoints(&self) -> PathBuf {
        self.path.join("checkpoints")
    }

    /// Where answers stand that the policy sampled.
    pub fn rollouts(&self) -> PathBuf {
        self.path.join(ROLLOUTS)
    }

    /// Writes the resolved recipe.
    pub fn write_recipe(&self, text: &str) -> Result<()> {
        write_atomic(&self.path.join(RECIPE), text.as_bytes())
    }

    /// Writes `left_out.jsonl`: every row that is neither trained nor validated on, and why.
    pub fn write_left_out(&self, rows: &[data::RowError]) -> Result<()> {
        let path = self.path.join("left_out.jsonl");
        if rows.is_empty() {
            return remove_any(&path);
        }
        let line = |row: &data::RowError| {
            let place = row.place.to_string();
            format!("{}\n", serde_json::json!({"where": place, "message": row.message}))
        };
        let text: String = rows.iter().map(line).collect();
        write_atomic(&path, text.as_bytes())
    }

    /// Writes the manifest.
    pub fn write_manifest(&self, manifest: &Value) -> Result<()> {
        write_atomic(&self.path.join(MANIFEST), pretty(manifest).as_bytes())
    }

    /// Marks every event after `step` as superseded: the run went on from there.
    ///
    /// A last line that a kill cut short is kept as the text of a `cut_off` event.
    pub fn supersede_after(&self, step: u64) -> Result<()> {
        let path = self.events_path();
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            read => read.map_err(Error::io(&path))?,
        };
        // A line may have been cut within a character.
        let text = String::from_utf8_lossy(&bytes);
        let mut out = String::with_capacity(text.len());
        for line in text.lines() {
            let mut event = serde_json::from_str::<Value>(line).unwrap_or_else(
                |_| serde_json::json!({"event": "cut_off", "text": line, "superseded": true}),
            );
            let later = event.get("step").and_then(Value::as_u64).is_some_and(|s| s > step);
            let is_end = event["event"] == "finished";
            if later || is_end {
                event["superseded"] = true.into();
            }
            out.push_str(&event.to_string());
            out.push('\n');
        }
        write_atomic(&path, out.as_bytes())
    }

    /// Appends to the events.
    pub fn event_log(&self) -> Result<EventLog> {
        let path = self.events_path();
        let file = OpenOptions::new().create(true).append(true).open(&path);
        Ok(EventLog { file: file.map_err(Error::io(&path))?, path })
    }

    fn events_path(&self) -> PathBuf {
        self.path.join("events.jsonl")
    }

    fn remove_content(&self) -> Result<()> {
        for name in CONTENT {
            remove_any(&self.path.join(name))?;
        }
        for entry in fs::read_dir(&self.path).into_iter().flatten().flatten() {
            if is_partial(&entry.file_name()) {
                remove_any(&entry.path())?;
            }
        }
        Ok(())
    }
}

/// The open `events.jsonl` of a run.
pub struct EventLog {
    file: File,
    path: PathBuf,
}

impl EventLog {
    /// Writes one event as one line.
    pub fn write(&mut self, event: &Event) -> Result<()> {
        let mut line = serde_json::to_string(event).expect("events are JSON");
        line.push('\n');
        self.file.write_all(line.as_bytes()).map_err(Error::io(&self.path))
    }
}

/// Whether a run may begin or go on in `path`.
fn check(path: &Path, occupied: Occupied) -> Result<()> {
    let is_run = RunFolder::is_run(path);
    match occupied {
        Occupied::Resume if !is_run => Err(Error::refused(
            format!("{}: there is no run to resume", path.display()),
            "leave out `--resume` to begin one",
        )),
        Occupied::Refuse if is_run => Err(Error::refused(
            format!("{}: already holds a run", path.display()),
            "`--resume` continues it, `output=NAME` takes another folder, \
             `--overwrite` removes it",
        )),
        Occupied::Refuse if holds_anything(path) => Err(Error::refused(
            format!("{}: the folder is not empty, and not a run", path.display()),
            "name another folder with `output=NAME`",
        )),
        Occupied::Refuse | Occupied::Resume | Occupied::Overwrite => Ok(()),
    }
}

/// Whether a folder holds more than what a kill left of a run that had not begun.
fn holds_anything(path: &Path) -> bool {
    let is_remains = |name: &std::ffi::OsStr| is_partial(name) || name == LOCK;
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    path.is_file() || entries.into_iter().any(|entry| !is_remains(&entry.file_name()))
}

/// Whether this is the name under which something is written before it is renamed.
pub(crate) fn is_partial(name: &std::ffi::OsStr) -> bool {
    name.to_str().is_some_and(|name| name.starts_with('.') && name.ends_with(".partial"))
}

/// Removes a file, a link or a whole folder, if it is there.
pub(crate) fn remove_any(path: &Path) -> Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(_) => Ok(()),
    };
    removed.map_err(Error::io(path))
}

/// Reads the manifest of a run or of a checkpoint.
pub(crate) fn read_manifest(dir: &Path) -> Result<Value> {
    let path = dir.join(MANIFEST);
    let text = fs::read(&path).map_err(Error::io(&path))?;
    serde_json::from_slice(&text).map_err(|error| {
        Error::refused(format!("{}: not JSON: {error}", path.display()), "begin a new run")
    })
}

/// JSON as people read it, with a newline at the end.
pub fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).expect("a JSON value can be written") + "\n"
}

/// Replaces a file as a whole: a reader sees the old one or the new one, never half.
///
/// A device or a pipe is written to as it is.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    if is_device(path) {
        return fs::write(path, bytes).map_err(Error::io(path));
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = path.with_file_name(format!(".{name}.partial"));
    let written = File::create(&beside).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    if let Err(error) = written.and_then(|()| fs::rename(&beside, path)) {
        fs::remove_file(&beside).ok();
        return Err(Error::io(path)(error));
    }
    Ok(())
}

/// Whether something is there that is no file and no folder.
pub(crate) fn is_device(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir())
}

/// Makes the entries of a folder durable.
pub(crate) fn sync_folder(path: &Path) -> Result<()> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(Error::io(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_occupied_folder_is_refused_and_offers_ways_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/run");
        drop(RunFolder::claim(&path, Occupied::Refuse).unwrap());
        assert!(!dir.path().join("deep").exists(), "nothing was written, and something stayed");
        let folder = RunFolder::claim(&path, Occupied::Refuse).unwrap();
        folder.begin().unwrap();
        folder.write_manifest(&serde_json::json!({})).unwrap();
        for occupied in [Occupied::Refuse, Occupied::Resume, Occupied::Overwrite] {
            let error = RunFolder::claim(&path, occupied).unwrap_err();
            assert!(matches!(error, Error::Busy { .. }), "{error}");
        }
        drop(folder);
        let error = RunFolder::claim(&path, Occupied::Refuse).unwrap_err();
        assert!(error.hint().unwrap().contains("--resume"), "{:?}", error.hint());
        std::fs::write(path.join("mine.txt"), "kept").unwrap();
        for name in CONTENT {
            std::fs::write(path.join(name), "").unwrap();
        }
        let folder = RunFolder::claim(&path, Occupied::Overwrite).unwrap();
        assert!(RunFolder::is_run(&path));
        folder.begin().unwrap();
        drop(folder);
        let left: Vec<_> = fs::read_dir(&path).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["mine.txt"]);
    }

    #[test]
    fn events_after_the_checkpoint_are_marked() {
        let dir = tempfile::tempdir().unwrap();
        let folder = RunFolder::claim(&dir.path().join("run"), Occupied::Refuse).unwrap();
        let mut log = folder.event_log().unwrap();
        for step in 1..=3 {
            log.write(&Event::Saved { step, path: "x".into() }).unwrap();
        }
        let path = folder.path().join("events.jsonl");
        OpenOptions::new()
            .append(true)
            .open(&path)
            .unwrap()
            .write_all(b"{\"event\":\"st\xc3")
            .unwrap();
        folder.supersede_after(2).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let marked: Vec<bool> = text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["superseded"] == true)
            .collect();
        assert_eq!(marked, [false, false, true, true]);
    }

    #[test]
    fn what_a_kill_left_before_the_run_began_is_in_nobodys_way() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(".manifest.json.partial"), "{").unwrap();
        RunFolder::claim(dir.path(), Occupied::Refuse).unwrap();
        std::fs::write(dir.path().join("mine.txt"), "").unwrap();
        let error = RunFolder::claim(dir.path(), Occupied::Refuse).unwrap_err();
        assert!(error.to_string().contains("not a run"), "{error}");
    }

    #[test]
    fn numbers_go_up() {
        let dir = tempfile::tempdir().unwrap();
        let runs = dir.path().join("runs");
        let next = || RunFolder::claim_next(&runs, "a").unwrap();
        let first = next();
        assert_eq!(first.path(), runs.join("a-001"));
        assert_eq!(next().path(), runs.join("a-002"));
        std::fs::create_dir(runs.join("a-002")).unwrap();
        assert_eq!(next().path(), runs.join("a-003"), "an empty folder may be somebody's");
        std::fs::create_dir(runs.join("a-003")).unwrap();
        std::fs::write(runs.join("a-003").join(LOCK), "of a process that was killed").unwrap();
        assert_eq!(next().path(), runs.join("a-003"));
        drop(first);
        assert_eq!(next().path(), runs.join("a-001"));
    }

    #[test]
    fn every_number_is_taken_once() {
        let dir = tempfile::tempdir().unwrap();
        let runs = dir.path().join("runs");
        let claim = || {
            let folder = RunFolder::claim_next(&runs, "a").unwrap();
            folder.write_manifest(&serde_json::json!({})).unwrap();
            folder.path().to_owned()
        };
        let mut paths = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..16).map(|_| scope.spawn(claim)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        paths.sort();
        let expected: Vec<_> = (1..=16).map(|n| runs.join(format!("a-{n:03}"))).collect();
        assert_eq!(paths, expected);
    }
}
