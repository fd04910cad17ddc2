//! Retrieved context: documents in, prompts with passages out.

use std::path::Path;

use data::context::{Context, ContextOptions};
use data::record::{Feedback, Preference, Prompt, Ranked, Record, Text};
use data::{Conversation, Place};
use serde_json::json;
use text::Message;

const FACTS: [(&str, &str); 6] = [
    ("Zinc", "Zinc melts at 420 degrees."),
    ("Lead", "Lead melts at 327 degrees."),
    ("Tern", "A tern flies pole to pole."),
    ("Wren", "A wren weighs nine grams."),
    ("Oder", "The Oder flows into the Baltic."),
    ("Ebro", "The Ebro flows into another sea."),
];

fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("birds")).unwrap();
    let texts: Vec<&str> = FACTS.iter().map(|(_, text)| *text).collect();
    let rows = texts[4..].iter().map(|text| json!({"text": text}).to_string() + "\n");
    std::fs::write(dir.path().join("metals.txt"), texts[..2].join("\n\n")).unwrap();
    std::fs::write(dir.path().join("birds/all.md"), texts[2..4].join("\n\n")).unwrap();
    std::fs::write(dir.path().join("rivers.jsonl"), rows.collect::<String>()).unwrap();
    std::fs::write(dir.path().join("map.png"), "no text").unwrap();
    dir
}

fn options(path: &Path) -> ContextOptions {
    ContextOptions { retrieve: path.into(), k: 1, distractors: 2, words: 6, without: 0.0 }
}

fn place() -> Place {
    Place { file: Path::new("rows.jsonl").into(), line: 1, element: None }
}

fn turns(question: &str) -> Vec<Message> {
    vec![Message::new("system", "Be brief."), Message::new("user", question)]
}

fn conversation(question: &str) -> Conversation {
    let mut messages = turns(question);
    messages.push(Message::new("assistant", "So."));
    let supervised = vec![false, false, true];
    let weights = vec![1.0; messages.len()];
    Conversation { place: place(), messages, supervised, weights, tools: None }
}

/// The question as it is asked in a row, and its passages.
fn asked(context: &Context, row: u64, question: &str) -> (String, Vec<String>) {
    let mut record = Record::Conversation(conversation(question));
    context.add(row, &mut record, None);
    let Record::Conversation(conversation) = record else { panic!("another record") };
    assert_eq!(conversation.messages[0].content, "Be brief.");
    assert_eq!(conversation.messages[2].content, "So.");
    split(&conversation.messages[1].content)
}

fn split(content: &str) -> (String, Vec<String>) {
    let (passages, question) = content.rsplit_once("</document>\n\n").unwrap_or(("", content));
    let passages = passages.split("<document>\n").skip(1);
    let bare =
        |passage: &str| passage.trim_end_matches('\n').trim_end_matches("\n</document>").to_owned();
    (question.to_owned(), passages.map(bare).collect())
}

#[test]
fn the_passage_that_answers_is_among_others() {
    let dir = folder();
    let context = Context::build(&options(dir.path()), 1).unwrap();
    assert_eq!((context.len(), context.left_out().len()), (6, 1));
    let (mut orders, mut distractors) = (Vec::new(), Vec::new());
    for row in 0..40 {
        let (question, passages) = asked(&context, row, "At how many degrees melts zinc?");
        assert_eq!((question.as_str(), passages.len()), ("At how many degrees melts zinc?", 3));
        let at = passages.iter().position(|passage| passage == FACTS[0].1).unwrap();
        let mut others: Vec<String> = passages.clone();
        others.remove(at);
        assert!(others[0] != others[1] && !others.contains(&FACTS[0].1.to_owned()));
        orders.push(at);
        others.sort();
        distractors.push(others);
    }
    distractors.sort();
    distractors.dedup();
    // All ten pairs of the other five passages are bound to be few draws away.
    assert!(distractors.len() >= 8, "{distractors:?}");
    assert!((0..3).all(|place| orders.contains(&place)), "{orders:?}");
}

#[test]
fn the_same_seed_gives_the_same_rows() {
    let dir = folder();
    let rows = |seed: u64| {
        let context = Context::build(&options(dir.path()), seed).unwrap();
        let all: Vec<_> = (0..20).map(|row| asked(&context, row, "Which metal melts?")).collect();
        (context.hash(), all)
    };
    assert_eq!(rows(1), rows(1));
    let (one, two) = (rows(1), rows(2));
    assert!(one.0 != two.0 && one.1 != two.1);
}

#[test]
fn the_numbers_are_kept() {
    let dir = folder();
    #[track_caller]
    fn check(options: ContextOptions, question: &str, expected: usize) {
        let context = Context::build(&options, 1).unwrap();
        for row in 0..10 {
            assert_eq!(asked(&context, row, question).1.len(), expected, "{options:?}");
        }
    }
    let with = |k, distractors| ContextOptions { k, distractors, ..options(dir.path()) };
    check(with(2, 0), "What melts?", 2);
    check(with(2, 3), "What melts?", 5);
    check(with(0, 2), "What melts?", 2);
    check(with(0, 0), "What melts?", 0);
    // Two passages have a word of the question, and there are six in all.
    check(with(4, 0), "What melts?", 2);
    check(with(4, 9), "What melts?", 6);
    check(with(4, 1), "Gibberish", 1);
}

