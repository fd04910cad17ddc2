//! The grades of many answers, summed up.

use serde::ser::{Serialize, SerializeMap as _, Serializer};

use crate::grader::Grades;
use crate::interval::{Interval, bootstrap};

/// A mean with its interval for every metric, in the grader's order.
///
/// As JSON: `{"json_valid": {"mean": ..., "low": ..., "high": ...}, ...}`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics(Vec<(String, Interval)>);

impl Metrics {
    /// Sums up the grades of a task's answers; `seed` is for the resampling.
    ///
    /// A metric that only some rows have (their own fields) is the mean over those.
    pub fn of(grades: &[Grades], seed: u64) -> Self {
        let mut columns: Vec<(String, Vec<f64>)> = Vec::new();
        for (name, value) in grades.iter().flat_map(Grades::iter) {
            match columns.iter_mut().find(|(known, _)| known == name) {
                Some((_, values)) => values.push(value),
                None => columns.push((name.to_owned(), vec![value])),
            }
        }
        Self(columns.into_iter().map(|(name, values)| (name, bootstrap(&values, seed))).collect())
    }

    /// The interval of a metric.
    pub fn get(&self, name: &str) -> Option<Interval> {
        self.iter().find(|(known, _)| *known == name).map(|(_, interval)| interval)
    }

    /// Metrics and intervals in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Interval)> {
        self.0.iter().map(|(name, interval)| (name.as_str(), *interval))
    }
}

impl Serialize for Metrics {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, interval) in self.iter() {
            map.serialize_entry(name, &interval)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grades(pairs: &[(&str, f64)]) -> Grades {
        let mut grades = Grades::default();
        for (name, value) in pairs {
            grades.insert(*name, *value);
        }
        grades
    }

    #[test]
    fn metrics_are_means_by_name() {
        let rows =
            [grades(&[("b", 1.0), ("a", 0.0)]), grades(&[("b", 1.0), ("a", 1.0), ("c", 0.25)])];
        let metrics = Metrics::of(&rows, 1);
        let means: Vec<_> = metrics.iter().map(|(name, interval)| (name, interval.mean)).collect();
        assert_eq!(means, [("b", 1.0), ("a", 0.5), ("c", 0.25)]);
    }

    #[test]
    fn json_has_the_promised_shape() {
        let metrics = Metrics::of(&[grades(&[("json_valid", 1.0)])], 1);
        let text = serde_json::to_string(&metrics).expect("serialises");
        assert_eq!(text, r#"{"json_valid":{"mean":1.0,"low":1.0,"high":1.0}}"#);
    }

    #[test]
    fn no_rows_have_no_metrics() {
        assert_eq!(Metrics::of(&[], 1), Metrics::default());
    }
}
