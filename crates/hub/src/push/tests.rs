//! Pushes to a hub of our own on this machine.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::*;
use crate::settings::Settings;
use crate::test_server::{Reply, Request, Server};

/// A file of safetensors without tensors.
const WEIGHTS: &[u8] = b"\x1d\0\0\0\0\0\0\0{}                           ";
// sha256sum of WEIGHTS, by coreutils.
const WEIGHTS_SHA256: &str = "f9c7557679fa04c92f5b85e133d0fd081968c3783aa8376e4e2ec8960e0d604a";
const CONFIG: &str = r#"{"peft_type": "LORA", "base_model_name_or_path": "o/base"}"#;
const CARD: &str = "---\nbase_model: /home/me/base\nlibrary_name: peft\n---\n\n# Adapter\n";

/// How the hub is.
#[derive(Clone, Default)]
struct Mood {
    /// The repository is there, and everybody sees it.
    public: bool,
    /// The status of its answer to the wish for a repository.
    create: u16,
    /// It has all the files already.
    has_files: bool,
    /// It has the content of the weights, from another repository.
    has_weights: bool,
    /// Large files go in parts of so many bytes.
    chunk: Option<usize>,
    /// The store fails the first so many times.
    store_fails: usize,
}

/// A hub, and the store beside it where large files go.
struct Pair {
    hub: Server,
    store: Server,
}

impl Pair {
    fn new(mood: Mood) -> Self {
        let failures = AtomicUsize::new(mood.store_fails);
        let fails = move || {
            let less = |left: usize| left.checked_sub(1);
            failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_ok()
        };
        let store = Server::start(move |request| match fails() {
            true => Reply::status(503),
            false => Reply::ok("").with("ETag", format!("\"of {}\"", request.path)),
        });
        let address = store.endpoint.clone();
        let hub = Server::start(move |request| answer(request, &mood, &address));
        Pair { hub, store }
    }

    fn push(&self, request: &PushRequest<'_>) -> Result<Pushed> {
        let settings = Settings::for_test(Path::new("/"), &self.hub.endpoint, Some("secret"));
        push(&settings, request)
    }
}

fn push(settings: &Settings, request: &PushRequest<'_>) -> Result<Pushed> {
    let hub = Hub { pause: Duration::from_millis(1), ..Hub::new(settings, &(), false) };
    hub.push(request)
}

fn answer(request: &Request, mood: &Mood, store: &str) -> Reply {
    assert_eq!(request.header("authorization"), Some("Bearer secret"));
    let host = request.header("host").unwrap();
    match (request.method.as_str(), request.path.as_str()) {
        ("POST", "/api/repos/create") => match mood.create {
            0 => Reply::json(&json!({"url": "..."})),
            status => Reply::status(status).with("X-Error-Message", "the hub's own words"),
        },
        ("GET", "/api/models/me/tuned") => Reply::json(&json!({"private": !mood.public})),
        ("GET", "/api/models/me/tuned/revision/main") => Reply::json(&json!({"sha": "before"})),
        ("POST", "/api/models/me/tuned/branch/v%2F1") => Reply::status(409),
        ("POST", path) if path.starts_with("/api/models/me/tuned/preupload/") => {
            Reply::json(&json!({"files": modes(&request.json(), mood)}))
        }
        ("POST", "/me/tuned.git/info/lfs/objects/batch") => {
            Reply::json(&batch(&request.json(), mood, store, host))
        }
        ("POST", "/verify" | "/complete") => Reply::ok(""),
        ("POST", path) if path.starts_with("/api/models/me/tuned/commit/") => {
            Reply::json(&json!({"commitUrl": "...", "commitOid": "after"}))
        }
        other => panic!("the hub knows nothing of {other:?}"),
    }
}

