//! Downloads from a hub of our own on this machine.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use sha1::Digest as _;

use super::*;
use crate::error::Cause;
use crate::test_server::{Reply, Request, Server};

const COMMIT: &str = "c0ffee";
const WEIGHTS: &[u8] = b"weights, as many bytes as make a test";
// sha256sum of WEIGHTS, by coreutils.
const WEIGHTS_SHA256: &str = "75ed6cc4cad4844ebe9ccc8fc38fbcdbf7f38c290d72978452769055e4d6e1d6";
const CONFIG: &str = r#"{"model_type": "llama", "hidden_size": 4, "intermediate_size": 8,
    "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 16}"#;

/// The files of a model.
type Repo = Vec<(&'static str, Vec<u8>)>;

fn tiny() -> Repo {
    vec![
        ("README.md", b"# tiny".to_vec()),
        ("config.json", CONFIG.into()),
        ("pytorch_model.bin", b"pickled".to_vec()),
        ("tokenizer.json", b"{}".to_vec()),
        ("additional_chat_templates/rag.jinja", b"rag".to_vec()),
        ("../escape.jinja", b"out".to_vec()),
        ("model.safetensors", WEIGHTS.to_vec()),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What the hub says of a model's files; large ones are known by their SHA-256.
fn listing(repo: &Repo) -> Value {
    let file = |(name, bytes): &(&str, Vec<u8>)| {
        let head = format!("blob {}\0", bytes.len());
        let blob = hex(&sha1::Sha1::new_with_prefix(head).chain_update(bytes).finalize());
        let mut file = json!({"rfilename": name, "size": bytes.len(), "blobId": blob});
        if name.ends_with(".safetensors") || name.ends_with(".gguf") {
            let sum = hex(&sha2::Sha256::digest(bytes));
            file["lfs"] = json!({"sha256": sum, "size": bytes.len()});
        }
        file
    };
    json!({"id": "owner/tiny", "sha": COMMIT, "siblings": repo.iter().map(file).collect::<Vec<_>>()})
}

/// Answers as the hub does for the one model `owner/tiny`.
fn answer(repo: &Repo, request: &Request) -> Reply {
    assert_eq!(request.header("authorization"), Some("Bearer secret"));
    let known = ["main", "refs%2Fpr%2F1"].iter().any(|revision| {
        request.path == format!("/api/models/owner/tiny/revision/{revision}?blobs=true")
    });
    if known {
        return Reply::json(&listing(repo));
    }
    let name = request.path.strip_prefix("/owner/tiny/resolve/c0ffee/");
    match repo.iter().find(|(own, _)| Some(*own) == name) {
        Some((_, bytes)) => Reply::file(request, bytes),
        None => Reply::status(404).with("X-Error-Code", "EntryNotFound"),
    }
}

/// A hub with the model `owner/tiny`.
fn hub(repo: Repo) -> Server {
    Server::start(move |request| answer(&repo, request))
}

/// As [`hub`], but what it answers for the weights is spoilt: `spoil` is told how many
/// requests for them came before.
fn hub_with(spoil: impl Fn(usize, &Request, Reply) -> Reply + Send + Sync + 'static) -> Server {
    let (repo, asked) = (tiny(), AtomicUsize::new(0));
    Server::start(move |request| {
        let reply = answer(&repo, request);
        if !request.path.ends_with("/model.safetensors") {
            return reply;
        }
        spoil(asked.fetch_add(1, Ordering::SeqCst), request, reply)
    })
}

fn get(server: &Server, home: &Path, id: &str, offline: bool) -> Result<PathBuf> {
    let settings = Settings::for_test(home, &server.endpoint, Some("secret"));
    let hub = Hub { pause: Duration::from_millis(1), ..Hub::new(&settings, &(), offline) };
    hub.model(&HubId::parse(id).unwrap())
}

#[test]
fn a_plan_fetches_no_weights() {
    let server = hub_with(|_, _, _| panic!("weights were asked for"));
    let home = home();
    let config = |id: &str, offline: bool| {
        let settings = Settings::for_test(home.path(), &server.endpoint, Some("secret"));
        let hub = Hub::new(&settings, &(), offline);
        hub.config(&HubId::parse(id).unwrap())
    };
    let offline = config("owner/tiny", true).unwrap_err();
    assert!(offline.to_string().ends_with("the network is forbidden"), "{}", offline.to_string());
    let path = config("owner/tiny", false).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), CONFIG.as_bytes());
    assert!(path.with_file_name("tokenizer.json").is_file());
    assert_eq!(config("owner/tiny", true).unwrap(), path);
    // What has no weights is no model yet.
    let whole = get(&server, home.path(), "owner/tiny", true).unwrap_err();
    assert!(whole.to_string().ends_with("the network is forbidden"), "{whole}");
    let file = config("owner/tiny:a.gguf", false).unwrap_err();
    assert_eq!(file.to_string(), "owner/tiny: `a.gguf` has no `config.json` of its own");
}

fn home() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn blobs(home: &Path) -> PathBuf {
    home.join("hub/models--owner--tiny/blobs")
}

/// The part of the weights that an earlier process has left.
fn leave(home: &Path, part: &[u8]) {
    std::fs::create_dir_all(blobs(home)).unwrap();
    std::fs::write(blobs(home).join(format!("{WEIGHTS_SHA256}.incomplete")), part).unwrap();
}

/// What was asked, by the last part of its path, and from where on.
fn asked(server: &Server) -> Vec<String> {
    let name = |request: &Request| {
        let name = request.path.rsplit('/').next().unwrap_or_default().to_owned();
        match request.header("range") {
            Some(range) => format!("{name} {range}"),
            None => name,
        }
    };
    server.requests().iter().map(name).collect()
}

#[track_caller]
fn check_weights(folder: &Path) {
    assert_eq!(std::fs::read(folder.join("model.safetensors")).unwrap(), WEIGHTS);
}

#[test]
fn a_model_comes_once_and_then_from_the_cache() {
    let (home, server) = (home(), hub(tiny()));
    let folder = get(&server, home.path(), "owner/tiny", false).unwrap();
    let expected = home.path().join("hub/models--owner--tiny/snapshots/c0ffee");
    assert_eq!(folder, expected);
    check_weights(&folder);
    assert_eq!(std::fs::read(folder.join("additional_chat_templates/rag.jinja")).unwrap(), b"rag");
    assert_eq!(std::fs::read(blobs(home.path()).join(WEIGHTS_SHA256)).unwrap(), WEIGHTS);
    let mut asked = asked(&server);
    // What it is comes first, and its weights last; in between several come at once.
    asked[2..4].sort();
    let expected_names =
        ["main?blobs=true", "config.json", "rag.jinja", "tokenizer.json", "model.safetensors"];
    assert_eq!(asked, expected_names);

    assert_eq!(get(&server, home.path(), "owner/tiny", false).unwrap(), expected);
    assert_eq!(get(&server, home.path(), "owner/tiny", true).unwrap(), expected);
    assert_eq!(get(&server, home.path(), "owner/tiny@c0ffee", true).unwrap(), expected);
    assert!(server.requests().is_empty());
}

#[test]
fn another_revision_shares_what_is_equal() {
    let (home, server) = (home(), hub(tiny()));
    get(&server, home.path(), "owner/tiny", false).unwrap();
    server.requests();
    get(&server, home.path(), "owner/tiny@refs/pr/1", false).unwrap();
    assert_eq!(asked(&server), ["refs%2Fpr%2F1?blobs=true"]);
}

#[test]
fn shards_come_several_at_a_time() {
    let names = ["m-1.safetensors", "m-2.safetensors", "m-3.safetensors", "m-4.safetensors"];
    let map: serde_json::Map<String, Value> =
        names.iter().map(|name| ((*name).to_owned(), json!(name))).collect();
    let mut repo = tiny();
    repo.pop();
    repo.push(("model.safetensors.index.json", json!({"weight_map": map}).to_string().into()));
    repo.extend(names.iter().map(|name| (*name, name.repeat(1000).into_bytes())));
    let (home, server) = (home(), hub(repo));
    let folder = get(&server, home.path(), "owner/tiny", false).unwrap();
    for name in names {
        assert_eq!(std::fs::read_to_string(folder.join(name)).unwrap(), name.repeat(1000));
    }
}

/// As transformers does, the one file is taken where there is an index of others beside it.
#[test]
fn a_whole_model_goes_before_its_shards() {
    let mut repo = tiny();
    let map = json!({"weight_map": {"a": "m-1.safetensors"}});
    repo.push(("model.safetensors.index.json", map.to_string().into()));
    repo.push(("m-1.safetensors", b"shard".to_vec()));
    let (home, server) = (home(), hub(repo));
    let folder = get(&server, home.path(), "owner/tiny", false).unwrap();
    check_weights(&folder);
    assert!(!folder.join("m-1.safetensors").exists());
}

#[test]
fn a_broken_transfer_goes_on_where_it_stopped() {
    let home = home();
    // More cuts than attempts: each of them brings something.
    let server = hub_with(|_, _, reply| Reply { cut_at: Some(3), ..reply });
    check_weights(&get(&server, home.path(), "owner/tiny", false).unwrap());
    let asked = asked(&server);
    assert_eq!(asked.len(), 4 + WEIGHTS.len().div_ceil(3));
    assert_eq!(asked.last().unwrap(), "model.safetensors bytes=36-");
}

#[test]
fn a_transfer_that_gets_nowhere_is_given_up() {
    let home = home();
    let server = hub_with(|before, _, reply| Reply {
        cut_at: Some(if before == 0 { 10 } else { 0 }),
        ..reply
    });
    let failure = get(&server, home.path(), "owner/tiny", false).unwrap_err();
    assert!(failure.to_string().starts_with("owner/tiny: `model.safetensors` broke off: "));
    assert!(failure.hint.unwrap().contains("resumes where it stopped"));
    // It does.
    let server = hub(tiny());
    check_weights(&get(&server, home.path(), "owner/tiny", false).unwrap());
    assert_eq!(asked(&server), ["main?blobs=true", "model.safetensors bytes=10-"]);
}

#[test]
fn a_part_is_gone_on_with_only_if_it_fits() {
    let check = |part: &[u8], expected: &[&str]| {
        let (home, server) = (home(), hub(tiny()));
        leave(home.path(), part);
        check_weights(&get(&server, home.path(), "owner/tiny", false).unwrap());
        assert_eq!(asked(&server)[4..], *expected, "{}", String::from_utf8_lossy(part));
    };
    check(&WEIGHTS[..10], &["model.safetensors bytes=10-"]);
    check(WEIGHTS, &[]);
    // Bytes of something else, and more of them than the file has.
    check(b"WEIGHTS", &["model.safetensors bytes=7-", "model.safetensors"]);
    check(&WEIGHTS.repeat(2), &["model.safetensors"]);
}

#[test]
fn a_hub_without_ranges_sends_all_again() {
    let home = home();
    let server = hub_with(|before, _, _| Reply {
        cut_at: (before == 0).then_some(10),
        ..Reply::ok(WEIGHTS)
    });
    check_weights(&get(&server, home.path(), "owner/tiny", false).unwrap());
    assert_eq!(asked(&server)[4..], ["model.safetensors", "model.safetensors bytes=10-"]);
}

#[test]
fn a_part_of_a_file_that_changed_is_not_kept() {
    let home = home();
    let server = hub_with(|before, request, reply| match before {
        0 => Reply { cut_at: Some(10), ..reply.with("ETag", "\"a\"") },
        _ => {
            assert_eq!(request.header("if-range"), Some("\"a\""));
            // RFC 9110, 13.1.5: the tag is another one now, so the range does not count.
            Reply::ok(WEIGHTS).with("ETag", "\"b\"")
        }
    });
    check_weights(&get(&server, home.path(), "owner/tiny", false).unwrap());
}

#[test]
fn another_range_than_asked_for_is_not_taken() {
    let home = home();
    let server = hub_with(|before, _, reply| match before {
        0 => Reply { cut_at: Some(10), ..reply },
        1 => Reply { status: 206, ..Reply::ok(&WEIGHTS[4..]) }
            .with("Content-Range", format!("bytes 4-36/{}", WEIGHTS.len())),
        _ => reply,
    });
    check_weights(&get(&server, home.path(), "owner/tiny", false).unwrap());
    assert_eq!(asked(&server).last().unwrap(), "model.safetensors");
}

#[test]
fn bytes_with_another_checksum_are_not_kept() {
    let check = |name: &'static str, blob: &str, word: &str| {
        let (home, repo) = (home(), tiny());
        let server = Server::start(move |request| {
            let reply = answer(&repo, request);
            match request.path.ends_with(name) {
                true => Reply::ok(vec![b'x'; reply.body.len()]),
                false => reply,
            }
        });
        let failure = get(&server, home.path(), "owner/tiny", false).unwrap_err();
        let expected = format!("owner/tiny: `{name}` broke off: its {word} is ");
        assert!(failure.to_string().starts_with(&expected), "{failure:?}");
        assert!(!blobs(home.path()).join(blob).exists());
        assert!(get(&server, home.path(), "owner/tiny", true).is_err());
    };
    check("model.safetensors", WEIGHTS_SHA256, "SHA-256");
    // printf '{}' | git hash-object --stdin
    check("tokenizer.json", "9e26dfeeb6e641a33dae4961196235bdb965b21b", "git hash");
}

