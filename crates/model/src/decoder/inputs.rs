//! A batch as the backend sees it: tokens, positions, who attends to whom.

use std::ops::Range;

use compute::op::{AttentionLayout, Op, Rows};
use compute::{Backend, Buffer, DType};
use text::Batch;

use super::RopeBuffers;
use crate::{Config, Result};

/// Everything about a batch that layers ask for, on the host.
pub(crate) struct Inputs {
    pub(crate) tokens: Vec<u32>,
    pub(crate) positions: Vec<u32>,
    /// Low and high half of the row's identity, position: `[T, 3]`.
    pub(crate) row_keys: Vec<u32>,
    pub(crate) reads: Vec<u32>,
    /// Starts of the trees in the stream, and T.
    pub(crate) groups: Vec<u32>,
    /// Starts of the trees among the reads, and R.
    pub(crate) read_groups: Vec<u32>,
    pub(crate) spans: Spans,
    /// As `spans`, for the last layer: queries are the reads.
    pub(crate) read_spans: Spans,
    /// For every token, the length of its sequence: LongRoPE chooses frequencies by it.
    pub(crate) lengths: Vec<u32>,
    /// Where keys and values go when they are kept.
    pub(crate) cache: Option<CacheView>,
}

/// The rows of a cache that the tokens of a batch are written to, `[T]`.
pub(crate) struct CacheView {
    pub(crate) slots: Vec<u32>,
    /// Keys and values of every layer, `[slots, KV * D]` each.
    pub(crate) layers: Vec<(Buffer, Buffer)>,
}

/// [`AttentionLayout`] on the host.
#[derive(Clone, Default)]
pub(crate) struct Spans {
    pub(crate) spans: Vec<u32>,
    pub(crate) runs: Vec<u32>,
    pub(crate) trees: Vec<u32>,
    pub(crate) keys_max: usize,
}

impl Spans {
    /// Adds queries `first..first + count` that see `runs` of key rows.
    pub(crate) fn push(&mut self, first: usize, count: usize, runs: &[(u32, u32)]) {
        let first_run = (self.runs.len() / 2) as u32;
        self.spans.extend([first as u32, count as u32, first_run, runs.len() as u32]);
        self.runs.extend(runs.iter().flat_map(|&(start, len)| [start, len]));
        let keys: u32 = runs.iter().map(|run| run.1).sum();
        self.keys_max = self.keys_max.max(keys as usize);
    }

    /// Begins a tree of spans; once more after the last.
    pub(crate) fn begin_tree(&mut self) {
        self.trees.push((self.spans.len() / 4) as u32);
    }
}

impl Inputs {
    /// The inputs of a training or scoring batch: keys are the stream itself.
    pub(crate) fn from_batch(batch: &Batch) -> Self {
        let positions = batch.positions();
        let mut row_keys = Vec::with_capacity(3 * positions.len());
        for segment in &batch.segments {
            for &position in &positions[segment.start..segment.start + segment.len] {
                row_keys.extend([segment.row as u32, (segment.row >> 32) as u32, position]);
            }
        }
        let mut inputs = Inputs {
            tokens: batch.tokens.clone(),
            positions,
            row_keys,
            reads: batch.reads.clone(),
            groups: Vec::new(),
            read_groups: Vec::new(),
            spans: Spans::default(),
            read_spans: Spans::default(),
            lengths: Vec::new(),
            cache: None,
        };
        for tree in batch.trees().windows(2) {
            inputs.push_tree(batch, tree[0]..tree[1]);
        }
        inputs.spans.begin_tree();
        inputs.read_spans.begin_tree();
        inputs.groups.push(batch.tokens.len() as u32);
        inputs.read_groups.push(batch.reads.len() as u32);
        inputs
    }

