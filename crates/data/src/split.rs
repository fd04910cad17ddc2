//! Which rows are kept back for validation.
//!
//! Rows that belong together (near-duplicates, a customer's, a moment's) stay on one side. Whether a part is
//! kept back depends on the seed and on the part alone, so that rows added later move none of the old ones. The
//! fraction is therefore met on average, not to the row. With strata each one gives its share exactly, and a few rows
//! may change sides when rows are added.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use crate::random::{key, purpose};

/// What is kept back as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum By {
    /// A row; equal rows together.
    Row,
    /// Rows that are nearly the same.
    #[default]
    Cluster,
    /// Nothing: the latest rows are kept back, by a column that sorts as numbers or as text.
    Time(String),
    /// Rows with the same value in a column.
    Group(String),
}

impl By {
    /// The column that it looks at.
    pub fn column(&self) -> Option<&str> {
        match self {
            By::Row | By::Cluster => None,
            By::Time(column) | By::Group(column) => Some(column),
        }
    }
}

impl std::fmt::Display for By {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            By::Row => f.write_str("row"),
            By::Cluster => f.write_str("cluster"),
            By::Time(column) => write!(f, "time:{column}"),
            By::Group(column) => write!(f, "group:{column}"),
        }
    }
}

/// Chooses about a share of parts that are shown one by one.
///
/// As long as there are two parts and the share is above zero, both sides get one.
pub(crate) struct Parts {
    seed: u64,
    fraction: f64,
    /// The smallest and the largest draw, with its part.
    ends: Option<(Draw, Draw)>,
}

/// A part's number under the seed, and the part.
type Draw = (u64, u64);

impl Parts {
    pub(crate) fn new(fraction: f64, seed: u64) -> Self {
        Parts { seed, fraction, ends: None }
    }

    /// Shows a part, which may come again.
    pub(crate) fn meet(&mut self, id: u64) {
        let draw = (draw(self.seed, id), id);
        let (first, last) = self.ends.unwrap_or((draw, draw));
        self.ends = Some((first.min(draw), last.max(draw)));
    }

    /// Whether a part is kept back.
    pub(crate) fn choose(self) -> impl Fn(u64) -> bool {
        let mut bound = ((self.fraction * u64::MAX as f64) as u64, 0);
        if let Some((first, last)) = self.ends {
            if first >= bound && self.fraction > 0.0 && first != last {
                bound = (first.0, first.1.saturating_add(1));
            }
            // Where there is one part alone, it is trained on.
            bound = bound.min(last);
        }
        move |id| (draw(self.seed, id), id) < bound
    }
}

/// As [`Parts`], but of the parts of every stratum exactly the share, to the part; none of a single one.
pub(crate) struct Strata {
    seed: u64,
    fraction: f64,
    names: HashMap<Option<String>, u32>,
    /// Draw and stratum.
    parts: Vec<(u64, u32)>,
}

impl Strata {
    pub(crate) fn new(fraction: f64, seed: u64) -> Self {
        Strata { seed, fraction, names: HashMap::new(), parts: Vec::new() }
    }

    /// Shows a part. One that stands in several strata counts in the one that was met first.
    pub(crate) fn meet(&mut self, id: u64, stratum: Option<&str>) {
        let next = self.names.len() as u32;
        let number = *self.names.entry(stratum.map(str::to_owned)).or_insert(next);
        self.parts.push((draw(self.seed, id), number));
    }

    /// Whether a part is kept back.
    pub(crate) fn choose(mut self) -> impl Fn(u64) -> bool {
        self.parts.sort_unstable();
        self.parts.dedup_by_key(|part| part.0);
        self.parts.sort_unstable_by_key(|&(draw, stratum)| (stratum, draw));
        let strata = self.parts.chunk_by(|a, b| a.1 == b.1);
        let kept = strata.flat_map(|parts| &parts[..share(self.fraction, parts.len())]);
        let mut kept: Vec<u64> = kept.map(|&(draw, _)| draw).collect();
        kept.sort_unstable();
        move |id| kept.binary_search(&draw(self.seed, id)).is_ok()
    }
}

fn draw(seed: u64, id: u64) -> u64 {
    key(&[purpose::SPLIT, seed, id])
}

/// A share of `parts`, at least one and not all where there are two or more.
fn share(fraction: f64, parts: usize) -> usize {
    let count = (fraction * parts as f64).round() as usize;
    if parts < 2 { 0 } else { count.min(parts - 1) }
}

/// Chooses the latest rows: at least a share of them, and all of the moment that the share ends in, so that
/// every row that is trained on is strictly earlier than every row that is kept back.
///
/// All rows are shown twice: moments compare as numbers where all are numbers, else as text, as ISO dates do.
#[derive(Default)]
pub(crate) struct Moments {
    rows: usize,
    /// Whether some moment is no number.
    are_texts: bool,
    earliest_number: Option<Moment>,
    earliest_text: Option<Moment>,
}

/// A point in time, comparable with others of its kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Moment {
    /// The bits of a float, in the order of the numbers.
    Number(u64),
    Text(Box<str>),
}

impl Moments {
    /// Shows a row for the first time.
    pub(crate) fn meet(&mut self, moment: &str) {
        self.rows += 1;
        let earlier = |known: &mut Option<Moment>, moment: Moment| {
            if known.as_ref().is_none_or(|known| moment < *known) {
                *known = Some(moment);
            }
        };
        match number(moment) {
            Some(number) => earlier(&mut self.earliest_number, number),
            None => self.are_texts = true,
        }
        if self.earliest_text.as_ref().is_none_or(|known| Moment::text_of(known) > moment) {
            self.earliest_text = Some(Moment::Text(moment.into()));
        }
    }

