use std::collections::BTreeMap;

use data::audit::{AuditText, Sketch, duplicates};

use super::calendar::{Day, forms};
use super::phrases::ALL;
use super::ticket::{CATEGORIES, PRIORITIES, PRODUCTS, REPLIES, SENTIMENTS};
use super::*;

/// Values and how often they occur, for every field.
fn counts(rows: &[Example]) -> BTreeMap<&str, BTreeMap<String, usize>> {
    let mut counts: BTreeMap<&str, BTreeMap<String, usize>> = BTreeMap::new();
    for (name, value) in rows.iter().flat_map(|row| &row.ticket) {
        *counts.entry(name).or_default().entry(value.to_string()).or_default() += 1;
    }
    counts
}

#[test]
fn the_seed_decides() {
    let demo = generate(7, 40, 20);
    assert_eq!(demo, generate(7, 40, 20));
    assert_ne!(demo.train, generate(8, 40, 20).train);
    assert_eq!(demo.train[..30], generate(7, 30, 5).train);
    assert_eq!(demo.test[..5], generate(7, 30, 5).test);
}

#[test]
fn no_test_pattern_is_trained_on() {
    let patterns = |split, count| -> BTreeSet<&str> {
        (0..count).flat_map(|index| example(1, split, index).1).collect()
    };
    let (train, test) = (patterns(Split::Train, 2000), patterns(Split::Test, 1000));
    assert!(train.is_disjoint(&test), "{:?}", train.intersection(&test).collect::<Vec<_>>());
    let written = |split| ALL.iter().map(|pool| pool.of(split).len()).sum::<usize>();
    assert_eq!((train.len(), test.len()), (written(Split::Train), written(Split::Test)));
    assert!(train.len() > 230 && test.len() > 100, "{} and {}", train.len(), test.len());
}

#[test]
fn no_pattern_is_written_twice() {
    let both = [Split::Train, Split::Test];
    let mut all: Vec<String> = ALL
        .iter()
        .flat_map(|pool| both.map(|split| pool.of(split)))
        .flatten()
        .map(|pattern| pattern.to_lowercase().replace(['.', '!', ','], ""))
        .collect();
    let count = all.len();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), count);
}

#[test]
fn messages_differ() {
    let demo = generate(3, 1500, 500);
    let mut messages: Vec<&str> =
        demo.train.iter().chain(&demo.test).map(|row| row.message.as_str()).collect();
    assert_eq!(messages.len(), 2000);
    messages.sort_unstable();
    messages.dedup();
    assert_eq!(messages.len(), 2000);
}

#[test]
fn every_value_appears() {
    let demo = generate(1, 700, 200);
    for (rows, split) in [(&demo.train, "train"), (&demo.test, "test")] {
        let counts = counts(rows);
        let check = |field: &str, values: &[&str]| {
            for value in values {
                let seen = counts[field].get(&format!("\"{value}\""));
                assert!(seen.is_some_and(|seen| *seen >= 5), "{split}: {field} = {value}");
            }
        };
        check("category", &CATEGORIES);
        check("product", &PRODUCTS.map(|product| product.name));
        check("priority", &PRIORITIES);
        check("sentiment", &SENTIMENTS);
        check("reply", &REPLIES);
        for field in ["product", "order", "date"] {
            assert!(counts[field]["null"] >= 10, "{split}: {field}");
        }
        assert_eq!(counts["refund"].len(), 2, "{split}");
    }
}

#[test]
fn guessing_does_not_pay() {
    let rows = generate(1, 700, 200).train;
    let counts = counts(&rows);
    let most = |values: &BTreeMap<String, usize>| *values.values().max().expect("some value");
    let floor = counts.values().map(most).sum::<usize>() as f64 / (700.0 * counts.len() as f64);
    assert!(floor < 0.36, "the commonest value of every field scores {floor}");
}

/// The rules of a ticket, checked without the grader.
#[track_caller]
fn check_ticket(ticket: &Map<String, Value>) {
    let keys: Vec<&str> = ticket.keys().map(String::as_str).collect();
    let known =
        ["category", "product", "order", "date", "priority", "sentiment", "refund", "reply"];
    assert_eq!(keys, known);
    let one_of = |field: &str, values: &[&str]| {
        assert!(ticket[field].as_str().is_some_and(|v| values.contains(&v)), "{ticket:?}");
    };
    one_of("category", &CATEGORIES);
    one_of("priority", &PRIORITIES);
    one_of("sentiment", &SENTIMENTS);
    one_of("reply", &REPLIES);
    if !ticket["product"].is_null() {
        one_of("product", &PRODUCTS.map(|product| product.name));
    }
    if let Some(order) = ticket["order"].as_str() {
        let (letter, digits) = order.split_once('-').expect("a dash");
        assert!(letter.len() == 1 && letter.chars().all(|c| c.is_ascii_uppercase()), "{order}");
        assert!(digits.len() == 5 && digits.chars().all(|c| c.is_ascii_digit()), "{order}");
    }
    assert!(ticket["refund"].is_boolean());
}

fn day(iso: &str) -> Day {
    let number = |range: std::ops::Range<usize>| iso[range].parse().expect("digits");
    Day { year: number(0..4), month: number(5..7), day: number(8..10) }
}

