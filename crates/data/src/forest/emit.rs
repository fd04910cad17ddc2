//! From a tree of token runs to the batch that the model is given.

use text::{Batch, LastRead, Segment, Target};

use super::{Micro, Reads, trie::Node};
use crate::Sequence;

/// Writes out the micro-batch below a node without tokens.
pub(super) fn micro(bin: &Node, sequences: &[&Sequence], reads: Reads) -> Micro {
    let (found, last) = (Vec::new(), Vec::new());
    let mut writer = Writer { sequences, reads, batch: Batch::default(), found, last };
    for root in &bin.children {
        writer.write(root, None, &mut Vec::new());
    }
    let mut members = Vec::new();
    bin.collect(&mut members);
    members.sort_unstable();
    let batch = writer.finish();
    batch.assert_valid();
    Micro { batch, sequences: members }
}

struct Writer<'a> {
    sequences: &'a [&'a Sequence],
    reads: Reads,
    batch: Batch,
    /// Stream index that is read, and what is asked for there.
    found: Vec<(u32, Target)>,
    /// Stream index of last or learned tokens that are read, and their sequences.
    last: Vec<(u32, u32)>,
}

impl Writer<'_> {
    /// Writes a node and all below; `path` holds the segments above. Returns the length of the longest
    /// sequence below, with the tokens that are left out.
    fn write(&mut self, node: &Node, parent: Option<usize>, path: &mut Vec<usize>) -> usize {
        let first = self.sequences[node.first()];
        let start = self.batch.tokens.len();
        self.batch.tokens.extend_from_slice(&first.tokens[node.from..node.to]);
        let index = self.batch.segments.len();
        let (len, row) = (node.len(), first.row);
        self.batch.segments.push(Segment { start, len, parent, sequence_len: 0, row });
        let mut sequence_len = 0;
        path.push(index);
        for &sequence in &node.ends {
            if self.reads.has_targets() {
                self.write_targets(sequence, path);
            }
            if self.reads.has_last() {
                self.last.push((self.batch.tokens.len() as u32 - 1, sequence as u32));
            }
            if self.reads == Reads::Learned {
                self.write_learned(sequence, path);
            }
            sequence_len = sequence_len.max(self.sequences[sequence].len());
        }
        for child in &node.children {
            sequence_len = sequence_len.max(self.write(child, Some(index), path));
        }
        path.pop();
        self.batch.segments[index].sequence_len = sequence_len;
        sequence_len
    }

    /// Reads at the learned tokens themselves.
    fn write_learned(&mut self, index: usize, path: &[usize]) {
        let stream = path.iter().flat_map(|&segment| {
            let Segment { start, len, .. } = self.batch.segments[segment];
            start..start + len
        });
        let weights = &self.sequences[index].weights;
        let learned = stream.zip(weights).filter(|(_, weight)| **weight != 0.0);
        self.last.extend(learned.map(|(read, _)| (read as u32, index as u32)));
    }

    fn write_targets(&mut self, index: usize, path: &[usize]) {
        let sequence = self.sequences[index];
        let (mut position, mut place) = (0, 0);
        for &segment in path {
            let Segment { start, len, .. } = self.batch.segments[segment];
            for read in start..start + len {
                position += 1;
                // The token that this one predicts; a sequence's last predicts none.
                let Some(&weight) = sequence.weights.get(position) else { continue };
                if weight != 0.0 || self.reads == Reads::Everything {
                    let target = Target {
                        read: 0,
                        token: sequence.tokens[position],
                        sequence: index as u32,
                        place,
                        role: sequence.role,
                        weight,
                    };
                    self.found.push((read as u32, target));
                    place += 1;
                }
            }
        }
    }

    fn finish(mut self) -> Batch {
        self.found.sort_by_key(|(read, target)| (*read, target.sequence));
        self.last.sort_unstable();
        let targets = self.found.iter().map(|(read, _)| *read);
        let mut reads: Vec<u32> = targets.chain(self.last.iter().map(|(read, _)| *read)).collect();
        reads.sort_unstable();
        reads.dedup();

        let index = |read: u32| reads.binary_search(&read).expect("every read is listed") as u32;
        let target = |(read, target)| Target { read: index(read), ..target };
        self.batch.targets = self.found.into_iter().map(target).collect();
        let last_read = |(read, sequence)| LastRead { read: index(read), sequence };
        self.batch.last_reads = self.last.into_iter().map(last_read).collect();
        self.batch.reads = reads;
        self.batch
    }
}
