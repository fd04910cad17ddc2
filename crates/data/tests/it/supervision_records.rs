//! Every kind of record, every option, and what is said about them.

use data::record::{
    Answer, Feedback, Labelled, LabelledInput, Preference, Prompt, Ranked, Record, Step, Stepwise,
    Text, Tokens,
};
use data::supervision::{Reasoning, System, TrainOn};
use data::{Conversation, Findings, Level, SupervisionOptions, Supervisor};
use serde_json::{Map, json};
use text::{Message, Metadata, Tokenizer};

use crate::support::{
    CHATML, conversation, place, show, small_tokenizer, supervisor, supervisor_of,
    tokenizer_with_bos,
};

const TALK: [(&str, &str); 5] =
    [("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")];

fn messages(turns: &[(&str, &str)]) -> Vec<Message> {
    turns.iter().map(|(role, content)| Message::new(*role, *content)).collect()
}

/// ChatML by hand; `[...]` is learned.
fn chatml(turns: &[(&str, &str)]) -> String {
    let line = |(role, text): &(&str, &str)| match text.strip_prefix('[') {
        Some(text) => format!("<|im_start|>{role}\n[{}<|im_end|>]\n", text.trim_end_matches(']')),
        None => format!("<|im_start|>{role}\n{text}<|im_end|>\n"),
    };
    turns.iter().map(line).collect()
}

fn ids(findings: &Findings) -> Vec<&str> {
    findings.iter().map(|finding| finding.id.as_ref()).collect()
}

#[track_caller]
fn check_options(talk: &Conversation, options: SupervisionOptions, expected: &[&[(&str, &str)]]) {
    let supervisor = supervisor(CHATML).with(options);
    let sequences = supervisor.supervise(0, talk, &mut Findings::default()).unwrap();
    let expected: Vec<String> = expected.iter().map(|turns| chatml(turns)).collect();
    assert_eq!(sequences.iter().map(show).collect::<Vec<_>>(), expected);
}

#[test]
fn options_say_what_is_learned() {
    let options = SupervisionOptions::default;
    let talk = conversation(&TALK);
    let [system, first, .., last] = TALK;
    let head = [system, first, ("assistant", "b"), ("user", "c")];
    let only_last = SupervisionOptions { train_on: TrainOn::Last, ..options() };
    check_options(&talk, only_last, &[&[head[0], head[1], head[2], head[3], ("assistant", "[d]")]]);

    let learned = [("user", "a"), ("assistant", "[b]"), ("user", "c"), ("assistant", "[d]")];
    let drop = SupervisionOptions { system: System::Drop, ..options() };
    check_options(&talk, drop, &[&learned]);
    let set = SupervisionOptions { system: System::Set("new".into()), ..options() };
    let mut with_new = vec![("system", "new")];
    with_new.extend(learned);
    check_options(&talk, set.clone(), &[&with_new]);
    check_options(&conversation(&TALK[1..]), set, &[&with_new]);

    let thinks = [TALK[1], ("assistant", "<think>\nx\n</think>\n\nb")];
    let strip = SupervisionOptions { reasoning: Reasoning::Strip, ..options() };
    check_options(&conversation(&thinks), strip, &[&learned[..2]]);
    assert_eq!(last.1, "d");
}

#[test]
fn weights_become_weights_of_tokens() {
    let mut talk = conversation(&TALK);
    talk.weights = vec![1.0, 1.0, 0.5, 1.0, 1.0];
    let weighted = SupervisionOptions { train_on: TrainOn::Weighted, ..Default::default() };
    for (options, first) in [(weighted, 0.5), (SupervisionOptions::default(), 1.0)] {
        let supervisor = supervisor(CHATML).with(options);
        let rows = supervisor.supervise(0, &talk, &mut Findings::default()).unwrap();
        let weights: Vec<f32> = rows[0].weights.iter().copied().filter(|w| *w != 0.0).collect();
        assert_eq!(weights, [first, first, 1.0, 1.0]); // A letter and the end, twice.
    }
    talk.weights[2] = -1.0;
    let error = supervisor(CHATML).supervise(0, &talk, &mut Findings::default()).unwrap_err();
    assert_eq!(error.to_string(), "a.jsonl:1: message 2: weight -1 is not 0 or more");
}

