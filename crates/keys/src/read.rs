//! From a node of YAML to the value of a key, or to the reason why not.

use crate::{
    describe::{count, describe, range},
    error::Fault,
    key::{Key, Kind},
    nearest::nearest,
    path::{Locator, is_local_path},
    peers,
    value::Value,
    yaml::{Content, Node, number, whole_number},
};
use std::path::{Path, PathBuf};

/// Why a value does not do: the fault, the end of the sentence "`key` ...", and a hint.
pub(crate) type Refusal = (Fault, String, Option<String>);

/// Folders that texts may refer to.
pub(crate) struct Folders<'a> {
    /// What relative paths are relative to.
    pub(crate) base: &'a Path,
    /// What `~` stands for.
    pub(crate) home: Option<&'a Path>,
}

/// Reads a node as the key takes it.
pub(crate) fn read(key: &Key, node: &Node, folders: &Folders<'_>) -> Result<Value, Refusal> {
    if let Content::Scalar { text, .. } = &node.content
        && let Some(word) = word(key, text)?
    {
        return Ok(word);
    }
    let value = read_kind(key, &key.kind, node, folders)?;
    check(&key.kind, &value).map_err(|range| refuse_range(key, node, &range))?;
    Ok(value)
}

/// The value of a program's choice as the key takes it; fails with what the key takes instead.
pub(crate) fn adopt(key: &Key, value: Value) -> Result<Value, String> {
    let value = match value {
        Value::Text(text) if key.words.iter().any(|word| matches_word(word, &text)) => {
            return Ok(Value::Word(text));
        }
        Value::Path(path) if key.kind == Kind::PathOrName => Value::Locator(Locator::local(path)),
        Value::Int(int) if matches!(key.kind, Kind::Float { .. }) => Value::Float(int as f64),
        value => value,
    };
    let fits = match (&key.kind, &value) {
        (Kind::Bool, Value::Bool(_))
        | (Kind::Int { .. } | Kind::Bytes, Value::Int(_))
        | (Kind::Float { .. }, Value::Float(_))
        | (Kind::Text, Value::Text(_))
        | (Kind::Path, Value::Path(_))
        | (Kind::PathOrName, Value::Locator(_))
        | (Kind::List { .. }, Value::List(_))
        | (Kind::Map, Value::Map(_))
        | (Kind::Any, _) => check(&key.kind, &value).is_ok(),
        _ => false,
    };
    if fits { Ok(value) } else { Err(describe(key)) }
}

/// The key's own word that the text is, or the refusal of one that comes later.
fn word(key: &Key, text: &str) -> Result<Option<Value>, Refusal> {
    if key.words.iter().any(|word| matches_word(word, text)) {
        return Ok(Some(Value::Word(text.to_owned())));
    }
    if key.words_later.iter().any(|word| matches_word(word, text)) {
        let message = format!("is `{}`, which this version does not support", shown(key, text));
        return Err((Fault::Unsupported, message, Some(format!("supported: {}", describe(key)))));
    }
    Ok(None)
}

/// `time:<column>` stands for every text that begins with `time:` and goes on.
fn matches_word(word: &str, text: &str) -> bool {
    match word.split_once('<') {
        Some((prefix, _)) => text.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty()),
        None => word == text,
    }
}

fn read_kind(key: &Key, kind: &Kind, node: &Node, folders: &Folders<'_>) -> Result<Value, Refusal> {
    match kind {
        Kind::Any => return Ok(node.to_value()),
        Kind::Map if matches!(node.content, Content::Map(_)) => return Ok(node.to_value()),
        Kind::List { item, .. } => {
            let read = |node| read_kind(key, item, node, folders);
            return match &node.content {
                Content::List(items) => items.iter().map(read).collect::<Result<_, _>>(),
                _ => read(node).map(|value| vec![value]),
            }
            .map(Value::List);
        }
        _ => {}
    }
    let Content::Scalar { text, .. } = &node.content else { return Err(refuse_type(key, node)) };
    let value = match kind {
        Kind::Bool => match text.as_str() {
            "true" | "True" | "TRUE" => Some(Value::Bool(true)),
            "false" | "False" | "FALSE" => Some(Value::Bool(false)),
            _ => None,
        },
        Kind::Int { .. } => int(text).map(Value::Int),
        Kind::Float { .. } => number(text).map(Value::Float),
        Kind::Bytes => bytes(text).map(Value::Int),
        Kind::Text => Some(Value::Text(text.clone())),
        Kind::Path => Some(Value::Path(resolve(text, folders)?)),
        Kind::PathOrName => Some(Value::Locator(Locator {
            name: text.clone(),
            path: resolve(text, folders)?,
            is_path: is_local_path(text),
        })),
        _ => None,
    };
    value.ok_or_else(|| match kind {
        Kind::Choice => refuse_choice(key, text),
        _ => refuse_type(key, node),
    })
}

