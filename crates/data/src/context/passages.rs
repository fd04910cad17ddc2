//! Documents in passages of about equal length, cut where the text has a joint.

use std::ops::Range;

use unicode_segmentation::UnicodeSegmentation as _;

/// Cuts a text into passages of at most `words` words, without overlap.
///
/// A passage ends between two paragraphs where it can; a longer paragraph is cut between
/// sentences, a longer sentence between words.
pub(super) fn cut(text: &str, words: usize) -> impl Iterator<Item = &str> {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    let mut filled = 0;
    for (range, count) in pieces(text, words.max(1)) {
        match ranges.last_mut() {
            Some(last) if filled + count <= words => {
                last.end = range.end;
                filled += count;
            }
            _ => {
                ranges.push(range);
                filled = count;
            }
        }
    }
    ranges.into_iter().map(|range| text[range].trim()).filter(|passage| !passage.is_empty())
}

/// Neighbouring pieces that are not cut, with their words; together they are the text.
fn pieces(text: &str, words: usize) -> Vec<(Range<usize>, usize)> {
    let mut pieces = Vec::new();
    for paragraph in paragraphs(text) {
        let count = count(&text[paragraph.clone()]);
        if count <= words {
            pieces.push((paragraph, count));
            continue;
        }
        for (start, sentence) in text[paragraph.clone()].split_sentence_bound_indices() {
            let start = paragraph.start + start;
            pieces.extend(
                runs(sentence, words)
                    .map(|(run, count)| (start + run.start..start + run.end, count)),
            );
        }
    }
    pieces
}

/// Texts up to and with the blank lines that end them.
fn paragraphs(text: &str) -> Vec<Range<usize>> {
    let (mut ranges, mut start, mut end, mut blank) = (Vec::new(), 0, 0, false);
    for line in text.split_inclusive('\n') {
        let is_blank = line.trim().is_empty();
        if blank && !is_blank {
            ranges.push(start..end);
            start = end;
        }
        blank = is_blank;
        end += line.len();
    }
    ranges.push(start..end);
    ranges
}

/// A sentence in runs of at most `words` words.
fn runs(sentence: &str, words: usize) -> impl Iterator<Item = (Range<usize>, usize)> {
    let starts: Vec<usize> = sentence.unicode_word_indices().map(|(start, _)| start).collect();
    let total = starts.len();
    // What stands before the first word belongs to it; so a sentence of none is one run.
    let begins: Vec<usize> = match total {
        0 => vec![0],
        _ => {
            (0..total).step_by(words).map(|word| if word == 0 { 0 } else { starts[word] }).collect()
        }
    };
    let ends: Vec<usize> = begins.iter().skip(1).copied().chain([sentence.len()]).collect();
    let ranges = begins.into_iter().zip(ends).enumerate();
    ranges.map(move |(run, (begin, end))| (begin..end, (total - run * words).min(words)))
}

fn count(text: &str) -> usize {
    text.unicode_words().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, words: usize, expected: &[&str]) {
        assert_eq!(cut(text, words).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn paragraphs_stay_whole_where_they_can() {
        check("a b\n\nc d\n \ne\n", 4, &["a b\n\nc d", "e"]);
        check("a b\nc d\n\ne", 4, &["a b\nc d", "e"]);
        check("a b\n\nc d", 3, &["a b", "c d"]);
        check("a\r\n\r\nb", 1, &["a", "b"]);
    }

    #[test]
    fn sentences_stay_whole_where_they_can() {
        check("One two. Three four! Five?", 3, &["One two.", "Three four! Five?"]);
        check("It costs 3.50 here. Yes.", 4, &["It costs 3.50 here.", "Yes."]);
        check("你好。再见。", 2, &["你好。", "再见。"]);
    }

    #[test]
    fn words_stay_whole() {
        check("a b c d e", 2, &["a b", "c d", "e"]);
        check("- (a) b", 1, &["- (a)", "b"]);
        check("don't can't", 1, &["don't", "can't"]);
    }

    #[test]
    fn nothing_is_lost_and_nothing_is_twice() {
        let text = "# Title\n\nFirst. Second one is long, long, long.\n\n* a\n* b\n\n---\n\nend";
        for words in 1..12 {
            let glued: String = cut(text, words).collect();
            let letters =
                |text: &str| -> String { text.chars().filter(|c| !c.is_whitespace()).collect() };
            assert_eq!(letters(&glued), letters(text), "{words} words");
        }
    }

    #[test]
    fn an_empty_text_has_no_passages() {
        check("", 5, &[]);
        check(" \n\n\t", 5, &[]);
    }
}
