//! `tojson` as Python's `json.dumps` writes it.

use super::call::{Args, text};
use super::value::Value;
use super::{Failure, Result, compare, number, repr};

/// How deep a value may be nested.
const MAX_DEPTH: usize = 200;

/// How to lay out: the keyword arguments of `json.dumps`.
struct Layout {
    ensure_ascii: bool,
    indent: Option<String>,
    item_separator: String,
    key_separator: String,
    sort_keys: bool,
}

/// The filter of `transformers`: `tojson(ensure_ascii=False, indent=None, separators=None, sort_keys=False)`.
///
/// Jinja's own filter escapes HTML; a chat template never wants that.
pub(super) fn tojson(value: &Value, args: Args) -> Result<Value> {
    let parameters = ["ensure_ascii", "indent", "separators", "sort_keys"];
    let [ensure_ascii, indent, separators, sort_keys] = args.bind("tojson", parameters, 0)?;
    let indent = match indent.filter(|indent| !indent.is_none()) {
        Some(Value::Text(indent) | Value::Markup(indent)) => Some(indent.to_string()),
        Some(indent) => Some(" ".repeat(super::call::whole(&indent)?.clamp(0, 64) as usize)),
        None => None,
    };
    let is_set = |value: Option<Value>| value.is_some_and(|value| value.is_true());
    let (item_separator, key_separator) = match separators.filter(|pair| !pair.is_none()) {
        Some(pair) => match pair.iterate()?.as_slice() {
            [item, key] => (text(item)?.to_owned(), text(key)?.to_owned()),
            _ => return Err(Failure::new("`separators` is a pair of texts")),
        },
        None if indent.is_some() => (",".into(), ": ".into()),
        None => (", ".into(), ": ".into()),
    };
    let (ensure_ascii, sort_keys) = (is_set(ensure_ascii), is_set(sort_keys));
    let layout = Layout { ensure_ascii, indent, item_separator, key_separator, sort_keys };
    layout.json(value).map(Value::text)
}

/// What the filter writes without arguments.
pub(super) fn usual(value: &Value) -> Result<String> {
    let (item_separator, key_separator) = (", ".into(), ": ".into());
    let layout = Layout {
        ensure_ascii: false,
        indent: None,
        item_separator,
        key_separator,
        sort_keys: false,
    };
    layout.json(value)
}

impl Layout {
    fn json(&self, value: &Value) -> Result<String> {
        let mut out = String::new();
        self.write(&mut out, value, 0)?;
        Ok(out)
    }

    fn write(&self, out: &mut String, value: &Value, depth: usize) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(Failure::new("the value is nested too deeply for JSON"));
        }
        match value {
            Value::None => out.push_str("null"),
            Value::Bool(flag) => out.push_str(if *flag { "true" } else { "false" }),
            Value::Float(value) => out.push_str(&float(*value)),
            Value::Int(_) | Value::Big(_) => repr::write_str(out, value),
            Value::Text(text) | Value::Markup(text) => self.string(out, text),
            Value::Dict(dict) => self.dict(out, dict.entries(), depth)?,
            Value::List(items) | Value::Tuple(items) | Value::Group(items) => {
                self.list(out, items, depth)?;
            }
            other => {
                let message =
                    format!("Object of type {} is not JSON serializable", other.type_name());
                return Err(Failure::new(message));
            }
        }
        Ok(())
    }

    fn list(&self, out: &mut String, items: &[Value], depth: usize) -> Result<()> {
        out.push('[');
        for (index, item) in items.iter().enumerate() {
            self.separate(out, index == 0, depth + 1);
            self.write(out, item, depth + 1)?;
        }
        self.close(out, items.is_empty(), depth, ']');
        Ok(())
    }

    fn dict(&self, out: &mut String, entries: &[(Value, Value)], depth: usize) -> Result<()> {
        let values = entries
            .iter()
            .map(|(key, value)| (key.clone(), Value::tuple(vec![key.clone(), value.clone()])));
        let entries = if self.sort_keys {
            compare::sort(values.collect(), false)?
        } else {
            values.map(|(_, entry)| entry).collect()
        };
        out.push('{');
        for (index, entry) in entries.iter().enumerate() {
            let Some([key, value]) = entry.as_items() else { continue };
            self.separate(out, index == 0, depth + 1);
            self.string(out, &key_text(key)?);
            out.push_str(&self.key_separator);
            self.write(out, value, depth + 1)?;
        }
        self.close(out, entries.is_empty(), depth, '}');
        Ok(())
    }

    fn separate(&self, out: &mut String, is_first: bool, depth: usize) {
        if !is_first {
            out.push_str(&self.item_separator);
        }
        self.new_line(out, depth);
    }

    fn close(&self, out: &mut String, is_empty: bool, depth: usize, bracket: char) {
        if !is_empty {
            self.new_line(out, depth);
        }
        out.push(bracket);
    }

    fn new_line(&self, out: &mut String, depth: usize) {
        if let Some(indent) = &self.indent {
            out.push('\n');
            out.extend(std::iter::repeat_n(indent.as_str(), depth));
        }
    }

    fn string(&self, out: &mut String, text: &str) {
        out.push('"');
        for c in text.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                c if c < ' ' || (self.ensure_ascii && !(' '..='~').contains(&c)) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        out.push_str(&format!("\\u{unit:04x}"));
                    }
                }
                c => out.push(c),
            }
        }
        out.push('"');
    }
}

fn key_text(key: &Value) -> Result<String> {
    Ok(match key {
        Value::None => "null".into(),
        Value::Bool(flag) => if *flag { "true" } else { "false" }.into(),
        Value::Float(value) => float(*value),
        Value::Text(_) | Value::Markup(_) | Value::Int(_) | Value::Big(_) => repr::str(key),
        other => {
            let found = other.type_name();
            let message = format!("keys must be str, int, float, bool or None, not {found}");
            return Err(Failure::new(message));
        }
    })
}

fn float(value: f64) -> String {
    match value {
        value if value.is_nan() => "NaN".into(),
        f64::INFINITY => "Infinity".into(),
        f64::NEG_INFINITY => "-Infinity".into(),
        value => number::repr(value),
    }
}
