//! The protocol against a hub of our own on this machine.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::*;

/// A hub with one model, `owner/tiny`, whose answers can be spoilt.
struct FakeHub {
    endpoint: String,
    /// What was asked: path, and the header `range` where there was one.
    requests: Arc<Mutex<Vec<String>>>,
}

#[derive(Clone, Copy, Default)]
struct Spoilt {
    /// Answers everything with this status and the hub's word for it.
    refuse: Option<(u16, &'static str)>,
    /// Ends the first transfer of the weights after so many bytes.
    cut_at: Option<usize>,
    /// The weights are not what their checksum says.
    corrupt: bool,
    /// The config is of a model that is not supported.
    foreign: bool,
}

const COMMIT: &str = "c0ffee";
const WEIGHTS: &[u8] = b"weights, as many bytes as make a test";
// sha256sum of WEIGHTS, by coreutils.
const WEIGHTS_SHA256: &str = "75ed6cc4cad4844ebe9ccc8fc38fbcdbf7f38c290d72978452769055e4d6e1d6";
const CONFIG: &str = r#"{"model_type": "llama", "hidden_size": 4, "intermediate_size": 8,
    "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 16}"#;

impl FakeHub {
    fn start(spoilt: Spoilt) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&requests);
        std::thread::spawn(move || {
            let mut spoilt = spoilt;
            for stream in listener.incoming().flatten() {
                answer(stream, &mut spoilt, &log);
            }
        });
        FakeHub { endpoint, requests }
    }

    fn get(&self, home: &Path, id: &str, offline: bool) -> Result<PathBuf> {
        let home = home.to_str().unwrap();
        let variables =
            [("HF_HOME", home), ("HF_ENDPOINT", self.endpoint.as_str()), ("HF_TOKEN", "secret")];
        let environment = Environment::of(Path::new("/"), &variables);
        let terminal = Terminal::new(&environment, false);
        Hub::new(&environment, &terminal, offline).model(&HubId::parse(id).unwrap())
    }

    fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.requests.lock().unwrap())
    }
}

fn answer(mut stream: TcpStream, spoilt: &mut Spoilt, log: &Mutex<Vec<String>>) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(|line| line.ok());
    let Some(first) = lines.next() else { return };
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let headers: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
    let header = |name: &str| {
        headers.iter().find_map(|line| line.to_lowercase().strip_prefix(name).map(str::to_owned))
    };
    assert_eq!(header("authorization: ").as_deref(), Some("bearer secret"));
    let from: Option<usize> =
        header("range: bytes=").and_then(|r| r.trim_end_matches('-').parse().ok());
    log.lock().unwrap().push(from.map_or(path.clone(), |from| format!("{path} from {from}")));
    let body = match spoilt.refuse {
        Some(_) => None,
        None => content(&path, spoilt),
    };
    let (status, body) = match body {
        Some(body) => (if from.is_some() { 206 } else { 200 }, body),
        None => (spoilt.refuse.map_or(404, |(status, _)| status), Vec::new()),
    };
    let body = &body[from.unwrap_or(0)..];
    let code = spoilt.refuse.map_or(String::new(), |(_, code)| format!("X-Error-Code: {code}\r\n"));
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status} -\r\nContent-Length: {length}\r\n{code}Connection: close\r\n\r\n"
    );
    let cut = spoilt.cut_at.take_if(|_| path.ends_with("model.safetensors")).unwrap_or(length);
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&body[..cut.min(length)]).unwrap();
}

