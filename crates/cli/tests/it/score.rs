//! A reward model scores the answers of files.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::house::House;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../model/tests/golden/reward/gqa");

/// A house with the model `tiny` and PEFT's reward model over it, `reward`.
fn house() -> House {
    let house = House::with_model();
    for file in ["adapter_config.json", "adapter_model.safetensors"] {
        let text = fs::read(Path::new(GOLDEN).join(file)).unwrap();
        fs::create_dir_all(house.path().join("reward")).unwrap();
        fs::write(house.path().join("reward").join(file), text).unwrap();
    }
    let mut config: Value =
        serde_json::from_str(&house.read("reward/adapter_config.json")).unwrap();
    config["base_model_name_or_path"] = house.path().join("tiny").display().to_string().into();
    house.write("reward/adapter_config.json", &config.to_string());
    house
}

fn lines(rows: &[Value]) -> String {
    rows.iter().map(|row| format!("{row}\n")).collect()
}

/// The scores of every row, as numbers.
fn scores(result: &Value) -> Vec<Vec<f64>> {
    let rows = result["results"].as_array().unwrap();
    rows.iter().map(|row| serde_json::from_value(row["scores"].clone()).unwrap()).collect()
}

fn score(house: &House, file: &str, more: &[&str]) -> Value {
    house.run(&[&["score", "reward", "--data", file, "--json"], more].concat()).done().result()
}

#[test]
fn scores_are_those_of_peft() {
    let house = house();
    let golden = fs::read_to_string(Path::new(GOLDEN).join("golden.json")).unwrap();
    let golden: Value = serde_json::from_str(&golden).unwrap();
    let golden = |key: &str| golden[key].as_array().unwrap().iter();
    // A row of ids needs a token behind another one.
    let (sequences, expected): (Vec<&Value>, Vec<&Value>) =
        golden("sequences").zip(golden("scores")).filter(|(ids, _)| ids[1].is_number()).unzip();
    let rows: Vec<Value> = sequences.iter().map(|ids| json!({"input_ids": ids})).collect();
    house.write("ids.jsonl", &lines(&rows));
    let found = scores(&score(&house, "ids.jsonl", &["--precision", "f32"]));
    assert_eq!((found.len(), expected.len()), (2, 2));
    for (scores, expected) in found.iter().zip(expected) {
        let expected = expected.as_f64().unwrap();
        assert!((scores[0] - expected).abs() < 1e-5, "{scores:?} {expected}");
    }
}

/// Pairs that share prompts with others.
fn pairs() -> Vec<Value> {
    let pair = |i: usize| json!({"prompt": format!("what is {}?", i / 2), "chosen": format!("it is {i}"), "rejected": "no"});
    (0..20).map(pair).collect()
}

#[test]
fn scores_depend_neither_on_company_nor_on_threads() {
    let house = house();
    house.write("pairs.jsonl", &lines(&pairs()));
    let all = scores(&score(&house, "pairs.jsonl", &[]));
    assert_eq!((all.len(), all[0].len()), (20, 2));
    for more in [
        &["--batch-tokens", "1"][..],
        &["--batch-tokens", "70"],
        &["--batch-tokens", "100000"],
        &["--threads", "1"],
        &["--threads", "3", "--batch-tokens", "200"],
    ] {
        assert_eq!(scores(&score(&house, "pairs.jsonl", more)), all, "{more:?}");
    }
    house.write("one.jsonl", &lines(&pairs()[7..8]));
    assert_eq!(scores(&score(&house, "one.jsonl", &[])), all[7..8]);
}

