//! An OpenAI-compatible endpoint: `POST /v1/chat/completions`.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use text::{Message, integer};
use ureq::Agent;

use super::patience::{Patience, Trouble, agent, body, retry_after};
use super::{Answer, Asking, Named, OnAnswer, Request, Requests};
use crate::context::Context;
use crate::error::{Failure, Result};
use crate::signals::Signals;

/// How long one answer may take.
const THOUGHT: Duration = Duration::from_secs(600);
/// How often a request is made before its failure counts.
const ATTEMPTS: u32 = 6;
/// How often the main thread looks for signals.
const LOOK: Duration = Duration::from_millis(50);

/// A model behind an address.
pub(crate) struct Endpoint {
    agent: Agent,
    address: String,
    model: String,
    key: Option<String>,
    asking: Asking,
    patience: Patience,
    stop: AtomicBool,
}

impl Endpoint {
    pub(crate) fn new(address: &str, model: &str, asking: &Asking, context: &Context) -> Self {
        Endpoint {
            agent: agent(THOUGHT),
            address: address.to_owned(),
            model: model.to_owned(),
            key: context.environment.endpoint_key().map(str::to_owned),
            asking: asking.clone(),
            patience: Patience::new(ATTEMPTS),
            stop: AtomicBool::new(false),
        }
    }

    /// The same, where an answer may take so long and is asked for so often.
    pub(crate) fn with_patience(self, timeout: Duration, attempts: u32) -> Self {
        Endpoint { agent: agent(timeout), patience: Patience::new(attempts), ..self }
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
                        let stopped = || self.is_stopped();
                        let Some(answer) = self.ask((requests.of)(index), &stopped) else {
                            break;
                        };
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
            Err(error) => Err(self.failure(&Trouble::network(error))),
        }
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// The answer to one request, tried again where that may help; none where the work was stopped
    /// while waiting.
    pub(crate) fn ask(
        &self,
        request: Request,
        is_stopped: &dyn Fn() -> bool,
    ) -> Option<Result<Answer>> {
        let body = integer::plain(self.body(request).to_string());
        let answer = self.patience.ask(is_stopped, || self.post(&body))?;
        Some(answer.map_err(|trouble| self.failure(&trouble)))
    }

    fn body(&self, request: Request) -> Value {
        let Asking { temperature, top_p, max_new_tokens, .. } = &self.asking;
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

    fn post(&self, content: &str) -> std::result::Result<Answer, Trouble> {
        let mut request = self
            .agent
            .post(format!("{}/chat/completions", self.address))
            .header("content-type", "application/json");
        if let Some(key) = &self.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let mut response = request.send(content).map_err(Trouble::network)?;
        self.patience.reached();
        let status = response.status().as_u16();
        let wait = retry_after(&response);
        let json: Value = serde_json::from_str(&body(&mut response)?).unwrap_or_default();
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

    /// A server may repeat the key that it does not like.
    fn without_key(&self, message: &str) -> String {
        match &self.key {
            Some(key) => message.replace(key, "***"),
            None => message.to_owned(),
        }
    }

    fn failure(&self, trouble: &Trouble) -> Failure {
        let Trouble { status, message, wait: _ } = trouble;
        let (address, model) = (&self.address, &self.model);
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

fn read_answer(json: &Value) -> Option<Answer> {
    let choice = json["choices"].get(0)?;
    let text = choice["message"]["content"].as_str().unwrap_or_default().trim().to_owned();
    let finish = choice["finish_reason"].as_str().unwrap_or("stop").to_owned();
    Some(Answer { text, finish })
}
