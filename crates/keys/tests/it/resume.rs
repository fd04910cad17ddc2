use crate::fixture::document;
use keys::Resume;

#[test]
fn changes_come_with_their_policy() {
    let before = document("train: {epochs: 1, learning_rate: 1e-4}\nhub_token: a\n", &[]);
    let after = document(
        "train: {max_steps: 9, learning_rate: 1e-5}\nhub_token: b\n",
        &["adapter.rank=4", "data.train.1=b"],
    );
    let changes = after.changes(&before);
    let shown: Vec<_> = changes
        .iter()
        .map(|change| {
            let (before, after) = (change.before.is_some(), change.after.is_some());
            (change.path.as_str(), change.key.resume(), before, after)
        })
        .collect();
    let expected = [
        ("adapter.rank", Resume::Never, false, true),
        ("data.train.1.path", Resume::Never, false, true),
        ("train.epochs", Resume::Free, true, false),
        ("train.learning_rate", Resume::WithNote, true, true),
        ("train.max_steps", Resume::Free, false, true),
    ];
    assert_eq!(shown, expected);
    assert_eq!(changes[0].place.to_string(), "command line, argument `adapter.rank=4`");
    assert_eq!(changes[3].to_string(), "`train.learning_rate` is `1.0e-5`, was `1.0e-4`");
    assert!(after.changes(&after).is_empty());
}
