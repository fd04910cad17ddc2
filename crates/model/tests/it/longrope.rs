//! LongRoPE chooses frequencies by the length of a sequence, and by nothing else.

use compute::cpu::Precision;
use data::{Packing, pack};
use model::Base;
use model::generate::{Completion, Flow, GenerateConfig, Prompt, generate};

use crate::support::{
    Rig, batch, check_close, check_same, cpu, floats, golden, json, lora, on_exact_backends,
    random_sequence, random_tokens, tokens,
};

const CASES: [&str; 2] = ["phi3_longrope", "phi4mini_longrope"];

/// Tokens that a sequence may have before its frequencies change.
const LIMIT: usize = 24;

fn rig(case: &str, precision: Precision) -> Rig {
    let dir = format!("architectures/{case}");
    let base = Base::open(&golden(&dir)).unwrap();
    assert_eq!(base.config.long_beyond(), Some(LIMIT));
    let lora = lora(&golden(&format!("{dir}/adapter")), &base);
    Rig::new(Box::new(cpu(precision, 2)), &base, &lora)
}

fn run(rig: &mut Rig, prompts: &[Prompt], config: &GenerateConfig) -> Vec<Completion> {
    let adapter = Some(&rig.adapter);
    let mut go_on = |_, _| Flow::Continue;
    generate(&rig.decoder, &mut *rig.backend, adapter, prompts, config, &mut go_on).unwrap()
}

fn prompt(key: u64, tokens: Vec<u32>, max_new_tokens: usize) -> Prompt {
    Prompt { tokens, max_new_tokens, key }
}

/// Prompts that stay short, pass the limit, and are long from the start.
fn prompts() -> Vec<Prompt> {
    let lengths = [5, 20, 23, 24, 25, 30, 600];
    let prompts = lengths.iter().enumerate();
    prompts.map(|(i, &len)| prompt(i as u64, random_tokens(i as u64, len, 96), 10)).collect()
}

/// The same with a beginning in common.
fn family() -> Vec<Prompt> {
    let first = random_tokens(70, 18, 96);
    let rest = prompts().into_iter();
    rest.map(|own| Prompt { tokens: [first.clone(), own.tokens].concat(), ..own }).collect()
}

#[track_caller]
fn check_equal(actual: &[Completion], expected: &[Completion]) {
    assert_eq!(actual.len(), expected.len());
    for (index, (actual, expected)) in actual.iter().zip(expected).enumerate() {
        assert_eq!(actual.tokens, expected.tokens, "prompt {index}");
        check_same(&format!("log-probs of {index}"), &actual.logprobs, &expected.logprobs);
    }
}

#[test]
fn scores_and_answers_equal_those_of_transformers() {
    for case in CASES {
        let expected = &json("longrope.json")[case];
        let base = Base::open(&golden(&format!("architectures/{case}"))).unwrap();
        let scored = expected["scored"].as_array().unwrap();
        let sequences = scored.iter().enumerate();
        let sequences: Vec<_> =
            sequences.map(|(row, s)| random_sequence(row as u64, &tokens(&s["tokens"]))).collect();
        let logprobs: Vec<f32> = scored.iter().flat_map(|s| floats(&s["logprobs"])).collect();
        let generated = expected["generated"].as_array().unwrap();
        let asked = generated.iter().enumerate().map(|(key, entry)| {
            prompt(key as u64, tokens(&entry["prompt"]), tokens(&entry["tokens"]).len())
        });
        let asked: Vec<_> = asked.collect();
        on_exact_backends(|backend| {
            let decoder = model::Decoder::load(&base, backend).unwrap();
            let request = model::HeadRequest::logprobs();
            let pass = model::Pass::default();
            let mut found = Vec::new();
            for sequence in &sequences {
                let batch = batch(std::slice::from_ref(sequence), 0);
                let mut hidden = decoder.forward(backend, &batch, &pass).unwrap();
                let outputs = decoder
                    .head(backend, &mut hidden, &batch.targets, &request, None, None, &pass)
                    .unwrap();
                hidden.release(backend);
                found.extend(outputs.logprob);
            }
            check_close(case, &found, &logprobs);

            let config = GenerateConfig::default();
            let mut go_on = |_, _| Flow::Continue;
            let answers = generate(&decoder, backend, None, &asked, &config, &mut go_on).unwrap();
            for (answer, entry) in answers.iter().zip(generated) {
                let length = entry["prompt"].as_array().unwrap().len();
                assert_eq!(answer.tokens, tokens(&entry["tokens"]), "{case}: prompt of {length}");
                let what = format!("{case}: answer to a prompt of {length}");
                check_close(&what, &answer.logprobs, &floats(&entry["logprobs"]));
            }
        });
    }
}

