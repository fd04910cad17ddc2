use crate::{
    error::{Fault, Place, Problem},
    key::{Key, Kind},
    path::Locator,
    read,
    schema::{Schema, is_index, parent},
    value::Value,
};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// What a recipe may refer to outside of itself; the caller knows it, this crate does not look.
pub struct Surroundings<'a> {
    /// The current folder, absolute: relative paths of the command line are relative to it.
    pub current_dir: &'a Path,
    /// What `~` stands for.
    pub home: Option<&'a Path>,
    /// The value of `${NAME}`.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The recipe or the command line.
    Given,
    /// The key's own default.
    Default,
    /// The program chose it, for this reason.
    Chosen(String),
}

/// A key's value, where it stands and where it comes from.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    /// The value.
    pub value: Value,
    /// Where it stands.
    pub place: Place,
    /// Where it comes from.
    pub origin: Origin,
    /// What to write instead of a value that came from a secret variable.
    pub(crate) written: Option<Value>,
}

/// A recipe with its overrides and defaults: every value right in itself.
///
/// Values are asked for by path with the getters of [`Settings`].
#[derive(Clone, Debug)]
pub struct Document {
    pub(crate) schema: Schema,
    pub(crate) file: Place,
    pub(crate) settings: BTreeMap<String, Setting>,
    pub(crate) lists: BTreeMap<String, usize>,
    pub(crate) places: BTreeMap<String, Place>,
}

/// A group of keys of a document, or one entry of a list: paths go on from its own.
#[derive(Clone, Debug)]
pub struct Section<'a> {
    document: &'a Document,
    path: String,
}

impl Document {
    /// Whether a key means something beside the choices of the recipe; see [`Key::when`].
    pub(crate) fn holds(&self, key: &Key) -> bool {
        key.when.is_none_or(|(name, words)| {
            self.opt_str(name).is_some_and(|chosen| words.contains(&chosen))
        })
    }

    /// The declaration of a path that holds beside the choices of the recipe.
    pub(crate) fn key_that_holds(&self, path: &str) -> Option<&'static Key> {
        let variants = self.schema.variants(&self.schema.name_of(path));
        variants.iter().copied().find(|key| self.holds(key))
    }

    /// Sets a key to what the program chose, in place of what was there. A key that means nothing beside the
    /// choices of the recipe is left out.
    ///
    /// Panics where the key does not take the value: that is a bug.
    pub fn choose(&mut self, path: &str, value: impl Into<Value>, reason: &str) {
        assert!(self.schema.key_at(path).is_some(), "`{path}` is not declared");
        let Some(key) = self.key_that_holds(path) else { return };
        let value = read::adopt(key, value.into())
            .unwrap_or_else(|takes| panic!("`{path}` is chosen wrongly: it takes {takes}"));
        for other in alternatives(&self.schema, path) {
            self.settings.remove(&other);
        }
        let origin = Origin::Chosen(reason.to_owned());
        let place = self.place(path).clone();
        if let Err((list, index, count)) = self.make_room(path, &place) {
            panic!("`{list}.{index}` is chosen, but the next entry is `{list}.{count}`");
        }
        self.settings.insert(path.to_owned(), Setting { value, place, origin, written: None });
    }

    /// As [`Document::choose`], but only where neither the key nor one that it excludes has a value.
    pub fn fill(&mut self, path: &str, value: impl Into<Value>, reason: &str) {
        let mut names = alternatives(&self.schema, path);
        names.push(path.to_owned());
        if names.iter().all(|name| !self.settings.contains_key(name)) {
            self.choose(path, value, reason);
        }
    }

    /// Every key that the program chose a value for, with the value and the reason, in the order of paths.
    pub fn chosen(&self) -> impl Iterator<Item = (&str, &Value, &str)> {
        self.settings.iter().filter_map(|(path, setting)| match &setting.origin {
            Origin::Chosen(reason) => Some((path.as_str(), &setting.value, reason.as_str())),
            Origin::Given | Origin::Default => None,
        })
    }

    /// Puts other files and folders in the place of those that the document names, where `other` knows one.
    pub fn relocate(&mut self, other: &dyn Fn(&Path) -> Option<PathBuf>) {
        for setting in self.settings.values_mut() {
            let values = std::iter::once(&mut setting.value).chain(&mut setting.written);
            values.for_each(|value| relocate(value, other));
        }
    }

    /// The keys of the document.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// Makes sure that the list entries on the way to a path exist. A new one
    /// may only stand right behind the last; otherwise fails with the list, the
    /// index asked for and the next one.
    pub(crate) fn make_room(
        &mut self,
        path: &str,
        place: &Place,
    ) -> Result<(), (String, usize, usize)> {
        let parts: Vec<&str> = path.split('.').collect();
        for (i, part) in parts.iter().enumerate().filter(|(_, part)| is_index(part)) {
            let list = parts[..i].join(".");
            let entries = matches!(
                self.schema.key_at(&list),
                Some(Key { kind: Kind::Entries { .. }, later: None, .. })
            );
            let (Ok(index), true) = (part.parse::<usize>(), entries) else { continue };
            let count = self.lists.entry(list.clone()).or_insert(0);
            if index > *count {
                return Err((list, index, *count));
            }
            *count = (*count).max(index + 1);
            for end in [i, i + 1] {
                self.places.entry(parts[..end].join(".")).or_insert_with(|| place.clone());
            }
        }
        Ok(())
    }

    /// Where a key stands, or the group that it would stand in.
    pub fn place(&self, path: &str) -> &Place {
        let ends = path.rmatch_indices('.').map(|(end, _)| end);
        let mut paths = [path.len()].into_iter().chain(ends).map(|end| &path[..end]);
        paths.find_map(|path| self.places.get(path)).unwrap_or(&self.file)
    }

    /// A mistake that shows only when values are seen together, at the place of one of them.
    pub fn error_at(
        &self,
        path: &str,
        message: impl Into<String>,
        hint: Option<String>,
    ) -> Problem {
        let place = self.place(path).clone();
        let (key, message) = (Some(path.to_owned()), message.into());
        Problem { fault: Fault::Invalid, place, key, message, hint }
    }
}

