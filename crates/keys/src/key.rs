/// One key of a recipe: everything that parsing, help, JSON schema and docs say about it.
///
/// A room declares its keys as constants with the builders below, each starting
/// from the kind of value. Names are dotted; the keys of a list's entries carry
/// `[]` (`data.train[].path`). A section needs a declaration of its own only
/// where it has a shorthand or is not supported yet.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) words: &'static [&'static str],
    pub(crate) words_later: &'static [&'static str],
    pub(crate) default: DefaultValue,
    pub(crate) doc: &'static str,
    pub(crate) unit: Option<&'static str>,
    pub(crate) later: Option<&'static str>,
    pub(crate) resume: Resume,
    pub(crate) excludes: &'static [&'static str],
    pub(crate) secret: Option<bool>,
    pub(crate) when: Option<Condition>,
}

/// A choice of the recipe, full name and words, under which a key means something.
pub(crate) type Condition = (&'static str, &'static [&'static str]);

/// What a value may be, besides the words that the key allows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// `true` or `false`.
    Bool,
    /// A whole number, both ends included.
    Int {
        /// Smallest value.
        min: i64,
        /// Largest value.
        max: i64,
    },
    /// A finite number.
    Float {
        /// Lower end.
        min: f64,
        /// Upper end.
        max: f64,
        /// Whether the lower end itself is refused.
        open_min: bool,
        /// Whether the upper end itself is refused.
        open_max: bool,
    },
    /// A number of bytes: `1500000000`, `512MB`, `1.5GiB`.
    Bytes,
    /// Any text.
    Text,
    /// A file or folder, made absolute.
    Path,
    /// A file or folder, or the name of something kept elsewhere (a hub id).
    PathOrName,
    /// One of the key's words and nothing else.
    Choice,
    /// A list of plain values; one value alone is a list of one.
    List {
        /// What the items are.
        item: &'static Kind,
        /// Fewest items.
        min: usize,
        /// Most items.
        max: usize,
    },
    /// A mapping that is handed on as it is.
    Map,
    /// Any YAML, handed on as it is.
    Any,
    /// A group of keys. A plain value in its place goes to the key named by the shorthand.
    Section {
        /// Name of a key within the section.
        shorthand: Option<&'static str>,
    },
    /// A list of groups of keys, with the same shorthand for every entry.
    Entries {
        /// Name of a key within an entry.
        shorthand: Option<&'static str>,
    },
}

/// What holds where a key is not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DefaultValue {
    /// Nothing: the key has no value.
    Unset,
    /// This value, as it would stand in a recipe.
    Text(&'static str),
    /// A value that the program chooses; the text says by what ("method and adapter").
    By(&'static str),
    /// The key, or one that it excludes, has to be given.
    Required,
}

/// Whether a resumed run may have another value than the run it goes on with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// It may.
    Free,
    /// It may, and the run says so.
    WithNote,
    /// It may not: a new run is needed.
    Never,
}

impl Key {
    const fn new(name: &'static str, kind: Kind) -> Key {
        Key {
            name,
            kind,
            words: &[],
            words_later: &[],
            default: DefaultValue::Unset,
            doc: "",
            unit: None,
            later: None,
            resume: Resume::Never,
            excludes: &[],
            secret: None,
            when: None,
        }
    }

    /// A key that is `true` or `false`.
    pub const fn bool(name: &'static str) -> Key {
        Key::new(name, Kind::Bool)
    }

    /// A whole number from `min` to `max`, both included.
    pub const fn int(name: &'static str, min: i64, max: i64) -> Key {
        Key::new(name, Kind::Int { min, max })
    }

    /// A number from `min` to `max`, both included; infinite ends are open.
    pub const fn float(name: &'static str, min: f64, max: f64) -> Key {
        Key::new(name, Kind::Float { min, max, open_min: false, open_max: false })
    }

    /// A number of bytes.
    pub const fn bytes(name: &'static str) -> Key {
        Key::new(name, Kind::Bytes)
    }

    /// Any text.
    pub const fn text(name: &'static str) -> Key {
        Key::new(name, Kind::Text)
    }

    /// A file or folder.
    pub const fn path(name: &'static str) -> Key {
        Key::new(name, Kind::Path)
    }

    /// A file or folder, or the name of something kept elsewhere.
    pub const fn path_or_name(name: &'static str) -> Key {
        Key::new(name, Kind::PathOrName)
    }

    /// One of `words`. A word such as `time:<column>` stands for all texts that begin with `time:`.
    pub const fn choice(name: &'static str, words: &'static [&'static str]) -> Key {
        Key { words, ..Key::new(name, Kind::Choice) }
    }

    /// A list of plain values.
    pub const fn list(name: &'static str, item: &'static Kind) -> Key {
        Key::new(name, Kind::List { item, min: 0, max: usize::MAX })
    }

    /// A mapping that is handed on as it is.
    pub const fn map(name: &'static str) -> Key {
        Key::new(name, Kind::Map)
    }

    /// Any YAML, handed on as it is.
    pub const fn any(name: &'static str) -> Key {
        Key::new(name, Kind::Any)
    }

    /// A group of keys: those whose names go on with a dot.
    pub const fn section(name: &'static str) -> Key {
        Key::new(name, Kind::Section { shorthand: None })
    }

    /// A list of groups of keys: those whose names go on with `[].`.
    pub const fn entries(name: &'static str) -> Key {
        Key::new(name, Kind::Entries { shorthand: None })
    }

    /// For a section or entries: a plain value stands for this key within.
    pub const fn shorthand(mut self, key: &'static str) -> Key {
        self.kind = match self.kind {
            Kind::Section { .. } => Kind::Section { shorthand: Some(key) },
            Kind::Entries { .. } => Kind::Entries { shorthand: Some(key) },
            _ => panic!("only sections and entries have a shorthand"),
        };
        self
    }

    /// Words that are allowed besides the key's kind, such as `auto`.
    pub const fn or(mut self, words: &'static [&'static str]) -> Key {
        self.words = words;
        self
    }

    /// Words of the design that this version refuses by name.
    pub const fn later_words(mut self, words: &'static [&'static str]) -> Key {
        self.words_later = words;
        self
    }

    /// Refuses the lower end of the range itself.
    pub const fn above_min(mut self) -> Key {
        self.kind = match self.kind {
            Kind::Float { min, max, open_max, .. } => {
                Kind::Float { min, max, open_min: true, open_max }
            }
            _ => panic!("only floats have open ends"),
        };
        self
    }

    /// Refuses the upper end of the range itself.
    pub const fn below_max(mut self) -> Key {
        self.kind = match self.kind {
            Kind::Float { min, max, open_min, .. } => {
                Kind::Float { min, max, open_min, open_max: true }
            }
            _ => panic!("only floats have open ends"),
        };
        self
    }

    /// For a list: how many items it may have.
    pub const fn items(mut self, min: usize, max: usize) -> Key {
        self.kind = match self.kind {
            Kind::List { item, .. } => Kind::List { item, min, max },
            _ => panic!("only lists have items"),
        };
        self
    }

    /// The value where the key is not given, as it would stand in a recipe.
    pub const fn default(mut self, text: &'static str) -> Key {
        self.default = DefaultValue::Text(text);
        self
    }

    /// The program chooses the value by what `reason` names.
    pub const fn default_by(mut self, reason: &'static str) -> Key {
        self.default = DefaultValue::By(reason);
        self
    }

    /// The key, or one that it excludes, has to be given.
    pub const fn required(mut self) -> Key {
        self.default = DefaultValue::Required;
        self
    }

    /// What the program chooses the value by where it is not given.
    pub fn chosen_by(&self) -> Option<&'static str> {
        match self.default {
            DefaultValue::By(what) => Some(what),
            DefaultValue::Unset | DefaultValue::Text(_) | DefaultValue::Required => None,
        }
    }

    /// One line that says what the key does.
    pub const fn doc(mut self, doc: &'static str) -> Key {
        self.doc = doc;
        self
    }

    /// What the number counts: `steps`, `tokens`, `minutes`.
    pub const fn unit(mut self, unit: &'static str) -> Key {
        self.unit = Some(unit);
        self
    }

    /// The key, with all that stands below it, is refused by name in this
    /// version; the hint says what to do instead and may be empty.
    pub const fn later(mut self, hint: &'static str) -> Key {
        self.later = Some(hint);
        self
    }

    /// Whether a resumed run may change the key; [`Resume::Never`] where nothing is said.
    pub const fn on_resume(mut self, resume: Resume) -> Key {
        self.resume = resume;
        self
    }

    /// Keys (full names) that cannot be given together with this one. Said on one side, it holds for both.
    pub const fn excludes(mut self, names: &'static [&'static str]) -> Key {
        self.excludes = names;
        self
    }

    /// Whether this key and another one of the same name never hold at once.
    pub(crate) fn is_disjoint(&self, other: &Key) -> bool {
        match (self.when, other.when) {
            (Some((name, words)), Some((other, others))) => {
                name == other && !words.iter().any(|word| others.contains(word))
            }
            _ => false,
        }
    }

    /// The key means something only where the choice `name` is one of `words`. Elsewhere it is refused with that
    /// reason, it has no default, and values that the program would choose for it are left out.
    /// A name may be declared several times where the conditions exclude each other.
    pub const fn when(mut self, name: &'static str, words: &'static [&'static str]) -> Key {
        self.when = Some((name, words));
        self
    }

    /// Overrules whether the value is a secret, which otherwise follows from the name (`..._token`).
    pub const fn secret(mut self, secret: bool) -> Key {
        self.secret = Some(secret);
        self
    }

    /// The full dotted name.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// What it does, as [`Key::doc`] was told.
    pub const fn doc_text(&self) -> &'static str {
        self.doc
    }

    /// The words that it takes.
    pub const fn words(&self) -> &'static [&'static str] {
        self.words
    }

    /// Its fixed default, as a recipe would write it.
    pub fn default_text(&self) -> Option<&'static str> {
        match self.default {
            DefaultValue::Text(text) => Some(text),
            DefaultValue::Unset | DefaultValue::By(_) | DefaultValue::Required => None,
        }
    }

    /// Whether a resumed run may change the value.
    pub const fn resume(&self) -> Resume {
        self.resume
    }

    /// Whether the value must never be written or shown.
    pub fn is_secret(&self) -> bool {
        self.secret.unwrap_or_else(|| is_secret_name(self.leaf()))
    }

    /// The last part of the name.
    pub(crate) fn leaf(&self) -> &'static str {
        self.name.rsplit('.').next().unwrap_or(self.name)
    }
}

