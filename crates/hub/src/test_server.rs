//! An HTTP server on this machine that says what a test wants it to.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};

/// What was asked.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) path: String,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(own, _)| own.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn read(stream: &TcpStream) -> Option<Self> {
        let mut reader = BufReader::new(stream);
        let mut line = || {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            Some(line.trim_end().to_owned()).filter(|line| !line.is_empty())
        };
        let first = line()?;
        let (method, rest) = first.split_once(' ')?;
        let path = rest.split(' ').next()?.to_owned();
        let mut headers = Vec::new();
        while let Some((name, value)) = line().as_deref().and_then(|line| line.split_once(": ")) {
            headers.push((name.to_owned(), value.to_owned()));
        }
        let mut request = Request { method: method.to_owned(), path, headers, body: Vec::new() };
        let length = request.header("content-length").map_or(0, |length| length.parse().unwrap());
        request.body.resize(length, 0);
        reader.read_exact(&mut request.body).ok()?;
        Some(request)
    }
}

/// What is answered.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
    /// The connection ends after so many bytes of the body.
    pub(crate) cut_at: Option<usize>,
}

impl Reply {
    pub(crate) fn ok(body: impl Into<Vec<u8>>) -> Self {
        Reply { status: 200, body: body.into(), ..Reply::default() }
    }

    pub(crate) fn json(value: &serde_json::Value) -> Self {
        Reply::ok(value.to_string())
    }

    pub(crate) fn status(status: u16) -> Self {
        Reply { status, ..Reply::default() }
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// A file, or the part of it that the request asks for.
    pub(crate) fn file(request: &Request, bytes: &[u8]) -> Self {
        let from = request.header("range").and_then(|range| range.strip_prefix("bytes="));
        let from = from.and_then(|range| range.trim_end_matches('-').parse::<usize>().ok());
        let Some(from) = from else { return Reply::ok(bytes) };
        let total = bytes.len();
        if from >= total {
            return Reply::status(416).with("Content-Range", format!("bytes */{total}"));
        }
        let range = format!("bytes {from}-{}/{total}", total - 1);
        Reply { status: 206, ..Reply::ok(&bytes[from..]) }.with("Content-Range", range)
    }

    fn write(&self, mut stream: &TcpStream) {
        let mut head = format!("HTTP/1.1 {} -\r\nConnection: close\r\n", self.status);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!("Content-Length: {}\r\n\r\n", self.body.len()));
        let cut = self.cut_at.unwrap_or(usize::MAX).min(self.body.len());
        // Who does not listen any more needs no answer.
        let _ =
            stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&self.body[..cut]));
    }
}

/// A server that keeps what it was asked.
pub(crate) struct Server {
    pub(crate) endpoint: String,
    log: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    pub(crate) fn start(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let log: Arc<Mutex<Vec<Request>>> = Arc::default();
        let (answer, kept) = (Arc::new(answer), Arc::clone(&log));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (answer, kept) = (Arc::clone(&answer), Arc::clone(&kept));
                std::thread::spawn(move || {
                    let Some(request) = Request::read(&stream) else { return };
                    let reply = answer(&request);
                    // Before the answer, so that who has it finds its request here.
                    kept.lock().unwrap().push(request);
                    reply.write(&stream);
                });
            }
        });
        Server { endpoint, log }
    }

    /// What was asked so far, which is forgotten when this is dropped.
    pub(crate) fn requests(&self) -> Vec<Request> {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Request>> {
        self.log.lock().unwrap()
    }
}
