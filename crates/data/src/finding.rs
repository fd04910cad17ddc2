//! What the user should know about the data although it can be trained on.

use std::borrow::Cow;

use serde::{Deserialize, Serialize, Serializer};

use crate::Place;

/// How many places a finding names.
const NAMED_PLACES: usize = 5;

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Worth knowing.
    Note,
    /// Likely not what was meant.
    Warning,
    /// The model will not learn what was meant.
    Error,
}

/// One kind of remark, with every row that it was made about counted.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// Stable name, such as `no-end-of-turn`.
    pub id: Cow<'static, str>,
    /// How much it matters.
    pub level: Level,
    /// Number of rows (or turns) concerned.
    pub count: usize,
    /// The first few of them.
    #[serde(rename = "where", serialize_with = "serialize_places")]
    pub places: Vec<Place>,
    /// What was found, in one sentence.
    pub message: String,
    /// What to do.
    pub hint: String,
}

fn serialize_places<S: Serializer>(places: &[Place], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(places.iter().map(ToString::to_string))
}

/// Findings by kind, in the order in which each kind was first met.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Findings {
    list: Vec<Finding>,
}

impl Findings {
    /// Counts one more row under `kind`.
    pub fn add(&mut self, kind: &Kind, place: &Place) {
        self.add_with(kind, place, kind.message.to_owned());
    }

    /// As [`Findings::add`] with a message of its own, which the first one keeps.
    pub fn add_with(&mut self, kind: &Kind, place: &Place, message: String) {
        self.add_many(kind, 1, std::iter::once(place.clone()), message);
    }

    /// Counts `count` rows at once, of which the first few are named.
    pub(crate) fn add_many(
        &mut self,
        kind: &Kind,
        count: usize,
        places: impl IntoIterator<Item = Place>,
        message: String,
    ) {
        let found = self.list.iter().position(|finding| finding.id == kind.id);
        let index = found.unwrap_or_else(|| {
            self.list.push(Finding {
                id: kind.id.into(),
                level: kind.level,
                count: 0,
                places: Vec::new(),
                message,
                hint: kind.hint.to_owned(),
            });
            self.list.len() - 1
        });
        let finding = &mut self.list[index];
        finding.count += count;
        let room = NAMED_PLACES - finding.places.len();
        finding.places.extend(places.into_iter().take(room));
    }

    /// Adds all of `other` after these.
    pub fn merge(&mut self, other: Findings) {
        for theirs in other.list {
            match self.list.iter_mut().find(|ours| ours.id == theirs.id) {
                Some(ours) => {
                    ours.count += theirs.count;
                    ours.level = ours.level.max(theirs.level);
                    ours.places.extend(theirs.places);
                    ours.places.truncate(NAMED_PLACES);
                }
                None => self.list.push(theirs),
            }
        }
    }

    /// Every kind of finding.
    pub fn iter(&self) -> std::slice::Iter<'_, Finding> {
        self.list.iter()
    }

    /// The finding of that name.
    pub fn get(&self, id: &str) -> Option<&Finding> {
        self.list.iter().find(|finding| finding.id == id)
    }

    /// Takes errors of these names for warnings.
    pub(crate) fn accept(&mut self, ids: &[String]) {
        for finding in &mut self.list {
            if finding.level == Level::Error && ids.iter().any(|id| *id == finding.id) {
                finding.level = Level::Warning;
            }
        }
    }

    /// Puts errors first, then warnings; those of one level stay in order.
    pub fn sort(&mut self) {
        self.list.sort_by_key(|finding| std::cmp::Reverse(finding.level));
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

impl FromIterator<Finding> for Findings {
    fn from_iter<I: IntoIterator<Item = Finding>>(findings: I) -> Self {
        let mut all = Findings::default();
        findings.into_iter().for_each(|finding| all.merge(Findings { list: vec![finding] }));
        all
    }
}

/// What all findings of one name have in common.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// Stable name.
    pub id: &'static str,
    /// How much it matters.
    pub level: Level,
    /// What was found.
    pub message: &'static str,
    /// What to do.
    pub hint: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: Kind = Kind {
        id: "double-bos",
        level: Level::Warning,
        message: "the row begins with two",
        hint: "h",
    };

    fn place(line: usize) -> Place {
        Place { file: std::path::Path::new("a.jsonl").into(), line, element: None }
    }

    #[test]
    fn every_row_is_counted_and_a_few_are_named() {
        let mut findings = Findings::default();
        (1..=9).for_each(|line| findings.add(&KIND, &place(line)));
        let finding = findings.get("double-bos").unwrap();
        assert_eq!((finding.count, finding.places.len()), (9, NAMED_PLACES));
    }

    #[test]
    fn merging_adds_counts() {
        let (mut left, mut right) = (Findings::default(), Findings::default());
        left.add(&KIND, &place(1));
        right.add(&KIND, &place(2));
        right.add(&Kind { id: "other", ..KIND }, &place(3));
        left.merge(right);
        let counts: Vec<_> =
            left.iter().map(|finding| (finding.id.clone(), finding.count)).collect();
        assert_eq!(counts, [("double-bos".into(), 2), ("other".into(), 1)]);
    }

    #[test]
    fn json_names_places_as_text() {
        let mut findings = Findings::default();
        findings.add(&KIND, &place(7));
        let json = serde_json::to_value(findings.get("double-bos")).unwrap();
        assert_eq!(json["where"], serde_json::json!(["a.jsonl:7"]));
        assert_eq!(json["level"], "warning");
    }
}
