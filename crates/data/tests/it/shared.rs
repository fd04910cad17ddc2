//! Files that people train on, where they are at hand.

use std::path::{Path, PathBuf};

use data::{Findings, Level, prepare};

use crate::support::{CHATML, config, conversation, show_for, source, supervisor};

#[allow(clippy::print_stderr)]
pub(crate) fn file(name: &str) -> Option<PathBuf> {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data")).join(name);
    if !path.exists() {
        eprintln!("skipped: {name} is not here");
        return None;
    }
    Some(path)
}

#[track_caller]
fn check(name: &str, format: &str, rows: usize) {
    let Some(path) = file(name) else { return };
    let (summary, conversations) =
        data::prepare::load_source(&source(&path), &mut Findings::default()).unwrap();
    assert_eq!(
        (summary.format, summary.rows, conversations.len()),
        (format.to_owned(), rows, rows)
    );
}

#[test]
fn shapes_are_found_by_looking() {
    check("rasbt-instruct/instruction-data.json", "alpaca", 1100);
    check("llamafactory-demo/alpaca_en_demo.json", "alpaca", 999);
    check("llamafactory-demo/identity.json", "alpaca", 91);
    check("llamafactory-demo/glaive_toolcall_en_demo.json", "sharegpt", 300);
    check("llamafactory-demo/v1_sft_demo.jsonl", "messages", 500);
    check("gsm8k/test.jsonl", "prompt_completion", 1319);
}

#[test]
fn what_is_not_for_sft_is_refused() {
    for (name, hint) in [
        ("llamafactory-demo/dpo_en_demo.json", "are preferences"),
        ("llamafactory-demo/c4_demo.jsonl", "pretraining"),
    ] {
        let Some(path) = file(name) else { return };
        let result = data::prepare::load_source(&source(&path), &mut Findings::default());
        let error = result.unwrap_err();
        assert!(error.hint().unwrap_or_default().contains(hint), "{error}: {:?}", error.hint());
    }
}

#[test]
fn a_whole_file_is_prepared_and_its_near_duplicates_found() {
    let Some(path) = file("rasbt-instruct/instruction-data.json") else { return };
    let prepared = prepare(&config(&path), &supervisor(CHATML)).unwrap();
    assert_eq!(prepared.train.len(), 1100);
    let remarks = prepared.findings.iter().filter(|finding| finding.level > Level::Note);
    assert_eq!(
        remarks.map(|finding| finding.id.as_ref()).collect::<Vec<_>>(),
        ["near-duplicate-rows", "contradictory-answers"]
    );
}

/// A dialogue of two turns with a real template: what is learned in it.
#[track_caller]
fn check_template(
    name: &str,
    tokens: (&str, &str, &str),
    more: &[&str],
    expected: &[&[&str]],
    ids: &[&str],
) {
    let Some(path) = file(&format!("chat-templates/{name}.jinja")) else { return };
    let template = std::fs::read_to_string(path).unwrap();
    let turns = [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")];
    let (shown, findings) = show_for(&template, tokens, more, &conversation(&turns));
    let learned = |text: &String| {
        let parts = text.split('[').skip(1).filter_map(|rest| rest.split(']').next());
        parts.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(shown.iter().map(learned).collect::<Vec<_>>(), expected, "{shown:?}");
    assert_eq!(findings.iter().map(|finding| finding.id.as_ref()).collect::<Vec<_>>(), ids);
}

#[test]
fn real_templates_are_masked_to_the_end_of_turn() {
    let chatml = ("<|im_start|>", "<|endoftext|>", "<|im_end|>");
    let expected = ["b<|im_end|>", "d<|im_end|>"];
    check_template("Qwen-Qwen2.5-7B-Instruct", chatml, &[], &[&expected], &[]);

    let llama = ("<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>");
    let more = ["<|start_header_id|>", "<|end_header_id|>", "<|python_tag|>", "<|eom_id|>"];
    let expected = ["b<|eot_id|>", "d<|eot_id|>"];
    check_template("meta-llama-Llama-3.1-8B-Instruct", llama, &more, &[&expected], &[]);
    check_template("meta-llama-Llama-3.2-3B-Instruct", llama, &more, &[&expected], &[]);

    let gemma = ("<bos>", "<eos>", "<end_of_turn>");
    let expected = ["b<end_of_turn>", "d<end_of_turn>"];
    check_template("google-gemma-2-2b-it", gemma, &["<start_of_turn>"], &[&expected], &[]);

    // Ends every text with another token, so that no turn continues the one before.
    let phi = ("<s>", "<|endoftext|>", "<|end|>");
    let more = ["<|system|>", "<|user|>", "<|assistant|>"];
    let expected: [&[&str]; 2] = [&["b<|end|>"], &["d<|end|>"]];
    check_template("microsoft-Phi-3.5-mini-instruct", phi, &more, &expected, &["turn-of-its-own"]);
}
