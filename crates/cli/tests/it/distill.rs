//! Targets from a teacher: a model here, or an endpoint.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::house::{Ended, House};
use crate::server::{Reply, Request, Server};

const RECIPE: &str = "model: ./tiny\nmethod: sft\ndata: {train: asks.jsonl}\n\
    distill:\n  system: Long.\n  keep_system: Short.\n  model: big\n  output: out.jsonl\n  \
    concurrency: 1\n";

/// A house that asks `a`, `b` and `c`.
fn house() -> House {
    let house = House::with_model();
    house.write("r.yaml", RECIPE);
    house.write("asks.jsonl", &asks(&["a", "b", "c"]));
    house
}

fn asks(texts: &[&str]) -> String {
    texts.iter().map(|text| format!("{}\n", json!({"prompt": text}))).collect()
}

fn run(house: &House, server: &Server, more: &[&str]) -> Ended {
    let teacher = format!("distill.teacher={}/v1", server.endpoint);
    house.run(&[&["distill", "r.yaml", &teacher, "--json"], more].concat())
}

fn question(request: &Request) -> String {
    let json = request.json();
    let last = json["messages"].as_array().unwrap().last().unwrap();
    last["content"].as_str().unwrap().to_owned()
}

fn reply(text: &str, finish: &str) -> Reply {
    let choice =
        json!({"message": {"role": "assistant", "content": text}, "finish_reason": finish});
    Reply::json(&json!({"choices": [choice], "usage": {"prompt_tokens": 1}}))
}

/// A teacher that says every question in capitals.
fn echo(request: &Request) -> Reply {
    reply(&format!(" {}\n", question(request).to_uppercase()), "stop")
}

