//! Generation: what is trained is what is served, alone or among others.

use compute::cpu::{Cpu, CpuConfig, Precision};
use model::generate::{Completion, Finish, Flow, GenerateConfig, Prompt, generate};
use model::{HeadRequest, Pass, Want};

use crate::support::{
    Rig, batch, check_same, cpu, json, random_sequence, random_tokens, tiny, tokens,
};

const BOTH: [Precision; 2] = [Precision::F32, Precision::Bf16];

fn prompt(key: u64, tokens: Vec<u32>, max_new_tokens: usize) -> Prompt {
    Prompt { tokens, max_new_tokens, key }
}

/// Prompts of many lengths; some longer than a step takes in at once.
fn prompts() -> Vec<Prompt> {
    let lengths = [5, 300, 1, 40, 700, 17, 450, 64, 9];
    let prompts = lengths.iter().enumerate();
    prompts
        .map(|(i, &len)| prompt(i as u64, random_tokens(i as u64, len, 128), 6 + i % 4))
        .collect()
}

/// Prompts with a beginning in common, three of them equal.
fn family() -> Vec<Prompt> {
    let first = random_tokens(80, 37, 128);
    let lengths = [1, 12, 300, 1, 1, 30];
    let prompts = lengths.iter().enumerate().map(|(i, &len)| {
        let seed = if len == 1 { 90 } else { 90 + i as u64 };
        prompt(i as u64, [first.clone(), random_tokens(seed, len, 128)].concat(), 8)
    });
    prompts.collect()
}

fn sampled(seed: u64) -> GenerateConfig {
    GenerateConfig { temperature: 0.9, top_k: 40, top_p: 0.95, seed, ..GenerateConfig::default() }
}

fn run(rig: &mut Rig, prompts: &[Prompt], config: &GenerateConfig) -> Vec<Completion> {
    let adapter = Some(&rig.adapter);
    let mut go_on = |_, _| Flow::Continue;
    generate(&rig.decoder, &mut *rig.backend, adapter, prompts, config, &mut go_on).unwrap()
}

#[track_caller]
fn check_equal(actual: &[Completion], expected: &[Completion]) {
    assert_eq!(actual.len(), expected.len());
    for (index, (actual, expected)) in actual.iter().zip(expected).enumerate() {
        assert_eq!(actual.tokens, expected.tokens, "prompt {index}");
        assert_eq!(actual.finish, expected.finish, "prompt {index}");
        check_same(&format!("log-probs of {index}"), &actual.logprobs, &expected.logprobs);
    }
}

#[test]
fn greedy_continuations_equal_pytorchs() {
    for case in ["gqa", "tied", "llama3", "linear", "dynamic", "yarn"] {
        let expected = json(&format!("tiny_llama/{case}/golden.json"));
        let continuation = tokens(&expected["greedy_after_last_sequence"]);
        let last = tokens(&expected["sequences"].as_array().unwrap().last().unwrap()["tokens"]);
        let (base, lora) = tiny(case);
        let mut rig = Rig::new(Box::new(cpu(Precision::F32, 2)), &base, &lora);
        let prompts = [prompt(0, last, continuation.len())];
        let config = GenerateConfig::default();
        let mut seen = Vec::new();
        let mut on_token = |index, token| {
            assert_eq!(index, 0);
            seen.push(token);
            Flow::Continue
        };
        let all = generate(&rig.decoder, &mut *rig.backend, None, &prompts, &config, &mut on_token);
        let completion = all.unwrap().remove(0);
        assert_eq!(completion.tokens, continuation, "{case}");
        assert_eq!(completion.finish, Finish::Length);
        assert_eq!(seen, continuation);
    }
}

/// Each prompt alone, few at a time, and all at once.
#[test]
fn a_completion_does_not_depend_on_the_others() {
    for precision in BOTH {
        for prompts in [prompts(), family()] {
            for config in [GenerateConfig::default(), sampled(3)] {
                let mut rig = Rig::tiny(precision, 2);
                let together = run(&mut rig, &prompts, &config);
                for max_active in [1, 3, 8] {
                    let config = GenerateConfig { max_active, ..config.clone() };
                    check_equal(&run(&mut rig, &prompts, &config), &together);
                }
                let alone = prompts
                    .iter()
                    .map(|prompt| run(&mut rig, std::slice::from_ref(prompt), &config).remove(0));
                check_equal(&alone.collect::<Vec<_>>(), &together);
                let mut reversed = prompts.clone();
                reversed.reverse();
                let mut backwards = run(&mut rig, &reversed, &config);
                backwards.reverse();
                check_equal(&backwards, &together);
            }
        }
    }
}

#[test]
fn threads_change_no_token() {
    let [one, three] = [1, 3]
        .map(|threads| run(&mut Rig::tiny(Precision::Bf16, threads), &prompts(), &sampled(1)));
    check_equal(&three, &one);
}

