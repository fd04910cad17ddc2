//! The classes of the rows, and rows that a classifier cannot learn from.

use std::collections::BTreeMap;

use data::{Place, Sequences};
use keys::{Document, Settings as _, Value};

use super::{CLASS_WEIGHTS, CLASSES, WEIGHTS, label_of};
use crate::{Error, Result};

/// A class of the rows.
struct Found {
    rows: usize,
    /// The first row that has it.
    first: Place,
}

/// Refuses classes and weights that contradict each other.
pub(super) fn check(document: &Document) -> Result<()> {
    let classes = document.opt_strs(CLASSES).unwrap_or_default();
    for (index, class) in classes.iter().enumerate() {
        if class.trim() != *class || class.is_empty() || classes[..index].contains(class) {
            let message = format!("`{class}` is empty, has space around it or stands there twice");
            let hint = "list every class once, as the rows have it".to_owned();
            return Err(Error::Recipe(document.problem(CLASSES, message, Some(hint)).into()));
        }
    }
    check_weights(document)
}

fn check_weights(document: &Document) -> Result<()> {
    let classes = document.opt_items(CLASSES).map(<[Value]>::len);
    let weights = document.opt_items(WEIGHTS).map(<[Value]>::len);
    match (classes, weights) {
        (Some(classes), Some(weights)) if classes != weights => {
            let message = format!("{weights} weights for {classes} classes");
            let hint = "give one a class, in the order of `objective.classes`".to_owned();
            Err(Error::Recipe(document.problem(WEIGHTS, message, Some(hint)).into()))
        }
        _ => Ok(()),
    }
}

/// Fills in the classes of the training rows, and their weights.
pub(super) fn fill(document: &mut Document, train: &Sequences) -> Result<()> {
    let found = classes(train)?;
    if document.opt_strs(CLASSES).is_none() {
        if let [(class, found)] = &found.iter().collect::<Vec<_>>()[..] {
            return Err(Error::refused(
                format!("{}: the label `{class}` is that of every training row", found.first),
                "a classifier needs rows of two classes or more",
            ));
        }
        let names: Vec<Value> = sorted(&found).into_iter().map(Value::from).collect();
        document.fill(CLASSES, Value::List(names), "the labels of the training rows");
    }
    check_weights(document)?;
    if document.get_str(CLASS_WEIGHTS) == "balanced" && document.opt_items(WEIGHTS).is_none() {
        let classes = document.opt_strs(CLASSES).unwrap_or_default();
        let rows: usize = found.values().map(|found| found.rows).sum();
        let mut weights = Vec::with_capacity(classes.len());
        for class in &classes {
            let Some(Found { rows: own, .. }) = found.get(*class) else {
                let message = format!(
                    "no training row has the class `{class}`, which so has no balanced weight"
                );
                let hint = "give it rows, leave it out of `objective.classes`, or list `objective.weights`";
                let problem = document.problem(CLASS_WEIGHTS, message, Some(hint.to_owned()));
                return Err(Error::Recipe(problem.into()));
            };
            weights.push(Value::from(rows as f64 / (classes.len() * own) as f64));
        }
        document.fill(WEIGHTS, Value::List(weights), "rows / (classes x rows of the class)");
    }
    Ok(())
}

/// Names in order: as numbers where all are whole numbers.
fn sorted(found: &BTreeMap<String, Found>) -> Vec<&str> {
    let mut names: Vec<&str> = found.keys().map(String::as_str).collect();
    let numbers: Option<Vec<i64>> = names.iter().map(|name| name.parse().ok()).collect();
    if numbers.is_some() {
        names.sort_by_key(|name| name.parse::<i64>().unwrap_or(0));
    }
    names
}

fn classes(rows: &Sequences) -> Result<BTreeMap<String, Found>> {
    let mut found: BTreeMap<String, Found> = BTreeMap::new();
    for chunk in rows.chunks(1024) {
        for unit in chunk? {
            let place = &unit.sequences[0].place;
            let Some(label) = label_of(&unit.side) else {
                let hint = "give every row a `label`";
                return Err(Error::refused(format!("{place}: the row has no label"), hint));
            };
            match found.get_mut(label) {
                Some(known) => known.rows += 1,
                None => {
                    let first = place.clone();
                    found.insert(label.to_owned(), Found { rows: 1, first });
                }
            }
        }
    }
    Ok(found)
}

/// Refuses labels that are none of the classes, and validation labels that no training row has.
pub(super) fn check_rows(
    document: &Document,
    train: &Sequences,
    validation: &Sequences,
) -> Result<()> {
    let names = document.opt_strs(CLASSES).unwrap_or_default();
    let trained = classes(train)?;
    for (label, Found { first, .. }) in &trained {
        if !names.contains(&label.as_str()) {
            let message = format!("{first}: the label `{label}` is not one of `{CLASSES}`");
            return Err(Error::refused(message, "correct the label, or add it to the classes"));
        }
    }
    for (label, Found { first, .. }) in &classes(validation)? {
        if !trained.contains_key(label) {
            return Err(Error::refused(
                format!("{first}: no training row has the label `{label}` of this validation row"),
                "add training rows of the class, or keep the shares of all classes with \
                 `data.validation.stratify: label`",
            ));
        }
    }
    Ok(())
}
