use crate::{
    document::{Document, Settings as _},
    emit::flow,
    error::Place,
    key::Key,
    value::Value,
};
use std::fmt;

/// A key whose value is another than in the run so far.
#[derive(Clone, Debug)]
pub struct Change {
    /// The key's path.
    pub path: String,
    /// Its declaration, which says whether the change may be made.
    pub key: &'static Key,
    /// The value of the run so far.
    pub before: Option<Value>,
    /// The value now.
    pub after: Option<Value>,
    /// Where the value now stands.
    pub place: Place,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |value: &Option<Value>| match value {
            Some(value) => format!("`{}`", flow(value)),
            None => "not set".to_owned(),
        };
        write!(f, "`{}` is {}, was {}", self.path, show(&self.after), show(&self.before))
    }
}

impl Document {
    /// What differs from the document of the run so far, by path; secrets are not compared.
    pub fn changes(&self, before: &Document) -> Vec<Change> {
        let mut paths: Vec<&String> = before.settings.keys().chain(self.settings.keys()).collect();
        paths.sort();
        paths.dedup();
        paths.into_iter().filter_map(|path| self.change(before, path)).collect()
    }

    fn change(&self, before: &Document, path: &str) -> Option<Change> {
        let key = self.schema.key_at(path).filter(|key| !key.is_secret())?;
        let open = |document: &Document| {
            let setting = document.setting(path)?;
            let value = setting.written.as_ref().unwrap_or(&setting.value);
            Some(if key.secret == Some(false) { value.clone() } else { value.without_secrets() })
        };
        let (before, after) = (open(before), open(self));
        let place = self.place(path).clone();
        (before != after).then(|| Change { path: path.to_owned(), key, before, after, place })
    }
}
