//! Rows of the output distribution.

use super::{Row, Trial};
use crate::op::{
    Head, HeadDivergence, HeadGradients, HeadOutputs, HeadWeightGradient, Logits, Sample, SampleTop,
};
use crate::{Buffer, DType, Op, Storage, Weight};

/// Kinds of gradient that go into a head.
pub(super) const GRADIENTS: [&str; 4] = ["logprob", "entropy", "lse", "mean_logprob"];

/// The numbers of a head.
#[derive(Clone, Copy)]
struct Shape {
    reads: usize,
    vocab: usize,
    cols: usize,
    scale: f32,
    softcap: Option<f32>,
    temperature: f32,
}

pub(super) fn add(rows: &mut Vec<Row>) {
    let plain = |reads, vocab, cols| Shape {
        reads,
        vocab,
        cols,
        scale: 1.0,
        softcap: None,
        temperature: 1.0,
    };
    let shapes = [
        ("1x7x5", plain(1, 7, 5)),
        ("5x100x64", plain(5, 100, 64)),
        ("37x1003x40", plain(37, 1003, 40)),
        // Ends of blocks and panels.
        ("12x64x32", plain(12, 64, 32)),
        ("11x65x31", plain(11, 65, 31)),
        ("25x127x33", plain(25, 127, 33)),
        ("with softcap", Shape { softcap: Some(3.0), ..plain(4, 65, 33) }),
        ("with temperature", Shape { temperature: 0.7, ..plain(4, 65, 33) }),
        (
            "with all",
            Shape { scale: 0.5, softcap: Some(2.0), temperature: 1.3, ..plain(13, 300, 48) },
        ),
    ];
    for (name, shape) in shapes {
        rows.push(Row::new(format!("head {name}, outputs"), move |t| run(t, shape, true, &[])));
        for kind in GRADIENTS {
            let name = format!("head {name}, gradient of {kind}");
            rows.push(Row::new(name, move |t| run(t, shape, false, &[kind])));
        }
        let name = format!("head {name}, in one pass");
        rows.push(Row::new(name, move |t| run(t, shape, true, &GRADIENTS)));
    }
    rows.push(Row::new("head without targets", without_targets));
    for mix in [0.0, 0.3, 0.5, 1.0] {
        for (name, shape) in shapes {
            let name = format!("head divergence {name}, mix {mix}");
            rows.push(Row::new(name, move |t| divergence(t, shape, shape.vocab, mix, true)));
        }
        for (name, teacher) in [("larger", 71), ("smaller", 59)] {
            let name = format!("head divergence from a {name} vocabulary, mix {mix}");
            let shape = plain(4, 65, 33);
            rows.push(Row::new(name, move |t| divergence(t, shape, teacher, mix, true)));
        }
        let name = format!("head divergence alone, mix {mix}");
        rows.push(Row::new(name, move |t| divergence(t, plain(6, 90, 33), 90, mix, false)));
        let name = format!("head divergence from itself, mix {mix}");
        rows.push(Row::new(name, move |t| from_itself(t, mix)));
    }
    for storage in Storage::ALL {
        let cols = if storage.block_len() == 256 { 256 } else { 64 };
        let shape = Shape { scale: 0.2, ..plain(6, 70, cols) };
        let body = move |t: &mut Trial<'_>| {
            let weight = t.weight(shape.vocab, cols, storage);
            run_on(t, shape, weight, true, &GRADIENTS);
        };
        rows.push(Row::new(format!("head {storage:?}"), body));
    }
    for (vocab, count) in [(1, 1), (7, 3), (15, 2), (16, 2), (17, 2), (100, 40), (1003, 20)] {
        rows.push(Row::new(format!("sample {count}x{vocab}"), move |t| sample(t, vocab, count)));
    }
    rows.push(Row::new("sample among equals", sample_among_equals));
    rows.push(Row::new("sample with softcap", sample_with_softcap));
    rows.push(Row::new("sample with bits", sample_with_bits));
}

