//! Rows of every kind but conversations: as they are written in the peers' files, and as they are read.

use std::path::Path;

use data::record::{LabelledInput, Reader, Reading, Record, Wanted};
use data::{Findings, source};
use text::Message;

fn turns(messages: &[Message]) -> String {
    let turn = |message: &Message| format!("{}: {}", message.role, message.content);
    messages.iter().map(turn).collect::<Vec<_>>().join(" | ")
}

/// A record in a line.
pub(crate) fn show(record: &Record) -> String {
    match record {
        Record::Conversation(row) => turns(&row.messages),
        Record::Text(row) => row.text.clone(),
        Record::Tokens(row) => format!("{:?} {:?}", row.tokens, row.weights),
        Record::Preference(row) => {
            let (prompt, chosen) = (turns(&row.prompt), turns(&row.chosen));
            let margin = row.margin.map_or(String::new(), |margin| format!(" by {margin}"));
            format!("{prompt} => {chosen} > {}{margin}", turns(&row.rejected))
        }
        Record::Feedback(row) => {
            format!("{} => {}", turns(&row.conversation.messages), row.desirable)
        }
        Record::Ranked(row) => {
            let answer = |answer: &data::record::Answer| {
                format!("{} ({:?})", turns(&answer.messages), answer.score)
            };
            let answers: Vec<String> = row.answers.iter().map(answer).collect();
            format!("{} => {}", turns(&row.prompt), answers.join(" > "))
        }
        Record::Stepwise(row) => {
            let steps = row.steps.iter().map(|step| format!("{} ({})", step.text, step.label));
            format!("{} => {}", turns(&row.prompt), steps.collect::<Vec<_>>().join(", "))
        }
        Record::Labelled(row) => {
            let input = match &row.input {
                LabelledInput::Text(text) => text.clone(),
                LabelledInput::Dialogue { messages, .. } => turns(messages),
            };
            format!("{input} => {:?}", row.label)
        }
        Record::Prompt(row) => {
            let reference = row.reference.as_ref().map(ToString::to_string).unwrap_or_default();
            let columns: Vec<&str> = row.columns.keys().map(String::as_str).collect();
            format!("{} => {reference} {columns:?}", turns(&row.messages))
        }
    }
}

fn read(rows: &str, reading: &Reading, wanted: Wanted) -> Result<(Reader, Vec<String>), String> {
    let rows = source::parse(Path::new("a.jsonl"), rows.as_bytes()).map_err(|e| e.to_string())?;
    let reader = Reader::find(&rows, reading, wanted).map_err(|error| error.to_string())?;
    let mut findings = Findings::default();
    let shown = rows.into_iter().map(|row| {
        reader.read(row, &mut findings).map(|record| show(&record)).map_err(|e| e.to_string())
    });
    let shown = shown.collect::<Result<Vec<_>, _>>()?;
    Ok((reader, shown))
}

#[track_caller]
fn check(row: &str, wanted: Wanted, shape: &str, expected: &str) {
    let (reader, shown) = read(row, &Reading::default(), wanted).unwrap();
    assert_eq!((reader.shape(), shown[0].as_str()), (shape, expected));
    assert!(!reader.why().is_empty());
}

