//! Pieces seen before, with their ids.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Pieces longer than this are rare, and seldom seen twice.
const LONGEST_PIECE: usize = 48;
/// Slots looked at before a piece counts as absent.
const PROBES: usize = 8;
/// What the allocator adds to an entry outside the table, about.
const OVERHEAD_BYTES: usize = 16;

/// A table of pieces and ids between threads, bounded in memory.
///
/// A slot is written once and never again, so looking up takes no lock and
/// writes nothing that threads share. Frequent pieces come early in any text;
/// when the table is full, it stays as it is.
pub(super) struct PieceCache {
    slots: Box<[OnceLock<Entry>]>,
    /// What further entries may take outside the table.
    bytes_left: AtomicUsize,
}

/// The length of a piece, the number of its ids, the piece, and the ids in little endian.
enum Entry {
    /// Nearly all: a hit then touches one line of memory.
    Inline([u8; INLINE]),
    Boxed(Box<[u8]>),
}

/// What makes a slot 32 bytes.
const INLINE: usize = 23;

impl PieceCache {
    /// A cache with `1 << bits` slots whose entries take up to `bytes`.
    pub(super) fn new(bits: u32, bytes: usize) -> Self {
        let slots = (0..1_usize << bits).map(|_| OnceLock::new()).collect();
        PieceCache { slots, bytes_left: AtomicUsize::new(bytes) }
    }

    /// Appends the ids of a piece, where it is known.
    pub(super) fn extend(&self, piece: &[u8], ids: &mut Vec<u32>) -> bool {
        if piece.len() > LONGEST_PIECE {
            return false;
        }
        let hash = hash(piece);
        for slot in self.probes(hash) {
            let Some(entry) = slot.get() else { return false };
            if let Some(known) = entry.ids(piece) {
                ids.extend(known);
                return true;
            }
        }
        false
    }

    /// Keeps the ids of a piece, where there is room.
    pub(super) fn insert(&self, piece: &[u8], ids: &[u32]) {
        // A byte of a piece gives at most a few ids; both lengths are kept in a byte.
        if piece.len() > LONGEST_PIECE || ids.len() > u8::MAX as usize {
            return;
        }
        let hash = hash(piece);
        let Some(free) = self.probes(hash).find(|slot| slot.get().is_none()) else { return };
        let entry = Entry::new(piece, ids);
        let take = |left: usize| left.checked_sub(entry.heap_bytes());
        if self.bytes_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok() {
            // Where another thread was faster, its entry stays and this one is dropped.
            let _ = free.set(entry);
        }
    }

    fn probes(&self, hash: u64) -> impl Iterator<Item = &OnceLock<Entry>> {
        let mask = self.slots.len() - 1;
        (0..PROBES).map(move |step| &self.slots[(hash as usize).wrapping_add(step) & mask])
    }

    /// How many pieces are kept.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.slots.iter().filter(|slot| slot.get().is_some()).count()
    }

    /// What the table and its entries take.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        let entries = self.slots.iter().filter_map(OnceLock::get);
        size_of_val::<[_]>(&self.slots) + entries.map(Entry::heap_bytes).sum::<usize>()
    }
}

impl Entry {
    fn new(piece: &[u8], ids: &[u32]) -> Self {
        let mut packed = vec![piece.len() as u8, ids.len() as u8];
        packed.extend_from_slice(piece);
        packed.extend(ids.iter().flat_map(|id| id.to_le_bytes()));
        let mut inline = [0; INLINE];
        match inline.get_mut(..packed.len()) {
            Some(start) => {
                start.copy_from_slice(&packed);
                Entry::Inline(inline)
            }
            None => Entry::Boxed(packed.into()),
        }
    }

    /// The ids, if this is the entry of that piece.
    fn ids(&self, piece: &[u8]) -> Option<impl Iterator<Item = u32>> {
        let packed = match self {
            Entry::Inline(packed) => packed,
            Entry::Boxed(packed) => &**packed,
        };
        let [length, count, rest @ ..] = packed else { return None };
        let (kept, ids) = rest.split_at_checked(*length as usize)?;
        let ids = ids.as_chunks::<4>().0.get(..*count as usize)?;
        (kept == piece).then(|| ids.iter().map(|id| u32::from_le_bytes(*id)))
    }