/// A training forward over prompt and completion sees the distribution that the tokens came from.
#[test]
fn what_is_served_is_what_is_trained() {
    for precision in BOTH {
        for prompts in [prompts(), family()] {
            let mut rig = Rig::tiny(precision, 2);
            let greedy = run(&mut rig, &prompts, &GenerateConfig::default());
            let drawn = run(&mut rig, &prompts, &sampled(8));
            for (completions, temperature) in [(&greedy, 0.0), (&drawn, 0.9)] {
                for (prompt, completion) in prompts.iter().zip(completions) {
                    check_trained(&mut rig, prompt, completion, temperature);
                }
            }
        }
    }
}

/// The log-probabilities of the draws are those of the head at the temperature of the draws, bit for bit.
fn check_trained(rig: &mut Rig, prompt: &Prompt, completion: &Completion, temperature: f32) {
    let tokens = [prompt.tokens.as_slice(), &completion.tokens].concat();
    let batch = batch(&[random_sequence(0, &tokens)], 0);
    let adapter = rig.adapter.clone();
    let pass = Pass { adapter: Some(&adapter), ..Pass::default() };
    let want = Want { logprob: true, top1: true, ..Want::default() };
    let is_greedy = temperature == 0.0;
    let temperature = if is_greedy { 1.0 } else { temperature };
    let request = HeadRequest { temperature, want, ..HeadRequest::logprobs() };
    let outputs = rig.outputs(&batch, &request, &pass);
    let first = prompt.tokens.len() - 1;
    check_same("log-probs", &completion.logprobs, &outputs.logprob[first..]);
    if is_greedy {
        assert_eq!(completion.tokens, outputs.top1[first..]);
    }
}

/// One seed always draws alike; another seed, or another key, draws otherwise.
#[test]
fn seeds_decide_and_nothing_else() {
    let mut rig = Rig::tiny(Precision::F32, 2);
    let prompts = prompts();
    let hot = |seed| GenerateConfig { temperature: 2.0, seed, ..GenerateConfig::default() };
    let first = run(&mut rig, &prompts, &hot(1));
    check_equal(&run(&mut rig, &prompts, &hot(1)), &first);
    let second = run(&mut rig, &prompts, &hot(2));
    assert_ne!(first, second);
    let differing = first.iter().zip(&second).filter(|(a, b)| a.tokens != b.tokens).count();
    assert!(differing >= 8, "{differing} of 9 differ");

    // Equal prompts under different keys draw for themselves, under one key alike.
    let tokens = random_tokens(5, 20, 128);
    let copies: Vec<_> = (0..4).map(|i| prompt(i / 2, tokens.clone(), 10)).collect();
    let copies = run(&mut rig, &copies, &hot(1));
    assert_eq!(copies[0], copies[1]);
    assert_eq!(copies[2], copies[3]);
    assert_ne!(copies[0].tokens, copies[2].tokens);
}

#[test]
fn one_candidate_is_the_likeliest() {
    let mut rig = Rig::tiny(Precision::F32, 2);
    let greedy = run(&mut rig, &family(), &GenerateConfig::default());
    let top_k = GenerateConfig { temperature: 1.5, top_k: 1, ..GenerateConfig::default() };
    let top_p = GenerateConfig { temperature: 1.5, top_p: 1e-6, ..GenerateConfig::default() };
    for config in [top_k, top_p] {
        // The log-probs are those at temperature 1.5.
        for (one, greedy) in run(&mut rig, &family(), &config).iter().zip(&greedy) {
            assert_eq!((&one.tokens, one.finish), (&greedy.tokens, greedy.finish));
        }
    }
}

#[test]
fn a_stop_token_ends_its_own_completion_only() {
    let mut rig = Rig::tiny(Precision::F32, 2);
    let prompts = prompts();
    let free = run(&mut rig, &prompts, &GenerateConfig::default());
    let stop = free[1].tokens[2];
    for max_active in [1, 32] {
        let config = GenerateConfig {
            stop_tokens: vec![9999, stop],
            max_active,
            ..GenerateConfig::default()
        };
        let stopped = run(&mut rig, &prompts, &config);
        for (stopped, free) in stopped.iter().zip(&free) {
            let end = free.tokens.iter().position(|&token| token == stop);
            let expected = end.map_or(free.tokens.len(), |end| end + 1);
            assert_eq!(stopped.tokens, free.tokens[..expected]);
            assert_eq!(stopped.logprobs.len(), expected);
            let finish = if end.is_some() { Finish::Stop } else { Finish::Length };
            assert_eq!(stopped.finish, finish);
        }
        assert!(stopped[1].tokens.len() <= 3);
    }
}

