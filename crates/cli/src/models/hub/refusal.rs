//! What it means when the hub says no.

use crate::error::Failure;
use crate::models::hub::HubId;

/// Explains an answer that is not the one asked for. `code` is the hub's own word for it.
pub(super) fn explain(id: &HubId, status: u16, code: Option<&str>, has_token: bool) -> Failure {
    let name = &id.name;
    let gated = code == Some("GatedRepo");
    let (word, message) = match status {
        _ if gated => ("hub_gated", format!("{name}: its owner must grant access to it")),
        404 if code == Some("RevisionNotFound") => {
            ("hub_not_found", format!("{name}: the hub has no revision `{}` of it", id.revision))
        }
        404 => ("hub_not_found", format!("{name}: the hub has no such model")),
        // The hub does not tell strangers whether a private model exists.
        401 if !has_token => {
            ("hub_not_found", format!("{name}: the hub has no such model, or it is private"))
        }
        401 => ("hub_unauthorized", format!("{name}: the hub does not accept the token")),
        403 => ("hub_forbidden", format!("{name}: the hub does not let this token have it")),
        429 => ("hub_busy", format!("{name}: the hub has had too many requests from here")),
        _ => ("hub", format!("{name}: the hub answers {status}")),
    };
    let hint = match status {
        _ if gated && has_token => "ask for access on the model's page",
        _ if gated => "ask for access on the model's page, then set `HF_TOKEN`",
        404 => "check the spelling; a folder is written `./name`",
        401 if !has_token => "check the spelling, or set `HF_TOKEN`",
        401 | 403 => "make a new token in your settings on the hub and set `HF_TOKEN`",
        429 => "wait some minutes, or set `HF_TOKEN`",
        _ => "try again later, or name a folder or a `.gguf` file",
    };
    Failure::new(word, message).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_says_what_to_do() {
        let id = HubId { name: "o/n".into(), revision: "v2".into() };
        let check = |status, code, token, message: &str, hint: &str| {
            let failure = explain(&id, status, code, token);
            assert_eq!(failure.message, message);
            assert!(failure.hint.as_deref().unwrap().contains(hint), "{:?}", failure.hint);
        };
        check(404, Some("RepoNotFound"), true, "o/n: the hub has no such model", "spelling");
        check(404, Some("RevisionNotFound"), true, "o/n: the hub has no revision `v2` of it", "");
        check(401, None, false, "o/n: the hub has no such model, or it is private", "HF_TOKEN");
        check(401, None, true, "o/n: the hub does not accept the token", "new token");
        check(403, Some("GatedRepo"), true, "o/n: its owner must grant access to it", "ask for");
        check(401, Some("GatedRepo"), false, "o/n: its owner must grant access to it", "HF_TOKEN");
        check(403, None, true, "o/n: the hub does not let this token have it", "HF_TOKEN");
        check(502, None, true, "o/n: the hub answers 502", "later");
    }
}
