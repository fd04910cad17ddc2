//! Reward models against PEFT: scores at the last token, and sequence classifier folders both ways.

use std::path::Path;

use compute::cpu::Precision;
use compute::{Backend, Reference};
use model::adapter::{LoadedAdapter, PeftMetadata};
use model::{Base, Decoder, HeadRequest, Keep, Optimizers, Pass, ScalarHead, Want};
use serde_json::Value;
use text::{Batch, Segment};

use crate::support::{check_close, check_same, check_same_all, cpu, floats, golden, json, tokens};

const CASES: [&str; 2] = ["gqa", "tied"];

pub(crate) fn base(golden_json: &Value) -> Base {
    Base::open(&golden(golden_json["base"].as_str().unwrap())).unwrap()
}

/// Sequences for themselves, each read at its last token, without targets.
pub(crate) fn batch(sequences: &Value) -> Batch {
    let mut batch = Batch::default();
    for (row, sequence) in sequences.as_array().unwrap().iter().enumerate() {
        let (start, tokens) = (batch.tokens.len(), tokens(sequence));
        let (len, row) = (tokens.len(), row as u64);
        batch.segments.push(Segment { start, len, parent: None, sequence_len: len, row });
        batch.tokens.extend(tokens);
        batch.reads.push(batch.tokens.len() as u32 - 1);
    }
    batch
}

/// Scores of an adapter folder over its base, `[sequences, N]`.
pub(crate) fn scores(
    mut backend: Box<dyn Backend>,
    base: &Base,
    dir: &Path,
    training: Option<Optimizers>,
    batch: &Batch,
) -> Vec<f32> {
    let backend = &mut *backend;
    let (loaded, score) = LoadedAdapter::read_scored(dir, &base.config).unwrap();
    let (decoder, adapter) = loaded.load(base, backend, None, training).unwrap();
    let score = score.unwrap();
    let outputs = score.len() / base.config.hidden_size;
    let head = ScalarHead::with_outputs(backend, &score, outputs, training).unwrap();
    let pass = Pass { adapter: Some(&adapter), ..Pass::default() };
    let want = Want { value: true, ..Want::default() };
    let request = HeadRequest { want, ..HeadRequest::logprobs() };
    let mut hidden = decoder.forward(backend, batch, &pass).unwrap();
    let outputs =
        decoder.head(backend, &mut hidden, &[], &request, Some(&head), None, &pass).unwrap();
    hidden.release(backend);
    outputs.value
}

#[test]
fn scores_are_pefts() {
    for case in CASES {
        let dir = golden(&format!("reward/{case}"));
        let expected = json(&format!("reward/{case}/golden.json"));
        let (base, batch) = (base(&expected), batch(&expected["sequences"]));
        for training in [None, Some(Optimizers::ADAMW)] {
            let mut reference = Reference::new();
            reference.reserve(64 << 20).unwrap();
            let backends: [Box<dyn Backend>; 2] =
                [Box::new(reference), Box::new(cpu(Precision::F32, 2))];
            for backend in backends {
                let actual = scores(backend, &base, &dir, training, &batch);
                check_close(case, &actual, &floats(&expected["scores"]));
            }
        }
    }
}

#[test]
fn folders_go_both_ways() {
    for case in CASES {
        let dir = golden(&format!("reward/{case}"));
        let expected = json(&format!("reward/{case}/golden.json"));
        let base = base(&expected);
        let (loaded, score) = LoadedAdapter::read_scored(&dir, &base.config).unwrap();
        let score = score.unwrap();
        // As training would have it: on a device and back.
        let mut backend = cpu(Precision::F32, 1);
        let head = ScalarHead::new(&mut backend, &score, Some(Optimizers::ADAMW)).unwrap();
        let values = head.values(&mut backend).unwrap();
        check_same("score", &values, &score);
        let own = tempfile::tempdir().unwrap();
        let (config, metadata) = (&loaded.config, PeftMetadata::default());
        let (matrices, saved) = (&loaded.values, &loaded.replaced);
        config
            .save_scored(own.path(), &base.config, matrices, saved, Some(&values), &metadata)
            .unwrap();
        for key in ["task_type", "modules_to_save", "target_modules", "trainable_token_indices"] {
            let [ours, pefts] = [own.path(), &dir].map(|dir| {
                let bytes = std::fs::read(dir.join("adapter_config.json")).unwrap();
                let mut value = serde_json::from_slice::<Value>(&bytes).unwrap()[key].take();
                if let Some(list) = value.as_array_mut() {
                    list.sort_by_key(Value::to_string);
                }
                value
            });
            assert_eq!(ours, pefts, "{case}: {key}");
        }
        let (again, score_again) = LoadedAdapter::read_scored(own.path(), &base.config).unwrap();
        assert_eq!(again.config, loaded.config, "{case}");
        check_same_all(case, &again.values, &loaded.values);
        check_same("score", &score_again.unwrap(), &score);
        let names = |dir: &Path| {
            let bytes = std::fs::read(dir.join("adapter_model.safetensors")).unwrap();
            let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
            let mut names: Vec<String> = file.names().into_iter().map(str::to_owned).collect();
            names.sort();
            names
        };
        assert_eq!(names(own.path()), names(&dir), "{case}");
    }
}

