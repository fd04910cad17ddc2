//! Work on many threads whose result does not depend on how many there are.

use std::sync::atomic::{AtomicUsize, Ordering};

/// How many items a thread takes at a time.
const BATCH: usize = 16;

/// `work` on every index below `count`, results in order. Each thread has a state of its own,
/// which may hold caches only.
pub(super) fn map<S, T: Send>(
    count: usize,
    threads: usize,
    state: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, usize) -> T + Sync,
) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let run = || {
        let mut state = state();
        let mut done: Vec<(usize, T)> = Vec::new();
        loop {
            let start = next.fetch_add(BATCH, Ordering::Relaxed);
            if start >= count {
                return done;
            }
            let end = count.min(start + BATCH);
            done.extend((start..end).map(|index| (index, work(&mut state, index))));
        }
    };
    let mut done = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(run)).collect();
        let mut done = run();
        for handle in others {
            match handle.join() {
                Ok(more) => done.extend(more),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        done
    });
    done.sort_unstable_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_order_on_any_number_of_threads() {
        let expected: Vec<usize> = (0..1000).map(|index| index * index).collect();
        for threads in [0, 1, 2, 7] {
            assert_eq!(map(1000, threads, || (), |(), index| index * index), expected);
        }
        assert_eq!(map(0, 3, || (), |(), index| index), Vec::<usize>::new());
    }
}
