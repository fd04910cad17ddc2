//! What must not change a result, for every family, whatever is trained and however weights are stored:
//! packing, sharing, accumulation, neighbours, threads, checkpointing, the cache.

use compute::Quantization;
use compute::cpu::Precision;
use data::{Packing, Sequence, pack};
use model::generate::{Flow, GenerateConfig, Prompt, generate};
use model::{Adapter, Base, HeadRequest, Want};
use text::{Batch, Target};

use crate::gguf_file::in_blocks;
use crate::subject::{Gradients, Subject, Trained, families};
use crate::support::{
    How, Lora, by_place, check_same, cpu, distance, golden, lora, random_sequence, random_tokens,
    split_trees,
};

/// How frozen weights are stored and products computed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Storage {
    Plain(Precision),
    Quantized(Precision, Quantization),
    /// Q8_0, where rows have whole blocks.
    Blocks,
}

const STORAGES: [Storage; 6] = [
    Storage::Plain(Precision::F32),
    Storage::Plain(Precision::Bf16),
    Storage::Quantized(Precision::F32, Quantization::Nf4),
    Storage::Quantized(Precision::Bf16, Quantization::Nf4),
    Storage::Quantized(Precision::Bf16, Quantization::Int8),
    Storage::Blocks,
];

/// Families over beginnings of 16 tokens or more, one with a beginning of its own, and rows apart, some longer
/// than a tile of attention, a window and LongRoPE's short sequences, some not.
fn rows() -> Vec<Sequence> {
    let (first, second) = (random_tokens(50, 40, 90), random_tokens(51, 17, 90));
    let inner = random_tokens(52, 18, 90);
    let tail = |seed, len| random_tokens(seed, len, 90);
    let all = [
        [first.clone(), tail(60, 12)].concat(),
        [first.clone(), inner.clone(), tail(61, 5)].concat(),
        [first.clone(), inner, tail(62, 20)].concat(),
        [first, tail(63, 1)].concat(),
        [second.clone(), tail(64, 3)].concat(),
        [second.clone(), tail(65, 9)].concat(),
        [second, tail(66, 4)].concat(),
        tail(67, 70),
        tail(68, 9),
        tail(69, 2),
    ];
    let rows = all.iter().enumerate();
    rows.map(|(row, tokens)| random_sequence(row as u64, tokens)).collect()
}

/// Two prompts with a beginning in common that is longer than a window.
fn prompts() -> Vec<Prompt> {
    let first = random_tokens(80, 20, 90);
    let tails = [3, 11].map(|len| random_tokens(81 + len, len as usize, 90));
    let prompts = tails.iter().enumerate().map(|(key, tail)| Prompt {
        tokens: [first.as_slice(), tail].concat(),
        max_new_tokens: 12,
        key: key as u64,
    });
    prompts.collect()
}

/// One combination.
struct Combination {
    what: String,
    base: Base,
    lora: Lora,
    trained: Trained,
    precision: Precision,
    quantization: Option<Quantization>,
}

type Results = (Vec<f32>, Gradients);

impl Combination {
    /// None where there is no such file.
    fn new(family: &str, trained: Trained, storage: Storage) -> Option<Self> {
        let folder = Base::open(&golden(family)).unwrap();
        let lora = lora(&golden(&format!("{family}/adapter")), &folder);
        let (base, precision, quantization) = match storage {
            Storage::Plain(precision) => (folder, precision, None),
            Storage::Quantized(precision, quantization) => (folder, precision, Some(quantization)),
            Storage::Blocks => (blocks(family)?, Precision::Bf16, None),
        };
        let what = format!("{family} {trained:?} {storage:?}");
        Some(Combination { what, base, lora, trained, precision, quantization })
    }

    fn subject(&self, threads: usize) -> Subject {
        let backend = Box::new(cpu(self.precision, threads));
        Subject::new(backend, &self.base, &self.lora, self.trained, self.quantization)
    }

    fn batch(&self, rows: &[Sequence], min_shared: usize) -> Batch {
        let apart_beyond = self.base.config.long_beyond();
        let packing = Packing { min_shared, apart_beyond, ..Packing::new(usize::MAX) };
        pack(rows, &packing).remove(0).batch
    }

    /// Log-probabilities and gradients of some batches, one after another.
    fn results(&self, subject: &mut Subject, batches: &[Batch], how: How) -> Results {
        let logprobs = match self.trained {
            Trained::Nothing => batches.iter().flat_map(|batch| subject.logprobs(batch)).collect(),
            _ => subject.step(batches, 64.0, how),
        };
        (logprobs, subject.take_gradients())
    }

    fn check(&self) {
        let rows = rows();
        let (shared, repeated) = (self.batch(&rows, 16), self.batch(&rows, 0));
        assert!(shared.tokens.len() < repeated.tokens.len() && shared.segments.len() > 10);
        let mut subject = self.subject(2);
        let plain = How::default();
        let expected = self.results(&mut subject, std::slice::from_ref(&shared), plain);

        let apart = self.results(&mut subject, &split_trees(&shared), plain);
        self.check_same("accumulated", &apart, &expected);
        if self.trained != Trained::Nothing {
            let checkpoint = How { checkpoint: true, ..plain };
            let again = self.results(&mut subject, std::slice::from_ref(&shared), checkpoint);
            self.check_same("checkpointed", &again, &expected);
        }
        for threads in [1, 3] {
            let mut subject = self.subject(threads);
            let found = self.results(&mut subject, std::slice::from_ref(&shared), plain);
            self.check_same(&format!("{threads} threads"), &found, &expected);
        }
        self.check_repeated(&mut subject, &rows, (&shared, &expected), &repeated);
        self.check_cache(&mut subject);
    }

