//! Drawing a token from a row of logits.

use std::cmp::Ordering;

use super::head::Cap;
use super::operand::{LANES, Shared};
use super::pool::as_u32;
use super::{Isa, Pool, math, versions};

const SETTINGS: usize = crate::op::Sample::SETTINGS;

/// What [`sample`] draws from.
#[derive(Clone, Copy)]
pub(crate) struct Logits<'a> {
    pub(crate) vocab: usize,
    /// `[rows, vocab]`.
    pub(crate) logits: &'a [f32],
    /// `softcap * tanh(logit / softcap)` before all else.
    pub(crate) softcap: Option<f32>,
    /// Bits of tokens by row, as in the operation; empty where there are none.
    pub(crate) allowed: &'a [u32],
    pub(crate) seen: &'a [u32],
}

/// Where results go.
pub(crate) struct Drawn<'a> {
    /// `[rows]`.
    pub(crate) tokens: &'a mut [u32],
    pub(crate) logprobs: &'a mut [f32],
    /// `[rows, count]`, empty where they are not wanted.
    pub(crate) top_tokens: &'a mut [u32],
    pub(crate) top_logprobs: &'a mut [f32],
}

/// Draws one token per row; see [`crate::op::Sample`].
pub(crate) fn sample(pool: &Pool, isa: Isa, from: Logits<'_>, settings: &[f32], out: Drawn<'_>) {
    let Logits { vocab, logits, softcap, allowed, seen } = from;
    let rows = out.tokens.len();
    let count = out.top_tokens.len() / rows.max(1);
    let fits = logits.len() == rows * vocab && settings.len() == rows * SETTINGS;
    let has_room = out.logprobs.len() == rows
        && [out.top_tokens.len(), out.top_logprobs.len()] == [rows * count; 2];
    assert!(fits && has_room && vocab > 0 && count <= vocab, "sample: {rows} x {vocab}");
    let (tokens, logprobs) = (Shared::new(out.tokens), Shared::new(out.logprobs));
    let (top_tokens, top_logprobs) = (Shared::new(out.top_tokens), Shared::new(out.top_logprobs));
    pool.run(rows, &|row, scratch| {
        let settings = Settings::of(&settings[row * SETTINGS..][..SETTINGS]);
        let bits = |all| Bits::of_row(all, row, vocab);
        let (allowed, seen) = (bits(allowed), bits(seen));
        let is_changed = softcap.is_some() || allowed.is_some() || seen.is_some();
        let capped_len = if softcap.is_some() { vocab } else { 0 };
        let changed_len = if is_changed { vocab } else { 0 };
        let [weights, order, capped, changed] =
            scratch.split([vocab, vocab, capped_len, changed_len]);
        let own = &logits[row * vocab..][..vocab];

        // The model's own distribution, as the head takes it. Weights are made later: their room serves as a copy.
        let temperature = if settings.temperature == 0.0 { 1.0 } else { settings.temperature };
        let cap = Cap::new(softcap, temperature);
        let copy = if softcap.is_some() { &mut *capped } else { &mut *weights };
        copy.copy_from_slice(own);
        let lse = cap.lse(isa, copy);
        let stored = if softcap.is_some() { &*capped } else { own };
        let logprob = |token: usize| cap.logprob(stored[token], lse);

        // What is drawn from.
        let mut logits = own;
        if is_changed {
            change(stored, softcap, allowed, seen, settings.repetition, changed);
            logits = changed;
        }
        let max = largest(isa, logits);
        let token = if settings.temperature == 0.0 {
            // With nothing but NaN there is no largest, and any token is as good.
            logits.iter().position(|&logit| logit == max).unwrap_or(0)
        } else {
            let total = weigh(isa, logits, max, 1.0 / settings.temperature, weights);
            let left = allowed.map_or(vocab, |bits| bits.count(vocab));
            settings.draw(&mut Ranking::new(logits, weights, as_u32(order)), left, total)
        };

        // SAFETY: every task has a row of its own.
        let (tokens, logprobs, top_tokens, top_logprobs) = unsafe {
            let top = row * count..(row + 1) * count;
            (
                tokens.part(row..row + 1),
                logprobs.part(row..row + 1),
                top_tokens.part(top.clone()),
                top_logprobs.part(top),
            )
        };
        tokens[0] = token as u32;
        logprobs[0] = logprob(token);
        if count > 0 {
            let mut ranking = Ranking::new(own, weights, as_u32(order));
            for (rank, (token, value)) in top_tokens.iter_mut().zip(top_logprobs).enumerate() {
                *token = ranking.token(rank) as u32;
                *value = logprob(*token as usize);
            }
        }
    });
}

