//! Candidates compared by their texts.

use std::rc::Rc;

use super::shingles::{jaccard, shingles};
use super::{AuditText, NEAR, Texts, templated};
use crate::Result;

/// Rows that a thread keeps at hand.
const KEPT: usize = 2048;
/// Shingles of a row beyond which it is read anew each time, to bound memory.
const KEPT_SHINGLES: usize = 4096;

/// Two similar rows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Pair {
    /// The row that comes first.
    pub(super) first: u32,
    /// The other.
    pub(super) second: u32,
    /// Jaccard similarity of their shingles.
    pub(super) similarity: f32,
    /// Whether they differ in numbers and names alone.
    pub(super) templated: bool,
}

struct Entry {
    text: AuditText,
    shingles: Vec<u64>,
}

/// Reads rows when they are asked for and keeps some of them.
pub(super) struct Verifier<'a> {
    texts: &'a dyn Texts,
    kept: Vec<Option<(u32, Rc<Entry>)>>,
}

impl<'a> Verifier<'a> {
    /// A verifier of one thread.
    pub(super) fn new(texts: &'a dyn Texts) -> Self {
        Verifier { texts, kept: vec![None; KEPT] }
    }

    /// The pair, if it is similar enough.
    pub(super) fn compare(&mut self, first: u32, second: u32) -> Result<Option<Pair>> {
        let (left, right) = (self.entry(first)?, self.entry(second)?);
        let similarity = jaccard(&left.shingles, &right.shingles);
        Ok((similarity >= NEAR).then(|| {
            let templated = templated::is_pair(&left.text, &right.text);
            Pair { first, second, similarity, templated }
        }))
    }

    fn entry(&mut self, row: u32) -> Result<Rc<Entry>> {
        let place = row as usize % KEPT;
        if let Some((kept, entry)) = &self.kept[place]
            && *kept == row
        {
            return Ok(Rc::clone(entry));
        }
        let text = self.texts.text(row as usize)?;
        let entry = Rc::new(Entry { shingles: shingles(&text), text });
        if entry.shingles.len() <= KEPT_SHINGLES {
            self.kept[place] = Some((row, Rc::clone(&entry)));
        }
        Ok(entry)
    }
}