    /// A shared beginning is the same as one that every row has for itself, alone or among others.
    fn check_repeated(
        &self,
        subject: &mut Subject,
        rows: &[Sequence],
        (shared, expected): (&Batch, &Results),
        repeated: &Batch,
    ) {
        let what = &self.what;
        let one_pass = How { one_pass: true, ..How::default() };
        let packed = self.results(subject, std::slice::from_ref(repeated), one_pass);
        let places = by_place(rows, shared, &expected.0);
        assert!(by_place(rows, repeated, &packed.0) == places, "{what}: shared and repeated");
        if self.precision == Precision::F32 {
            for (name, gradient) in &packed.1 {
                let distance = distance(gradient, &expected.1[name]);
                assert!(distance < 1e-5, "{what} repeated {name}: distance {distance:e}");
            }
        }
        let alone = self.results(subject, &split_trees(repeated), one_pass);
        self.check_same("alone", &alone, &packed);
        let mut reversed = rows.to_vec();
        reversed.reverse();
        let batch = self.batch(&reversed, 0);
        let found = by_place(&reversed, &batch, &subject.logprobs(&batch));
        assert!(found == places, "{what}: in another order");
    }

    /// What is generated token by token, with keys and values from a cache, is what one pass sees.
    fn check_cache(&self, subject: &mut Subject) {
        let (prompts, config) = (prompts(), GenerateConfig::default());
        let Subject { backend, decoder, adapter } = subject;
        let mut go_on = |_, _| Flow::Continue;
        let adapter = adapter.as_ref().map(|adapter: &Adapter| adapter);
        let mut run = |prompts: &[Prompt]| {
            generate(decoder, &mut **backend, adapter, prompts, &config, &mut go_on).unwrap()
        };
        let together = run(&prompts);
        let alone = prompts.iter().map(|prompt| run(std::slice::from_ref(prompt)).remove(0));
        assert!(alone.collect::<Vec<_>>() == together, "{}: generated alone", self.what);
        for (prompt, completion) in prompts.iter().zip(together) {
            let tokens = [prompt.tokens.as_slice(), &completion.tokens].concat();
            let (top1, logprobs) = self.scored(subject, &tokens, prompt.tokens.len());
            assert_eq!(completion.tokens, top1, "{}: cached", self.what);
            let apart = distance(&completion.logprobs, &logprobs);
            assert!(apart < 1e-5, "{}: cached log-probs: distance {apart:e}", self.what);
        }
    }

    /// Likeliest tokens and log-probabilities from `first` on, all of one pass. Where the length of a sequence
    /// decides about its frequencies, a token has a pass of its own over the tokens before it.
    fn scored(&self, subject: &mut Subject, tokens: &[u32], first: usize) -> (Vec<u32>, Vec<f32>) {
        let want = Want { logprob: true, top1: true, ..Want::default() };
        let request = HeadRequest { want, ..HeadRequest::logprobs() };
        if self.base.config.long_beyond().is_none() {
            let batch = self.batch(&[random_sequence(0, tokens)], 0);
            let outputs = subject.outputs(&batch, &request);
            return (outputs.top1[first - 1..].to_vec(), outputs.logprob[first - 1..].to_vec());
        }
        let (mut top1, mut logprobs) = (Vec::new(), Vec::new());
        for end in first..tokens.len() {
            let mut batch = self.batch(&[random_sequence(0, &tokens[..end])], 0);
            let (read, token) = (0, tokens[end]);
            batch.reads = vec![end as u32 - 1];
            batch.targets =
                vec![Target { read, token, sequence: 0, place: 0, role: 0, weight: 1.0 }];
            let outputs = subject.outputs(&batch, &request);
            top1.extend(outputs.top1);
            logprobs.extend(outputs.logprob);
        }
        (top1, logprobs)
    }

    #[track_caller]
    fn check_same(&self, what: &str, actual: &Results, expected: &Results) {
        let what = format!("{} {what}", self.what);
        check_same(&what, &actual.0, &expected.0);
        assert!(actual.1.keys().eq(expected.1.keys()), "{what}");
        for (name, gradient) in &actual.1 {
            check_same(&format!("{what} {name}"), gradient, &expected.1[name]);
        }
    }
}

/// A family's GGUF file with its matrices in blocks.
fn blocks(family: &str) -> Option<Base> {
    let name = family.strip_prefix("architectures/")?;
    let path = golden(&format!("gguf/{name}.gguf"));
    if !path.is_file() {
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("model.gguf");
    std::fs::write(&file, in_blocks(&path)).unwrap();
    Some(Base::open(&file).unwrap())
}

fn check_all(trained: Trained, storages: &[Storage]) {
    let mut count = 0;
    for family in families() {
        for &storage in storages {
            let Some(combination) = Combination::new(&family, trained, storage) else { continue };
            combination.check();
            count += 1;
        }
    }
    assert!(count > 30, "{count} combinations");
}

#[test]
fn of_the_base() {
    check_all(Trained::Nothing, &STORAGES);
}

#[test]
fn of_lora() {
    check_all(Trained::Lora, &STORAGES);
}

#[test]
fn of_dora() {
    check_all(Trained::Dora, &STORAGES);
}

/// What is trained is stored in f32.
#[test]
fn of_full_fine_tuning() {
    check_all(Trained::All, &STORAGES[..2]);
}