fn run(t: &mut Trial<'_>, shape: Shape, outputs: bool, gradients: &[&str]) {
    let weight = t.weight(shape.vocab, shape.cols, Storage::Bf16);
    run_on(t, shape, weight, outputs, gradients);
}

fn run_on(t: &mut Trial<'_>, shape: Shape, weight: Weight, outputs: bool, gradients: &[&str]) {
    let reads = shape.reads;
    let hidden = t.operands(reads * shape.cols);
    // None on the first read where there are others, several on some.
    let targets: Vec<u32> =
        (0..reads as u32).flat_map(|read| vec![read; read as usize % 3]).collect();
    let targets = if targets.is_empty() { vec![0, 0] } else { targets };
    let tokens = t.random_below(targets.len(), shape.vocab as u32);
    let mut gradient = |name: &str, len| gradients.contains(&name).then(|| t.f32(len));
    let gradients = HeadGradients {
        logprob: gradient("logprob", targets.len()),
        entropy: gradient("entropy", reads),
        lse: gradient("lse", reads),
        mean_logprob: gradient("mean_logprob", reads),
    };
    let given =
        gradients.logprob.or(gradients.entropy).or(gradients.lse).or(gradients.mean_logprob);
    let d_hidden = given.map(|_| t.out(reads * shape.cols, DType::F32));
    let mut output = |len, dtype| outputs.then(|| t.out(len, dtype));
    let outputs = HeadOutputs {
        logprob: output(targets.len(), DType::F32),
        entropy: output(reads, DType::F32),
        lse: output(reads, DType::F32),
        mean_logprob: output(reads, DType::F32),
        log_sum_sq_probs: output(reads, DType::F32),
        top1: output(reads, DType::U32),
    };
    let (target_reads, target_tokens) = (t.integers(&targets), t.integers(&tokens));
    // With gradients for some outputs alone, only some rows of the weight are trained.
    let end = reads as u32;
    let trained = [0, 2, shape.vocab as u32 / 2, shape.vocab as u32 - 1];
    let rows = (gradients.entropy.is_none()).then(|| t.integers(&trained));
    let d_weight = given.map(|_| HeadWeightGradient {
        groups: t.integers(&[0, end / 2, end / 2, end]),
        rows,
        gradient: t.f32(rows.map_or(shape.vocab, |rows| rows.len) * shape.cols),
    });
    t.run(Op::Head(Head {
        reads,
        hidden,
        weight,
        scale: shape.scale,
        softcap: shape.softcap,
        temperature: shape.temperature,
        target_reads,
        target_tokens,
        outputs,
        gradients,
        d_hidden,
        d_weight,
    }));
    keep(t, &outputs, d_hidden);
    d_weight.iter().for_each(|d_weight| t.keep("d_weight", d_weight.gradient));
}

/// Statistics alone, as a KL penalty wants them.
fn without_targets(t: &mut Trial<'_>) {
    let (reads, vocab, cols) = (3, 50, 16);
    let (entropy, d_entropy) = (t.out(reads, DType::F32), t.f32(reads));
    let d_hidden = Some(t.out(reads * cols, DType::F32));
    let outputs = HeadOutputs { entropy: Some(entropy), ..HeadOutputs::default() };
    let op = Head {
        reads,
        hidden: t.operands(reads * cols),
        weight: t.weight(vocab, cols, Storage::F16),
        scale: 1.0,
        softcap: None,
        temperature: 1.0,
        target_reads: t.integers(&[]),
        target_tokens: t.integers(&[]),
        outputs,
        gradients: HeadGradients { entropy: Some(d_entropy), ..HeadGradients::default() },
        d_hidden,
        d_weight: None,
    };
    t.run(Op::Head(op));
    keep(t, &outputs, d_hidden);
}