#[test]
fn other_roles_are_learned_with_what_opens_them() {
    let roles = vec!["tool".to_owned(), "assistant".to_owned()];
    let options = SupervisionOptions { roles, ..Default::default() };
    let turns = [("user", "a"), ("assistant", "b"), ("tool", "t"), ("assistant", "d")];
    let supervisor = supervisor(CHATML).with(options.clone());
    let talk = conversation(&turns);
    let rows = supervisor.supervise(0, &talk, &mut Findings::default()).unwrap();
    let expected = "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n[b<|im_end|>]\n\
        [<|im_start|>tool\nt<|im_end|>]\n<|im_start|>assistant\n[d<|im_end|>]\n";
    assert_eq!(rows.iter().map(show).collect::<Vec<_>>(), [expected]);

    // A template that rewrites what is before the turn leaves nothing to prove.
    let counts = CHATML.replace("{% for m", "{{ messages | length }}{% for m");
    let supervisor = self::supervisor(&counts).with(options);
    let error = supervisor.supervise(0, &talk, &mut Findings::default()).unwrap_err();
    assert!(
        error
            .message
            .starts_with("message 2: the template renders what is before this `tool` turn")
    );
    assert_eq!(error.hint.as_deref(), Some("leave `tool` out of the roles that are trained"));
    let nobody = SupervisionOptions { roles: vec!["critic".into()], ..Default::default() };
    let result =
        self::supervisor(CHATML).with(nobody).supervise(0, &talk, &mut Findings::default());
    assert_eq!(result.unwrap_err().hint.as_deref(), Some("learned are turns of critic"));
}

#[test]
fn stripped_reasoning_must_leave_an_answer() {
    let options = SupervisionOptions { reasoning: Reasoning::Strip, ..Default::default() };
    let talk = conversation(&[("user", "a"), ("assistant", "<think>x</think>\n")]);
    let result = supervisor(CHATML).with(options).supervise(0, &talk, &mut Findings::default());
    let error = result.unwrap_err();
    assert_eq!(error.message, "message 1: nothing is left of the turn without its reasoning");
}

/// What a record becomes: role and text of each sequence.
#[track_caller]
fn check_record(record: &Record, expected: &[(u8, &str)]) {
    let rows = supervisor(CHATML).sequences(7, record, &mut Findings::default()).unwrap();
    let found: Vec<(u8, String)> = rows.iter().map(|row| (row.role, show(row))).collect();
    let expected: Vec<(u8, String)> =
        expected.iter().map(|(r, text)| (*r, (*text).into())).collect();
    assert_eq!(found, expected);
    assert!(rows.iter().all(|row| (row.row, row.part) == (7, 0)));
}

#[test]
fn every_kind_of_record_has_sequences() {
    let (prompt, tools) = (messages(&[("user", "a")]), None);
    let answer = |text: &str| messages(&[("assistant", text)]);
    let learned = |text: &str| chatml(&[("user", "a"), ("assistant", &format!("[{text}]"))]);
    let (b, c, d) = (learned("b"), learned("c"), learned("d"));

    let text = Text { place: place(1), text: "ab".into() };
    check_record(&Record::Text(text), &[(0, "a[b</s>]")]);
    let tokens = Tokens { place: place(1), tokens: vec![65, 66, 67], weights: vec![0.0, 0.0, 1.0] };
    let shown = small_tokenizer().decode(&[65, 66], false).unwrap();
    let third = small_tokenizer().decode(&[67], false).unwrap();
    check_record(&Record::Tokens(tokens), &[(0, &format!("{shown}[{third}]"))]);

    let pair = Preference {
        place: place(1),
        prompt: prompt.clone(),
        chosen: answer("b"),
        rejected: answer("c"),
        margin: None,
        tools: tools.clone(),
    };
    check_record(&Record::Preference(pair), &[(0, &b), (1, &c)]);
    for (desirable, role) in [(true, 0), (false, 1)] {
        let conversation = conversation(&TALK);
        let expected = chatml(&[TALK[0], TALK[1], TALK[2], TALK[3], ("assistant", "[d]")]);
        check_record(&Record::Feedback(Feedback { conversation, desirable }), &[(role, &expected)]);
    }
    let answers = ["d", "b", "c"].map(|text| Answer {
        index: 0,
        messages: answer(text),
        score: None,
        standing: 0,
    });
    let ranked = Ranked { place: place(1), prompt: prompt.clone(), answers: answers.into(), tools };
    check_record(&Record::Ranked(ranked), &[(0, &d), (1, &b), (2, &c)]);

    let steps = ["xy", "z"].map(|text| Step { text: text.into(), label: 1.0 });
    let stepwise = Stepwise { place: place(1), prompt: prompt.clone(), steps: steps.into() };
    let opened = "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n";
    check_record(&Record::Stepwise(stepwise), &[(0, &format!("{opened}x[y]\n[z]"))]);
    let (reference, columns) = (None, Map::new());
    let prompt = Prompt { place: place(1), messages: prompt, reference, columns, tools: None };
    check_record(&Record::Prompt(prompt), &[(0, opened)]);
    let labelled = |input| Record::Labelled(Labelled { place: place(1), input, label: None });
    // No EOS: other programs read the class at the last token of the text.
    check_record(&labelled(LabelledInput::Text("ab".into())), &[(0, "ab")]);
    let dialogue =
        |turns: &[(&str, &str)]| LabelledInput::Dialogue { messages: messages(turns), tools: None };
    check_record(&labelled(dialogue(&[("user", "a")])), &[(0, opened)]);
    let answered = chatml(&[("user", "a"), ("assistant", "b")]);
    let answered = answered.trim_end().to_owned();
    let rows = supervisor(CHATML).sequences(
        7,
        &labelled(dialogue(&[("user", "a"), ("assistant", "b")])),
        &mut Findings::default(),
    );
    assert!(show(&rows.unwrap()[0]).starts_with(&answered));
}

