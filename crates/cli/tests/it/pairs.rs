//! Preference pairs: a person at a pipe, a judge behind an endpoint, and who agrees with whom.

use std::io::Write as _;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::house::{Ended, House};
use crate::server::{Reply, Request, Server};

const RECIPE: &str = "model: ./tiny\nmethod: sft\ndata: {train: asks.jsonl}\npairs:\n  \
    output: out.jsonl\n";
const COLUMNS: &str = "  candidates: {columns: [good, bad]}\n";

/// A house with three prompts and two answers to each.
fn house() -> House {
    let house = House::with_model();
    house.write("r.yaml", &format!("{RECIPE}{COLUMNS}"));
    house.write("asks.jsonl", &rows(&["p", "q", "r"]));
    house
}

fn rows(prompts: &[&str]) -> String {
    let row = |prompt: &&str| {
        let (good, bad) = (format!("{prompt} good"), format!("{prompt} bad"));
        format!("{}\n", json!({"prompt": prompt, "good": good, "bad": bad, "topic": "x"}))
    };
    prompts.iter().map(row).collect()
}

/// Runs `pairs` with keys on its standard input.
fn typed(house: &House, keys: &str, more: &[&str]) -> Ended {
    let arguments = [&["pairs", "r.yaml", "--json"], more].concat();
    let mut command = house.command(&arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // A command that ends before it reads closes the pipe.
    let _ = child.stdin.take().unwrap().write_all(keys.as_bytes());
    house.ended(&child.wait_with_output().unwrap())
}

fn read(house: &House, name: &str) -> Vec<Value> {
    house.read(name).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The texts that were shown as A, in their order.
fn shown_as_a(ended: &Ended) -> Vec<&str> {
    let lines: Vec<&str> = ended.stderr.lines().collect();
    lines.windows(2).filter(|two| two[0] == "A").map(|two| two[1]).collect()
}

fn content<'a>(row: &'a Value, side: &str) -> &'a str {
    row[side][0]["content"].as_str().unwrap()
}

#[test]
fn a_person_chooses_blindly() {
    let house = house();
    let cost = ["pairs.seconds_per_pair=30", "pairs.rate_per_hour=60", "--rater", "ana"];
    let ended = typed(&house, "a\nA\nb\n", &cost).done();
    let (result, rows) = (ended.result(), read(&house, "out.jsonl"));
    assert_eq!((&result["status"], &result["rows_written"]), (&json!("finished"), &json!(3)));
    assert_eq!(
        (&result["cost"]["person_seconds"], &result["cost"]["pay"]),
        (&json!(90.0), &json!(1.5))
    );
    let said = "cost: 3 pairs x 30 s of a person = 1 min 30 s, 1.50 at 60 an hour";
    assert!(ended.stderr.contains(said), "{}", ended.stderr);
    let shown = shown_as_a(&ended);
    assert_eq!([content(&rows[0], "chosen"), content(&rows[1], "chosen")], shown[..2]);
    assert_eq!(content(&rows[2], "rejected"), shown[2]);
    let row = &rows[0];
    assert_eq!(row["prompt"], json!([{"role": "user", "content": "p"}]));
    let from = [row["chosen_from"].as_str().unwrap(), row["rejected_from"].as_str().unwrap()];
    assert!(
        content(row, "chosen").ends_with(from[0]) && content(row, "rejected").ends_with(from[1])
    );
    assert_eq!((&row["raters"], &row["columns"]), (&json!(["ana"]), &json!({"topic": "x"})));
    assert!(row["row"].as_str().unwrap().ends_with("asks.jsonl:1"));
    assert_eq!(row["chosen_at"].as_str().unwrap().len(), "2026-03-01T12:00:00Z".len());
}

