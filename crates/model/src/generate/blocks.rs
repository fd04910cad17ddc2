//! Which blocks of the cache hold the keys of which tokens.
//!
//! Blocks form trees: each begins at a root or behind some token of another block, and knows the tokens whose
//! keys it holds. A row is a path from a root. Rows that begin alike walk the same blocks, so that a
//! beginning is computed once, whoever needs it and whenever. A block that no row holds stays as a
//! cached prefix until its memory is needed.

use std::collections::{BTreeMap, BTreeSet};

/// Positions in a block.
pub(super) const BLOCK: usize = 64;

/// Where a block or a path goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// At the first token of sequences under a part, short or long ones: their keys differ.
    Root { part: usize, is_long: bool },
    /// Behind the first `len` tokens of a block.
    Behind { block: usize, len: usize },
}

/// The blocks of one row, and how many tokens of each belong to it.
#[derive(Clone, Debug)]
pub(super) struct Path {
    root: Place,
    blocks: Vec<(usize, usize)>,
    len: usize,
    /// Whether the row itself writes the last block: nobody else appends to it.
    owns_last: bool,
}

impl Path {
    pub(super) fn new(root: Place) -> Self {
        Path { root, blocks: Vec::new(), len: 0, owns_last: false }
    }

    pub(super) fn root(&self) -> Place {
        self.root
    }

    /// Whether its keys are rotated as those of long sequences.
    pub(super) fn is_long(&self) -> bool {
        matches!(self.root, Place::Root { is_long: true, .. })
    }

    /// Tokens whose keys are in the cache.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Blocks and how much of each, to sort rows by: those that begin alike become neighbours.
    pub(super) fn blocks(&self) -> &[(usize, usize)] {
        &self.blocks
    }

    /// Whether the row has begun to write blocks of its own.
    pub(super) fn owns(&self) -> bool {
        self.owns_last
    }

    fn end(&self) -> Place {
        self.blocks.last().map_or(self.root, |&(block, len)| Place::Behind { block, len })
    }

    /// Positions left in a last block of the row's own.
    pub(super) fn room(&self) -> usize {
        self.blocks.last().filter(|_| self.owns_last).map_or(0, |&(_, len)| BLOCK - len)
    }

    /// Runs of slots in the cache, blocks that lie behind each other joined.
    pub(super) fn runs(&self) -> Vec<(u32, u32)> {
        let mut runs: Vec<(u32, u32)> = Vec::with_capacity(self.blocks.len());
        for &(block, len) in &self.blocks {
            let (start, len) = ((block * BLOCK) as u32, len as u32);
            match runs.last_mut() {
                Some(last) if last.0 + last.1 == start => last.1 += len,
                _ => runs.push((start, len)),
            }
        }
        runs
    }
}

struct Block {
    place: Place,
    tokens: Vec<u32>,
    /// Paths that hold it.
    rows: usize,
    /// Blocks that begin behind one of its tokens.
    children: usize,
    /// When it was last given up.
    released: u64,
}

/// All blocks of a cache.
pub(super) struct Blocks {
    blocks: Vec<Option<Block>>,
    free: BTreeSet<usize>,
    /// Blocks by where they begin and their first token.
    begins: BTreeMap<(Place, u32), Vec<usize>>,
    held: usize,
    clock: u64,
}

impl Blocks {
    pub(super) fn new(count: usize) -> Self {
        Blocks {
            blocks: (0..count).map(|_| None).collect(),
            free: (0..count).collect(),
            begins: BTreeMap::new(),
            held: 0,
            clock: 0,
        }
    }

    /// Blocks that no row holds: free ones, and cached prefixes that may go.
    pub(super) fn available(&self) -> usize {
        self.blocks.len() - self.held
    }

    /// Blocks of a path that no other row holds.
    pub(super) fn exclusive(&self, path: &Path) -> usize {
        path.blocks.iter().filter(|(block, _)| self.block(*block).rows == 1).count()
    }

    /// The longest way on from the end of a path over cached tokens: a block, and how many of its
    /// tokens the path then has.
    pub(super) fn shared(&self, path: &Path, tokens: &[u32]) -> Option<(usize, usize)> {
        let reach = |block: usize, from: usize| {
            let cached = self.block(block).tokens[from..].iter();
            (block, from, cached.zip(tokens).take_while(|(a, b)| a == b).count())
        };
        let further = path.blocks.last().map(|&(block, len)| reach(block, len));
        let children = self.begins.get(&(path.end(), *tokens.first()?)).into_iter().flatten();
        let ways = further.into_iter().chain(children.map(|&block| reach(block, 0)));
        let (block, from, more) = ways.max_by_key(|&(.., more)| more)?;
        (more > 0).then_some((block, from + more))
    }

    /// Lets a path go on over the first `len` tokens of a block.
    pub(super) fn share(&mut self, path: &mut Path, block: usize, len: usize) {
        match path.blocks.last_mut() {
            Some(last) if last.0 == block => {
                path.len += len - last.1;
                last.1 = len;
            }
            _ => {
                self.hold(block);
                path.blocks.push((block, len));
                path.len += len;
            }
        }
    }

    /// Takes a path back to what it was before.
    pub(super) fn unshare(&mut self, path: &mut Path, before: Path) {
        for (block, _) in path.blocks.split_off(before.blocks.len()) {
            self.let_go(block);
        }
        *path = before;
    }

