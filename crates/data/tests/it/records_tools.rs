//! Calls and tools in every spelling of the peers are one conversation.

use std::path::Path;

use data::{Conversation, Findings, Reading, record, source};
use serde_json::{Value, json};
use text::{Message, integer};

fn read(row: &str) -> data::Result<(Conversation, Findings)> {
    let rows = source::parse(Path::new("a.jsonl"), row.replace('\n', " ").as_bytes())?;
    let mut findings = Findings::default();
    let (_, mut read) = record::conversations(rows, &Reading::default(), &mut findings)?;
    Ok((read.remove(0), findings))
}

/// What is read of `{"messages": MESSAGES}`.
fn messages(turns: &Value) -> Vec<Message> {
    read(&json!({ "messages": turns }).to_string()).unwrap().0.messages
}

/// The dialogue that all spellings mean.
fn expected() -> Vec<Value> {
    let call = json!({"type": "function", "function": {
        "name": "get_tide", "arguments": {"harbour": "Cromer", "hour": 7}}});
    vec![
        json!({"role": "user", "content": "Tide?"}),
        json!({"role": "assistant", "content": null, "tool_calls": [call]}),
        json!({"role": "tool", "content": "1.8"}),
        json!({"role": "assistant", "content": "1.8 m"}),
    ]
}

#[track_caller]
fn check(row: &Value) {
    let (conversation, findings) = read(&row.to_string()).unwrap();
    let mut found: Vec<Value> = conversation.messages.iter().map(Message::to_value).collect();
    // Ids and names of results are kept where a row has them; not every spelling has.
    for message in &mut found {
        let fields = message.as_object_mut().unwrap();
        fields.retain(|name, _| name != "tool_call_id" && name != "name");
        if let Some(Value::Array(calls)) = fields.get_mut("tool_calls") {
            calls
                .iter_mut()
                .for_each(|call| drop(call.as_object_mut().unwrap().shift_remove("id")));
        }
    }
    assert_eq!(found, expected(), "{row}");
    let tool = json!({"type": "function", "function": {"name": "get_tide", "parameters": {
        "type": "object", "properties": {"harbour": {"type": "string"}}}}});
    assert_eq!(conversation.tools, Some(json!([tool])), "{row}");
    assert!(findings.is_empty(), "{findings:?}");
    let order = |value: &Value| value["function"].as_object().unwrap().keys().cloned().collect();
    let keys: Vec<String> = order(&found[1]["tool_calls"][0]);
    assert_eq!(keys, ["name", "arguments"]);
}

const PARAMETERS: &str = r#"{"type": "object", "properties": {"harbour": {"type": "string"}}}"#;

fn parameters() -> Value {
    serde_json::from_str(PARAMETERS).unwrap()
}

/// Rows with the calls and the tools in one spelling each.
fn row(turn: Value, result: Value, tools: Value) -> Value {
    let messages = json!([
        {"role": "user", "content": "Tide?"}, turn, result,
        {"role": "assistant", "content": "1.8 m"},
    ]);
    json!({"messages": messages, "tools": tools})
}

