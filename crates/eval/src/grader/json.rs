//! Grades an answer that should be one flat JSON object.

use std::borrow::Cow;

use serde_json::{Map, Value};
use text::integer;

use super::extract::{EXTRACT, Extract};
use super::options::Options;
use super::{Grader, Grades, Schema, indicator};
use crate::Result;

/// Compares a JSON object field by field, with or without a schema.
///
/// | metric | value |
/// |---|---|
/// | `json_valid` | 1 if [`read_object`] finds an object in the answer |
/// | `json_only` | 1 if the answer is that object and nothing else |
/// | `schema_valid` | 1 if the object keeps every rule of the schema |
/// | `fields_exact` | share of the expected fields that are equal |
/// | `ticket_exact` | 1 if every field is equal and there is no other |
/// | `field.<name>` | 1 if that field is equal |
///
/// The object is read by one rule for every model that is compared, so a base
/// model that wraps its answer in prose or in a code fence loses nothing by it;
/// only `json_only` counts the wrapping. Without a schema `schema_valid` says
/// whether the fields are those expected, each with the expected JSON type.
#[derive(Clone, Debug)]
pub struct Json {
    schema: Option<Schema>,
    extract: Extract,
}

impl Json {
    /// Names of its options.
    pub(super) const OPTIONS: &[&str] = &["schema", EXTRACT];

    /// Checks answers against a schema.
    pub fn new(schema: Schema) -> Self {
        Self { schema: Some(schema), extract: Extract::Whole }
    }

    /// Knows of no schema: the expected answer says which fields and types there are.
    pub fn untyped() -> Self {
        Self { schema: None, extract: Extract::Whole }
    }

    /// Reads its options.
    pub(super) fn from_options(options: &Options<'_>) -> Result<Self> {
        let schema = options.get("schema").map(Schema::from_json).transpose()?;
        Ok(Self { schema, extract: Extract::from_options(options)? })
    }

    fn is_valid(&self, object: &Map<String, Value>, expected: &Map<String, Value>) -> bool {
        match &self.schema {
            Some(schema) => schema.violations(object).is_empty(),
            None => {
                let same_type = |(name, value): (&String, &Value)| {
                    object.get(name).is_some_and(|answer| type_name(answer) == type_name(value))
                };
                object.len() == expected.len() && expected.iter().all(same_type)
            }
        }
    }
}

impl Grader for Json {
    /// `expected` is an object, or a text that is one; anything else has no fields to compare.
    fn grade(&self, answer: &str, expected: &Value) -> Grades {
        let expected = object_of(expected).unwrap_or_default();
        let expected = expected.as_ref();
        let reading = self.extract.rest(answer).and_then(read_object);
        let object = reading.as_ref().map(|reading| &reading.object);
        let hits: Vec<(&String, bool)> = expected
            .iter()
            .map(|(name, value)| {
                let found = object.and_then(|object| object.get(name));
                (name, found.is_some_and(|found| equal(found, value)))
            })
            .collect();
        let exact = hits.iter().filter(|(_, hit)| *hit).count();
        let whole = object.is_some_and(|o| exact == expected.len() && o.len() == expected.len());
        let share =
            if hits.is_empty() { indicator(whole) } else { exact as f64 / hits.len() as f64 };

        let mut grades = Grades::default();
        grades.insert("json_valid", indicator(object.is_some()));
        grades.insert("json_only", indicator(reading.as_ref().is_some_and(|r| r.only)));
        grades
            .insert("schema_valid", indicator(object.is_some_and(|o| self.is_valid(o, expected))));
        grades.insert("fields_exact", share);
        grades.insert("ticket_exact", indicator(whole));
        for (name, hit) in hits {
            grades.insert(format!("field.{name}"), indicator(hit));
        }
        grades
    }

    fn primary(&self) -> &'static str {
        "fields_exact"
    }

    fn reference_problem(&self, expected: &Value) -> Option<String> {
        object_of(expected).is_none().then(|| "the reference is no JSON object".to_owned())
    }
}

/// Checks a JSON object against a schema, without a reference.
///
/// | metric | value |
/// |---|---|
/// | `schema_valid` | 1 if the object keeps every rule of the schema |
/// | `json_valid` | 1 if [`read_object`] finds an object in the answer |
/// | `json_only` | 1 if the answer is that object and nothing else |
#[derive(Clone, Debug)]
pub struct JsonSchema {
    schema: Schema,
    extract: Extract,
}

