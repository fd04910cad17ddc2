//! The run folder: recipe, manifest, events, checkpoints, adapter.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::events::Event;
use crate::{Error, Result};

/// A run's folder on disk.
#[derive(Clone, Debug)]
pub struct RunFolder {
    path: PathBuf,
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
const CONTENT: [&str; 9] = [
    "recipe.yaml",
    "manifest.json",
    "events.jsonl",
    "checkpoints",
    "adapter",
    "model",
    "merged",
    "report.md",
    "report.html",
];

impl RunFolder {
    /// Whether `path` holds a run.
    pub fn is_run(path: &Path) -> bool {
        path.join("manifest.json").is_file() || path.join("events.jsonl").is_file()
    }

    /// Whether a run may begin or go on in `path`. Writes nothing: that is for [`RunFolder::begin`],
    /// once everything else was checked too.
    pub fn open(path: &Path, occupied: Occupied) -> Result<Self> {
        let folder = RunFolder { path: path.to_owned() };
        let is_run = Self::is_run(path);
        match occupied {
            Occupied::Resume if !is_run => {
                return Err(Error::refused(
                    format!("{}: there is no run to resume", path.display()),
                    "leave out `--resume` to begin one",
                ));
            }
            Occupied::Resume => return Ok(folder),
            Occupied::Refuse if is_run => {
                return Err(Error::refused(
                    format!("{}: already holds a run", path.display()),
                    "`--resume` goes on with it, `output=NAME` takes another folder, \
                     `--overwrite` removes it",
                ));
            }
            Occupied::Refuse if holds_anything(path) => {
                return Err(Error::refused(
                    format!("{}: the folder is not empty, and not a run", path.display()),
                    "name another folder with `output=NAME`",
                ));
            }
            Occupied::Refuse | Occupied::Overwrite => {}
        }
        Ok(folder)
    }

    /// Makes the folder, and with [`Occupied::Overwrite`] removes the run in it.
    pub fn begin(&self, occupied: Occupied) -> Result<()> {
        if occupied == Occupied::Overwrite {
            self.remove_content()?;
        }
        fs::create_dir_all(&self.path).map_err(Error::io(&self.path))
    }

    /// `<parent>/<stem>-NNN` with the lowest number that is not taken.
    pub fn next_free(parent: &Path, stem: &str) -> PathBuf {
        let names = (1..).map(|number| parent.join(format!("{stem}-{number:03}")));
        names.into_iter().find(|path| !path.exists()).expect("numbers do not end")
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

    /// Writes the resolved recipe.
    pub fn write_recipe(&self, text: &str) -> Result<()> {
        write_atomic(&self.path.join("recipe.yaml"), text.as_bytes())
    }

    /// Writes `left_out.jsonl`: every row that is neither trained nor validated on, and why.
    pub fn write_left_out(&self, rows: &[data::RowError]) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let line = |row: &data::RowError| {
            let place = row.place.to_string();
            format!("{}\n", serde_json::json!({"where": place, "message": row.message}))
        };
        let text: String = rows.iter().map(line).collect();
        write_atomic(&self.path.join("left_out.jsonl"), text.as_bytes())
    }

    /// Writes the manifest.
    pub fn write_manifest(&self, manifest: &Value) -> Result<()> {
        write_atomic(&self.path.join("manifest.json"), pretty(manifest).as_bytes())
    }

    /// Reads the manifest.
    pub fn read_manifest(&self) -> Result<Value> {
        let path = self.path.join("manifest.json");
        let text = fs::read_to_string(&path).map_err(Error::io(&path))?;
        serde_json::from_str(&text).map_err(|error| {
            Error::refused(format!("{}: not JSON: {error}", path.display()), "begin a new run")
        })
    }

    /// Marks every event after `step` as superseded: the run went on from there.
    ///
    /// A last line that a kill cut short is kept as the text of a `cut_off` event.
    pub fn supersede_after(&self, step: u64) -> Result<()> {
        let path = self.events_path();
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
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

/// Whether a folder holds more than what a kill left of a run that had not begun.
fn holds_anything(path: &Path) -> bool {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    path.is_file() || entries.into_iter().any(|entry| !is_partial(&entry.file_name()))
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

/// JSON as people read it, with a newline at the end.
pub fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).expect("a JSON value can be written") + "\n"
}

/// Replaces a file as a whole: a reader sees the old one or the new one, never half.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
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
        let path = dir.path().join("run");
        let folder = RunFolder::open(&path, Occupied::Refuse).unwrap();
        assert!(!path.exists());
        folder.begin(Occupied::Refuse).unwrap();
        folder.write_manifest(&serde_json::json!({})).unwrap();
        let error = RunFolder::open(&path, Occupied::Refuse).unwrap_err();
        assert!(error.hint().unwrap().contains("--resume"), "{:?}", error.hint());
        std::fs::write(path.join("mine.txt"), "kept").unwrap();
        let folder = RunFolder::open(&path, Occupied::Overwrite).unwrap();
        assert!(RunFolder::is_run(&path));
        folder.begin(Occupied::Overwrite).unwrap();
        assert!(!RunFolder::is_run(&path));
        assert_eq!(std::fs::read_to_string(path.join("mine.txt")).unwrap(), "kept");
    }

    #[test]
    fn events_after_the_checkpoint_are_marked() {
        let dir = tempfile::tempdir().unwrap();
        let folder = RunFolder::open(&dir.path().join("run"), Occupied::Refuse).unwrap();
        folder.begin(Occupied::Refuse).unwrap();
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
        RunFolder::open(dir.path(), Occupied::Refuse).unwrap();
        std::fs::write(dir.path().join("mine.txt"), "").unwrap();
        let error = RunFolder::open(dir.path(), Occupied::Refuse).unwrap_err();
        assert!(error.to_string().contains("not a run"), "{error}");
    }

    #[test]
    fn numbers_go_up() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("a-001")).unwrap();
        assert_eq!(RunFolder::next_free(dir.path(), "a"), dir.path().join("a-002"));
    }
}
