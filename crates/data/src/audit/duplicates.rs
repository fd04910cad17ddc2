//! Rows of one set that say the same.

use super::search::Search;
use super::templated::{MANY, Template};
use super::union_find::UnionFind;
use super::verify::Pair;
use super::{AuditText, Sketch, Texts, parallel};
use crate::Result;

/// Rows of a cluster from which a template is told.
const SAMPLE: usize = 64;
/// Rows from which a cluster can be too large.
const GIANT_ROWS: usize = 20;

/// What [`duplicates`] found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Duplicates {
    /// Groups of rows that are equal but for case and whitespace; each sorted, by first row.
    pub exact: Vec<Vec<u32>>,
    /// Number of near-duplicate pairs that were met. Of a cluster not all pairs are compared,
    /// and of equal rows only the first.
    pub near_pairs: usize,
    /// Of every row the first row of its cluster of equal rows and near-duplicates.
    pub clusters: Vec<u32>,
    /// Groups of similar rows that are one template filled in; not merged in `clusters`.
    pub templated: Vec<Vec<u32>>,
    /// Pairs of rows with one prompt and different answers: the first two of each prompt.
    pub contradictions: Vec<(u32, u32)>,
    /// The largest cluster with more than a tenth of the rows. Such clusters are
    /// left out of `clusters`, where only their equal rows stay together.
    pub giant: Option<Giant>,
}

/// A cluster too large to be kept in one piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Giant {
    /// Its first row.
    pub first: u32,
    /// How many rows it has.
    pub rows: usize,
}

/// Finds rows that are equal, similar, of one template, or at odds.
pub fn duplicates(sketches: &[Sketch], texts: &dyn Texts, threads: usize) -> Result<Duplicates> {
    let exact = equal_rows(sketches);
    let pairs = search(sketches, texts, threads, false)?;
    let (mut near, mut filled) = (UnionFind::new(sketches.len()), UnionFind::new(sketches.len()));
    for pair in &pairs {
        let sets = if pair.templated { &mut filled } else { &mut near };
        sets.join(pair.first, pair.second);
    }
    for cluster in near.sets().into_iter().filter(|cluster| cluster.len() >= MANY) {
        if let Some(fillings) = fillings(&cluster, texts, threads)? {
            cluster.iter().for_each(|&row| filled.join(cluster[0], row));
            split(&mut near, &cluster, &fillings);
        }
    }
    for group in &exact {
        group.iter().for_each(|&row| near.join(group[0], row));
    }
    let is_near = |pair: &&Pair| !pair.templated && near.root(pair.first) == near.root(pair.second);
    let near_pairs = pairs.iter().filter(is_near).count();
    let giant = split_giants(&mut near, &exact, sketches.len());
    let clusters = (0..sketches.len() as u32).map(|row| near.root(row)).collect();
    let contradictions = contradictions(sketches);
    Ok(Duplicates { exact, near_pairs, clusters, templated: filled.sets(), contradictions, giant })
}

/// Pairs of different rows with a Jaccard similarity of 0.7 or more, templates or not: all that
/// the sketches find. For measuring; [`duplicates`] compares less.
pub fn near_pairs(
    sketches: &[Sketch],
    texts: &dyn Texts,
    threads: usize,
) -> Result<Vec<(u32, u32, f32)>> {
    let pairs = search(sketches, texts, threads, true)?;
    Ok(pairs.iter().map(|pair| (pair.first, pair.second, pair.similarity)).collect())
}

fn search(
    sketches: &[Sketch],
    texts: &dyn Texts,
    threads: usize,
    every_pair: bool,
) -> Result<Vec<Pair>> {
    let rows = first_of_equal(sketches);
    let sketches = [sketches, &[]];
    Search { sketches, texts, rows, across: false, every_pair, threads }.run()
}

/// Rows that have text, each kind once.
pub(super) fn first_of_equal(sketches: &[Sketch]) -> Vec<u32> {
    let mut rows = by_key(sketches, |sketch| sketch.row);
    rows.dedup_by_key(|(key, _)| *key);
    let mut rows: Vec<u32> = rows.into_iter().map(|(_, row)| row).collect();
    rows.sort_unstable();
    rows
}

/// Rows that have text, sorted by a hash.
pub(super) fn by_key(sketches: &[Sketch], key: impl Fn(&Sketch) -> u64) -> Vec<(u64, u32)> {
    let rows = sketches.iter().zip(0_u32..).filter(|(sketch, _)| !sketch.is_empty());
    let mut rows: Vec<(u64, u32)> = rows.map(|(sketch, row)| (key(sketch), row)).collect();
    rows.sort_unstable();
    rows
}

