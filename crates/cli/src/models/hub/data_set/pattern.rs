//! Patterns of file names, as data cards write them.

/// Whether a path fits a pattern: `*` and `?` stay within a folder, `**` crosses folders, `[a-c]`
/// and `[!a-c]` are one character.
pub(super) fn fits(pattern: &str, path: &str) -> bool {
    let pattern = pattern.trim_start_matches("./");
    let pattern: Vec<&str> = pattern.split('/').collect();
    let path: Vec<&str> = path.split('/').collect();
    fits_parts(&pattern, &path)
}

fn fits_parts(pattern: &[&str], path: &[&str]) -> bool {
    match (pattern, path) {
        ([], []) => true,
        // At the end it stands for files below, not for none at all.
        (["**"], path) => !path.is_empty(),
        (["**", rest @ ..], path) => (0..path.len()).any(|skip| fits_parts(rest, &path[skip..])),
        ([first, pattern @ ..], [part, path @ ..]) => {
            fits_part(&chars(first), &chars(part)) && fits_parts(pattern, path)
        }
        _ => false,
    }
}

fn chars(text: &str) -> Vec<char> {
    text.chars().collect()
}

fn fits_part(pattern: &[char], text: &[char]) -> bool {
    match (pattern, text) {
        ([], []) => true,
        (['*', rest @ ..], text) => (0..=text.len()).any(|skip| fits_part(rest, &text[skip..])),
        (['?', rest @ ..], [_, text @ ..]) => fits_part(rest, text),
        (['[', rest @ ..], [c, text @ ..]) => match class(rest) {
            Some((set, rest)) => in_class(set, *c) && fits_part(rest, text),
            // A bracket that nothing closes means itself.
            None => *c == '[' && fits_part(rest, text),
        },
        ([p, rest @ ..], [c, text @ ..]) => p == c && fits_part(rest, text),
        _ => false,
    }
}

/// The inside of a class, and what follows it.
fn class(pattern: &[char]) -> Option<(&[char], &[char])> {
    // A closing bracket that comes first is one of the class.
    let from = if pattern.first() == Some(&'!') { 2 } else { 1 };
    let end = from + pattern.get(from..)?.iter().position(|&c| c == ']')?;
    Some((&pattern[..end], &pattern[end + 1..]))
}

fn in_class(set: &[char], c: char) -> bool {
    let (set, expected) = match set {
        ['!', set @ ..] => (set, false),
        set => (set, true),
    };
    let mut rest = set;
    let mut found = false;
    while let [first, tail @ ..] = rest {
        (found, rest) = match tail {
            ['-', last, tail @ ..] => (found || (*first..=*last).contains(&c), tail),
            tail => (found || *first == c, tail),
        };
    }
    found == expected
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_choose_files() {
        for (pattern, path, expected) in [
            ("data/train-*", "data/train-00000-of-00001.parquet", true),
            ("data/train-*", "data/more/train-0.parquet", false),
            ("*.csv", "a.csv", true),
            ("*.csv", "d/a.csv", false),
            ("**/*.csv", "a.csv", true),
            ("**/*.csv", "d/e/a.csv", true),
            ("d/**", "d/e/a.csv", true),
            ("d/**", "d", false),
            ("./d/?.csv", "d/a.csv", true),
            ("[0-9][0-9].json", "07.json", true),
            ("[!0-9].json", "7.json", false),
            ("[!0-9].json", "x.json", true),
            ("[]a].json", "].json", true),
            ("a[.json", "a[.json", true),
            ("a*b*c", "a--b-b--c", true),
            ("a*b*c", "a--c--b", false),
            ("exact name.json", "exact name.json", true),
        ] {
            assert_eq!(fits(pattern, path), expected, "{pattern} on {path}");
        }
    }
}