#[test]
fn every_kind_of_answer_is_scored() {
    let house = house();
    let turns = |answer: &str| json!([{"role": "user", "content": "hi"}, {"role": "assistant", "content": answer}]);
    house.write(
        "pair.jsonl",
        &lines(&[json!({"prompt": "hi", "chosen": "good day", "rejected": "what"})]),
    );
    let pair = scores(&score(&house, "pair.jsonl", &[])).remove(0);
    let ranked =
        json!({"prompt": "hi", "responses": ["what", "good day", "what"], "scores": [1, 3, 2]});
    let judged = json!({"prompt": "hi", "completion": "good day", "label": true});
    for (row, expected) in [
        // In the order of the row, not of the ranks.
        (ranked, vec![pair[1], pair[0], pair[1]]),
        (judged, vec![pair[0]]),
        (json!({"messages": turns("good day")}), vec![pair[0]]),
        (json!({"prompt": "hi", "completion": "what"}), vec![pair[1]]),
        (json!({"chosen": turns("what"), "rejected": turns("good day")}), vec![pair[1], pair[0]]),
    ] {
        house.write("row.jsonl", &lines(std::slice::from_ref(&row)));
        let result = score(&house, "row.jsonl", &[]);
        assert_eq!(scores(&result), [expected], "{row}");
        let is_pair = row.get("rejected").is_some();
        assert_eq!(result["results"][0]["chosen_wins"].is_number(), is_pair, "{row}");
        assert_eq!(result["summary"]["pairs"], usize::from(is_pair));
    }
    // An answer before the last turn is part of the prompt.
    let longer = json!({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
        {"role": "user", "content": "hi"}, {"role": "assistant", "content": "good day"}]});
    house.write("row.jsonl", &lines(&[longer]));
    let longer = scores(&score(&house, "row.jsonl", &[]));
    assert_eq!(longer[0].len(), 1);
    assert_ne!(longer[0][0], pair[0]);
}

#[test]
fn scores_go_to_a_file_or_to_standard_output() {
    let house = house();
    house.write("pairs.jsonl", &lines(&[pairs()[0].clone(), pairs()[3].clone()]));
    let ended = house.run(&["score", "reward", "--data", "pairs.jsonl"]).done();
    let rows: Vec<Value> =
        ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let places: Vec<&str> = rows.iter().map(|row| row["place"].as_str().unwrap()).collect();
    assert_eq!(places, ["pairs.jsonl:1", "pairs.jsonl:2"]);
    let won = |row: &Value| f64::from(row["scores"][0].as_f64() > row["scores"][1].as_f64());
    assert!(rows.iter().all(|row| row["chosen_wins"] == won(row)), "{}", ended.stdout);

    let asked = ["score", "reward", "--data", "pairs.jsonl", "--output", "scores.jsonl"];
    let told = house.run(&asked).done();
    assert_eq!(house.read("scores.jsonl"), ended.stdout);
    assert!(told.stdout.starts_with("rows      2, 4 answers\nscores    mean "), "{}", told.stdout);
    assert!(told.stdout.contains("\naccuracy  "), "{}", told.stdout);
    assert!(told.stdout.ends_with("wrote scores.jsonl\n"), "{}", told.stdout);
    let again = house.run(&asked);
    assert!(
        again.code != 0 && again.stderr.contains("scores.jsonl: already exists"),
        "{}",
        again.stderr
    );
    let own =
        ["score", "reward", "--data", "pairs.jsonl", "--output", "pairs.jsonl", "--overwrite"];
    let own = house.run(&own);
    assert!(own.stderr.contains("pairs.jsonl: the rows are read from this file"), "{}", own.stderr);
    let result = house.run(&[&asked[..], &["--overwrite", "--json"]].concat()).done().result();
    assert_eq!(result["output"], "scores.jsonl");
    let summary = &result["summary"];
    assert_eq!(
        (&summary["rows"], &summary["answers"], &summary["pairs"]),
        (&2.into(), &4.into(), &2.into())
    );
    assert!(summary["accuracy"]["low"].is_number(), "{summary}");
    assert!(summary["scores"]["min"].as_f64() <= summary["scores"]["mean"].as_f64());
}

