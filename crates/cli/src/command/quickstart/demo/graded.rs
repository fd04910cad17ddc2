//! The quickstart's tickets under the quickstart's grader.

use eval::compare::{Arm, Comparison};
use eval::floor;
use eval::grader::{Grader as _, Json, Schema};
use eval::metric::Metrics;
use serde_json::Value;

use super::super::demo;

fn grader() -> Json {
    Json::new(Schema::from_json(&demo::schema()).expect("the demo's schema can be graded"))
}

fn tickets(rows: &[demo::Example]) -> Vec<Value> {
    rows.iter().map(|row| Value::Object(row.ticket.clone())).collect()
}

#[test]
fn every_ticket_is_valid_and_equal_to_itself() {
    let demo = demo::generate(1, 700, 200);
    for row in demo.train.iter().chain(&demo.test).chain(&demo::shots()) {
        let grades = grader().grade(&row.answer(), &Value::Object(row.ticket.clone()));
        assert!(grades.iter().all(|(_, value)| value == 1.0), "{}: {grades:?}", row.answer());
        assert_eq!(grades.iter().count(), 5 + 8);
    }
}

#[test]
fn the_schema_is_read_and_written() {
    let schema = Schema::from_json(&demo::schema()).expect("can be graded");
    let names = schema.fields().iter().map(|field| field.name.as_str());
    let ticket = &demo::shots()[0].ticket;
    assert!(names.eq(ticket.keys().map(String::as_str)), "fields stand in the ticket's order");
    assert!(Schema::from_json(&schema.to_json()).is_ok());
}

#[test]
fn guessing_stays_below_and_knowing_is_clear_of_it() {
    let demo = demo::generate(1, 700, 200);
    let expected = tickets(&demo.test);
    let guess = floor::most_common(demo.train.iter().map(|row| &row.ticket));
    let floor = Metrics::of(&floor::grade(&grader(), &guess, &expected), 1);
    let fields_exact = floor.get("fields_exact").expect("graded");
    assert!(fields_exact.high < 0.45, "{fields_exact:?}");
    assert_eq!(floor.get("schema_valid").expect("graded").mean, 1.0);

    let arm = |name: &str, answers| Arm::new(name, &[30; 200], answers, &expected, &grader(), 1);
    let right = arm("tuned", demo.test.iter().map(demo::Example::answer).collect());
    let wrong = arm("base", vec!["I am sorry to hear that.".to_owned(); 200]);
    let comparison = Comparison { arms: vec![wrong, right], floor, rows: 200 };
    assert!(comparison.is_clear("tuned", "fields_exact"));
    assert!(!comparison.is_clear("base", "fields_exact"));
}