/// A bit for every token.
#[derive(Clone, Copy)]
struct Bits<'a>(&'a [u32]);

impl<'a> Bits<'a> {
    fn of_row(all: &'a [u32], row: usize, vocab: usize) -> Option<Self> {
        let words = vocab.div_ceil(32);
        (!all.is_empty()).then(|| Bits(&all[row * words..][..words]))
    }

    fn has(self, token: usize) -> bool {
        self.0[token / 32] >> (token % 32) & 1 == 1
    }

    fn count(self, vocab: usize) -> usize {
        (0..vocab).filter(|&token| self.has(token)).count()
    }
}

/// Logits as they are drawn from: capped, repeated tokens made less likely, and forbidden ones impossible.
fn change(
    stored: &[f32],
    softcap: Option<f32>,
    allowed: Option<Bits<'_>>,
    seen: Option<Bits<'_>>,
    penalty: f32,
    out: &mut [f32],
) {
    let cap = softcap.unwrap_or(1.0);
    out.iter_mut().zip(stored).for_each(|(out, stored)| *out = cap * stored);
    for (token, logit) in out.iter_mut().enumerate() {
        if allowed.is_some_and(|bits| !bits.has(token)) {
            *logit = f32::NEG_INFINITY;
        } else if penalty != 1.0 && seen.is_some_and(|bits| bits.has(token)) {
            *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
        }
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
    min_p: f64,
    repetition: f32,
    draw: f64,
}

impl Settings {
    fn of(row: &[f32]) -> Self {
        let &[temperature, top_k, top_p, min_p, repetition, draw] = row else {
            unreachable!("a row has {SETTINGS} settings")
        };
        let (top_p, min_p, draw) = (top_p.into(), min_p.into(), draw.into());
        Settings { temperature, top_k: top_k as usize, top_p, min_p, repetition, draw }
    }

    /// The token drawn of the first `count`; `total` is the sum of all weights.
    fn draw(&self, ranking: &mut Ranking<'_>, mut count: usize, total: f64) -> usize {
        let mut mass = total;
        if self.top_k > 0 && self.top_k < count {
            count = self.top_k;
            mass = (0..count).map(|rank| ranking.weight(rank)).sum();
        }
        if self.top_p < 1.0 {
            (count, mass) = ranking.reach(count, self.top_p * mass);
        }
        if self.min_p > 0.0 {
            // The most likely token has the weight 1.
            let kept = (1..count).find(|&rank| ranking.weight(rank) < self.min_p);
            count = kept.unwrap_or(count);
            mass = (0..count).map(|rank| ranking.weight(rank)).sum();
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
    fn expected(logits: &[f32], settings: [f32; SETTINGS]) -> usize {
        let [temperature, top_k, top_p, min_p, _, draw] = settings;
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
        if temperature == 0.0 {
            return order[0];
        }
        let max = f64::from(logits[order[0]]);
        if top_k > 0.0 {
            order.truncate(top_k as usize);
        }
        let weight = |&i: &usize| ((f64::from(logits[i]) - max) / f64::from(temperature)).exp();
        let mass = |order: &[usize]| order.iter().map(weight).sum::<f64>();
        let enough = f64::from(top_p) * mass(&order);
        let count = (1..order.len()).find(|&count| mass(&order[..count]) >= enough);
        order.truncate(count.unwrap_or(order.len()));
        order.retain(|token| weight(token) >= f64::from(min_p));
        let draw = f64::from(draw) * mass(&order);
        let rank = (0..order.len()).find(|&rank| mass(&order[..=rank]) > draw);
        order[rank.unwrap_or(order.len() - 1)]
    }

    /// Tokens and log-probabilities.
    fn drawn(isa: Isa, from: Logits<'_>, settings: &[f32]) -> (Vec<u32>, Vec<f32>) {
        let rows = settings.len() / SETTINGS;
        let (mut tokens, mut logprobs) = (vec![0; rows], vec![0.0; rows]);
        let out = Drawn {
            tokens: &mut tokens,
            logprobs: &mut logprobs,
            top_tokens: &mut [],
            top_logprobs: &mut [],
        };
        sample(&Pool::new(2), isa, from, settings, out);
        (tokens, logprobs)
    }

    fn plain(vocab: usize, logits: &[f32]) -> Logits<'_> {
        Logits { vocab, logits, softcap: None, allowed: &[], seen: &[] }
    }

    #[test]
    fn draws_follow_the_rule() {
        let vocab = 777;
        let mut rows = Vec::new();
        for temperature in [0.0, 0.7, 1.0, 5.0] {
            for top_k in [0.0, 1.0, 50.0, 2000.0] {
                for (top_p, min_p) in [(0.0, 0.0), (0.3, 0.0), (0.95, 0.2), (1.0, 0.0), (1.0, 0.3)]
                {
                    let row = |draw| [temperature, top_k, top_p, min_p, 1.0, draw];
                    rows.extend([0.0, 0.31, 0.77, 0.9999].map(row));
                }
            }
        }
        let mut logits = normal(1, rows.len() * vocab);
        // Equals, some of them the most likely.
        logits.iter_mut().for_each(|logit| *logit = (*logit * 8.0).round() / 4.0);
        for isa in Isa::available() {
            let (tokens, logprobs) = drawn(isa, plain(vocab, &logits), rows.as_flattened());
            for (row, &settings) in rows.iter().enumerate() {
                let logits = &logits[row * vocab..][..vocab];
                let token = tokens[row] as usize;
                assert_eq!(token, expected(logits, settings), "row {row}, {settings:?}");
                let temperature = f64::from(if settings[0] == 0.0 { 1.0 } else { settings[0] });
                let z = |token: usize| f64::from(logits[token]) / temperature;
                let lse = (0..vocab).map(|token| z(token).exp()).sum::<f64>().ln();
                assert!((f64::from(logprobs[row]) - (z(token) - lse)).abs() < 1e-5);
            }
        }
    }

    /// Forbidden tokens are never drawn, though they leave the log-probabilities as they are.
    #[test]
    fn a_mask_and_a_penalty_change_draws_only() {
        let (vocab, rows) = (100, 40);
        let one = normal(2, vocab);
        let logits = one.repeat(rows);
        let best = expected(&one, [0.0; SETTINGS]);
        let settings: Vec<[f32; SETTINGS]> = (0..rows)
            .map(|row| {
                let temperature = if row % 2 == 0 { 0.0 } else { 3.0 };
                [temperature, 0.0, 1.0, 0.0, 1e9, row as f32 / rows as f32]
            })
            .collect();
        let bits = |token: usize| {
            let mut words = vec![0; vocab.div_ceil(32)];
            words[token / 32] = 1 << (token % 32);
            words
        };
        for isa in Isa::available() {
            let (_, free) = drawn(isa, plain(vocab, &logits), settings.as_flattened());
            let (allowed, seen) = (bits(97).repeat(rows), bits(best).repeat(rows));
            let masked = Logits { allowed: &allowed, ..plain(vocab, &logits) };
            let (tokens, logprobs) = drawn(isa, masked, settings.as_flattened());
            assert!(tokens.iter().all(|&token| token == 97));
            let apart = f64::from(logprobs[0]) - f64::from(free[0]);
            assert!((apart - f64::from(one[97] - one[best])).abs() < 1e-5);
            let penalised = Logits { seen: &seen, ..plain(vocab, &logits) };
            let (tokens, _) = drawn(isa, penalised, settings.as_flattened());
            assert!(tokens.iter().step_by(2).all(|&token| token as usize != best));
        }
    }

    #[test]
    fn nan_shows_in_the_logprob() {
        let mut logits = normal(1, 100);
        logits[70] = f32::NAN;
        for temperature in [0.0, 1.0] {
            let settings = [temperature, 0.0, 1.0, 0.0, 1.0, 0.5];
            for softcap in [None, Some(2.0)] {
                let from = Logits { softcap, ..plain(100, &logits) };
                let (tokens, logprobs) = drawn(Isa::detect(), from, &settings);
                assert!(logprobs[0].is_nan() && tokens[0] < 100);
            }
        }
    }
}
