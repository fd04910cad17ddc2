//! The trie of a step's sequences, with only those branches that are worth it.

/// Tokens `from..to` of every sequence below. A node without tokens stands for
/// a whole micro-batch.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    pub(super) from: usize,
    pub(super) to: usize,
    /// Sequences that end where the node ends.
    pub(super) ends: Vec<usize>,
    pub(super) children: Vec<Node>,
    size: usize,
    first: usize,
}

impl Node {
    pub(super) fn new(from: usize, to: usize, ends: Vec<usize>, children: Vec<Node>) -> Self {
        let size = to - from + children.iter().map(Node::size).sum::<usize>();
        let below = children.iter().map(Node::first).min();
        let first = ends.iter().copied().chain(below).min().unwrap_or(usize::MAX);
        Node { from, to, ends, children, size, first }
    }

    /// Tokens of this node alone.
    pub(super) fn len(&self) -> usize {
        self.to - self.from
    }

    /// Tokens of the whole tree.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// The lowest of the sequences below, and below all that was cut off: it has the node's tokens.
    pub(super) fn first(&self) -> usize {
        self.first
    }

    /// The same node as part of one whose lowest sequence is `first`.
    pub(super) fn of(self, first: usize) -> Self {
        Node { first, ..self }
    }

    /// What the tree could be cut into at this node.
    pub(super) fn parts(&self) -> usize {
        // A chain is cut further down.
        let deeper = if self.children.len() == 1 { self.children[0].parts() } else { 0 };
        deeper.max(self.ends.len() + self.children.len())
    }

    /// Appends the sequences below.
    pub(super) fn collect(&self, members: &mut Vec<usize>) {
        members.extend_from_slice(&self.ends);
        self.children.iter().for_each(|child| child.collect(members));
    }

    /// The same tree with only some of its sequences.
    pub(super) fn restrict(&self, keep: &impl Fn(usize) -> bool) -> Option<Node> {
        let ends: Vec<usize> = self.ends.iter().copied().filter(|&end| keep(end)).collect();
        let mut children: Vec<Node> =
            self.children.iter().filter_map(|child| child.restrict(keep)).collect();
        match (ends.is_empty(), children.len()) {
            (true, 0) => None,
            // A node that no longer branches is one run with its only child.
            (true, 1) => {
                let child = children.remove(0);
                Some(Node::new(self.from, child.to, child.ends, child.children))
            }
            _ => Some(Node::new(self.from, self.to, ends, children).of(self.first)),
        }
    }
}

/// Builds the trie of all sequences below a node without tokens, sharing runs
/// of at least `min_shared` tokens; 0 shares nothing. Sequences that `is_apart` names share with each
/// other only.
pub(super) fn build(
    sequences: &[&[u32]],
    min_shared: usize,
    is_apart: &dyn Fn(usize) -> bool,
) -> Node {
    if min_shared == 0 {
        let leaf = |index: usize| Node::new(0, sequences[index].len(), vec![index], Vec::new());
        return Node::new(0, 0, Vec::new(), (0..sequences.len()).map(leaf).collect());
    }
    let mut order: Vec<usize> = (0..sequences.len()).collect();
    let key = |index: usize| (is_apart(index), sequences[index], index);
    order.sort_by_key(|&index| key(index));
    let shared = |pair: &[usize]| match is_apart(pair[0]) == is_apart(pair[1]) {
        true => common_prefix(sequences[pair[0]], sequences[pair[1]]),
        false => 0,
    };
    let shared: Vec<usize> = order.windows(2).map(shared).collect();
    let trie = Trie { sequences, order, shared, min_shared };
    let mut roots = Vec::new();
    trie.grow(0, sequences.len(), 0, &mut roots);
    Node::new(0, 0, Vec::new(), roots)
}

/// Number of tokens that both begin with.
pub(crate) fn common_prefix(left: &[u32], right: &[u32]) -> usize {
    left.iter().zip(right).take_while(|(l, r)| l == r).count()
}

struct Trie<'a> {
    sequences: &'a [&'a [u32]],
    /// Sequences in lexicographic order, those apart last: those with a common prefix are neighbours.
    order: Vec<usize>,
    /// `shared[i]`: common prefix of the `i`-th and the next in that order.
    shared: Vec<usize>,
    min_shared: usize,
}

impl Trie<'_> {
    /// Adds the trees of `order[low..high]`, all of which are longer than
    /// `depth` and agree up to it.
    fn grow(&self, low: usize, high: usize, depth: usize, into: &mut Vec<Node>) {
        if low == high {
            return;
        }
        if high - low == 1 {
            let index = self.order[low];
            into.push(Node::new(depth, self.sequences[index].len(), vec![index], Vec::new()));
            return;
        }
        let common = self.shared[low..high - 1].iter().copied().min().unwrap_or(depth);
        if common < depth + self.min_shared {
            self.grow_runs(low, high, common, depth, into);
            return;
        }
        // Those that end here sort before their continuations.
        let ending = self.order[low..high]
            .iter()
            .take_while(|&&index| self.sequences[index].len() == common)
            .count();
        let mut children = Vec::new();
        self.grow_runs(low + ending, high, common, common, &mut children);
        into.push(Node::new(depth, common, self.order[low..low + ending].to_vec(), children));
    }

    /// Grows each run of neighbours that agree beyond `common` tokens by itself.
    fn grow_runs(
        &self,
        low: usize,
        high: usize,
        common: usize,
        depth: usize,
        into: &mut Vec<Node>,
    ) {
        let mut start = low;
        for end in low + 1..=high {
            if end == high || self.shared[end - 1] == common {
                self.grow(start, end, depth, into);
                start = end;
            }
        }
    }
}
