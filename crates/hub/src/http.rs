//! HTTP as the hub needs it: the token stays at home, what passes is tried again.

use std::fs::File;
use std::io::{Read, Seek as _, SeekFrom};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::de::DeserializeOwned;
use ureq::http::{Method, Request, Response, Uri};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Body, SendBody};

use super::refusal::Refusal;
use crate::event::Observer;

const CONNECT: Duration = Duration::from_secs(5);
/// A transfer that says nothing for so long is dead.
const SILENCE: Duration = Duration::from_secs(30);
/// How long the hub may think about a commit or the parts of a large file.
const THOUGHT: Duration = Duration::from_secs(600);
/// The span over which the hub counts requests, so the longest wait that can help.
const LONGEST_WAIT: Duration = Duration::from_secs(300);
/// How often a request is made before its failure counts.
const ATTEMPTS: u32 = 5;
const REDIRECTS: usize = 10;

/// An HTTP client for one hub.
pub(crate) struct Client<'a> {
    agent: Agent,
    token: Option<String>,
    home: Origin,
    /// The hub's address.
    pub(crate) endpoint: String,
    observer: &'a dyn Observer,
    /// The first wait before a request is made again; each further one is twice as long.
    pause: Duration,
    /// Whether the hub has answered yet: if not, it is not waited for.
    was_reached: AtomicBool,
}

/// What is asked of a server.
pub(crate) struct Ask<'a> {
    pub(crate) method: Method,
    pub(crate) url: &'a str,
    pub(crate) headers: Vec<(&'a str, String)>,
    pub(crate) body: Sent<'a>,
}

/// The body of a request.
pub(crate) enum Sent<'a> {
    Nothing,
    Bytes(&'a [u8]),
    /// A part of a file.
    Part(FilePart<'a>),
}

/// A part of a file on its way to a server.
pub(crate) struct FilePart<'a> {
    pub(crate) path: &'a Path,
    pub(crate) from: u64,
    pub(crate) length: u64,
    /// Hears how many bytes went, and with a minus how many of them go again.
    pub(crate) sent: &'a (dyn Fn(i64) + Sync),
}

/// Why there is no answer that can be used.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The network or the other side broke down.
    Network(String),
    /// The server said no.
    Refused(Refusal),
    /// What the server said is not what it should have been.
    Garbled(String),
    /// What is to be sent cannot be read.
    File(std::io::Error),
}

/// Where the token may go: scheme, host and port.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Origin(String, String, u16);

impl Origin {
    fn of(uri: &Uri) -> Option<Self> {
        let scheme = uri.scheme_str()?.to_ascii_lowercase();
        let port = uri.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
        Some(Origin(scheme, uri.host()?.to_ascii_lowercase(), port))
    }
}