#[test]
fn a_pair_of_several_turns_learns_all_its_answers() {
    let turns = [("assistant", "b"), ("user", "c"), ("assistant", "d")];
    let pair = Preference {
        place: place(1),
        prompt: messages(&[("user", "a")]),
        chosen: messages(&turns),
        rejected: messages(&turns[..1]),
        margin: None,
        tools: None,
    };
    let learned = [("user", "a"), ("assistant", "[b]"), ("user", "c"), ("assistant", "[d]")];
    check_record(&Record::Preference(pair), &[(0, &chatml(&learned)), (1, &chatml(&learned[..2]))]);
}

#[track_caller]
fn check_error(supervisor: &Supervisor, record: &Record, message: &str) {
    let error = supervisor.sequences(0, record, &mut Findings::default()).unwrap_err();
    assert_eq!(error.message, message);
}

#[test]
fn what_cannot_be_a_sequence_is_refused() {
    let supervisor = supervisor(CHATML);
    let tokens = |tokens: &[u32], weights: &[f32]| {
        Record::Tokens(Tokens { place: place(1), tokens: tokens.into(), weights: weights.into() })
    };
    let message = "token 1 has id 99999, and the vocabulary ends at 260";
    check_error(&supervisor, &tokens(&[1, 99999], &[0.0, 1.0]), message);
    check_error(&supervisor, &tokens(&[1, 2], &[0.0]), "row has 2 tokens and 1 weights");
    check_error(&supervisor, &tokens(&[1, 2], &[1.0, 0.0]), "no token of the row is learned");
    let answers = vec![
        Answer {
            index: 0,
            messages: messages(&[("assistant", "b")]),
            score: None,
            standing: 0
        };
        257
    ];
    let prompt = messages(&[("user", "a")]);
    let ranked = Ranked { place: place(1), prompt: prompt.clone(), answers, tools: None };
    check_error(&supervisor, &Record::Ranked(ranked), "row has more than 256 answers");
    let steps = vec![Step { text: " ".into(), label: 1.0 }];
    let stepwise = Stepwise { place: place(1), prompt, steps };
    check_error(&supervisor, &Record::Stepwise(stepwise), "step 0 is empty");
}

fn metadata(tokenizer: Tokenizer) -> Metadata {
    Metadata {
        config: json!({}),
        special: tokenizer.special().clone(),
        eos_token_ids: tokenizer.eos().into_iter().collect(),
        tokenizer,
        chat_template: None,
        named_templates: Vec::new(),
        generation_config: json!({}),
    }
}

#[test]
fn a_model_without_a_template_takes_texts_and_tokens() {
    let supervisor = Supervisor::for_text(&metadata(tokenizer_with_bos()));
    let text = Record::Text(Text { place: place(1), text: "ab".into() });
    let rows = supervisor.sequences(0, &text, &mut Findings::default()).unwrap();
    assert_eq!(show(&rows[0]), "<s>[ab</s>]");
    let record = Record::Conversation(conversation(&TALK));
    let error = supervisor.sequences(0, &record, &mut Findings::default()).unwrap_err();
    assert!(error.hint.unwrap().contains("`model.chat_template`"));
}

