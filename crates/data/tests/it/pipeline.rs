use std::path::{Path, PathBuf};

use data::split::By;
use data::supervision::System;
use data::{Config, Error, Level, Overlong, Sequences, SupervisionOptions, Validation, prepare};
use serde_json::json;

use crate::support::{CHATML, config, source, supervisor};

/// `rows` questions of growing length.
fn write(folder: &Path, name: &str, rows: usize) -> PathBuf {
    let row =
        |i: usize| format!("{{\"prompt\": \"{}\", \"completion\": \"{i}\"}}\n", "x".repeat(i));
    let path = folder.join(name);
    std::fs::write(&path, (0..rows).map(row).collect::<String>()).unwrap();
    path
}

fn rows(sequences: &Sequences) -> Vec<u64> {
    let mut rows = Vec::new();
    sequences.each(|outline| rows.push(outline.row)).unwrap();
    rows
}

fn share(fraction: f64) -> Validation {
    Validation::Fraction { fraction, by: By::Row, stratify: None }
}

#[test]
fn rows_are_split_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), "a.jsonl", 20);
    let config = Config { validation: share(0.2), ..config(&path) };
    let prepared = prepare(&config, &supervisor(CHATML)).unwrap();
    assert!((1..10).contains(&prepared.validation.len()));
    let mut all = [rows(&prepared.train), rows(&prepared.validation)].concat();
    all.sort_unstable();
    assert_eq!(all, (0..20).collect::<Vec<_>>());
    let stats = prepared.stats;
    assert_eq!(stats.rows + stats.rows_validation, stats.rows_in);
    assert_eq!(stats.tokens, prepared.train.tokens());
    assert_eq!(
        (prepared.files[0].format.as_str(), prepared.files[0].rows),
        ("prompt_completion", 20)
    );
    assert_eq!(prepared.files[0].sha256.len(), 64);
}

#[test]
fn pairs_are_counted_whether_made_or_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pairs.jsonl");
    let sides = [("longer one", "short"), ("a", "bb"), ("same", "same"), ("aaa", "b")];
    let row = |(chosen, rejected): &(&str, &str)| {
        format!("{{\"prompt\": \"p\", \"chosen\": \"{chosen}\", \"rejected\": \"{rejected}\"}}\n")
    };
    std::fs::write(&path, sides.iter().map(row).collect::<String>()).unwrap();
    let cache = Some(folder.path().join("cache"));
    let config = Config { wanted: data::Wanted::Preferences, cache, ..config(&path) };
    for was_cached in [false, true] {
        let prepared = prepare(&config, &supervisor(CHATML)).unwrap();
        assert_eq!(prepared.was_cached, was_cached);
        let tally = prepared.preferences;
        let counts = [tally.pairs, tally.chosen_longer, tally.rejected_longer, tally.identical];
        assert_eq!(counts, [4, 2, 1, 1]);
        assert_eq!(tally.length_ratio(), Some(18.0 / 12.0));
    }
}

#[test]
fn threads_do_not_change_the_result() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), "a.jsonl", 23);
    let with = |threads: usize| {
        let config = Config { validation: share(0.1), threads, ..config(&path) };
        let prepared = prepare(&config, &supervisor(CHATML)).unwrap();
        let all = |sequences: &Sequences| sequences.get_all(0..sequences.len()).unwrap();
        (all(&prepared.train), all(&prepared.validation), prepared.findings)
    };
    let one = with(1);
    for threads in [0, 2, 5, 100] {
        assert_eq!(with(threads), one);
    }
}

#[test]
fn validation_may_have_files_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let (train, held_out) =
        (write(folder.path(), "a.jsonl", 5), write(folder.path(), "b.jsonl", 3));
    let validation = Validation::Sources(vec![source(&held_out)]);
    let prepared = prepare(&Config { validation, ..config(&train) }, &supervisor(CHATML)).unwrap();
    assert_eq!(
        (rows(&prepared.train), rows(&prepared.validation)),
        ((0..5).collect(), (5..8).collect())
    );
}

#[test]
fn rows_are_limited_and_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (write(folder.path(), "a.jsonl", 9), write(folder.path(), "b.jsonl", 2));
    let mut config = config(&a);
    config.train[0].limit = Some(3);
    config.train.push(data::Source { repeat: 3, ..source(&b) });
    let prepared = prepare(&config, &supervisor(CHATML)).unwrap();
    assert_eq!(rows(&prepared.train), [0, 1, 2, 3, 4, 8, 9, 13, 14]);
    assert_eq!((prepared.stats.rows, prepared.stats.sequences), (5, 9));
}

#[test]
fn long_rows_follow_the_recipe() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), "a.jsonl", 20);
    let with = |overlong| Config { max_seq_len: Some(30), overlong, ..config(&path) };
    let error = prepare(&with(Overlong::Error), &supervisor(CHATML)).unwrap_err();
    let Error::Rows { rows: bad, .. } = &error else { panic!("{error}") };
    let prepared = prepare(&with(Overlong::Skip), &supervisor(CHATML)).unwrap();
    assert_eq!(prepared.train.len() + bad.len(), 20);
    assert_eq!(prepared.findings.get("overlong-skipped").unwrap().count, bad.len());
    assert_eq!(prepared.stats.longest, 30);
    let nothing = Config { max_seq_len: Some(3), overlong: Overlong::Skip, ..config(&path) };
    let error = prepare(&nothing, &supervisor(CHATML)).unwrap_err();
    assert_eq!(error.to_string(), "`data.train`: there are no rows to train on");
}

