//! Thread pool that spins between the matrix products of a token: handing out work costs about a microsecond.
//!
//! A token of a small language model takes some two hundred products of 10 to 100 µs with short gaps. A pool whose threads
//! sleep in the gaps spends as long waking them. These threads spin for a while, yielding to other threads, and only then
//! sleep.

use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::*};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// How long a thread spins before it sleeps.
const AWAKE: Duration = Duration::from_micros(200);
/// Spins before the clock is first read and before the thread first yields.
const LOOKS: u32 = 400;

/// Computes one part, given its index.
type Work<'a> = dyn Fn(usize) + Sync + 'a;

/// State bit: helpers may join the current work.
const OPEN: u64 = 1 << 16;
/// Increment of the generation, which is above the helper count (16 bits) and [`OPEN`].
const GENERATION: u64 = 1 << 17;

struct Workers {
    /// Generation, open bit, number of helpers that have joined.
    state: AtomicU64,
    /// The current work. Written while the state is closed and no helper is inside; read by helpers that joined.
    work: UnsafeCell<Option<(*const Work<'static>, usize)>>,
    /// Index of the next part.
    next: AtomicUsize,
    /// Lock of the thread that hands out work.
    taken: AtomicBool,
    panicked: AtomicBool,
    helpers: Vec<Helper>,
}

struct Helper {
    asleep: AtomicBool,
    thread: OnceLock<Thread>,
}

// SAFETY: `work` is written only by the holder of `taken` while the state is closed and without helpers, and read only by
// helpers that joined while it was open. The pointer is to a `Sync` closure that outlives the open period.
unsafe impl Sync for Workers {}
// SAFETY: as above.
unsafe impl Send for Workers {}

/// Runs `work` for every index below `parts`, on all threads of the pool. Which thread runs which part is unspecified.
/// Nested and concurrent calls run on the calling thread.
pub fn run(parts: usize, work: &Work<'_>) {
    // One pool per process, as the processors are.
    static WORKERS: OnceLock<&'static Workers> = OnceLock::new();
    let alone = || (0..parts).for_each(work);
    if parts <= 1 {
        return alone();
    }
    let workers = *WORKERS.get_or_init(|| Workers::start(rayon::current_num_threads() - 1));
    if workers.helpers.is_empty() || workers.taken.swap(true, Acquire) {
        return alone();
    }
    workers.lead(parts, work);
}

impl Workers {
    fn start(helpers: usize) -> &'static Self {
        let helper = |_| Helper {
            asleep: AtomicBool::new(false),
            thread: OnceLock::new(),
        };
        let workers: &'static Self = Box::leak(Box::new(Self {
            state: AtomicU64::new(0),
            work: UnsafeCell::new(None),
            next: AtomicUsize::new(0),
            taken: AtomicBool::new(false),
            panicked: AtomicBool::new(false),
            helpers: (0..helpers.min(u16::MAX.into())).map(helper).collect(),
        }));
        for helper in &workers.helpers {
            let named = thread::Builder::new().name("emu-workers".into());
            // If spawning fails, there are fewer helpers.
            if let Ok(handle) = named.spawn(move || workers.help(helper)) {
                let _ = helper.thread.set(handle.thread().clone());
            }
        }
        workers
    }

    /// Publishes the work, does its share, and returns when all parts are done. The caller holds `taken`, which is released.
    fn lead(&self, parts: usize, work: &Work<'_>) {
        /// Closes the work and waits for the helpers, even if the work panics.
        struct Close<'a>(&'a Workers);
        impl Drop for Close<'_> {
            fn drop(&mut self) {
                let workers = self.0;
                workers.state.fetch_and(!OPEN, AcqRel);
                let mut looks = 0;
                while workers.state.load(Acquire) & (OPEN - 1) != 0 {
                    wait(&mut looks);
                }
                workers.taken.store(false, Release);
            }
        }

        // SAFETY: only the lifetime changes. `Close` keeps the closure borrowed until no helper uses it.
        let shared = unsafe { std::mem::transmute::<*const Work<'_>, *const Work<'static>>(work) };
        // SAFETY: closed and without helpers, and this thread holds `taken`.
        unsafe { *self.work.get() = Some((shared, parts)) };
        self.next.store(0, Relaxed);
        self.panicked.store(false, Relaxed);
        let before = self.state.load(Relaxed);
        self.state.store(
            (before & !(GENERATION - 1)).wrapping_add(GENERATION) | OPEN,
            SeqCst,
        );
        let close = Close(self);
        for helper in self.helpers.iter().take(parts - 1) {
            if helper.asleep.load(SeqCst)
                && let Some(thread) = helper.thread.get()
            {
                thread.unpark();
            }
        }
        self.share(work, parts);
        drop(close);
        assert!(
            !self.panicked.load(Relaxed),
            "a thread panicked in its share"
        );
    }

    fn share(&self, work: &Work<'_>, parts: usize) {
        loop {
            let part = self.next.fetch_add(1, Relaxed);
            if part >= parts {
                return;
            }
            work(part);
        }
    }

    fn help(&self, own: &Helper) {
        let mut seen = 0;
        loop {
            let state = self.look(seen, own);
            seen = state / GENERATION;
            let enter = (state & OPEN != 0).then(|| {
                self.state
                    .compare_exchange(state, state + 1, AcqRel, Relaxed)
            });
            match enter {
                Some(Ok(_)) => {}
                // Another helper joined or left: the work may still be open.
                Some(Err(now)) if now / GENERATION == seen && now & OPEN != 0 => {
                    seen = seen.wrapping_sub(1);
                    continue;
                }
                _ => continue,
            }
            // SAFETY: joined while open, so the work stays valid until this thread leaves.
            if let Some((work, parts)) = unsafe { *self.work.get() } {
                // SAFETY: as above.
                let work = unsafe { &*work };
                if catch_unwind(AssertUnwindSafe(|| self.share(work, parts))).is_err() {
                    self.panicked.store(true, Relaxed);
                }
            }
            self.state.fetch_sub(1, AcqRel);
        }
    }

    /// Waits for a generation other than `seen`.
    fn look(&self, seen: u64, own: &Helper) -> u64 {
        let (mut looks, mut since) = (0, None);
        loop {
            let state = self.state.load(Acquire);
            if state / GENERATION != seen {
                return state;
            }
            wait(&mut looks);
            if looks < LOOKS {
                continue;
            }
            if since.get_or_insert_with(Instant::now).elapsed() < AWAKE {
                continue;
            }
            own.asleep.store(true, SeqCst);
            // A leader that publishes work after this line sees `asleep`; work published before is seen here.
            if self.state.load(SeqCst) / GENERATION == seen {
                thread::park();
            }
            own.asleep.store(false, SeqCst);
            (looks, since) = (0, None);
        }
    }
}

