//! The compute threads: a fixed set that spins for a moment between jobs, then sleeps.

use std::any::Any;
use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

use super::arena::{ALIGN, Memory};

/// How long a thread without work spins before it sleeps.
const SPIN: Duration = Duration::from_micros(50);

/// Memory of one thread that lasts from task to task. It only grows, and what
/// it hands out has undefined contents.
pub(crate) struct Scratch {
    memory: Memory,
}

impl Scratch {
    fn new() -> Self {
        Scratch { memory: Memory::new(0) }
    }

    /// Makes room for so many bytes.
    fn grow(&mut self, bytes: usize) {
        if bytes > self.memory.bytes() {
            self.memory = Memory::new(bytes);
        }
    }

    /// `len` numbers, aligned to 64 bytes.
    pub(crate) fn f32(&mut self, len: usize) -> &mut [f32] {
        let [slice] = self.split([len]);
        slice
    }

    /// Several slices at once, each aligned to 64 bytes.
    pub(crate) fn split<const N: usize>(&mut self, lens: [usize; N]) -> [&mut [f32]; N] {
        let padded = |len: usize| (len * size_of::<f32>()).next_multiple_of(ALIGN);
        let total: usize = lens.iter().map(|&len| padded(len)).sum();
        if total > self.memory.bytes() {
            self.grow(total.next_power_of_two());
        }
        let mut offset = 0;
        lens.map(|len| {
            // SAFETY: the ranges are disjoint, inside the memory, aligned and initialised
            // (the memory starts zeroed); the borrow of `self` keeps them from a second use.
            let slice = unsafe {
                std::slice::from_raw_parts_mut(self.memory.as_ptr().add(offset).cast(), len)
            };
            offset += padded(len);
            slice
        })
    }
}

/// The same memory as unsigned integers.
pub(crate) fn as_u32(slice: &mut [f32]) -> &mut [u32] {
    // SAFETY: size and alignment are equal, and every bit pattern is valid in both.
    unsafe { std::slice::from_raw_parts_mut(slice.as_mut_ptr().cast(), slice.len()) }
}

/// Sets of pointers that threads share.
///
/// What they write is disjoint by task; this is each use's duty.
#[derive(Clone, Copy)]
pub(crate) struct Pointers<T>(pub(crate) T);

// SAFETY: see the type.
unsafe impl<T> Send for Pointers<T> {}
// SAFETY: see the type.
unsafe impl<T> Sync for Pointers<T> {}

type Body<'a> = dyn Fn(usize, &mut Scratch) + Sync + 'a;

/// What caller and threads share.
struct Shared {
    /// Number of the job in the high half, tasks not yet claimed in the low half.
    claims: AtomicU64,
    /// The body of the job. It is valid as long as a claimed task has not finished.
    body: UnsafeCell<Option<*const Body<'static>>>,
    tasks: AtomicUsize,
    finished: AtomicUsize,
    /// Bytes of the largest scratch that a task has needed.
    largest: AtomicUsize,
    stop: AtomicBool,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

// SAFETY: `body` is written only while no task can be claimed, and read only by
// whoever has claimed one; `claims` orders the two.
unsafe impl Sync for Shared {}
// SAFETY: the pointer in `body` is to a `Sync` closure.
unsafe impl Send for Shared {}

impl Shared {
    /// Runs tasks of job `job` until none is left.
    fn work(&self, job: u64, scratch: &mut Scratch) {
        while let Some(task) = self.claim(job) {
            // SAFETY: a task of the job is claimed and not finished, so the caller waits.
            let body = unsafe { &*(*self.body.get()).expect("a job has a body") };
            if let Err(payload) = catch_unwind(AssertUnwindSafe(|| body(task, scratch))) {
                self.panic.lock().unwrap_or_else(|e| e.into_inner()).get_or_insert(payload);
            }
            if scratch.memory.bytes() > self.largest.load(Ordering::Relaxed) {
                self.largest.fetch_max(scratch.memory.bytes(), Ordering::Relaxed);
            }
            self.finished.fetch_add(1, Ordering::Release);
        }
    }

