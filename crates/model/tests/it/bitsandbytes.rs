//! Checkpoints that bitsandbytes quantised, and ours of the same base: log-probabilities and LoRA
//! gradients through 4-bit and 8-bit weights.

use compute::Quantization;
use compute::cpu::Precision;
use model::adapter::LoadedAdapter;
use model::{Base, Decoder, HeadRequest, LoadOptions, Optimizers, Pass};

use crate::support::{
    How, Rig, batch, check_close, cpu, distance, floats, golden, json, on_exact_backends,
    random_sequence, sequence, tensors, tokens,
};

/// A base under the adapter of the goldens, on the CPU.
fn rig(base: &Base, quantization: Option<Quantization>, precision: Precision) -> Rig {
    let adapter = LoadedAdapter::read(&golden("bnb/adapter"), &base.config).unwrap();
    let mut backend = cpu(precision, 2);
    let training = Some(Optimizers::ADAMW);
    let (decoder, adapter) = adapter.load(base, &mut backend, quantization, training).unwrap();
    Rig { backend: Box::new(backend), decoder, adapter }
}

fn sequence_of(expected: &serde_json::Value) -> text::Batch {
    let mut weights = vec![0.0];
    weights.extend(floats(&expected["weights"]));
    batch(&[sequence(0, &tokens(&expected["tokens"]), &weights)], 0)
}

/// At the targets of the batch, from one number a token.
fn at_targets(batch: &text::Batch, by_token: &[f32]) -> Vec<f32> {
    batch.targets.iter().map(|t| by_token[batch.reads[t.read as usize] as usize]).collect()
}

#[track_caller]
fn check(case: &str) {
    let expected = json(&format!("bnb/{case}/golden.json"));
    let batch = sequence_of(&expected);
    let base = Base::open(&golden(&format!("bnb/{case}"))).unwrap();
    let logprobs = |key: &str| at_targets(&batch, &floats(&expected[key]));

    let mut exact = rig(&base, None, Precision::F32);
    check_close(case, &exact.base_logprobs(&batch), &logprobs("logprobs"));
    check_close(case, &exact.logprobs(&batch), &logprobs("lora_logprobs"));
    let gradients = exact.gradients(&batch, How::default());
    let golden = tensors(&golden(&format!("bnb/{case}/gradients.safetensors")));
    let names: Vec<String> = exact.adapter.trained().iter().map(|t| t.name.clone()).collect();
    // The rig divides by 32, the golden by all weights.
    let total: f32 = batch.targets.iter().map(|target| target.weight).sum();
    for (name, gradient) in names.iter().zip(&gradients) {
        let gradient: Vec<f32> = gradient.iter().map(|g| g * 32.0 / total).collect();
        check_close(&format!("{case} {name}"), &gradient, &golden[name]);
    }

    // In bf16 everything is rounded, but to the same side of useful.
    let mut rounded = rig(&base, None, Precision::Bf16);
    let apart = distance(&rounded.logprobs(&batch), &logprobs("lora_logprobs"));
    assert!(apart < 0.02, "{case}: {apart} in bf16");
}

#[test]
fn nf4_with_double_quantisation() {
    check("nf4");
}

#[test]
fn nf4_with_plain_magnitudes() {
    check("nf4_plain");
}

#[test]
fn fp4() {
    check("fp4");
}

#[test]
fn int8() {
    check("int8");
}

/// What is quantised while loading is what bitsandbytes wrote.
#[test]
fn a_base_quantised_here_is_the_one_quantised_there() {
    let original = Base::open(&golden("tiny_llama/gqa")).unwrap();
    for (case, quantization) in [("nf4", Quantization::Nf4), ("int8", Quantization::Int8)] {
        let stored = Base::open(&golden(&format!("bnb/{case}"))).unwrap();
        let batch = sequence_of(&json(&format!("bnb/{case}/golden.json")));
        for precision in [Precision::F32, Precision::Bf16] {
            let theirs = rig(&stored, None, precision).base_logprobs(&batch);
            let ours = rig(&original, Some(quantization), precision).base_logprobs(&batch);
            // The mean of the magnitudes is summed in another order; int8 magnitudes are theirs from f16.
            let limit = match (case, precision) {
                ("nf4", Precision::F32) => 1e-5,
                ("nf4", Precision::Bf16) => 1e-3,
                _ => 5e-3,
            };
            let apart = distance(&ours, &theirs);
            assert!(apart < limit, "{case} in {precision:?}: {apart}");
        }
    }
}

/// Parts of a fused matrix have the codes and magnitudes that the package gives the tensor as it is stored.
#[test]
fn fused_matrices_are_quantised_as_they_are_stored() {
    for case in json("fused_nf4.json")["cases"].as_array().unwrap() {
        let name = case["case"].as_str().unwrap();
        let base = Base::open(&golden(&format!("architectures/{name}"))).unwrap();
        let batch = batch(&[random_sequence(0, &tokens(&case["tokens"]))], 0);
        on_exact_backends(|backend| {
            let quantization = Some(Quantization::Nf4);
            let options = LoadOptions { quantization, ..LoadOptions::default() };
            let decoder = Decoder::load_with(&base, backend, &options).unwrap();
            let (request, pass) = (HeadRequest::logprobs(), Pass::default());
            let mut hidden = decoder.forward(backend, &batch, &pass).unwrap();
            let targets = &batch.targets;
            let outputs =
                decoder.head(backend, &mut hidden, targets, &request, None, None, &pass).unwrap();
            hidden.release(backend);
            let apart = distance(&outputs.logprob, &floats(&case["logprobs"]));
            // The mean of the magnitudes is summed in another order.
            assert!(apart < 1e-5, "{name}: {apart}");
        });
    }
}
