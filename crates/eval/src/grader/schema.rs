//! The part of JSON Schema that describes a flat object of typed fields.

use regex_lite::Regex;
use serde_json::{Map, Value, json};

use crate::{Error, Result};

/// The fields an object must have: all of them, and no other.
#[derive(Clone, Debug)]
pub struct Schema {
    fields: Vec<Field>,
}

/// One field of a [`Schema`].
#[derive(Clone, Debug)]
pub struct Field {
    /// Its key in the object.
    pub name: String,
    /// What it may hold.
    pub kind: Kind,
    /// Whether it may hold `null` instead.
    pub nullable: bool,
    /// What it means, for whoever reads the schema.
    pub description: Option<String>,
}

/// What a field may hold.
#[derive(Clone, Debug)]
pub enum Kind {
    /// One of these strings.
    Choice(Vec<String>),
    /// Any string, or one in which the regular expression is found.
    Text(Option<Regex>),
    /// A day that exists, as `YYYY-MM-DD`.
    Date,
    /// A whole number within bounds, both included.
    Integer {
        /// The smallest.
        minimum: Option<i64>,
        /// The largest.
        maximum: Option<i64>,
    },
    /// Any number.
    Number,
    /// `true` or `false`.
    Boolean,
}

/// A rule of a [`Schema`] that an object breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The field.
    pub field: String,
    /// What is wrong with it.
    pub problem: &'static str,
}

impl Schema {
    /// Reads a JSON schema.
    ///
    /// Understood: `properties`, each with `enum` (strings and `null`) or
    /// `type` (`string`, `integer`, `number`, `boolean`, or a list of one of
    /// them and `"null"`), `pattern`, `format: date`, `minimum`, `maximum`,
    /// `description`, `title`. Every property is required and no other is
    /// allowed: `required` and `additionalProperties` may say so, not otherwise.
    /// Any other keyword is an error, since it would not be checked.
    pub fn from_json(schema: &Value) -> Result<Self> {
        let map = object("schema", schema)?;
        let known = ["$schema", "title", "description", "type", "properties", "required"];
        only("schema", map, &[&known[..], &["additionalProperties"]].concat())?;
        if map.get("type").is_some_and(|kind| kind != "object") {
            return Err(bad("schema.type", "only `object` can be graded", None));
        }
        if map.get("additionalProperties").is_some_and(|more| more != &Value::Bool(false)) {
            let hint = "write `false`: the grader counts a field too many as an error";
            return Err(bad(
                "schema.additionalProperties",
                "only `false` is supported",
                Some(hint),
            ));
        }
        let properties = map.get("properties").unwrap_or(&Value::Null);
        let properties = object("schema.properties", properties)?;
        let fields: Vec<Field> =
            properties.iter().map(|(name, value)| field(name, value)).collect::<Result<_>>()?;
        if let Some(required) = map.get("required") {
            let listed = |field: &Field| {
                required.as_array().is_some_and(|all| all.iter().any(|one| *one == *field.name))
            };
            if let Some(field) = fields.iter().find(|field| !listed(field)) {
                let problem = format!("`{}` is missing: every property is required", field.name);
                let hint = "a field that may be empty is written as `null`: add it to its type";
                return Err(bad("schema.required", &problem, Some(hint)));
            }
        }
        Ok(Self { fields })
    }

    /// The schema as JSON Schema, as [`Schema::from_json`] reads it.
    pub fn to_json(&self) -> Value {
        let names: Vec<&String> = self.fields.iter().map(|field| &field.name).collect();
        let properties: Map<String, Value> =
            self.fields.iter().map(|field| (field.name.clone(), field.to_json())).collect();
        json!({
            "type": "object",
            "properties": properties,
            "required": names,
            "additionalProperties": false,
        })
    }

    /// The fields in order.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// Every rule that an object breaks; none if it is valid.
    pub fn violations(&self, object: &Map<String, Value>) -> Vec<Violation> {
        let mut violations = Vec::new();
        let mut broken = |field: &str, problem| {
            violations.push(Violation { field: field.to_owned(), problem });
        };
        for field in &self.fields {
            match object.get(&field.name) {
                None => broken(&field.name, "missing"),
                Some(value) => {
                    if let Some(problem) = field.problem(value) {
                        broken(&field.name, problem);
                    }
                }
            }
        }
        for name in object.keys() {
            if !self.fields.iter().any(|field| field.name == *name) {
                broken(name, "not in the schema");
            }
        }
        violations
    }
}