/// Clusters, each row's first one, in which rows with the same prompt are together too, unless a tenth of all rows
/// have it: so many on one side would leave nothing of a split.
pub(crate) fn with_same_prompt(clusters: &[u32], sketches: &[Sketch]) -> Vec<u32> {
    let mut joined = UnionFind::new(clusters.len());
    clusters.iter().zip(0..).for_each(|(&first, row)| joined.join(first, row));
    let mut prompts = by_key(sketches, |sketch| sketch.prompt);
    prompts.retain(|&(_, row)| sketches[row as usize].has_prompt());
    let is_giant = |rows: usize| rows >= GIANT_ROWS && rows * 10 > sketches.len();
    for rows in prompts.chunk_by(|a, b| a.0 == b.0).filter(|rows| !is_giant(rows.len())) {
        rows.iter().for_each(|row| joined.join(rows[0].1, row.1));
    }
    (0..clusters.len() as u32).map(|row| joined.root(row)).collect()
}

fn equal_rows(sketches: &[Sketch]) -> Vec<Vec<u32>> {
    let rows = by_key(sketches, |sketch| sketch.row);
    let groups = rows.chunk_by(|a, b| a.0 == b.0).filter(|group| group.len() > 1);
    let mut groups: Vec<Vec<u32>> =
        groups.map(|group| group.iter().map(|&(_, row)| row).collect()).collect();
    groups.sort_unstable();
    groups
}

fn contradictions(sketches: &[Sketch]) -> Vec<(u32, u32)> {
    let rows = by_key(sketches, |sketch| sketch.prompt);
    let answer = |row: u32| sketches[row as usize].answer;
    let asked = |row: u32| {
        let sketch = &sketches[row as usize];
        sketch.has_prompt() && sketch.has_answer()
    };
    let rows: Vec<(u64, u32)> = rows.into_iter().filter(|&(_, row)| asked(row)).collect();
    let pair = |group: &[(u64, u32)]| {
        let first = group[0].1;
        let other = group.iter().find(|&&(_, row)| answer(row) != answer(first))?;
        Some((first, other.1))
    };
    let mut pairs: Vec<(u32, u32)> = rows.chunk_by(|a, b| a.0 == b.0).filter_map(pair).collect();
    pairs.sort_unstable();
    pairs
}

/// What every row of a cluster has in the slots, if the cluster is of one template.
fn fillings(
    cluster: &[u32],
    texts: &dyn Texts,
    threads: usize,
) -> Result<Option<Vec<Option<String>>>> {
    let step = cluster.len().div_ceil(SAMPLE);
    let sample = cluster.iter().step_by(step).map(|&row| texts.text(row as usize));
    let Some(template) = Template::find(&sample.collect::<Result<Vec<AuditText>>>()?) else {
        return Ok(None);
    };
    let filling =
        |(): &mut (), index: usize| Ok(template.filling(&texts.text(cluster[index] as usize)?));
    let fillings: Vec<Result<Option<String>>> =
        parallel::map(cluster.len(), threads, || (), filling);
    fillings.into_iter().collect::<Result<Vec<_>>>().map(Some)
}

/// Takes a cluster apart again, but for rows with the same in the slots.
fn split(near: &mut UnionFind, cluster: &[u32], fillings: &[Option<String>]) {
    let mut rows: Vec<(&String, u32)> = fillings
        .iter()
        .zip(cluster)
        .filter_map(|(filling, &row)| Some((filling.as_ref()?, row)))
        .collect();
    rows.sort_unstable();
    near.part(cluster);
    for two in rows.windows(2).filter(|two| two[0].0 == two[1].0) {
        near.join(two[0].1, two[1].1);
    }
}

