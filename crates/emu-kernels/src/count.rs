//! Cost counters that do not depend on the machine: kernel launches, bytes of weights read, read-backs, submissions.
//!
//! Counts belong to a [`Meter`]. A thread's work counts for the meters that have a scope open on it. A thread-local tells which
//! these are, since a kernel knows neither its model nor who measures it; nothing else is shared. Without an open scope nothing
//! is counted.

use core::cell::RefCell;
use core::marker::PhantomData;
use core::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Counters of whoever measures. Clones share the counts.
#[derive(Clone, Debug, Default)]
pub struct Meter(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    weight_bytes: AtomicU64,
    reads: AtomicU64,
    read_bytes: AtomicU64,
    /// Launches made by replays of recordings.
    #[cfg_attr(not(feature = "wgpu"), allow(dead_code))]
    replayed: AtomicU64,
    batch: Mutex<Batch>,
}

thread_local! {
    /// The meters with an open scope on this thread, the innermost last.
    static OPEN: RefCell<Vec<Meter>> = const { RefCell::new(Vec::new()) };
}

impl Meter {
    /// Opens a scope: until it is dropped, this thread's work counts for the meter. A scope inside another one of the same
    /// meter changes nothing.
    pub fn scope(&self) -> MeterScope {
        let opened = OPEN.with_borrow_mut(|open| {
            let new = !open.iter().any(|other| other.is(self));
            if new {
                open.push(self.clone());
            }
            new
        });
        MeterScope {
            meter: opened.then(|| self.clone()),
            thread: PhantomData,
        }
    }

    /// Runs `work` in scopes of the meter, one for each poll: what other futures of this thread do meanwhile does not count.
    pub async fn during<F: Future>(&self, work: F) -> F::Output {
        let mut work = pin!(work);
        core::future::poll_fn(|context| {
            let _scope = self.scope();
            work.as_mut().poll(context)
        })
        .await
    }

    /// Bytes of weights read by matrix products so far.
    pub fn weight_bytes(&self) -> u64 {
        self.0.weight_bytes.load(Ordering::Relaxed)
    }

    /// Read-backs so far, and their bytes.
    pub fn reads(&self) -> (u64, u64) {
        let counts = [&self.0.reads, &self.0.read_bytes];
        counts.map(|count| count.load(Ordering::Relaxed)).into()
    }

    /// Submissions to GPUs so far, derived from launches that were observed: those of a [`Launches`] only.
    pub fn submits(&self) -> u64 {
        self.0.batch().submits
    }

    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Counts {
    fn batch(&self) -> std::sync::MutexGuard<'_, Batch> {
        self.batch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// While it lives, the work of its thread counts for a meter.
#[must_use = "a scope ends when it is dropped"]
#[derive(Debug)]
pub struct MeterScope {
    /// `None` inside another scope of the same meter.
    meter: Option<Meter>,
    /// Dropped on the thread that opened it.
    thread: PhantomData<*const ()>,
}

impl Drop for MeterScope {
    fn drop(&mut self) {
        let Some(meter) = self.meter.take() else {
            return;
        };
        OPEN.with_borrow_mut(|open| open.retain(|other| !other.is(&meter)));
    }
}

/// Counts for every meter that has a scope open on this thread.
fn each(count: impl Fn(&Counts)) {
    OPEN.with_borrow(|open| open.iter().for_each(|meter| count(&meter.0)));
}

/// Counts the bytes of weights that a matrix product reads.
pub(crate) fn weights_read(bytes: u64) {
    each(|counts| {
        counts.weight_bytes.fetch_add(bytes, Ordering::Relaxed);
    });
}

/// Counts a read-back of `bytes` bytes.
pub fn read_back(bytes: usize) {
    each(|counts| {
        counts.batch().read();
        counts.reads.fetch_add(1, Ordering::Relaxed);
        counts.read_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    });
}

/// Notes that pending launches are submitted: the host waits for them, or uploads data that must not overtake them.
pub fn flushed() {
    each(|counts| counts.batch().flushed());
}

/// Model of the GPU's submission queue.
///
/// Neither the runtime nor wgpu reports submissions, so they are derived from what triggers them: the runtime submits a batch
/// of [`crate::device::LAUNCHES`] launches, or earlier where a recording, an upload or a read-back must follow them.
/// `tests/submits.rs` compares this with wgpu's own numbers.
#[derive(Debug, Default)]
struct Batch {
    /// Launches not submitted yet.
    waiting: u64,
    submits: u64,
}

impl Batch {
    fn launched(&mut self, launches: u64) {
        let all = self.waiting + launches;
        self.submits += all / LAUNCHES;
        self.waiting = all % LAUNCHES;
    }

    /// Submits the pending launches.
    fn flushed(&mut self) {
        self.submits += u64::from(self.waiting > 0);
        self.waiting = 0;
    }

    /// Submits the pending launches, then the copy of a read-back.
    fn read(&mut self) {
        self.flushed();
        self.submits += 1;
    }
}

const LAUNCHES: u64 = crate::device::LAUNCHES as u64;

/// Cost of one replay of a recording.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cost {
    launches: u64,
    weight_bytes: u64,
}

/// Counts the cost of a recording, from its creation on.
pub(crate) struct Counting {
    #[cfg(feature = "wgpu")]
    launches: Launches,
    meter: Meter,
    _scope: MeterScope,
}

impl Counting {
    pub fn start() -> Self {
        let meter = Meter::default();
        Self {
            #[cfg(feature = "wgpu")]
            launches: Launches::recorded(meter.clone()),
            _scope: meter.scope(),
            meter,
        }
    }