#[test]
fn spellings_of_calls() {
    let tools = json!([{"type": "function", "function": {
        "name": "get_tide", "parameters": parameters()}}]);
    let arguments = json!({"harbour": "Cromer", "hour": 7});
    let text = r#"{"harbour": "Cromer", "hour": 7}"#;
    let result = json!({"role": "tool", "content": "1.8", "tool_call_id": "1", "name": "get_tide"});
    let flat = json!({"name": "get_tide", "arguments": arguments});
    let call = |function: Value| json!({"id": "1", "type": "function", "function": function});
    let calls = |calls: Value| json!({"role": "assistant", "content": "", "tool_calls": calls});
    for turn in [
        // OpenAI: arguments as text, no content.
        json!({"role": "assistant", "content": null, "refusal": null, "function_call": null,
            "tool_calls": [call(json!({"name": "get_tide", "arguments": text}))]}),
        json!({"role": "assistant", "tool_calls": [call(json!({"name": "get_tide", "arguments": text}))]}),
        // OpenAI, before there were lists.
        json!({"role": "assistant", "content": "", "function_call": {"name": "get_tide", "arguments": text}}),
        json!({"role": "assistant", "function_call": flat.to_string(), "tool_calls": []}),
        // TRL, Axolotl: an object; a table's nulls, of the call and around it.
        calls(json!([call(flat.clone())])),
        calls(json!([{"id": null, "type": null, "function": flat, "index": null}])),
        json!({"role": "assistant", "content": null, "name": null, "reasoning_content": null,
            "tool_calls": [call(flat.clone())]}),
        // Without the wrapper, and as text.
        calls(json!([flat])),
        calls(json!([{"id": "1", "name": "get_tide", "arguments": text}])),
        calls(json!([{"type": "function", "name": "get_tide", "parameters": arguments}])),
        calls(json!([{"function": "get_tide", "arguments": arguments}])),
        calls(json!([flat]).to_string().into()),
        calls(json!([call(flat.clone())]).to_string().into()),
        calls(json!([flat.to_string()])),
        calls(call(flat.clone())),
        calls(json!([call(json!({"name": "get_tide", "arguments": json!(text).to_string()}))])),
        // LLaMA-Factory's parts.
        json!({"role": "assistant", "content": [{"type": "tool_call", "value": flat.to_string()}]}),
        // ms-swift.
        json!({"role": "tool_call", "content": flat.to_string()}),
        json!({"role": "tool_call", "content": flat}),
    ] {
        check(&row(turn, result.clone(), tools.clone()));
    }
    // Results by other names.
    for role in ["tool", "function", "tool_response", "observation"] {
        let result = json!({"role": role, "name": "get_tide", "content": "1.8"});
        check(&row(calls(json!([flat])), result, tools.clone()));
    }
    // LLaMA-Factory's ShareGPT.
    check(&json!({"tools": tools.to_string(), "conversations": [
        {"from": "human", "value": "Tide?"},
        {"from": "function_call", "value": flat.to_string()},
        {"from": "observation", "value": "1.8"},
        {"from": "gpt", "value": "1.8 m"},
    ]}));
}