#[test]
fn a_run_scores_what_it_was_trained_on_as_it_was_validated() {
    let house = House::with_model();
    house.write(
        "pairs.csv",
        "ask,better,worse\n1+1?,two,five\n2+2?,four,five\nsky?,blue,five\nday?,Monday,five\n",
    );
    let recipe = "model: ./tiny\nmethod: reward\nadapter: {rank: 4}\nprecision: f32\n\
        data: {train: [{path: pairs.csv, columns: {prompt: ask, chosen: better, rejected: worse}, system: Be brief.}], \
        validation: {path: pairs.csv}, accept: [validation-row-in-training]}\n\
        train: {max_steps: 20, batch_size: 4, learning_rate: 0.03, evaluate_every: 20}\n";
    house.write("r.yaml", recipe);
    let told = house.run(&["train", "r.yaml"]).done().stdout;
    let next = "next\n  tunesmith score runs/r-001 --data pairs.jsonl\n";
    assert!(told.ends_with(next), "{told}");
    let asked = ["score", "runs/r-001", "--data", "pairs.csv", "--precision", "f32", "--json"];
    let result = house.run(&asked).done().result();
    let events = house.read("runs/r-001/events.jsonl");
    let evaluated: Vec<Value> = events
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|event: &Value| event["event"] == "evaluated")
        .collect();
    let metrics = &evaluated.last().unwrap()["metrics"];
    let near = |got: &Value, expected: &Value| {
        let (got, expected) = (got.as_f64().unwrap(), expected.as_f64().unwrap());
        assert!((got - expected).abs() < 1e-5, "{got} {expected}");
    };
    near(&result["summary"]["accuracy"]["mean"], &metrics["accuracy"]);
    near(&result["summary"]["scores"]["mean"], &metrics["mean_reward"]);
}

/// A house with a run of a classifier, `model`, and its rows.
fn classifier() -> House {
    let house = House::with_model();
    let row = |(text, label): (&str, &str)| json!({"text": text, "label": label});
    let rows = [
        ("yes", "glad"),
        ("no", "sad"),
        ("fine", "glad"),
        ("bad", "sad"),
        ("great", "glad"),
        ("lost", "sad"),
    ];
    house.write("rows.jsonl", &lines(&rows.map(row)));
    let recipe = "model: ./tiny\nmethod: classify\nadapter: {rank: 4}\nprecision: f32\noutput: model\n\
        data: {train: rows.jsonl, validation: {path: rows.jsonl}, accept: [validation-row-in-training]}\n\
        train: {max_steps: 30, batch_size: 6, learning_rate: 0.02, evaluate_every: 30}\n";
    house.write("c.yaml", recipe);
    let told = house.run(&["train", "c.yaml"]).done().stdout;
    assert!(told.contains("macro F1") && told.contains("precision  recall"), "{told}");
    assert!(told.ends_with("tunesmith score model --data texts.jsonl\n"), "{told}");
    house
}

#[test]
fn a_classifier_gives_rows_their_classes() {
    let house = classifier();
    let asked = ["score", "model", "--data", "rows.jsonl", "--precision", "f32", "--json"];
    let result = house.run(&asked).done().result();
    let events = house.read("model/events.jsonl");
    let evaluated = events.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let evaluated = evaluated.rev().find(|event| event["event"] == "evaluated").unwrap();
    let report = &result["summary"]["classification"];
    for figure in ["accuracy", "macro_f1"] {
        assert_eq!(report[figure]["mean"], evaluated["metrics"][figure], "{figure}");
    }
    let first = &result["results"][0];
    let logit = |class: &str| first["scores"][class].as_f64().unwrap();
    let best = if logit("glad") >= logit("sad") { "glad" } else { "sad" };
    assert_eq!((&first["label"], &first["correct"]), (&best.into(), &(best == "glad").into()));

    // Rows need no label, and company changes nothing.
    house.write("texts.jsonl", "{\"text\": \"yes\"}\n{\"prompt\": \"no\"}\n");
    let result =
        house.run(&["score", "model", "--data", "texts.jsonl", "--precision", "f32", "--json"]);
    let result = result.done().result();
    assert_eq!(result["results"][0]["scores"], first["scores"]);
    assert_eq!(result["results"][0].get("correct"), None);
    assert_eq!(
        (&result["summary"]["labelled"], &result["summary"]["rows"]),
        (&0.into(), &2.into())
    );

    // A checkpoint knows the classes too.
    let checkpoint = "model/checkpoints/step-000030";
    let asked = ["score", checkpoint, "--data", "texts.jsonl", "--precision", "f32", "--json"];
    let of_checkpoint = house.run(&asked).done().result();
    assert_eq!(of_checkpoint["results"], result["results"]);

    house.write("wild.jsonl", "{\"text\": \"a\", \"label\": \"wild\"}\n");
    let ended = house.run(&["score", "model", "--data", "wild.jsonl"]);
    let expected = "error: wild.jsonl:1: the label `wild` is none of the model's classes\n\
        hint: the classes are glad, sad\n";
    assert_eq!((ended.stderr.as_str(), ended.code), (expected, 1));

    // It does not say which of two answers is better.
    house.write("ask.jsonl", "{\"prompt\": \"hi\", \"a\": \"b\", \"c\": \"d\"}\n");
    house.write("p.yaml", "model: ./tiny\nmethod: dpo\ndata: {train: ask.jsonl}\n");
    let ended = house.run(&[
        "pairs",
        "p.yaml",
        "pairs.output=out.jsonl",
        "pairs.choose_by=reward",
        "pairs.reward=model",
        "pairs.candidates.columns=[a, c]",
    ]);
    assert!(ended.stderr.contains("the model is a classifier"), "{}", ended.stderr);
}

