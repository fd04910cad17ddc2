//! Rows that are continued together, added and removed between steps.

use std::collections::{BTreeMap, BTreeSet};

use compute::measure::Measure;
use compute::{Backend, Mark};

use super::blocks::{BLOCK, Blocks, Path, Place};
use super::pass::{Cache, Draws, Runner, Work};
use super::{Drawn, Finish, MOST_TOP_LOGPROBS, Refusal, Request, Room, RowId};
use crate::{Adapter, Config, Decoder, Error, Result};

/// A decoder, and what may lie over it.
#[derive(Clone, Copy)]
pub struct Model<'a> {
    /// The base.
    pub decoder: &'a Decoder,
    /// Its parts, which requests name by index: an adapter, or none for the base itself.
    pub parts: &'a [Option<&'a Adapter>],
}

impl<'a> Model<'a> {
    /// Puts the rows of tokens that a part has into the shared base, and takes out those of the others. The only
    /// part of a model is left as it was loaded.
    fn activate(self, part: usize, backend: &mut dyn Backend) -> Result<Option<&'a Adapter>> {
        let adapter = *self.parts.get(part).expect("a request names a part of the model");
        if self.parts.len() > 1 {
            for other in self.parts.iter().flatten() {
                other.deactivate(backend, self.decoder)?;
            }
            if let Some(adapter) = adapter {
                adapter.activate(backend, self.decoder)?;
            }
        }
        Ok(adapter)
    }
}

/// Continues many rows at the same time, each by its own rules.
///
/// Between two steps rows may be added, extended and removed. A row's tokens and log-probabilities do
/// not depend, bit for bit, on the others, on when it was added, or on what was cached. The cache of keys
/// lies on the backend's stack, and steps run above it: what was taken from the stack after
/// [`new`](Batcher::new) must be given back before the next step. [`close`](Batcher::close) gives the cache back. The
/// values of base and parts must stay as they are, or [`clear`](Batcher::clear) be called.
pub struct Batcher {
    config: Config,
    room: Room,
    start: Mark,
    cache: Cache,
    blocks: Blocks,
    rows: BTreeMap<RowId, Row>,
    next: u64,
}

/// A sequence and how far it is.
pub(super) struct Row {
    pub(super) request: Request,
    /// Tokens of the request itself.
    prompt: usize,
    pub(super) path: Path,
    /// Tokens drawn so far.
    drawn: u64,
    /// Tokens that may be drawn yet.
    left: usize,
    is_over: bool,
    /// What the mask allows next; empty where there is none.
    allowed: Vec<u32>,
    /// Tokens that the penalty applies to; empty where there is none.
    seen: Vec<u32>,
    /// Of a row that is scored and not continued.
    pub(super) scored: Option<Scored>,
}

pub(super) struct Scored {
    /// The position of the first token that is read.
    pub(super) from: usize,
    pub(super) temperature: f32,
    pub(super) logprobs: Vec<f32>,
}

/// A row's share in a step.
struct Share {
    row: RowId,
    start: usize,
    count: usize,
    slots: Vec<u32>,
    /// How many of its last tokens are read.
    reads: usize,
}

impl Batcher {
    /// Takes the cache from the stack, which is made larger first if it is empty and too small.
    pub fn new(model: Model<'_>, backend: &mut dyn Backend, room: Room) -> Result<Self> {
        let start = backend.mark();
        let needed = start.0 + Self::stack_bytes(model, backend, &room)?;
        let reserved = backend.reserved();
        if reserved < needed && start == Mark(0) {
            backend.reserve(needed)?;
        } else if reserved < needed {
            let device = backend.device().kind;
            return Err(compute::Error::OutOfMemory { device, needed, reserved }.into());
        }
        let slots = room.blocks * BLOCK;
        let cache = Cache::new(model.decoder, backend, slots).inspect_err(|_| {
            backend.release(start);
        })?;
        let config = model.decoder.config.clone();
        let blocks = Blocks::new(room.blocks);
        Ok(Batcher { config, room, start, cache, blocks, rows: BTreeMap::new(), next: 0 })
    }

    /// Bytes of the stack that a batcher takes, cache and steps together.
    pub fn stack_bytes(model: Model<'_>, backend: &dyn Backend, room: &Room) -> Result<usize> {
        let mut measure = Measure::new(backend.operand());
        run_largest(model, &mut measure, room)?;
        Ok(measure.report().stack_peak_bytes)
    }

