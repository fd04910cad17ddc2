//! Held-out rows that stand in the training set.

use super::duplicates::{by_key, first_of_equal};
use super::ngrams::Runs;
use super::search::Search;
use super::{AuditText, Sketch, Texts, parallel};
use crate::Result;

/// What a [`LeakSearch`] found. A pair stands in the first list that fits it alone,
/// but for `ngrams`, which is looked for by itself. The first row is the number of the
/// training row, the second the index of the held-out one.
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

/// Training rows that are looked at together.
#[derive(Clone, Copy)]
pub struct Block<'a> {
    /// Number of each row, in order, `[rows]`.
    pub numbers: &'a [u32],
    /// Fingerprint of each row, `[rows]`.
    pub sketches: &'a [Sketch],
    /// Their texts.
    pub texts: &'a dyn Texts,
}

/// Finds held-out rows in a training set that is shown block by block, so that it may be of any size.
/// Held-out rows may be questions without answers.
pub struct LeakSearch<'a> {
    held: (&'a [Sketch], &'a dyn Texts),
    threads: usize,
    /// Fingerprints of the held-out prompts, once they are needed.
    prompts: Option<Vec<Sketch>>,
    exact: Firsts,
    prompt: Firsts,
    near: Vec<(u32, u32, f32)>,
    runs: Runs,
}

impl<'a> LeakSearch<'a> {
    /// Looks for these rows.
    pub fn of(held: (&'a [Sketch], &'a dyn Texts), threads: usize) -> Result<Self> {
        Ok(LeakSearch {
            held,
            threads,
            prompts: None,
            exact: Firsts::of(by_key(held.0, |sketch| sketch.row)),
            prompt: Firsts::of(by_key(held.0, |sketch| sketch.prompt)),
            near: Vec::new(),
            runs: Runs::of(held, threads)?,
        })
    }

    /// Looks through training rows, whose numbers follow those of the block before.
    pub fn look(&mut self, train: &Block<'_>) -> Result<()> {
        let rows = train.sketches.iter().zip(train.numbers);
        for (sketch, &number) in rows.filter(|(sketch, _)| !sketch.is_empty()) {
            self.exact.meet(sketch.row, number);
            self.prompt.meet(sketch.prompt, number);
        }
        let left = (train.sketches, train.texts);
        let mut near = similar(left, self.held, self.threads)?;
        near.extend(self.similar_prompts(left)?);
        near.sort_unstable_by(|a, b| (a.1, a.0).cmp(&(b.1, b.0)).then(b.2.total_cmp(&a.2)));
        near.dedup_by_key(|pair| (pair.1, pair.0));
        for (row, held, similarity) in near {
            let (a, b) = (&train.sketches[row as usize], &self.held.0[held as usize]);
            if a.row != b.row && !(a.has_prompt() && a.prompt == b.prompt) {
                self.near.push((train.numbers[row as usize], held, similarity));
            }
        }
        self.runs.look(train)
    }

    /// What was found.
    pub fn leaks(mut self) -> Leaks {
        let (mut exact, mut prompt) = (Vec::new(), Vec::new());
        for (sketch, held) in self.held.0.iter().zip(0..).filter(|(sketch, _)| !sketch.is_empty()) {
            if let Some(number) = self.exact.get(sketch.row) {
                exact.push((number, held));
            } else if let Some(number) = self.prompt.get(sketch.prompt)
                && sketch.has_prompt()
            {
                prompt.push((number, held));
            }
        }
        self.near.sort_unstable_by_key(|&(number, held, _)| (held, number));
        Leaks { exact, near: self.near, prompt, ngrams: self.runs.pairs() }
    }

    /// As [`similar`] for prompts alone.
    fn similar_prompts(&mut self, train: (&[Sketch], &dyn Texts)) -> Result<Vec<(u32, u32, f32)>> {
        // Where no row has an answer, the prompts are the rows.
        if !train.0.iter().chain(self.held.0).any(Sketch::has_answer) {
            return Ok(Vec::new());
        }
        let sketches = |texts: &dyn Texts, count: usize| {
            let sketch = |(): &mut (), row: usize| Ok(Sketch::of(&texts.text(row)?));
            let sketches: Vec<Result<Sketch>> = parallel::map(count, self.threads, || (), sketch);
            sketches.into_iter().collect::<Result<Vec<Sketch>>>()
        };
        let (train_prompts, held_prompts) = (Prompts(train.1), Prompts(self.held.1));
        let right = match self.prompts.take() {
            Some(known) => known,
            None => sketches(&held_prompts, self.held.0.len())?,
        };
        let left = sketches(&train_prompts, train.0.len())?;
        let found = similar((&left, &train_prompts), (&right, &held_prompts), self.threads);
        self.prompts = Some(right);
        found
    }
}

/// Of every hash of the held-out rows the first training row with the same one.
struct Firsts {
    /// Sorted, each once.
    hashes: Vec<u64>,
    /// By hash; the highest number where there is none.
    first: Vec<u32>,
}

impl Firsts {
    fn of(rows: Vec<(u64, u32)>) -> Self {
        let mut hashes: Vec<u64> = rows.into_iter().map(|(hash, _)| hash).collect();
        hashes.dedup();
        Firsts { first: vec![u32::MAX; hashes.len()], hashes }
    }

    fn meet(&mut self, hash: u64, number: u32) {
        if let Ok(place) = self.hashes.binary_search(&hash) {
            self.first[place] = self.first[place].min(number);
        }
    }

    fn get(&self, hash: u64) -> Option<u32> {
        let place = self.hashes.binary_search(&hash).ok()?;
        Some(self.first[place]).filter(|&number| number != u32::MAX)
    }
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
        sketches: [train.0, held.0],
        texts: &Both { train: train.1, held: held.1, boundary: train.0.len() },
        rows,
        across: true,
        every_pair: true,
        threads,
    };
    let pairs = search.run()?.into_iter().filter(|pair| !pair.templated);
    Ok(pairs.map(|pair| (pair.first, pair.second - boundary, pair.similarity)).collect())
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
        let numbers: Vec<u32> = (0..train.len() as u32).collect();
        let search = |threads: usize, size: usize| {
            let mut search = LeakSearch::of((&b, &right), threads).unwrap();
            for numbers in numbers.chunks(size) {
                let rows = numbers[0] as usize..numbers[0] as usize + numbers.len();
                let texts = left[rows.clone()].to_vec();
                search.look(&Block { numbers, sketches: &a[rows], texts: &texts }).unwrap();
            }
            search.leaks()
        };
        let leaks = search(1, 100);
        for (threads, size) in [(3, 100), (1, 1), (3, 2)] {
            assert_eq!(search(threads, size), leaks);
        }
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
