//! What somebody may have meant by a key that does not exist.

use crate::{
    nearest::{distance, slack},
    schema::{Schema, parent},
};
use std::collections::BTreeSet;

/// More suggestions than this are none.
const SUGGESTIONS_MAX: usize = 3;

/// The nearest names, by the full name or by the last part of it.
///
/// A name from the same group is nearer than an equally near one from another.
pub(crate) fn did_you_mean(schema: &Schema, path: &str) -> Option<String> {
    let name = schema.name_of(path);
    let leaf = name.rsplit('.').next().unwrap_or(&name);
    let mut near: Vec<(usize, &str)> = Vec::new();
    for key in schema.keys().filter(|key| schema.later(key.name).is_none()) {
        let whole = distance(&name, key.name);
        let part = distance(leaf, key.leaf());
        let strange = usize::from(parent(key.name) != parent(&name));
        let whole = (part <= slack(leaf, key.leaf()) && whole <= slack(&name, key.name))
            .then_some(2 * whole);
        let part = (part <= slack(leaf, key.leaf())).then_some(2 * part + strange);
        if let Some(score) = whole.into_iter().chain(part).min() {
            near.push((score, key.name));
        }
    }
    let best = near.iter().map(|(score, _)| *score).min()?;
    let names: Vec<String> =
        near.iter().filter(|near| near.0 == best).map(|near| format!("`{}`", near.1)).collect();
    match names.len() <= SUGGESTIONS_MAX {
        true => Some(format!("did you mean {}?", names.join(" or "))),
        false => None,
    }
}

/// The keys right below a path, as a hint.
pub(crate) fn keys_of(schema: &Schema, path: &str) -> Option<String> {
    let start = format!("{}.", schema.name_of(path));
    let open = schema.keys().filter(|key| schema.later(key.name).is_none());
    let below = open.filter_map(|key| key.name.strip_prefix(&start)?.split(['.', '[']).next());
    let mut seen = BTreeSet::new();
    let names: Vec<String> =
        below.filter(|name| seen.insert(*name)).map(|name| format!("`{name}`")).collect();
    (!names.is_empty()).then(|| format!("its keys: {}", names.join(", ")))
}
