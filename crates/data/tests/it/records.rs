use std::path::Path;

use data::{Conversation, Findings, Reading, record, source};
use serde_json::Value;

fn read(
    rows: &str,
    reading: &Reading,
) -> data::Result<(&'static str, Vec<Conversation>, Findings)> {
    let rows = source::parse(Path::new("a.jsonl"), rows.as_bytes())?;
    let mut findings = Findings::default();
    let (shape, conversations) = record::conversations(rows, reading, &mut findings)?;
    Ok((shape.name, conversations, findings))
}

/// `role: content` of every turn; turns that count have a star.
fn show(conversation: &Conversation) -> String {
    let turns = conversation.messages.iter().zip(&conversation.supervised);
    let turn = |(message, counts): (&text::Message, &bool)| {
        let star = if *counts { "*" } else { "" };
        let calls = message.extra.get("tool_calls").map(Value::to_string).unwrap_or_default();
        format!("{}{star}: {}{calls}", message.role, message.content)
    };
    turns.map(turn).collect::<Vec<_>>().join(" | ")
}

#[track_caller]
fn check(row: &str, format: &str, expected: &str) {
    check_reading(row, &Reading::default(), format, expected);
}

#[track_caller]
fn check_reading(row: &str, reading: &Reading, format: &str, expected: &str) {
    let (found, conversations, _) = read(row, reading).unwrap();
    assert_eq!((found, show(&conversations[0])), (format, expected.to_owned()));
}

#[track_caller]
fn check_error(rows: &str, message: &str, hint: &str) {
    check_error_reading(rows, &Reading::default(), message, hint);
}

#[track_caller]
fn check_error_reading(rows: &str, reading: &Reading, message: &str, hint: &str) {
    let error = read(rows, reading).unwrap_err();
    assert_eq!(error.to_string(), message);
    assert!(error.hint().unwrap_or_default().contains(hint), "hint: {:?}", error.hint());
}

#[track_caller]
fn check_finding(row: &str, id: &str, message: &str) {
    let (.., findings) = read(row, &Reading::default()).unwrap();
    let finding = findings.get(id).unwrap_or_else(|| panic!("found only {findings:?}"));
    assert!(finding.message.contains(message), "{}", finding.message);
}

#[test]
fn alpaca() {
    let plain = r#"{"instruction": "Add.", "input": "", "output": "3"}"#;
    check(plain, "alpaca", "user: Add. | assistant*: 3");
    let input = r#"{"instruction": "Add.", "input": "1, 2", "output": "3", "system": "Be brief."}"#;
    check(input, "alpaca", "system: Be brief. | user: Add.\n\n1, 2 | assistant*: 3");
    let history = r#"{"instruction": "c", "output": "d", "history": [["a", "b"]]}"#;
    check(history, "alpaca", "user: a | assistant*: b | user: c | assistant*: d");
    check_error(
        r#"{"instruction": "c", "output": "d", "history": ["a", "b"]}"#,
        "a.jsonl:1: `history` is not a list of [user, assistant] texts",
        "",
    );
}

