//! What the command will cost, said before it begins.

use serde_json::{Value, json};

use super::config::{Asked, Candidates, ChooseBy, Judge, PairsConfig};
use super::judge::{TRIES, question};
use super::pair::Pair;
use crate::asking::Answerer;
use crate::asking::prompts::{Ask, Prompt};
use crate::terminal::style::{count, duration};

/// Characters that are taken for a token, where no tokenizer is known.
const CHARS_PER_TOKEN: usize = 4;
/// Characters of a judge's question beside rubric, prompt and answers.
const FRAME: usize = 250;

/// Requests to an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Tokens {
    requests: usize,
    /// About.
    tokens_in: usize,
    /// At most.
    tokens_out: usize,
    /// Of a million tokens.
    price: Option<f64>,
}

/// What is still to be done.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Cost {
    /// Answers to be sampled on this machine.
    local: usize,
    /// Answers to be scored by a reward model on this machine.
    scored: usize,
    /// Answers of an endpoint.
    answers: Option<Tokens>,
    judge: Option<Tokens>,
    /// Pairs for a person, and seconds for each.
    person: Option<(usize, f64)>,
    rate_per_hour: Option<f64>,
}

impl Tokens {
    fn money(&self) -> Option<f64> {
        self.price.map(|price| (self.tokens_in + self.tokens_out) as f64 * price / 1e6)
    }

    fn line(&self, whom: &str) -> String {
        let [requests, tokens_in, tokens_out] =
            [self.requests, self.tokens_in, self.tokens_out].map(|n| count(n as u64));
        let money = self.money().map_or(String::new(), |money| format!(", about {money:.2}"));
        format!(
            "{requests} requests to {whom}: about {tokens_in} tokens in, at most {tokens_out} out{money}"
        )
    }

    fn to_json(self) -> Value {
        let Tokens { requests, tokens_in, tokens_out, .. } = self;
        let price = self.money();
        json!({"requests": requests, "tokens_in": tokens_in, "tokens_out": tokens_out, "price": price})
    }
}

impl Cost {
    /// Adds the answers that are missing.
    pub(super) fn of_answers(&mut self, asked: &Asked, missing: &[Ask<'_>]) {
        if matches!(asked.by, Answerer::Local(_)) {
            self.local = missing.len();
            return;
        }
        let chars = missing.iter().map(|ask| prompt_chars(ask.prompt)).sum::<usize>();
        self.answers = (!missing.is_empty()).then(|| Tokens {
            requests: missing.len(),
            tokens_in: chars.div_ceil(CHARS_PER_TOKEN),
            tokens_out: missing.len() * asked.asking.max_new_tokens as usize,
            price: asked.price,
        });
    }

    /// Adds answers that a reward model scores.
    pub(super) fn of_reward(&mut self, answers: usize) {
        self.scored = answers;
    }

    /// Adds a person's time for so many pairs.
    pub(super) fn of_person(&mut self, config: &PairsConfig, pairs: usize, so_far: Option<f64>) {
        self.person = (pairs > 0).then(|| (pairs, config.seconds_per_pair(so_far)));
        self.rate_per_hour = config.rate_per_hour;
    }

    /// Adds a judge's verdicts on pairs that are known.
    pub(super) fn of_judge<'p>(&mut self, judge: &Judge, open: impl Iterator<Item = &'p Pair<'p>>) {
        let (mut requests, mut chars) = (0, 0);
        for pair in open {
            requests += 1;
            chars += question(pair, &judge.rubric, false).chars().count();
        }
        self.judged(judge, requests, chars.div_ceil(CHARS_PER_TOKEN));
    }

    /// Adds a judge's verdicts on answers that do not exist yet: by their greatest length.
    pub(super) fn of_judge_before(
        &mut self,
        judge: &Judge,
        asked: &Asked,
        pairs: usize,
        prompts: &[Ask<'_>],
    ) {
        let chars = prompts.iter().map(|ask| prompt_chars(ask.prompt)).sum::<usize>();
        let mean = chars / prompts.len().max(1) + judge.rubric.chars().count() + FRAME;
        let each = mean.div_ceil(CHARS_PER_TOKEN) + 2 * asked.asking.max_new_tokens as usize;
        self.judged(judge, 2 * pairs, 2 * pairs * each);
    }

    fn judged(&mut self, judge: &Judge, requests: usize, tokens_in: usize) {
        self.judge = (requests > 0).then(|| Tokens {
            requests,
            tokens_in,
            // A reply that names no answer is asked for once more.
            tokens_out: TRIES * requests * judge.asking.max_new_tokens as usize,
            price: judge.price,
        });
    }

    /// Whether an endpoint is asked, which may cost money.
    pub(super) fn spends(&self) -> bool {
        self.answers.is_some() || self.judge.is_some()
    }

    fn pay(&self) -> Option<f64> {
        let (pairs, seconds) = self.person?;
        self.rate_per_hour.map(|rate| pairs as f64 * seconds / 3600.0 * rate)
    }

    /// As lines.
    pub(super) fn lines(&self, config: &PairsConfig) -> Vec<String> {
        let mut lines = Vec::new();
        if self.local > 0 {
            let answers = count(self.local as u64);
            lines.push(format!("cost: {answers} answers to be sampled on this machine"));
        }
        if self.scored > 0 {
            let answers = count(self.scored as u64);
            lines.push(format!("cost: {answers} answers to be scored on this machine"));
        }
        if let (Some(tokens), Candidates::Asked(asked)) = (&self.answers, &config.candidates)
            && let Answerer::Endpoint { address, .. } = &asked.by
        {
            lines.push(format!("cost: {}", tokens.line(address)));
        }
        if let (Some(tokens), ChooseBy::Judge(judge)) = (&self.judge, &config.choose_by) {
            lines.push(format!("cost: {} (the judge)", tokens.line(&judge.address)));
        }
        if let Some((pairs, seconds)) = self.person {
            let rate = config.rate_per_hour.unwrap_or_default();
            let pay =
                self.pay().map_or(String::new(), |pay| format!(", {pay:.2} at {rate} an hour"));
            let (all, pairs) = (duration(pairs as f64 * seconds), count(pairs as u64));
            lines.push(format!("cost: {pairs} pairs x {seconds:.0} s of a person = {all}{pay}"));
        }
        lines
    }

    pub(super) fn to_json(self) -> Value {
        json!({
            "local_answers": self.local, "scored": self.scored, "answers": self.answers.map(Tokens::to_json),
            "judge": self.judge.map(Tokens::to_json),
            "pairs": self.person.map(|(pairs, _)| pairs),
            "person_seconds": self.person.map(|(pairs, seconds)| pairs as f64 * seconds),
            "pay": self.pay(),
        })
    }
}

fn prompt_chars(prompt: &Prompt) -> usize {
    let system = prompt.system.as_ref().map_or(0, |text| text.chars().count());
    system + prompt.messages.iter().map(|turn| turn.content.chars().count()).sum::<usize>()
}