#[test]
fn a_busy_hub_is_asked_again() {
    let (home, repo, count) = (home(), tiny(), AtomicUsize::new(0));
    let server = Server::start(move |request| match count.fetch_add(1, Ordering::SeqCst) {
        0 => Reply::status(429).with("Retry-After", "0"),
        1 | 3 => Reply::status(503),
        // A document that is cut is asked for again too.
        2 => Reply { cut_at: Some(20), ..answer(&repo, request) },
        _ => answer(&repo, request),
    });
    check_weights(&get(&server, home.path(), "owner/tiny", false).unwrap());
}

#[test]
fn a_wait_that_is_too_long_is_not_waited_for() {
    let home = home();
    let server = Server::start(|_| Reply::status(429).with("Retry-After", "3600"));
    let failure = get(&server, home.path(), "owner/tiny", false).unwrap_err();
    assert_eq!(failure.hint.as_deref(), Some("try again in 1 h 0 min"));
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn the_token_stays_with_the_hub() {
    let home = home();
    let store = Server::start(|request| {
        assert_eq!(request.path, "/a/b?signed=1");
        Reply::file(request, WEIGHTS)
    });
    let to = format!("{}/a/b?signed=1", store.endpoint);
    let server = hub_with(move |_, _, _| Reply::status(302).with("Location", to.clone()));
    leave(home.path(), &WEIGHTS[..10]);
    check_weights(&get(&server, home.path(), "owner/tiny", false).unwrap());
    let requests = store.requests();
    // Another port is another host.
    assert_eq!(requests[0].header("authorization"), None);
    assert_eq!(requests[0].header("range"), Some("bytes=10-"));
}

#[test]
fn a_redirect_within_the_hub_keeps_the_token() {
    let (home, repo) = (home(), tiny());
    let server = Server::start(move |request| {
        let moved = request.path.replace("/old/name", "/owner/tiny");
        if moved != request.path {
            return Reply::status(307).with("Location", moved);
        }
        answer(&repo, request)
    });
    check_weights(&get(&server, home.path(), "old/name", false).unwrap());
}

#[test]
fn an_unsupported_model_is_refused_before_its_weights() {
    let check = |config: &'static str, message: &str| {
        let mut repo = tiny();
        repo[1].1 = config.into();
        let (home, server) = (home(), hub(repo));
        let failure = get(&server, home.path(), "owner/tiny", false).unwrap_err();
        assert_eq!(failure.to_string(), format!("owner/tiny/config.json: {message}"));
        assert_eq!(asked(&server), ["main?blobs=true", "config.json"]);
    };
    check(r#"{"model_type": "mamba"}"#, "`model_type` is `mamba`, which is not supported");
    let quantized = r#"{"model_type": "llama", "hidden_size": 4, "intermediate_size": 8,
        "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 16,
        "quantization_config": {"quant_method": "gptq"}}"#;
    check(quantized, "weights quantised by `gptq` are not supported");
}

