//! How far two models are apart: the divergence of their next-token distributions over the whole
//! vocabulary, and how often their likeliest token is the same.
//!
//! The models run one after the other. The first leaves its logits in a file, the second is compared
//! with them as it runs: memory never holds both. A merged model runs in operands that hold what was written, and a
//! likeliest token counts only where one model prefers it by more than rounding.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read as _, Write as _};
use std::path::{Path, PathBuf};

use compute::measure::Measure;
use compute::{Backend, Buffer};
use text::{Batch, Segment};

use crate::{Adapter, Decoder, Error, Pass, Result};

/// Bytes of logits that are computed at a time.
const LOGIT_BYTES: usize = 64 << 20;

/// Tokens that run together, unless a single row has more.
const BATCH_TOKENS: usize = 512;

/// How far a model is from a recorded one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Divergence {
    /// Mean over the reads of `KL(model || recorded)`, in nats.
    pub kl_mean: f64,
    /// The largest of them.
    pub kl_max: f64,
    /// Share of the decided reads at which both have the same likeliest token; 1 where no read is decided.
    pub top1: f64,
    /// Reads at which one of the models prefers its likeliest token to the other's by more than rounding.
    pub decided: usize,
    /// Number of reads.
    pub reads: usize,
}

/// The logits of a model at every position of some rows, in a file.
#[derive(Clone, Debug)]
pub struct Recording {
    path: PathBuf,
    vocab_size: usize,
}

impl Recording {
    /// Runs a model over `rows` and keeps its logits at `path`.
    pub fn new(
        path: &Path,
        decoder: &Decoder,
        backend: &mut dyn Backend,
        adapter: Option<&Adapter>,
        rows: &[Vec<u32>],
    ) -> Result<Self> {
        let mut file = BufWriter::new(File::create(path).map_err(Error::io(path))?);
        each_logits(decoder, backend, adapter, rows, &mut |logits| {
            for value in logits {
                file.write_all(&value.to_le_bytes()).map_err(Error::io(path))?;
            }
            Ok(())
        })?;
        file.flush().map_err(Error::io(path))?;
        Ok(Recording { path: path.to_owned(), vocab_size: decoder.config.vocab_size })
    }

    /// Runs another model over the same rows and compares.
    ///
    /// Where one vocabulary is larger (padded, say), the tokens that both have are compared. `rounding` is the
    /// relative error of a logit that the models' number types explain: a smaller lead decides no token.
    pub fn divergence(
        &self,
        decoder: &Decoder,
        backend: &mut dyn Backend,
        adapter: Option<&Adapter>,
        rows: &[Vec<u32>],
        rounding: f32,
    ) -> Result<Divergence> {
        let threads = backend.device().threads.max(1);
        let own_size = decoder.config.vocab_size;
        let size = own_size.min(self.vocab_size);
        let mut file = BufReader::new(File::open(&self.path).map_err(Error::io(&self.path))?);
        let mut compared: Vec<Compared> = Vec::new();
        each_logits(decoder, backend, adapter, rows, &mut |logits| {
            let reads = logits.len() / own_size;
            let mut bytes = vec![0; reads * self.vocab_size * 4];
            file.read_exact(&mut bytes).map_err(Error::io(&self.path))?;
            let (words, _) = bytes.as_chunks::<4>();
            let recorded: Vec<f32> = words.iter().map(|word| f32::from_le_bytes(*word)).collect();
            let share = reads.div_ceil(threads);
            let own = logits.chunks(share * own_size);
            let other = recorded.chunks(share * self.vocab_size);
            std::thread::scope(|scope| {
                let compare = |own: &[f32], other: &[f32]| {
                    let pairs = own.chunks(own_size).zip(other.chunks(self.vocab_size));
                    pairs
                        .map(|(p, q)| compare(&p[..size], &q[..size], rounding))
                        .collect::<Vec<_>>()
                };
                let workers: Vec<_> =
                    own.zip(other).map(|(p, q)| scope.spawn(move || compare(p, q))).collect();
                for worker in workers {
                    compared.extend(worker.join().expect("no worker panics"));
                }
            });
            Ok(())
        })?;
        let reads = compared.len();
        let decided = compared.iter().filter(|read| read.is_decided).count();
        let same = compared.iter().filter(|read| read.is_decided && read.is_same).count();
        Ok(Divergence {
            kl_mean: compared.iter().map(|read| read.kl).sum::<f64>() / reads.max(1) as f64,
            kl_max: compared.iter().map(|read| read.kl).fold(0.0, f64::max),
            top1: if decided == 0 { 1.0 } else { same as f64 / decided as f64 },
            decided,
            reads,
        })
    }
}

