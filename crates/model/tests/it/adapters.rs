//! Every kind of adapter against PEFT: log-probabilities, loss, gradients, and files both ways.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use compute::cpu::Precision;
use compute::{Backend, Reference};
use model::adapter::{LoadedAdapter, PeftMetadata};
use model::tensor::read_gradients;
use model::{Adapter, Base, Decoder, Optimizers};
use serde_json::Value;
use text::Batch;

use crate::support::{
    How, Rig, TOLERANCE, batch, check_close, check_same_all, cpu, distance, floats, golden, json,
    sequence, tensors, tokens,
};

/// Adapters that one configuration describes.
const CASES: [&str; 22] = [
    "dora",
    "dora_rs",
    "patterns",
    "rslora",
    "modules_to_save",
    "norms",
    "tokens",
    "tokens_tied",
    "pissa",
    "pissa_converted",
    "tokens_tied_both",
    "embedding_tied",
    "embedding_untied",
    "head_untied",
    "both_untied",
    "resized",
    "resized_tied",
    "resized_embedding_tied",
    "resized_embedding_untied",
    "resized_tokens",
    "resized_tokens_tied",
    "shrunk_tied",
];

fn reference() -> Reference {
    let mut reference = Reference::new();
    reference.reserve(64 << 20).unwrap();
    reference
}

/// The backends that compute in f32 or better.
fn exact_backends() -> [Box<dyn Backend>; 2] {
    [Box::new(reference()), Box::new(cpu(Precision::F32, 2))]
}

/// A golden case: what was computed, and over what.
struct Case {
    golden: Value,
    base: Base,
    batch: Batch,
    /// What the gradients of a [`Rig`] are multiplied by to be those of the mean loss.
    mean: f32,
}

impl Case {
    fn new(name: &str) -> Self {
        let golden_json = json(&format!("adapters/{name}/golden.json"));
        let base = Base::open(&golden(golden_json["base"].as_str().unwrap())).unwrap();
        let mut weights = vec![0.0];
        weights.extend(floats(&golden_json["weights"]));
        let batch = batch(&[sequence(0, &tokens(&golden_json["tokens"]), &weights)], 0);
        let mean = 32.0 / weights.iter().sum::<f32>();
        Case { golden: golden_json, base, batch, mean }
    }

    /// Log-probabilities of the golden file, where targets have a weight.
    fn logprobs(&self, key: &str) -> Vec<f32> {
        let all = floats(&self.golden[key]).into_iter().zip(floats(&self.golden["weights"]));
        all.filter(|(_, weight)| *weight != 0.0).map(|(logprob, _)| logprob).collect()
    }

    fn check_outputs(&self, what: &str, actual: &[f32]) {
        let targets = &self.batch.targets;
        assert_eq!(actual.len(), targets.len());
        check_close(&format!("{what}: log-probabilities"), actual, &self.logprobs("logprobs"));
        let sum = |values: &mut dyn Iterator<Item = f32>| values.map(f64::from).sum::<f64>();
        let weighted = sum(&mut targets.iter().zip(actual).map(|(t, lp)| -t.weight * lp));
        let loss = weighted / sum(&mut targets.iter().map(|t| t.weight));
        let expected = self.golden["loss"].as_f64().unwrap();
        assert!((loss - expected).abs() < 1e-4, "{what}: loss {loss}, expected {expected}");
    }
}

fn read(dir: &str, base: &Base) -> LoadedAdapter {
    LoadedAdapter::read(&golden(&format!("adapters/{dir}")), &base.config).unwrap()
}

/// The gradients of all that is trained, by PEFT's names.
fn gradients(rig: &mut Rig, mean: f32) -> BTreeMap<String, Vec<f32>> {
    let own = read_gradients(&mut *rig.backend, rig.adapter.trained()).unwrap();
    let whole = read_gradients(&mut *rig.backend, rig.decoder.trained()).unwrap();
    let whole = whole.into_iter().map(|(name, g)| (format!("base_model.model.{name}"), g));
    let all = own.into_iter().chain(whole);
    all.map(|(name, (_, g))| (name, g.iter().map(|x| x * mean).collect())).collect()
}

fn check_gradients(what: &str, actual: &BTreeMap<String, Vec<f32>>, dir: &str) {
    let expected = tensors(&golden(&format!("adapters/{dir}/gradients.safetensors")));
    let names = |map: &BTreeMap<String, Vec<f32>>| map.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(actual), names(&expected), "{what}");
    for (name, expected) in &expected {
        check_close(&format!("{what}: gradient of {name}"), &actual[name], expected);
    }
}

