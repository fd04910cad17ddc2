//! What is read off a run.

use serde_json::{Value, json};

use super::runner::Output;

/// What a comparison counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// Training rows.
    RowsPerSecond,
    /// Tokens.
    TokensPerSecond,
    /// Waiting: less is better.
    Seconds,
}

impl Unit {
    /// As it stands in a table.
    pub(super) fn name(self) -> &'static str {
        match self {
            Unit::RowsPerSecond => "rows/s",
            Unit::TokensPerSecond => "tokens/s",
            Unit::Seconds => "s",
        }
    }

    /// How many times as fast the first is.
    pub(super) fn ratio(self, figure: f64, other: f64) -> f64 {
        if self == Unit::Seconds { other / figure } else { figure / other }
    }

    /// Three significant digits, or a whole number.
    pub(super) fn show(self, figure: f64) -> String {
        match figure {
            _ if figure >= 100.0 => format!("{figure:.0}"),
            _ if figure >= 10.0 => format!("{figure:.1}"),
            _ if figure >= 1.0 => format!("{figure:.2}"),
            _ => format!("{figure:.3}"),
        }
    }
}

/// Where a figure stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// In this field of the result.
    Field(&'static str),
    /// `tokens_per_s` of the row of `tunesmith bench` with this part.
    BenchRow(&'static str),
    /// On the clock of who waits for the process.
    Wall,
}

/// What one run has shown.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Figures {
    /// In the unit of the comparison.
    pub(super) figure: f64,
    /// Most memory held at a time.
    pub(super) peak_bytes: Option<u64>,
    /// All that the run said.
    pub(super) result: Value,
}

impl Reading {
    /// Reads a run's figure and memory.
    pub(super) fn of(self, output: Output) -> Result<Figures, String> {
        let Output { mut result, wall, peak_bytes } = output;
        let figure = match self {
            Reading::Field(name) => result[name].as_f64(),
            Reading::BenchRow(part) => bench_row(&result, part)["tokens_per_s"].as_f64(),
            Reading::Wall => Some(wall.as_secs_f64()),
        };
        let figure = figure.filter(|figure| figure.is_finite() && *figure > 0.0);
        let figure = figure.ok_or_else(|| match self {
            Reading::Field(name) => format!("its last line has no `{name}`"),
            _ => "its last line has no `tokens_per_s`".to_owned(),
        })?;
        let row = match self {
            Reading::BenchRow(part) => bench_row(&result, part),
            Reading::Field(_) | Reading::Wall => &result,
        };
        // A run knows better which memory was of the work, and of its last moments.
        let peak_bytes = row["peak_host_bytes"].as_u64().or(peak_bytes);
        if result.is_null() {
            result = json!({});
        }
        result["wall_s"] = wall.as_secs_f64().into();
        Ok(Figures { figure, peak_bytes, result })
    }
}

/// The row of a part, or null.
pub(super) fn bench_row<'a>(result: &'a Value, part: &str) -> &'a Value {
    let rows = result["rows"].as_array();
    let found = rows.and_then(|rows| rows.iter().find(|row| row["part"] == part));
    found.unwrap_or(&Value::Null)
}

/// The middle one of an odd number, the mean of the middle two of an even one.
pub(super) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        count if count % 2 == 1 => Some(sorted[middle]),
        _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0]), Some(2.5));
    }

    #[test]
    fn faster_is_more_than_one() {
        assert_eq!(Unit::RowsPerSecond.ratio(6.0, 2.0), 3.0);
        assert_eq!(Unit::Seconds.ratio(2.0, 6.0), 3.0);
    }

    fn read(reading: Reading, result: Value) -> Result<Figures, String> {
        let wall = Duration::from_secs(2);
        reading.of(Output { result, wall, peak_bytes: Some(5) })
    }

    #[test]
    fn a_figure_is_found_where_it_stands() {
        let figures = read(Reading::Field("rows_per_s"), json!({"rows_per_s": 3})).unwrap();
        assert_eq!((figures.figure, figures.peak_bytes), (3.0, Some(5)));
        assert_eq!(figures.result["wall_s"], 2.0);
        let rows = json!({"rows": [
            {"part": "gemm", "tokens_per_s": 1.0},
            {"part": "train", "tokens_per_s": 7.5, "peak_host_bytes": 9},
        ]});
        let figures = read(Reading::BenchRow("train"), rows).unwrap();
        assert_eq!((figures.figure, figures.peak_bytes), (7.5, Some(9)));
        assert_eq!(read(Reading::Wall, Value::Null).unwrap().figure, 2.0);
    }

    #[test]
    fn a_missing_figure_is_named() {
        let error = read(Reading::Field("rows_per_s"), json!({"rows_per_s": null})).unwrap_err();
        assert_eq!(error, "its last line has no `rows_per_s`");
        let error = read(Reading::BenchRow("decode"), json!({"rows": []})).unwrap_err();
        assert_eq!(error, "its last line has no `tokens_per_s`");
    }
}
