//! Several files at once.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::error::{Error, Result};

/// Files on their way at the same time: enough to fill a line, few enough for any server.
const THREADS: usize = 4;

/// Raised when one of several pieces of work has failed and the others need not go on.
pub(crate) type Halt = AtomicBool;

/// Does `work` for every item, several at a time and beginning in their order.
///
/// After a failure nothing new begins. Of several failures the first is returned.
pub(crate) fn for_each<T: Sync>(
    items: &[T],
    work: impl Fn(&T, &Halt) -> Result<()> + Sync,
) -> Result<()> {
    let (next, halt) = (AtomicUsize::new(0), Halt::new(false));
    let failed: Mutex<Option<Error>> = Mutex::new(None);
    let worker = || {
        while !halt.load(Ordering::Relaxed) {
            let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) else { return };
            let Err(failure) = work(item, &halt) else { continue };
            failed.lock().expect("nobody panics with it").get_or_insert(failure);
            halt.store(true, Ordering::Relaxed);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..items.len().min(THREADS) {
            scope.spawn(worker);
        }
        worker();
    });
    failed.into_inner().expect("nobody panics with it").map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_done_once() {
        let done: Vec<AtomicUsize> = (0..50).map(|_| AtomicUsize::new(0)).collect();
        let items: Vec<usize> = (0..done.len()).collect();
        let work = |&item: &usize, _: &Halt| {
            done[item].fetch_add(1, Ordering::Relaxed);
            Ok(())
        };
        for_each(&items, work).unwrap();
        assert!(done.iter().all(|count| count.load(Ordering::Relaxed) == 1));
        for_each::<usize>(&[], |_, _| unreachable!("there is nothing to do")).unwrap();
    }

    #[test]
    fn a_failure_ends_it() {
        let begun = AtomicUsize::new(0);
        let items: Vec<usize> = (0..1000).collect();
        let failure = for_each(&items, |&item, halt| {
            begun.fetch_add(1, Ordering::Relaxed);
            if item == 0 {
                return Err(Error::new("test", "the first"));
            }
            while !halt.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            Ok(())
        });
        assert_eq!(failure.unwrap_err().to_string(), "the first");
        assert!(begun.load(Ordering::Relaxed) <= THREADS);
    }
}
