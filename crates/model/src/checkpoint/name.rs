//! Names that come from outside and become paths.

/// Whether a name from a hub, an index or a listing is a path that stays below the folder that it is joined to.
///
/// Parts are separated by `/`. No part is empty, `.` or `..`, so the path is relative and never goes up. A
/// backslash separates parts on Windows and a colon names a drive there; control characters are in no honest name.
pub fn stays_inside(name: &str) -> bool {
    let is_plain = |c: char| !c.is_control() && c != '\\' && (cfg!(unix) || c != ':');
    let is_part = |part: &str| !matches!(part, "" | "." | "..") && part.chars().all(is_plain);
    name.split('/').all(is_part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_leave_their_folder_are_told_from_others() {
        for name in ["a", "a/b.json", ".gitattributes", "...", "a..b", "a b", "ä/日本.jsonl", "-x"]
        {
            assert!(stays_inside(name), "{name:?}");
        }
        let outside = [
            "",
            ".",
            "..",
            "../a",
            "a/..",
            "a/../b",
            "a//b",
            "/a",
            "a/",
            "a/./b",
            "..\\a",
            "a\\..\\b",
            "a\nb",
            "a\0",
            "\u{1b}[2J",
            "\u{9b}2J",
        ];
        for name in outside {
            assert!(!stays_inside(name), "{name:?}");
        }
    }
}