fn rows(house: &House, name: &str) -> Vec<Value> {
    house.read(name).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn answers(house: &House) -> Vec<String> {
    let answer = |row: &Value| row["messages"][2]["content"].as_str().unwrap().to_owned();
    rows(house, "out.jsonl").iter().map(answer).collect()
}

#[test]
fn an_endpoint_teaches() {
    let house = house();
    house.write("shown.jsonl", "{\"prompt\": \"x\", \"completion\": \"X\"}\n");
    let server = Server::start(echo);
    let more = ["distill.examples=shown.jsonl", "distill.temperature=0.7", "distill.top_p=0.9"];
    let result = run(&house, &server, &more).done().result();
    for (key, expected) in [
        ("status", json!("finished")),
        ("rows_in", json!(3)),
        ("rows_written", json!(3)),
        ("rejected", json!(0)),
        ("output", json!("out.jsonl")),
        // Characters, and a marker each: `s:Long.|u:x|a:X|u:a|a:` and `s:Short.|u:a|a:`.
        ("tokens_prompt_teacher", json!(3 * 22)),
        ("tokens_prompt_student", json!(3 * 15)),
    ] {
        assert_eq!(result[key], expected, "{key}");
    }
    let turn = |role: &str, text: &str| json!({"role": role, "content": text});
    let requests = server.requests();
    assert_eq!(requests.len(), 3);
    assert_eq!(
        (requests[0].method.as_str(), requests[0].path.as_str()),
        ("POST", "/v1/chat/completions")
    );
    assert_eq!(requests[0].header("authorization"), None);
    let mut body = requests[0].json();
    let seed = body.as_object_mut().unwrap().shift_remove("seed").unwrap();
    assert!(seed.as_u64().unwrap() < 1 << 31 && seed != requests[1].json()["seed"]);
    let messages = [("system", "Long."), ("user", "x"), ("assistant", "X"), ("user", "a")];
    let messages: Vec<Value> = messages.iter().map(|(role, text)| turn(role, text)).collect();
    let expected = json!({
        "model": "big", "messages": messages, "temperature": 0.7, "max_tokens": 1024,
        "top_p": 0.9,
    });
    assert_eq!(body, expected);
    let row =
        json!({"messages": [turn("system", "Short."), turn("user", "a"), turn("assistant", "A")]});
    assert_eq!(rows(&house, "out.jsonl")[0], row);
    assert_eq!(answers(&house), ["A", "B", "C"]);
    assert!(!house.path().join("out.jsonl.partial").exists());
}

/// A local teacher's draws depend on the row that is asked, and not on what was answered before it.
#[test]
fn a_resumed_teacher_draws_the_same_answers() {
    let distill = |house: &House, texts: &[&str], more: &[&str]| {
        house.write("asks.jsonl", &asks(texts));
        // Many tokens end an answer, so that most are short and whole.
        let ends: Vec<u32> = [3].into_iter().chain(100..128).collect();
        let config = json!({"eos_token_id": ends}).to_string();
        house.write("tiny/generation_config.json", &config);
        let ask = ["distill", "r.yaml", "distill.temperature=1", "distill.max_new_tokens=60"];
        house.run(&[&ask, more].concat()).done();
    };
    let texts = ["a", "b", "c", "d", "e", "f", "g"];
    let (whole, cut) = (house(), house());
    distill(&whole, &texts, &[]);
    // Rows that were answered before others were added, as after an interruption.
    distill(&cut, &texts[..3], &[]);
    distill(&cut, &texts, &["--resume"]);
    assert!(answers(&whole).len() > 3, "{:?}", answers(&whole));
    assert_eq!(rows(&whole, "out.jsonl"), rows(&cut, "out.jsonl"));
}

#[test]
fn rows_keep_the_order_of_the_prompts() {
    let house = house();
    let server = Server::start(|request| {
        let wait = if question(request) == "a" { 300 } else { 0 };
        std::thread::sleep(std::time::Duration::from_millis(wait));
        echo(request)
    });
    run(&house, &server, &["distill.concurrency=3", "distill.samples=2"]).done();
    assert_eq!(answers(&house), ["A", "A", "B", "B", "C", "C"]);
    let seed = |request: &Request| request.json()["seed"].as_u64().unwrap();
    let mut seeds: Vec<u64> = server.requests().iter().map(seed).collect();
    seeds.sort_unstable();
    seeds.dedup();
    assert_eq!(seeds.len(), 6);
}

#[test]
fn what_passes_is_tried_again() {
    let house = house();
    let first = AtomicBool::new(true);
    let server = Server::start(move |request| match first.swap(false, Ordering::SeqCst) {
        true => Reply::status(429).with("Retry-After", "0"),
        false => echo(request),
    });
    run(&house, &server, &[]).done();
    assert_eq!(answers(&house), ["A", "B", "C"]);
    assert_eq!(server.requests().len(), 4);
}

#[test]
fn the_key_is_sent_and_never_told() {
    let house = house();
    let server = Server::start(|_| Reply {
        status: 401,
        ..Reply::json(&json!({"error": {"message": "Incorrect API key provided: s3cret"}}))
    });
    let teacher = format!("distill.teacher={}/v1", server.endpoint);
    let ask = |key: Option<&str>| {
        let mut command = house.command(&["distill", "r.yaml", &teacher, "--overwrite"]);
        command.envs(key.map(|key| ("OPENAI_API_KEY", key)));
        let ended = house.ended(&command.output().unwrap());
        assert_eq!(ended.code, 1);
        ended.stderr.replace(&server.endpoint, "HOST")
    };
    let expected = "error: HOST/v1: the endpoint refuses the key\nhint: check `OPENAI_API_KEY`\n";
    assert_eq!(ask(Some("s3cret")), expected);
    let requests = server.requests();
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].header("authorization"), Some("Bearer s3cret"));
    let expected =
        "error: HOST/v1: the endpoint wants a key\nhint: set the variable `OPENAI_API_KEY`\n";
    assert_eq!(ask(None), expected);
    assert!(!house.read("out.jsonl.partial").contains("s3cret"));
}