#[test]
fn bad_rows_of_all_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (folder.path().join("a.jsonl"), folder.path().join("b.jsonl"));
    std::fs::write(&a, "{\"prompt\": \"p\", \"completion\": \"c\"}\n{\"prompt\": \"p\"}").unwrap();
    std::fs::write(&b, "{\"prompt\": \"p\", \"completion\": \"\"}").unwrap();
    let mut config = config(&a);
    config.train.push(source(&b));
    let error = prepare(&config, &supervisor(CHATML)).unwrap_err();
    let expected = format!(
        "{}:2: record has no `completion` field (has: prompt)\n{}:1: message 1: assistant turn is empty",
        a.display(),
        b.display()
    );
    assert_eq!(error.to_string(), expected);
}

#[test]
fn an_end_that_no_row_teaches_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), "a.jsonl", 4);
    let plain = "{% for m in messages %}{{ m.content }}\n{% endfor %}\
        {% if add_generation_prompt %}: {% endif %}";
    let answered = plain
        .replace("{{ m.content }}", "{% if m.role == 'assistant' %}: {% endif %}{{ m.content }}");
    let prepared = prepare(&config(&path), &supervisor(&answered)).unwrap();
    let finding = prepared.findings.get("no-end-of-turn").unwrap();
    assert_eq!((finding.level, finding.count), (Level::Error, 4));
}

#[test]
fn a_split_needs_two_rows_and_a_share() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), "a.jsonl", 1);
    let with = |fraction| Config { validation: share(fraction), ..config(&path) };
    let prepared = prepare(&with(0.1), &supervisor(CHATML)).unwrap();
    assert_eq!((prepared.train.len(), prepared.validation.len()), (1, 0));
    assert!(prepared.findings.get("no-validation").is_some());
    let error = prepare(&with(1.5), &supervisor(CHATML)).unwrap_err();
    assert_eq!(error.to_string(), "`data.validation.fraction`: 1.5 is not a share of the rows");
}

#[test]
fn prompts_of_long_pairs_are_cut_alike() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.jsonl");
    let row = |prompt: usize, chosen: &str, rejected: &str| {
        let prompt = "abcdefghij".repeat(prompt);
        format!(
            "{{\"prompt\": \"{prompt}\", \"chosen\": \"{chosen}\", \"rejected\": \"{rejected}\"}}\n"
        )
    };
    let long = "y".repeat(90);
    let text =
        [row(1, "yes", "no"), row(20, "yes, of course", "no"), row(1, "yes", &long)].concat();
    std::fs::write(&path, text).unwrap();
    let with = |overlong| {
        let wanted = data::Wanted::Preferences;
        Config { wanted, max_seq_len: Some(80), overlong, ..config(&path) }
    };
    let whole = Config { max_seq_len: None, ..with(Overlong::Error) };
    let whole = prepare(&whole, &supervisor(CHATML)).unwrap().train.get_all(2..4).unwrap();
    let cut = prepare(&with(Overlong::CutPrompt), &supervisor(CHATML)).unwrap();
    let rows = cut.train.get_all(0..cut.train.len()).unwrap();
    assert_eq!(rows.len(), 4);
    let beginning = whole[0].len() - 80;
    for (cut, whole) in rows[2..].iter().zip(&whole) {
        assert_eq!(
            (&cut.tokens[..], &cut.weights[..]),
            (&whole.tokens[beginning..], &whole.weights[beginning..])
        );
    }
    let left_out: Vec<_> = cut.left_out.iter().map(|row| row.place.line).collect();
    assert_eq!(left_out, [3]);
    for id in ["overlong-prompt-cut", "overlong-answer-too-long"] {
        assert_eq!(cut.findings.get(id).unwrap().count, 1, "{id}");
    }
}

#[test]
fn a_prompt_keeps_what_rewards_see() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.jsonl");
    let row = |i: usize| json!({"system": "s", "question": format!("{i}+{i}?"), "answer": 2 * i, "level": "x"});
    let rows: String = (0..2).map(|i| format!("{}\n", row(i))).collect();
    std::fs::write(&path, rows).unwrap();
    let cache = Some(folder.path().join("cache"));
    let config = Config { wanted: data::Wanted::Prompts, cache, ..config(&path) };
    let options = SupervisionOptions { system: System::Set("Be brief.".into()), ..<_>::default() };
    // The second time the rows come from the cache.
    for _ in 0..2 {
        let prepared = prepare(&config, &supervisor(CHATML).with(options.clone())).unwrap();
        let units = prepared.train.units_at(&[0..1, 1..2]).unwrap();
        let expected = json!({
            "reference": 2, "columns": {"level": "x"},
            // The system message is the one that the model sees.
            "messages": [
                {"role": "system", "content": "Be brief."}, {"role": "user", "content": "1+1?"},
            ],
        });
        assert_eq!(serde_json::Value::Object(units[1].side.clone()), expected);
    }
}