#[test]
fn spellings_of_tools() {
    let turn = json!({"role": "tool_call",
        "content": r#"{"name": "get_tide", "arguments": {"harbour": "Cromer", "hour": 7}}"#});
    let result = json!({"role": "tool", "content": "1.8"});
    let flat = json!({"name": "get_tide", "parameters": parameters()});
    let whole = json!({"type": "function", "function": flat});
    for tools in [
        json!([whole]),
        json!([flat]),
        // OpenAI's newer interface.
        json!([{"type": "function", "name": "get_tide", "parameters": parameters()}]),
        json!([{"function": flat}]),
        json!([{"function": flat, "type": null}]),
        // As tables keep them.
        json!([whole]).to_string().into(),
        json!([flat]).to_string().into(),
        whole.to_string().into(),
        json!([whole.to_string()]),
        json!([flat.to_string()]),
        whole.clone(),
        json!([{"name": "get_tide", "parameters": PARAMETERS}]),
    ] {
        check(&row(turn.clone(), result.clone(), tools));
    }
    let mut functions = row(turn, result, Value::Null);
    functions["functions"] = json!([flat]);
    check(&functions);
}

#[test]
fn no_calls_and_no_tools_are_absent() {
    for nothing in
        [json!(null), json!([]), json!(""), json!("[]"), json!("null"), json!({"name": null})]
    {
        let plain = json!({"role": "assistant", "content": "97.", "tool_calls": nothing,
            "function_call": null});
        let user = json!({"role": "user", "content": "A prime?", "tool_calls": nothing});
        let found: Vec<Value> =
            messages(&json!([user, plain])).iter().map(Message::to_value).collect();
        let expected = json!([{"role": "user", "content": "A prime?"},
            {"role": "assistant", "content": "97."}]);
        assert_eq!(Value::from(found), expected, "{nothing}");
    }
    for nothing in [json!(null), json!([]), json!(""), json!("[]"), json!(" null")] {
        let row = json!({"messages": [{"role": "assistant", "content": "a"}], "tools": nothing});
        assert_eq!(read(&row.to_string()).unwrap().0.tools, None);
    }
}

#[test]
fn a_null_content_is_empty_text() {
    let turns = json!([{"role": "system", "content": null}, {"role": "user", "content": "a"},
        {"role": "tool", "content": null}, {"role": "assistant", "content": "b"}]);
    let found: Vec<Value> =
        messages(&turns).iter().map(|m| m.to_value()["content"].clone()).collect();
    assert_eq!(found, ["", "a", "", "b"]);
}

#[test]
fn calls_in_turns_of_their_own_are_one_turn() {
    let call = |name: &str| format!("{{\"name\": \"{name}\", \"arguments\": {{}}}}");
    let show = |turns: Value| -> String {
        let turn = |message: &Message| {
            let calls = message.extra.get("tool_calls").and_then(Value::as_array);
            let names = calls.into_iter().flatten().map(|call| call["function"]["name"].as_str());
            let names: Vec<&str> = names.map(Option::unwrap).collect();
            format!("{}:{}{names:?}", message.role, message.content)
        };
        messages(&turns).iter().map(turn).collect::<Vec<_>>().join(" ")
    };
    let user = json!({"role": "user", "content": "u"});
    let [first, second] =
        ["a", "b"].map(|name| json!({"role": "tool_call", "content": call(name)}));
    let text = json!({"role": "assistant", "content": "Let me see."});
    let expected = r#"user:u[] assistant:["a", "b"]"#;
    assert_eq!(show(json!([user, first, second])), expected);
    let expected = r#"user:u[] assistant:Let me see.["a", "b"]"#;
    assert_eq!(show(json!([user, text, first, second])), expected);
    let two = json!({"role": "tool_call", "content": format!("[{}, {}]", call("a"), call("b"))});
    assert_eq!(show(json!([user, two])), r#"user:u[] assistant:["a", "b"]"#);
    // Reasoning in front of the calls.
    let thinks = json!({"role": "function_call",
        "content": format!("<think>\nhm\n</think>\n\n{}", call("a"))});
    assert_eq!(show(json!([user, thinks])), "user:u[] assistant:<think>\nhm\n</think>[\"a\"]");
    // A turn whose calls stand beside it is whole.
    let whole = json!({"role": "assistant", "content": "c", "tool_calls": [{"name": "x"}]});
    let expected = r#"user:u[] assistant:c["x"] assistant:["a"]"#;
    assert_eq!(show(json!([user, whole, first])), expected);
}

#[track_caller]
fn check_error(turn: Value, expected: &str) {
    let row = json!({"messages": [{"role": "user", "content": "a"}, turn]});
    assert_eq!(read(&row.to_string()).unwrap_err().to_string(), expected);
}

#[test]
fn what_is_no_call_is_named() {
    let calls = |calls: Value| json!({"role": "assistant", "tool_calls": calls});
    let arguments = |arguments: Value| calls(json!([{"name": "f", "arguments": arguments}]));
    let at = |message: &str| format!("a.jsonl:1: message 1: {message}");
    for (turn, message) in [
        (calls(json!([1])), "`tool_calls`: a tool call is a number, not an object"),
        (calls(json!(true)), "`tool_calls`: a tool call is a boolean, not an object"),
        (
            calls(json!("get_tide()")),
            "`tool_calls`: a tool call is text, not JSON: expected value, column 1",
        ),
        (calls(json!([{"arguments": {}}])), "`tool_calls`: a tool call has no `name`"),
        (calls(json!([{"name": ""}])), "`tool_calls`: a tool call has no `name`"),
        (
            arguments(json!("{x: 1}")),
            "`tool_calls`: the arguments of `f` are text, not JSON: key must be a string, column 2",
        ),
        (arguments(json!("[1]")), "`tool_calls`: the arguments of `f` are a list, not an object"),
        (arguments(json!(7)), "`tool_calls`: the arguments of `f` are a number, not an object"),
        (
            arguments(json!("{\"a\": 1, \"a\": 2}")),
            "`tool_calls`: the arguments of `f` are text, key `a` stands twice in one object, column 12",
        ),
        (
            json!({"role": "assistant", "tool_calls": [{"name": "f"}], "function_call": {"name": "f"}}),
            "turn has both `tool_calls` and `function_call`",
        ),
        (
            json!({"role": "tool_call", "content": "[]"}),
            "there is no tool call in the list of calls (a turn of `tool_call`)",
        ),
        (
            json!({"role": "tool_call", "content": null}),
            "there is no tool call in the list of calls (a turn of `tool_call`)",
        ),
    ] {
        check_error(turn, &at(message));
    }
}

#[test]
fn what_is_no_tool_is_named() {
    for (tools, message) in [
        (json!(7), "`tools` is a number, not a list"),
        (json!("get_tide"), "`tools` is text, not JSON: expected value, column 1"),
        (json!([1]), "`tools` is a list whose tool 0 is a number, not an object"),
        (
            json!([{"name": "f"}, {"description": "d"}]),
            "`tools` is a list whose tool 1 has no `name`",
        ),
        (json!(["f"]), "`tools` is a list whose tool 0 is text that is not a JSON object"),
    ] {
        let row = json!({"messages": [{"role": "assistant", "content": "a"}], "tools": tools});
        let error = read(&row.to_string()).unwrap_err();
        assert_eq!(error.to_string(), format!("a.jsonl:1: {message}"));
    }
    // Tools of the interface itself have no function.
    let row = r#"{"messages": [{"role": "assistant", "content": "a"}], "tools": [{"type": "web_search"}]}"#;
    assert_eq!(read(row).unwrap().0.tools, Some(json!([{"type": "web_search"}])));
}

#[test]
fn nulls_of_json_lines_stay_and_are_noted() {
    let call = json!({"name": "f", "arguments": {"x": null, "y": 1}});
    let turns = json!([{"role": "user", "content": "a"},
        {"role": "assistant", "tool_calls": [call]}]);
    let (conversation, findings) = read(&json!({"messages": turns}).to_string()).unwrap();
    let calls = &conversation.messages[1].extra["tool_calls"];
    assert_eq!(calls[0]["function"]["arguments"], json!({"x": null, "y": 1}));
    assert!(findings.get("null-in-tools").is_some());
    // A default may well be null.
    let row = |schema: Value| {
        json!({"messages": [{"role": "assistant", "content": "a"}],
            "tools": [{"name": "f", "parameters": {"properties": {"x": schema}}}]})
    };
    let noted = |schema| {
        let (_, findings) = read(&row(schema).to_string()).unwrap();
        findings.get("null-in-tools").is_some()
    };
    assert!(!noted(json!({"default": null, "enum": [null, 1]})));
    assert!(noted(json!({"description": null})));
}

#[test]
fn long_integers_are_read_exactly() {
    let digits = "12345678901234567890123";
    let row = format!(
        r#"{{"messages": [{{"role": "user", "content": "a"}}, {{"role": "assistant", "tool_calls": [
        {{"name": "f", "arguments": {{"n": {digits}}}}}, {{"name": "f", "arguments": "{{\"n\": {digits}}}"}}]}}],
        "tools": "[{{\"name\": \"f\", \"parameters\": {{\"maximum\": {digits}}}}}]"}}"#
    );
    let (conversation, _) = read(&row).unwrap();
    let calls = &conversation.messages[1].extra["tool_calls"];
    for index in [0, 1] {
        assert_eq!(integer::digits(&calls[index]["function"]["arguments"]["n"]), Some(digits));
    }
    let maximum = &conversation.tools.unwrap()[0]["function"]["parameters"]["maximum"];
    assert_eq!(integer::digits(maximum), Some(digits));
    // Where text is wanted it is still a number.
    let row = format!(r#"{{"messages": [{{"role": "user", "content": {digits}}}]}}"#);
    assert!(read(&row).is_err());
}
