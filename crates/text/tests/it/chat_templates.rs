//! Every template renders as transformers renders it, byte for byte.

use std::collections::BTreeMap;
use std::fs;

use serde::Deserialize;
use serde_json::{Map, Value};
use text::{ChatTemplate, Date, Error, Message, RenderOptions};

use crate::shared;

#[derive(Deserialize)]
struct Golden {
    date: Date,
    special: BTreeMap<String, String>,
    kwargs: Map<String, Value>,
    cases: BTreeMap<String, Case>,
    outputs: BTreeMap<String, BTreeMap<String, Output>>,
}

#[derive(Deserialize)]
struct Case {
    messages: Vec<Message>,
    tools: Option<Value>,
    #[serde(default)]
    add_generation_prompt: bool,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(untagged)]
enum Output {
    Text(String),
    Raises { raises: String },
    Fails(()),
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("../golden/chat_templates.json")).unwrap()
}

fn render(template: &ChatTemplate, case: &Case, kwargs: &Map<String, Value>) -> Output {
    let options = RenderOptions {
        add_generation_prompt: case.add_generation_prompt,
        tools: case.tools.as_ref(),
        kwargs: Some(kwargs),
        ..RenderOptions::default()
    };
    match template.render(&case.messages, &options) {
        Ok(text) => Output::Text(text),
        Err(Error::TemplateRaised { message }) => Output::Raises { raises: message },
        Err(_) => Output::Fails(()),
    }
}

/// Both results from shortly before their first difference on.
fn difference(found: &Output, expected: &Output) -> String {
    let (Output::Text(found), Output::Text(expected)) = (found, expected) else {
        return format!("  {found:?}\n  {expected:?}");
    };
    let same = found.chars().zip(expected.chars()).take_while(|(a, b)| a == b).count();
    let from =
        |text: &str| text.chars().skip(same.saturating_sub(40)).take(120).collect::<String>();
    format!("  found    {:?}\n  expected {:?}", from(found), from(expected))
}

#[test]
fn templates_render_as_in_transformers() {
    let golden = golden();
    let mut different = Vec::new();
    for (file, outputs) in &golden.outputs {
        let Some(path) = shared::data(&format!("chat-templates/{file}")) else { return };
        let source = fs::read_to_string(path).unwrap();
        let special = golden.special.clone().into_iter().collect();
        let template = ChatTemplate::new(&source, &special, golden.date).unwrap();
        for (name, expected) in outputs {
            let case = &golden.cases[name];
            let found = render(&template, case, &golden.kwargs);
            // A template that adds arguments to a text fails in Python on an object. Here it gets them as text.
            let calls =
                case.messages.iter().any(|message| message.extra.contains_key("tool_calls"));
            if matches!((&found, expected), (Output::Text(_), Output::Fails(()))) && calls {
                continue;
            }
            if found != *expected {
                different.push(format!("{file}, {name}:\n{}", difference(&found, expected)));
            }
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}
