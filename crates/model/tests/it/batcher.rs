//! Rows come and go between steps, and none of them notices.

use std::collections::BTreeMap;

use compute::Backend as _;
use compute::cpu::{Cpu, CpuConfig, Precision};
use model::adapter::LoadedAdapter;
use model::generate::{
    Batcher, Drawn, Finish, Flow, GenerateConfig, Model, Prompt, Refusal, Request, Room, RowId,
    Sampling, Scoring, TokenMask, generate,
};
use model::{Adapter, Base, Decoder, HeadRequest, Pass};

use crate::support::{
    Lora, Rig, batch, check_same, cpu, golden, lora, random_sequence, random_tokens, tiny,
};
use crate::watched::Watched;

const VOCAB: u32 = 128;

/// A model with an adapter (part 0) and without (part 1).
struct Stage {
    decoder: Decoder,
    adapter: Adapter,
    backend: Watched,
}

/// Tokens and log-probabilities of a row.
type Told = (Vec<u32>, Vec<f32>, Option<Finish>);

impl Stage {
    fn new(precision: Precision, threads: usize) -> Self {
        let (base, lora) = tiny("gqa");
        Self::of(&base, &lora, precision, threads)
    }

    fn of(base: &Base, lora: &Lora, precision: Precision, threads: usize) -> Self {
        let Rig { backend, decoder, adapter } =
            Rig::new(Box::new(cpu(precision, threads)), base, lora);
        Stage { decoder, adapter, backend: Watched::new(backend) }
    }