    /// Makes slots for tokens at the end of a path.
    ///
    /// # Panics
    /// Where all blocks are held: the caller promises rows no more than there is.
    pub(super) fn append(&mut self, path: &mut Path, tokens: &[u32], slots: &mut Vec<u32>) {
        for &token in tokens {
            if path.room() == 0 {
                let block = self.begin(path.end(), token);
                path.blocks.push((block, 0));
                path.owns_last = true;
            }
            let (block, len) = path.blocks.last_mut().expect("a block was begun");
            slots.push((*block * BLOCK + *len) as u32);
            self.blocks[*block].as_mut().expect("held").tokens.push(token);
            *len += 1;
            path.len += 1;
        }
    }

    /// Gives up a path; what it computed stays cached.
    pub(super) fn release(&mut self, path: &mut Path) {
        for (block, _) in std::mem::take(&mut path.blocks) {
            self.let_go(block);
        }
        *path = Path::new(path.root);
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        *self = Blocks::new(self.blocks.len());
    }

    fn block(&self, block: usize) -> &Block {
        self.blocks[block].as_ref().expect("a block that is in use")
    }

    fn hold(&mut self, block: usize) {
        let block = self.blocks[block].as_mut().expect("a block that is in use");
        self.held += usize::from(block.rows == 0);
        block.rows += 1;
    }

    fn let_go(&mut self, block: usize) {
        self.clock += 1;
        let block = self.blocks[block].as_mut().expect("a block that is in use");
        block.rows -= 1;
        block.released = self.clock;
        self.held -= usize::from(block.rows == 0);
    }

    /// Takes a block for tokens from `first` on.
    fn begin(&mut self, place: Place, first: u32) -> usize {
        if self.free.is_empty() {
            self.evict();
        }
        let block = self.free.pop_first().expect("rows are promised no more blocks than there are");
        if let Place::Behind { block: parent, .. } = place {
            self.blocks[parent].as_mut().expect("a path holds its blocks").children += 1;
        }
        self.begins.entry((place, first)).or_default().push(block);
        let tokens = Vec::with_capacity(BLOCK);
        self.blocks[block] = Some(Block { place, tokens, rows: 0, children: 0, released: 0 });
        self.hold(block);
        block
    }

    /// Frees the cached block that was given up first, of those that no other begins behind.
    fn evict(&mut self) {
        let candidates = self.blocks.iter().enumerate().filter_map(|(index, block)| {
            let block = block.as_ref()?;
            (block.rows == 0 && block.children == 0).then_some((block.released, index))
        });
        let Some((_, index)) = candidates.min() else { return };
        let Block { place, tokens, .. } = self.blocks[index].take().expect("a candidate");
        if let Place::Behind { block: parent, .. } = place {
            self.blocks[parent].as_mut().expect("a block goes before its parent").children -= 1;
        }
        let key = (place, tokens[0]);
        let siblings = self.begins.get_mut(&key).expect("every block is listed");
        siblings.retain(|&block| block != index);
        if siblings.is_empty() {
            self.begins.remove(&key);
        }
        self.free.insert(index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: Place = Place::Root { part: 0, is_long: false };

    fn walk(blocks: &mut Blocks, tokens: &[u32]) -> (Path, usize) {
        let mut path = Path::new(ROOT);
        while let Some((block, len)) = blocks.shared(&path, &tokens[path.len()..]) {
            blocks.share(&mut path, block, len);
        }
        let shared = path.len();
        let mut slots = Vec::new();
        blocks.append(&mut path, &tokens[shared..], &mut slots);
        assert_eq!(slots.len(), tokens.len() - shared);
        (path, shared)
    }

    fn numbers(len: u32) -> Vec<u32> {
        (0..len).collect()
    }

    #[test]
    fn a_path_goes_as_far_as_anything_cached() {
        let mut blocks = Blocks::new(20);
        let (first, shared) = walk(&mut blocks, &numbers(150));
        assert_eq!((shared, first.blocks()), (0, &[(0, 64), (1, 64), (2, 22)][..]));
        assert_eq!(first.runs(), [(0, 150)]);
        // Up to the middle of a block, and on in one of its own.
        let other = [&numbers(100)[..], &[7; 60]].concat();
        let (second, shared) = walk(&mut blocks, &other);
        assert_eq!((shared, second.blocks()), (100, &[(0, 64), (1, 36), (3, 60)][..]));
        assert_eq!(second.runs(), [(0, 100), (192, 60)]);
        // Over both, and beyond.
        let (third, shared) = walk(&mut blocks, &[&other[..], &[8]].concat());
        assert_eq!((shared, third.len()), (160, 161));
        assert_eq!(blocks.available(), 20 - 5);
        assert_eq!(blocks.exclusive(&first), 1);
    }

    #[test]
    fn what_nobody_holds_stays_until_it_is_needed() {
        let mut blocks = Blocks::new(4);
        let (mut first, _) = walk(&mut blocks, &numbers(128));
        let (mut second, _) = walk(&mut blocks, &[9; 64]);
        blocks.release(&mut first);
        blocks.release(&mut second);
        assert_eq!(blocks.available(), 4);
        let (mut again, shared) = walk(&mut blocks, &numbers(129));
        assert_eq!(shared, 128);
        // The last free block went to the one token; now the oldest that nobody holds goes.
        let (_, shared) = walk(&mut blocks, &[5; 3]);
        assert_eq!((shared, blocks.available()), (0, 0));
        blocks.release(&mut again);
        let (_, shared) = walk(&mut blocks, &[9; 64]);
        assert_eq!(shared, 0);
        // Of the path that was given up, its end has gone first.
        assert_eq!(blocks.shared(&Path::new(ROOT), &numbers(129)), Some((0, 64)));
        blocks.clear();
        assert_eq!(blocks.available(), 4);
        assert_eq!(blocks.shared(&Path::new(ROOT), &numbers(1)), None);
    }
}