/// Whether a value of this name is a secret: its name has `token`, `key`,
/// `secret` or `password` as a word. Names of a vocabulary's special tokens are not.
pub fn is_secret_name(name: &str) -> bool {
    const SPECIAL: [&str; 8] = ["bos", "eos", "pad", "unk", "sep", "cls", "mask", "eot"];
    let name = name.to_ascii_lowercase();
    let words: Vec<&str> = name.split(['_', '-', '.', ' ']).collect();
    if let [special, "token"] = words[..] {
        return !SPECIAL.contains(&special);
    }
    let secrets = ["token", "key", "secret", "password", "apikey", "passwd", "credentials"];
    words.iter().any(|word| secrets.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_known_by_their_names() {
        for name in ["token", "HF_TOKEN", "api_key", "client-secret", "password", "hub.token"] {
            assert!(is_secret_name(name), "{name}");
        }
        for name in
            ["max_new_tokens", "tokens_per_step", "eos_token", "keep", "monkey", "tokenizer"]
        {
            assert!(!is_secret_name(name), "{name}");
        }
    }

    #[test]
    fn builders_keep_what_was_said_before() {
        const RATE: Key = Key::float("train.learning_rate", 0.0, 1.0).above_min().below_max();
        let expected = Kind::Float { min: 0.0, max: 1.0, open_min: true, open_max: true };
        assert_eq!(RATE.kind, expected);
        assert_eq!(RATE.leaf(), "learning_rate");
    }
}
