/// The candidate that somebody may have meant, the first of equally near ones.
pub fn nearest<'a>(text: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let near = candidates.into_iter().filter_map(|candidate| {
        let distance = distance(text, candidate);
        (distance <= slack(text, candidate)).then_some((distance, candidate))
    });
    near.min_by_key(|(distance, _)| *distance).map(|(_, candidate)| candidate)
}

/// How many slips of the pen still make the same word: one for each three letters.
pub(crate) fn slack(a: &str, b: &str) -> usize {
    a.chars().count().max(b.chars().count()) / 3
}

/// Letters to insert, drop, replace or swap with their neighbour to make `a` into `b`
/// (optimal string alignment).
pub(crate) fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 0..a.len() {
        let mut row = vec![i + 1];
        for j in 0..b.len() {
            let replaced = last[j] + usize::from(a[i] != b[j]);
            let mut best = replaced.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && a[i] == b[j - 1] && a[i - 1] == b[j] {
                best = best.min(before[j - 1] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        let check = |a: &str, b: &str, expected: usize| {
            assert_eq!(distance(a, b), expected, "{a} {b}");
            assert_eq!(distance(b, a), expected, "{b} {a}");
        };
        check("", "", 0);
        check("", "abc", 3);
        check("rank", "rnak", 1);
        check("kitten", "sitting", 3);
        check("learning_rate", "learnng_rate", 1);
    }

    #[test]
    fn far_words_are_not_meant() {
        assert_eq!(nearest("cosin", ["linear", "cosine"]), Some("cosine"));
        assert_eq!(nearest("polynomial", ["linear", "cosine"]), None);
        assert_eq!(nearest("", ["a"]), None);
    }
}
