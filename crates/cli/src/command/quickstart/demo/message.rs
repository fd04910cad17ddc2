//! A ticket told in words.

use super::draw::Draw;
use super::noise;
use super::phrases::{self, Pool, Split};
use super::ticket::{PRODUCTS, Product, Ticket};

const NAMES: [&str; 16] = [
    "Anna",
    "Ben Carter",
    "Chloe",
    "David",
    "Elena Rossi",
    "Farid",
    "Grace",
    "Henrik",
    "Ines",
    "Jonas Weber",
    "Kim",
    "Laura",
    "Mateo Diaz",
    "Nora",
    "Oliver",
    "Priya",
];
const PEOPLE: [&str; 6] = ["sister", "father", "wife", "son", "colleague", "aunt"];
const COLOURS: [&str; 6] = ["black", "white", "red", "blue", "green", "grey"];
/// What a product is called by somebody who does not say what it is.
const THINGS: [&str; 4] = ["my order", "the item I ordered", "my last order", "my purchase"];

/// A message, and the patterns it was made of.
pub(super) struct Spoken {
    pub(super) text: String,
    pub(super) patterns: Vec<&'static str>,
}

/// Tells a ticket in the patterns of a split.
pub(super) fn speak(ticket: &Ticket, split: Split, draw: &mut Draw) -> Spoken {
    let terse = draw.chance(25);
    let mut speaker = Speaker { ticket, split, terse, draw, patterns: Vec::new() };
    let sentences = speaker.sentences();
    let greeting = speaker.perhaps(80, &phrases::GREETINGS);
    let closing = speaker.closing();
    let text = speaker.typed(greeting, &sentences, closing);
    Spoken { text, patterns: speaker.patterns }
}

struct Speaker<'a> {
    ticket: &'a Ticket,
    split: Split,
    /// Says little more than what the ticket asks for.
    terse: bool,
    draw: &'a mut Draw,
    patterns: Vec<&'static str>,
}

