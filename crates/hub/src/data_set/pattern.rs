//! Patterns of file names, as data cards write them.

/// Whether a path fits a pattern: `*` and `?` stay within a folder, `**` crosses folders, `[a-c]`
/// and `[!a-c]` are one character.
///
/// Takes time in proportion to the two lengths at most, whatever a card's author wrote.
pub(super) fn fits(pattern: &str, path: &str) -> bool {
    let pattern = pattern.trim_start_matches("./");
    let mut parts: Vec<Part> = pattern.split('/').map(Part::read).collect();
    if let Some(Part::Folders) = parts.last() {
        // At the end it stands for files below, not for none at all.
        parts.push(Part::Name(vec![Piece::Run]));
    }
    let path: Vec<Vec<char>> = path.split('/').map(|part| part.chars().collect()).collect();
    let is_run = |part: &Part| matches!(part, Part::Folders);
    let is_one = |part: &Part, name: &Vec<char>| match part {
        Part::Folders => false,
        Part::Name(pieces) => {
            let is_run = |piece: &Piece| matches!(piece, Piece::Run);
            matches(pieces, name, is_run, |piece, &c| piece.is(c))
        }
    };
    matches(&parts, &path, is_run, is_one)
}

/// Whether a text fits a pattern in which some elements stand for a run of any length. On a mismatch only the last
/// run is made longer: if a longer earlier one would fit, so would this.
fn matches<P, T>(
    pattern: &[P],
    text: &[T],
    is_run: impl Fn(&P) -> bool,
    is_one: impl Fn(&P, &T) -> bool,
) -> bool {
    let (mut at, mut position) = (0, 0);
    // The place behind the last run, and where the run ends.
    let mut last: Option<(usize, usize)> = None;
    loop {
        match (pattern.get(at), text.get(position)) {
            (None, None) => return true,
            (Some(element), _) if is_run(element) => {
                at += 1;
                last = Some((at, position));
            }
            (Some(element), Some(one)) if is_one(element, one) => {
                (at, position) = (at + 1, position + 1);
            }
            _ => match last {
                Some((behind, end)) if end < text.len() => {
                    (at, position) = (behind, end + 1);
                    last = Some((behind, end + 1));
                }
                _ => return false,
            },
        }
    }
}

/// A part of a pattern between two slashes.
enum Part {
    /// `**`
    Folders,
    Name(Vec<Piece>),
}

/// What stands for characters of a name.
enum Piece {
    /// `*`
    Run,
    /// `?`
    Any,
    /// The inside of `[...]`.
    Class(Vec<char>),
    Char(char),
}

impl Part {
    fn read(text: &str) -> Self {
        if text == "**" {
            return Part::Folders;
        }
        let chars: Vec<char> = text.chars().collect();
        let (mut pieces, mut rest) = (Vec::new(), &chars[..]);
        while let [first, tail @ ..] = rest {
            let (piece, tail) = match (first, class(tail)) {
                ('*', _) => (Piece::Run, tail),
                ('?', _) => (Piece::Any, tail),
                ('[', Some((set, tail))) => (Piece::Class(set.to_vec()), tail),
                // A bracket that nothing closes means itself.
                (c, _) => (Piece::Char(*c), tail),
            };
            pieces.push(piece);
            rest = tail;
        }
        Part::Name(pieces)
    }
}

impl Piece {
    fn is(&self, c: char) -> bool {
        match self {
            Piece::Run => false,
            Piece::Any => true,
            Piece::Class(set) => in_class(set, c),
            Piece::Char(own) => *own == c,
        }
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

    #[test]
    fn patterns_with_many_runs_take_no_time() {
        let name = "a".repeat(200);
        assert!(!fits(&"*a".repeat(60), &format!("{name}b")));
        assert!(!fits(&"**/a/".repeat(40), &format!("{}b", "a/".repeat(200))));
        assert!(fits(&format!("{}b", "*a".repeat(60)), &format!("{name}b")));
    }
}