    /// Takes the next task, in ascending order. A thread that comes late finds another job or no task.
    fn claim(&self, job: u64) -> Option<usize> {
        let mut claims = self.claims.load(Ordering::Acquire);
        loop {
            let left = (claims & 0xFFFF_FFFF) as usize;
            if claims >> 32 != job || left == 0 {
                return None;
            }
            let next = claims - 1;
            match self.claims.compare_exchange_weak(
                claims,
                next,
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) => return Some(self.tasks.load(Ordering::Relaxed) - left),
                Err(now) => claims = now,
            }
        }
    }
}

/// A fixed set of threads that run the tasks of one job at a time.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Of the thread that calls `run`, which takes part.
    scratch: UnsafeCell<Scratch>,
    busy: AtomicBool,
    /// What every thread's scratch holds at least.
    settled: AtomicUsize,
}

// SAFETY: `scratch` is used only by the holder of `busy`.
unsafe impl Sync for Pool {}

impl Pool {
    /// Starts `threads - 1` threads; the caller of [`run`](Pool::run) is the last.
    pub(crate) fn new(threads: usize) -> Self {
        let shared = Arc::new(Shared {
            claims: AtomicU64::new(0),
            body: UnsafeCell::new(None),
            tasks: AtomicUsize::new(0),
            finished: AtomicUsize::new(0),
            largest: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            panic: Mutex::new(None),
        });
        let workers = (1..threads.max(1)).map(|index| {
            let shared = Arc::clone(&shared);
            let builder = std::thread::Builder::new().name(format!("compute-{index}"));
            builder.spawn(move || wait_and_work(&shared)).expect("a thread can be started")
        });
        Pool {
            workers: workers.collect(),
            shared,
            scratch: UnsafeCell::new(Scratch::new()),
            busy: AtomicBool::new(false),
            settled: AtomicUsize::new(0),
        }
    }

    /// Threads that take part in a job, the caller's among them.
    pub(crate) fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `body(task, scratch)` for every task below `tasks` on any thread, and returns when all are done.
    /// Tasks begin in ascending order.
    ///
    /// # Panics
    /// When a task panics, with its message, and from then on always; and when called from a task.
    pub(crate) fn run(&self, tasks: usize, body: &(dyn Fn(usize, &mut Scratch) + Sync)) {
        assert!(!self.busy.swap(true, Ordering::Acquire), "a task of the pool starts no other");
        // SAFETY: `busy` is held.
        let scratch = unsafe { &mut *self.scratch.get() };
        if self.workers.is_empty() || tasks <= 1 {
            (0..tasks).for_each(|task| body(task, scratch));
        } else {
            self.share(tasks, body, scratch);
        }
        self.busy.store(false, Ordering::Release);
    }

    /// Gives every thread as much scratch as any has needed so far: which thread takes which task is chance,
    /// and the same work again shall ask the system for no memory.
    pub(crate) fn settle(&self) {
        let largest = self.shared.largest.load(Ordering::Relaxed);
        if self.settled.swap(largest, Ordering::Relaxed) < largest {
            // Nobody takes a second task before everybody has one.
            let all = Barrier::new(self.threads());
            self.run(self.threads(), &|_, scratch| {
                all.wait();
                scratch.grow(largest);
            });
        }
    }

