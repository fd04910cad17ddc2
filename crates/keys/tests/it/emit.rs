use crate::fixture::{document, parse};
use keys::Settings as _;
use serde_json::json;

#[test]
fn every_value_says_where_it_comes_from() {
    let mut document = document(
        "adapter: {rank: 8}\nlog: [tensorboard, {command: [tee, 'a b']}]\nhub_token: hf_abc\n",
        &["train.epochs=2"],
    );
    document.fill("train.learning_rate", 2e-4, "sft, lora");
    let expected = "\
model:
  id: org/tiny                              # given
method: sft                                 # default
adapter:
  type: lora                                # default
  rank: 8                                   # given
  dropout: 0.0                              # default
  target_modules: all-linear                # default
quantization: none                          # default
data:
  train:
    - path: /recipes/a.jsonl                # given
  validation:
    fraction: 0.1                           # default
    by: row                                 # default
  max_seq_len: auto                         # default
train:
  epochs: 2.0                               # given on the command line
  learning_rate: 2.0e-4                     # sft, lora
  schedule:
    type: cosine                            # default
    warmup_ratio: 0.03                      # default
  optimizer:
    betas: [0.9, 0.999]                     # default
  evaluate_every:
    steps: 50                               # default
log:
  - sink: tensorboard                       # given
  - command: [tee, \"a b\"]                   # given
seed: 1                                     # default
deterministic: true                         # default
# hub_token: a secret, not written
";
    assert_eq!(document.to_yaml(), expected);
}

#[test]
fn what_is_written_reads_back_the_same() {
    let texts = [
        "no",
        "1e5",
        "2e-4",
        "- a",
        "a: b",
        "#x",
        "x #y",
        "",
        " a",
        "~",
        "null",
        "a\nb\t\"c\" \\",
        "ä ö 日本",
        "$${HOME}",
        "$$$${X}",
        "${DATA}",
        "*a",
        "&a",
        "!a",
        "%a",
        "@a",
        "`a`",
        "a:",
        "0x1",
        ".5",
        "[a]",
        "{a}",
        "a, b",
        "'",
        "true",
        "\u{1}\u{85}\u{2028}",
        "time:x",
    ];
    for text in texts {
        let json = serde_json::to_string(text).unwrap();
        let more =
            format!("model.template_kwargs: {{{json}: 1, k: [{json}]}}\nmodel.revision: {json}\n");
        let first = document(&more, &[]);
        let again =
            parse(&first.to_yaml(), &[]).unwrap_or_else(|e| panic!("{e}\n{}", first.to_yaml()));
        assert!(again.changes(&first).is_empty(), "{text:?}:\n{}", first.to_yaml());
        assert_eq!(again.opt_str("model.revision"), first.opt_str("model.revision"));
    }
}

#[test]
fn numbers_read_back_the_same() {
    for number in ["1e-4", "0.001", "9.999e-4", "1e-300", "0.1", "1", "0.30000000000000004"] {
        let first = document(&format!("train: {{learning_rate: {number}}}\n"), &[]);
        let again = parse(&first.to_yaml(), &[]).unwrap();
        assert_eq!(again.get_f64("train.learning_rate"), number.parse::<f64>().unwrap());
    }
}

#[test]
fn secrets_are_not_written() {
    let more = "
hub_token: ${HF_TOKEN}
model.revision: a-${HF_TOKEN}
model.template_kwargs: {api_key: abc, eos_token: </s>, deep: {password: abc, x: 1}}
";
    let document = document(more, &[]);
    assert_eq!(document.get_str("hub_token"), "hf_abc");
    assert_eq!(document.get_str("model.revision"), "a-hf_abc");
    let yaml = document.to_yaml();
    assert!(!yaml.contains("hf_abc") && !yaml.contains("abc"), "{yaml}");
    assert!(yaml.contains("hub_token: \"${HF_TOKEN}\""), "{yaml}");
    assert!(yaml.contains("revision: \"a-${HF_TOKEN}\""), "{yaml}");
    assert!(yaml.contains("template_kwargs: {eos_token: \"</s>\", deep: {x: 1}}"), "{yaml}");
}

#[test]
fn a_program_reads_where_values_come_from() {
    let mut document = document(
        "adapter: {rank: 8}\nhub_token: hf_abc\nmodel.template_kwargs: {a: 1, api_key: x}\n",
        &["train.epochs=2"],
    );
    document.fill("train.learning_rate", 2e-4, "sft, lora");
    let json = document.to_json();
    let found = |key: &str| json.as_array().unwrap().iter().find(|value| value["key"] == key);
    let check = |key: &str, expected: serde_json::Value| assert_eq!(found(key), Some(&expected));
    let rank = "/recipes/a.yaml:3:17";
    check("adapter.rank", json!({"key": "adapter.rank", "value": 8, "from": "given", "why": rank}));
    check("seed", json!({"key": "seed", "value": 1, "from": "default", "why": null}));
    let rate = "train.learning_rate";
    check(rate, json!({"key": rate, "value": 2e-4, "from": "chosen", "why": "sft, lora"}));
    let epochs = found("train.epochs").unwrap()["why"].as_str().unwrap();
    assert_eq!(epochs, "command line, argument `train.epochs=2`");
    assert_eq!(found("hub_token"), None);
    assert_eq!(found("model.template_kwargs").unwrap()["value"], json!({"a": 1}));
}
