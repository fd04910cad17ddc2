//! Jinja2 as `transformers` runs it for chat templates, to the character.
//!
//! A template is written against Python: `'%s' % x`, `x.items()`, `1e-05`, a generator that is empty after its first
//! use. So this is an interpreter of Jinja2 over Python's types: the lexer and the grammar of Jinja2, the environment of
//! `transformers` (`ImmutableSandboxedEnvironment` without autoescape, blocks trimmed), its filters, tests and
//! functions. Goldens compare it with Python (`xtask/golden/jinja.py`).

mod arithmetic;
mod ast;
mod attribute;
mod call;
mod compare;
mod evaluate;
mod filters;
mod format;
mod interpreter;
mod json;
mod lexer;
mod methods;
mod number;
mod parser;
mod percent;
mod predicates;
mod repr;
mod unicode;
mod value;

use std::sync::Arc;

use serde_json::Value as Json;

use self::ast::Statement;
use self::interpreter::Interpreter;
use self::value::Dict;
pub(crate) use self::value::Value;
use crate::{Date, integer};

/// What went wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The line of the template, from 1, once it is known.
    pub(crate) line: Option<usize>,
    pub(crate) message: String,
    /// Whether the template itself raised it, with `raise_exception`.
    pub(crate) raised: bool,
}

type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    fn new(message: impl Into<String>) -> Self {
        Failure { line: None, message: message.into(), raised: false }
    }

    fn at(line: usize, message: impl Into<String>) -> Self {
        Failure { line: Some(line), ..Failure::new(message) }
    }

    fn raised(message: String) -> Self {
        Failure { raised: true, ..Failure::new(message) }
    }

    /// The same, in this line if none is known yet.
    fn within(self, line: usize) -> Self {
        Failure { line: self.line.or(Some(line)), ..self }
    }
}

/// A parsed template.
#[derive(Debug)]
pub(crate) struct Template {
    body: Vec<Statement>,
    /// The names of all variables, those of [`names`] first.
    names: Vec<Arc<str>>,
}

/// Names that every template has a place for.
mod names {
    pub(super) const LOOP: usize = 0;
    pub(super) const CALLER: usize = 1;
    pub(super) const KWARGS: usize = 2;
    pub(super) const VARARGS: usize = 3;
    pub(super) const ALL: [&str; 4] = ["loop", "caller", "kwargs", "varargs"];
}

impl Template {
    pub(crate) fn parse(source: &str) -> Result<Self> {
        parser::parse(source)
    }

    /// Renders with these variables; of two of one name the later one counts.
    pub(crate) fn render(&self, variables: &[(&str, Value)], date: Date) -> Result<String> {
        let find = |name: &Arc<str>| {
            let given = variables.iter().rev().find(|(other, _)| *other == &**name);
            let function = call::FUNCTIONS.iter().find(|(other, _)| *other == &**name);
            given
                .map(|(_, value)| value.clone())
                .or_else(|| function.map(|(_, function)| Value::Function(*function)))
        };
        let context = self.names.iter().map(find).collect();
        Interpreter::new(self, context, date).render()
    }
}

impl From<&Json> for Value {
    fn from(json: &Json) -> Value {
        match json {
            Json::Null => Value::None,
            Json::Bool(flag) => Value::Bool(*flag),
            Json::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(integer), _) => Value::Int(integer.into()),
                (None, Some(integer)) => Value::Int(integer.into()),
                (None, None) => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
            },
            Json::String(text) => Value::text(text.as_str()),
            Json::Array(items) => Value::list(items.iter().map(Value::from).collect()),
            Json::Object(fields) => {
                if let Some(digits) = integer::digits(json) {
                    return long_integer(digits);
                }
                let mut dict = Dict::default();
                for (name, field) in fields {
                    dict.push(Value::text(name.as_str()), Value::from(field));
                }
                Value::dict(dict)
            }
        }
    }
}

/// A whole number of more than 64 bits.
fn long_integer(digits: &str) -> Value {
    digits.parse().map_or_else(|_| Value::Big(digits.into()), Value::Int)
}

/// JSON as the filter `tojson` writes it unless it is told otherwise.
pub(crate) fn to_json(value: &Value) -> Result<String> {
    json::usual(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(source: &str) -> Result<String> {
        let date = Date::new(2026, 3, 1).expect("a day");
        Template::parse(source)?.render(&[], date)
    }

    #[test]
    fn nothing_runs_without_bound() {
        let deep = |open: &str, close: &str| {
            format!("{{{{ {}1{} }}}}", open.repeat(5000), close.repeat(5000))
        };
        let long = format!("{{{{ {}1 }}}}", "1 + ".repeat(5000));
        for source in [
            "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
            "{% macro m(x) %}{% for i in [1] %}{{ m([x]) }}{% endfor %}{% endmacro %}{{ m(1) }}",
            "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
            "{{ 'a' * 1000000000000 }}",
            "{{ [0] * 1000000000000 }}",
            "{{ 'a'.ljust(1000000000000) }}",
            "{{ '%1000000000d' % 1 }}",
            "{{ '{:1000000000}'.format(1) }}",
            "{{ range(1000000000) }}",
            "{{ 10 ** 1000000 }}",
            &deep("(", ")"),
            &deep("[", "]"),
            &deep("not ", ""),
            &deep("-", ""),
            &format!("{{{{ {}1 }}}}", "1 and ".repeat(5000)),
            &format!("{{{{ {}1 }}}}", "1 if 0 else ".repeat(5000)),
            &long,
            &"{% if true %}".repeat(5000),
        ] {
            let failure = render(source).expect_err(source);
            assert!(failure.line.is_some(), "{failure:?}");
        }
    }

    #[test]
    fn failures_name_their_line_and_what_is_wrong() {
        for (source, line, message) in [
            ("a\n{{ x.y.z }}", 2, "'x' is undefined"),
            ("{{ {'a': 1}.b.c }}", 1, "'dict object' has no attribute 'b'"),
            ("\n\n{{ 'a' + 1 }}", 3, "unsupported operand type(s) for +: 'str' and 'int'"),
            ("{% if true %}\n{{ 1 | nope }}{% endif %}", 2, "no filter named 'nope'"),
            ("{% macro m() %}\n{{ x() }}{% endmacro %}\n{{ m() }}", 2, "'x' is undefined"),
            ("a\nb\n{% if %}", 3, "expected an expression, found `%}`"),
            (
                "{% for x in y %}\n",
                1,
                "expected `{% endfor %}` or `{% else %}`, found the end of the template",
            ),
            ("\n{% foo %}", 2, "unknown tag `foo`"),
        ] {
            let failure = render(source).expect_err(source);
            assert_eq!((failure.line, failure.message.as_str()), (Some(line), message), "{source}");
        }
    }

    #[test]
    fn whole_numbers_keep_all_their_digits() {
        let digits = "123456789012345678901234567890123456789012345678901234567890";
        let template =
            Template::parse("{{ x }} {{ x | tojson }} {{ x == x }} {{ x > 5 }}").unwrap();
        let date = Date::new(2026, 3, 1).unwrap();
        let text = template.render(&[("x", Value::Big(digits.into()))], date).unwrap();
        assert_eq!(text, format!("{digits} {digits} True True"));
    }
}