    /// Takes a cache and runs the largest passes, on a device that only counts.
    pub fn rehearse(model: Model<'_>, measure: &mut Measure, room: &Room) -> Result<()> {
        run_largest(model, measure, room).map(|_| ())
    }

    /// Adds a row. It is continued from the next step on.
    pub fn add(&mut self, request: Request) -> std::result::Result<RowId, Refusal<Box<Request>>> {
        self.check(&request)?;
        if self.rows.len() >= self.room.rows {
            return Err(Refusal::Full(Box::new(request)));
        }
        let left = request.max_new_tokens;
        let id = self.insert(request, left, None).map_err(Refusal::Full)?;
        let row = self.rows.get_mut(&id).expect("it was inserted");
        row.see(self.config.vocab_size);
        if !row.allow(self.config.vocab_size) {
            self.remove(id);
            return Err(input("the mask allows no first token".into()).into());
        }
        Ok(id)
    }

    /// Appends tokens to a row, a tool's results say, and lets it go on: at most `max_new_tokens` more are drawn.
    ///
    /// # Panics
    /// Where there is no such row.
    pub fn extend(
        &mut self,
        id: RowId,
        tokens: &[u32],
        max_new_tokens: usize,
    ) -> std::result::Result<(), Refusal<()>> {
        let row = &self.rows[&id];
        let length = row.request.tokens.len() + tokens.len() + max_new_tokens;
        self.check_tokens(tokens, length, max_new_tokens)?;

        let row = self.rows.get_mut(&id).expect("a row");
        let before = (row.left, row.is_over, row.request.tokens.len());
        row.request.tokens.extend(tokens);
        (row.left, row.is_over) = (max_new_tokens, false);
        let has_room = self.spare() >= 0;
        let row = self.rows.get_mut(&id).expect("a row");
        if !has_room {
            row.request.tokens.truncate(before.2);
            (row.left, row.is_over) = (before.0, before.1);
            return Err(Refusal::Full(()));
        }
        row.see(self.config.vocab_size);
        if !row.allow(self.config.vocab_size) {
            row.is_over = true;
            return Err(input("the mask allows no token behind those appended".into()).into());
        }
        Ok(())
    }

    /// Removes a row, ended or not; nothing more is computed for it. What was computed stays cached until
    /// its memory is needed.
    ///
    /// # Panics
    /// Where there is no such row.
    pub fn remove(&mut self, id: RowId) {
        let mut row = self.rows.remove(&id).expect("a row that was added and not removed");
        self.blocks.release(&mut row.path);
    }

    /// Removes all rows, and forgets what is cached.
    pub fn clear(&mut self) {
        self.rows.clear();
        self.blocks.clear();
    }

    /// Number of rows, ended ones included that have not been removed.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The tokens of a row so far.
    ///
    /// # Panics
    /// Where there is no such row.
    pub fn tokens(&self, id: RowId) -> &[u32] {
        &self.rows[&id].request.tokens
    }

    /// Draws a token for every row whose tokens have all been taken in, and takes in some of the others'.
    /// The answers stand in the order of the rows' adding; there may be none.
    ///
    /// A row that ends stays until it is removed or extended. After an error there are no rows, and
    /// nothing is cached.
    pub fn step(&mut self, model: Model<'_>, backend: &mut dyn Backend) -> Result<Vec<Drawn>> {
        let ids: Vec<RowId> = self.rows.keys().copied().collect();
        let drawn = self.advance(model, backend, &ids);
        if drawn.is_err() {
            self.clear();
        }
        drawn
    }

    /// Gives the cache back to the stack.
    pub fn close(self, backend: &mut dyn Backend) {
        backend.release(self.start);
    }

    pub(super) fn room(&self) -> &Room {
        &self.room
    }

