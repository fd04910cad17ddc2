//! Drawing a token from a row of logits.

use std::cmp::Ordering;

use super::operand::{LANES, Shared};
use super::pool::as_u32;
use super::{Isa, Pool, math, versions};

/// What [`sample`] draws from.
#[derive(Clone, Copy)]
pub(crate) struct Logits<'a> {
    pub(crate) vocab: usize,
    /// `[rows, vocab]`.
    pub(crate) logits: &'a [f32],
    /// `softcap * tanh(logit / softcap)` before all else.
    pub(crate) softcap: Option<f32>,
}

/// Draws one token per row; see [`crate::op::Sample`].
pub(crate) fn sample(
    pool: &Pool,
    isa: Isa,
    Logits { vocab, logits, softcap }: Logits<'_>,
    settings: &[f32],
    tokens: &mut [u32],
    logprobs: &mut [f32],
) {
    let rows = tokens.len();
    let fits = logits.len() == rows * vocab && settings.len() == rows * 4;
    assert!(fits && logprobs.len() == rows && vocab > 0, "sample: {rows} x {vocab}");
    let (tokens, logprobs) = (Shared::new(tokens), Shared::new(logprobs));
    pool.run(rows, &|row, scratch| {
        let room = if softcap.is_some() { vocab } else { 0 };
        let [weights, order, capped] = scratch.split([vocab, vocab, room]);
        let mut logits = &logits[row * vocab..][..vocab];
        if let Some(softcap) = softcap {
            cap(isa, logits, softcap, capped);
            logits = capped;
        }
        let settings = Settings::of(&settings[row * 4..][..4]);
        let max = largest(isa, logits);
        let token = if settings.temperature == 0.0 {
            // With nothing but NaN there is no largest, and any token is as good.
            logits.iter().position(|&logit| logit == max).unwrap_or(0)
        } else {
            let total = weigh(isa, logits, max, 1.0 / settings.temperature, weights);
            let mut ranking = Ranking::new(logits, weights, as_u32(order));
            settings.draw(&mut ranking, total)
        };
        let lse = max + (weigh(isa, logits, max, 1.0, weights) as f32).ln();
        // SAFETY: every task has a row of its own.
        let (tokens, logprobs) =
            unsafe { (tokens.part(row..row + 1), logprobs.part(row..row + 1)) };
        tokens[0] = token as u32;
        logprobs[0] = logits[token] - lse;
    });
}

versions! { fn cap(logits: &[f32], softcap: f32, out: &mut [f32]) = cap_body; }

#[inline(always)]
fn cap_body(logits: &[f32], softcap: f32, out: &mut [f32]) {
    for (out, logit) in out.iter_mut().zip(logits) {
        *out = softcap * math::tanh(logit / softcap);
    }
}

versions! { fn largest(logits: &[f32]) -> f32 = largest_body; }

#[inline(always)]
fn largest_body(logits: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = logits.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            lanes[lane] = if chunk[lane] > lanes[lane] { chunk[lane] } else { lanes[lane] };
        }
    }
    rest.iter().chain(&lanes).copied().fold(f32::NEG_INFINITY, f32::max)
}

versions! {
    fn weigh(
        logits: &[f32], max: f32, inverse_temperature: f32, weights: &mut [f32],
    ) -> f64 = weigh_body;
}

/// `weights = exp((logits - max) / temperature)`; returns their sum.
#[inline(always)]
fn weigh_body(logits: &[f32], max: f32, inverse_temperature: f32, weights: &mut [f32]) -> f64 {
    for (weight, logit) in weights.iter_mut().zip(logits) {
        *weight = math::exp((logit - max) * inverse_temperature);
    }
    let mut lanes = [0.0_f64; LANES];
    let (chunks, rest) = weights.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            lanes[lane] += f64::from(chunk[lane]);
        }
    }
    lanes.into_iter().chain(rest.iter().map(|&weight| f64::from(weight))).sum()
}

/// One row of [`crate::op::Sample::settings`].
struct Settings {
    temperature: f32,
    top_k: usize,
    top_p: f64,
    draw: f64,
}

impl Settings {
    fn of(row: &[f32]) -> Self {
        let top_k = row[1] as usize;
        Settings { temperature: row[0], top_k, top_p: row[2].into(), draw: row[3].into() }
    }

    /// The token drawn; `total` is the sum of all weights.
    fn draw(&self, ranking: &mut Ranking<'_>, total: f64) -> usize {
        let mut count = ranking.len();
        let mut mass = total;
        if self.top_k > 0 && self.top_k < count {
            count = self.top_k;
            mass = (0..count).map(|rank| ranking.weight(rank)).sum();
        }
        if self.top_p < 1.0 {
            (count, mass) = ranking.reach(count, self.top_p * mass);
        }
        let mut sum = 0.0;
        for rank in 0..count {
            sum += ranking.weight(rank);
            if sum > self.draw * mass {
                return ranking.token(rank);
            }
        }
        // Rounding left the sum of all below the mass.
        ranking.token(count - 1)
    }
}

