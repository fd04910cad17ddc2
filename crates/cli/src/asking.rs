//! Asking for many answers: a model on this machine, or one behind an OpenAI-compatible endpoint.

mod endpoint;
mod local;
pub(crate) mod patience;
pub(crate) mod prompts;

use data::Place;
use hub::Resolved;
use indicatif::ProgressBar;
use keys::{Document, Settings as _};
use serde_json::{Value, json};
use text::Message;

use crate::context::Context;
use crate::error::{Failure, Result};

pub(crate) use endpoint::Endpoint;
pub(crate) use local::Local;

/// Who answers.
pub(crate) enum Answerer {
    /// A model on this machine.
    Local(Resolved),
    /// An OpenAI-compatible endpoint: its address without a slash at the end, and a model there.
    Endpoint { address: String, model: String },
}

impl Answerer {
    /// What its answers depend on beside prompts and sampling: the model, and what the recipe says of its template,
    /// where it is the recipe's own model.
    pub(crate) fn identity(&self, recipe: Option<&Document>) -> Value {
        match self {
            Answerer::Local(model) => {
                let template = recipe.and_then(|recipe| recipe.opt_str("model.chat_template"));
                // A file may change under its name.
                let text = template.and_then(|name| std::fs::read_to_string(name).ok());
                let variables = recipe.map(train::recipe::template_kwargs);
                json!([model.path, model.adapter, template, text, variables])
            }
            Answerer::Endpoint { address, model } => json!([address, model]),
        }
    }
}

/// What is asked at once.
pub(crate) struct Request {
    /// The turns before the answer.
    pub(crate) messages: Vec<Message>,
    /// Tools that are offered.
    pub(crate) tools: Option<Value>,
    /// The row that it comes from.
    pub(crate) place: Place,
    /// The draws of the answer depend on it.
    pub(crate) seed: u64,
}

/// Requests that are made one by one when their turn comes, by their index.
#[derive(Clone, Copy)]
pub(crate) struct Requests<'a> {
    pub(crate) count: usize,
    pub(crate) of: &'a (dyn Fn(usize) -> Request + Sync),
}

/// What came back.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Answer {
    pub(crate) text: String,
    /// `stop` where it said all it wanted.
    pub(crate) finish: String,
}

impl Answer {
    /// Why it is no target, if it is none.
    pub(crate) fn flaw(&self) -> Option<&str> {
        match self.finish.as_str() {
            "stop" if self.text.is_empty() => Some("empty"),
            "stop" => None,
            other => Some(other),
        }
    }
}

/// Takes the answer to a request, by its index.
pub(crate) type OnAnswer<'a> = dyn FnMut(usize, Answer) -> Result<()> + 'a;

/// How answers are asked for.
#[derive(Clone, Debug)]
pub(crate) struct Asking {
    pub(crate) max_new_tokens: u32,
    pub(crate) temperature: f32,
    pub(crate) top_p: f32,
    /// Requests at once, or prompts that are answered at once.
    pub(crate) concurrency: u16,
    pub(crate) seed: u64,
    pub(crate) named: Named,
}

/// What errors call the one that answers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Named {
    /// The stable name of its failures.
    pub(crate) code: &'static str,
    /// With an article.
    pub(crate) who: &'static str,
    /// The key of its address.
    pub(crate) key: &'static str,
    /// The key of [`Asking::concurrency`].
    pub(crate) concurrency: &'static str,
}

/// Whether a name is the address of a server.
pub(crate) fn is_address(name: &str) -> bool {
    name.starts_with("http://") || name.starts_with("https://")
}

/// The address that a key names, as requests take it. `instead` says what needs no network.
pub(crate) fn address(
    document: &Document,
    key: &str,
    name: &str,
    context: &Context,
    instead: &str,
) -> Result<String> {
    let address = name.trim_end_matches('/');
    if !address.ends_with("/v1") {
        let message = format!("`{key}` is `{address}`, which does not end in /v1");
        let hint = "name the address before `/chat/completions`, such as http://localhost:8000/v1";
        return Err(problem(document, key, &message, hint));
    }
    if context.global.offline {
        let message = format!("{address}: the network is forbidden");
        return Err(
            Failure::wrong("offline", message).hint(format!("leave out `--offline`, or {instead}"))
        );
    }
    Ok(address.to_owned())
}

/// A mistake in the recipe, at the place of a key.
pub(crate) fn problem(document: &Document, key: &str, message: &str, hint: &str) -> Failure {
    keys::Error::from(document.problem(key, message, Some(hint.to_owned()))).into()
}

/// A bar that counts answers, where a person sees it.
pub(crate) fn bar(context: &Context, count: usize) -> ProgressBar {
    match context.terminal.is_live {
        true => ProgressBar::new(count as u64),
        false => ProgressBar::hidden(),
    }
}

/// Bytes as text.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