#[test]
fn a_gguf_file_is_named() {
    let repo = vec![("README.md", Vec::new()), ("q/tiny-Q4_1.gguf", b"GGUF tiny".to_vec())];
    let (home, server) = (home(), hub(repo));
    let failure = get(&server, home.path(), "owner/tiny", false).unwrap_err();
    let hint = failure.hint.unwrap();
    assert_eq!(hint, "name one of its files: `owner/tiny:q/tiny-Q4_1.gguf`");
    assert_eq!(asked(&server), ["main?blobs=true"]);

    let file = get(&server, home.path(), "owner/tiny:q/tiny-Q4_1.gguf", false).unwrap();
    assert_eq!(std::fs::read(&file).unwrap(), b"GGUF tiny");
    assert_eq!(asked(&server), ["main?blobs=true", "tiny-Q4_1.gguf"]);
    assert_eq!(get(&server, home.path(), "owner/tiny:q/tiny-Q4_1.gguf", true).unwrap(), file);
}

/// A hub with `owner/base` at `v1` and the adapter `owner/adapter` over it.
fn hub_with_adapter() -> Server {
    let base = tiny();
    let config = json!({"peft_type": "LORA", "base_model_name_or_path": "owner/base",
                        "revision": "v1"});
    let adapter: Repo = vec![
        ("README.md", Vec::new()),
        ("adapter_config.json", config.to_string().into()),
        ("adapter_model.safetensors", WEIGHTS.to_vec()),
        ("tunesmith.json", b"{}".to_vec()),
    ];
    Server::start(move |request| {
        let (repo, rest) = match &request.path {
            path if path.contains("/owner/adapter/") => (&adapter, path.split("adapter/").nth(1)),
            path => (&base, path.split("base/").nth(1)),
        };
        match rest.unwrap_or_default() {
            "revision/main?blobs=true" if std::ptr::eq(repo, &adapter) => {
                Reply::json(&listing(repo))
            }
            "revision/v1?blobs=true" => Reply::json(&listing(repo)),
            rest => {
                let name = rest.strip_prefix("resolve/c0ffee/");
                let file = repo.iter().find(|(own, _)| Some(*own) == name);
                file.map_or(Reply::status(404), |(_, bytes)| Reply::file(request, bytes))
            }
        }
    })
}

