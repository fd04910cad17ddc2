//! Classifiers against PEFT: logits at the last token, and sequence classifier folders of several labels both ways.

use compute::cpu::Precision;
use compute::{Backend, Reference};
use model::adapter::{LoadedAdapter, PeftMetadata};
use model::{Optimizers, ScalarHead};
use serde_json::Value;

use crate::reward::{base, batch, scores};
use crate::support::{check_close, check_same, cpu, floats, golden, json};

const CASES: [&str; 2] = ["gqa", "tied"];

fn logits(expected: &Value) -> Vec<f32> {
    expected["logits"].as_array().unwrap().iter().flat_map(floats).collect()
}

#[test]
fn logits_are_pefts() {
    for case in CASES {
        let dir = golden(&format!("classifier/{case}"));
        let expected = json(&format!("classifier/{case}/golden.json"));
        let (base, batch) = (base(&expected), batch(&expected["sequences"]));
        for training in [None, Some(Optimizers::ADAMW)] {
            let mut reference = Reference::new();
            reference.reserve(64 << 20).unwrap();
            let backends: [Box<dyn Backend>; 2] =
                [Box::new(reference), Box::new(cpu(Precision::F32, 2))];
            for backend in backends {
                let actual = scores(backend, &base, &dir, training, &batch);
                check_close(case, &actual, &logits(&expected));
            }
        }
    }
}

#[test]
fn folders_of_three_labels_go_both_ways() {
    for case in CASES {
        let dir = golden(&format!("classifier/{case}"));
        let expected = json(&format!("classifier/{case}/golden.json"));
        // What is not in the folder cannot be read from it.
        assert_eq!(expected["kept_by_peft"], serde_json::json!([]), "{case}");
        let base = base(&expected);
        let (loaded, score) = LoadedAdapter::read_scored(&dir, &base.config).unwrap();
        let score = score.unwrap();
        assert_eq!(score.len(), 3 * base.config.hidden_size);
        // As training would have it: on a device and back.
        let mut backend = cpu(Precision::F32, 1);
        let training = Some(Optimizers::ADAMW);
        let head = ScalarHead::with_outputs(&mut backend, &score, 3, training).unwrap();
        let values = head.values(&mut backend).unwrap();
        check_same("score", &values, &score);
        let own = tempfile::tempdir().unwrap();
        let (config, metadata) = (&loaded.config, PeftMetadata::default());
        let (matrices, saved) = (&loaded.values, &loaded.replaced);
        config
            .save_scored(own.path(), &base.config, matrices, saved, Some(&values), &metadata)
            .unwrap();
        let tensors = |dir: &std::path::Path| {
            let bytes = std::fs::read(dir.join("adapter_model.safetensors")).unwrap();
            let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
            let mut tensors: Vec<(String, Vec<usize>, Vec<u8>)> = file
                .tensors()
                .into_iter()
                .map(|(name, view)| (name, view.shape().to_vec(), view.data().to_vec()))
                .collect();
            tensors.sort();
            tensors
        };
        assert!(tensors(own.path()) == tensors(&dir), "{case}");
    }
}

/// A head of one output begins with the same bits as before there were several.
#[test]
fn the_first_output_of_a_new_head_is_that_of_a_reward_model() {
    let base = base(&json("classifier/gqa/golden.json"));
    let (one, three) = (
        ScalarHead::initial_values(&base, 5).unwrap(),
        ScalarHead::initial_values_of(&base, 3, 5).unwrap(),
    );
    assert_eq!(three.len(), 3 * one.len());
    check_same("first", &three[..one.len()], &one);
    assert!(three[..one.len()] != three[one.len()..2 * one.len()]);
}
