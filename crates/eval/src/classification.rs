//! How well a classifier does: accuracy, macro F1, and precision, recall and F1 of every class.

use std::fmt;

use serde::Serialize;

use crate::interval::{Interval, bootstrap_of};

/// A row: the class that it has and the class that it was given, as indices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct Classified {
    /// The class that the row has.
    pub label: u32,
    /// The class that the model gave it.
    pub predicted: u32,
}

/// How a class does.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClassFigures {
    /// Its name.
    pub class: String,
    /// Share of the rows given this class that have it; 0 where none was given it.
    pub precision: f64,
    /// Share of the rows of this class that were given it; 0 where none has it.
    pub recall: f64,
    /// Harmonic mean of precision and recall: 2·TP / (2·TP + FP + FN); 0 where the class does not occur.
    pub f1: f64,
    /// Rows that have it.
    pub support: usize,
}

/// A classifier on labelled rows.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Rows.
    pub rows: usize,
    /// Share of the rows that were given their class.
    pub accuracy: Interval,
    /// Mean F1 of the classes that occur, among labels or predictions.
    pub macro_f1: Interval,
    /// Every class, in the model's order.
    pub classes: Vec<ClassFigures>,
}

/// Of a class: rows that have it and were given it, rows that were given it, rows that have it.
#[derive(Clone, Copy, Default)]
struct Counts {
    hits: usize,
    given: usize,
    support: usize,
}

impl Counts {
    fn f1(self) -> f64 {
        share(2 * self.hits, self.given + self.support)
    }
}

