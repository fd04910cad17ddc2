//! Kappas against scikit-learn, statsmodels and published examples.

use eval::agreement::{Agreement, cohen_kappa, fleiss_kappa};
use serde_json::Value;

const GOLDEN: &str = include_str!("../golden/agreement.json");

#[track_caller]
fn near(got: f64, expected: &Value, tolerance: f64, what: &str) {
    let expected = expected.as_f64().expect("a number");
    assert!((got - expected).abs() <= tolerance, "{what}: got {got}, expected {expected}");
}

/// Rows of whole numbers.
fn rows(value: &Value) -> Vec<Vec<usize>> {
    serde_json::from_value(value.clone()).expect("rows of whole numbers")
}

fn check(case: &Value, agreement: Agreement) {
    let name = case["case"].as_str().expect("a name");
    let kappa = agreement.kappa.expect("defined");
    near(kappa.mean, &case["kappa"], 1e-9, name);
    near(kappa.low, &case["low"], 1e-9, name);
    near(kappa.high, &case["high"], 1e-9, name);
    if let Some(published) = case["published"].as_f64() {
        assert!((kappa.mean - published).abs() < 6e-4, "{name}: {} and {published}", kappa.mean);
    }
}

#[test]
fn cohens_kappa_is_that_of_other_packages() {
    let golden: Value = serde_json::from_str(GOLDEN).expect("JSON");
    for case in golden["cohen"].as_array().expect("cases") {
        let table = rows(&case["table"]);
        let mut ratings = Vec::new();
        for (a, row) in table.iter().enumerate() {
            for (b, &count) in row.iter().enumerate() {
                ratings.extend(vec![(a, b); count]);
            }
        }
        check(case, cohen_kappa(&ratings).expect("items"));
    }
}

#[test]
fn fleiss_kappa_is_that_of_other_packages() {
    let golden: Value = serde_json::from_str(GOLDEN).expect("JSON");
    for case in golden["fleiss"].as_array().expect("cases") {
        check(case, fleiss_kappa(&rows(&case["counts"])).expect("items"));
    }
}

#[test]
fn one_item_says_nothing_of_a_kappa() {
    // Two raters agree on one item; the others have one rating each.
    let mut counts = vec![vec![2, 0]];
    counts.extend((0..10).map(|item| if item % 2 == 0 { vec![1, 0] } else { vec![0, 1] }));
    let fleiss = eval::agreement::fleiss_kappa(&counts).unwrap();
    let cohen = eval::agreement::cohen_kappa(&[(0, 1)]).unwrap();
    for agreement in [fleiss, cohen] {
        let kappa = agreement.kappa.unwrap();
        assert!(kappa.high - kappa.low > 1.0, "{agreement:?}");
    }
}
