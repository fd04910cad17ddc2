use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use data::Stop;
use serde_json::{Value, json};
use train::reward::{
    Asked, Completion, JudgeSettings, OnRewardError, RewardKind, RewardSettings, Scored,
};

use super::external;
use crate::context::{Context, Global};
use crate::environment::Environment;
use crate::server::{Reply, Request, Server};
use crate::terminal::Terminal;

fn context(variables: &[(&str, &str)], offline: bool) -> Context {
    let environment = Environment::of(Path::new("/"), variables);
    let terminal = Terminal::new(&environment, false);
    Context::new(environment, terminal, Global { offline, ..Global::default() })
}

fn settings(kind: RewardKind) -> RewardSettings {
    RewardSettings {
        name: "reward".into(),
        weight: 1.0,
        range: None,
        kind,
        timeout: Duration::from_secs(20),
        retries: 2,
        concurrency: 1,
        batch: 64,
        on_error: OnRewardError::Stop,
        key: "rewards.0".into(),
    }
}

fn completion(answer: &str) -> Arc<Completion> {
    let asked = Asked {
        prompt: "<user>2+2?".into(),
        messages: vec![json!({"role": "user", "content": "2+2?"})],
        reference: Some(json!(4)),
        place: "rows.jsonl:1".into(),
        ..Asked::default()
    };
    Arc::new(Completion { asked: Arc::new(asked), answer: answer.into(), tokens: 1, ended: true })
}

/// The rewards that a kind gives some answers.
fn score(kind: RewardKind, answers: &[&str], variables: &[(&str, &str)]) -> Vec<Scored> {
    let context = context(variables, false);
    let mut source = external(&context)(&settings(kind)).unwrap();
    let completions: Vec<Arc<Completion>> = answers.iter().map(|text| completion(text)).collect();
    source.score(&completions, &Stop::default())
}

fn errors(scored: &[Scored]) -> Vec<&str> {
    scored.iter().map(|scored| &*scored.as_ref().expect_err("it fails").message).collect()
}

#[test]
fn an_address_gives_rewards() {
    let busy = AtomicUsize::new(0);
    let server = Server::start(move |request| {
        if busy.fetch_add(1, Ordering::SeqCst) == 0 {
            return Reply::status(503).with("Retry-After", "0");
        }
        let completions = request.json()["completions"].as_array().unwrap().clone();
        let reward = |completion: &Value| match completion["answer"].as_str().unwrap() {
            "none" => Value::Null,
            answer => json!(answer.len() as f64 / 2.0),
        };
        Reply::json(&json!({"rewards": completions.iter().map(reward).collect::<Vec<_>>()}))
    });
    let kind = RewardKind::Http(format!("{}/score", server.endpoint));
    let scored = score(kind, &["4", "none", "four"], &[("REWARD_API_KEY", "s3cret")]);
    assert_eq!(scored, [Ok(Some(0.5)), Ok(None), Ok(Some(2.0))]);
    let requests = server.requests();
    assert_eq!(requests.len(), 2);
    let Request { method, path, .. } = &requests[1];
    assert_eq!((method.as_str(), path.as_str()), ("POST", "/score"));
    assert_eq!(requests[1].header("authorization"), Some("Bearer s3cret"));
    let expected = json!({
        "id": 0, "prompt": "<user>2+2?", "messages": [{"role": "user", "content": "2+2?"}], "answer": "4",
        "reference": 4, "columns": {}, "ended": true, "tokens": 1,
    });
    assert_eq!(requests[1].json()["completions"][0], expected);
}

#[track_caller]
fn check_address(reply: impl Fn() -> Reply + Send + Sync + 'static, message: &str, hint: &str) {
    let server = Server::start(move |_| reply());
    let kind = RewardKind::Http(server.endpoint.clone());
    let scored = score(kind, &["a", "b"], &[("REWARD_API_KEY", "s3cret")]);
    let expected = message.replace("HERE", &server.endpoint);
    assert_eq!(errors(&scored), [&expected; 2]);
    let given = scored[0].as_ref().unwrap_err().hint.clone().unwrap_or_default();
    assert!(given.contains(hint), "{given}");
}

