use data::{Findings, Level, Supervisor};
use serde_json::{Map, json};
use text::{ChatTemplate, Date};

use crate::support::{CHATML, conversation, show, small_tokenizer, supervisor, try_supervisor};

#[track_caller]
fn check(template: &str, turns: &[(&str, &str)], expected: &[&str], ids: &[&str]) {
    let mut findings = Findings::default();
    let sequences = supervisor(template).supervise(3, &conversation(turns), &mut findings).unwrap();
    assert_eq!(sequences.iter().map(show).collect::<Vec<_>>(), expected);
    assert_eq!(findings.iter().map(|finding| finding.id.as_ref()).collect::<Vec<_>>(), ids);
    assert!(sequences.iter().all(|sequence| sequence.row == 3));
}

#[track_caller]
fn check_error(template: &str, turns: &[(&str, &str)], message: &str) {
    let result = supervisor(template).supervise(3, &conversation(turns), &mut Findings::default());
    assert_eq!(result.unwrap_err().to_string(), message);
}

const HELLO: [(&str, &str); 2] = [("user", "hi"), ("assistant", "ho")];

#[test]
fn the_mask_ends_with_the_end_of_turn() {
    let expected = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n[ho<|im_end|>]\n";
    check(CHATML, &HELLO, &[expected], &[]);
}

#[test]
fn turns_that_nest_are_one_sequence() {
    let turns =
        [("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")];
    let expected = "<|im_start|>system\ns<|im_end|>\n<|im_start|>user\na<|im_end|>\n\
        <|im_start|>assistant\n[b<|im_end|>]\n<|im_start|>user\nc<|im_end|>\n\
        <|im_start|>assistant\n[d<|im_end|>]\n";
    check(CHATML, &turns, &[expected], &[]);
}

#[test]
fn turns_without_weight_are_context() {
    let mut talk = conversation(&[("user", "a"), ("assistant", "b"), ("assistant", "d")]);
    talk.supervised[1] = false;
    let sequences = supervisor(CHATML).supervise(0, &talk, &mut Findings::default()).unwrap();
    let expected = "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n\
        <|im_start|>assistant\n[d<|im_end|>]\n";
    assert_eq!(show(&sequences[0]), expected);
}

/// Strips the reasoning of all turns but the last, as reasoning models do.
const STRIPS: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n\
    {% if m.role == 'assistant' and not loop.last %}{{ m.content.split('</think>')[-1] }}\
    {% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}\
    {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

#[test]
fn a_template_that_rewrites_earlier_turns_gets_a_sequence_a_turn() {
    let turns = [
        ("user", "a"),
        ("assistant", "<think>x</think>b"),
        ("user", "c"),
        ("assistant", "<think>y</think>d"),
    ];
    let first =
        "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n[<think>x</think>b<|im_end|>]\n";
    let second = "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n\
        <|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\n[<think>y</think>d<|im_end|>]\n";
    check(STRIPS, &turns, &[first, second], &["turn-of-its-own"]);
}

/// Opens the reasoning in the generation prompt and never shows it again.
const OPENS: &str = "{% for m in messages %}{% if m.role == 'assistant' %}<|im_start|>\
    {{ m.content.split('</think>')[-1].strip() }}<|im_end|></s>{% else %}{{ m.content }}{% endif %}\
    {% endfor %}{% if add_generation_prompt %}<|im_start|><think>\n{% endif %}";

#[test]
fn a_prompt_that_is_no_prefix_is_followed_by_what_the_model_emits() {
    let turns = [("user", "a"), ("assistant", "<think>\nx\n</think>\n\nb")];
    let expected = "a<|im_start|><think>\n[x\n</think>\n\nb<|im_end|>]";
    check(OPENS, &turns, &[expected], &["turn-of-its-own"]);
}

#[test]
fn the_end_is_the_first_special_token_after_the_content() {
    // As Phi-3: an end-of-sequence token after the last turn.
    let closes =
        CHATML.replace("{% if add", "{% if not add_generation_prompt %}</s>{% endif %}{% if add");
    let expected = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n[ho<|im_end|>]\n</s>";
    check(&closes, &HELLO, &[expected], &[]);
    // Content that the template's own words contain.
    let reasons = CHATML.replace(
        "{{ m.content }}",
        "{% if m.role == 'assistant' %}<think>\n\n</think>\n\n{% endif %}{{ m.content }}",
    );
    let expected = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n\
        [<think>\n\n</think>\n\nthink<|im_end|>]\n";
    check(&reasons, &[("user", "hi"), ("assistant", "think")], &[expected], &[]);
    // Special tokens that the content itself contains.
    let expected =
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n[a<|im_end|>b<|im_end|>]\n";
    let turns = [("user", "hi"), ("assistant", "a<|im_end|>b")];
    check(CHATML, &turns, &[expected], &["special-token-in-text"]);
}

#[test]
fn a_template_without_an_end_is_found() {
    let plain = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}\
        {% if add_generation_prompt %}assistant: {% endif %}";
    check(plain, &HELLO, &["user: hi\nassistant: [ho\n]"], &["no-end-of-turn"]);
    let other = CHATML.replace("<|im_end|>", "</s>");
    let expected = "<|im_start|>user\nhi</s>\n<|im_start|>assistant\n[ho</s>]\n";
    check(&other, &HELLO, &[expected], &["end-is-not-eos"]);
}