#[test]
fn an_adapter_brings_its_base() {
    let (home, server) = (home(), hub_with_adapter());
    let settings = Settings::for_test(home.path(), &server.endpoint, None);
    let models = |offline| crate::Models { settings: &settings, observer: &(), offline };
    let found = models(false).resolve("owner/adapter").unwrap();
    let snapshot =
        |name: &str| home.path().join(format!("hub/models--owner--{name}/snapshots/c0ffee"));
    assert_eq!(found.path, snapshot("base"));
    assert_eq!(found.adapter, Some(snapshot("adapter")));
    assert_eq!(found.name, "owner/base");
    assert!(snapshot("adapter").join("tunesmith.json").is_file());
    assert_eq!(models(true).resolve("owner/adapter").unwrap(), found);
}

#[test]
fn two_processes_bring_a_file_once() {
    let home = home();
    let (first, second) = (std::sync::Barrier::new(2), Mutex::new(()));
    let server = hub_with(move |_, _, reply| {
        // Whoever else would ask for the weights would do so now.
        let _alone = second.try_lock().expect("one asks at a time");
        std::thread::sleep(Duration::from_millis(20));
        reply
    });
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                first.wait();
                check_weights(&get(&server, home.path(), "owner/tiny", false).unwrap());
            });
        }
    });
    let weights = asked(&server).iter().filter(|name| *name == "model.safetensors").count();
    assert_eq!(weights, 1);
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_is_named() {
    let (home, server) = (home(), hub(tiny()));
    std::fs::create_dir_all(blobs(home.path())).unwrap();
    let part = blobs(home.path()).join(format!("{WEIGHTS_SHA256}.incomplete"));
    std::os::unix::fs::symlink("/dev/full", &part).unwrap();
    let failure = get(&server, home.path(), "owner/tiny", false).unwrap_err();
    let Cause::Io { path, source } = &failure.cause else { panic!("{failure:?}") };
    assert_eq!((path, source.kind()), (&part, std::io::ErrorKind::StorageFull));
    assert!(failure.hint.unwrap().contains("make room"));
}

