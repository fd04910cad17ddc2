//! What a model is asked: the beginning of the row that training makes, for rows of every format.

use std::path::Path;

use data::record::{self, Prompt, Reader, Reading, Record, Wanted};
use data::supervision::{Reasoning, System};
use data::{Findings, SupervisionOptions, Supervisor, source};
use serde_json::{Value, json};

use crate::support::supervisor;

/// ChatML that shows tools in front, and reasoning in the last turn only.
const TEMPLATE: &str = "{% if tools %}<|im_start|>tools\n{{ tools | tojson }}<|im_end|>\n{% endif %}\
    {% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content or '' }}\
    {% for call in m.tool_calls or [] %}{{ call | tojson }}{% endfor %}<|im_end|>\n{% endfor %}\
    {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

fn supervisor_with(options: &SupervisionOptions) -> Supervisor {
    supervisor(TEMPLATE).with(options.clone())
}

/// The prompt of the only row of a file.
fn prompt(name: &str, text: &str, reading: &Reading) -> Prompt {
    let rows = source::parse(Path::new(name), text.as_bytes()).unwrap();
    let mut prompts = record::prompts(rows, reading, &mut Findings::default()).unwrap();
    match prompts.remove(0) {
        Record::Prompt(prompt) => prompt,
        other => panic!("{other:?}"),
    }
}

/// Checks that asking shows what stands before the last answer of every sequence of training.
#[track_caller]
fn check_with(
    (name, text): (&str, &str),
    wanted: Wanted,
    reading: &Reading,
    options: &SupervisionOptions,
) {
    let rows = source::parse(Path::new(name), text.as_bytes()).unwrap();
    let reader = Reader::find(&rows, reading, wanted).unwrap();
    let mut findings = Findings::default();
    let record = reader.read(rows[0].clone(), &mut findings).unwrap();
    let supervisor = supervisor_with(options);
    let asked = supervisor.prompt_tokens(&prompt(name, text, reading)).unwrap();
    for sequence in supervisor.sequences(0, &record, &mut findings).unwrap() {
        let end = sequence.weights.iter().rposition(|&weight| weight != 0.0).unwrap();
        let start = sequence.weights[..end].iter().rposition(|&weight| weight == 0.0).unwrap() + 1;
        assert_eq!(asked, sequence.tokens[..start], "{text}");
    }
}

#[track_caller]
fn check(row: Value, wanted: Wanted) {
    let options = SupervisionOptions::default();
    check_with(("a.jsonl", &row.to_string()), wanted, &Reading::default(), &options);
}