/// Findings of a ChatML-like conversation with the tokenizer that puts `<s>` first.
#[track_caller]
fn check_bos(template: &str, turns: &[(&str, &str)], expected: &[&str]) {
    let supervisor = supervisor_of(template, &tokenizer_with_bos(), "<|im_end|>").unwrap();
    let mut findings = Findings::default();
    supervisor.supervise(0, &conversation(turns), &mut findings).unwrap();
    assert_eq!(ids(&findings), expected);
}

#[test]
fn beginnings_are_there_once() {
    // The tokenizer would add another one: rendered text is tokenised without.
    let begins = format!("{{{{ bos_token }}}}{CHATML}");
    check_bos(&begins, &TALK, &[]);
    check_bos(CHATML, &TALK, &["missing-bos"]);
    let first = "{{ bos_token }}{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}";
    let turns = [("user", "<s>a"), ("assistant", "b")];
    check_bos(first, &turns, &["special-token-in-text", "double-bos"]);

    let supervisor = Supervisor::for_text(&metadata(tokenizer_with_bos()));
    let mut findings = Findings::default();
    let text = Record::Text(Text { place: place(1), text: "<s>ab".into() });
    supervisor.sequences(0, &text, &mut findings).unwrap();
    assert_eq!(ids(&findings), ["special-token-in-text", "double-bos"]);
    assert_eq!(findings.get("double-bos").unwrap().level, Level::Error);
}

/// A tokenizer of words, which does not know most of them.
fn word_tokenizer() -> Tokenizer {
    let folder = tempfile::tempdir().unwrap();
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": null, "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": {"<unk>": 0, "</s>": 1, "a": 2, "b": 3}, "unk_token": "<unk>"},
    });
    let config = json!({"unk_token": "<unk>", "eos_token": "</s>"});
    std::fs::write(folder.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    std::fs::write(folder.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    Tokenizer::from_folder(folder.path()).unwrap()
}

#[test]
fn unknown_tokens_are_counted() {
    let supervisor = Supervisor::for_text(&metadata(word_tokenizer()));
    let mut findings = Findings::default();
    for text in ["a b a", "a zebra b"] {
        let record = Record::Text(Text { place: place(1), text: text.into() });
        supervisor.sequences(0, &record, &mut findings).unwrap();
    }
    let found = findings.get("unknown-tokens").unwrap();
    let expected = (1, "25.0 % of the row's tokens are unknown to the tokenizer");
    assert_eq!((found.count, found.message.as_str()), expected);
}

#[track_caller]
fn check_findings(template: &str, turns: &[(&str, &str)], expected: &[(&str, Level)]) {
    let mut findings = Findings::default();
    supervisor(template).supervise(0, &conversation(turns), &mut findings).unwrap();
    let found: Vec<_> =
        findings.iter().map(|finding| (finding.id.as_ref(), finding.level)).collect();
    assert_eq!(found, expected);
}

#[test]
fn what_serving_would_feed_is_compared() {
    use Level::{Error, Note, Warning};
    // The newlines before and after the first answer are one token to serving, and two to the row.
    let turns = [("user", "a"), ("assistant", "\nb"), ("user", "c"), ("assistant", "d")];
    check_findings(CHATML, &turns, &[("split-tokens", Note), ("served-differently", Warning)]);
    let mut findings = Findings::default();
    supervisor(CHATML).supervise(0, &conversation(&turns), &mut findings).unwrap();
    let expected =
        "serving feeds other tokens before the last answer than the row has, from token 19 on";
    assert_eq!(findings.get("served-differently").unwrap().message, expected);

    // The model must write the opening of its turn itself.
    let closed =
        CHATML.replace("{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}", "");
    check_findings(&closed, &TALK, &[("empty-generation-prompt", Warning)]);
    // Nothing opens a turn here, so that nothing is missing.
    let bare = "{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}";
    check_findings(bare, &TALK, &[]);

    let endless = CHATML.replace("<|im_end|>", "");
    check_findings(&endless, &TALK, &[("no-end-of-turn", Error)]);
    let last_only = CHATML.replace("<|im_end|>", "{% if loop.index < 4 %}<|im_end|>{% endif %}");
    check_findings(&last_only, &TALK, &[("turn-without-end", Warning)]);
}

#[test]
fn reasoning_is_neither_lost_nor_left_open() {
    use Level::{Note, Warning};
    let strips = CHATML.replace("{{ m.content }}", "{{ m.content.split('</think>')[-1].strip() }}");
    let turns = [("user", "a"), ("assistant", "<think>x</think>b")];
    check_findings(&strips, &turns, &[("turn-of-its-own", Note)]);
    let opens = strips.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}");
    check_findings(&opens, &turns, &[("turn-of-its-own", Note)]);
    let expected = [("reasoning-left-open", Warning), ("turn-of-its-own", Note)];
    check_findings(&opens, &[("user", "a"), ("assistant", "b")], &expected);

    let mut talk = conversation(&[("user", "a"), ("assistant", "b")]);
    talk.messages[1].extra.insert("reasoning_content".into(), "x".into());
    let mut findings = Findings::default();
    supervisor(CHATML).supervise(0, &talk, &mut findings).unwrap();
    assert_eq!(ids(&findings), ["reasoning-left-out"]);
    let rows = supervisor(&opens).supervise(0, &talk, &mut Findings::default()).unwrap();
    let expected = "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n<think>\n\
        [x\n</think>\n\nb<|im_end|>]";
    assert_eq!(show(&rows[0]), expected);
}

