//! Chat templates: from messages to the text that a model reads.
//!
//! A template is Jinja as `transformers` runs it: the same block trimming, the
//! same globals and filters, Python's methods on strings, lists and dicts.

mod json;
mod python;
mod tags;

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, ErrorKind, UndefinedBehavior, Value as Jinja};
use serde_json::{Map, Value};

use crate::hash::sha256;
use crate::{Date, Error, Message, Result, SpecialTokens, Tokenizer};

const NAME: &str = "chat_template";

/// A compiled chat template with the special tokens and the date it was made for.
#[derive(Clone)]
pub struct ChatTemplate {
    inner: Arc<Inner>,
}

struct Inner {
    source: String,
    special: SpecialTokens,
    date: Date,
    environment: Environment<'static>,
}

/// What a template is given besides the messages.
#[derive(Clone, Copy, Debug, Default)]
pub struct RenderOptions<'a> {
    /// Whether the text ends with what opens an assistant turn.
    pub add_generation_prompt: bool,
    /// A list of tools as JSON schemas.
    pub tools: Option<&'a Value>,
    /// A list of documents to answer from.
    pub documents: Option<&'a Value>,
    /// Further variables (`enable_thinking: false`, ...); they go before all others.
    pub kwargs: Option<&'a Map<String, Value>>,
}

impl ChatTemplate {
    /// Compiles a template. `date` is what `strftime_now` tells it, whenever it is rendered.
    pub fn new(source: &str, special: &SpecialTokens, date: Date) -> Result<Self> {
        let mut environment = environment(date);
        for (name, token) in special.iter() {
            environment.add_global(name.to_owned(), token);
        }
        environment
            .add_template_owned(NAME, tags::plain_generation(source))
            .map_err(|error| syntax_error(&error))?;
        let inner = Inner { source: source.into(), special: special.clone(), date, environment };
        Ok(ChatTemplate { inner: Arc::new(inner) })
    }

    /// Renders a conversation.
    ///
    /// An exception that the template raises comes back as
    /// [`Error::TemplateRaised`] with the template's message.
    pub fn render(&self, messages: &[Message], options: &RenderOptions<'_>) -> Result<String> {
        let template = self.inner.environment.get_template(NAME).map_err(|e| render_error(&e))?;
        template.render(context(messages, options)).map_err(|error| render_error(&error))
    }

    /// The template as its file holds it.
    pub fn source(&self) -> &str {
        &self.inner.source
    }

    /// The date that it takes for today.
    pub fn date(&self) -> Date {
        self.inner.date
    }

    /// The SHA-256 of the source, in hex.
    pub fn hash(&self) -> String {
        sha256(self.source().as_bytes())
    }

    /// The special tokens that the template was made with.
    pub fn special(&self) -> &SpecialTokens {
        &self.inner.special
    }

    /// Literal markers of the template that the tokenizer would split into
    /// several tokens, in the order of their first use.
    ///
    /// A marker is what looks like `<|im_start|>`, or is the beginning- or
    /// end-of-sequence token where the template writes it.
    pub fn missing_tokens(&self, tokenizer: &Tokenizer) -> Vec<String> {
        let mut markers = tags::markers(self.source());
        for name in ["bos_token", "eos_token"] {
            if let Some(token) = self.special().get(name)
                && (self.source().contains(name) || self.source().contains(token))
            {
                markers.push(token.to_owned());
            }
        }
        let mut missing: Vec<String> = Vec::new();
        for marker in markers {
            // A marker may stand in the vocabulary and still be split, where it is no added token.
            let is_one = tokenizer.encode(&marker).is_ok_and(|ids| ids.len() == 1);
            if !is_one && !missing.contains(&marker) {
                missing.push(marker);
            }
        }
        missing
    }
}

impl fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChatTemplate").field("source", &self.inner.source).finish_non_exhaustive()
    }
}

fn environment(date: Date) -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_syntax(
        SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build()
            .expect("Jinja's own delimiters are valid"),
    );
    environment.set_undefined_behavior(UndefinedBehavior::Lenient);
    environment.set_unknown_method_callback(python::method);
    environment.add_filter("tojson", json::tojson);
    environment.add_filter("indent", python::indent);
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", move |format: &str| date.strftime(format));
    environment
}

fn context(messages: &[Message], options: &RenderOptions<'_>) -> Jinja {
    let messages: Jinja = messages.iter().map(|m| to_jinja(&with_reasoning(m))).collect();
    let mut pairs = vec![
        ("messages", messages),
        ("tools", to_jinja(options.tools.unwrap_or(&Value::Null))),
        ("documents", to_jinja(options.documents.unwrap_or(&Value::Null))),
        ("add_generation_prompt", Jinja::from(options.add_generation_prompt)),
    ];
    for (name, value) in options.kwargs.into_iter().flatten() {
        pairs.retain(|(other, _)| other != name);
        pairs.push((name, to_jinja(value)));
    }
    Jinja::from_pairs(pairs)
}

