//! Who speaks, by the names in use.

use serde_json::{Map, Value};

/// Names that a file uses in its turns, as LLaMA-Factory's `tags` say them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tags {
    /// The key that says who speaks (`role_tag`).
    pub role: Option<String>,
    /// The key of what is said (`content_tag`).
    pub content: Option<String>,
    /// Names of speakers, each with its role or `function_call`.
    pub speakers: Vec<(String, &'static str)>,
}

/// What a turn is, by its speaker.
pub(super) enum Speaker {
    /// A turn of this role.
    Role(String),
    /// An assistant turn whose content is the JSON of its calls.
    Calls,
}

const FUNCTION_CALL: &str = "function_call";

/// Names that messages with `role` also use. What else stands there is checked later.
const ROLES: [(&str, &str); 6] = [
    (FUNCTION_CALL, FUNCTION_CALL),
    ("tool_call", FUNCTION_CALL),
    ("function", "tool"),
    ("function_response", "tool"),
    ("tool_response", "tool"),
    ("observation", "tool"),
];

const SPEAKERS: [(&str, &str); 18] = [
    ("human", "user"),
    ("user", "user"),
    ("gpt", "assistant"),
    ("assistant", "assistant"),
    ("model", "assistant"),
    ("bot", "assistant"),
    ("chatgpt", "assistant"),
    ("bing", "assistant"),
    ("bard", "assistant"),
    (FUNCTION_CALL, FUNCTION_CALL),
    ("tool_call", FUNCTION_CALL),
    ("system", "system"),
    ("developer", "developer"),
    ("tool", "tool"),
    ("observation", "tool"),
    ("function", "tool"),
    ("function_response", "tool"),
    ("tool_response", "tool"),
];

impl Tags {
    /// The key under which a turn says who speaks.
    pub(super) fn role_key<'a>(&'a self, turn: &Map<String, Value>) -> &'a str {
        match &self.role {
            Some(key) => key,
            None if turn.contains_key("from") && !turn.contains_key("role") => "from",
            None => "role",
        }
    }

    /// The key under which a turn has what is said.
    pub(super) fn content_key<'a>(&'a self, turn: &Map<String, Value>, role_key: &str) -> &'a str {
        match &self.content {
            Some(key) => key,
            None if role_key == "from" && !turn.contains_key("content") => "value",
            None => "content",
        }
    }

    /// What a turn of this speaker is. The roles of chat interfaces are checked
    /// later, with those of all other shapes.
    pub(super) fn speaker(&self, name: &str, role_key: &str) -> Result<Speaker, String> {
        let lower = name.to_lowercase();
        let own = self.speakers.iter().find(|(own, _)| own == name).map(|(_, role)| *role);
        let names: &[(&str, &str)] = if role_key == "role" { &ROLES } else { &SPEAKERS };
        let known = || names.iter().find(|(known, _)| *known == lower).map(|(_, role)| *role);
        match own.or_else(known) {
            Some(FUNCTION_CALL) => Ok(Speaker::Calls),
            Some(role) => Ok(Speaker::Role(role.into())),
            None if role_key == "role" => Ok(Speaker::Role(name.into())),
            None => {
                let known = SPEAKERS.iter().map(|(name, _)| *name);
                let known: Vec<&str> =
                    self.speakers.iter().map(|(own, _)| own.as_str()).chain(known).collect();
                Err(format!("unknown speaker `{name}`; known are {}", known.join(", ")))
            }
        }
    }
}
