//! What a template leaves out, doubles or moves away from a learned turn is found.

use data::{Conversation, Findings, Level, Supervisor};
use serde_json::{Value, json};
use text::Message;

use crate::support::{conversation, small_tokenizer, supervisor, supervisor_of};

/// A template that writes `turn` for an assistant turn `m`.
fn template(turn: &str) -> String {
    format!(
        "{{% for m in messages %}}{{% if m.role == 'assistant' %}}<|im_start|>{turn}<|im_end|>\
         {{% else %}}{{{{ m.content }}}}{{% endif %}}{{% endfor %}}\
         {{% if add_generation_prompt %}}<|im_start|>{{% endif %}}"
    )
}

const CALLS: &str = "{% for t in m.tool_calls %}<call>{{ t.function | tojson }}</call>{% endfor %}";

fn answer(message: Value) -> Conversation {
    let mut talk = conversation(&[("user", "q"), ("assistant", "")]);
    talk.messages[1] = Message::from_value(message).unwrap();
    talk
}

fn findings(supervisor: &Supervisor, talk: &Conversation) -> Vec<(String, Level, String)> {
    let mut findings = Findings::default();
    supervisor.supervise(0, talk, &mut findings).unwrap();
    // Not all of these templates end as a model's would.
    findings.iter().map(|f| (f.id.to_string(), f.level, f.message.clone())).collect()
}

#[track_caller]
fn check(turn: &str, message: Value, expected: &[(&str, Level, &str)]) {
    let found = findings(&supervisor(&template(turn)), &answer(message));
    let found: Vec<_> = found.iter().map(|(id, level, text)| (&**id, *level, &**text)).collect();
    assert_eq!(found, expected);
}

fn calling(content: Value, arguments: Value) -> Value {
    json!({"role": "assistant", "content": content, "tool_calls": [
        {"type": "function", "function": {"name": "get_tide", "arguments": arguments}}]})
}

const GONE: &str = "message 1: the chat template does not write the answer as the row has it, so \
                    that it is not learned";
const LEFT_OUT: &str = "message 1: the chat template leaves out the text beside a call, so that it \
                        is not learned";
const UNREASONED: &str = "message 1: the chat template does not show the reasoning of the turn, so \
                          that it is not learned";

#[test]
fn an_answer_that_is_gone_is_an_error() {
    let plain = json!({"role": "assistant", "content": "It is 97."});
    let gone = [("answer-not-learned", Level::Error, GONE)];
    check("{{ m.content }}", plain.clone(), &[]);
    check("{{ m.content[:5] }}", plain.clone(), &gone);
    check("{{ m.content | upper }}", plain.clone(), &gone);
    // Behind the end of the turn it is not learned either.
    check("ok<|im_end|>{{ m.content }}", plain, &gone);
}

#[test]
fn white_space_is_no_loss() {
    for content in ["  a b\n", "a\n\n    b\n\tc", "a  b"] {
        let message = json!({"role": "assistant", "content": content});
        check("{{ m.content | trim }}", message.clone(), &[]);
        check("{{ m.content.split() | join(' ') }}", message.clone(), &[]);
        check("{{ m.content | indent(2) }}", message, &[]);
    }
}

#[test]
fn text_beside_a_call_may_be_left_out() {
    let message = calling("Let me look.".into(), json!({"harbour": "Cromer"}));
    check(&format!("{{{{ m.content }}}}{CALLS}"), message.clone(), &[]);
    check(CALLS, message, &[("text-left-out", Level::Warning, LEFT_OUT)]);
    check(CALLS, calling(Value::Null, json!({"harbour": "Cromer"})), &[]);
}