#[test]
fn conversations_ask_what_training_shows() {
    let turn = |role: &str, text: &str| json!({"role": role, "content": text});
    let tools = json!([{"type": "function", "function": {"name": "f", "parameters": {}}}]);
    let call = json!({"role": "assistant", "content": "", "tool_calls": [
        {"type": "function", "function": {"name": "f", "arguments": {"a": 1}}}]});
    for row in [
        json!({"messages": [turn("user", "q"), turn("assistant", "a")]}),
        json!({"messages": [turn("user", "q"), turn("assistant", "a")], "system": "s", "prompt": "x"}),
        json!({"messages": [turn("user", "q"), turn("assistant", "a"), turn("user", "r"), turn("assistant", "b")]}),
        json!({"messages": [turn("user", "q"), call, turn("tool", "1"), turn("assistant", "b")], "tools": tools}),
        json!({"messages": [turn("user", "q"), turn("assistant", "a")], "tools": tools.to_string()}),
        json!({"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}], "system": "s", "tools": tools}),
        json!({"conversations": {"from": ["human", "gpt"], "value": ["q", "a"]}}),
        json!({"instruction": "i", "input": "x", "output": "o", "system": "s", "history": [["u", "v"]]}),
        json!({"instruction": "i", "context": "x", "response": "o"}),
        json!({"prompt": "p", "query": "x", "response": "o"}),
        json!({"prompt": "p", "completion": "c", "system": "s", "tools": tools}),
        json!({"prompt": [turn("system", "s"), turn("user", "q")], "completion": [turn("assistant", "a")]}),
        json!({"question": "q", "answer": "a", "prompt": "no"}),
        json!({"input": "q", "output": "a", "query": "no"}),
    ] {
        check(row, Wanted::Conversations);
    }
}

#[test]
fn rows_of_other_methods_ask_what_training_shows() {
    let turn = |role: &str, text: &str| json!({"role": role, "content": text});
    for row in [
        json!({"prompt": "p", "chosen": "c", "rejected": "r", "system": "s"}),
        json!({"question": "p", "chosen": "c", "rejected": "r"}),
        json!({"instruction": "p", "output": ["c", "r"]}),
        json!({"chosen": [turn("user", "p"), turn("assistant", "c")], "rejected": [turn("user", "p"), turn("assistant", "r")]}),
        json!({"chosen": "\n\nHuman: p\n\nAssistant: c", "rejected": "\n\nHuman: p\n\nAssistant: r"}),
        json!({"messages": [turn("user", "p")], "chosen": turn("assistant", "c"), "rejected": turn("assistant", "r")}),
    ] {
        check(row, Wanted::Preferences);
    }
    check(json!({"prompt": "p", "completion": "c", "label": true}), Wanted::Feedback);
    check(json!({"prompt": "p", "responses": ["a", "b"], "scores": [1, 2]}), Wanted::Rewards);
    check(
        json!({"instruction": "p", "completions": [{"response": "a", "score": 1}, {"response": "b", "score": 2}]}),
        Wanted::Rewards,
    );
}

#[test]
fn the_recipe_holds_for_prompts() {
    let reading = Reading {
        columns: vec![("prompt".into(), "ask".into()), ("completion".into(), "reply".into())],
        system: Some("Be brief.".into()),
        ..Reading::default()
    };
    let row = ("a.csv", "ask,reply\nq,a\n");
    for (system, reasoning) in [
        (System::Keep, Reasoning::Keep),
        (System::Drop, Reasoning::Strip),
        (System::Set("s".into()), Reasoning::Keep),
    ] {
        let options = SupervisionOptions { system, reasoning, ..SupervisionOptions::default() };
        check_with(row, Wanted::Conversations, &reading, &options);
    }
    let named = Reading { format: Some("feedback".into()), ..Reading::default() };
    let options = SupervisionOptions::default();
    check_with(("a.csv", "prompt,completion,label\np,c,1\n"), Wanted::Feedback, &named, &options);
}

#[test]
fn answers_are_not_needed() {
    for (row, expected) in [
        (r#"{"prompt": "p", "completion": null}"#, "user: p"),
        (r#"{"prompt": "p", "completion": 4}"#, "user: p"),
        (r#"{"instruction": "i", "input": "x"}"#, "user: i\n\nx"),
        (r#"{"instruction": "i", "context": "x"}"#, "user: i\n\nx"),
        (r#"{"instruction": "i", "input": "", "output": ""}"#, "user: i"),
        (r#"{"conversations": [{"from": "human", "value": "q"}]}"#, "user: q"),
        (r#"{"prompt": [{"role": "user", "content": "q"}]}"#, "user: q"),
        (r#"{"problem": "q", "solution": "s"}"#, "user: q"),
    ] {
        let messages = prompt("a.jsonl", row, &Reading::default()).messages;
        let shown: Vec<String> =
            messages.iter().map(|turn| format!("{}: {}", turn.role, turn.content)).collect();
        assert_eq!(shown, [expected], "{row}");
    }
}

#[test]
fn what_is_beside_the_prompt_is_kept_apart() {
    let row = r#"{"system": "s", "question": "q", "answer": 42, "id": 7, "level": "x"}"#;
    let prompt = prompt("a.jsonl", row, &Reading::default());
    assert_eq!(prompt.reference, Some(json!(42)));
    assert_eq!(Value::Object(prompt.columns), json!({"id": 7, "level": "x"}));
}

#[test]
fn texts_and_tokens_ask_with_themselves() {
    let rows = "{\"text\": \"Once\"}\n{\"input_ids\": [1, 2, 3, 4], \"labels\": [-100, -100, 3, 4]}\n{\"prompt\": \"p\"}\n{\"input_ids\": [5, 6]}\n";
    let rows = source::parse(Path::new("a.jsonl"), rows.as_bytes()).unwrap();
    let prompts = record::prompts(rows, &Reading::default(), &mut Findings::default()).unwrap();
    assert!(matches!(&prompts[0], Record::Text(text) if text.text == "Once"));
    assert!(matches!(&prompts[1], Record::Tokens(row) if row.tokens == [1, 2]));
    assert!(matches!(&prompts[2], Record::Prompt(_)));
    assert!(matches!(&prompts[3], Record::Tokens(row) if row.tokens == [5, 6]));
}

#[test]
fn all_bad_rows_are_named() {
    let rows = "{\"prompt\": \"p\"}\n{\"id\": 1}\n{\"messages\": []}\n{\"prompt\": 3}\n";
    let rows = source::parse(Path::new("a.jsonl"), rows.as_bytes()).unwrap();
    let error = record::prompts(rows, &Reading::default(), &mut Findings::default()).unwrap_err();
    let expected = "a.jsonl:2: unknown format: the rows have `id`\n\
                    a.jsonl:3: prompt has no user turn\n\
                    a.jsonl:4: `prompt` is a number, not text";
    assert_eq!(error.to_string(), expected);
}
