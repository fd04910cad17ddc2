//! `str` and `repr`: what a template prints of a value.

use std::fmt::Write as _;

use super::number;
use super::unicode::is_printable;
use super::value::{Function, Value, View};

/// How deep containers are written: nothing that a row or a template holds is nested deeper.
const MAX_DEPTH: usize = 200;

/// `str(value)`.
pub(super) fn str(value: &Value) -> String {
    let mut out = String::new();
    write_str(&mut out, value);
    out
}

pub(super) fn write_str(out: &mut String, value: &Value) {
    match value {
        Value::Undefined(_) => {}
        Value::Text(text) | Value::Markup(text) => out.push_str(text),
        other => write_repr(out, other, 0),
    }
}

/// `repr(value)`.
pub(super) fn repr(value: &Value) -> String {
    let mut out = String::new();
    write_repr(&mut out, value, 0);
    out
}

fn write_repr(out: &mut String, value: &Value, depth: usize) {
    if depth > MAX_DEPTH {
        out.push_str("...");
        return;
    }
    match value {
        Value::Undefined(_) => out.push_str("Undefined"),
        Value::None => out.push_str("None"),
        Value::Bool(value) => out.push_str(if *value { "True" } else { "False" }),
        Value::Int(value) => {
            // Writing to a string cannot fail.
            let _ = write!(out, "{value}");
        }
        Value::Big(digits) => out.push_str(digits),
        Value::Float(value) => out.push_str(&number::repr(*value)),
        Value::Text(text) => quote(out, text),
        Value::Markup(text) => {
            out.push_str("Markup(");
            quote(out, text);
            out.push(')');
        }
        Value::List(items) => write_items(out, items, ('[', ']'), depth),
        Value::Tuple(items) | Value::Group(items) if items.len() == 1 => {
            out.push('(');
            write_repr(out, &items[0], depth + 1);
            out.push_str(",)");
        }
        Value::Tuple(items) | Value::Group(items) => write_items(out, items, ('(', ')'), depth),
        Value::Dict(dict) => write_entries(out, dict.entries(), depth),
        Value::View(_, view) => {
            let name = match view {
                View::Keys => "dict_keys(",
                View::Values => "dict_values(",
                View::Items => "dict_items(",
            };
            out.push_str(name);
            write_items(out, &value.iterate().unwrap_or_default(), ('[', ']'), depth);
            out.push(')');
        }
        Value::Range(range) => {
            let _ = write!(out, "range({}, {}", range.start, range.stop);
            if range.step != 1 {
                let _ = write!(out, ", {}", range.step);
            }
            out.push(')');
        }
        Value::Namespace(dict) => {
            out.push_str("<Namespace ");
            // One that holds itself is being written already.
            match dict.try_borrow() {
                Ok(dict) if depth < 8 => write_entries(out, dict.entries(), depth + 1),
                _ => out.push_str("{...}"),
            }
            out.push('>');
        }
        other => write_object(out, other),
    }
}

fn write_object(out: &mut String, value: &Value) {
    let text = match value {
        Value::Macro(closure) => match &closure.definition.name {
            Some(name) => format!("<Macro '{name}'>"),
            None => "<Macro anonymous>".into(),
        },
        Value::Loop(state) => {
            let length = state.length.get().unwrap_or_default();
            format!("<LoopContext {}/{length}>", state.index0.get() + 1)
        }
        Value::Method(method) => {
            format!("<built-in method {} of {} object>", method.1, method.0.type_name())
        }
        Value::Function(Function::Dict) => "<class 'dict'>".into(),
        Value::Function(Function::Namespace) => "<class 'jinja2.utils.Namespace'>".into(),
        Value::Function(Function::Cycler) => "<class 'jinja2.utils.Cycler'>".into(),
        Value::Function(Function::Joiner) => "<class 'jinja2.utils.Joiner'>".into(),
        Value::Generator(_) => "<generator object>".into(),
        other => format!("<{} object>", other.type_name()),
    };
    out.push_str(&text);
}

fn write_items(out: &mut String, items: &[Value], (open, close): (char, char), depth: usize) {
    out.push(open);
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push_str(", ");
        }
        write_repr(out, item, depth + 1);
    }
    out.push(close);
}

fn write_entries(out: &mut String, entries: &[(Value, Value)], depth: usize) {
    out.push('{');
    for (index, (key, value)) in entries.iter().enumerate() {
        if index > 0 {
            out.push_str(", ");
        }
        write_repr(out, key, depth + 1);
        out.push_str(": ");
        write_repr(out, value, depth + 1);
    }
    out.push('}');
}

/// A text in quotes: single ones, unless it has only such.
fn quote(out: &mut String, text: &str) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => {
                out.push('\\');
                out.push(c);
            }
            c if is_printable(c) => out.push(c),
            c => push_escape(out, c),
        }
    }
    out.push(quote);
}

fn push_escape(out: &mut String, c: char) {
    let code = u32::from(c);
    let _ = match code {
        0..=0xff => write!(out, "\\x{code:02x}"),
        0x100..=0xffff => write!(out, "\\u{code:04x}"),
        _ => write!(out, "\\U{code:08x}"),
    };
}

/// `ascii(value)`: `repr` with every other character escaped.
pub(super) fn ascii(value: &Value) -> String {
    let mut out = String::new();
    for c in repr(value).chars() {
        if c.is_ascii() { out.push(c) } else { push_escape(&mut out, c) }
    }
    out
}