#[test]
fn nothing_is_asked_twice() {
    let house = house();
    let broken = Arc::new(AtomicBool::new(true));
    let is_broken = Arc::clone(&broken);
    let server = Server::start(move |request| {
        match question(request) == "c" && is_broken.load(Ordering::SeqCst) {
            true => Reply {
                status: 400,
                ..Reply::json(&json!({"error": {"message": "no such thing"}}))
            },
            false => echo(request),
        }
    });
    let ended = run(&house, &server, &[]);
    let error = &ended.result()["error"];
    assert_eq!((ended.code, &error["code"]), (1, &json!("teacher")));
    let message = format!("{}/v1: the endpoint answers with 400: no such thing", server.endpoint);
    assert_eq!(error["message"], message);
    assert_eq!(error["hint"], "`--resume` continues after the 2 answers so far");
    assert!(!house.path().join("out.jsonl").exists());
    let ended = run(&house, &server, &[]);
    let error = &ended.result()["error"];
    assert_eq!((ended.code, &error["message"]), (2, &json!("out.jsonl.partial: already exists")));

    server.requests();
    broken.store(false, Ordering::SeqCst);
    let asked = |more: &[&str]| -> Vec<String> {
        run(&house, &server, more).done();
        server.requests().iter().map(question).collect()
    };
    assert_eq!(asked(&["--resume"]), ["c"]);
    assert_eq!(answers(&house), ["A", "B", "C"]);
    // A finished output goes on too, when there are more prompts.
    house.write("asks.jsonl", &asks(&["b", "d", "a", "b"]));
    assert_eq!(asked(&["--resume"]), ["d", "b"]);
    assert_eq!(answers(&house), ["B", "D", "A", "B"]);
    assert_eq!(asked(&["--resume"]), Vec::<String>::new());
    assert_eq!(asked(&["--overwrite"]), ["b", "d", "a", "b"]);
}

#[test]
fn other_settings_do_not_mix() {
    let house = house();
    let server = Server::start(|request| match question(request).as_str() {
        "b" => Reply::status(400),
        _ => echo(request),
    });
    assert_eq!(run(&house, &server, &[]).code, 1);
    let ended = run(&house, &server, &["--resume", "distill.system=Other."]);
    let error = &ended.result()["error"];
    assert_eq!((ended.code, &error["code"]), (2, &json!("refused")));
    assert!(error["message"].as_str().unwrap().ends_with("was begun with other settings"));
}

#[test]
fn an_answer_that_is_no_target_is_listed() {
    let house = house();
    let server = Server::start(|request| match question(request).as_str() {
        "a" => reply("half an ans", "length"),
        "b" => reply(" ", "stop"),
        _ => echo(request),
    });
    let result = run(&house, &server, &[]).done().result();
    assert_eq!((&result["rows_written"], &result["rejected"]), (&json!(1), &json!(2)));
    assert_eq!(result["flaws"], json!({"empty": 1, "length": 1}));
    assert_eq!(answers(&house), ["C"]);
    let rejected = rows(&house, "out.rejected.jsonl");
    assert_eq!(
        (&rejected[0]["flaw"], &rejected[0]["answer"]),
        (&json!("length"), &json!("half an ans"))
    );
    assert!(rejected[1]["row"].as_str().unwrap().ends_with("asks.jsonl:2"));
    // They are answers all the same: nothing is asked twice.
    server.requests();
    run(&house, &server, &["--resume"]).done();
    assert_eq!(server.requests().len(), 0);
}