fn content(path: &str, spoilt: &Spoilt) -> Option<Vec<u8>> {
    let file = |name: &str, blob: &str| serde_json::json!({"rfilename": name, "blobId": blob});
    let weights = serde_json::json!({
        "rfilename": "model.safetensors", "size": WEIGHTS.len(), "blobId": "d0",
        "lfs": {"sha256": WEIGHTS_SHA256, "size": WEIGHTS.len()},
    });
    let listing = serde_json::json!({
        "id": "owner/tiny", "sha": COMMIT,
        "siblings": [
            file("README.md", "a0"), file("config.json", "a1"), file("tokenizer.json", "a2"),
            file("additional_chat_templates/rag.jinja", "a3"), file("../escape.jinja", "a4"), weights,
        ],
    });
    match path {
        "/api/models/owner/tiny/revision/main?blobs=true"
        | "/api/models/owner/tiny/revision/refs%2Fpr%2F1?blobs=true" => {
            Some(listing.to_string().into_bytes())
        }
        path => match path.strip_prefix("/owner/tiny/resolve/c0ffee/")? {
            "config.json" if spoilt.foreign => Some(br#"{"model_type": "mamba"}"#.to_vec()),
            "config.json" => Some(CONFIG.into()),
            "tokenizer.json" => Some(b"{}".to_vec()),
            "additional_chat_templates/rag.jinja" => Some(b"rag".to_vec()),
            "model.safetensors" if spoilt.corrupt => Some(WEIGHTS.to_ascii_uppercase()),
            "model.safetensors" => Some(WEIGHTS.to_vec()),
            _ => None,
        },
    }
}

#[test]
fn a_model_comes_once_and_then_from_the_cache() {
    let home = tempfile::tempdir().unwrap();
    let hub = FakeHub::start(Spoilt::default());
    let folder = hub.get(home.path(), "owner/tiny", false).unwrap();
    let expected = home.path().join("hub/models--owner--tiny/snapshots/c0ffee");
    assert_eq!(folder, expected);
    assert_eq!(std::fs::read(folder.join("model.safetensors")).unwrap(), WEIGHTS);
    assert_eq!(std::fs::read(folder.join("additional_chat_templates/rag.jinja")).unwrap(), b"rag");
    let blob = home.path().join("hub/models--owner--tiny/blobs").join(WEIGHTS_SHA256);
    assert_eq!(std::fs::read(blob).unwrap(), WEIGHTS);
    let asked = hub.requests();
    let names: Vec<&str> = asked.iter().filter_map(|path| path.rsplit('/').next()).collect();
    assert_eq!(
        names,
        ["main?blobs=true", "config.json", "tokenizer.json", "rag.jinja", "model.safetensors"]
    );

    assert_eq!(hub.get(home.path(), "owner/tiny", false).unwrap(), expected);
    assert_eq!(hub.get(home.path(), "owner/tiny", true).unwrap(), expected);
    assert_eq!(hub.get(home.path(), "owner/tiny@c0ffee", true).unwrap(), expected);
    assert!(hub.requests().is_empty());
}

#[test]
fn another_revision_shares_what_is_equal() {
    let home = tempfile::tempdir().unwrap();
    let hub = FakeHub::start(Spoilt::default());
    hub.get(home.path(), "owner/tiny", false).unwrap();
    hub.requests();
    hub.get(home.path(), "owner/tiny@refs/pr/1", false).unwrap();
    assert_eq!(hub.requests(), ["/api/models/owner/tiny/revision/refs%2Fpr%2F1?blobs=true"]);
}

#[test]
fn a_broken_transfer_goes_on_where_it_stopped() {
    let home = tempfile::tempdir().unwrap();
    let hub = FakeHub::start(Spoilt { cut_at: Some(10), ..Spoilt::default() });
    let folder = hub.get(home.path(), "owner/tiny", false).unwrap();
    assert_eq!(std::fs::read(folder.join("model.safetensors")).unwrap(), WEIGHTS);
    let last = hub.requests().pop().unwrap();
    assert_eq!(last, "/owner/tiny/resolve/c0ffee/model.safetensors from 10");
}

#[test]
fn bytes_with_another_checksum_are_not_kept() {
    let home = tempfile::tempdir().unwrap();
    let hub = FakeHub::start(Spoilt { corrupt: true, ..Spoilt::default() });
    let failure = hub.get(home.path(), "owner/tiny", false).unwrap_err();
    assert!(
        failure.message.contains("`model.safetensors` broke off: its SHA-256 is"),
        "{failure:?}"
    );
    assert!(!home.path().join("hub/models--owner--tiny/blobs").join(WEIGHTS_SHA256).exists());
    assert!(hub.get(home.path(), "owner/tiny", true).is_err());
}

#[test]
fn an_unsupported_model_is_refused_before_its_weights() {
    let home = tempfile::tempdir().unwrap();
    let hub = FakeHub::start(Spoilt { foreign: true, ..Spoilt::default() });
    let failure = hub.get(home.path(), "owner/tiny", false).unwrap_err();
    assert!(failure.message.contains("`model_type` is `mamba`"), "{}", failure.message);
    assert!(hub.requests().iter().all(|path| !path.contains("safetensors")));
}

#[test]
fn refusals_are_explained() {
    let check = |status, code, expected: &str| {
        let home = tempfile::tempdir().unwrap();
        let hub = FakeHub::start(Spoilt { refuse: Some((status, code)), ..Spoilt::default() });
        let failure = hub.get(home.path(), "owner/tiny", false).unwrap_err();
        assert_eq!(failure.message, expected);
    };
    check(401, "", "owner/tiny: the hub does not accept the token");
    check(403, "GatedRepo", "owner/tiny: its owner must grant access to it");
    check(404, "RepoNotFound", "owner/tiny: the hub has no such model");
}

#[test]
fn a_hub_that_is_not_there_is_named() {
    let home = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let hub = FakeHub { endpoint, requests: Arc::default() };
    let failure = hub.get(home.path(), "owner/tiny", false).unwrap_err();
    assert!(failure.message.starts_with("owner/tiny: the hub cannot be reached: "), "{failure:?}");
    let failure = hub.get(home.path(), "owner/tiny", true).unwrap_err();
    let expected = "`owner/tiny` is not in the cache, and the network is forbidden";
    assert_eq!(failure.message, expected);
}

#[test]
fn ids_are_told_from_other_texts() {
    let parse = |text: &str| HubId::parse(text).map(|id| (id.name, id.revision));
    let id = |name: &str, revision: &str| Some((name.to_owned(), revision.to_owned()));
    assert_eq!(parse("o/n"), id("o/n", "main"));
    assert_eq!(parse("o/n-1.5_x@v2"), id("o/n-1.5_x", "v2"));
    assert_eq!(parse("o/n@refs/pr/1"), id("o/n", "refs/pr/1"));
    for text in ["n", "o/n/m", "o/..", "../n", "o/n@", "o/n@../x", "o/n m", "/n", "o/"] {
        assert_eq!(parse(text), None, "{text}");
    }
}