impl Field {
    fn problem(&self, value: &Value) -> Option<&'static str> {
        if value.is_null() {
            return (!self.nullable).then_some("null");
        }
        let (good, problem) = match &self.kind {
            Kind::Choice(choices) => {
                let known = |text: &str| choices.iter().any(|choice| choice == text);
                (value.as_str().is_some_and(known), "not one of the choices")
            }
            Kind::Text(None) => (value.is_string(), "not a string"),
            Kind::Text(Some(pattern)) => {
                let good = value.as_str().is_some_and(|text| pattern.is_match(text));
                (good, "not in the pattern")
            }
            Kind::Date => (value.as_str().is_some_and(is_date), "not a date"),
            Kind::Integer { minimum, maximum } => {
                let inside = |n: i64| {
                    minimum.is_none_or(|low| n >= low) && maximum.is_none_or(|high| n <= high)
                };
                (value.as_i64().is_some_and(inside), "not an integer within bounds")
            }
            Kind::Number => (value.is_number(), "not a number"),
            Kind::Boolean => (value.is_boolean(), "not a boolean"),
        };
        (!good).then_some(problem)
    }

    fn to_json(&self) -> Value {
        let mut map = Map::new();
        if let Some(description) = &self.description {
            map.insert("description".into(), json!(description));
        }
        let name = match &self.kind {
            Kind::Choice(choices) => {
                let mut values: Vec<Value> = choices.iter().map(|choice| json!(choice)).collect();
                values.extend(self.nullable.then_some(Value::Null));
                map.insert("enum".into(), json!(values));
                return Value::Object(map);
            }
            Kind::Text(_) | Kind::Date => "string",
            Kind::Integer { .. } => "integer",
            Kind::Number => "number",
            Kind::Boolean => "boolean",
        };
        let kind = if self.nullable { json!([name, "null"]) } else { json!(name) };
        map.insert("type".into(), kind);
        match &self.kind {
            Kind::Text(Some(pattern)) => {
                map.insert("pattern".into(), json!(pattern.as_str()));
            }
            Kind::Date => {
                map.insert("format".into(), json!("date"));
            }
            Kind::Integer { minimum, maximum } => {
                let bounds = [("minimum", minimum), ("maximum", maximum)];
                map.extend(
                    bounds.iter().filter_map(|(key, n)| n.map(|n| ((*key).into(), json!(n)))),
                );
            }
            Kind::Text(None) | Kind::Number | Kind::Boolean | Kind::Choice(_) => {}
        }
        Value::Object(map)
    }
}

fn field(name: &str, schema: &Value) -> Result<Field> {
    let place = format!("schema.properties.{name}");
    let map = object(&place, schema)?;
    let annotations = ["title", "description"];
    let description = map.get("description").and_then(Value::as_str).map(str::to_owned);
    if let Some(values) = map.get("enum") {
        only(&place, map, &[&annotations[..], &["enum", "type"]].concat())?;
        let (choices, nullable) = choices(&place, values)?;
        return Ok(Field {
            name: name.to_owned(),
            kind: Kind::Choice(choices),
            nullable,
            description,
        });
    }
    let (type_name, nullable) = type_of(&place, map.get("type"))?;
    let (kind, keywords): (Kind, &[&str]) = match type_name {
        "string" => (string(&place, map)?, &["type", "pattern", "format"]),
        "integer" => {
            let minimum = bound(&place, map, "minimum")?;
            let maximum = bound(&place, map, "maximum")?;
            (Kind::Integer { minimum, maximum }, &["type", "minimum", "maximum"])
        }
        "number" => (Kind::Number, &["type"]),
        "boolean" => (Kind::Boolean, &["type"]),
        other => {
            let problem = format!("`type: {other}` cannot be graded");
            let hint = "types: `string`, `integer`, `number`, `boolean`, one of them with `null`";
            return Err(bad(&place, &problem, Some(hint)));
        }
    };
    only(&place, map, &[&annotations[..], keywords].concat())?;
    Ok(Field { name: name.to_owned(), kind, nullable, description })
}

