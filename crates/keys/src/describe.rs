//! What a key takes, in words.

use crate::key::{Key, Kind};

/// A number of items in words.
pub(crate) fn count(min: usize, max: usize) -> String {
    let items = |n: usize| if n == 1 { "1 item".to_owned() } else { format!("{n} items") };
    match (min, max) {
        (min, max) if min == max => items(min),
        (min, usize::MAX) => format!("at least {}", items(min)),
        (min, max) => format!("{min} to {}", items(max)),
    }
}

/// The range of a number in words; none where there is no limit.
pub(crate) fn range(kind: &Kind) -> Option<String> {
    match *kind {
        Kind::Int { min: i64::MIN, max: i64::MAX } => None,
        Kind::Int { min, max: i64::MAX } => Some(format!("at least {min}")),
        Kind::Int { min: i64::MIN, max } => Some(format!("at most {max}")),
        Kind::Int { min, max } => Some(format!("{min} to {max}")),
        Kind::Float { min, max, open_min, open_max } => {
            let (min, max) = (min.is_finite().then_some(min), max.is_finite().then_some(max));
            match (min, max, open_min, open_max) {
                (None, None, ..) => None,
                (Some(min), Some(max), false, false) => Some(format!("{min} to {max}")),
                (Some(min), Some(max), false, true) => Some(format!("{min} to under {max}")),
                (Some(min), Some(max), true, false) => Some(format!("over {min} to {max}")),
                (Some(min), Some(max), true, true) => Some(format!("over {min} to under {max}")),
                (Some(min), None, false, _) => Some(format!("at least {min}")),
                (Some(min), None, true, _) => Some(format!("over {min}")),
                (None, Some(max), _, false) => Some(format!("at most {max}")),
                (None, Some(max), _, true) => Some(format!("under {max}")),
            }
        }
        _ => None,
    }
}

/// Upper bounds from here on only guard against slips: no sensible value comes near them.
const GUARD: i64 = 1 << 20;
/// The same for numbers with a fraction.
const FLOAT_GUARD: f64 = 1e4;

/// The range that help and docs show. Bounds that are only guards are left out; the message of a value that is
/// refused names them.
fn shown_range(kind: &Kind) -> Option<String> {
    match *kind {
        Kind::Int { min, max } if max >= GUARD => range(&Kind::Int { min, max: i64::MAX }),
        Kind::Float { min, max, open_min, .. } if max >= FLOAT_GUARD => {
            range(&Kind::Float { min, max: f64::INFINITY, open_min, open_max: false })
        }
        _ => range(kind),
    }
}

/// What a key takes, in words: "a whole number, 1 to 4096, or `auto`".
pub(crate) fn describe(key: &Key) -> String {
    let words: Vec<String> = key.words.iter().map(|word| format!("`{word}`")).collect();
    match (kind_in_words(&key.kind), words.is_empty()) {
        (None, _) => words.join(", "),
        (Some(kind), true) => kind,
        (Some(kind), false) => format!("{kind}, or {}", words.join(", ")),
    }
}

fn kind_in_words(kind: &Kind) -> Option<String> {
    let with_range = |name: &str| match shown_range(kind) {
        Some(range) => format!("{name}, {range}"),
        None => name.to_owned(),
    };
    Some(match kind {
        Kind::Bool => "`true` or `false`".to_owned(),
        Kind::Int { .. } => with_range("a whole number"),
        Kind::Float { .. } => with_range("a number"),
        Kind::Bytes => "a number of bytes such as `1.5GiB`".to_owned(),
        Kind::Text => "text".to_owned(),
        Kind::Path => "a path".to_owned(),
        Kind::PathOrName => "a path or a name".to_owned(),
        Kind::Choice => return None,
        Kind::List { item, min: 0, max: usize::MAX } => {
            format!("a list of ({})", kind_in_words(item).unwrap_or_default())
        }
        Kind::List { item, min, max } => {
            let item = kind_in_words(item).unwrap_or_default();
            format!("a list of {}, each ({item})", count(*min, *max))
        }
        Kind::Map | Kind::Section { .. } => "a mapping".to_owned(),
        Kind::Entries { .. } => "a list of mappings".to_owned(),
        Kind::Any => "anything".to_owned(),
    })
}