    /// Goes through all rows again.
    pub(crate) fn latest(self, fraction: f64) -> Latest {
        let earliest = if self.are_texts { self.earliest_text } else { self.earliest_number };
        let count = ((fraction * self.rows as f64).round() as usize).max(1);
        Latest { are_texts: self.are_texts, count, earliest, heap: BinaryHeap::new() }
    }
}

impl Moment {
    fn text_of(&self) -> &str {
        match self {
            Moment::Number(_) => "",
            Moment::Text(text) => text,
        }
    }
}

/// The latest of the rows that were shown.
pub(crate) struct Latest {
    are_texts: bool,
    count: usize,
    earliest: Option<Moment>,
    /// The latest so far, the earliest of them on top.
    heap: BinaryHeap<Reverse<Moment>>,
}

impl Latest {
    /// Shows a row for the second time.
    pub(crate) fn meet(&mut self, text: &str) {
        let moment = moment(text, self.are_texts);
        if self.heap.len() < self.count {
            self.heap.push(Reverse(moment));
        } else if self.heap.peek().is_some_and(|first| first.0 < moment) {
            self.heap.pop();
            self.heap.push(Reverse(moment));
        }
    }

    /// Whether a row of a moment is kept back. Where that would be all rows, none is.
    pub(crate) fn choose(mut self) -> impl Fn(&str) -> bool {
        let since = self.heap.pop().map(|first| first.0);
        let since = since.filter(|since| Some(since) != self.earliest.as_ref());
        let are_texts = self.are_texts;
        move |text| since.as_ref().is_some_and(|since| moment(text, are_texts) >= *since)
    }
}

fn moment(text: &str, are_texts: bool) -> Moment {
    let number = if are_texts { None } else { number(text) };
    number.unwrap_or_else(|| Moment::Text(text.into()))
}

fn number(text: &str) -> Option<Moment> {
    let bits = text.trim().parse::<f64>().ok()?.to_bits();
    // Negative numbers run backwards.
    let flipped = if bits >> 63 == 1 { !bits } else { bits | 1 << 63 };
    Some(Moment::Number(flipped))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(ids: impl IntoIterator<Item = u64>) -> Vec<u64> {
        ids.into_iter().collect()
    }

    fn by_parts(ids: &[u64], fraction: f64, seed: u64) -> Vec<bool> {
        let mut parts = Parts::new(fraction, seed);
        ids.iter().for_each(|&id| parts.meet(id));
        let kept = parts.choose();
        ids.iter().map(|&id| kept(id)).collect()
    }

    fn latest(moments: &[&str], fraction: f64) -> Vec<bool> {
        let mut all = Moments::default();
        moments.iter().for_each(|moment| all.meet(moment));
        let mut latest = all.latest(fraction);
        moments.iter().for_each(|moment| latest.meet(moment));
        let kept = latest.choose();
        moments.iter().map(|moment| kept(moment)).collect()
    }

    fn count(kept: &[bool]) -> usize {
        kept.iter().filter(|&&kept| kept).count()
    }

    #[test]
    fn neither_side_is_empty() {
        for (rows, fraction, expected) in
            [(1, 0.5, 0), (2, 0.001, 1), (2, 0.999, 1), (0, 0.5, 0), (9, 0.0, 0)]
        {
            assert_eq!(count(&by_parts(&parts(0..rows), fraction, 1)), expected, "{rows}");
        }
        let kept = count(&by_parts(&parts(0..10_000), 0.1, 1));
        assert!((900..1100).contains(&kept), "{kept}");
    }

    #[test]
    fn rows_that_are_added_move_no_other() {
        let before = by_parts(&parts(0..500), 0.2, 7);
        let after = by_parts(&parts(0..900), 0.2, 7);
        assert_eq!(before, after[..500]);
        let reversed = by_parts(&parts((0..500).rev()), 0.2, 7);
        assert_eq!(before, reversed.into_iter().rev().collect::<Vec<_>>());
        assert_ne!(before, by_parts(&parts(0..500), 0.2, 8));
    }

    #[test]
    fn a_part_stays_on_one_side() {
        let rows = parts((0..600).map(|row| row / 3));
        let kept = by_parts(&rows, 0.3, 1);
        assert!(kept.chunks(3).all(|part| part.iter().all(|&row| row == part[0])));
        assert!(count(&kept) > 0);
    }

    #[test]
    fn every_stratum_gives_its_share() {
        let stratum = |id: u64| if id.is_multiple_of(10) { "rare" } else { "common" };
        let mut strata = Strata::new(0.1, 1);
        (0..200).for_each(|id| strata.meet(id, Some(stratum(id))));
        // Again, and in another stratum.
        strata.meet(0, Some("common"));
        let kept = strata.choose();
        let of = |name: &str| (0..200).filter(|&id| kept(id) && stratum(id) == name).count();
        assert_eq!((of("rare"), of("common")), (2, 18));
    }

    #[test]
    fn training_is_strictly_before_validation() {
        for (moments, fraction, expected) in [
            (vec!["2024-01-03", "2024-01-01", "2024-01-02"], 0.34, vec![true, false, false]),
            // As numbers 9 is before 10.
            (vec!["10", "9", "8", "7"], 0.25, vec![true, false, false, false]),
            (vec!["1", "2", "2", "2"], 0.25, vec![false, true, true, true]),
            (vec!["5", "5"], 0.5, vec![false, false]),
            (vec!["-2", "-10", "3"], 0.67, vec![true, false, true]),
            (vec!["2", "10", "x"], 0.34, vec![false, false, true]),
        ] {
            assert_eq!(latest(&moments, fraction), expected, "{moments:?}");
        }
    }
}
