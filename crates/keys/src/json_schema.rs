use crate::{
    key::{DefaultValue, Key, Kind},
    schema::Schema,
    yaml,
};
use serde_json::{Map, Value as Json, json};

impl Schema {
    /// The supported keys as a JSON schema (draft 2020-12), for editors.
    pub fn json_schema(&self) -> Json {
        let mut root = object();
        root.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
        for key in self.keys().filter(|key| self.later(key.name).is_none()) {
            let parts: Vec<&str> = key.name.split('.').collect();
            place(&mut root, &parts, key);
        }
        for key in self.keys().filter(|key| self.later(key.name).is_none()) {
            if let Kind::Section { shorthand: Some(leaf) }
            | Kind::Entries { shorthand: Some(leaf) } = key.kind
            {
                let parts: Vec<&str> = key.name.split('.').collect();
                shorten(&mut root, &parts, leaf);
            }
        }
        Json::Object(root)
    }
}

fn object() -> Map<String, Json> {
    let json = json!({"type": "object", "properties": {}, "additionalProperties": false});
    let Json::Object(object) = json else { unreachable!("an object was written above") };
    object
}

/// The group's schema for a part of a name, made where it does not exist.
fn child<'a>(group: &'a mut Map<String, Json>, part: &str) -> &'a mut Map<String, Json> {
    let (leaf, listed) = match part.strip_suffix("[]") {
        Some(leaf) => (leaf, true),
        None => (part, false),
    };
    let new = || match listed {
        true => json!({"type": "array", "items": object()}),
        false => Json::Object(object()),
    };
    let properties = group["properties"].as_object_mut().expect("a group has properties");
    let found = properties.entry(leaf).or_insert_with(new);
    let found = if listed { &mut found["items"] } else { found };
    found.as_object_mut().expect("a group is an object")
}

fn place(root: &mut Map<String, Json>, parts: &[&str], key: &Key) {
    let [groups @ .., leaf] = parts else { return };
    let group = groups.iter().fold(root, |group, part| child(group, part));
    match key.kind {
        Kind::Section { .. } => {
            child(group, leaf).insert("description".to_owned(), json!(key.doc));
        }
        Kind::Entries { .. } => {
            child(group, &format!("{leaf}[]"));
            group["properties"][*leaf]["description"] = json!(key.doc);
        }
        _ => {
            group["properties"][*leaf] = value(key);
        }
    }
}

/// Lets a plain value stand for the group, as its shorthand does.
fn shorten(root: &mut Map<String, Json>, parts: &[&str], shorthand: &str) {
    let [groups @ .., leaf] = parts else { return };
    let group = groups.iter().fold(root, |group, part| unwrap(child(group, part)));
    let whole = &mut group["properties"][*leaf];
    let listed = whole["type"] == "array";
    let entry = if listed { &mut whole["items"] } else { &mut *whole };
    let plain = unwrap(entry.as_object_mut().expect("a group"))["properties"][shorthand].clone();
    *entry = json!({"anyOf": [entry.take(), plain]});
    if listed {
        let (description, entry) = (whole["description"].clone(), whole["items"].clone());
        *whole = json!({"description": description, "anyOf": [whole.take(), entry]});
    }
}

/// The group itself, where a shorthand has already been put beside it.
fn unwrap(group: &mut Map<String, Json>) -> &mut Map<String, Json> {
    match group.contains_key("anyOf") {
        true => group["anyOf"][0].as_object_mut().expect("the group comes first"),
        false => group,
    }
}

fn value(key: &Key) -> Json {
    let mut forms = Vec::new();
    if let Some(form) = kind(&key.kind) {
        forms.push(form);
    }
    let (open, closed): (Vec<&str>, Vec<&str>) = key.words.iter().partition(|w| w.contains('<'));
    if !closed.is_empty() {
        forms.push(json!({"enum": closed}));
    }
    for word in open {
        let start = word.split('<').next().unwrap_or_default();
        forms.push(json!({"type": "string", "pattern": format!("^{start}.+")}));
    }
    let mut json = match forms.len() {
        1 => forms.remove(0),
        _ => json!({"anyOf": forms}),
    };
    json["description"] = json!(key.doc);
    if let DefaultValue::Text(text) = key.default
        && let Some(node) = yaml::parse_own(text)
    {
        json["default"] = node.to_value().to_json();
    }
    json
}

fn kind(kind: &Kind) -> Option<Json> {
    Some(match *kind {
        Kind::Bool => json!({"type": "boolean"}),
        Kind::Int { min, max } => {
            let mut json = json!({"type": "integer", "minimum": min});
            if max < i64::MAX {
                json["maximum"] = json!(max);
            }
            json
        }
        Kind::Float { min, max, open_min, open_max } => {
            let mut json = json!({"type": "number"});
            let ends = [
                (min, if open_min { "exclusiveMinimum" } else { "minimum" }),
                (max, if open_max { "exclusiveMaximum" } else { "maximum" }),
            ];
            for (end, name) in ends.into_iter().filter(|(end, _)| end.is_finite()) {
                json[name] = json!(end);
            }
            json
        }
        Kind::Bytes => json!({"type": ["integer", "string"]}),
        Kind::Text | Kind::Path | Kind::PathOrName => json!({"type": "string"}),
        Kind::Choice => return None,
        Kind::List { item, min, max } => {
            let item = self::kind(item).unwrap_or(json!({}));
            let mut list = json!({"type": "array", "items": item, "minItems": min});
            if max < usize::MAX {
                list["maxItems"] = json!(max);
            }
            match min <= 1 {
                true => json!({"anyOf": [list, item]}),
                false => list,
            }
        }
        Kind::Map => json!({"type": "object"}),
        Kind::Any => json!({}),
        Kind::Section { .. } | Kind::Entries { .. } => return None,
    })
}
