//! Data sets from a hub of our own on this machine.

use std::path::Path;

use serde_json::json;

use super::*;
use crate::settings::Settings;
use crate::test_server::{Reply, Request, Server};

const CARD: &str = "---\nconfigs:\n- config_name: main\n  data_files:\n  - split: train\n    path: \
                    main/train-*\n  - split: test\n    path: main/test-*\n- config_name: other\n  \
                    data_files: other.csv\n---\n# A set\n";

/// Revisions, as they stand in addresses, with commit and files.
type Revisions = Vec<(&'static str, &'static str, Vec<(&'static str, &'static str)>)>;

fn carded() -> Revisions {
    let files = vec![
        ("README.md", CARD),
        ("main/train-00001-of-00002.jsonl", "{\"a\": 2}\n"),
        ("main/train-00000-of-00002.jsonl", "{\"a\": 1}\n"),
        ("main/test-00000-of-00001.jsonl", "{\"a\": 3}\n"),
        ("other.csv", "a\n4\n"),
    ];
    vec![("main", "c0ffee", files)]
}

/// A data set that a program makes, and what the hub made of it.
fn programmed() -> Revisions {
    let converted =
        vec![("default/train/0000.parquet", "PAR1"), ("default/test/0000.parquet", "P")];
    vec![
        ("main", "c0ffee", vec![("set.py", "import datasets"), ("raw.json", "[]")]),
        ("refs%2Fconvert%2Fparquet", "facade", converted),
    ]
}

/// Answers as the hub does for the one data set `owner/set`.
fn hub(revisions: Revisions, token: Option<&'static str>) -> Server {
    Server::start(move |request| {
        let given = request.header("authorization");
        if given != token.map(|token| format!("Bearer {token}")).as_deref() {
            return Reply::status(401).with("X-Error-Code", "RepoNotFound");
        }
        revisions
            .iter()
            .find_map(|revision| answer(revision, request))
            .unwrap_or_else(|| Reply::status(404).with("X-Error-Code", "RevisionNotFound"))
    })
}

fn answer(
    (revision, commit, files): &(&str, &str, Vec<(&'static str, &'static str)>),
    request: &Request,
) -> Option<Reply> {
    if request.path == format!("/api/datasets/owner/set/revision/{revision}?blobs=true") {
        let file = |(name, text): &(&str, &str)| json!({"rfilename": name, "size": text.len()});
        let siblings: Vec<_> = files.iter().map(file).collect();
        return Some(Reply::json(&json!({"sha": commit, "siblings": siblings})));
    }
    let name = request.path.strip_prefix(&format!("/datasets/owner/set/resolve/{commit}/"))?;
    let (_, text) = files.iter().find(|(own, _)| *own == name)?;
    Some(Reply::file(request, text.as_bytes()))
}

fn get(
    server: &Server,
    home: &Path,
    set: &HubSet,
    token: Option<&str>,
    offline: bool,
) -> Result<Vec<PathBuf>> {
    let settings = Settings::for_test(home, &server.endpoint, token);
    crate::Models { settings: &settings, observer: &(), offline }.data_set(set)
}

fn set(config: Option<&str>, split: Option<&str>) -> HubSet {
    HubSet {
        id: "owner/set".to_owned(),
        config: config.map(str::to_owned),
        split: split.map(str::to_owned),
        revision: None,
    }
}

fn snapshot(home: &Path, commit: &str) -> PathBuf {
    home.join("hub/datasets--owner--set/snapshots").join(commit)
}

