//! Lines of JSON that programs print.

use serde_json::Value;

/// What Python's `json` writes for numbers that JSON does not have.
const NOT_FINITE: [&str; 3] = ["-Infinity", "Infinity", "NaN"];

/// The value of a line; none where it is no JSON. A number that JSON does not have becomes its word, so that an error can
/// name it.
pub(crate) fn value(line: &str) -> Option<Value> {
    serde_json::from_str(line).ok().or_else(|| with_words(line))
}

fn with_words(line: &str) -> Option<Value> {
    let word = NOT_FINITE.into_iter().find(|word| line.contains(word))?;
    serde_json::from_str(&line.replace(word, &format!("\"{word}\""))).ok()
}

/// A number that a program gave, or what stands in its place.
pub(crate) fn number(value: &Value, what: &str) -> Result<f64, String> {
    match value {
        Value::Number(number) => {
            number.as_f64().ok_or_else(|| format!("the {what} is {number}, not a finite number"))
        }
        Value::String(word) if NOT_FINITE.contains(&word.as_str()) => {
            Err(format!("the {what} is {word}, not a finite number"))
        }
        other => Err(format!("the {what} is `{other}`, not a number")),
    }
}
