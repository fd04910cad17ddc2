//! What it means when the hub says no.

use std::io::Read as _;
use std::time::Duration;

use ureq::Body;
use ureq::http::{HeaderMap, Response};

use super::http::{Client, Trouble};
use super::id::{HubId, RepoKind};
use crate::error::Error;

/// An answer that is not the one asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    /// The hub's own word for it, such as `GatedRepo`.
    pub(crate) code: Option<String>,
    /// The hub's sentence.
    pub(crate) message: Option<String>,
    /// How long to wait before asking again.
    pub(crate) wait: Option<Duration>,
}

/// The most of an answer's body that is read for a sentence.
const BODY_LIMIT: u64 = 1 << 16;

impl Refusal {
    /// Reads what a server says about its refusal.
    pub(crate) fn read(response: Response<Body>) -> Self {
        let status = response.status().as_u16();
        let header = |name: &str| {
            let value = response.headers().get(name)?.to_str().ok()?.trim();
            (!value.is_empty()).then(|| value.to_owned())
        };
        let (code, message) = (header("x-error-code"), header("x-error-message"));
        let wait = wait(response.headers());
        let message = message.or_else(|| sentence(response));
        Refusal { status, code, message, wait }
    }

    fn is(&self, code: &str) -> bool {
        self.code.as_deref() == Some(code)
    }
}

/// The `error` of a JSON body.
fn sentence(response: Response<Body>) -> Option<String> {
    let mut bytes = Vec::new();
    response.into_body().into_reader().take(BODY_LIMIT).read_to_end(&mut bytes).ok()?;
    let json: serde_json::Value = serde_json::from_slice(&bytes).ok()?;
    Some(json["error"].as_str()?.trim().to_owned()).filter(|text| !text.is_empty())
}

/// What `Retry-After` says in seconds, or `RateLimit: "api";r=0;t=55` (the IETF's draft).
fn wait(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name)?.to_str().ok();
    let after = text("retry-after").and_then(|seconds| seconds.trim().parse().ok());
    let reset = || {
        let mut parts = text("ratelimit")?.split(';').map(str::trim);
        let mut number = |key: &str| parts.find_map(|part| part.strip_prefix(key)?.parse().ok());
        let remaining: u64 = number("r=")?;
        number("t=").filter(|_| remaining == 0)
    };
    after.or_else(reset).map(Duration::from_secs)
}

/// What was asked for when the hub said no.
pub(crate) struct Subject<'a> {
    pub(crate) id: &'a HubId,
    pub(crate) client: &'a Client<'a>,
    /// The file of it.
    pub(crate) file: Option<&'a str>,
    /// Whether something was to be changed.
    pub(crate) writes: bool,
}