#[test]
fn tokens_are_those_of_serving() {
    // Two newlines are one token in one piece, and two as prompt and answer.
    let expected = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n[\nho<|im_end|>]\n";
    check(CHATML, &[("user", "hi"), ("assistant", "\nho")], &[expected], &["split-tokens"]);
}

#[test]
fn a_doubled_beginning_is_found() {
    let template = format!("{{{{ bos_token }}}}<s>{CHATML}");
    let expected = "<s><s><|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n[ho<|im_end|>]\n";
    check(&template, &HELLO, &[expected], &["double-bos"]);
}

#[test]
fn what_the_template_swallows_is_found() {
    let deaf =
        CHATML.replace("{% for m in messages %}", "{% for m in messages if m.role != 'system' %}");
    let turns = [("system", "be brief"), HELLO[0], HELLO[1]];
    let expected = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n[ho<|im_end|>]\n";
    check(&deaf, &turns, &[expected], &["message-rewritten"]);
}

#[test]
fn tool_calls_must_be_written() {
    let mut talk = conversation(&[("user", "a"), ("assistant", "")]);
    talk.tools = Some(json!([{"name": "f"}]));
    let calls = json!([{"type": "function", "function": {"name": "find_it", "arguments": {}}}]);
    talk.messages[1].extra.insert("tool_calls".into(), calls);
    let error = supervisor(CHATML).supervise(0, &talk, &mut Findings::default()).unwrap_err();
    let expected = "a.jsonl:1: the chat template does not write the call of `find_it`";
    assert_eq!(error.to_string(), expected);

    let writes = CHATML.replace(
        "{{ m.content }}",
        "{{ m.content }}{% for c in m.tool_calls %}<call>{{ c.function.name }}</call>{% endfor %}",
    );
    let mut findings = Findings::default();
    let sequences = supervisor(&writes).supervise(0, &talk, &mut findings).unwrap();
    let expected =
        "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n[<call>find_it</call><|im_end|>]\n";
    assert_eq!(show(&sequences[0]), expected);
    assert_eq!(findings.get("tools-ignored").map(|finding| finding.level), Some(Level::Warning));
    // A template of its own for rows with tools shows them.
    let mut findings = Findings::default();
    let tokenizer = small_tokenizer();
    let date = Date::new(2026, 3, 1).unwrap();
    let compiled = |source: &str| ChatTemplate::new(source, tokenizer.special(), date).unwrap();
    let shows = compiled(&format!("{{{{ tools | tojson }}}}{writes}"));
    let template = compiled(&writes).with_tool_use(&shows);
    let stop = tokenizer.id("<|im_end|>").unwrap();
    let supervisor = Supervisor::new(&tokenizer, &template, &[stop], Map::new()).unwrap();
    supervisor.supervise(0, &talk, &mut findings).unwrap();
    assert!(findings.get("tools-ignored").is_none());
}

#[test]
fn a_template_that_refuses_names_the_row() {
    let strict =
        "{% if messages[0].role != 'user' %}{{ raise_exception('start with user') }}{% endif %}";
    let message = "a.jsonl:1: chat template: start with user";
    check_error(strict, &[("system", "s"), HELLO[0], HELLO[1]], message);
    let silent = "{{ messages[0].content }}";
    check_error(silent, &HELLO, "a.jsonl:1: no token of the answer is left to learn");
}

#[test]
fn a_template_of_another_tokenizer_is_refused() {
    let error = try_supervisor("<|start_header_id|>{{ messages[0].content }}").err().unwrap();
    let expected = "`model.chat_template`: the tokenizer has no token <|start_header_id|>";
    assert_eq!(error.to_string(), expected);
}