#[test]
fn what_cannot_be_scored_is_told() {
    let house = house();
    house.write("pairs.jsonl", &lines(&pairs()[..1]));
    let check = |arguments: &[&str], expected: &str, code: i32| {
        let ended = house.run(&[&["score"], arguments].concat());
        assert_eq!((ended.stderr.as_str(), ended.code), (expected, code), "{arguments:?}");
        assert_eq!(ended.stdout, "");
    };
    check(
        &["tiny", "--data", "pairs.jsonl"],
        "error: the model has no score head\nhint: name the run folder or adapter folder of a model that was trained with `method: reward` or `method: classify`\n",
        2,
    );
    house.write("empty.jsonl", "");
    check(&["reward", "--data", "empty.jsonl"], "error: empty.jsonl: file has no rows\n", 1);
    house.write("text.jsonl", "{\"text\": \"a\"}\n");
    check(
        &["reward", "--data", "text.jsonl"],
        "error: text.jsonl: the rows are raw text for pretraining (`text`), not preferences, ranked answers or judged steps as `reward` takes them\n\
         hint: rows with `text` are raw text for pretraining, for `method: pretrain`\n",
        1,
    );
    let steps = json!({"prompt": "a", "completions": ["b", "c"], "labels": [true, false]});
    house.write("steps.jsonl", &lines(&[steps]));
    check(
        &["reward", "--data", "steps.jsonl"],
        "error: steps.jsonl:1: the row has no whole answer to score\n\
         hint: give pairs, ranked answers, judged answers or conversations\n",
        1,
    );
    let long = |n: usize| json!({"prompt": "a", "chosen": "b", "rejected": "x".repeat(n)});
    house.write("long.jsonl", &lines(&[long(80), long(2), long(90)]));
    check(
        &["reward", "--data", "long.jsonl"],
        "error: long.jsonl:1: prompt and answer have 87 tokens, and the model takes 64\n\
         long.jsonl:3: prompt and answer have 97 tokens, and the model takes 64\n\
         hint: shorten the row or leave it out: a score is read at the last token, so none can be cut\n",
        1,
    );
    house.write(
        "mixed.jsonl",
        "{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"c\"}\n{\"prompt\": \"a\"}\n",
    );
    let ended = house.run(&["score", "reward", "--data", "mixed.jsonl"]);
    assert!(ended.stderr.starts_with("error: mixed.jsonl:2: "), "{}", ended.stderr);
    fs::remove_file(house.path().join("pairs.jsonl")).unwrap();
    let ended = house.run(&["score", "reward", "--data", "pairs.jsonl"]);
    assert!(ended.stderr.starts_with("error: pairs.jsonl: no such file"), "{}", ended.stderr);
}
