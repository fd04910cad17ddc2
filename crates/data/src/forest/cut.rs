//! From the trie of a step to trees that are not too large, and their order.

use super::Packing;
use super::trie::Node;

/// How large trees may get.
#[derive(Clone, Copy)]
struct Limit {
    /// Most tokens of any tree that can be cut.
    budget: usize,
}

impl Limit {
    /// No budget: trees as they are in every packing that has room for them.
    const NONE: Limit = Limit { budget: usize::MAX };

    /// Most tokens of a tree whose sequences share their first `shared` tokens.
    ///
    /// Every tree computes its beginning anew. A tree twice as large would save a tenth of
    /// all tokens where the beginning is more than 2/11 of it: then it is twice as large.
    fn tree(self, shared: usize) -> usize {
        let mut most = Packing::TREE_TOKENS;
        while 11 * shared > 2 * most {
            most *= 2;
        }
        most.min(self.budget)
    }
}

/// What hangs below a node and moves as one.
#[derive(Clone, Default)]
pub(super) struct Item {
    ends: Vec<usize>,
    children: Vec<Node>,
}

/// Cuts a trie, whose root has no tokens, into trees, and puts them in order.
pub(super) fn arrange(root: Node, budget: usize, groups: Option<&[u32]>) -> Vec<Item> {
    let bundles = bundles(root.ends, root.children, groups).into_iter();
    let items = bundles.flat_map(|bundle| bundle.trees(budget, groups)).collect();
    first_fit(items, Packing::TREE_TOKENS).into_iter().flatten().collect()
}

impl Item {
    /// Tokens.
    pub(super) fn size(&self) -> usize {
        self.children.iter().map(Node::size).sum()
    }

    /// The trees of an item below no tokens: the usual ones, unless one of them is to be cut.
    fn trees(self, budget: usize, groups: Option<&[u32]>) -> Vec<Item> {
        let limit = Limit { budget };
        let usual = self.clone().cut(0, Limit::NONE, groups);
        let is_cut =
            |tree: &Item| tree.size() > budget && tree.clone().cut(0, limit, groups).len() > 1;
        if usual.iter().any(is_cut) { self.cut(0, limit, groups) } else { usual }
    }

    /// Takes what the other one has.
    pub(super) fn absorb(&mut self, other: Item) {
        self.ends.extend(other.ends);
        self.children.extend(other.children);
    }

    /// The item below a node without tokens.
    pub(super) fn into_root(self) -> Node {
        Node::new(0, 0, self.ends, self.children)
    }

    /// Cuts the item, which hangs below `depth` tokens, into items that are not too large, where that
    /// can be done.
    fn cut(mut self, depth: usize, limit: Limit, groups: Option<&[u32]>) -> Vec<Item> {
        if depth + self.size() <= limit.tree(depth) {
            return vec![self];
        }
        if self.children.len() == 1 && self.ends.is_empty() {
            let parts = partition(self.children.remove(0), depth, limit, groups).into_iter();
            return parts.map(|part| Item { ends: Vec::new(), children: vec![part] }).collect();
        }
        // Several children that groups tie together: one item per group.
        let Some(groups) = groups else { return vec![self] };
        let ids = self.groups(groups);
        if ids.len() == 1 {
            return vec![self];
        }
        let of_group = |id: u32| Item {
            ends: self.ends.iter().copied().filter(|&end| groups[end] == id).collect(),
            children: (self.children.iter())
                .filter_map(|child| child.restrict(&|index| groups[index] == id))
                .collect(),
        };
        ids.into_iter().map(of_group).collect()
    }

    fn first(&self) -> usize {
        let below = self.children.iter().map(Node::first);
        below.chain(self.ends.iter().copied()).min().unwrap_or(usize::MAX)
    }

    fn groups(&self, groups: &[u32]) -> Vec<u32> {
        let mut members = self.ends.clone();
        self.children.iter().for_each(|child| child.collect(&mut members));
        let mut found: Vec<u32> = members.into_iter().map(|index| groups[index]).collect();
        found.sort_unstable();
        found.dedup();
        found
    }
}

/// Cuts a tree, which hangs below `above` tokens, into trees that are not too large, where that can be
/// done. All of them begin with the node's tokens.
fn partition(node: Node, above: usize, limit: Limit, groups: Option<&[u32]>) -> Vec<Node> {
    let depth = above + node.len();
    let most = limit.tree(depth);
    if above + node.size() <= most || node.parts() <= 1 {
        return vec![node];
    }
    let (from, to, first) = (node.from, node.to, node.first());
    let bundles = bundles(node.ends, node.children, groups).into_iter();
    let items = bundles.flat_map(|bundle| bundle.cut(depth, limit, groups)).collect();
    let bins = first_fit(items, most.saturating_sub(depth)).into_iter();
    let parts = bins.map(|bin| {
        let mut all = Item::default();
        bin.into_iter().for_each(|item| all.absorb(item));
        // Whatever depends on the row of the shared tokens does not depend on the cut.
        Node::new(from, to, all.ends, all.children).of(first)
    });
    parts.collect()
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
        let mut mine = item.groups(groups);
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

/// The items of each bin.
fn first_fit(mut items: Vec<Item>, capacity: usize) -> Vec<Vec<Item>> {
    items.sort_by_key(|item| (std::cmp::Reverse(item.size()), item.first()));
    let mut bins: Vec<(usize, Vec<Item>)> = Vec::new();
    for item in items {
        let size = item.size();
        // What has no tokens of its own costs nothing anywhere.
        match bins.iter_mut().find(|(used, _)| size == 0 || used + size <= capacity) {
            Some((used, bin)) => {
                *used += size;
                bin.push(item);
            }
            None => bins.push((size, vec![item])),
        }
    }
    bins.into_iter().map(|(_, bin)| bin).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_beginning_makes_a_large_tree() {
        let of = |shared| Limit::NONE.tree(shared);
        assert_eq!([0, 30, 186, 187, 372, 373].map(of), [1024, 1024, 1024, 2048, 2048, 4096]);
        assert_eq!(Limit { budget: 1500 }.tree(400), 1500);
    }
}