    fn with<T>(&mut self, ask: impl FnOnce(Model<'_>, &mut Watched) -> T) -> T {
        let parts = [Some(&self.adapter), None];
        ask(Model { decoder: &self.decoder, parts: &parts }, &mut self.backend)
    }

    /// Rows that are added at the start of a step, and run to their ends. A row that ends is removed.
    fn run(&mut self, room: Room, arrivals: Vec<(usize, Request)>) -> Vec<Told> {
        let mark = self.backend.mark();
        let told = self.with(|model, backend| {
            let mut batcher = Batcher::new(model, backend, room).unwrap();
            let mut waiting: Vec<(usize, usize, Request)> =
                arrivals.into_iter().enumerate().map(|(row, (step, r))| (step, row, r)).collect();
            let mut told: Vec<Told> = vec![(vec![], vec![], None); waiting.len()];
            let mut rows = BTreeMap::new();
            for step in 0.. {
                let (now, later) = waiting.into_iter().partition(|(at, ..)| *at <= step);
                waiting = later;
                for (_, row, request) in now {
                    match batcher.add(request) {
                        Ok(id) => drop(rows.insert(id, row)),
                        Err(Refusal::Full(request)) => waiting.push((step + 1, row, *request)),
                        Err(Refusal::Invalid(error)) => panic!("{error}"),
                    }
                }
                if batcher.is_empty() && waiting.is_empty() {
                    break;
                }
                for drawn in batcher.step(model, backend).unwrap() {
                    let (tokens, logprobs, finish) = &mut told[rows[&drawn.row]];
                    tokens.push(drawn.token);
                    logprobs.push(drawn.logprob);
                    *finish = drawn.finish;
                    if drawn.finish.is_some() {
                        batcher.remove(drawn.row);
                    }
                }
            }
            batcher.close(backend);
            told
        });
        assert_eq!(self.backend.mark(), mark);
        told
    }

    fn alone(&mut self, request: Request) -> Told {
        self.run(ROOM, vec![(0, request)]).remove(0)
    }
}

const ROOM: Room =
    Room { blocks: 60, rows: 20, row_tokens: 400, prefill_tokens: 100, scores: false };

fn request(key: u64, tokens: Vec<u32>, max_new_tokens: usize) -> Request {
    let sampling = match key % 3 {
        0 => Sampling { key, ..Sampling::default() },
        1 => Sampling { temperature: 0.9, top_k: 40, top_p: 0.95, key, ..Sampling::default() },
        _ => Sampling {
            temperature: 1.3,
            min_p: 0.02,
            repetition: 1.2,
            seed: 5,
            key,
            ..Sampling::default()
        },
    };
    Request { tokens, sampling, max_new_tokens, part: key as usize % 2, ..Request::default() }
}

/// Prompts whose ends lie around those of blocks, some of which begin alike.
fn requests() -> Vec<Request> {
    let first = random_tokens(1, 130, VOCAB);
    let lengths = [1, 62, 63, 64, 65, 127, 128, 129, 250];
    let own = lengths.iter().enumerate().map(|(key, &len)| {
        request(key as u64, random_tokens(10 + key as u64, len, VOCAB), 4 + key % 5)
    });
    let family = [63, 64, 65, 100, 100, 130].iter().enumerate().map(|(key, &len)| {
        let tokens = [&first[..len], &random_tokens(key as u64 / 2, 5, VOCAB)].concat();
        request(20 + key as u64, tokens, 70)
    });
    own.chain(family).collect()
}

#[track_caller]
fn check_told(actual: &[Told], expected: &[Told]) {
    assert_eq!(actual.len(), expected.len());
    for (row, (actual, expected)) in actual.iter().zip(expected).enumerate() {
        assert_eq!((&actual.0, actual.2), (&expected.0, expected.2), "row {row}");
        check_same(&format!("log-probs of row {row}"), &actual.1, &expected.1);
    }
}

/// Alone, all at once, one after the other, few at a time, in little memory, on other numbers of threads.
#[test]
fn a_row_depends_on_itself_alone() {
    for precision in [Precision::F32, Precision::Bf16] {
        let mut stage = Stage::new(precision, 2);
        let alone: Vec<Told> = requests().into_iter().map(|request| stage.alone(request)).collect();
        let at_once = || requests().into_iter().map(|request| (0, request)).collect();
        let one_by_one = requests().into_iter().enumerate().map(|(row, r)| (3 * row, r)).collect();
        check_told(&stage.run(ROOM, at_once()), &alone);
        check_told(&stage.run(ROOM, one_by_one), &alone);
        check_told(&stage.run(Room { rows: 3, ..ROOM }, at_once()), &alone);
        check_told(&stage.run(Room { blocks: 7, ..ROOM }, at_once()), &alone);
        check_told(&stage.run(Room { prefill_tokens: 7, ..ROOM }, at_once()), &alone);
        for threads in [1, 3] {
            check_told(&Stage::new(precision, threads).run(ROOM, at_once()), &alone);
        }
    }
}

/// Eight answers to each of eight prompts take in eight prompts, whatever their length.
#[test]
fn a_beginning_is_computed_once() {
    let mut stage = Stage::new(Precision::F32, 2);
    for length in [40, 64, 100] {
        let ask = |row: u64| {
            let tokens = random_tokens(row / 8, length, VOCAB);
            let sampling = Sampling { temperature: 1.0, key: row, ..Sampling::default() };
            Request { tokens, sampling, max_new_tokens: 5, ..Request::default() }
        };
        let room = Room { blocks: 200, rows: 64, ..ROOM };
        stage.backend.take_tokens();
        let told = stage.run(room, (0..64).map(|row| (0, ask(row))).collect());
        // Each answer behind the first of a prompt computes its last token for itself.
        assert_eq!(stage.backend.take_tokens(), 8 * length + 7 * 8 + 64 * 4);
        let alone: Vec<Told> = (0..64).map(|row| stage.alone(ask(row))).collect();
        check_told(&told, &alone);
    }
}

/// What has been computed for a row that is gone serves the next one, under the same part only.
#[test]
fn a_prefix_stays_cached() {
    let mut stage = Stage::new(Precision::Bf16, 2);
    let history = random_tokens(3, 150, VOCAB);
    let ask = |len: usize, part| Request {
        tokens: history[..len].to_vec(),
        part,
        max_new_tokens: 2,
        ..Request::default()
    };
    let expected = [ask(150, 0), ask(150, 1)].map(|request| stage.alone(request));
    stage.backend.take_tokens();
    let (told, tokens) = stage.with(|model, backend| {
        let mut batcher = Batcher::new(model, backend, ROOM).unwrap();
        let mut finish = |request| {
            let id = batcher.add(request).unwrap();
            let mut told: Told = (vec![], vec![], None);
            while told.2.is_none() {
                for Drawn { token, logprob, finish, .. } in batcher.step(model, backend).unwrap() {
                    told.0.push(token);
                    told.1.push(logprob);
                    told.2 = finish;
                }
            }
            batcher.remove(id);
            (told, backend.take_tokens())
        };
        finish(ask(100, 0));
        let (told, tokens): (Vec<Told>, Vec<usize>) =
            [ask(150, 0), ask(150, 1), ask(150, 0)].map(&mut finish).into_iter().unzip();
        batcher.close(backend);
        (told, tokens)
    });
    assert_eq!(tokens, [50 + 1, 150 + 1, 1 + 1]);
    check_told(&told, &[expected[0].clone(), expected[1].clone(), expected[0].clone()]);
}

/// Tokens that are appended to a row are read as if they had been in its prompt.
#[test]
fn a_row_goes_on_behind_what_a_tool_says() {
    let mut stage = Stage::new(Precision::Bf16, 2);
    let ask = |tokens: &[u32], max_new_tokens| Request {
        tokens: tokens.to_vec(),
        sampling: Sampling { repetition: 1.1, ..Sampling::default() },
        max_new_tokens,
        ..Request::default()
    };
    let (question, result) = (random_tokens(1, 61, VOCAB), random_tokens(2, 140, VOCAB));
    let first = stage.alone(ask(&question, 5));
    let history = [&question[..], &first.0, &result].concat();
    let second = stage.alone(ask(&history, 6));
    stage.backend.take_tokens();
    let told = stage.with(|model, backend| {
        let mut batcher = Batcher::new(model, backend, ROOM).unwrap();
        let id = batcher.add(ask(&question, 5)).unwrap();
        let mut told: Vec<Told> = Vec::new();
        for turn in 0..2 {
            let (mut tokens, mut logprobs, mut finish) = (vec![], vec![], None);
            while finish.is_none() {
                for drawn in batcher.step(model, backend).unwrap() {
                    tokens.push(drawn.token);
                    logprobs.push(drawn.logprob);
                    finish = drawn.finish;
                }
            }
            told.push((tokens, logprobs, finish));
            // A row that has ended waits.
            assert!(batcher.step(model, backend).unwrap().is_empty());
            if turn == 0 {
                batcher.extend(id, &result, 6).unwrap();
                assert_eq!(batcher.tokens(id), history);
            }
        }
        let is_too_long = batcher.extend(id, &[1; 400], 6);
        assert!(matches!(is_too_long, Err(Refusal::Invalid(_))));
        batcher.close(backend);
        told
    });
    check_told(&told, &[first, second]);
    assert_eq!(stage.backend.take_tokens(), 61 + 5 + 140 + 5);
}

/// With the number of its draws, a row that was removed goes on as if it had stayed.
#[test]
fn a_row_that_is_added_again_draws_on() {
    let mut stage = Stage::new(Precision::Bf16, 2);
    let ask = |tokens: &[u32], drawn, max_new_tokens| Request {
        drawn,
        ..request(1, tokens.to_vec(), max_new_tokens)
    };
    let prompt = random_tokens(1, 70, VOCAB);
    let whole = stage.alone(ask(&prompt, 0, 9));
    let first = stage.alone(ask(&prompt, 0, 4));
    let rest = stage.alone(ask(&[&prompt[..], &first.0].concat(), 4, 5));
    let both = ([first.0, rest.0].concat(), [first.1, rest.1].concat(), rest.2);
    check_told(&[both], &[whole]);
}

/// A row that is removed before a step costs nothing in it.
#[test]
fn a_removed_row_is_not_computed() {
    let mut stage = Stage::new(Precision::F32, 1);
    stage.backend.take_tokens();
    stage.with(|model, backend| {
        let mut batcher = Batcher::new(model, backend, ROOM).unwrap();
        let ask = |seed| Request {
            tokens: random_tokens(seed, 90, VOCAB),
            max_new_tokens: 9,
            ..Request::default()
        };
        let [first, second, third] = [1, 2, 3].map(|seed| batcher.add(ask(seed)).unwrap());
        batcher.remove(second);
        // The step takes in 100 tokens: the first row, and a beginning of the third.
        assert_eq!(batcher.step(model, backend).unwrap()[0].row, first);
        assert_eq!(backend.take_tokens(), 100);
        batcher.remove(third);
        assert_eq!(batcher.step(model, backend).unwrap().len(), 1);
        assert_eq!((backend.take_tokens(), batcher.len()), (1, 1));
        batcher.close(backend);
    });
}

/// After an error the stack is as it was, and all works again.
#[test]
fn an_error_leaves_the_stack_as_it_was() {
    let mut stage = Stage::new(Precision::F32, 2);
    let ask = || request(0, random_tokens(1, 150, VOCAB), 4);
    let expected = stage.alone(ask());
    for fails_after in [0, 1, 5, 20, 41, 47, 63, 100] {
        stage.with(|model, backend| {
            let empty = backend.mark();
            let mut batcher = Batcher::new(model, backend, ROOM).unwrap();
            let mark = backend.mark();
            batcher.add(ask()).unwrap();
            backend.fails_after = Some(fails_after);
            let error = loop {
                if let Err(error) = batcher.step(model, backend) {
                    break error.to_string();
                }
            };
            assert!(error.contains("told to"), "{error}");
            assert!(backend.mark() == mark && batcher.is_empty(), "after {fails_after}");
            backend.fails_after = None;
            let id = batcher.add(ask()).unwrap();
            let mut tokens = Vec::new();
            while tokens.len() < 4 {
                tokens.extend(batcher.step(model, backend).unwrap().iter().map(|d| d.token));
            }
            assert_eq!(tokens, expected.0);
            batcher.remove(id);
            batcher.close(backend);

            backend.fails_after = Some(fails_after);
            let prompts = [Prompt { tokens: ask().tokens, max_new_tokens: 4, key: 0 }];
            let (config, mut go_on) = (GenerateConfig::default(), |_, _| Flow::Continue);
            let failed = generate(model.decoder, backend, None, &prompts, &config, &mut go_on);
            assert!(failed.is_err());
            assert_eq!(backend.mark(), empty);
            backend.fails_after = None;
            // This panics where anything is left on the stack.
            backend.reserve(64 << 20).unwrap();
        });
    }
}

/// An adapter with rows of tokens of its own puts them into the base that the parts share.
#[test]
fn a_part_with_trained_tokens_does_not_change_the_others() {
    let (base, lora) = tiny("gqa");
    let folder = golden("adapters/tokens");
    let stage = || {
        let loaded = LoadedAdapter::read(&folder, &base.config).unwrap();
        let mut backend: Box<dyn compute::Backend> = Box::new(cpu(Precision::F32, 2));
        let (decoder, adapter) = loaded.load(&base, &mut *backend, None, None).unwrap();
        Stage { decoder, adapter, backend: Watched::new(backend) }
    };
    // Tokens 3, 7 and 90 are those that it trained.
    let ask = |key: u64, part| {
        let tokens = [vec![3, 7, 90], random_tokens(key, 20, VOCAB), vec![90, 7]].concat();
        Request { tokens, part, max_new_tokens: 9, ..Request::default() }
    };
    let told = stage().run(ROOM, (0..6).map(|key| (0, ask(key, key as usize % 2))).collect());
    let mut plain = Stage::of(&base, &lora, Precision::F32, 1);
    let mut tuned = stage();
    for (key, told) in told.iter().enumerate() {
        let request = ask(key as u64, key % 2);
        let expected = if key % 2 == 0 { tuned.alone(request) } else { plain.alone(request) };
        assert_eq!(told.0, expected.0);
        check_same("log-probs", &told.1, &expected.1);
    }
}

/// Log-probabilities of the tokens of a row by a training forward, the tail's alone.
fn trained(stage: &mut Stage, part: usize, tokens: &[u32], from: usize, t: f32) -> Vec<f32> {
    let batch = batch(&[random_sequence(0, tokens)], 0);
    let request = HeadRequest { temperature: t, ..HeadRequest::logprobs() };
    stage.with(|model, backend| {
        let pass = Pass { adapter: model.parts[part], ..Pass::default() };
        let mut hidden = model.decoder.forward(backend, &batch, &pass).unwrap();
        let outputs = model
            .decoder
            .head(backend, &mut hidden, &batch.targets, &request, None, None, &pass)
            .unwrap();
        hidden.release(backend);
        outputs.logprob[from - 1..].to_vec()
    })
}

fn check_scores(stage: &mut Stage, prefix: &[u32], tails: &[Vec<u32>], t: f32, room: Room) {
    for part in [0, 1] {
        let found = stage.with(|model, backend| {
            let mut batcher = Batcher::new(model, backend, room).unwrap();
            // A row in the middle of its answer is not disturbed.
            let other = Request { max_new_tokens: 9, tokens: vec![5; 30], ..Request::default() };
            let other = batcher.add(other).unwrap();
            batcher.step(model, backend).unwrap();
            backend.take_tokens();
            let asked = Scoring { part, prefix, tails, temperature: t };
            let found = batcher.score(model, backend, &asked).unwrap();
            assert_eq!(batcher.tokens(other).len(), 31);
            assert_eq!(batcher.step(model, backend).unwrap().len(), 1);
            batcher.close(backend);
            found
        });
        for (tail, found) in tails.iter().zip(&found) {
            let row = [prefix, tail].concat();
            let expected = trained(stage, part, &row, prefix.len(), t);
            check_same(&format!("part {part}, tail of {}", tail.len()), found, &expected);
        }
    }
}

#[test]
fn scores_are_those_of_training() {
    let tails: Vec<Vec<u32>> = [1, 3, 0, 64, 1, 150, 2]
        .iter()
        .enumerate()
        .map(|(seed, &len)| random_tokens(seed as u64 / 2, len, VOCAB))
        .collect();
    for precision in [Precision::F32, Precision::Bf16] {
        let mut stage = Stage::new(precision, 2);
        for (prefix, t) in [(1, 1.0), (63, 0.7), (64, 1.0), (65, 1.3), (200, 1.0)] {
            let prefix = random_tokens(50, prefix, VOCAB);
            let room = Room { scores: true, ..ROOM };
            check_scores(&mut stage, &prefix, &tails, t, room);
            let small = Room { blocks: 12, rows: 2, prefill_tokens: 40, ..room };
            check_scores(&mut stage, &prefix, &tails, t, small);
        }
    }
}

#[test]
fn a_header_is_computed_once_for_all_tails() {
    let mut stage = Stage::new(Precision::F32, 2);
    let prefix = random_tokens(1, 90, VOCAB);
    let tails: Vec<Vec<u32>> = (0..4).map(|seed| random_tokens(2 + seed, 3, VOCAB)).collect();
    stage.with(|model, backend| {
        let room = Room { scores: true, ..ROOM };
        let mut batcher = Batcher::new(model, backend, room).unwrap();
        backend.take_tokens();
        for expected in [90 + 2 + 3 * 3, 4 * 3] {
            let asked = Scoring { part: 0, prefix: &prefix, tails: &tails, temperature: 1.0 };
            batcher.score(model, backend, &asked).unwrap();
            assert_eq!(backend.take_tokens(), expected);
        }
        batcher.close(backend);
    });
}

/// LongRoPE: rows on both sides of the limit, scored, extended across it, and in little memory.
#[test]
fn rows_of_two_rotations_live_side_by_side() {
    let dir = "architectures/phi3_longrope";
    let base = Base::open(&golden(dir)).unwrap();
    let lora = lora(&golden(&format!("{dir}/adapter")), &base);
    let limit = base.config.long_beyond().unwrap();
    let vocab = base.config.vocab_size as u32;
    let mut stage = Stage::of(&base, &lora, Precision::Bf16, 2);
    let first = random_tokens(1, limit - 4, vocab);
    let requests = || {
        (0..8).map(|key: u64| {
            let own = random_tokens(key / 2, [2, 3, 9, 60][key as usize / 2], vocab);
            let tokens = [&first[..], &own].concat();
            Request { part: 0, ..request(key, tokens, 80) }
        })
    };
    let alone: Vec<Told> = requests().map(|request| stage.alone(request)).collect();
    for room in [ROOM, Room { blocks: 5, ..ROOM }, Room { blocks: 9, prefill_tokens: 5, ..ROOM }] {
        let arrivals = requests().enumerate().map(|(row, request)| (2 * row, request)).collect();
        check_told(&stage.run(room, arrivals), &alone);
    }
    let tails: Vec<Vec<u32>> = [1, 4, 5, 30].map(|len| random_tokens(9, len, vocab)).to_vec();
    check_scores(&mut stage, &first, &tails, 1.0, Room { scores: true, ..ROOM });
}

/// Allows what a function says, and ends where that is nothing.
struct Allow(fn(&[u32]) -> Vec<u32>);

impl TokenMask for Allow {
    fn allow(&mut self, new: &[u32], allowed: &mut [u32]) {
        for token in (self.0)(new) {
            allowed[token as usize / 32] |= 1 << (token % 32);
        }
    }
}

#[test]
fn a_mask_decides_what_may_come() {
    let mut stage = Stage::new(Precision::F32, 2);
    let masked = |allow: fn(&[u32]) -> Vec<u32>| Request {
        tokens: random_tokens(4, 20, VOCAB),
        sampling: Sampling { temperature: 5.0, ..Sampling::default() },
        max_new_tokens: 30,
        mask: Some(Box::new(Allow(allow))),
        ..Request::default()
    };
    let free = request(1, random_tokens(4, 20, VOCAB), 6);
    let expected = stage.alone(request(1, random_tokens(4, 20, VOCAB), 6));
    let rising = |new: &[u32]| vec![30 + new.len() as u32, 60 + new.len() as u32];
    let five = |new: &[u32]| if new.len() < 5 { vec![127] } else { vec![] };
    let told = stage.run(ROOM, vec![(0, masked(rising)), (0, free), (1, masked(five))]);
    for (at, &token) in told[0].0.iter().enumerate() {
        assert!(token as usize == 30 + at || token as usize == 60 + at, "{token} at {at}");
    }
    assert!(told[0].0.iter().any(|&t| t < 60) && told[0].0.iter().any(|&t| t >= 60));
    assert_eq!((told[0].0.len(), told[0].2), (30, Some(Finish::Length)));
    check_told(&told[1..2], &[expected]);
    assert_eq!((&told[2].0, told[2].2), (&vec![127; 5], Some(Finish::Stop)));
}

#[test]
fn the_likeliest_tokens_are_told() {
    let mut stage = Stage::new(Precision::Bf16, 2);
    stage.with(|model, backend| {
        let mut batcher = Batcher::new(model, backend, ROOM).unwrap();
        let ask = |top_logprobs, repetition| Request {
            tokens: random_tokens(4, 20, VOCAB),
            sampling: Sampling { repetition, ..Sampling::default() },
            max_new_tokens: 9,
            top_logprobs,
            ..Request::default()
        };
        for (top, repetition) in [(5, 1.0), (0, 1.0), (20, 1.0), (3, 1000.0)] {
            batcher.add(ask(top, repetition)).unwrap();
        }
        let mut told: Vec<Vec<u32>> = vec![Vec::new(); 4];
        for _ in 0..9 {
            let drawn = batcher.step(model, backend).unwrap();
            for (row, (drawn, count)) in drawn.iter().zip([5, 0, 20, 3]).enumerate() {
                assert_eq!(drawn.top.len(), count);
                assert!(drawn.top.is_sorted_by(|a, b| a.1 >= b.1));
                if row % 2 == 0 {
                    assert_eq!(drawn.top[0], (drawn.token, drawn.logprob));
                }
                told[row].push(drawn.token);
            }
            assert_eq!(drawn[0].top, drawn[2].top[..5]);
        }
        // A penalty that large lets no token come twice.
        let mut distinct = told[3].clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), 9);
        batcher.close(backend);
    });
}

