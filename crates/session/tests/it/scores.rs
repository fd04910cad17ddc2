//! A reward model scores sequences, or says why not.

use std::path::Path;

use data::{Place, Sequence, SupervisionOptions};
use session::{Error, Opened, Scorer};
use text::Date;

use crate::failing::cpu;
use crate::tiny;

const REWARD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../model/tests/golden/reward/gqa");
const PLAIN: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../model/tests/golden/tiny_llama/gqa/adapter");

fn model() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    tiny::write(folder.path());
    folder
}

fn scorer(model: &Path, adapter: Option<&str>, free: fn() -> usize) -> Result<Scorer, Error> {
    let today = Date::new(2026, 3, 1).unwrap();
    let opened = Opened::read_scored(model, adapter.map(Path::new), today).unwrap();
    Scorer::new(opened, SupervisionOptions::default(), Box::new(cpu()), free)
}

fn sequence(tokens: &[u32]) -> Sequence {
    let place = Place { file: Path::new("a.jsonl").into(), line: 1, element: None };
    let (tokens, weights) = (tokens.to_vec(), vec![0.0; tokens.len()]);
    Sequence { row: 0, part: 0, role: 0, tokens, weights, place }
}

#[test]
fn a_score_is_the_same_whenever_it_is_asked_for() {
    let model = model();
    let mut scorer = scorer(model.path(), Some(REWARD), || usize::MAX).unwrap();
    assert_eq!(scorer.score(&[], 1024).unwrap(), Vec::<f32>::new());
    let long: Vec<u32> = (4..60).collect();
    let sequences = [sequence(&[5]), sequence(&long), sequence(&long[..30]), sequence(&[5, 9])];
    let all = scorer.score(&sequences, 1024).unwrap();
    assert!(all.iter().all(|score| score.is_finite()), "{all:?}");
    // More than was reserved before, and less.
    for budget in [1, 64] {
        assert_eq!(scorer.score(&sequences, budget).unwrap(), all);
    }
    let alone: Vec<f32> = sequences
        .iter()
        .flat_map(|sequence| scorer.score(std::slice::from_ref(sequence), 1024).unwrap())
        .collect();
    assert_eq!(alone, all);
    // More sequences than are packed together.
    let many: Vec<Sequence> = sequences.iter().cycle().take(1202).cloned().collect();
    let expected: Vec<f32> = all.iter().copied().cycle().take(1202).collect();
    assert_eq!(scorer.score(&many, 256).unwrap(), expected);
}

#[test]
fn a_language_model_gives_no_scores() {
    let model = model();
    for adapter in [None, Some(PLAIN)] {
        let refused = scorer(model.path(), adapter, || usize::MAX).err();
        assert!(matches!(refused, Some(Error::NoScoreHead)), "{refused:?}");
    }
}

#[test]
fn what_does_not_fit_is_not_loaded() {
    let model = model();
    let mut scorer = scorer(model.path(), Some(REWARD), || 1000).unwrap();
    let refused = scorer.score(&[sequence(&[5, 6, 7])], 1024).unwrap_err();
    let Error::ScoreRoom { tokens, demand, limit } = refused else { panic!("{refused}") };
    assert_eq!((tokens, limit), (3, 1000));
    assert!(demand.weights > 10_000 && demand.activations > 0, "{demand:?}");
}