#[test]
fn a_split_comes_once_and_then_from_the_cache() {
    let (home, server) = (tempfile::tempdir().unwrap(), hub(carded(), None));
    let get = |split, offline| get(&server, home.path(), &set(Some("main"), split), None, offline);
    let refused = get(None, true).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "`owner/set` is not in the cache, and the network is forbidden"
    );
    assert!(refused.hint.unwrap().ends_with("download its files and name them with `path`"));

    let found = get(None, false).unwrap();
    let folder = snapshot(home.path(), "c0ffee").join("main");
    let expected = ["train-00000-of-00002.jsonl", "train-00001-of-00002.jsonl"];
    assert_eq!(found, expected.map(|name| folder.join(name)));
    assert_eq!(std::fs::read_to_string(&found[0]).unwrap(), "{\"a\": 1}\n");
    let asked: Vec<String> = server.requests().into_iter().map(|request| request.path).collect();
    assert_eq!(asked.len(), 4, "{asked:?}");

    assert_eq!(get(Some("train"), true).unwrap(), found);
    assert!(server.requests().is_empty());
    // Another split of it is not here yet.
    assert!(get(Some("test"), true).is_err());
    assert_eq!(get(Some("test"), false).unwrap(), [folder.join("test-00000-of-00001.jsonl")]);
    assert_eq!(get(Some("test"), true).unwrap().len(), 1);
}

#[test]
fn a_private_data_set_wants_the_token() {
    let (home, server) = (tempfile::tempdir().unwrap(), hub(carded(), Some("secret")));
    let get = |token| get(&server, home.path(), &set(Some("other"), None), token, false);
    let failure = get(None).unwrap_err();
    assert_eq!(failure.to_string(), "owner/set: the hub has no such data set, or it is private");
    assert_eq!(failure.hint.as_deref(), Some("check the spelling, or set `HF_TOKEN`"));
    let wrong = get(Some("stale")).unwrap_err();
    assert_eq!(wrong.to_string(), "owner/set: the hub does not accept the token");
    let found = get(Some("secret")).unwrap();
    assert_eq!(found, [snapshot(home.path(), "c0ffee").join("other.csv")]);
}

#[test]
fn what_a_program_makes_comes_from_the_conversion() {
    let (home, server) = (tempfile::tempdir().unwrap(), hub(programmed(), None));
    let get = |split, offline| get(&server, home.path(), &set(None, split), None, offline);
    let expected = [snapshot(home.path(), "facade").join("default/train/0000.parquet")];
    assert_eq!(get(None, false).unwrap(), expected);
    assert_eq!(get(None, true).unwrap(), expected);
    let failure = get(Some("dev"), false).unwrap_err();
    assert_eq!(failure.hint.as_deref(), Some("its splits: `train`, `test`"));
}

#[test]
fn what_is_not_there_is_named() {
    let check = |revisions: Revisions, set: &HubSet, message: &str, hint: &str| {
        let (home, server) = (tempfile::tempdir().unwrap(), hub(revisions, None));
        let failure = get(&server, home.path(), set, None, false).unwrap_err();
        assert_eq!(failure.to_string(), message);
        assert_eq!(
            failure.hint.as_deref().map(|hint| hint.replace(&server.endpoint, "HUB")).as_deref(),
            Some(hint)
        );
    };
    let configs = "its configs: `main`, `other`";
    check(carded(), &set(Some("third"), None), "owner/set: it has no config `third`", configs);
    let several = "owner/set: it has several configs, and `config` names none of them";
    check(carded(), &set(None, None), several, configs);
    check(
        carded(),
        &set(Some("main"), Some("train[:10]")),
        "owner/set: there is no split `train[:10]` of `main`",
        "its splits: `train`, `test`; `limit` takes the first rows of one",
    );
    check(
        vec![("main", "c0ffee", vec![("README.md", "# Pictures"), ("a.png", "")])],
        &set(None, None),
        "owner/set: it has no files of JSON, CSV, Parquet or Arrow",
        "download its files, convert them and name them with `path`",
    );
    let revision = Some("v9".to_owned());
    check(
        carded(),
        &HubSet { revision, ..set(None, None) },
        "owner/set: the hub has no revision `v9` of it",
        "HUB/datasets/owner/set/tree/main lists its branches",
    );
    let id = "owner/set/more".to_owned();
    check(
        carded(),
        &HubSet { id, ..set(None, None) },
        "`owner/set/more` is not a data set on the hub",
        "write it as `owner/name`",
    );
}
