use crate::{
    document::{Document, Surroundings},
    draft::Draft,
    error::Error,
    key::{DefaultValue, Key, Kind},
    read::{self, Folders},
    yaml,
};
use std::{collections::BTreeMap, path::Path};

/// All keys of a recipe, put together from the sections of several rooms.
#[derive(Clone, Debug)]
pub struct Schema {
    keys: Vec<&'static Key>,
    /// Several declarations of a name hold under different choices of one other key.
    by_name: BTreeMap<&'static str, Vec<&'static Key>>,
    excludes: BTreeMap<&'static str, Vec<&'static str>>,
}

/// What a path such as `data.train.0.path` leads to.
pub(crate) enum Target {
    /// A declared key.
    Key(&'static Key),
    /// A group of keys that has no declaration of its own.
    Section,
    /// One entry of a list.
    Element(&'static Key),
    /// A place within the value of a map, whose own path this is.
    Inside(String),
    /// Something of a later version, with the declaration that says so.
    Later(&'static Key),
    /// Nothing.
    Unknown,
}

impl Schema {
    /// Puts sections together, in this order.
    ///
    /// Panics where a declaration contradicts itself or another: that is a bug.
    pub fn new(sections: &[&'static [Key]]) -> Schema {
        let keys: Vec<&'static Key> = sections.iter().flat_map(|keys| keys.iter()).collect();
        let mut schema = Schema { keys, by_name: BTreeMap::new(), excludes: BTreeMap::new() };
        for key in &schema.keys {
            let known = schema.by_name.entry(key.name).or_default();
            let is_apart = known.iter().all(|other| other.is_disjoint(key));
            assert!(is_apart, "`{}` stands twice", key.name);
            known.push(key);
        }
        for key in &schema.keys {
            schema.assert_sound(key);
            for other in key.excludes {
                schema.excludes.entry(key.name).or_default().push(other);
                schema.excludes.entry(other).or_default().push(key.name);
            }
        }
        schema
    }

    /// Reads a recipe and puts the overrides, each `key=value`, over it.
    pub fn read(
        &self,
        path: &Path,
        overrides: &[String],
        around: &Surroundings<'_>,
    ) -> Result<Document, Error> {
        let bytes = std::fs::read(path);
        let text = bytes.and_then(|bytes| String::from_utf8(bytes).map_err(std::io::Error::other));
        let text = text.map_err(|source| Error::Read { path: path.to_owned(), source })?;
        self.parse(&text, path, overrides, around)
    }

    /// As [`Schema::read`], from a text that stands, or is to stand, at `path`.
    pub fn parse(
        &self,
        text: &str,
        path: &Path,
        overrides: &[String],
        around: &Surroundings<'_>,
    ) -> Result<Document, Error> {
        let mut draft = Draft::new(self, path, around);
        draft.recipe(text);
        overrides.iter().for_each(|argument| draft.argument(argument));
        draft.finish().map_err(Error::Recipe)
    }

    /// The keys in the order of their declaration, those of later versions too.
    pub fn keys(&self) -> impl Iterator<Item = &'static Key> + '_ {
        self.keys.iter().copied()
    }

    /// The declaration of a full name; entries' keys carry `[]`. Of several, which differ by
    /// [`Key::when`], the first.
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        self.variants(name).first().copied()
    }

    /// All declarations of a full name.
    pub(crate) fn variants(&self, name: &str) -> &[&'static Key] {
        self.by_name.get(name).map_or(&[], Vec::as_slice)
    }

    /// The declaration behind a path such as `data.train.0.path`.
    pub fn key_at(&self, path: &str) -> Option<&'static Key> {
        self.key(&self.name_of(path))
    }

    /// The keys that this version supports, without groups.
    pub(crate) fn leaves(&self) -> impl Iterator<Item = &'static Key> + '_ {
        self.keys().filter(|key| {
            !matches!(key.kind, Kind::Section { .. } | Kind::Entries { .. })
                && self.later(key.name).is_none()
        })
    }

    /// The names that exclude this one, said on either side.
    pub(crate) fn excluded_by(&self, name: &str) -> &[&'static str] {
        self.excludes.get(name).map_or(&[], Vec::as_slice)
    }

    /// Whether any key's name goes on from this one.
    pub(crate) fn has_below(&self, name: &str) -> bool {
        let below = |key: &Key| {
            let rest = key.name.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with('.') || rest.starts_with("[]"))
        };
        self.keys.iter().any(|key| below(key))
    }

    /// Turns the indices of a path into `[]`.
    pub(crate) fn name_of(&self, path: &str) -> String {
        let mut name = String::new();
        for part in path.split('.') {
            let listed = matches!(self.key(&name), Some(Key { kind: Kind::Entries { .. }, .. }));
            match listed && is_index(part) {
                true => name.push_str("[]"),
                false if name.is_empty() => name.push_str(part),
                false => name = format!("{name}.{part}"),
            }
        }
        name
    }

    pub(crate) fn target(&self, path: &str) -> Target {
        let name = self.name_of(path);
        if let Some(key) = self.later(&name) {
            return Target::Later(key);
        }
        if let Some(key) = self.key(&name) {
            return Target::Key(key);
        }
        if let Some(key) = name.strip_suffix("[]").and_then(|list| self.key(list)) {
            return Target::Element(key);
        }
        if self.has_below(&name) {
            return Target::Section;
        }
        for (end, _) in path.rmatch_indices('.') {
            if let Some(Key { kind: Kind::Map, .. }) = self.key_at(&path[..end]) {
                return Target::Inside(path[..end].to_owned());
            }
        }
        Target::Unknown
    }

    /// The declaration by which a name belongs to a later version.
    pub(crate) fn later(&self, name: &str) -> Option<&'static Key> {
        let ends = name.match_indices(['.', '[']).map(|(end, _)| end).chain([name.len()]);
        ends.filter_map(|end| self.key(&name[..end])).find(|key| key.later.is_some())
    }