/// Two rows of logits, compared.
struct Compared {
    kl: f64,
    /// Whether their largest stand at the same place.
    is_same: bool,
    /// Whether rounding could not have changed that place.
    is_decided: bool,
}

/// `KL(p || q)` of two rows of logits, and how their largest compare.
fn compare(p: &[f32], q: &[f32], rounding: f32) -> Compared {
    let (p_best, q_best) = (argmax(p), argmax(q));
    let (p_lse, q_lse) = (log_sum_exp(p, p[p_best]), log_sum_exp(q, q[q_best]));
    let terms = p.iter().zip(q).map(|(&p, &q)| {
        let (log_p, log_q) = (f64::from(p) - p_lse, f64::from(q) - q_lse);
        log_p.exp() * (log_p - log_q)
    });
    // Rounding may leave a sum of terms of both signs a little below zero.
    let kl = terms.sum::<f64>().max(0.0);
    let is_same = p_best == q_best;
    // Where the tokens differ, it is the lead over the other's token that counts: a third one may be as likely.
    let rivals = match is_same {
        true => [runner_up(p, p_best), runner_up(q, q_best)],
        false => [q_best, p_best].map(Some),
    };
    let leads = |values: &[f32], best: usize, rival: Option<usize>| {
        let largest = values.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
        rival.is_none_or(|rival| values[best] - values[rival] > rounding * largest)
    };
    let is_decided = leads(p, p_best, rivals[0]) || leads(q, q_best, rivals[1]);
    Compared { kl, is_same, is_decided }
}

/// The place of the largest number but one.
fn runner_up(values: &[f32], best: usize) -> Option<usize> {
    let others = (0..values.len()).filter(|&at| at != best);
    others.reduce(|second, at| if values[at] > values[second] { at } else { second })
}

/// The first place of the largest number.
fn argmax(values: &[f32]) -> usize {
    let larger = |best: usize, at: usize| if values[at] > values[best] { at } else { best };
    (0..values.len()).reduce(larger).unwrap_or(0)
}

fn log_sum_exp(values: &[f32], largest: f32) -> f64 {
    let largest = f64::from(largest);
    largest + values.iter().map(|&x| (f64::from(x) - largest).exp()).sum::<f64>().ln()
}

/// Calls `visit` with the logits at every position of every row, `[reads, V]` at a time, soft cap applied.
fn each_logits(
    decoder: &Decoder,
    backend: &mut dyn Backend,
    adapter: Option<&Adapter>,
    rows: &[Vec<u32>],
    visit: &mut dyn FnMut(&[f32]) -> Result<()>,
) -> Result<()> {
    let batches = batches(rows);
    let Some(largest) = batches.iter().max_by_key(|batch| batch.tokens.len()) else {
        return Ok(());
    };
    let mut measure = Measure::new(backend.operand());
    run(decoder, &mut measure, adapter, largest, &mut |_, _| Ok(()))?;
    let needed = measure.report().stack_peak_bytes;
    if backend.reserved() < needed {
        backend.reserve(needed)?;
    }
    let softcap = decoder.config.logit_softcap;
    for batch in &batches {
        run(decoder, backend, adapter, batch, &mut |backend, buffer| {
            let mut logits = vec![0.0; buffer.len];
            backend.read(buffer, &mut logits)?;
            if let Some(cap) = softcap {
                logits.iter_mut().for_each(|x| *x = cap * (*x / cap).tanh());
            }
            visit(&logits)
        })?;
    }
    Ok(())
}

