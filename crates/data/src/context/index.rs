//! BM25 (Robertson and Zaragoza 2009) over passages.

use std::collections::HashMap;

use bm25::{Embedder, EmbedderBuilder, Tokenizer};
use unicode_segmentation::UnicodeSegmentation as _;

/// What passages hold, by word.
///
/// The weights are the `bm25` crate's. Its own scorer looks through a passage once for every
/// word of the query, which a training set of queries cannot wait for; with the passages of
/// each word at hand a query costs as much as it has matches.
pub(super) struct Index {
    embedder: Embedder<u64, Words>,
    /// By the hash of a word: the passages that have it, in order, and its weight there.
    postings: HashMap<u64, Vec<(u32, f32)>>,
    passages: usize,
}

/// Words in lower case, of any script, without marks.
struct Words;

impl Tokenizer for Words {
    fn tokenize(&self, text: &str) -> Vec<String> {
        text.unicode_words().map(str::to_lowercase).collect()
    }
}

impl Index {
    pub(super) fn new(passages: &[String]) -> Self {
        let texts: Vec<&str> = passages.iter().map(String::as_str).collect();
        let embedder = EmbedderBuilder::with_tokenizer_and_fit_to_corpus(Words, &texts).build();
        let mut index = Index { embedder, postings: HashMap::new(), passages: passages.len() };
        for (number, text) in texts.into_iter().enumerate() {
            for word in index.embedder.embed(text).0 {
                let postings = index.postings.entry(word.index).or_default();
                // A word that stands twice comes twice, with the same weight.
                if postings.last().is_none_or(|&(last, _)| last != number as u32) {
                    postings.push((number as u32, word.value));
                }
            }
        }
        index
    }

    /// The best passages for a query, at most `count`, the best first; of equals the one that
    /// stands first. Passages without a word of the query are not among them.
    pub(super) fn search(&self, query: &str, count: usize) -> Vec<usize> {
        let mut scores = vec![0.0_f32; self.passages];
        for word in self.embedder.embed(query).indices() {
            let Some(postings) = self.postings.get(word) else { continue };
            let idf = self.idf(postings.len());
            for &(passage, weight) in postings {
                scores[passage as usize] += idf * weight;
            }
        }
        let better = |a: &usize, b: &usize| scores[*b].total_cmp(&scores[*a]).then(a.cmp(b));
        let mut found: Vec<usize> = (0..scores.len()).filter(|&i| scores[i] > 0.0).collect();
        if count < found.len() {
            found.select_nth_unstable_by(count, better);
            found.truncate(count);
        }
        found.sort_unstable_by(better);
        found
    }

    /// How much a word says that stands in `count` passages.
    fn idf(&self, count: usize) -> f32 {
        let count = count as f32;
        (1.0 + (self.passages as f32 - count + 0.5) / (count + 0.5)).ln()
    }
}

#[cfg(test)]
mod tests {
    use bm25::Scorer;

    use super::*;

    fn passages() -> Vec<String> {
        let texts = [
            "The cat sat on the mat.",
            "A dog barked at the cat, and the cat ran.",
            "Rain falls on the plain in Spain.",
            "Katze und Hund; 猫と犬",
            "the the the the",
        ];
        texts.map(str::to_owned).to_vec()
    }

    #[track_caller]
    fn check(query: &str, expected: &[usize]) {
        assert_eq!(Index::new(&passages()).search(query, 9), expected, "{query}");
    }

    #[test]
    fn what_fits_best_is_first() {
        check("Cat?", &[1, 0]);
        check("rain in SPAIN", &[2]);
        check("犬", &[3]);
        check("unknown words", &[]);
        check("", &[]);
    }

    #[test]
    fn equals_keep_their_order() {
        let texts: Vec<String> = (0..50).map(|i| format!("same {i}")).collect();
        assert_eq!(Index::new(&texts).search("same", 50), (0..50).collect::<Vec<_>>());
        assert_eq!(Index::new(&texts).search("same", 2), [0, 1]);
    }

    #[test]
    fn scores_are_those_of_the_crate() {
        let (texts, index) = (passages(), Index::new(&passages()));
        let mut scorer = Scorer::<usize, u64>::new();
        for (number, text) in texts.iter().enumerate() {
            scorer.upsert(&number, index.embedder.embed(text));
        }
        for query in ["the cat", "cat cat dog", "on the plain", "Hund"] {
            let theirs = scorer.matches(&index.embedder.embed(query));
            let theirs: Vec<usize> = theirs.into_iter().map(|found| found.id).collect();
            assert_eq!(index.search(query, 9), theirs, "{query}");
        }
    }
}