#[test]
fn labelled_texts_and_dialogues() {
    let check = |row: &str, expected: &str| check(row, Wanted::Labelled, "labelled", expected);
    check(r#"{"text": "fine", "label": "glad"}"#, "fine => Some(\"glad\")");
    check(r#"{"content": "fine", "label": " 3 "}"#, "fine => Some(\"3\")");
    // A whole number is its digits, as tables have them.
    check(r#"{"text": "fine", "label": 3}"#, "fine => Some(\"3\")");
    check(r#"{"text": "fine", "label": 3.0}"#, "fine => Some(\"3\")");
    check(r#"{"text": "fine", "label": -1}"#, "fine => Some(\"-1\")");
    check(r#"{"text": "fine", "label": true}"#, "fine => Some(\"true\")");
    check(r#"{"prompt": "2+2?", "label": "math"}"#, "user: 2+2? => Some(\"math\")");
    check(
        r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "label": "ok"}"#,
        "user: a | assistant: b => Some(\"ok\")",
    );
    let reading = Reading {
        columns: [("text", "review"), ("label", "stars")].map(|(a, b)| (a.into(), b.into())).into(),
        ..Reading::default()
    };
    let (_, shown) = read(r#"{"review": "good", "stars": 5}"#, &reading, Wanted::Labelled).unwrap();
    assert_eq!(shown, ["good => Some(\"5\")"]);
}

#[test]
fn a_row_without_a_class_is_refused() {
    let check = |row: &str, expected: &str| {
        let error = read(row, &Reading::default(), Wanted::Labelled).unwrap_err();
        assert!(error.starts_with("a.jsonl") && error.contains(expected), "{row}: {error}");
    };
    check(r#"{"text": "a", "label": null}"#, "`label` is null");
    for label in ["\"\"", "\"  \"", "\"nan\"", "\"NaN\"", "\"None\""] {
        check(&format!("{{\"text\": \"a\", \"label\": {label}}}"), "stands for no label");
    }
    check(r#"{"text": "a", "label": 0.5}"#, "a class is text or a whole number");
    check(r#"{"text": "a", "label": ["b"]}"#, "`label` is a list, not text or a whole number");
    check(r#"{"text": " ", "label": "b"}"#, "`text` is empty");
    check(r#"{"text": null, "label": "b"}"#, "`text` is null");
    let two = r#"{"query": "a", "document": "b", "label": "c"}"#;
    check(two, "row has `query` beside `document`, and a classifier reads one of them");
    check(r#"{"text": "a"}"#, "not texts with a `label` as `classify` takes them");
    let rows = "{\"text\": \"a\", \"label\": \"b\"}\n{\"text\": \"a\"}\n";
    check(rows, "a.jsonl:2: record has no `label` field");
}

#[test]
fn what_is_scored_needs_no_class() {
    let rows = "{\"text\": \"a\"}\n{\"text\": \"b\", \"label\": \"c\"}\n{\"prompt\": \"d\"}\n";
    let parse = |rows: &str| source::parse(Path::new("a.jsonl"), rows.as_bytes()).unwrap();
    let mut findings = Findings::default();
    let reading = Reading::default();
    let read = |rows: &str, findings: &mut Findings| {
        data::record::to_classify(parse(rows), &reading, findings)
    };
    let records = read(rows, &mut findings).unwrap();
    let shown: Vec<String> = records.iter().map(show).collect();
    assert_eq!(shown, ["a => None", "b => Some(\"c\")", "user: d => None"]);
    let error = read("{\"text\": \"a\", \"label\": \"\"}\n{\"x\": 1}\n", &mut findings);
    let error = error.unwrap_err().to_string();
    assert!(error.contains("a.jsonl:1") && error.contains("a.jsonl:2"), "{error}");
}

#[test]
fn texts_and_tokens() {
    for column in ["text", "content", "document"] {
        check(&format!("{{\"{column}\": \"a b\"}}"), Wanted::Texts, "text", "a b");
    }
    let labelled = r#"{"input_ids": [1, 2, 3], "labels": [-100, 2, -100]}"#;
    check(labelled, Wanted::Conversations, "tokens", "[1, 2, 3] [0.0, 1.0, 0.0]");
    check(labelled, Wanted::Texts, "tokens", "[1, 2, 3] [0.0, 1.0, 0.0]");
    check(r#"{"input_ids": [1, 2, 3]}"#, Wanted::Texts, "tokens", "[1, 2, 3] [0.0, 1.0, 1.0]");
    let masked = r#"{"input_ids": [1, 2, 0], "attention_mask": [1, 1, 0]}"#;
    check(masked, Wanted::Texts, "tokens", "[1, 2] [0.0, 1.0]");
    let error = read(r#"{"input_ids": [1, 2], "labels": [1]}"#, &Reading::default(), Wanted::Texts);
    assert!(error.unwrap_err().starts_with("a.jsonl:1: "));
}

#[test]
fn preferences() {
    let expected = "user: p => assistant: c > assistant: r";
    let check = |row: &str, expected: &str| check(row, Wanted::Preferences, "preference", expected);
    check(r#"{"prompt": "p", "chosen": "c", "rejected": "r"}"#, expected);
    check(r#"{"question": "p", "chosen": "c", "rejected": "r"}"#, expected);
    check(r#"{"instruction": "p", "input": "", "chosen": "c", "rejected": "r"}"#, expected);
    let turn =
        |role: &str, content: &str| format!("{{\"role\": \"{role}\", \"content\": \"{content}\"}}");
    let (user, good, bad) = (turn("user", "p"), turn("assistant", "c"), turn("assistant", "r"));
    check(
        &format!("{{\"prompt\": [{user}], \"chosen\": [{good}], \"rejected\": [{bad}]}}"),
        expected,
    );
    check(&format!("{{\"chosen\": [{user}, {good}], \"rejected\": [{user}, {bad}]}}"), expected);
    check(
        &format!(
            "{{\"chosen_messages\": [{user}, {good}], \"rejected_messages\": [{user}, {bad}]}}"
        ),
        expected,
    );
    check(
        r#"{"conversations": [{"from": "human", "value": "p"}], "chosen": {"from": "gpt", "value": "c"}, "rejected": {"from": "gpt", "value": "r"}}"#,
        expected,
    );
    check(
        r#"{"chosen": "\n\nHuman: p\n\nAssistant: c", "rejected": "\n\nHuman: p\n\nAssistant: r"}"#,
        expected,
    );
    check(
        r#"{"prompt": "p", "chosen": "c", "rejected": "r", "score_chosen": 4, "score_rejected": 1}"#,
        "user: p => assistant: c > assistant: r by 3",
    );
}

#[test]
fn feedback_ranks_and_steps() {
    check(
        r#"{"prompt": "p", "completion": "c", "label": true}"#,
        Wanted::Feedback,
        "feedback",
        "user: p | assistant: c => true",
    );
    check(
        r#"{"messages": [{"role": "user", "content": "p"}, {"role": "assistant", "content": "c"}], "label": false}"#,
        Wanted::Feedback,
        "feedback",
        "user: p | assistant: c => false",
    );
    check(
        r#"{"prompt": "p", "responses": ["a", "b"], "scores": [1, 5]}"#,
        Wanted::Rewards,
        "ranked",
        "user: p => assistant: b (Some(5.0)) > assistant: a (Some(1.0))",
    );
    check(
        r#"{"prompt": "p", "completions": ["a", "b"], "labels": [true, false]}"#,
        Wanted::Rewards,
        "stepwise",
        "user: p => a (1), b (0)",
    );
}

#[test]
fn answers_are_read_whatever_their_kind() {
    let answered = |rows: &str| -> Result<Vec<data::record::Record>, String> {
        let rows = source::parse(Path::new("a.jsonl"), rows.as_bytes()).unwrap();
        data::record::answered(rows, &Reading::default(), &mut Findings::default())
            .map_err(|error| error.to_string())
    };
    let shown = |rows: &str| answered(rows).map(|records| show(&records[0]));
    for (row, expected) in [
        (r#"{"prompt":"p","chosen":"a","rejected":"b"}"#, "user: p => assistant: a > assistant: b"),
        (r#"{"prompt":"p","completion":"a","label":true}"#, "user: p | assistant: a => true"),
        (r#"{"prompt":"p","completion":"a"}"#, "user: p | assistant: a"),
    ] {
        assert_eq!(shown(row).as_deref(), Ok(expected));
    }
    let ranked = r#"{"prompt":"p","responses":["a","b","c"],"ranks":[3,1,2]}"#;
    let Record::Ranked(ranked) = answered(ranked).unwrap().remove(0) else { panic!("ranked") };
    // Best first, and each knows where it was.
    assert_eq!(ranked.answers.iter().map(|answer| answer.index).collect::<Vec<_>>(), [1, 2, 0]);
    let message = shown(r#"{"text":"t"}"#).unwrap_err();
    assert!(message.starts_with("a.jsonl: the rows are raw text"), "{message}");
    let pair = r#"{"prompt":"p","chosen":"a","rejected":"b"}"#;
    let message =
        shown(&format!("{pair}\n{{\"prompt\":\"p\"}}\n{pair}\n{{\"id\":1}}")).unwrap_err();
    let lines: Vec<&str> = message.lines().map(|line| line.split(": ").next().unwrap()).collect();
    assert_eq!(lines, ["a.jsonl:2", "a.jsonl:4"]);
}

#[test]
fn prompts_keep_their_columns() {
    check(
        r#"{"question": "q", "answer": "42", "level": 3}"#,
        Wanted::Prompts,
        "prompt",
        "user: q => \"42\" [\"level\"]",
    );
    check(
        r#"{"prompt": [{"role": "user", "content": "q"}], "tests": ["a"]}"#,
        Wanted::Prompts,
        "prompt",
        "user: q =>  [\"tests\"]",
    );
}

#[test]
fn columns_may_stand_inside_others() {
    let reading = |pairs: &[(&str, &str)]| Reading {
        columns: pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect(),
        ..Reading::default()
    };
    let row = r#"{"instruction": "i", "instances": [{"input": "x", "output": "y"}]}"#;
    let rows = format!("{row}\n{row}");
    let mapped = reading(&[("input", "instances.0.input"), ("output", "instances.0.output")]);
    let (_, shown) = read(&rows, &mapped, Wanted::Conversations).unwrap();
    assert_eq!(shown, ["user: i\n\nx | assistant: y"; 2]);
}

/// Sets of the peers load as they are, or with a line or two.
mod shared {
    use data::prepare::{OnError, Source};
    use data::{Config, Location, prepare};

    use super::*;
    use crate::support::supervisor;

    /// ChatML that writes tool calls.
    const TEMPLATE: &str = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{{ m.content or '' }}\
        {% for call in m.tool_calls or [] %}{{ call.function | tojson }}{% endfor %}{{ '<|im_end|>\n' }}\
        {% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

    #[allow(clippy::print_stderr)]
    fn at(name: &str) -> Option<std::path::PathBuf> {
        let path =
            Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data")).join(name);
        if !path.exists() {
            eprintln!("skipped: {name} is not here");
            return None;
        }
        Some(path)
    }

    /// Loads a set, with `columns` as `ours=theirs`, and leaves out as many rows as are known to be bad.
    #[track_caller]
    fn check(
        name: &str,
        entry: Option<&str>,
        wanted: Wanted,
        columns: &str,
        rows: usize,
        bad: usize,
    ) {
        let Some(path) = at(name) else { return };
        let pairs = columns.split_whitespace().map(|pair| pair.split_once('=').unwrap());
        let columns = pairs.map(|(a, b)| (a.to_owned(), b.to_owned())).collect();
        let reading = Reading { columns, key: "data.train.0".into(), ..Reading::default() };
        let location = match entry {
            Some(name) => Location::Entry { path, name: name.into() },
            None => Location::Path(path),
        };
        let train = vec![Source { location, reading, ..Source::default() }];
        let on_error = OnError::Skip;
        let config = Config { train, wanted, on_error, threads: 2, ..Config::default() };
        let prepared = prepare(&config, &supervisor(TEMPLATE)).unwrap();
        assert_eq!(
            (prepared.stats.rows_in, prepared.left_out.len()),
            (rows, bad),
            "{name} {entry:?}: {:?}",
            prepared.left_out.first()
        );
        assert_eq!(prepared.stats.rows + bad, rows);
    }

    #[test]
    fn llama_factory_entries() {
        let info = "llamafactory-demo/dataset_info.json";
        for (name, wanted, rows) in [
            ("identity", Wanted::Conversations, 91),
            ("alpaca_en_demo", Wanted::Conversations, 999),
            ("glaive_toolcall_en_demo", Wanted::Conversations, 300),
            ("dpo_en_demo", Wanted::Preferences, 300),
            ("kto_en_demo", Wanted::Feedback, 300),
            ("c4_demo", Wanted::Texts, 300),
            ("wiki_demo", Wanted::Texts, 30),
        ] {
            check(info, Some(name), wanted, "", rows, 0);
        }
    }

    #[test]
    fn files_as_they_are() {
        for (name, wanted, rows, bad) in [
            ("llamafactory-demo/v1_sft_demo.jsonl", Wanted::Conversations, 500, 0),
            ("llamafactory-demo/v1_dpo_demo.jsonl", Wanted::Preferences, 10, 0),
            ("llamafactory-demo/reason_tool_use_demo_50.jsonl", Wanted::Conversations, 50, 0),
            ("rasbt-instruct/instruction-data.json", Wanted::Conversations, 1100, 0),
            ("rasbt-instruct/instruction-data-with-preference.json", Wanted::Preferences, 1100, 0),
            ("rasbt-instruct/instruction-data-with-response.json", Wanted::Conversations, 110, 0),
            ("gsm8k/test.jsonl", Wanted::Conversations, 1319, 0),
            ("gsm8k/test.jsonl", Wanted::Prompts, 1319, 0),
            // Four of these dialogues end with an empty answer.
            ("hh-rlhf/harmless-base-test.jsonl.gz", Wanted::Preferences, 2312, 4),
        ] {
            check(name, None, wanted, "", rows, bad);
        }
    }

    #[test]
    fn files_with_a_line_of_columns() {
        check(
            "mbpp/mbpp.jsonl",
            None,
            Wanted::Conversations,
            "prompt=text completion=code",
            974,
            0,
        );
        let instances = "input=instances.0.input output=instances.0.output";
        check("self-instruct/seed_tasks.jsonl", None, Wanted::Conversations, instances, 175, 0);
        let user = "self-instruct/user_oriented_instructions.jsonl";
        check(user, None, Wanted::Conversations, instances, 252, 0);
    }
}

/// Whatever stands in a field: a record or an error, never a panic.
mod any_value {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".{0,12}".prop_map(Value::from),
            Just(Value::from("\n\nHuman: a\n\nAssistant: b")),
            Just(Value::from("assistant")),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            let name = prop_oneof![
                Just("role"),
                Just("content"),
                Just("from"),
                Just("value"),
                Just("type"),
                Just("text"),
                Just("weight"),
                Just("tool_calls")
            ];
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((name, inner), 0..4).prop_map(|fields| {
                    Value::Object(fields.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())
                }),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn never_panics(values in prop::collection::vec(value(), 6), which in 0usize..12) {
            let shapes: [&[&str]; 12] = [
                &["instruction", "input", "output", "system", "history"],
                &["messages", "tools", "system", "label"],
                &["conversations", "tools", "chosen", "rejected"],
                &["prompt", "completion", "system", "tools", "label"],
                &["text", "content"],
                &["input_ids", "labels", "attention_mask"],
                &["prompt", "chosen", "rejected", "margin", "score_chosen", "score_rejected"],
                &["chosen", "rejected"],
                &["prompt", "responses", "scores", "ranks"],
                &["prompt", "completions", "labels"],
                &["question", "answer", "solution"],
                &["chosen_messages", "rejected_messages"],
            ];
            let fields = shapes[which].iter().zip(values);
            let row = Value::Object(fields.map(|(k, v)| ((*k).to_owned(), v)).collect());
            for wanted in [
                Wanted::Conversations, Wanted::Texts, Wanted::Preferences, Wanted::Feedback,
                Wanted::Rewards, Wanted::Prompts, Wanted::Labelled,
            ] {
                _ = read(&row.to_string(), &Reading::default(), wanted);
            }
        }
    }
}
