use crate::fixture::{document, parse};
use keys::{Settings as _, Value};
use std::path::Path;

#[test]
fn arguments_go_over_the_recipe() {
    let document = document(
        "adapter: {type: rslora, rank: 64}\ntrain: {epochs: 3, evaluate_every: 10}\n",
        &["adapter.rank=8", "train.max_steps=100", "train.evaluate_every={tokens: 500}", "seed=7"],
    );
    assert_eq!(document.get_usize("adapter.rank"), 8);
    assert_eq!(document.get_str("adapter.type"), "rslora");
    assert_eq!(
        (document.opt_f64("train.epochs"), document.get_i64("train.max_steps")),
        (None, 100)
    );
    assert_eq!(document.opt_i64("train.evaluate_every.steps"), None);
    assert_eq!(document.get_i64("train.evaluate_every.tokens"), 500);
}

#[test]
fn a_group_is_replaced_as_a_whole() {
    let document = document("adapter: {rank: 64}\n", &["adapter=none", "model=./other"]);
    assert_eq!(document.get_str("adapter.type"), "none");
    assert_eq!(document.opt_i64("adapter.rank"), None);
    assert_eq!(document.get_locator("model.id").path, Path::new("/here/other"));
}

#[test]
fn lists_are_reached_by_index() {
    let paths = |overrides: &[&str]| {
        let document = document("", overrides);
        let entries = document.entries("data.train");
        entries.iter().map(|e| e.get_path("path").display().to_string()).collect::<Vec<_>>()
    };
    assert_eq!(paths(&["data.train.0.path=b"]), ["/here/b"]);
    assert_eq!(paths(&["data.train.1=b"]), ["/recipes/a.jsonl", "/here/b"]);
    assert_eq!(paths(&["data.train.1.path=b"]), ["/recipes/a.jsonl", "/here/b"]);
    assert_eq!(paths(&["data.train=[b, {path: c}]"]), ["/here/b", "/here/c"]);
    assert_eq!(paths(&["data.train=b"]), ["/here/b"]);
}

#[test]
fn maps_are_reached_by_name() {
    let document = document(
        "model.template_kwargs: {a: 1}\n",
        &["model.template_kwargs.enable_thinking=false", "model.template_kwargs.a=2"],
    );
    let expected =
        [("a".to_owned(), Value::Int(2)), ("enable_thinking".to_owned(), Value::Bool(false))];
    assert_eq!(document.opt_map("model.template_kwargs").unwrap(), expected);
}

#[test]
fn an_empty_value_is_the_default() {
    let document = document("train: {epochs: 9}\n", &["train.epochs="]);
    assert_eq!(document.get_f64("train.epochs"), 3.0);
}

#[test]
fn the_last_argument_wins() {
    assert_eq!(document("", &["seed=1", "seed=2"]).get_i64("seed"), 2);
}

#[test]
fn mistakes_name_the_argument() {
    let check = |argument: &str, expected: &str, hint: Option<&str>| {
        let error = parse("model: x\ndata.train: a\n", &[argument]).unwrap_err();
        assert_eq!(error.to_string(), expected);
        assert_eq!(error.hint(), hint);
    };
    check(
        "train.epochs",
        "command line, argument `train.epochs`: is not `key=value`",
        Some("write it as `train.epochs=3`"),
    );
    check(
        "data.train.3.path=b",
        "command line, argument `data.train.3.path=b`: `data.train.3` has no entries before it",
        Some("the next entry is `data.train.1`"),
    );
    check(
        "train.lr=1e-4",
        "command line, argument `train.lr=1e-4`: unknown key `train.lr`",
        Some("here: `train.learning_rate: 1e-4`"),
    );
    check(
        "rollout.group_size=8",
        "command line, argument `rollout.group_size=8`: `rollout.group_size` is not supported by \
         this version",
        Some("it comes with grpo"),
    );
}

#[test]
fn secrets_are_not_repeated() {
    let error = parse("", &["hub_token=[hf_abc]", "my.api_key=hf_abc"]).unwrap_err();
    assert!(!error.to_string().contains("hf_abc"), "{error}");
    assert!(error.to_string().contains("argument `hub_token=...`"), "{error}");
}