    pub fn spent(&self) -> Cost {
        Cost {
            #[cfg(feature = "wgpu")]
            launches: self.launches.total(),
            #[cfg(not(feature = "wgpu"))]
            launches: 0,
            weight_bytes: self.meter.weight_bytes(),
        }
    }
}

/// Notes a replay of a recording: the first (`fresh`) or a later one. Weight bytes of the first replay were counted while
/// recording; launches were not, since recording launches nothing.
pub(crate) fn replayed(cost: &Cost, fresh: bool) {
    each(|counts| {
        counts.replayed.fetch_add(cost.launches, Ordering::Relaxed);
        let mut batch = counts.batch();
        // Pending launches are submitted before a replay.
        batch.flushed();
        batch.launched(cost.launches);
    });
    if !fresh {
        weights_read(cost.weight_bytes);
    }
}

#[cfg(feature = "wgpu")]
pub use launches::{Launches, LiveBytes};

#[cfg(feature = "wgpu")]
mod launches {
    use std::collections::BTreeMap;
    use std::sync::{Arc, Mutex, PoisonError};

    use burn::tensor::Device;
    use cubecl::logging::{LaunchObservation, LaunchObserver};

    use super::{AtomicU64, Meter, MeterScope, Ordering};

    struct Seen {
        launches: Mutex<BTreeMap<&'static str, u64>>,
        /// The meter whose submissions these launches are; `None` if they are only recorded.
        submitted: Option<Meter>,
    }

    impl LaunchObserver for Seen {
        fn launched(&self, kernel: &'static str) {
            let launches = self.launches.lock();
            let mut launches = launches.unwrap_or_else(PoisonError::into_inner);
            *launches.entry(kernel).or_default() += 1;
            if let Some(meter) = &self.submitted {
                meter.0.batch().launched(1);
            }
        }
    }

    /// Counts every launch of the process until dropped: the runtime has one observer, which learns neither device nor model
    /// (`logging/observer.rs` of cubecl-runtime 0.11.3). The other counts are of the thread that watches.
    pub struct Launches {
        seen: Arc<Seen>,
        meter: Meter,
        _scope: MeterScope,
        _observation: LaunchObservation,
    }

    impl Launches {
        /// Starts counting.
        pub fn watch() -> Self {
            let meter = Meter::default();
            Self::of(meter.clone(), Some(meter))
        }

        /// Starts counting recorded launches. An outer `Launches` does not see them: the runtime has one observer.
        pub(super) fn recorded(meter: Meter) -> Self {
            Self::of(meter, None)
        }

        fn of(meter: Meter, submitted: Option<Meter>) -> Self {
            let seen = Arc::new(Seen {
                launches: Mutex::default(),
                submitted,
            });
            Self {
                _observation: LaunchObservation::new(seen.clone()),
                _scope: meter.scope(),
                seen,
                meter,
            }
        }

        /// The other counts since the start: of weights, read-backs and submissions.
        pub fn meter(&self) -> &Meter {
            &self.meter
        }

        /// Launches so far, by kernel name. Launches of replays are summed under one name.
        pub fn by_kernel(&self) -> BTreeMap<&'static str, u64> {
            let seen = self.seen.launches.lock();
            let mut seen = seen.unwrap_or_else(PoisonError::into_inner).clone();
            let replayed = self.meter.0.replayed.load(Ordering::Relaxed);
            if replayed > 0 {
                seen.insert("replayed", replayed);
            }
            seen
        }