#[test]
fn an_answer_depends_neither_on_the_most_tokens_nor_on_company() {
    for precision in [Precision::F32, Precision::Bf16] {
        let mut rig = rig(CASES[0], precision);
        for prompts in [prompts(), family()] {
            let drawn = GenerateConfig { temperature: 0.9, seed: 3, ..GenerateConfig::default() };
            for config in [GenerateConfig::default(), drawn] {
                let together = run(&mut rig, &prompts, &config);
                for max_active in [1, 3] {
                    let config = GenerateConfig { max_active, ..config.clone() };
                    check_equal(&run(&mut rig, &prompts, &config), &together);
                }
                for (index, prompt) in prompts.iter().enumerate() {
                    for max_new_tokens in [1, 4, 10, 60] {
                        let alone = Prompt { max_new_tokens, ..prompt.clone() };
                        let mut alone = run(&mut rig, &[alone], &config).remove(0);
                        let mut expected = together[index].clone();
                        for completion in [&mut alone, &mut expected] {
                            completion.tokens.truncate(max_new_tokens.min(10));
                            completion.logprobs.truncate(max_new_tokens.min(10));
                        }
                        check_equal(&[alone], &[expected]);
                    }
                }
            }
        }
    }
}

/// The distribution of a new token is that of a training forward over all tokens before it: the row that
/// ends there.
#[test]
fn what_is_served_is_what_is_trained() {
    let mut rig = rig(CASES[1], Precision::F32);
    for prompts in [prompts(), family()] {
        let completions = run(&mut rig, &prompts, &GenerateConfig::default());
        for (prompt, completion) in prompts.iter().zip(&completions) {
            let tokens = [prompt.tokens.as_slice(), &completion.tokens].concat();
            for (index, &logprob) in completion.logprobs.iter().enumerate() {
                // The new token itself is no input: it must not count.
                let end = prompt.tokens.len() + index;
                let mut sequence = random_sequence(0, &tokens[..end]);
                sequence.weights[1..].fill(0.0);
                let mut batch = batch(&[sequence], 0);
                let (read, token) = (0, tokens[end]);
                batch.reads = vec![end as u32 - 1];
                batch.targets =
                    vec![text::Target { read, token, sequence: 0, place: 0, role: 0, weight: 1.0 }];
                check_same("log-prob", &rig.logprobs(&batch), &[logprob]);
            }
        }
    }
}

/// A row that is long only by tokens that nobody reads is a long row, whatever is left out of its stream
/// and whoever shares its micro-batch.
#[test]
fn tokens_that_nobody_reads_count() {
    let mut rig = rig(CASES[0], Precision::F32);
    let rows: Vec<_> = [(40, 12), (20, 12), (24, 20), (25, 24), (60, 20)]
        .into_iter()
        .enumerate()
        .map(|(row, (len, read))| {
            let shared = random_tokens(50, 16, 96);
            let own = random_tokens(row as u64, len - 16.min(len), 96);
            let mut sequence = random_sequence(row as u64, &[shared, own].concat()[..len]);
            sequence.weights[read..].fill(0.0);
            sequence
        })
        .collect();
    let expected: Vec<f32> =
        rows.iter().flat_map(|row| rig.logprobs(&batch(std::slice::from_ref(row), 0))).collect();
    for (min_shared, drop_unread, budget_tokens) in
        [(0, false, 1000), (0, true, 1000), (8, false, 1000), (8, true, 1000), (8, true, 1)]
    {
        let apart_beyond = Some(LIMIT);
        let packing =
            Packing { min_shared, drop_unread, apart_beyond, ..Packing::new(budget_tokens) };
        let mut found: Vec<(u32, u32, f32)> = Vec::new();
        for micro in pack(&rows, &packing) {
            let positions = micro.batch.positions();
            let logprobs = rig.logprobs(&micro.batch);
            found.extend(micro.batch.targets.iter().zip(logprobs).map(|(target, logprob)| {
                let read = micro.batch.reads[target.read as usize];
                (target.sequence, positions[read as usize], logprob)
            }));
        }
        found.sort_by_key(|&(sequence, position, _)| (sequence, position));
        let found: Vec<f32> = found.into_iter().map(|(.., logprob)| logprob).collect();
        check_same(&format!("{packing:?}"), &found, &expected);
    }
}