/// From a teacher of other dimensions, whose logits have a cap of their own.
fn divergence(t: &mut Trial<'_>, shape: Shape, teacher: usize, mix: f32, learns: bool) {
    let Shape { reads, vocab, cols, scale, softcap, temperature } = shape;
    let of_teacher = 24;
    let gradient = learns.then(|| t.f32(reads));
    let d_hidden = learns.then(|| t.out(reads * cols, DType::F32));
    let end = reads as u32;
    let trained = [0, 2, vocab as u32 / 2, vocab as u32 - 1];
    let rows = (mix == 0.5).then(|| t.integers(&trained));
    let d_weight = learns.then(|| HeadWeightGradient {
        groups: t.integers(&[0, end / 2, end / 2, end]),
        rows,
        gradient: t.f32(rows.map_or(vocab, |rows| rows.len) * cols),
    });
    let op = HeadDivergence {
        reads,
        student: Logits {
            hidden: t.operands(reads * cols),
            weight: t.weight(vocab, cols, Storage::Bf16),
            scale,
            softcap,
        },
        teacher: Logits {
            hidden: t.operands(reads * of_teacher),
            weight: t.weight(teacher, of_teacher, Storage::Bf16),
            scale: 0.7,
            softcap: softcap.map(|cap| 2.0 * cap),
        },
        temperature,
        mix,
        divergence: t.out(reads, DType::F32),
        gradient,
        d_hidden,
        d_weight,
    };
    t.run(Op::HeadDivergence(op));
    t.keep("divergence", op.divergence);
    d_hidden.iter().for_each(|d_hidden| t.keep("d_hidden", *d_hidden));
    d_weight.iter().for_each(|d_weight| t.keep("d_weight", d_weight.gradient));
}

/// A model is not apart from itself, and nothing pulls.
fn from_itself(t: &mut Trial<'_>, mix: f32) {
    let (reads, vocab, cols) = (5, 77, 32);
    let hidden = t.operands(reads * cols);
    let weight = t.weight(vocab, cols, Storage::Bf16);
    let own = Logits { hidden, weight, scale: 1.0, softcap: None };
    let gradient = Some(t.f32(reads));
    let d_hidden = t.out(reads * cols, DType::F32);
    let op = HeadDivergence {
        reads,
        student: own,
        teacher: own,
        temperature: 1.0,
        mix,
        divergence: t.out(reads, DType::F32),
        gradient,
        d_hidden: Some(d_hidden),
        d_weight: None,
    };
    t.run(Op::HeadDivergence(op));
    t.keep("divergence", op.divergence);
    t.keep("d_hidden", d_hidden);
}

fn keep(t: &mut Trial<'_>, outputs: &HeadOutputs, d_hidden: Option<Buffer>) {
    let named = [
        ("logprob", outputs.logprob),
        ("entropy", outputs.entropy),
        ("lse", outputs.lse),
        ("mean_logprob", outputs.mean_logprob),
        ("log_sum_sq_probs", outputs.log_sum_sq_probs),
        ("top1", outputs.top1),
        ("d_hidden", d_hidden),
    ];
    for (name, buffer) in named {
        if let Some(buffer) = buffer {
            t.keep(name, buffer);
        }
    }
}

fn sample(t: &mut Trial<'_>, vocab: usize, rows: usize) {
    let logits: Vec<f32> = t.random(rows * vocab).iter().map(|x| x * 4.0).collect();
    let temperatures = [0.0, 1.0, 0.7, 1.5];
    let settings = (0..rows).flat_map(|row| {
        let top_k = [0.0, 1.0, 5.0][row / 4 % 3];
        let top_p = [1.0, 0.5, 0.9, 1e-6][row / 12 % 4];
        let min_p = [0.0, 0.02][row / 5 % 2];
        [temperatures[row % 4], top_k, top_p, min_p, 1.0, (row as f32 * 0.37 + 0.05).fract()]
    });
    let settings: Vec<f32> = settings.collect();
    draw(t, vocab, &logits, None, &settings);
}