        /// Launches so far.
        pub fn total(&self) -> u64 {
            self.by_kernel().values().sum()
        }
    }

    struct Sampled {
        device: Device,
        most: AtomicU64,
    }

    impl Sampled {
        fn sample(&self) {
            let usage = self.device.memory_pool_usage();
            let bytes = usage.map_or(0, |usage| usage.bytes_in_use);
            self.most.fetch_max(bytes, Ordering::Relaxed);
        }
    }

    impl LaunchObserver for Sampled {
        fn launched(&self, _: &'static str) {
            self.sample();
        }
    }

    /// Peak bytes of live tensors on a device, parameters and intermediates alike, sampled before each launch until dropped.
    /// Replays reuse the memory that they were recorded with.
    pub struct LiveBytes {
        sampled: Arc<Sampled>,
        _observation: LaunchObservation,
    }

    impl LiveBytes {
        /// Starts sampling. Each launch then queries the device's memory usage.
        pub fn watch(device: &Device) -> Self {
            let sampled = Arc::new(Sampled {
                device: device.clone(),
                most: AtomicU64::new(0),
            });
            Self {
                _observation: LaunchObservation::new(sampled.clone()),
                sampled,
            }
        }

        /// Peak bytes so far; 0 where the device does not report memory usage.
        pub fn most(&self) -> u64 {
            self.sampled.sample();
            self.sampled.most.load(Ordering::Relaxed)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn launches_are_submitted_in_batches() {
        let mut batch = Batch::default();
        let mut counts = |change: &dyn Fn(&mut Batch)| {
            change(&mut batch);
            (batch.submits, batch.waiting)
        };
        assert_eq!(counts(&|batch| batch.launched(LAUNCHES - 1)), (0, 127));
        assert_eq!(counts(&|batch| batch.launched(1)), (1, 0));
        assert_eq!(counts(&|batch| batch.launched(2 * LAUNCHES + 5)), (3, 5));
        assert_eq!(counts(&Batch::flushed), (4, 0));
        assert_eq!(counts(&Batch::flushed), (4, 0), "nothing waits");
        assert_eq!(counts(&Batch::read), (5, 0), "the copy alone");
        counts(&|batch| batch.launched(1));
        assert_eq!(counts(&Batch::read), (7, 0), "a launch, then the copy");
    }

    #[test]
    fn work_counts_for_the_meters_that_are_open_on_its_thread() {
        let (outer, inner) = (Meter::default(), Meter::default());
        weights_read(1);
        let scope = outer.scope();
        weights_read(10);
        {
            let _again = outer.scope();
            let _inner = inner.scope();
            weights_read(100);
            std::thread::scope(|threads| {
                threads.spawn(|| weights_read(1_000));
            });
            read_back(8);
        }
        weights_read(10_000);
        drop(scope);
        weights_read(100_000);
        assert_eq!(outer.weight_bytes(), 10_110);
        assert_eq!(inner.weight_bytes(), 100);
        assert_eq!((outer.reads(), inner.reads()), ((1, 8), (1, 8)));
        assert_eq!((outer.submits(), inner.submits()), (1, 1));
    }

    #[test]
    fn futures_that_take_turns_count_apart() {
        use core::future::poll_fn;
        use core::task::{Context, Poll, Waker};

        let meters = [Meter::default(), Meter::default()];
        // Reads weights in each of three polls.
        let work = |bytes: u64| {
            let mut polls = 0;
            poll_fn(move |_| {
                weights_read(bytes);
                polls += 1;
                if polls == 3 {
                    Poll::Ready(())
                } else {
                    Poll::Pending
                }
            })
        };
        let mut first = pin!(meters[0].during(work(1)));
        let mut second = pin!(meters[1].during(work(10)));
        let mut context = Context::from_waker(Waker::noop());
        for poll in 1..=3 {
            let ready = poll == 3;
            assert_eq!(first.as_mut().poll(&mut context).is_ready(), ready);
            assert_eq!(second.as_mut().poll(&mut context).is_ready(), ready);
        }
        assert_eq!(meters.each_ref().map(Meter::weight_bytes), [3, 30]);
    }

    #[test]
    fn replays_count_weights_from_the_second_on() {
        let meter = Meter::default();
        let _scope = meter.scope();
        let cost = Cost {
            launches: 2 * LAUNCHES,
            weight_bytes: 7,
        };
        replayed(&cost, true);
        assert_eq!(meter.weight_bytes(), 0, "counted while recording");
        replayed(&cost, false);
        assert_eq!((meter.weight_bytes(), meter.submits()), (7, 4));
    }
}