/// Waits briefly: spins for the first [`LOOKS`] calls, then yields.
fn wait(looks: &mut u32) {
    if *looks < LOOKS {
        *looks += 1;
        std::hint::spin_loop();
    } else {
        thread::yield_now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_is_done_once() {
        for parts in [0, 1, 2, 3, 17, 1000] {
            for _ in 0..50 {
                let done: Vec<AtomicUsize> = (0..parts).map(|_| AtomicUsize::new(0)).collect();
                run(parts, &|i| {
                    done[i].fetch_add(1, Relaxed);
                });
                assert!(done.iter().all(|d| d.load(Relaxed) == 1), "{parts}");
            }
        }
    }

    #[test]
    fn work_within_work_and_from_many_threads_is_done() {
        let total = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        run(5, &|_| {
                            run(3, &|_| {
                                total.fetch_add(1, Relaxed);
                            });
                        });
                    }
                });
            }
        });
        assert_eq!(total.load(Relaxed), 4 * 200 * 15);
    }

    #[test]
    fn a_panic_reaches_who_asked_and_the_next_work_is_done() {
        for part in [0, 1] {
            let caught = catch_unwind(|| {
                run(2, &|i| {
                    thread::sleep(Duration::from_millis(2));
                    assert!(i != part, "on purpose");
                });
            });
            assert!(caught.is_err());
        }
        let total = AtomicUsize::new(0);
        run(9, &|_| {
            total.fetch_add(1, Relaxed);
        });
        assert_eq!(total.load(Relaxed), 9);
    }

    /// Stress test: all kinds of work from several threads, with pauses in which helpers fall asleep. Borrowed data stays valid
    /// until all parts are done, and no helper reads it later.
    #[test]
    fn whatever_comes_together_is_done_once_and_left_alone_after() {
        const THERE: usize = 0x5eed;
        let rounds = |seed: u64| {
            let mut state = seed;
            let mut random = |below: u64| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(seed | 1);
                (state >> 33) % below
            };
            for round in 0..400 {
                let parts = random(24) as usize;
                let panics = (random(64) == 0).then(|| random(24) as usize);
                let nested = random(5) == 0;
                let done: Vec<AtomicUsize> = (0..parts).map(|_| AtomicUsize::new(0)).collect();
                let there = Box::new(AtomicUsize::new(THERE));
                let work = |i: usize| {
                    assert_eq!(there.load(Relaxed), THERE, "it is over");
                    if nested {
                        run(2, &|_| assert_eq!(there.load(Relaxed), THERE, "it is over"));
                    }
                    (0..i % 7 * 20).for_each(|_| std::hint::spin_loop());
                    done[i].fetch_add(1, Relaxed);
                    assert!(panics != Some(i), "on purpose");
                };
                let ended = catch_unwind(AssertUnwindSafe(|| run(parts, &work)));
                there.store(0, Relaxed);
                let most = done.iter().map(|done| done.load(Relaxed)).max();
                assert!(most.unwrap_or(0) <= 1, "{parts} parts in round {round}");
                match panics.filter(|part| *part < parts) {
                    Some(_) => assert!(ended.is_err()),
                    None => {
                        assert!(ended.is_ok());
                        let all = done.iter().all(|done| done.load(Relaxed) == 1);
                        assert!(all, "{parts} parts in round {round}");
                    }
                }
                if random(50) == 0 {
                    thread::sleep(AWAKE * 2);
                }
            }
        };
        let rounds = &rounds;
        thread::scope(|scope| {
            (1..4).for_each(|seed| drop(scope.spawn(move || rounds(seed))));
        });
    }

    #[test]
    fn sleepers_are_woken() {
        for _ in 0..20 {
            thread::sleep(AWAKE * 4);
            let done = AtomicUsize::new(0);
            run(4, &|_| {
                done.fetch_add(1, Relaxed);
            });
            assert_eq!(done.load(Relaxed), 4);
        }
    }
}