    fn push_tree(&mut self, batch: &Batch, segments: std::ops::Range<usize>) {
        let first_token = batch.segments[segments.start].start;
        let last = &batch.segments[segments.end - 1];
        let end_token = last.start + last.len;
        let longest = batch.segments[segments.clone()].iter().map(|s| s.sequence_len).max();
        self.lengths.resize(end_token, longest.unwrap_or(0) as u32);
        self.groups.push(first_token as u32);
        self.read_groups.push(reads_before(batch, first_token) as u32);
        self.spans.begin_tree();
        self.read_spans.begin_tree();
        for index in segments {
            let segment = &batch.segments[index];
            let mut runs = Vec::new();
            let mut ancestor = Some(index);
            while let Some(at) = ancestor {
                runs.push((batch.segments[at].start as u32, batch.segments[at].len as u32));
                ancestor = batch.segments[at].parent;
            }
            runs.reverse();
            self.spans.push(segment.start, segment.len, &runs);
            let first = reads_before(batch, segment.start);
            let count = reads_before(batch, segment.start + segment.len) - first;
            if count > 0 {
                self.read_spans.push(first, count, &runs);
            }
        }
    }
}

fn reads_before(batch: &Batch, token: usize) -> usize {
    batch.reads.partition_point(|&read| (read as usize) < token)
}

/// [`Inputs`] on the device.
#[derive(Clone)]
pub(super) struct Uploaded {
    pub(super) rows: usize,
    pub(super) read_count: usize,
    pub(super) tokens: Buffer,
    pub(super) row_keys: Buffer,
    pub(super) reads: Buffer,
    pub(super) groups: Buffer,
    pub(super) slots: Option<Buffer>,
    pub(super) cache: Vec<(Buffer, Buffer)>,
    /// All tokens as queries.
    pub(super) all: Queries,
    /// The reads as queries, in the last layer.
    pub(super) last: Queries,
    pub(super) read_keys: Buffer,
    pub(super) read_groups: Buffer,
}

/// Rotary tables and attention layout of one set of queries.
#[derive(Clone)]
pub(super) struct Queries {
    pub(super) layout: AttentionLayout,
    /// Cosines and sines, by rotary embedding of the model.
    pub(super) tables: Vec<(Buffer, Buffer)>,
}

impl Uploaded {
    pub(super) fn new(
        backend: &mut dyn Backend,
        inputs: &Inputs,
        config: &Config,
        ropes: &[RopeBuffers],
    ) -> Result<Self> {
        let read_positions: Vec<u32> =
            inputs.reads.iter().map(|&read| inputs.positions[read as usize]).collect();
        let read_keys: Vec<u32> = inputs
            .reads
            .iter()
            .flat_map(|&read| inputs.row_keys[3 * read as usize..][..3].iter().copied())
            .collect();
        let read_lengths: Vec<u32> =
            inputs.reads.iter().map(|&read| inputs.lengths[read as usize]).collect();

        let mut staged = Staged::default();
        let tokens = staged.add(&inputs.tokens);
        let row_keys = staged.add(&inputs.row_keys);
        let reads = staged.add(&inputs.reads);
        let groups = staged.add(&inputs.groups);
        let read_keys = staged.add(&read_keys);
        let read_groups = staged.add(&inputs.read_groups);
        let slots = inputs.cache.as_ref().map(|cache| staged.add(&cache.slots));
        let all = staged.add_queries(&inputs.positions, &inputs.spans);
        let last = staged.add_queries(&read_positions, &inputs.read_spans);

        let words = upload(backend, &staged.0)?;
        let at = |part: Range<usize>| words.slice(part.start, part.len());
        let mut queries = |parts: [Range<usize>; 4], keys_max: usize, lengths: &[u32]| {
            let [query_positions, spans, runs, trees] = parts.map(at);
            let layout = AttentionLayout { query_positions, spans, runs, trees, keys_max };
            Queries::new(backend, layout, lengths, config, ropes)
        };
        Ok(Uploaded {
            rows: inputs.tokens.len(),
            read_count: inputs.reads.len(),
            tokens: at(tokens),
            row_keys: at(row_keys),
            reads: at(reads),
            groups: at(groups),
            slots: slots.map(at),
            cache: inputs.cache.as_ref().map_or_else(Vec::new, |cache| cache.layers.clone()),
            all: queries(all, inputs.spans.keys_max, &inputs.lengths)?,
            last: queries(last, inputs.read_spans.keys_max, &read_lengths)?,
            read_keys: at(read_keys),
            read_groups: at(read_groups),
        })
    }

