//! Rows that lose the beginning of their prompt, so that their answers stay whole.

use super::{LONG_ANSWER, NO_PROMPT, PROMPT_CUT};
use crate::{Findings, Sequence};

/// What the tokens before the first learned one are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Beginning {
    /// Whether they are a prompt. Those of a raw text are not, nor those of judged steps, among which is the
    /// first step.
    pub is_prompt: bool,
    /// The token that begins a sequence of the tokenizer, if it has one.
    pub bos: Option<u32>,
}

/// Cuts the same tokens out of all of them, which share a prompt: as many as the longest has too many.
///
/// A token that begins the sequence and stands nowhere else in it is kept. None where something else than a
/// prompt would be cut.
pub(super) fn cut(
    mut sequences: Vec<Sequence>,
    max: usize,
    beginning: Beginning,
    findings: &mut Findings,
) -> Vec<Sequence> {
    let longest = sequences.iter().map(Sequence::len).max().unwrap_or(0);
    let place = sequences.iter().max_by_key(|sequence| sequence.len()).map(|s| s.place.clone());
    let (Some(place), true) = (place, longest > max) else { return sequences };
    if !beginning.is_prompt || !sequences.iter().all(has_one_answer) {
        findings.add(&NO_PROMPT, &place);
        return Vec::new();
    }
    let kept = usize::from(sequences.iter().all(|sequence| begins_with(sequence, beginning.bos)));
    let end = kept + longest - max;
    // A token of the prompt stays before the answer, as the first of it is predicted from there.
    if shared_prompt(&sequences) <= end {
        findings.add(&LONG_ANSWER, &place);
        return Vec::new();
    }
    findings.add(&PROMPT_CUT, &place);
    for sequence in &mut sequences {
        sequence.tokens.drain(kept..end);
        sequence.weights.drain(kept..end);
    }
    sequences
}

/// Whether the learned tokens stand together: between several turns there are tokens that are not learned.
fn has_one_answer(sequence: &Sequence) -> bool {
    let learned = |weight: &&f32| **weight != 0.0;
    let answer = sequence.weights.iter().skip_while(|weight| !learned(weight));
    answer.skip_while(learned).all(|weight| *weight == 0.0)
}

fn begins_with(sequence: &Sequence, bos: Option<u32>) -> bool {
    let is_bos = |token: &&u32| Some(**token) == bos;
    // Where it also opens each turn, it is no beginning.
    sequence.tokens.first().as_ref().is_some_and(is_bos)
        && sequence.tokens.iter().filter(is_bos).count() == 1
}

/// How many tokens all begin with that none of them learns.
fn shared_prompt(sequences: &[Sequence]) -> usize {
    let Some((first, others)) = sequences.split_first() else { return 0 };
    let is_shared = |at: &usize| {
        let (at, token) = (*at, first.tokens[*at]);
        first.weights[at] == 0.0
            && others.iter().all(|s| s.tokens.get(at) == Some(&token) && s.weights[at] == 0.0)
    };
    (0..first.len()).take_while(is_shared).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Place;

    const BOS: u32 = 7;

    /// A sequence of a prompt and an answer.
    fn sequence(role: u8, prompt: &[u32], answer: &[u32]) -> Sequence {
        let place = Place { file: std::path::Path::new("a").into(), line: 1, element: None };
        let weights = [vec![0.0; prompt.len()], vec![1.0; answer.len()]].concat();
        Sequence { row: 0, part: 0, role, tokens: [prompt, answer].concat(), weights, place }
    }

    /// What is left of the tokens, and the finding.
    #[track_caller]
    fn check(sequences: Vec<Sequence>, max: usize, expected: &[&[u32]], id: &str) {
        let learned: Vec<_> = sequences.iter().map(Sequence::supervised).collect();
        let mut findings = Findings::default();
        let beginning = Beginning { is_prompt: true, bos: Some(BOS) };
        let cut = cut(sequences, max, beginning, &mut findings);
        assert_eq!(cut.iter().map(|sequence| &sequence.tokens[..]).collect::<Vec<_>>(), expected);
        for (sequence, learned) in cut.iter().zip(learned) {
            assert!(sequence.len() <= max && sequence.weights[0] == 0.0);
            assert_eq!((sequence.weights.len(), sequence.supervised()), (sequence.len(), learned));
        }
        let ids: Vec<_> = findings.iter().map(|finding| finding.id.to_string()).collect();
        assert_eq!(ids, [id]);
    }

    #[test]
    fn a_prompt_loses_its_beginning() {
        check(vec![sequence(0, &[1, 2, 3], &[4, 5])], 4, &[&[2, 3, 4, 5]], "overlong-prompt-cut");
        check(vec![sequence(0, &[1, 2, 3], &[4, 5])], 3, &[&[3, 4, 5]], "overlong-prompt-cut");
        check(vec![sequence(0, &[1, 2, 3], &[4, 5])], 2, &[], "overlong-answer-too-long");
    }

    #[test]
    fn the_token_that_begins_a_sequence_stays() {
        let with = |prompt: &[u32]| vec![sequence(0, prompt, &[4, 5])];
        check(with(&[BOS, 1, 2, 3]), 5, &[&[BOS, 2, 3, 4, 5]], "overlong-prompt-cut");
        check(with(&[BOS, 1, 2, 3]), 4, &[&[BOS, 3, 4, 5]], "overlong-prompt-cut");
        check(with(&[BOS, 1, 2, 3]), 3, &[], "overlong-answer-too-long");
        // It opens turns.
        check(with(&[BOS, 1, BOS, 3]), 4, &[&[BOS, 3, 4, 5]], "overlong-prompt-cut");
        check(with(&[BOS, 1, BOS, 3]), 3, &[&[3, 4, 5]], "overlong-prompt-cut");
    }

    #[test]
    fn answers_still_share_their_prompt() {
        let row = |prompt: &[u32]| {
            let answers = [&[4, 5][..], &[4, 6, 6, 6], &[8]];
            (0..).zip(answers).map(|(role, answer)| sequence(role, prompt, answer)).collect()
        };
        let cut: [&[u32]; 3] = [&[3, 4, 5], &[3, 4, 6, 6, 6], &[3, 8]];
        check(row(&[1, 2, 3]), 5, &cut, "overlong-prompt-cut");
        check(row(&[1, 2, 3]), 4, &[], "overlong-answer-too-long");
        // Turns before the last one are part of each prompt, and not the same.
        let apart = vec![sequence(0, &[1, 2, 3], &[4]), sequence(1, &[9, 2, 3], &[5])];
        check(apart, 3, &[], "overlong-answer-too-long");
    }

    #[test]
    fn what_is_no_prompt_is_not_cut() {
        let mut turns = sequence(0, &[1, 2, 3], &[4, 5, 6, 7]);
        turns.weights[5] = 0.0;
        check(vec![turns], 6, &[], "overlong-no-prompt");
        let mut findings = Findings::default();
        let text = vec![sequence(0, &[1], &[2, 3, 4])];
        assert_eq!(cut(text, 3, Beginning::default(), &mut findings), []);
        assert!(findings.get("overlong-no-prompt").is_some());
    }
}