fn string(place: &str, map: &Map<String, Value>) -> Result<Kind> {
    match (map.get("format"), map.get("pattern")) {
        (None, None) => Ok(Kind::Text(None)),
        (Some(format), None) if format == "date" => Ok(Kind::Date),
        (None, Some(Value::String(pattern))) => match Regex::new(pattern) {
            Ok(regex) => Ok(Kind::Text(Some(regex))),
            Err(error) => Err(bad(&format!("{place}.pattern"), &error.to_string(), None)),
        },
        (Some(_), Some(_)) => {
            Err(bad(place, "`format` and `pattern` cannot both be checked", None))
        }
        (Some(format), None) => {
            let problem = format!("`format: {format}` cannot be checked");
            Err(bad(place, &problem, Some("write `format: date`, or a `pattern`")))
        }
        (None, Some(_)) => Err(bad(place, "`pattern` is not a string", None)),
    }
}

fn choices(place: &str, values: &Value) -> Result<(Vec<String>, bool)> {
    let place = format!("{place}.enum");
    let Some(values) = values.as_array() else {
        return Err(bad(&place, "not a list", None));
    };
    let mut choices = Vec::new();
    for value in values.iter().filter(|value| !value.is_null()) {
        match value.as_str() {
            Some(text) => choices.push(text.to_owned()),
            None => {
                return Err(bad(&place, &format!("`{value}` is neither a string nor null"), None));
            }
        }
    }
    let nullable = choices.len() < values.len();
    Ok((choices, nullable))
}

/// The name of a type and whether `null` is allowed beside it.
fn type_of<'a>(place: &str, kind: Option<&'a Value>) -> Result<(&'a str, bool)> {
    let hint = Some("write `type: string`, or `type: [string, \"null\"]`");
    match kind {
        Some(Value::String(name)) => Ok((name, false)),
        Some(Value::Array(names)) => {
            let others: Vec<&str> =
                names.iter().filter_map(Value::as_str).filter(|name| *name != "null").collect();
            match (others.as_slice(), names.len()) {
                ([name], 1) => Ok((name, false)),
                ([name], 2) => Ok((name, true)),
                _ => Err(bad(place, "more than one type beside `null`", hint)),
            }
        }
        _ => Err(bad(place, "has neither `type` nor `enum`", hint)),
    }
}

fn bound(place: &str, map: &Map<String, Value>, key: &str) -> Result<Option<i64>> {
    match map.get(key) {
        None => Ok(None),
        Some(value) => match value.as_i64() {
            Some(number) => Ok(Some(number)),
            None => Err(bad(&format!("{place}.{key}"), "not a whole number", None)),
        },
    }
}

fn object<'a>(place: &str, value: &'a Value) -> Result<&'a Map<String, Value>> {
    value.as_object().ok_or_else(|| bad(place, "not an object", None))
}

fn only(place: &str, map: &Map<String, Value>, known: &[&str]) -> Result<()> {
    match map.keys().find(|key| !known.contains(&key.as_str())) {
        None => Ok(()),
        Some(key) => {
            let hint = format!("understood here: {}", known.join(", "));
            Err(bad(place, &format!("`{key}` cannot be checked"), Some(&hint)))
        }
    }
}

fn bad(place: &str, problem: &str, hint: Option<&str>) -> Error {
    let hint = hint.map(str::to_owned);
    Error::Schema { place: place.to_owned(), problem: problem.to_owned(), hint }
}

