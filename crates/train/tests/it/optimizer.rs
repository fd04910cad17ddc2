//! Steps over everything that is trained, with the rates that parts of it have of their own.

use compute::cpu::Precision;
use compute::random::{key, mix, uniform};
use compute::{Backend, DType, Measure, Optimizer, Reference, Shape};
use model::{Base, Decoder, LoadOptions, Role, Selection, TrainedTensor, Training};
use serde_json::Value;
use train::optimizer::OptimizerConfig;

use crate::support::{cpu, floats, golden_json, model_golden, model_golden_json};

/// What a tensor of PEFT's is here.
fn role(name: &str) -> Role {
    match name {
        // Over an embedding: PEFT gives it a rate of its own.
        name if name.contains("lora_embedding") => Role::Tokens,
        name if name.contains("magnitude") => Role::Magnitude,
        name if name.contains("lora_A") => Role::LoraA,
        name if name.contains("lora_B") => Role::LoraB,
        name if name.ends_with("norm.modules_to_save.default.weight") => Role::Norm,
        name if name.ends_with("bias") => Role::Bias,
        _ => Role::Linear,
    }
}

fn check_loraplus(backend: &mut dyn Backend, golden: &Value) {
    let number = |key: &str| golden[key].as_f64().unwrap();
    let betas = floats(&golden["betas"]);
    let adamw = Optimizer::AdamW {
        betas: [betas[0], betas[1]],
        eps: golden["eps"].as_f64().unwrap() as f32,
    };
    let config = OptimizerConfig {
        matrices: adamw,
        others: adamw,
        weight_decay: number("weight_decay") as f32,
        embedding_ratio: 1e-6 / number("lr"),
        loraplus_ratio: number("loraplus_lr_ratio"),
    };
    let tensors = golden["tensors"].as_array().unwrap();
    let mut trained = Vec::new();
    for tensor in tensors {
        let name = tensor["name"].as_str().unwrap().to_owned();
        let role = role(&name);
        let rate = tensor["lr"].as_f64().unwrap();
        let ours = number("lr") * config.rate(role);
        assert!((ours / rate - 1.0).abs() < 1e-12, "{name}: rate {ours}, {rate}");
        let shape = match floats(&tensor["shape"])[..] {
            [rows, cols] => Shape::Matrix(rows as usize, cols as usize),
            [len] => Shape::Vector(len as usize),
            _ => panic!("{name}"),
        };
        let initial = floats(&tensor["initial"]);
        let kind = config.kinds().of(role);
        let parameter = backend.load_trained(shape, &initial, kind).unwrap();
        trained.push(TrainedTensor { name, role, parameter });
    }
    for step in 0..golden["steps"].as_u64().unwrap() {
        for (tensor, row) in trained.iter().zip(tensors) {
            let gradient = floats(&row["gradients"][step as usize]);
            backend.upload(&gradient, tensor.parameter.gradient).unwrap();
        }
        config.step(backend, &trained, number("lr"), 1.0, step + 1).unwrap();
        for (tensor, row) in trained.iter().zip(tensors) {
            let mut values = vec![0.0; tensor.len()];
            backend.read(tensor.parameter.master, &mut values).unwrap();
            for (value, expected) in values.iter().zip(floats(&row["after"][step as usize])) {
                let name = &tensor.name;
                assert!((value - expected).abs() < 1e-6, "{name}, step {step}: {value} {expected}");
            }
        }
    }
}

#[test]
fn loraplus_equals_peft() {
    let golden = model_golden_json("adapters/loraplus.json");
    let mut reference = Reference::new();
    reference.reserve(1 << 20).unwrap();
    check_loraplus(&mut reference, &golden);
    let mut cpu = cpu(1, Precision::F32);
    cpu.reserve(1 << 20).unwrap();
    check_loraplus(&mut cpu, &golden);
}

