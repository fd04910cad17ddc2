//! Adapters over a base whose head is its embedding: what is trained is what PEFT computes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use model::Base;
use model::adapter::LoadedAdapter;
use model::merge::{Merge, MergedType};
use safetensors::SafeTensors;
use serde_json::Value;

use crate::support::{Fixture, How, model_golden, read_json};

const EMBEDDING: &str = "base_model.model.model.embed_tokens.weight";
const HEAD: &str = "base_model.model.lm_head.weight";

/// A fixture over the small random Llama whose head is its embedding.
fn fixture() -> Fixture {
    let mut fixture = Fixture::new();
    let golden = model_golden("tiny_llama/tied");
    let model = fixture.path("model");
    fs::copy(golden.join("model.safetensors"), model.join("model.safetensors")).unwrap();
    let mut config = read_json(&golden.join("config.json"));
    config["max_position_embeddings"] = 128.into();
    config["eos_token_id"] = 4.into();
    fs::write(model.join("config.json"), config.to_string()).unwrap();
    fixture.recipe = fixture.recipe.replace("adapter: {rank: 4}\n", "");
    fixture
}

/// Tensors of an adapter folder, and its config.
fn stored(adapter: &Path) -> (BTreeMap<String, Vec<u8>>, Value) {
    let bytes = fs::read(adapter.join("adapter_model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensors = file.tensors().into_iter().map(|(name, view)| (name, view.data().to_vec()));
    (tensors.collect(), read_json(&adapter.join("adapter_config.json")))
}

fn from(start: PathBuf) -> How<'static> {
    How { start: Some(start), ..How::default() }
}

/// Resumed halfway, the run must end in the same bits.
#[track_caller]
fn check_resumed(fixture: &Fixture, run: &str, how: &How<'_>) {
    let again = format!("{run}-again");
    let start = how.start.clone();
    fixture.train_until(&again, how, 4).unwrap();
    let how = How { start, overrides: how.overrides, ..How::resumed() };
    fixture.train(&again, &how).unwrap();
    assert_eq!(fixture.steps(&again), fixture.steps(run));
    assert!(fixture.adapter_bytes(&again) == fixture.adapter_bytes(run), "{run}");
}

#[test]
fn a_trained_embedding_takes_the_head_along() {
    let fixture = fixture();
    let overrides = ["adapter.modules_to_save=[embed_tokens]"];
    let how = How { overrides: &overrides, ..How::default() };
    let first = fixture.train("run", &how).unwrap();
    let (tensors, config) = stored(&first.adapter);
    assert_eq!(config["ensure_weight_tying"], true);
    assert!(tensors[EMBEDDING] == tensors[HEAD]);
    check_resumed(&fixture, "run", &how);
    // It goes on as one matrix, and becomes a model of one.
    let second = fixture.train("second", &from(first.adapter.clone())).unwrap();
    assert!(second.loss_first < first.loss_first, "{first:?} {second:?}");
    let (tensors, config) = stored(&second.adapter);
    assert!(tensors[EMBEDDING] == tensors[HEAD] && config["ensure_weight_tying"] == true);
    assert!(merged(&fixture, &second.adapter).config.tie_word_embeddings);
}

fn merged(fixture: &Fixture, adapter: &Path) -> Base {
    let base = fixture.base();
    let loaded = LoadedAdapter::read(adapter, &base.config).unwrap();
    let dir = fixture.path("merged");
    fs::create_dir_all(&dir).unwrap();
    Merge::new(&base, loaded, MergedType::Auto)
        .unwrap()
        .write(&dir, 1 << 30, 1, &mut |_| {})
        .unwrap();
    Base::open(&dir).unwrap()
}

/// PEFT parts the two where nobody asks it to tie them. The head stays the base's from then on.
#[test]
fn an_embedding_that_left_its_head_is_trained_alone() {
    let fixture = fixture();
    let how = from(model_golden("adapters/embedding_untied"));
    let summary = fixture.train("run", &how).unwrap();
    assert!(summary.loss_last < summary.loss_first, "{summary:?}");
    let (before, _) = stored(&model_golden("adapters/embedding_untied"));
    let (after, config) = stored(&summary.adapter);
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
    assert!(before[EMBEDDING] != after[EMBEDDING] && !after.contains_key(HEAD));
    assert_eq!(config["ensure_weight_tying"], false);
    check_resumed(&fixture, "run", &how);
    let merged = merged(&fixture, &summary.adapter);
    assert!(!merged.config.tie_word_embeddings);
    let shape = [merged.config.vocab_size, merged.config.hidden_size];
    let head = merged.tensor("lm_head.weight", &shape).unwrap().values(0..shape[0]).unwrap();
    let base = fixture.base();
    let embedding = base.tensor("model.embed_tokens.weight", &shape).unwrap();
    assert!(head == embedding.values(0..shape[0]).unwrap());
}

/// Embedding and head of a resized vocabulary are no part of what is trained, and stay with the adapter.
#[test]
fn a_resized_vocabulary_stays_with_the_adapter() {
    let fixture = fixture();
    for (name, kept) in [
        ("resized_tied", [EMBEDDING, HEAD]),
        ("resized_embedding_untied", [HEAD, HEAD]),
        (
            "resized_tokens_tied",
            ["base_model.model.model.embed_tokens.token_adapter.base_layer.weight"; 2],
        ),
    ] {
        let how = from(model_golden(&format!("adapters/{name}")));
        let summary = fixture.train(name, &how).unwrap();
        assert!(summary.loss_last < summary.loss_first, "{name}: {summary:?}");
        let (before, _) = stored(&model_golden(&format!("adapters/{name}")));
        let (after, _) = stored(&summary.adapter);
        for tensor in kept {
            assert!(before[tensor] == after[tensor], "{name}: {tensor}");
        }
        check_resumed(&fixture, name, &how);
        assert_eq!(merged(&fixture, &summary.adapter).config.vocab_size, 131, "{name}");
    }
    // A new adapter over it would lose the larger vocabulary.
    let overrides = ["adapter.from=stack"];
    let how = How { overrides: &overrides, ..from(model_golden("adapters/resized_tied")) };
    let error = fixture.train("stack", &how).unwrap_err();
    assert!(error.to_string().contains("which a new adapter over it could not keep"), "{error}");
    assert!(error.hint().unwrap().contains("tunesmith merge"));
}

/// Over an untied base new rows of a head that is not trained go into the file: PEFT would draw others.
#[test]
fn new_rows_of_an_untrained_head_are_saved() {
    let fixture = Fixture::new();
    let many: Vec<String> = (0..30).map(|i| format!("\"<{i}>\"")).collect();
    let tokens = format!("tokenizer.add_tokens=[{}]", many.join(", "));
    let overrides = [tokens.as_str(), "adapter.modules_to_save=[embed_tokens]"];
    let how = How { overrides: &overrides, ..How::default() };
    let summary = fixture.train("run", &how).unwrap();
    let base = fixture.base();
    let loaded = LoadedAdapter::read(&summary.adapter, &base.config).unwrap();
    assert_eq!(loaded.replaced["lm_head.weight"], base.vocabulary("lm_head.weight", 131).unwrap());
    assert_eq!(loaded.config.modules_to_save, ["embed_tokens"]);
    check_resumed(&fixture, "run", &how);
}

#[test]
fn what_peft_cannot_compute_is_refused() {
    let fixture = fixture();
    let check = |overrides: &[&str], message: &str, hint: &str| {
        let how = How { overrides, ..How::default() };
        let error = fixture.train("run", &how).unwrap_err();
        assert!(error.to_string().contains(message), "{error}");
        assert!(error.hint().unwrap().contains(hint), "{:?}", error.hint());
        assert!(!fixture.path("run").exists());
    };
    let head = "adapter.modules_to_save=[lm_head]";
    let apart = "the head that the base ties to the embedding is trained apart";
    check(&["adapter.trainable_tokens=[e]", head], apart, "put `embed_tokens` beside it");
    check(&["tokenizer.add_tokens=[<a>]", head], apart, "put `embed_tokens` beside it");
    // A head of its own under a config that ties it.
    let path = fixture.path("model/model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let embedding = file.tensor("model.embed_tokens.weight").unwrap();
    let negated: Vec<u8> = embedding.data().iter().rev().copied().collect();
    let head = safetensors::tensor::TensorView::new(
        embedding.dtype(),
        embedding.shape().to_vec(),
        &negated,
    );
    let all = file.tensors().into_iter().chain([("lm_head.weight".to_owned(), head.unwrap())]);
    let bytes = safetensors::serialize(all, None).unwrap();
    fs::write(&path, bytes).unwrap();
    check(
        &["adapter.trainable_tokens=[e]"],
        "says that its head is the embedding, and it is not",
        "`tie_word_embeddings`",
    );
}