/// Tokens by falling logit, the lower token first among equals. Sorted only as far as asked
/// for: most draws end within the first few.
struct Ranking<'a> {
    logits: &'a [f32],
    weights: &'a [f32],
    order: &'a mut [u32],
    sorted: usize,
}

impl<'a> Ranking<'a> {
    fn new(logits: &'a [f32], weights: &'a [f32], order: &'a mut [u32]) -> Self {
        for (token, place) in order.iter_mut().enumerate() {
            *place = token as u32;
        }
        Ranking { logits, weights, order, sorted: 0 }
    }

    fn len(&self) -> usize {
        self.order.len()
    }

    fn token(&mut self, rank: usize) -> usize {
        if rank >= self.sorted {
            self.sort_to((rank + 1).max(8 * self.sorted).max(64));
        }
        self.order[rank] as usize
    }

    fn weight(&mut self, rank: usize) -> f64 {
        self.weights[self.token(rank)].into()
    }

    /// The fewest ranks below `count` whose weights reach `mass`, at least one, and their sum.
    fn reach(&mut self, count: usize, mass: f64) -> (usize, f64) {
        let mut sum = 0.0;
        for rank in 0..count {
            sum += self.weight(rank);
            if sum >= mass {
                return (rank + 1, sum);
            }
        }
        (count, sum)
    }

    fn sort_to(&mut self, end: usize) {
        let logits = self.logits;
        let falling = |a: &u32, b: &u32| -> Ordering {
            let (a_logit, b_logit) = (logits[*a as usize], logits[*b as usize]);
            // Not `total_cmp`, for which -0 is below 0.
            let by_logit = b_logit.partial_cmp(&a_logit);
            by_logit.unwrap_or_else(|| a_logit.is_nan().cmp(&b_logit.is_nan())).then(a.cmp(b))
        };
        let end = end.min(self.order.len());
        let rest = &mut self.order[self.sorted..];
        let wanted = end - self.sorted;
        if wanted < rest.len() {
            rest.select_nth_unstable_by(wanted, falling);
        }
        rest[..wanted].sort_unstable_by(falling);
        self.sorted = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testing::normal;

    /// The documented rule, with a full sort.
    fn expected(logits: &[f32], [temperature, top_k, top_p, draw]: [f32; 4]) -> usize {
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
        if temperature == 0.0 {
            return order[0];
        }
        if top_k > 0.0 {
            order.truncate(top_k as usize);
        }
        let max = f64::from(logits[order[0]]);
        let weight = |&i: &usize| ((f64::from(logits[i]) - max) / f64::from(temperature)).exp();
        let mass = |order: &[usize]| order.iter().map(weight).sum::<f64>();
        let enough = f64::from(top_p) * mass(&order);
        let count = (1..order.len()).find(|&count| mass(&order[..count]) >= enough);
        order.truncate(count.unwrap_or(order.len()));
        let draw = f64::from(draw) * mass(&order);
        let rank = (0..order.len()).find(|&rank| mass(&order[..=rank]) > draw);
        order[rank.unwrap_or(order.len() - 1)]
    }

    #[test]
    fn draws_follow_the_rule() {
        let vocab = 777;
        let mut rows = Vec::new();
        for temperature in [0.0, 0.7, 1.0, 5.0] {
            for top_k in [0.0, 1.0, 50.0, 2000.0] {
                for top_p in [0.0, 0.3, 0.95, 1.0] {
                    rows.extend([0.0, 0.31, 0.77, 0.9999].map(|d| [temperature, top_k, top_p, d]));
                }
            }
        }
        let mut logits = normal(1, rows.len() * vocab);
        // Equals, some of them the most likely.
        logits.iter_mut().for_each(|logit| *logit = (*logit * 8.0).round() / 4.0);
        for isa in Isa::available() {
            let (mut tokens, mut logprobs) = (vec![0; rows.len()], vec![0.0; rows.len()]);
            let settings = rows.as_flattened();
            let logits_of = Logits { vocab, logits: &logits, softcap: None };
            sample(&Pool::new(2), isa, logits_of, settings, &mut tokens, &mut logprobs);
            for (row, &settings) in rows.iter().enumerate() {
                let logits = &logits[row * vocab..][..vocab];
                let token = tokens[row] as usize;
                assert_eq!(token, expected(logits, settings), "row {row}, {settings:?}");
                let lse = logits.iter().map(|&z| f64::from(z).exp()).sum::<f64>().ln();
                let logprob = f64::from(logits[token]) - lse;
                assert!((f64::from(logprobs[row]) - logprob).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn nan_shows_in_the_logprob() {
        let mut logits = normal(1, 100);
        logits[70] = f32::NAN;
        for temperature in [0.0, 1.0] {
            let (mut tokens, mut logprobs) = ([0], [0.0]);
            let settings = [temperature, 0.0, 1.0, 0.5];
            let (pool, isa) = (Pool::new(1), Isa::detect());
            for softcap in [None, Some(2.0)] {
                let logits = Logits { vocab: 100, logits: &logits, softcap };
                sample(&pool, isa, logits, &settings, &mut tokens, &mut logprobs);
                assert!(logprobs[0].is_nan() && tokens[0] < 100);
            }
        }
    }
}
