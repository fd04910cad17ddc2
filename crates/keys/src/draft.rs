//! From YAML and overrides to a document, collecting every mistake on the way.

use crate::{
    document::{Document, Origin, Setting, Settings as _, Surroundings, alternatives},
    error::{Fault, Place, Problem},
    key::{DefaultValue, Key, Kind, is_secret_name},
    peers,
    read::{self, Folders},
    schema::{Schema, Target, parent},
    suggest,
    value::Value,
    variable, yaml,
    yaml::{Content, Node},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

/// A document in the making.
pub(crate) struct Draft<'a> {
    schema: &'a Schema,
    around: &'a Surroundings<'a>,
    /// The folder of the recipe, absolute.
    folder: PathBuf,
    document: Document,
    /// Plain values at the top of the recipe, which peers' names are converted with.
    top: BTreeMap<String, String>,
    /// Whether the recipe could be read to its end, so that what is not there is missing.
    is_whole: bool,
    problems: Vec<Problem>,
    /// Values of keys that have a condition, to be read when all others are known.
    conditional: Vec<Assignment>,
}

/// A value on its way to its key.
struct Assignment {
    path: String,
    place: Place,
    node: Node,
    source: Source,
}

/// Whether an assignment comes from the recipe or goes over it.
#[derive(Clone, Copy, PartialEq)]
enum Source {
    Recipe,
    Override,
}

