//! What running costs, in counts that hold on any machine: launches of kernels, bytes of weights that were read, results
//! that were asked for.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

static WEIGHT_BYTES: AtomicU64 = AtomicU64::new(0);

/// Notes that a product reads this many bytes of weights.
pub(crate) fn weights_read(bytes: u64) {
    WEIGHT_BYTES.fetch_add(bytes, Ordering::Relaxed);
}

/// Bytes of weights that products have read so far, in this process.
pub fn weight_bytes() -> u64 {
    WEIGHT_BYTES.load(Ordering::Relaxed)
}

static READS: AtomicU64 = AtomicU64::new(0);
static READ_BYTES: AtomicU64 = AtomicU64::new(0);

/// Notes that a result of so many bytes was asked of the device.
pub fn read_back(bytes: usize) {
    batch(Batch::read);
    READS.fetch_add(1, Ordering::Relaxed);
    READ_BYTES.fetch_add(bytes as u64, Ordering::Relaxed);
}

/// Results asked of devices so far, in this process, and their bytes.
pub fn reads() -> (u64, u64) {
    let [reads, bytes] = [&READS, &READ_BYTES].map(|count| count.load(Ordering::Relaxed));
    (reads, bytes)
}

/// What goes to a GPU's queue at once.
///
/// Neither the runtime nor wgpu says how often it submits. So it is counted by what makes the runtime submit: launches come in
/// batches of [`crate::device::LAUNCHES`], which end early where a recording or something else has to come behind them. `tests/submits.rs` compares
/// this with the numbers that wgpu gives.
#[derive(Debug)]
struct Batch {
    /// Launches that wait.
    waiting: u64,
    submits: u64,
}

impl Batch {
    fn launched(&mut self, launches: u64) {
        let all = self.waiting + launches;
        self.submits += all / LAUNCHES;
        self.waiting = all % LAUNCHES;
    }

    /// What waits is submitted.
    fn flushed(&mut self) {
        self.submits += u64::from(self.waiting > 0);
        self.waiting = 0;
    }

    /// What waits is submitted, then the copy of a result.
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

/// Notes that a GPU is given what was launched so far: it is waited for, or something is uploaded, which must not overtake
/// what was launched.
pub fn flushed() {
    batch(Batch::flushed);
}

/// Submissions to GPUs so far, in this process, as far as a [`Launches`] watched.
pub fn submits() -> u64 {
    let mut submits = 0;
    batch(|batch| submits = batch.submits);
    submits
}

/// Launches of recordings that ran again.
static REPLAYED: AtomicU64 = AtomicU64::new(0);

/// What a recording costs each time it runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cost {
    launches: u64,
    weight_bytes: u64,
}

/// Counts what is recorded while it lives.
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

/// Notes that a recording ran, for the first time (`fresh`) or again. What its products read was counted as they were
/// recorded; launches were not, since none was made.
pub(crate) fn replayed(cost: &Cost, fresh: bool) {
    REPLAYED.fetch_add(cost.launches, Ordering::Relaxed);
    batch(|batch| {
        // What waits is submitted before a recording runs.
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
        /// Whether they are only recorded.
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

    /// Counts every launch of the process while it lives.
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

        /// Starts counting what is only recorded. Whoever counts launches does not see it.
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

        /// Launches so far, by the kernel's name. Those of a recording have one name.
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

    /// The most bytes of tensors that a device holds at once, seen before each launch while it lives: those that rest there
    /// and those in between. Launches of recordings that run again use the memory that they were recorded with.
    pub struct LiveBytes {
        sampled: Arc<Sampled>,
        _observation: LaunchObservation,
    }

    impl LiveBytes {
        /// Starts sampling, which costs every launch a question to the device's memory.
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

        /// Most bytes so far; 0 where the device does not count them.
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
