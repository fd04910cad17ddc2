//! An OpenAI-compatible endpoint: `POST /v1/chat/completions`.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use text::{Message, integer};
use ureq::http::Response;
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Body};

use super::{Answer, Asking, Named, OnAnswer, Request, Requests};
use crate::context::Context;
use crate::error::{Failure, Result};
use crate::signals::Signals;

const CONNECT: Duration = Duration::from_secs(10);
/// How long one answer may take.
const THOUGHT: Duration = Duration::from_secs(600);
/// How often a request is made before its failure counts.
const ATTEMPTS: u32 = 6;
/// The first wait before a request is made again; each further one is twice as long.
const PAUSE: Duration = Duration::from_secs(1);
/// A longer wait is not waited for.
const LONGEST_WAIT: Duration = Duration::from_secs(120);
/// How often the main thread looks for signals.
const LOOK: Duration = Duration::from_millis(50);
/// Most of an answer that is read.
const BODY_LIMIT: u64 = 64 << 20;

/// A model behind an address.
pub(crate) struct Endpoint<'a> {
    agent: Agent,
    address: &'a str,
    model: &'a str,
    key: Option<&'a str>,
    asking: &'a Asking,
    /// Whether it has answered yet: if not, it is not waited for.
    was_reached: AtomicBool,
    stop: AtomicBool,
}

/// Why there is no answer.
struct Trouble {
    /// Zero where there was no answer at all.
    status: u16,
    message: String,
    wait: Option<Duration>,
}

impl<'a> Endpoint<'a> {
    pub(crate) fn new(
        address: &'a str,
        model: &'a str,
        asking: &'a Asking,
        context: &'a Context,
    ) -> Self {
        // The system's certificates, so that a company's own are known.
        let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
        let agent = Agent::config_builder()
            .timeout_resolve(Some(CONNECT))
            .timeout_connect(Some(CONNECT))
            .timeout_global(Some(THOUGHT))
            // The key goes where the recipe says and nowhere else.
            .max_redirects(0)
            .http_status_as_error(false)
            .user_agent(concat!("tunesmith/", env!("CARGO_PKG_VERSION")))
            .tls_config(tls)
            .build();
        Endpoint {
            agent: agent.into(),
            address,
            model,
            key: context.environment.endpoint_key(),
            asking,
            was_reached: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        }
    }

    /// Asks on several threads until all is answered, something fails or a signal comes; what
    /// is under way then is waited for, since it is paid for.
    pub(crate) fn answer(
        &self,
        requests: Requests<'_>,
        signals: &Signals,
        on_answer: &mut OnAnswer<'_>,
    ) -> Result<()> {
        let next = AtomicUsize::new(0);
        let (sender, receiver) = mpsc::channel();
        thread::scope(|scope| {
            for _ in 0..usize::from(self.asking.concurrency).min(requests.count) {
                let (sender, next) = (sender.clone(), &next);
                scope.spawn(move || {
                    while !self.is_stopped() {
                        let index = next.fetch_add(1, Ordering::Relaxed);
                        if index >= requests.count {
                            break;
                        }
                        let Some(answer) = self.ask((requests.of)(index)) else { break };
                        if answer.is_err() {
                            self.stop.store(true, Ordering::Relaxed);
                        }
                        // Nobody listening means that the work has ended.
                        let _ = sender.send((index, answer));
                    }
                });
            }
            drop(sender);
            let mut failed = None;
            loop {
                match receiver.recv_timeout(LOOK) {
                    Ok((index, answer)) => {
                        let kept = answer.and_then(|answer| on_answer(index, answer));
                        if let Err(failure) = kept {
                            failed.get_or_insert(failure);
                        }
                    }
                    Err(mpsc::RecvTimeoutError::Timeout) => {}
                    Err(mpsc::RecvTimeoutError::Disconnected) => break,
                }
                if failed.is_some() || signals.asked().is_some() {
                    self.stop.store(true, Ordering::Relaxed);
                }
            }
            failed.map_or(Ok(()), Err)
        })
    }