    /// Runs a step of some rows, one pass for each part.
    pub(super) fn advance(
        &mut self,
        model: Model<'_>,
        backend: &mut dyn Backend,
        ids: &[RowId],
    ) -> Result<Vec<Drawn>> {
        let mut shares = self.plan(ids);
        // Rows that begin alike become neighbours: attention then reads what they share once.
        shares.sort_by(|a, b| {
            let key = |share: &Share| (share.count > 1, self.rows[&share.row].path.blocks());
            key(a).cmp(&key(b)).then(a.row.cmp(&b.row))
        });
        let parts: BTreeSet<usize> =
            shares.iter().map(|share| self.rows[&share.row].request.part).collect();
        let mut drawn = Vec::new();
        for part in parts {
            let own = |share: &&Share| self.rows[&share.row].request.part == part;
            let shares: Vec<&Share> = shares.iter().filter(own).collect();
            let adapter = model.activate(part, backend)?;
            self.run(model.decoder, adapter, backend, &shares, &mut drawn)?;
        }
        drawn.sort_by_key(|drawn| drawn.row);
        Ok(drawn)
    }

    /// Which tokens each row takes in, with slots for their keys.
    fn plan(&mut self, ids: &[RowId]) -> Vec<Share> {
        let mut budget = self.room.prefill_tokens;
        let mut shares = Vec::new();
        for &id in ids {
            let row = &self.rows[&id];
            if row.is_over {
                continue;
            }
            let root = self.root(row.request.part, row.request.tokens.len());
            if root != row.path.root() {
                // All keys are computed again, rotated by the other frequencies.
                let row = self.rows.get_mut(&id).expect("a row");
                self.blocks.release(&mut row.path);
                row.path = Path::new(root);
            }
            self.share(id);
            let row = self.rows.get_mut(&id).expect("a row");
            let (start, end) = (row.path.len(), row.computed());
            // One token of every row always has room; more of them share the budget.
            let count = if end - start > 1 { budget.min(end - start) } else { end - start };
            if count == 0 {
                continue;
            }
            if end - start > 1 || row.scored.is_some() {
                budget = budget.saturating_sub(count);
            }
            let mut slots = Vec::with_capacity(count);
            let tokens = &row.request.tokens[start..start + count];
            self.blocks.append(&mut row.path, tokens, &mut slots);
            let reads = match &row.scored {
                Some(scored) => (start + count).saturating_sub(scored.from).min(count),
                None => usize::from(start + count == end),
            };
            shares.push(Share { row: id, start, count, slots, reads });
        }
        shares
    }

    /// A pass over rows under one part.
    fn run(
        &mut self,
        decoder: &Decoder,
        adapter: Option<&Adapter>,
        backend: &mut dyn Backend,
        shares: &[&Share],
        drawn: &mut Vec<Drawn>,
    ) -> Result<()> {
        let mut work = Work::default();
        for share in shares {
            let row = &self.rows[&share.row];
            let tokens = &row.request.tokens[share.start..share.start + share.count];
            let place = (share.start, row.request.tokens.len());
            work.push(tokens, place, &share.slots, &row.path.runs(), share.reads);
        }
        let readers: Vec<&Share> = shares.iter().copied().filter(|s| s.reads > 0).collect();
        let mut runner = Runner { decoder, backend, adapter, cache: &self.cache };
        let scored = shares.first().and_then(|share| self.rows[&share.row].scored.as_ref());
        if let Some(temperature) = scored.map(|scored| scored.temperature) {
            let mut targets = Vec::new();
            for share in &readers {
                let end = share.start + share.count + 1;
                let tokens = &self.rows[&share.row].request.tokens;
                targets.extend(&tokens[end - share.reads..end]);
            }
            let mut logprobs = &runner.score(work, &targets, temperature)?[..];
            for share in readers {
                let (own, rest) = logprobs.split_at(share.reads);
                let row = self.rows.get_mut(&share.row).expect("a row");
                row.take_scores(own);
                logprobs = rest;
            }
            return Ok(());
        }

        let draws = draws(readers.iter().map(|share| &self.rows[&share.row]), &self.config);
        let results = runner.draw(work, &draws)?;
        for (index, share) in readers.iter().enumerate() {
            let row = self.rows.get_mut(&share.row).expect("a row");
            let top = index * draws.top..index * draws.top + row.request.top_logprobs;
            let tokens = results.top_tokens[top.clone()].iter().copied();
            let top = tokens.zip(results.top_logprobs[top].iter().copied()).collect();
            let (token, logprob) = (results.tokens[index], results.logprobs[index]);
            let finish = row.push(token, self.config.vocab_size);
            drawn.push(Drawn { row: share.row, token, logprob, top, finish });
        }
        Ok(())
    }

