//! Requests that are made again where that may help.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use ureq::http::Response;
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Body};

const CONNECT: Duration = Duration::from_secs(10);
/// The first wait before a request is made again; each further one is twice as long.
const PAUSE: Duration = Duration::from_secs(1);
/// A longer wait is not waited for.
const LONGEST_WAIT: Duration = Duration::from_secs(120);
/// How often a wait looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(50);
/// Most of an answer that is read.
const BODY_LIMIT: u64 = 64 << 20;

/// Why there is no answer.
#[derive(Debug)]
pub(crate) struct Trouble {
    /// Zero where there was no answer at all.
    pub(crate) status: u16,
    pub(crate) message: String,
    pub(crate) wait: Option<Duration>,
}

impl Trouble {
    pub(crate) fn network(message: impl ToString) -> Self {
        Trouble { status: 0, message: message.to_string(), wait: None }
    }
}

/// How often one server is asked for the same, and whether it was there at all.
#[derive(Debug)]
pub(crate) struct Patience {
    attempts: u32,
    /// Whether it has answered yet: if not, it is not waited for.
    was_reached: AtomicBool,
}

impl Patience {
    pub(crate) fn new(attempts: u32) -> Self {
        Patience { attempts, was_reached: AtomicBool::new(false) }
    }

    /// The server has answered, whatever it said.
    pub(crate) fn reached(&self) {
        self.was_reached.store(true, Ordering::Relaxed);
    }

    /// Makes a request, again where that may help; none where the work was stopped while waiting.
    pub(crate) fn ask<T>(
        &self,
        is_stopped: &dyn Fn() -> bool,
        mut request: impl FnMut() -> Result<T, Trouble>,
    ) -> Option<Result<T, Trouble>> {
        let mut pause = PAUSE;
        for attempt in 1.. {
            let trouble = match request() {
                Ok(answer) => return Some(Ok(answer)),
                Err(trouble) => trouble,
            };
            let wait = trouble.wait.unwrap_or(pause);
            if attempt >= self.attempts || !self.may_pass(&trouble) || wait > LONGEST_WAIT {
                return Some(Err(trouble));
            }
            pause *= 2;
            if !sleep(wait, is_stopped) {
                return None;
            }
        }
        unreachable!("attempts are counted")
    }

    /// Whether the same request may do better after a while.
    fn may_pass(&self, trouble: &Trouble) -> bool {
        match trouble.status {
            0 => self.was_reached.load(Ordering::Relaxed),
            status => matches!(status, 408 | 429 | 500..=599),
        }
    }
}

/// What makes requests, each of which may take so long.
pub(crate) fn agent(timeout: Duration) -> Agent {
    // The system's certificates, so that a company's own are known.
    let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
    let agent = Agent::config_builder()
        .timeout_resolve(Some(CONNECT))
        .timeout_connect(Some(CONNECT))
        .timeout_global(Some(timeout))
        // The key goes where the recipe says and nowhere else.
        .max_redirects(0)
        .http_status_as_error(false)
        .user_agent(concat!("tunesmith/", env!("CARGO_PKG_VERSION")))
        .tls_config(tls)
        .build();
    agent.into()
}

/// The text of an answer.
pub(crate) fn body(response: &mut Response<Body>) -> Result<String, Trouble> {
    let body = response.body_mut().with_config().limit(BODY_LIMIT);
    body.read_to_string().map_err(Trouble::network)
}

/// How long the server asks to wait.
pub(crate) fn retry_after(response: &Response<Body>) -> Option<Duration> {
    let seconds = response.headers().get("retry-after")?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// Waits; false where the work was stopped meanwhile.
fn sleep(mut time: Duration, is_stopped: &dyn Fn() -> bool) -> bool {
    while !time.is_zero() && !is_stopped() {
        let part = time.min(LOOK);
        thread::sleep(part);
        time -= part;
    }
    !is_stopped()
}