/// Whether anything in the text has the shape of an order number.
fn has_order_number(text: &str) -> bool {
    text.as_bytes()
        .windows(7)
        .any(|w| w[0].is_ascii_uppercase() && w[1] == b'-' && w[2..].iter().all(u8::is_ascii_digit))
}

#[test]
fn every_field_stands_in_the_message() {
    let demo = generate(1, 700, 300);
    for Example { message, ticket } in demo.train.iter().chain(&demo.test).chain(&shots()) {
        check_ticket(ticket);
        match ticket["order"].as_str() {
            Some(order) => assert!(message.contains(order), "{order}: {message}"),
            None => assert!(!has_order_number(message), "{message}"),
        }
        if let Some(date) = ticket["date"].as_str() {
            let written = forms(day(date)).iter().any(|form| message.contains(form.as_str()));
            assert!(written, "{date}: {message}");
        }
        match ticket["product"].as_str() {
            Some(name) => {
                let product = PRODUCTS.iter().find(|product| product.name == name).expect("known");
                assert!(message.contains(product.brand) || message.contains(name), "{message}");
            }
            None => assert!(PRODUCTS.iter().all(|p| !message.contains(p.brand)), "{message}"),
        }
        assert!(!message.contains(['{', '}', '\u{2}', '\u{3}']), "{message}");
    }
}

#[test]
fn lengths_vary() {
    let rows = generate(1, 700, 200).train;
    let mut words: Vec<usize> =
        rows.iter().map(|row| row.message.split_whitespace().count()).collect();
    words.sort_unstable();
    assert!(words[70] < 30 && words[630] > 50, "{} to {}", words[70], words[630]);
}

#[test]
fn the_prompts_name_every_value() {
    let prompt = schema_prompt();
    for (name, field) in schema()["properties"].as_object().expect("an object") {
        assert!(prompt.contains(&format!("\"{name}\": ")), "{name}");
        for value in field["enum"].as_array().into_iter().flatten().filter(|v| !v.is_null()) {
            let value = value.as_str().expect("a string");
            assert!(prompt.contains(value), "{name} = {value}");
        }
    }
    for product in &PRODUCTS {
        assert!(prompt.contains(product.brand), "{}", product.brand);
    }
}

#[test]
fn shots_stand_apart() {
    let shots = shots();
    let said = |text: &str, pattern: &&str| {
        let parts = pattern.split(['{', '}']).step_by(2);
        let longest = parts.max_by_key(|part| part.len()).unwrap_or("");
        longest.len() > 12 && text.contains(longest)
    };
    for shot in &shots {
        for split in [Split::Train, Split::Test] {
            let found = ALL.iter().flat_map(|pool| pool.of(split)).find(|p| said(&shot.message, p));
            assert_eq!(found, None, "{}", shot.message);
        }
    }
    let row = &generate(1, 1, 1).test[0];
    let prompt = row.prompt("do it", &shots);
    assert_eq!(prompt.len(), 10);
    assert_eq!(prompt[0].role, "system");
    assert_eq!(prompt[2].content, shots[0].answer());
    assert_eq!(prompt[9].content, row.message);
}

#[test]
fn files_hold_the_rows() {
    let folder = std::env::temp_dir().join(format!("tunesmith-demo-{}", std::process::id()));
    let demo = generate(1, 5, 3);
    let files = demo.write(&folder).expect("writes");
    let read = |path: &Path| fs::read_to_string(path).expect("was written");
    let (train, schema_text) = (read(&files.train), read(&files.schema));
    assert_eq!(read(&files.test).lines().count(), 3);
    fs::remove_dir_all(&folder).expect("is ours");
    assert_eq!(train.lines().count(), 5);
    let row: Value = serde_json::from_str(train.lines().next().expect("a row")).expect("JSON");
    assert_eq!(row["messages"][1]["content"], demo.train[0].message);
    assert_eq!(row["messages"][2]["content"], demo.train[0].answer());
    assert_eq!(serde_json::from_str::<Value>(&schema_text).expect("JSON"), schema());
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let file = std::env::temp_dir().join(format!("tunesmith-demo-file-{}", std::process::id()));
    fs::write(&file, "in the way").expect("writes");
    let error = generate(1, 1, 1).write(&file.join("tickets")).expect_err("a file is no folder");
    fs::remove_file(&file).expect("is ours");
    assert!(error.message.contains("tunesmith-demo-file"), "{error:?}");
}

#[test]
fn generated_tickets_are_no_duplicates() {
    let demo = generate(7, 2000, 10);
    let texts: Vec<AuditText> = demo
        .train
        .iter()
        .map(|ticket| AuditText { prompt: ticket.message.clone(), answer: ticket.answer() })
        .collect();
    let sketches: Vec<Sketch> = texts.iter().map(Sketch::of).collect();
    let found = duplicates(&sketches, &texts, 2).unwrap();
    assert_eq!(found.giant, None);
    let merged = found.clusters.iter().zip(0_u32..).filter(|(first, row)| **first != *row).count();
    assert!(merged * 100 < texts.len(), "{merged} of {}", texts.len());
}