    /// Puts a row among the others, if there are blocks enough for all to come to their ends.
    pub(super) fn insert(
        &mut self,
        request: Request,
        left: usize,
        scored: Option<Scored>,
    ) -> std::result::Result<RowId, Box<Request>> {
        let id = RowId(self.next);
        let row = Row {
            prompt: request.tokens.len(),
            path: Path::new(self.root(request.part, request.tokens.len())),
            drawn: request.drawn,
            request,
            left,
            is_over: false,
            allowed: Vec::new(),
            seen: Vec::new(),
            scored,
        };
        self.rows.insert(id, row);
        self.share(id);
        if self.spare() < 0 {
            let mut row = self.rows.remove(&id).expect("it was inserted");
            self.blocks.release(&mut row.path);
            return Err(Box::new(row.request));
        }
        self.next += 1;
        Ok(id)
    }

    /// Takes a row as far as cached keys go; the last token before a read is always computed.
    fn share(&mut self, id: RowId) {
        loop {
            let row = &self.rows[&id];
            let most = row.scored.as_ref().map_or(row.computed() - 1, |scored| scored.from);
            if row.path.owns() || row.path.len() >= most {
                return;
            }
            let rest = &row.request.tokens[row.path.len()..most];
            let Some((block, len)) = self.blocks.shared(&row.path, rest) else { return };
            let spare = self.spare();
            let row = self.rows.get_mut(&id).expect("a row");
            let before = row.path.clone();
            self.blocks.share(&mut row.path, block, len);
            // A way over many small blocks may take more of them than it spares.
            let runs = row.path.blocks().len() + self.room.blocks_behind(row.path.len());
            let after = self.spare();
            if (after < 0 && after < spare) || runs > self.room.most_runs() {
                let row = self.rows.get_mut(&id).expect("a row");
                self.blocks.unshare(&mut row.path, before);
                return;
            }
        }
    }

    /// Where the sequence of a row begins: LongRoPE rotates its keys by how many tokens it has.
    fn root(&self, part: usize, tokens: usize) -> Place {
        Place::Root { part, is_long: self.config.long_beyond().is_some_and(|limit| tokens > limit) }
    }

    /// Blocks that are left when every row has what it needs to come to its end.
    fn spare(&self) -> isize {
        let needs: usize = self.rows.values().map(|row| self.need(row)).sum();
        self.blocks.available() as isize - needs as isize
    }

    /// Blocks that a row may yet take.
    fn need(&self, row: &Row) -> usize {
        if row.is_over {
            return 0;
        }
        let (now, end) = (row.request.tokens.len(), row.request.tokens.len() + row.left);
        let more =
            |end: usize| end.saturating_sub(row.path.len() + row.path.room()).div_ceil(BLOCK);
        // It begins anew when it passes the limit of LongRoPE, and what only it holds is free then.
        let anew = || end.div_ceil(BLOCK).saturating_sub(self.blocks.exclusive(&row.path));
        match self.config.long_beyond() {
            Some(limit) if row.path.is_long() || end <= limit => more(end),
            Some(limit) if now <= limit => more(limit).max(anew()),
            Some(_) => anew(),
            None => more(end),
        }
    }

    fn check(&self, request: &Request) -> Result<()> {
        let Request { tokens, sampling, max_new_tokens, stop_tokens: _, top_logprobs, .. } =
            request;
        let message = match sampling.mistake() {
            _ if tokens.is_empty() => "the prompt has no tokens".into(),
            Some(mistake) => mistake,
            None if *top_logprobs > MOST_TOP_LOGPROBS.min(self.config.vocab_size) => {
                format!("`top_logprobs` = {top_logprobs}, but at most {MOST_TOP_LOGPROBS} are told")
            }
            None => {
                return self.check_tokens(tokens, tokens.len() + max_new_tokens, *max_new_tokens);
            }
        };
        Err(input(message))
    }

    fn check_tokens(&self, tokens: &[u32], length: usize, max_new_tokens: usize) -> Result<()> {
        if max_new_tokens == 0 {
            return Err(input("`max_new_tokens` = 0 draws nothing".into()));
        }
        self.check_sequence(tokens, length)
    }