impl<'a> Draft<'a> {
    pub(crate) fn new(schema: &'a Schema, path: &Path, around: &'a Surroundings<'a>) -> Draft<'a> {
        let folder = around.current_dir.join(path.parent().unwrap_or(Path::new("")));
        let document = Document {
            schema: schema.clone(),
            file: Place::File(path.to_string_lossy().into()),
            settings: BTreeMap::new(),
            lists: BTreeMap::new(),
            places: BTreeMap::new(),
        };
        let (top, problems, conditional) = (BTreeMap::new(), Vec::new(), Vec::new());
        Draft { schema, around, folder, document, top, is_whole: true, problems, conditional }
    }

    /// Takes the text of the recipe.
    pub(crate) fn recipe(&mut self, text: &str) {
        let file: Arc<str> = self.document.file.file().unwrap_or_default().into();
        let place = |line, column| Place::Line { file: file.clone(), line, column };
        let parsed = yaml::parse(text, &place);
        self.problems.extend(parsed.problems);
        let Some(root) = parsed.root else {
            self.is_whole = false;
            return;
        };
        let place = root.place.clone();
        let Content::Map(entries) = root.content else {
            let hint = Some("write `key: value` lines".to_owned());
            let message = format!("a recipe is a mapping of keys, not {}", kind_of(&root));
            self.is_whole = false;
            return self.problem(Fault::WrongType, &place, None, message, hint);
        };
        for entry in &entries {
            if let Content::Scalar { text, .. } = &entry.node.content {
                self.top.insert(entry.name.clone(), text.clone());
            }
        }
        for entry in &entries {
            self.assign(&entry.name, &entry.place, &entry.node, Source::Recipe);
        }
    }

    /// Takes one `key=value` of the command line.
    pub(crate) fn argument(&mut self, argument: &str) {
        let Some((path, text)) = argument.split_once('=').filter(|(path, _)| !path.is_empty())
        else {
            let place = Place::Argument(argument.into());
            let hint = Some("write it as `train.epochs=3`".to_owned());
            return self.problem(Fault::Syntax, &place, None, "is not `key=value`".into(), hint);
        };
        let path = path.trim();
        let secret = self.schema.key_at(path).map_or(is_secret_name(path), Key::is_secret);
        let shown = if secret { format!("{path}=...") } else { argument.to_owned() };
        let place = Place::Argument(shown.into());
        let parsed = yaml::parse(text, &|_, _| place.clone());
        self.problems.extend(parsed.problems);
        let Some(mut node) = parsed.root else { return };
        if text.trim().is_empty() {
            // An empty document is an empty mapping, but here it is no value.
            node.content = Content::Scalar { text: String::new(), quoted: false };
        }
        self.replace(path, &place, &node);
    }

    /// Puts a value in place of all that stands at and below a path.
    fn replace(&mut self, path: &str, place: &Place, node: &Node) {
        if let Target::Inside(map) = self.schema.target(path) {
            return self.set_inside(&map, path, node);
        }
        let below = format!("{path}.");
        self.document.settings.retain(|name, _| name != path && !name.starts_with(&below));
        self.document.places.retain(|name, _| name != path && !name.starts_with(&below));
        self.document.lists.retain(|name, _| name != path && !name.starts_with(&below));
        let others = alternatives(self.schema, path);
        self.conditional.retain(|other| {
            let other = &other.path;
            other != path && !other.starts_with(&below) && !others.contains(other)
        });
        for other in others {
            self.document.settings.remove(&other);
        }
        self.assign(path, place, node, Source::Override);
    }

    /// Gives a value to what stands at the path, key, group or entry.
    fn assign(&mut self, path: &str, place: &Place, node: &Node, source: Source) {
        if !self.make_room(path, place) {
            return;
        }
        match self.schema.target(path) {
            Target::Later(key) => self.refuse_later(key, path, place),
            Target::Unknown => self.refuse_unknown(path, place, node),
            Target::Section => self.assign_group(path, place, node, None, source),
            Target::Inside(..) => {
                let hint = "write it as a mapping within its group";
                let message = format!("`{path}` is a part of a value");
                self.problem(Fault::UnknownKey, place, Some(path), message, Some(hint.into()));
            }
            Target::Key(key) => match key.kind {
                Kind::Section { shorthand } => {
                    self.assign_group(path, place, node, shorthand, source);
                }
                Kind::Entries { .. } => self.assign_entries(path, place, node, source),
                _ if key.when.is_some() => self.conditional.push(Assignment {
                    path: path.to_owned(),
                    place: place.clone(),
                    node: node.clone(),
                    source,
                }),
                _ => self.assign_value(key, path, place, node, source),
            },
            Target::Element(key) => match key.kind {
                Kind::Entries { shorthand } if !node.is_null() => {
                    self.assign_group(path, place, node, shorthand, source);
                }
                _ => {
                    let message = format!("`{path}` has no value");
                    self.problem(Fault::WrongType, place, Some(path), message, None);
                }
            },
        }
    }

    /// Makes room in the lists on the way to a path.
    fn make_room(&mut self, path: &str, place: &Place) -> bool {
        let Err((list, index, count)) = self.document.make_room(path, place) else { return true };
        let message = format!("`{list}.{index}` has no entries before it");
        let hint = Some(format!("the next entry is `{list}.{count}`"));
        self.problem(Fault::UnknownKey, place, Some(path), message, hint);
        false
    }

    fn assign_group(
        &mut self,
        path: &str,
        place: &Place,
        node: &Node,
        shorthand: Option<&str>,
        source: Source,
    ) {
        self.document.places.insert(path.to_owned(), place.clone());
        match (&node.content, shorthand) {
            (Content::Map(entries), _) => {
                for entry in entries {
                    let path = format!("{path}.{}", entry.name);
                    self.assign(&path, &entry.place, &entry.node, source);
                }
            }
            (_, Some(key)) => self.assign(&format!("{path}.{key}"), place, node, source),
            // All keys of the group may be commented out.
            (_, None) if node.is_null() => {}
            (_, None) => {
                let message = format!("`{path}` is {}, but must be a mapping", quote(path, node));
                let hint = suggest::keys_of(self.schema, path);
                self.problem(Fault::WrongType, &node.place, Some(path), message, hint);
            }
        }
    }

    fn assign_entries(&mut self, path: &str, place: &Place, node: &Node, source: Source) {
        self.document.places.insert(path.to_owned(), place.clone());
        if node.is_null() {
            return;
        }
        self.document.lists.insert(path.to_owned(), 0);
        match &node.content {
            Content::List(items) => {
                for (i, item) in items.iter().enumerate() {
                    self.assign(&format!("{path}.{i}"), &item.place, item, source);
                }
            }
            // One entry needs no list around it.
            _ => self.assign(&format!("{path}.0"), &node.place, node, source),
        }
    }

    fn assign_value(
        &mut self,
        key: &'static Key,
        path: &str,
        place: &Place,
        node: &Node,
        source: Source,
    ) {
        if source == Source::Recipe && self.document.settings.contains_key(path) {
            let first = line_of(self.document.place(path));
            let message = format!("`{path}` is given twice, first{first}");
            let hint = Some("keep one of the two".to_owned());
            return self.problem(Fault::DuplicateKey, place, Some(path), message, hint);
        }
        if node.is_null() {
            if key.words.contains(&"none") {
                let message = format!("`{path}` has no value");
                let hint = "write `none` to switch it off, or leave the key out for its default";
                self.problem(Fault::WrongType, place, Some(path), message, Some(hint.into()));
            }
            // Elsewhere no value means the default, as if the key were not there.
            return;
        }
        self.document.places.insert(path.to_owned(), node.place.clone());
        let expanded = match variable::expand(node, self.around.variable) {
            Ok(expanded) => expanded,
            Err((name, node)) => {
                let message = format!("`{path}`: the variable `{name}` is not set");
                let hint = format!("set it, or write `$${{{name}}}` for the text itself");
                let (fault, key) = (Fault::MissingVariable, Some(path));
                return self.problem(fault, &node.place, key, message, Some(hint));
            }
        };
        let base = match source {
            Source::Recipe => &self.folder,
            Source::Override => self.around.current_dir,
        };
        let folders = Folders { base, home: self.around.home };
        match read::read(key, &expanded.node, &folders) {
            Ok(value) => {
                let (place, origin) = (node.place.clone(), Origin::Given);
                let written = expanded.secret.then(|| node.to_value());
                let setting = Setting { value, place, origin, written };
                self.document.settings.insert(path.to_owned(), setting);
            }
            Err((fault, message, hint)) => {
                let message = format!("`{path}` {message}");
                self.problem(fault, &node.place, Some(path), message, hint);
            }
        }
    }

    /// Sets one entry within the value of a map.
    fn set_inside(&mut self, map: &str, path: &str, node: &Node) {
        let place = node.place.clone();
        let setting = self.document.settings.entry(map.to_owned()).or_insert_with(|| Setting {
            value: Value::Map(Vec::new()),
            place: place.clone(),
            origin: Origin::Given,
            written: None,
        });
        let expanded = match variable::expand(node, self.around.variable) {
            Ok(expanded) => expanded,
            Err((name, _)) => {
                let message = format!("`{path}`: the variable `{name}` is not set");
                return self.problem(Fault::MissingVariable, &place, Some(path), message, None);
            }
        };
        let parts: Vec<&str> = path[map.len() + 1..].split('.').collect();
        if expanded.secret || setting.written.is_some() {
            let written = setting.written.get_or_insert_with(|| setting.value.clone());
            insert(written, &parts, node.to_value());
        }
        insert(&mut setting.value, &parts, expanded.node.to_value());
        (setting.place, setting.origin) = (place.clone(), Origin::Given);
        self.document.places.insert(map.to_owned(), place);
    }

    /// The document, or all mistakes in the order of their places.
    pub(crate) fn finish(mut self) -> Result<Document, Vec<Problem>> {
        // What conditions ask for has no condition itself.
        if self.is_whole {
            self.fill_defaults(|key| key.when.is_none());
        }
        self.read_conditional();
        self.refuse_conflicts();
        if self.is_whole {
            self.fill_defaults(|key| key.when.is_some());
        }
        if self.problems.is_empty() {
            return Ok(self.document);
        }
        self.problems.sort_by_key(|problem| match problem.place {
            Place::Line { line, column, .. } => (0, line, column),
            Place::Argument(_) => (1, 0, 0),
            Place::File(_) | Place::Program => (2, 0, 0),
        });
        Err(self.problems)
    }

    fn refuse_conflicts(&mut self) {
        let given = self.document.settings.iter();
        let given = given.filter(|(_, setting)| setting.origin == Origin::Given);
        let given: Vec<String> = given.map(|(path, _)| path.clone()).collect();
        let mut seen = BTreeSet::new();
        for path in &given {
            for other in alternatives(self.schema, path) {
                if !given.contains(&other) || !seen.insert(other.clone()) || seen.contains(path) {
                    continue;
                }
                let (mut first, mut second) = (path.as_str(), other.as_str());
                if self.document.place(second) < self.document.place(first) {
                    std::mem::swap(&mut first, &mut second);
                }
                let line = line_of(self.document.place(first));
                let message = format!("`{second}` cannot stand beside `{first}`{line}");
                let hint = Some("keep one of the two".to_owned());
                let place = self.document.place(second).clone();
                let key = second.to_owned();
                self.problem(Fault::Conflict, &place, Some(&key), message, hint);
            }
        }
    }

    fn fill_defaults(&mut self, wanted: impl Fn(&Key) -> bool) {
        for key in self.schema.keys().filter(|key| wanted(key)) {
            if self.schema.later(key.name).is_some() || !self.document.holds(key) {
                continue;
            }
            for path in self.instances(key.name) {
                self.fill_default(key, &path);
            }
        }
    }

    /// Reads the values of keys that have a condition, now that all others are known.
    fn read_conditional(&mut self) {
        for Assignment { path, place, node, source } in std::mem::take(&mut self.conditional) {
            if let Some(key) = self.document.key_that_holds(&path) {
                self.assign_value(key, &path, &place, &node, source);
            } else if !node.is_null() {
                self.refuse_idle(&path, &node.place);
            }
        }
    }

    /// Refuses a key that means nothing beside the choices of the recipe.
    fn refuse_idle(&mut self, path: &str, place: &Place) {
        let variants = self.schema.variants(&self.schema.name_of(path));
        let conditions = variants.iter().filter_map(|key| key.when);
        let (mut other, mut words) = ("", Vec::new());
        for (name, of_variant) in conditions {
            other = name;
            words.extend_from_slice(of_variant);
        }
        // Where the choice itself is wrong or missing, that is the mistake.
        let Some(chosen) = self.document.opt_str(other) else { return };
        let message = format!("`{path}` has no effect: `{other}` is `{chosen}`");
        let hint = format!("leave it out; it belongs to `{other}`: {}", words.join(", "));
        self.problem(Fault::Invalid, place, Some(path), message, Some(hint));
    }

    /// The paths that a name stands for: one for each entry of the lists on the way.
    fn instances(&self, name: &str) -> Vec<String> {
        let mut parts = name.split("[]");
        let mut paths = vec![parts.next().unwrap_or_default().to_owned()];
        for part in parts {
            let entries = |path: &String| {
                let count = self.document.lists.get(path).copied().unwrap_or(0);
                (0..count).map(|i| format!("{path}.{i}{part}")).collect::<Vec<_>>()
            };
            paths = paths.iter().flat_map(entries).collect();
        }
        paths
    }

    fn fill_default(&mut self, key: &'static Key, path: &str) {
        let is_there = |path: &String| {
            let document = &self.document;
            document.settings.contains_key(path)
                || document.places.contains_key(path) && !document.lists.contains_key(path)
                || document.lists.get(path).is_some_and(|count| *count > 0)
        };
        let mut paths = alternatives(self.schema, path);
        paths.push(path.to_owned());
        if paths.iter().any(is_there) {
            return;
        }
        match key.default {
            DefaultValue::Unset | DefaultValue::By(_) => {}
            DefaultValue::Required => self.refuse_missing(key, path, &paths),
            DefaultValue::Text(text) => {
                let folders = Folders { base: &self.folder, home: self.around.home };
                let node = yaml::parse_own(text);
                let value = node.map(|node| read::read(key, &node, &folders));
                let Some(Ok(value)) = value else {
                    unreachable!("a schema's defaults are sound: `{path}`")
                };
                let (place, origin) = (Place::Program, Origin::Default);
                let setting = Setting { value, place, origin, written: None };
                self.document.settings.insert(path.to_owned(), setting);
            }
        }
    }

    fn refuse_missing(&mut self, key: &Key, path: &str, paths: &[String]) {
        let group = parent(key.name);
        // `model.id` is what people know as `model`.
        let name = match self.schema.key(group).map(|key| key.kind) {
            Some(Kind::Section { shorthand: Some(leaf) }) if leaf == key.leaf() => group,
            _ => path,
        };
        let others: Vec<String> = paths.iter().rev().skip(1).map(|p| format!("`{p}`")).collect();
        let others =
            if others.is_empty() { "".into() } else { format!(", or {}", others.join(", ")) };
        let place = self.document.place(path).clone();
        let message = format!("`{name}`{others} is missing");
        let hint = Some(format!("{name}: {}", key.doc));
        self.problem(Fault::MissingKey, &place, Some(path), message, hint);
    }

    fn refuse_later(&mut self, key: &Key, path: &str, place: &Place) {
        let message = format!("`{path}` is not supported by this version");
        let hint = key.later.filter(|hint| !hint.is_empty()).map(str::to_owned);
        self.problem(Fault::Unsupported, place, Some(path), message, hint);
    }

    fn refuse_unknown(&mut self, path: &str, place: &Place, node: &Node) {
        let value = match &node.content {
            Content::Scalar { text, .. } if !node.is_null() => Some(text.as_str()),
            _ => None,
        };
        let hint = peers::explain(self.schema, path, value, &self.top)
            .or_else(|| suggest::did_you_mean(self.schema, path));
        let message = format!("unknown key `{path}`");
        self.problem(Fault::UnknownKey, place, Some(path), message, hint);
    }

    fn problem(
        &mut self,
        fault: Fault,
        place: &Place,
        key: Option<&str>,
        message: String,
        hint: Option<String>,
    ) {
        let (place, key) = (place.clone(), key.map(str::to_owned));
        self.problems.push(Problem { fault, place, key, message, hint });
    }
}

fn insert(value: &mut Value, parts: &[&str], new: Value) {
    let [part, rest @ ..] = parts else {
        *value = new;
        return;
    };
    if !matches!(value, Value::Map(_)) {
        *value = Value::Map(Vec::new());
    }
    let Value::Map(entries) = value else { return };
    let at = entries.iter().position(|(name, _)| name == part).unwrap_or_else(|| {
        entries.push(((*part).to_owned(), Value::Null));
        entries.len() - 1
    });
    insert(&mut entries[at].1, rest, new);
}

fn line_of(place: &Place) -> String {
    match place {
        Place::Line { line, .. } => format!(" on line {line}"),
        Place::Argument(argument) => format!(" in argument `{argument}`"),
        Place::File(_) | Place::Program => String::new(),
    }
}

fn kind_of(node: &Node) -> &'static str {
    match node.content {
        Content::Scalar { .. } => "plain text",
        Content::List(_) => "a list",
        Content::Map(_) => "a mapping",
    }
}

fn quote(path: &str, node: &Node) -> String {
    match node.content {
        Content::Scalar { .. } if is_secret_name(path) => "a text".to_owned(),
        Content::Scalar { .. } => format!("`{}`", node.show()),
        _ => kind_of(node).to_owned(),
    }
}