/// A stack of the bytes that are counted is enough for draws with all that a request may ask, and for scores.
#[test]
fn the_stack_that_is_counted_is_enough() {
    let config = CpuConfig { threads: 2, isa: None, precision: Precision::Bf16 };
    let (base, lora) = tiny("gqa");
    let Rig { backend, decoder, adapter } =
        Rig::new(Box::new(Cpu::new(config).unwrap()), &base, &lora);
    let mut stage = Stage { decoder, adapter, backend: Watched::new(backend) };
    assert_eq!(stage.backend.reserved(), 0);
    let room = Room { blocks: 12, rows: 6, row_tokens: 128, prefill_tokens: 70, scores: true };
    stage.with(|model, backend| {
        let counted = Batcher::stack_bytes(model, backend, &room).unwrap();
        let mut batcher = Batcher::new(model, backend, room).unwrap();
        assert!(backend.reserved() >= counted && backend.reserved() < counted + 64);
        for row in 0..6 {
            let request = Request {
                sampling: Sampling { repetition: 1.1, temperature: 1.0, ..Sampling::default() },
                mask: Some(Box::new(Allow(|_| (0..VOCAB).collect()))),
                top_logprobs: 20,
                ..request(row, random_tokens(row, 100, VOCAB), 28)
            };
            batcher.add(request).unwrap();
        }
        let mut drawn = 0;
        while drawn < 6 * 28 {
            drawn += batcher.step(model, backend).unwrap().len();
        }
        batcher.clear();
        let prefix = random_tokens(1, 30, VOCAB);
        let tails: Vec<Vec<u32>> = (0..9).map(|seed| random_tokens(seed, 97, VOCAB)).collect();
        let asked = Scoring { part: 0, prefix: &prefix, tails: &tails, temperature: 1.0 };
        let scores = batcher.score(model, backend, &asked).unwrap();
        assert!(scores.iter().all(|scores| scores.len() == 97));
        batcher.close(backend);
    });
}

