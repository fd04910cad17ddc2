//! In which form a template takes tool calls, found by rendering one.
//!
//! Most templates take the arguments as an object. Some add them to a text, so that Python fails on
//! an object; and some write calls only where the content is `none`, or fail where it is. Users of
//! transformers rewrite their rows for these by hand. Here a probe is rendered in every form, that of transformers
//! first, and the first form in which the call is written is used.

use serde_json::{Map, Value, json};

use super::{Inner, RenderOptions};
use crate::Message;
use crate::jinja;

/// How a turn that calls tools is shown to a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CallForm {
    /// What stands for the content of a turn that only calls.
    pub(super) content: Content,
    /// Whether arguments are JSON text.
    pub(super) as_text: bool,
}

/// What stands for a content that is null.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// No such field, as transformers has it.
    Absent,
    /// The empty text.
    Empty,
    /// `none`.
    Null,
}

impl CallForm {
    /// The form for templates that write no calls at all.
    pub(super) const USUAL: CallForm = CallForm { content: Content::Empty, as_text: false };

    /// Every form, what transformers itself does first.
    fn all() -> impl Iterator<Item = CallForm> {
        let contents = [Content::Absent, Content::Empty, Content::Null];
        let of = move |as_text| contents.map(|content| CallForm { content, as_text });
        [false, true].into_iter().flat_map(of)
    }

    /// Gives the arguments of a call this form. Those that are text already stay.
    pub(super) fn convert(self, call: &mut Value) {
        let function = match call.get_mut("function") {
            Some(function) => function,
            None => call,
        };
        if self.as_text
            && let Some(arguments @ Value::Object(_)) = function.get_mut("arguments")
        {
            *arguments = Value::String(json_text(arguments));
        }
    }
}

/// Whether a message has tool calls.
pub(super) fn calls_tools(message: &Message) -> bool {
    let calls = message.extra.get("tool_calls").and_then(Value::as_array);
    calls.is_some_and(|calls| !calls.is_empty())
}

impl Inner {
    /// The form of calls that this template takes with these variables.
    pub(super) fn call_form(&self, options: &RenderOptions<'_>) -> CallForm {
        let kwargs = options.kwargs.cloned().unwrap_or_default();
        let known = |list: &Vec<(Map<String, Value>, CallForm)>| {
            list.iter().find(|(of, _)| *of == kwargs).map(|(_, form)| *form)
        };
        let lock = || self.call_forms.lock().unwrap_or_else(|error| error.into_inner());
        if let Some(form) = known(&lock()) {
            return form;
        }
        let form = self.probe(&kwargs);
        lock().push((kwargs, form));
        form
    }

    /// The first form in which the template writes a call.
    fn probe(&self, kwargs: &Map<String, Value>) -> CallForm {
        let call = json!({"role": "assistant", "content": null, "tool_calls": [{
            "id": "probe0001", "type": "function",
            "function": {"name": "probe_tool", "arguments": {"probe_key": "probe value"}},
        }]});
        let call = Message::from_value(call).expect("a message with a role");
        let messages = [Message::new("user", "probe"), call];
        let tools = json!([{"type": "function", "function": {
            "name": "probe_tool", "description": "A probe.",
            "parameters": {"type": "object", "properties": {"other": {"type": "string"}}},
        }}]);
        let writes = |form: &CallForm| {
            [Some(&tools), None].into_iter().any(|tools| {
                let options =
                    RenderOptions { tools, kwargs: Some(kwargs), ..RenderOptions::default() };
                self.render(&messages, &options, *form)
                    .is_ok_and(|text| is_written(&text, form.as_text))
            })
        };
        CallForm::all().find(writes).unwrap_or(CallForm::USUAL)
    }
}

/// Whether the arguments of the probe stand in a rendering: neither as JSON within JSON, nor as
/// Python prints a dict.
fn is_written(text: &str, as_text: bool) -> bool {
    let whole = r#"{"probe_key": "probe value"}"#;
    match as_text {
        true => text.contains(whole),
        false => {
            ["probe_key", "probe value"].iter().all(|part| text.contains(part))
                && !text.contains("{'probe_key'")
                && !text.contains(r#"{\"probe_key"#)
        }
    }
}

/// JSON as `json.dumps(..., ensure_ascii=False)` lays it out.
fn json_text(value: &Value) -> String {
    jinja::to_json(&value.into()).expect("JSON can be written as JSON")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::ChatTemplate;
    use crate::{Date, SpecialTokens, integer};

    /// A template that writes `call` for a call, between square brackets.
    fn render(call: &str, arguments: Value) -> crate::Result<String> {
        let source = format!(
            "{{% for m in messages %}}[{{% if m.tool_calls %}}{{% set c = m.tool_calls[0].function %}}\
             {call}{{% else %}}{{{{ m.content }}}}{{% endif %}}]{{% endfor %}}"
        );
        let date = Date::new(2026, 3, 1).unwrap();
        let template = ChatTemplate::new(&source, &SpecialTokens::default(), date)?;
        let message = json!({"role": "assistant", "content": null, "tool_calls": [
            {"type": "function", "function": {"name": "f", "arguments": arguments}},
        ]});
        let messages = [Message::new("user", "a"), Message::from_value(message).unwrap()];
        template.render(&messages, &RenderOptions::default())
    }

    #[track_caller]
    fn check(call: &str, expected: &str) {
        let arguments = json!({"x": 1.0, "é": ["a\"b", null]});
        assert_eq!(render(call, arguments).unwrap(), format!("[a][{expected}]"));
    }

    #[test]
    fn a_template_gets_the_form_that_it_takes() {
        let text = r#"{"x": 1.0, "é": ["a\"b", null]}"#;
        check("{{ c.arguments | tojson }}", text);
        // Text only: Python adds no dict to a text.
        check("{{ '' + c.arguments }}", text);
        check("{{ c.arguments }}", text);
        // Both: the object goes first.
        check(
            "{% if c.arguments is string %}text{% else %}{{ c.arguments | tojson }}{% endif %}",
            text,
        );
        check(
            "{% for k in c.arguments %}{{ k }}={{ c.arguments[k] }};{% endfor %}",
            "x=1.0;é=['a\"b', None];",
        );
        // Only where the content is none, as DeepSeek has it.
        check(
            "{% if m.content is none %}{{ '' + c.arguments }}{% else %}{{ m.content }}{% endif %}",
            text,
        );
        // Only where it is text, as Qwen3 has it.
        check("{{ m.content.strip() }}{{ c.arguments | tojson }}", text);
    }

    #[test]
    fn long_integers_are_written_whole() {
        for digits in ["12345678901234567890123", "-9223372036854775809", &"9".repeat(60)] {
            let json = format!("{{\"n\":{digits}}}");
            let value: Value = serde_json::from_str(&integer::marked(&json).unwrap()).unwrap();
            for call in ["{{ c.arguments | tojson }}", "{{ '' + c.arguments }}"] {
                let text = render(call, value.clone()).unwrap();
                assert_eq!(text, format!("[a][{{\"n\": {digits}}}]"));
            }
            let text = render("{{ c.arguments.n }}|{{ c.arguments | tojson }}", value).unwrap();
            assert_eq!(text, format!("[a][{digits}|{{\"n\": {digits}}}]"));
        }
    }
}
