//! Packing: sequences become micro-batches in which a prefix that several of
//! them share stands once.
//!
//! The sequences of a step form a trie. Cut at the token budget, its parts are
//! packed first-fit, longest first, and each part brings along the prefix that
//! it hangs on.

mod emit;
mod trie;

use std::borrow::Borrow;

use text::Batch;

use crate::Sequence;
use trie::Node;

/// What a micro-batch may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packing {
    /// Most tokens in a micro-batch. A sequence that is longer gets one of its own.
    pub budget_tokens: usize,
    /// Fewest tokens worth sharing; 0 shares nothing.
    pub min_shared: usize,
    /// Whether sequences of one group must stand in one micro-batch, even if
    /// that takes it over the budget.
    pub keep_groups: bool,
    /// Whether the tokens of a sequence from its last supervised one on are left
    /// out. As inputs they change no target; what reads them for other ends
    /// (a value, a reward) must keep them.
    pub drop_unread: bool,
    /// Sequences of more tokens than this share nothing with those of fewer: where a model rotates long
    /// sequences by other frequencies, a prefix is not the same in both.
    pub apart_beyond: Option<usize>,
}

impl Packing {
    /// Shares prefixes of this many tokens or more unless told otherwise.
    pub const MIN_SHARED: usize = 16;

    /// A budget with the usual sharing, groups not kept, all tokens kept.
    pub fn new(budget_tokens: usize) -> Self {
        Packing {
            budget_tokens,
            min_shared: Self::MIN_SHARED,
            keep_groups: false,
            drop_unread: false,
            apart_beyond: None,
        }
    }
}

/// One micro-batch of an optimizer step.
#[derive(Clone, Debug, PartialEq)]
pub struct Micro {
    /// The forest; [`text::Target::sequence`] is an index into the step's sequences.
    pub batch: Batch,
    /// Which of the step's sequences stand in it, ascending.
    pub sequences: Vec<usize>,
}

/// Packs the sequences of one optimizer step into micro-batches.
///
/// First-fit, longest first; equal lengths keep their order, so the result
/// depends on nothing but the arguments. Every supervised token `i` of a
/// sequence becomes a target that is read at token `i - 1`.
///
/// Panics if a sequence is empty, if its weights do not fit its tokens, or if
/// its first token has a weight: all are bugs of the caller.
pub fn pack<S: Borrow<Sequence>>(sequences: &[S], packing: &Packing) -> Vec<Micro> {
    let sequences: Vec<&Sequence> = sequences.iter().map(Borrow::borrow).collect();
    for sequence in &sequences {
        assert!(!sequence.is_empty(), "a sequence has tokens");
        assert_eq!(sequence.tokens.len(), sequence.weights.len(), "a weight per token");
        assert!(sequence.weights[0] == 0.0, "nothing predicts a first token");
    }
    if sequences.is_empty() {
        return Vec::new();
    }
    let inputs = |sequence: &&Sequence| match packing.drop_unread {
        true => inputs_read(sequence),
        false => sequence.len(),
    };
    let tokens: Vec<&[u32]> = sequences.iter().map(|s| &s.tokens[..inputs(s)]).collect();
    let forest = trie::build(&tokens, packing.min_shared, packing.apart_beyond);
    let groups = packing.keep_groups.then(|| sequences.iter().map(|s| s.group).collect::<Vec<_>>());
    let bins = partition(forest, packing.budget_tokens, groups.as_deref());
    bins.iter().map(|bin| emit::micro(bin, &sequences)).collect()
}

/// How many tokens stand before the last supervised one; at least one.
fn inputs_read(sequence: &Sequence) -> usize {
    sequence.weights.iter().rposition(|&weight| weight != 0.0).unwrap_or(1)
}