fn share(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

fn counts(rows: impl Iterator<Item = Classified>, classes: usize) -> Vec<Counts> {
    let mut counts = vec![Counts::default(); classes];
    for Classified { label, predicted } in rows {
        counts[label as usize].support += 1;
        counts[predicted as usize].given += 1;
        counts[label as usize].hits += usize::from(label == predicted);
    }
    counts
}

fn mean_f1(counts: &[Counts]) -> f64 {
    let occurring = counts.iter().filter(|class| class.given + class.support > 0);
    let (sum, classes) = occurring.fold((0.0, 0), |(sum, n), class| (sum + class.f1(), n + 1));
    if classes == 0 { 0.0 } else { sum / f64::from(classes) }
}

/// The unweighted mean of the F1 of all classes that occur, among labels or predictions, as scikit-learn's
/// `f1_score(average="macro")` has it.
///
/// # Panics
/// If a class is not one of `classes`.
pub fn macro_f1(rows: &[Classified], classes: usize) -> f64 {
    mean_f1(&counts(rows.iter().copied(), classes))
}

/// All figures of rows, with bootstrap intervals of accuracy and macro F1. None without rows.
///
/// # Panics
/// If a row has a class beyond the names.
pub fn report(rows: &[Classified], names: &[String], seed: u64) -> Option<Report> {
    if rows.is_empty() {
        return None;
    }
    let right = |row: &Classified| row.label == row.predicted;
    let count = rows.len();
    let accuracy = bootstrap_of(count, seed, |drawn| {
        share(drawn.filter(|&row| right(&rows[row])).count(), count)
    });
    let macro_f1 = bootstrap_of(count, seed, |drawn| {
        mean_f1(&counts(drawn.map(|row| rows[row]), names.len()))
    });
    let figures = |(class, counts): (&String, Counts)| ClassFigures {
        class: class.clone(),
        precision: share(counts.hits, counts.given),
        recall: share(counts.hits, counts.support),
        f1: counts.f1(),
        support: counts.support,
    };
    let by_class = counts(rows.iter().copied(), names.len());
    let classes = names.iter().zip(by_class).map(figures).collect();
    Some(Report { rows: count, accuracy, macro_f1, classes })
}

/// Two lines, then a table with a line a class.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, Interval { mean, low, high }) in
            [("accuracy", self.accuracy), ("macro F1", self.macro_f1)]
        {
            writeln!(
                f,
                "{name}    {mean:.3}, interval {low:.3} to {high:.3}, over {} rows",
                self.rows
            )?;
        }
        let wide = self.classes.iter().map(|class| class.class.chars().count());
        let wide = wide.max().unwrap_or(0).max("class".len());
        writeln!(f, "{:wide$}  precision  recall     F1  support", "class")?;
        for ClassFigures { class, precision, recall, f1, support } in &self.classes {
            writeln!(f, "{class:wide$}  {precision:>9.3}  {recall:>6.3}  {f1:>5.3}  {support:>7}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(labels: &[u32], predicted: &[u32]) -> Vec<Classified> {
        let row = |(&label, &predicted)| Classified { label, predicted };
        labels.iter().zip(predicted).map(row).collect()
    }

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|index| format!("class {index}")).collect()
    }

    #[track_caller]
    fn near(actual: f64, expected: f64, tolerance: f64) {
        assert!((actual - expected).abs() <= tolerance, "got {actual}, expected {expected}");
    }

    /// The example of scikit-learn's `classification_report`, to the digits that its docs print.
    #[test]
    fn figures_are_those_of_scikit_learn() {
        let rows = rows(&[0, 1, 2, 2, 2], &[0, 0, 2, 2, 1]);
        let report = report(&rows, &names(3), 1).unwrap();
        let expected = [(0.50, 1.00, 0.67, 1), (0.00, 0.00, 0.00, 1), (1.00, 0.67, 0.80, 3)];
        for (class, (precision, recall, f1, support)) in report.classes.iter().zip(expected) {
            near(class.precision, precision, 0.005);
            near(class.recall, recall, 0.005);
            near(class.f1, f1, 0.005);
            assert_eq!(class.support, support);
        }
        near(report.accuracy.mean, 0.60, 1e-12);
        near(report.macro_f1.mean, 0.49, 0.005);
    }

    /// The example of scikit-learn's `f1_score`.
    #[test]
    fn macro_f1_is_that_of_scikit_learn() {
        let rows = rows(&[0, 1, 2, 0, 1, 2], &[0, 2, 1, 0, 0, 1]);
        near(macro_f1(&rows, 3), 0.8 / 3.0, 1e-12);
        // A class that does not occur is not counted.
        near(macro_f1(&rows, 5), 0.8 / 3.0, 1e-12);
    }

    #[test]
    fn whoever_is_always_right_leaves_no_doubt() {
        let rows = rows(&[0, 1, 1, 0, 1], &[0, 1, 1, 0, 1]);
        let report = report(&rows, &names(2), 3).unwrap();
        let all = Interval { mean: 1.0, low: 1.0, high: 1.0 };
        assert_eq!((report.accuracy, report.macro_f1), (all, all));
        assert!(super::report(&[], &names(2), 3).is_none());
    }

    #[test]
    fn accuracy_has_the_interval_of_a_mean() {
        let rows = rows(&[0, 1, 0, 1, 0, 1, 0, 1], &[0, 1, 0, 0, 1, 1, 0, 0]);
        let right: Vec<f64> =
            rows.iter().map(|row| f64::from(u8::from(row.label == row.predicted))).collect();
        let report = report(&rows, &names(2), 7).unwrap();
        assert_eq!(report.accuracy, crate::interval::bootstrap(&right, 7));
        assert!(report.macro_f1.low < report.macro_f1.mean);
        assert!(report.macro_f1.mean < report.macro_f1.high);
    }

    #[test]
    fn a_report_is_a_small_table() {
        let rows = rows(&[0, 1], &[0, 0]);
        let names = ["calm".to_owned(), "a long name".to_owned()];
        let text = report(&rows, &names, 1).unwrap().to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[0].starts_with("accuracy    0.500, interval 0.000 to 1.000, over 2 rows"),
            "{text}"
        );
        assert_eq!(lines[2], "class        precision  recall     F1  support");
        assert_eq!(lines[3], "calm             0.500   1.000  0.667        1");
        assert_eq!(lines[4], "a long name      0.000   0.000  0.000        1");
    }
}