    fn share(&self, tasks: usize, body: &Body<'_>, scratch: &mut Scratch) {
        let shared = &*self.shared;
        let job = (shared.claims.load(Ordering::Relaxed) >> 32).wrapping_add(1) & 0xFFFF_FFFF;
        let tasks_left = u32::try_from(tasks).expect("fewer than 2^32 tasks");
        // SAFETY: only the lifetime changes, and this call returns when no task is left that could use it.
        let body = unsafe { std::mem::transmute::<*const Body<'_>, *const Body<'static>>(body) };
        // SAFETY: the last job has no task left to claim and none running, so nobody reads it.
        unsafe { *shared.body.get() = Some(body) };
        shared.tasks.store(tasks, Ordering::Relaxed);
        shared.finished.store(0, Ordering::Relaxed);
        shared.claims.store(job << 32 | u64::from(tasks_left), Ordering::Release);
        self.workers.iter().map(JoinHandle::thread).for_each(Thread::unpark);
        shared.work(job, scratch);
        wait_until(|| shared.finished.load(Ordering::Acquire) == tasks);
        let payload = shared.panic.lock().unwrap_or_else(|e| e.into_inner()).take();
        if let Some(payload) = payload {
            resume_unwind(payload);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // A worker catches the panics of its tasks, so it ends well.
            let _ = worker.join();
        }
    }
}

/// The life of a compute thread.
fn wait_and_work(shared: &Shared) {
    let mut scratch = Scratch::new();
    let mut done = 0;
    let mut spin = Spin::new();
    while !shared.stop.load(Ordering::Acquire) {
        let job = shared.claims.load(Ordering::Acquire) >> 32;
        if job != done {
            shared.work(job, &mut scratch);
            done = job;
            spin = Spin::new();
        } else if !spin.again() {
            // `run` wakes every thread after it has set the job, so none is missed.
            std::thread::park();
            spin = Spin::new();
        }
    }
}

/// Waits for what another thread is about to do: spins for a moment, then lets others run in between. A task may
/// wait so for one that comes before it, for they are taken in ascending order.
pub(crate) fn wait_until(is_done: impl Fn() -> bool) {
    let mut spin = Spin::new();
    while !is_done() {
        if !spin.again() {
            std::thread::yield_now();
        }
    }
}

/// A busy wait of limited length.
struct Spin {
    turns: u32,
    since: Option<Instant>,
}

impl Spin {
    fn new() -> Self {
        Spin { turns: 0, since: None }
    }

    /// Spins a little; false when the time is up.
    fn again(&mut self) -> bool {
        std::hint::spin_loop();
        self.turns += 1;
        if !self.turns.is_multiple_of(64) {
            return true;
        }
        self.since.get_or_insert_with(Instant::now).elapsed() < SPIN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once() {
        for threads in [1, 2, 5] {
            let pool = Pool::new(threads);
            for tasks in [0, 1, 2, 7, 1000] {
                let counts: Vec<_> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                pool.run(tasks, &|task, scratch| {
                    scratch.f32(task + 1).fill(task as f32);
                    counts[task].fetch_add(1, Ordering::Relaxed);
                });
                assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn scratch_is_aligned_and_disjoint() {
        let mut scratch = Scratch::new();
        let [a, b] = scratch.split([3, 17]);
        a.fill(1.0);
        b.fill(2.0);
        assert_eq!(a.as_ptr() as usize % 64, 0);
        assert_eq!(b.as_ptr() as usize % 64, 0);
        assert!(a.iter().all(|&x| x == 1.0));
    }

    #[test]
    fn every_thread_settles_to_the_largest() {
        let pool = Pool::new(3);
        pool.run(3, &|task, scratch| scratch.f32(1 + 5000 * task).fill(0.0));
        pool.settle();
        let all = Barrier::new(3);
        pool.run(3, &|_, scratch| {
            all.wait();
            assert!(scratch.memory.bytes() >= 4 * 10_001);
        });
    }

    #[test]
    fn a_panic_comes_back_and_stays() {
        let pool = Pool::new(3);
        let body = |task: usize, _: &mut Scratch| assert_ne!(task, 40, "task forty");
        for expected in ["task forty", "a task of the pool"] {
            let caught = catch_unwind(AssertUnwindSafe(|| pool.run(100, &body))).unwrap_err();
            let text = caught.downcast_ref::<String>().cloned();
            let text = text.or_else(|| caught.downcast_ref::<&str>().map(ToString::to_string));
            assert!(text.is_some_and(|text| text.contains(expected)));
        }
    }
}