#[test]
fn every_kind_computes_pefts_numbers() {
    for name in CASES {
        let case = Case::new(name);
        for backend in exact_backends() {
            let what = format!("{name} on {}", backend.device().kind);
            let mut rig = Rig::load(backend, &case.base, read(name, &case.base));
            case.check_outputs(&what, &rig.logprobs(&case.batch));
            for how in [How::default(), How { one_pass: true, checkpoint: true, dropout_key: None }]
            {
                case.check_outputs(&what, &rig.accumulate(&case.batch, how));
                if golden(&format!("adapters/{name}/gradients.safetensors")).is_file() {
                    check_gradients(&what, &gradients(&mut rig, case.mean), name);
                }
                rig.zero_gradients();
            }
        }
    }
}

#[test]
fn frozen_adapters_compute_what_trained_ones_do() {
    for name in CASES {
        let case = Case::new(name);
        for mut backend in exact_backends() {
            let loaded = read(name, &case.base);
            let (decoder, adapter) = loaded.load(&case.base, &mut *backend, None, None).unwrap();
            let what = format!("{name}, frozen");
            let mut rig = Rig { backend, decoder, adapter };
            case.check_outputs(&what, &rig.logprobs(&case.batch));
            assert!(rig.adapter.trained().is_empty() && rig.decoder.trained().is_empty());
        }
    }
}