#[test]
fn a_marker_that_splits_is_refused() {
    // `ĊĊ` is in the vocabulary, but `<|zz|>` is not.
    let error = crate::support::try_supervisor("<|zz|>{{ messages[0].content }}").err().unwrap();
    assert_eq!(error.to_string(), "`model.chat_template`: the tokenizer has no token <|zz|>");
}

#[test]
fn long_conversations_are_split_between_turns() {
    let whole =
        supervisor(CHATML).supervise(0, &conversation(&TALK), &mut Findings::default()).unwrap();
    let split = |max: usize| {
        let options = SupervisionOptions { split_beyond: Some(max), ..Default::default() };
        let mut findings = Findings::default();
        let supervisor = supervisor(CHATML).with(options);
        let rows = supervisor.supervise(0, &conversation(&TALK), &mut findings).unwrap();
        assert!(rows.iter().all(|row| row.len() <= max));
        (rows.iter().map(show).collect::<Vec<_>>(), findings)
    };
    assert_eq!(split(whole[0].len()).0, [show(&whole[0])]);
    let (rows, findings) = split(whole[0].len() - 1);
    let [system, a, _, c, _] = TALK;
    let parts = [[system, a, ("assistant", "[b]")], [system, c, ("assistant", "[d]")]];
    assert_eq!(rows, parts.map(|turns| chatml(&turns)));
    assert_eq!(ids(&findings), ["overlong-split-conversation"]);
    let (rows, findings) = split(5);
    assert_eq!((rows.len(), ids(&findings)), (0, vec!["overlong-cannot-split"]));
    assert_eq!(findings.get("overlong-cannot-split").unwrap().count, 2);
}

#[track_caller]
fn check_texts(record: &Record, prompt: &str, answer: &str) {
    let texts = supervisor(CHATML).texts(record);
    assert_eq!((texts.prompt.as_str(), texts.answer.as_str()), (prompt, answer));
}

#[test]
fn audits_get_plain_text() {
    check_texts(&Record::Conversation(conversation(&TALK)), "a\nb\nc", "d");
    check_texts(&Record::Text(Text { place: place(1), text: "ab".into() }), "", "ab");
    let ids = small_tokenizer().encode("ab").unwrap();
    let tokens = Tokens { place: place(1), tokens: ids, weights: vec![0.0, 1.0] };
    check_texts(&Record::Tokens(tokens), "a", "b");
    let mut calls = conversation(&[("user", "a"), ("assistant", "")]);
    calls.messages[1].extra.insert("tool_calls".into(), json!([{"name": "f"}]));
    check_texts(&Record::Conversation(calls), "a", r#"[{"name":"f"}]"#);
    let prompt = Prompt {
        place: place(1),
        messages: messages(&[("user", "a")]),
        reference: Some(json!(4)),
        columns: Map::new(),
        tools: None,
    };
    check_texts(&Record::Prompt(prompt), "a", "4");
}