/// All of a small model, as it is trained by 8-bit AdamW.
fn eight_bit(backend: &mut dyn Backend, case: &str) -> (OptimizerConfig, Vec<TrainedTensor>) {
    let adamw = Optimizer::AdamW8bit { betas: [0.9, 0.999], eps: 1e-8 };
    let config = OptimizerConfig {
        matrices: adamw,
        others: adamw,
        weight_decay: 0.1,
        embedding_ratio: 1.0,
        loraplus_ratio: 1.0,
    };
    let base = Base::open(&model_golden(case)).unwrap();
    let training = Training { tensors: Selection::All, optimizers: config.kinds() };
    let options = LoadOptions { training: Some(training), ..LoadOptions::default() };
    let decoder = Decoder::load_with(&base, backend, &options).unwrap();
    (config, decoder.trained().to_vec())
}

/// bitsandbytes steps embeddings and small tensors in 32 bits, as Trainer asks it to.
#[test]
fn moments_have_as_many_bits_as_with_trainer() {
    let golden = golden_json("trainer.json");
    let (_, trained) = eight_bit(&mut Measure::new(DType::F32), "tiny_llama/gqa");
    let bytes = golden["eight_bit"].as_object().unwrap();
    assert_eq!(trained.len(), bytes.len());
    for tensor in &trained {
        let (_, moment) = tensor.parameter.states().next().unwrap();
        assert_eq!(bytes[&tensor.name], moment.dtype.size(), "{}", tensor.name);
    }
}

/// Rows with gradients of very different sizes, as those of rare and common tokens are.
#[test]
fn an_embedding_takes_the_steps_of_trainer() {
    let golden = &golden_json("trainer.json")["embedding"];
    let settings = &golden["settings"];
    let rate = settings["learning_rate"].as_f64().unwrap();
    let (sizes, shown) = (floats(&golden["sizes"]), floats(&golden["shown"]));
    let mut cpu = cpu(1, Precision::F32);
    cpu.reserve(1 << 20).unwrap();
    let (config, trained) = eight_bit(&mut cpu, "tiny_llama/gqa");
    let embedding = trained.iter().find(|tensor| tensor.role == Role::Embedding).unwrap();
    let cols = 64;
    for (step, expected) in golden["rows"].as_array().unwrap().iter().enumerate() {
        let key = key(&[20, step as u64]);
        let draw = |i: usize| (uniform(mix(key ^ i as u64)) - 0.5) * 2.0;
        let gradient = (0..embedding.len()).map(|i| draw(i) * sizes[i / cols % sizes.len()]);
        let gradient: Vec<f32> = gradient.collect();
        cpu.upload(&gradient, embedding.parameter.gradient).unwrap();
        config.step(&mut cpu, &trained, rate, 1.0, step as u64 + 1).unwrap();
        let mut values = vec![0.0; embedding.len()];
        cpu.read(embedding.parameter.master, &mut values).unwrap();
        let rows = shown.iter().flat_map(|&row| &values[row as usize * cols..][..cols]);
        for (value, expected) in rows.zip(floats(expected)) {
            assert!((value - expected).abs() < 2e-6, "step {step}: {value} {expected}");
        }
    }
}

/// Whether a tensor decays is what Trainer decides by its name.
#[test]
fn what_decays_is_what_decays_with_trainer() {
    let golden = golden_json("trainer.json");
    let config = OptimizerConfig {
        weight_decay: 0.1,
        ..eight_bit(&mut Measure::new(DType::F32), "tiny_llama/gqa").0
    };
    let decays = |role| config.decay(role) > 0.0;
    let (_, trained) = eight_bit(&mut Measure::new(DType::F32), "architectures/llama_bias");
    let expected = golden["decay"]["full"].as_object().unwrap();
    assert_eq!(trained.len(), expected.len());
    for tensor in &trained {
        assert_eq!(expected[&tensor.name], decays(tensor.role), "{}", tensor.name);
    }
    let mut seen = Vec::new();
    for (name, expected) in golden["decay"]["adapter"].as_object().unwrap() {
        let role = match name {
            name if name.contains("norm.modules_to_save") => Role::Norm,
            name if name.contains("lm_head") => Role::Head,
            name if name.contains("trainable_tokens") => Role::Tokens,
            name => role(name),
        };
        assert_eq!(*expected, decays(role), "{name}");
        seen.push(role);
    }
    for role in [Role::Magnitude, Role::LoraA, Role::LoraB, Role::Tokens, Role::Head, Role::Norm] {
        assert!(seen.contains(&role), "{role:?}");
    }
}
