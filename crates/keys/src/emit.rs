//! A resolved document back as YAML.

use crate::{
    document::{Document, Origin, Setting},
    error::Place,
    key::{Key, Kind},
    value::Value,
};
use std::fmt::Write as _;

/// Column that comments begin at, where the line leaves room.
const COMMENT_COLUMN: usize = 44;

impl Document {
    /// The document as a recipe: every value on a line of its own, with a
    /// comment that says where it comes from. Secrets are left out.
    ///
    /// Read back, it gives the same values.
    pub fn to_yaml(&self) -> String {
        let mut emitter = Emitter { document: self, yaml: String::new() };
        emitter.group("", "", 0, "");
        emitter.yaml
    }
}

/// Appends a line with its comment.
fn line(yaml: &mut String, text: &str, comment: &str) {
    let gap = COMMENT_COLUMN.saturating_sub(text.chars().count()).max(2);
    let comment = comment.replace(['\n', '\r'], " ");
    match comment.is_empty() {
        true => yaml.push_str(text),
        false => _ = write!(yaml, "{text}{:gap$}# {comment}", ""),
    }
    yaml.push('\n');
}

struct Emitter<'a> {
    document: &'a Document,
    yaml: String,
}

impl Emitter<'_> {
    /// Writes all that stands below a group; `first` goes before its first line.
    fn group(&mut self, name: &str, path: &str, depth: usize, first: &str) {
        let mut first = Some(first);
        for child in self.children(name) {
            let leaf = child.rsplit('.').next().unwrap_or(&child);
            let path = if path.is_empty() { leaf.to_owned() } else { format!("{path}.{leaf}") };
            let indent = "  ".repeat(depth);
            let key = self.document.schema.key(&child);
            if let Some(Key { kind: Kind::Entries { .. }, .. }) = key {
                let Some(&count) = self.document.lists.get(&path) else { continue };
                let start = first.take().filter(|f| !f.is_empty()).unwrap_or(&indent).to_owned();
                let empty = if count == 0 { " []" } else { "" };
                line(&mut self.yaml, &format!("{start}{leaf}:{empty}"), "");
                for i in 0..count {
                    let first = format!("{indent}  - ");
                    self.group(&format!("{child}[]"), &format!("{path}.{i}"), depth + 2, &first);
                }
            } else if let Some(setting) = self.document.settings.get(&path) {
                let start = first.take().filter(|f| !f.is_empty()).unwrap_or(&indent).to_owned();
                let key = key.expect("a setting's key is declared");
                self.setting(key, leaf, setting, &start);
            } else if self.has_below(&path) {
                let start = first.take().filter(|f| !f.is_empty()).unwrap_or(&indent).to_owned();
                line(&mut self.yaml, &format!("{start}{leaf}:"), "");
                self.group(&child, &path, depth + 1, "");
            }
        }
    }

    fn setting(&mut self, key: &Key, leaf: &str, setting: &Setting, start: &str) {
        let open = |value: &Value| match key.secret {
            Some(false) => value.clone(),
            _ => value.without_secrets(),
        };
        let value = match &setting.written {
            Some(written) if key.is_secret() => flow_raw(written),
            Some(written) => flow_raw(&open(written)),
            None if key.is_secret() => {
                return line(
                    &mut self.yaml,
                    &format!("{start}# {leaf}: a secret, not written"),
                    "",
                );
            }
            None => flow(&open(&setting.value)),
        };
        line(&mut self.yaml, &format!("{start}{leaf}: {value}"), &origin(setting));
    }

    /// The names right below a group, in the order of declaration.
    fn children(&self, name: &str) -> Vec<String> {
        let start = if name.is_empty() { String::new() } else { format!("{name}.") };
        let mut children: Vec<String> = Vec::new();
        for key in self.document.schema.keys() {
            let Some(rest) = key.name.strip_prefix(&start) else { continue };
            let leaf = rest.split(['.', '[']).next().unwrap_or(rest);
            let child = format!("{start}{leaf}");
            if !children.contains(&child) {
                children.push(child);
            }
        }
        children
    }

    fn has_below(&self, path: &str) -> bool {
        let start = format!("{path}.");
        self.document.settings.keys().any(|path| path.starts_with(&start))
            || self.document.lists.keys().any(|path| path.starts_with(&start))
    }
}

fn origin(setting: &Setting) -> String {
    match (&setting.origin, &setting.place) {
        (Origin::Chosen(reason), _) => reason.clone(),
        (Origin::Default, _) => "default".to_owned(),
        (Origin::Given, Place::Argument(_)) => "given on the command line".to_owned(),
        (Origin::Given, _) => "given".to_owned(),
    }
}

/// The value on one line, as it reads when nothing in it is a variable.
pub(crate) fn flow(value: &Value) -> String {
    let scalar = |text: &str| scalar(&text.replace("${", "$${"));
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Float(value) => float(*value),
        Value::Word(text) | Value::Text(text) => scalar(text),
        Value::Path(path) => scalar(&path.to_string_lossy()),
        Value::Locator(locator) => scalar(&locator.to_string()),
        Value::List(items) => list(items, flow),
        Value::Map(entries) => map(entries, flow),
    }
}

/// The value on one line with its variables left in place.
fn flow_raw(value: &Value) -> String {
    match value {
        Value::Text(text) => scalar(text),
        Value::List(items) => list(items, flow_raw),
        Value::Map(entries) => map(entries, flow_raw),
        value => flow(value),
    }
}

fn list(items: &[Value], flow: fn(&Value) -> String) -> String {
    format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", "))
}

fn map(entries: &[(String, Value)], flow: fn(&Value) -> String) -> String {
    let entry = |(name, value): &(String, Value)| format!("{}: {}", scalar(name), flow(value));
    format!("{{{}}}", entries.iter().map(entry).collect::<Vec<_>>().join(", "))
}

/// The shortest form that reads back as the same number, for readers of YAML 1.1
/// too: those take `2e-4` for text and want `2.0e-4`.
fn float(value: f64) -> String {
    let magnitude = value.abs();
    if magnitude == 0.0 || (1e-3..1e7).contains(&magnitude) {
        return format!("{value:?}");
    }
    let text = format!("{value:e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let point = if mantissa.contains('.') { "" } else { ".0" };
    let sign = if exponent.starts_with('-') { "" } else { "+" };
    format!("{mantissa}{point}e{sign}{exponent}")
}

/// A text, in quotes wherever it could be read as something else.
fn scalar(text: &str) -> String {
    const RESERVED: [&str; 9] = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    let plain = |c: char| c.is_alphanumeric() || "_-./:<>+=@~".contains(c);
    let safe = text.starts_with(|c: char| c.is_alphabetic() || c == '_' || c == '/')
        && text.chars().all(plain)
        && !text.ends_with(':')
        && !RESERVED.contains(&text.to_ascii_lowercase().as_str());
    if safe { text.to_owned() } else { quoted(text) }
}

fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            c if c.is_control() || ('\u{2028}'..='\u{2029}').contains(&c) || c == '\u{feff}' => {
                _ = write!(quoted, "\\U{:08x}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