#[test]
#[cfg(unix)]
fn an_interrupted_command_keeps_its_answers() {
    let house = house();
    house.write("asks.jsonl", &asks(&(0..40).map(|_| "a").collect::<Vec<_>>()));
    let server = Server::start(|request| {
        std::thread::sleep(std::time::Duration::from_millis(100));
        echo(request)
    });
    let teacher = format!("distill.teacher={}/v1", server.endpoint);
    let mut command = house.command(&["distill", "r.yaml", &teacher, "--json"]);
    let child = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let child = child.spawn().unwrap();
    let partial = house.path().join("out.jsonl.partial");
    // The head and two answers.
    while std::fs::read_to_string(&partial).map_or(0, |text| text.lines().count()) < 3 {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let ended = house.ended(&child.wait_with_output().unwrap());
    assert_eq!(ended.code, 130, "{}", ended.stderr);
    assert_eq!(ended.result()["status"], "interrupted");
    let asked = server.requests().len();
    assert_eq!(ended.result()["answers"], asked);
    run(&house, &server, &["--resume"]).done();
    assert_eq!(asked + server.requests().len(), 40);
    assert_eq!(answers(&house).len(), 40);
}

#[test]
fn a_model_on_this_machine_teaches() {
    let house = House::with_model();
    let recipe = RECIPE.replace("asks.jsonl", "rows.jsonl");
    house.write("r.yaml", &(recipe + "  temperature: 2\n  max_new_tokens: 40\n"));
    let distill = ["distill", "r.yaml", "--json", "--overwrite"];
    let result = house.run(&distill).done().result();
    let number = |key: &str| result[key].as_u64().unwrap();
    assert_eq!(number("rows_written") + number("rejected"), 24);
    // A random model ends one answer in some: enough of both.
    assert!(number("rows_written") > 0 && number("rejected") > 0, "{result}");
    // `s:Long.` is one shorter than `s:Short.`
    assert_eq!(number("tokens_prompt_student"), number("tokens_prompt_teacher") + 24);
    let rows = rows(&house, "out.jsonl");
    assert_eq!(rows.len() as u64, number("rows_written"));
    assert_eq!(rows[0]["messages"][0]["content"], "Short.");
    let first = house.read("out.jsonl");
    house.run(&distill).done();
    assert_eq!(house.read("out.jsonl"), first);
}

#[test]
fn what_cannot_be_done_is_told() {
    let house = house();
    let check = |arguments: &[&str], expected: &str| {
        let ended = house.run(&[&["distill", "r.yaml"], arguments].concat());
        assert_eq!((ended.stderr.as_str(), ended.code), (expected, 2), "{arguments:?}");
    };
    check(
        &["distill.teacher=http://localhost:1/v1", "--offline"],
        "error: http://localhost:1/v1: the network is forbidden\nhint: leave out `--offline`, or \
         let a model on this machine teach\n",
    );
    check(
        &["distill.teacher=http://localhost:1"],
        "error: command line, argument `distill.teacher=http://localhost:1`: `distill.teacher` is \
         `http://localhost:1`, which does not end in /v1\nhint: name the address before \
         `/chat/completions`, such as http://localhost:8000/v1\n",
    );
    check(
        &["distill.output=asks.jsonl"],
        "error: HOUSE/asks.jsonl: is what the prompts are read from\nhint: name another file as \
         `distill.output`\n",
    );
    check(
        &["distill.samples=2", "distill.temperature=0"],
        "error: command line, argument `distill.samples=2`: 2 samples of temperature 0 are all the \
         same\nhint: set `distill.temperature`, or take one sample\n",
    );
    house.write("out.jsonl", "{}\n");
    check(
        &[],
        "error: out.jsonl: already exists\nhint: `--resume` asks only for what is missing, \
         `--overwrite` starts over\n",
    );
    house.write("r.yaml", "model: ./tiny\nmethod: sft\ndata: {train: asks.jsonl}\n");
    check(
        &[],
        "error: r.yaml: `distill.output` is missing: where do the rows go?\nhint: add \
         `distill.output=distilled.jsonl`, or say it in the recipe\n",
    );
}

#[test]
fn a_teacher_sees_what_training_shows() {
    let house = house();
    let tool = json!({"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}});
    let row = json!({"system": "Own.", "question": "a", "answer": "x", "id": 7, "tools": [tool]});
    house.write("asks.jsonl", &format!("{row}\n"));
    let recipe = RECIPE.replace("  system: Long.\n  keep_system: Short.\n", "");
    house.write("r.yaml", &recipe);
    let server = Server::start(echo);
    run(&house, &server, &[]).done();
    let body = server.requests()[0].json();
    let turn = |role: &str, text: &str| json!({"role": role, "content": text});
    assert_eq!(body["messages"], json!([turn("system", "Own."), turn("user", "a")]));
    assert_eq!(body["tools"], json!([tool]));
    let expected = json!({
        "messages": [turn("user", "a"), turn("assistant", "A")], "tools": [tool],
        "reference": "x", "columns": {"id": 7},
    });
    assert_eq!(rows(&house, "out.jsonl")[0], expected);
    run(&house, &server, &["--resume"]).done();
    assert_eq!(server.requests().len(), 0);
    run(&house, &server, &["--overwrite", "data.system.set=Set."]).done();
    assert_eq!(server.requests()[0].json()["messages"][0], turn("system", "Set."));
}
