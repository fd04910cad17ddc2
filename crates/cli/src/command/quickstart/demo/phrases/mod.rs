//! Sentence patterns, hand-written, in pools by what they say.
//!
//! Every pool is cut in two: patterns for training and patterns for testing,
//! which share the words that decide a field but are other sentences.
//!
//! Slots: `{it}` the product, `{other}` another product, `{order}`, `{date}` the
//! day of purchase, `{when}` some other day, `{colour}` and `{shade}`,
//! `{amount}`, `{person}`, `{year}`, `{name}`, `{phone}`, `{email}`,
//! `{tracking}`, `{invoice}`, `{customer}`, `{serial}`.

mod around;
mod facts;
mod problems;
mod wishes;

pub(super) use around::{CLOSINGS, FILLERS, GREETINGS, INTROS, SIGNATURES};
pub(super) use facts::{
    ABOUT, ARRIVED, DATES, INVOICED, LOGINS, NO_ORDER, NUMBERS, ORDERS, ORDERS_AND_DATES, PLANNED,
    PROMISED,
};
pub(super) use problems::{ACCOUNT, BILLING, DAMAGED, DELIVERY, QUESTION, WRONG_ITEM};
pub(super) use wishes::{CALLS, EMAILS, HIGH, LOW, NEGATIVE, NO_REFUND, POSITIVE, REFUND, URGENT};

/// Which half of every pool a row is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Split {
    Train,
    Test,
}

/// Patterns that say the same.
#[derive(Debug)]
pub(super) struct Pool {
    train: &'static [&'static str],
    test: &'static [&'static str],
}

impl Pool {
    pub(super) const fn of(&self, split: Split) -> &'static [&'static str] {
        match split {
            Split::Train => self.train,
            Split::Test => self.test,
        }
    }
}

const fn pool(train: &'static [&'static str], test: &'static [&'static str]) -> Pool {
    Pool { train, test }
}

/// All pools, for tests over every pattern.
#[cfg(test)]
pub(super) const ALL: [&Pool; 31] = [
    &GREETINGS,
    &INTROS,
    &CLOSINGS,
    &SIGNATURES,
    &FILLERS,
    &ABOUT,
    &ORDERS,
    &DATES,
    &ORDERS_AND_DATES,
    &NO_ORDER,
    &NUMBERS,
    &ARRIVED,
    &PROMISED,
    &INVOICED,
    &LOGINS,
    &PLANNED,
    &DELIVERY,
    &DAMAGED,
    &WRONG_ITEM,
    &BILLING,
    &ACCOUNT,
    &QUESTION,
    &URGENT,
    &HIGH,
    &LOW,
    &NEGATIVE,
    &POSITIVE,
    &REFUND,
    &NO_REFUND,
    &EMAILS,
    &CALLS,
];