/// The sides are shuffled, by pair and rater, and the same in every session.
#[test]
fn sides_are_shuffled() {
    let house = house();
    let prompts: Vec<String> = (0..16).map(|i| format!("p{i}")).collect();
    house.write("asks.jsonl", &rows(&prompts.iter().map(String::as_str).collect::<Vec<_>>()));
    let sides = |rater: &str| -> Vec<bool> {
        let keys = "a\n".repeat(16);
        let ended = typed(&house, &keys, &["--rater", rater, "--overwrite"]).done();
        shown_as_a(&ended).iter().map(|text| text.ends_with("good")).collect()
    };
    let (ana, bob) = (sides("ana"), sides("bob"));
    assert!((3..14).contains(&ana.iter().filter(|is_good| **is_good).count()), "{ana:?}");
    assert_ne!(ana, bob);
    assert_eq!(ana, sides("ana"));
}

/// What is written is read as preferences without a word in the recipe.
#[test]
fn the_output_is_read_as_preferences() {
    let house = house();
    let tool = json!({"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}});
    let mut text = rows(&["p", "q", "r", "s"]);
    text += &format!(
        "{}\n",
        json!({
            "messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "u"}],
            "tools": [tool], "good": "Human: hi", "bad": "x\n\nAssistant: y",
        })
    );
    house.write("asks.jsonl", &text);
    typed(&house, "a\na\na\na\na\n", &["--rater", "ana"]).done();
    house.write("dpo.yaml", "model: ./tiny\nmethod: dpo\ndata: {train: out.jsonl}\n");
    let report = house.run(&["check", "dpo.yaml", "--json"]).done().result();
    assert_eq!((&report["passes"], &report["rows_in"]), (&json!(true), &json!(5)), "{report}");
}

#[test]
fn choices_are_taken_back_and_resumed() {
    let house = house();
    let ana = ["--rater", "ana"];
    let ended = typed(&house, "u\na\nwhat\nb\nu\nq\n", &ana).done();
    let result = ended.result();
    assert_eq!((&result["status"], &result["open"]), (&json!("stopped"), &json!(2)));
    assert!(ended.stderr.contains("there is no choice to take back"), "{}", ended.stderr);
    assert!(ended.stderr.contains("`what` is no key"), "{}", ended.stderr);
    assert!(ended.stderr.ends_with("next\n  tunesmith pairs r.yaml --resume --rater ana\n"));
    assert_eq!(read(&house, "out.jsonl").len(), 1);
    let ended = typed(&house, "a\n", &ana);
    assert_eq!((ended.code, ended.result()["error"]["code"].as_str()), (2, Some("occupied")));

    // The end of the input leaves too.
    let result = typed(&house, "t\n", &["--rater", "ana", "--resume"]).done().result();
    assert_eq!((&result["status"], &result["open"]), (&json!("stopped"), &json!(1)));
    let result = typed(&house, "b\nu\ns\n\n", &["--rater", "ana", "--resume"]).done().result();
    assert_eq!((&result["status"], &result["open"]), (&json!("finished"), &json!(0)));
    assert_eq!(result["left_out"], json!({"skip": 1, "tie": 1}));
    let left_out = read(&house, "out.left_out.jsonl");
    assert_eq!((&left_out[0]["reason"], &left_out[1]["reason"]), (&json!("tie"), &json!("skip")));
    assert_eq!(left_out[0]["answers"], json!(["q good", "q bad"]));

    // Every line of the journal stays: 4 choices, 2 taken back.
    let journal = read(&house, "out.journal.jsonl");
    let count = |what: &str| journal.iter().filter(|line| line.get(what).is_some()).count();
    assert_eq!((count("pairs"), count("choice"), count("undo")), (1, 5, 2));
    let choice = &journal[1]["choice"];
    assert_eq!(choice["rater"], "ana");
    assert!(choice["seconds"].as_f64().unwrap() >= 0.0 && choice["at"].is_string());

    typed(&house, "", &["--rater", "ana", "--overwrite"]).done();
    assert_eq!(read(&house, "out.jsonl").len(), 0);
    assert_eq!(read(&house, "out.journal.jsonl").len(), 1);
}

/// A choice of a pair that this command does not show stays as it is.
#[test]
fn only_what_is_shown_is_taken_back() {
    let house = house();
    let ana = ["--rater", "ana", "--resume"];
    typed(&house, "a\na\na\n", &ana).done();
    house.write("asks.jsonl", &rows(&["p", "s"]));
    let ended = typed(&house, "u\nu\nq\n", &ana).done();
    assert_eq!(shown_as_a(&ended).len(), 3, "{}", ended.stderr);
    assert!(ended.stderr.contains("there is no choice to take back"), "{}", ended.stderr);
    assert_eq!(ended.result()["open"], 2);
    house.write("asks.jsonl", &rows(&["p", "q", "r"]));
    assert_eq!(typed(&house, "a\n", &ana).done().result()["rows_written"], 3);
}

/// Without the tools nobody could tell a good call from a bad one.
#[test]
fn persons_and_judges_see_the_tools() {
    let house = house();
    let tool = json!({"type": "function", "function": {"name": "weigh", "parameters": {"type": "object", "properties": {}}}});
    let row = json!({"prompt": "p", "tools": [tool], "good": "p good", "bad": "p bad"});
    house.write("asks.jsonl", &format!("{row}\n"));
    let ended = typed(&house, "q\n", &["--rater", "ana"]).done();
    assert!(
        ended.stderr.contains("tools\n{\"type\":\"function\",\"function\":{\"name\":\"weigh\""),
        "{}",
        ended.stderr
    );

    let server = Server::start(|_| reply("A"));
    let endpoint = format!("pairs.judge.endpoint={}/v1", server.endpoint);
    let judging =
        ["pairs.choose_by=judge", "pairs.judge.model=big", "pairs.judge.rubric=Be strict."];
    typed(&house, "", &[&judging[..], &[&endpoint, "--overwrite"]].concat()).done();
    let text = asked(&server.requests()[0]);
    let begins = "Be strict.\n\n<tools>\n{\"type\":\"function\",\"function\":{\"name\":\"weigh\"";
    assert!(text.starts_with(begins), "{text}");
    assert!(text.contains("</tools>\n\n<prompt>\nuser: p\n</prompt>"), "{text}");
}

/// Types the keys that prefer the answers of these ends, whatever side they are shown on.
fn choose(house: &House, rater: &str, ends: &[&str]) -> Value {
    let mut result = Value::Null;
    for end in ends {
        let peek = typed(house, "q\n", &["--rater", rater, "--resume"]).done();
        let key = match shown_as_a(&peek)[0].ends_with(end) {
            _ if *end == "tie" => "t\n",
            true => "a\n",
            false => "b\n",
        };
        result = typed(house, key, &["--rater", rater, "--resume"]).done().result();
    }
    result
}

#[test]
fn raters_are_compared_and_the_majority_decides() {
    let house = house();
    choose(&house, "ana", &["good", "good", "bad"]);
    let result = choose(&house, "bob", &["good", "bad", "bad"]);
    let agreed = &result["agreement"][0];
    assert_eq!((&agreed["raters"], &agreed["n"]), (&json!(["ana", "bob"]), &json!(3)));
    assert_eq!(agreed["statistic"], "Cohen's");
    // Two of three alike, 4/9 by chance: (2/3 - 4/9) / (1 - 4/9).
    assert!((agreed["kappa"]["mean"].as_f64().unwrap() - 0.4).abs() < 1e-12, "{agreed}");
    // They differ on `q`, which is a tie until a third one decides.
    assert_eq!(result["left_out"], json!({"tie": 1}));
    let result = choose(&house, "eve", &["good", "bad", "good"]);
    assert_eq!((&result["rows_written"], &result["left_out"]), (&json!(3), &json!({})));
    let statistics: Vec<&str> = result["agreement"]
        .as_array()
        .unwrap()
        .iter()
        .map(|agreed| agreed["statistic"].as_str().unwrap())
        .collect();
    assert_eq!(statistics, ["Cohen's", "Cohen's", "Cohen's", "Fleiss'"]);
    let rows = read(&house, "out.jsonl");
    assert_eq!(content(&rows[1], "chosen"), "q bad");
    assert_eq!(rows[1]["raters"], json!(["ana", "bob", "eve"]));
}

fn reply(text: &str) -> Reply {
    let choice =
        json!({"message": {"role": "assistant", "content": text}, "finish_reason": "stop"});
    Reply::json(&json!({"choices": [choice]}))
}

/// The last message of a request.
fn asked(request: &Request) -> String {
    let json = request.json();
    json["messages"].as_array().unwrap().last().unwrap()["content"].as_str().unwrap().to_owned()
}

/// A judge that is fair to `p`, likes A for `q`, and never says what it thinks of `r`.
fn judge(request: &Request) -> Reply {
    if request.path.ends_with("/models") {
        return Reply::status(404);
    }
    let text = asked(request);
    assert!(text.starts_with("Be strict.\n\n<prompt>\nuser: "), "{text}");
    match &text["Be strict.\n\n<prompt>\nuser: ".len()..][..1] {
        "p" if text.contains("<answer_a>\np good") => reply("The first.\n\n**A**"),
        "p" => reply("B"),
        "q" => reply("A"),
        _ => reply("who knows"),
    }
}

#[test]
fn a_judge_is_asked_in_both_orders() {
    let house = house();
    let server = Server::start(judge);
    let endpoint = format!("pairs.judge.endpoint={}/v1", server.endpoint);
    let judging = [
        "pairs.choose_by=judge",
        "pairs.judge.model=big",
        "pairs.judge.rubric=Be strict.",
        "pairs.judge.price=10",
        &endpoint,
    ];
    let ended = typed(&house, "", &judging).done();
    let result = ended.result();
    assert_eq!(result["rows_written"], 1);
    assert_eq!(result["left_out"], json!({"tie": 1, "verdict names no answer": 1}));
    let position = &result["position"];
    assert_eq!((&position["pairs"], &position["both_a"]), (&json!(2), &json!(1)));
    assert_eq!((&position["both_b"], &position["share"]["mean"]), (&json!(0), &json!(0.5)));
    assert_eq!((&result["cost"]["judge"]["requests"], &result["open"]), (&json!(6), &json!(0)));
    assert!(ended.stderr.contains("cost: 6 requests to "), "{}", ended.stderr);
    // Two orders each; the two replies without an answer once more.
    let requests = server.requests();
    assert_eq!(requests.len(), 8);
    assert_eq!(
        (&requests[0].json()["temperature"], &requests[0].json()["model"]),
        (&json!(0.0), &json!("big"))
    );
    let row = &read(&house, "out.jsonl")[0];
    assert_eq!(content(row, "chosen"), "p good");
    assert!(row["raters"][0].as_str().unwrap().starts_with("judge:big@"), "{row}");
    // Nothing is asked twice.
    typed(&house, "", &[&judging[..], &["--resume"]].concat()).done();
    assert_eq!(server.requests().len(), 0);

    // A person beside the judge: the person's choices are written, and both are compared.
    let result = choose(&house, "ana", &["good", "tie", "bad"]);
    assert_eq!((&result["rows_written"], &result["left_out"]), (&json!(2), &json!({"tie": 1})));
    let agreed = &result["agreement"][0];
    assert_eq!((&agreed["n"], &agreed["observed"]), (&json!(2), &json!(1.0)), "{agreed}");
}

/// An empty reply is no verdict: it is asked for again, as one that names no answer is.
#[test]
fn an_empty_verdict_is_asked_for_again() {
    let house = house();
    house.write("asks.jsonl", &rows(&["p"]));
    let times = std::sync::atomic::AtomicUsize::new(0);
    let server = Server::start(move |request| {
        match times.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
            0 => reply(""),
            1 => Reply::json(
                &json!({"choices": [{"message": {"content": null}, "finish_reason": "stop"}]}),
            ),
            _ if asked(request).contains("<answer_a>\np good") => reply("A"),
            _ => reply("B"),
        }
    });
    let endpoint = format!("pairs.judge.endpoint={}/v1", server.endpoint);
    let judging = ["pairs.choose_by=judge", "pairs.judge.model=big", &endpoint];
    let result = typed(&house, "", &judging).done().result();
    assert_eq!((&result["rows_written"], &result["left_out"]), (&json!(1), &json!({})), "{result}");
    assert_eq!(server.requests().len(), 4);
}

#[test]
fn an_endpoint_answers_and_a_resumed_command_asks_for_the_rest() {
    let house = House::with_model();
    house.write("asks.jsonl", &rows(&["p", "q", "r"]));
    let broken = std::sync::atomic::AtomicBool::new(true);
    let server = Server::start(move |request| {
        let seed = request.json()["seed"].as_u64().unwrap();
        match asked(request).as_str() {
            "r" if broken.swap(false, std::sync::atomic::Ordering::SeqCst) => Reply::status(400),
            // Both answers alike.
            "q" => reply("same"),
            prompt => reply(&format!("{prompt} {seed}")),
        }
    });
    let recipe = format!(
        "{RECIPE}  candidates: {{endpoint: \"{}/v1\", model: big, concurrency: 1, price: 2}}\n",
        server.endpoint
    );
    house.write("r.yaml", &recipe);
    let ended = typed(&house, "", &["--rater", "ana"]);
    let error = &ended.result()["error"];
    assert_eq!((ended.code, &error["code"]), (1, &json!("candidates")), "{error}");
    assert_eq!(error["hint"], "`--resume` keeps the answers and choices so far");
    let tokens = "cost: 6 requests to ";
    assert!(
        ended.stderr.contains(tokens) && ended.stderr.contains("at most 3,072 out, about 0.01")
    );
    let first = server.requests();
    let ended = typed(&house, "a\na\n", &["--rater", "ana", "--resume"]).done();
    let result = ended.result();
    assert_eq!((&result["pairs"], &result["rows_written"]), (&json!(2), &json!(2)));
    assert_eq!(result["left_out"], json!({"identical": 1}));
    assert!(ended.stderr.contains("answers that are left out: 1 x identical"), "{}", ended.stderr);
    let list = read(&house, "out.left_out.jsonl");
    assert_eq!((&list[0]["answer"], &list[0]["from"]), (&json!("same"), &json!("big")));
    // The last of the first requests failed and is made again with the same seed.
    let rest = server.requests();
    assert_eq!((first.len(), rest.len()), (5, 2));
    assert_eq!(first[4].json()["seed"], rest[0].json()["seed"]);
    assert_eq!(rest[0].json()["temperature"], 1.0);
}

/// A model's draws depend on the prompt, and not on what was answered before it.
#[test]
fn a_resumed_model_draws_the_same_answers() {
    let answers = |prompts: &[&[&str]]| -> Vec<Value> {
        let house = House::with_model();
        house.write(
            "r.yaml",
            &format!("{RECIPE}  candidates: {{max_new_tokens: 20, samples: 3}}\n"),
        );
        for prompts in prompts {
            house.write("asks.jsonl", &rows(prompts));
            let ended = typed(&house, "q\n", &["--rater", "ana", "--resume"]);
            assert!(
                ended.code == 0 || ended.result()["error"]["code"] == "no_pairs",
                "{}",
                ended.stderr
            );
        }
        let mut lines = read(&house, "out.journal.jsonl");
        lines.retain(|line| line.get("answer").is_some());
        lines.sort_by_key(Value::to_string);
        lines
    };
    let whole = answers(&[&["p", "q", "r"]]);
    assert_eq!(whole.len(), 9);
    assert_eq!(answers(&[&["p"], &["p", "q", "r"]]), whole);
    assert_ne!(whole[0]["answer"]["text"], whole[1]["answer"]["text"]);
}

/// The recipe's own model answers otherwise under another template.
#[test]
fn answers_under_another_template_do_not_mix() {
    let house = House::with_model();
    house.write("r.yaml", &format!("{RECIPE}  candidates: {{max_new_tokens: 20, samples: 2}}\n"));
    house.write("asks.jsonl", &rows(&["p"]));
    typed(&house, "q\n", &["--rater", "ana"]);
    for other in ["model.chat_template=chatml", "model.template_kwargs={a: 1}"] {
        let ended = typed(&house, "q\n", &["--rater", "ana", "--resume", other]);
        assert_eq!(ended.code, 2, "{}", ended.stderr);
        let message = &ended.result()["error"]["message"];
        assert!(message.as_str().unwrap().ends_with("answers from elsewhere"), "{message}");
    }
}

#[test]
fn neighbours_are_compared_up_to_a_maximum() {
    let house = house();
    let row = json!({"prompt": "p", "a": "1", "b": "2", "c": " 1 ", "d": "", "e": "3"});
    house.write("asks.jsonl", &format!("{row}\n{row}\n"));
    let columns = "pairs.candidates.columns=[a, b, c, d, e]";
    let ended = typed(&house, "a\nb\n", &[columns, "--rater", "ana"]).done();
    let result = ended.result();
    // 1 with 2 and 2 with 3; the second row has the same pairs.
    assert_eq!((&result["pairs"], &result["rows_written"]), (&json!(2), &json!(2)));
    assert_eq!(result["left_out"], json!({"empty": 2, "identical": 2, "repeated": 2}));
    let most = [columns, "--rater", "ana", "--overwrite", "pairs.max_pairs=1"];
    assert_eq!(typed(&house, "a\n", &most).done().result()["pairs"], 1);
}

#[test]
fn what_cannot_be_done_is_told() {
    let house = house();
    let check = |arguments: &[&str], code: i32, expected: &str| {
        let ended = house.run(&[&["pairs", "r.yaml"], arguments].concat());
        assert_eq!((ended.stderr.as_str(), ended.code), (expected, code), "{arguments:?}");
    };
    check(&[], 2, "error: nobody is named who chooses\nhint: say who you are: `--rater NAME`\n");
    check(
        &["--rater", "judge:x"],
        2,
        "error: `--rater judge:x`: names of judges and models begin like that\nhint: choose another name\n",
    );
    check(
        &["--rater", "ana", "pairs.candidates.columns=[good, worse]"],
        1,
        "error: HOUSE/asks.jsonl:1: candidate `worse` is missing or null\nhint: fill it in, remove \
         the row, or name other columns in `pairs.candidates.columns`\n",
    );
    check(
        &["--rater", "ana", "pairs.candidates.columns=[good, good]"],
        2,
        "error: command line, argument `pairs.candidates.columns=[good, good]`: \
         `pairs.candidates.columns` names `good` twice\nhint: a pair needs two different columns\n",
    );
    let one = house.run(&["pairs", "r.yaml", "pairs.candidates.columns=good"]);
    assert_eq!(one.code, 2);
    assert!(one.stderr.contains("pairs.candidates.columns"), "{}", one.stderr);
    check(
        &["--rater", "ana", "pairs.output=asks.jsonl"],
        2,
        "error: HOUSE/asks.jsonl: is what the prompts are read from\nhint: name another file as \
         `pairs.output`\n",
    );
    check(
        &["pairs.choose_by=judge"],
        2,
        "error: command line, argument `pairs.choose_by=judge`: `pairs.judge.endpoint` is missing: \
         where is the judge?\nhint: add it, such as http://localhost:8000/v1, or let a person \
         choose\n",
    );
    house.write("asks.jsonl", "");
    let empty = house.run(&["pairs", "r.yaml", "--rater", "ana"]);
    assert_ne!(empty.code, 0);
    assert!(empty.stderr.starts_with("error: "), "{}", empty.stderr);

    // Identical answers are listed, and nobody is asked.
    house.write("asks.jsonl", "{\"prompt\": \"p\", \"good\": \"x\", \"bad\": \"x\"}\n");
    check(
        &["--rater", "ana"],
        1,
        "answers that are left out: 1 x identical\nerror: no pair is left to choose from\nhint: \
         out.left_out.jsonl lists why; a higher temperature gives answers that differ\n",
    );
    let journal = |text: &str| {
        house.write("asks.jsonl", &rows(&["p"]));
        house.write("out.journal.jsonl", text);
        house.run(&["pairs", "r.yaml", "--rater", "ana", "--resume"])
    };
    let ended = journal("{\"pairs\":\"another\"}\n");
    assert_eq!(ended.code, 2);
    assert!(ended.stderr.contains("was begun with answers from elsewhere"), "{}", ended.stderr);
    let ended = house.run(&["pairs", "r.yaml", "--rater", "ana"]);
    assert!(ended.stderr.contains("already exists"), "{}", ended.stderr);
}

/// A judge that nobody reaches is noticed before answers are paid for.
#[test]
fn a_judge_is_reached_before_answers_are_asked_for() {
    let house = House::with_model();
    house.write("asks.jsonl", &rows(&["p"]));
    let server = Server::start(|request| reply(&format!("{}", request.json()["seed"])));
    let recipe = format!(
        "{RECIPE}  candidates: {{endpoint: \"{}/v1\", model: big}}\n  choose_by: judge\n  \
         judge: {{endpoint: \"http://127.0.0.1:1/v1\", model: wise}}\n",
        server.endpoint
    );
    house.write("r.yaml", &recipe);
    let ended = typed(&house, "", &[]);
    let error = &ended.result()["error"];
    assert_eq!((ended.code, &error["code"]), (1, &json!("judge")));
    assert_eq!(
        error["hint"],
        "check the address in `pairs.judge.endpoint`, and that the server runs"
    );
    assert_eq!(server.requests().len(), 0);
    assert!(!house.path().join("out.journal.jsonl").exists());
}

/// A reward model scores the answers as its training did: best against worst, with the difference as margin.
#[test]
fn a_reward_model_chooses() {
    let house = house();
    let pair = |i: usize| json!({"prompt": format!("p{i}"), "chosen": "good", "rejected": "bad"});
    let pairs = |range: std::ops::Range<usize>| -> String {
        range.map(|i| format!("{}\n", pair(i))).collect()
    };
    house.write("pairs.jsonl", &pairs(0..12));
    house.write("asks.jsonl", &pairs(20..23));
    let recipe = "model: ./tiny\nmethod: reward\noutput: model\n\
        data: {train: pairs.jsonl, validation: {path: asks.jsonl}}\n\
        train: {max_steps: 2, learning_rate: 0.02, batch_size: 4}\n";
    house.write("reward.yaml", recipe);
    house.run(&["train", "reward.yaml"]).done();
    let events = read(&house, "model/events.jsonl");
    let best = events.iter().rfind(|event| event["best"] == true).unwrap();

    let reward = ["pairs.choose_by=reward", "pairs.reward=model"];
    let two = [&reward[..], &["pairs.candidates.columns=[rejected, chosen]"]].concat();
    let ended = typed(&house, "", &two).done();
    assert!(ended.stderr.contains("cost: 6 answers to be scored on this machine"));
    let result = ended.result();
    assert_eq!((&result["rows_written"], &result["pairs"]), (&json!(3), &json!(3)), "{result}");
    let rows = read(&house, "out.jsonl");
    assert!(rows[0]["raters"][0].as_str().unwrap().starts_with("reward:"), "{}", rows[0]);
    let signed = |row: &Value| {
        let margin = row["margin"].as_f64().unwrap();
        assert!(margin > 0.0, "{row}");
        if row["chosen_from"] == "chosen" { margin } else { -margin }
    };
    let mean = rows.iter().map(signed).sum::<f64>() / 3.0;
    assert!(
        (mean - best["metrics"]["rewards/margins"].as_f64().unwrap()).abs() < 1e-12,
        "{mean} {best}"
    );

    // A person beside it, over the same answers.
    let columns = "pairs.candidates.columns=[rejected, chosen]";
    let result =
        typed(&house, "a\na\na\n", &[columns, "--rater", "ana", "--resume"]).done().result();
    assert_eq!((&result["agreement"][0]["n"], &result["rows_written"]), (&json!(3), &json!(3)));

    // One pair out of three answers. Its scores do not depend on how many are compared.
    house.write("asks.jsonl", &pairs(20..23).replace("}", ", \"other\": \"odd\"}"));
    let three = "pairs.candidates.columns=[rejected, other, chosen]";
    typed(&house, "", &[&reward[..], &[three, "--overwrite"]].concat()).done();
    for (wide, narrow) in read(&house, "out.jsonl").iter().zip(&rows) {
        assert!(wide["margin"].as_f64() >= narrow["margin"].as_f64(), "{wide} {narrow}");
        let is_same = ["chosen_from", "rejected_from"].iter().all(|key| wide[key] == narrow[key]);
        assert!(!is_same || wide["margin"] == narrow["margin"], "{wide} {narrow}");
    }
    house.write("dpo.yaml", "model: ./tiny\nmethod: dpo\ndata: {train: out.jsonl}\n");
    assert_eq!(house.run(&["check", "dpo.yaml", "--json"]).done().result()["passes"], true);

    // An answer that is too long for the model is listed; the others of its prompt are still compared.
    let long = "x".repeat(20_000);
    let odd = |i: usize| match i {
        20 => json!({"prompt": "p20", "chosen": "good", "rejected": "bad", "other": long}),
        _ => json!({"prompt": "p21", "chosen": long, "rejected": "bad", "other": "bad"}),
    };
    house.write("asks.jsonl", &format!("{}\n{}\n", odd(20), odd(21)));
    let ended = typed(&house, "", &[&reward[..], &[three, "--overwrite"]].concat()).done();
    let result = ended.result();
    let left_out = json!({"identical": 1, "too long for the reward model": 2});
    assert_eq!(result["left_out"], left_out, "{result}");
    assert_eq!(result["rows_written"], 1);

    let not = ["pairs.choose_by=reward", "pairs.reward=tiny", columns, "--overwrite"];
    let ended = typed(&house, "", &not);
    let error = &ended.result()["error"];
    assert_eq!((ended.code, &error["code"]), (2, &json!("no_score_head")), "{error}");
}

#[test]
#[cfg(unix)]
fn an_interrupted_person_keeps_the_choices() {
    let house = house();
    let mut command = house.command(&["pairs", "r.yaml", "--json", "--rater", "ana"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut keys = child.stdin.take().unwrap();
    keys.write_all(b"a\n").unwrap();
    let journal = house.path().join("out.journal.jsonl");
    // The head and a choice.
    while std::fs::read_to_string(&journal).map_or(0, |text| text.lines().count()) < 2 {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let ended = house.ended(&child.wait_with_output().unwrap());
    drop(keys);
    assert_eq!((ended.code, &ended.result()["status"]), (130, &json!("interrupted")));
    assert_eq!(read(&house, "out.jsonl").len(), 1);
    let result = typed(&house, "a\nb\n", &["--rater", "ana", "--resume"]).done().result();
    assert_eq!(result["rows_written"], 3);
}
