//! Training that goes on from an adapter.

use std::fs;
use std::path::PathBuf;

use model::adapter::LoadedAdapter;

use crate::support::{Fixture, How, model_golden};

fn with_start<'a>(start: PathBuf, overrides: &'a [&'a str]) -> How<'a> {
    How { start: Some(start), overrides, ..How::default() }
}

/// A fixture whose recipe leaves the adapter's shape open.
fn fixture() -> Fixture {
    let mut fixture = Fixture::new();
    fixture.recipe = fixture.recipe.replace("adapter: {rank: 4}\n", "");
    fixture
}

#[test]
fn an_adapter_of_peft_goes_on_with_its_patterns() {
    let fixture = fixture();
    let peft = model_golden("peft/rank_and_alpha_pattern");
    let config = fixture.base().config;
    let before = LoadedAdapter::read(&peft, &config).unwrap();
    let summary = fixture.train("run", &with_start(peft.clone(), &[])).unwrap();
    assert!(summary.loss_last < summary.loss_first);
    let after = LoadedAdapter::read(&summary.adapter, &config).unwrap();
    assert_eq!(after.config, before.config);
    assert!(after.values != before.values);
    let recipe = fs::read_to_string(fixture.path("run/recipe.yaml")).unwrap();
    assert!(recipe.contains("rank: 4") && recipe.contains("alpha: 8"), "{recipe}");

    // Stopped and killed before the first checkpoint, it still begins with the adapter.
    let how = with_start(peft.clone(), &[]);
    fixture.train_until("stopped", &how, 5).unwrap();
    fixture.copy_run("stopped", "killed");
    fs::remove_dir_all(fixture.path("killed/checkpoints")).unwrap();
    for run in ["stopped", "killed"] {
        let how = How { start: Some(peft.clone()), ..How::resumed() };
        fixture.train(run, &how).unwrap();
        assert_eq!(fixture.steps(run), fixture.steps("run"));
        assert!(fixture.adapter_bytes(run) == fixture.adapter_bytes("run"), "{run}");
    }
}

#[test]
fn a_run_goes_on_as_a_new_run() {
    let fixture = Fixture::new();
    let first = fixture.train("first", &How::default()).unwrap();
    let how = with_start(first.adapter.clone(), &["train.schedule=constant"]);
    let second = fixture.train("second", &how).unwrap();
    assert!(second.loss_first < first.loss_first, "{first:?} {second:?}");
    assert!(second.loss_last < first.loss_last, "{first:?} {second:?}");
}

#[test]
fn a_recipe_that_contradicts_the_adapter() {
    let fixture = fixture();
    let peft = model_golden("peft/rslora");
    let check = |asked: &str, message: &str| {
        let overrides = [asked];
        let error = fixture.train("run", &with_start(peft.clone(), &overrides)).unwrap_err();
        assert!(error.to_string().contains(message), "{error}");
        assert!(error.hint().unwrap().contains("start from the base"), "{:?}", error.hint());
        assert!(!fixture.path("run").exists());
    };
    let lora = LoadedAdapter::read(&peft, &fixture.base().config).unwrap().config;
    let rank = format!("is {}, not 99", lora.rank);
    check("adapter.rank=99", &format!("`adapter.rank` of the model's adapter {rank}"));
    check("adapter.alpha=99", "`adapter.alpha`");
    check("adapter.type=lora", "`adapter.type` of the model's adapter is \"rslora\"");
    check("adapter.target_modules=[q_proj]", "`adapter.target_modules`");
    check("adapter.modules_to_save=[lm_head]", "`adapter.modules_to_save`");
    check("adapter.rank_pattern={q_proj: 2}", "`adapter.rank_pattern` describes a new adapter");
    check("adapter.alpha_pattern={q_proj: 2}", "`adapter.alpha_pattern` describes a new adapter");
    check("adapter.trainable_tokens=[e]", "`adapter.trainable_tokens` describes a new adapter");
    check("train.layers=[0]", "`train.layers` describes a new adapter");
    check("tokenizer.add_tokens=[hi]", "`tokenizer.add_tokens` describes a new adapter");
    // To ask for what there is is no contradiction.
    let (rank, alpha) =
        (format!("adapter.rank={}", lora.rank), format!("adapter.alpha={}", lora.alpha));
    let overrides = [rank.as_str(), &alpha, "adapter.type=rslora", "train.max_steps=1"];
    fixture.train("run", &with_start(peft.clone(), &overrides)).unwrap();
}

#[test]
fn an_adapter_of_another_base() {
    let fixture = Fixture::new();
    let first = fixture.train("first", &How::default()).unwrap();
    let path = fixture.path("model/model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, bytes).unwrap();
    let error = fixture.train("second", &with_start(first.adapter, &[])).unwrap_err();
    assert!(error.to_string().contains("trained over other weights"), "{error}");
    let tied = model_golden("tiny_llama/tied/adapter");
    let error = fixture.train("third", &with_start(tied, &[])).unwrap_err();
    assert!(error.hint().unwrap().contains("another base"), "{error}");
}

/// What an adapter trains beside its matrices is trained on, and no key of the recipe is needed for it.
#[test]
fn tokens_and_whole_modules_of_an_adapter_go_on() {
    let fixture = fixture();
    let many: Vec<String> = (0..30).map(|i| format!("\"<{i}>\"")).collect();
    let tokens = format!("tokenizer.add_tokens=[hi, {}]", many.join(", "));
    for (name, overrides) in [
        ("tokens", vec![tokens.as_str()]),
        ("modules", vec![tokens.as_str(), "adapter.modules_to_save=[embed_tokens, lm_head]"]),
        ("trained", vec!["adapter.trainable_tokens=[e]", "adapter.modules_to_save=[model.norm]"]),
        ("dora", vec!["adapter.type=dora"]),
    ] {
        let how = How { overrides: &overrides, ..How::default() };
        let first = fixture.train(name, &how).unwrap();
        let second = format!("{name}-on");
        let again = fixture.train(&second, &with_start(first.adapter.clone(), &[])).unwrap();
        assert!(again.loss_first < first.loss_first, "{name}: {first:?} {again:?}");
        let config = fixture.base().config;
        let read = |dir| LoadedAdapter::read(dir, &config).unwrap();
        let (before, after) = (read(&first.adapter), read(&again.adapter));
        assert_eq!(
            (after.config.tokens, after.config.modules_to_save.len()),
            (before.config.tokens, before.config.modules_to_save.len()),
            "{name}"
        );
        assert!(before.replaced.iter().all(|(key, tensor)| after.replaced[key] != *tensor));
        assert!(before.values.iter().zip(&after.values).all(|(a, b)| a.is_empty() || a != b));
        let how = How { start: Some(first.adapter), ..How::resumed() };
        fixture.train(&second, &How { overrides: &["train.max_steps=11"], ..how }).unwrap();
    }
}