impl JsonSchema {
    /// Names of its options.
    pub(super) const OPTIONS: &[&str] = &["schema", EXTRACT];

    /// Reads its options.
    pub(super) fn new(options: &Options<'_>) -> Result<Self> {
        let Some(schema) = options.get("schema") else {
            let hint = "write it as `options: {schema: {type: object, properties: {..}}}`";
            return Err(options.error("`schema` is missing".to_owned(), hint));
        };
        let schema = Schema::from_json(schema)?;
        Ok(Self { schema, extract: Extract::from_options(options)? })
    }
}

impl Grader for JsonSchema {
    fn grade(&self, answer: &str, _: &Value) -> Grades {
        let reading = self.extract.rest(answer).and_then(read_object);
        let reading = reading.as_ref();
        let valid = reading.is_some_and(|r| self.schema.violations(&r.object).is_empty());
        let mut grades = Grades::default();
        grades.insert("schema_valid", indicator(valid));
        grades.insert("json_valid", indicator(reading.is_some()));
        grades.insert("json_only", indicator(reading.is_some_and(|r| r.only)));
        grades
    }

    fn primary(&self) -> &'static str {
        "schema_valid"
    }

    fn needs_reference(&self) -> bool {
        false
    }
}

/// The object that was read from an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// The object; of a key written twice, the last.
    pub object: Map<String, Value>,
    /// Whether the answer, trimmed, is the object and nothing else.
    pub only: bool,
}

/// Reads the first whole JSON object in a text: the text itself, one inside a
/// code fence, or one between words. Braces that begin no object are passed over.
pub fn read_object(answer: &str) -> Option<Reading> {
    let answer = answer.trim();
    // Long integers keep their digits.
    let marked = integer::marked(answer);
    let answer = marked.as_deref().unwrap_or(answer);
    answer.match_indices('{').find_map(|(start, _)| {
        let mut values = serde_json::Deserializer::from_str(&answer[start..]).into_iter();
        let object: Map<String, Value> = values.next()?.ok()?;
        let only = start == 0 && values.byte_offset() == answer.len();
        Some(Reading { object, only })
    })
}

/// The object that a reference is or that its text holds.
fn object_of(expected: &Value) -> Option<Cow<'_, Map<String, Value>>> {
    match expected {
        Value::Object(object) => Some(Cow::Borrowed(object)),
        Value::String(text) => {
            read_object(text).filter(|reading| reading.only).map(|r| Cow::Owned(r.object))
        }
        _ => None,
    }
}

