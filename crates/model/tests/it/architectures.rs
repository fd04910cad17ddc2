//! Small random models of every family: logits, loss, greedy answers and the gradient of every tensor
//! equal those of transformers and PEFT.

use std::collections::BTreeMap;

use compute::Reference;
use compute::cpu::Precision;
use compute::{Backend, DType};
use model::generate::{Flow, GenerateConfig, Prompt, generate};
use model::{Base, HeadRequest, Want};
use serde_json::Value;
use text::{Batch, Segment, Target};

use crate::subject::{Gradients, Subject, Trained};
use crate::support::{
    How, Lora, batch, check_close, check_same, cpu, distance, floats, golden, json, lora, sequence,
    tensors, tokens,
};

/// Every folder of `tests/golden/architectures`.
macro_rules! families {
    ($($name:ident),* $(,)?) => {
        $(#[test]
        fn $name() {
            let case = Case::new(stringify!($name));
            case.check_exact();
            case.check_bf16();
        })*

        #[test]
        fn every_folder_is_a_test() {
            let mut names = vec![$(stringify!($name)),*];
            names.sort_unstable();
            assert_eq!(names, folders());
        }
    };
}

families![
    mistral,
    mistral_full,
    qwen2,
    qwen2_window,
    qwen3,
    gemma2,
    gemma3_text,
    gemma3,
    phi3,
    phi3_longrope,
    phi4mini,
    phi4mini_longrope,
    smollm3,
    olmo2,
    granite,
    llama_bias,
];