#[test]
fn refusals_are_explained() {
    let check = |status, code: &'static str, expected: &str, hint: &str| {
        let home = home();
        let server = Server::start(move |_| Reply::status(status).with("X-Error-Code", code));
        let failure = get(&server, home.path(), "owner/tiny@v9", false).unwrap_err();
        assert_eq!(failure.to_string(), expected);
        assert!(failure.hint.unwrap().contains(&hint.replace("HUB", &server.endpoint)));
    };
    check(401, "", "owner/tiny: the hub does not accept the token", "HUB/settings/tokens");
    check(403, "GatedRepo", "owner/tiny: its licence must be accepted first", "HUB/owner/tiny ");
    check(404, "RepoNotFound", "owner/tiny: the hub has no such model", "./name");
    check(404, "RevisionNotFound", "owner/tiny: the hub has no revision `v9` of it", "tree/main");
}

#[test]
fn a_gated_model_shows_at_its_first_file() {
    let (home, repo) = (home(), tiny());
    let server = Server::start(move |request| match request.path.contains("/resolve/") {
        true => Reply::status(403).with("X-Error-Code", "GatedRepo"),
        false => answer(&repo, request),
    });
    let failure = get(&server, home.path(), "owner/tiny", false).unwrap_err();
    assert_eq!(failure.code().unwrap(), "hub_gated");
    assert_eq!(asked(&server), ["main?blobs=true", "config.json"]);
}

