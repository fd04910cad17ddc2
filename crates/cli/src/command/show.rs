//! `tunesmith show`: a recipe with every value that a run would take, and why.

use clap::Args;
use keys::{Document, Settings as _, Value};
use serde_json::{Value as Json, json};
use train::recipe::{ModelSize, fill_by_data};

use super::subject::Recipe;
use crate::context::Context;
use crate::error::Result;

/// What to type, for `--help`.
pub(super) const EXAMPLES: &str = "Examples:
  tunesmith show recipe.yaml
  tunesmith show recipe.yaml adapter.rank=64 > resolved.yaml
  tunesmith show recipe.yaml --json

Values that depend on the model or the data are listed as open.";

/// What `show` is told.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    recipe: Recipe,
}

pub(super) fn run(arguments: &Arguments, context: &Context) -> Result<u8> {
    let mut document = arguments.recipe.document(context)?;
    let open = resolve(&mut document);
    let terminal = &context.terminal;
    if terminal.is_json() {
        terminal.result(to_json(&document, &open));
    } else {
        terminal.stream(&to_yaml(&document, &open));
    }
    Ok(0)
}

/// A key without a value yet.
#[derive(Debug, PartialEq)]
struct Open {
    key: String,
    /// What its value is chosen by.
    by: &'static str,
}

/// The smallest and the largest that data and model can be.
const EXTREMES: [usize; 2] = [1, 1 << 50];

/// Fills in what data and model have no say in. Returns what they do.
///
/// That shows by trying: a value that is the same for the smallest and the largest of them,
/// reason and all, does not depend on them.
fn resolve(document: &mut Document) -> Vec<Open> {
    let [small, large] = EXTREMES.map(|size| {
        let mut filled = document.clone();
        fill_by_data(&mut filled, size, ModelSize { parameters: size, hidden: size });
        filled
    });
    let mut open = Vec::new();
    for (key, value, reason) in small.chosen() {
        if document.setting(key).is_some() {
            continue;
        }
        match large.chosen().find(|(other, ..)| *other == key) {
            Some((_, same, why)) if (same, why) == (value, reason) => {
                document.choose(key, restated(value), reason);
            }
            _ => {
                let declared = document.schema().key_at(key);
                let by = declared.and_then(|key| key.chosen_by()).unwrap_or("data and model");
                open.push(Open { key: key.to_owned(), by });
            }
        }
    }
    open
}

/// A value as [`Document::choose`] takes it.
fn restated(value: &Value) -> Value {
    match value {
        Value::Word(word) => Value::Text(word.clone()),
        value => value.clone(),
    }
}

fn to_yaml(document: &Document, open: &[Open]) -> String {
    let mut yaml = document.to_yaml();
    if !open.is_empty() {
        yaml.push_str("# open until data and model are read:\n");
    }
    for Open { key, by } in open {
        yaml.push_str(&format!("#   {key}: by {by}\n"));
    }
    yaml
}

fn to_json(document: &Document, open: &[Open]) -> Json {
    let open: Vec<Json> =
        open.iter().map(|Open { key, by }| json!({"key": key, "by": by})).collect();
    json!({"resolved": document.to_json(), "open": open})
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn resolved(recipe: &str) -> (Document, Vec<Open>) {
        let around =
            keys::Surroundings { current_dir: Path::new("/now"), home: None, variable: &|_| None };
        let schema = train::recipe::schema();
        let mut document = schema.parse(recipe, Path::new("/r.yaml"), &[], &around).unwrap();
        let open = resolve(&mut document);
        (document, open)
    }

    const RECIPE: &str = "model: o/n\nmethod: sft\ndata: {train: a.jsonl}\n";

    #[test]
    fn what_data_decide_is_open() {
        let (document, open) = resolved(RECIPE);
        let keys: Vec<&str> = open.iter().map(|open| open.key.as_str()).collect();
        let expected = [
            "adapter.alpha",
            "adapter.rank",
            "train.batch_size",
            "train.evaluate_every.steps",
            "train.learning_rate",
        ];
        assert_eq!(keys, expected);
        assert_eq!(open[1].by, "number of rows");
        let yaml = to_yaml(&document, &open);
        assert!(yaml.contains("#   adapter.rank: by number of rows\n"), "{yaml}");
    }

    #[test]
    fn what_is_given_closes_what_follows_from_it() {
        let (document, open) = resolved(&format!("{RECIPE}adapter: {{rank: 8}}\n"));
        assert!(open.iter().all(|open| !open.key.starts_with("adapter.")), "{open:?}");
        assert_eq!(document.get_f64("adapter.alpha"), 16.0);
    }

    #[test]
    fn a_resolved_recipe_resolves_to_itself() {
        let (document, _) = resolved(RECIPE);
        let (again, _) = resolved(&document.to_yaml());
        for (key, value, _) in document.chosen() {
            assert_eq!(again.value(key), Some(value), "{key}");
        }
    }

    #[test]
    fn a_program_gets_both_lists() {
        let (document, open) = resolved(RECIPE);
        let json = to_json(&document, &open);
        assert_eq!(json["open"][1], json!({"key": "adapter.rank", "by": "number of rows"}));
        let method =
            json!({"key": "method", "value": "sft", "from": "given", "why": "/r.yaml:2:9"});
        assert!(json["resolved"].as_array().unwrap().contains(&method), "{json}");
    }
}
