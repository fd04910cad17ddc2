//! The output distribution: log-probabilities, statistics and their gradients.

use super::memory::Memory;
use crate::op::{Head, HeadGradients, HeadWeightGradient, Logits};
use crate::{Buffer, Weight};

/// The gradients that came in, as numbers.
struct Given {
    logprob: Option<Vec<f64>>,
    entropy: Option<Vec<f64>>,
    lse: Option<Vec<f64>>,
    mean_logprob: Option<Vec<f64>>,
}

impl Given {
    fn read(memory: &mut Memory, gradients: &HeadGradients, targets: usize, reads: usize) -> Self {
        let mut read = |buffer: Option<Buffer>, len| buffer.map(|b| memory.numbers(b, len));
        Given {
            logprob: read(gradients.logprob, targets),
            entropy: read(gradients.entropy, reads),
            lse: read(gradients.lse, reads),
            mean_logprob: read(gradients.mean_logprob, reads),
        }
    }

    fn any(&self) -> bool {
        let logprobs = self.logprob.is_some() || self.mean_logprob.is_some();
        logprobs || self.entropy.is_some() || self.lse.is_some()
    }
}

/// Everything about the distribution at one read.
pub(super) struct Distribution {
    pub(super) lse: f64,
    pub(super) logprobs: Vec<f64>,
    /// `dz / d(product)` of every logit.
    pub(super) slopes: Vec<f64>,
}

impl Distribution {
    fn entropy(&self) -> f64 {
        -self.logprobs.iter().map(|logprob| logprob.exp() * logprob).sum::<f64>()
    }

    fn mean_logprob(&self) -> f64 {
        self.logprobs.iter().sum::<f64>() / self.logprobs.len() as f64
    }

    fn log_sum_sq_probs(&self) -> f64 {
        let doubled: Vec<f64> = self.logprobs.iter().map(|logprob| 2.0 * logprob).collect();
        log_sum_exp(&doubled)
    }

    fn top1(&self) -> u32 {
        let mut top = 0;
        for (token, logprob) in self.logprobs.iter().enumerate() {
            if *logprob > self.logprobs[top] {
                top = token;
            }
        }
        top as u32
    }
}

fn log_sum_exp(x: &[f64]) -> f64 {
    let max = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    max + x.iter().map(|x| (x - max).exp()).sum::<f64>().ln()
}

/// The distribution over the first `tokens` of the vocabulary.
pub(super) fn distribution(
    memory: &Memory,
    logits: &Logits,
    temperature: f32,
    tokens: usize,
    hidden: &[f64],
) -> Distribution {
    let weight = memory.factor(logits.weight);
    let (scale, temperature) = (f64::from(logits.scale), f64::from(temperature));
    let logit = |token| {
        let product: f64 = hidden.iter().zip(weight.row(token)).map(|(x, w)| x * w).sum();
        match logits.softcap.map(f64::from) {
            None => (scale * product / temperature, scale / temperature),
            Some(cap) => {
                let tanh = (scale * product / cap).tanh();
                (cap * tanh / temperature, (1.0 - tanh * tanh) * scale / temperature)
            }
        }
    };
    let (logits, slopes): (Vec<f64>, Vec<f64>) = (0..tokens).map(logit).unzip();
    let lse = log_sum_exp(&logits);
    Distribution { lse, logprobs: logits.iter().map(|logit| logit - lse).collect(), slopes }
}

pub(super) fn run(memory: &mut Memory, op: &Head) {
    let (cols, targets) = (op.weight.cols, op.target_reads.len);
    let hidden = memory.numbers(op.hidden, op.reads * cols);
    let target_reads = memory.integers(op.target_reads, targets);
    let target_tokens = memory.integers(op.target_tokens, targets);
    assert!(target_reads.is_sorted(), "targets are sorted by read");
    assert!(target_reads.iter().all(|&read| (read as usize) < op.reads), "targets name reads");
    assert!(target_tokens.iter().all(|&token| (token as usize) < op.weight.rows), "token in V");
    let given = Given::read(memory, &op.gradients, targets, op.reads);
    assert!(!given.any() || op.d_hidden.is_some(), "gradients want `d_hidden`");

    let Head { hidden: buffer, weight, scale, softcap, temperature, .. } = *op;
    let of = Logits { hidden: buffer, weight, scale, softcap };
    let read =
        |read| distribution(memory, &of, temperature, weight.rows, &hidden[read * cols..][..cols]);
    let distributions: Vec<Distribution> = (0..op.reads).map(read).collect();
    assert!(op.d_weight.is_none() || given.any(), "`d_weight` wants gradients");
    let mut d_hidden = vec![0.0; op.reads * cols];
    let mut d_weight = op.d_weight.map(|given| DWeight::new(memory, op.reads, op.weight, &given));
    let mut target = 0;
    for (read, distribution) in distributions.iter().enumerate() {
        let last = target + target_reads[target..].partition_point(|&r| r as usize == read);
        let dz = d_logits(distribution, &given, read, target..last, &target_tokens);
        for (token, dz) in dz.into_iter().enumerate() {
            let row = memory.factor(op.weight).row(token);
            let factor = dz * distribution.slopes[token];
            let d_hidden = d_hidden[read * cols..][..cols].iter_mut();
            d_hidden.zip(row).for_each(|(d_hidden, w)| *d_hidden += factor * w);
            if let Some(d_weight) = &mut d_weight {
                d_weight.add(token, factor, &hidden[read * cols..][..cols]);
            }
        }
        target = last;
    }
    if let Some(out) = op.d_hidden {
        memory.write(out, &d_hidden);
    }
    if let Some(DWeight { buffer, gradient, .. }) = d_weight {
        memory.write(buffer, &gradient);
    }
    write_outputs(memory, op, &distributions, &target_reads, &target_tokens);
}