fn folders() -> Vec<String> {
    let entries = std::fs::read_dir(golden("architectures")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort_unstable();
    names
}

/// A model with what PyTorch says of it.
struct Case {
    name: &'static str,
    base: Base,
    lora: Lora,
    json: Value,
    batch: Batch,
    /// By target of the batch.
    logprobs: Vec<f32>,
    lora_logprobs: Vec<f32>,
    gradients: Gradients,
    lora_gradients: Gradients,
}

/// Names as a decoder without further parts has them.
fn plain(gradients: Gradients) -> Gradients {
    let name = |name: String| {
        let name = name.replace("language_model.model.", "model.");
        name.replace("model.language_model.", "model.")
    };
    gradients.into_iter().map(|(key, values)| (name(key), values)).collect()
}

impl Case {
    fn new(name: &'static str) -> Self {
        let dir = format!("architectures/{name}");
        let base = Base::open(&golden(&dir)).unwrap();
        let lora = lora(&golden(&format!("{dir}/adapter")), &base);
        let json = json(&format!("{dir}/golden.json"));
        let entries = json["sequences"].as_array().unwrap();
        let sequences = entries.iter().enumerate().map(|(row, entry)| {
            let weights = [vec![0.0], floats(&entry["weights"])].concat();
            sequence(row as u64, &tokens(&entry["tokens"]), &weights)
        });
        let batch = batch(&sequences.collect::<Vec<_>>(), 0);
        let positions = batch.positions();
        let by_target = |key: &str| {
            let rows: Vec<Vec<f32>> = entries.iter().map(|entry| floats(&entry[key])).collect();
            let targets = batch.targets.iter().map(|target| {
                let position = positions[batch.reads[target.read as usize] as usize];
                rows[target.sequence as usize][position as usize]
            });
            targets.collect::<Vec<f32>>()
        };
        let (logprobs, lora_logprobs) = (by_target("logprobs"), by_target("lora_logprobs"));
        let read = |file: &str| plain(tensors(&golden(&format!("{dir}/{file}.safetensors"))));
        let (gradients, lora_gradients) = (read("gradients"), read("lora_gradients"));
        Case { name, base, lora, json, batch, logprobs, lora_logprobs, gradients, lora_gradients }
    }

    fn subject(&self, backend: Box<dyn Backend>, trained: Trained) -> Subject {
        Subject::new(backend, &self.base, &self.lora, trained, None)
    }

    /// Sum of the targets' weights.
    fn total(&self) -> f32 {
        self.batch.targets.iter().map(|target| target.weight).sum()
    }

    fn loss(&self, logprobs: &[f32]) -> f64 {
        let products = self.batch.targets.iter().zip(logprobs);
        let sum: f64 = products.map(|(t, &lp)| f64::from(t.weight) * f64::from(lp)).sum();
        -sum / f64::from(self.total())
    }

    fn check_exact(&self) {
        let backends: [fn() -> Box<dyn Backend>; 2] = [
            || {
                let mut reference = Reference::new();
                reference.reserve(64 << 20).unwrap();
                Box::new(reference)
            },
            || Box::new(cpu(Precision::F32, 2)),
        ];
        for backend in backends {
            let kind = backend().device().kind;
            let trained = [
                (Trained::All, &self.logprobs, "loss", &self.gradients),
                (Trained::Lora, &self.lora_logprobs, "lora_loss", &self.lora_gradients),
            ];
            for (trained, logprobs, loss, gradients) in trained {
                let what = format!("{} {kind} {trained:?}", self.name);
                let mut subject = self.subject(backend(), trained);
                let how = How::default();
                let found = self.check_gradients(&what, &mut subject, how, logprobs, gradients);
                let (loss, expected) = (self.loss(&found.0), self.json[loss].as_f64().unwrap());
                assert!((loss - expected).abs() < 1e-5 * expected, "{what}: loss {loss}");
                self.check_ways(&what, &mut subject, &found);
            }
            let mut subject = self.subject(backend(), Trained::Nothing);
            self.check_logits(kind, &mut subject);
            self.check_greedy(kind, &mut subject);
        }
    }

    fn check_gradients(
        &self,
        what: &str,
        subject: &mut Subject,
        how: How,
        logprobs: &[f32],
        gradients: &Gradients,
    ) -> (Vec<f32>, Gradients) {
        let found = subject.accumulate(&self.batch, self.total(), how);
        check_close(&format!("{what} log-probs"), &found, logprobs);
        let all = subject.take_gradients();
        assert!(all.keys().eq(gradients.keys()), "{what}: {:?}", all.keys());
        for (name, gradient) in &all {
            check_close(&format!("{what} gradient of {name}"), gradient, &gradients[name]);
        }
        (found, all)
    }

    /// Computing layers again changes no bit; one pass over the vocabulary is the same as two.
    fn check_ways(&self, what: &str, subject: &mut Subject, kept: &(Vec<f32>, Gradients)) {
        let mut again = |checkpoint, one_pass| {
            let how = How { checkpoint, one_pass, ..How::default() };
            (subject.accumulate(&self.batch, self.total(), how), subject.take_gradients())
        };
        let checkpointed = again(true, false);
        check_same(&format!("{what} checkpointed"), &checkpointed.0, &kept.0);
        for (name, gradient) in &checkpointed.1 {
            check_same(&format!("{what} checkpointed {name}"), gradient, &kept.1[name]);
        }
        let one_pass = again(false, true);
        for (name, gradient) in &one_pass.1 {
            let distance = distance(gradient, &kept.1[name]);
            assert!(distance < 1e-6, "{what} in one pass: {name}: distance {distance:e}");
        }
    }

    /// All logits at three positions of every sequence.
    fn check_logits(&self, kind: &str, subject: &mut Subject) {
        let request = HeadRequest {
            want: Want { logprob: true, lse: true, ..Want::default() },
            ..HeadRequest::logprobs()
        };
        let vocab = self.base.config.vocab_size;
        for entry in self.json["sequences"].as_array().unwrap() {
            let reads = tokens(&entry["positions"]);
            let all = whole_vocabulary(&tokens(&entry["tokens"]), &reads, vocab as u32);
            let outputs = subject.outputs(&all, &request);
            let expected = entry["logits"].as_array().unwrap();
            let found = outputs.logprob.chunks(vocab).zip(&outputs.lse);
            for ((logprobs, lse), expected) in found.zip(expected) {
                let logits: Vec<f32> = logprobs.iter().map(|logprob| logprob + lse).collect();
                check_close(&format!("{} {kind} logits", self.name), &logits, &floats(expected));
            }
        }
    }

    fn check_greedy(&self, kind: &str, subject: &mut Subject) {
        let expected = tokens(&self.json["greedy_after_last_sequence"]);
        let sequences = self.json["sequences"].as_array().unwrap();
        let prompt = Prompt {
            tokens: tokens(&sequences[sequences.len() - 1]["tokens"]),
            max_new_tokens: expected.len(),
            key: 0,
        };
        let (decoder, backend) = (&subject.decoder, &mut *subject.backend);
        let config = GenerateConfig::default();
        let completions =
            generate(decoder, backend, None, &[prompt], &config, &mut |_, _| Flow::Continue);
        assert_eq!(completions.unwrap()[0].tokens, expected, "{} {kind}", self.name);
    }

    /// Products of bf16: log-probabilities and gradients point where the exact ones do.
    fn check_bf16(&self) {
        for (trained, logprobs, gradients) in [
            (Trained::All, &self.logprobs, &self.gradients),
            (Trained::Lora, &self.lora_logprobs, &self.lora_gradients),
        ] {
            let mut subject = self.subject(Box::new(cpu(Precision::Bf16, 2)), trained);
            assert_eq!(subject.backend.operand(), DType::Bf16);
            let found = subject.accumulate(&self.batch, self.total(), How::default());
            let what = format!("{} bf16 {trained:?}", self.name);
            let error = distance(&found, logprobs);
            assert!(error < BF16_DISTANCE, "{what} log-probs: distance {error}");
            let (mut all, mut all_expected) = (Vec::new(), Vec::new());
            for (name, gradient) in subject.take_gradients() {
                let cosine = cosine(&gradient, &gradients[&name]);
                assert!(cosine > BF16_COSINE_EACH, "{what} gradient of {name}: cosine {cosine}");
                all.extend(gradient);
                all_expected.extend(&gradients[&name]);
            }
            let cosine = cosine(&all, &all_expected);
            assert!(cosine > BF16_COSINE, "{what} gradient: cosine {cosine}");
        }
    }
}

/// bf16: relative distance of all log-probabilities.
const BF16_DISTANCE: f64 = 0.01;

/// bf16: cosine of the gradient of all tensors. Models this small do not average errors out: the least that
/// PyTorch's autocast reaches over the same folders is 0.9986, for `phi4mini`.
const BF16_COSINE: f64 = 0.998;

/// bf16: cosine of one tensor's gradient. Some have as few as 8 numbers; autocast falls to 0.9983.
const BF16_COSINE_EACH: f64 = 0.995;

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// One sequence, and every token a target at every read.
fn whole_vocabulary(tokens: &[u32], reads: &[u32], vocab: u32) -> Batch {
    let target = |read, token| Target { read, token, sequence: 0, place: 0, role: 0, weight: 1.0 };
    let targets =
        (0..reads.len() as u32).flat_map(|read| (0..vocab).map(move |token| target(read, token)));
    Batch {
        tokens: tokens.to_vec(),
        segments: vec![Segment {
            start: 0,
            len: tokens.len(),
            parent: None,
            sequence_len: tokens.len(),
            row: 0,
        }],
        reads: reads.to_vec(),
        targets: targets.collect(),
        last_reads: Vec::new(),
    }
}

/// A file in llama.cpp's names and order computes what its folder does.
#[test]
fn gguf_files_equal_their_folders() {
    let mut count = 0;
    for name in folders() {
        let path = golden(&format!("gguf/{name}.gguf"));
        if !path.is_file() {
            continue;
        }
        count += 1;
        let case = Case::new(String::leak(name));
        let mut file = Base::open(&path).unwrap();
        // Files do not say which layers have no rope: every fourth, which this model lacks.
        if case.name == "smollm3" {
            file.config.layers.clone_from(&case.base.config.layers);
        }
        let backend = Box::new(cpu(Precision::F32, 2));
        let mut subject = Subject::new(backend, &file, &case.lora, Trained::Lora, None);
        let found = subject.accumulate(&case.batch, case.total(), How::default());
        check_close(&format!("{} log-probs", case.name), &found, &case.lora_logprobs);
        let gradients: BTreeMap<_, _> = subject.take_gradients();
        for (name, gradient) in &gradients {
            check_close(&format!("{} {name}", case.name), gradient, &case.lora_gradients[name]);
        }
    }
    assert_eq!(count, 11);
}
