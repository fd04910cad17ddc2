//! Log-probabilities of given tokens, a shared prefix computed once.

use std::collections::BTreeMap;

use compute::Backend;

use super::batcher::{Scored, input};
use super::{Batcher, Model, Request, RowId};
use crate::Result;

/// Texts whose log-probabilities are wanted: the answers of a multiple choice behind their question, or a prompt
/// behind its first token.
#[derive(Clone, Debug)]
pub struct Scoring<'a> {
    /// Which of [`Model::parts`] is asked.
    pub part: usize,
    /// What all tails stand behind, at least one token.
    pub prefix: &'a [u32],
    /// What is scored.
    pub tails: &'a [Vec<u32>],
    /// The logits are divided by it.
    pub temperature: f32,
}

impl Batcher {
    /// The log-probability of every token of every tail, each given the prefix and what comes before it in
    /// the tail: what training computes for the row of prefix and tail, bit for bit.
    ///
    /// Other rows wait meanwhile. The prefix stays cached. After an error there are no rows.
    pub fn score(
        &mut self,
        model: Model<'_>,
        backend: &mut dyn Backend,
        asked: &Scoring<'_>,
    ) -> Result<Vec<Vec<f32>>> {
        assert!(self.room().scores, "the room was made for scoring");
        if asked.prefix.is_empty() {
            return Err(input("the prefix has no tokens".into()));
        }
        self.check_sequence(asked.prefix, asked.prefix.len())?;
        for tail in asked.tails {
            self.check_sequence(tail, asked.prefix.len() + tail.len())?;
        }
        let mut found = vec![Vec::new(); asked.tails.len()];
        let mut waiting = (0..asked.tails.len()).filter(|&tail| !asked.tails[tail].is_empty());
        let mut next = waiting.next();
        let mut running: BTreeMap<RowId, usize> = BTreeMap::new();
        while next.is_some() || !running.is_empty() {
            while let Some(tail) = next.filter(|_| running.len() < self.room().rows) {
                let tokens = [asked.prefix, &asked.tails[tail]].concat();
                let request = Request { tokens, part: asked.part, ..Request::default() };
                let (from, temperature) = (asked.prefix.len() - 1, asked.temperature);
                let scored = Scored { from, temperature, logprobs: Vec::new() };
                let Ok(id) = self.insert(request, 0, Some(scored)) else { break };
                running.insert(id, tail);
                next = waiting.next();
            }
            if running.is_empty() {
                return Err(input("other rows leave no room for scoring".into()));
            }
            let ids: Vec<RowId> = running.keys().copied().collect();
            if let Err(error) = self.advance(model, backend, &ids) {
                self.clear();
                return Err(error);
            }
            for id in ids.into_iter().filter(|&id| self.row(id).is_over()).collect::<Vec<_>>() {
                let scored = self.row(id).scored.as_ref().expect("a row that is scored");
                let tail = running.remove(&id).expect("it ran");
                found[tail].clone_from(&scored.logprobs);
                self.remove(id);
            }
        }
        Ok(found)
    }
}