#[test]
fn some_rows_go_without() {
    let dir = folder();
    let options = ContextOptions { without: 0.25, ..options(dir.path()) };
    let context = Context::build(&options, 1).unwrap();
    let mut without = 0;
    for row in 0..400 {
        let (_, passages) = asked(&context, row, "What does a wren weigh?");
        assert_eq!(passages.len(), 3);
        without += usize::from(!passages.contains(&FACTS[3].1.to_owned()));
    }
    // Four deviations of 400 draws at a quarter: 4 * sqrt(400 * 0.25 * 0.75) = 35.
    assert!((65..=135).contains(&without), "{without}");
}

#[test]
fn a_row_may_bring_its_own_passage() {
    let dir = folder();
    let context = Context::build(&options(dir.path()), 1).unwrap();
    for row in 0..20 {
        let columns = json!({"context": "A wren weighs nine grams. It is small."});
        let mut record = Record::Prompt(Prompt {
            place: place(),
            messages: turns("What does zinc do?"),
            reference: None,
            columns: columns.as_object().unwrap().clone(),
            tools: None,
        });
        let golden = data::context::golden(columns.as_object().unwrap());
        context.add(row, &mut record, golden);
        let Record::Prompt(prompt) = record else { panic!("another record") };
        let (_, passages) = split(&prompt.messages[1].content);
        assert_eq!(passages.len(), 3);
        assert!(passages.contains(&"A wren weighs nine grams. It is small.".to_owned()));
        assert!(!passages.contains(&FACTS[3].1.to_owned()), "a part of it is no distractor");
    }
}

#[test]
fn every_record_with_a_prompt_is_served() {
    let dir = folder();
    let context = Context::build(&options(dir.path()), 1).unwrap();
    let expected = asked(&context, 3, "Where flows the Oder?");
    let question = || turns("Where flows the Oder?");
    let records = [
        Record::Preference(Preference {
            place: place(),
            prompt: question(),
            chosen: vec![Message::new("assistant", "a")],
            rejected: vec![Message::new("assistant", "b")],
            margin: None,
            tools: None,
        }),
        Record::Feedback(Feedback {
            conversation: conversation("Where flows the Oder?"),
            desirable: true,
        }),
        Record::Ranked(Ranked {
            place: place(),
            prompt: question(),
            answers: Vec::new(),
            tools: None,
        }),
    ];
    for mut record in records {
        context.add(3, &mut record, None);
        let content = match &record {
            Record::Preference(pair) => &pair.prompt[1].content,
            Record::Feedback(feedback) => &feedback.conversation.messages[1].content,
            Record::Ranked(ranked) => &ranked.prompt[1].content,
            other => panic!("{other:?}"),
        };
        assert_eq!(split(content), expected);
    }
    let text = Record::Text(Text { place: place(), text: "Zinc melts.".into() });
    let mut same = text.clone();
    context.add(3, &mut same, None);
    assert_eq!(same, text);
}

#[test]
fn serving_finds_what_training_saw() {
    let dir = folder();
    let context = Context::build(&ContextOptions { k: 2, ..options(dir.path()) }, 1).unwrap();
    assert_eq!(context.passages("how heavy is a wren"), [FACTS[3].1, FACTS[2].1]);
    assert_eq!(context.passages("nothing such"), Vec::<&str>::new());
}

#[test]
fn what_is_no_document_is_told() {
    #[track_caller]
    fn check(path: &Path, message: &str, hint: bool) {
        let error = Context::build(&options(path), 1).err().expect("an error");
        let text = error.to_string().replace(&path.display().to_string(), "PATH");
        assert_eq!((text.as_str(), error.hint().is_some()), (message, hint));
    }
    let dir = tempfile::tempdir().unwrap();
    check(dir.path(), "`data.context.retrieve`: PATH: the folder is empty", true);
    std::fs::write(dir.path().join("a.pdf"), "x").unwrap();
    check(dir.path(), "`data.context.retrieve`: PATH: no documents, only PATH/a.pdf", true);
    std::fs::write(dir.path().join("a.txt"), " \n").unwrap();
    check(dir.path(), "`data.context.retrieve`: PATH: the documents are empty", true);
    let rows = dir.path().join("rows.jsonl");
    std::fs::write(&rows, "{\"text\": \"a\"}\n{\"body\": \"b\"}\n{\"text\": 3}\n").unwrap();
    check(
        &rows,
        "PATH:2: document has no `text` field (has: body)\nPATH:3: `text` is a number, not a string",
        true,
    );
}
