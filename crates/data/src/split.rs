//! Which rows are kept back for validation.
//!
//! Rows that belong together (near-duplicates, a customer's, a moment's) stay on one side. Whether a part is
//! kept back depends on the seed and on the part alone, so that rows added later move none of the old ones.

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

/// What a split knows of a row.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Part {
    /// Identity of what the row is kept back with.
    pub(crate) id: u64,
    /// Value of the column to stratify by.
    pub(crate) stratum: Option<String>,
}

/// Chooses about the share `fraction` of the parts, in the order of the rows.
///
/// As long as there are two parts and `fraction` is above zero, both sides get one. With strata, each of
/// them gives its share, to the part.
pub(crate) fn by_parts(rows: &[Part], fraction: f64, seed: u64, stratify: bool) -> Vec<bool> {
    let draw = |id: u64| key(&[purpose::SPLIT, seed, id]);
    let mut parts: Vec<(Option<&str>, u64, u64)> =
        rows.iter().map(|row| (row.stratum.as_deref(), draw(row.id), row.id)).collect();
    // A part that stands in several strata counts where it comes first.
    parts.sort_unstable_by_key(|&(stratum, _, id)| (id, stratum));
    parts.dedup_by_key(|part| part.2);
    let mut kept: Vec<u64> = if stratify {
        parts.sort_unstable();
        let strata = parts.chunk_by(|a, b| a.0 == b.0);
        strata.flat_map(|stratum| &stratum[..share(fraction, stratum.len())]).map(|p| p.2).collect()
    } else {
        let threshold = (fraction * u64::MAX as f64) as u64;
        parts.sort_unstable_by_key(|&(_, draw, id)| (draw, id));
        let count = parts.partition_point(|part| part.1 < threshold);
        let least = usize::from(fraction > 0.0 && parts.len() > 1);
        let count = count.clamp(least, parts.len().saturating_sub(1).max(least));
        parts[..count].iter().map(|part| part.2).collect()
    };
    kept.sort_unstable();
    rows.iter().map(|row| kept.binary_search(&row.id).is_ok()).collect()
}

/// A share of `parts`, at least one and not all where there are two or more.
fn share(fraction: f64, parts: usize) -> usize {
    let count = (fraction * parts as f64).round() as usize;
    if parts < 2 { 0 } else { count.min(parts - 1) }
}

/// Chooses the latest rows: at least the share `fraction`, and all of the moment that the share ends in, so
/// that every row that is trained on is strictly earlier than every row that is kept back.
///
/// Moments compare as numbers where all are numbers, else as text, as ISO dates do. Where all rows are of one
/// moment none is kept back.
pub(crate) fn latest(moments: &[&str], fraction: f64) -> Vec<bool> {
    let numbers: Option<Vec<f64>> = moments.iter().map(|text| text.trim().parse().ok()).collect();
    let ranks: Vec<usize> = match numbers {
        Some(numbers) => ranks(&numbers, f64::total_cmp),
        None => ranks(moments, Ord::cmp),
    };
    let mut sorted = ranks.clone();
    sorted.sort_unstable();
    let count = ((fraction * moments.len() as f64).round() as usize).max(1);
    let first = sorted.len().checked_sub(count).and_then(|index| sorted.get(index));
    let first = first.copied().filter(|&rank| rank > 0);
    ranks.iter().map(|&rank| first.is_some_and(|first| rank >= first)).collect()
}

/// For every value how many distinct ones are smaller.
fn ranks<T>(values: &[T], compare: impl Fn(&T, &T) -> std::cmp::Ordering) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| compare(&values[a], &values[b]));
    let (mut ranks, mut rank) = (vec![0; values.len()], 0);
    for pair in order.windows(2) {
        rank += usize::from(compare(&values[pair[0]], &values[pair[1]]).is_ne());
        ranks[pair[1]] = rank;
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(ids: impl IntoIterator<Item = u64>) -> Vec<Part> {
        ids.into_iter().map(|id| Part { id, stratum: None }).collect()
    }

    fn count(kept: &[bool]) -> usize {
        kept.iter().filter(|&&kept| kept).count()
    }

    #[test]
    fn neither_side_is_empty() {
        for (rows, fraction, expected) in
            [(1, 0.5, 0), (2, 0.001, 1), (2, 0.999, 1), (0, 0.5, 0), (9, 0.0, 0)]
        {
            assert_eq!(count(&by_parts(&parts(0..rows), fraction, 1, false)), expected, "{rows}");
        }
        let kept = count(&by_parts(&parts(0..10_000), 0.1, 1, false));
        assert!((900..1100).contains(&kept), "{kept}");
    }

    #[test]
    fn rows_that_are_added_move_no_other() {
        let before = by_parts(&parts(0..500), 0.2, 7, false);
        let after = by_parts(&parts(0..900), 0.2, 7, false);
        assert_eq!(before, after[..500]);
        let reversed = by_parts(&parts((0..500).rev()), 0.2, 7, false);
        assert_eq!(before, reversed.into_iter().rev().collect::<Vec<_>>());
        assert_ne!(before, by_parts(&parts(0..500), 0.2, 8, false));
    }

    #[test]
    fn a_part_stays_on_one_side() {
        let rows = parts((0..600).map(|row| row / 3));
        let kept = by_parts(&rows, 0.3, 1, false);
        assert!(kept.chunks(3).all(|part| part.iter().all(|&row| row == part[0])));
        assert!(count(&kept) > 0);
    }

    #[test]
    fn every_stratum_gives_its_share() {
        let stratum = |id: u64| if id.is_multiple_of(10) { "rare" } else { "common" };
        let part = |id| Part { id, stratum: Some(stratum(id).to_owned()) };
        let rows: Vec<Part> = (0..200).map(part).collect();
        let kept = by_parts(&rows, 0.1, 1, true);
        let of = |name: &str| {
            let both = rows.iter().zip(&kept);
            both.filter(|(row, kept)| **kept && row.stratum.as_deref() == Some(name)).count()
        };
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
        ] {
            assert_eq!(latest(&moments, fraction), expected, "{moments:?}");
        }
    }
}
