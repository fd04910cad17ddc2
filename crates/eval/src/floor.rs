//! The trivial floor: what somebody scores who never reads the message.

use serde_json::{Map, Value};

use crate::grader::{Grader, Grades};

/// The most common value of every field among objects; of equally common ones
/// the first seen.
///
/// Take it from the *training* answers: the test rows are not to be looked at.
pub fn most_common<'a>(
    objects: impl IntoIterator<Item = &'a Map<String, Value>>,
) -> Map<String, Value> {
    let mut fields: Vec<(&str, Vec<(&Value, usize)>)> = Vec::new();
    for (name, value) in objects.into_iter().flatten() {
        let index = fields.iter().position(|(known, _)| known == name).unwrap_or_else(|| {
            fields.push((name, Vec::new()));
            fields.len() - 1
        });
        let counts = &mut fields[index].1;
        match counts.iter_mut().find(|(known, _)| *known == value) {
            Some((_, count)) => *count += 1,
            None => counts.push((value, 1)),
        }
    }
    let most = |counts: Vec<(&Value, usize)>| {
        let most = counts.iter().map(|(_, count)| *count).max().unwrap_or(0);
        counts.into_iter().find(|(_, count)| *count == most).map(|(value, _)| value.clone())
    };
    fields.into_iter().filter_map(|(name, counts)| Some((name.to_owned(), most(counts)?))).collect()
}

/// Grades one fixed answer on every row.
pub fn grade(grader: &dyn Grader, answer: &Map<String, Value>, expected: &[Value]) -> Vec<Grades> {
    let answer = Value::Object(answer.clone()).to_string();
    expected.iter().map(|expected| grader.grade(&answer, expected)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::grader::Json;
    use crate::metric::Metrics;

    #[test]
    fn the_floor_guesses_the_commonest() {
        let rows = [
            json!({"mood": "good", "order": null, "open": true}),
            json!({"mood": "bad", "order": "A-1", "open": false}),
            json!({"mood": "bad", "order": null, "open": true}),
        ];
        let answer = most_common(rows.iter().filter_map(Value::as_object));
        assert_eq!(
            Value::Object(answer.clone()),
            json!({"mood": "bad", "order": null, "open": true})
        );
        let metrics = Metrics::of(&grade(&Json::untyped(), &answer, &rows), 1);
        let mean = metrics.get("fields_exact").expect("graded").mean;
        assert!((mean - 6.0 / 9.0).abs() < 1e-12, "{mean}");
    }

    #[test]
    fn a_tie_goes_to_the_first() {
        let rows = [json!({"a": 2}), json!({"a": 1})];
        let answer = most_common(rows.iter().filter_map(Value::as_object));
        assert_eq!(Value::Object(answer), json!({"a": 2}));
    }
}
