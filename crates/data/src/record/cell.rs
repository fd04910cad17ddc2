//! A cell of a table as a format needs it.
//!
//! In CSV every value is text, and tables of other kinds hold lists and numbers as text too: where a format
//! reads a list, a number or a label, the text becomes one.

use serde_json::{Map, Value};

use super::literal;
use crate::source::{Trouble, json_text};

/// Columns that hold lists or objects in every format: their text is parsed.
const LISTS: [&str; 20] = [
    "messages",
    "conversations",
    "conversation",
    "chosen_messages",
    "rejected_messages",
    "history",
    "tools",
    "functions",
    "responses",
    "completions",
    "answers",
    "scores",
    "ratings",
    "ranks",
    "rankings",
    "labels",
    "input_ids",
    "attention_mask",
    "completion_mask",
    "assistant_masks",
];

/// Columns that hold a text or turns: a text that spells out turns is taken for them.
const TEXTS_OR_TURNS: [&str; 6] =
    ["prompt", "completion", "chosen", "rejected", "chosen_response", "rejected_response"];

/// What tables write where there is no value.
const MISSING: [&str; 8] = ["nan", "NaN", "None", "null", "NULL", "NA", "N/A", "<NA>"];

/// Texts of spreadsheets whose formula could not be computed: a cell that began with `=`, `+` or `-`.
const BROKEN: [&str; 5] = ["#NAME?", "#REF!", "#VALUE!", "#DIV/0!", "#N/A"];

/// What becomes of a column.
pub(super) enum Change {
    /// It is as the formats need it.
    None,
    /// Another value. `noted` where the text might have been meant as it stands.
    Value { value: Value, noted: bool },
    /// It cannot be read.
    Trouble(Trouble),
}

/// Looks at a column by the name under which the formats know it.
pub(super) fn change(name: &str, value: &Value) -> Change {
    let is_list = LISTS.contains(&name);
    if !is_list && !TEXTS_OR_TURNS.contains(&name) {
        return Change::None;
    }
    let parsed = match value {
        Value::String(text) => match parse(name, text, is_list) {
            Parsed::No => return Change::None,
            Parsed::Fault(message) => return trouble(name, message),
            Parsed::Value(value) => Some(value),
        },
        _ => None,
    };
    let noted = parsed.is_some() && !is_list;
    match transposed(parsed.as_ref().unwrap_or(value)) {
        Err(message) => trouble(name, message),
        Ok(Some(value)) => Change::Value { value, noted },
        Ok(None) => parsed.map_or(Change::None, |value| Change::Value { value, noted }),
    }
}

fn trouble(name: &str, message: String) -> Change {
    let hint = "write it as JSON: a list in brackets, texts and keys in double quotes; \
                JSON Lines and Parquet hold lists as they are";
    Change::Trouble(Trouble { column: name.to_owned(), message, hint: hint.to_owned() })
}

enum Parsed {
    /// The text is a text.
    No,
    /// It is meant to be a list and is none.
    Fault(String),
    Value(Value),
}

fn parse(name: &str, text: &str, is_list: bool) -> Parsed {
    let trimmed = text.trim();
    if is_list && (trimmed.is_empty() || MISSING.contains(&trimmed)) {
        return Parsed::Value(Value::Null);
    }
    // Tools that are no JSON are told by who reads them.
    let is_literal = trimmed.starts_with(['[', '{']);
    let is_array = is_list && trimmed.starts_with("array(");
    if !is_literal && !is_array {
        return Parsed::No;
    }
    let value = json_text(trimmed).or_else(|json| {
        literal::parse(trimmed).map_err(|python| {
            let looks_like_python = trimmed.contains('\'') && !trimmed.contains("\":");
            if looks_like_python { format!("no list: {python}") } else { json }
        })
    });
    match value {
        Ok(value) if is_list || is_turns(&value) => Parsed::Value(value),
        Err(fault) if is_list && !["tools", "functions"].contains(&name) => {
            Parsed::Fault(format!("is text that cannot be read: {fault}"))
        }
        _ => Parsed::No,
    }
}

