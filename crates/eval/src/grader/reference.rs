//! The texts of a reference that an answer is compared with.

use std::borrow::Cow;

use serde_json::Value;
use text::integer;

/// Every text that is a right answer.
///
/// | reference | texts |
/// |---|---|
/// | a text | the text |
/// | a number, `true`, `false` | as JSON writes it |
/// | a list of texts | each of them: any one is right |
/// | an object, any other list | its compact JSON |
/// | `null` | none |
pub(crate) fn texts(expected: &Value) -> Vec<Cow<'_, str>> {
    let all_texts = |list: &Vec<Value>| !list.is_empty() && list.iter().all(Value::is_string);
    match expected {
        Value::Null => Vec::new(),
        Value::String(text) => vec![Cow::Borrowed(text)],
        Value::Array(list) if all_texts(list) => {
            list.iter().filter_map(Value::as_str).map(Cow::Borrowed).collect()
        }
        value => match integer::digits(value) {
            Some(digits) => vec![Cow::Borrowed(digits)],
            None => vec![Cow::Owned(integer::plain(value.to_string()))],
        },
    }
}

/// Why a reference has nothing to compare with, if that is so.
pub(super) fn missing(expected: &Value) -> Option<String> {
    let texts = texts(expected);
    match texts.iter().all(|text| text.trim().is_empty()) {
        true if texts.is_empty() => Some("there is no reference".to_owned()),
        true => Some("the reference is empty".to_owned()),
        false => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn references_have_texts() {
        let check = |expected: Value, right: &[&str]| assert_eq!(texts(&expected), right);
        check(json!("18"), &["18"]);
        check(json!(18), &["18"]);
        check(json!(true), &["true"]);
        check(json!(["Paris", "paris"]), &["Paris", "paris"]);
        check(json!([1, 2]), &["[1,2]"]);
        check(json!([]), &["[]"]);
        check(json!({"a": 1}), &[r#"{"a":1}"#]);
        check(Value::Null, &[]);
        let long = "123456789012345678901234567890";
        let marked: Value = serde_json::from_str(&integer::marked(long).unwrap()).unwrap();
        check(marked, &[long]);
    }

    #[test]
    fn nothing_is_no_reference() {
        assert_eq!(missing(&Value::Null).as_deref(), Some("there is no reference"));
        assert_eq!(missing(&json!(" ")).as_deref(), Some("the reference is empty"));
        assert_eq!(missing(&json!(0)), None);
    }
}