impl Subject<'_> {
    /// Explains why there is no answer.
    pub(crate) fn explain(&self, trouble: Trouble) -> Error {
        match trouble {
            Trouble::Refused(refusal) => self.refused(&refusal),
            Trouble::File(error) => {
                let name = self.file.unwrap_or(&self.id.name);
                Error::io(std::path::Path::new(name), error)
            }
            Trouble::Garbled(why) => {
                let message =
                    format!("{}: cannot understand the hub's answer: {why}", self.id.name);
                Error::new("hub", message).hint("check `HF_ENDPOINT`")
            }
            Trouble::Network(why) => {
                let message = format!("{}: cannot reach the hub: {why}", self.id.name);
                let cure = "check the network, `HF_ENDPOINT` and proxies";
                let hint = match self.writes {
                    true => cure.to_owned(),
                    false => format!("{cure}, or {}", self.id.kind.instead()),
                };
                Error::new("hub_unreachable", message).hint(hint)
            }
        }
    }

    fn refused(&self, refusal: &Refusal) -> Error {
        let (code, what) = self.words(refusal);
        let message = format!("{}: {what}", self.id.name);
        Error::new(code, message).hint(self.hint(refusal))
    }

    fn words(&self, refusal: &Refusal) -> (&'static str, String) {
        let HubId { revision, kind, .. } = self.id;
        let word = kind.word();
        let has_token = self.client.has_token();
        let said = |what: &str| match &refusal.message {
            Some(own) => format!("{what}: {own}"),
            None => what.to_owned(),
        };
        match refusal.status {
            _ if refusal.is("GatedRepo") => {
                ("hub_gated", "its licence must be accepted first".to_owned())
            }
            _ if refusal.is("RevisionNotFound") => {
                ("hub_not_found", format!("the hub has no revision `{revision}` of it"))
            }
            _ if refusal.is("EntryNotFound") => {
                let file = self.file.unwrap_or("such a file");
                ("hub_not_found", format!("the hub has no `{file}` in its revision `{revision}`"))
            }
            404 => ("hub_not_found", format!("the hub has no such {word}")),
            // The hub does not tell strangers whether a private one exists.
            401 if !has_token => {
                ("hub_not_found", format!("the hub has no such {word}, or it is private"))
            }
            401 => ("hub_unauthorized", "the hub does not accept the token".to_owned()),
            403 if self.writes => {
                ("hub_forbidden", said("the hub does not let this token write to it"))
            }
            403 => ("hub_forbidden", said("the hub does not let this token have it")),
            429 => ("hub_busy", "the hub has had too many requests from here".to_owned()),
            status => ("hub", said(&format!("the hub answers {status}"))),
        }
    }

    fn hint(&self, refusal: &Refusal) -> String {
        let endpoint = &self.client.endpoint;
        let has_token = self.client.has_token();
        let HubId { kind, name, .. } = self.id;
        let page = format!("{endpoint}/{}{name}", kind.page());
        let tokens = format!("{endpoint}/settings/tokens");
        match refusal.status {
            _ if refusal.is("GatedRepo") && has_token => {
                format!("accept it at {page} with the account of your token, then try again")
            }
            _ if refusal.is("GatedRepo") => {
                format!("accept it at {page}, then set `HF_TOKEN` to a token of that account")
            }
            _ if refusal.is("RevisionNotFound") => format!("{page}/tree/main lists its branches"),
            _ if refusal.is("EntryNotFound") => format!("{page}/tree/main lists its files"),
            404 if self.writes => "check the spelling".to_owned(),
            404 if *kind == RepoKind::DataSet => {
                "check the spelling; a file of yours is named with `path`".to_owned()
            }
            404 => "check the spelling; a folder is written `./name`".to_owned(),
            401 if !has_token => "check the spelling, or set `HF_TOKEN`".to_owned(),
            401 | 403 if self.writes => {
                format!("make a token that may write at {tokens} and set `HF_TOKEN`")
            }
            401 | 403 => format!("make a new token at {tokens} and set `HF_TOKEN`"),
            429 => match refusal.wait {
                Some(wait) => {
                    let words = text::figures::duration(wait.as_secs_f64());
                    format!("try again in {words}")
                }
                None if has_token => "try again in some minutes".to_owned(),
                None => "try again in some minutes, or set `HF_TOKEN`".to_owned(),
            },
            400..=499 => "the hub's words say what is wrong".to_owned(),
            _ if self.writes => "try again later".to_owned(),
            _ => format!("try again later, or {}", kind.instead()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_says_what_to_do() {
        let id = HubId::parse("o/n@v2").unwrap();
        let check = |status, code: &str, token: bool, writes, message: &str, hint: &str| {
            let token = token.then(|| "t".to_owned());
            let client = Client::new("https://hub", token, &(), Duration::ZERO).unwrap();
            let subject = Subject { id: &id, client: &client, file: Some("f"), writes };
            let refusal = Refusal { status, code: Some(code.into()), ..Refusal::default() };
            let failure = subject.explain(Trouble::Refused(refusal));
            assert_eq!(failure.to_string(), format!("o/n: {message}"));
            assert!(failure.hint.as_deref().unwrap().contains(hint), "{:?}", failure.hint);
        };
        check(404, "RepoNotFound", true, false, "the hub has no such model", "spelling");
        check(404, "RevisionNotFound", true, false, "the hub has no revision `v2` of it", "tree");
        check(404, "EntryNotFound", true, false, "the hub has no `f` in its revision `v2`", "tree");
        check(401, "", false, false, "the hub has no such model, or it is private", "HF_TOKEN");
        check(401, "", true, false, "the hub does not accept the token", "/settings/tokens");
        let gated = "its licence must be accepted first";
        check(
            403,
            "GatedRepo",
            true,
            false,
            gated,
            "accept it at https://hub/o/n with the account",
        );
        check(401, "GatedRepo", false, false, gated, "https://hub/o/n, then set `HF_TOKEN`");
        check(403, "", true, false, "the hub does not let this token have it", "HF_TOKEN");
        check(403, "", true, true, "the hub does not let this token write to it", "may write");
        check(429, "", false, false, "the hub has had too many requests from here", "minutes, or");
        check(502, "", true, false, "the hub answers 502", "later");
    }

    #[test]
    fn the_time_to_wait_is_read() {
        let check = |name: &'static str, value: &str, expected: Option<u64>| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            assert_eq!(wait(&headers).map(|wait| wait.as_secs()), expected, "{name}: {value}");
        };
        check("retry-after", "7", Some(7));
        check("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT", None);
        check("ratelimit", "\"api\";r=0;t=55", Some(55));
        check("ratelimit", "\"api\";r=9;t=55", None);
    }
}
