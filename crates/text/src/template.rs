//! Chat templates: from messages to the text that a model reads.
//!
//! A template is Jinja as `transformers` runs it: the same block trimming, the
//! same globals and filters, Python's methods on strings, lists and dicts.

mod calls;
mod context;
mod markers;

use std::fmt;
use std::sync::{Arc, Mutex};

use serde_json::{Map, Value};

use calls::CallForm;

use crate::hash::sha256;
use crate::jinja::{Failure, Template, Value as Jinja};
use crate::{Date, Error, Message, Result, SpecialTokens, Tokenizer};

/// A compiled chat template with the special tokens and the date it was made for.
///
/// It may come with a second one for conversations that offer tools: the template that a model names `tool_use`.
#[derive(Clone)]
pub struct ChatTemplate {
    inner: Arc<Inner>,
    tool_use: Option<Arc<Inner>>,
}

struct Inner {
    source: String,
    special: SpecialTokens,
    date: Date,
    template: Template,
    /// In which form it takes tool calls, for the variables that it was rendered with.
    call_forms: Mutex<Vec<(Map<String, Value>, CallForm)>>,
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
        let template = Template::parse(source).map_err(syntax_error)?;
        let inner = Inner {
            source: source.into(),
            special: special.clone(),
            date,
            template,
            call_forms: Mutex::default(),
        };
        Ok(ChatTemplate { inner: Arc::new(inner), tool_use: None })
    }

    /// The same, with another template for conversations that offer tools.
    pub fn with_tool_use(self, template: &ChatTemplate) -> Self {
        ChatTemplate { tool_use: Some(template.inner.clone()), ..self }
    }

    /// The template for conversations that offer tools, where it is another.
    pub fn tool_use(&self) -> Option<Self> {
        let inner = self.tool_use.clone()?;
        Some(ChatTemplate { inner, tool_use: None })
    }

    /// The template alone, for conversations with tools too.
    pub fn alone(&self) -> Self {
        ChatTemplate { inner: self.inner.clone(), tool_use: None }
    }

    /// Renders a conversation: where it offers tools, with the template for that.
    ///
    /// Fields of messages that are null are left out, as transformers does. Tool calls are shown in
    /// the form that the template takes: arguments as an object or as JSON text.
    ///
    /// An exception that the template raises comes back as
    /// [`Error::TemplateRaised`] with the template's message.
    pub fn render(&self, messages: &[Message], options: &RenderOptions<'_>) -> Result<String> {
        let has_tools = options.tools.is_some_and(|tools| !tools.is_null());
        let inner = self.tool_use.as_ref().filter(|_| has_tools).unwrap_or(&self.inner);
        let form = match messages.iter().any(calls::calls_tools) {
            true => inner.call_form(options),
            false => CallForm::USUAL,
        };
        inner.render(messages, options, form).map_err(render_error)
    }

    /// The template as its file holds it.
    pub fn source(&self) -> &str {
        &self.inner.source
    }

    /// The date that it takes for today.
    pub fn date(&self) -> Date {
        self.inner.date
    }

    /// The SHA-256 of the source, in hex; of both sources where there is a template for tools.
    pub fn hash(&self) -> String {
        match &self.tool_use {
            None => sha256(self.source().as_bytes()),
            Some(tool_use) => sha256(format!("{}\0{}", self.source(), tool_use.source).as_bytes()),
        }
    }

    /// Whether the template, or the one for tools, has this text in its source.
    pub fn mentions(&self, text: &str) -> bool {
        let tool_use = self.tool_use.iter();
        self.source().contains(text) || tool_use.into_iter().any(|t| t.source.contains(text))
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
        let mut markers = markers::markers(self.source());
        markers
            .extend(self.tool_use.iter().flat_map(|template| markers::markers(&template.source)));
        for name in ["bos_token", "eos_token"] {
            if let Some(token) = self.special().get(name)
                && (self.mentions(name) || self.mentions(token))
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

impl Inner {
    fn render(
        &self,
        messages: &[Message],
        options: &RenderOptions<'_>,
        form: CallForm,
    ) -> std::result::Result<String, Failure> {
        let mut variables: Vec<(&str, Jinja)> =
            self.special.iter().map(|(name, token)| (name, Jinja::text(token))).collect();
        variables.extend(context::variables(messages, options, form));
        self.template.render(&variables, self.date)
    }
}

fn syntax_error(failure: Failure) -> Error {
    Error::TemplateSyntax { line: failure.line.unwrap_or(1), message: failure.message }
}

fn render_error(failure: Failure) -> Error {
    if failure.raised {
        return Error::TemplateRaised { message: failure.message };
    }
    Error::TemplateRender { line: failure.line.unwrap_or(1), message: failure.message }
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