    /// Refuses a sequence that model or room cannot take.
    pub(super) fn check_sequence(&self, tokens: &[u32], length: usize) -> Result<()> {
        check_tokens(tokens, self.config.vocab_size)?;
        self.config.check_length(length)?;
        let most = self.room.row_tokens.min(self.room.blocks * BLOCK);
        if length > most {
            return Err(input(format!("a row of {length} tokens, but there is room for {most}")));
        }
        Ok(())
    }

    pub(super) fn row(&self, id: RowId) -> &Row {
        &self.rows[&id]
    }
}

impl Row {
    /// Tokens whose keys are wanted: all that a token is drawn or scored behind.
    fn computed(&self) -> usize {
        self.request.tokens.len() - usize::from(self.scored.is_some())
    }

    /// Adds a drawn token; says whether the row ends with it.
    fn push(&mut self, token: u32, vocab: usize) -> Option<Finish> {
        self.request.tokens.push(token);
        self.drawn += 1;
        self.left -= 1;
        if let Some(word) = self.seen.get_mut(token as usize / 32) {
            *word |= 1 << (token % 32);
        }
        let stops = self.request.stop_tokens.contains(&token);
        let finish = match self.left {
            _ if stops => Some(Finish::Stop),
            0 => Some(Finish::Length),
            _ => (!self.allow(vocab)).then_some(Finish::Stop),
        };
        self.is_over = finish.is_some();
        finish
    }

    /// Asks the mask what may come next; says whether anything may.
    fn allow(&mut self, vocab: usize) -> bool {
        let Some(mask) = &mut self.request.mask else { return true };
        self.allowed.clear();
        self.allowed.resize(vocab.div_ceil(32), 0);
        mask.allow(&self.request.tokens[self.prompt..], &mut self.allowed);
        if let (Some(last), rest @ 1..) = (self.allowed.last_mut(), vocab % 32) {
            *last &= (1 << rest) - 1;
        }
        self.allowed.iter().any(|&word| word != 0)
    }

    /// Notes all tokens for the penalty, if there is one.
    fn see(&mut self, vocab: usize) {
        if self.request.sampling.repetition == 1.0 {
            return;
        }
        self.seen.resize(vocab.div_ceil(32), 0);
        for &token in &self.request.tokens {
            self.seen[token as usize / 32] |= 1 << (token % 32);
        }
    }

    fn take_scores(&mut self, logprobs: &[f32]) {
        let end = self.computed();
        let scored = self.scored.as_mut().expect("a row that is scored");
        scored.logprobs.extend(logprobs);
        self.is_over = scored.from + scored.logprobs.len() == end;
    }

    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }
}

/// Settings of the rows that draw.
fn draws<'a>(rows: impl Iterator<Item = &'a Row> + Clone, config: &Config) -> Draws {
    let words = config.vocab_size.div_ceil(32);
    let gather = |bits: fn(&Row) -> &[u32], absent: u32| {
        if rows.clone().all(|row| bits(row).is_empty()) {
            return Vec::new();
        }
        let mut all = Vec::new();
        for row in rows.clone() {
            match bits(row) {
                [] => all.resize(all.len() + words, absent),
                bits => all.extend(bits),
            }
        }
        all
    };
    Draws {
        allowed: gather(|row| &row.allowed, u32::MAX),
        seen: gather(|row| &row.seen, 0),
        settings: rows.clone().flat_map(|row| row.request.sampling.settings(row.drawn)).collect(),
        top: rows.map(|row| row.request.top_logprobs).max().unwrap_or(0),
    }
}

/// Takes a cache and runs the largest passes with every part.
pub(super) fn run_largest(
    model: Model<'_>,
    backend: &mut dyn Backend,
    room: &Room,
) -> Result<Mark> {
    let cache = &Cache::new(model.decoder, backend, room.blocks * BLOCK)?;
    let above = backend.mark();
    for &adapter in model.parts {
        Runner { decoder: model.decoder, backend, adapter, cache }.run_largest(room)?;
    }
    Ok(above)
}

/// Refuses tokens that the vocabulary does not have.
pub(super) fn check_tokens(tokens: &[u32], vocab: usize) -> Result<()> {
    match tokens.iter().find(|&&token| token as usize >= vocab) {
        Some(token) => Err(input(format!("token {token}, but the vocabulary has {vocab}"))),
        None => Ok(()),
    }
}

pub(super) fn input(message: String) -> Error {
    Error::Input { message, hint: None }
}