/// The paths beside this one that it excludes.
pub(crate) fn alternatives(schema: &Schema, path: &str) -> Vec<String> {
    let group = parent(path);
    let beside = |name: &&str| {
        let leaf = name.rsplit('.').next().unwrap_or(name);
        if group.is_empty() { leaf.to_owned() } else { format!("{group}.{leaf}") }
    };
    schema.excluded_by(&schema.name_of(path)).iter().map(beside).collect()
}

impl Settings for Document {
    fn document(&self) -> &Document {
        self
    }

    fn full(&self, path: &str) -> String {
        path.to_owned()
    }
}

impl Settings for Section<'_> {
    fn document(&self) -> &Document {
        self.document
    }

    fn full(&self, path: &str) -> String {
        match path {
            "" => self.path.clone(),
            path => format!("{}.{path}", self.path),
        }
    }
}

/// Getters by path: `train.learning_rate`, `data.train.0.path`.
///
/// `get_` is for keys that always have a value and panics where there is none,
/// since only a program can be wrong about that. `opt_` gives none where the
/// key has no value, and where it has one of its words (`auto`) in place of the
/// type asked for.
pub trait Settings {
    /// The document asked.
    fn document(&self) -> &Document;

    /// A path of the group as one of the document.
    fn full(&self, path: &str) -> String;

    /// The value with its place and origin.
    fn setting(&self, path: &str) -> Option<&Setting> {
        self.document().settings.get(&self.full(path))
    }

    /// The value.
    fn value(&self, path: &str) -> Option<&Value> {
        self.setting(path).map(|setting| &setting.value)
    }

    /// Whether the user gave the value.
    fn is_given(&self, path: &str) -> bool {
        self.setting(path).is_some_and(|setting| setting.origin == Origin::Given)
    }

    /// Whether the value is this word of the key's own.
    fn is_word(&self, path: &str, word: &str) -> bool {
        matches!(self.value(path), Some(Value::Word(own)) if own == word)
    }

    /// A boolean.
    fn opt_bool(&self, path: &str) -> Option<bool> {
        match self.value(path) {
            Some(Value::Bool(value)) => Some(*value),
            _ => None,
        }
    }

    /// A whole number.
    fn opt_i64(&self, path: &str) -> Option<i64> {
        match self.value(path) {
            Some(Value::Int(value)) => Some(*value),
            _ => None,
        }
    }

    /// A whole number that the key's range keeps from being negative.
    fn opt_usize(&self, path: &str) -> Option<usize> {
        let negative = || panic!("`{}` is negative", self.full(path));
        self.opt_i64(path).map(|int| usize::try_from(int).unwrap_or_else(|_| negative()))
    }

    /// A number.
    fn opt_f64(&self, path: &str) -> Option<f64> {
        match self.value(path) {
            Some(Value::Float(value)) => Some(*value),
            Some(Value::Int(value)) => Some(*value as f64),
            _ => None,
        }
    }