impl Speaker<'_> {
    /// Everything between greeting and closing, in the order it is said.
    fn sentences(&mut self) -> Vec<String> {
        let lead = self.lead();
        let mut rest = self.facts();
        rest.extend(self.wishes());
        rest.extend(self.perhaps(35, &phrases::FILLERS));
        self.draw.shuffle(&mut rest);
        // Most people say first what is wrong.
        let at = if self.draw.chance(80) { 0 } else { self.draw.below(rest.len() + 1) };
        rest.splice(at..at, lead);
        rest
    }

    /// The problem, which decides the category and mostly names the product.
    fn lead(&mut self) -> Vec<String> {
        let problems = match self.ticket.category {
            "delivery" => &phrases::DELIVERY,
            "damaged" => &phrases::DAMAGED,
            "wrong_item" => &phrases::WRONG_ITEM,
            "billing" => &phrases::BILLING,
            "account" => &phrases::ACCOUNT,
            _ => &phrases::QUESTION,
        };
        let mut lead: Vec<String> = self.perhaps(20, &phrases::INTROS).into_iter().collect();
        lead.push(self.say(problems));
        let named = self.patterns.last().is_some_and(|pattern| pattern.contains("{it}"));
        if self.ticket.product.is_some() && !named {
            lead.push(self.say(&phrases::ABOUT));
        }
        lead
    }

    /// Order number and day of purchase, and numbers and days that are neither.
    fn facts(&mut self) -> Vec<String> {
        let mut facts = Vec::new();
        match (&self.ticket.order, self.ticket.date) {
            (Some(_), Some(_)) if self.draw.chance(35) => {
                facts.push(self.say(&phrases::ORDERS_AND_DATES));
            }
            (order, date) => {
                facts.extend(order.is_some().then(|| self.say(&phrases::ORDERS)));
                facts.extend(date.is_some().then(|| self.say(&phrases::DATES)));
            }
        }
        if self.ticket.order.is_none() {
            facts.extend(self.perhaps(20, &phrases::NO_ORDER));
        }
        facts.extend(self.perhaps(25, &phrases::NUMBERS));
        let other_days = match self.ticket.category {
            "delivery" => &phrases::PROMISED,
            "billing" => &phrases::INVOICED,
            "account" => &phrases::LOGINS,
            "question" => &phrases::PLANNED,
            _ => &phrases::ARRIVED,
        };
        facts.extend(self.perhaps(22, other_days));
        facts
    }

    /// Priority, sentiment, refund and reply, as far as they are said.
    fn wishes(&mut self) -> Vec<String> {
        let mut wishes = Vec::new();
        let said = [
            match self.ticket.priority {
                "urgent" => Some(&phrases::URGENT),
                "high" => Some(&phrases::HIGH),
                "low" => Some(&phrases::LOW),
                _ => None,
            },
            match self.ticket.sentiment {
                "negative" => Some(&phrases::NEGATIVE),
                "positive" => Some(&phrases::POSITIVE),
                _ => None,
            },
            match self.ticket.reply {
                "email" => Some(&phrases::EMAILS),
                "phone" => Some(&phrases::CALLS),
                _ => None,
            },
            self.ticket.refund.then_some(&phrases::REFUND),
        ];
        for pool in said.into_iter().flatten() {
            wishes.push(self.say(pool));
        }
        if !self.ticket.refund {
            wishes.extend(self.perhaps(45, &phrases::NO_REFUND));
        }
        wishes
    }

    fn closing(&mut self) -> Option<String> {
        match self.perhaps(12, &phrases::SIGNATURES) {
            None => self.perhaps(72, &phrases::CLOSINGS),
            signature => signature,
        }
    }

    /// What a message can do without.
    fn perhaps(&mut self, percent: usize, pool: &Pool) -> Option<String> {
        let percent = if self.terse { percent / 4 } else { percent };
        self.draw.chance(percent).then(|| self.say(pool))
    }

    /// One pattern of a pool, its slots filled.
    fn say(&mut self, pool: &Pool) -> String {
        let pattern = *self.draw.pick(pool.of(self.split));
        self.patterns.push(pattern);
        let colour = self.draw.below(COLOURS.len());
        let mut sentence = String::new();
        let mut rest = pattern;
        while let Some((before, after)) = rest.split_once('{') {
            let (slot, after) = after.split_once('}').expect("a slot is closed");
            sentence.push_str(before);
            sentence.push_str(&noise::protect(&self.fill(slot, colour)));
            rest = after;
        }
        sentence + rest
    }

    fn fill(&mut self, slot: &str, colour: usize) -> String {
        let draw = &mut *self.draw;
        match slot {
            "it" => match self.ticket.product {
                Some(product) => mention(product, draw),
                None => (*draw.pick(&THINGS)).to_owned(),
            },
            "other" => other(self.ticket.product, draw).kinds[0].to_owned(),
            "order" => self.ticket.order.clone().expect("only said where there is one"),
            "date" => self.ticket.date.expect("only said where there is one").spoken(draw),
            "when" => {
                let days = 2 + draw.below(20);
                let from = self.ticket.date.unwrap_or_else(|| super::calendar::Day::draw(draw));
                from.plus(days).spoken(draw)
            }
            "colour" => COLOURS[colour].to_owned(),
            "shade" => COLOURS[(colour + 1) % COLOURS.len()].to_owned(),
            "amount" => (10 + draw.below(90)).to_string(),
            "person" => (*draw.pick(&PEOPLE)).to_owned(),
            "year" => (2012 + draw.below(10)).to_string(),
            "name" => (*draw.pick(&NAMES)).to_owned(),
            "phone" => format!("555-{:04}", draw.below(10_000)),
            "email" => {
                let name = NAMES[draw.below(NAMES.len())].to_lowercase().replace(' ', ".");
                format!("{name}@example.com")
            }
            "tracking" => format!("TRK {:04} {:04}", draw.below(10_000), draw.below(10_000)),
            "invoice" => format!("R{:05}", draw.below(100_000)),
            "customer" => format!("{:06}", draw.below(1_000_000)),
            "serial" => format!("SN{:04}-{:03}", draw.below(10_000), draw.below(1000)),
            _ => unreachable!("{slot}: no such slot"),
        }
    }

    /// Puts the sentences on the page as somebody would type them.
    fn typed(
        &mut self,
        greeting: Option<String>,
        said: &[String],
        closing: Option<String>,
    ) -> String {
        let style = self.draw.weighted(&[
            (Style::Plain, 60),
            (Style::Lines, 12),
            (Style::RunOn, 14),
            (Style::Small, 14),
        ]);
        let body = match style {
            Style::Plain => said.iter().map(|s| noise::capitalize(s)).collect::<Vec<_>>().join(" "),
            Style::Lines => {
                said.iter().map(|s| noise::capitalize(s)).collect::<Vec<_>>().join("\n")
            }
            Style::RunOn => run_on(said),
            Style::Small => said.join(" "),
        };
        let line = if self.draw.chance(40) { "\n" } else { " " };
        let parts: Vec<String> = greeting.into_iter().chain([body]).chain(closing).collect();
        let mut text = parts.join(line);
        if style == Style::Small {
            text = noise::lowercase(&text);
        }
        for chance in [35, 12] {
            if self.draw.chance(chance) {
                text = noise::mistype(&text, self.draw);
            }
        }
        noise::unprotect(&text)
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Style {
    /// Sentences in a row.
    Plain,
    /// A line for every sentence.
    Lines,
    /// Commas for full stops.
    RunOn,
    /// No capitals.
    Small,
}

fn run_on(said: &[String]) -> String {
    let mut text = String::new();
    for sentence in said {
        match text.pop() {
            None => text.push_str(&noise::capitalize(sentence)),
            Some('.') => text.push_str(&format!(", {}", noise::decapitalize(sentence))),
            Some(end) => {
                text.push(end);
                text.push(' ');
                text.push_str(&noise::capitalize(sentence));
            }
        }
    }
    text
}

/// A product as its owner calls it. Every form tells which one it is.
fn mention(product: &Product, draw: &mut Draw) -> String {
    let Product { brand, kinds, .. } = product;
    let whose = if draw.chance(55) { "the" } else { "my" };
    match draw.below(20) {
        0..=7 => format!("{whose} {brand} {}", kinds[0]),
        8..=14 => format!("{whose} {}", draw.pick(kinds)),
        15..=16 => format!("{whose} {brand}"),
        _ => format!("{whose} {} ({brand})", kinds[0]),
    }
}

/// A product that the message is not about.
fn other(product: Option<&Product>, draw: &mut Draw) -> &'static Product {
    let index = product.and_then(|product| PRODUCTS.iter().position(|known| known == product));
    let step = draw.below(PRODUCTS.len() - 1) + 1;
    &PRODUCTS[(index.unwrap_or(0) + step) % PRODUCTS.len()]
}
