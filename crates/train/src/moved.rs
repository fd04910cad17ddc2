//! A project that was moved: the files that its runs name are looked for where they lie now.

use std::path::{Path, PathBuf, absolute};

use keys::Document;
use serde_json::{Value, json};

use crate::run::read_manifest;

/// Where the project of a run lay, and where it lies now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    from: PathBuf,
    to: PathBuf,
}

impl Moved {
    /// Of the run in a folder, if its project was moved as a whole.
    pub fn of(run: &Path) -> Option<Moved> {
        let (from, to) = project(&absolute(run).ok()?)?;
        (from != to).then_some(Moved { from, to })
    }

    /// Where a file of the project lies now; none for one that is no part of it.
    pub fn path(&self, path: &Path) -> Option<PathBuf> {
        let now = self.to.join(path.strip_prefix(&self.from).ok()?);
        (now.exists() || !path.exists()).then_some(now)
    }
}

/// The project of a run that has begun: as its manifest names it, and as the run's folder shows it.
fn project(run: &Path) -> Option<(PathBuf, PathBuf)> {
    let manifest = read_manifest(run).ok()?;
    let from = PathBuf::from(manifest["place"]["project"].as_str()?);
    let within = Path::new(manifest["place"]["run"].as_str()?);
    let to = run.ancestors().nth(within.components().count())?;
    run.ends_with(within).then(|| (from, to.to_owned()))
}

/// What a manifest says of where a run lies: its project, which is the current folder or that of the recipe,
/// and the way from there. Null where the run lies elsewhere.
pub(crate) fn place(run: &Path, document: &Document) -> Value {
    let Ok(run) = absolute(run) else { return Value::Null };
    let recipe = document.place("").file().and_then(|file| absolute(file).ok());
    let candidates = [
        // One that has begun keeps its own.
        project(&run).map(|(_, to)| to),
        absolute(".").ok(),
        recipe.as_deref().and_then(Path::parent).map(Path::to_owned),
    ];
    let holds_run = |folder: &PathBuf| folder.parent().is_some() && *folder != run;
    for project in candidates.into_iter().flatten().filter(holds_run) {
        if let Ok(within) = run.strip_prefix(&project) {
            return json!({"project": project, "run": within});
        }
    }
    Value::Null
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_project_is_found_again_and_what_lies_outside_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (dir.path().join("old"), dir.path().join("new"));
        let run = old.join("runs/a-001");
        std::fs::create_dir_all(&run).unwrap();
        std::fs::write(old.join("rows.jsonl"), "").unwrap();
        let manifest = json!({"place": {"project": old, "run": "runs/a-001"}});
        std::fs::write(run.join("manifest.json"), manifest.to_string()).unwrap();
        assert_eq!(Moved::of(&run), None);
        std::fs::rename(&old, &new).unwrap();
        let moved = Moved::of(&new.join("runs/a-001")).unwrap();
        assert_eq!(moved.path(&old.join("rows.jsonl")), Some(new.join("rows.jsonl")));
        assert_eq!(moved.path(Path::new("/elsewhere/rows.jsonl")), None);
        // A run that was moved alone is no project.
        std::fs::rename(new.join("runs/a-001"), dir.path().join("alone")).unwrap();
        assert_eq!(Moved::of(&dir.path().join("alone")), None);
    }
}