fn modes(asked: &Value, mood: &Mood) -> Vec<Value> {
    let mode = |file: &Value| {
        let path = file["path"].as_str().unwrap();
        let sample = STANDARD.decode(file["sample"].as_str().unwrap()).unwrap();
        let size = file["size"].as_u64().unwrap();
        assert_eq!(sample.len() as u64, size.min(512), "{path}");
        // git hash-object and sha256sum of what `adapter` writes, the card as it goes.
        let oid = match path {
            "README.md" => "e72834d304e4c139e83af4ec3cfd05589a91035b",
            "adapter_config.json" => "58182c076079cb442a085ef027b6f27c9dfaf391",
            _ => WEIGHTS_SHA256,
        };
        json!({
            "path": path, "shouldIgnore": false,
            "uploadMode": if path.ends_with(".safetensors") { "lfs" } else { "regular" },
            "oid": mood.has_files.then_some(oid),
        })
    };
    asked["files"].as_array().unwrap().iter().map(mode).collect()
}

fn batch(asked: &Value, mood: &Mood, store: &str, hub: &str) -> Value {
    assert_eq!(asked["operation"], "upload");
    assert_eq!(asked["objects"], json!([{"oid": WEIGHTS_SHA256, "size": WEIGHTS.len()}]));
    let mut object = asked["objects"][0].clone();
    let verify = json!({"href": format!("http://{hub}/verify")});
    match mood.chunk {
        _ if mood.has_weights => {}
        None => {
            let header = json!({"x-signed": "yes"});
            let upload = json!({"href": format!("{store}/one"), "header": header});
            object["actions"] = json!({"upload": upload, "verify": verify});
        }
        Some(chunk) => {
            let mut header = json!({"chunk_size": chunk.to_string()});
            for number in 1..=WEIGHTS.len().div_ceil(chunk) {
                header[format!("{number:05}")] = format!("{store}/part-{number}").into();
            }
            let upload = json!({"href": format!("http://{hub}/complete"), "header": header});
            object["actions"] = json!({"upload": upload, "verify": verify});
        }
    }
    json!({"transfer": "basic", "objects": [object]})
}

fn adapter() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(root.path().join(name), bytes).unwrap();
    write("README.md", CARD.as_bytes());
    write("adapter_config.json", CONFIG.as_bytes());
    write("adapter_model.safetensors", WEIGHTS);
    write("token", b"hf_secret");
    root
}

fn to<'a>(folder: &'a Path, public: bool) -> PushRequest<'a> {
    PushRequest { folder, repo: "me/tuned", revision: "main", public, message: None }
}

fn paths(server: &Server) -> Vec<String> {
    let name = |request: &Request| format!("{} {}", request.method, request.path);
    server.requests().iter().map(name).collect()
}