#[test]
fn a_hub_that_is_not_there_is_named() {
    let home = home();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let mut server = hub(Repo::new());
    server.endpoint = endpoint;
    let failure = get(&server, home.path(), "owner/tiny", false).unwrap_err();
    assert!(failure.to_string().starts_with("owner/tiny: cannot reach the hub: "), "{failure:?}");
    let failure = get(&server, home.path(), "owner/tiny", true).unwrap_err();
    let expected = "`owner/tiny` is not in the cache, and the network is forbidden";
    assert_eq!(failure.to_string(), expected);
    server.endpoint = "hub".to_owned();
    let failure = get(&server, home.path(), "owner/tiny", false).unwrap_err();
    assert_eq!(failure.to_string(), "`hub` is not the address of a hub");
}

/// Whether nothing but the hub's own folders came into being in a home.
#[track_caller]
fn check_nothing_outside(home: &Path) {
    let names = |folder: &Path| -> Vec<String> {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    };
    let inside = |name: &String| [".locks", "models--owner--tiny"].contains(&name.as_str());
    assert!(names(&home.join("hub")).iter().all(inside), "{:?}", names(&home.join("hub")));
    assert_eq!(names(home).iter().filter(|name| *name != "hub").count(), 0, "{:?}", names(home));
    for folder in ["snapshots", "refs", "blobs"] {
        for name in names(&home.join("hub/models--owner--tiny").join(folder)) {
            assert!(!name.contains("evil"), "{folder}/{name}");
        }
    }
}