/// Takes clusters that are too large apart, but for equal rows; returns the largest.
fn split_giants(near: &mut UnionFind, exact: &[Vec<u32>], count: usize) -> Option<Giant> {
    let mut giants = near.sets();
    giants.retain(|set| set.len() >= GIANT_ROWS && set.len() * 10 > count);
    giants.iter().for_each(|giant| near.part(giant));
    for group in exact {
        group.iter().for_each(|&row| near.join(group[0], row));
    }
    let largest = giants.iter().max_by_key(|giant| (giant.len(), std::cmp::Reverse(giant[0])));
    largest.map(|giant| Giant { first: giant[0], rows: giant.len() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(prompt: &str, answer: &str) -> AuditText {
        AuditText { prompt: prompt.into(), answer: answer.into() }
    }

    /// The same on one thread and on several.
    fn find(rows: &[AuditText]) -> Duplicates {
        let sketches: Vec<Sketch> = rows.iter().map(Sketch::of).collect();
        let texts = rows.to_vec();
        let found = duplicates(&sketches, &texts, 1).unwrap();
        assert_eq!(duplicates(&sketches, &texts, 3).unwrap(), found);
        found
    }

    const STORY: &str = "The old lighthouse keeper climbed the winding stairs every evening, \
        counting each step aloud, and lit the great lamp for ships that seldom came";

    #[test]
    fn equal_rows_and_edits_make_clusters() {
        let edited = STORY.replace("great", "huge");
        let rows = [
            row("Why is the sky blue?", "Light scatters."),
            row("Tell a story", STORY),
            row("why is  the sky BLUE?", "light scatters."),
            row("Tell a story", &edited),
            row("", ""),
            row("Why is the sky blue?", "Because of air."),
            row("Why is the sky blue?", "It is not."),
            row("", ""),
        ];
        let found = find(&rows);
        assert_eq!(found.exact, [[0, 2]]);
        assert_eq!(found.clusters, [0, 1, 0, 1, 4, 5, 6, 7]);
        assert_eq!(found.near_pairs, 1);
        assert_eq!(found.contradictions, [(0, 5), (1, 3)]);
        assert_eq!((found.templated, found.giant), (Vec::new(), None));
    }

    /// A sum in words, as in school books.
    fn sum(a: usize, b: usize) -> AuditText {
        let prompt = format!(
            "A farmer keeps {a} brown hens in the yard behind the old red barn, where they have \
             plenty of grass and shade all summer long. On Friday morning the farmer drives to \
             the market in the next village and buys {b} more from a friend. How many hens does \
             the farmer have altogether after coming home from the market?"
        );
        row(&prompt, &format!("The farmer has {} hens.", a + b))
    }

    #[test]
    fn sums_are_templated_and_their_edits_are_not() {
        let mut rows: Vec<AuditText> =
            (0..40).map(|index| sum(3 + index, 7 * index + 11)).collect();
        rows.push(row(&rows[5].prompt.replace("old red barn", "old barn"), &rows[5].answer));
        let found = find(&rows);
        let alone: Vec<u32> = (0..40).chain([5]).collect();
        assert_eq!(found.clusters, alone);
        assert_eq!((found.near_pairs, found.giant), (1, None));
        assert!(found.templated[0].len() >= 39, "{:?}", found.templated);
    }

    #[test]
    fn slots_of_words_are_templated() {
        let things = ["cats", "the sea", "an old oak", "heavy rain", "rivers", "bread", "night"];
        let letter = |please: &str, thing: &str| {
            row(
                &format!(
                    "{please} write a long and friendly letter to my grandmother in which you tell \
                     her about {thing} and ask how she has been since the summer holidays"
                ),
                &format!("Dear grandmother, {thing}!"),
            )
        };
        let mut rows: Vec<AuditText> = things.iter().map(|thing| letter("please", thing)).collect();
        rows.push(letter("kindly", "rivers"));
        let found = find(&rows);
        assert_eq!(found.clusters, [0, 1, 2, 3, 4, 5, 6, 4]);
        assert_eq!(found.templated, [(0..8).collect::<Vec<u32>>()]);
    }

    /// The story with another word in every row.
    fn edited(index: usize) -> AuditText {
        let mut words: Vec<String> = STORY.split(' ').map(str::to_owned).collect();
        let place = index * 7 % words.len();
        words[place] = format!("w{}", char::from(b'a' + index as u8));
        row("Tell a story", &words.join(" "))
    }

    #[test]
    fn a_cluster_with_a_tenth_of_the_rows_is_split() {
        let mut rows: Vec<AuditText> = (0..24).map(edited).collect();
        rows.push(rows[3].clone());
        let found = find(&rows);
        assert_eq!(found.giant, Some(Giant { first: 0, rows: 25 }));
        let alone: Vec<u32> = (0..24).chain([3]).collect();
        assert_eq!(found.clusters, alone);
        // The same rows are no tenth of a larger set.
        rows.extend((0..400).map(|index| row(&format!("{index}"), "")));
        let found = find(&rows);
        assert_eq!((found.giant, found.clusters[23]), (None, 0));
    }

    #[test]
    fn rows_with_the_same_prompt_are_together() {
        let row =
            |prompt: &str, answer: &str| AuditText { prompt: prompt.into(), answer: answer.into() };
        let rows = [
            row("a?", "1"),
            row("b?", "2"),
            row("a?", "3"),
            row("", "4"),
            row("", "5"),
            row("c?", "6"),
        ];
        let sketches: Vec<Sketch> = rows.iter().map(Sketch::of).collect();
        assert_eq!(with_same_prompt(&[0, 1, 2, 3, 4, 5], &sketches), [0, 1, 0, 3, 4, 5]);
        // Through a near duplicate the prompts of others come along.
        assert_eq!(with_same_prompt(&[0, 1, 2, 3, 4, 2], &sketches), [0, 1, 0, 3, 4, 0]);
    }

    #[test]
    fn a_prompt_of_a_tenth_of_all_rows_joins_none() {
        let row = |prompt: &str, answer: usize| AuditText {
            prompt: prompt.into(),
            answer: format!("answer {answer}"),
        };
        let rows: Vec<AuditText> =
            (0..40).map(|i| row(if i < 30 { "one" } else { "two" }, i)).collect();
        let sketches: Vec<Sketch> = rows.iter().map(Sketch::of).collect();
        let alone: Vec<u32> = (0..40).collect();
        let joined = with_same_prompt(&alone, &sketches);
        assert_eq!(joined[..30], alone[..30]);
        assert!(joined[30..].iter().all(|&first| first == 30), "{joined:?}");
    }
}