/// The lines of a commit.
fn lines(request: &Request) -> Vec<Value> {
    let text = std::str::from_utf8(&request.body).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn an_adapter_becomes_a_private_commit() {
    let (pair, folder) = (Pair::new(Mood::default()), adapter());
    let pushed = pair.push(&to(folder.path(), false)).unwrap();
    assert_eq!((pushed.commit.as_str(), pushed.private), ("after", true));
    assert_eq!(pushed.url, format!("{}/me/tuned", pair.hub.endpoint));
    assert_eq!((pushed.files, pushed.files_new), (3, 3));
    let card = "---\nlibrary_name: peft\n---\n\n# Adapter\n";
    assert_eq!(pushed.bytes, (card.len() + CONFIG.len() + WEIGHTS.len()) as u64);
    assert_eq!(pushed.left_out, ["token"]);

    let asked = pair.hub.requests();
    let expected = json!({"type": "model", "organization": "me", "name": "tuned", "private": true});
    assert_eq!(asked[0].json(), expected);
    let sent = pair.store.requests();
    assert_eq!(sent.len(), 1);
    assert_eq!((sent[0].method.as_str(), sent[0].path.as_str()), ("PUT", "/one"));
    assert_eq!(sent[0].body, WEIGHTS);
    assert_eq!(sent[0].header("x-signed"), Some("yes"));
    assert_eq!(sent[0].header("authorization"), None);
    assert_eq!(sent[0].header("transfer-encoding"), None);
    let verify = asked.iter().find(|request| request.path == "/verify").unwrap();
    assert_eq!(verify.json(), json!({"oid": WEIGHTS_SHA256, "size": WEIGHTS.len()}));

    let commit = asked.last().unwrap();
    assert_eq!(commit.path, "/api/models/me/tuned/commit/main");
    assert_eq!(commit.header("content-type"), Some("application/x-ndjson"));
    let title = format!("Upload adapter with Tunesmith {}", env!("CARGO_PKG_VERSION"));
    let file = |path: &str, text: &str| {
        let content = STANDARD.encode(text);
        json!({"key": "file", "value": {"path": path, "encoding": "base64", "content": content}})
    };
    let expected = [
        json!({"key": "header", "value": {"summary": title, "description": ""}}),
        file("README.md", card),
        file("adapter_config.json", CONFIG),
        json!({"key": "lfsFile", "value": {"path": "adapter_model.safetensors", "algo": "sha256",
               "oid": WEIGHTS_SHA256, "size": WEIGHTS.len()}}),
    ];
    assert_eq!(lines(commit), expected);
    // Whatever else is said, the secret beside the adapter is not.
    let secret = STANDARD.encode("hf_secret");
    for request in asked.iter().chain(&sent) {
        assert!(!String::from_utf8_lossy(&request.body).contains(&secret));
    }
}

#[test]
fn broken_weights_are_not_pushed() {
    let (pair, folder) = (Pair::new(Mood::default()), adapter());
    let header = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.bytes().chain(1_f32.to_le_bytes()).chain(f32::NAN.to_le_bytes()));
    let path = folder.path().join("adapter_model.safetensors");
    let check = |bytes: &[u8], message: &str| {
        std::fs::write(&path, bytes).unwrap();
        let failure = pair.push(&to(folder.path(), false)).unwrap_err();
        let expected = format!("{}: {message}", path.display());
        assert!(failure.to_string().starts_with(&expected), "{failure:?}");
        assert!(pair.hub.requests().is_empty());
    };
    check(&file, "tensor `a`: row 1 holds NaN or infinity");
    check(&file[..file.len() - 1], "not a whole safetensors file");
}

#[test]
fn what_is_there_is_not_sent_again() {
    let folder = adapter();
    let check = |mood: Mood, commit: &str, files_new: usize, ends: &str| {
        let pair = Pair::new(mood);
        let pushed = pair.push(&to(folder.path(), false)).unwrap();
        assert_eq!((pushed.commit.as_str(), pushed.files_new), (commit, files_new));
        assert_eq!(pushed.files, 3);
        assert_eq!(paths(&pair.hub).last().unwrap(), ends);
        assert!(pair.store.requests().is_empty());
    };
    let all = Mood { has_files: true, ..Mood::default() };
    check(all, "before", 0, "GET /api/models/me/tuned/revision/main");
    let weights = Mood { has_weights: true, ..Mood::default() };
    check(weights, "after", 3, "POST /api/models/me/tuned/commit/main");
}

#[test]
fn a_large_file_goes_in_parts() {
    let mood = Mood { chunk: Some(16), store_fails: 2, ..Mood::default() };
    let (pair, folder) = (Pair::new(mood), adapter());
    pair.push(&to(folder.path(), false)).unwrap();
    let sent = pair.store.requests();
    // The first part went three times, until the store took it.
    let names: Vec<&str> = sent.iter().map(|request| request.path.as_str()).collect();
    assert_eq!(names, ["/part-1", "/part-1", "/part-1", "/part-2", "/part-3"]);
    let bodies: Vec<&[u8]> = sent[2..].iter().map(|request| request.body.as_slice()).collect();
    assert_eq!(bodies, [&WEIGHTS[..16], &WEIGHTS[16..32], &WEIGHTS[32..]]);
    assert!(sent.iter().all(|request| request.header("authorization").is_none()));
    let asked = pair.hub.requests();
    let complete = asked.iter().find(|request| request.path == "/complete").unwrap();
    let part = |number| json!({"partNumber": number, "etag": format!("\"of /part-{number}\"")});
    let expected = json!({"oid": WEIGHTS_SHA256, "parts": [part(1), part(2), part(3)]});
    assert_eq!(complete.json(), expected);
}