impl<'a> Client<'a> {
    /// A client for the hub at `endpoint`; none if that is no address.
    pub(crate) fn new(
        endpoint: &str,
        token: Option<String>,
        observer: &'a dyn Observer,
        pause: Duration,
    ) -> Option<Self> {
        // The system's certificates, so that a company's own are known.
        let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
        let config = Agent::config_builder()
            .timeout_resolve(Some(CONNECT))
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(SILENCE))
            .timeout_per_read(Some(SILENCE))
            // Followed here, where it is known which hosts may see the token.
            .max_redirects(0)
            .http_status_as_error(false)
            .user_agent(concat!("tunesmith/", env!("CARGO_PKG_VERSION")))
            .tls_config(tls)
            .build();
        let home = endpoint.parse::<Uri>().ok().as_ref().and_then(Origin::of)?;
        Some(Client {
            agent: config.into(),
            token,
            home,
            endpoint: endpoint.to_owned(),
            observer,
            pause,
            was_reached: AtomicBool::new(false),
        })
    }

    pub(crate) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// Asks for an address.
    pub(crate) fn get(&self, url: &str, headers: Vec<(&str, String)>) -> Answer {
        self.ask(&Ask { method: Method::GET, url, headers, body: Sent::Nothing })
    }

    /// Asks for a JSON document.
    pub(crate) fn get_json<T: DeserializeOwned>(&self, url: &str) -> Result<T, Trouble> {
        for attempt in 0.. {
            match json(self.get(url, Vec::new())?) {
                // The line was cut in the middle of the answer.
                Err(Trouble::Network(_)) if attempt < ATTEMPTS => self.back_off(attempt),
                answer => return answer,
            }
        }
        unreachable!("attempts are counted")
    }

    /// Sends a JSON document.
    pub(crate) fn post(&self, url: &str, json: &serde_json::Value) -> Answer {
        let bytes = json.to_string();
        let headers = vec![("content-type", "application/json".to_owned())];
        self.ask(&Ask { method: Method::POST, url, headers, body: Sent::Bytes(bytes.as_bytes()) })
    }

    /// Asks, again after a while where that may help, and follows redirects.
    pub(crate) fn ask(&self, ask: &Ask<'_>) -> Answer {
        let mut pause = self.pause;
        for attempt in 1.. {
            let trouble = match self.follow(ask) {
                Ok(response) => return Ok(response),
                Err(trouble) if attempt == ATTEMPTS || !self.may_pass(&trouble) => {
                    return Err(trouble);
                }
                Err(trouble) => trouble,
            };
            let wait = match &trouble {
                Trouble::Refused(Refusal { wait: Some(wait), .. }) => *wait,
                _ => {
                    pause *= 2;
                    pause / 2
                }
            };
            self.wait(wait);
        }
        unreachable!("attempts are counted")
    }

    /// Waits before the `attempt`-th repetition, counted from 0, of something that broke off.
    pub(crate) fn back_off(&self, attempt: u32) {
        self.wait(self.pause * 2_u32.pow(attempt.min(4)));
    }

    fn wait(&self, time: Duration) {
        if time >= Duration::from_secs(5) {
            let words = text::figures::duration(time.as_secs_f64());
            self.observer.note(&format!("the hub is busy: going on in {words}"));
        }
        std::thread::sleep(time);
    }

    fn may_pass(&self, trouble: &Trouble) -> bool {
        match trouble {
            Trouble::Network(_) => self.was_reached.load(Ordering::Relaxed),
            Trouble::Refused(refusal) => {
                let is_busy = matches!(refusal.status, 408 | 429 | 500 | 502 | 503 | 504);
                is_busy && refusal.wait.is_none_or(|wait| wait <= LONGEST_WAIT)
            }
            Trouble::Garbled(_) | Trouble::File(_) => false,
        }
    }

    /// Asks once, over all redirects.
    fn follow(&self, ask: &Ask<'_>) -> Answer {
        let network = |error: &dyn std::fmt::Display| Trouble::Network(error.to_string());
        let mut uri: Uri = ask.url.parse().map_err(|error| network(&error))?;
        for _ in 0..=REDIRECTS {
            let response = self.once(ask, &uri)?;
            let status = response.status().as_u16();
            match status {
                200..=299 => return Ok(response),
                301 | 302 | 303 | 307 | 308 if ask.method == Method::GET => {}
                _ => return Err(Trouble::Refused(Refusal::read(response))),
            }
            let location = response.headers().get("location").and_then(|to| to.to_str().ok());
            let next = location.and_then(|to| join(&uri, to));
            uri = next.ok_or_else(|| network(&"a redirect leads nowhere"))?;
        }
        Err(network(&"redirects do not end"))
    }

    fn once(&self, ask: &Ask<'_>, uri: &Uri) -> Answer {
        let mut request = Request::builder().method(ask.method.clone()).uri(uri.clone());
        let is_home = Origin::of(uri).as_ref() == Some(&self.home);
        let brings_own =
            ask.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("authorization"));
        if let Some(token) = self.token.as_ref().filter(|_| is_home && !brings_own) {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        for (name, value) in &ask.headers {
            request = request.header(*name, value);
        }
        let mut bytes: &[u8];
        let mut part = None;
        let (reader, length): (&mut dyn Read, u64) = match &ask.body {
            Sent::Nothing => return self.sent(request.body(SendBody::none())),
            Sent::Bytes(all) => {
                bytes = all;
                (&mut bytes, all.len() as u64)
            }
            Sent::Part(what) => {
                let reader = part.insert(PartReader::open(what).map_err(Trouble::File)?);
                (reader, what.length)
            }
        };
        // Without a length the body would go in chunks, which object stores do not take.
        let request = request.header("content-length", length.to_string());
        let answer = self.sent(request.body(SendBody::from_reader(reader)));
        if let Some(part) = part.filter(|_| answer.is_err()) {
            part.take_back();
        }
        answer
    }

    fn sent(&self, request: ureq::http::Result<Request<SendBody<'_>>>) -> Answer {
        let request = request.map_err(|error| Trouble::Network(error.to_string()))?;
        let is_get = request.method() == Method::GET;
        let request = self.agent.configure_request(request);
        let patience = if is_get { SILENCE } else { THOUGHT };
        let request = request.timeout_recv_response(Some(patience)).build();
        let answer = self.agent.run(request).map_err(|error| Trouble::Network(error.to_string()));
        if answer.is_ok() {
            self.was_reached.store(true, Ordering::Relaxed);
        }
        answer
    }
}

