//! Small random Llamas: log-probabilities, loss and the gradient of every LoRA matrix equal PyTorch's.

use std::collections::BTreeMap;

use compute::Backend;
use model::{
    Adapter, Base, Decoder, HeadGradients, HeadRequest, Keep, LoraConfig, Optimizers, Pass,
};
use safetensors::SafeTensors;
use text::Batch;

use crate::support::{
    batch, check_close, floats, golden, json, lora, on_exact_backends, sequence, tokens,
};

struct Case {
    base: Base,
    lora: (LoraConfig, Vec<Vec<f32>>),
    batch: Batch,
    /// By target of the batch.
    logprobs: Vec<f32>,
    lora_logprobs: Vec<f32>,
    lora_loss: f64,
    gradients: BTreeMap<String, Vec<f32>>,
}

fn case(name: &str) -> Case {
    let dir = format!("tiny_llama/{name}");
    let base = Base::open(&golden(&dir)).unwrap();
    let lora = lora(&golden(&format!("{dir}/adapter")), &base);
    let expected = json(&format!("{dir}/golden.json"));
    let limit = base.config.ropes[0].max_positions.unwrap_or(usize::MAX);
    let mut sequences = Vec::new();
    let mut by_sequence = Vec::new();
    for (row, entry) in expected["sequences"].as_array().unwrap().iter().enumerate() {
        let tokens = tokens(&entry["tokens"]);
        if tokens.len() > limit {
            continue;
        }
        let mut weights = vec![0.0];
        weights.extend(floats(&entry["weights"]));
        sequences.push(sequence(row as u64, &tokens, &weights));
        by_sequence.push((floats(&entry["logprobs"]), floats(&entry["lora_logprobs"])));
    }
    let batch = batch(&sequences, 0);
    let positions = batch.positions();
    let pick = |which: usize| {
        let targets = batch.targets.iter().map(|target| {
            let position = positions[batch.reads[target.read as usize] as usize] as usize;
            let (base, lora) = &by_sequence[target.sequence as usize];
            [base, lora][which][position]
        });
        targets.collect::<Vec<f32>>()
    };
    let bytes = std::fs::read(golden(&format!("{dir}/gradients.safetensors"))).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let gradients = tensors.tensors().into_iter().map(|(name, view)| {
        let values = view.data().chunks_exact(4);
        (name, values.map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect())
    });
    Case {
        lora,
        logprobs: pick(0),
        lora_logprobs: pick(1),
        lora_loss: expected["lora_loss"].as_f64().unwrap(),
        gradients: gradients.collect(),
        base,
        batch,
    }
}

fn gradient_weights(batch: &Batch) -> Vec<f32> {
    let total: f32 = batch.targets.iter().map(|target| target.weight).sum();
    batch.targets.iter().map(|target| -target.weight / total).collect()
}

fn check_case(name: &str, whole: bool) {
    let case = case(name);
    for checkpoint in [false, true] {
        for one_pass in [false, true] {
            on_exact_backends(|backend| check_on(&case, backend, checkpoint, one_pass, whole));
        }
    }
}

fn check_on(case: &Case, backend: &mut dyn Backend, checkpoint: bool, one_pass: bool, whole: bool) {
    let kind = backend.device().kind;
    let decoder = Decoder::load(&case.base, backend).unwrap();
    let config = &decoder.config;
    let (lora, values) = case.lora.clone();
    let adapter = Adapter::new(backend, &decoder, lora, &values, Some(Optimizers::ADAMW)).unwrap();
    let request = HeadRequest::logprobs();
    let targets = &case.batch.targets;

    let mut hidden = decoder.forward(backend, &case.batch, &Pass::default()).unwrap();
    let outputs = decoder
        .head(backend, &mut hidden, targets, &request, None, None, &Pass::default())
        .unwrap();
    check_close(&format!("{kind} log-probs"), &outputs.logprob, &case.logprobs);
    hidden.release(backend);

    let keep = Keep::for_backward(checkpoint);
    let pass = Pass { adapter: Some(&adapter), keep, ..Pass::default() };
    let weights = gradient_weights(&case.batch);
    let mut hidden = decoder.forward(backend, &case.batch, &pass).unwrap();
    let known = one_pass.then_some(weights.as_slice());
    let outputs =
        decoder.head(backend, &mut hidden, targets, &request, None, known, &pass).unwrap();
    check_close(&format!("{kind} LoRA log-probs"), &outputs.logprob, &case.lora_logprobs);
    let gradients =
        HeadGradients { logprob: (!one_pass).then(|| weights.clone()), ..Default::default() };
    decoder.backward(backend, hidden, &gradients, None, &pass).unwrap();
    if !whole {
        return;
    }
    let products = weights.iter().zip(&outputs.logprob);
    let loss: f64 = products.map(|(&w, &lp)| f64::from(w) * f64::from(lp)).sum();
    assert!((loss - case.lora_loss).abs() < 1e-4 * case.lora_loss, "{kind}: loss {loss}");
    let infos = adapter.config().matrices(config);
    assert_eq!(infos.len(), case.gradients.len());
    for (info, parameter) in infos.iter().zip(adapter.parameters()) {
        let mut gradient = vec![0.0; parameter.gradient.len];
        backend.read(parameter.gradient, &mut gradient).unwrap();
        check_close(
            &format!("{kind} gradient of {}", info.name),
            &gradient,
            &case.gradients[&info.name],
        );
    }
}

#[test]
fn grouped_queries() {
    check_case("gqa", true);
}

#[test]
fn tied_head() {
    check_case("tied", true);
}

#[test]
fn llama3_rope() {
    check_case("llama3", true);
}

#[test]
fn linear_rope() {
    check_case("linear", true);
}

#[test]
fn yarn_rope() {
    check_case("yarn", true);
}

/// Sequences below the limit only, so the loss over all of them is not compared.
#[test]
fn dynamic_rope() {
    check_case("dynamic", false);
}