/// Nobody takes a reward model for a language model.
#[test]
fn a_reward_model_does_not_answer() {
    let expected = json("reward/gqa/golden.json");
    let (base, dir) = (base(&expected), golden("reward/gqa"));
    let error = LoadedAdapter::read(&dir, &base.config).unwrap_err();
    let message = "adapter_config.json: the adapter is a reward model: it gives scores, not text";
    assert!(error.to_string().ends_with(message), "{error}");
    assert!(error.hint().is_some());
    let plain = golden("tiny_llama/gqa/adapter");
    assert!(LoadedAdapter::read_scored(&plain, &base.config).unwrap().1.is_none());
}

#[test]
fn broken_classifiers_are_refused() {
    let base = base(&json("reward/gqa/golden.json"));
    let (loaded, _) = LoadedAdapter::read_scored(&golden("reward/gqa"), &base.config).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let save = |score: &[f32]| {
        let (config, metadata) = (&loaded.config, PeftMetadata::default());
        let (matrices, saved) = (&loaded.values, &loaded.replaced);
        config.save_scored(dir.path(), &base.config, matrices, saved, Some(score), &metadata)
    };
    let check = |expected: &str| {
        let error = LoadedAdapter::read_scored(dir.path(), &base.config).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert!(error.hint().is_some());
    };
    save(&[0.5; 63]).unwrap();
    check("`score.weight`: shape [1, 63] does not fit, [1, 64] would");
    save(&[0.5; 64]).unwrap();
    let path = dir.path().join("adapter_config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config["task_type"] = "CAUSAL_LM".into();
    config["modules_to_save"] = Value::Null;
    std::fs::write(&path, config.to_string()).unwrap();
    check("`score.weight` is not supported");
    let mut with_head = loaded.config.clone();
    with_head.modules_to_save = vec!["lm_head".into()];
    let error = with_head.check_scored(&base.config).unwrap_err();
    assert!(error.to_string().contains("`lm_head`"), "{error}");
    with_head.modules_to_save.clear();
    with_head.tokens = vec![3];
    assert!(with_head.check_scored(&base.config).is_err());
    with_head.tokens_in_head = false;
    with_head.check_scored(&base.config).unwrap();
}

/// transformers draws `score` from a normal distribution of the config's deviation, 0.02 by default.
#[test]
fn a_new_head_is_normal() {
    let base = base(&json("reward/gqa/golden.json"));
    let drawn = |seed| ScalarHead::initial_values(&base, seed).unwrap();
    let values: Vec<f64> = (0..200).flat_map(drawn).map(f64::from).collect();
    assert_eq!((drawn(3), drawn(3) == drawn(4)), (drawn(3), false));
    let moment =
        |power| values.iter().map(|x| (x / 0.02).powi(power)).sum::<f64>() / values.len() as f64;
    // Three deviations of the moments of 12,800 draws.
    for (power, expected, bound) in [(1, 0.0, 0.03), (2, 1.0, 0.04), (3, 0.0, 0.11), (4, 3.0, 0.26)]
    {
        let actual = moment(power);
        assert!((actual - expected).abs() < bound, "moment {power}: {actual}");
    }
}

/// A frozen head passes the gradient on, and keeps none.
#[test]
fn a_frozen_head_is_not_trained() {
    let base = base(&json("reward/gqa/golden.json"));
    let mut backend = cpu(Precision::F32, 1);
    let values = ScalarHead::initial_values(&base, 1).unwrap();
    let head = ScalarHead::new(&mut backend, &values, None).unwrap();
    assert!(head.trained().is_none());
    let decoder = Decoder::load(&base, &mut backend).unwrap();
    let batch = batch(&json("reward/gqa/golden.json")["sequences"]);
    let pass = Pass { keep: Keep::All, ..Pass::default() };
    let want = Want { value: true, ..Want::default() };
    let request = HeadRequest { want, ..HeadRequest::logprobs() };
    let mut hidden = decoder.forward(&mut backend, &batch, &pass).unwrap();
    decoder.head(&mut backend, &mut hidden, &[], &request, Some(&head), None, &pass).unwrap();
    let gradients =
        model::HeadGradients { value: Some(vec![1.0; batch.reads.len()]), ..Default::default() };
    decoder.backward(&mut backend, hidden, &gradients, Some(&head), &pass).unwrap();
    head.unload(&mut backend);
}
