//! Steps over everything that is trained, with the rates that parts of it have of their own.

use compute::cpu::Precision;
use compute::{Backend, Optimizer, Reference, Shape};
use model::{Role, TrainedTensor};
use serde_json::Value;
use train::optimizer::OptimizerConfig;

use crate::support::{cpu, floats, model_golden_json};

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