    fn assert_sound(&self, key: &'static Key) {
        let name = key.name;
        assert!(!key.doc.is_empty(), "`{name}` has no doc");
        for other in key.excludes {
            assert!(self.key(other).is_some(), "`{name}` excludes `{other}`, which does not exist");
            assert_eq!(parent(name), parent(other), "`{name}` and `{other}` stand in one group");
        }
        if let Some((list, _)) = name.rsplit_once("[].") {
            let entries = matches!(self.key(list), Some(Key { kind: Kind::Entries { .. }, .. }));
            assert!(entries, "`{name}` needs `Key::entries(\"{list}\")`");
        }
        match key.kind {
            Kind::Section { shorthand: Some(leaf) } => {
                assert!(
                    self.key(&format!("{name}.{leaf}")).is_some(),
                    "`{name}.{leaf}` is missing"
                );
            }
            Kind::Entries { shorthand: Some(leaf) } => {
                let full = format!("{name}[].{leaf}");
                assert!(self.key(&full).is_some(), "`{full}` is missing");
            }
            Kind::Choice => assert!(!key.words.is_empty(), "`{name}` has no choices"),
            _ => {}
        }
        if let Some((other, words)) = key.when {
            let other = self.key(other).unwrap_or_else(|| panic!("`{name}` asks for `{other}`"));
            assert!(other.when.is_none(), "`{name}` asks for a key that has a condition itself");
            let is_known = |word| other.words.contains(word) || other.words_later.contains(word);
            assert!(words.iter().all(is_known), "`{name}` asks for a word of `{}`", other.name);
        }
        if let DefaultValue::Text(text) = key.default {
            let folders = Folders { base: Path::new("/"), home: Some(Path::new("/")) };
            let fits =
                yaml::parse_own(text).is_some_and(|node| read::read(key, &node, &folders).is_ok());
            assert!(fits, "`{name}` does not take its own default `{text}`");
        }
    }
}

/// The group that a name stands in.
pub(crate) fn parent(name: &str) -> &str {
    name.rsplit_once('.').map_or("", |(parent, _)| parent)
}

pub(crate) fn is_index(part: &str) -> bool {
    !part.is_empty() && part.len() <= 9 && part.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "`rank` does not take its own default `0`")]
    fn a_default_out_of_range_is_a_bug() {
        static KEYS: &[Key] = &[Key::int("rank", 1, 2).default("0").doc("Rank.")];
        Schema::new(&[KEYS]);
    }

    #[test]
    #[should_panic(expected = "`rank` stands twice")]
    fn two_rooms_cannot_declare_one_key() {
        static KEYS: &[Key] = &[Key::int("rank", 1, 2).doc("Rank.")];
        Schema::new(&[KEYS, KEYS]);
    }

    #[test]
    #[should_panic(expected = "`data[].path` needs `Key::entries(\"data\")`")]
    fn entries_are_declared() {
        static KEYS: &[Key] = &[Key::path("data[].path").doc("File.")];
        Schema::new(&[KEYS]);
    }

    #[test]
    fn indices_become_brackets_only_in_lists() {
        static KEYS: &[Key] = &[
            Key::entries("train").doc("Rows."),
            Key::path("train[].path").doc("File."),
            Key::map("columns").doc("Names."),
        ];
        let schema = Schema::new(&[KEYS]);
        assert_eq!(schema.name_of("train.10.path"), "train[].path");
        assert_eq!(schema.name_of("columns.0"), "columns.0");
        assert!(matches!(schema.target("columns.0.x"), Target::Inside(path) if path == "columns"));
        assert!(matches!(schema.target("train.0"), Target::Element(_)));
        assert!(matches!(schema.target("trai"), Target::Unknown));
    }
}