fn run(
    decoder: &Decoder,
    backend: &mut dyn Backend,
    adapter: Option<&Adapter>,
    batch: &Batch,
    visit: &mut dyn FnMut(&mut dyn Backend, Buffer) -> Result<()>,
) -> Result<()> {
    let pass = Pass { adapter, ..Pass::default() };
    let hidden = decoder.forward(backend, batch, &pass)?;
    let (reads, step) = (hidden.reads(), LOGIT_BYTES / (4 * decoder.config.vocab_size));
    for start in (0..reads).step_by(step.max(1)) {
        let mark = backend.mark();
        let part = start..reads.min(start + step.max(1));
        let logits = decoder.logits_at(backend, &hidden, part)?;
        visit(backend, logits)?;
        backend.release(mark);
    }
    hidden.release(backend);
    Ok(())
}

/// Rows packed into batches, every position read.
fn batches(rows: &[Vec<u32>]) -> Vec<Batch> {
    let mut batches: Vec<Batch> = Vec::new();
    for row in rows.iter().filter(|row| !row.is_empty()) {
        if batches.last().is_none_or(|last| last.tokens.len() + row.len() > BATCH_TOKENS) {
            batches.push(Batch::default());
        }
        let batch = batches.last_mut().expect("one was pushed");
        let start = batch.tokens.len();
        let (len, parent) = (row.len(), None);
        batch.segments.push(Segment { start, len, parent, sequence_len: len, row: 0 });
        batch.tokens.extend(row);
        batch.reads.extend(start as u32..(start + row.len()) as u32);
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divergence_follows_its_formula() {
        let Compared { kl, is_same, .. } = compare(&[0.0, 0.0], &[0.0, 3.0_f32.ln()], 0.0);
        // p = (1/2, 1/2), q = (1/4, 3/4): ln(2) / 2 + ln(2/3) / 2.
        let expected = 0.5 * 2.0_f64.ln() + 0.5 * (2.0_f64 / 3.0).ln();
        assert!((kl - expected).abs() < 1e-6, "{kl}");
        assert!(!is_same);
        let Compared { kl, is_same, .. } = compare(&[1.0, 7.0, 2.0], &[101.0, 107.0, 102.0], 0.0);
        assert!(kl < 1e-12 && is_same, "{kl}");
    }

    /// A place counts where one of the two models prefers it by more than rounding explains.
    #[test]
    fn a_lead_below_rounding_decides_nothing() {
        let check = |p: &[f32], q: &[f32], rounding, same: bool, decided: bool| {
            let compared = compare(p, q, rounding);
            assert_eq!((compared.is_same, compared.is_decided), (same, decided), "{p:?}, {q:?}");
        };
        check(&[10.0, 9.99], &[9.99, 10.0], 0.01, false, false);
        check(&[10.0, 9.99], &[9.99, 10.0], 1e-4, false, true);
        check(&[10.0, 9.0], &[9.99, 10.0], 0.01, false, true);
        check(&[10.0, 9.99], &[10.0, 9.99], 0.01, true, false);
        check(&[10.0, 9.0], &[10.0, 9.99], 0.01, true, true);
        // A third token of the same likelihood does not hide that the other's is far behind.
        check(&[10.0, 10.0, 1.0], &[1.0, 1.0, 10.0], 0.01, false, true);
        // The largest magnitude is what is rounded, whatever its sign.
        check(&[1.0, 0.9, -100.0], &[0.9, 1.0, -100.0], 0.01, false, false);
        check(&[1.0], &[1.0], 0.01, true, true);
    }

    #[test]
    fn rows_are_packed_and_all_read() {
        let rows = vec![vec![1; 300], Vec::new(), vec![2; 200], vec![3; 600], vec![4; 2]];
        let batches = batches(&rows);
        let sizes: Vec<usize> = batches.iter().map(|batch| batch.tokens.len()).collect();
        assert_eq!(sizes, [500, 600, 2]);
        for batch in &batches {
            batch.assert_valid();
            assert_eq!(batch.reads.len(), batch.tokens.len());
        }
    }
}