/// The gradient by the weight, and where each token's row of it lies.
pub(super) struct DWeight {
    pub(super) buffer: Buffer,
    places: Vec<Option<usize>>,
    pub(super) gradient: Vec<f64>,
}

impl DWeight {
    pub(super) fn new(
        memory: &mut Memory,
        reads: usize,
        weight: Weight,
        given: &HeadWeightGradient,
    ) -> Self {
        let groups = memory.integers(given.groups, given.groups.len);
        assert!(groups.is_sorted() && groups.first() == Some(&0), "groups {groups:?} of reads");
        assert_eq!(groups.last(), Some(&(reads as u32)), "groups end with the reads");
        let vocab = weight.rows;
        let rows = match given.rows {
            Some(rows) => memory.integers(rows, rows.len),
            None => (0..vocab as u32).collect(),
        };
        assert!(rows.is_sorted_by(|a, b| a < b), "trained rows ascend and are distinct");
        let mut places = vec![None; vocab];
        rows.iter().enumerate().for_each(|(place, &row)| places[row as usize] = Some(place));
        let gradient = memory.present(given.gradient, rows.len() * weight.cols);
        DWeight { buffer: given.gradient, places, gradient }
    }

    pub(super) fn add(&mut self, token: usize, factor: f64, hidden: &[f64]) {
        if let Some(place) = self.places[token] {
            let row = self.gradient[place * hidden.len()..][..hidden.len()].iter_mut();
            row.zip(hidden).for_each(|(row, x)| *row += factor * x);
        }
    }
}

/// d(loss)/d(logit) at one read.
fn d_logits(
    distribution: &Distribution,
    given: &Given,
    read: usize,
    targets: std::ops::Range<usize>,
    target_tokens: &[u32],
) -> Vec<f64> {
    let at = |gradient: &Option<Vec<f64>>| gradient.as_ref().map_or(0.0, |g| g[read]);
    let (g_entropy, g_lse, g_mean) = (at(&given.entropy), at(&given.lse), at(&given.mean_logprob));
    let g_logprob = |target: usize| given.logprob.as_ref().map_or(0.0, |g| g[target]);
    let g_logprobs: f64 = targets.clone().map(g_logprob).sum();
    let (entropy, vocab) = (distribution.entropy(), distribution.logprobs.len() as f64);
    let dz = |&logprob: &f64| {
        let p = logprob.exp();
        -g_entropy * p * (logprob + entropy) + g_lse * p + g_mean * (1.0 / vocab - p)
            - g_logprobs * p
    };
    let mut dz: Vec<f64> = distribution.logprobs.iter().map(dz).collect();
    for target in targets {
        dz[target_tokens[target] as usize] += g_logprob(target);
    }
    dz
}

fn write_outputs(
    memory: &mut Memory,
    op: &Head,
    distributions: &[Distribution],
    target_reads: &[u32],
    target_tokens: &[u32],
) {
    if let Some(out) = op.outputs.logprob {
        let targets = target_reads.iter().zip(target_tokens);
        let logprobs: Vec<f64> = targets
            .map(|(&read, &token)| distributions[read as usize].logprobs[token as usize])
            .collect();
        memory.write(out, &logprobs);
    }
    let mut write = |out: Option<Buffer>, value: fn(&Distribution) -> f64| {
        if let Some(out) = out {
            memory.write(out, &distributions.iter().map(value).collect::<Vec<f64>>());
        }
    };
    write(op.outputs.entropy, Distribution::entropy);
    write(op.outputs.lse, |distribution| distribution.lse);
    write(op.outputs.mean_logprob, Distribution::mean_logprob);
    write(op.outputs.log_sum_sq_probs, Distribution::log_sum_sq_probs);
    if let Some(out) = op.outputs.top1 {
        let tokens: Vec<u32> = distributions.iter().map(Distribution::top1).collect();
        memory.write_integers(out, &tokens);
    }
}