fn resolve(text: &str, folders: &Folders<'_>) -> Result<PathBuf, Refusal> {
    if text.is_empty() {
        return Err((Fault::WrongType, "is an empty path".to_owned(), None));
    }
    crate::path::resolve_path(text, folders.base, folders.home).ok_or_else(|| {
        let message = format!("is `{text}`, but there is no home folder for `~`");
        (Fault::MissingVariable, message, Some("write the folder out".to_owned()))
    })
}

/// A whole number, also one written as `1e3` or `16.0`.
fn int(text: &str) -> Option<i64> {
    // Above 2^53 not every whole number has its own f64.
    let exact = |float: &f64| float.fract() == 0.0 && float.abs() <= 9_007_199_254_740_992.0;
    whole_number(text).or_else(|| number(text).filter(exact).map(|float| float as i64))
}

/// A number of bytes: plain, or with a unit of powers of 1000 (`MB`) or 1024 (`MiB`).
fn bytes(text: &str) -> Option<i64> {
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (count, unit) = text.split_at(split);
    let scale: f64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "kb" => 1e3,
        "mb" => 1e6,
        "gb" => 1e9,
        "tb" => 1e12,
        "kib" => 1024.0,
        "mib" => 1_048_576.0,
        "gib" => 1_073_741_824.0,
        "tib" => 1_099_511_627_776.0,
        _ => return None,
    };
    let bytes = (number(count.trim())? * scale).round();
    (0.0..=9_007_199_254_740_992.0).contains(&bytes).then_some(bytes as i64)
}

/// Fails with the range that the value is out of.
fn check(kind: &Kind, value: &Value) -> Result<(), String> {
    let inside = match (kind, value) {
        (Kind::Int { min, max }, Value::Int(int)) => (min..=max).contains(&int),
        (Kind::Float { min, max, open_min, open_max }, Value::Float(float)) => {
            (if *open_min { float > min } else { float >= min })
                && (if *open_max { float < max } else { float <= max })
        }
        (Kind::List { item, min, max }, Value::List(items)) => {
            if items.len() < *min || items.len() > *max {
                return Err(count(*min, *max));
            }
            return items.iter().try_for_each(|value| check(item, value));
        }
        _ => true,
    };
    if inside { Ok(()) } else { Err(range(kind).unwrap_or_default()) }
}

/// The text in a message, unless it is a secret.
fn shown<'a>(key: &Key, text: &'a str) -> &'a str {
    if key.is_secret() { "..." } else { text }
}

fn refuse_range(key: &Key, node: &Node, range: &str) -> Refusal {
    let message = match &node.content {
        Content::Scalar { text, .. } => format!("is `{}`, but must be {range}", shown(key, text)),
        _ if range.contains("item") => format!("must have {range}"),
        _ => format!("has items that are not {range}"),
    };
    (Fault::OutOfRange, message, None)
}

fn refuse_type(key: &Key, node: &Node) -> Refusal {
    let takes = match key.kind {
        Kind::Choice => format!("one of {}", describe(key)),
        _ => describe(key),
    };
    let Content::Scalar { text, .. } = &node.content else {
        return (Fault::WrongType, format!("is {}, but must be {takes}", node.show()), None);
    };
    let lower = text.to_ascii_lowercase();
    let hint = match (key.kind, lower.as_str()) {
        (Kind::Bool, "yes" | "on" | "y" | "1") => Some("write `true`".to_owned()),
        (Kind::Bool, "no" | "off" | "n" | "0") => Some("write `false`".to_owned()),
        _ => word_meant(key, &lower),
    };
    (Fault::WrongType, format!("is `{}`, but must be {takes}", shown(key, text)), hint)
}