/// An answer that can be used, or why there is none.
pub(crate) type Answer = Result<Response<Body>, Trouble>;

/// Reads an answer as JSON.
pub(crate) fn json<T: DeserializeOwned>(response: Response<Body>) -> Result<T, Trouble> {
    serde_json::from_reader(response.into_body().into_reader()).map_err(|error| {
        match error.is_io() || error.is_eof() {
            true => Trouble::Network(error.to_string()),
            false => Trouble::Garbled(error.to_string()),
        }
    })
}

/// Where a redirect from `from` leads; never from a safe connection to an open one.
fn join(from: &Uri, to: &str) -> Option<Uri> {
    let (scheme, authority) = (from.scheme_str()?, from.authority()?);
    let next = match to {
        to if to.starts_with("//") => format!("{scheme}:{to}"),
        to if to.starts_with('/') => format!("{scheme}://{authority}{to}"),
        to if to.contains("://") => to.to_owned(),
        to => {
            let folder = from.path().rsplit_once('/').map_or("", |(folder, _)| folder);
            format!("{scheme}://{authority}{folder}/{to}")
        }
    };
    let next: Uri = next.parse().ok()?;
    let is_open = next.scheme_str() == Some("http");
    let is_http = is_open || next.scheme_str() == Some("https");
    (is_http && !(is_open && scheme == "https")).then_some(next)
}

/// Reads a part of a file and tells how far it is.
struct PartReader<'a> {
    file: std::io::Take<File>,
    part: &'a FilePart<'a>,
}

impl<'a> PartReader<'a> {
    fn open(part: &'a FilePart<'a>) -> std::io::Result<Self> {
        let mut file = File::open(part.path)?;
        file.seek(SeekFrom::Start(part.from))?;
        Ok(PartReader { file: file.take(part.length), part })
    }

    /// Says that what went did not arrive.
    fn take_back(&self) {
        (self.part.sent)(self.file.limit() as i64 - self.part.length as i64);
    }
}

impl Read for PartReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.file.read(buffer)?;
        (self.part.sent)(count as i64);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_are_joined() {
        let check = |from: &str, to: &str, expected: Option<&str>| {
            let next = join(&from.parse().unwrap(), to);
            assert_eq!(next.map(|uri| uri.to_string()).as_deref(), expected, "{from} to {to}");
        };
        check("https://h/a/b", "/c?x=1", Some("https://h/c?x=1"));
        check("https://h:8/a/b", "c", Some("https://h:8/a/c"));
        check("https://h/a", "//i/c", Some("https://i/c"));
        check("https://h/a", "https://i/c", Some("https://i/c"));
        check("http://h/a", "http://i/c", Some("http://i/c"));
        check("https://h/a", "http://h/c", None);
        check("https://h/a", "file:///etc/passwd", None);
    }

    #[test]
    fn an_origin_has_a_port() {
        let origin = |text: &str| Origin::of(&text.parse().unwrap()).unwrap();
        assert_eq!(origin("https://H/a"), origin("https://h:443/b"));
        assert_ne!(origin("http://h:1/a"), origin("http://h:2/a"));
        assert_ne!(origin("http://h/a"), origin("https://h/a"));
        assert_ne!(origin("https://a.h/a"), origin("https://h/a"));
    }
}