/// Cuts a tree into trees of at most `budget` tokens, where that can be done.
fn partition(node: Node, budget: usize, groups: Option<&[u32]>) -> Vec<Node> {
    if node.size() <= budget || node.parts() <= 1 {
        return vec![node];
    }
    let capacity = budget.saturating_sub(node.len());
    let Node { from, to, ends, children, .. } = node;
    let mut items = Vec::new();
    for bundle in bundles(ends, children, groups) {
        items.extend(cut(bundle, capacity, groups));
    }
    first_fit(items, capacity).into_iter().map(|bin| bin.into_node(from, to)).collect()
}

/// What hangs below a node and moves as one.
#[derive(Default)]
struct Item {
    ends: Vec<usize>,
    children: Vec<Node>,
}

impl Item {
    fn size(&self) -> usize {
        self.children.iter().map(Node::size).sum()
    }

    fn first(&self) -> usize {
        let below = self.children.iter().map(Node::first);
        below.chain(self.ends.iter().copied()).min().unwrap_or(usize::MAX)
    }

    fn absorb(&mut self, other: Item) {
        self.ends.extend(other.ends);
        self.children.extend(other.children);
    }

    fn into_node(self, from: usize, to: usize) -> Node {
        Node::new(from, to, self.ends, self.children)
    }
}

/// Joins what must stay together: everything that has a sequence of the same group.
fn bundles(ends: Vec<usize>, children: Vec<Node>, groups: Option<&[u32]>) -> Vec<Item> {
    let ends = ends.into_iter().map(|end| Item { ends: vec![end], children: Vec::new() });
    let children =
        children.into_iter().map(|child| Item { ends: Vec::new(), children: vec![child] });
    let items = ends.chain(children);
    let Some(groups) = groups else { return items.collect() };
    let mut bundles: Vec<(Vec<u32>, Item)> = Vec::new();
    for mut item in items {
        let mut mine = item_groups(&item, groups);
        // Every earlier bundle that shares a group with this item joins it.
        let (joined, apart): (Vec<_>, Vec<_>) =
            bundles.into_iter().partition(|(theirs, _)| theirs.iter().any(|g| mine.contains(g)));
        bundles = apart;
        for (theirs, other) in joined {
            mine.extend(theirs);
            item.absorb(other);
        }
        bundles.push((mine, item));
    }
    bundles.into_iter().map(|(_, item)| item).collect()
}

fn item_groups(item: &Item, groups: &[u32]) -> Vec<u32> {
    let mut members = item.ends.clone();
    item.children.iter().for_each(|child| child.collect(&mut members));
    let mut found: Vec<u32> = members.into_iter().map(|index| groups[index]).collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// Cuts one item into items that fit, if it can be cut.
fn cut(mut item: Item, capacity: usize, groups: Option<&[u32]>) -> Vec<Item> {
    if item.size() <= capacity {
        return vec![item];
    }
    if item.children.len() == 1 && item.ends.is_empty() {
        let child = item.children.remove(0);
        let parts = partition(child, capacity, groups).into_iter();
        return parts.map(|part| Item { ends: Vec::new(), children: vec![part] }).collect();
    }
    // Several children that groups tie together: one item per group.
    let Some(groups) = groups else { return vec![item] };
    let ids = item_groups(&item, groups);
    if ids.len() == 1 {
        return vec![item];
    }
    let of_group = |id: u32| Item {
        ends: item.ends.iter().copied().filter(|&end| groups[end] == id).collect(),
        children: item.children.iter().filter_map(|c| c.restrict(&|i| groups[i] == id)).collect(),
    };
    ids.into_iter().map(of_group).collect()
}

fn first_fit(mut items: Vec<Item>, capacity: usize) -> Vec<Item> {
    items.sort_by_key(|item| (std::cmp::Reverse(item.size()), item.first()));
    let mut bins: Vec<(usize, Item)> = Vec::new();
    for item in items {
        let size = item.size();
        // What has no tokens of its own costs nothing anywhere.
        match bins.iter_mut().find(|(used, _)| size == 0 || used + size <= capacity) {
            Some((used, bin)) => {
                *used += size;
                bin.absorb(item);
            }
            None => bins.push((size, item)),
        }
    }
    bins.into_iter().map(|(_, bin)| bin).collect()
}