/// Whether a value is turns, in lists or in an object of lists, and nothing else.
fn is_turns(value: &Value) -> bool {
    let is_turn = |turn: &Value| {
        let speaks = |who: &str, what: &[&str]| {
            turn.get(who).is_some_and(|who| who.is_string() || who.is_array())
                && what.iter().any(|key| turn.get(*key).is_some())
        };
        speaks("role", &["content", "tool_calls"]) || speaks("from", &["value"])
    };
    match value {
        Value::Array(turns) => !turns.is_empty() && turns.iter().all(is_turn),
        other => is_turn(other),
    }
}

/// A list of objects out of an object of lists, as `datasets` stores a sequence of objects.
fn transposed(value: &Value) -> Result<Option<Value>, String> {
    let Value::Object(columns) = value else { return Ok(None) };
    let lists = columns.iter().map(|(key, list)| Some((key, list.as_array()?)));
    let Some(lists) = lists.collect::<Option<Vec<_>>>().filter(|lists| !lists.is_empty()) else {
        return Ok(None);
    };
    let (first, length) = (lists[0].0, lists[0].1.len());
    if let Some((other, list)) = lists.iter().find(|(_, list)| list.len() != length) {
        let count = list.len();
        return Err(format!("has {length} entries in `{first}` and {count} in `{other}`"));
    }
    let mut objects = vec![Map::new(); length];
    for (key, list) in lists {
        for (object, item) in objects.iter_mut().zip(list) {
            // Calls within a turn are such a sequence themselves.
            let inner = if key == "tool_calls" { transposed(item)? } else { None };
            object.insert(key.clone(), inner.unwrap_or_else(|| item.clone()));
        }
    }
    Ok(Some(objects.into_iter().map(Value::Object).collect()))
}

/// A finite number, also as text.
pub(super) fn number(value: &Value) -> Option<f64> {
    let number = match value {
        Value::String(text) => text.trim().parse::<f64>().ok(),
        other => match text::integer::digits(other) {
            Some(digits) => digits.parse().ok(),
            None => other.as_f64(),
        },
    };
    number.filter(|number| number.is_finite())
}

/// Whether a value says that there is no number: null, or what tables write in its place.
pub(super) fn is_missing(value: &Value) -> bool {
    match value {
        Value::String(text) => text.trim().is_empty() || MISSING.contains(&text.trim()),
        other => other.is_null(),
    }
}

/// True or false, by any of their usual names.
pub(super) fn flag(value: &Value) -> Option<bool> {
    let text = match value {
        Value::Bool(flag) => return Some(*flag),
        Value::String(text) => text.trim().to_lowercase(),
        _ => String::new(),
    };
    match (text.as_str(), number(value)) {
        ("true" | "t" | "yes" | "y", _) | (_, Some(1.0)) => Some(true),
        ("false" | "f" | "no" | "n", _) | (_, Some(0.0)) => Some(false),
        _ => None,
    }
}

/// What a text is that a table or spreadsheet wrote in place of a value, or cut.
pub(super) fn spoiled(value: &Value) -> Option<Spoiled> {
    /// Characters of the longest text of a cell in Excel.
    const LONGEST_CELL: usize = 32_767;
    let text = value.as_str()?;
    if MISSING.contains(&text) {
        return Some(Spoiled::Missing);
    }
    if BROKEN.contains(&text) {
        return Some(Spoiled::Broken);
    }
    // Characters are counted as Excel does, in units of UTF-16.
    let is_cut = (LONGEST_CELL..=LONGEST_CELL * 3).contains(&text.len())
        && text.encode_utf16().count() == LONGEST_CELL;
    is_cut.then_some(Spoiled::Cut)
}

