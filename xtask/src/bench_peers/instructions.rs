//! The rows that every side trains on, and those that warm up.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// Rows that go before the timed ones.
const WARM_UP: usize = 16;

/// Files with the chosen rows.
#[derive(Debug)]
pub(super) struct Instructions {
    /// The timed ones.
    pub(super) timed: PathBuf,
    /// Others of the same kind.
    pub(super) warm_up: PathBuf,
}

impl Instructions {
    /// Takes so many rows of an Alpaca file, evenly spaced, and writes them into a folder. Every row must have
    /// these columns.
    pub(super) fn choose(
        file: &Path,
        columns: &[&str],
        count: usize,
        folder: &Path,
    ) -> Result<Self, String> {
        let at = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
        let text = fs::read_to_string(file).map_err(|error| at(&error))?;
        let rows: Vec<Value> = serde_json::from_str(&text).map_err(|error| at(&error))?;
        for (index, row) in rows.iter().enumerate() {
            if let Some(missing) = columns.iter().find(|&&column| !row[column].is_string()) {
                return Err(at(&format!("row {index} has no `{missing}`")));
            }
        }
        let (timed, warm_up) = spread(rows.len(), count).ok_or_else(|| {
            at(&format!("holds {} rows, too few for {count} and {WARM_UP} more", rows.len()))
        })?;
        let write = |name: &str, chosen: &[usize]| {
            let path = folder.join(name);
            let chosen: Vec<&Value> = chosen.iter().map(|&row| &rows[row]).collect();
            let text = Value::from_iter(chosen.into_iter().cloned()).to_string();
            fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
            Ok::<_, String>(path)
        };
        Ok(Instructions {
            timed: write("rows.json", &timed)?,
            warm_up: write("warm-up.json", &warm_up)?,
        })
    }
}

/// Places of the timed rows and of those that warm up, none of which is both.
fn spread(rows: usize, count: usize) -> Option<(Vec<usize>, Vec<usize>)> {
    let timed: Vec<usize> = (0..count).map(|at| at * rows / count).collect();
    let others: Vec<usize> = (0..rows).filter(|row| timed.binary_search(row).is_err()).collect();
    let enough = rows >= count && others.len() >= WARM_UP;
    let warm_up = || (0..WARM_UP).map(|at| others[at * others.len() / WARM_UP]).collect();
    enough.then(|| (timed, warm_up()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_spread_and_warm_up_with_others() {
        let (timed, warm_up) = spread(1100, 96).unwrap();
        assert_eq!((timed[0], timed[1], timed[95]), (0, 11, 1088));
        assert_eq!(warm_up.len(), WARM_UP);
        assert!(warm_up.iter().all(|row| !timed.contains(row)));
        assert_eq!(spread(100, 96), None);
        assert_eq!(spread(3, 4), None);
    }

    #[test]
    fn what_is_no_alpaca_file_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("rows.json");
        let check = |text: &str, part: &str| {
            fs::write(&file, text).unwrap();
            let message = Instructions::choose(&file, &["instruction", "output"], 1, root.path())
                .unwrap_err();
            assert!(message.contains(part), "{message}");
        };
        check("[{\"instruction\": \"a\", \"output\": \"b\"}, {}]", "row 1 has no `instruction`");
        check("[]", "holds 0 rows, too few for 1 and 16 more");
        check("{}", "invalid type");
    }
}