#[test]
fn what_an_address_says_wrongly_is_named() {
    let json = |value: Value| move || Reply::json(&value);
    check_address(
        json(json!({"rewards": [1]})),
        "HERE: the answer has 1 rewards for 2 completions",
        "number or null",
    );
    check_address(
        json(json!({"rewards": [1, "x"]})),
        "HERE: a reward is `\"x\"`, not a number",
        "number",
    );
    check_address(
        json(json!([1, 2])),
        "HERE: the answer has no list `rewards`: `[1,2]`",
        "rewards",
    );
    check_address(
        || Reply::ok("{\"rewards\": [NaN, 1]}"),
        "HERE: the answer is not JSON: `{\"rewards\": [NaN, 1]}`",
        "rewards",
    );
    check_address(
        || Reply { status: 400, ..Reply::ok("bad s3cret\n") },
        "HERE answers with 400: bad ***",
        "",
    );
    check_address(|| Reply::status(403), "HERE refuses the request with 403", "REWARD_API_KEY");
    check_address(|| Reply::status(503).with("Retry-After", "0"), "HERE answers with 503", "");
    let scored = score(RewardKind::Http("http://127.0.0.1:9".into()), &["a"], &[]);
    assert!(errors(&scored)[0].starts_with("http://127.0.0.1:9 cannot be reached: "), "{scored:?}");
}

fn judge(server: &Server) -> RewardKind {
    RewardKind::Judge(JudgeSettings {
        endpoint: format!("{}/v1", server.endpoint),
        model: "big".into(),
        rubric: "Be strict.".into(),
        scale: [1, 5],
        max_new_tokens: 9,
    })
}

fn reply(text: &str, finish: &str) -> Reply {
    let message = json!({"role": "assistant", "content": text});
    Reply::json(&json!({"choices": [{"message": message, "finish_reason": finish}]}))
}

#[test]
fn a_judge_scores_answers() {
    let server = Server::start(|request| {
        if request.path.ends_with("/models") {
            return Reply::status(404);
        }
        let json = request.json();
        let text = json["messages"][0]["content"].as_str().unwrap().to_owned();
        match () {
            () if text.contains("<answer>\ngood\n") => reply("Right.\n\n**5**", "stop"),
            () if text.contains("<answer>\nbad\n") => reply("1", "stop"),
            () if text.contains("<answer>\nlong\n") => reply("Well, 3", "length"),
            // It thinks better of it when it is asked again.
            () if json["seed"] == 1 && text.contains("<answer>\nlate\n") => reply("3", "stop"),
            () => reply("I would give it 9/5\n9", "stop"),
        }
    });
    let scored = score(judge(&server), &["good", "bad", "late", "odd", "long"], &[]);
    assert_eq!(scored[..3], [Ok(Some(1.0)), Ok(Some(0.0)), Ok(Some(0.5))]);
    let expected = [
        "the judge's reply does not end with a whole number from 1 to 5: `I would give it 9/5 9`",
        "the judge's reply did not end within 9 tokens",
    ];
    assert_eq!(errors(&scored[3..]), expected);
    let requests = server.requests();
    assert_eq!(requests.len(), 1 + 1 + 1 + 2 + 2 + 2);
    let json = requests[1].json();
    assert_eq!((&json["temperature"], &json["max_tokens"]), (&json!(0.0), &json!(9)));
    let text = json["messages"][0]["content"].as_str().unwrap();
    let beginning = "Be strict.\n\n<prompt>\nuser: 2+2?\n</prompt>\n\n<reference>\n4\n</reference>\n\n<answer>\ngood\n";
    assert!(text.starts_with(beginning), "{text}");
    assert!(text.contains("from 1, the worst, to 5, the best"), "{text}");
}

#[test]
fn a_judge_that_is_not_there_is_told_at_once() {
    let kind = RewardKind::Judge(JudgeSettings {
        endpoint: "http://127.0.0.1:9/v1".into(),
        model: "big".into(),
        rubric: String::new(),
        scale: [0, 10],
        max_new_tokens: 9,
    });
    let online = context(&[], false);
    let error = external(&online)(&settings(kind.clone())).err().unwrap();
    assert!(error.to_string().contains("the endpoint cannot be reached"), "{error}");
    let offline = context(&[], true);
    let error = external(&offline)(&settings(kind)).err().unwrap();
    assert_eq!(error.to_string(), "rewards.0: the network is forbidden");
}