#[test]
fn prompt_and_completion() {
    let name = "prompt_completion";
    check(r#"{"prompt": "p", "completion": "c"}"#, name, "user: p | assistant*: c");
    check(r#"{"question": "p", "answer": "c"}"#, name, "user: p | assistant*: c");
    check(r#"{"input": "p", "output": "c"}"#, name, "user: p | assistant*: c");
    check(r#"{"instruction": "p", "response": "c"}"#, name, "user: p | assistant*: c");
    let both = r#"{"question": "x", "answer": "y", "prompt": "p", "completion": "c"}"#;
    check(both, name, "user: p | assistant*: c");
    let lists = r#"{"prompt": [{"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}],
        "completion": [{"role": "assistant", "content": "d"}]}"#
        .replace('\n', "");
    check(&lists, name, "user: a | assistant: b | user: c | assistant*: d");
    check_error(
        r#"{"question": "a", "answer": "b", "input": "c", "output": "d"}"#,
        "a.jsonl:1: row has `question` and `answer` and also `input` and `output`",
        "columns: {prompt: question, completion: answer}",
    );
}

#[test]
fn messages() {
    let row =
        r#"{"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b", "weight": 0}, {"role": "user", "content": "c"},
        {"role": "assistant", "content": "d", "weight": 1, "name": "n"}]}"#
            .replace('\n', "");
    check(&row, "messages", "system: s | user: a | assistant: b | user: c | assistant*: d");
    let (_, conversations, _) = read(&row, &Reading::default()).unwrap();
    let extra = &conversations[0].messages[4].extra;
    assert_eq!(Value::from(extra.clone()), serde_json::json!({"name": "n"}));

    let parts = r#"{"messages": [{"role": "user", "content": [{"type": "text", "text": "a"},
        {"type": "text", "value": "b"}]}, {"role": "assistant", "content": "c"}],
        "system": "s"}"#
        .replace('\n', "");
    check(&parts, "messages", "system: s | user: ab | assistant*: c");

    let tools = r#"{"conversations": [{"role": "user", "content": "a"},
        {"role": "assistant", "content": null, "tool_calls": [{"name": "t"}]},
        {"role": "tool", "content": "r"}, {"role": "assistant", "content": "b"}],
        "tools": "[{\"name\": \"t\"}]"}"#
        .replace('\n', "");
    let call = r#"[{"type":"function","function":{"name":"t","arguments":{}}}]"#;
    let expected = format!("user: a | assistant*: {call} | tool: r | assistant*: b");
    check(&tools, "messages", &expected);
    let (_, conversations, _) = read(&tools, &Reading::default()).unwrap();
    let wrapped = serde_json::json!([{"type": "function", "function": {"name": "t"}}]);
    assert_eq!(conversations[0].tools, Some(wrapped));
}

#[test]
fn sharegpt() {
    let row =
        r#"{"conversations": [{"from": "system", "value": "s"}, {"from": "human", "value": "a"},
        {"from": "gpt", "value": "b"}]}"#
            .replace('\n', "");
    check(&row, "sharegpt", "system: s | user: a | assistant*: b");
    let calls = r#"{"conversations": [{"from": "human", "value": "a"},
        {"from": "function_call", "value": "{\"name\": \"f\", \"arguments\": {\"x\": 1}}"},
        {"from": "observation", "value": "r"}, {"from": "gpt", "value": "b"}]}"#
        .replace('\n', "");
    let call = r#"[{"type":"function","function":{"name":"f","arguments":{"x":1}}}]"#;
    let expected = format!("user: a | assistant*: {call} | tool: r | assistant*: b");
    check(&calls, "sharegpt", &expected);
    check_error(
        r#"{"conversations": [{"from": "alien", "value": "a"}]}"#,
        "a.jsonl:1: message 0: unknown speaker `alien`; known are human, user, gpt, assistant, \
         model, bot, chatgpt, bing, bard, function_call, tool_call, system, developer, tool, \
         observation, function, function_response, tool_response",
        "",
    );
}

#[test]
fn columns_are_renamed_and_a_system_is_added() {
    let columns = vec![("prompt".into(), "frage".into()), ("completion".into(), "antwort".into())];
    let reading = Reading {
        columns,
        system: Some("s".into()),
        key: "data.train.0".into(),
        ..Reading::default()
    };
    let row = r#"{"frage": "p", "antwort": "c"}"#;
    check_reading(row, &reading, "prompt_completion", "system: s | user: p | assistant*: c");

    let own = r#"{"messages": [{"role": "developer", "content": "d"}, {"role": "assistant", "content": "a"}]}"#;
    let reading = Reading { system: Some("s".into()), ..Reading::default() };
    check_reading(own, &reading, "messages", "developer: d | assistant*: a");

    let wrong = |ours: &str, theirs: &str| Reading {
        columns: vec![(ours.into(), theirs.into())],
        key: "data.train.0".into(),
        ..Reading::default()
    };
    check_error_reading(
        row,
        &wrong("prompt", "fragen"),
        "`data.train.0.columns.prompt`: no row has a column `fragen`",
        "the rows have `frage`, `antwort`",
    );
    check_error_reading(
        row,
        &wrong("promt", "frage"),
        "`data.train.0.columns.promt`: no format has such a column",
        "`prompt`",
    );
}