#[test]
fn a_store_that_fails_for_good_is_named() {
    let mood = Mood { store_fails: usize::MAX, ..Mood::default() };
    let (pair, folder) = (Pair::new(mood), adapter());
    let failure = pair.push(&to(folder.path(), false)).unwrap_err();
    let expected =
        "me/tuned: `adapter_model.safetensors` cannot be uploaded: the store answers 503";
    assert_eq!(failure.to_string(), expected);
    // Nothing is committed of which a part is missing.
    assert!(paths(&pair.hub).iter().all(|path| !path.contains("/commit/")));
}

#[test]
fn nothing_becomes_public_unasked() {
    let folder = adapter();
    let mood = Mood { public: true, create: 409, ..Mood::default() };
    let pair = Pair::new(mood.clone());
    let failure = pair.push(&to(folder.path(), false)).unwrap_err();
    assert_eq!(failure.to_string(), "me/tuned: everybody can see it");
    assert_eq!(paths(&pair.hub), ["POST /api/repos/create", "GET /api/models/me/tuned"]);
    let pushed = pair.push(&to(folder.path(), true)).unwrap();
    assert!(!pushed.private);
    assert_eq!(pair.hub.requests()[0].json()["private"], false);
}

#[test]
fn a_branch_and_a_message_are_as_asked() {
    let (pair, folder) = (Pair::new(Mood::default()), adapter());
    let message = Some("Title\n\nMore words");
    let request = PushRequest { revision: "v/1", message, ..to(folder.path(), false) };
    let pushed = pair.push(&request).unwrap();
    assert_eq!(pushed.url, format!("{}/me/tuned/tree/v/1", pair.hub.endpoint));
    let asked = pair.hub.requests();
    assert!(asked.iter().any(|request| request.path == "/api/models/me/tuned/branch/v%2F1"));
    let commit = asked.last().unwrap();
    assert_eq!(commit.path, "/api/models/me/tuned/commit/v%2F1");
    let expected = json!({"summary": "Title", "description": "More words"});
    assert_eq!(lines(commit)[0]["value"], expected);
}

#[test]
fn a_token_that_may_not_make_it_may_still_write_to_it() {
    let (pair, folder) = (Pair::new(Mood { create: 403, ..Mood::default() }), adapter());
    assert_eq!(pair.push(&to(folder.path(), false)).unwrap().commit, "after");
}

#[test]
fn what_stops_a_push_says_what_to_do() {
    let folder = adapter();
    let check = |settings: Settings, request: &PushRequest<'_>, message: &str, hint| {
        let failure = push(&settings, request).unwrap_err();
        assert_eq!(failure.to_string(), message);
        let found = failure.hint.unwrap_or_default();
        assert!(found.contains(hint), "{found}");
    };
    let request = to(folder.path(), false);
    let settings = |token| Settings::for_test(Path::new("/"), "https://hub", token);
    check(
        settings(None),
        &request,
        "me/tuned: pushing needs a token of the hub",
        "`HF_TOKEN` or save it",
    );
    let offline = Settings { offline: true, ..settings(Some("secret")) };
    check(offline, &request, "the network is forbidden", "HF_HUB_OFFLINE");
    let nowhere = PushRequest { repo: "tuned", ..to(folder.path(), false) };
    check(
        settings(None),
        &nowhere,
        "`tuned` at `main` is not a repository on the hub",
        "OWNER/NAME",
    );
    let absent = PathBuf::from("/no/such/folder");
    check(settings(None), &to(&absent, false), "/no/such/folder: no such folder", "");

    let pair = Pair::new(Mood { create: 400, ..Mood::default() });
    let failure = pair.push(&request).unwrap_err();
    assert_eq!(failure.to_string(), "me/tuned: the hub answers 400: the hub's own words");
}
