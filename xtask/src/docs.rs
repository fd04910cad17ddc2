//! Docs that are written from code.

use std::fs;
use std::path::PathBuf;

/// What stands before the table of keys.
const HEAD: &str = include_str!("recipe_head.md");

/// Writes `docs/recipe.md`.
pub(crate) fn write() -> Result<(), String> {
    let path = path();
    fs::write(&path, recipe()).map_err(|error| format!("{}: {error}", path.display()))?;
    println!("wrote {}", path.display());
    Ok(())
}

/// Fails where `docs/recipe.md` is not what the code says.
pub(crate) fn check() -> Result<(), String> {
    let path = path();
    let found =
        fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    if found == recipe() {
        return Ok(());
    }
    Err(format!("{}: out of date\nhint: `cargo xtask docs` writes it anew", path.display()))
}

fn path() -> PathBuf {
    crate::root().join("docs/recipe.md")
}

fn recipe() -> String {
    format!("{HEAD}\n{}", train::recipe::schema().markdown())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_recipe_reference_is_up_to_date() {
        assert_eq!(check(), Ok(()));
    }

    /// The recipes that a document shows.
    fn recipes(document: &str) -> Vec<&str> {
        let blocks = document.split("```yaml\n").skip(1);
        blocks.map(|rest| rest.split("```").next().unwrap_or_default()).collect()
    }

    #[test]
    fn every_recipe_that_is_shown_can_be_read() {
        let around =
            keys::Surroundings { current_dir: Path::new("/"), home: None, variable: &|_| None };
        for name in ["README.md", "docs/recipe.md"] {
            let document = fs::read_to_string(crate::root().join(name)).unwrap();
            let recipes = recipes(&document);
            assert!(!recipes.is_empty(), "{name} shows a recipe");
            for recipe in recipes {
                let read = train::recipe::schema().parse(recipe, Path::new(name), &[], &around);
                assert!(read.is_ok(), "{}:\n{recipe}", read.unwrap_err());
            }
        }
    }
}