    fn heap_bytes(&self) -> usize {
        match self {
            Entry::Inline(_) => 0,
            Entry::Boxed(packed) => packed.len() + OVERHEAD_BYTES,
        }
    }
}

/// A multiply-and-fold hash in the manner of wyhash: a few instructions for a
/// word, and the same on every run. Colliding pieces cost time, never ids.
fn hash(piece: &[u8]) -> u64 {
    let word = |at: usize| u64::from_le_bytes(piece[at..at + 8].try_into().expect("eight bytes"));
    let half = |at: usize| u32::from_le_bytes(piece[at..at + 4].try_into().expect("four bytes"));
    let length = piece.len();
    let mut state = length as u64;
    let mut at = 0;
    while at + 8 < length {
        state = fold(state ^ word(at));
        at += 8;
    }
    // The last bytes, with some of those before them again where there are any.
    let last = match length {
        0 => 0,
        1..4 => {
            let byte = |at: usize| u64::from(piece[at]);
            byte(0) | byte(length / 2) << 8 | byte(length - 1) << 16
        }
        4..8 => u64::from(half(0)) | u64::from(half(length - 4)) << 32,
        _ => word(length - 8),
    };
    fold(state ^ last)
}

fn fold(value: u64) -> u64 {
    let product = u128::from(value ^ 0x9e37_79b9_7f4a_7c15) * 0xe703_7ed1_a0b4_28db;
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(cache: &PieceCache, piece: &str) -> Option<Vec<u32>> {
        let mut ids = vec![7];
        cache.extend(piece.as_bytes(), &mut ids).then(|| ids.split_off(1))
    }

    #[test]
    fn what_was_inserted_is_found() {
        let cache = PieceCache::new(12, 1 << 20);
        let piece = |n: usize| "é🙂 abcdefghijklmnopqrstuvwxyz".chars().cycle().take(n).collect();
        let pieces: Vec<String> = (0..25).map(piece).collect();
        for (n, piece) in pieces.iter().enumerate() {
            assert_eq!(known(&cache, piece), None, "{piece:?}");
            let ids: Vec<u32> = (0..n as u32).map(|id| id << 20 | 5).collect();
            cache.insert(piece.as_bytes(), &ids);
            assert_eq!(known(&cache, piece), Some(ids), "{piece:?}");
        }
        assert_eq!(cache.len(), pieces.len());
    }

    #[test]
    fn long_pieces_are_not_kept() {
        let cache = PieceCache::new(4, 1 << 20);
        cache.insert("x".repeat(LONGEST_PIECE + 1).as_bytes(), &[1]);
        assert_eq!(cache.len(), 0);
        cache.insert("x".repeat(LONGEST_PIECE).as_bytes(), &[1]);
        assert_eq!(cache.len(), 1);
    }

    #[test]
    fn a_full_cache_keeps_what_it_has() {
        for (bits, bytes) in [(6, 1 << 20), (16, 4096)] {
            let cache = PieceCache::new(bits, bytes);
            let table = cache.bytes();
            for n in 0..100_000_u32 {
                cache.insert(format!("a piece that is long {n}").as_bytes(), &[n, n]);
            }
            assert!(cache.bytes() <= table + bytes, "{} of {bytes}", cache.bytes());
            assert!(cache.len() >= 50, "{}", cache.len());
            assert!(cache.len() < 100_000);
            let found = (0..100_000_u32).filter_map(|n| {
                let ids = known(&cache, &format!("a piece that is long {n}"))?;
                assert_eq!(ids, [n, n]);
                Some(())
            });
            assert_eq!(found.count(), cache.len());
        }
    }

    #[test]
    fn a_slot_is_half_a_line_of_memory() {
        assert_eq!(size_of::<OnceLock<Entry>>(), 32);
    }

    #[test]
    fn threads_share_it() {
        let cache = PieceCache::new(10, 1 << 20);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for n in 0..2000_u32 {
                        let piece = format!("piece {n}");
                        match known(&cache, &piece) {
                            Some(ids) => assert_eq!(ids, [n]),
                            None => cache.insert(piece.as_bytes(), &[n]),
                        }
                    }
                });
            }
        });
        assert!(cache.len() > 500);
    }
}