/// bf16 operands move every gradient, but not far.
#[test]
fn gradients_in_bf16_point_the_same_way() {
    for name in [
        "dora",
        "dora_rs",
        "modules_to_save",
        "norms",
        "tokens",
        "tokens_tied",
        "pissa",
        "embedding_tied",
        "embedding_untied",
    ] {
        let case = Case::new(name);
        let backend = Box::new(cpu(Precision::Bf16, 2));
        let mut rig = Rig::load(backend, &case.base, read(name, &case.base));
        rig.accumulate(&case.batch, How::default());
        let expected = tensors(&golden(&format!("adapters/{name}/gradients.safetensors")));
        for (tensor, actual) in gradients(&mut rig, case.mean) {
            let cosine = cosine(&actual, &expected[&tensor]);
            assert!(cosine > 0.999, "{name}: cosine of {tensor} is {cosine}");
        }
    }
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// What PEFT writes once more where the vocabulary was resized: copies, and what a module was before.
fn is_repeated(name: &str) -> bool {
    name.contains(".original_module.")
        || name.contains(".modules_to_save.")
        || name.starts_with("base_model.model.lm_head.token_adapter.")
}

/// The names and shapes in a folder's file.
fn layout(dir: &Path) -> Vec<(String, Vec<usize>)> {
    let bytes = std::fs::read(dir.join("adapter_model.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut all: Vec<(String, Vec<usize>)> =
        file.tensors().iter().map(|(name, view)| (name.clone(), view.shape().to_vec())).collect();
    all.sort();
    all
}

#[test]
fn files_go_both_ways() {
    let others = ["stack/first", "stack/second", "stack/cat"];
    for name in CASES.into_iter().chain(others) {
        let case = Case::new(name.split('/').next().unwrap());
        let loaded = read(name, &case.base);
        // As training would have it: on a device and back.
        let mut rig = Rig::load(Box::new(cpu(Precision::F32, 1)), &case.base, loaded.clone());
        let values = rig.adapter.values(&mut *rig.backend, &rig.decoder).unwrap();
        check_same_all(name, &values, &loaded.values);
        let dir = tempfile::tempdir().unwrap();
        let config = &loaded.config;
        let none = PeftMetadata::default();
        config.save(dir.path(), &case.base.config, &values, &loaded.replaced, &none).unwrap();
        let mut expected = layout(&golden(&format!("adapters/{name}")));
        if name.starts_with("resized") {
            expected.retain(|(name, _)| !is_repeated(name));
        }
        assert_eq!(layout(dir.path()), expected, "{name}");
        let again = LoadedAdapter::read(dir.path(), &case.base.config).unwrap();
        assert_eq!(again.config, loaded.config, "{name}");
        assert_eq!(again.replaced, loaded.replaced, "{name}");
        check_same_all(name, &again.values, &loaded.values);
    }
}

/// What PEFT's config says of coverage and strength comes back in PEFT's words.
#[test]
fn configs_say_what_pefts_say() {
    let keys = [
        "r",
        "lora_alpha",
        "use_dora",
        "use_rslora",
        "init_lora_weights",
        "modules_to_save",
        "trainable_token_indices",
        "peft_type",
        "bias",
        "target_modules",
    ];
    // Patterns and lists of tied modules have several spellings.
    let several = ["patterns", "tokens_tied_both", "embedding_tied", "resized_embedding_tied"];
    for name in CASES.into_iter().filter(|name| !several.contains(name)) {
        let case = Case::new(name);
        let loaded = read(name, &case.base);
        let dir = tempfile::tempdir().unwrap();
        let none = PeftMetadata::default();
        let config = &case.base.config;
        loaded.config.save(dir.path(), config, &loaded.values, &loaded.replaced, &none).unwrap();
        let [ours, pefts] = [dir.path(), &golden(&format!("adapters/{name}"))].map(|dir| {
            let bytes = std::fs::read(dir.join("adapter_config.json")).unwrap();
            serde_json::from_slice::<Value>(&bytes).unwrap()
        });
        for key in keys {
            let [mut ours, mut pefts] = [ours[key].clone(), pefts[key].clone()];
            for value in [&mut ours, &mut pefts] {
                if let Some(list) = value.as_array_mut() {
                    list.sort_by_key(Value::to_string);
                }
            }
            let numbers = ours.as_f64().zip(pefts.as_f64());
            let same = numbers.map_or(ours == pefts, |(ours, pefts)| ours == pefts);
            assert!(same, "{name}: `{key}` is {ours}, PEFT's {pefts}");
        }
    }
}

#[test]
fn a_stack_computes_what_its_adapters_add_up_to() {
    let case = Case::new("stack");
    for mut backend in exact_backends() {
        let what = format!("stack on {}", backend.device().kind);
        let decoder = Decoder::load(&case.base, &mut *backend).unwrap();
        let [first, second] = ["stack/first", "stack/second"].map(|dir| read(dir, &case.base));
        let below =
            Adapter::new(&mut *backend, &decoder, first.config, &first.values, None).unwrap();
        let training = Some(Optimizers::ADAMW);
        let adapter =
            Adapter::new(&mut *backend, &decoder, second.config, &second.values, training).unwrap();
        let mut rig = Rig { backend, decoder, adapter: adapter.over(Arc::new(below)) };
        case.check_outputs(&what, &rig.logprobs(&case.batch));
        case.check_outputs(&what, &rig.accumulate(&case.batch, How::default()));
        check_gradients(&what, &gradients(&mut rig, case.mean), "stack");
    }
}

#[test]
fn a_stack_becomes_one_adapter() {
    let case = Case::new("stack");
    let [first, second, cat] =
        ["first", "second", "cat"].map(|dir| read(&format!("stack/{dir}"), &case.base));
    let config = &case.base.config;
    let (merged, values) =
        second.config.merged_with(&second.values, &first.config, &first.values, config).unwrap();
    assert_eq!(merged.rank, cat.config.rank);
    let loaded = LoadedAdapter { config: merged, values, replaced: BTreeMap::new() };
    for loaded in [loaded, cat] {
        let backend = Box::new(cpu(Precision::F32, 1));
        let mut rig = Rig::load(backend, &case.base, loaded);
        case.check_outputs("cat", &rig.logprobs(&case.batch));
    }
}

/// `scaling * B A` of every covered module, `[rows, cols]`, by the module's tensor.
fn products(loaded: &LoadedAdapter, base: &Base) -> BTreeMap<String, Vec<f32>> {
    let config = &loaded.config;
    let mut matrices = loaded.values.iter();
    let mut all = BTreeMap::new();
    for (&(layer, module), &(rank, alpha)) in &config.modules {
        let (a, b) = (matrices.next().unwrap(), matrices.next().unwrap());
        let (rows, cols) = base.config.shape(module);
        let scaling = config.scaling(rank, alpha);
        let mut product = vec![0.0; rows * cols];
        for (out, b) in product.chunks_exact_mut(cols).zip(b.chunks_exact(rank)) {
            for (b, a) in b.iter().zip(a.chunks_exact(cols)) {
                out.iter_mut().zip(a).for_each(|(out, a)| *out += scaling * b * a);
            }
        }
        all.insert(format!("model.layers.{layer}.{}.weight", module.path()), product);
    }
    all
}

/// A PiSSA adapter as it begins.
fn beginning(case: &Case, threads: usize) -> LoadedAdapter {
    let config = read("pissa", &case.base).config;
    let values = config.pissa_values(&case.base, threads).unwrap();
    LoadedAdapter { config, values, replaced: BTreeMap::new() }
}

#[test]
fn pissa_begins_as_peft_begins_and_changes_nothing() {
    let case = Case::new("pissa");
    let begun = beginning(&case, 1);
    check_same_all("threads", &beginning(&case, 3).values, &begun.values);
    let own = products(&begun, &case.base);
    let expected = tensors(&golden("adapters/pissa/initial_product.safetensors"));
    assert_eq!(expected.len(), 3);
    for (name, expected) in &expected {
        check_close(name, &own[name], expected);
    }
    // `A` and `B` have the same share in every term.
    for pair in begun.values.chunks(2) {
        let square = |values: &[f32]| values.iter().map(|x| f64::from(x * x)).sum::<f64>();
        assert!((square(&pair[0]) / square(&pair[1]) - 1.0).abs() < 1e-4);
    }
    let mut rig = Rig::load(Box::new(cpu(Precision::F32, 2)), &case.base, begun);
    let actual = rig.logprobs(&case.batch);
    check_close("initial", &actual, &case.logprobs("initial_logprobs"));
    check_close("base", &actual, &case.logprobs("base_logprobs"));
}

#[test]
fn pissa_becomes_the_plain_adapter_that_peft_makes_of_it() {
    let case = Case::new("pissa");
    let trained = read("pissa", &case.base);
    let initial = beginning(&case, 1).values;
    let config = &case.base.config;
    let below = trained.config.counterweight(&initial, config);
    let (plain, values) =
        trained.config.merged_with(&trained.values, &below.config, &below.values, config).unwrap();
    let pefts = read("pissa_converted", &case.base);
    assert_eq!(plain, pefts.config);
    let plain = LoadedAdapter { config: plain, values, replaced: BTreeMap::new() };
    let expected = products(&pefts, &case.base);
    for (name, product) in products(&plain, &case.base) {
        check_close(&name, &product, &expected[&name]);
    }
    let mut rig = Rig::load(Box::new(cpu(Precision::F32, 1)), &case.base, plain);
    case.check_outputs("converted", &rig.logprobs(&case.batch));
}

/// rsLoRA's scaling shrinks with the root of the rank, and so alpha grows with it.
#[test]
fn pissa_with_rslora_becomes_plain_too() {
    let case = Case::new("pissa");
    let mut begun = beginning(&case, 1);
    begun.config.kind = model::adapter::LoraKind::RsLora;
    begun.config.modules.values_mut().next().unwrap().0 += 1;
    let config = &case.base.config;
    let initial = begun.config.pissa_values(&case.base, 1).unwrap();
    let mut trained = LoadedAdapter { values: initial.clone(), ..begun };
    for (seed, values) in trained.values.iter_mut().enumerate() {
        for (index, value) in values.iter_mut().enumerate() {
            let hash = compute::random::key(&[seed as u64, index as u64]);
            *value += 0.1 * (compute::random::uniform(hash) - 0.5);
        }
    }
    let below = trained.config.counterweight(&initial, config);
    let (plain, values) =
        trained.config.merged_with(&trained.values, &below.config, &below.values, config).unwrap();
    let plain = LoadedAdapter { config: plain, values, replaced: BTreeMap::new() };
    let backend = || Box::new(cpu(Precision::F32, 1));
    let expected = Rig::load(backend(), &case.base, trained).logprobs(&case.batch);
    let actual = Rig::load(backend(), &case.base, plain).logprobs(&case.batch);
    check_close("plain", &actual, &expected);
    assert!(distance(&expected, &case.logprobs("base_logprobs")) > 100.0 * TOLERANCE);
}

#[test]
fn a_rank_beyond_the_matrix_is_refused_by_pissa() {
    let case = Case::new("pissa");
    let mut config = read("pissa", &case.base).config;
    config.modules.insert((1, model::Module::V), (33, 8.0));
    let error = config.pissa_values(&case.base, 2).unwrap_err();
    let expected = "PiSSA of rank 33: `model.layers.1.self_attn.v_proj` is 32 x 64";
    assert_eq!(error.to_string(), expected);
    assert_eq!(error.hint().as_deref(), Some("its rank can be 32 at most"));
}

/// Edits a copy of a golden adapter: its config, and the tensors of its file.
fn edited(
    name: &str,
    edit: impl FnOnce(&mut Value),
    change: impl Fn(&str, &mut Vec<u8>) -> bool,
) -> tempfile::TempDir {
    let (from, dir) = (golden(&format!("adapters/{name}")), tempfile::tempdir().unwrap());
    let bytes = std::fs::read(from.join("adapter_config.json")).unwrap();
    let mut config: Value = serde_json::from_slice(&bytes).unwrap();
    edit(&mut config);
    std::fs::write(dir.path().join("adapter_config.json"), config.to_string()).unwrap();
    let bytes = std::fs::read(from.join("adapter_model.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut kept: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
    for (name, view) in file.tensors() {
        let mut data = view.data().to_vec();
        if change(&name, &mut data) {
            kept.push((name, view.shape().to_vec(), data));
        }
    }
    let views = kept.iter().map(|(name, shape, data)| {
        let dtype = safetensors::Dtype::F32;
        (name, safetensors::tensor::TensorView::new(dtype, shape.clone(), data).unwrap())
    });
    let bytes = safetensors::serialize(views, None).unwrap();
    std::fs::write(dir.path().join("adapter_model.safetensors"), bytes).unwrap();
    dir
}

const HEAD: &str = "base_model.model.lm_head.weight";

/// Head and embedding are one or two as the config says, however the file holds them.
#[test]
fn tied_pairs_are_read_in_every_spelling() {
    let case = Case::new("embedding_tied");
    let check = |dir: &Path, expected: &str| {
        let loaded = LoadedAdapter::read(dir, &case.base.config).unwrap();
        let mut rig = Rig::load(Box::new(cpu(Precision::F32, 1)), &case.base, loaded);
        Case::new(expected).check_outputs(expected, &rig.logprobs(&case.batch));
    };
    let all = |_: &str, _: &mut Vec<u8>| true;
    let headless = |name: &str, _: &mut Vec<u8>| name != HEAD;
    let key = "ensure_weight_tying";
    // As a version without the key reads it, and as one that lists the head.
    check(edited("embedding_tied", |_| (), headless).path(), "embedding_tied");
    let head = |config: &mut Value| config["modules_to_save"] = serde_json::json!(["lm_head"]);
    check(edited("embedding_tied", head, all).path(), "embedding_tied");
    // Parted by the config alone, the head keeps the base's values unless the file has its own.
    let untied = |config: &mut Value| config[key] = false.into();
    let dir = edited("embedding_tied", untied, headless);
    let loaded = LoadedAdapter::read(dir.path(), &case.base.config).unwrap();
    assert!(loaded.config.unties_head(&case.base.config));
    check(
        edited("embedding_untied", |config| drop(config[key].take()), all).path(),
        "embedding_untied",
    );
    // Tunesmith once left the key out and meant one matrix.
    let without = |config: &mut Value| drop(config.as_object_mut().unwrap().remove(key));
    let dir = edited("embedding_tied", without, headless);
    std::fs::write(dir.path().join("tunesmith.json"), "{\"schema\": 1}").unwrap();
    check(dir.path(), "embedding_tied");
}

#[test]
fn a_tied_pair_that_differs_is_refused() {
    let case = Case::new("embedding_tied");
    let differ = |name: &str, data: &mut Vec<u8>| {
        if name == HEAD {
            data[0] ^= 1;
        }
        true
    };
    for name in ["embedding_tied", "resized_tied"] {
        let dir = edited(name, |_| (), differ);
        let error = LoadedAdapter::read(dir.path(), &case.base.config).unwrap_err();
        let message = "tensors `model.embed_tokens.weight` and `lm_head.weight` differ, but the base \
                       ties them";
        assert!(error.to_string().ends_with(message), "{error}");
        assert!(error.hint().unwrap().contains("modules_to_save"), "{:?}", error.hint());
    }
    // Rows of tokens that differ are those of two modules.
    let rows = |name: &str, data: &mut Vec<u8>| {
        if name.contains("lm_head.token_adapter.trainable") {
            data[0] ^= 1;
        }
        true
    };
    let dir = edited("resized_tokens_tied", |_| (), rows);
    let error = LoadedAdapter::read(dir.path(), &case.base.config).unwrap_err();
    assert!(error.to_string().contains("trainable_tokens_delta` is not supported"), "{error}");
}

/// The head of a tied base has no shape of its own there, and must be in the file all the same.
#[test]
fn what_is_announced_over_a_tied_base_must_be_there() {
    let case = Case::new("embedding_tied");
    let headless = |name: &str, _: &mut Vec<u8>| name != HEAD;
    let dir = edited("head_untied", |_| (), headless);
    let error = LoadedAdapter::read(dir.path(), &case.base.config).unwrap_err();
    assert!(error.to_string().ends_with("`base_model.model.lm_head.weight` is missing"), "{error}");
    let wide = Base::open(&golden("tiny_llama/gqa")).unwrap();
    let error = LoadedAdapter::read(&golden("adapters/resized_tied"), &wide.config).unwrap_err();
    assert!(error.hint().unwrap().contains("another base"), "{error}");
}