#[test]
fn what_has_no_room_waits_and_what_cannot_be_is_refused() {
    let mut stage = Stage::new(Precision::F32, 1);
    stage.with(|model, backend| {
        let room = Room { blocks: 4, rows: 3, row_tokens: 200, ..ROOM };
        let mut batcher = Batcher::new(model, backend, room).unwrap();
        let ask = |len, max_new_tokens| Request {
            tokens: random_tokens(len as u64, len, VOCAB),
            max_new_tokens,
            ..Request::default()
        };
        let invalid: [(Request, &str); 7] = [
            (ask(0, 1), "no tokens"),
            (ask(5, 0), "`max_new_tokens` = 0"),
            (ask(150, 51), "201 tokens, but there is room for 200"),
            (Request { tokens: vec![3, 128], ..ask(1, 1) }, "token 128"),
            (Request { top_logprobs: 21, ..ask(1, 1) }, "`top_logprobs` = 21"),
            (
                Request { mask: Some(Box::new(Allow(|_| vec![]))), ..ask(1, 1) },
                "the mask allows no first token",
            ),
            (
                Request {
                    sampling: Sampling { temperature: f32::NAN, ..Sampling::default() },
                    ..ask(1, 1)
                },
                "`temperature` = NaN",
            ),
        ];
        for (request, expected) in invalid {
            match batcher.add(request) {
                Err(Refusal::Invalid(error)) => {
                    assert!(error.to_string().contains(expected), "{error}");
                }
                other => panic!("{expected}: {other:?}"),
            }
        }
        assert!(batcher.is_empty());
        let first: RowId = batcher.add(ask(100, 28)).unwrap();
        let Err(Refusal::Full(back)) = batcher.add(ask(129, 1)) else { panic!("3 blocks more") };
        assert_eq!((back.tokens.len(), back.max_new_tokens), (129, 1));
        let second = batcher.add(ask(64, 64)).unwrap();
        batcher.step(model, backend).unwrap();
        assert!(matches!(batcher.extend(second, &[7; 10], 60), Err(Refusal::Full(()))));
        assert_eq!(batcher.tokens(second).len(), 64);
        batcher.remove(first);
        batcher.extend(second, &[7; 10], 60).unwrap();
        // The rows are three, whatever room their blocks would have.
        batcher.add(ask(1, 1)).unwrap();
        let Err(Refusal::Full(_)) = batcher.add(*back) else { panic!("no blocks") };
        batcher.remove(second);
        batcher.close(backend);

        // A cache needs its place on the stack.
        let mark = backend.mark();
        let most = Room { blocks: 1_000_000, ..room };
        backend.alloc(1, compute::DType::F32).unwrap();
        assert!(Batcher::new(model, backend, most).is_err());
        backend.release(mark);
    });
}