/// Equality of JSON values, numbers by value: `4` is `4.0`.
pub(super) fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        _ => a == b,
    }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn grader() -> Json {
        let schema = Schema::from_json(&json!({
            "type": "object",
            "properties": {
                "kind": {"enum": ["a", "b"]},
                "day": {"type": ["string", "null"], "format": "date"},
                "count": {"type": "integer", "minimum": 1, "maximum": 9},
                "open": {"type": "boolean"},
            },
        }));
        Json::new(schema.expect("a good schema"))
    }

    /// `json_valid`, `json_only`, `schema_valid`, `fields_exact`, `ticket_exact`.
    #[track_caller]
    fn check(answer: &str, expected: [f64; 5]) {
        let truth = json!({"kind": "a", "day": "2025-03-01", "count": 4, "open": true});
        let grades = grader().grade(answer, &truth);
        let names = ["json_valid", "json_only", "schema_valid", "fields_exact", "ticket_exact"];
        let got = names.map(|name| grades.get(name).expect("graded"));
        assert_eq!(got, expected, "{names:?} of {answer:?}");
    }

    #[test]
    fn answers_are_graded() {
        let right = r#"{"kind":"a","day":"2025-03-01","count":4,"open":true}"#;
        check(right, [1.0, 1.0, 1.0, 1.0, 1.0]);
        check(&format!("\n  {right} \n"), [1.0, 1.0, 1.0, 1.0, 1.0]);
        check(&format!("```json\n{right}\n```"), [1.0, 0.0, 1.0, 1.0, 1.0]);
        check(&format!("Sure {{here}}: {right} Bye {{}}"), [1.0, 0.0, 1.0, 1.0, 1.0]);
        check(
            r#"{"open":true,"count":4.0,"day":"2025-03-01","kind":"a"}"#,
            [1.0, 1.0, 0.0, 1.0, 1.0],
        );
        check(r#"{"kind":"b","day":null,"count":4,"open":true}"#, [1.0, 1.0, 1.0, 0.5, 0.0]);
        check(
            r#"{"kind":"A","day":"2025-03-01","count":"4","open":true}"#,
            [1.0, 1.0, 0.0, 0.5, 0.0],
        );
        check(&right.replace("\"kind\"", "\"more\":1,\"kind\""), [1.0, 1.0, 0.0, 1.0, 0.0]);
        check(r#"{"kind":"a","day":"2025-03-01","count":4}"#, [1.0, 1.0, 0.0, 0.75, 0.0]);
        check("{}", [1.0, 1.0, 0.0, 0.0, 0.0]);
        check(&right[..right.len() - 1], [0.0; 5]);
        check("I cannot help with that.", [0.0; 5]);
        check("", [0.0; 5]);
    }

    #[test]
    fn every_answer_has_the_same_metrics() {
        let truth = json!({"kind": "a", "open": false});
        let names = |answer: &str| -> Vec<String> {
            grader().grade(answer, &truth).iter().map(|(name, _)| name.to_owned()).collect()
        };
        assert_eq!(names("nonsense"), names(r#"{"kind":"a","open":false}"#));
        assert_eq!(names("nonsense")[5..], ["field.kind", "field.open"]);
    }

    #[test]
    fn a_reference_may_be_the_text_of_an_object() {
        let reward = |expected| Json::untyped().reward(r#"{"n":1,"s":"x"}"#, &expected);
        assert_eq!(reward(json!(r#"{"n": 1, "s": "y"}"#)), 0.5);
        let problem = |expected| Json::untyped().reference_problem(&expected);
        assert_eq!(problem(json!(r#"{"n": 1}"#)), None);
        assert_eq!(problem(json!("n = 1")).as_deref(), Some("the reference is no JSON object"));
    }

    #[test]
    fn fields_are_graded_one_by_one() {
        let truth = json!({"kind": "a", "open": false});
        let grades = grader().grade(r#"{"kind":"a","open":true}"#, &truth);
        assert_eq!(grades.get("field.kind"), Some(1.0));
        assert_eq!(grades.get("field.open"), Some(0.0));
    }

    #[test]
    fn without_a_schema_the_expected_types_count() {
        let valid = |answer: &str| {
            let grades = Json::untyped().grade(answer, &json!({"n": 1, "s": "x"}));
            grades.get("schema_valid").expect("graded")
        };
        assert_eq!(valid(r#"{"s":"y","n":2.5}"#), 1.0);
        assert_eq!(valid(r#"{"s":"y","n":"2"}"#), 0.0);
        assert_eq!(valid(r#"{"s":"y","n":2,"m":3}"#), 0.0);
    }

    #[test]
    fn deep_nesting_is_no_object() {
        assert_eq!(read_object(&"{\"a\":".repeat(2000)), None);
    }

    #[test]
    fn options_give_a_schema_and_a_place() {
        let schema = || json!({"type": "object", "properties": {"n": {"type": "integer"}}});
        let graded = |name: &str, options: Value, answer: &str| {
            let grades = super::super::tests::grade(name, options, answer, &json!({"n": 1}));
            (grades.get("schema_valid").unwrap(), grades.get("json_only").unwrap())
        };
        assert_eq!(graded("json", json!({"schema": schema()}), r#"{"n": 1.5}"#), (0.0, 1.0));
        assert_eq!(graded("json_schema", json!({"schema": schema()}), r#"{"n": 2}"#), (1.0, 1.0));
        assert_eq!(graded("json_schema", json!({"schema": schema()}), "n = 2"), (0.0, 0.0));
        let tag = || json!({"schema": schema(), "extract": "<answer>"});
        let answer = "<think>{}</think>\n<answer>{\"n\": 2}</answer>";
        assert_eq!(graded("json_schema", tag(), answer), (1.0, 1.0));
        assert_eq!(graded("json_schema", tag(), r#"{"n": 2}"#), (0.0, 0.0));
        let after = json!({"schema": schema(), "extract": "Answer:"});
        assert_eq!(graded("json_schema", after, "{} Answer: {\n\"n\": 2\n}"), (1.0, 1.0));
    }

    #[test]
    fn a_bad_schema_is_refused() {
        let refused = super::super::tests::refused;
        refused("json_schema", json!({}), "`json_schema`: `schema` is missing");
        refused("json_schema", json!({"schema": 5}), "schema: ");
        refused(
            "json",
            json!({"schema": {"properties": {"a": {"oneOf": []}}}}),
            "schema.properties.a",
        );
    }
}