#[test]
fn a_commit_that_is_a_path_is_refused() {
    for sha in ["../../../evil", "/evil", "..", "", "a/b", "c0ffee\n", "\u{1b}[2J"] {
        let home = home();
        let server = Server::start(move |request| match request.path.contains("/revision/") {
            true => {
                let mut listing = listing(&tiny());
                listing["sha"] = sha.into();
                Reply::json(&listing)
            }
            false => Reply::ok("{}"),
        });
        let failure = get(&server, home.path(), "owner/tiny", false).unwrap_err();
        let shown = sha.escape_debug();
        let expected =
            format!("owner/tiny: cannot understand the hub's answer: `{shown}` is not a commit");
        assert_eq!(failure.to_string(), expected);
        check_nothing_outside(home.path());
        assert_eq!(server.requests().len(), 1, "{sha:?}");
    }
}

#[test]
fn shards_that_leave_the_folder_are_refused() {
    for name in ["../evil.safetensors", "/tmp/evil.safetensors", "a/../../evil", "a\\..\\evil"] {
        let home = home();
        let mut repo = tiny();
        repo.pop();
        let index = json!({"weight_map": {"a": name}}).to_string();
        repo.push(("model.safetensors.index.json", index.into()));
        repo.push((name, WEIGHTS.to_vec()));
        let server = hub(repo);
        let failure = get(&server, home.path(), "owner/tiny", false).unwrap_err();
        let expected = format!(
            "owner/tiny: its `model.safetensors.index.json` names `{}`, which is not beside it",
            name.escape_debug()
        );
        assert_eq!(failure.to_string(), expected);
        check_nothing_outside(home.path());
        assert!(!Path::new("/tmp/evil.safetensors").exists());
        // What lies there now counts as no model, although the file may be there.
        std::fs::write(home.path().join("hub/models--owner--tiny/evil"), "").unwrap();
        assert!(get(&server, home.path(), "owner/tiny", true).is_err());
    }
}

/// The last gate, should a name come by another way.
#[test]
fn a_file_whose_name_leaves_the_folder_is_not_fetched() {
    let (home, server) = (home(), hub(tiny()));
    let settings = Settings::for_test(home.path(), &server.endpoint, None);
    let hub = Hub::new(&settings, &(), false);
    let id = HubId::parse("owner/tiny").unwrap();
    let (client, repo) = (hub.client().unwrap(), hub.repo(&id).unwrap());
    let fetcher = Fetcher { client: &client, observer: &(), repo: &repo, id: &id };
    for name in ["../../../evil", "/tmp/evil", "a/../../../evil", "\u{1b}[2Jevil"] {
        let commit = json!({"sha": COMMIT, "siblings": [{"rfilename": name}]});
        let commit: Commit = serde_json::from_value(commit).unwrap();
        let failure = fetcher.fetch(&commit, &[commit.get(name).unwrap()]).unwrap_err();
        let shown = name.escape_debug();
        let expected =
            format!("owner/tiny: the hub names a file `{shown}`, which no folder can hold");
        assert_eq!(failure.to_string(), expected);
        assert!(commit.names().is_empty());
    }
    assert!(server.requests().is_empty());
    check_nothing_outside(home.path());
}

/// A file of the cache that says which commit a branch is at may have been written by anybody.
#[test]
fn a_branch_at_no_commit_is_asked_for_again() {
    let (home, server) = (home(), hub(tiny()));
    get(&server, home.path(), "owner/tiny", false).unwrap();
    let folder = home.path().join("hub/models--owner--tiny");
    std::fs::write(folder.join("refs/main"), "../snapshots/c0ffee").unwrap();
    assert!(get(&server, home.path(), "owner/tiny", true).is_err());
    get(&server, home.path(), "owner/tiny", false).unwrap();
    assert_eq!(std::fs::read_to_string(folder.join("refs/main")).unwrap(), COMMIT);
}