#[test]
fn arguments_are_found_in_every_form() {
    let arguments = json!({"place": "Zürich \"HB\" <1>", "line": "a\nb\\c", "n": 7, "f": 7.0, "x": 1e22,
        "yes": true, "no": null, "list": ["q", {"deep": "z"}], "none": ""});
    let message = calling(Value::Null, arguments);
    for form in [
        CALLS,
        "{% for t in m.tool_calls %}{{ t.function.name }}{{ t.function.arguments | tojson(ensure_ascii=True) }}{% endfor %}",
        "{% for t in m.tool_calls %}{{ t.function | tojson(separators=(',', ':'), sort_keys=True) }}{% endfor %}",
        "{% for t in m.tool_calls %}{{ t.function | tojson(indent=4) | indent(8) }}{% endfor %}",
        // JSON within JSON, as some templates write it.
        "{% for t in m.tool_calls %}{{ t.function | tojson | tojson }}{% endfor %}",
        // Like a call of Python.
        "{% for t in m.tool_calls %}{{ t.function.name }}({% for k, v in t.function.arguments.items() %}{{ k }}={{ v }},{% endfor %}){% endfor %}",
        // XML.
        "{% for t in m.tool_calls %}<f={{ t.function.name }}>{% for k, v in t.function.arguments.items() %}<{{ k }}>\n{{ v | tojson if v is mapping or v is iterable and v is not string else v }}\n</{{ k }}>{% endfor %}{% endfor %}",
        "{% for t in m.tool_calls %}<f={{ t.function.name }}>{% for k, v in t.function.arguments.items() %}{{ v | e }}{% endfor %}{% endfor %}",
        // Text is all that it takes.
        "{% for t in m.tool_calls %}{{ t.function.name + '\n' + t.function.arguments }}{% endfor %}",
    ] {
        check(form, message.clone(), &[]);
    }
}

#[test]
fn a_call_without_its_arguments_is_an_error() {
    let message = calling(Value::Null, json!({"harbour": "Cromer", "hour": 7}));
    let lost = "{% for t in m.tool_calls %}{{ t.function.name }}(){% endfor %}";
    let what = "message 1: the argument \"Cromer\" of a call is not learned";
    check(lost, message, &[("call-not-learned", Level::Error, what)]);
    let first = "{% for t in m.tool_calls %}{{ t.function.name }}({{ t.function.arguments.harbour }}){% endfor %}";
    let message = calling(Value::Null, json!({"harbour": "Cromer", "hour": 17}));
    let what = "message 1: the argument 17 of a call is not learned";
    check(first, message, &[("call-not-learned", Level::Error, what)]);
}

#[test]
fn what_is_written_twice_is_found() {
    let long = "It stands at 1.8 metres.";
    let message = json!({"role": "assistant", "content": long});
    let what = format!("message 1: what is learned has `{long}` more often than the turn");
    check("{{ m.content }} {{ m.content }}", message, &[("learned-twice", Level::Warning, &what)]);
    // What the turn itself repeats is its own.
    let message = json!({"role": "assistant", "content": long, "reasoning_content": format!("I say: {long}")});
    check("<think>{{ m.reasoning_content }}</think>{{ m.content }}", message, &[]);
    let message = json!({"role": "assistant", "content": format!("{long} {long}")});
    check("{{ m.content }}", message, &[]);
    let message = calling(long.into(), json!({"text": long}));
    check(&format!("{{{{ m.content }}}}{CALLS}"), message, &[]);
}

#[test]
fn reasoning_is_part_of_what_is_learned() {
    let message = json!({"role": "assistant", "content": "4", "reasoning_content": "two and two"});
    check("<think>{{ m.reasoning_content }}</think>{{ m.content }}", message.clone(), &[]);
    check("{{ m.content }}", message, &[("reasoning-left-out", Level::Warning, UNREASONED)]);
    let inline = json!({"role": "assistant", "content": "<think>\ntwo and two\n</think>\n\n4"});
    check("{{ m.content }}", inline, &[]);
    // An empty block says nothing.
    let empty = json!({"role": "assistant", "content": "<think>\n\n</think>\n\n4"});
    check("{{ m.content.split('</think>')[-1].strip() }}", empty, &[]);
}

/// As Qwen3 with `enable_thinking: false`: the prompt closes the reasoning.
#[test]
fn reasoning_behind_a_closed_block_is_an_error() {
    let source = "{% for m in messages %}{% if m.role == 'assistant' %}<|im_start|>\
        <think>\n{{ m.reasoning_content or '' }}\n</think>\n\n{{ m.content }}<|im_end|>\
        {% else %}{{ m.content }}{% endif %}{% endfor %}\
        {% if add_generation_prompt %}<|im_start|><think>\n\n</think>\n\n{% endif %}";
    let supervisor = supervisor_of(source, &small_tokenizer(), "<|im_end|>").unwrap();
    let message = json!({"role": "assistant", "content": "4", "reasoning_content": "two and two"});
    let found = findings(&supervisor, &answer(message));
    let (id, level, text) = found.last().unwrap();
    assert_eq!((id.as_str(), *level), ("reasoning-after-closed", Level::Error));
    assert!(text.starts_with("message 1: "), "{text}");
    let plain = json!({"role": "assistant", "content": "4"});
    assert_eq!(findings(&supervisor, &answer(plain)), []);
}
