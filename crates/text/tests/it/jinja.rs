//! Expressions and small templates give what Python's Jinja2 gives in the environment of transformers.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};
use text::{ChatTemplate, Date, Error, Message, RenderOptions};

#[derive(Deserialize)]
struct Golden {
    date: Date,
    special: BTreeMap<String, String>,
    messages: Vec<Message>,
    variables: Map<String, Value>,
    cases: Vec<(String, Output)>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
enum Output {
    Text(String),
    Raises {
        raises: String,
    },
    /// Python writes where the object lies in memory, so that any text will do.
    Address {
        prints_address: bool,
    },
    Fails(()),
}

#[test]
fn sources_become_what_they_become_in_python() {
    let golden: Golden = serde_json::from_str(include_str!("../golden/jinja.json")).unwrap();
    let special = golden.special.clone().into_iter().collect();
    let options = RenderOptions { kwargs: Some(&golden.variables), ..RenderOptions::default() };
    let mut different = Vec::new();
    for (source, expected) in &golden.cases {
        let rendered = ChatTemplate::new(source, &special, golden.date)
            .and_then(|template| template.render(&golden.messages, &options));
        let found = match &rendered {
            Ok(_) if matches!(expected, Output::Address { .. }) => expected.clone(),
            Ok(text) => Output::Text(text.clone()),
            Err(Error::TemplateRaised { message }) => Output::Raises { raises: message.clone() },
            Err(_) => Output::Fails(()),
        };
        if found != *expected {
            let found = rendered.map_err(|error| error.to_string());
            different.push(format!("{source}\n  found    {found:?}\n  expected {expected:?}"));
        }
    }
    let (count, all) = (different.len(), golden.cases.len());
    assert!(all > 700 && count == 0, "{count} of {all} differ:\n{}", different.join("\n"));
}
