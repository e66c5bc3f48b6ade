//! Cost counters that do not depend on the machine: kernel launches, bytes of weights read, read-backs.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

static WEIGHT_BYTES: AtomicU64 = AtomicU64::new(0);

/// Adds the bytes of weights that a matrix product reads.
pub(crate) fn weights_read(bytes: u64) {
    WEIGHT_BYTES.fetch_add(bytes, Ordering::Relaxed);
}

/// Bytes of weights read by matrix products so far, in this process.
pub fn weight_bytes() -> u64 {
    WEIGHT_BYTES.load(Ordering::Relaxed)
}

static READS: AtomicU64 = AtomicU64::new(0);
static READ_BYTES: AtomicU64 = AtomicU64::new(0);

/// Counts a read-back of `bytes` bytes.
pub fn read_back(bytes: usize) {
    batch(Batch::read);
    READS.fetch_add(1, Ordering::Relaxed);
    READ_BYTES.fetch_add(bytes as u64, Ordering::Relaxed);
}

/// Read-backs so far, in this process, and their bytes.
pub fn reads() -> (u64, u64) {
    let [reads, bytes] = [&READS, &READ_BYTES].map(|count| count.load(Ordering::Relaxed));
    (reads, bytes)
}

/// Model of the GPU's submission queue.
///
/// Neither the runtime nor wgpu reports submissions, so they are derived from what triggers them: the runtime submits a batch
/// of [`crate::device::LAUNCHES`] launches, or earlier where a recording, an upload or a read-back must follow them.
/// `tests/submits.rs` compares this with wgpu's own numbers.
#[derive(Debug)]
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

static BATCH: Mutex<Batch> = Mutex::new(Batch {
    waiting: 0,
    submits: 0,
});

fn batch(change: impl FnOnce(&mut Batch)) {
    change(&mut BATCH.lock().unwrap_or_else(PoisonError::into_inner));
}

/// Notes that pending launches are submitted: the host waits for them, or uploads data that must not overtake them.
pub fn flushed() {
    batch(Batch::flushed);
}

/// Submissions to GPUs so far, in this process. Only launches seen by a [`Launches`] count.
pub fn submits() -> u64 {
    let mut submits = 0;
    batch(|batch| submits = batch.submits);
    submits
}

/// Launches made by replays of recordings.
static REPLAYED: AtomicU64 = AtomicU64::new(0);

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
    weight_bytes: u64,
}

impl Counting {
    pub fn start() -> Self {
        Self {
            #[cfg(feature = "wgpu")]
            launches: Launches::recorded(),
            weight_bytes: weight_bytes(),
        }
    }

    pub fn spent(&self) -> Cost {
        Cost {
            #[cfg(feature = "wgpu")]
            launches: self.launches.total(),
            #[cfg(not(feature = "wgpu"))]
            launches: 0,
            weight_bytes: weight_bytes() - self.weight_bytes,
        }
    }
}

/// Notes a replay of a recording: the first (`fresh`) or a later one. Weight bytes of the first replay were counted while
/// recording; launches were not, since recording launches nothing.
pub(crate) fn replayed(cost: &Cost, fresh: bool) {
    REPLAYED.fetch_add(cost.launches, Ordering::Relaxed);
    batch(|batch| {
        // Pending launches are submitted before a replay.
        batch.flushed();
        batch.launched(cost.launches);
    });
    if !fresh {
        WEIGHT_BYTES.fetch_add(cost.weight_bytes, Ordering::Relaxed);
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

    use super::{AtomicU64, Ordering, REPLAYED, batch};

    #[derive(Default)]
    struct Seen {
        launches: Mutex<BTreeMap<&'static str, u64>>,
        /// Whether these launches are only recorded.
        recorded: bool,
    }

    impl LaunchObserver for Seen {
        fn launched(&self, kernel: &'static str) {
            let launches = self.launches.lock();
            let mut launches = launches.unwrap_or_else(PoisonError::into_inner);
            *launches.entry(kernel).or_default() += 1;
            if !self.recorded {
                batch(|batch| batch.launched(1));
            }
        }
    }

    /// Counts every launch of the process until dropped.
    pub struct Launches {
        seen: Arc<Seen>,
        replayed: u64,
        _observation: LaunchObservation,
    }

    impl Launches {
        /// Starts counting.
        pub fn watch() -> Self {
            Self::of(false)
        }

        /// Starts counting recorded launches. An outer `Launches` does not see them: the runtime has one observer.
        pub(super) fn recorded() -> Self {
            Self::of(true)
        }

        fn of(recorded: bool) -> Self {
            let seen = Arc::new(Seen {
                recorded,
                ..Default::default()
            });
            Self {
                _observation: LaunchObservation::new(seen.clone()),
                seen,
                replayed: REPLAYED.load(Ordering::Relaxed),
            }
        }

        /// Launches so far, by kernel name. Launches of replays are summed under one name.
        pub fn by_kernel(&self) -> BTreeMap<&'static str, u64> {
            let seen = self.seen.launches.lock();
            let mut seen = seen.unwrap_or_else(PoisonError::into_inner).clone();
            let replayed = REPLAYED.load(Ordering::Relaxed) - self.replayed;
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
        let mut batch = Batch {
            waiting: 0,
            submits: 0,
        };
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
}
