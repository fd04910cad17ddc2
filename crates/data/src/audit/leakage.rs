//! Held-out rows that stand in the training set.

use super::duplicates::{by_key, first_of_equal};
use super::search::Search;
use super::{AuditText, Sketch, Texts, ngrams, parallel};
use crate::Result;

/// What [`leakage`] found. A pair stands in the first list that fits it alone,
/// but for `ngrams`, which is looked for by itself. The first row is the
/// training row, the second the held-out one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Leaks {
    /// Equal rows, case and whitespace aside: of every held-out row the first training row.
    pub exact: Vec<(u32, u32)>,
    /// Rows, or prompts alone, with a Jaccard similarity of 0.7 or more, which comes third. Rows
    /// that differ in numbers and names alone, and in the answer, are none.
    pub near: Vec<(u32, u32, f32)>,
    /// Equal prompts with another answer, or with none on one side.
    pub prompt: Vec<(u32, u32)>,
    /// Held-out rows of whose prompt 13 words in a row stand in a training row: of every one the
    /// first training row.
    pub ngrams: Vec<(u32, u32)>,
}

/// Finds held-out rows in a training set. Held-out rows may be questions without answers.
pub fn leakage(
    train: (&[Sketch], &dyn Texts),
    held: (&[Sketch], &dyn Texts),
    threads: usize,
) -> Result<Leaks> {
    let exact = equal(train.0, held.0, |sketch| sketch.row);
    let mut prompt = equal(train.0, held.0, |sketch| sketch.prompt);
    prompt.retain(|&(train_row, held_row)| {
        held.0[held_row as usize].has_prompt() && train.0[train_row as usize].has_prompt()
    });
    remove_known(&mut prompt, &exact);

    let mut near = similar(train, held, threads)?;
    near.extend(similar_prompts(train, held, threads)?);
    near.sort_unstable_by(|a, b| (a.1, a.0).cmp(&(b.1, b.0)).then(b.2.total_cmp(&a.2)));
    near.dedup_by_key(|pair| (pair.1, pair.0));
    near.retain(|&(train_row, held_row, _)| {
        let (a, b) = (&train.0[train_row as usize], &held.0[held_row as usize]);
        a.row != b.row && !(a.has_prompt() && a.prompt == b.prompt)
    });
    let ngrams = ngrams::shared(train, held, threads)?;
    Ok(Leaks { exact, near, prompt, ngrams })
}

/// Of every held-out row the first training row with the same hash.
fn equal(train: &[Sketch], held: &[Sketch], key: impl Fn(&Sketch) -> u64) -> Vec<(u32, u32)> {
    let known = by_key(train, &key);
    let first = |(wanted, row): (u64, u32)| {
        let found = known.get(known.partition_point(|&(hash, _)| hash < wanted))?;
        (found.0 == wanted).then_some((found.1, row))
    };
    let mut pairs: Vec<(u32, u32)> = by_key(held, &key).into_iter().filter_map(first).collect();
    pairs.sort_unstable_by_key(|&(_, row)| row);
    pairs
}

/// Removes held-out rows that stand in another list already.
fn remove_known(pairs: &mut Vec<(u32, u32)>, known: &[(u32, u32)]) {
    pairs.retain(|&(_, row)| known.binary_search_by_key(&row, |&(_, other)| other).is_err());
}

/// Training rows, then held-out rows, as one set.
struct Both<'a> {
    train: &'a dyn Texts,
    held: &'a dyn Texts,
    boundary: usize,
}

impl Texts for Both<'_> {
    fn text(&self, index: usize) -> Result<AuditText> {
        match index.checked_sub(self.boundary) {
            Some(index) => self.held.text(index),
            None => self.train.text(index),
        }
    }
}

/// The prompts of a set.
struct Prompts<'a>(&'a dyn Texts);

impl Texts for Prompts<'_> {
    fn text(&self, index: usize) -> Result<AuditText> {
        Ok(AuditText { answer: String::new(), ..self.0.text(index)? })
    }
}

