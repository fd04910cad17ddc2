use std::path::Path;

use serde_json::{Value, json};

use crate::house::{Ended, House};
use crate::server::{Reply, Request, Server};

fn run(house: &House, hub: &Server, variables: &[(&str, &str)], arguments: &[&str]) -> Ended {
    let mut command = house.command(arguments);
    command.env_remove("HF_HUB_OFFLINE").env("HF_ENDPOINT", &hub.endpoint);
    command.envs(variables.iter().copied());
    house.ended(&command.output().unwrap())
}

/// A hub with the files of a folder as `owner/tiny`.
fn hub_of(folder: &Path) -> Server {
    let read = |name: &str| std::fs::read(folder.join(name)).ok();
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    let files: Vec<(String, Vec<u8>)> = names
        .map(|name| name.into_string().unwrap())
        .map(|name| (name.clone(), read(&name).unwrap()))
        .collect();
    Server::start(move |request| {
        if request.path == "/api/models/owner/tiny/revision/main?blobs=true" {
            let file =
                |(name, bytes): &(String, Vec<u8>)| json!({"rfilename": name, "size": bytes.len()});
            let siblings: Vec<Value> = files.iter().map(file).collect();
            return Reply::json(&json!({"sha": "c0ffee", "siblings": siblings}));
        }
        let name = request.path.rsplit('/').next().unwrap_or_default();
        let file = files.iter().find(|(own, _)| own == name);
        file.map_or(Reply::status(404), |(_, bytes)| Reply::file(request, bytes))
    })
}

#[test]
fn a_hub_id_answers_and_then_needs_no_network() {
    let house = House::new();
    house.write_model("tiny");
    let hub = hub_of(&house.path().join("tiny"));
    let ask = ["generate", "owner/tiny", "--prompt", "1+1?", "--max-new-tokens", "4", "--json"];
    let first = run(&house, &hub, &[], &ask).done().result();
    assert!(!hub.requests().is_empty());
    let second = house.run(&[&ask[..], &["--offline"]].concat()).done().result();
    assert_eq!(first["results"], second["results"]);
    let ended = run(&house, &hub, &[], &["generate", "owner/other", "--prompt", "a", "--json"]);
    assert_eq!(ended.code, 1);
    let error = &ended.result()["error"];
    assert_eq!(error["message"], "owner/other: the hub has no such model");
}

/// A hub that takes everything.
fn taking_hub() -> Server {
    Server::start(|request| match request.path.as_str() {
        "/api/repos/create" => Reply::json(&json!({"url": ""})),
        "/api/models/me/tuned" => Reply::json(&json!({"private": true})),
        path if path.ends_with("/preupload/main") => Reply::json(&json!({"files": modes(request)})),
        path if path.ends_with("/commit/main") => Reply::json(&json!({"commitOid": "c0ffee"})),
        path => panic!("nobody should ask for {path}"),
    })
}

fn modes(request: &Request) -> Vec<Value> {
    let asked = request.json();
    let files = asked["files"].as_array().unwrap().iter();
    files.map(|file| json!({"path": file["path"], "uploadMode": "regular"})).collect()
}

#[test]
fn a_model_is_pushed() {
    let house = House::new();
    house.write_model("tiny");
    house.write("tiny/hf_token.txt", "hf_secret");
    let hub = taking_hub();
    let push = ["push", "tiny", "me/tuned", "--json"];
    let ended = run(&house, &hub, &[("HF_TOKEN", "t")], &push).done();
    let result = ended.result();
    assert_eq!(result["schema"], 1);
    assert_eq!(result["repo"], "me/tuned");
    assert_eq!(result["revision"], "main");
    assert_eq!(result["commit"], "c0ffee");
    assert_eq!(result["url"], format!("{}/me/tuned", hub.endpoint));
    assert_eq!((&result["files"], &result["private"]), (&json!(6), &json!(true)));
    assert_eq!(result["left_out"], json!(["hf_token.txt"]));
    assert!(ended.stderr.contains("not sent: hf_token.txt"), "{}", ended.stderr);
    let asked = hub.requests();
    assert!(asked.iter().all(|request| request.header("authorization") == Some("Bearer t")));
    assert!(asked.iter().any(|request| request.method == "POST"));

    // The login serves where no variable is set.
    house.write(".cache/huggingface/token", "from-login\n");
    run(&house, &hub, &[], &push).done();
    assert_eq!(hub.requests()[0].header("authorization"), Some("Bearer from-login"));
}

#[test]
fn a_push_without_network_or_token_sends_nothing() {
    let house = House::new();
    house.write_model("tiny");
    let hub = taking_hub();
    let check = |arguments: &[&str], variables: &[(&str, &str)], code: &str| {
        let ended = run(&house, &hub, variables, arguments);
        assert_eq!(ended.code, 2);
        assert_eq!(ended.result()["error"]["code"], code);
        assert!(hub.requests().is_empty());
    };
    check(&["push", "tiny", "me/tuned", "--json"], &[], "hub_unauthorized");
    let token = [("HF_TOKEN", "t")];
    check(&["push", "tiny", "me/tuned", "--json", "--offline"], &token, "offline");
    check(&["push", "rows", "me/tuned", "--json"], &token, "file_not_found");
}
