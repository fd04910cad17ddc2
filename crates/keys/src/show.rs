//! The keys as text for `--help` and as Markdown for the docs.

use crate::{
    describe::describe,
    key::{DefaultValue, Key},
    schema::Schema,
};
use std::fmt::Write as _;

impl Schema {
    /// A table of all supported keys for a terminal: name, what it takes, default, doc.
    pub fn help(&self) -> String {
        let width = self.leaves().map(|key| key.name.len()).max().unwrap_or(0);
        let mut help = String::new();
        for key in self.leaves() {
            let default = match key.default {
                DefaultValue::Unset => String::new(),
                DefaultValue::Required => "; required".to_owned(),
                DefaultValue::Text(_) | DefaultValue::By(_) => {
                    format!("; default {}", default(key))
                }
            };
            let takes = format!("{}{default}{}", takes(key), condition(key)).replace('`', "");
            _ = writeln!(help, "{:width$}  {}\n{:width$}  {takes}", key.name, key.doc, "");
        }
        help
    }

    /// A Markdown table of all supported keys.
    pub fn markdown(&self) -> String {
        let mut table = String::from("| key | takes | default | |\n|---|---|---|---|\n");
        for key in self.leaves() {
            let cells = [takes(key) + &condition(key), default(key), key.doc.to_owned()];
            let [takes, default, doc] = cells.map(|cell| cell.replace('|', "\\|"));
            _ = writeln!(table, "| `{}` | {takes} | {default} | {doc} |", key.name);
        }
        table
    }
}

fn takes(key: &Key) -> String {
    match key.unit {
        Some(unit) => format!("{} ({unit})", describe(key)),
        None => describe(key),
    }
}

/// Under which choices the key means something.
fn condition(key: &Key) -> String {
    match key.when {
        Some((name, words)) => format!("; only with `{name}` {}", words.join(", ")),
        None => String::new(),
    }
}

fn default(key: &Key) -> String {
    match key.default {
        DefaultValue::Unset => String::new(),
        DefaultValue::Text(text) => format!("`{text}`"),
        DefaultValue::By(reason) => format!("by {reason}"),
        DefaultValue::Required => "required".to_owned(),
    }
}