/// Whether a text is a day of the Gregorian calendar as `YYYY-MM-DD`.
fn is_date(text: &str) -> bool {
    let bytes = text.as_bytes();
    let shape = |(index, byte): (usize, &u8)| match index {
        4 | 7 => *byte == b'-',
        _ => byte.is_ascii_digit(),
    };
    if bytes.len() != 10 || !bytes.iter().enumerate().all(shape) {
        return false;
    }
    let number = |range: std::ops::Range<usize>| {
        bytes[range].iter().fold(0_u32, |n, byte| n * 10 + u32::from(byte - b'0'))
    };
    let (year, month, day) = (number(0..4), number(5..7), number(8..10));
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        1..=12 => 31,
        _ => 0,
    };
    (1..=days).contains(&day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Value {
        json!({
            "type": "object",
            "properties": {
                "kind": {"description": "what it is", "enum": ["a", "b", null]},
                "order": {"type": ["string", "null"], "pattern": "^[A-Z]-[0-9]{5}$"},
                "day": {"type": "string", "format": "date"},
                "count": {"type": "integer", "minimum": 1, "maximum": 9},
                "price": {"type": "number"},
                "open": {"type": "boolean"},
                "note": {"type": "string"},
            },
            "required": ["kind", "order", "day", "count", "price", "open", "note"],
            "additionalProperties": false,
        })
    }

    #[test]
    fn a_schema_is_written_as_it_was_read() {
        let schema = Schema::from_json(&sample()).expect("a good schema");
        assert_eq!(schema.to_json(), sample());
    }

    /// The fields that break a rule when `change` is laid over a valid object.
    #[track_caller]
    fn check(change: Value, broken: &[&str]) {
        let schema = Schema::from_json(&sample()).expect("a good schema");
        let mut object = json!({"kind": "a", "order": "K-20931", "day": "2024-02-29", "count": 1,
            "price": 2.5, "open": true, "note": ""});
        let object = object.as_object_mut().expect("an object");
        object.extend(change.as_object().expect("an object").clone());
        let violations = schema.violations(object);
        let fields: Vec<&str> = violations.iter().map(|v| v.field.as_str()).collect();
        assert_eq!(fields, broken, "{change}");
    }

    #[test]
    fn objects_are_checked() {
        check(json!({}), &[]);
        check(json!({"kind": null, "order": null}), &[]);
        check(json!({"kind": "c", "order": "K-2093", "day": null}), &["kind", "order", "day"]);
        check(
            json!({"kind": "A", "order": "xK-20931", "day": "2025-02-29"}),
            &["kind", "order", "day"],
        );
        check(json!({"day": "2025-13-01"}), &["day"]);
        check(json!({"day": "2025-3-01"}), &["day"]);
        check(json!({"day": "2025-04-31"}), &["day"]);
        check(json!({"count": 9, "price": 3, "open": false}), &[]);
        check(json!({"count": 10, "price": "3", "open": "false"}), &["count", "price", "open"]);
        check(json!({"count": 1.5, "note": 3, "more": 1}), &["count", "note", "more"]);
    }

    #[test]
    fn a_missing_field_is_named() {
        let schema = Schema::from_json(&sample()).expect("a good schema");
        let violations = schema.violations(&Map::new());
        assert_eq!(violations.len(), 7);
        assert_eq!(violations[0], Violation { field: "kind".into(), problem: "missing" });
    }

    #[track_caller]
    fn refused(schema: Value, message: &str) {
        let error = Schema::from_json(&schema).expect_err("a bad schema");
        assert_eq!(error.to_string(), message);
    }

    #[test]
    fn what_cannot_be_checked_is_refused() {
        let property = |field: Value| json!({"properties": {"f": field}});
        refused(json!([]), "schema: not an object");
        refused(json!({}), "schema.properties: not an object");
        refused(json!({"oneOf": []}), "schema: `oneOf` cannot be checked");
        refused(property(json!({})), "schema.properties.f: has neither `type` nor `enum`");
        refused(
            property(json!({"type": "array"})),
            "schema.properties.f: `type: array` cannot be graded",
        );
        refused(
            property(json!({"type": ["string", "integer"]})),
            "schema.properties.f: more than one type beside `null`",
        );
        refused(
            property(json!({"type": "string", "format": "email"})),
            "schema.properties.f: `format: \"email\"` cannot be checked",
        );
        refused(
            property(json!({"type": "integer", "multipleOf": 2})),
            "schema.properties.f: `multipleOf` cannot be checked",
        );
        refused(
            property(json!({"enum": [1]})),
            "schema.properties.f.enum: `1` is neither a string nor null",
        );
        refused(
            json!({"properties": {"f": {"type": "number"}}, "required": []}),
            "schema.required: `f` is missing: every property is required",
        );
        refused(
            json!({"properties": {}, "additionalProperties": true}),
            "schema.additionalProperties: only `false` is supported",
        );
    }
}