#[test]
fn a_named_format_is_taken_at_its_word() {
    let reading = |format: &str| Reading {
        format: Some(format.into()),
        key: "data.train.0".into(),
        ..Reading::default()
    };
    let row = r#"{"instruction": "p", "input": "i", "output": "c"}"#;
    check_reading(
        row,
        &reading("prompt_completion"),
        "prompt_completion",
        "user: i | assistant*: c",
    );
    check_error_reading(
        row,
        &reading("alpaka"),
        "`data.train.0.format`: unknown format `alpaka`",
        "one of `messages`, `sharegpt`, `alpaca`, `prompt_completion`",
    );
    check_error_reading(
        row,
        &reading("messages"),
        "a.jsonl:1: record has no `messages` field (has: instruction, input, output)",
        "",
    );
}

#[test]
fn all_bad_rows_are_named() {
    check_error(
        "{\"prompt\": \"a\", \"completion\": \"b\"}\n{\"prompt\": \"a\"}\n\
         {\"prompt\": 3, \"completion\": \"b\"}\n{\"prompt\": \"a\", \"completion\": \" \"}",
        "a.jsonl:2: record has no `completion` field (has: prompt)\n\
         a.jsonl:3: `prompt` is a number, not text\n\
         a.jsonl:4: message 1: assistant turn is empty",
        "fill the field in, or name the column",
    );
}

#[test]
fn conversations_that_teach_nothing_are_errors() {
    let row = |turns: &str| format!("{{\"messages\": [{turns}]}}");
    let user = r#"{"role": "user", "content": "a"}"#;
    check_error(&row(user), "a.jsonl:1: conversation has no assistant turn", "");
    check_error(&row(""), "a.jsonl:1: conversation has no assistant turn", "");
    check_error(
        &row(r#"{"role": "assistant", "content": ""}"#),
        "a.jsonl:1: message 0: assistant turn is empty",
        "",
    );
    check_error(
        &row(r#"{"role": "assistant", "content": "a", "weight": 0}"#),
        "a.jsonl:1: every assistant turn has weight 0",
        "",
    );
    check_error(
        &row(r#"{"role": "assistant", "content": "a", "weight": -1}"#),
        "a.jsonl:1: message 0: `weight` is -1, not a number of 0 or more",
        "",
    );
    check_error(
        &row(r#"{"role": "user", "content": "a", "weight": 1}"#),
        "a.jsonl:1: message 0: only assistant turns can be learned",
        "remove the weight",
    );
    check_error(
        &row(r#"{"role": "wizard", "content": "a"}"#),
        "a.jsonl:1: message 0: unknown role `wizard`",
        "roles are system, developer, user, assistant, tool",
    );
    check_error(
        &row(r#"{"role": "user", "content": [{"type": "image", "url": "u"}]}"#),
        "a.jsonl:1: message 0: content part of type `image`; only text is supported",
        "",
    );
}

#[test]
fn mixed_and_unknown_shapes() {
    check_error(
        "{\"prompt\": \"a\", \"completion\": \"b\"}\n{\"instruction\": \"a\", \"output\": \"b\"}",
        "a.jsonl:2: record has no `prompt` field (has: instruction, output)",
        "keep one format a file",
    );
    let unknown = r#"{"prompt": "a", "reply": "b"}"#;
    let message = "a.jsonl: unknown format: the rows have `prompt`, `reply`";
    check_error(unknown, message, "nearest is `prompt_completion`");
    check_error(unknown, message, "`messages` (`messages`: list of {`role`, `content`})");
    check_error(
        "{\"text\": \"a\"}",
        "a.jsonl: the rows are raw text for pretraining (`text`), not conversations as `sft` takes them",
        "`method: pretrain`",
    );
    check_error(
        r#"{"chosen": "a", "rejected": "b"}"#,
        "a.jsonl: the rows are preferences (`chosen` and `rejected`), not conversations as `sft` takes them",
        "dpo",
    );
}

#[test]
fn oddities_are_found() {
    let row = |turns: &str| format!("{{\"messages\": [{turns}], \"id\": 7}}");
    let user = r#"{"role": "user", "content": "a"}"#;
    let assistant = r#"{"role": "assistant", "content": "b"}"#;
    check_finding(&row(&format!("{user}, {assistant}, {user}")), "trailing-turns", "continues");
    let twice = row(&format!("{user}, {assistant}, {assistant}"));
    check_finding(&twice, "assistant-twice", "follow each other");
    check_finding(&twice, "unused-columns", "`id`");
    let empty = row(&format!("{}, {assistant}", user.replace("\"a\"", "\"\"")));
    check_finding(&empty, "empty-user-turn", "empty");
}