    /// Fails where nothing answers at the address. No answer is asked for.
    pub(crate) fn reach(&self) -> Result<()> {
        let request = self.agent.get(format!("{}/models", self.address));
        match request.call() {
            // What it says does not matter: not every server lists its models.
            Ok(_) => Ok(()),
            Err(error) => Err(self.failure(&Trouble::network(error.to_string()))),
        }
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// The answer to one request, tried again where that may help; none where the work was stopped
    /// while waiting.
    fn ask(&self, request: Request) -> Option<Result<Answer>> {
        let body = integer::plain(self.body(request).to_string());
        let mut pause = PAUSE;
        for attempt in 1.. {
            let trouble = match self.post(&body) {
                Ok(answer) => return Some(Ok(answer)),
                Err(trouble) => trouble,
            };
            let wait = trouble.wait.unwrap_or(pause);
            if attempt == ATTEMPTS || !self.may_pass(&trouble) || wait > LONGEST_WAIT {
                return Some(Err(self.failure(&trouble)));
            }
            pause *= 2;
            if !self.sleep(wait) {
                return None;
            }
        }
        unreachable!("attempts are counted")
    }

    fn body(&self, request: Request) -> Value {
        let Asking { temperature, top_p, max_new_tokens, .. } = self.asking;
        // Without the digits that come of a single-precision number.
        let short = |number: f32| number.to_string().parse::<f64>().unwrap_or_default();
        let mut body = json!({
            "model": self.model,
            "messages": messages(request.messages),
            "temperature": short(*temperature),
            "max_tokens": max_new_tokens,
            // Servers differ in how large a seed they take; all take 31 bits.
            "seed": request.seed & 0x7FFF_FFFF,
        });
        if *top_p < 1.0 {
            body["top_p"] = short(*top_p).into();
        }
        if let Some(tools) = request.tools {
            body["tools"] = tools;
        }
        body
    }

    fn post(&self, body: &str) -> std::result::Result<Answer, Trouble> {
        let silent = |error: ureq::Error| Trouble::network(error.to_string());
        let mut request = self
            .agent
            .post(format!("{}/chat/completions", self.address))
            .header("content-type", "application/json");
        if let Some(key) = self.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let mut response = request.send(body).map_err(silent)?;
        self.was_reached.store(true, Ordering::Relaxed);
        let status = response.status().as_u16();
        let wait = retry_after(&response);
        let text = response.body_mut().with_config().limit(BODY_LIMIT).read_to_string();
        let json: Value = serde_json::from_str(&text.map_err(silent)?).unwrap_or_default();
        if status != 200 {
            let message = json["error"]["message"].as_str().or(json["error"].as_str());
            let message =
                self.without_key(message.or(json["message"].as_str()).unwrap_or_default());
            return Err(Trouble { status, message, wait });
        }
        read_answer(&json).ok_or_else(|| Trouble {
            status,
            message: "the answer has no `choices`".into(),
            wait: None,
        })
    }

    /// Whether the same request may do better after a while.
    fn may_pass(&self, trouble: &Trouble) -> bool {
        match trouble.status {
            0 => self.was_reached.load(Ordering::Relaxed),
            status => matches!(status, 408 | 429 | 500..=599),
        }
    }

    /// Waits; false where the work was stopped meanwhile.
    fn sleep(&self, mut time: Duration) -> bool {
        while !time.is_zero() && !self.is_stopped() {
            let part = time.min(LOOK);
            thread::sleep(part);
            time -= part;
        }
        !self.is_stopped()
    }

    /// A server may repeat the key that it does not like.
    fn without_key(&self, message: &str) -> String {
        match self.key {
            Some(key) => message.replace(key, "***"),
            None => message.to_owned(),
        }
    }

    fn failure(&self, trouble: &Trouble) -> Failure {
        let Trouble { status, message, wait: _ } = trouble;
        let (address, model) = (self.address, self.model);
        let Named { code, key, concurrency, .. } = self.asking.named;
        let fail = |what: &str| Failure::new(code, format!("{address}: {what}"));
        let said = if message.is_empty() { String::new() } else { format!(": {message}") };
        match (status, self.key.is_some()) {
            (0, _) => fail(&format!("the endpoint cannot be reached{said}"))
                .hint(format!("check the address in `{key}`, and that the server runs")),
            // Without its words: they tend to repeat the key.
            (401 | 403, true) => {
                fail("the endpoint refuses the key").hint("check `OPENAI_API_KEY`")
            }
            (401 | 403, false) => {
                fail("the endpoint wants a key").hint("set the variable `OPENAI_API_KEY`")
            }
            (404, _) => fail(&format!("not found{said}")).hint(format!(
                "`{key}` is the address up to /v1, and `{model}` has to be a model there"
            )),
            (429, _) => fail(&format!("too many requests{said}"))
                .hint(format!("wait, or lower `{concurrency}`")),
            (200, _) => fail(message).hint("the endpoint has to speak as OpenAI's does"),
            (status, _) => fail(&format!("the endpoint answers with {status}{said}")),
        }
    }
}

impl Trouble {
    fn network(message: String) -> Self {
        Trouble { status: 0, message, wait: None }
    }
}

/// Messages as the interface has them: the arguments of a call are JSON text.
fn messages(messages: Vec<Message>) -> Value {
    let mut messages = json!(messages);
    let turns = messages.as_array_mut().into_iter().flatten();
    let calls = turns.filter_map(|turn| turn.get_mut("tool_calls")?.as_array_mut()).flatten();
    for arguments in calls.filter_map(|call| call.get_mut("function")?.get_mut("arguments")) {
        if !arguments.is_string() {
            *arguments = arguments.to_string().into();
        }
    }
    messages
}

fn retry_after(response: &Response<Body>) -> Option<Duration> {
    let seconds = response.headers().get("retry-after")?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

fn read_answer(json: &Value) -> Option<Answer> {
    let choice = json["choices"].get(0)?;
    let text = choice["message"]["content"].as_str().unwrap_or_default().trim().to_owned();
    let finish = choice["finish_reason"].as_str().unwrap_or("stop").to_owned();
    Some(Answer { text, finish })
}
