//! Long runs of words of held-out prompts that stand in training rows.
//!
//! As in the contamination check of GPT-3 (Brown et al. 2020, appendix C):
//! runs of 13 words, case and punctuation aside, and none that stands in more
//! than ten rows of either set, for those are the task's wording.

use std::collections::HashMap;

use super::leakage::Block;
use super::{AuditText, Sketch, Texts, parallel};
use crate::{Result, random};

/// Words of a run.
const WORDS: usize = 13;
/// Rows of either set in which a run may stand.
const COMMON: usize = 10;
/// Training rows that a thread reads before its counts are added up.
const BLOCK: usize = 4096;

/// Hashes of every run of words in a text, in order.
fn runs(text: &str) -> Vec<u64> {
    let words = text.split(|character: char| !character.is_alphanumeric());
    let words: Vec<u64> = words.filter(|word| !word.is_empty()).map(word_hash).collect();
    words.windows(WORDS).map(random::key).collect()
}

fn word_hash(word: &str) -> u64 {
    let lower = word.chars().flat_map(char::to_lowercase);
    lower.fold(0, |state, character| random::key(&[state, u64::from(character)]))
}

/// The runs of the held-out prompts, each with its rows.
struct Index {
    /// Where the rows of a run stand in `rows`.
    runs: HashMap<u64, (usize, usize)>,
    rows: Vec<u32>,
}

impl Index {
    fn build(texts: &dyn Texts, count: usize, threads: usize) -> Result<Index> {
        let runs_of = |(): &mut (), row: usize| Ok(runs(&texts.text(row)?.prompt));
        let by_row: Vec<Result<Vec<u64>>> = parallel::map(count, threads, || (), runs_of);
        let mut all: Vec<(u64, u32)> = Vec::new();
        for (runs, row) in by_row.into_iter().zip(0_u32..) {
            all.extend(runs?.into_iter().map(|run| (run, row)));
        }
        all.sort_unstable();
        all.dedup();
        let mut index = Index { runs: HashMap::new(), rows: Vec::new() };
        for rows in all.chunk_by(|a, b| a.0 == b.0).filter(|rows| rows.len() <= COMMON) {
            index.runs.insert(rows[0].0, (index.rows.len(), rows.len()));
            index.rows.extend(rows.iter().map(|&(_, row)| row));
        }
        Ok(index)
    }
}

/// Looks for the runs of held-out prompts in training rows.
pub(super) struct Runs {
    index: Index,
    /// Of every run in how many training rows it stands, and in which first; by its first place in the index.
    met: Vec<(u8, u32)>,
    threads: usize,
}

impl Runs {
    /// Of held-out rows.
    pub(super) fn of(held: (&[Sketch], &dyn Texts), threads: usize) -> Result<Self> {
        let index = Index::build(held.1, held.0.len(), threads)?;
        Ok(Runs { met: vec![(0, u32::MAX); index.rows.len()], index, threads })
    }

    /// Looks through training rows.
    pub(super) fn look(&mut self, train: &Block<'_>) -> Result<()> {
        if self.index.rows.is_empty() {
            return Ok(());
        }
        for start in (0..train.numbers.len()).step_by(BLOCK) {
            let numbers = &train.numbers[start..train.numbers.len().min(start + BLOCK)];
            let hits = |(): &mut (), row: usize| {
                let AuditText { prompt, answer } = train.texts.text(start + row)?;
                let runs = runs(&format!("{prompt}\n{answer}"));
                let mut found: Vec<usize> =
                    runs.iter().filter_map(|run| Some(self.index.runs.get(run)?.0)).collect();
                found.sort_unstable();
                found.dedup();
                Ok(found)
            };
            let hits: Vec<Result<Vec<usize>>> =
                parallel::map(numbers.len(), self.threads, || (), hits);
            for (hits, &number) in hits.into_iter().zip(numbers) {
                for place in hits? {
                    let (count, first) = &mut self.met[place];
                    *count = count.saturating_add(1);
                    *first = number.min(*first);
                }
            }
        }
        Ok(())
    }

    /// Pairs of a training row and a held-out row whose prompt shares a run of 13 words with it: of every
    /// held-out row the first training row.
    pub(super) fn pairs(self) -> Vec<(u32, u32)> {
        let mut pairs: Vec<(u32, u32)> = Vec::new();
        let mut places: Vec<(usize, usize)> = self.index.runs.into_values().collect();
        places.sort_unstable();
        for (place, rows) in places {
            let (count, first) = self.met[place];
            if (1..=COMMON).contains(&usize::from(count)) {
                let held = &self.index.rows[place..place + rows];
                pairs.extend(held.iter().map(|&held| (held, first)));
            }
        }
        pairs.sort_unstable();
        pairs.dedup_by_key(|(held, _)| *held);
        pairs.into_iter().map(|(held, train)| (train, held)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(prompts: &[&str]) -> Vec<AuditText> {
        let row = |prompt: &&str| AuditText { prompt: (*prompt).into(), answer: String::new() };
        prompts.iter().map(row).collect()
    }

    #[track_caller]
    fn check(train: &[&str], held: &[&str], expected: &[(u32, u32)]) {
        let (train, held) = (rows(train), rows(held));
        let sketches = |rows: &[AuditText]| rows.iter().map(Sketch::of).collect::<Vec<_>>();
        let (left, right) = (sketches(&train), sketches(&held));
        let numbers: Vec<u32> = (0..train.len() as u32).collect();
        for (threads, size) in [(1, 100), (3, 100), (1, 1), (3, 2)] {
            let mut runs = Runs::of((&right, &held), threads).unwrap();
            for numbers in numbers.chunks(size) {
                let rows = numbers[0] as usize..numbers[0] as usize + numbers.len();
                let texts = train[rows.clone()].to_vec();
                let block = Block { numbers, sketches: &left[rows], texts: &texts };
                runs.look(&block).unwrap();
            }
            assert_eq!(runs.pairs(), expected);
        }
    }

    const RUN: &str = "one two three four five six seven eight nine ten eleven twelve thirteen";

    #[test]
    fn thirteen_words_are_found_whatever_stands_around() {
        let upper = format!("See: {}!", RUN.to_uppercase().replace(' ', ", "));
        check(&["nothing", &upper], &["a b c", &format!("x {RUN} y")], &[(1, 1)]);
        let shorter = RUN.rsplit_once(' ').unwrap().0;
        check(&[shorter], &[RUN], &[]);
        check(&[RUN], &[shorter], &[]);
        check(&[RUN, RUN], &[RUN], &[(0, 0)]);
    }

    #[test]
    fn the_wording_of_the_task_is_no_leak() {
        check(&[RUN; COMMON + 1], &[RUN], &[]);
        check(&[RUN], &[RUN; COMMON + 1], &[]);
        let all: Vec<(u32, u32)> = (0..COMMON as u32).map(|held| (0, held)).collect();
        check(&[RUN], &[RUN; COMMON], &all);
    }
}
