//! A batch as the model sees it: a forest of token segments, the positions
//! that somebody reads, and the tokens whose log-probability is wanted there.

/// A run of consecutive tokens in the stream of a [`Batch`].
///
/// A segment attends to all of its ancestors and causally to itself. Its
/// positions go on from where its parent's end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Index of the first token in the stream.
    pub start: usize,
    /// Number of tokens, at least one.
    pub len: usize,
    /// Index of the segment that this one continues; smaller than its own.
    pub parent: Option<usize>,
    /// Tokens of the longest sequence that the segment belongs to. Tokens that the stream leaves out
    /// count: LongRoPE chooses its frequencies by the whole length.
    pub sequence_len: usize,
    /// Identity of the row that these tokens came from: the key of everything
    /// random that happens to them. A shared prefix takes that of its first row.
    pub row: u64,
}

/// One token whose log-probability an objective asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Target {
    /// Index into [`Batch::reads`]: the position that predicts the token.
    pub read: u32,
    /// The token.
    pub token: u32,
    /// Index of the sequence within the optimizer step.
    pub sequence: u32,
    /// Which of the sequence's targets this is, counted from 0: where its values stand in a column over targets.
    pub place: u32,
    /// What the sequence is for (an objective's own numbering; 0 where there is one kind).
    pub role: u8,
    /// How much the token counts in its sequence's loss.
    pub weight: f32,
}

/// A sequence whose last token is read, for a value of all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastRead {
    /// Index into [`Batch::reads`]: the position of the sequence's last token.
    pub read: u32,
    /// Index of the sequence within the optimizer step.
    pub sequence: u32,
}

/// A forest of segments over one flat stream of tokens, without padding.
///
/// The segments of a tree stand next to each other, each root before its
/// descendants, and together they cover the stream in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// The stream, `[T]`.
    pub tokens: Vec<u32>,
    /// The forest over the stream.
    pub segments: Vec<Segment>,
    /// Sorted, distinct stream indices whose final hidden state is needed, `[R]`.
    pub reads: Vec<u32>,
    /// Sorted by `read`.
    pub targets: Vec<Target>,
    /// Sorted by `read`; empty where no last token is read.
    pub last_reads: Vec<LastRead>,
}

impl Batch {
    /// The position of every token within its own sequence, `[T]`.
    pub fn positions(&self) -> Vec<u32> {
        let starts = self.start_positions();
        let mut positions = Vec::with_capacity(self.tokens.len());
        for (segment, start) in self.segments.iter().zip(starts) {
            positions.extend((0..segment.len as u32).map(|offset| start + offset));
        }
        positions
    }

    /// The position of the first token of every segment, `[segments]`.
    pub fn start_positions(&self) -> Vec<u32> {
        let mut starts: Vec<u32> = Vec::with_capacity(self.segments.len());
        for segment in &self.segments {
            starts.push(match segment.parent {
                Some(parent) => starts[parent] + self.segments[parent].len as u32,
                None => 0,
            });
        }
        starts
    }

    /// For every tree, the index of its root segment; one past the last at the end.
    pub fn trees(&self) -> Vec<usize> {
        let roots = self.segments.iter().enumerate().filter(|(_, s)| s.parent.is_none());
        roots.map(|(index, _)| index).chain([self.segments.len()]).collect()
    }

    /// Panics, naming the rule, where the batch is not well formed: this is a
    /// bug of whoever made it, never a user's mistake.
    pub fn assert_valid(&self) {
        let mut next = 0;
        for (index, segment) in self.segments.iter().enumerate() {
            assert_eq!(segment.start, next, "segments cover the stream in order");
            assert!(segment.len > 0, "a segment has tokens");
            if let Some(parent) = segment.parent {
                assert!(parent < index, "a parent stands before its children");
            }
            next += segment.len;
        }
        assert_eq!(next, self.tokens.len(), "segments cover the stream");
        for (segment, start) in self.segments.iter().zip(self.start_positions()) {
            let end = start as usize + segment.len;
            assert!(segment.sequence_len >= end, "a sequence has all tokens of its segments");
        }
        assert!(self.reads.is_sorted_by(|a, b| a < b), "reads are sorted and distinct");
        assert!(self.reads.last().is_none_or(|&r| (r as usize) < next), "reads lie in the stream");
        assert!(self.targets.is_sorted_by_key(|t| t.read), "targets are sorted by read");
        assert!(self.targets.iter().all(|t| (t.read as usize) < self.reads.len()));
        assert!(self.last_reads.is_sorted_by_key(|l| l.read), "last reads are sorted by read");
        assert!(self.last_reads.iter().all(|l| (l.read as usize) < self.reads.len()));
        let mut root = 0;
        for (index, segment) in self.segments.iter().enumerate() {
            match segment.parent {
                None => root = index,
                Some(parent) => assert!(parent >= root, "the segments of a tree are neighbours"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(start: usize, len: usize, parent: Option<usize>) -> Segment {
        Segment { start, len, parent, sequence_len: 5, row: 0 }
    }

    #[test]
    fn positions_go_on_from_the_parent() {
        let batch = Batch {
            tokens: vec![0; 9],
            segments: vec![
                segment(0, 3, None),
                segment(3, 2, Some(0)),
                segment(5, 2, Some(0)),
                segment(7, 2, None),
            ],
            ..Batch::default()
        };
        batch.assert_valid();
        assert_eq!(batch.positions(), [0, 1, 2, 3, 4, 3, 4, 0, 1]);
        assert_eq!(batch.trees(), [0, 3, 4]);
    }
}
