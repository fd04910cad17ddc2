//! From a tree of token runs to the batch that the model is given.

use text::{Batch, Segment, Target};

use super::{Micro, trie::Node};
use crate::Sequence;

/// Writes out the micro-batch below a node without tokens.
pub(super) fn micro(bin: &Node, sequences: &[&Sequence]) -> Micro {
    let mut writer = Writer { sequences, batch: Batch::default(), found: Vec::new() };
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
    batch: Batch,
    /// Stream index that is read, and what is asked for there.
    found: Vec<(u32, Target)>,
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
            self.write_targets(sequence, path);
            sequence_len = sequence_len.max(self.sequences[sequence].len());
        }
        for child in &node.children {
            sequence_len = sequence_len.max(self.write(child, Some(index), path));
        }
        path.pop();
        self.batch.segments[index].sequence_len = sequence_len;
        sequence_len
    }

    fn write_targets(&mut self, index: usize, path: &[usize]) {
        let sequence = self.sequences[index];
        let mut position = 0;
        for &segment in path {
            let Segment { start, len, .. } = self.batch.segments[segment];
            for read in start..start + len {
                position += 1;
                // The token that this one predicts; a sequence's last predicts none.
                let Some(&weight) = sequence.weights.get(position) else { continue };
                if weight != 0.0 {
                    let target = Target {
                        read: 0,
                        token: sequence.tokens[position],
                        sequence: index as u32,
                        role: sequence.role,
                        weight,
                    };
                    self.found.push((read as u32, target));
                }
            }
        }
    }

    fn finish(mut self) -> Batch {
        self.found.sort_by_key(|(read, target)| (*read, target.sequence));
        for (read, mut target) in self.found {
            if self.batch.reads.last() != Some(&read) {
                self.batch.reads.push(read);
            }
            target.read = self.batch.reads.len() as u32 - 1;
            self.batch.targets.push(target);
        }
        self.batch
    }
}