fn to_jinja(value: &Value) -> Jinja {
    match value {
        Value::Null => Jinja::from(()),
        Value::Bool(flag) => Jinja::from(*flag),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(integer), _) => Jinja::from(integer),
            (None, Some(integer)) => Jinja::from(integer),
            (None, None) => Jinja::from(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(text) => Jinja::from(text.as_str()),
        Value::Array(items) => items.iter().map(to_jinja).collect(),
        Value::Object(fields) => {
            Jinja::from_pairs(fields.iter().map(|(name, field)| (name.as_str(), to_jinja(field))))
        }
    }
}

/// The message with its reasoning under the names that templates read.
fn with_reasoning(message: &Message) -> Value {
    let mut value = message.to_value();
    let reasoning = ["reasoning_content", "thinking", "reasoning"]
        .into_iter()
        .find_map(|name| message.extra.get(name).filter(|value| !value.is_null()));
    if let (Some(reasoning), Value::Object(fields)) = (reasoning, &mut value) {
        fields.entry("thinking").or_insert_with(|| reasoning.clone());
        fields.insert("reasoning_content".into(), reasoning.clone());
    }
    value
}

/// What a template said with `raise_exception`.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Raised(String);

fn raise_exception(message: String) -> std::result::Result<Jinja, minijinja::Error> {
    let error = minijinja::Error::new(ErrorKind::InvalidOperation, message.clone());
    Err(error.with_source(Raised(message)))
}

fn syntax_error(error: &minijinja::Error) -> Error {
    Error::TemplateSyntax { line: error.line().unwrap_or(1), message: describe(error) }
}

fn render_error(error: &minijinja::Error) -> Error {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(current) = cause {
        if let Some(Raised(message)) = current.downcast_ref() {
            return Error::TemplateRaised { message: message.clone() };
        }
        cause = current.source();
    }
    Error::TemplateRender { line: error.line().unwrap_or(1), message: describe(error) }
}

fn describe(error: &minijinja::Error) -> String {
    match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn template(source: &str) -> Result<ChatTemplate> {
        let special = [("bos_token", "<s>"), ("eos_token", "</s>")].into_iter().collect();
        ChatTemplate::new(source, &special, Date::new(2026, 3, 1).unwrap())
    }

    fn render(source: &str) -> Result<String> {
        let messages = [Message::new("user", "hi"), Message::new("assistant", "ho")];
        template(source)?.render(&messages, &RenderOptions::default())
    }

    #[track_caller]
    fn check(source: &str, expected: &str) {
        assert_eq!(render(source).unwrap(), expected);
    }

    #[test]
    fn the_environment_is_that_of_transformers() {
        check("{{ bos_token }}{{ messages[0].content }}{{ eos_token }}", "<s>hi</s>");
        check("{{ strftime_now('%d %b %Y') }}", "01 Mar 2026");
        check("a\n  {% if true %}\nb\n  {% endif %}\nc\n", "a\nb\nc");
        check("{% for m in messages %}{{ m.content }}{% break %}{% endfor %}", "hi");
        check("{% set n = namespace(x=1) %}{% set n.x = 2 %}{{ n.x }}", "2");
        check(
            "{{ tools is none }} {{ documents is defined }} {{ x is defined }}",
            "True True False",
        );
        check("{{ messages[0].get('name', 'nobody') }} {{ 'role' in messages[0] }}", "nobody True");
        check("{% generation %}x{%- endgeneration %}\ny", "xy");
        check("{{ 'a-b'.split('-')[1] }}{{ ' c '.strip() }}{{ 'D'.lower() }}", "bcd");
        check(
            "{{ none }} {{ [1, 'a', none, 0.5] }} {{ true ~ 1 }}",
            "None [1, 'a', None, 0.5] True1",
        );
    }

    #[test]
    fn a_raised_exception_keeps_its_words() {
        let source =
            "{% macro m() %}{{ raise_exception('no `tool` role') }}{% endmacro %}{{ m() }}";
        for source in [source, "{{ raise_exception('no `tool` role') }}"] {
            match render(source) {
                Err(Error::TemplateRaised { message }) => assert_eq!(message, "no `tool` role"),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn errors_name_their_line() {
        assert!(matches!(template("a\nb\n{% if %}"), Err(Error::TemplateSyntax { line: 3, .. })));
        assert!(matches!(render("a\n{{ x.y.z }}"), Err(Error::TemplateRender { line: 2, .. })));
    }

    #[test]
    fn tools_and_kwargs_are_seen() {
        let tools = json!([{"name": "f", "x": 1.5}]);
        let kwargs = json!({"enable_thinking": false, "bos_token": "B"});
        let options = RenderOptions {
            tools: Some(&tools),
            kwargs: kwargs.as_object(),
            add_generation_prompt: true,
            ..RenderOptions::default()
        };
        let source = "{{ tools | tojson }} {{ enable_thinking }} {{ add_generation_prompt }} {{ bos_token }}";
        let text = template(source).unwrap().render(&[], &options).unwrap();
        assert_eq!(text, r#"[{"name": "f", "x": 1.5}] False True B"#);
    }

    #[test]
    fn reasoning_has_all_its_names() {
        let mut message = Message::new("assistant", "4");
        message.extra.insert("reasoning".into(), "2+2".into());
        let template = template("{{ messages[0].reasoning_content }}|{{ messages[0].thinking }}");
        let text = template.unwrap().render(&[message], &RenderOptions::default()).unwrap();
        assert_eq!(text, "2+2|2+2");
    }
}