#[test]
fn the_caller_may_stop_a_completion() {
    let mut rig = Rig::tiny(Precision::F32, 2);
    let prompts = prompts();
    let config = GenerateConfig { max_active: 4, ..GenerateConfig::default() };
    let free = run(&mut rig, &prompts, &config);
    let mut counts = vec![0; prompts.len()];
    let mut on_token = |index: usize, token| {
        assert_eq!(token, free[index].tokens[counts[index]]);
        counts[index] += 1;
        if index.is_multiple_of(2) && counts[index] == 2 { Flow::Stop } else { Flow::Continue }
    };
    let adapter = Some(&rig.adapter);
    let stopped =
        generate(&rig.decoder, &mut *rig.backend, adapter, &prompts, &config, &mut on_token)
            .unwrap();
    for (index, (stopped, free)) in stopped.iter().zip(&free).enumerate() {
        let (len, finish) = if index.is_multiple_of(2) {
            (2, Finish::Stop)
        } else {
            (free.tokens.len(), Finish::Length)
        };
        assert_eq!(stopped.tokens, free.tokens[..len]);
        assert_eq!(stopped.finish, finish);
    }
}

#[test]
fn nothing_is_generated_where_nothing_is_wanted() {
    let mut rig = Rig::tiny(Precision::F32, 2);
    assert!(run(&mut rig, &[], &GenerateConfig::default()).is_empty());
    let mut prompts = prompts();
    let full = run(&mut rig, &prompts, &GenerateConfig::default());
    for index in [0, 4, 8] {
        prompts[index].max_new_tokens = 0;
    }
    for max_active in [1, 32] {
        let config = GenerateConfig { max_active, ..GenerateConfig::default() };
        let some = run(&mut rig, &prompts, &config);
        for (index, (some, full)) in some.iter().zip(&full).enumerate() {
            let expected: &[u32] = if index % 4 == 0 { &[] } else { &full.tokens };
            assert_eq!(some.tokens, expected);
            assert_eq!(some.finish, Finish::Length);
        }
    }
    let none: Vec<_> = (0..3).map(|i| prompt(i, random_tokens(i, 30, 128), 0)).collect();
    let none = run(&mut rig, &none, &GenerateConfig::default());
    assert!(none.iter().all(|completion| completion.tokens.is_empty()));
}

#[test]
fn a_prompt_that_the_model_cannot_take_is_refused() {
    let (base, lora) = tiny("dynamic");
    let mut rig = Rig::new(Box::new(cpu(Precision::F32, 1)), &base, &lora);
    let mut refused = |tokens: Vec<u32>, count| {
        let prompts = [prompt(0, vec![5; 3], 2), prompt(1, tokens, count)];
        let config = GenerateConfig::default();
        let mut go_on = |_, _| Flow::Continue;
        let result = generate(&rig.decoder, &mut *rig.backend, None, &prompts, &config, &mut go_on);
        result.err().map(|error| error.to_string())
    };
    assert_eq!(refused(vec![5; 20], 4), None);
    let message = refused(vec![5; 20], 5).unwrap();
    assert!(message.contains("25 tokens") && message.contains("24 positions"), "{message}");
    let message = refused(vec![], 4).unwrap();
    assert!(message.contains("prompt 1") && message.contains("no tokens"), "{message}");
    let message = refused(vec![5, 128], 4).unwrap();
    assert!(message.contains("prompt 1") && message.contains("128"), "{message}");
}

/// A caller that cancels gets what there is: nothing more is computed, for those that run and those that wait.
#[test]
fn a_cancelled_call_begins_nothing() {
    let mut rig = Rig::tiny(Precision::F32, 2);
    let prompts = prompts();
    let config = GenerateConfig { max_active: 2, ..GenerateConfig::default() };
    let free = run(&mut rig, &prompts, &config);
    let mut seen = Vec::new();
    let mut on_token = |index, token| {
        seen.push((index, token));
        if seen.len() < 3 { Flow::Continue } else { Flow::Cancel }
    };
    let adapter = Some(&rig.adapter);
    let mark = rig.backend.mark();
    let cancelled =
        generate(&rig.decoder, &mut *rig.backend, adapter, &prompts, &config, &mut on_token)
            .unwrap();
    assert_eq!((seen.len(), rig.backend.mark()), (3, mark));
    for (index, completion) in cancelled.iter().enumerate() {
        let own = seen.iter().filter(|(of, _)| *of == index).map(|(_, token)| *token);
        assert_eq!(completion.tokens, own.collect::<Vec<_>>());
        assert_eq!(completion.tokens, free[index].tokens[..completion.tokens.len()]);
        assert_eq!(completion.finish, Finish::Cancelled, "prompt {index}");
    }
    assert!(cancelled[2..].iter().all(|completion| completion.tokens.is_empty()));
}

/// The stack grows to what is needed, and is as it was afterwards.
#[test]
fn generation_makes_room_for_itself() {
    let config = CpuConfig { threads: 1, isa: None, precision: Precision::F32 };
    let (base, lora) = tiny("gqa");
    let mut small = Rig::new(Box::new(Cpu::new(config).unwrap()), &base, &lora);
    assert_eq!(small.backend.reserved(), 0);
    let expected = run(&mut Rig::tiny(Precision::F32, 1), &prompts(), &GenerateConfig::default());
    let mark = small.backend.mark();
    check_equal(&run(&mut small, &prompts(), &GenerateConfig::default()), &expected);
    assert_eq!(small.backend.mark(), mark);
}