    /// A text, or one of the key's own words.
    fn opt_str(&self, path: &str) -> Option<&str> {
        match self.value(path) {
            Some(Value::Text(text) | Value::Word(text)) => Some(text),
            _ => None,
        }
    }

    /// A file or folder.
    fn opt_path(&self, path: &str) -> Option<&Path> {
        match self.value(path) {
            Some(Value::Path(path)) => Some(path),
            _ => None,
        }
    }

    /// A file or folder, or a name.
    fn opt_locator(&self, path: &str) -> Option<&Locator> {
        match self.value(path) {
            Some(Value::Locator(locator)) => Some(locator),
            _ => None,
        }
    }

    /// A list of plain values.
    fn opt_items(&self, path: &str) -> Option<&[Value]> {
        match self.value(path) {
            Some(Value::List(items)) => Some(items),
            _ => None,
        }
    }

    /// A list of numbers.
    fn opt_f64s(&self, path: &str) -> Option<Vec<f64>> {
        let number = |value: &Value| match value {
            Value::Float(float) => Some(*float),
            Value::Int(int) => Some(*int as f64),
            _ => None,
        };
        self.opt_items(path)?.iter().map(number).collect()
    }

    /// A list of texts.
    fn opt_strs(&self, path: &str) -> Option<Vec<&str>> {
        let text = |value| match value {
            &Value::Text(ref text) | &Value::Word(ref text) => Some(text.as_str()),
            _ => None,
        };
        self.opt_items(path)?.iter().map(text).collect()
    }

    /// A mapping.
    fn opt_map(&self, path: &str) -> Option<&[(String, Value)]> {
        match self.value(path) {
            Some(Value::Map(entries)) => Some(entries),
            _ => None,
        }
    }

    /// A boolean; panics where there is none.
    fn get_bool(&self, path: &str) -> bool {
        self.opt_bool(path).unwrap_or_else(|| no_value(&self.full(path)))
    }

    /// A whole number; panics where there is none.
    fn get_i64(&self, path: &str) -> i64 {
        self.opt_i64(path).unwrap_or_else(|| no_value(&self.full(path)))
    }

    /// A whole number, not negative; panics where there is none.
    fn get_usize(&self, path: &str) -> usize {
        self.opt_usize(path).unwrap_or_else(|| no_value(&self.full(path)))
    }

    /// A number; panics where there is none.
    fn get_f64(&self, path: &str) -> f64 {
        self.opt_f64(path).unwrap_or_else(|| no_value(&self.full(path)))
    }

    /// A text or word; panics where there is none.
    fn get_str(&self, path: &str) -> &str {
        self.opt_str(path).unwrap_or_else(|| no_value(&self.full(path)))
    }

    /// A file or folder; panics where there is none.
    fn get_path(&self, path: &str) -> &Path {
        self.opt_path(path).unwrap_or_else(|| no_value(&self.full(path)))
    }

    /// A file, folder or name; panics where there is none.
    fn get_locator(&self, path: &str) -> &Locator {
        self.opt_locator(path).unwrap_or_else(|| no_value(&self.full(path)))
    }

    /// A group of keys.
    fn section(&self, path: &str) -> Section<'_> {
        Section { document: self.document(), path: self.full(path) }
    }

    /// The entries of a list of groups; none where the list is not given.
    fn entries(&self, path: &str) -> Vec<Section<'_>> {
        let path = self.full(path);
        let count = self.document().lists.get(&path).copied().unwrap_or(0);
        let entry = |i| Section { document: self.document(), path: format!("{path}.{i}") };
        (0..count).map(entry).collect()
    }

    /// As [`Document::error_at`], with a path of the group; an empty path means the group.
    fn problem(&self, path: &str, message: impl Into<String>, hint: Option<String>) -> Problem
    where
        Self: Sized,
    {
        self.document().error_at(&self.full(path), message, hint)
    }
}

fn no_value(path: &str) -> ! {
    panic!("`{path}` has no value of the type asked for")
}

fn relocate(value: &mut Value, other: &dyn Fn(&Path) -> Option<PathBuf>) {
    match value {
        Value::Path(path) => {
            if let Some(moved) = other(path) {
                *path = moved;
            }
        }
        Value::Locator(locator) if locator.is_path => {
            if let Some(moved) = other(&locator.path) {
                *locator = Locator::local(moved);
            }
        }
        Value::List(items) => items.iter_mut().for_each(|item| relocate(item, other)),
        _ => {}
    }
}