fn refuse_choice(key: &Key, text: &str) -> Refusal {
    let hint = peers::word(key.name, text)
        .map(str::to_owned)
        .or_else(|| word_meant(key, &text.to_ascii_lowercase()));
    let message = format!("is `{}`, but must be one of {}", shown(key, text), describe(key));
    (Fault::UnknownChoice, message, hint)
}

/// The key's word that somebody meant: `none` for what reads like it, or the nearest.
fn word_meant(key: &Key, text: &str) -> Option<String> {
    if key.words.contains(&"none") && matches!(text, "no" | "false" | "off" | "null" | "~" | "") {
        return Some("write `none`".to_owned());
    }
    let later = key.words_later.iter();
    match nearest(text, key.words.iter().chain(later).copied()) {
        Some(word) if key.words.contains(&word) => Some(format!("did you mean `{word}`?")),
        Some(word) => Some(format!("`{word}` is not supported by this version")),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(text: &str) -> Node {
        crate::yaml::parse_own(text).unwrap()
    }

    #[track_caller]
    fn check_read(key: Key, text: &str, expected: Result<Value, &str>) {
        let folders = Folders { base: Path::new("/recipes"), home: Some(Path::new("/home/ada")) };
        let read = read(&key, &node(text), &folders);
        let shown = read.map_err(|(_, message, hint)| match hint {
            Some(hint) => format!("{message}; {hint}"),
            None => message,
        });
        assert_eq!(shown, expected.map_err(str::to_owned), "{text}");
    }

    #[test]
    fn numbers_are_what_people_mean() {
        let rate = Key::float("rate", 0.0, 1.0).above_min();
        for text in ["2e-4", "2.0e-4", "0.0002", "2E-4", "+2e-4", ".0002", "'2e-4'"] {
            check_read(rate, text, Ok(Value::Float(2e-4)));
        }
        let steps = Key::int("steps", 1, 10_000);
        for text in ["1000", "1_000", "1e3", "1000.0", "+1000"] {
            check_read(steps, text, Ok(Value::Int(1000)));
        }
        for text in ["1__0", "_1", "1_", "ten", "0x10", ".inf", "inf", "nan", "1.5", "true", "''"] {
            let value = text.trim_matches('\'');
            let message = format!("is `{value}`, but must be a whole number, 1 to 10000");
            check_read(steps, text, Err(&message));
        }
    }

    #[test]
    fn ranges_have_open_and_closed_ends() {
        let share = Key::float("share", 0.0, 1.0).above_min().below_max();
        check_read(share, "0.5", Ok(Value::Float(0.5)));
        check_read(share, "0", Err("is `0`, but must be over 0 to under 1"));
        check_read(share, "1.0", Err("is `1.0`, but must be over 0 to under 1"));
        check_read(Key::float("p", 0.0, 1.0), "1", Ok(Value::Float(1.0)));
        let open = Key::float("decay", 0.0, f64::INFINITY);
        check_read(open, "-1", Err("is `-1`, but must be at least 0"));
        check_read(Key::int("rank", 1, 64), "0", Err("is `0`, but must be 1 to 64"));
    }

    #[test]
    fn booleans_are_true_and_false_alone() {
        let key = Key::bool("pack");
        check_read(key, "true", Ok(Value::Bool(true)));
        check_read(key, "False", Ok(Value::Bool(false)));
        let no = "is `no`, but must be `true` or `false`; write `false`";
        check_read(key, "no", Err(no));
        check_read(key, "on", Err("is `on`, but must be `true` or `false`; write `true`"));
        check_read(key, "[a]", Err("is a list, but must be `true` or `false`"));
    }

    #[test]
    fn text_keeps_what_looks_like_something_else() {
        for text in ["no", "1e10", "0012345", "true", "2024-01-01"] {
            check_read(Key::text("revision"), text, Ok(Value::Text(text.to_owned())));
        }
    }

    #[test]
    fn choices_name_the_nearest() {
        let key = Key::choice("quantization", &["none", "nf4"]).later_words(&["int8"]);
        check_read(key, "nf4", Ok(Value::Word("nf4".to_owned())));
        let nf5 = "is `nf5`, but must be one of `none`, `nf4`; did you mean `nf4`?";
        check_read(key, "nf5", Err(nf5));
        let no = "is `false`, but must be one of `none`, `nf4`; write `none`";
        check_read(key, "false", Err(no));
        let int8 = "is `int8`, which this version does not support; supported: `none`, `nf4`";
        check_read(key, "int8", Err(int8));
        let near = "is `int-8`, but must be one of `none`, `nf4`; \
                    `int8` is not supported by this version";
        check_read(key, "int-8", Err(near));
    }

    #[test]
    fn a_word_may_have_an_argument() {
        let key = Key::choice("by", &["row", "time:<column>"]);
        check_read(key, "time:sent", Ok(Value::Word("time:sent".to_owned())));
        check_read(key, "'time:'", Err("is `time:`, but must be one of `row`, `time:<column>`"));
    }

    #[test]
    fn words_stand_beside_a_kind() {
        let key = Key::int("max_seq_len", 1, 100).or(&["auto"]);
        check_read(key, "auto", Ok(Value::Word("auto".to_owned())));
        check_read(key, "64", Ok(Value::Int(64)));
        let message = "is `atuo`, but must be a whole number, 1 to 100, or `auto`; \
                       did you mean `auto`?";
        check_read(key, "atuo", Err(message));
    }

    #[test]
    fn lists_check_their_items_and_their_number() {
        const BETA: Kind = Kind::Float { min: 0.0, max: 1.0, open_min: false, open_max: true };
        let key = Key::list("betas", &BETA).items(2, 2);
        let betas = Value::List(vec![Value::Float(0.9), Value::Float(0.999)]);
        check_read(key, "[0.9, 0.999]", Ok(betas));
        check_read(key, "[0.9]", Err("must have 2 items"));
        check_read(key, "[0.9, 1]", Err("has items that are not 0 to under 1"));
        let modules = Key::list("modules", &Kind::Text).or(&["all-linear"]);
        check_read(modules, "q_proj", Ok(Value::List(vec![Value::Text("q_proj".to_owned())])));
        check_read(modules, "all-linear", Ok(Value::Word("all-linear".to_owned())));
    }

    #[test]
    fn bytes_have_units() {
        let key = Key::bytes("memory");
        check_read(key, "1500", Ok(Value::Int(1500)));
        check_read(key, "1.5 GiB", Ok(Value::Int(1_610_612_736)));
        check_read(key, "2MB", Ok(Value::Int(2_000_000)));
        let message = "is `2 parsecs`, but must be a number of bytes such as `1.5GiB`";
        check_read(key, "2 parsecs", Err(message));
        check_read(key, "-1", Err("is `-1`, but must be a number of bytes such as `1.5GiB`"));
    }

    #[test]
    fn paths_are_made_absolute() {
        let path = |text: &str| Ok(Value::Path(PathBuf::from(text)));
        check_read(Key::path("path"), "a/b.jsonl", path("/recipes/a/b.jsonl"));
        check_read(Key::path("path"), "~/b.jsonl", path("/home/ada/b.jsonl"));
        check_read(Key::path("path"), "/b.jsonl", path("/b.jsonl"));
        check_read(Key::path("path"), "''", Err("is an empty path"));
    }

    #[test]
    fn anything_follows_the_core_schema() {
        let text = "{a: 1, b: 1.5, c: no, d: true, e: ~, f: '1', g: [x]}";
        let expected = serde_json::json!(
            {"a": 1, "b": 1.5, "c": "no", "d": true, "e": null, "f": "1", "g": ["x"]}
        );
        assert_eq!(node(text).to_value().to_json(), expected);
    }

    #[test]
    fn a_secret_is_not_quoted_in_its_refusal() {
        let key = Key::int("hub.token", 0, 9);
        check_read(key, "hf_abc", Err("is `...`, but must be a whole number, 0 to 9"));
        check_read(key, "12345", Err("is `...`, but must be 0 to 9"));
    }
}