/// The cap bends large logits only; their order stays.
fn sample_with_softcap(t: &mut Trial<'_>) {
    let (vocab, rows) = (60, 12);
    let logits: Vec<f32> = t.random(rows * vocab).iter().map(|x| x * 6.0).collect();
    let settings = (0..rows).map(|row| {
        let temperature = [0.0, 1.0, 0.6][row % 3];
        let draw = (row as f32 * 0.37 + 0.05).fract();
        [temperature, 0.0, [1.0, 0.8][row / 3 % 2], 0.0, 1.0, draw]
    });
    let settings: Vec<[f32; 6]> = settings.collect();
    draw(t, vocab, &logits, Some(4.0), settings.as_flattened());
}

/// The lowest token wins at temperature 0, and equals keep their order at any other.
fn sample_among_equals(t: &mut Trial<'_>) {
    let vocab = 40;
    let logits: Vec<f32> = (0..6 * vocab).map(|i| [0.0, 2.0, 1.0, 2.0][i % 4]).collect();
    let settings = [
        [0.0, 0.0, 1.0, 0.0, 1.0, 0.9],
        [1.0, 1.0, 1.0, 0.0, 1.0, 0.9],
        [1.0, 3.0, 1.0, 0.0, 1.0, 0.5],
        [1.0, 0.0, 0.3, 0.0, 1.0, 0.99],
        [1.0, 0.0, 1.0, 0.0, 1.0, 0.0],
        [0.5, 21.0, 1.0, 0.0, 1.0, 0.999],
    ];
    draw(t, vocab, &logits, None, settings.as_flattened());
}

/// What is drawn from is not what log-probabilities are of.
fn sample_with_bits(t: &mut Trial<'_>) {
    let (vocab, rows, words) = (75, 16, 3);
    let logits: Vec<f32> = t.random(rows * vocab).iter().map(|x| x * 4.0).collect();
    let settings = (0..rows).map(|row| {
        let top_k = [0.0, 7.0][row / 4 % 2];
        let draw = (row as f32 * 0.37 + 0.05).fract();
        [[0.0, 1.0, 0.7][row % 3], top_k, 0.9, 0.01, [1.0, 1.3, 0.8][row % 3], draw]
    });
    let settings: Vec<[f32; 6]> = settings.collect();
    let bits = |share: u64, seed: u64| -> Vec<u32> {
        let word = |at: u64| {
            let is_set = |bit: &u64| crate::random::key(&[seed, at, *bit]) % 8 < share;
            (0..32).filter(is_set).fold(0, |word, bit| word | 1 << bit)
        };
        // The last token is always allowed.
        (0..(rows * words) as u64).map(|at| word(at) | u32::from(at % 3 == 2) << 10).collect()
    };
    let (allowed, seen) = (t.integers(&bits(2, 1)), t.integers(&bits(4, 2)));
    let (logits, settings) =
        (t.upload(&logits, DType::F32), t.upload(settings.as_flattened(), DType::F32));
    let (tokens, logprobs) = (t.out(rows, DType::U32), t.out(rows, DType::F32));
    let top =
        SampleTop { tokens: t.out(rows * 5, DType::U32), logprobs: t.out(rows * 5, DType::F32) };
    t.run(Op::Sample(Sample {
        vocab,
        logits,
        softcap: None,
        settings,
        allowed: Some(allowed),
        seen: Some(seen),
        tokens,
        logprobs,
        top: Some(top),
    }));
    t.keep("tokens", tokens);
    t.keep("logprobs", logprobs);
    t.keep("top tokens", top.tokens);
    t.keep("top logprobs", top.logprobs);
}

fn draw(t: &mut Trial<'_>, vocab: usize, logits: &[f32], softcap: Option<f32>, settings: &[f32]) {
    let rows = settings.len() / Sample::SETTINGS;
    let (logits, settings) = (t.upload(logits, DType::F32), t.upload(settings, DType::F32));
    let (tokens, logprobs) = (t.out(rows, DType::U32), t.out(rows, DType::F32));
    t.run(Op::Sample(Sample {
        vocab,
        logits,
        softcap,
        settings,
        allowed: None,
        seen: None,
        tokens,
        logprobs,
        top: None,
    }));
    t.keep("tokens", tokens);
    t.keep("logprobs", logprobs);
}