/// A text that is not what was meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spoiled {
    Missing,
    Broken,
    Cut,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(name: &str, value: Value, expected: Option<Value>) {
        match (change(name, &value), expected) {
            (Change::None, None) => {}
            (Change::Value { value, .. }, Some(expected)) => assert_eq!(value, expected),
            (Change::Trouble(trouble), _) => panic!("{}", trouble.message),
            (_, expected) => panic!("{name}: not {expected:?}"),
        }
    }

    #[test]
    fn text_of_lists_is_parsed() {
        check("scores", json!("[1, 2.5]"), Some(json!([1, 2.5])));
        check("responses", json!("['a', 'b']"), Some(json!(["a", "b"])));
        check("history", json!(" "), Some(json!(null)));
        check("tools", json!("None"), Some(json!(null)));
        check("scores", json!("[1, NaN]"), Some(json!([1, null])));
        // A class of another task, and lists that are there.
        check("labels", json!("spam"), None);
        check("scores", json!([1]), None);
        check("id", json!("[1]"), None);
    }

    #[test]
    fn only_turns_make_a_text_more_than_text() {
        let turns = json!([{"role": "user", "content": "a"}]);
        check("prompt", json!(turns.to_string()), Some(turns));
        check(
            "completion",
            json!("[{'from': 'gpt', 'value': 'a'}]"),
            Some(json!([{"from": "gpt", "value": "a"}])),
        );
        for text in ["[1, 2]", "{\"a\": 1}", "[]", "[x", "[{'role': 'a'}]", "nan", ""] {
            check("prompt", json!(text), None);
        }
    }

    #[test]
    fn an_object_of_lists_is_a_list_of_objects() {
        check(
            "conversations",
            json!({"from": ["human", "gpt"], "value": ["a", "b"]}),
            Some(json!([{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}])),
        );
        check(
            "messages",
            json!({"role": ["assistant"], "tool_calls": [{"name": ["f"], "arguments": ["{}"]}]}),
            Some(json!([{"role": "assistant", "tool_calls": [{"name": "f", "arguments": "{}"}]}])),
        );
        check("messages", json!({"role": "user", "content": ["a"]}), None);
        check("messages", json!({}), None);
    }

    #[test]
    fn troubles_say_what_is_wrong() {
        for (name, value, expected) in [
            (
                "messages",
                json!("[{\"role\": }]"),
                "is text that cannot be read: not JSON: expected value, column 11",
            ),
            (
                "responses",
                json!("['a' 'b']"),
                "is text that cannot be read: no list: two texts follow each other without a comma, character 9",
            ),
            (
                "messages",
                json!({"role": ["a", "b"], "content": ["c"]}),
                "has 2 entries in `role` and 1 in `content`",
            ),
            (
                "scores",
                json!("[1, Infinity]"),
                "is text that cannot be read: holds an infinite number",
            ),
        ] {
            match change(name, &value) {
                Change::Trouble(trouble) => assert_eq!(trouble.message, expected),
                _ => panic!("{name} is no trouble"),
            }
        }
    }

    #[test]
    fn labels_and_numbers_have_many_names() {
        for text in ["True", "true", "TRUE", "1", "1.0", " yes ", "Y", "t"] {
            assert_eq!(flag(&json!(text)), Some(true), "{text}");
        }
        for text in ["False", "0", "0.0", "no", "N", "f"] {
            assert_eq!(flag(&json!(text)), Some(false), "{text}");
        }
        for other in [json!("maybe"), json!(""), json!(2), json!("-1"), json!(null), json!([])] {
            assert_eq!(flag(&other), None, "{other}");
        }
        for (text, number_) in
            [("1.5", Some(1.5)), (" -2e3", Some(-2000.0)), ("1,5", None), ("inf", None), ("", None)]
        {
            assert_eq!(number(&json!(text)), number_, "{text}");
        }
    }

    #[test]
    fn what_stands_in_place_of_a_value_is_known() {
        assert_eq!(spoiled(&json!("nan")), Some(Spoiled::Missing));
        assert_eq!(spoiled(&json!("#NAME?")), Some(Spoiled::Broken));
        assert_eq!(spoiled(&json!("ä".repeat(32_767))), Some(Spoiled::Cut));
        assert_eq!(spoiled(&json!("a nan")), None);
    }
}