    /// The rows of `x` (`[T, cols]`) at the reads.
    pub(super) fn at_reads(
        &self,
        backend: &mut dyn Backend,
        x: Buffer,
        cols: usize,
    ) -> Result<Buffer> {
        let out = backend.alloc(self.read_count * cols, x.dtype)?;
        backend.run(Op::Gather(Rows { cols, x, index: self.reads, out }))?;
        Ok(out)
    }
}

impl Queries {
    fn new(
        backend: &mut dyn Backend,
        layout: AttentionLayout,
        lengths: &[u32],
        config: &Config,
        ropes: &[RopeBuffers],
    ) -> Result<Self> {
        let positions = layout.query_positions;
        let mut tables = Vec::with_capacity(ropes.len());
        for (rope, frequencies) in config.ropes.iter().zip(ropes) {
            let half = frequencies.short.len;
            let cos = backend.alloc(positions.len * half, DType::F32)?;
            let sin = backend.alloc(positions.len * half, DType::F32)?;
            for (rows, inv_freq) in frequencies.runs(lengths) {
                let (start, len) = (rows.start * half, rows.len() * half);
                backend.run(Op::RopeTable(compute::op::RopeTable {
                    positions: positions.slice(rows.start, rows.len()),
                    inv_freq,
                    scale: rope.attention_scale,
                    cos: cos.slice(start, len),
                    sin: sin.slice(start, len),
                }))?;
            }
            tables.push((cos, sin));
        }
        Ok(Queries { layout, tables })
    }
}

/// Integers that are copied to the device together: where that has memory of its own, every copy costs a trip.
#[derive(Default)]
struct Staged(Vec<u32>);

impl Staged {
    /// Words of a cache line, at whose multiples allocations begin.
    const ALIGN: usize = 16;

    /// Where a part will lie. Each begins as an allocation of its own would, so kernels find the alignment they know.
    fn add(&mut self, part: &[u32]) -> Range<usize> {
        self.0.resize(self.0.len().next_multiple_of(Self::ALIGN), 0);
        let start = self.0.len();
        self.0.extend(part);
        start..self.0.len()
    }

    /// Positions, spans, runs and trees.
    fn add_queries(&mut self, positions: &[u32], spans: &Spans) -> [Range<usize>; 4] {
        [positions, &spans.spans, &spans.runs, &spans.trees].map(|part| self.add(part))
    }
}

impl RopeBuffers {
    /// Runs of rows whose sequences take the same frequencies.
    fn runs(&self, lengths: &[u32]) -> Vec<(Range<usize>, Buffer)> {
        let Some((limit, long)) = self.long else {
            return vec![(0..lengths.len(), self.short)];
        };
        let mut runs: Vec<(Range<usize>, Buffer)> = Vec::new();
        for (row, &length) in lengths.iter().enumerate() {
            let chosen = if length as usize > limit { long } else { self.short };
            match runs.last_mut() {
                Some((run, buffer)) if *buffer == chosen => run.end = row + 1,
                _ => runs.push((row..row + 1, chosen)),
            }
        }
        runs
    }
}

/// Takes stack memory for `data` and copies it there.
pub(super) fn upload(backend: &mut dyn Backend, data: &[u32]) -> Result<Buffer> {
    let buffer = backend.alloc(data.len(), DType::U32)?;
    backend.upload_u32(data, buffer)?;
    Ok(buffer)
}