fn similar(
    train: (&[Sketch], &dyn Texts),
    held: (&[Sketch], &dyn Texts),
    threads: usize,
) -> Result<Vec<(u32, u32, f32)>> {
    let boundary = train.0.len() as u32;
    let mut rows = first_of_equal(train.0);
    rows.extend(by_key(held.0, |_| 0).into_iter().map(|(_, row)| boundary + row));
    let search = Search {
        sketches: &[train.0, held.0].concat(),
        texts: &Both { train: train.1, held: held.1, boundary: train.0.len() },
        rows,
        boundary: Some(boundary),
        every_pair: true,
        threads,
    };
    let pairs = search.run()?.into_iter().filter(|pair| !pair.templated);
    Ok(pairs.map(|pair| (pair.first, pair.second - boundary, pair.similarity)).collect())
}

/// As [`similar`] for prompts alone.
fn similar_prompts(
    train: (&[Sketch], &dyn Texts),
    held: (&[Sketch], &dyn Texts),
    threads: usize,
) -> Result<Vec<(u32, u32, f32)>> {
    // Where no row has an answer, the prompts are the rows.
    if !train.0.iter().chain(held.0).any(Sketch::has_answer) {
        return Ok(Vec::new());
    }
    let (train_prompts, held_prompts) = (Prompts(train.1), Prompts(held.1));
    let sketches = |texts: &dyn Texts, count: usize| {
        let sketch = |(): &mut (), row: usize| Ok(Sketch::of(&texts.text(row)?));
        parallel::map(count, threads, || (), sketch).into_iter().collect::<Result<Vec<Sketch>>>()
    };
    let left = sketches(&train_prompts, train.0.len())?;
    let right = sketches(&held_prompts, held.0.len())?;
    similar((&left, &train_prompts), (&right, &held_prompts), threads)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(prompt: &str, answer: &str) -> AuditText {
        AuditText { prompt: prompt.into(), answer: answer.into() }
    }

    fn find(train: &[AuditText], held: &[AuditText]) -> Leaks {
        let (left, right) = (train.to_vec(), held.to_vec());
        let sketches = |rows: &[AuditText]| rows.iter().map(Sketch::of).collect::<Vec<_>>();
        let (a, b) = (sketches(train), sketches(held));
        let leaks = leakage((&a, &left), (&b, &right), 1).unwrap();
        assert_eq!(leakage((&a, &left), (&b, &right), 3).unwrap(), leaks);
        leaks
    }

    const QUESTION: &str = "Which gas do plants take from the air when they make their food in \
        the light of the sun, and which do they give back?";

    #[test]
    fn every_way_of_standing_in_training_has_its_list() {
        let train = [
            row("Name a colour", "blue"),
            row(QUESTION, "carbon dioxide, oxygen"),
            row("What is a fox?", "an animal"),
        ];
        let edited = QUESTION.replace("plants", "trees");
        let held = [
            row("what is a  fox?", "An animal"),
            row("What is a fox?", "a vehicle"),
            row(&edited, "CO2 and O2"),
            row(QUESTION, ""),
            row("What is a wolf, and where does it live?", ""),
            row("", ""),
        ];
        let leaks = find(&train, &held);
        assert_eq!(leaks.exact, [(2, 0)]);
        assert_eq!(leaks.prompt, [(2, 1), (1, 3)]);
        let near: Vec<(u32, u32)> = leaks.near.iter().map(|pair| (pair.0, pair.1)).collect();
        assert_eq!(near, [(1, 2)]);
        assert!(leaks.near[0].2 >= 0.7 && leaks.near[0].2 < 1.0);
        assert_eq!(leaks.ngrams, [(1, 2), (1, 3)]);
    }

    #[test]
    fn raw_text_that_holds_a_question_is_found() {
        let train =
            [row("", "nothing of note"), row("", &format!("Quiz night. {QUESTION} Answer!"))];
        assert_eq!(find(&train, &[row(QUESTION, "")]).ngrams, [(1, 0)]);
    }

    #[test]
    fn other_numbers_are_another_row() {
        let sum = |a: u32, b: u32| {
            let prompt =
                format!("A farmer has {a} hens and buys {b} more. How many are there now?");
            row(&prompt, &(a + b).to_string())
        };
        let leaks = find(&[sum(3, 4), sum(10, 6)], &[sum(8, 9), sum(10, 6)]);
        let expected = Leaks { exact: vec![(1, 1)], ngrams: vec![(1, 1)], ..Leaks::default() };
        assert_eq!(leaks, expected);
    }

    #[test]
    fn nothing_leaks_from_nowhere() {
        assert_eq!(find(&[], &[row("a", "b")]), Leaks::default());
        assert_eq!(find(&[row("a", "b")], &[]), Leaks::default());
    }
}
